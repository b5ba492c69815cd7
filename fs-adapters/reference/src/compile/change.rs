//! What takes blocks from under pages: punch, zero, collapse, insert, truncate.

use super::Compiler;
use crate::code::Code;
use crate::hook::Hook;
use crate::micro::Micro;
use crate::setup::Pages;
use crate::value::{Set, Value};

impl Compiler<'_> {
    /// truncate_inode_pages_range(), its second scan: waits for each folio, and begins again until none is
    /// left. (The first scan only takes what it can get without waiting.)
    pub(super) fn truncate_pages(&self, code: &mut Code<'_>, file: usize, pages: &Pages) {
        if pages.is_empty() {
            return;
        }
        let scan = code.here();
        for page in pages.clone().map(|p| self.slot(file, p)) {
            if self.setup.dax {
                code.push(Micro::Zap { page });
                code.push(Micro::Remove { page, clean: false });
                continue;
            }
            let next = code.label();
            let gone = code.to(next);
            code.push(Micro::LockFolio { page, gone });
            code.push(Micro::WaitWriteback { page });
            code.push(Micro::Zap { page });
            code.push(Micro::Remove { page, clean: false });
            code.place(next);
        }
        let from = code.to(scan);
        let pages = self.on(file, pages).1;
        code.push(Micro::Rescan { pages, from });
    }

    /// The blocks go: out of the file first, then back to the allocator.
    fn remove_blocks(&self, code: &mut Code<'_>, file: usize, pages: &Pages) {
        if !self.on_device() {
            return;
        }
        for page in pages.clone().map(|p| self.slot(file, p)) {
            let next = code.label();
            let hole = code.to(next);
            code.push(Micro::Unmap { page, hole });
            code.push(Micro::FreeBlock { page });
            code.place(next);
        }
    }

    /// ext4_break_layouts(): nothing may be pinned; the lock is dropped for the wait.
    fn break_layouts(&self, code: &mut Code<'_>, file: usize, pages: &Pages) {
        if !self.setup.dax {
            return;
        }
        for page in pages.clone().map(|p| self.slot(file, p)) {
            let (top, wait, done) = (code.here(), code.label(), code.label());
            let pinned = code.to(wait);
            code.push(Micro::TestPinned { page, pinned });
            code.goto(done);
            code.place(wait);
            code.dropping_innermost(|code| code.push(Micro::WaitPinned { page }));
            code.goto(top);
            code.place(done);
        }
    }

    /// ext4_punch_hole().
    pub(super) fn punch(&mut self, code: &mut Code<'_>, op: usize, file: usize, pages: &Pages) {
        code.region(Hook::PunchHole, &[self.on(file, pages)], |code| {
            self.flush(code, file, pages);
            self.break_layouts(code, file, pages);
            self.truncate_pages(code, file, pages);
            self.remove_blocks(code, file, pages);
        });
        self.zeros(op, file, pages);
    }

    /// ext4_zero_range(): the blocks stay.
    pub(super) fn zero(&mut self, code: &mut Code<'_>, op: usize, file: usize, pages: &Pages) {
        code.region(Hook::ZeroRange, &[self.on(file, pages)], |code| {
            self.flush(code, file, pages);
            self.truncate_pages(code, file, pages);
            for page in pages.clone().map(|p| self.slot(file, p)) {
                code.push(Micro::Convert { page });
            }
        });
        self.zeros(op, file, pages);
    }

    /// ext4_collapse_range(): everything from the range on leaves the page cache.
    pub(super) fn collapse(&mut self, code: &mut Code<'_>, op: usize, file: usize, pages: &Pages) {
        let size = self.setup.files[file].size;
        let tail = pages.start..size;
        code.region(Hook::CollapseRange, &[self.on(file, &tail)], |code| {
            self.flush(code, file, &tail);
            self.truncate_pages(code, file, &tail);
            self.remove_blocks(code, file, pages);
            for from in pages.end..size {
                code.push(Micro::Shift {
                    from: self.slot(file, from),
                    to: self.slot(file, from - pages.len()),
                });
            }
            code.push(Micro::SetSize {
                file: file as u8,
                pages: (size - pages.len()) as u8,
            });
        });
        for page in tail {
            let from = page + pages.len();
            let new = if from < size {
                self.initial(file, from)
            } else {
                Set::of(Value::ZERO)
            };
            self.effect(op, self.slot(file, page), new);
        }
    }

    /// ext4_insert_range(): i_size grows first.
    pub(super) fn insert(&mut self, code: &mut Code<'_>, op: usize, file: usize, pages: &Pages) {
        let size = self.setup.files[file].size;
        let grown = size + pages.len();
        let tail = pages.start..size;
        code.region(
            Hook::InsertRange,
            &[self.on(file, &(pages.start..grown))],
            |code| {
                self.flush(code, file, &tail);
                self.truncate_pages(code, file, &tail);
                code.push(Micro::SetSize {
                    file: file as u8,
                    pages: grown as u8,
                });
                for from in tail.clone().rev() {
                    code.push(Micro::Shift {
                        from: self.slot(file, from),
                        to: self.slot(file, from + pages.len()),
                    });
                }
            },
        );
        for page in pages.start..grown {
            let new = match page.checked_sub(pages.len()) {
                Some(from) if page >= pages.end => self.initial(file, from),
                _ => Set::of(Value::ZERO),
            };
            self.effect(op, self.slot(file, page), new);
        }
    }

    /// ext4_setattr(): i_size first, then the pages, then the blocks.
    pub(super) fn truncate(&mut self, code: &mut Code<'_>, op: usize, file: usize, size: usize) {
        let all = self.all(file);
        let gone = size..all.end;
        code.region(Hook::Truncate, &[self.on(file, &gone)], |code| {
            code.push(Micro::SetSize {
                file: file as u8,
                pages: size as u8,
            });
            self.truncate_pages(code, file, &gone);
            self.remove_blocks(code, file, &gone);
        });
        self.zeros(op, file, &gone);
    }

    /// A write that got its block and no further: ext4_truncate_failed_write().
    pub(super) fn failed_write(&mut self, code: &mut Code<'_>, op: usize, page: u8) {
        let (file, _) = self.at(page);
        let index = usize::from(page - self.slot(file, 0));
        let out = code.label();
        code.region(Hook::Write, &[self.at(page)], |code| {
            let exists = code.to(out);
            code.push(Micro::AddFolio { page, exists });
            let none = code.past(out, &[Micro::UnlockFolio { page }]);
            code.push(Micro::Allocate { page, none });
            code.push(Micro::UnlockFolio { page });
            code.region(Hook::FailedWrite, &[self.at(page)], |code| {
                self.truncate_pages(code, file, &(index..index + 1));
                self.remove_blocks(code, file, &(index..index + 1));
            });
        });
        code.place(out);
        self.zeros(op, file, &(index..index + 1));
    }

    fn zeros(&mut self, op: usize, file: usize, pages: &Pages) {
        for page in pages.clone() {
            self.effect(op, self.slot(file, page), Set::of(Value::ZERO));
        }
    }
}
