//! What this machine can run, what it cannot, and what would help.

use std::fmt;

use crate::adapter::{Store, Target};
use crate::elsewhere::{ELSEWHERE, Elsewhere};
use crate::hold::{HoldError, HolderKind};
use crate::kernel::{self, Support};
use crate::set_up::{SetUp, SetUpError};
use crate::tools::kernel_release;
use crate::user::Privilege;

/// One filesystem's line.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The target.
    pub target: String,
    /// What it is, in one line.
    pub about: String,
    /// Whether it can be set up.
    pub ready: bool,
    /// Whether and how the kernel has it.
    pub driver: String,
    /// Its tools with their versions, or that they are missing.
    pub tools: Vec<String>,
    /// Why it cannot be set up; empty if it can.
    pub reason: String,
    /// What would help; empty if nothing is needed or known.
    pub hint: String,
}

/// The whole report.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// What this user may do, in words.
    pub user: String,
    /// What can hold the I/O of staged scenarios: `yes`, or why not.
    pub holders: Vec<(&'static str, String)>,
    /// The filesystems, in the order of the tables.
    pub findings: Vec<Finding>,
    /// Those that are run in a mount of the user's own.
    pub elsewhere: [Elsewhere; ELSEWHERE.len()],
}

fn said(probed: Result<(), HoldError>) -> String {
    match probed {
        Ok(()) => "yes".to_owned(),
        Err(why) => format!("no: {why}"),
    }
}

/// Looks; mounts nothing and makes nothing, but loads drivers if it may.
pub fn doctor(env: &SetUp<'_>) -> Report {
    let user = match Privilege::current() {
        Privilege::Root => "root: everything",
        Privilege::UserNamespace => {
            "root of a user namespace: tmpfs and directories; real root would add loop devices"
        }
        Privilege::User => {
            "ordinary user: directories, and tmpfs in a user namespace; root would add loop devices"
        }
    };
    Report {
        kernel: kernel_release(),
        user: user.to_owned(),
        holders: HolderKind::ALL
            .map(|kind| (kind.word(), said(kind.probe())))
            .to_vec(),
        findings: Target::all(true)
            .into_iter()
            .map(|target| find(target, env))
            .collect(),
        elsewhere: ELSEWHERE,
    }
}

fn find(target: Target, env: &SetUp<'_>) -> Finding {
    let (reason, hint) = match target.check(env) {
        Ok(()) => (String::new(), String::new()),
        Err(SetUpError::Skipped { reason, hint }) => (reason, hint.unwrap_or_default()),
        Err(other) => (other.to_string(), String::new()),
    };
    let driver = match target.adapter.store() {
        Store::Directory => "whatever is mounted there".to_owned(),
        Store::Memory | Store::Device(_) | Store::Fixed(_) | Store::Stacked(_) => {
            driver(target.adapter.name()).to_owned()
        }
    };
    let tools = target.tools().into_iter().map(|tool| match tool.version() {
        Some(version) => format!("{} {version}", tool.name),
        None if tool.find().is_some() => tool.name.to_owned(),
        None => format!("{} missing ({})", tool.name, tool.hint()),
    });
    Finding {
        target: target.to_string(),
        about: target.profile.about.to_owned(),
        ready: reason.is_empty(),
        driver,
        tools: tools.collect(),
        reason,
        hint,
    }
}

fn driver(name: &str) -> &'static str {
    match kernel::support(name) {
        Support::Registered => "in the kernel",
        Support::Module(_) => "module, not loaded",
        Support::Missing(_) => "not in this kernel",
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel  {}\nuser    {}", self.kernel, self.user)?;
        for (name, said) in &self.holders {
            writeln!(f, "holds   {name}: {said}")?;
        }
        writeln!(f)?;
        for finding in &self.findings {
            let state = if finding.ready { "ready" } else { "no" };
            writeln!(
                f,
                "{:<16} {state:<6} {:<24} {}",
                finding.target,
                finding.driver,
                finding.tools.join(", ")
            )?;
            writeln!(f, "{:23} {}", "", finding.about)?;
            if !finding.ready {
                writeln!(f, "{:23} {}", "", finding.reason)?;
            }
            if !finding.hint.is_empty() {
                writeln!(f, "{:23} help: {}", "", finding.hint)?;
            }
        }
        for other in &self.elsewhere {
            writeln!(f, "{:<16} {:<6} {}", other.name, "--in", driver(other.name))?;
            writeln!(f, "{:23} needs {}", "", other.needs)?;
            writeln!(f, "{:23} then: {}", "", other.command)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tag::Tag;

    #[test]
    fn what_is_raced_in_a_mount_of_the_users_own_has_its_recipe() {
        let (tag, work) = (Tag::of_this_process(), std::env::temp_dir());
        let background = |_: u64, _: &mut [u8]| {};
        let text = doctor(&SetUp::new(&tag, &work, &background)).to_string();
        for name in ["ceph", "cifs"] {
            let (_, about) = text.split_once(&format!("\n{name} ")).expect(name);
            assert!(about.contains("punchbench run --in DIR"), "{about}");
        }
    }
}
