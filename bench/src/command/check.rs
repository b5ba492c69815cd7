//! `punchbench check FILE…`: loads scenario files, and says what is wrong with them.

use std::io::IsTerminal;
use std::path::PathBuf;

use punchbench_results::exit_code;
use punchbench_scenarios::load_file;

/// Checks all of them, whatever the first ones are like.
pub fn run(files: &[PathBuf]) -> u8 {
    let mut wrong = false;
    for file in files {
        match load_file(file) {
            Ok(scenario) => println!("{}: {} is well-formed", file.display(), scenario.scenario),
            Err(diagnostics) => {
                wrong = true;
                eprintln!("{}", diagnostics.render(std::io::stderr().is_terminal()));
            }
        }
    }
    if wrong {
        exit_code::USAGE
    } else {
        exit_code::EXPECTED
    }
}
