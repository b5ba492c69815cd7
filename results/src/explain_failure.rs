//! The text printed for a trial that did not end well, for somebody who never saw punchbench:
//! what is claimed, how to see it again, which bytes were wrong, and why they could not be right.

use crate::rate::Rate;
use crate::table::Mark;
use crate::text::{clean, count, push_wrapped};
use crate::{Answer, Confirmation, Expectation, Phase, Record, Verdict, Via, Violation, Where};

/// Columns of text.
const WIDTH: usize = 100;

/// Violations told in full; the record has the others.
const TOLD_MAX: usize = 3;

/// Lines of kernel log repeated; the record has the others.
const LOG_LINES_MAX: usize = 40;

/// Bytes on a line of hex.
const HEX_BYTES: usize = 16;

const STAMPS: &str = "Every block of every file is filled with a stamp that names the file, its generation (which \
    write put it there), the block's offset in the file and the run. A wrong byte therefore says whose data it is: \
    an older generation of the same place is data that the operation should have removed; another file's stamp is \
    data that this file must never show; the background is what lay on the device before mkfs.";

/// Explains `record`, whatever its verdict; ends with a newline.
pub fn explain_failure(record: &Record) -> String {
    let mut out = String::new();
    heading(&mut out, record);
    section(&mut out, "Run exactly this trial again");
    line(&mut out, &clean(&record.replay));
    wrapped(
        &mut out,
        &format!(
            "Seed {}: the same seed gives the same plan and the same data.",
            record.seed
        ),
    );
    if !record.violations.is_empty() {
        violations(&mut out, record);
    }
    evidence(&mut out, record);
    log(&mut out, record);
    if !record.setup.is_empty() {
        section(&mut out, "How it was set up");
        record.setup.iter().for_each(|fact| bullet(&mut out, fact));
    }
    section(&mut out, "Files kept for a closer look");
    if record.artefacts.is_empty() {
        line(&mut out, "none");
    }
    for file in &record.artefacts {
        line(&mut out, &clean(file));
    }
    out
}

fn heading(out: &mut String, record: &Record) {
    let expectation = match (record.expectation, record.verdict.is_violation()) {
        (Expectation::Unexpected, _) => "UNEXPECTED",
        (Expectation::Fixed, _) => "FIXED",
        (Expectation::Expected, true) => "KNOWN",
        (Expectation::Expected, false) => "EXPECTED",
    };
    let place = match record.at {
        Some(Where::Memory) => " (in memory: gone after a remount)",
        Some(Where::Disk) => " (on disk: still there after a remount)",
        Some(Where::Unknown) => " (in memory or on disk: the trial could not remount to tell)",
        None => "",
    };
    let title = format!(
        "{expectation} {}{place}: {} on {}",
        record.verdict, record.scenario, record.target
    );
    push_wrapped(out, "", &title, WIDTH);
    let driver = if record.driver.is_empty() {
        "none"
    } else {
        &record.driver
    };
    let setting = format!(
        "kernel {}, driver {driver}, punchbench {}",
        record.kernel, record.version
    );
    wrapped(out, &setting);
    out.push('\n');
    wrapped(
        out,
        &format!("{} means: {}.", record.verdict, record.verdict.meaning()),
    );
    wrapped(out, &format!("Here: {}", record.reason));
    match (&record.known_issue, record.expectation) {
        (Some(issue), Expectation::Fixed) => {
            wrapped(
                out,
                &format!(
                    "Known issue {issue} said that it would fail: {}.",
                    Mark::Fixed.meaning()
                ),
            );
        }
        (Some(issue), _) => wrapped(out, &format!("Known issue: {issue}.")),
        (None, _) => {}
    }
    if let Some(hint) = &record.hint {
        wrapped(out, &format!("What helps: {hint}"));
    }
}

fn violations(out: &mut String, record: &Record) {
    let all = record.violations.len();
    let told = all.min(TOLD_MAX);
    let title = if told < all {
        format!(
            "What was seen (first {told} of {} in the record)",
            count(all, "observation")
        )
    } else {
        format!("What was seen ({})", count(all, "observation"))
    };
    section(out, &title);
    let further = record.evidence.further_violations;
    if further > 0 {
        wrapped(
            out,
            &format!("{further} more violated rounds were counted, not looked at one by one."),
        );
    }
    if record
        .violations
        .iter()
        .take(TOLD_MAX)
        .any(|v| !v.bytes.is_empty())
    {
        wrapped(out, STAMPS);
    }
    for (i, violation) in record.violations.iter().take(TOLD_MAX).enumerate() {
        out.push('\n');
        tell(out, i + 1, violation);
    }
}

fn tell(out: &mut String, number: usize, v: &Violation) {
    let title = format!(
        "#{number} {}: file {}, offset {:#x} ({}), {} wrong bytes; pass {} round {}, at {:.3} s",
        v.verdict, v.file, v.offset, v.offset, v.wrong_bytes, v.pass, v.round, v.at_s
    );
    push_wrapped(out, "  ", &title, WIDTH);
    field(out, "expected", &v.expected);
    field(out, "got", &v.got);
    hex(out, v);
    field(
        out,
        "seen by",
        &format!("{}, {}, {}", v.actor, via(v.via), phase(v.phase)),
    );
    field(out, "order", &order(v.clock));
    match &v.confirmation {
        Some(confirmation) => confirm(out, confirmation),
        None => field(
            out,
            "checked",
            "not confirmed on the spot: take it as a hint only",
        ),
    }
}

/// Sixteen bytes a line, with their offsets in the file.
fn hex(out: &mut String, v: &Violation) {
    let digits: Vec<char> = clean(&v.bytes).chars().collect();
    for (i, chunk) in digits.chunks(2 * HEX_BYTES).enumerate() {
        let bytes: Vec<String> = chunk.chunks(2).map(|pair| pair.iter().collect()).collect();
        let offset = v.offset.saturating_add((i * HEX_BYTES) as u64);
        let head = if i == 0 { "bytes" } else { "" };
        field(out, head, &format!("{offset:#010x}: {}", bytes.join(" ")));
    }
}

fn confirm(out: &mut String, c: &Confirmation) {
    field(
        out,
        "asked again",
        &format!("after a pause: {}", answer(&c.again)),
    );
    for (actor, told) in &c.mappings {
        field(
            out,
            "",
            &format!("through the mapping of {actor}: {}", answer(told)),
        );
    }
    field(
        out,
        "",
        &format!(
            "by a direct read, past the page cache: {}",
            answer(&c.direct)
        ),
    );
    let proof = if c.eviction_proved {
        "proved"
    } else {
        "not proved"
    };
    let evicted = format!(
        "after eviction from the page cache ({proof}): {}",
        answer(&c.evicted)
    );
    field(out, "", &evicted);
    let conclusion = if c.borne_out {
        "these answers bear the violation out"
    } else {
        "these answers do NOT bear the violation out: suspect the bench"
    };
    field(out, "", conclusion);
}

fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Legal => "right".into(),
        Answer::Wrong(whose) => format!("still wrong, {whose}"),
        Answer::NotAsked(why) => format!("not asked, {why}"),
    }
}

fn via(via: Via) -> &'static str {
    match via {
        Via::Read => "by read(2) through the page cache",
        Via::Mapping => "by a load through its own mapping",
        Via::Direct => "by a direct read that bypasses the page cache",
        Via::Result => "in the result of the call itself",
        Via::Fsck => "by fsck",
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Race => "while the race was on",
        Phase::After => "after the operation and every actor had returned",
        Phase::Evicted => "after proved eviction from the page cache",
        Phase::Remounted => "after unmount, fsck and a new mount",
    }
}

/// Where the observation lies relative to the operation, and what follows from it.
fn order([begin, end, op_begin, op_end]: [u64; 4]) -> String {
    let ticks = format!("operation {op_begin} to {op_end}, observation {begin} to {end}");
    let relation = if op_begin == 0 && op_end == 0 {
        return "no clock was recorded".into();
    } else if begin > op_end {
        "the observation began after the operation had returned, so what the operation removed may not show"
    } else if end < op_begin {
        "the observation ended before the operation began, so the operation may not show yet"
    } else {
        "the observation overlapped the operation, so before and after are both legal, and this is neither"
    };
    format!("{relation} (clock: {ticks})")
}

fn evidence(out: &mut String, record: &Record) {
    let e = &record.evidence;
    if let Some(staged) = &e.staged {
        section(out, "What happened, step by step");
        // Lines of a diagram are not wrapped: its columns would be lost.
        for text in staged.diagram().render_text(WIDTH - 2).lines() {
            line(out, text);
        }
        return;
    }
    if e.rounds == 0 {
        return;
    }
    section(out, "What the race was like");
    let mut counts = format!(
        "{} rounds in {} over {:.1} s of racing, {} overlapped (at least {} are needed for safe)",
        e.rounds,
        if e.passes == 1 {
            "1 pass".to_owned()
        } else {
            format!("{} passes", e.passes)
        },
        e.racing_ns as f64 / 1e9,
        e.overlapped,
        record.floor.overlapped,
    );
    if let Some(filled) = e.filled {
        counts.push_str(&format!(
            ", {filled} really filled (at least {})",
            record.floor.filled
        ));
    }
    wrapped(out, &counts);
    if let Some(rate) = Rate::of(record).in_words(record.verdict) {
        wrapped(out, &format!("violated per overlapped round: {rate}"));
    }
    if let Some(s) = record.first_violation_s {
        wrapped(out, &format!("first violation after {s:.3} s of racing"));
    }
    if let Some(folios) = e.large_folios {
        let windows = e.async_readahead.map_or_else(String::new, |n| {
            format!(", {n} windows read ahead asynchronously")
        });
        wrapped(
            out,
            &format!("folios of more than one page brought in: {folios}{windows}"),
        );
    }
    for filler in &e.fillers {
        let cpu = filler
            .cpu
            .map_or_else(String::new, |cpu| format!(" on CPU {cpu}"));
        let mut told = format!(
            "{} ({}{cpu}): {} overlapped",
            filler.actor, filler.op, filler.overlapped
        );
        if let Some(filled) = filler.filled {
            told.push_str(&format!(", {filled} filled"));
        }
        let c = filler.contact;
        told.push_str(&format!(
            "; contact inside {}, straddling the end {}, straddling the begin {}, none {}; {} SIGBUS, {} errors",
            c.inside, c.straddle, c.early, c.outside, filler.sigbus, filler.errors
        ));
        bullet(out, &told);
    }
    for (outcome, n) in &e.outcomes {
        bullet(out, &format!("operation ended {outcome}: {n}"));
    }
    for note in &e.notes {
        bullet(out, note);
    }
}

fn log(out: &mut String, record: &Record) {
    let samples = &record.evidence.blocked;
    if !samples.is_empty() {
        section(out, "Tasks that waited");
        samples.iter().for_each(|sample| bullet(out, sample));
    }
    if record.log.is_empty() {
        return;
    }
    let title = if record.verdict == Verdict::Hung {
        "Stacks of the tasks that did not end"
    } else {
        "Kernel log during the trial"
    };
    section(out, title);
    for text in record.log.iter().take(LOG_LINES_MAX) {
        line(out, &clean(text));
    }
    if record.log.len() > LOG_LINES_MAX {
        line(
            out,
            &format!(
                "... and {} more lines in the record",
                record.log.len() - LOG_LINES_MAX
            ),
        );
    }
}

fn section(out: &mut String, title: &str) {
    out.push('\n');
    out.push_str(title);
    out.push('\n');
}

/// Not wrapped, so that it can be copied.
fn line(out: &mut String, text: &str) {
    out.push_str("  ");
    out.push_str(text);
    out.push('\n');
}

fn wrapped(out: &mut String, text: &str) {
    push_wrapped(out, "  ", text, WIDTH);
}

fn bullet(out: &mut String, text: &str) {
    push_wrapped(out, "  - ", text, WIDTH);
}

fn field(out: &mut String, name: &str, text: &str) {
    push_wrapped(out, &format!("     {name:<11} "), text, WIDTH);
}
