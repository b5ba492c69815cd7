//! What a guest lacks because of this machine, not because of its kernel: a tool or a library that is not
//! installed here, a module that could not be packed or would not load. A trial that is skipped for that says
//! nothing about the kernel; it is an `error`, and names what to do.

use punchbench_fs::Target;
use punchbench_guest::{Kernel, News};
use punchbench_results::{Record, Verdict};

/// What is known so far.
#[derive(Debug, Default)]
pub struct Gaps {
    /// Tool and why it is not there.
    tools: Vec<(String, String)>,
    /// Module and why it is not loaded.
    modules: Vec<(String, String)>,
    /// The kernel's modules are not known.
    no_modules: bool,
}

impl Gaps {
    /// Nothing is known yet of a guest with this kernel.
    pub fn of(kernel: &Kernel) -> Gaps {
        Gaps {
            no_modules: kernel.modules.is_none(),
            ..Gaps::default()
        }
    }

    /// Takes note.
    pub fn note(&mut self, news: &News) {
        match news {
            News::MissingTool(tool) => self.tools.push((tool.name.clone(), tool.why.clone())),
            News::FailedModule(module) if module.required => {
                self.modules
                    .push((module.name.clone(), module.error.clone()));
            }
            // A driver that this kernel does not have is the kernel's affair.
            News::FailedModule(_) | News::MissingModule(_) | News::Record(_) => {}
        }
    }

    /// Judges a skipped trial anew.
    pub fn judge(&self, target: &Target, record: &mut Record) {
        if record.verdict != Verdict::Skipped || target.modules().is_empty() {
            return;
        }
        let tools = target.tools();
        let tool = tools.iter().find_map(|tool| {
            let (_, why) = self.tools.iter().find(|(name, _)| *name == tool.name)?;
            Some((tool, why))
        });
        let module = self
            .modules
            .iter()
            .find(|(name, _)| target.modules().contains(&name.as_str()));
        if let Some((name, why)) = module {
            record.verdict = Verdict::Error;
            record.reason = format!("the module {name} did not load in the guest: {why}");
            record.hint =
                Some("the console's log says more; are these the kernel's own modules?".to_owned());
        } else if let Some((tool, why)) = tool {
            record.verdict = Verdict::Error;
            record.reason = format!("{} could not be taken into the guest: {why}", tool.name);
            record.hint = Some(format!("{}, or run with --install", tool.hint()));
        } else if self.no_modules {
            record.hint = Some(
                "if the kernel has it as a module, give its modules too: --kernel IMAGE:MODULESDIR"
                    .to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use punchbench_guest::{FailedModule, MissingTool};

    use super::*;
    use crate::blank;
    use crate::plan;

    const NO_DRIVER: &str = "kernel 6.1 has no xfs";

    fn judged(gaps: &Gaps, fs: &str, verdict: Verdict) -> Record {
        let trial = plan::tests::one(&format!("--fs {fs} --scenario punch-while-read"));
        let mut record = blank::record(&trial);
        (record.verdict, record.reason) = (verdict, NO_DRIVER.to_owned());
        gaps.judge(&trial.target.mounted().unwrap(), &mut record);
        record
    }

    fn failed(name: &str, required: bool) -> FailedModule {
        FailedModule {
            name: name.to_owned(),
            required,
            error: "Exec format error".to_owned(),
        }
    }

    #[test]
    fn a_tool_that_is_not_here_is_an_error_of_the_bench() {
        let mut gaps = Gaps::default();
        gaps.note(&News::MissingTool(&MissingTool {
            name: "mkfs.xfs".to_owned(),
            why: "it needs libinih.so.1".to_owned(),
        }));
        let record = judged(&gaps, "xfs", Verdict::Skipped);
        assert_eq!(record.verdict, Verdict::Error);
        assert!(record.reason.contains("mkfs.xfs") && record.reason.contains("libinih"));
        assert!(record.hint.is_some_and(|h| h.contains("install xfsprogs")));
        // Others are none the worse for it, nor is one that ran all the same.
        assert_eq!(
            judged(&gaps, "ext4", Verdict::Skipped).verdict,
            Verdict::Skipped
        );
        assert_eq!(judged(&gaps, "xfs", Verdict::Safe).verdict, Verdict::Safe);
    }

    #[test]
    fn a_module_that_does_not_load_is_an_error_and_one_that_does_not_exist_a_skip() {
        let mut gaps = Gaps::default();
        gaps.note(&News::MissingModule("xfs"));
        gaps.note(&News::FailedModule(&failed("crc32c_intel", false)));
        let record = judged(&gaps, "xfs", Verdict::Skipped);
        assert_eq!(
            (record.verdict, record.reason.as_str()),
            (Verdict::Skipped, NO_DRIVER)
        );
        gaps.note(&News::FailedModule(&failed("xfs", true)));
        let record = judged(&gaps, "xfs", Verdict::Skipped);
        assert_eq!(record.verdict, Verdict::Error);
        assert!(
            record.reason.contains("Exec format error"),
            "{}",
            record.reason
        );
        assert_eq!(
            judged(&gaps, "ext4", Verdict::Skipped).verdict,
            Verdict::Skipped
        );
        gaps.note(&News::FailedModule(&failed("loop", true)));
        assert_eq!(
            judged(&gaps, "ext4", Verdict::Skipped).verdict,
            Verdict::Error
        );
        assert_eq!(
            judged(&gaps, "tmpfs", Verdict::Skipped).verdict,
            Verdict::Skipped
        );
    }

    #[test]
    fn where_no_modules_were_given_the_hint_asks_for_them() {
        let gaps = Gaps {
            no_modules: true,
            ..Gaps::default()
        };
        let record = judged(&gaps, "xfs", Verdict::Skipped);
        assert_eq!(record.verdict, Verdict::Skipped);
        assert!(record.hint.is_some_and(|h| h.contains("MODULESDIR")));
    }
}
