//! The plan: every scenario on every target, as often as asked, in an order and with seeds that depend on
//! nothing but what the user typed.

use std::collections::HashMap;
use std::path::Path;

use punchbench_fs::adapter::{self, Store, TargetError};
use punchbench_scenarios::{Scenario, catalog, load_file, matches_glob};
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::cli::{HolderArg, RunArgs};
use crate::target::Target;

/// What every run over all filesystems races on the reference without and with the lock, to show that it can tell.
const CONTROL: &str = "punch-while-read";

/// Seconds of racing where nothing else was asked for.
const SECONDS: f64 = 2.0;

/// The same in a guest, whose CPUs may be emulated.
const SECONDS_IN_A_GUEST: f64 = 10.0;

/// How many times as long a trial may race that has not reached its floor of evidence, where nothing else was
/// asked for.
const LONGER: f64 = 6.0;

/// One scenario on one target with one seed.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Its identity: what a resumed run compares.
    pub id: String,
    /// What is raced.
    pub scenario: Scenario,
    /// On what.
    pub target: Target,
    /// The seed that, given on the command line, makes this trial the first repeat.
    pub seed: u64,
    /// What its data is drawn from: the seed, for this scenario on this target.
    pub data_seed: u64,
    /// What the stamps are keyed with.
    pub nonce: u64,
    /// The command that runs exactly this trial again.
    pub replay: String,
    /// What names its scenario alone: its name, or its file's path.
    typed: String,
}

impl Trial {
    /// The scenario's file, where it is none of the built-in ones.
    pub fn scenario_file(&self) -> Option<&Path> {
        self.typed
            .ends_with(".yaml")
            .then(|| Path::new(&self.typed))
    }
}

/// How long a trial races.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Racing {
    /// For so many seconds, and on, up to the most, while its floor of evidence is not reached.
    Seconds { least: f64, most: f64 },
    /// For this many rounds.
    Rounds(u64),
}

/// There is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No scenario has such a name.
    #[error("no scenario is named like `{glob}`{} (`punchbench list` has all names)", hint(.nearest))]
    NoScenario {
        /// What was typed.
        glob: String,
        /// The nearest name.
        nearest: Option<String>,
    },
    /// A scenario file is wrong.
    #[error("{0}")]
    Scenario(String),
    /// A target's name is wrong.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// `dir` needs to know which directory.
    #[error("the target `dir` is the directory given with --in DIR")]
    NoDirectory,
    /// Whatever else on the command line, or in a file named there, cannot be used.
    #[error("{0}")]
    Words(String),
    /// Options that contradict each other.
    #[error("{0} does not go with {1}: {2}")]
    Contradiction(String, &'static str, &'static str),
}

fn hint(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map_or_else(String::new, |n| format!("; did you mean `{n}`?"))
}

/// How long each trial races.
pub fn racing(args: &RunArgs) -> Racing {
    let usual = if args.kernel.is_empty() {
        SECONDS
    } else {
        SECONDS_IN_A_GUEST
    };
    match (args.rounds, args.seconds) {
        (Some(rounds), _) => Racing::Rounds(rounds),
        (None, seconds) => {
            let least = seconds.unwrap_or(usual);
            let most = args.most.unwrap_or(match seconds {
                Some(exactly) => exactly,
                None => LONGER * usual,
            });
            Racing::Seconds {
                least,
                most: most.max(least),
            }
        }
    }
}

/// Makes the plan; it is empty only for a shard or a pick.
pub fn make(args: &RunArgs, seed: u64) -> Result<Vec<Trial>, PlanError> {
    let scenarios = scenarios(&args.scenario)?;
    let mut plan = controls(args, seed);
    for target in targets(args)? {
        for (scenario, typed) in &scenarios {
            for repeat in 0..args.repeat {
                let seed = seed_of_repeat(seed, repeat);
                plan.push(trial(args, scenario, typed, target.clone(), seed));
            }
        }
    }
    if !args.pick.is_empty() {
        plan = picked(plan, &args.pick);
    }
    if let Some(shard) = args.shard {
        plan.retain(|trial| shard.has(&trial.id));
    }
    Ok(plan)
}

/// The controls of a run that was not told what to race on.
fn controls(args: &RunArgs, seed: u64) -> Vec<Trial> {
    let told = !args.fs.is_empty() || args.in_dir.is_some() || args.device.is_some();
    if told || args.inject.is_some() {
        return Vec::new();
    }
    let scenario = catalog().into_iter().find(|s| s.scenario == CONTROL);
    let scenario = scenario.expect("a built-in scenario");
    let on = |target| trial(args, &scenario, CONTROL, target, seed);
    Target::controls().into_iter().map(on).collect()
}

/// The trials of `scenario@target` pairs, in the order of these.
fn picked(plan: Vec<Trial>, pairs: &[String]) -> Vec<Trial> {
    let places: HashMap<&str, usize> = pairs
        .iter()
        .enumerate()
        .map(|(n, p)| (p.as_str(), n))
        .collect();
    let mut found: Vec<(usize, Trial)> = plan
        .into_iter()
        .filter_map(|trial| Some((*places.get(trial.pair().as_str())?, trial)))
        .collect();
    // Stable: repeats stay in order.
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, trial)| trial).collect()
}

impl Trial {
    /// As `--pick` names it.
    pub fn pair(&self) -> String {
        format!("{}@{}", self.scenario.scenario, self.target)
    }
}

fn trial(args: &RunArgs, scenario: &Scenario, typed: &str, target: Target, seed: u64) -> Trial {
    let name = &scenario.scenario;
    let how_long = match racing(args) {
        Racing::Seconds { least, most } => format!("--seconds {least} --most {most}"),
        Racing::Rounds(n) => format!("--rounds {n}"),
    };
    let on = match (&args.in_dir, &args.device) {
        (Some(dir), _) => format!("--in {}", quoted(&dir.to_string_lossy())),
        (None, Some(device)) => format!(
            "--fs {target} --device {}",
            quoted(&device.to_string_lossy())
        ),
        (None, None) => format!("--fs {target}"),
    };
    let mut replay = format!(
        "punchbench run {on} --scenario {} {how_long} --seed {seed}",
        quoted(typed)
    );
    if args.insist {
        replay.push_str(" --insist");
    }
    if let Some(dir) = &args.image_dir {
        replay.push_str(&format!(" --image-dir {}", quoted(&dir.to_string_lossy())));
    }
    if scenario.is_staged() && args.holder != HolderArg::default() {
        replay.push_str(&format!(" --holder {}", args.holder.kind().word()));
    }
    if let Some(kind) = &args.inject {
        replay.push_str(&format!(" --inject {kind}"));
    }
    let data_seed = derive(seed, &format!("{name}\0{target}"));
    Trial {
        id: format!("{name} on {target}, seed {seed}, {}", &how_long[2..]),
        scenario: scenario.clone(),
        target,
        seed,
        data_seed,
        nonce: derive(data_seed, "stamps"),
        replay,
        typed: typed.to_owned(),
    }
}

/// As a shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The first repeat has the run's own seed, so that a record's seed replays it alone.
fn seed_of_repeat(seed: u64, repeat: u32) -> u64 {
    match repeat {
        0 => seed,
        // As short as a drawn one: it is typed again, and JSON numbers are exact only up to 2^53.
        n => derive(seed, &format!("repeat {n}")) >> 32,
    }
}

/// A seed for a purpose, by a named generator whose output no release of a library changes.
fn derive(seed: u64, purpose: &str) -> u64 {
    purpose
        .bytes()
        .fold(SplitMix64::seed_from_u64(seed).next_u64(), |state, byte| {
            SplitMix64::seed_from_u64(state ^ u64::from(byte)).next_u64()
        })
}

/// The scenarios asked for, in order and once each, with the word that names each alone.
fn scenarios(asked: &[String]) -> Result<Vec<(Scenario, String)>, PlanError> {
    let all = catalog();
    let mut found: Vec<(Scenario, String)> = Vec::new();
    if asked.is_empty() {
        let headline = all.into_iter().filter(|s| s.headline);
        return Ok(headline.map(|s| (s.clone(), s.scenario)).collect());
    }
    for glob in asked {
        let matches: Vec<(Scenario, String)> = if glob.ends_with(".yaml") {
            let path = std::path::absolute(glob).unwrap_or_else(|_| glob.into());
            let scenario =
                load_file(glob.as_ref()).map_err(|e| PlanError::Scenario(e.to_string()))?;
            vec![(scenario, path.to_string_lossy().into_owned())]
        } else {
            let named = all.iter().filter(|s| matches_glob(glob, &s.scenario));
            named.map(|s| (s.clone(), s.scenario.clone())).collect()
        };
        if matches.is_empty() {
            let nearest = nearest(glob, all.iter().map(|s| s.scenario.as_str()));
            return Err(PlanError::NoScenario {
                glob: glob.clone(),
                nearest,
            });
        }
        for (scenario, typed) in matches {
            if !found.iter().any(|(s, _)| s.scenario == scenario.scenario) {
                found.push((scenario, typed));
            }
        }
    }
    Ok(found)
}

/// The name nearest to a word that names nothing.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|name| (strsim::damerau_levenshtein(word, name), name))
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 2)
        .map(|(_, name)| name.to_owned())
}

/// The targets asked for, once each; all local ones (or those that the options leave) if none was.
fn targets(args: &RunArgs) -> Result<Vec<Target>, PlanError> {
    let is_dir = |t: &adapter::Target| matches!(t.adapter.store(), Store::Directory);
    let wanted = |t: &adapter::Target| match (&args.in_dir, &args.device) {
        (Some(_), _) => is_dir(t),
        (None, Some(_)) => t.is_on_device(),
        (None, None) => !is_dir(t),
    };
    let mut found: Vec<Target> = Vec::new();
    let mut named = Vec::new();
    for name in &args.fs {
        named.extend(Target::parse_all(name.trim())?);
    }
    for target in named {
        let mounted = target.mounted();
        if !mounted.as_ref().is_none_or(wanted) {
            let contradict =
                |option, why| PlanError::Contradiction(format!("--fs {target}"), option, why);
            return Err(match (&args.in_dir, &args.device) {
                (Some(_), _) => contradict("--in DIR", "the directory's filesystem is what it is"),
                (None, Some(_)) => {
                    contradict("--device", "no filesystem of it is made on a device")
                }
                (None, None) => PlanError::NoDirectory,
            });
        }
        match mounted {
            Some(t) if args.all_profiles && t.profile.name.is_empty() => {
                let of_it = |p: &adapter::Target| p.adapter.name() == t.adapter.name();
                let all = adapter::Target::all(true).into_iter().filter(of_it);
                found.extend(all.map(Target::Mounted));
            }
            _ => found.push(target),
        }
    }
    if args.fs.is_empty() {
        let all = adapter::Target::all(args.all_profiles).into_iter();
        found = all.filter(wanted).map(Target::Mounted).collect();
    }
    let mut once: Vec<Target> = Vec::new();
    for target in found {
        if !once.contains(&target) {
            once.push(target);
        }
    }
    Ok(once)
}

#[cfg(test)]
pub(crate) mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    /// The first trial of a command line.
    pub(crate) fn one(words: &str) -> Trial {
        make(&args(words), 7).unwrap().remove(0)
    }

    pub(crate) fn args(words: &str) -> RunArgs {
        let line = ["punchbench", "run"]
            .into_iter()
            .chain(words.split_whitespace());
        match Cli::try_parse_from(line).unwrap().command {
            Command::Run(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn ids(words: &str, seed: u64) -> Vec<(String, u64)> {
        make(&args(words), seed)
            .unwrap()
            .into_iter()
            .map(|t| (t.id, t.data_seed))
            .collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_seed_other_data() {
        let words = "--fs ext4,xfs --scenario punch-* --repeat 3";
        assert_eq!(ids(words, 7), ids(words, 7));
        let (a, b) = (ids(words, 7), ids(words, 8));
        assert!(a.iter().zip(&b).all(|(a, b)| a.1 != b.1));
    }

    #[test]
    fn every_trial_has_data_of_its_own() {
        let mut seeds: Vec<u64> = ids("--all-profiles --repeat 3", 7)
            .into_iter()
            .map(|t| t.1)
            .collect();
        let planned = seeds.len();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), planned);
    }

    #[test]
    fn a_replay_is_the_trial_itself() {
        for trial in make(
            &args("--fs ext4,tmpfs --scenario punch-while-* --repeat 3 --rounds 9"),
            7,
        )
        .unwrap()
        {
            let words = trial.replay.strip_prefix("punchbench run").unwrap();
            let again = args(words);
            let replayed = make(&again, again.seed.unwrap()).unwrap();
            assert_eq!(replayed.len(), 1, "{words}");
            assert_eq!(
                (&replayed[0].id, replayed[0].data_seed),
                (&trial.id, trial.data_seed)
            );
        }
    }

    #[test]
    fn unknown_names_are_answered_with_the_nearest() {
        let error = make(&args("--scenario punch-whle-read"), 1)
            .unwrap_err()
            .to_string();
        assert!(error.contains("did you mean `punch-while-read`"), "{error}");
        let error = make(&args("--fs etx4"), 1).unwrap_err().to_string();
        assert!(error.contains("did you mean `ext4`"), "{error}");
        assert!(make(&args("--fs dir"), 1).is_err());
        assert!(make(&args("--fs ext4 --in /tmp"), 1).is_err());
    }

    #[test]
    fn a_run_that_is_not_told_on_what_brings_its_controls() {
        let controls = |words| {
            let plan = make(&args(words), 7).unwrap();
            let controls = plan.iter().filter(|t| t.target.mounted().is_none());
            controls.map(Trial::pair).collect::<Vec<_>>()
        };
        let both = [
            "punch-while-read@reference:none",
            "punch-while-read@reference:invalidate-lock",
        ];
        assert_eq!(controls(""), both);
        assert_eq!(controls("--scenario collapse-* --repeat 3"), both);
        assert_eq!(controls("--kernel debian:bookworm"), both);
        for told in ["--fs ext4", "--in /tmp", "--device /dev/loop9"] {
            assert_eq!(controls(told), [""; 0], "{told}");
        }
        assert_eq!(make(&args("--fs reference:glock"), 7).unwrap().len(), 13);
    }

    #[test]
    fn what_is_named_twice_is_planned_once() {
        let once = ids("--fs ext4 --scenario punch-while-read", 1);
        assert_eq!(
            ids(
                "--fs ext4,ext4 --scenario punch-while-read --scenario punch-while-rea?",
                1
            ),
            once
        );
    }

    #[test]
    fn shards_together_are_the_plan_in_its_order() {
        let words = "--fs ext4,xfs,btrfs --repeat 2 --seed 7";
        let whole = ids(words, 7);
        for n in 1..=5 {
            let mut joined = Vec::new();
            for i in 1..=n {
                let part = ids(&format!("{words} --shard {i}/{n}"), 7);
                let places: Vec<_> = part
                    .iter()
                    .map(|t| whole.iter().position(|w| w == t))
                    .collect();
                assert!(places.is_sorted(), "{places:?}");
                joined.extend(part);
            }
            joined.sort();
            let mut sorted = whole.clone();
            sorted.sort();
            assert_eq!(joined, sorted);
        }
    }

    #[test]
    fn picks_are_made_in_their_order_with_their_repeats() {
        let words = "--fs ext4,xfs --repeat 2 --pick punch-while-read@xfs,punch-while-fault@ext4";
        let plan = make(&args(words), 7).unwrap();
        let pairs: Vec<String> = plan.iter().map(Trial::pair).collect();
        let (read, fault) = ("punch-while-read@xfs", "punch-while-fault@ext4");
        assert_eq!(pairs, [read, read, fault, fault]);
    }
}
