//! What this user may do: loop devices and mounts need root; tmpfs needs a user namespace at least.

use std::fs;

/// CAP_SYS_ADMIN (include/uapi/linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;

/// What this process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Root of the machine: everything.
    Root,
    /// Root of a user namespace: it may mount tmpfs, and no device.
    UserNamespace,
    /// Neither: directories only, until the program gives it a user namespace.
    User,
}

/// What a user without root is told.
pub const ROOT_WOULD_ADD: &str = "needs root (loop device and mount)";

impl Privilege {
    /// Of this process.
    pub fn current() -> Privilege {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Privilege::from_proc(&status, &map)
    }

    fn from_proc(status: &str, uid_map: &str) -> Privilege {
        let effective = status
            .lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
            .unwrap_or(0);
        if effective >> CAP_SYS_ADMIN & 1 == 0 {
            return Privilege::User;
        }
        // Only the first user namespace maps every id to itself.
        let numbers: Vec<&str> = uid_map.split_whitespace().collect();
        if numbers == ["0", "0", "4294967295"] {
            Privilege::Root
        } else {
            Privilege::UserNamespace
        }
    }

    /// Whether a loop device can be had.
    pub fn may_use_devices(self) -> bool {
        self == Privilege::Root
    }

    /// Whether tmpfs can be mounted.
    pub fn may_mount_tmpfs(self) -> bool {
        self != Privilege::User
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_root_only_in_the_first_user_namespace() {
        let all = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        let none = "Name:\tx\nCapEff:\t0000000000000000\n";
        let first = "         0          0 4294967295\n";
        let mapped = "         0       1000          1\n";
        assert_eq!(Privilege::from_proc(all, first), Privilege::Root);
        assert_eq!(Privilege::from_proc(all, mapped), Privilege::UserNamespace);
        assert_eq!(Privilege::from_proc(none, first), Privilege::User);
        assert_eq!(Privilege::from_proc("", ""), Privilege::User);
    }
}
