//! The guest's console, read as it comes: kept whole in a file if that was asked for, its last lines in
//! memory, and searched for the kernel's own account of its end.

use std::fs::File;
use std::io::{self, Write};

/// Enough for a panic with its backtraces.
const KEPT: usize = 64 << 10;
/// How many lines a result carries.
const TAIL_LINES: usize = 40;
/// And how many from where the kernel began to report its end, which backtraces push up.
const REPORT_LINES: usize = 120;

const PANIC: &str = "Kernel panic - not syncing";
/// How an x86 kernel opens the report of an oops.
const OOPSES: [&str; 6] = [
    "Oops: ",
    "BUG: unable to handle",
    "BUG: kernel NULL pointer",
    "kernel BUG at ",
    "general protection fault",
    "invalid opcode: 0000",
];

/// How a kernel says that memory is what it lacks: mm/oom_kill.c, and init/initramfs.c when the first root
/// does not fit.
const OUT_OF_MEMORY: [&str; 3] = [
    "Out of memory: ",
    "System is deadlocked on memory",
    "Initramfs unpacking failed: write error",
];

/// What was printed.
#[derive(Debug, Default)]
pub(crate) struct Console {
    log: Option<File>,
    recent: Vec<u8>,
    panicked: bool,
    oopsed: bool,
    out_of_memory: bool,
}

impl Console {
    pub(crate) fn new(log: Option<File>) -> Self {
        Self {
            log,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(log) = &mut self.log {
            log.write_all(bytes)?;
        }
        // A line may come in pieces: search from the start of the last unfinished one.
        let from = self
            .recent
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        self.recent.extend_from_slice(bytes);
        let new = String::from_utf8_lossy(&self.recent[from..]);
        self.panicked |= is_panic(&new);
        self.oopsed |= is_oops(&new);
        self.out_of_memory |= OUT_OF_MEMORY.iter().any(|words| new.contains(words));
        let excess = self.recent.len().saturating_sub(KEPT);
        self.recent.drain(..excess);
        Ok(())
    }

    pub(crate) fn panicked(&self) -> bool {
        self.panicked
    }

    pub(crate) fn oopsed(&self) -> bool {
        self.oopsed
    }

    pub(crate) fn out_of_memory(&self) -> bool {
        self.out_of_memory
    }

    /// The last lines, and before them those back to the kernel's first report.
    pub(crate) fn tail(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.recent);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        let last = lines.len().saturating_sub(TAIL_LINES);
        let report = lines
            .iter()
            .position(|line| is_panic(line) || is_oops(line))
            .unwrap_or(last);
        let from = report.min(last);
        lines
            .iter()
            .skip(from)
            .take(REPORT_LINES)
            .map(|&line| line.to_owned())
            .collect()
    }
}

fn is_panic(text: &str) -> bool {
    text.contains(PANIC)
}

fn is_oops(text: &str) -> bool {
    OOPSES.iter().any(|oops| text.contains(oops))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_found_in_pieces_and_remembered() {
        let mut console = Console::default();
        console.add(b"booting\r\n[ 1.0] Kernel pa").expect("add");
        assert!(!console.panicked());
        console.add(b"nic - not syncing: Fatal\r\n").expect("add");
        assert!(console.panicked() && !console.oopsed());
        console.add(&b"trace\n".repeat(60)).expect("add");
        assert_eq!(console.tail().len(), 61);
        assert!(console.tail()[0].ends_with("Fatal"));
        for _ in 0..100 {
            console
                .add(&[b"x".repeat(1023), b"\n".to_vec()].concat())
                .expect("add");
        }
        assert!(console.panicked());
        assert!(console.recent.len() <= KEPT);
        assert_eq!(console.tail().len(), TAIL_LINES);
    }

    #[test]
    fn lack_of_memory_is_heard() {
        let mut console = Console::default();
        console.add(b"[ 9.0] Out of mem").expect("add");
        assert!(!console.out_of_memory());
        console
            .add(b"ory: Killed process 77 (punchbench) total-vm:9kB\n")
            .expect("add");
        assert!(console.out_of_memory() && !console.panicked());
    }

    #[test]
    fn an_oops_is_no_panic() {
        let mut console = Console::default();
        console
            .add(b"BUG: kernel NULL pointer dereference, address: 0\n")
            .expect("add");
        assert!(console.oopsed() && !console.panicked());
        assert_eq!(console.tail().len(), 1);
    }
}
