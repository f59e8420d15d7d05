//! What a failure looks like: everything that is needed to see it and to see it again.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::coverage::Coverage;
use super::scenario::Scenario;
use super::shrink::shrink;
use super::world::{Run, run};
use tlb_engine::planted;

use super::text;
use crate::model::ledger::Finding;

/// Most runs that making a failure smaller may take.
const SHRINK_RUNS: u64 = 600;
/// Nor more rounds than this in all: whoever waits for a scenario that never comes to rest wants to hear of it.
const SHRINK_ROUNDS: u64 = 60_000_000;

/// Runs a scenario; a panic of the engine is a finding like any other.
pub fn run_caught(scenario: &Scenario) -> Run {
    catch_unwind(AssertUnwindSafe(|| run(scenario))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Run {
            findings: vec![Finding {
                checker: "panic",
                what: text.unwrap_or("a panic without words").to_owned(),
            }],
            hash: 0,
            step: 0,
            events: 0,
            sessions: 0,
            lasted: Duration::ZERO,
            coverage: Coverage::default(),
            last: Vec::new(),
        }
    })
}

/// All about a failure: what was found, when, how it came to it, and a smaller scenario that fails
/// alike.
///
/// `command` runs the scenario again.
pub fn failure(scenario: &Scenario, failed: &Run, command: &str) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_failure(&mut out, scenario, failed, command);
    out
}

fn write_failure(
    out: &mut String,
    scenario: &Scenario,
    failed: &Run,
    command: &str,
) -> std::fmt::Result {
    if let Some(name) = planted::NAME {
        writeln!(out, "PLANTED BUG: {name}")?;
    }
    writeln!(
        out,
        "seed {}, step {}, after {:?}",
        scenario.seed, failed.step, failed.lasted
    )?;
    for finding in &failed.findings {
        writeln!(out, "  {finding}")?;
    }
    writeln!(out, "\nagain:\n  {command}\n\nthe last of what happened:")?;
    for line in &failed.last {
        writeln!(out, "  {line}")?;
    }
    let checker = failed.findings.first().map(|finding| finding.checker);
    let runs = (SHRINK_ROUNDS / failed.step.max(1)).min(SHRINK_RUNS);
    let small = shrink(scenario, runs as usize, |candidate| {
        let run = run_caught(candidate);
        run.findings.first().map(|finding| finding.checker) == checker
    });
    let again = run_caught(&small);
    writeln!(
        out,
        "\nas small as it gets (keep it in a file, run it by --replay FILE):\n"
    )?;
    out.push_str(&text::print(&small));
    for finding in &again.findings {
        writeln!(out, "# {finding}")?;
    }
    for line in &again.last {
        writeln!(out, "# {line}")?;
    }
    Ok(())
}
