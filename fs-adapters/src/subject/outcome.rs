//! What a system call's answer is to the engine.

use std::io;

use nix::libc;
use punchbench_race::Outcome;
use punchbench_sys::map::Access;

pub(super) fn refused(errno: i32) -> Outcome {
    Outcome {
        errno,
        ..Outcome::default()
    }
}

pub(super) fn done<E: Into<io::Error>>(result: Result<(), E>) -> Outcome {
    refused(result.err().map_or(0, errno))
}

pub(super) fn moved<E: Into<io::Error>>(result: Result<usize, E>) -> Outcome {
    match result {
        Ok(bytes) => Outcome {
            bytes: bytes as u64,
            ..Outcome::default()
        },
        Err(error) => refused(errno(error)),
    }
}

pub(super) fn accessed(access: Access) -> Outcome {
    Outcome {
        bytes: access.bytes as u64,
        errno: access.errno,
        sigbus: access.sigbus,
        same: None,
    }
}

/// The number of an error; those that never reached the kernel were refused for their arguments.
pub(super) fn errno(error: impl Into<io::Error>) -> i32 {
    error.into().raw_os_error().unwrap_or(libc::EINVAL)
}
