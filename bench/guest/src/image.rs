//! What an x86 boot image says of itself (Documentation/arch/x86/boot.rst): its release, whether it is whole,
//! and whether a guest's 64-bit init can run on it. QEMU itself boots a truncated or foreign image into a
//! silent machine.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{GuestError, IoContext};

/// Fields of the header.
const SETUP_SECTORS: usize = 0x1f1;
const PROTECTED_MODE_SIZE: usize = 0x1f4;
const MAGIC: usize = 0x202;
const PROTOCOL: usize = 0x206;
const VERSION_POINTER: usize = 0x20e;
const LOAD_FLAGS: usize = 0x236;

/// The version's pointer counts from here.
const VERSION_BASE: usize = 0x200;
const SECTOR: u64 = 512;
/// The protected-mode code's size is told in paragraphs.
const PARAGRAPH: u64 = 16;
/// The protocol that introduced the load flags, and the one for a 64-bit kernel.
const HAS_LOAD_FLAGS: u16 = 0x020c;
const KERNEL_64: u16 = 1;

/// Where arm64 (Documentation/arch/arm64/booting.rst) and RISC-V (boot-image-header.rst) say who they are.
const OTHERS_MAGIC: usize = 56;
const OTHERS: [(&[u8; 4], &str); 2] = [(b"ARM\x64", "arm64"), (b"RSC\x05", "RISC-V")];

/// The release that a boot image carries, if it can be booted here.
pub(crate) fn release(image: &Path) -> Result<String, GuestError> {
    let mut head = Vec::new();
    let mut file = File::open(image).context("open the kernel", image)?;
    // The version's pointer has 16 bits.
    file.by_ref()
        .take(0x2_0000)
        .read_to_end(&mut head)
        .context("read the kernel", image)?;
    let size = file.metadata().context("look at the kernel", image)?.len();
    read_header(&head, size).map_err(|why| GuestError::BadImage {
        path: image.to_owned(),
        why,
    })
}

fn read_header(head: &[u8], size: u64) -> Result<String, String> {
    if head.get(MAGIC..MAGIC + 4) != Some(b"HdrS") {
        return Err(what_else(head));
    }
    let truncated = || "it is truncated; copy or build it anew".to_owned();
    let bytes = |at: usize, n: usize| head.get(at..at + n).ok_or_else(truncated);
    let half =
        |at: usize| Ok::<_, String>(u16::from_le_bytes([bytes(at, 2)?[0], bytes(at, 2)?[1]]));
    let start = VERSION_BASE + usize::from(half(VERSION_POINTER)?);
    let text = head.get(start..).ok_or_else(truncated)?;
    let release: Vec<u8> = text
        .iter()
        .copied()
        .take(256)
        .take_while(u8::is_ascii_graphic)
        .collect();
    let release = match String::from_utf8(release) {
        Ok(release) if !release.is_empty() && start != VERSION_BASE => release,
        _ => return Err("its header names no release".to_owned()),
    };
    if half(PROTOCOL)? >= HAS_LOAD_FLAGS && half(LOAD_FLAGS)? & KERNEL_64 == 0 {
        return Err(format!(
            "{release} is a 32-bit kernel, which cannot run this 64-bit program; build it for x86_64"
        ));
    }
    let sectors = match bytes(SETUP_SECTORS, 1)?[0] {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let paragraphs =
        (u64::from(half(PROTECTED_MODE_SIZE + 2)?) << 16) | u64::from(half(PROTECTED_MODE_SIZE)?);
    let whole = (sectors + 1) * SECTOR + paragraphs * PARAGRAPH;
    if size < whole {
        return Err(format!(
            "it is truncated: {size} bytes of {whole}; copy or build it anew"
        ));
    }
    Ok(release)
}

/// What a file is that is no x86 boot image, and what to give instead.
fn what_else(head: &[u8]) -> String {
    let other = OTHERS
        .iter()
        .find(|(magic, _)| head.get(OTHERS_MAGIC..OTHERS_MAGIC + 4) == Some(*magic));
    if let Some((_, architecture)) = other {
        return format!("it is a kernel for {architecture}; give one for x86_64");
    }
    let what = match head {
        [] => "it is empty",
        [0x7f, b'E', b'L', b'F', ..] => {
            "it is an ELF file; give the bzImage or vmlinuz that was built beside it"
        }
        [0x1f, 0x8b, ..] => {
            "it is compressed, as kernels of other architectures are; give a bzImage or vmlinuz for x86_64"
        }
        b if b.starts_with(b"!<arch>\ndebian-binary") => {
            "it is a package; unpack it with `dpkg-deb -x` and give the vmlinuz and the modules in it"
        }
        _ => "it is no x86 boot image (bzImage or vmlinuz)",
    };
    what.to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    /// The head of a boot image that needs no more than this.
    pub(crate) fn boot_image(release: &str) -> Vec<u8> {
        let mut bytes = vec![0_u8; 0x1000];
        bytes[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        bytes[PROTOCOL..PROTOCOL + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        bytes[LOAD_FLAGS] = 1;
        bytes[VERSION_POINTER..VERSION_POINTER + 2].copy_from_slice(&0x700_u16.to_le_bytes());
        bytes[0x900..0x900 + release.len()].copy_from_slice(release.as_bytes());
        bytes
    }

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut image = boot_image("6.1.0-x");
        image[at..at + bytes.len()].copy_from_slice(bytes);
        image
    }

    #[test]
    fn release_is_read_from_the_header() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("vmlinuz");
        fs::write(&path, boot_image("5.10.0-9-amd64 (someone) #1 SMP")).expect("write");
        assert_eq!(release(&path).expect("release"), "5.10.0-9-amd64");
        assert!(release(dir.path()).is_err(), "a directory is no kernel");
    }

    #[test]
    fn what_cannot_be_booted_is_told_with_what_to_do() {
        let mut foreign = vec![0; 0x400];
        foreign[OTHERS_MAGIC..OTHERS_MAGIC + 4].copy_from_slice(b"ARM\x64");
        for (bytes, why) in [
            (b"\x7fELF".to_vec(), "ELF"),
            (b"text".to_vec(), "no x86 boot image"),
            (Vec::new(), "empty"),
            (b"\x1f\x8b\x08".to_vec(), "compressed"),
            (b"!<arch>\ndebian-binary   ".to_vec(), "dpkg-deb -x"),
            (foreign, "arm64"),
            (boot_image("6.1.0-x")[..0x300].to_vec(), "truncated"),
            (boot_image(""), "names no release"),
            (with(LOAD_FLAGS, &[0]), "32-bit"),
            // 4 sectors and the boot sector, and then one paragraph too much.
            (
                with(PROTECTED_MODE_SIZE, &[((0x1000 - 5 * 512) / 16 + 1) as u8]),
                "truncated: 4096 bytes of 4112",
            ),
        ] {
            let error = read_header(&bytes, bytes.len() as u64).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        let fits = with(PROTECTED_MODE_SIZE, &[((0x1000 - 5 * 512) / 16) as u8]);
        assert_eq!(read_header(&fits, 0x1000).as_deref(), Ok("6.1.0-x"));
    }
}
