//! The kernel's log while a trial ran: which of its lines accuse the kernel (ORACLE section 2.3), and which
//! only look like it.

use std::io;

use punchbench_results::{Record, Verdict};
use punchbench_sys::kmsg::{Kmsg, Window};

/// Lines of the log kept in a record, from the first that matched on.
const LINES_MAX: usize = 80;

/// Beginnings and words of reports that no operation of ours may cause.
const REPORTS: [&str; 11] = [
    "WARNING: ",
    "BUG: ",
    "kernel BUG at ",
    "KASAN: ",
    "KCSAN: ",
    "UBSAN: ",
    "INFO: task ",
    "INFO: possible ",
    "Oops: ",
    "general protection fault",
    "list_add corruption",
];

/// A failed transfer; counts only if it names the trial's own device.
const IO_ERRORS: [&str; 3] = [
    "I/O error",
    "critical medium error",
    "critical target error",
];

/// The log from a trial's start on.
#[derive(Debug)]
pub struct KernelLog {
    window: io::Result<Kmsg>,
}

impl KernelLog {
    /// Begins now.
    pub fn from_now() -> KernelLog {
        KernelLog {
            window: Kmsg::from_now(),
        }
    }

    /// Ends the window: a record whose trial the kernel complained in becomes a `kernel-report`. What the
    /// race itself found stays what it is; then the lines are kept beside it.
    pub fn close(&mut self, devices: &[String], alone: bool, record: &mut Record) {
        let window = match &mut self.window {
            Ok(log) => log.read(),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        let note = match window {
            Ok(window) => {
                let lines = accusing(&window, devices);
                if !lines.is_empty() {
                    accuse(record, lines, alone);
                }
                window
                    .overrun
                    .then(|| "the kernel's log overflowed: lines of it were not seen".to_owned())
            }
            Err(error) => Some(format!(
                "the kernel's log could not be read, so it was not checked: {error}"
            )),
        };
        record.evidence.notes.extend(note);
    }
}

fn accuse(record: &mut Record, lines: Vec<String>, alone: bool) {
    let whose = if alone {
        ""
    } else {
        " (other trials ran beside this one, so it may be theirs)"
    };
    let first = &lines[0];
    if record.verdict.is_violation() {
        record
            .evidence
            .notes
            .push(format!("the kernel reported, too{whose}: {first}"));
    } else {
        record.reason = format!("the kernel reported{whose}: {first}");
        record.verdict = Verdict::KernelReport;
    }
    record.log.extend(lines);
}

/// The accusing lines with what follows them (a stack, say); empty if there is none.
fn accusing(window: &Window, devices: &[String]) -> Vec<String> {
    let lines = window.lines.iter();
    lines
        .map(|line| line.text.as_str())
        .skip_while(|text| !accuses(text, devices))
        .take(LINES_MAX)
        .map(str::to_owned)
        .collect()
}

fn accuses(text: &str, devices: &[String]) -> bool {
    let of_ours = devices.iter().any(|device| names(text, device));
    let io_error =
        || IO_ERRORS.iter().any(|e| text.contains(e)) && !text.contains("operation not supported");
    REPORTS.iter().any(|report| text.contains(report)) || (of_ours && io_error())
}

/// Whether a text names a device: `loop1` is not in `loop12`.
fn names(text: &str, device: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word == device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Vec<String> {
        vec!["loop0".to_owned(), "loop1".to_owned()]
    }

    #[test]
    fn reports_accuse() {
        for text in [
            "WARNING: CPU: 1 PID: 7 at fs/iomap/buffered-io.c:100 iomap_add+0x1/0x2",
            "WARNING: possible circular locking dependency detected",
            "watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
            "BUG: KASAN: use-after-free in ext4_find_extent",
            "INFO: task kworker/1:1:7 blocked for more than 120 seconds.",
            "kernel BUG at fs/ext4/inode.c:1!",
        ] {
            assert!(accuses(text, &[]), "{text}");
        }
    }

    #[test]
    fn innocent_messages_do_not() {
        for text in [
            "operation not supported error, dev loop1, sector 8 op 0x9:(WRITE_ZEROES)",
            "I/O error, dev loop1, sector 8 op 0x9:(WRITE_ZEROES) operation not supported",
            "EXT4-fs (loop1): mounted filesystem with ordered data mode",
            "Page cache invalidation failure on direct I/O.  Possible data corruption",
            "I/O error, dev loop12, sector 8 op 0x0:(READ)",
            "I/O error, dev sda, sector 8 op 0x0:(READ)",
        ] {
            assert!(!accuses(text, &ours()), "{text}");
        }
    }

    #[test]
    fn an_io_error_of_our_device_accuses() {
        let text = "blk_update_request: I/O error, dev loop1, sector 8 op 0x0:(READ)";
        assert!(accuses(text, &ours()));
        assert!(accuses(
            "Buffer I/O error on dev loop1, logical block 3",
            &ours()
        ));
        assert!(!accuses(text, &[]));
    }
}
