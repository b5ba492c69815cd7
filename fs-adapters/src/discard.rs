//! Discard erases the stamps that tell whose a freed block was (ORACLE trap 1): on a filesystem whose
//! blocks can be found, one is freed and looked at.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use punchbench_sys::extents::extents;

use crate::adapter::Addresses;
use crate::probe::Medium;
use crate::set_up::SetUpError;

const LEN: usize = 256 << 10;
const BLOCK: usize = 4096;

/// The filesystem may itself put something into a block just freed; not into every block three times.
const TRIES: u32 = 3;

/// Frees a file's blocks and finds its bytes still on the medium. Gives a line for the record.
pub(crate) fn assert_kept(dir: &Path, medium: &Medium<'_>) -> Result<String, SetUpError> {
    if medium.addresses != Addresses::Device {
        return note(medium, "its addresses are logical");
    }
    let failed = |error: io::Error| {
        SetUpError::Error(format!(
            "cannot check that freed blocks keep their bytes: {error}"
        ))
    };
    for _ in 0..TRIES {
        match free_and_look(dir, medium).map_err(failed)? {
            Seen::Kept => return Ok("discard: a freed block kept its bytes".to_owned()),
            Seen::Erased => {
                return Err(SetUpError::Error(
                    "a freed block lost its bytes: something still discards or zeroes, so foreign data could not be seen".to_owned(),
                ));
            }
            Seen::Taken => {}
            Seen::NoAddress => return note(medium, "it gives no addresses"),
        }
    }
    note(medium, "its freed blocks were taken again at once")
}

/// Without a look at the medium the word of the queue is all there is.
fn note(medium: &Medium<'_>, why: &str) -> Result<String, SetUpError> {
    let queue = if medium.home.discard_off() {
        "off in the queue and the mount"
    } else {
        "off in the mount"
    };
    Ok(format!(
        "discard: {queue}; no freed block was looked at, as {why}"
    ))
}

enum Seen {
    Kept,
    Erased,
    Taken,
    NoAddress,
}

fn free_and_look(dir: &Path, medium: &Medium<'_>) -> io::Result<Seen> {
    let path = dir.join("discard");
    let file = File::create_new(&path)?;
    let sent: Vec<u8> = (0..LEN)
        .map(|at| ((at / BLOCK) as u8).wrapping_mul(37) | 1)
        .collect();
    let found = file
        .write_all_at(&sent, 0)
        .and_then(|()| file.sync_all())
        .and_then(|()| extents(file.as_fd(), 0..LEN as u64));
    drop(file);
    fs::remove_file(&path)?;
    // The blocks are really free once the transaction is on disk.
    nix::unistd::syncfs(File::open(dir)?)?;

    let (mut kept, mut erased) = (false, false);
    for extent in found?.unwrap_or_default() {
        let len = usize::try_from(extent.len).map_err(io::Error::other)?;
        let at = usize::try_from(extent.at).map_err(io::Error::other)?;
        let mut seen = vec![0; len];
        let Some(read) = medium.home.read_at(extent.device, &mut seen) else {
            break;
        };
        read?;
        let expected = sent.get(at..at + len).unwrap_or_default();
        for (seen, expected) in seen.chunks(BLOCK).zip(expected.chunks(BLOCK)) {
            kept |= seen == expected;
            erased |= seen.iter().all(|byte| *byte == 0);
        }
    }
    Ok(match (kept, erased) {
        (_, true) => Seen::Erased,
        (true, false) => Seen::Kept,
        (false, false) if medium.home.device().is_none() => Seen::NoAddress,
        (false, false) => Seen::Taken,
    })
}
