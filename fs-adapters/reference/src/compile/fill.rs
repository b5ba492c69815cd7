//! What instantiates pages: reads, faults, advice, and direct reads beside them. mm/filemap.c,
//! mm/readahead.c and mm/memory.c as of 5.15, unless said.

use super::Compiler;
use crate::code::{Code, Label};
use crate::hook::Hook;
use crate::micro::Micro;
use crate::setup::Pages;

impl Compiler<'_> {
    /// Reads into a folio that the actor has locked; it is uptodate and unlocked afterwards.
    pub(super) fn read_folio(&self, code: &mut Code<'_>, page: u8) {
        if !self.on_device() {
            code.push(Micro::MarkUptodate { page });
            code.push(Micro::Dirty { page, write: None });
            return code.push(Micro::UnlockFolio { page });
        }
        let next = code.label();
        let other = code.to(next);
        code.push(Micro::GetBlock { page, other });
        code.push(Micro::SubmitBio { page, other });
        code.push(Micro::BioDone { page, other });
        code.push(Micro::EndRead { page, other });
        code.place(next);
    }

    /// page_cache_ra_unbounded(): adds what is missing, and submits. Completion is `ra_done`.
    fn ra(&self, code: &mut Code<'_>, file: usize, pages: &Pages) {
        code.region(
            Hook::PageCacheRaUnbounded,
            &[self.on(file, pages)],
            |code| self.ra_locked(code, file, pages),
        );
    }

    /// The same under whatever lock the caller has.
    fn ra_locked(&self, code: &mut Code<'_>, file: usize, pages: &Pages) {
        let out = code.label();
        // do_page_cache_ra() limits the range by i_size before it adds anything.
        let beyond = code.to(out);
        let page = self.slot(file, pages.start);
        code.push(Micro::CheckSize { page, beyond });
        for page in pages.clone().map(|p| self.slot(file, p)) {
            let next = code.label();
            let exists = code.to(next);
            code.push(Micro::AddFolio { page, exists });
            code.place(next);
        }
        for page in pages.clone().map(|p| self.slot(file, p)) {
            let next = code.label();
            let other = code.to(next);
            code.push(Micro::GetBlock { page, other });
            code.push(Micro::SubmitBio { page, other });
            code.place(next);
        }
        code.place(out);
    }

    /// The device's side of it. A folio that was never submitted stays with the others: the label is shared.
    fn ra_done(&self, code: &mut Code<'_>, file: usize, pages: &Pages) {
        for page in pages.clone().map(|p| self.slot(file, p)) {
            let next = code.label();
            let other = code.to(next);
            code.push(Micro::BioDone { page, other });
            code.push(Micro::EndRead { page, other });
            code.place(next);
        }
    }

    /// filemap_get_pages(): an uptodate folio, in the actor's register.
    fn get_page(&self, code: &mut Code<'_>, at: (usize, &Pages), page: u8, how: How, again: Label) {
        let place = self.at(page);
        let retry = code.here();
        let (miss, stale, hit) = (code.label(), code.label(), code.label());
        let targets = (code.to(miss), code.to(stale));
        code.push(Micro::Find {
            page,
            miss: targets.0,
            stale: targets.1,
        });
        code.goto(hit);
        code.place(miss);
        // IOCB_NOWAIT implies IOCB_NOIO up to 6.11: nothing is read in.
        match how {
            How::Nowait => code.goto(again),
            How::Readahead => {
                let (file, pages) = at;
                let from = usize::from(page - self.slot(file, 0));
                self.ra(code, file, &(from..pages.end));
                self.ra_done(code, file, &(from..pages.end));
                code.goto(retry);
            }
            How::Create => {
                code.region(Hook::FilemapCreateFolio, &[place], |code| {
                    code.region(Hook::FilemapAddFolio, &[place], |code| {
                        let exists = code.to(retry);
                        code.push(Micro::AddFolio { page, exists });
                    });
                    self.read_folio(code, page);
                });
                code.goto(retry);
            }
        }
        code.place(stale);
        let nowait = (how == How::Nowait).then_some(again);
        let wait = code.label();
        code.region_or(Hook::FilemapUpdatePage, &[place], nowait, |code| {
            let fail = code.to(nowait.unwrap_or(wait));
            code.push(Micro::TrylockFolio { page, fail });
            let read = code.label();
            let not = code.to(read);
            code.push(Micro::TestUptodate { page, not });
            code.push(Micro::UnlockFolio { page });
            code.goto(retry);
            code.place(read);
            match nowait {
                Some(again) => {
                    code.push(Micro::UnlockFolio { page });
                    code.goto(again);
                }
                None => self.read_folio(code, page),
            }
        });
        code.goto(retry);
        // The lock is not held while waiting for somebody else's read.
        code.place(wait);
        code.push(Micro::WaitFolio { page });
        code.goto(retry);
        code.place(hit);
    }

    /// filemap_read().
    pub(super) fn read(
        &mut self,
        code: &mut Code<'_>,
        op: usize,
        at: (usize, &Pages),
        nowait: bool,
        readahead: bool,
    ) {
        let (file, pages) = at;
        self.shows(op, file, pages);
        let out = code.label();
        let how = match (nowait, readahead) {
            (true, _) => How::Nowait,
            (false, true) => How::Readahead,
            (false, false) => How::Create,
        };
        let hold = nowait.then_some(out);
        code.region_or(Hook::Read, &[self.on(file, pages)], hold, |code| {
            for (slot, page) in pages.clone().map(|p| self.slot(file, p)).enumerate() {
                self.get_page(code, at, page, how, out);
                let beyond = code.to(out);
                code.push(Micro::CheckSize { page, beyond });
                code.push(Micro::CopyOut { slot: slot as u8 });
            }
        });
        code.place(out);
    }

    /// filemap_read() whose copy_folio_to_iter() faults on its buffer, a mapping of another page.
    pub(super) fn read_into(&mut self, code: &mut Code<'_>, op: usize, to: u8, from: u8, word: u8) {
        self.effect(op, to, crate::value::Set::word(word));
        let out = code.label();
        let file = self.at(from).0;
        let index = usize::from(from - self.slot(file, 0));
        code.region(Hook::Read, &[self.at(from)], |code| {
            self.get_page(code, (file, &(index..index + 1)), from, How::Create, out);
            let again = code.here();
            self.fault(code, to, true, false, out);
            let fault = code.to(again);
            code.push(Micro::Store {
                page: to,
                word,
                fault,
            });
        });
        code.place(out);
    }

    /// A fault of the actor's, up to the PTE. `beyond` is where SIGBUS leads.
    pub(super) fn fault(
        &self,
        code: &mut Code<'_>,
        page: u8,
        write: bool,
        around: bool,
        beyond: Label,
    ) {
        let place = self.at(page);
        let again = code.here();
        code.mmap_locked(|code| {
            let mapped = code.label();
            if around && !write {
                let none = code.label();
                code.region(Hook::MapPages, &[place], |code| {
                    let none = code.to(none);
                    code.push(Micro::MapPages { page, none });
                });
                code.goto(mapped);
                code.place(none);
            }
            code.region(Hook::FilemapFault, &[place], |code| {
                self.filemap_fault(code, page, beyond);
            });
            if write {
                code.push(Micro::UnlockFolio { page });
                code.region(Hook::PageMkwrite, &[place], |code| {
                    let gone = code.to(again);
                    code.push(Micro::LockFolio { page, gone });
                    code.push(Micro::WaitWriteback { page });
                    if self.on_device() {
                        code.push(Micro::GetBlockWrite { page, copy: false });
                    }
                    code.push(Micro::Dirty { page, write: None });
                });
            }
            code.push(Micro::SetPte {
                page,
                writable: write,
            });
            code.push(Micro::UnlockFolio { page });
            code.place(mapped);
        });
    }

    /// filemap_fault(): the folio is uptodate and locked by the actor afterwards.
    fn filemap_fault(&self, code: &mut Code<'_>, page: u8, beyond: Label) {
        let outside = code.to(beyond);
        code.push(Micro::CheckSize {
            page,
            beyond: outside,
        });
        let (fill, locked) = (code.label(), code.label());
        let unlock = Micro::UnlockFolio { page };
        let find = code.here();
        let miss = code.to(fill);
        code.push(Micro::Find {
            page,
            miss,
            stale: miss,
        });
        let gone = code.to(find);
        code.push(Micro::LockFolio { page, gone });
        let not = code.past(fill, &[unlock]);
        code.push(Micro::TestUptodate { page, not });
        code.goto(locked);
        code.place(fill);
        code.region(Hook::FilemapFaultFill, &[self.at(page)], |code| {
            let add = code.here();
            let (have, read, done) = (code.label(), code.label(), code.label());
            let exists = code.to(have);
            code.push(Micro::AddFolio { page, exists });
            if !self.on_device() {
                // shmem_get_folio_gfp(): never unlocked in between.
                code.push(Micro::MarkUptodate { page });
                code.push(Micro::Dirty { page, write: None });
                code.goto(done);
            }
            code.place(read);
            self.read_folio(code, page);
            code.place(have);
            let gone = code.to(add);
            code.push(Micro::LockFolio { page, gone });
            let not = code.to(read);
            code.push(Micro::TestUptodate { page, not });
            code.goto(done);
            code.place(done);
        });
        code.place(locked);
        let outside = code.past(beyond, &[unlock]);
        code.push(Micro::CheckSize {
            page,
            beyond: outside,
        });
    }

    /// Faults and loads, page by page.
    pub(super) fn fault_load(
        &mut self,
        code: &mut Code<'_>,
        op: usize,
        at: (usize, &Pages),
        around: bool,
    ) {
        let (file, pages) = at;
        self.shows(op, file, pages);
        let out = code.label();
        for (slot, page) in pages.clone().map(|p| self.slot(file, p)).enumerate() {
            let again = code.here();
            self.fault(code, page, false, around, out);
            let fault = code.to(again);
            code.push(Micro::Load {
                page,
                slot: slot as u8,
                fault,
            });
        }
        code.place(out);
    }

    /// generic_fadvise(WILLNEED): force_page_cache_readahead(). It returns before the I/O is done.
    pub(super) fn fadvise(&self, code: &mut Code<'_>, op: usize, file: usize, pages: &Pages) {
        code.region(Hook::Fadvise, &[self.on(file, pages)], |code| {
            if self.on_device() {
                self.ra(code, file, pages);
            }
        });
        code.push(Micro::Return { op: op as u8 });
        if self.on_device() {
            self.ra_done(code, file, pages);
        }
    }

    /// collapse_file() (mm/khugepaged.c): each folio in turn is locked, and all stay so until the last is. One
    /// that is absent is read in first, here one at a time: what readahead brings in at once has its limit.
    pub(super) fn collapse_file(&self, code: &mut Code<'_>, file: usize, pages: &Pages) {
        let out = code.label();
        let depth = code.depth();
        code.region(Hook::CollapseFile, &[self.on(file, pages)], |code| {
            let has_lock = code.depth() > depth;
            let mut locked = Vec::new();
            for index in pages.clone() {
                let (page, one) = (self.slot(file, index), index..index + 1);
                let (absent, have) = (code.label(), code.label());
                let give_up = code.past(out, &locked);
                let miss = code.to(absent);
                code.push(Micro::Find {
                    page,
                    miss,
                    stale: give_up,
                });
                code.push(Micro::TrylockFolio {
                    page,
                    fail: give_up,
                });
                code.goto(have);
                code.place(absent);
                match has_lock {
                    true => self.ra_locked(code, file, &one),
                    false => self.ra(code, file, &one),
                }
                self.ra_done(code, file, &one);
                // filemap_lock_folio().
                code.push(Micro::Find {
                    page,
                    miss: give_up,
                    stale: give_up,
                });
                code.push(Micro::LockFolio {
                    page,
                    gone: give_up,
                });
                code.place(have);
                // The last that was locked is the first to be given back.
                locked.insert(0, Micro::UnlockFolio { page });
            }
            for unlock in locked {
                code.push(unlock);
            }
        });
        code.place(out);
    }

    /// dax_iomap_fault(), and a load by a device for which the page is pinned.
    pub(super) fn dax_fault(&mut self, code: &mut Code<'_>, op: usize, page: u8) {
        self.ops[op].shows = vec![page.into()];
        let out = code.label();
        let again = code.here();
        code.mmap_locked(|code| {
            code.region(Hook::DaxFault, &[self.at(page)], |code| {
                let beyond = code.to(out);
                code.push(Micro::CheckSize { page, beyond });
                let miss = code.label();
                let to = code.to(miss);
                // The block is looked up, and the entry and the PTE made, in two steps.
                code.push(Micro::DioMap { page });
                code.push(Micro::DaxInsert { page, hole: to });
                code.push(Micro::Pin { page });
                code.place(miss);
            });
        });
        let fault = code.to(again);
        code.push(Micro::Load {
            page,
            slot: 0,
            fault,
        });
        code.push(Micro::Unpin { page });
        code.place(out);
    }

    /// A direct read: dirty pages go to the device first.
    pub(super) fn direct_read(
        &mut self,
        code: &mut Code<'_>,
        op: usize,
        file: usize,
        pages: &Pages,
    ) {
        if !self.on_device() {
            // Served from the page cache.
            return self.read(code, op, (file, pages), false, false);
        }
        self.shows(op, file, pages);
        let out = code.label();
        code.region(Hook::DirectRead, &[self.on(file, pages)], |code| {
            self.flush(code, file, pages);
            for (slot, page) in pages.clone().map(|p| self.slot(file, p)).enumerate() {
                let beyond = code.to(out);
                code.push(Micro::CheckSize { page, beyond });
                code.push(Micro::DioMap { page });
                code.push(Micro::DioRead { page });
                code.push(Micro::CopyOut { slot: slot as u8 });
            }
        });
        code.place(out);
    }

    fn shows(&mut self, op: usize, file: usize, pages: &Pages) {
        self.ops[op].shows = pages.clone().map(|p| self.slot(file, p).into()).collect();
    }
}

/// How a read gets a page that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// filemap_create_folio().
    Create,
    /// page_cache_sync_readahead().
    Readahead,
    /// Not at all: EAGAIN.
    Nowait,
}
