//! The guest's modprobe: the program under another name. Whoever wants a driver calls it, the kernel itself
//! included (crypto algorithms, filesystem types), so that a guest loads what a trial uses and nothing else:
//! of all the drivers that were taken along, some take seconds on an emulated CPU.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use serde::{Deserialize, Serialize};

use crate::init::RECORDS_PATH;
use crate::initramfs::{MODULES_DIR, PROGRAM_PATH};
use crate::modules::{Module, ModuleIndex};

/// What programs and the kernel call it.
const NAME: &str = "modprobe";
/// What came along, and how it hangs together.
const INDEX: &str = "/modules/index.json";
/// Where the kernel is told what to call (kernel/module/kmod.c).
const KERNEL_CALLS: &str = "/proc/sys/kernel/modprobe";
/// Opens a line to init that is no record.
pub(crate) const MARK: u8 = 1;

/// A module that did not load, as init passes it on.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failed {
    pub(crate) name: String,
    pub(crate) required: bool,
    pub(crate) error: String,
}

/// Whether this process was called as a guest's modprobe. The program asks before it reads its command line,
/// and then calls [`run`].
pub fn is_called() -> bool {
    let name = std::env::args_os().next();
    let called = name.is_some_and(|name| Path::new(&name).file_name() == Some(NAME.as_ref()));
    called && Path::new(INDEX).exists()
}

/// Loads the module that the first word names, and what it needs; says whether it is there now. Further words
/// are its parameters.
pub fn run() -> bool {
    let words = std::env::args().skip(1);
    let mut words = words.filter(|word| !word.starts_with('-'));
    let Some(wanted) = words.next() else {
        return false;
    };
    let parameters: Vec<String> = words.collect();
    let loaded = try_run(&wanted, &parameters.join(" "));
    if let Err(error) = &loaded {
        eprintln!("{NAME} {wanted}: {error}");
    }
    loaded.is_ok()
}

fn try_run(wanted: &str, parameters: &str) -> io::Result<()> {
    let index: ModuleIndex = serde_json::from_slice(&fs::read(INDEX)?)?;
    let closure = index.closure(&[wanted.to_owned()]);
    if !closure.missing.is_empty() {
        return Err(io::Error::other(
            "it did not come along, or the kernel has none",
        ));
    }
    let mut result = Ok(());
    for module in &closure.load {
        let parameters = if module.name == wanted {
            parameters
        } else {
            ""
        };
        if let Err(error) = load(module, parameters) {
            tell(module, &error)?;
            if module.required {
                result = Err(io::Error::other(format!("{}: {error}", module.name)));
            }
        }
    }
    result
}

/// Loads a module; one that is there already is fine. Its file is removed then: it takes memory.
fn load(module: &Module, parameters: &str) -> io::Result<()> {
    let file = match File::open(&module.path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let parameters = CString::new(parameters)?;
    match finit_module(&file, &parameters, ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(&module.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Tells init, in one write of less than a pipe takes at once.
fn tell(module: &Module, error: &io::Error) -> io::Result<()> {
    let failed = Failed {
        name: module.name.clone(),
        required: module.required,
        error: error.to_string(),
    };
    let mut line = vec![MARK];
    line.extend(serde_json::to_vec(&failed)?);
    line.push(b'\n');
    OpenOptions::new()
        .write(true)
        .open(RECORDS_PATH)?
        .write_all(&line)
}

/// What a line to init says, if it is no record.
pub(crate) fn heard(line: &[u8]) -> Option<Failed> {
    serde_json::from_slice(line.strip_prefix(&[MARK])?).ok()
}

/// Puts it in place, for the kernel and for programs that look at what modules there are.
pub(crate) fn install(index: &ModuleIndex, release: &str) -> io::Result<()> {
    fs::write(INDEX, serde_json::to_vec(index)?)?;
    let path = Path::new(MODULES_DIR).join(NAME);
    symlink(PROGRAM_PATH, &path)?;
    index.write(&Path::new("/lib/modules").join(release))?;
    match fs::write(KERNEL_CALLS, path.as_os_str().as_encoded_bytes()) {
        // A kernel without modules asks for none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_from_a_record() {
        let failed = Failed {
            name: "xfs".to_owned(),
            required: true,
            error: "Exec format error".to_owned(),
        };
        let mut line = vec![MARK];
        line.extend(serde_json::to_vec(&failed).expect("json"));
        assert_eq!(heard(&line), Some(failed));
        assert_eq!(heard(&line[1..]), None);
        assert_eq!(heard(b"{}"), None);
    }
}
