//! The command line. What each command does is in `command/`, one file each.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use punchbench_fs::adapters::fuse;
use punchbench_fs::hold::HolderKind;
use punchbench_results::Shard;

/// Races every way of filling the page cache against every way of taking the blocks from under it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run scenarios on filesystems and print the results table
    Run(Box<RunArgs>),
    /// List scenarios and targets
    List(JsonArgs),
    /// Check scenario files without running them
    Check {
        /// The files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Say what a scenario races, and what is checked
    Explain {
        /// A scenario's name, or a scenario file
        scenario: String,
    },
    /// Say what this machine can run, and what would help
    Doctor(JsonArgs),
    /// Explore all interleavings of scenarios on the reference, under each locking policy
    ///
    /// The model has whole pages of files with blocks. What else a scenario may do is not modelled, and its cell says
    /// `–`: FIEMAP (it fills a filesystem's extent cache, not a page), ranges that cut pages, a block device as a file,
    /// and staging, which forces one of the orders that are all tried here.
    Explore(ExploreArgs),
    /// Say what changed from earlier runs to the last one, and fail if it got worse
    Compare(CompareArgs),
    /// Write one HTML page about runs: matrix, changes, evidence, trends
    Report(ReportArgs),
    /// Print the records of runs in another format: junit, ktap, kcidb, mail, markdown, json, jsonl
    Export(ExportArgs),
    /// Join the shards of a plan, and say what is missing
    Merge(MergeArgs),
    /// Show how each cell came out over time, and keep runs
    History(HistoryArgs),
    /// Run what teaches most within a budget of time, compare, report, and keep the results
    Nightly(Box<NightlyArgs>),
    /// List, fetch or remove the kernels for `run --kernel debian:SUITE`
    #[command(subcommand)]
    Kernel(KernelCommand),
    /// Print the JSON schema of scenario files, or of records
    Schema {
        /// Which one
        #[arg(value_enum, default_value = "scenario")]
        of: SchemaOf,
    },
    /// Print the manual page, or write one for each command
    #[command(hide = true)]
    Man {
        /// A directory for all pages
        dir: Option<PathBuf>,
    },
    /// Print the completions for a shell
    #[command(hide = true)]
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// One trial, in the namespaces that the runner made for it
    #[command(hide = true, name = TRIAL)]
    Trial,
    /// Serves a directory to a FUSE mount, until that is unmounted
    #[command(hide = true, name = fuse::SERVER)]
    FuseServer {
        /// The directory
        below: PathBuf,
        /// Where it is mounted
        mounted: PathBuf,
    },
    /// The server of a trial's image, which holds I/O for it
    #[command(hide = true, name = punchbench_fs::hold::SERVE_IMAGE)]
    ServeImage,
}

impl Command {
    /// Whether it does nothing but say something, so that it may end when nobody listens any more.
    pub fn only_prints(&self) -> bool {
        match self {
            Command::List(_)
            | Command::Check { .. }
            | Command::Explain { .. }
            | Command::Doctor(_)
            | Command::Schema { .. }
            | Command::Explore(_)
            | Command::Compare(_)
            | Command::Completions { .. }
            | Command::Man { dir: None }
            | Command::Kernel(KernelCommand::List(_)) => true,
            Command::Run(_)
            | Command::Report(_)
            | Command::Export(_)
            | Command::Merge(_)
            | Command::History(_)
            | Command::Nightly(_)
            | Command::Man { dir: Some(_) }
            | Command::Kernel(KernelCommand::Fetch { .. } | KernelCommand::Remove { .. })
            | Command::Trial
            | Command::FuseServer { .. }
            | Command::ServeImage => false,
        }
    }
}

/// The options of `explore`.
#[derive(Debug, Clone, Args)]
pub struct ExploreArgs {
    /// Scenarios or hazards of the model by name, glob or file [default: all]
    #[arg(value_delimiter = ',', long, value_name = "GLOB")]
    pub scenario: Vec<String>,
    /// Locking policies by name, glob or file [default: all]
    #[arg(value_delimiter = ',', long, value_name = "NAME|FILE")]
    pub policy: Vec<String>,
    /// Draw the shortest counterexample of each cell; otherwise up to three cells are drawn
    #[arg(long)]
    pub diagram: bool,
    /// Draw the counterexample of a token again, such as `v1:punch-read-reuse:none:…`
    #[arg(long, value_name = "TOKEN", conflicts_with = "scenario")]
    pub replay: Option<String>,
    /// States to visit at most, in each cell
    #[arg(long, value_name = "N", default_value_t = 20_000_000)]
    pub states: usize,
    /// Seconds to explore at most, in each cell
    #[arg(long, value_name = "S", value_parser = seconds, default_value = "60")]
    pub seconds: f64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What to do with the fetched kernels.
#[derive(Debug, Subcommand)]
pub enum KernelCommand {
    /// List those that were fetched
    List(JsonArgs),
    /// Fetch kernels, so that a run need not
    Fetch {
        /// Such as `debian:bookworm`
        #[arg(required = true, value_name = "K")]
        kernels: Vec<String>,
    },
    /// Remove fetched kernels; the next run that needs one fetches the newest
    Remove {
        /// Such as `debian:bookworm`
        #[arg(required = true, value_name = "K")]
        kernels: Vec<String>,
    },
}

/// The hidden command that the runner starts itself with.
pub const TRIAL: &str = "trial-child";

/// Memory of a guest: for an image, its page cache and the tools.
pub const MEMORY_MIB: u32 = 2048;

/// Seconds that a phase of a trial usually may show no progress.
pub const PATIENCE_S: f64 = 60.0;

/// Nothing but a format.
#[derive(Debug, Clone, Copy, Args)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The options of `compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// Runs in the order of time, at least two: run directories, record files, or tables (.md)
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,
    /// The last run covers a part on purpose: what it has no record of is no loss
    #[arg(long)]
    pub partial: bool,
    /// How to print it
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub format: CompareFormat,
    /// Print JSON
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// The forms of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CompareFormat {
    /// For a terminal
    Text,
    /// For a page
    Markdown,
    /// For programs
    Json,
}

/// The options of `report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Runs in the order of time, or histories of them; the last is shown, the others are its trend
    #[arg(required = true, value_name = "DIR")]
    pub runs: Vec<PathBuf>,
    /// The file to write
    #[arg(long, short, value_name = "FILE", default_value = punchbench_results::report::FILE_NAME)]
    pub output: PathBuf,
}

/// The options of `export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// junit, ktap, kcidb, mail, markdown, json, jsonl or terminal
    #[arg(value_name = "FORMAT")]
    pub format: String,
    /// Run directories or record files
    #[arg(required = true, value_name = "DIR")]
    pub runs: Vec<PathBuf>,
    /// The file to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Name of the CI system in a KCIDB submission [default: punchbench]
    #[arg(long, value_name = "NAME", value_parser = origin)]
    pub origin: Option<String>,
}

/// The options of `merge`.
#[derive(Debug, Clone, Args)]
pub struct MergeArgs {
    /// The shards' directories
    #[arg(required = true, value_name = "DIR")]
    pub runs: Vec<PathBuf>,
    /// The directory to make
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Where runs are kept unless told otherwise.
pub const HISTORY: &str = "punchbench-history";

/// The options of `history`.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// The directory of runs
    #[arg(long, value_name = "DIR", default_value = HISTORY, global = true)]
    pub dir: PathBuf,
    /// Scenarios by name or glob [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub scenario: Vec<String>,
    /// Targets by name or glob [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub fs: Vec<String>,
    /// Kernels by release or name, or glob [default: all]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub kernel: Vec<String>,
    /// The newest runs only
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// Runs no older than this, such as `30days`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub since: Option<std::time::Duration>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Something else than to show it
    #[command(subcommand)]
    pub command: Option<HistoryCommand>,
}

/// What to do with a history.
#[derive(Debug, Clone, Subcommand)]
pub enum HistoryCommand {
    /// Keep finished runs; the originals stay as they are
    Add {
        /// Run directories
        #[arg(required = true, value_name = "DIR")]
        runs: Vec<PathBuf>,
    },
    /// Remove old runs
    Prune {
        /// The newest runs, which stay
        #[arg(long, value_name = "N")]
        keep: usize,
        /// And the first of so many months
        #[arg(long, value_name = "N", default_value_t = 0)]
        monthly: usize,
    },
}

/// The options of `nightly`.
#[derive(Debug, Clone, Args)]
pub struct NightlyArgs {
    /// How long all of it may take, such as `2h`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub budget: std::time::Duration,
    /// Kernels as for `run`, and `here` for this machine's [default: here]
    #[arg(long, value_name = "K", value_delimiter = ',')]
    pub kernel: Vec<String>,
    /// Filesystems [default: every local one]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub fs: Vec<String>,
    /// Scenarios by name or glob [default: all, not the headline ones alone]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    pub scenario: Vec<String>,
    /// Every profile of each filesystem, not the base profile alone
    #[arg(long)]
    pub all_profiles: bool,
    /// Seconds of racing per trial [default: as `run`]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub seconds: Option<f64>,
    /// Where the nights are kept, and report and formats written
    #[arg(long, value_name = "DIR", default_value = HISTORY)]
    pub history: PathBuf,
    /// Formats to write beside the report
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "junit,markdown"
    )]
    pub format: Vec<String>,
    /// Nights to keep
    #[arg(long, value_name = "N", default_value_t = 90)]
    pub keep: usize,
    /// Of older ones, the first of so many months
    #[arg(long, value_name = "N", default_value_t = 24)]
    pub monthly: usize,
    /// Install missing mkfs and fsck tools first
    #[arg(long)]
    pub install: bool,
    /// Say what would be run, and run nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// A schema that can be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SchemaOf {
    /// Scenario files
    Scenario,
    /// The lines of records.jsonl
    Record,
}

/// What can hold the block I/O of staged scenarios.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum HolderArg {
    /// A process that serves the image by FUSE
    #[default]
    ImageServer,
    /// device-mapper's delay target
    DmDelay,
}

impl HolderArg {
    /// What it stands for.
    pub fn kind(self) -> HolderKind {
        match self {
            HolderArg::ImageServer => HolderKind::ImageServer,
            HolderArg::DmDelay => HolderKind::DmDelay,
        }
    }
}

/// The options of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Filesystems, such as `ext4,xfs` or `ext4:1k`, and `reference:POLICY` or `reference:*`
    /// [default: every local one]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub fs: Vec<String>,
    /// Scenarios by name, glob or file [default: all]
    #[arg(value_delimiter = ',', long, value_name = "GLOB")]
    pub scenario: Vec<String>,
    /// Boot another kernel and run there: `debian:SUITE`, a vmlinuz or linux.uml, or IMAGE:MODULESDIR
    #[arg(long, value_name = "K")]
    pub kernel: Vec<String>,
    /// Memory of a machine with another kernel, in MiB
    #[arg(long, value_name = "MIB", default_value_t = MEMORY_MIB, value_parser = clap::value_parser!(u32).range(256..=1 << 20))]
    pub memory: u32,
    /// Seconds of racing per trial [default: 2; 10 with --kernel]
    #[arg(long, value_name = "S", value_parser = seconds, conflicts_with = "rounds")]
    pub seconds: Option<f64>,
    /// Race on, up to so many seconds, while the evidence that `safe` needs is not there [default: six times
    /// as long; not at all with --seconds]
    #[arg(long, value_name = "S", value_parser = seconds, conflicts_with = "rounds")]
    pub most: Option<f64>,
    /// Rounds per trial, instead of seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: Option<u64>,
    /// Trials of each scenario on each target
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub repeat: u32,
    /// The same seed gives the same plan and the same data [default: drawn, and printed]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Trials in the making at a time; never more than one of them races [default: 1, of staged scenarios 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: Option<u16>,
    /// Every profile of each filesystem, not the base profile alone
    #[arg(long)]
    pub all_profiles: bool,
    /// Where records, tables and logs go; a directory with records of the same plan is resumed
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where the images go [default: the fastest place with room]
    #[arg(long, value_name = "DIR")]
    pub image_dir: Option<PathBuf>,
    /// A block device to use instead of images; refused if it is in use or not empty
    #[arg(long, value_name = "DEV", conflicts_with = "in_dir")]
    pub device: Option<PathBuf>,
    /// Take the device even if something is on it, and destroy that
    #[arg(long, requires = "device")]
    pub insist: bool,
    /// Race in a directory of a filesystem that is mounted already
    #[arg(long = "in", value_name = "DIR")]
    pub in_dir: Option<PathBuf>,
    /// What holds the block I/O of staged scenarios
    #[arg(long, value_enum, default_value_t)]
    pub holder: HolderArg,
    /// Install missing mkfs and fsck tools first
    #[arg(long)]
    pub install: bool,
    /// Filesystems that must not be skipped
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub require: Vec<String>,
    /// Run one of N parts of the plan, such as 2/4; `merge` joins them again
    #[arg(long, value_name = "I/N", requires = "seed")]
    pub shard: Option<Shard>,
    /// Write the results in these formats, too: junit, ktap, kcidb, mail, json
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub format: Vec<String>,
    /// Print the results as JSON
    #[arg(long)]
    pub json: bool,
    /// Just these of the plan, in this order
    #[arg(
        long,
        value_name = "SCENARIO@TARGET",
        value_delimiter = ',',
        hide = true
    )]
    pub pick: Vec<String>,
    /// Make an operation lie, to see the bench find out
    #[arg(long, value_name = "KIND", hide = true)]
    pub inject: Option<String>,
    /// How long a phase of a trial may show no progress; more for a slow machine, and guests are given more too
    #[arg(long, value_name = "S", value_parser = seconds, default_value_t = PATIENCE_S)]
    pub patience: f64,
    /// Say when a trial enters a phase
    #[arg(long, hide = true)]
    pub phases: bool,
    /// Skip the first trials of the plan
    #[arg(long, value_name = "N", hide = true, default_value_t = 0)]
    pub from: usize,
    /// Also write each record line here
    #[arg(long, value_name = "FILE", hide = true)]
    pub records_to: Option<PathBuf>,
}

fn origin(text: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !text.is_empty() && text.chars().all(legal) {
        Ok(text.to_owned())
    } else {
        Err("lower-case letters, digits and `_`".to_owned())
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if (0.01..=86_400.0).contains(&s) => Ok(s),
        _ => Err("a number of seconds between 0.01 and 86400".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold_together() {
        super::Cli::command().debug_assert();
    }
}
