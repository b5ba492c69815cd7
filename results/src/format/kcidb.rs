//! A KCIDB submission, schema 5.3 (kcidb-io), for `kcidb-submit` or the KernelCI API.
//!
//! What the bench cannot know, the source tree, it does not invent: checkout and build carry the release alone, and
//! whoever submits for a tree replaces `build_id` by that of their own build.

use serde_json::{Map, Value, json};

use crate::export::Exporter;
use crate::table::is_control;
use crate::text::{clean, rfc3339};
use crate::{Record, Verdict};

/// Longest excerpt that the schema allows, in characters.
const EXCERPT_MAX: usize = 16_384;

/// The KCIDB format.
#[derive(Debug, Clone)]
pub struct Kcidb {
    /// Name of the CI system: lower-case letters, digits and `_`.
    pub origin: String,
}

impl Default for Kcidb {
    fn default() -> Self {
        Kcidb {
            origin: "punchbench".into(),
        }
    }
}

impl Exporter for Kcidb {
    fn name(&self) -> &'static str {
        "kcidb"
    }

    fn file_name(&self) -> &'static str {
        "kcidb.json"
    }

    fn render(&self, records: &[Record]) -> String {
        // Controls judge the bench, not the kernel.
        let records: Vec<&Record> = records.iter().filter(|r| !is_control(&r.target)).collect();
        let mut kernels: Vec<&Record> = Vec::new();
        for record in &records {
            if !kernels
                .iter()
                .any(|k| self.build_id(k) == self.build_id(record))
            {
                kernels.push(record);
            }
        }
        let submission = json!({
            "version": {"major": 5, "minor": 3},
            "checkouts": kernels.iter().map(|k| self.checkout(k)).collect::<Vec<_>>(),
            "builds": kernels.iter().map(|k| self.build(k)).collect::<Vec<_>>(),
            "tests": records.iter().map(|r| self.test(r)).collect::<Vec<_>>(),
        });
        format!("{submission:#}\n")
    }
}

impl Kcidb {
    fn build_id(&self, record: &Record) -> String {
        self.id(&format!("{} {}", record.kernel, record.kernel_version))
    }

    /// An identifier of ours; it may hold anything but NUL.
    fn id(&self, rest: &str) -> String {
        format!("{}:{}", self.origin, clean(rest).trim())
    }

    fn checkout(&self, kernel: &Record) -> Value {
        json!({
            "id": self.build_id(kernel),
            "origin": self.origin,
            "comment": format!("whatever {} was built from", clean(&kernel.kernel)),
        })
    }

    fn build(&self, kernel: &Record) -> Value {
        json!({
            "id": self.build_id(kernel),
            "checkout_id": self.build_id(kernel),
            "origin": self.origin,
            "comment": format!("{} {}", clean(&kernel.kernel), clean(&kernel.kernel_version)),
            "start_time": rfc3339(kernel.started),
        })
    }

    fn test(&self, record: &Record) -> Value {
        let mut test = Map::new();
        let mut set = |key: &str, value: Value| test.insert(key.to_owned(), value);
        set(
            "id",
            json!(self.id(&format!("{} {}", record.trial, rfc3339(record.started)))),
        );
        set("build_id", json!(self.build_id(record)));
        set("origin", json!(self.origin));
        set("path", json!(path(record)));
        set("status", json!(status(record.verdict)));
        set("comment", json!(super::in_short(record)));
        set("start_time", json!(rfc3339(record.started)));
        set("duration", json!(record.seconds));
        set(
            "environment",
            json!({"comment": format!("{} ({})", clean(&record.target), clean(&record.driver))}),
        );
        if record.verdict.is_violation() || record.verdict == Verdict::Error {
            let told: String = crate::explain_failure(record)
                .chars()
                .filter(|c| *c != '\0')
                .take(EXCERPT_MAX)
                .collect();
            set("log_excerpt", json!(told));
        }
        set(
            "misc",
            json!({
                "verdict": record.verdict,
                "expectation": record.expectation,
                "known_issue": record.known_issue,
                "rounds": record.evidence.rounds,
                "overlapped": record.evidence.overlapped,
                "filled": record.evidence.filled,
                "violated_rounds": record.evidence.violated_rounds,
                "seed": record.seed,
                "replay": record.replay,
                "punchbench": record.version,
            }),
        );
        Value::Object(test)
    }
}

/// `punchbench.ext4_1k.punch-while-read`: a path holds letters, digits, `_` and `-`.
fn path(record: &Record) -> String {
    let word = |text: &str| -> String {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        text.chars()
            .map(|c| if legal(c) { c } else { '_' })
            .collect()
    };
    format!(
        "punchbench.{}.{}",
        word(&record.target),
        word(&record.scenario)
    )
}

/// `DONE` ran and has no verdict; `MISS` is a harness that broke before, `ERROR` a test that broke.
fn status(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Safe => "PASS",
        Verdict::Inconclusive => "DONE",
        Verdict::Unsupported | Verdict::Skipped => "SKIP",
        Verdict::Error => "ERROR",
        _ => "FAIL",
    }
}
