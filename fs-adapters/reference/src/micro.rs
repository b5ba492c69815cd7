//! Micro-operations: what an operation of the kernel consists of, one shared access each, named after the
//! function that they stand for (5.15 and later, unless said). What a step does is in `step.rs`.

use crate::model::Model;
use crate::sem::Mode;
use crate::value::Value;

/// Where a jump goes: an index into the actor's program.
pub type Target = u8;

/// One micro-operation. `page` is a page-cache slot, jumps are named after their reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is what its variant says")]
pub enum Micro {
    /// The call begins. Part of the step after it.
    Begin { op: u8 },
    /// The call returns. Part of the step before it.
    Return { op: u8 },
    /// Part of the step before it.
    Goto { to: Target },
    /// Nothing is left to do.
    End,
    /// Once more, unless that actor has ended (a filler that repeats while the invalidator runs).
    Again { until: u8, to: Target },

    /// down_read() or down_write(); waits in the queue.
    Down { sem: u8, mode: Mode },
    /// down_read_trylock() or down_write_trylock().
    TryDown { sem: u8, mode: Mode, fail: Target },
    /// up_read() or up_write(); hands over to the next in the queue.
    Up { sem: u8, mode: Mode },
    /// mmap_read_lock() of the actor's own process: nobody else wants it, but it has a place in the order.
    MmapLock,
    /// mmap_read_unlock().
    MmapUnlock,
    /// Puts a locked entry into each slot of the mask, waiting for other entries (Wilcox's proposal). With
    /// `closed`, no folio is added where one is.
    LockEntries { pages: u8, closed: bool },
    /// Waits until no locked entry of another is in the slot; holds nothing.
    WaitEntry { page: u8 },
    /// Takes the entries out again.
    UnlockEntries { pages: u8 },

    /// folio_lock(), then `!folio->mapping`.
    LockFolio { page: u8, gone: Target },
    /// folio_trylock().
    TrylockFolio { page: u8, fail: Target },
    /// folio_put_wait_locked(): waits, and looks again.
    WaitFolio { page: u8 },
    /// folio_unlock().
    UnlockFolio { page: u8 },
    /// folio_wait_writeback().
    WaitWriteback { page: u8 },

    /// filemap_get_folio() or filemap_get_pages(): finds an uptodate folio and takes a reference.
    Find {
        page: u8,
        miss: Target,
        stale: Target,
    },
    /// folio_test_uptodate() of a folio that the actor has locked.
    TestUptodate { page: u8, not: Target },
    /// filemap_add_folio(): a locked, empty folio.
    AddFolio { page: u8, exists: Target },
    /// i_size_read().
    CheckSize { page: u8, beyond: Target },
    /// get_block / iomap_begin for a read of a folio that the actor has locked.
    GetBlock { page: u8, other: Target },
    /// submit_bio() of that read.
    SubmitBio { page: u8, other: Target },
    /// The device delivers.
    BioDone { page: u8, other: Target },
    /// folio_end_read(): folio_mark_uptodate(), folio_unlock().
    EndRead { page: u8, other: Target },
    /// folio_mark_uptodate() of a folio that stays locked.
    MarkUptodate { page: u8 },
    /// copy_folio_to_iter(): what the caller sees.
    CopyOut { slot: u8 },
    /// iomap_begin for a direct read.
    DioMap { page: u8 },
    /// A direct read of the block that it found.
    DioRead { page: u8 },
    /// finish_fault(): the page is mapped, under the folio lock.
    SetPte { page: u8, writable: bool },
    /// filemap_map_pages(): maps an uptodate folio that is there and not locked.
    MapPages { page: u8, none: Target },
    /// A load through the mapping.
    Load { page: u8, slot: u8, fault: Target },
    /// A store through a writable mapping.
    Store { page: u8, word: u8, fault: Target },

    /// fault_dirty_shared_page() or block_write_end(): marks the folio dirty; `write` is the data of a
    /// buffered write.
    Dirty { page: u8, write: Option<u8> },
    /// A block for what is to be written, unwritten if it is new; a shared one is replaced (copy on write).
    GetBlockWrite { page: u8, copy: bool },
    /// folio_clear_dirty_for_io() with page_mkclean(), folio_start_writeback().
    StartWriteback { page: u8, clean: Target },
    /// The device takes the folio's data, at the block that get_block found.
    WriteFolio { page: u8 },
    /// folio_end_writeback().
    EndWriteback { page: u8 },
    /// The device takes data that never was in the page cache.
    DioWrite { page: u8, value: Value },

    /// unmap_mapping_folio().
    Zap { page: u8 },
    /// filemap_remove_folio(), folio_unlock(). With `clean`, a dirty folio stays (invalidate_complete_folio2).
    Remove { page: u8, clean: bool },
    /// The second scan of truncate_inode_pages_range() begins again until it finds nothing.
    Rescan { pages: u8, from: Target },

    /// The extent is removed from the file.
    Unmap { page: u8, hole: Target },
    /// The block is free, unless it is shared.
    FreeBlock { page: u8 },
    /// The extent is made unwritten (`ext4_alloc_file_blocks` for FALLOC_FL_ZERO_RANGE).
    Convert { page: u8 },
    /// The extent moves to another offset.
    Shift { from: u8, to: u8 },
    /// The extent is shared by another offset.
    Share { from: u8, to: u8 },
    /// Two offsets exchange their extents.
    Swap { page: u8, with: u8 },
    /// i_size_write().
    SetSize { file: u8, pages: u8 },
    /// The allocator gives out the lowest free block.
    Allocate { page: u8, none: Target },
    /// vfs_dedupe_file_range_compare() of two locked folios.
    Compare { page: u8, with: u8, differs: Target },

    /// The entry and the PTE of the block that iomap_begin found (`dax_insert_entry`).
    DaxInsert { page: u8, hole: Target },
    /// The page is pinned for device access.
    Pin { page: u8 },
    /// unpin_user_page().
    Unpin { page: u8 },
    /// break_layouts(): is a page of the range pinned?
    TestPinned { page: u8, pinned: Target },
    /// ___wait_var_event(): waits until it is not.
    WaitPinned { page: u8 },
}

impl Micro {
    /// Every jump, to be rewritten.
    pub(crate) fn targets(&mut self) -> Option<[Option<&mut Target>; 2]> {
        Some(match self {
            Micro::Goto { to } | Micro::Again { to, .. } => [Some(to), None],
            Micro::TryDown { fail, .. } | Micro::TrylockFolio { fail, .. } => [Some(fail), None],
            Micro::LockFolio { gone, .. } => [Some(gone), None],
            Micro::Find { miss, stale, .. } => [Some(miss), Some(stale)],
            Micro::TestUptodate { not, .. } => [Some(not), None],
            Micro::AddFolio { exists, .. } => [Some(exists), None],
            Micro::CheckSize { beyond, .. } => [Some(beyond), None],
            Micro::GetBlock { other, .. }
            | Micro::SubmitBio { other, .. }
            | Micro::BioDone { other, .. }
            | Micro::EndRead { other, .. } => [Some(other), None],
            Micro::MapPages { none, .. } | Micro::Allocate { none, .. } => [Some(none), None],
            Micro::Load { fault, .. } | Micro::Store { fault, .. } => [Some(fault), None],
            Micro::StartWriteback { clean, .. } => [Some(clean), None],
            Micro::Rescan { from, .. } => [Some(from), None],
            Micro::Unmap { hole, .. } | Micro::DaxInsert { hole, .. } => [Some(hole), None],
            Micro::Compare { differs, .. } => [Some(differs), None],
            Micro::TestPinned { pinned, .. } => [Some(pinned), None],
            Micro::Begin { .. }
            | Micro::Return { .. }
            | Micro::End
            | Micro::Down { .. }
            | Micro::Up { .. }
            | Micro::MmapLock
            | Micro::MmapUnlock
            | Micro::LockEntries { .. }
            | Micro::WaitEntry { .. }
            | Micro::UnlockEntries { .. }
            | Micro::WaitFolio { .. }
            | Micro::UnlockFolio { .. }
            | Micro::WaitWriteback { .. }
            | Micro::MarkUptodate { .. }
            | Micro::CopyOut { .. }
            | Micro::DioMap { .. }
            | Micro::DioRead { .. }
            | Micro::SetPte { .. }
            | Micro::Dirty { .. }
            | Micro::GetBlockWrite { .. }
            | Micro::WriteFolio { .. }
            | Micro::EndWriteback { .. }
            | Micro::DioWrite { .. }
            | Micro::Zap { .. }
            | Micro::Remove { .. }
            | Micro::FreeBlock { .. }
            | Micro::Convert { .. }
            | Micro::Shift { .. }
            | Micro::Share { .. }
            | Micro::Swap { .. }
            | Micro::SetSize { .. }
            | Micro::Pin { .. }
            | Micro::Unpin { .. }
            | Micro::WaitPinned { .. } => return None,
        })
    }

    /// Whether it touches nothing but the actor's own registers, or what only the actor can touch.
    pub fn is_local(&self) -> bool {
        matches!(self, Micro::MmapLock | Micro::MmapUnlock)
    }

    /// Whether it takes a lock, or tries to.
    pub fn is_lock(&self) -> bool {
        matches!(
            self,
            Micro::Down { .. }
                | Micro::TryDown { .. }
                | Micro::MmapLock
                | Micro::LockEntries { .. }
        )
    }

    /// In the words of the kernel, for a diagram.
    pub fn text(&self, model: &Model) -> String {
        let at = |page: u8| model.page_name(page.into());
        let sem = |sem: u8| model.sem_name(sem.into());
        match *self {
            Micro::Begin { .. } | Micro::Return { .. } | Micro::Goto { .. } | Micro::End => {
                String::new()
            }
            Micro::Again { .. } => "again".into(),
            Micro::Down {
                sem: s,
                mode: Mode::Shared,
            } => format!("down_read({})", sem(s)),
            Micro::Down {
                sem: s,
                mode: Mode::Exclusive,
            } => format!("down_write({})", sem(s)),
            Micro::TryDown {
                sem: s,
                mode: Mode::Shared,
                ..
            } => format!("down_read_trylock({})", sem(s)),
            Micro::TryDown {
                sem: s,
                mode: Mode::Exclusive,
                ..
            } => format!("down_write_trylock({})", sem(s)),
            Micro::Up {
                sem: s,
                mode: Mode::Shared,
            } => format!("up_read({})", sem(s)),
            Micro::Up {
                sem: s,
                mode: Mode::Exclusive,
            } => format!("up_write({})", sem(s)),
            Micro::MmapLock => "down_read(mmap_lock)".into(),
            Micro::MmapUnlock => "up_read(mmap_lock)".into(),
            Micro::LockEntries { pages, .. } => {
                format!("lock entries of {}", model.page_names(pages))
            }
            Micro::WaitEntry { page } => format!("wait for the locked entry of {}", at(page)),
            Micro::UnlockEntries { pages } => {
                format!("remove the locked entries of {}", model.page_names(pages))
            }
            Micro::LockFolio { page, .. } => format!("folio_lock({})", at(page)),
            Micro::TrylockFolio { page, .. } => format!("folio_trylock({})", at(page)),
            Micro::WaitFolio { page } => format!("folio_put_wait_locked({})", at(page)),
            Micro::UnlockFolio { page } => format!("folio_unlock({})", at(page)),
            Micro::WaitWriteback { page } => format!("folio_wait_writeback({})", at(page)),
            Micro::Find { page, .. } => format!("filemap_get_folio({})", at(page)),
            Micro::TestUptodate { page, .. } => format!("folio_test_uptodate({})", at(page)),
            Micro::AddFolio { page, .. } => format!("filemap_add_folio({}), locked", at(page)),
            Micro::CheckSize { page, .. } => format!("i_size_read() for {}", at(page)),
            Micro::GetBlock { page, .. } => format!("get_block({})", at(page)),
            Micro::SubmitBio { page, .. } => format!("submit_bio(read {})", at(page)),
            Micro::BioDone { page, .. } => format!("read of {} completes", at(page)),
            Micro::EndRead { page, .. } => {
                format!("folio_end_read({}): uptodate, unlocked", at(page))
            }
            Micro::MarkUptodate { page } => format!("folio_mark_uptodate({})", at(page)),
            Micro::CopyOut { .. } => "copy_folio_to_iter()".into(),
            Micro::DioMap { page } => format!("iomap_begin({})", at(page)),
            Micro::DioRead { page } => format!("direct read of {} completes", at(page)),
            Micro::SetPte {
                page,
                writable: false,
            } => format!("finish_fault({})", at(page)),
            Micro::SetPte {
                page,
                writable: true,
            } => format!("finish_fault({}), writable", at(page)),
            Micro::MapPages { page, .. } => format!("filemap_map_pages({})", at(page)),
            Micro::Load { page, .. } => format!("load from {}", at(page)),
            Micro::Store { page, .. } => format!("store to {}", at(page)),
            Micro::Dirty { page, write: None } => format!("folio_mark_dirty({})", at(page)),
            Micro::Dirty {
                page,
                write: Some(_),
            } => format!("copy into {}, folio_mark_dirty()", at(page)),
            Micro::GetBlockWrite { page, .. } => format!("get_block({}, create)", at(page)),
            Micro::StartWriteback { page, .. } => format!("folio_start_writeback({})", at(page)),
            Micro::WriteFolio { page } => format!("write of {} completes", at(page)),
            Micro::EndWriteback { page } => format!("folio_end_writeback({})", at(page)),
            Micro::DioWrite { page, .. } => format!("write {} past the page cache", at(page)),
            Micro::Zap { page } => format!("unmap_mapping_folio({})", at(page)),
            Micro::Remove { page, .. } => format!("filemap_remove_folio({})", at(page)),
            Micro::Rescan { .. } => "truncate_inode_pages_range() has scanned".into(),
            Micro::Unmap { page, .. } => format!("remove the extent of {}", at(page)),
            Micro::FreeBlock { .. } => "free the block".into(),
            Micro::Convert { page } => format!("make the extent of {} unwritten", at(page)),
            Micro::Shift { from, to } => format!("move the extent of {} to {}", at(from), at(to)),
            Micro::Share { from, to } => format!("share the extent of {} at {}", at(from), at(to)),
            Micro::Swap { page, with } => {
                format!("swap the extents of {} and {}", at(page), at(with))
            }
            Micro::SetSize { file, pages } => format!(
                "i_size_write({}, {pages} pages)",
                model.file_name(file.into())
            ),
            Micro::Allocate { page, .. } => format!("allocate a block for {}", at(page)),
            Micro::Compare { page, with, .. } => format!("compare {} with {}", at(page), at(with)),
            Micro::DaxInsert { page, .. } => format!("dax_insert_entry({})", at(page)),
            Micro::Pin { page } => format!("pin {}", at(page)),
            Micro::Unpin { page } => format!("unpin {}", at(page)),
            Micro::TestPinned { page, .. } => format!("break_layouts(): is {} pinned?", at(page)),
            Micro::WaitPinned { page } => format!("wait until {} is not pinned", at(page)),
        }
    }
}
