//! The "newc" archive that the kernel unpacks as its first root
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Device nodes are only entries here, so
//! an ordinary user can write them.

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// Writes one archive; every directory before what is in it.
#[derive(Debug)]
pub(crate) struct Archive<W: Write> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    pub(crate) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[])
    }

    pub(crate) fn file(&mut self, name: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        self.entry(name, FILE | (mode & 0o7777), (0, 0), data)
    }

    pub(crate) fn symlink(&mut self, name: &str, target: &[u8]) -> io::Result<()> {
        self.entry(name, SYMLINK | 0o777, (0, 0), target)
    }

    pub(crate) fn character_device(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
    ) -> io::Result<()> {
        self.entry(name, CHARACTER | mode, device, &[])
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        let name = name.trim_start_matches('/');
        let too_large = |_| io::Error::new(io::ErrorKind::FileTooLarge, name.to_owned());
        let size = u32::try_from(data.len()).map_err(too_large)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_large)?;
        self.entries += 1;
        let links = 1;
        // inode, mode, uid, gid, links, mtime, size, its device, the node's device, name size, checksum
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            0,
        ];
        let mut head = String::from("070701");
        for field in fields {
            head += &format!("{field:08x}");
        }
        head += name;
        head.push('\0');
        self.padded(head.as_bytes())?;
        self.padded(data)
    }

    /// Header with name, and data, each end on a multiple of four.
    fn padded(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out
            .write_all(&[0; 3][..bytes.len().wrapping_neg() % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("/d").expect("dir");
        archive.file("d/f", 0o100_755, b"hello").expect("file");
        archive.symlink("l", b"d/f").expect("link");
        archive.character_device("c", 0o600, (5, 1)).expect("node");
        let bytes = archive.finish().expect("finish");
        let text = String::from_utf8(bytes).expect("ASCII");
        let zeros = |n: usize| "00000000".repeat(n);
        let mut expected = format!(
            "070701{:08x}{:08x}{}{:08x}{}{:08x}{}d\0",
            1,
            0o40755,
            zeros(2),
            1,
            zeros(6),
            2,
            zeros(1)
        );
        expected += &format!(
            "070701{:08x}{:08x}{}{:08x}{}{:08x}{}{:08x}{}d/f\0\0\0",
            2,
            0o100_755,
            zeros(2),
            1,
            zeros(1),
            5,
            zeros(4),
            4,
            zeros(1)
        );
        expected += "hello\0\0\0";
        assert!(text.starts_with(&expected), "{text}");
        assert!(
            text.contains("0000000300000000\0") || text.contains("l\0d/f\0"),
            "{text}"
        );
        assert!(
            text.contains(&format!("{:08x}{:08x}{:08x}{}c\0", 5, 1, 2, zeros(1))),
            "{text}"
        );
        assert_eq!(text.len() % 4, 0);
        assert!(text.ends_with("TRAILER!!!\0\0\0\0"), "{text}");
    }
}
