//! The filesystems that punchbench races on: one adapter each, set up on a loop device, a device, in memory
//! or in a directory; and the subject that carries out a scenario's operations on them by system calls.

pub mod adapter;
pub mod adapters;
pub mod device;
mod devices;
mod discard;
pub mod doctor;
pub mod elsewhere;
pub mod folios;
pub mod fsck;
pub mod grip;
pub mod hold;
mod home;
pub mod image;
pub mod inject;
pub mod install;
pub mod kernel;
mod mount_point;
pub mod mounted;
pub mod pmem;
mod probe;
pub mod profile;
pub mod reuse;
pub mod set_up;
pub mod subject;
pub mod sweep;
pub mod tag;
pub mod tools;
pub mod user;
mod zoned;

pub use adapter::{ADAPTERS, Adapter, Target, TargetError};
pub use device::DeviceChoice;
pub use doctor::{Finding, Report, doctor};
pub use fsck::FsckResult;
pub use grip::MountedGrip;
pub use mounted::{Mounted, Shape};
pub use profile::{BASE, Profile};
pub use reuse::{Ballast, Reuse, ReusePlan};
pub use set_up::{SetUp, SetUpError};
pub use sweep::sweep;
pub use tag::Tag;
pub use user::Privilege;
