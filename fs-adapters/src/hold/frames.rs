//! In which kernel function a task sleeps that waits for the lock: data of ORACLE section 3, by the way of
//! filling, the kernel and the filesystem. The proc stack leaves out the scheduler's section, so that the top
//! frame is the lock's caller.

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
    /// FS_IOC_FIEMAP, EXT4_IOC_PRECACHE_EXTENTS.
    Fiemap,
}

/// The top frames that prove a task blocked by the lock; none where the kernel takes no lock on this way.
pub fn accepted(_way: Way, _kernel: Version, _driver: &str) -> &'static [&'static str] {
    &[]
}
