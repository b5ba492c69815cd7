//! NTFS by the driver that came with Linux 7.1 (fs/ntfs), on iomap: punch, collapse and insert range under
//! `mapping->invalidate_lock` from the beginning, but for page_mkwrite. The drivers of that name before it cannot
//! be raced: they hardly write.

use super::mkntfs::OnNtfs;
use crate::adapter::{Adapter, Store};
use crate::profile::Profile;
use crate::reuse::{Reuse, ReusePlan};
use crate::set_up::SetUpError;
use crate::tools::Version;

/// The first release with it.
const FIRST: Version = Version(7, 1, 0);

/// The adapter.
#[derive(Debug)]
pub struct Ntfs;

impl Adapter for Ntfs {
    fn name(&self) -> &'static str {
        "ntfs"
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["ntfs"]
    }

    fn store(&self) -> Store<'_> {
        // It discards only when asked to (`discard`).
        Store::Device(&OnNtfs { mount_data: "" })
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        // A cluster is free at once (ntfs_cluster_free_from_rl), but the allocator goes on from where it was.
        Reuse::Plan(ReusePlan {
            fill: true,
            ..ReusePlan::default()
        })
    }

    fn check(&self, _profile: &Profile) -> Result<(), SetUpError> {
        let kernel = Version::of_kernel();
        if kernel < FIRST {
            return Err(SetUpError::Unsupported {
                reason: format!(
                    "what Linux {kernel} calls ntfs does not write; from {FIRST} on it does"
                ),
            });
        }
        Ok(())
    }
}
