//! Does a scenario of the right shape make sense? Each check points at the line it means.

use std::ops::Range;
use std::path::Path;

use crate::diagnostics::{Diagnostic, suggest};
use crate::layout::Site;
use crate::outline::Node;
use crate::{Content, Effect, Geometry, Holds, Op, Repeat, Role, Scenario};
use punchbench_results::Floor;

/// The check has no target yet, so it takes the commonest; messages say so.
const ASSUMED: Geometry = Geometry {
    page: 4096,
    block: 4096,
};
/// More racers than this and none meets the invalidator.
const MOST_RACERS: usize = 6;
/// More operations than this and a round never ends.
const MOST_OPS: usize = 16;
/// The files of a scenario together; the images must fit into memory.
const MOST_BYTES: u64 = 256 << 20;

pub(crate) fn scenario(s: &Scenario, tree: &Node, origin: &str) -> Vec<Diagnostic> {
    let mut c = Checker {
        s,
        tree,
        out: Vec::new(),
    };
    c.name(origin);
    c.sentences();
    c.names();
    c.files();
    c.roles();
    c.operations();
    c.needs();
    // What follows computes with files and ranges, and would only repeat what is wrong already.
    if c.out.is_empty() {
        c.ranges();
    }
    if c.out.is_empty() {
        c.expectation();
        c.evidence();
    }
    c.out
}

/// Lower-case words of letters and digits, joined by `-`.
pub(crate) fn is_kebab(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.split('-').all(|w| {
            !w.is_empty()
                && w.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        })
}

/// The file's name without `.yaml`, if it has that.
pub(crate) fn stem(origin: &str) -> Option<&str> {
    let path = Path::new(origin);
    path.extension().filter(|e| *e == "yaml" || *e == "yml")?;
    path.file_stem()?.to_str()
}

struct Checker<'a> {
    s: &'a Scenario,
    tree: &'a Node,
    out: Vec<Diagnostic>,
}

impl Checker<'_> {
    /// Reports at a value.
    fn at(&mut self, path: &[&str], message: impl Into<String>, label: &str, help: Option<String>) {
        let span = self.tree.value(path).span.clone();
        self.out.push(
            Diagnostic::new(message, Some(span))
                .label(label)
                .maybe_help(help),
        );
    }

    /// Reports at a key.
    fn at_key(
        &mut self,
        path: &[&str],
        message: impl Into<String>,
        label: &str,
        help: Option<String>,
    ) {
        let span = self.tree.key(path);
        self.out.push(
            Diagnostic::new(message, Some(span))
                .label(label)
                .maybe_help(help),
        );
    }

    fn name(&mut self, origin: &str) {
        let name = &self.s.scenario;
        if !is_kebab(name) {
            let help =
                Some("write lower-case words joined by `-`, such as `punch-while-read`".to_owned());
            self.at(
                &["scenario"],
                format!("`{name}` is not a scenario's name"),
                "here",
                help,
            );
        } else if let Some(stem) = stem(origin)
            && stem != name
        {
            let help = Some(format!(
                "name it `{stem}`, or rename the file to `{name}.yaml`"
            ));
            self.at(
                &["scenario"],
                format!("`{name}` is not the name of the file"),
                "here",
                help,
            );
        }
    }

    fn sentences(&mut self) {
        for (key, text) in [("claim", &self.s.claim), ("source", &self.s.source)] {
            if text.trim().is_empty() {
                let help = match key {
                    "claim" => "say in one sentence what holds on a correct kernel",
                    _ => "name the mail, commit or test it comes from",
                };
                self.at(
                    &[key],
                    format!("`{key}` is empty"),
                    "here",
                    Some(help.to_owned()),
                );
            }
        }
    }

    fn names(&mut self) {
        let files = self.s.files.iter().map(|(n, _)| ("files", n));
        let actors = self.s.actors.iter().map(|(n, _)| ("actors", n));
        let bad: Vec<_> = files.chain(actors).filter(|(_, n)| !is_kebab(n)).collect();
        for (group, name) in bad {
            let help = Some("write lower-case words joined by `-`".to_owned());
            self.at_key(
                &[group, name],
                format!("`{name}` is not a name"),
                "here",
                help,
            );
        }
    }

    fn known_file(&mut self, path: &[&str], name: &str) -> bool {
        let known = self.s.files.get(name).is_some();
        if !known {
            let known: Vec<&str> = self.s.files.iter().map(|(n, _)| n).collect();
            let help = suggest(name, &known);
            self.at(path, format!("no file `{name}`"), "not under `files`", help);
        }
        known
    }

    fn files(&mut self) {
        let s = self.s;
        let mut total = 0_u64;
        for (name, file) in s.files.iter() {
            let size = file.size.bytes(ASSUMED);
            total = total.saturating_add(size);
            if size == 0 {
                self.at(
                    &["files", name, "size"],
                    format!("`{name}` has no bytes"),
                    "here",
                    None,
                );
            }
            if let Content::SameAs(other) = &file.content {
                let path = ["files", name, "content", "same_as"];
                if !self.known_file(&path, other) {
                    continue;
                }
                let like = s.files.get(other).expect("known");
                if like.content != Content::Stamped {
                    self.at(
                        &path,
                        format!("`{other}` is not stamped itself"),
                        "here",
                        None,
                    );
                } else if like.size.bytes(ASSUMED) != size {
                    let message = format!("`{name}` and `{other}` differ in size");
                    self.at(&path, message, "here", None);
                }
            }
            if file.witness && file.content != Content::Stamped {
                let message =
                    format!("the witness `{name}` is not stamped, so no change would show");
                self.at_key(&["files", name], message, "here", None);
            }
        }
        if total > MOST_BYTES {
            let message = format!("the files have {total} bytes together, more than {MOST_BYTES}");
            self.at_key(&["files"], message, "here", Some("shrink them".to_owned()));
        }
        self.raced_file();
    }

    fn raced_file(&mut self) {
        let s = self.s;
        let on = s.round.on.as_str();
        if !self.known_file(&["round", "on"], on) {
            return;
        }
        let file = s.files.get(on).expect("known");
        if file.witness || file.content == Content::Empty {
            let what = if file.witness { "a witness" } else { "empty" };
            self.at(
                &["round", "on"],
                format!("`{on}` is {what} and cannot be raced"),
                "here",
                None,
            );
        }
        let (size, chunk) = (file.size.bytes(ASSUMED), s.round.chunk.bytes(ASSUMED));
        if chunk == 0 || chunk > size || size % chunk != 0 {
            let message = format!("chunks of {chunk} bytes do not divide `{on}`, which has {size}");
            let help = assumed("choose a chunk that divides the file's size");
            self.at(&["round", "chunk"], message, "here", help);
        }
    }

    fn roles(&mut self) {
        let s = self.s;
        let of = |role| {
            s.actors
                .iter()
                .filter(move |(_, a)| a.role == role)
                .map(|(n, _)| n)
        };
        let invalidators: Vec<&str> = of(Role::Invalidator).collect();
        match invalidators[..] {
            [] => self.at_key(
                &["actors"],
                "no invalidator",
                "none of these has `role: invalidator`",
                Some(
                    "give the actor whose operation removes, moves or shares blocks that role"
                        .to_owned(),
                ),
            ),
            [_] => {}
            [first, second, ..] => {
                let path = ["actors", second, "role"];
                self.at(
                    &path,
                    format!("a second invalidator; `{first}` is one already"),
                    "here",
                    None,
                );
            }
        }
        let racers: Vec<&str> = s.racers().map(|(n, _)| n).collect();
        if racers.is_empty() {
            let help = Some("add a `filler` or a `dirtier`".to_owned());
            self.at_key(&["actors"], "nobody races the invalidator", "here", help);
        }
        if let Some(seventh) = racers.get(MOST_RACERS) {
            let message = format!("more than {MOST_RACERS} actors race the invalidator");
            self.at_key(&["actors", seventh], message, "one too many", None);
        }
        if let Some(second) = of(Role::Reuser).nth(1) {
            self.at_key(&["actors", second], "a second reuser", "here", None);
        }
        for (name, actor) in s.actors.iter() {
            let path = ["actors", name, "repeat"];
            match &actor.repeat {
                Repeat::Once => {}
                Repeat::While(whom) => {
                    if !matches!(actor.role, Role::Filler | Role::Dirtier) {
                        let message = format!("`{name}` runs once and cannot repeat");
                        self.at(&path, message, "here", Some("remove it".to_owned()));
                    } else if let [only] = invalidators[..]
                        && whom != only
                    {
                        let help = Some(format!("write `while {only}`"));
                        self.at(
                            &path,
                            format!("`{whom}` is not the invalidator"),
                            "here",
                            help,
                        );
                    }
                }
            }
        }
    }

    fn operations(&mut self) {
        let s = self.s;
        for (name, actor) in s.actors.iter() {
            if actor.ops.is_empty() || actor.ops.len() > MOST_OPS {
                let message = format!(
                    "`{name}` has {} operations; 1 to {MOST_OPS} are possible",
                    actor.ops.len()
                );
                self.at_key(&["actors", name, "do"], message, "here", None);
            }
            for (i, op) in actor.ops.iter().enumerate() {
                let index = i.to_string();
                let path = ["actors", name, "do", &index, op.word()];
                self.fits_role(&path, actor.role, op);
                let (first, second) = op.operands();
                if let Some((file, _)) = first {
                    let path = [&path[..], &["file"]].concat();
                    if self.known_file(&path, file)
                        && s.files.get(file).is_some_and(|f| f.witness)
                        && (op.effect() != Effect::None || op.invalidates())
                    {
                        self.at(
                            &path,
                            format!("`{file}` is a witness and must stay unharmed"),
                            "here",
                            None,
                        );
                    }
                }
                if let Some(into) = second {
                    let path = [&path[..], &["into"]].concat();
                    let file = first.map_or("", |(f, _)| f);
                    if into == file {
                        self.at(
                            &path,
                            format!("`{into}` is both source and destination"),
                            "here",
                            None,
                        );
                    } else if self.known_file(&path, into) {
                        self.same_extent(&path, file, into);
                    }
                }
                if let Op::Read(a) = op
                    && a.nowait
                    && a.direct
                {
                    self.at_key(
                        &[&path[..], &["direct"]].concat(),
                        "a read is `nowait` or `direct`, not both",
                        "here",
                        None,
                    );
                }
            }
            let idle = match actor.role {
                Role::Invalidator => !actor.ops.iter().any(Op::invalidates),
                Role::Filler => !actor.ops.iter().any(Op::fills),
                Role::Dirtier | Role::Reuser => !actor
                    .ops
                    .iter()
                    .any(|op| matches!(op.effect(), Effect::Overwrite(_))),
            };
            if idle && !actor.ops.is_empty() {
                let (role, lacks) = match actor.role {
                    Role::Invalidator => ("an invalidator", "that removes, moves or shares blocks"),
                    Role::Filler => ("a filler", "that can instantiate pages"),
                    Role::Dirtier => ("a dirtier", "that stores or writes"),
                    Role::Reuser => ("a reuser", "that writes"),
                };
                let message = format!("`{name}` is {role} without an operation {lacks}");
                self.at_key(&["actors", name, "do"], message, "here", None);
            }
        }
    }

    fn same_extent(&mut self, path: &[&str], file: &str, into: &str) {
        let size = |name| self.s.files.get(name).map(|f| f.size.bytes(ASSUMED));
        if size(file).is_some() && size(file) != size(into) {
            self.at(
                path,
                format!("`{file}` and `{into}` differ in size"),
                "here",
                None,
            );
        }
        if self.s.files.get(into).is_some_and(|f| f.witness) {
            self.at(
                path,
                format!("`{into}` is a witness and must stay unharmed"),
                "here",
                None,
            );
        }
    }

    fn fits_role(&mut self, path: &[&str], role: Role, op: &Op) {
        let overwrites = matches!(op.effect(), Effect::Overwrite(_));
        let help = match role {
            Role::Filler if overwrites => "a filler leaves the content alone; make it a `dirtier`",
            Role::Filler | Role::Dirtier | Role::Reuser if op.invalidates() => {
                "only the invalidator removes, moves or shares blocks"
            }
            _ => return,
        };
        let message = format!("`{}` does not fit the actor's role", op.word());
        self.at_key(path, message, "here", Some(help.to_owned()));
    }

    fn needs(&mut self) {
        let s = self.s;
        for (i, need) in s.needs.iter().enumerate() {
            if s.needs[..i].contains(need) {
                let word = capability_word(need);
                let path = ["needs", &i.to_string()];
                self.at(
                    &path,
                    format!("`{word}` is given twice"),
                    "again here",
                    None,
                );
            }
        }
        let mut missing = Vec::new();
        for (name, actor) in s.actors.iter() {
            for (i, op) in actor.ops.iter().enumerate() {
                if let Some(needed) = op.capability()
                    && !s.needs.contains(&needed)
                    && !missing.contains(&needed)
                {
                    missing.push(needed);
                    let word = capability_word(&needed);
                    let index = i.to_string();
                    let path = ["actors", name, "do", &index, op.word()];
                    let mut all: Vec<_> = s.needs.iter().map(capability_word).collect();
                    all.push(word.clone());
                    let help = Some(format!("write `needs: [{}]`", all.join(", ")));
                    self.at_key(
                        &path,
                        format!("`needs` does not list `{word}`"),
                        "needed here",
                        help,
                    );
                }
            }
        }
    }

    /// The first chunk and the last one raced: with linear ranges, what holds there holds between.
    fn ranges(&mut self) {
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
                .resolve(&site, 0, ASSUMED)
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
        let whole_blocks = site.inside || site.path.last().is_some_and(|op| op == "dedupe");
        let odd = range.start % ASSUMED.block != 0 || range.end % ASSUMED.block != 0;
        if whole_blocks && odd {
            let message = format!(
                "`{}` is not made of whole blocks, which the kernel refuses",
                site.range
            );
            self.at(path, message, "here", assumed("use pages or blocks"));
        }
    }

    fn expectation(&mut self) {
        let s = self.s;
        if let Some(file) = &s.expect.file
            && !self.known_file(&["expect", "file"], file)
        {
            return;
        }
        let last = s.chunks(ASSUMED).saturating_sub(1);
        for chunk in [0, last] {
            match self.holds(chunk) {
                Ok(is) if is == s.expect.is => {}
                Ok(is) => {
                    let message = format!(
                        "`{}` of `{}` is `{}` after the operations, not `{}`",
                        s.expect.range,
                        s.expected_file(),
                        holds_word(is),
                        holds_word(s.expect.is)
                    );
                    return self.at(
                        &["expect", "is"],
                        message,
                        "here",
                        Some(format!("write `is: {}`", holds_word(is))),
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
            };
            s.resolve(&site, chunk, ASSUMED)
        };
        let file = s.expected_file();
        let range = resolve(file, &s.expect.range)?;
        let mut holds = Holds::Unchanged;
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
            };
            if on.file != file {
                continue;
            }
            let by = resolve(&on.file, &on.range)?;
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
        Ok(holds)
    }

    fn evidence(&mut self) {
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
        let known: &[&str] = match s.operation() {
            Op::Dedupe(_) => &["same", "differs"],
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

fn assumed(help: &str) -> Option<String> {
    Some(format!(
        "{help} (checked with pages and blocks of {} bytes)",
        ASSUMED.page
    ))
}

/// The word that serde knows it by.
fn word_of(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}

fn capability_word(c: &crate::Capability) -> String {
    word_of(c)
}

fn holds_word(h: Holds) -> String {
    word_of(&h)
}
