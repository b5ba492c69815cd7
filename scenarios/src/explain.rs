//! A scenario in words, for a reader who has never seen one: what races what, when what is checked, and
//! what proves that the race took place.

use std::fmt::Write;

use crate::{Actor, Content, Holds, Op, Repeat, Role, Scenario};

mod stage;

const WIDTH: usize = 96;
/// A column of the timeline is at most so wide.
const COLUMN: usize = 34;

/// Name, operation and racers in one line, for lists.
pub fn one_line(s: &Scenario) -> String {
    let racing: Vec<String> = s.racers().map(|(_, a)| words(a)).collect();
    format!(
        "{:<48} {:<6} {} × {}",
        s.scenario,
        s.kind(),
        s.operation().word(),
        racing.join(" + ")
    )
}

/// The whole explanation, in plain text.
pub fn explain(s: &Scenario) -> String {
    let mut out = String::new();
    _ = writeln!(out, "{}", s.scenario);
    paragraph(&mut out, "    ", &s.claim);
    paragraph(&mut out, "    ", &format!("From: {}", s.source));
    section(&mut out, "What races what");
    files(&mut out, s);
    actors(&mut out, s);
    if s.is_staged() {
        section(&mut out, "The attempt, step by step");
        stage::steps(&mut out, s);
        section(&mut out, "Meanwhile");
        stage::meanwhile(&mut out, s);
    } else {
        section(&mut out, "One round");
        timeline(&mut out, s);
    }
    section(&mut out, "What is checked, and when");
    checks(&mut out, s);
    if s.is_staged() {
        section(&mut out, "What proves that the operation was met inside");
        stage::proofs(&mut out, s);
    } else {
        section(&mut out, "What proves that the race took place");
        proofs(&mut out, s);
    }
    out
}

fn section(out: &mut String, title: &str) {
    _ = writeln!(out, "\n{title}");
}

/// Writes words wrapped and indented; lines after the first are indented below the text.
fn paragraph(out: &mut String, indent: &str, text: &str) {
    let below = " ".repeat(indent.chars().count());
    let mut line = indent.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            _ = writeln!(out, "{line}");
            line = below.clone();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    _ = writeln!(out, "{line}");
}

fn words(a: &Actor) -> String {
    a.ops.iter().map(Op::word).collect::<Vec<_>>().join(", ")
}

fn files(out: &mut String, s: &Scenario) {
    for (name, file) in s.files.iter() {
        let content = match &file.content {
            Content::Stamped if file.witness => {
                "stamped; a witness, which must come through unharmed".to_owned()
            }
            Content::Stamped => "every block stamped with its place and a generation".to_owned(),
            Content::Empty => "to be written by the reuser".to_owned(),
            Content::Hole => "one hole".to_owned(),
            Content::SameAs(other) => format!("the same bytes as `{other}`"),
            Content::BootOf(other) => {
                format!("what `{other}` trades with the boot loader inode")
            }
        };
        paragraph(
            out,
            "    ",
            &format!("File `{name}`, {}: {content}.", file.size),
        );
    }
    if s.is_staged() {
        return;
    }
    paragraph(
        out,
        "    ",
        &format!(
            "A round races one chunk of `{}`, {}, once. A pass works through the file, a fresh chunk each \
             round; then the files are prepared anew.",
            s.round.on, s.round.chunk
        ),
    );
}

fn actors(out: &mut String, s: &Scenario) {
    let width = s.actors.iter().map(|(n, _)| n.len()).max().unwrap_or(0);
    for (name, a) in s.actors.iter() {
        let part = match a.role {
            Role::Invalidator if s.is_staged() => "the invalidator",
            Role::Invalidator => "the invalidator, once a round",
            Role::Filler => "fills the page cache",
            Role::Dirtier => "changes pages",
            Role::Reuser if s.is_staged() => "takes the freed blocks",
            Role::Reuser => "takes the freed blocks, once after each pass",
            Role::Helper => "sets the scene",
        };
        let mut text = format!(
            "{part}: {}",
            a.ops
                .iter()
                .map(described)
                .collect::<Vec<_>>()
                .join("; then ")
        );
        if let Repeat::While(whom) = &a.repeat {
            text += &format!("; again and again until `{whom}` has returned");
        }
        if a.cold {
            text += "; its pages are absent from the page cache at the gate";
        }
        paragraph(out, &format!("    {name:<width$}  "), &format!("{text}."));
    }
}

/// An operation and its operands in words.
fn described(op: &Op) -> String {
    let on = match op.operands() {
        (Some((file, range)), Some(second)) => {
            format!(" of `{range}` of `{file}` {} `{second}`", op.second_key())
        }
        (Some((file, range)), None) => format!(" of `{range}` of `{file}`"),
        (None, _) => op.file().map_or(String::new(), |f| format!(" of `{f}`")),
    };
    format!("{}{on}", system_call(op))
}

fn system_call(op: &Op) -> &'static str {
    match op {
        Op::PunchHole(_) => "fallocate(PUNCH_HOLE)",
        Op::ZeroRange(_) => "fallocate(ZERO_RANGE)",
        Op::CollapseRange(_) => "fallocate(COLLAPSE_RANGE)",
        Op::InsertRange(_) => "fallocate(INSERT_RANGE)",
        Op::Truncate(_) => "ftruncate(2) to the start",
        Op::Extend(_) => "ftruncate(2) back to the size",
        Op::Read(a) if a.nowait => "preadv2(RWF_NOWAIT)",
        Op::Read(a) if a.direct => "an O_DIRECT read",
        Op::Read(a) if a.readahead => "read(2) with read-ahead",
        Op::Read(_) => "read(2)",
        Op::UringRead(a) if a.nowait => "an io_uring read with RWF_NOWAIT",
        Op::UringRead(_) => "an io_uring read",
        Op::Splice(a) if a.late => "splice(2), drained once the invalidator has returned,",
        Op::Splice(_) => "splice(2)",
        Op::Fault(_) => "loads through its own mapping",
        Op::Fadvise(_) => "posix_fadvise(WILLNEED)",
        Op::Readahead(_) => "readahead(2)",
        Op::Madvise(a) => match a.advice {
            crate::MadviseAdvice::Willneed => "madvise(WILLNEED)",
            crate::MadviseAdvice::PopulateRead => "madvise(POPULATE_READ)",
            crate::MadviseAdvice::Collapse => "madvise(COLLAPSE)",
        },
        Op::Fiemap(_) => "ioctl(FS_IOC_FIEMAP)",
        Op::PrecacheExtents(_) => "ioctl(EXT4_IOC_PRECACHE_EXTENTS)",
        Op::Dedupe(_) => "ioctl(FIDEDUPERANGE)",
        Op::CloneRange(_) => "ioctl(FICLONERANGE)",
        Op::ExchangeRange(_) => "ioctl(XFS_IOC_EXCHANGE_RANGE)",
        Op::SwapBoot(_) => "ioctl(EXT4_IOC_SWAP_BOOT)",
        Op::JournalData(_) => "a toggle of FS_JOURNAL_DATA_FL",
        Op::BlkZeroout(_) => "ioctl(BLKZEROOUT)",
        Op::BlkDiscard(_) => "ioctl(BLKDISCARD)",
        Op::ReadInto(_) => "read(2) into its own mapping",
        Op::Store(_) => "stores through its own mapping",
        Op::Write(a) => match (a.direct, a.fills_up) {
            (false, false) => "pwrite(2)",
            (true, false) => "an O_DIRECT write",
            (false, true) => "pwrite(2) to a full filesystem",
            (true, true) => "an O_DIRECT write to a full filesystem",
        },
        Op::Fsync(_) => "fsync(2)",
        Op::Syncfs(_) => "syncfs(2)",
    }
}

/// Actors as columns, time downward.
fn timeline(out: &mut String, s: &Scenario) {
    let (invalidator, first) = s.invalidator();
    let mut columns = vec![column(invalidator, first)];
    columns.extend(s.racers().map(|(n, a)| column(n, a)));
    let height = columns.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = columns
        .iter()
        .map(|c| c.iter().map(|l| l.chars().count()).max().unwrap_or(0))
        .collect();
    let mut row = |cells: Vec<String>, between: &str| {
        _ = writeln!(out, "    {}", cells.join(between).trim_end());
    };
    for i in 0..height {
        let cells = columns.iter().zip(&widths).map(|(column, width)| {
            let cell = column.get(i).map_or("", String::as_str);
            format!("{cell:<width$}")
        });
        row(cells.collect(), " | ");
        if i == 0 || i == 1 || i + 1 == height {
            row(widths.iter().map(|w| "-".repeat(*w)).collect(), "-+-");
        }
    }
    row(
        vec!["all have returned: the chunk is judged".to_owned()],
        "",
    );
    if let Some((name, a)) = s.actors.iter().find(|(_, a)| a.role == Role::Reuser) {
        row(
            vec![format!(
                "after the last round of the pass: {name} does {}",
                words(a)
            )],
            "",
        );
    }
}

fn column(name: &str, a: &Actor) -> Vec<String> {
    let mut lines = vec![name.to_owned(), "at the gate".to_owned()];
    for op in &a.ops {
        let range = op
            .operands()
            .0
            .map_or(String::new(), |(_, r)| r.text.clone());
        let cell = format!("{} {range}", op.word());
        if cell.chars().count() <= COLUMN {
            lines.push(cell.trim_end().to_owned());
        } else {
            lines.extend([op.word().to_owned(), format!("  {range}")]);
        }
        lines.extend(steps(op).iter().map(|step| format!("  {step}")));
    }
    lines.push(match &a.repeat {
        Repeat::Once => "returns".to_owned(),
        Repeat::While(whom) => format!("again until {whom} returns"),
    });
    lines
}

/// What it does in the kernel, as far as the race is about it.
fn steps(op: &Op) -> &'static [&'static str] {
    match op {
        Op::PunchHole(_) => &["drops the pages", "frees the blocks"],
        Op::ZeroRange(_) => &["drops the pages", "zeroes the blocks"],
        Op::CollapseRange(_) => &["drops the pages", "frees the blocks, moves the rest down"],
        Op::InsertRange(_) => &["drops the pages", "moves the blocks up"],
        Op::Dedupe(_) => &["compares the pages", "shares the blocks"],
        Op::Truncate(_) => &["drops the pages", "frees the blocks"],
        Op::CloneRange(_) => &["drops the pages", "shares the blocks"],
        Op::ExchangeRange(_) | Op::SwapBoot(_) => &["drops the pages", "exchanges the blocks"],
        Op::JournalData(_) => &["flushes", "changes how pages are written"],
        Op::BlkZeroout(_) => &["drops the pages", "zeroes the blocks"],
        Op::BlkDiscard(_) => &["drops the pages", "frees the blocks"],
        Op::ReadInto(_) => &["reads the other file", "faults in the buffer, stores"],
        Op::Read(_)
        | Op::UringRead(_)
        | Op::Splice(_)
        | Op::Fault(_)
        | Op::Fadvise(_)
        | Op::Readahead(_)
        | Op::Madvise(_) => &["finds no page, looks up the block", "brings the page in"],
        Op::Fiemap(_) | Op::PrecacheExtents(_) => &["looks the blocks up"],
        Op::Store(_) => &["makes the page writable", "stores"],
        Op::Write(a) if a.direct => &["drops the pages", "writes the blocks"],
        Op::Write(_) | Op::Extend(_) | Op::Fsync(_) | Op::Syncfs(_) => &[],
    }
}

fn must_hold(s: &Scenario) -> String {
    let what = match s.expect.is {
        Holds::Zeros => "zeros",
        Holds::Shifted => "what stood at the place it now shows",
        Holds::Written => "what was stored or written last",
        Holds::Copied => "what the file holds that it was copied from",
        Holds::Exchanged => "what the other side of the exchange held before",
        Holds::Unchanged => "what it held before",
    };
    format!(
        "`{}` of `{}` holds {what}",
        s.expect.range,
        s.expected_file()
    )
}

fn checks(out: &mut String, s: &Scenario) {
    let ops = || s.racers().flat_map(|(_, a)| &a.ops);
    let seen = if ops().any(Op::observes) {
        "every byte that a racer gets is what was there before the operation or what it makes of it; \
         old bytes are legal only if the call began before the operation returned; another file's or \
         nobody's bytes never are."
    } else {
        "the racers return no bytes; they are judged by what they leave behind."
    };
    paragraph(out, "    in the race      ", seen);
    let mut mappings: Vec<&str> = s
        .racers()
        .filter(|(_, a)| a.ops.iter().any(Op::maps))
        .map(|(n, _)| n)
        .collect();
    mappings.dedup();
    let through = if mappings.is_empty() {
        "through read(2)".to_owned()
    } else {
        format!(
            "through the own mapping of {}, then read(2)",
            mappings.join(" and ")
        )
    };
    let otherwise = match s.expect.is {
        Holds::Written => "`lost`",
        Holds::Zeros | Holds::Shifted | Holds::Copied | Holds::Exchanged | Holds::Unchanged => {
            "`stale`"
        }
    };
    let after = format!(
        "{}, {through}; otherwise {otherwise}, or worse by whose bytes they are.",
        must_hold(s)
    );
    let when = match s.is_staged() {
        true => "    after release    ",
        false => "    after the round  ",
    };
    paragraph(out, when, &after);
    if let Op::Dedupe(a) = s.operation() {
        let text = format!(
            "`{}` of `{}` holds what it held before, and the answer (same, differs) fits the stores; \
             otherwise `lost`, `foreign` or `wrong-result`.",
            a.range, a.into
        );
        paragraph(out, "                     ", &text);
    }
    paragraph(
        out,
        "    evicted          ",
        "the same once the pages are proved to be gone from the page cache (where there is a device \
         below); otherwise `stale-mapping`.",
    );
    let witnesses: Vec<String> = s
        .files
        .iter()
        .filter(|(_, f)| f.witness)
        .map(|(n, _)| format!("`{n}`"))
        .collect();
    let mut remounted = "the same after unmount, fsck and remount; fsck finds no damage".to_owned();
    if !witnesses.is_empty() {
        remounted += &format!("; {} unchanged; otherwise `damaged`", witnesses.join(", "));
    }
    paragraph(out, "    remounted        ", &format!("{remounted}."));
}

fn proofs(out: &mut String, s: &Scenario) {
    let floor = s.evidence.floor();
    let mut lines = vec![format!(
        "at least {} rounds in which each racer's call overlapped the operation;",
        floor.overlapped
    )];
    if s.racers().any(|(_, a)| a.role == Role::Filler) {
        lines.push(format!(
            "at least {} rounds in which each filler really filled: the pages were absent at the gate \
             and it brought them in;",
            floor.filled
        ));
    }
    if floor.reused_blocks > 0 {
        lines.push(format!(
            "at least {} freed blocks proved to be in another file's hands;",
            floor.reused_blocks
        ));
    }
    for (name, share) in s.evidence.outcomes.iter() {
        lines.push(format!(
            "at least {share} % of the overlapped rounds in which {} says `{name}`;",
            s.operation().word()
        ));
    }
    for line in lines {
        paragraph(out, "    ", &line);
    }
    paragraph(
        out,
        "    ",
        "below that, the verdict is `inconclusive`, never `safe`.",
    );
}
