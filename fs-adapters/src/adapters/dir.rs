//! `--in DIR`: a directory of whatever filesystem is mounted there. What needs a device is left out.

use crate::adapter::{ADAPTERS, Adapter, Store};
use crate::profile::{BASE, Profile};
use crate::reuse::{Reuse, ReusePlan};

/// The adapter.
#[derive(Debug)]
pub struct Dir;

impl Adapter for Dir {
    fn name(&self) -> &'static str {
        "dir"
    }

    fn profiles(&self) -> &'static [Profile] {
        const HERE: Profile = Profile {
            about: "the directory given with --in",
            ..BASE
        };
        &[HERE]
    }

    fn drivers(&self) -> &'static [&'static str] {
        &[]
    }

    fn store(&self) -> Store<'_> {
        Store::Directory
    }

    fn reuse(&self, _profile: &Profile, driver: &str) -> Reuse {
        // As the filesystem that serves it, if we know that, but never by filling up somebody else's disk.
        let known = ADAPTERS
            .iter()
            .find(|adapter| adapter.name() == driver)
            .map(|adapter| adapter.reuse(&BASE, driver));
        match known {
            Some(Reuse::Plan(plan)) if !plan.fill => Reuse::Plan(plan),
            Some(Reuse::Plan(_)) => {
                Reuse::Never("it would have to be filled up, and it is not ours")
            }
            Some(never @ Reuse::Never(_)) => never,
            None => Reuse::Plan(ReusePlan {
                commit: true,
                ..ReusePlan::default()
            }),
        }
    }
}
