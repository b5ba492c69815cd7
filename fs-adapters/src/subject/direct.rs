//! Reads and writes past the page cache, through a bounce buffer that is aligned as direct I/O asks.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::libc;
use punchbench_race::{FileId, Outcome};
use punchbench_sys::io::read_nowait;

use super::actor::{BOUNCE, SyscallSubject, View};
use super::outcome::{errno, refused};

impl SyscallSubject {
    /// Reads past the page cache, in as few calls as the bounce buffer allows, widened to whole blocks.
    pub(super) fn read_direct(
        &mut self,
        file: FileId,
        nowait: bool,
        at: u64,
        buf: &mut [u8],
    ) -> Outcome {
        let Some(View {
            direct: Some(direct),
            align,
            ..
        }) = self.files.get(usize::from(file))
        else {
            return refused(libc::EINVAL);
        };
        let mut filled = 0;
        while filled < buf.len() {
            let from = at + filled as u64;
            let skew = (from % align) as usize;
            let want = (skew + buf.len() - filled).next_multiple_of(*align as usize);
            let bounce = &mut self.bounce[..want.min(BOUNCE)];
            let start = from - skew as u64;
            let got = if nowait {
                read_nowait(direct.as_fd(), start, bounce)
            } else {
                direct.read_at(bounce, start)
            };
            let got = match got {
                Ok(got) => got,
                Err(error) => {
                    return Outcome {
                        bytes: filled as u64,
                        ..refused(errno(error))
                    };
                }
            };
            let useful = got.saturating_sub(skew).min(buf.len() - filled);
            buf[filled..filled + useful].copy_from_slice(&bounce[skew..skew + useful]);
            filled += useful;
            if got < bounce.len() {
                break;
            }
        }
        Outcome {
            bytes: filled as u64,
            ..Outcome::default()
        }
    }

    /// Writes past the page cache, in as few calls as the bounce buffer allows. Whether the range is
    /// aligned is for the kernel to say.
    pub(super) fn write_direct(&mut self, file: FileId, at: u64, buf: &[u8]) -> Outcome {
        let Some(View {
            direct: Some(direct),
            ..
        }) = self.files.get(usize::from(file))
        else {
            return refused(libc::EINVAL);
        };
        let mut written = 0;
        for piece in buf.chunks(BOUNCE) {
            let bounce = &mut self.bounce[..piece.len()];
            bounce.copy_from_slice(piece);
            match direct.write_at(bounce, at + written) {
                Ok(put) => written += put as u64,
                Err(error) => {
                    return Outcome {
                        bytes: written,
                        ..refused(errno(error))
                    };
                }
            }
            if !written.is_multiple_of(BOUNCE as u64) {
                break;
            }
        }
        Outcome {
            bytes: written,
            ..Outcome::default()
        }
    }
}
