//! NTFS by Paragon's driver (fs/ntfs3, Linux 5.15): came after the series of 2021.

use super::mkntfs::OnNtfs;
use crate::adapter::{Adapter, Store};
use crate::profile::Profile;
use crate::reuse::{Reuse, ReusePlan};

/// The adapter.
#[derive(Debug)]
pub struct Ntfs3;

impl Adapter for Ntfs3 {
    fn name(&self) -> &'static str {
        "ntfs3"
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["ntfs3"]
    }

    fn store(&self) -> Store<'_> {
        // Only sparse files can be punched (attr_punch_hole). It discards only when asked to.
        Store::Device(&OnNtfs {
            mount_data: "sparse",
        })
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        // A cluster is free at once (mark_as_free_ex).
        Reuse::Plan(ReusePlan {
            fill: true,
            ..ReusePlan::default()
        })
    }
}
