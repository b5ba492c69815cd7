//! What changes a file's content or its blocks, and what it leaves.

use super::*;

#[test]
fn a_truncated_file_ends_there_and_an_extended_one_has_zeros() {
    for target in DISKS {
        on_mount(target, &[], |_, files| {
            let file = VICTIM;
            let end = 20 * PAGE + 100;
            let cut = files.perform(Call::Truncate { file, size: end }, &mut []);
            assert_eq!(cut, bytes(0));
            assert_eq!(
                files.read(VICTIM, end - 9, PAGE),
                expected(end - 9, 9),
                "{target}"
            );
            let extended = files.perform(Call::Truncate { file, size: SIZE }, &mut []);
            assert_eq!(extended, bytes(0));
            let seen = files.read(VICTIM, end - 9, SIZE);
            assert_eq!(seen.len() as u64, SIZE - end + 9, "{target}");
            assert_eq!(seen[..9], expected(end - 9, 9));
            assert!(seen[9..].iter().all(|byte| *byte == 0), "{target}");
        });
    }
}

#[test]
fn a_cloned_range_holds_what_its_source_does_and_only_it() {
    let op = Op::CloneRange(CopyArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        from: "other".into(),
    });
    for (target, works) in [("ext4", false), ("xfs", true), ("btrfs", true)] {
        on_mount(target, std::slice::from_ref(&op), |mounted, files| {
            assert_eq!(
                mounted.capability(Capability::Clone).is_ok(),
                works,
                "{target}"
            );
            let (file, at, len) = (VICTIM, 8 * PAGE, 4 * PAGE);
            let from = OTHER;
            let done = files.perform(
                Call::CloneRange {
                    file,
                    at,
                    len,
                    from,
                },
                &mut [],
            );
            if !works {
                assert_eq!(done.errno, libc::EOPNOTSUPP);
                return;
            }
            assert_eq!(done, bytes(0));
            assert_eq!(
                files.read(VICTIM, at, len),
                complemented(at, len),
                "{target}"
            );
            assert_eq!(
                files.read(VICTIM, at - PAGE, PAGE),
                expected(at - PAGE, PAGE)
            );
            assert_eq!(files.read(VICTIM, at + len, PAGE), expected(at + len, PAGE));
            assert_eq!(files.read(OTHER, 0, SIZE), complemented(0, SIZE));
            let a = files.stage.blocks(VICTIM, at..at + len).unwrap().unwrap();
            let b = files.stage.blocks(OTHER, at..at + len).unwrap().unwrap();
            assert_eq!(a, b, "{target}: they share the blocks");
        });
    }
}

#[test]
fn a_direct_write_drops_the_pages_that_it_writes_past() {
    let op = Op::Write(WriteArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        direct: true,
        fills_up: false,
    });
    for target in DISKS {
        on_mount(target, std::slice::from_ref(&op), |mounted, files| {
            let able = mounted.capability(Capability::DirectWrite);
            println!("{target}: {able:?}");
            let (file, at, len) = (VICTIM, 8 * PAGE, 4 * PAGE);
            let write = |at, len| Call::Write {
                file,
                at,
                len,
                direct: true,
            };
            let mut buf = complemented(at, len);
            // Mapped, as a racing fault would leave it.
            let fault = Call::Fault { file, at, len };
            assert_eq!(files.perform(fault, &mut vec![0; len as usize]), bytes(len));
            assert_eq!(files.perform(write(at, len), &mut buf), bytes(len));
            let left = files.resident(VICTIM, at, len);
            assert_eq!(left == 0, able.is_ok(), "{target}: {left} pages");
            assert_eq!(files.read(VICTIM, at, len), complemented(at, len));
            assert_eq!(files.read(VICTIM, at + len, PAGE), expected(at + len, PAGE));
            if able.is_ok() && mounted.driver() != "btrfs" {
                assert_eq!(
                    files.perform(write(at + 7, 100), &mut buf).errno,
                    libc::EINVAL
                );
            }
        });
    }
}

#[test]
fn a_read_into_a_mapping_leaves_there_what_the_other_file_holds() {
    let op = Op::ReadInto(CopyArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        from: "other".into(),
    });
    for target in DISKS {
        on_mount(target, std::slice::from_ref(&op), |_, files| {
            let (file, at, len) = (VICTIM, 8 * PAGE + 50, 2 * PAGE);
            let from = OTHER;
            let read = |at, len| Call::ReadInto {
                file,
                at,
                len,
                from,
            };
            files.evict(VICTIM);
            files.evict(OTHER);
            assert_eq!(files.perform(read(at, len), &mut []), bytes(len));
            assert_eq!(files.read(VICTIM, at - 9, len + 18), {
                let mut around = expected(at - 9, len + 18);
                around[9..9 + len as usize].copy_from_slice(&complemented(at, len));
                around
            });
            assert_eq!(files.read(OTHER, 0, SIZE), complemented(0, SIZE));
            // The end of the one file, and that of the other.
            let truncate = |size| Call::Truncate { file, size };
            assert_eq!(files.perform(read(SIZE - 10, PAGE), &mut []), bytes(10));
            assert_eq!(files.perform(truncate(4 * PAGE), &mut []), bytes(0));
            assert_eq!(
                files.perform(read(4 * PAGE, PAGE), &mut []).errno,
                libc::EFAULT
            );
            let short = files.perform(read(3 * PAGE, 2 * PAGE), &mut []);
            assert_eq!(short, bytes(PAGE), "{target}");
        });
    }
}

#[test]
fn swapping_with_the_boot_inode_exchanges_everything_and_leaves_the_filesystem_whole() {
    let op = Op::SwapBoot(OnFile {
        file: "victim".into(),
    });
    on_mount("ext4", std::slice::from_ref(&op), |mounted, files| {
        assert_eq!(mounted.capability(Capability::SwapBoot), Ok(()));
        let swap = Call::SwapBoot { file: VICTIM };
        assert_eq!(files.perform(swap, &mut []), bytes(0));
        assert!(
            files.read(VICTIM, 0, SIZE).is_empty(),
            "the first one empties it"
        );
        files.stage.prepare(VICTIM, SIZE, &mut complement).unwrap();
        for now in [expected(0, SIZE), complemented(0, SIZE)] {
            assert_eq!(files.perform(swap, &mut []), bytes(0));
            assert!(files.read(VICTIM, 0, SIZE) == now);
        }
    });
    on_mount("xfs", std::slice::from_ref(&op), |mounted, files| {
        assert!(mounted.capability(Capability::SwapBoot).is_err());
        let swap = Call::SwapBoot { file: VICTIM };
        assert_eq!(files.perform(swap, &mut []).errno, libc::ENOTTY);
    });
}

#[test]
fn the_journal_flag_is_toggled_or_refused_and_changes_no_content() {
    let op = Op::JournalData(OnFile {
        file: "victim".into(),
    });
    for target in ["ext4", "ext2", "xfs"] {
        on_mount(target, std::slice::from_ref(&op), |mounted, files| {
            let able = mounted.capability(Capability::JournalData);
            println!("{target}: {able:?}");
            let toggle = Call::JournalData { file: VICTIM };
            for _ in 0..2 {
                let done = files.perform(toggle, &mut []);
                assert_eq!(done.errno == 0, able.is_ok(), "{done:?}");
                assert_eq!(files.read(VICTIM, 0, SIZE), expected(0, SIZE));
            }
            assert!(able.is_err() || target == "ext4");
        });
    }
}

fn exchange(at: u64, len: u64) -> Call {
    Call::ExchangeRange {
        file: VICTIM,
        at,
        len,
        with: OTHER,
    }
}

/// Gives an xfs the feature that mkfs.xfs knows since 6.10, XFS_SB_FEAT_INCOMPAT_EXCHRANGE: the ioctl works
/// on any other that has the bit.
fn enable_exchange(mounted: &mut Mounted) {
    mounted.fsck().unwrap();
    let device = mounted.device_path().unwrap().to_owned();
    let xfs_db = |command: &str| {
        let output = std::process::Command::new("xfs_db")
            .args(["-x", "-c", "sb 0", "-c", command])
            .arg(&device)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = xfs_db("p features_incompat");
    let features = shown.trim().rsplit_once("0x").unwrap().1;
    let features = u32::from_str_radix(features, 16).unwrap() | 1 << 6;
    xfs_db(&format!("write -d features_incompat {features:#x}"));
    mounted.remount().unwrap();
}

#[test]
fn a_range_is_exchanged_where_xfs_has_the_feature() {
    let op = Op::ExchangeRange(ExchangeArgs {
        file: "victim".into(),
        range: RangeExpr::chunk(),
        with: "other".into(),
    });
    let Some((mut mounted, _work)) = mount("xfs") else {
        return;
    };
    let able = mounted.capability(Capability::ExchangeRange).is_ok();
    let (at, len) = (8 * PAGE, 4 * PAGE);
    {
        let dir = TempDir::new_in(mounted.dir()).unwrap();
        let mut files = raced(dir.path(), std::slice::from_ref(&op));
        let done = files.perform(exchange(at, len), &mut []);
        assert_eq!(done.errno == 0, able, "{done:?}");
    }
    if !able {
        enable_exchange(&mut mounted);
    }
    let dir = TempDir::new_in(mounted.dir()).unwrap();
    let mut files = raced(dir.path(), std::slice::from_ref(&op));
    let done = files.perform(exchange(at, len), &mut []);
    if done.errno == libc::ENOTTY {
        return; // Before Linux 6.10.
    }
    assert_eq!(done, bytes(0));
    assert_eq!(files.read(VICTIM, at, len), complemented(at, len));
    assert_eq!(files.read(OTHER, at, len), expected(at, len));
    for beside in [at - PAGE, at + len] {
        assert_eq!(files.read(VICTIM, beside, PAGE), expected(beside, PAGE));
        assert_eq!(files.read(OTHER, beside, PAGE), complemented(beside, PAGE));
    }
}

#[test]
fn other_filesystems_exchange_nothing() {
    on_mount("ext4", &[], |mounted, files| {
        assert!(mounted.capability(Capability::ExchangeRange).is_err());
        let done = files.perform(exchange(0, PAGE), &mut []);
        assert_eq!(done.errno, libc::ENOTTY);
    });
}
