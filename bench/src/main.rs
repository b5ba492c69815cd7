//! punchbench: for any kernel and each filesystem on it, is every way of filling the page cache serialized
//! against every way of taking the blocks from under it? This file only reads the command line.

mod blank;
mod cannot;
mod child;
mod cli;
mod command;
mod dmesg;
mod guest;
mod guest_end;
mod guest_gaps;
mod guests;
mod night;
mod outdir;
mod outside;
mod plan;
mod progress;
mod reference;
mod screen;
mod supervisor;
mod target;
mod trial;
mod watchdog;
mod wire;

use std::process::ExitCode;

use clap::Parser;
use punchbench_fs::adapters::fuse;
use punchbench_results::exit_code;
use punchbench_sys::process::end_on_broken_pipe;

use cli::{Cli, Command};

fn main() -> ExitCode {
    // A trial is process 1 too, of a namespace.
    let is_trial = std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == cli::TRIAL);
    if !is_trial && punchbench_guest::init::is_guest_init() {
        punchbench_guest::init::run();
    }
    if punchbench_guest::modprobe::is_called() {
        return ExitCode::from(u8::from(!punchbench_guest::modprobe::run()));
    }
    let command = Cli::parse().command;
    if command.only_prints() {
        // `| head` is no reason to complain; should this fail, it complains.
        let _ = end_on_broken_pipe();
    }
    let result = match command {
        Command::Run(args) => command::run::run(&args),
        Command::List(args) => command::list::run(args.json),
        Command::Check { files } => Ok(command::check::run(&files)),
        Command::Explain { scenario } => command::explain::run(&scenario),
        Command::Doctor(args) => command::doctor::run(args.json),
        Command::Report(args) => command::report::run(&args),
        Command::Export(args) => command::export::run(&args),
        Command::Merge(args) => command::merge::run(&args),
        Command::History(args) => command::history::run(&args),
        Command::Nightly(args) => command::nightly::run(&args),
        Command::Man { dir } => command::man::man(dir.as_deref()),
        Command::Completions { shell } => command::man::completions(shell),
        Command::Explore(args) => command::explore::run(&args),
        Command::Compare(args) => command::compare::run(&args),
        Command::Kernel(command) => command::kernel::run(&command),
        Command::Schema { of } => Ok(command::schema::run(of)),
        Command::Trial => return trial::main(),
        Command::FuseServer { below, mounted } => fuse::serve(&below, &mounted)
            .map(|()| exit_code::EXPECTED)
            .map_err(Into::into),
        Command::ServeImage => punchbench_fs::hold::serve()
            .map(|()| exit_code::EXPECTED)
            .map_err(Into::into),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("punchbench: {error:#}");
            ExitCode::from(if outdir::is_usage(&error) {
                exit_code::USAGE
            } else {
                exit_code::BENCH_ERROR
            })
        }
    }
}
