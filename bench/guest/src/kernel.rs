//! Kernels to boot: what a user may write after `--kernel`, and what is known of each before it runs.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::cache;
use crate::debian::DebianKernel;
use crate::error::{GuestError, IoContext};
use crate::image;
use crate::modules::ModuleIndex;
use crate::modules_dir;
use crate::qemu;
use crate::uml;

/// Before a suite's name.
pub(crate) const DEBIAN: &str = "debian:";

/// A kernel as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSpec {
    /// A kernel package of a Debian suite, such as `debian:bookworm`.
    Debian(DebianKernel),
    /// A boot image or a user-mode-linux program on this machine.
    Image {
        /// The bzImage, vmlinuz or linux.uml.
        image: PathBuf,
        /// Its modules (their directory, or one above it); by default looked for by release.
        modules: Option<PathBuf>,
    },
}

/// What a kernel runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machinery {
    /// A PC, under QEMU.
    Pc,
    /// This machine's kernel: it is a user-mode-linux program.
    UserMode,
}

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The name its user gave it, for tables and messages.
    pub name: String,
    /// The boot image, or the program.
    pub image: PathBuf,
    /// What it runs on.
    pub machinery: Machinery,
    /// What `uname -r` will say.
    pub release: String,
    /// Its modules; none if everything is built in, or none were given.
    pub modules: Option<ModuleIndex>,
}

impl KernelSpec {
    /// Reads what was given after `--kernel`. Nothing is fetched or opened yet.
    pub fn parse(spec: &str) -> Result<Self, GuestError> {
        let bad = |why: &str| GuestError::BadSpec {
            spec: spec.to_owned(),
            why: why.to_owned(),
        };
        if let Some(suite) = spec.strip_prefix(DEBIAN) {
            return DebianKernel::parse(suite).map(Self::Debian).map_err(bad);
        }
        let (image, modules) = match spec.split_once(':') {
            Some((_, "")) => return Err(bad("the modules directory after ':' is empty")),
            Some((image, modules)) => (image, Some(PathBuf::from(modules))),
            None => (spec, None),
        };
        if image.is_empty() {
            return Err(bad("the path is empty"));
        }
        Ok(Self::Image {
            image: PathBuf::from(image),
            modules,
        })
    }

    /// Finds the kernel, fetching its package first where that is needed. What booting it takes is looked
    /// for before anything is fetched.
    pub fn resolve(&self) -> Result<Kernel, GuestError> {
        let machine = nix::sys::utsname::uname()
            .map_err(std::io::Error::from)
            .context("ask for", Path::new("uname"))?;
        let machine = machine.machine().to_string_lossy().into_owned();
        if machine != "x86_64" {
            return Err(GuestError::Architecture(machine));
        }
        match self {
            Self::Debian(kernel) => {
                if !kernel.user_mode {
                    qemu::find()?;
                }
                cache::fetch(self)
            }
            Self::Image { image, modules } => local(image, modules.as_deref()),
        }
    }
}

impl FromStr for KernelSpec {
    type Err = GuestError;

    fn from_str(spec: &str) -> Result<Self, GuestError> {
        Self::parse(spec)
    }
}

pub(crate) fn local(image: &Path, modules: Option<&Path>) -> Result<Kernel, GuestError> {
    let (machinery, release, installed) = match uml::release(image)? {
        Some(release) => {
            let installed = uml::modules_dir(image, &release);
            (Machinery::UserMode, release, installed)
        }
        None => {
            let release = image::release(image)?;
            qemu::find()?;
            let installed = Path::new("/lib/modules").join(&release);
            (
                Machinery::Pc,
                release,
                installed.is_dir().then_some(installed),
            )
        }
    };
    let dir = modules.or(installed.as_deref());
    Ok(Kernel {
        name: image.display().to_string(),
        image: image.to_owned(),
        machinery,
        modules: dir
            .map(|dir| modules_dir::index(dir, &release))
            .transpose()?,
        release,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::boot_image;
    use std::fs;

    #[test]
    fn specs() {
        for (spec, user_mode) in [
            ("debian:bullseye", false),
            ("debian:bullseye/user-mode-linux", true),
        ] {
            let kernel = DebianKernel {
                suite: "bullseye".to_owned(),
                user_mode,
            };
            assert_eq!(kernel.to_string(), spec);
            assert_eq!(
                KernelSpec::parse(spec).ok(),
                Some(KernelSpec::Debian(kernel))
            );
        }
        let image = |image: &str, modules: Option<&str>| KernelSpec::Image {
            image: image.into(),
            modules: modules.map(PathBuf::from),
        };
        assert_eq!(
            KernelSpec::parse("/boot/vmlinuz").ok(),
            Some(image("/boot/vmlinuz", None))
        );
        assert_eq!(KernelSpec::parse("a:b").ok(), Some(image("a", Some("b"))));
        for bad in [
            "",
            "debian:",
            "debian:Book Worm",
            "debian:../etc",
            "debian:bookworm/",
            "debian:bookworm/linux",
            "debian:/user-mode-linux",
            "x:",
            ":y",
        ] {
            assert!(KernelSpec::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_kernel_comes_with_its_modules_or_not_at_all() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("vmlinuz");
        fs::write(&path, boot_image("6.1.0-x")).expect("write");
        assert_eq!(local(&path, None).expect("kernel").modules, None);
        assert!(local(&path, Some(dir.path())).is_err());
        let modules = dir.path().join("lib/modules/6.1.0-x");
        fs::create_dir_all(&modules).expect("mkdir");
        fs::write(modules.join("modules.dep"), "").expect("write");
        let kernel = local(&path, Some(dir.path())).expect("kernel");
        assert!(kernel.modules.is_some() && kernel.release == "6.1.0-x");
    }
}
