//! Filesystems that the bench cannot make by itself, as they need a server or a device of their own, and how
//! they are raced all the same: in a directory of a mount of theirs.

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Elsewhere {
    /// As the kernel names it.
    pub name: &'static str,
    /// What it takes.
    pub needs: &'static str,
    /// How it is run.
    pub command: &'static str,
}

/// All that the series on hole punching converts and no adapter makes.
pub const ELSEWHERE: [Elsewhere; 2] = [
    Elsewhere {
        name: "ceph",
        needs: "a cluster, mounted by the kernel: mount -t ceph MONITOR:/ DIR -o name=USER,secretfile=FILE",
        command: "punchbench run --in DIR --scenario 'punch-*'",
    },
    Elsewhere {
        name: "cifs",
        needs: "a share of an SMB 3 server: mount -t cifs //SERVER/SHARE DIR -o vers=3.1.1,credentials=FILE",
        command: "punchbench run --in DIR --scenario 'punch-*,zero-*'",
    },
];
