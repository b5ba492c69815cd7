//! `punchbench man` and `punchbench completions SHELL`: made from the command line's own definitions, so that they
//! are never out of date.

use std::fs;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use punchbench_results::exit_code;

use crate::cli::Cli;
use crate::screen;

/// Prints the page of the program, or writes a page for each command into `dir`.
pub fn man(dir: Option<&Path>) -> anyhow::Result<u8> {
    let command = Cli::command();
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        exit_codes(&mut page);
        screen::print(&String::from_utf8(page)?)?;
        return Ok(exit_code::EXPECTED);
    };
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    clap_mangen::generate_to(command, dir)
        .with_context(|| format!("cannot write man pages into {}", dir.display()))?;
    Ok(exit_code::EXPECTED)
}

fn exit_codes(page: &mut Vec<u8>) {
    page.extend(b".SH \"EXIT STATUS\"\n");
    for (code, sentence) in exit_code::ALL {
        page.extend(format!(".TP\n.B {code}\n{sentence}\n").into_bytes());
    }
}

/// Prints the completions for a shell.
pub fn completions(shell: Shell) -> anyhow::Result<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "punchbench", &mut text);
    screen::print(&String::from_utf8(text)?)?;
    Ok(exit_code::EXPECTED)
}
