//! The kernel's log as a window: what was logged from [`Kmsg::from_now`] on, read without waiting and
//! without taking it from other readers.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// One record of the kernel's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelLine {
    /// syslog severity, 0 (emergency) to 7 (debug).
    pub severity: u8,
    /// Microseconds since boot.
    pub micros: u64,
    /// The message.
    pub text: String,
}

/// A reader's place in the kernel's log.
#[derive(Debug)]
pub struct Kmsg {
    file: File,
}

/// What a window held.
#[derive(Debug, Default)]
pub struct Window {
    /// In the order of the log.
    pub lines: Vec<KernelLine>,
    /// The log went round faster than it was read: lines are missing.
    pub overrun: bool,
}

impl Kmsg {
    /// Begins a window. Fails where the log may not be read (`kernel.dmesg_restrict`, containers).
    pub fn from_now() -> io::Result<Kmsg> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        Ok(Kmsg { file })
    }

    /// Everything logged since the window began or was last read.
    pub fn read(&mut self) -> io::Result<Window> {
        // One read gives one record; longer ones than this do not exist (CONSOLE_EXT_LOG_MAX).
        let mut record = [0u8; 8192];
        let mut window = Window::default();
        loop {
            match self.file.read(&mut record) {
                Ok(0) => return Ok(window),
                Ok(n) => window
                    .lines
                    .extend(parse(&String::from_utf8_lossy(&record[..n]))),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(window),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // The next read goes on at the oldest record that is still there.
                Err(e) if e.kind() == ErrorKind::BrokenPipe => window.overrun = true,
                Err(e) => return Err(e),
            }
        }
    }
}

/// `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS[,..];MESSAGE`, then indented lines of `KEY=value`.
fn parse(record: &str) -> Option<KernelLine> {
    let (prefix, rest) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let micros = fields.nth(1)?.parse().ok()?;
    let text = rest.lines().next().unwrap_or_default().to_owned();
    Some(KernelLine {
        severity: (priority & 7) as u8,
        micros,
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_parsed_without_its_dictionary() {
        let line =
            parse("3,1234,5678901,-;I/O error, dev loop3; sector 8\n SUBSYSTEM=block\n").unwrap();
        assert_eq!(line.severity, 3);
        assert_eq!(line.micros, 5_678_901);
        assert_eq!(line.text, "I/O error, dev loop3; sector 8");
    }

    #[test]
    fn facility_bits_do_not_count_as_severity() {
        assert_eq!(parse("14,1,2,c;x").unwrap().severity, 6);
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        assert_eq!(parse("no prefix"), None);
        assert_eq!(parse("a,b,c;text"), None);
    }
}
