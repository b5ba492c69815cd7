//! Where a policy may take locks: the places of the protocol, named after the kernel's functions, around
//! which a list of locks is taken in order and given back in reverse.

use serde::{Deserialize, Serialize};

/// A place. Its locks are those of the file that it works on; of both files, in the order of their inodes,
/// where it works on two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// ->read_iter() as a whole: XFS takes the IOLOCK here, GFS2 the glock.
    Read,
    /// Adding a folio and reading into it, for a read: `filemap_create_folio`.
    FilemapCreateFolio,
    /// Only the adding, within `filemap_create_folio`: what Kara's comment says would be enough there.
    FilemapAddFolio,
    /// Reading into a folio that is there: `filemap_update_page`.
    FilemapUpdatePage,
    /// `page_cache_ra_unbounded`, and so sequential and forced readahead.
    PageCacheRaUnbounded,
    /// posix_fadvise(), readahead(2) and madvise(MADV_WILLNEED) as a whole: ->fadvise().
    Fadvise,
    /// MADV_COLLAPSE and khugepaged as a whole: `collapse_file`. Where a policy takes something here, what is read in
    /// takes nothing more, as by `page_cache_ra_unbounded` since b244c89a70b3 leaves the lock to its callers.
    CollapseFile,
    /// ->fault() as a whole, hit or miss.
    FilemapFault,
    /// The part of it that adds a folio or reads into one.
    FilemapFaultFill,
    /// ->map_pages(): maps what is cached.
    MapPages,
    /// ->page_mkwrite().
    PageMkwrite,
    /// A fault of a DAX file.
    DaxFault,
    /// A direct read.
    DirectRead,
    /// A direct write.
    DirectWrite,
    /// A buffered write.
    Write,
    /// Writing a dirty page back, by whoever does.
    Writeback,
    /// FALLOC_FL_PUNCH_HOLE.
    PunchHole,
    /// FALLOC_FL_ZERO_RANGE.
    ZeroRange,
    /// FALLOC_FL_COLLAPSE_RANGE.
    CollapseRange,
    /// FALLOC_FL_INSERT_RANGE.
    InsertRange,
    /// ftruncate(), shrinking or extending.
    Truncate,
    /// Cutting off what a failed write had begun: `ext4_truncate_failed_write`.
    FailedWrite,
    /// FICLONERANGE; both files.
    CloneRange,
    /// FIDEDUPERANGE, compare and remap; both files.
    Dedupe,
    /// XFS_IOC_EXCHANGE_RANGE; both files.
    ExchangeRange,
    /// EXT4_IOC_SWAP_BOOT: of the file; nobody can open the other one.
    SwapBoot,
    /// The change of FS_JOURNAL_DATA_FL: `ext4_change_inode_journal_flag`.
    JournalData,
}

impl Hook {
    /// All of them.
    pub const ALL: [Hook; 27] = [
        Hook::Read,
        Hook::FilemapCreateFolio,
        Hook::FilemapAddFolio,
        Hook::FilemapUpdatePage,
        Hook::PageCacheRaUnbounded,
        Hook::Fadvise,
        Hook::CollapseFile,
        Hook::FilemapFault,
        Hook::FilemapFaultFill,
        Hook::MapPages,
        Hook::PageMkwrite,
        Hook::DaxFault,
        Hook::DirectRead,
        Hook::DirectWrite,
        Hook::Write,
        Hook::Writeback,
        Hook::PunchHole,
        Hook::ZeroRange,
        Hook::CollapseRange,
        Hook::InsertRange,
        Hook::Truncate,
        Hook::FailedWrite,
        Hook::CloneRange,
        Hook::Dedupe,
        Hook::ExchangeRange,
        Hook::SwapBoot,
        Hook::JournalData,
    ];

    /// As it stands in a policy.
    pub fn word(self) -> &'static str {
        match self {
            Hook::Read => "read",
            Hook::FilemapCreateFolio => "filemap_create_folio",
            Hook::FilemapAddFolio => "filemap_add_folio",
            Hook::FilemapUpdatePage => "filemap_update_page",
            Hook::PageCacheRaUnbounded => "page_cache_ra_unbounded",
            Hook::Fadvise => "fadvise",
            Hook::CollapseFile => "collapse_file",
            Hook::FilemapFault => "filemap_fault",
            Hook::FilemapFaultFill => "filemap_fault_fill",
            Hook::MapPages => "map_pages",
            Hook::PageMkwrite => "page_mkwrite",
            Hook::DaxFault => "dax_fault",
            Hook::DirectRead => "direct_read",
            Hook::DirectWrite => "direct_write",
            Hook::Write => "write",
            Hook::Writeback => "writeback",
            Hook::PunchHole => "punch_hole",
            Hook::ZeroRange => "zero_range",
            Hook::CollapseRange => "collapse_range",
            Hook::InsertRange => "insert_range",
            Hook::Truncate => "truncate",
            Hook::FailedWrite => "failed_write",
            Hook::CloneRange => "clone_range",
            Hook::Dedupe => "dedupe",
            Hook::ExchangeRange => "exchange_range",
            Hook::SwapBoot => "swap_boot",
            Hook::JournalData => "journal_data",
        }
    }

    /// By its word.
    pub fn named(word: &str) -> Option<Hook> {
        Hook::ALL.into_iter().find(|h| h.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hook_is_found_by_its_word() {
        for hook in Hook::ALL {
            assert_eq!(Hook::named(hook.word()), Some(hook));
            assert_eq!(serde_yaml::to_string(&hook).unwrap().trim(), hook.word());
        }
    }
}
