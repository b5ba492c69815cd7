//! `--device`: a device in use is never taken, one with something on it only if the user insists, and an
//! empty one comes back empty. A loop device of our own plays the real one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use punchbench_fs::{DeviceChoice, FsckResult, Privilege, SetUp, SetUpError, Tag, Target};
use punchbench_sys::loopdev::LoopDevice;
use punchbench_sys::mount;

const SIZE: u64 = 400 << 20;

/// Runs a test with a device of zeros, in a mount namespace of its own.
fn with_device(test: impl FnOnce(&Path, &File, &SetUp<'_>)) {
    if !Privilege::current().may_use_devices() {
        eprintln!("skipped: needs root (loop device and mount)");
        return;
    }
    mount::enter_private_namespace().unwrap();
    let work = tempfile::tempdir().unwrap();
    let backing = tempfile::tempfile_in("/dev/shm")
        .or_else(|_| tempfile::tempfile())
        .unwrap();
    backing.set_len(SIZE).unwrap();
    let tag = Tag::of_this_process();
    let device = LoopDevice::attach(&backing, &tag.to_string(), false, work.path()).unwrap();
    let background = |_: u64, bytes: &mut [u8]| bytes.fill(0xE5);
    let env = SetUp::new(&tag, work.path(), &background);
    test(device.path(), &backing, &env);
}

fn set_up_on(
    env: &SetUp<'_>,
    path: &Path,
    insist: bool,
) -> Result<punchbench_fs::Mounted, SetUpError> {
    let choice = DeviceChoice {
        path: path.to_owned(),
        insist,
    };
    Target::parse("ext4").unwrap().set_up(&SetUp {
        device: Some(&choice),
        ..env.clone()
    })
}

#[test]
fn an_empty_device_is_used_and_comes_back_empty() {
    with_device(|path, backing, env| {
        for _ in 0..2 {
            let mounted = set_up_on(env, path, false).unwrap();
            assert!(
                mounted
                    .facts()
                    .iter()
                    .any(|fact| fact.contains("the first 320 of 400 MiB")),
                "{:?}",
                mounted.facts()
            );
            assert!(mounted.medium_is_readable());
            assert_eq!(mounted.finish(), FsckResult::Clean);
        }
        let mut head = vec![1; 1 << 20];
        backing.read_exact_at(&mut head, 0).unwrap();
        assert!(head.iter().all(|byte| *byte == 0), "a signature was left");
        let mut tail = [1; 4096];
        backing.read_exact_at(&mut tail, SIZE - 4096).unwrap();
        assert!(
            tail.iter().all(|byte| *byte == 0),
            "more of the device was used than said"
        );
    });
}

#[test]
fn a_device_with_a_signature_is_refused_unless_the_user_insists() {
    with_device(|path, backing, env| {
        // The superblock magic of ext2, 3 and 4 and enough of a superblock for blkid.
        let mkfs = punchbench_fs::tools::MKE2FS
            .run(["-q", "-F", &path.to_string_lossy()], env.tool_time)
            .unwrap();
        assert!(mkfs.status.success(), "{}", mkfs.text);
        let mut before = vec![0; 1 << 20];
        backing.read_exact_at(&mut before, 0).unwrap();
        let error = set_up_on(env, path, false).unwrap_err().to_string();
        assert!(
            error.contains("is not empty") && error.contains("insist"),
            "{error}"
        );
        let mut after = vec![0; 1 << 20];
        backing.read_exact_at(&mut after, 0).unwrap();
        assert!(before == after, "it was refused, and written to");
        assert_eq!(
            set_up_on(env, path, true).unwrap().finish(),
            FsckResult::Clean
        );
    });
}

#[test]
fn a_device_in_use_is_refused_even_if_the_user_insists() {
    with_device(|path, _, env| {
        let mounted = set_up_on(env, path, false).unwrap();
        let error = set_up_on(env, path, true).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        assert_eq!(
            mounted.finish(),
            FsckResult::Clean,
            "the refusal harmed the one who uses it"
        );
    });
}

#[test]
fn what_is_no_device_is_refused() {
    with_device(|_, _, env| {
        let error = set_up_on(env, Path::new("/dev/null"), true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("not a block device"), "{error}");
        let error = set_up_on(env, Path::new("/dev/no-such-device"), true)
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot find"), "{error}");
    });
}
