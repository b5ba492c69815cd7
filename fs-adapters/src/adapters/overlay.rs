//! Overlayfs: files of the upper directory, through a layer that has no page cache of its own: reads, faults
//! and fallocate(2) go to the file below (fs/overlayfs/file.c), whose locks must hold all the same.

use std::fs;
use std::io;
use std::path::Path;

use super::{ext4, xfs};
use crate::adapter::{Adapter, Over, Stacked, Store, Target};
use crate::home::Home;
use crate::profile::{BASE, Profile, ProfileError, Seen};
use crate::reuse::Reuse;

const PROFILES: &[Profile] = &[
    Profile {
        about: "over ext4: files of the upper directory, cached by the filesystem below",
        ..BASE
    },
    Profile {
        name: "xfs",
        about: "over xfs",
        ..BASE
    },
];

/// The adapter.
#[derive(Debug)]
pub struct Overlay;

impl Adapter for Overlay {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn profiles(&self) -> &'static [Profile] {
        PROFILES
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["overlay"]
    }

    fn store(&self) -> Store<'_> {
        Store::Stacked(self)
    }

    fn prove(&self, profile: &Profile, seen: &Seen<'_>) -> Result<Option<String>, ProfileError> {
        let wanted = self.below(profile).adapter.name();
        match seen.home {
            Home::Layer(below) if below.driver() != wanted => Err(ProfileError::not_so(
                format!("a layer over {wanted}"),
                format!("it lies over {}", below.driver()),
            )),
            _ => Ok(None),
        }
    }

    fn reuse(&self, profile: &Profile, _driver: &str) -> Reuse {
        let below = self.below(profile);
        below.adapter.reuse(below.profile, below.adapter.name())
    }
}

impl Stacked for Overlay {
    fn below(&self, profile: &Profile) -> Target {
        Target {
            adapter: match profile.name {
                "xfs" => &xfs::Xfs,
                _ => &ext4::Ext4,
            },
            profile: &BASE,
        }
    }

    fn over(&self, below: &Path) -> io::Result<Over> {
        // Nothing is in the lower directory: what is copied up from there was the lower file's until then, for
        // ever so in descriptors opened before.
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| below.join(name));
        for dir in [&lower, &upper, &work] {
            fs::create_dir_all(dir)?;
        }
        Ok(Over {
            data: format!(
                "lowerdir={},upperdir={},workdir={}",
                lower.display(),
                upper.display(),
                work.display()
            ),
            served: None,
        })
    }

    fn shows_addresses(&self) -> bool {
        true
    }
}
