//! KTAP version 1, as the kernel's own tests speak (Documentation/dev-tools/ktap.rst): kernels contain targets, which
//! contain trials.

use super::{Outcome, by_kernel_and_target, case_name, in_short};
use crate::export::Exporter;
use crate::{Record, text::clean};

/// The KTAP format.
#[derive(Debug, Clone, Copy)]
pub struct Ktap;

impl Exporter for Ktap {
    fn name(&self) -> &'static str {
        "ktap"
    }

    fn file_name(&self) -> &'static str {
        "results.ktap"
    }

    fn render(&self, records: &[Record]) -> String {
        let kernels = by_kernel_and_target(records);
        let mut out = format!("KTAP version 1\n1..{}\n", kernels.len());
        for (n, (kernel, targets)) in kernels.iter().enumerate() {
            out.push_str(&format!("  KTAP version 1\n  1..{}\n", targets.len()));
            let mut kernel_ok = true;
            for (m, (target, of_target)) in targets.iter().enumerate() {
                out.push_str(&format!("    KTAP version 1\n    1..{}\n", of_target.len()));
                let mut target_ok = true;
                for (i, record) in of_target.iter().enumerate() {
                    target_ok &= trial(&mut out, i + 1, record, of_target);
                }
                out.push_str(&format!(
                    "  {} {} {}\n",
                    word(target_ok),
                    m + 1,
                    name(target)
                ));
                kernel_ok &= target_ok;
            }
            out.push_str(&format!("{} {} {}\n", word(kernel_ok), n + 1, name(kernel)));
        }
        out
    }
}

/// One result line after its diagnostics; whether it is no failure.
fn trial(out: &mut String, number: usize, record: &Record, of_target: &[&Record]) -> bool {
    let outcome = Outcome::of(record);
    if matches!(outcome, Outcome::Fail | Outcome::Error) {
        out.push_str(&format!(
            "    # {}\n    # {}\n",
            in_short(record),
            clean(&record.replay)
        ));
    }
    let (ok, directive) = match outcome {
        Outcome::Pass => (true, String::new()),
        Outcome::Fail if record.verdict == crate::Verdict::Hung => (false, " # TIMEOUT".to_owned()),
        Outcome::Fail => (false, String::new()),
        Outcome::ExpectedFail => (false, format!(" # XFAIL {}", in_short(record))),
        Outcome::Skip => (true, format!(" # SKIP {}", in_short(record))),
        Outcome::Error => (false, format!(" # ERROR {}", in_short(record))),
    };
    let name = name(&case_name(record, of_target));
    out.push_str(&format!("    {} {number} {name}{directive}\n", word(ok)));
    ok || outcome == Outcome::ExpectedFail
}

fn word(ok: bool) -> &'static str {
    if ok { "ok" } else { "not ok" }
}

/// A description may not hold a `#`, which begins a directive.
fn name(text: &str) -> String {
    clean(text).replace('#', " ")
}
