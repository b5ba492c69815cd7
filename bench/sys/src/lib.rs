//! System calls that the safe crates lack, and the only `unsafe` code of punchbench. Each module is one
//! subject, small enough to review in a sitting; each block says why it is sound.

pub mod blk;
pub mod extents;
pub mod fdpass;
pub mod futex;
pub mod inode;
pub mod io;
pub mod kmsg;
pub mod loopdev;
pub mod map;
pub mod mount;
pub mod namespaces;
pub mod process;
pub mod remap;
pub mod shm;
pub mod sigbus;
pub mod spawn;
pub mod uring;
