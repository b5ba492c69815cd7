//! What makes files share or exchange blocks, and the change of the journal flag. fs/remap_range.c,
//! fs/xfs/xfs_reflink.c, fs/ext4/ioctl.c.

use super::Compiler;
use crate::code::Code;
use crate::hook::Hook;
use crate::micro::Micro;
use crate::policy::CompareBy;
use crate::setup::Pages;

impl Compiler<'_> {
    /// xfs_reflink_remap_prep() and _blocks() for a clone: the destination leaves the page cache.
    pub(super) fn clone_range(
        &mut self,
        code: &mut Code<'_>,
        op: usize,
        file: usize,
        pages: &Pages,
        from: usize,
    ) {
        let places = [self.on(file, pages), self.on(from, pages)];
        code.region(Hook::CloneRange, &places, |code| {
            self.flush(code, from, pages);
            self.flush(code, file, pages);
            self.truncate_pages(code, file, pages);
            for page in pages.clone() {
                code.push(Micro::Share {
                    from: self.slot(from, page),
                    to: self.slot(file, page),
                });
            }
        });
        for page in pages.clone() {
            let mut new = self.initial(from, page);
            if self.others_change(from) {
                new = new.union(self.initial(file, page));
            }
            self.effect(op, self.slot(file, page), new);
        }
    }

    /// Whether anything clones into this file: then what it holds depends on who was first.
    fn others_change(&self, file: usize) -> bool {
        let mut calls = self.setup.actors.iter().flat_map(|a| &a.calls);
        calls.any(|c| matches!(c, crate::setup::Call::CloneRange { file: f, .. } if *f == file))
    }

    /// generic_remap_file_range_prep() with the compare, then the remap. No content changes.
    pub(super) fn dedupe(&self, code: &mut Code<'_>, from: (usize, &Pages), into: (usize, usize)) {
        let (file, pages) = from;
        let (into, into_page) = into;
        let target = into_page..into_page + pages.len();
        let mut places = vec![self.on(file, pages), self.on(into, &target)];
        if file == into {
            places = vec![(file, places[0].1 | places[1].1)];
        }
        let out = code.label();
        code.region(Hook::Dedupe, &places, |code| {
            self.flush(code, file, pages);
            self.flush(code, into, &target);
            for (a, b) in pages.clone().zip(target.clone()) {
                let (page, with) = (self.slot(file, a), self.slot(into, b));
                let again = code.here();
                self.compare_page(code, page);
                self.compare_page(code, with);
                let gone = code.to(again);
                code.push(Micro::LockFolio { page, gone });
                let gone = code.past(again, &[Micro::UnlockFolio { page }]);
                code.push(Micro::LockFolio { page: with, gone });
                let unlock = [
                    Micro::UnlockFolio { page },
                    Micro::UnlockFolio { page: with },
                ];
                let differs = code.past(out, &unlock);
                code.push(Micro::Compare {
                    page,
                    with,
                    differs,
                });
                unlock.into_iter().for_each(|micro| code.push(micro));
            }
            // xfs_flush_unmap_range() of the destination.
            self.flush(code, into, &target);
            self.truncate_pages(code, into, &target);
            for (a, b) in pages.clone().zip(target.clone()) {
                code.push(Micro::Share {
                    from: self.slot(file, a),
                    to: self.slot(into, b),
                });
            }
        });
        code.place(out);
    }

    /// Brings a page in for the compare, by the policy's path.
    fn compare_page(&self, code: &mut Code<'_>, page: u8) {
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
        let place = self.at(page);
        let add = |code: &mut Code<'_>| {
            let exists = code.to(retry);
            code.push(Micro::AddFolio { page, exists });
            self.read_folio(code, page);
        };
        match self.policy.dedupe_compare {
            CompareBy::ReadMappingPage => add(code),
            CompareBy::FilemapRead => code.region(Hook::FilemapCreateFolio, &[place], add),
        }
        code.goto(retry);
        code.place(stale);
        let gone = code.to(retry);
        code.push(Micro::LockFolio { page, gone });
        let read = code.label();
        let not = code.to(read);
        code.push(Micro::TestUptodate { page, not });
        code.push(Micro::UnlockFolio { page });
        code.goto(retry);
        code.place(read);
        self.read_folio(code, page);
        code.goto(retry);
        code.place(hit);
    }

    /// xfs_exchange_range(), or swap_inode_boot_loader().
    pub(super) fn exchange(
        &mut self,
        code: &mut Code<'_>,
        op: usize,
        hook: Hook,
        file: usize,
        pages: &Pages,
        with: usize,
    ) {
        let mut places = vec![self.on(file, pages)];
        if hook == Hook::ExchangeRange {
            places.push(self.on(with, pages));
        }
        code.region(hook, &places, |code| {
            for f in [file, with] {
                self.flush(code, f, pages);
            }
            for f in [file, with] {
                self.truncate_pages(code, f, pages);
            }
            for page in pages.clone() {
                code.push(Micro::Swap {
                    page: self.slot(file, page),
                    with: self.slot(with, page),
                });
            }
        });
        for page in pages.clone() {
            let (mine, theirs) = (self.initial(file, page), self.initial(with, page));
            self.effect(op, self.slot(file, page), theirs);
            self.effect(op, self.slot(with, page), mine);
        }
    }

    /// ext4_change_inode_journal_flag(), as of 7.2: what is dirty is written, then the page cache is dropped.
    pub(super) fn journal_data(&self, code: &mut Code<'_>, file: usize) {
        let all = self.all(file);
        code.region(Hook::JournalData, &[self.on(file, &all)], |code| {
            self.flush(code, file, &all);
            self.truncate_pages(code, file, &all);
        });
    }
}
