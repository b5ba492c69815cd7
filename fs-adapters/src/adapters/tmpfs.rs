//! tmpfs: the page cache is the store, so nothing is ever evicted to a device and no block is reused.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use punchbench_sys::map::{Mapping, Protection};

use super::MIB;
use crate::adapter::{Adapter, Store};
use crate::profile::{BASE, Profile, ProfileError, Seen};
use crate::reuse::Reuse;
use crate::set_up::SetUpError;

/// The adapter.
#[derive(Debug)]
pub struct Tmpfs;

const PROFILES: &[Profile] = &[
    Profile {
        about: "in memory: nothing to evict to, no blocks",
        ..BASE
    },
    Profile {
        name: "huge",
        about: "huge pages (huge=always): a punch of less splits one, or zeroes within it",
        mount: &["huge=always"],
        ..BASE
    },
];

/// Some huge pages, of any size that an architecture with them has by default.
const SCRATCH: u64 = 8 * MIB;

impl Adapter for Tmpfs {
    fn name(&self) -> &'static str {
        "tmpfs"
    }

    fn profiles(&self) -> &'static [Profile] {
        PROFILES
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["tmpfs"]
    }

    fn store(&self) -> Store<'_> {
        Store::Memory
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        Reuse::Never("tmpfs has no blocks")
    }

    fn check(&self, profile: &Profile) -> Result<(), SetUpError> {
        if profile.mount.is_empty() {
            return Ok(());
        }
        // admin-guide/mm/transhuge.rst: the file is there if the kernel has them; `deny` overrules mounts.
        let path = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
        match fs::read_to_string(path) {
            Ok(text) if text.contains("[deny]") => Err(SetUpError::skipped(
                format!("huge pages are denied to every tmpfs: {path}"),
                format!("write `never` to {path}"),
            )),
            Ok(_) => Ok(()),
            Err(_) => Err(SetUpError::skipped(
                "the kernel has no transparent huge pages",
                "boot a kernel with CONFIG_TRANSPARENT_HUGEPAGE",
            )),
        }
    }

    fn prove(&self, profile: &Profile, seen: &Seen<'_>) -> Result<Option<String>, ProfileError> {
        if profile.mount.is_empty() {
            return Ok(None);
        }
        let mapped = huge_kib(seen.dir).map_err(ProfileError::io("map a file of huge pages"))?;
        match mapped {
            0 => Err(ProfileError::Refused {
                reason: format!(
                    "none of {} MiB came as huge pages (ShmemPmdMapped in smaps is 0), so it would be tmpfs again",
                    SCRATCH / MIB
                ),
                hint: "free or compact memory (/proc/sys/vm/compact_memory)".to_owned(),
            }),
            kib => Ok(Some(format!(
                "huge pages: {kib} of {} KiB of a new file",
                SCRATCH >> 10
            ))),
        }
    }
}

/// How much of a new file comes as huge pages: ShmemPmdMapped of a mapping of it, as the sums in
/// /proc/meminfo are everybody's.
fn huge_kib(dir: &Path) -> io::Result<u64> {
    let mut file = tempfile::Builder::new().prefix("huge-").tempfile_in(dir)?;
    let piece = vec![0x48; MIB as usize];
    for _ in 0..SCRATCH / MIB {
        file.write_all(&piece)?;
    }
    let mut map = Mapping::new(file.as_file().as_fd(), SCRATCH, Protection::Read)?;
    for at in (0..SCRATCH).step_by(MIB as usize) {
        map.load(at, &mut [0]);
    }
    let smaps = fs::read_to_string("/proc/thread-self/smaps")?;
    Ok(shmem_pmd_mapped(&smaps, &file.path().to_string_lossy()))
}

/// The KiB that the mappings of a file have mapped by whole huge pages (proc_pid_smaps(5)).
fn shmem_pmd_mapped(smaps: &str, path: &str) -> u64 {
    let mut ours = false;
    let mut sum = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("ShmemPmdMapped:"), Some(kib)) if ours => sum += kib.parse().unwrap_or(0),
            // Only the first line of a mapping starts with addresses.
            (Some(word), _) if !word.ends_with(':') => ours = line.ends_with(path),
            _ => {}
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tmpfs_without_the_option_gives_no_huge_pages() {
        let shm = Path::new("/dev/shm");
        let entry = punchbench_sys::mount::mount_of(shm).unwrap();
        let forced = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
            .is_ok_and(|text| text.contains("[force]"));
        if entry.fstype == "tmpfs" && !entry.super_options.contains("huge=") && !forced {
            assert_eq!(huge_kib(shm).unwrap(), 0);
        }
    }

    #[test]
    fn only_the_files_own_mapping_counts() {
        let smaps = "7f00-7f80 r--s 00000000 00:27 2    /t/other\n\
                     ShmemPmdMapped:     2048 kB\n\
                     7f80-7f90 r--s 00000000 00:27 3    /t/huge-1\n\
                     Size:  8192 kB\n\
                     ShmemPmdMapped:     6144 kB\n\
                     7f90-7fa0 rw-p 00000000 00:00 0\n\
                     ShmemPmdMapped:     4096 kB\n";
        assert_eq!(shmem_pmd_mapped(smaps, "/t/huge-1"), 6144);
        assert_eq!(shmem_pmd_mapped(smaps, "/t/huge-2"), 0);
    }
}
