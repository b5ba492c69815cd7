//! Who takes part, in which role, with which operations.

use super::{ASSUMED, Checker, word_of};
use crate::{Effect, Op, Repeat, Role};

/// More racers than this and none meets the invalidator.
const MOST_RACERS: usize = 6;
/// More operations than this and a round never ends.
const MOST_OPS: usize = 16;

/// Whether it clones: a dirtier may, against the invalidator's clone the other way round.
fn clones(op: &Op) -> bool {
    matches!(op, Op::CloneRange(_))
}

impl Checker<'_> {
    pub(super) fn roles(&mut self) {
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

    pub(super) fn operations(&mut self) {
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
                if let Some(file) = op.file() {
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
                if let Some(second) = second {
                    let path = [&path[..], &[op.second_key()]].concat();
                    let file = first.map_or("", |(f, _)| f);
                    if second == file {
                        self.at(
                            &path,
                            format!("`{second}` is both source and destination"),
                            "here",
                            None,
                        );
                    } else if self.known_file(&path, second) {
                        self.same_extent(&path, op, file, second);
                    }
                }
                if let Op::Read(a) = op {
                    let flags = [
                        ("nowait", a.nowait),
                        ("direct", a.direct),
                        ("readahead", a.readahead),
                    ];
                    let mut set = flags.iter().filter(|(_, set)| *set).map(|(key, _)| *key);
                    if let (Some(first), Some(second)) = (set.next(), set.next()) {
                        self.at_key(
                            &[&path[..], &[second]].concat(),
                            format!("a read is `{first}` or `{second}`, not both"),
                            "here",
                            None,
                        );
                    }
                }
            }
            let idle = match actor.role {
                Role::Invalidator => !actor.ops.iter().any(Op::invalidates),
                Role::Filler => !actor.ops.iter().any(Op::fills),
                Role::Dirtier => !actor.ops.iter().any(|op| op.dirties() || clones(op)),
                Role::Reuser => !actor.ops.iter().any(Op::dirties),
                Role::Helper => false,
            };
            if idle && !actor.ops.is_empty() {
                let (role, lacks) = match actor.role {
                    Role::Invalidator => ("an invalidator", "that removes, moves or shares blocks"),
                    Role::Filler => ("a filler", "that can instantiate pages"),
                    Role::Dirtier => ("a dirtier", "that stores or writes"),
                    Role::Reuser => ("a reuser", "that writes"),
                    Role::Helper => ("a helper", ""),
                };
                let message = format!("`{name}` is {role} without an operation {lacks}");
                self.at_key(&["actors", name, "do"], message, "here", None);
            }
        }
    }

    fn same_extent(&mut self, path: &[&str], op: &Op, file: &str, second: &str) {
        let size = |name| self.s.files.get(name).map(|f| f.size.bytes(ASSUMED));
        if size(file).is_some() && size(file) != size(second) {
            self.at(
                path,
                format!("`{file}` and `{second}` differ in size"),
                "here",
                None,
            );
        }
        let witness = self.s.files.get(second).is_some_and(|f| f.witness);
        if op.changes_second() && witness {
            self.at(
                path,
                format!("`{second}` is a witness and must stay unharmed"),
                "here",
                None,
            );
        }
    }

    fn fits_role(&mut self, path: &[&str], role: Role, op: &Op) {
        let help = match role {
            Role::Helper => return,
            Role::Filler if op.dirties() => {
                "a filler leaves the content alone; make it a `dirtier`"
            }
            // A dedupe's compare fills, too.
            Role::Filler if op.fills() => return,
            Role::Dirtier | Role::Reuser if op.dirties() => return,
            Role::Dirtier if clones(op) => return,
            Role::Filler | Role::Dirtier | Role::Reuser
                if op.invalidates() || op.effect() != Effect::None =>
            {
                "only the invalidator removes, moves or shares blocks"
            }
            Role::Invalidator | Role::Filler | Role::Dirtier | Role::Reuser => return,
        };
        let message = format!("`{}` does not fit the actor's role", op.word());
        self.at_key(path, message, "here", Some(help.to_owned()));
    }

    pub(super) fn needs(&mut self) {
        let s = self.s;
        for (i, need) in s.needs.iter().enumerate() {
            if s.needs[..i].contains(need) {
                let word = word_of(need);
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
                    let word = word_of(&needed);
                    let index = i.to_string();
                    let path = ["actors", name, "do", &index, op.word()];
                    let mut all: Vec<_> = s.needs.iter().map(word_of).collect();
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
}
