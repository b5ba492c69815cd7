//! `punchbench explore`: every interleaving of a scenario on the reference, under each locking policy.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use punchbench_reference::draw::draw;
use punchbench_reference::explore::{Limits, estimate};
use punchbench_reference::oracle;
use punchbench_reference::{
    Cell, Outcome, Policy, Subject, Token, cell, compile, policies, subjects,
};
use punchbench_results::exit_code;
use punchbench_scenarios::{Scenario, catalog, load_file, matches_glob};

use crate::cli::ExploreArgs;
use crate::plan::{PlanError, nearest};

/// Larger estimates are said before the search begins.
const LARGE: f64 = 5e7;

/// Explores, and prints the matrix.
pub fn run(args: &ExploreArgs) -> anyhow::Result<u8> {
    let policies = chosen_policies(&args.policy)?;
    if let Some(token) = &args.replay {
        return replay(token, &policies);
    }
    let subjects = chosen_subjects(&args.scenario)?;
    let limits = Limits {
        states: args.states,
        time: Duration::from_secs_f64(args.seconds),
        reduce: true,
    };
    let few = subjects.len() * policies.len() <= 3;
    let shown = few || args.diagram || args.json;
    let mut rows = Vec::new();
    for subject in &subjects {
        policies.iter().for_each(|p| warn(subject, p, &limits));
        rows.push(
            policies
                .iter()
                .map(|p| cell(subject, p, &limits, shown))
                .collect::<Vec<_>>(),
        );
    }
    if args.json {
        let cells: Vec<&Cell> = rows.iter().flatten().collect();
        println!("{}", serde_json::to_string_pretty(&cells)?);
        return Ok(exit_code::EXPECTED);
    }
    print!("{}", table(&policies, &rows, width()));
    println!(
        "\n`proved N`: none of the N states that any order of steps leads to is wrong. {}",
        bounds(&limits)
    );
    for cell in rows.iter().flatten() {
        print(cell, shown);
    }
    Ok(exit_code::EXPECTED)
}

fn bounds(limits: &Limits) -> String {
    format!(
        "Each filler runs once, on one or two pages; at most {} states and {} s a cell.",
        limits.states,
        limits.time.as_secs_f64()
    )
}

/// Says beforehand what will not end.
fn warn(subject: &Subject, policy: &Policy, limits: &Limits) {
    let Ok(setup) = &subject.setup else {
        return;
    };
    if let Ok(model) = compile(setup, policy)
        && estimate(&model) > LARGE
    {
        eprintln!(
            "{} under {} may have some {:.0e} states; {} are visited at most, then random and PCT walks try. Leave actors out to prove it.",
            subject.name,
            policy.policy,
            estimate(&model),
            limits.states
        );
    }
}

fn print(cell: &Cell, shown: bool) {
    match &cell.outcome {
        Outcome::Broken { anomalies, .. } if shown => {
            for found in anomalies {
                println!("\n{} under {}: {}", cell.setup, cell.policy, found.anomaly);
                if let Some(diagram) = &found.diagram {
                    print!("{}", diagram.render_text(width()));
                }
            }
        }
        Outcome::Open { states, walks, .. } => println!(
            "{} under {}: {states} states visited, not all; {walks} walks found nothing. Not proved.",
            cell.setup, cell.policy
        ),
        Outcome::NotModelled { why } => println!("{} under {}: {why}.", cell.setup, cell.policy),
        Outcome::Broken { .. } | Outcome::Proved { .. } => {}
    }
}

fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    columns.unwrap_or(if std::io::stdout().is_terminal() {
        120
    } else {
        160
    })
}

/// Policies side by side, as many as fit; the rest in further tables.
fn table(policies: &[Policy], rows: &[Vec<Cell>], width: usize) -> String {
    let first = rows
        .iter()
        .filter_map(|r| r.first())
        .map(|c| c.setup.len())
        .max()
        .unwrap_or(0);
    let wide = |n: usize| {
        let cells = rows.iter().map(|r| r[n].label().chars().count());
        cells.max().unwrap_or(0).max(policies[n].policy.len())
    };
    let mut out = String::new();
    let mut at = 0;
    while at < policies.len() {
        let mut end = at + 1;
        while end < policies.len()
            && first + (at..=end).map(|n| wide(n) + 2).sum::<usize>() <= width
        {
            end += 1;
        }
        if at > 0 {
            out.push('\n');
        }
        let mut line = |name: &str, cell: &dyn Fn(usize) -> String| {
            let cells: String = (at..end)
                .map(|n| format!("  {:<1$}", cell(n), wide(n)))
                .collect();
            out.push_str(format!("{name:<first$}{cells}").trim_end());
            out.push('\n');
        };
        line("", &|n| policies[n].policy.clone());
        for row in rows {
            line(&row[0].setup, &|n| row[n].label());
        }
        at = end;
    }
    out
}

fn chosen_policies(asked: &[String]) -> anyhow::Result<Vec<Policy>> {
    let all = policies();
    if asked.is_empty() {
        return Ok(all);
    }
    let mut chosen: Vec<Policy> = Vec::new();
    for name in asked {
        if name.ends_with(".yaml") || name.contains('/') {
            let policy = Policy::load_file(Path::new(name))
                .map_err(|e| PlanError::Scenario(e.to_string()))?;
            chosen.push(policy);
            continue;
        }
        let matching: Vec<&Policy> = all
            .iter()
            .filter(|p| matches_glob(name, &p.policy))
            .collect();
        if matching.is_empty() {
            let near = nearest(name, all.iter().map(|p| p.policy.as_str()));
            bail!(PlanError::Scenario(format!(
                "there is no policy `{name}`{}",
                hint(near)
            )));
        }
        chosen.extend(matching.into_iter().cloned());
    }
    Ok(chosen)
}

fn hint(near: Option<String>) -> String {
    near.map_or(String::new(), |n| format!("; did you mean `{n}`?"))
}

fn chosen_subjects(asked: &[String]) -> anyhow::Result<Vec<Subject>> {
    let mut files: Vec<Scenario> = Vec::new();
    for name in asked.iter().filter(|n| n.ends_with(".yaml")) {
        files.push(load_file(name.as_ref()).map_err(|e| PlanError::Scenario(e.to_string()))?);
    }
    let all = subjects(&catalog());
    if asked.is_empty() {
        return Ok(all);
    }
    let mut chosen = Vec::new();
    for glob in asked.iter().filter(|n| !n.ends_with(".yaml")) {
        let matching: Vec<&Subject> = all.iter().filter(|s| matches_glob(glob, &s.name)).collect();
        if matching.is_empty() {
            bail!(PlanError::NoScenario {
                glob: glob.clone(),
                nearest: nearest(glob, all.iter().map(|s| s.name.as_str())),
            });
        }
        chosen.extend(matching.into_iter().cloned());
    }
    let names: Vec<String> = files.iter().map(|s| s.scenario.clone()).collect();
    chosen.extend(
        subjects(&files)
            .into_iter()
            .filter(|s| names.contains(&s.name)),
    );
    Ok(chosen)
}

/// Draws the schedule of a token again. Minimised set-ups are found again by leaving out what they left out.
fn replay(text: &str, policies: &[Policy]) -> anyhow::Result<u8> {
    let token = Token::parse(text).map_err(|e| PlanError::Scenario(e.to_string()))?;
    let subject = chosen_subjects(std::slice::from_ref(&token.setup))?;
    let policy = policies.iter().find(|p| p.policy == token.policy);
    let Some(policy) = policy else {
        let near = nearest(&token.policy, policies.iter().map(|p| p.policy.as_str()));
        bail!(PlanError::Scenario(format!(
            "there is no policy `{}`{}",
            token.policy,
            hint(near)
        )));
    };
    let setup = subject.into_iter().find_map(|s| s.setup.ok());
    let models = setup
        .iter()
        .flat_map(punchbench_reference::minimise::all_smaller);
    let model = models
        .filter_map(|s| compile(&s, policy).ok())
        .find(|m| token.fits(m).is_ok());
    let Some(model) = model else {
        bail!(PlanError::Scenario(
            punchbench_reference::TokenError::Changed {
                setup: token.setup,
                policy: token.policy
            }
            .to_string()
        ));
    };
    let moments = punchbench_reference::draw::replay(&model, &token.schedule)
        .map_err(|e| PlanError::Scenario(e.to_string()))?;
    let last = moments.last().map_or(model.first, |m| m.after);
    let found = oracle::check(&model, &last).map(|(a, _)| a);
    let anomaly = found.unwrap_or(match punchbench_reference::draw::round(&moments) {
        0 => punchbench_reference::Anomaly::Deadlock,
        _ => punchbench_reference::Anomaly::Livelock,
    });
    let diagram =
        draw(&model, anomaly, &token.schedule).map_err(|e| PlanError::Scenario(e.to_string()))?;
    print!("{}", diagram.render_text(width()));
    Ok(exit_code::EXPECTED)
}
