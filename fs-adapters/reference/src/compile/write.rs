//! What changes data: stores, writes, direct writes, and writeback.

use super::Compiler;
use crate::code::Code;
use crate::hook::Hook;
use crate::micro::Micro;
use crate::setup::Pages;
use crate::value::Set;

impl Compiler<'_> {
    /// Faults and stores: do_shared_fault(), page_mkwrite.
    pub(super) fn store(&mut self, code: &mut Code<'_>, op: usize, page: u8, word: u8) {
        self.effect(op, page, Set::word(word));
        let out = code.label();
        let again = code.here();
        self.fault(code, page, true, false, out);
        let fault = code.to(again);
        code.push(Micro::Store { page, word, fault });
        code.place(out);
    }

    /// generic_perform_write() of part of a page, through block_write_begin().
    pub(super) fn write(&mut self, code: &mut Code<'_>, op: usize, page: u8, word: u8) {
        self.effect(op, page, Set::word(word));
        code.region(Hook::Write, &[self.at(page)], |code| {
            let (add, read, copy) = (code.label(), code.label(), code.label());
            let retry = code.here();
            let gone = code.to(add);
            code.push(Micro::LockFolio { page, gone });
            let not = code.to(read);
            code.push(Micro::TestUptodate { page, not });
            code.goto(copy);
            code.place(add);
            let exists = code.to(retry);
            code.push(Micro::AddFolio { page, exists });
            code.place(read);
            if self.on_device() {
                let other = code.to(copy);
                code.push(Micro::GetBlock { page, other });
                code.push(Micro::SubmitBio { page, other });
                code.push(Micro::BioDone { page, other });
            }
            code.push(Micro::MarkUptodate { page });
            code.place(copy);
            code.push(Micro::WaitWriteback { page });
            if self.on_device() {
                code.push(Micro::GetBlockWrite { page, copy: false });
            }
            code.push(Micro::Dirty {
                page,
                write: Some(word),
            });
            code.push(Micro::UnlockFolio { page });
        });
    }

    /// filemap_write_and_wait_range(), where there is anything to write.
    pub(super) fn flush(&self, code: &mut Code<'_>, file: usize, pages: &Pages) {
        if !self.dirty() || !self.on_device() {
            return;
        }
        for page in pages.clone().map(|p| self.slot(file, p)) {
            let out = code.label();
            code.region(Hook::Writeback, &[self.at(page)], |code| {
                let gone = code.to(out);
                code.push(Micro::LockFolio { page, gone });
                code.push(Micro::WaitWriteback { page });
                let clean = code.past(out, &[Micro::UnlockFolio { page }]);
                code.push(Micro::StartWriteback { page, clean });
                code.push(Micro::GetBlockWrite { page, copy: true });
                code.push(Micro::UnlockFolio { page });
                code.push(Micro::WriteFolio { page });
                code.push(Micro::EndWriteback { page });
            });
            code.place(out);
        }
    }

    /// iomap_dio_rw() for a write: the pages are dropped before and after.
    pub(super) fn direct_write(
        &mut self,
        code: &mut Code<'_>,
        op: usize,
        file: usize,
        pages: &Pages,
    ) {
        let values: Vec<_> = pages
            .clone()
            .map(|p| self.body(format!("the direct write's {p}")))
            .collect();
        code.region(Hook::DirectWrite, &[self.on(file, pages)], |code| {
            self.flush(code, file, pages);
            self.invalidate(code, file, pages);
            for (page, value) in pages.clone().map(|p| self.slot(file, p)).zip(&values) {
                code.push(Micro::GetBlockWrite { page, copy: true });
                code.push(Micro::DioWrite {
                    page,
                    value: *value,
                });
            }
            self.invalidate(code, file, pages);
        });
        for (page, value) in pages.clone().zip(values) {
            self.effect(op, self.slot(file, page), Set::of(value));
        }
    }

    /// invalidate_inode_pages2_range(): a page that has become dirty stays.
    fn invalidate(&self, code: &mut Code<'_>, file: usize, pages: &Pages) {
        for page in pages.clone().map(|p| self.slot(file, p)) {
            let next = code.label();
            let gone = code.to(next);
            code.push(Micro::LockFolio { page, gone });
            code.push(Micro::WaitWriteback { page });
            code.push(Micro::Zap { page });
            code.push(Micro::Remove { page, clean: true });
            code.place(next);
        }
    }

    /// Another file's write, which gets whatever block is free.
    pub(super) fn reuse(&mut self, code: &mut Code<'_>, op: usize, page: u8, actor: usize) {
        let name = self.setup.actors[actor].name.clone();
        let value = self.body(format!("{name}'s data"));
        // It may find no block, so the page may stay as it was.
        let before = self.first.allowed[usize::from(page)];
        self.effect(op, page, Set::of(value).union(before));
        let out = code.label();
        let none = code.to(out);
        code.push(Micro::Allocate { page, none });
        code.push(Micro::DioWrite { page, value });
        code.place(out);
    }
}
