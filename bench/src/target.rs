//! What a trial races on: a filesystem that is mounted for it, or the reference implementation under a locking
//! policy.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use punchbench_fs::adapter::TargetError;
use punchbench_fs::tools::Tool;
use punchbench_reference::{Policy, policies};
use punchbench_scenarios::matches_glob;

use crate::plan::{PlanError, nearest};

/// Stands before the name of a policy.
pub const REFERENCE: &str = "reference:";

/// One column of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A filesystem, or what stands for one.
    Mounted(punchbench_fs::Target),
    /// The reference under a policy, by its name or its file's.
    Reference(String, Arc<Policy>),
}

impl Target {
    /// Reads `ext4`, `ext4:1k`, `reference:none` or `reference:FILE.yaml`.
    pub fn parse(text: &str) -> Result<Target, PlanError> {
        match text.strip_prefix(REFERENCE) {
            Some(policy) => reference(policy),
            None if text == REFERENCE.trim_end_matches(':') => reference(""),
            None => Ok(Target::Mounted(punchbench_fs::Target::parse(text)?)),
        }
    }

    /// The same, where `reference:GLOB` stands for all policies of such a name.
    pub fn parse_all(text: &str) -> Result<Vec<Target>, PlanError> {
        let glob = text
            .strip_prefix(REFERENCE)
            .filter(|g| g.contains(['*', '?']));
        let Some(glob) = glob else {
            return Ok(vec![Target::parse(text)?]);
        };
        let all = policies().into_iter();
        let found: Vec<Target> = all
            .filter(|p| matches_glob(glob, &p.policy))
            .map(|p| Target::Reference(p.policy.clone(), Arc::new(p)))
            .collect();
        match found[..] {
            // To say what there is.
            [] => reference(glob).map(|target| vec![target]),
            _ => Ok(found),
        }
    }

    /// The filesystem, if it is one.
    pub fn mounted(&self) -> Option<punchbench_fs::Target> {
        match self {
            Target::Mounted(target) => Some(*target),
            Target::Reference(..) => None,
        }
    }

    /// The tools it needs.
    pub fn tools(&self) -> Vec<Tool> {
        self.mounted().map_or_else(Vec::new, |t| t.tools())
    }

    /// The modules that it takes on a kernel that has all of it as modules.
    pub fn modules(&self) -> Vec<&'static str> {
        self.mounted().map_or_else(Vec::new, |t| t.modules())
    }

    /// Whether it is one of the controls of a run: the reference as the seed found and as it left the kernel.
    pub fn controls() -> [Target; 2] {
        ["none", "invalidate-lock"].map(|name| reference(name).expect("a built-in policy"))
    }
}

fn reference(name: &str) -> Result<Target, PlanError> {
    if name.ends_with(".yaml") {
        let path = std::path::absolute(name).unwrap_or_else(|_| Path::new(name).into());
        let policy = Policy::load_file(&path).map_err(|e| PlanError::Scenario(e.to_string()))?;
        let name = path.to_string_lossy().into_owned();
        return Ok(Target::Reference(name, Arc::new(policy)));
    }
    let all = policies();
    let names = || all.iter().map(|p| p.policy.as_str());
    match all.iter().find(|p| p.policy == name) {
        Some(policy) => Ok(Target::Reference(name.to_owned(), Arc::new(policy.clone()))),
        None => Err(PlanError::Target(TargetError::UnknownProfile {
            filesystem: REFERENCE.trim_end_matches(':').to_owned(),
            name: name.to_owned(),
            nearest: format!(
                "{REFERENCE}{}",
                nearest(name, names()).unwrap_or("none".into())
            ),
        })),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Mounted(target) => target.fmt(f),
            Target::Reference(name, _) => write!(f, "{REFERENCE}{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_printed_as_it_is_typed() {
        for name in [
            "ext4",
            "ext4:1k",
            "reference:none",
            "reference:invalidate-lock",
        ] {
            assert_eq!(Target::parse(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_glob_stands_for_the_policies_of_such_a_name() {
        let named = |text| -> Vec<String> {
            let all = Target::parse_all(text).unwrap();
            all.iter().map(Target::to_string).collect()
        };
        assert_eq!(named("reference:*").len(), policies().len());
        let both = ["reference:invalidate-lock", "reference:invalidate-lock-v4"];
        assert_eq!(named("reference:invalidate*"), both);
        assert_eq!(named("ext4:1k"), ["ext4:1k"]);
        let error = Target::parse_all("reference:nothing*").unwrap_err();
        assert!(error.to_string().contains("reference:"), "{error}");
    }

    #[test]
    fn an_unknown_policy_is_answered_with_the_nearest() {
        for (name, near) in [
            ("reference:non", "reference:none"),
            ("reference:invalidate_lock", "reference:invalidate-lock"),
            ("reference", "reference:"),
            ("reference:/nonexistent.yaml", "/nonexistent.yaml"),
        ] {
            let error = Target::parse(name).unwrap_err().to_string();
            assert!(error.contains(near), "{error}");
        }
    }
}
