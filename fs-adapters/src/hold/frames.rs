//! In which kernel function a task sleeps that waits for the lock: data, by the way of filling, the driver and
//! the kernel. The proc stack leaves out the scheduler's section, so that the top frame is the lock's caller.
//!
//! Static functions are inlined or not as the compiler likes: all that may be on top are named, none is required.
//! What waits for held I/O of its own has `folio_wait_bit_common`, `__folio_lock` or, on 5.10,
//! `wait_on_page_bit_common`, `__lock_page` on top; none of these is ever accepted.

use crate::tools::Version;

/// How a filler or dirtier comes to the page cache, as far as its stack tells the difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// read(2), splice, preadv2(RWF_NOWAIT), io_uring read.
    Read,
    /// fadvise(WILLNEED), readahead(2), madvise(WILLNEED).
    Advice,
    /// A fault on an absent page, MADV_POPULATE_READ, a store to an absent page.
    Fault,
    /// A store to a page that is there read-only.
    PageMkwrite,
    /// FS_IOC_FIEMAP.
    Fiemap,
    /// EXT4_IOC_PRECACHE_EXTENTS.
    Precache,
}

/// Which drivers a row speaks of.
#[derive(Debug, Clone, Copy)]
enum Of {
    /// These.
    Only(&'static [&'static str]),
    /// All others.
    AllBut(&'static [&'static str]),
}

/// One row of the table.
#[derive(Debug)]
struct Row {
    of: Of,
    ways: &'static [Way],
    /// The first kernel.
    from: Version,
    /// The first kernel no more.
    until: Version,
    frames: &'static [&'static str],
}

const FIRST: Version = Version(0, 0, 0);
const LAST: Version = Version(u32::MAX, 0, 0);
/// mapping->invalidate_lock (730633f0b7f9).
const MERGED: Version = Version(5, 15, 0);
/// After 6.18, and by 7.2, the lock is taken in the caller of `page_cache_ra_unbounded`.
const IN_CALLER: Version = Version(6, 19, 0);

const FILLS: &[Way] = &[Way::Read, Way::Advice, Way::Fault];

/// Drivers that take something else than the invalidate lock around their reads, or nothing.
const OWN_READS: Of = Of::AllBut(&["xfs", "btrfs", "tmpfs", "gfs2"]);

/// ORACLE, "Blocked, and on what".
const TABLE: &[Row] = &[
    // mm: filemap_update_page, filemap_create_folio, page_cache_ra_unbounded, page_cache_ra_order.
    Row {
        of: OWN_READS,
        ways: FILLS,
        from: MERGED,
        until: LAST,
        frames: &["page_cache_ra_unbounded", "page_cache_ra_order"],
    },
    Row {
        of: OWN_READS,
        ways: &[Way::Read],
        from: MERGED,
        until: LAST,
        frames: &[
            "filemap_get_pages",
            "filemap_update_page",
            "filemap_create_page",
            "filemap_create_folio",
        ],
    },
    Row {
        of: OWN_READS,
        ways: FILLS,
        from: IN_CALLER,
        until: LAST,
        frames: &[
            "do_page_cache_ra",
            "force_page_cache_ra",
            "page_cache_sync_ra",
        ],
    },
    // Whoever reads under a lock of its own faults as all others do. (btrfs's faults wait for an extent.)
    Row {
        of: Of::AllBut(&["btrfs", "tmpfs", "gfs2"]),
        ways: &[Way::Fault],
        from: MERGED,
        until: LAST,
        frames: &[
            "filemap_fault",
            "page_cache_ra_unbounded",
            "page_cache_ra_order",
        ],
    },
    Row {
        of: Of::Only(&["xfs"]),
        ways: &[Way::Fault],
        from: IN_CALLER,
        until: LAST,
        frames: &["do_page_cache_ra"],
    },
    // Private locks around the fault, before.
    Row {
        of: Of::Only(&["ext4"]),
        ways: &[Way::Fault],
        from: FIRST,
        until: MERGED,
        frames: &["ext4_filemap_fault"],
    },
    Row {
        of: Of::Only(&["f2fs"]),
        ways: &[Way::Fault],
        from: FIRST,
        until: MERGED,
        frames: &["f2fs_filemap_fault"],
    },
    // IOLOCK shared, and MMAPLOCK around the fault.
    Row {
        of: Of::Only(&["xfs"]),
        ways: &[
            Way::Read,
            Way::Advice,
            Way::Fault,
            Way::PageMkwrite,
            Way::Fiemap,
        ],
        from: FIRST,
        until: LAST,
        frames: &["xfs_ilock"],
    },
    Row {
        of: Of::Only(&["ext4"]),
        ways: &[Way::PageMkwrite],
        from: FIRST,
        until: LAST,
        frames: &["ext4_page_mkwrite"],
    },
    Row {
        of: Of::Only(&["f2fs"]),
        ways: &[Way::PageMkwrite],
        from: FIRST,
        until: LAST,
        frames: &["f2fs_vm_page_mkwrite"],
    },
    Row {
        of: Of::Only(&["btrfs"]),
        ways: &[Way::PageMkwrite],
        from: FIRST,
        until: LAST,
        frames: &["btrfs_page_mkwrite"],
    },
    // i_rwsem, since 151ff9325e5e.
    Row {
        of: Of::Only(&["ext4"]),
        ways: &[Way::Fiemap],
        from: Version(6, 16, 0),
        until: LAST,
        frames: &["ext4_fiemap"],
    },
    // i_rwsem, since f22a0ef2231a (6.16), which older kernels have taken back: whoever runs is not blocked.
    Row {
        of: Of::Only(&["ext4"]),
        ways: &[Way::Precache],
        from: FIRST,
        until: LAST,
        frames: &["__ext4_ioctl", "ext4_ioctl", "ext4_ioctl_precache_extents"],
    },
    // The extent-range lock.
    Row {
        of: Of::Only(&["btrfs"]),
        ways: FILLS,
        from: FIRST,
        until: Version(5, 15, 0),
        frames: &["wait_extent_bit"],
    },
    Row {
        of: Of::Only(&["btrfs"]),
        ways: FILLS,
        from: Version(5, 15, 0),
        until: LAST,
        frames: &[
            "wait_extent_bit",
            "lock_extent",
            "btrfs_lock_extent",
            "btrfs_lock_extent_bits",
            "btrfs_lock_and_flush_ordered_range",
            "lock_extents_for_read",
        ],
    },
    Row {
        of: Of::Only(&["gfs2"]),
        ways: &[
            Way::Read,
            Way::Advice,
            Way::Fault,
            Way::PageMkwrite,
            Way::Fiemap,
        ],
        from: FIRST,
        until: LAST,
        frames: &["gfs2_glock_wait"],
    },
    // i_rwsem, since c0e473a0d226 (6.15), which older kernels have taken over: whoever runs is not blocked.
    Row {
        of: Of::Only(&["bdev"]),
        ways: &[Way::Read],
        from: FIRST,
        until: LAST,
        frames: &["blkdev_read_iter"],
    },
    // i_rwsem; advice and faults as everywhere.
    Row {
        of: Of::Only(&["ntfs"]),
        ways: &[Way::Read],
        from: FIRST,
        until: LAST,
        frames: &["ntfs_file_read_iter"],
    },
    // Its wait queue against livelock.
    Row {
        of: Of::Only(&["tmpfs"]),
        ways: &[Way::Fault],
        from: FIRST,
        until: LAST,
        frames: &["shmem_fault", "shmem_falloc_wait"],
    },
];

/// The top frames that prove a task blocked by the lock, on a kernel, in a filesystem that `driver` serves; none
/// where the kernel takes no lock on this way.
pub fn accepted(way: Way, kernel: Version, driver: &str) -> Vec<&'static str> {
    let mut frames: Vec<&str> = TABLE
        .iter()
        .filter(|row| row.ways.contains(&way) && row.from <= kernel && kernel < row.until)
        .filter(|row| match row.of {
            Of::Only(drivers) => drivers.contains(&driver),
            Of::AllBut(drivers) => !drivers.contains(&driver),
        })
        .flat_map(|row| row.frames.iter().copied())
        .collect();
    frames.sort_unstable();
    frames.dedup();
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    const K5_10: Version = Version(5, 10, 262);
    const K6_1: Version = Version(6, 1, 192);
    const K6_12: Version = Version(6, 12, 107);
    const K6_18: Version = Version(6, 18, 44);
    const K7_2: Version = Version(7, 2, 13);

    #[test]
    fn before_the_lock_only_faults_waited_and_xfs() {
        for driver in ["ext4", "ext2", "f2fs"] {
            for way in [Way::Read, Way::Advice, Way::Fiemap] {
                assert!(accepted(way, K5_10, driver).is_empty(), "{driver}: {way:?}");
            }
        }
        assert_eq!(accepted(Way::Fault, K5_10, "ext4"), ["ext4_filemap_fault"]);
        assert_eq!(accepted(Way::Fault, K5_10, "f2fs"), ["f2fs_filemap_fault"]);
        for way in [Way::Read, Way::Advice, Way::Fault, Way::PageMkwrite] {
            assert_eq!(accepted(way, K5_10, "xfs"), ["xfs_ilock"]);
        }
    }

    #[test]
    fn since_then_every_way_of_filling_has_a_frame_on_every_converted_filesystem() {
        for kernel in [K6_1, K6_12, K6_18, K7_2] {
            for driver in ["ext4", "ext2", "f2fs", "bdev"] {
                for way in [Way::Read, Way::Advice, Way::Fault] {
                    let frames = accepted(way, kernel, driver);
                    assert!(frames.contains(&"page_cache_ra_order"), "{frames:?}");
                }
                assert!(accepted(Way::Fault, kernel, driver).contains(&"filemap_fault"));
            }
            assert_eq!(accepted(Way::Read, kernel, "xfs"), ["xfs_ilock"]);
            assert!(accepted(Way::Fault, kernel, "xfs").contains(&"filemap_fault"));
        }
        assert!(!accepted(Way::Read, K6_18, "ext4").contains(&"do_page_cache_ra"));
        assert!(accepted(Way::Read, K7_2, "ext4").contains(&"do_page_cache_ra"));
    }

    #[test]
    fn a_fault_is_never_told_from_a_read_by_a_frame_of_the_other() {
        assert!(!accepted(Way::Read, K6_18, "ext4").contains(&"filemap_fault"));
        assert!(!accepted(Way::Advice, K6_18, "ext4").contains(&"filemap_get_pages"));
    }

    #[test]
    fn fiemap_waits_only_where_it_takes_a_lock() {
        assert!(accepted(Way::Fiemap, K6_12, "ext4").is_empty());
        assert_eq!(accepted(Way::Fiemap, K6_18, "ext4"), ["ext4_fiemap"]);
        assert_eq!(accepted(Way::Fiemap, K5_10, "xfs"), ["xfs_ilock"]);
    }

    #[test]
    fn a_read_of_a_block_device_waits_for_the_inode_lock_and_a_fault_does_not() {
        assert_eq!(accepted(Way::Read, K5_10, "bdev"), ["blkdev_read_iter"]);
        assert!(accepted(Way::Read, K7_2, "bdev").contains(&"blkdev_read_iter"));
        assert!(!accepted(Way::Fault, K7_2, "bdev").contains(&"blkdev_read_iter"));
        assert!(!accepted(Way::Read, K7_2, "ext4").contains(&"blkdev_read_iter"));
    }

    #[test]
    fn a_wait_for_ones_own_io_is_no_lock() {
        let waits = [
            "folio_wait_bit_common",
            "__folio_lock",
            "folio_wait_bit",
            "wait_on_page_bit_common",
            "__lock_page",
            "submit_bio_wait",
            "__wait_on_buffer",
        ];
        for row in TABLE {
            assert!(
                !row.frames.iter().any(|frame| waits.contains(frame)),
                "{row:?}"
            );
            assert!(row.from < row.until, "{row:?}");
        }
    }
}
