//! A user-mode-linux kernel: an ordinary program that is a kernel. It needs no emulator and no root, and its
//! package has filesystems that distributions' kernels lack, such as ext2 by its own driver. It has one CPU.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use punchbench_sys::namespaces::{Isolated, Namespaces};

use crate::error::{GuestError, IoContext};
use crate::host;
use crate::machine::{Process, Running};

/// An x86_64 program (elf(5)): class, byte order, and the machine's number at 18.
const ELF64_LE: &[u8] = b"\x7fELF\x02\x01";
const MACHINE_AT: usize = 18;
const X86_64: [u8; 2] = [62, 0];
/// What its /proc/cpuinfo says (arch/um/kernel/um_arch.c), and no other program does.
const VENDOR: &[u8] = b"User Mode Linux";
/// Where packages put its modules, from the directory above the program's, or from the root.
const MODULES: &str = "lib/uml/modules";

/// The descriptors that the kernel finds: the first root as standard input, the console as standard output,
/// and the line for records.
const INITRAMFS: &str = "initrd=/proc/self/fd/0";
const CONSOLE: [&str; 3] = ["con=null", "con0=fd:1,fd:1", "console=tty0"];
const RECORDS: [&str; 2] = ["ssl=null", "ssl1=fd:3,fd:3"];

/// It would leave its process number and a control socket there when it is killed; it can do without
/// (make_umid in arch/um/os-Linux/umid.c).
const NO_STATE: &str = "uml_dir=/proc";

/// What `IMAGE --version` says, if it is a user-mode-linux kernel.
pub(crate) fn release(image: &Path) -> Result<Option<String>, GuestError> {
    let mut program = Vec::new();
    File::open(image)
        .and_then(|mut file| {
            let mut head = [0; MACHINE_AT + 2];
            file.read_exact(&mut head)?;
            if head.starts_with(ELF64_LE) && head[MACHINE_AT..] == X86_64 {
                file.read_to_end(&mut program)?;
            }
            Ok(())
        })
        // Too short to be a program, or not to be read: whoever looks next says so.
        .unwrap_or_default();
    if !program.windows(VENDOR.len()).any(|words| words == VENDOR) {
        return Ok(None);
    }
    let said = host::output(Command::new(image).arg("--version"))?;
    Ok(Some(String::from_utf8_lossy(&said).trim().to_owned()))
}

/// Where its package put its modules.
pub(crate) fn modules_dir(image: &Path, release: &str) -> Option<PathBuf> {
    let image = std::fs::canonicalize(image).ok()?;
    let beside = image.parent()?.parent()?.join(MODULES);
    [beside, Path::new("/usr").join(MODULES)]
        .into_iter()
        .map(|dir| dir.join(release))
        .find(|dir| dir.is_dir())
}

/// Starts it. The calling thread must outlive it: it dies with the thread.
pub(crate) fn start(
    image: &Path,
    initramfs: &File,
    memory_mib: u32,
) -> Result<Running, GuestError> {
    let pair = || UnixStream::pair().context("create a socket for", image);
    let ((console, console_end), (records, records_end)) = (pair()?, pair()?);
    let c_string = |bytes: &[u8]| CString::new(bytes).map_err(std::io::Error::from);
    let absolute = std::path::absolute(image).context("find", image)?;
    let program = c_string(absolute.as_os_str().as_bytes()).context("name", image)?;
    let memory = format!("mem={memory_mib}M");
    let words = ["linux", &memory, NO_STATE, INITRAMFS, "loglevel=5"];
    let args = words
        .iter()
        .chain(&CONSOLE)
        .chain(&RECORDS)
        .map(|word| c_string(word.as_bytes()))
        .collect::<Result<Vec<_>, _>>()
        .context("name the options of", image)?;
    // Its memory is a file below that one.
    let env = ["TMPDIR", "PATH"]
        .iter()
        .filter_map(|name| Some((name, std::env::var_os(name)?)))
        .map(|(name, value)| c_string(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
        .collect::<Result<Vec<_>, _>>()
        .context("set the environment of", image)?;
    let child = Isolated {
        program: &program,
        args: &args,
        env: &env,
        stdin: initramfs.as_fd(),
        log: console_end.as_fd(),
        events: records_end.as_fd(),
        namespaces: Namespaces::own(),
    }
    .spawn()
    .map_err(|error| error.error)
    .context("start", image)?;
    Ok(Running {
        process: Process::Kernel {
            child,
            reaped: false,
        },
        console,
        records,
        stderr: None,
    })
}
