//! A boot image holds the kernel compressed, and unpacking it inside a guest takes QEMU's software CPU
//! longer than the rest of the boot (4 of 7 s on Debian's 5.10). So it is unpacked here, where that is
//! possible, and started directly through its PVH entry, as every kernel with CONFIG_PVH can be.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::host;

/// Fields of the boot image's header (Documentation/arch/x86/boot.rst).
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;
/// The size of what was packed follows the packed bytes.
const SIZE_TRAILER: usize = 4;

/// The ELF note with the PVH entry: its name's size, its type and its name; the size between them
/// depends on the kernel's word size.
const NOTE_NAME_SIZE: [u8; 4] = [4, 0, 0, 0];
const NOTE_TYPE_AND_NAME: [u8; 8] = [18, 0, 0, 0, b'X', b'e', b'n', 0];

/// Writes the kernel in a boot image to `vmlinux`; false if it cannot be unpacked here or cannot be
/// started directly, and is to be booted as it is.
pub(crate) fn unpack(image: &Path, mut vmlinux: &File) -> bool {
    let Ok(image) = std::fs::read(image) else {
        return false;
    };
    let Some((program, packed)) = payload(&image) else {
        return false;
    };
    let Some(program) = host::find(program) else {
        return false;
    };
    decompress(&program, packed)
        .filter(|kernel| kernel.starts_with(b"\x7fELF") && has_pvh_entry(kernel))
        .is_some_and(|kernel| vmlinux.write_all(&kernel).is_ok())
}

/// The packed kernel and the program that unpacks it.
fn payload(image: &[u8]) -> Option<(&'static str, &[u8])> {
    let word = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let sectors = match *image.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * SECTOR + word(PAYLOAD_OFFSET)?;
    let end = (start + word(PAYLOAD_LENGTH)?).checked_sub(SIZE_TRAILER)?;
    let packed = image.get(start..end)?;
    let program = match packed {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0x1f, 0x8b, ..] => "gzip",
        _ => return None,
    };
    Some((program, packed))
}

fn decompress(program: &Path, packed: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let output = std::thread::scope(|scope| {
        // If it stops reading, its exit status tells.
        scope.spawn(move || stdin.write_all(packed));
        child.wait_with_output()
    });
    output
        .ok()
        .filter(|output| output.status.success())
        .map(|output| output.stdout)
}

fn has_pvh_entry(kernel: &[u8]) -> bool {
    kernel.windows(16).any(|note| {
        note.starts_with(&NOTE_NAME_SIZE)
            && note.ends_with(&NOTE_TYPE_AND_NAME)
            && matches!(note[4..8], [4 | 8, 0, 0, 0])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A boot image with `kernel` packed by `program`.
    fn image(program: &str, kernel: &[u8]) -> Vec<u8> {
        let dir = tempfile::tempdir().expect("tempdir");
        let plain = dir.path().join("kernel");
        fs::write(&plain, kernel).expect("write");
        let mut packed = host::output(Command::new(program).arg("-c").arg(&plain)).expect("pack");
        packed.extend_from_slice(&[0; SIZE_TRAILER]);
        let mut image = vec![0; 2 * SECTOR];
        image[SETUP_SECTORS] = 1;
        image[PAYLOAD_OFFSET] = 16;
        let length = u32::try_from(packed.len()).expect("small");
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend_from_slice(&[0; 16]);
        image.extend(packed);
        image
    }

    fn unpacked(image: &[u8]) -> Option<Vec<u8>> {
        let dir = tempfile::tempdir().expect("tempdir");
        let (from, to) = (dir.path().join("image"), dir.path().join("vmlinux"));
        fs::write(&from, image).expect("write");
        unpack(&from, &File::create(&to).expect("create")).then(|| fs::read(&to).expect("read"))
    }

    #[test]
    fn only_a_kernel_that_can_be_started_directly_is_unpacked() {
        let note = [&NOTE_NAME_SIZE[..], &[8, 0, 0, 0], &NOTE_TYPE_AND_NAME].concat();
        let kernel = [b"\x7fELF kernel ", &note[..], b" more"].concat();
        assert_eq!(unpacked(&image("gzip", &kernel)), Some(kernel.clone()));
        assert_eq!(unpacked(&image("gzip", b"\x7fELF without a note")), None);
        assert_eq!(unpacked(&image("gzip", &note)), None);
        let whole = image("gzip", &kernel);
        for length in [0, 100, SECTOR, 2 * SECTOR + 20, whole.len() - 8] {
            assert_eq!(unpacked(&whole[..length]), None, "cut to {length}");
        }
        let mut damaged = whole;
        let middle = damaged.len() - 20;
        damaged[middle] ^= 0xff;
        assert_eq!(unpacked(&damaged), None);
    }
}
