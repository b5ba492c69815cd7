//! Do the ranges fit, and does what is expected follow from what is done?

use std::ops::Range;

use punchbench_results::Floor;

use super::{ASSUMED, Checker, assumed, word_of};
use crate::diagnostics::suggest;
use crate::layout::Site;
use crate::{Effect, Holds, On, Op, Role};

impl Checker<'_> {
    /// The first chunk and the last one raced: with linear ranges, what holds there holds between.
    pub(super) fn ranges(&mut self) {
        let last = self.s.chunks(ASSUMED).saturating_sub(1);
        for site in self.s.sites() {
            let path: Vec<&str> = site
                .path
                .iter()
                .map(String::as_str)
                .chain(["range"])
                .collect();
            let resolved = self
                .s
                .resolve(&site, self.s.first_chunk(ASSUMED), ASSUMED)
                .map(|r| (0, r))
                .and_then(|first| {
                    self.s
                        .resolve(&site, last, ASSUMED)
                        .map_err(|e| format!("{e} (chunk {last})"))?;
                    Ok(first)
                });
            match resolved {
                Err(why) => {
                    let help =
                        assumed("a range must stay inside its file in every chunk but the last");
                    self.at(&path, why, "here", help);
                }
                Ok((_, first)) => self.aligned(&site, &path, &first),
            }
        }
    }

    fn aligned(&mut self, site: &Site<'_>, path: &[&str], range: &Range<u64>) {
        let whole = |at: u64| at.is_multiple_of(ASSUMED.block);
        let odd = !whole(range.start) || !whole(range.end);
        if site.whole_blocks && odd {
            let message = format!(
                "`{}` is not made of whole blocks, which the kernel refuses",
                site.range
            );
            self.at(path, message, "here", assumed("use pages or blocks"));
        }
    }

    pub(super) fn expectation(&mut self) {
        let s = self.s;
        if let Some(file) = &s.expect.file
            && !self.known_file(&["expect", "file"], file)
        {
            return;
        }
        let last = s.chunks(ASSUMED).saturating_sub(1);
        for chunk in [s.first_chunk(ASSUMED), last] {
            match self.holds(chunk) {
                Ok(is) if is == s.expect.is => {}
                Ok(is) => {
                    let message = format!(
                        "`{}` of `{}` is `{}` after the operations, not `{}`",
                        s.expect.range,
                        s.expected_file(),
                        word_of(&is),
                        word_of(&s.expect.is)
                    );
                    return self.at(
                        &["expect", "is"],
                        message,
                        "here",
                        Some(format!("write `is: {}`", word_of(&is))),
                    );
                }
                Err(why) => return self.at(&["expect", "range"], why, "here", None),
            }
        }
    }

    /// What the expected range holds after a round over a chunk, by the operations' effects.
    fn holds(&self, chunk: u64) -> Result<Holds, String> {
        let s = self.s;
        let resolve = |file: &str, range| {
            let site = Site {
                path: Vec::new(),
                file,
                range,
                inside: false,
                whole_blocks: false,
            };
            s.resolve(&site, chunk, ASSUMED)
        };
        let file = s.expected_file();
        let range = resolve(file, &s.expect.range)?;
        let mut holds = Holds::Unchanged;
        let mut cut = false;
        // The invalidator's effect, then what dirtiers make of it.
        let racers = s
            .actors
            .iter()
            .filter(|(_, a)| matches!(a.role, Role::Dirtier));
        let actors = [s.invalidator()].into_iter().chain(racers);
        for op in actors.flat_map(|(_, a)| &a.ops) {
            let (on, is) = match op.effect() {
                Effect::None => continue,
                Effect::Zero(on) => (on, Holds::Zeros),
                Effect::Overwrite(on) => (on, Holds::Written),
                Effect::Collapse(on) => (on, Holds::Shifted),
                Effect::Insert(on) => (on, Holds::Zeros),
                Effect::Truncate(on) => (on, Holds::Zeros),
                Effect::CopyOf { on, .. } => (on, Holds::Copied),
                Effect::Exchange { on, with } if with == file => {
                    (On { file: with, ..on }, Holds::Exchanged)
                }
                Effect::Exchange { on, .. } => (on, Holds::Exchanged),
                Effect::SwapBoot(on) => {
                    if on == file {
                        holds = Holds::Exchanged;
                    }
                    continue;
                }
                Effect::Extend(on) => {
                    cut &= on != file;
                    continue;
                }
            };
            if on.file != file {
                continue;
            }
            let mut by = resolve(on.file, on.range)?;
            if matches!(op.effect(), Effect::Truncate(_)) {
                by.end = u64::MAX;
                cut |= range.end > by.start;
            }
            let moves = matches!(op.effect(), Effect::Collapse(_) | Effect::Insert(_));
            let behind = matches!(op.effect(), Effect::Insert(_)) && range.start >= by.end;
            if behind {
                holds = Holds::Shifted;
            } else if range.end <= by.start || (!moves && range.start >= by.end) {
                // Does not touch it.
            } else if range.start >= by.start
                && (op.word() == "collapse_range" || range.end <= by.end)
            {
                holds = is;
            } else {
                return Err(format!(
                    "`{}` lies partly inside and partly outside what `{}` changes (`{}`)",
                    s.expect.range,
                    op.word(),
                    on.range
                ));
            }
        }
        if cut {
            return Err(format!(
                "`{}` lies beyond the end of the truncated file; an `extend` must follow",
                s.expect.range
            ));
        }
        Ok(holds)
    }

    pub(super) fn evidence(&mut self) {
        let s = self.s;
        let usual = Floor::default();
        for (key, asked, usual) in [
            ("overlapped", s.evidence.overlapped, usual.overlapped),
            ("filled", s.evidence.filled, usual.filled),
        ] {
            if asked.is_some_and(|a| a < usual) {
                let message = format!("`{key}` is below the usual floor of {usual}");
                self.at(
                    &["evidence", key],
                    message,
                    "here",
                    Some("a scenario may only ask for more".to_owned()),
                );
            }
        }
        let reuses = s.actors.iter().any(|(_, a)| a.role == Role::Reuser);
        if s.evidence.reused_blocks.is_some_and(|n| n > 0) && !reuses {
            let message = "no actor is a `reuser`, so no block can be proved reused";
            self.at_key(&["evidence", "reused_blocks"], message, "here", None);
        }
        let fills_up = |op: &Op| matches!(op, Op::Write(a) if a.fills_up);
        let known: &[&str] = match s.operation() {
            Op::Dedupe(_) => &["same", "differs"],
            _ if s.invalidator().1.ops.iter().any(fills_up) => &["whole", "short"],
            _ => &[],
        };
        let mut sum = 0_u64;
        for (name, share) in s.evidence.outcomes.iter() {
            sum += u64::from(*share);
            if !known.contains(&name) {
                let message = format!("`{}` has no outcome `{name}`", s.operation().word());
                self.at_key(
                    &["evidence", "outcomes", name],
                    message,
                    "here",
                    suggest(name, known),
                );
            }
        }
        if sum > 100 {
            self.at_key(
                &["evidence", "outcomes"],
                format!("the shares sum up to {sum} percent"),
                "here",
                None,
            );
        }
    }
}
