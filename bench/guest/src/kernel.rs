//! Kernels to boot: what a user may write after `--kernel`, and what is known of each before it runs.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::debian;
use crate::error::{GuestError, IoContext};

/// Where an x86 boot image says what it is (Documentation/arch/x86/boot.rst).
const HEADER_MAGIC: usize = 0x202;
const HEADER_VERSION_POINTER: usize = 0x20e;
const HEADER_VERSION_BASE: usize = 0x200;

/// A kernel as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSpec {
    /// The kernel package of a Debian suite, such as `debian:bookworm`.
    Debian {
        /// The suite's name.
        suite: String,
    },
    /// A boot image on this machine.
    Image {
        /// The bzImage or vmlinuz.
        image: PathBuf,
        /// Its modules (the directory with `modules.dep`); by default looked for by release.
        modules: Option<PathBuf>,
    },
}

/// A kernel that can be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The name its user gave it, for tables and messages.
    pub name: String,
    /// The boot image.
    pub image: PathBuf,
    /// What `uname -r` will say.
    pub release: String,
    /// The directory with its modules and `modules.dep`; none if everything is built in.
    pub modules: Option<PathBuf>,
}

impl KernelSpec {
    /// Reads what was given after `--kernel`. Nothing is fetched or opened yet.
    pub fn parse(spec: &str) -> Result<Self, GuestError> {
        let bad = |why: &str| GuestError::BadSpec {
            spec: spec.to_owned(),
            why: why.to_owned(),
        };
        if let Some(suite) = spec.strip_prefix("debian:") {
            let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
            if suite.is_empty() || !suite.chars().all(known) {
                return Err(bad("a suite is one lower-case word"));
            }
            return Ok(Self::Debian {
                suite: suite.to_owned(),
            });
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

    /// Finds the kernel, fetching its package first where that is needed.
    pub fn resolve(&self) -> Result<Kernel, GuestError> {
        let machine = nix::sys::utsname::uname()
            .map_err(std::io::Error::from)
            .context("ask for", Path::new("uname"))?;
        let machine = machine.machine().to_string_lossy().into_owned();
        if machine != "x86_64" {
            return Err(GuestError::Architecture(machine));
        }
        match self {
            Self::Debian { suite } => debian::fetch(suite),
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

fn local(image: &Path, modules: Option<&Path>) -> Result<Kernel, GuestError> {
    let release = image_release(image)?;
    let modules = match modules {
        Some(dir) => Some(modules_dir(dir, &release)?),
        None => {
            let dir = Path::new("/lib/modules").join(&release);
            dir.is_dir().then_some(dir)
        }
    };
    if let Some(dir) = &modules {
        let list = dir.join("modules.dep");
        if !list.is_file() {
            return Err(GuestError::BadImage {
                path: image.to_owned(),
                why: format!("{} is missing: run depmod for {release}", list.display()),
            });
        }
    }
    Ok(Kernel {
        name: image.display().to_string(),
        image: image.to_owned(),
        release,
        modules,
    })
}

/// The directory itself, or the kernel's own below it (`…/lib/modules`, or a tree that has one).
fn modules_dir(dir: &Path, release: &str) -> Result<PathBuf, GuestError> {
    let below = [dir.join(release), dir.join("lib/modules").join(release)];
    if let Some(found) = below.into_iter().find(|candidate| candidate.is_dir()) {
        return Ok(found);
    }
    std::fs::read_dir(dir).context("read the modules directory", dir)?;
    Ok(dir.to_owned())
}

/// The release that an x86 boot image carries in its header.
pub(crate) fn image_release(image: &Path) -> Result<String, GuestError> {
    let mut head = Vec::new();
    let file = File::open(image).context("open the kernel", image)?;
    // The version's pointer has 16 bits.
    file.take(0x2_0000)
        .read_to_end(&mut head)
        .context("read the kernel", image)?;
    let bad = |why: &str| GuestError::BadImage {
        path: image.to_owned(),
        why: why.to_owned(),
    };
    if head.starts_with(b"\x7fELF") {
        return Err(bad(
            "it is an ELF file; give the bzImage or vmlinuz that was built beside it",
        ));
    }
    if head.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS") {
        return Err(bad("it is no x86 boot image (bzImage or vmlinuz)"));
    }
    let pointer = [
        head[HEADER_VERSION_POINTER],
        head[HEADER_VERSION_POINTER + 1],
    ];
    let start = HEADER_VERSION_BASE + usize::from(u16::from_le_bytes(pointer));
    let text = head.get(start..).ok_or_else(|| bad("it is truncated"))?;
    let release: Vec<u8> = text
        .iter()
        .copied()
        .take(256)
        .take_while(u8::is_ascii_graphic)
        .collect();
    match String::from_utf8(release) {
        Ok(release) if !release.is_empty() && start != HEADER_VERSION_BASE => Ok(release),
        _ => Err(bad("its header names no release")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// The head of a boot image.
    pub(crate) fn boot_image(release: &str) -> Vec<u8> {
        let mut bytes = vec![0_u8; 0x1000];
        bytes[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        bytes[HEADER_VERSION_POINTER..HEADER_VERSION_POINTER + 2]
            .copy_from_slice(&0x700_u16.to_le_bytes());
        bytes[0x900..0x900 + release.len()].copy_from_slice(release.as_bytes());
        bytes
    }

    #[test]
    fn specs() {
        let suite = |s: &str| KernelSpec::Debian {
            suite: s.to_owned(),
        };
        assert_eq!(
            KernelSpec::parse("debian:bullseye").ok(),
            Some(suite("bullseye"))
        );
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
            "x:",
            ":y",
        ] {
            assert!(KernelSpec::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn release_is_read_from_the_header() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("vmlinuz");
        fs::write(&path, boot_image("5.10.0-9-amd64 (someone) #1 SMP")).expect("write");
        assert_eq!(image_release(&path).expect("release"), "5.10.0-9-amd64");

        for (bytes, why) in [
            (b"\x7fELF".to_vec(), "ELF"),
            (b"text".to_vec(), "no x86 boot image"),
            (boot_image("")[..0x300].to_vec(), "truncated"),
            (boot_image(""), "names no release"),
        ] {
            fs::write(&path, bytes).expect("write");
            let error = image_release(&path).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn modules_without_a_list_say_depmod() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("vmlinuz");
        fs::write(&path, boot_image("6.1.0-x")).expect("write");
        let modules = dir.path().join("lib/modules/6.1.0-x");
        fs::create_dir_all(&modules).expect("mkdir");
        let error = local(&path, Some(dir.path()))
            .expect_err("no modules.dep")
            .to_string();
        assert!(error.contains("depmod"), "{error}");
        fs::write(modules.join("modules.dep"), "").expect("write");
        let kernel = local(&path, Some(dir.path())).expect("kernel");
        assert_eq!(kernel.modules, Some(modules));
    }
}
