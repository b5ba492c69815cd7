//! Do the steps of a staged scenario fit together: everybody started once, everything held let go again,
//! nobody awaited who was not started?

use super::Checker;
use crate::diagnostics::suggest;
use crate::outline::Kind;
use crate::{Held, HoldArgs, Repeat, Role, Round, Step};

/// More steps than this are no attempt of a second.
const MOST_STEPS: usize = 40;

impl Checker<'_> {
    /// Whether it is a stress scenario or a staged one, and only one of them.
    pub(super) fn kind(&mut self) {
        let has = |key: &str| match &self.tree.kind {
            Kind::Map(entries) => entries.iter().any(|(k, _, _)| k == key),
            Kind::Scalar(_) | Kind::List(_) => false,
        };
        let help = |text: &str| Some(text.to_owned());
        match (has("round"), self.s.is_staged()) {
            (true, true) => self.at_key(
                &["round"],
                "both `round` and `stage`",
                "here",
                help("a stress scenario has a `round`, a staged one has the steps of its `stage`"),
            ),
            (false, false) if has("stage") => {
                self.at_key(&["stage"], "a stage without a step", "here", None);
            }
            (false, false) => self.at(
                &[],
                "missing key `round`",
                "here",
                help(
                    "say what one round is; or under `stage` what is held, and who is started when",
                ),
            ),
            (true, false) | (false, true) => {}
        }
        if !self.s.is_staged() {
            self.nothing_staged();
        }
    }

    /// What makes no sense without steps.
    fn nothing_staged(&mut self) {
        if self.s.only.is_some() {
            let message = "`only` is about a staged scenario, and this has no `stage`";
            self.at_key(
                &["only"],
                message,
                "here",
                Some("name what it needs under `needs`".to_owned()),
            );
        }
        if !self.s.expect.during.is_empty() {
            let message = "`during` is about a staged scenario, and this has no `stage`";
            self.at_key(&["expect", "during"], message, "here", None);
        }
        for (name, actor) in self.s.actors.iter() {
            if actor.role == Role::Helper {
                let message =
                    "a helper sets the scene of a staged scenario, and this has no `stage`";
                self.at(&["actors", name, "role"], message, "here", None);
            }
        }
    }

    /// The steps, one after the other.
    pub(super) fn steps(&mut self) {
        let s = self.s;
        if !s.is_staged() || s.round == Round::default() {
            return;
        }
        if s.stage.len() > MOST_STEPS {
            let message = format!("more than {MOST_STEPS} steps");
            self.at_key(&["stage"], message, "here", None);
        }
        let (mut started, mut held): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
        for (i, step) in s.stage.iter().enumerate() {
            let index = i.to_string();
            let path = ["stage", &index, step.word()];
            let below = |keys: &[&'static str]| [&path[..], keys].concat();
            match step {
                Step::Warm(on) | Step::Cool(on) | Step::Gone(on) => {
                    self.known_file(&below(&["file"]), &on.file);
                }
                Step::CoolMetadata(_) => {}
                Step::Remount(_) if i == 0 => {}
                Step::Remount(_) => {
                    let message = "a remount is the first step, before anybody has opened a file";
                    self.at_key(&path, message, "here", None);
                }
                Step::Hold(HoldArgs { name, what }) => {
                    if held.contains(&name.as_str()) {
                        let message = format!("`{name}` is held already");
                        self.at(&below(&["name"]), message, "here", None);
                    }
                    held.push(name);
                    if !started.is_empty() && step.on_range().is_some() {
                        let message = format!("`{name}` is held after somebody was started");
                        let why =
                            "hold it before: to find a file's blocks takes a lock of the file";
                        self.at_key(&path, message, "here", Some(why.to_owned()));
                    }
                    match what {
                        Held::ReadsOf(on) => {
                            self.known_file(&below(&["what", "reads_of", "file"]), &on.file);
                        }
                        Held::WritesOf(on) => {
                            self.known_file(&below(&["what", "writes_of", "file"]), &on.file);
                        }
                        Held::MetadataOf(on) => {
                            self.known_file(&below(&["what", "metadata_of", "file"]), &on.file);
                        }
                        Held::ReadsExcept(on) => {
                            self.known_file(&below(&["what", "reads_except", "file"]), &on.file);
                        }
                        Held::IoOf(of) => {
                            self.known_actor(&below(&["what", "io_of", "actor"]), &of.actor);
                        }
                        Held::Journal(_) | Held::Checkpoint(_) => {}
                    }
                }
                Step::Start(args) => {
                    for (n, actor) in args.actors.iter().enumerate() {
                        let n = n.to_string();
                        let path = [&below(&["actors"])[..], &[&n]].concat();
                        if self.known_actor(&path, actor) {
                            if started.contains(&actor.as_str()) {
                                let message = format!("`{actor}` is started already");
                                self.at(&path, message, "here", None);
                            }
                            started.push(actor);
                        }
                    }
                }
                Step::Observe(args) => {
                    for (n, actor) in args.actors.iter().enumerate() {
                        let n = n.to_string();
                        let path = [&below(&["actors"])[..], &[&n]].concat();
                        self.started(&path, &started, actor);
                    }
                }
                Step::Parked(args) => self.started(&below(&["actor"]), &started, &args.actor),
                Step::Returned(args) => self.started(&below(&["actor"]), &started, &args.actor),
                Step::Release(args) => {
                    let was = held.len();
                    held.retain(|name| *name != args.hold);
                    if held.len() == was {
                        let message = format!("`{}` is not held", args.hold);
                        let help = suggest(&args.hold, &held);
                        self.at(&below(&["hold"]), message, "here", help);
                    }
                }
                Step::Reuse(_) => {
                    if !s.actors.iter().any(|(_, a)| a.role == Role::Reuser) {
                        let message = "no actor is a `reuser`";
                        self.at_key(&path, message, "nobody to reuse anything", None);
                    }
                }
            }
        }
        for name in held {
            let help = Some(format!("add `- release: {{hold: {name}}}`"));
            self.at_key(
                &["stage"],
                format!("`{name}` is never released"),
                "here",
                help,
            );
        }
        self.takers(&started);
        self.rules();
    }

    fn known_actor(&mut self, path: &[&str], name: &str) -> bool {
        let actor = self.s.actors.get(name);
        let known = actor.is_some_and(|a| a.role != Role::Reuser);
        if !known {
            let all = self.s.actors.iter();
            let known: Vec<&str> = all
                .filter(|(_, a)| a.role != Role::Reuser)
                .map(|(n, _)| n)
                .collect();
            let help = suggest(name, &known);
            let message = format!("no actor `{name}` that can be started");
            self.at(path, message, "not under `actors`", help);
        }
        known
    }

    fn started(&mut self, path: &[&str], started: &[&str], name: &str) {
        if self.known_actor(path, name) && !started.contains(&name) {
            let message = format!("`{name}` has not been started");
            self.at(path, message, "here", Some("start it before".to_owned()));
        }
    }

    /// Everybody takes part, once.
    fn takers(&mut self, started: &[&str]) {
        let s = self.s;
        for (name, actor) in s.actors.iter() {
            if actor.role != Role::Reuser && !started.contains(&name) {
                let help = Some(format!("add `- start: {{actors: [{name}]}}`"));
                let message = format!("`{name}` is never started");
                self.at_key(&["actors", name], message, "here", help);
            }
            if actor.repeat != Repeat::Once {
                let message = format!("`{name}` runs once, when a step starts it");
                let path = ["actors", name, "repeat"];
                self.at(&path, message, "here", Some("remove it".to_owned()));
            }
        }
        if s.evidence.overlapped.is_some() || s.evidence.filled.is_some() {
            let message = "a staged scenario has no rounds to count";
            let help =
                Some("what proves it is who was seen blocked: `expect: {during: …}`".to_owned());
            self.at_key(&["evidence"], message, "here", help);
        }
    }

    /// What is expected of actors meanwhile.
    fn rules(&mut self) {
        for (i, rule) in self.s.expect.during.iter().enumerate() {
            for (n, actor) in rule.actors.iter().enumerate() {
                let (i, n) = (i.to_string(), n.to_string());
                self.known_actor(&["expect", "during", &i, "actors", &n], actor);
            }
        }
    }
}
