//! Installing missing tools, only ever when the user asked for it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::tools::{Tool, output_to};

/// Families of distributions, by their package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Debian, Ubuntu and kin: apt-get.
    Debian,
    /// Fedora, RHEL and kin: dnf.
    Fedora,
    /// Arch and kin: pacman.
    Arch,
    /// openSUSE and SLE: zypper.
    Suse,
}

/// Why tools could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The distribution is not one that we know.
    #[error("do not know how to install on this distribution; install these packages by hand: {0}")]
    UnknownDistribution(String),
    /// Not root.
    #[error("installing needs root; run as root: {0}")]
    NeedsRoot(String),
    /// The package manager failed.
    #[error("`{command}` failed ({ending}); its output is in {log}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        ending: String,
        /// Where its output is.
        log: String,
    },
    /// The package manager could not be started, or the log not be written.
    #[error("cannot run `{command}`: {error}")]
    Io {
        /// The command line.
        command: String,
        /// The system's answer.
        error: io::Error,
    },
}

impl Family {
    /// The family of this machine, from /etc/os-release.
    pub fn here() -> Option<Family> {
        let text = fs::read_to_string("/etc/os-release")
            .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
            .ok()?;
        Family::from_os_release(&text)
    }

    /// From the ID and ID_LIKE lines of an os-release file, the nearest first.
    fn from_os_release(text: &str) -> Option<Family> {
        let value = |key: &str| {
            text.lines().find_map(|line| {
                Some(
                    line.strip_prefix(key)?
                        .strip_prefix('=')?
                        .trim_matches(['"', '\''])
                        .to_owned(),
                )
            })
        };
        let words = format!(
            "{} {}",
            value("ID").unwrap_or_default(),
            value("ID_LIKE").unwrap_or_default()
        );
        words.split_whitespace().find_map(|word| match word {
            "debian" | "ubuntu" => Some(Family::Debian),
            "fedora" | "rhel" | "centos" => Some(Family::Fedora),
            "arch" | "archlinux" => Some(Family::Arch),
            "suse" | "opensuse" | "sles" => Some(Family::Suse),
            other if other.starts_with("opensuse") => Some(Family::Suse),
            _ => None,
        })
    }

    /// The commands that install packages without asking, in order.
    fn commands(self, packages: &[&str]) -> Vec<Vec<String>> {
        let fixed: &[&[&str]] = match self {
            Family::Debian => &[
                &["apt-get", "-q", "update"],
                &["apt-get", "-q", "-y", "--no-install-recommends", "install"],
            ],
            Family::Fedora => &[&["dnf", "-q", "-y", "install"]],
            Family::Arch => &[&["pacman", "-Sy", "--noconfirm", "--needed"]],
            Family::Suse => &[&[
                "zypper",
                "--non-interactive",
                "--quiet",
                "install",
                "--no-recommends",
            ]],
        };
        let mut commands: Vec<Vec<String>> = fixed
            .iter()
            .map(|words| words.iter().map(|word| (*word).to_owned()).collect())
            .collect();
        if let Some(last) = commands.last_mut() {
            last.extend(packages.iter().map(|package| (*package).to_owned()));
        }
        commands
    }
}

/// Installs the packages of those tools that are missing, writing what the package manager says to `log`.
/// Returns the names of the packages, none if nothing was missing. Call it only if the user asked.
pub fn install(tools: &[Tool], log: &Path) -> Result<Vec<String>, InstallError> {
    let family = Family::here();
    let mut packages: Vec<&str> = tools
        .iter()
        .filter(|tool| tool.find().is_none())
        .map(|tool| tool.package.name(family))
        .collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let Some(family) = family else {
        return Err(InstallError::UnknownDistribution(packages.join(" ")));
    };
    let commands = family.commands(&packages);
    if !nix::unistd::geteuid().is_root() {
        let words: Vec<String> = commands.iter().map(|command| command.join(" ")).collect();
        return Err(InstallError::NeedsRoot(words.join(" && ")));
    }
    for words in &commands {
        run_logged(words, log)?;
    }
    Ok(packages.into_iter().map(str::to_owned).collect())
}

/// The one call without a time limit: how long a download takes is not ours to say, and ^C reaches it.
fn run_logged(words: &[String], log: &Path) -> Result<(), InstallError> {
    let command = words.join(" ");
    let io_error = |error| InstallError::Io {
        command: command.clone(),
        error,
    };
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(io_error)?;
    let arguments: Vec<OsString> = words[1..].iter().map(OsString::from).collect();
    let status = Command::new(&words[0])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(output_to(&file).map_err(io_error)?)
        .stderr(output_to(&file).map_err(io_error)?)
        .status()
        .map_err(io_error)?;
    if status.success() {
        return Ok(());
    }
    Err(InstallError::Failed {
        command,
        ending: status.to_string(),
        log: log.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_known_by_id_or_by_what_they_are_like() {
        assert_eq!(
            Family::from_os_release("NAME=x\nID=debian\n"),
            Some(Family::Debian)
        );
        assert_eq!(
            Family::from_os_release("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"),
            Some(Family::Debian)
        );
        assert_eq!(Family::from_os_release("ID=fedora\n"), Some(Family::Fedora));
        assert_eq!(
            Family::from_os_release("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"),
            Some(Family::Fedora)
        );
        assert_eq!(
            Family::from_os_release("ID=manjaro\nID_LIKE=arch\n"),
            Some(Family::Arch)
        );
        assert_eq!(
            Family::from_os_release("ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n"),
            Some(Family::Suse)
        );
        assert_eq!(
            Family::from_os_release("ID=plan9\nVERSION_ID=debian\n"),
            None
        );
    }

    #[test]
    fn packages_end_the_last_command() {
        let commands = Family::Debian.commands(&["xfsprogs", "btrfs-progs"]);
        assert_eq!(commands.len(), 2);
        assert!(commands[0].ends_with(&["update".to_owned()]));
        assert!(commands[1].ends_with(&["xfsprogs".to_owned(), "btrfs-progs".to_owned()]));
    }
}
