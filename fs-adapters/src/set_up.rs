//! From a target to a mounted filesystem: what stands in the way is told apart from what went wrong.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use punchbench_sys::blk;
use punchbench_sys::loopdev::{LoopDevice, LoopError};
use tempfile::TempDir;

use crate::adapter::{MkfsPlan, OnDevice, Stacked, Store, Target};
use crate::device::{self, DeviceChoice};
use crate::hold::{DmDelay, HoldError, HolderKind, ImageServer};
use crate::home::{DiscardOff, Home, RealDevice};
use crate::image::{self, Background, Prefer};
use crate::kernel::{self, Support};
use crate::mount_point::{MountPoint, What};
use crate::mounted::Mounted;
use crate::pmem;
use crate::profile::ProfileError;
use crate::tag::Tag;
use crate::tools::Version;
use crate::user::{Privilege, ROOT_WOULD_ADD};

/// How long mkfs or fsck may take, slow emulation included.
pub const TOOL_TIME: Duration = Duration::from_secs(120);

/// What a target is set up with.
#[derive(Clone)]
pub struct SetUp<'a> {
    /// Marks everything acquired as the runner's.
    pub tag: &'a Tag,
    /// Where directories of our own are made: mount points and device nodes.
    pub work_dir: &'a Path,
    /// The directory for images, if the user named one; else the fastest place with room.
    pub image_dir: Option<&'a Path>,
    /// A real device instead of an image.
    pub device: Option<&'a DeviceChoice>,
    /// The directory that the target `dir` works in.
    pub in_dir: Option<&'a Path>,
    /// How much an image should hold; more if the filesystem needs it, less if there is no room.
    pub size: u64,
    /// The bytes of the device before mkfs.
    pub background: Background<'a>,
    /// What is to hold chosen I/O, if anything: see [`Mounted::holder`].
    pub hold: Option<HolderKind>,
    /// How long mkfs or fsck may take.
    pub tool_time: Duration,
}

impl<'a> SetUp<'a> {
    /// With the defaults.
    pub fn new(tag: &'a Tag, work_dir: &'a Path, background: Background<'a>) -> Self {
        SetUp {
            tag,
            work_dir,
            image_dir: None,
            device: None,
            in_dir: None,
            size: image::USUAL_SIZE,
            background,
            hold: None,
            tool_time: TOOL_TIME,
        }
    }
}

impl std::fmt::Debug for SetUp<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetUp")
            .field("tag", &self.tag)
            .field("work_dir", &self.work_dir)
            .field("image_dir", &self.image_dir)
            .field("device", &self.device)
            .field("in_dir", &self.in_dir)
            .field("size", &self.size)
            .field("hold", &self.hold)
            .field("tool_time", &self.tool_time)
            .finish_non_exhaustive()
    }
}

/// Why a target is not set up.
#[derive(Debug, thiserror::Error)]
pub enum SetUpError {
    /// A tool, a driver or a privilege is missing.
    #[error("{reason}")]
    Skipped {
        /// What is missing.
        reason: String,
        /// What would help.
        hint: Option<String>,
    },
    /// The target cannot be had on this kernel or device at all.
    #[error("{reason}")]
    Unsupported {
        /// Why.
        reason: String,
    },
    /// The bench failed.
    #[error("{0}")]
    Error(String),
}

impl SetUpError {
    pub(crate) fn skipped(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        SetUpError::Skipped {
            reason: reason.into(),
            hint: Some(hint.into()),
        }
    }

    pub(crate) fn io(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> SetUpError {
        let what = what.to_string();
        move |error| SetUpError::Error(format!("cannot {what}: {error}"))
    }
}

impl From<LoopError> for SetUpError {
    fn from(error: LoopError) -> Self {
        match error {
            LoopError::NoDriver => SetUpError::skipped(error.to_string(), "load the module loop"),
            LoopError::NotPermitted { .. } => {
                SetUpError::skipped(error.to_string(), ROOT_WOULD_ADD)
            }
            LoopError::Contended | LoopError::TagTooLong(_) | LoopError::Io { .. } => {
                SetUpError::Error(error.to_string())
            }
        }
    }
}

impl From<HoldError> for SetUpError {
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::Unsupported(reason) => SetUpError::Skipped { reason, hint: None },
            HoldError::Gone(_) | HoldError::Over(_) | HoldError::Io { .. } => {
                SetUpError::Error(error.to_string())
            }
        }
    }
}

impl From<ProfileError> for SetUpError {
    fn from(error: ProfileError) -> Self {
        match error {
            ProfileError::Refused { reason, hint } => SetUpError::skipped(reason, hint),
            ProfileError::NotSo { .. } | ProfileError::Io { .. } => {
                SetUpError::Error(error.to_string())
            }
        }
    }
}

impl Target {
    /// What stands in the way of this target here, found without changing anything but loading drivers.
    pub fn check(&self, env: &SetUp<'_>) -> Result<(), SetUpError> {
        let privilege = Privilege::current();
        match self.adapter.store() {
            Store::Directory => match env.in_dir {
                Some(_) => Ok(()),
                None => Err(SetUpError::skipped(
                    "no directory was named",
                    "name one with --in DIR",
                )),
            },
            Store::Memory => {
                if !privilege.may_mount_tmpfs() {
                    return Err(SetUpError::skipped(
                        "mounting tmpfs needs a user namespace of its own, or root",
                        "allow user namespaces, or run as root",
                    ));
                }
                self.check_kernel()?;
                self.adapter.check(self.profile)
            }
            Store::Device(_) => {
                if !privilege.may_use_devices() {
                    return Err(SetUpError::skipped(ROOT_WOULD_ADD, "run as root"));
                }
                self.check_kernel()?;
                if let Some(tool) = self.tools().into_iter().find(|tool| tool.find().is_none()) {
                    return Err(SetUpError::skipped(
                        format!("{} is not installed", tool.name),
                        tool.hint(),
                    ));
                }
                match env.device {
                    None if self.profile.is_dax() => drop(pmem::find()?),
                    None => check_loop()?,
                    Some(_) => {}
                }
                self.adapter.check(self.profile)
            }
            Store::Stacked(layer) => {
                layer.below(self.profile).check(env)?;
                self.check_kernel()?;
                self.adapter.check(self.profile)
            }
            Store::Fixed(files) => {
                if !privilege.may_use_devices() {
                    return Err(SetUpError::skipped(ROOT_WOULD_ADD, "run as root"));
                }
                files.check()
            }
        }
    }

    fn check_kernel(&self) -> Result<(), SetUpError> {
        check_filesystem(self.adapter.name())
    }

    /// Makes it, mounts it and looks it over. What it acquires, the result releases when dropped.
    pub fn set_up(&self, env: &SetUp<'_>) -> Result<Mounted, SetUpError> {
        self.check(env)?;
        match self.adapter.store() {
            Store::Directory => {
                let parent = env.in_dir.unwrap_or(env.work_dir);
                let directory = own_directory(env.tag, parent)?;
                Mounted::in_directory(*self, directory)
            }
            Store::Fixed(files) => {
                let directory = own_directory(env.tag, env.work_dir)?;
                Mounted::of_fixed_files(*self, files, directory, env)
            }
            Store::Memory => {
                // The source of a tmpfs is free text: it carries the tag.
                let own = format!("size={},mode=700", env.size);
                let data = self.profile.mount_data(&own);
                let point = self.mount(env, env.tag.to_string(), data, None)?;
                Mounted::on(*self, point, Home::Memory, Vec::new(), env.tool_time)
            }
            Store::Device(on_device) => self.set_up_on_device(on_device, env),
            Store::Stacked(layer) => self.set_up_on_another(layer, env),
        }
    }

    fn set_up_on_device(
        &self,
        on_device: &dyn OnDevice,
        env: &SetUp<'_>,
    ) -> Result<Mounted, SetUpError> {
        let mut facts = Vec::new();
        let home = match env.device {
            Some(choice) => real_device(on_device, choice, env, &mut facts)?,
            None if self.profile.is_dax() => {
                let choice = DeviceChoice {
                    path: pmem::find()?,
                    insist: false,
                };
                real_device(on_device, &choice, env, &mut facts)?
            }
            None => loop_device(on_device, env, &mut facts)?,
        };
        let (path, size) = home
            .device()
            .ok_or_else(|| SetUpError::Error("a device has no path".to_owned()))?;
        self.mkfs(on_device, path, size, env.tool_time, &mut facts)?;
        let source = path.to_string_lossy().into_owned();
        let data = self.profile.mount_data(on_device.mount_data());
        let point = self.mount(env, source, data, None)?;
        Mounted::on(*self, point, home, facts, env.tool_time)
    }

    /// The filesystem below first, in a directory of which this one has its files.
    fn set_up_on_another(
        &self,
        layer: &dyn Stacked,
        env: &SetUp<'_>,
    ) -> Result<Mounted, SetUpError> {
        let below = layer.below(self.profile).set_up(env)?;
        let facts = below.facts().to_vec();
        let over = layer
            .over(below.dir())
            .map_err(SetUpError::io("make directories for a layer"))?;
        let data = self.profile.mount_data(&over.data);
        let point = self.mount(env, env.tag.to_string(), data, over.served)?;
        let home = Home::Layer(Box::new(below));
        Mounted::on(*self, point, home, facts, env.tool_time)
    }

    fn mount(
        &self,
        env: &SetUp<'_>,
        source: String,
        data: String,
        served: Option<PathBuf>,
    ) -> Result<MountPoint, SetUpError> {
        let what = What {
            source,
            fstype: self.adapter.name().to_owned(),
            data,
            served,
        };
        MountPoint::mount(own_directory(env.tag, env.work_dir)?, what)
    }

    fn mkfs(
        &self,
        on_device: &dyn OnDevice,
        path: &Path,
        size: u64,
        limit: Duration,
        facts: &mut Vec<String>,
    ) -> Result<(), SetUpError> {
        let tool = on_device.mkfs_tool();
        let version_line = tool.version_line().unwrap_or_default();
        let plan = MkfsPlan {
            profile: self.profile,
            kernel: Version::of_kernel(),
            tool: Version::find(&version_line).unwrap_or(Version(0, 0, 0)),
            size,
        };
        let mut words = on_device.mkfs_arguments(&plan);
        words.push(path.to_string_lossy().into_owned());
        words.extend(on_device.mkfs_trailing(&plan));
        let output = tool
            .run(&words, limit)
            .map_err(|error| SetUpError::Error(error.to_string()))?;
        facts.push(format!("mkfs: {} ({version_line})", output.command));
        if output.status.success() {
            return Ok(());
        }
        Err(SetUpError::Error(output.failure()))
    }
}

pub(crate) fn check_filesystem(name: &str) -> Result<(), SetUpError> {
    match kernel::load(name) {
        Support::Registered => Ok(()),
        Support::Module(why) => Err(SetUpError::skipped(why, "load the module as root")),
        Support::Missing(why) => Err(SetUpError::skipped(
            why,
            format!("boot a kernel with {name}"),
        )),
    }
}

pub(crate) fn check_loop() -> Result<(), SetUpError> {
    if kernel::load_loop() {
        Ok(())
    } else {
        Err(LoopError::NoDriver.into())
    }
}

/// A directory that a sweep recognises.
pub(crate) fn own_directory(tag: &Tag, parent: &Path) -> Result<TempDir, SetUpError> {
    tag.new_directory(parent).map_err(SetUpError::io(format!(
        "make a directory in {}",
        parent.display()
    )))
}

/// A loop device over an image, with a server between the two where I/O is to be held. The server is to be
/// dropped after the device.
pub(crate) fn attach(
    image: &File,
    env: &SetUp<'_>,
    nodes: &Path,
) -> Result<(LoopDevice, Option<ImageServer>), SetUpError> {
    let tag = env.tag.to_string();
    if env.hold != Some(HolderKind::ImageServer) {
        let device = LoopDevice::attach_to_new(image, &tag, false, nodes)?;
        return Ok((device, None));
    }
    let (server, file) = ImageServer::start(image, env.tag, env.work_dir)?;
    let device = LoopDevice::attach_to_new(&file, &tag, true, nodes)?;
    // Through its page cache, requests would reach the server late or never.
    if !device
        .has_direct_io()
        .map_err(SetUpError::io("ask for the loop device's mode"))?
    {
        return Err(SetUpError::Error(format!(
            "{} does not read its served image directly, so nothing could be held",
            device.name()
        )));
    }
    Ok((device, Some(server)))
}

fn loop_device(
    on_device: &dyn OnDevice,
    env: &SetUp<'_>,
    facts: &mut Vec<String>,
) -> Result<Home, SetUpError> {
    let image = image::create(
        env.image_dir,
        Prefer::Memory,
        on_device.minimum_size(),
        env.size,
        env.background,
    )
    .map_err(|error| SetUpError::Error(error.to_string()))?;
    facts.push(format!("image: {}", image.place));
    let nodes = own_directory(env.tag, env.work_dir)?;
    let (device, server) = attach(&image.file, env, nodes.path())?;
    let discard = DiscardOff::of_loop(&device.name(), facts)?;
    let delay = match env.hold {
        Some(HolderKind::DmDelay) => {
            let work_dir = nodes.path();
            let delay = DmDelay::over(device.path(), image.size, env.tag, work_dir)?;
            Some(Box::new(delay))
        }
        Some(HolderKind::ImageServer) | None => None,
    };
    if let Some(kind) = env.hold {
        facts.push(format!("holder: {}", kind.word()));
    }
    Ok(Home::Loop {
        discard,
        delay,
        device,
        server,
        image: image.file,
        size: image.size,
        _nodes: nodes,
    })
}

fn real_device(
    on_device: &dyn OnDevice,
    choice: &DeviceChoice,
    env: &SetUp<'_>,
    facts: &mut Vec<String>,
) -> Result<Home, SetUpError> {
    let free = device::claim(choice, on_device.minimum_size())
        .map_err(|error| SetUpError::Error(error.to_string()))?;
    let size = free.size.min(env.size.max(on_device.minimum_size()));
    facts.push(format!(
        "device: {}, the first {} of {} MiB",
        free.path.display(),
        size >> 20,
        free.size >> 20
    ));
    let discard = DiscardOff::of_device(&free.name, facts)?;
    let device = RealDevice {
        path: free.path,
        file: free.file,
        size,
    };
    image::stamp(&device.file, size, env.background)
        .and_then(|()| device.file.sync_all())
        .and_then(|()| blk::flush_buffers(&device.file))
        .map_err(SetUpError::io(format!("stamp {}", device.path.display())))?;
    Ok(Home::Device { discard, device })
}

/// Opens a file for direct reads where that works, else as usual.
pub(crate) fn open_uncached(path: &PathBuf) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let direct = fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::fcntl::OFlag::O_DIRECT.bits())
        .open(path);
    match direct {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => File::open(path),
        other => other,
    }
}
