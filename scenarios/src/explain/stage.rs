//! A staged scenario in words: its steps, what everybody does meanwhile, and what that proves.

use std::fmt::Write;

use super::{described, paragraph};
use crate::{Actor, Does, During, Held, Kernels, OnRange, Op, Scenario, Step};

/// The steps, numbered, in the order in which they are taken.
pub(super) fn steps(out: &mut String, s: &Scenario) {
    if let Some(only) = &s.only {
        let globs = only.drivers.iter().chain(&only.targets).map(String::as_str);
        let (but, these): (Vec<&str>, Vec<&str>) = globs.partition(|g| g.starts_with('!'));
        let mut text = if but.is_empty() { "Only" } else { "Not" }.to_owned();
        if !only.drivers.is_empty() || !only.targets.is_empty() {
            let names: Vec<&str> = but.iter().map(|g| &g[1..]).chain(these).collect();
            _ = write!(text, " on {}", names.join(" and "));
        }
        bounds(&mut text, only.kernels);
        paragraph(out, "    ", &format!("{text}: {}", only.why));
    }
    for (i, step) in s.stage.iter().enumerate() {
        paragraph(
            out,
            &format!("    {:>2}. ", i + 1),
            &format!("{}.", words(s, step)),
        );
    }
    let end = s.stage.len() + 1;
    paragraph(
        out,
        &format!("    {end:>2}. "),
        "All have returned: everything is judged.",
    );
}

fn words(s: &Scenario, step: &Step) -> String {
    let range = |on: &OnRange| format!("`{}` of `{}`", on.range, on.file);
    match step {
        Step::Warm(on) => format!("{} is read into the page cache", range(on)),
        Step::Cool(on) => format!("{} is evicted, and proved to be", range(on)),
        Step::CoolMetadata(_) => {
            "what of the filesystem's metadata is not in use is evicted".to_owned()
        }
        Step::Remount(_) => "the filesystem is mounted anew, and knows nothing".to_owned(),
        Step::Hold(args) => {
            let what = match &args.what {
                Held::ReadsOf(on) => format!("reads of the blocks of {}", range(on)),
                Held::WritesOf(on) => format!("writes to the blocks of {}", range(on)),
                Held::MetadataOf(on) => {
                    format!("reads of the metadata that says where {} lies", range(on))
                }
                Held::ReadsExcept(on) => {
                    format!("all reads but those of the data of `{}`", on.file)
                }
                Held::IoOf(of) => format!("all I/O of {}", of.actor),
                Held::Journal(_) => "writes to the journal".to_owned(),
                Held::Checkpoint(_) => "writes to the checkpoint area".to_owned(),
            };
            format!("from here on, {what} are held (`{}`)", args.name)
        }
        Step::Start(args) => {
            let each = args.actors.iter().filter_map(|name| {
                let ops = s.actors.get(name).map(|a: &Actor| {
                    let ops: Vec<String> = a.ops.iter().map(described).collect();
                    ops.join("; then ")
                })?;
                Some(format!("{name} starts: {ops}"))
            });
            each.collect::<Vec<_>>().join("; ")
        }
        Step::Parked(args) if args.within.is_empty() => {
            format!("{} is seen asleep in the kernel", args.actor)
        }
        Step::Parked(args) => format!(
            "{} is seen asleep in the kernel, within {}",
            args.actor,
            args.within.join(" or ")
        ),
        Step::Gone(on) => format!(
            "the pages of {} are seen to be gone: it is past its invalidation",
            range(on)
        ),
        Step::Observe(args) => format!(
            "{}: each has returned, or is seen in the same place twice, 100 ms apart",
            args.actors.join(", ")
        ),
        Step::Release(args) => format!(
            "`{}` is let go, and whoever was blocked is seen to be so still",
            args.hold
        ),
        Step::Returned(args) => format!("{} has returned", args.actor),
        Step::Reuse(_) => "the reuser takes the blocks that are free".to_owned(),
    }
}

/// What is expected of everybody while the operation is parked.
pub(super) fn meanwhile(out: &mut String, s: &Scenario) {
    if s.expect.during.is_empty() {
        paragraph(
            out,
            "    ",
            "Nothing is expected of anybody; what each does is told.",
        );
    }
    for rule in &s.expect.during {
        paragraph(out, "    ", &expected(rule));
    }
}

fn expected(rule: &During) -> String {
    let does = match rule.does {
        Does::Blocked => "must be blocked by a lock until the release",
        Does::Waits => "must wait, for a lock or for anything else, until the release",
        Does::Done => "must return before the release",
        Does::Again => "must return with EAGAIN before the release",
        Does::Any => "may be blocked or return",
    };
    let mut text = format!("{} {does}", rule.actors.join(", "));
    if !rule.drivers.is_empty() {
        _ = write!(text, ", on {}", rule.drivers.join(" and "));
    }
    bounds(&mut text, rule.kernels);
    text + "."
}

fn bounds(text: &mut String, kernels: Kernels) {
    if let Some(from) = kernels.from {
        _ = write!(text, ", from Linux {from} on");
    }
    if let Some(before) = kernels.before {
        _ = write!(text, ", before Linux {before}");
    }
}

/// What one attempt needs to decide anything.
pub(super) fn proofs(out: &mut String, s: &Scenario) {
    let gone = s.stage.iter().any(|step| matches!(step, Step::Gone(_)));
    let mut lines = vec!["the operation was seen parked;".to_owned()];
    if gone {
        lines.push("the pages named above were gone while it was;".to_owned());
    }
    lines.push(
        "each actor that must be blocked was seen asleep in the function that takes the lock, in two \
         samples at least 100 ms apart and still at the release. One that returned with data that may \
         not stay makes the trial `stale`; one that returned with legal data proves nothing;"
            .to_owned(),
    );
    if s.racers().any(|(_, a)| a.ops.iter().any(Op::may_not_wait)) {
        lines.push("a read that may not wait and was seen blocked makes it `blocked`;".to_owned());
    }
    for line in lines {
        paragraph(out, "    ", &line);
    }
    let end = "without all that, the verdict is `inconclusive`, never `safe`.";
    paragraph(out, "    ", end);
}
