//! `debian:SUITE` and `debian:SUITE/user-mode-linux`: a kernel package of the suite, fetched with apt from this machine's own mirror. apt gets a private state, so neither the system's package lists nor its packages are touched,
//! and root is not needed; it verifies signatures as it always does.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User, chown};

use crate::error::{GuestError, IoContext};
use crate::host;
use crate::image;
use crate::kernel::{self, DEBIAN, Kernel, Machinery};
use crate::modules_dir;
use crate::sources::{Mirrors, debian_keyring};

const ETC_APT: &str = "/etc/apt";
/// The package with a kernel that is a program, and where that is in it.
const USER_MODE: &str = "user-mode-linux";
const UML_PROGRAM: &str = "usr/bin/linux.uml";
const ARCHITECTURE: &str = "amd64";
/// The package that always depends on the suite's current kernel.
const META_PACKAGE: &str = "linux-image-amd64";
/// The packages that hold the kernel itself; what else it depends on is of no use in a guest.
const KERNEL_PACKAGES: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];
/// A dependency chain longer than this is not a kernel's.
const MAX_PACKAGES: usize = 8;

/// Which kernel of which suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianKernel {
    /// The suite's name.
    pub suite: String,
    /// The one of the package user-mode-linux, not the suite's own.
    pub user_mode: bool,
}

impl DebianKernel {
    /// Reads `SUITE` or `SUITE/user-mode-linux`; else what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (suite, package) = text
            .split_once('/')
            .map_or((text, None), |(suite, package)| (suite, Some(package)));
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if suite.is_empty() || !suite.chars().all(known) {
            return Err("a suite is one lower-case word");
        }
        if package.is_some_and(|package| package != USER_MODE) {
            return Err("after a suite there is only /user-mode-linux");
        }
        Ok(Self {
            suite: suite.to_owned(),
            user_mode: package.is_some(),
        })
    }
}

impl fmt::Display for DebianKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{DEBIAN}{}", self.suite)?;
        if self.user_mode {
            write!(f, "/{USER_MODE}")?;
        }
        Ok(())
    }
}

/// Unpacks the kernel's packages into `tree`, and indexes the modules of a suite's own.
pub(crate) fn download(kernel: &DebianKernel, tree: &Path) -> Result<(), GuestError> {
    let suite = &kernel.suite;
    let purpose = "a Debian kernel is fetched with it";
    let package = "apt, or give --kernel a path";
    let dpkg_deb = host::require(
        "dpkg-deb",
        "a Debian kernel is unpacked with it",
        "dpkg, or give --kernel a path",
    )?;
    let apt = Apt::new(
        suite,
        host::require("apt-get", purpose, package)?,
        host::require("apt-cache", purpose, package)?,
    )?;
    let update = apt.update();
    let found = if kernel.user_mode {
        apt.show(USER_MODE).map(|_| vec![USER_MODE.to_owned()])
    } else {
        apt.kernel_packages()
    };
    let packages = found.map_err(|error| match (error, update) {
        // The reason is the mirror's, not the search's.
        (GuestError::NoPackage { package, suite, .. }, said) => GuestError::NoPackage {
            package,
            suite,
            output: said,
        },
        (other, _) => other,
    })?;
    let archives = apt.download(&packages)?;
    fs::create_dir(tree).context("create", tree)?;
    for archive in archives {
        host::run(
            Command::new(&dpkg_deb)
                .arg("--extract")
                .arg(&archive)
                .arg(tree),
        )?;
    }
    if kernel.user_mode {
        return Ok(());
    }
    index_modules(tree)
}

/// apt with a state of its own, for one suite.
struct Apt {
    suite: String,
    get: PathBuf,
    cache: PathBuf,
    dir: tempfile::TempDir,
}

impl Apt {
    fn new(suite: &str, get: PathBuf, cache: PathBuf) -> Result<Self, GuestError> {
        let mirrors = Mirrors::read(Path::new(ETC_APT))?;
        if mirrors.is_empty() {
            return Err(GuestError::NoMirror {
                etc_apt: ETC_APT.into(),
                suite: suite.to_owned(),
            });
        }
        let keyring = debian_keyring()?;
        let dir = tempfile::Builder::new()
            .prefix("punchbench-apt-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir()
            .context("create a directory in", &std::env::temp_dir())?;
        let apt = Self {
            suite: suite.to_owned(),
            get,
            cache,
            dir,
        };
        for sub in [
            "state/lists/partial",
            "cache/archives/partial",
            "sources",
            "download",
        ] {
            let path = apt.path(sub);
            fs::create_dir_all(&path).context("create", &path)?;
        }
        // Run by root, apt hands downloads to this user, who must be able to write there.
        if Uid::effective().is_root()
            && let Ok(Some(user)) = User::from_name("_apt")
        {
            let path = apt.path("download");
            chown(&path, Some(user.uid), Some(user.gid)).context("give away", &path)?;
        }
        apt.write("state/status", "")?;
        apt.write(
            "sources/suite.sources",
            &mirrors.sources_for(suite, ARCHITECTURE, &keyring),
        )?;
        apt.write("apt.conf", &apt.configuration())?;
        Ok(apt)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), GuestError> {
        let path = self.path(name);
        fs::write(&path, text).context("write", &path)
    }

    /// Comes after the system's configuration: proxies and credentials stay, state and hooks do not.
    fn configuration(&self) -> String {
        let dir = self.dir.path().display();
        format!(
            "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n\
             Dir::State \"{dir}/state\";\nDir::State::status \"{dir}/state/status\";\n\
             Dir::Cache \"{dir}/cache\";\nDir::Etc::SourceList \"/dev/null\";\n\
             Dir::Etc::SourceParts \"{dir}/sources\";\nDir::Etc::Preferences \"/dev/null\";\n\
             Dir::Etc::PreferencesParts \"/dev/null\";\n\
             APT::Architecture \"{ARCHITECTURE}\";\n#clear APT::Architectures;\n\
             APT::Architectures:: \"{ARCHITECTURE}\";\n"
        )
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .arg("--config-file")
            .arg(self.path("apt.conf"))
            .arg("--quiet=2");
        command.current_dir(self.path("download"));
        command
    }

    /// Reads the package lists, and gives what apt said. Some mirrors lack some of a suite's parts
    /// (an old suite's updates), so a failure here is only one if the package is not found.
    fn update(&self) -> String {
        match host::output(self.command(&self.get).arg("update")) {
            Ok(said) => host::tail(&said),
            Err(error) => error.to_string(),
        }
    }

    /// The packages that together hold the kernel, found from the one that depends on them.
    fn kernel_packages(&self) -> Result<Vec<String>, GuestError> {
        let mut packages = vec![META_PACKAGE.to_owned()];
        let mut next = 0;
        while let Some(package) = packages.get(next).cloned() {
            let found = kernel_depends(&self.show(&package)?);
            if next == 0 && found.is_empty() {
                return Err(self.no_package(&package));
            }
            for name in found {
                if !packages.contains(&name) && packages.len() < MAX_PACKAGES {
                    packages.push(name);
                }
            }
            next += 1;
        }
        Ok(packages.split_off(1))
    }

    /// The control stanza of a package.
    fn show(&self, package: &str) -> Result<String, GuestError> {
        let words = ["show", "--no-all-versions", package];
        match host::output(self.command(&self.cache).args(words)) {
            Ok(control) => Ok(String::from_utf8_lossy(&control).into_owned()),
            Err(_) => Err(self.no_package(package)),
        }
    }

    fn no_package(&self, package: &str) -> GuestError {
        GuestError::NoPackage {
            package: package.to_owned(),
            suite: self.suite.clone(),
            output: String::new(),
        }
    }

    fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>, GuestError> {
        host::run(self.command(&self.get).arg("download").args(packages))?;
        let dir = self.path("download");
        let files = fs::read_dir(&dir)
            .context("read", &dir)?
            .flatten()
            .map(|entry| entry.path());
        Ok(files
            .filter(|path| path.extension().is_some_and(|e| e == "deb"))
            .collect())
    }
}

/// The kernel packages that a package's control stanza depends on.
fn kernel_depends(control: &str) -> Vec<String> {
    let depends = control.lines().filter_map(|line| {
        line.strip_prefix("Depends:")
            .or_else(|| line.strip_prefix("Pre-Depends:"))
    });
    let names = depends
        .flat_map(|list| list.split([',', '|']))
        .filter_map(|one| one.split_whitespace().next());
    names
        .map(|name| name.split(':').next().unwrap_or(name))
        .filter(|name| {
            KERNEL_PACKAGES
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
        .map(str::to_owned)
        .collect()
}

/// Packages leave the index of modules to the machine that installs them.
fn index_modules(tree: &Path) -> Result<(), GuestError> {
    let (usr, lib) = (tree.join("usr/lib/modules"), tree.join("lib"));
    if usr.is_dir() && !lib.exists() {
        std::os::unix::fs::symlink("usr/lib", &lib).context("link", &lib)?;
    }
    let modules = tree.join("lib/modules");
    for entry in fs::read_dir(&modules).context("read", &modules)?.flatten() {
        if !entry.path().join("modules.dep").exists() {
            modules_dir::depmod(tree, &entry.file_name().to_string_lossy())?;
        }
    }
    Ok(())
}

/// The kernel in an unpacked package.
pub(crate) fn find_kernel(kernel: &DebianKernel, tree: &Path) -> Result<Kernel, GuestError> {
    let name = kernel.to_string();
    if kernel.user_mode {
        let program = kernel::local(&tree.join(UML_PROGRAM), None)?;
        return Ok(Kernel { name, ..program });
    }
    let mut images = Vec::new();
    // Newer packages leave it to the machine that installs them to copy the image to /boot.
    for (dir, file) in [("boot", "vmlinuz-"), ("lib/modules", "vmlinuz")] {
        for entry in fs::read_dir(tree.join(dir)).into_iter().flatten().flatten() {
            let inside = entry.path().join(file);
            if entry.file_name().to_string_lossy().starts_with(file) {
                images.push(entry.path());
            } else if inside.is_file() {
                images.push(inside);
            }
        }
    }
    let image = images.pop().ok_or_else(|| GuestError::BadImage {
        path: tree.to_owned(),
        why: "the package holds no vmlinuz; `punchbench kernel remove` it to fetch it anew"
            .to_owned(),
    })?;
    let release = image::release(&image)?;
    Ok(Kernel {
        name,
        image,
        machinery: Machinery::Pc,
        modules: Some(modules_dir::index(tree, &release)?),
        release,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::boot_image;

    #[test]
    fn the_image_is_found_where_old_and_new_packages_put_it() {
        let suite = DebianKernel::parse("s").expect("suite");
        for (place, release) in [
            ("boot/vmlinuz-6.1.0-x", "6.1.0-x"),
            ("lib/modules/7.2.0-x/vmlinuz", "7.2.0-x"),
        ] {
            let dir = tempfile::tempdir().expect("tempdir");
            let tree = dir.path();
            let modules = tree.join("lib/modules").join(release);
            fs::create_dir_all(&modules).expect("mkdir");
            fs::create_dir_all(tree.join("boot")).expect("mkdir");
            assert!(find_kernel(&suite, tree).is_err(), "no image yet");
            fs::write(tree.join(place), boot_image(release)).expect("write");
            fs::write(modules.join("modules.dep"), "").expect("write");
            let kernel = find_kernel(&suite, tree).expect("kernel");
            assert_eq!(
                (kernel.image, kernel.release.as_str()),
                (tree.join(place), release)
            );
            assert!(kernel.modules.is_some());
        }
    }

    #[test]
    fn the_kernel_is_found_through_the_meta_package() {
        let meta = "Package: linux-image-amd64\nDepends: linux-image-6.1.0-9-amd64 (= 6.1.27-1)\nSuggests: linux-image-x\n";
        assert_eq!(kernel_depends(meta), ["linux-image-6.1.0-9-amd64"]);
        let image = "Pre-Depends: linux-modules-7-amd64 (= 7)\nDepends: kmod, linux-base (>= 4.3~), \
                     initramfs-tools | linux-initramfs-tool, linux-binary-7-amd64:amd64\n";
        assert_eq!(
            kernel_depends(image),
            ["linux-modules-7-amd64", "linux-binary-7-amd64"]
        );
    }
}
