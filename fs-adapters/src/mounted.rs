//! A filesystem that is mounted and was looked over: where its files go, who serves it, what it can do; and
//! its end: unmounted, checked, detached.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statfs::Statfs;
use punchbench_scenarios::{Actor, Capability, Content, Op, Role, Scenario};
use punchbench_sys::mount;
use tempfile::TempDir;

use crate::adapter::{Addresses, FixedFiles, Store, Target};
use crate::discard;
use crate::fsck::FsckResult;
use crate::hold::Holder;
use crate::home::Home;
use crate::mount_point::MountPoint;
use crate::probe::{Abilities, Medium, Place};
use crate::profile::{Profile, Seen};
use crate::reuse::Reuse;
use crate::set_up::{SetUp, SetUpError};
use crate::subject::SubjectOptions;

/// Files smaller than this may live in their inode (btrfs, f2fs, ext4) and have no blocks.
const INLINE_LIMIT: u64 = 64 << 10;

/// Types whose page cache is their store.
const MEMORY_TYPES: [&str; 3] = ["tmpfs", "ramfs", "hugetlbfs"];

/// Sizes of a mounted filesystem, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// What the filesystem allocates and frees at a time: its block, or a cluster of them (bigalloc), which
    /// statfs(2) does not tell. Operations that move blocks take whole ones only.
    pub block: u64,
    /// Page size.
    pub page: u64,
    /// Free for our files.
    pub free: u64,
    /// A file of the scenarios must be larger than this to have blocks.
    pub inline_limit: u64,
    /// What the addresses of extents are.
    pub addresses: Addresses,
}

/// A target that is set up. Fields are released in the order in which they stand.
#[derive(Debug)]
pub struct Mounted {
    target: Target,
    point: Option<MountPoint>,
    home: Home,
    /// The directory of `--in DIR`; it goes with all that is in it.
    _directory: Option<TempDir>,
    dir: PathBuf,
    driver: String,
    shape: Shape,
    abilities: Abilities,
    facts: Vec<String>,
    tool_time: Duration,
}

impl Mounted {
    pub(crate) fn on(
        target: Target,
        point: MountPoint,
        home: Home,
        facts: Vec<String>,
        tool_time: Duration,
    ) -> Result<Self, SetUpError> {
        let dir = point.at().to_owned();
        Mounted::look_over(target, Some(point), home, None, dir, facts, tool_time)
    }

    pub(crate) fn in_directory(target: Target, directory: TempDir) -> Result<Self, SetUpError> {
        let dir = directory.path().to_owned();
        Mounted::look_over(
            target,
            None,
            Home::Directory,
            Some(directory),
            dir,
            Vec::new(),
            Duration::ZERO,
        )
    }

    /// Files that are there from the beginning. Those of the scenario come with [`Mounted::provide`], when
    /// their sizes are known; what they can do is tried out on others.
    pub(crate) fn of_fixed_files(
        target: Target,
        files: &dyn FixedFiles,
        directory: TempDir,
        env: &SetUp<'_>,
    ) -> Result<Self, SetUpError> {
        let dir = directory.path().to_owned();
        let page = punchbench_sys::map::page_size() as u64;
        let home = Home::Fixed(Vec::new());
        let medium = Medium {
            home: &home,
            addresses: Addresses::None,
        };
        let abilities = Abilities::probe(Place::Fixed(files, &dir, env), &medium)
            .map_err(SetUpError::io(format!("probe a file of {target}")))?;
        Ok(Mounted {
            target,
            point: None,
            home,
            _directory: Some(directory),
            dir,
            driver: target.adapter.name().to_owned(),
            shape: Shape {
                // fallocate(2) of a block device takes logical blocks, but only zeroes what is not a whole
                // page, in the cache.
                block: page,
                page,
                free: env.size,
                inline_limit: 0,
                addresses: Addresses::None,
            },
            abilities,
            facts: Vec::new(),
            tool_time: Duration::ZERO,
        })
    }

    /// Makes the scenario's files where they cannot be made by opening them.
    pub fn provide(&mut self, scenario: &Scenario, env: &SetUp<'_>) -> Result<(), SetUpError> {
        let units = self.units();
        let (Home::Fixed(made), Store::Fixed(files)) =
            (&mut self.home, self.target.adapter.store())
        else {
            return Ok(());
        };
        for (name, file) in scenario.files.iter() {
            let size = file.size.bytes(units);
            if file.content == Content::Empty || !size.is_multiple_of(units.page) {
                return Err(SetUpError::Unsupported {
                    reason: format!(
                        "a file of {} is never empty and has whole pages: {name}",
                        self.target
                    ),
                });
            }
            let file = files.create(&self.dir, name, size, env)?;
            if file.size() != size {
                return Err(SetUpError::Unsupported {
                    reason: format!(
                        "{name} would have {} bytes on {}, not {size}",
                        file.size(),
                        self.target
                    ),
                });
            }
            self.facts.push(format!("{name}: {}", file.about()));
            made.push(file);
        }
        Ok(())
    }

    fn look_over(
        target: Target,
        point: Option<MountPoint>,
        home: Home,
        _directory: Option<TempDir>,
        dir: PathBuf,
        mut facts: Vec<String>,
        tool_time: Duration,
    ) -> Result<Self, SetUpError> {
        let entry = mount::mount_of(&dir).map_err(SetUpError::io("find the mount in mountinfo"))?;
        facts.push(format!(
            "mount: {} {} ({})",
            entry.fstype, entry.options, entry.super_options
        ));
        let on_device = matches!(target.adapter.store(), Store::Device(_));
        if on_device
            && entry
                .super_options
                .split(',')
                .any(|o| o == "discard" || o.starts_with("discard="))
        {
            return Err(SetUpError::Error(format!(
                "mounted with discard though told not to: {}",
                entry.super_options
            )));
        }
        let driver = serving_driver(&home, &entry.fstype);
        if driver != target.adapter.name() {
            facts.push(format!("driver: {driver}"));
        }
        let stat = nix::sys::statfs::statfs(&dir)
            .map_err(io::Error::from)
            .map_err(SetUpError::io("statfs"))?;
        let block = block_size(&stat);
        let seen = Seen {
            dir: &dir,
            block,
            options: &entry.super_options,
            home: &home,
        };
        facts.extend(seen.prove(target.adapter, target.profile)?);
        let shape = Shape {
            block: match &home {
                Home::Layer(below) => below.shape.block,
                _ if on_device => target.profile.unit,
                _ => block,
            },
            page: punchbench_sys::map::page_size() as u64,
            free: stat.blocks_available() * block,
            inline_limit: INLINE_LIMIT,
            addresses: match target.adapter.store() {
                Store::Device(on_device) => on_device.addresses(target.profile),
                Store::Memory | Store::Fixed(_) => Addresses::None,
                Store::Directory => Addresses::Logical,
                Store::Stacked(layer) if layer.shows_addresses() => match &home {
                    Home::Layer(below) => below.shape.addresses,
                    _ => Addresses::None,
                },
                Store::Stacked(_) => Addresses::None,
            },
        };
        let medium = Medium {
            home: &home,
            addresses: shape.addresses,
        };
        if on_device {
            facts.push(discard::assert_kept(&dir, &medium)?);
        }
        let abilities = Abilities::probe(Place::Directory(&dir), &medium)
            .map_err(SetUpError::io(format!("probe {}", dir.display())))?;
        Ok(Mounted {
            target,
            point,
            home,
            _directory,
            dir,
            driver,
            shape,
            abilities,
            facts,
            tool_time,
        })
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// What was set up.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Whether what is mounted is a profile of its filesystem, as seen on the mount.
    pub fn prove(&self, profile: &Profile) -> Result<(), SetUpError> {
        let entry = mount::mount_of(&self.dir).map_err(SetUpError::io("find the mount"))?;
        let stat = nix::sys::statfs::statfs(&self.dir)
            .map_err(|error| SetUpError::io("statfs")(error.into()))?;
        let seen = Seen {
            dir: &self.dir,
            block: block_size(&stat),
            options: &entry.super_options,
            home: &self.home,
        };
        seen.prove(self.target.adapter, profile)?;
        Ok(())
    }

    /// Where files go.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whose locks keep an actor waiting: its own, or those of the filesystem that it lies over.
    pub fn lockers(&self) -> impl Iterator<Item = &str> {
        let below = match self.target.adapter.store() {
            Store::Stacked(layer) => Some(layer.below(self.target.profile).adapter.name()),
            Store::Device(_) | Store::Memory | Store::Fixed(_) | Store::Directory => None,
        };
        below.into_iter().chain([self.driver()])
    }

    /// The driver that really serves it, such as `ext4` for an ext2 image.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Sizes.
    pub fn geometry(&self) -> Shape {
        self.shape
    }

    /// What the scenario language's units mean here.
    pub fn units(&self) -> punchbench_scenarios::Geometry {
        punchbench_scenarios::Geometry {
            page: self.shape.page,
            block: self.shape.block,
        }
    }

    /// Whether an operation works here, else why not.
    pub fn capability(&self, capability: Capability) -> Result<(), &str> {
        self.abilities.of(capability)
    }

    /// Whether every filler of a scenario can bring something in here, and be seen to: without a page cache, only
    /// loads from a mapping can (nothing tells from outside what MADV_POPULATE_READ mapped).
    pub fn can_fill(&self, scenario: &Scenario) -> Result<(), String> {
        let loads = |op: &Op| op.maps() && op.observes();
        let maps = |actor: &Actor| actor.ops.iter().any(loads);
        let mut fillers = scenario
            .actors
            .iter()
            .filter(|(_, a)| a.role == Role::Filler);
        match fillers.find(|(_, actor)| self.target.profile.is_dax() && !maps(actor)) {
            Some((name, _)) => Err(format!(
                "{} has no page cache for the {name} to fill: only loads from mappings are raced",
                self.target
            )),
            None => Ok(()),
        }
    }

    /// What is worth keeping in the record.
    pub fn facts(&self) -> &[String] {
        &self.facts
    }

    /// The page cache is the store: there is nothing to evict to, nor to mount again.
    pub fn cache_is_store(&self) -> bool {
        MEMORY_TYPES.contains(&self.driver.as_str())
    }

    /// How a freed block gets a new owner.
    pub fn reuse(&self) -> Reuse {
        if self.cache_is_store() {
            return Reuse::Never("it has no blocks");
        }
        self.target.adapter.reuse(self.target.profile, &self.driver)
    }

    /// How files must be written and looked at here. `chunk` is a round's range in bytes, `reuse` whether
    /// freed blocks should come to be free.
    pub fn subject_options(&self, chunk: u64, reuse: bool) -> SubjectOptions {
        let piecewise = reuse && matches!(self.reuse(), Reuse::Plan(plan) if plan.piecewise);
        let usual = SubjectOptions {
            cache_is_store: self.cache_is_store(),
            fixed_size: matches!(self.home, Home::Fixed(_)),
            may_fill: reuse && !self.is_foreign(),
            ..SubjectOptions::default()
        };
        match usize::try_from(chunk) {
            Ok(step) if piecewise => SubjectOptions {
                step,
                apart: true,
                ..usual
            },
            _ => usual,
        }
    }

    /// The filesystem is somebody else's: never filled up, unmounted or checked.
    pub fn is_foreign(&self) -> bool {
        matches!(self.home, Home::Directory)
    }

    /// The kernel's names for all devices that are ours alone, such as `loop3`.
    pub fn device_names(&self) -> Vec<String> {
        match &self.home {
            Home::Fixed(files) => files.iter().map(|file| file.device()).collect(),
            _ => self.device_name().into_iter().collect(),
        }
    }

    /// The kernel's name for the device of the filesystem, such as `loop3`.
    pub fn device_name(&self) -> Option<String> {
        let (path, _) = self.home.device()?;
        Some(path.file_name()?.to_string_lossy().into_owned())
    }

    /// The device's node.
    pub fn device_path(&self) -> Option<&Path> {
        self.home.device().map(|(path, _)| path)
    }

    /// What holds chosen I/O of the device; there is one only if [`SetUp::hold`] asked for it.
    pub fn holder(&self) -> Option<&dyn Holder> {
        self.home.holder()
    }

    /// Whether extents' addresses are places on the medium that [`Mounted::read_medium`] can look at.
    pub fn medium_is_readable(&self) -> bool {
        self.shape.addresses == Addresses::Device && self.home.device().is_some()
    }

    /// Reads the medium at a device address, not through the device's page cache; offset and length in
    /// multiples of 4096.
    pub fn read_medium(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        self.home
            .read_at(at, buf)
            .unwrap_or_else(|| Err(io::ErrorKind::Unsupported.into()))
    }

    /// Where a change of times would start a transaction (ext4), it does so no more: an operation that is to be
    /// parked would be so before it has begun. Undone by a remount.
    pub fn be_lazy(&self) -> Result<(), SetUpError> {
        if self.point.is_none() || self.driver != "ext4" {
            return Ok(());
        }
        mount::be_lazy(&self.dir).map_err(SetUpError::io("remount with lazytime"))
    }

    /// Whether it can be unmounted and mounted again with its files kept.
    pub fn can_remount(&self) -> bool {
        self.point.is_some() && self.home.device().is_some()
    }

    /// Unmounts and mounts again, so that nothing in memory is left of it; no file on it may be open.
    pub fn remount(&mut self) -> Result<(), SetUpError> {
        self.unmount()?;
        if let Home::Layer(below) = &mut self.home {
            below.remount()?;
        }
        match &mut self.point {
            Some(point) => point.mount_again(),
            None => Ok(()),
        }
    }

    /// Unmounts if mounted, checks, and leaves it unmounted. `Err` only if the bench failed.
    pub fn fsck(&mut self) -> Result<FsckResult, SetUpError> {
        if let Home::Layer(_) = &self.home {
            self.unmount()?;
        }
        if let Home::Layer(below) = &mut self.home {
            return below.fsck();
        }
        let Store::Device(on_device) = self.target.adapter.store() else {
            return Ok(FsckResult::NotRun(format!(
                "{} has nothing to check",
                self.target
            )));
        };
        self.unmount()?;
        let Some((path, _)) = self.home.device() else {
            return Ok(FsckResult::NotRun("there is no device".to_owned()));
        };
        let mut words: Vec<String> = on_device
            .fsck_arguments()
            .iter()
            .map(|word| (*word).to_owned())
            .collect();
        words.push(path.to_string_lossy().into_owned());
        Ok(match on_device.fsck_tool().run(&words, self.tool_time) {
            Ok(output) => on_device.judge_fsck(&output),
            Err(error) => FsckResult::NotRun(error.to_string()),
        })
    }

    /// The end: unmounted, checked and detached.
    pub fn finish(mut self) -> FsckResult {
        self.fsck()
            .unwrap_or_else(|error| FsckResult::NotRun(error.to_string()))
    }

    fn unmount(&mut self) -> Result<(), SetUpError> {
        if !self.can_remount() {
            return Err(SetUpError::Unsupported {
                reason: format!("{} cannot be unmounted with its files kept", self.target),
            });
        }
        match &mut self.point {
            Some(point) => point
                .unmount()
                .map_err(SetUpError::io(format!("unmount {}", self.dir.display()))),
            None => Ok(()),
        }
    }
}

/// mountinfo names the type that was asked for; ext4's sysfs directory tells when its driver serves the
/// older formats.
fn serving_driver(home: &Home, fstype: &str) -> String {
    let name = home
        .device()
        .and_then(|(path, _)| path.file_name())
        .map(|name| name.to_string_lossy().into_owned());
    let by_ext4 = name.is_some_and(|name| Path::new("/sys/fs/ext4").join(name).is_dir());
    if by_ext4 && matches!(fstype, "ext2" | "ext3") {
        "ext4".to_owned()
    } else {
        fstype.to_owned()
    }
}

/// Of a mount, in bytes: the C libraries do not agree on its type.
pub(crate) fn block_size(stat: &Statfs) -> u64 {
    stat.block_size() as u64
}
