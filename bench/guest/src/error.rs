//! What can go wrong before a guest runs, or with the line to it. What the guest itself does wrong
//! (panics, hangs, ends early) is not an error but a result: see [`crate::GuestEnd`].

use std::io;
use std::path::{Path, PathBuf};

/// The bench could not run a guest, and what would help.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A file or directory operation failed.
    #[error("cannot {action} {path}: {error}", path = path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// `--kernel` was given something that names no kernel.
    #[error(
        "{spec:?} names no kernel: {why}. Give debian:SUITE (such as debian:bookworm), debian:SUITE/user-mode-linux, a bzImage, vmlinuz or linux.uml, or IMAGE:MODULESDIR"
    )]
    BadSpec {
        /// What was given.
        spec: String,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel image is not one that can be booted here.
    #[error("{path} cannot be booted: {why}", path = path.display())]
    BadImage {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The modules are not the kernel's.
    #[error(
        "{path} has no modules for the kernel {release}: {why}. Give IMAGE:MODULESDIR with the modules that were built with it (from its package, or `make modules_install INSTALL_MOD_PATH=DIR`)",
        path = path.display()
    )]
    BadModules {
        /// The directory that was given.
        path: PathBuf,
        /// The kernel's release.
        release: String,
        /// What is there instead.
        why: String,
    },
    /// This machine's architecture has no guest support.
    #[error("--kernel needs an x86_64 machine so far; this one is {0}")]
    Architecture(String),
    /// A program of the host is needed and not installed.
    #[error("{program} is not installed, and {purpose}: install {package}")]
    MissingProgram {
        /// The program's name.
        program: String,
        /// What it is needed for.
        purpose: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// A program of the host failed.
    #[error("{command} failed ({status}):\n{output}")]
    Program {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// No Debian mirror is configured on this machine.
    #[error("no Debian mirror is configured under {etc_apt}, so debian:{suite} cannot be fetched: add one, or give --kernel a path", etc_apt = etc_apt.display())]
    NoMirror {
        /// Where apt is configured.
        etc_apt: PathBuf,
        /// The suite that was asked for.
        suite: String,
    },
    /// The mirror has no kernel package for the suite.
    #[error("no package {package} in suite {suite} on this machine's mirror; apt said:\n{output}")]
    NoPackage {
        /// What was looked for.
        package: String,
        /// Where.
        suite: String,
        /// What apt printed.
        output: String,
    },
    /// A kernel is to be removed that was never fetched.
    #[error("{name} is not among the fetched kernels in {cache}; `punchbench kernel list` has them", cache = cache.display())]
    NotFetched {
        /// What was asked for.
        name: String,
        /// Where the others are.
        cache: PathBuf,
    },
    /// The guest could not set itself up.
    #[error("the guest could not start the program: {0}")]
    GuestSetup(String),
    /// The caller's stop came; every record until then was passed on.
    #[error("the run in the guest was interrupted")]
    Interrupted,
}

/// Names the file and the action in an I/O error.
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, GuestError>;
}

impl<T, E: Into<io::Error>> IoContext<T> for Result<T, E> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, GuestError> {
        self.map_err(|error| GuestError::Io {
            action,
            path: path.to_owned(),
            error: error.into(),
        })
    }
}
