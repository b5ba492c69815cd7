//! Other kernels for punchbench: found or fetched, packed with the program into an initramfs, booted
//! under QEMU or as a program, and listened to. The same program runs the same trials there; it is the guest's init.
//!
//! Host: [`KernelSpec`] → [`Kernel`] → [`GuestRun`] → [`GuestOutcome`]. Guest: [`init`].

pub mod cache;
mod console;
mod cpio;
mod debian;
mod error;
mod host;
mod image;
pub mod init;
mod initramfs;
mod kernel;
mod machine;
pub mod modprobe;
mod modules;
mod modules_dir;
mod qemu;
mod run;
mod slim;
mod sources;
mod uml;
mod unpack;
mod wire;

pub use debian::DebianKernel;
pub use error::GuestError;
pub use initramfs::MissingTool;
pub use kernel::{Kernel, KernelSpec, Machinery};
pub use modules::{Closure, Module, ModuleIndex};
pub use qemu::Accel;
pub use run::{FailedModule, GuestEnd, GuestOutcome, GuestRun, News};
