//! Which filesystems the running kernel has: read from the kernel and its modules, never from the presence
//! of a tool.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::tools::{MODPROBE, kernel_release};

/// How long loading a driver may take.
const MODPROBE_TIME: Duration = Duration::from_secs(60);

/// Whether the kernel can mount a type of filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// It is registered.
    Registered,
    /// A module for it is installed but not loaded, and was not asked for or could not be loaded.
    Module(String),
    /// Not at all, and why we think so.
    Missing(String),
}

/// Whether a filesystem type is registered or has a module here. Changes nothing.
pub fn support(fstype: &str) -> Support {
    if registered(fstype) {
        return Support::Registered;
    }
    let release = kernel_release();
    let directory = Path::new("/lib/modules").join(&release);
    match module_for(&directory, fstype) {
        Some(module) if modules_allowed() => Support::Module(format!(
            "kernel {release} has {fstype} as a module ({module}), which is not loaded"
        )),
        _ => Support::Missing(format!(
            "kernel {release} has no {fstype}: neither in /proc/filesystems nor as a module"
        )),
    }
}

/// As [`support`], after trying to load the driver if it is a module.
pub fn load(fstype: &str) -> Support {
    let found = support(fstype);
    let Support::Module(why) = &found else {
        return found;
    };
    // The kernel's own name for it (include/linux/fs.h, MODULE_ALIAS_FS), so that ext2 finds ext4 where that serves it.
    match MODPROBE.run(["-q", "--", &format!("fs-{fstype}")], MODPROBE_TIME) {
        Ok(_) if registered(fstype) => Support::Registered,
        Ok(output) => Support::Module(format!(
            "{why}; `{}` ended with {}",
            output.command,
            output.ending()
        )),
        Err(error) => Support::Module(format!("{why}: {error}")),
    }
}

/// Loads the driver of zoned devices in memory if it is a module and not there yet, without the device that
/// it makes unasked; says whether it is there.
pub fn load_null_blk() -> bool {
    let there = Path::new("/sys/module/null_blk");
    if !there.exists() {
        let words = ["-q", "--", "null_blk", "nr_devices=0"];
        let _ = MODPROBE.run(words, MODPROBE_TIME);
    }
    there.exists()
}

/// Loads the loop driver if it is a module and not there yet; says whether its control device exists.
pub fn load_loop() -> bool {
    let control = Path::new("/dev/loop-control");
    if !control.exists() {
        let _ = MODPROBE.run(["-q", "--", "loop"], MODPROBE_TIME);
    }
    control.exists()
}

fn registered(fstype: &str) -> bool {
    let text = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    is_listed(&text, fstype)
}

/// /proc/filesystems: the name is the last word of its line.
fn is_listed(text: &str, fstype: &str) -> bool {
    text.lines()
        .any(|line| line.split_whitespace().next_back() == Some(fstype))
}

/// A kernel booted with `nomodule`, or one whose modules were locked, loads none.
fn modules_allowed() -> bool {
    fs::read_to_string("/proc/sys/kernel/modules_disabled").is_ok_and(|text| text.trim() == "0")
}

/// The module that serves a type: by the `fs-` alias, else by its own name.
fn module_for(directory: &Path, fstype: &str) -> Option<String> {
    let aliases = fs::read_to_string(directory.join("modules.alias")).unwrap_or_default();
    let wanted = format!("fs-{fstype}");
    let by_alias = aliases.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("alias") && words.next() == Some(&wanted))
            .then(|| words.next().map(str::to_owned))?
    });
    by_alias.or_else(|| {
        let paths = fs::read_to_string(directory.join("modules.dep")).unwrap_or_default();
        paths
            .lines()
            .filter_map(|line| line.split(':').next())
            .map(PathBuf::from)
            .find_map(|path| {
                let stem = path.file_name()?.to_str()?.split('.').next()?;
                (stem == fstype).then(|| fstype.to_owned())
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_listed_by_its_whole_name() {
        let text = "nodev\ttmpfs\n\text3\n\text2\n\text4\n";
        assert!(is_listed(text, "ext2"));
        assert!(is_listed(text, "tmpfs"));
        assert!(!is_listed(text, "ext"));
        assert!(!is_listed(text, "nodev"));
    }

    #[test]
    fn a_module_is_found_by_alias_or_name() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(
            directory.path().join("modules.alias"),
            "# Aliases\nalias fs-ext2 ext4\nalias fs-xfs xfs\n",
        )
        .unwrap();
        fs::write(
            directory.path().join("modules.dep"),
            "kernel/fs/f2fs/f2fs.ko.xz: kernel/lib/crc32.ko\nkernel/fs/xfs/xfs.ko:\n",
        )
        .unwrap();
        assert_eq!(
            module_for(directory.path(), "ext2").as_deref(),
            Some("ext4")
        );
        assert_eq!(
            module_for(directory.path(), "f2fs").as_deref(),
            Some("f2fs")
        );
        assert_eq!(module_for(directory.path(), "gfs2"), None);
        assert_eq!(module_for(Path::new("/nonexistent"), "xfs"), None);
    }

    #[test]
    fn this_kernel_has_proc_and_no_nonsense() {
        assert_eq!(support("proc"), Support::Registered);
        assert!(matches!(support("nonsensefs"), Support::Missing(_)));
    }
}
