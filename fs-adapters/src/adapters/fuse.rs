//! FUSE: a server of our own in a process of its own passes a directory of ext4 on. Its page cache is filled
//! by requests that the server answers, so whoever punches first asks the server, and drops the pages last
//! (`fuse_file_fallocate` in fs/fuse/file.c). The series of 2021 converted its DAX only.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use punchbench_sys::spawn::die_with_parent;

use super::ext4;
use crate::adapter::{Adapter, Over, Stacked, Store, Target};
use crate::profile::{BASE, Profile};
use crate::reuse::Reuse;

mod server;

pub use server::serve;

/// The hidden command by which the program starts itself as a server: two directories follow, the one that is
/// passed on and the one where that is mounted.
pub const SERVER: &str = "fuse-server";

const PROFILES: &[Profile] = &[Profile {
    about: "a server of our own passes on a directory of ext4",
    ..BASE
}];

/// The adapter.
#[derive(Debug)]
pub struct Fuse;

impl Adapter for Fuse {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn profiles(&self) -> &'static [Profile] {
        PROFILES
    }

    fn drivers(&self) -> &'static [&'static str] {
        &["fuse"]
    }

    fn store(&self) -> Store<'_> {
        Store::Stacked(self)
    }

    fn reuse(&self, _profile: &Profile, _driver: &str) -> Reuse {
        Reuse::Never("a FUSE server's blocks are its own affair")
    }
}

impl Stacked for Fuse {
    fn below(&self, _profile: &Profile) -> Target {
        Target {
            adapter: &ext4::Ext4,
            profile: &BASE,
        }
    }

    fn over(&self, below: &Path) -> io::Result<Over> {
        let served = below.join("served");
        fs::create_dir_all(&served)?;
        Ok(Over {
            data: "rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other".to_owned(),
            served: Some(served),
        })
    }

    fn shows_addresses(&self) -> bool {
        false
    }
}

/// A running server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Gives a mount its server.
    pub fn start(line: File, below: &Path, mounted: &Path) -> io::Result<Server> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(SERVER)
            .args([below, mounted])
            .stdin(Stdio::from(line));
        Ok(Server(die_with_parent(&mut command).spawn()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
