//! Programs of the host: found on the path and in the administrator's directories (which an ordinary
//! user's path lacks), run to the end, with what they printed kept for the error message.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{GuestError, IoContext};

/// How much of a failed program's output an error carries.
const OUTPUT_TAIL: usize = 4096;

/// The program's path, if it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    env::split_paths(&path)
        .chain(system.iter().map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| {
            file.is_absolute()
                && nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok()
                && file.is_file()
        })
}

/// The program's path, or an error that names the package.
pub(crate) fn require(
    program: &str,
    purpose: &'static str,
    package: &'static str,
) -> Result<PathBuf, GuestError> {
    find(program).ok_or_else(|| GuestError::MissingProgram {
        program: program.to_owned(),
        purpose,
        package,
    })
}

/// Runs a command and gives its standard output; a failure carries what it printed.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>, GuestError> {
    let program = PathBuf::from(command.get_program());
    let output = command
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .output()
        .context("run", &program)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut said = output.stdout;
    said.extend_from_slice(&output.stderr);
    Err(GuestError::Program {
        command: words(command),
        status: output.status.to_string(),
        output: tail(&said),
    })
}

/// Runs a command whose output is nobody's business unless it fails.
pub(crate) fn run(command: &mut Command) -> Result<(), GuestError> {
    output(command).map(drop)
}

/// The end of a program's output, as text.
pub(crate) fn tail(bytes: &[u8]) -> String {
    let start = bytes.len().saturating_sub(OUTPUT_TAIL);
    String::from_utf8_lossy(&bytes[start..]).trim().to_owned()
}

fn words(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![program.display().to_string()];
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    words.join(" ")
}
