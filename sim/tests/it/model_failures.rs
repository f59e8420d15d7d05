//! What happens when something is wrong: it is made small, and told with everything that is needed.

use std::process::Command;

use tlb_sim::model::ledger::Finding;
use tlb_sim::swarm::draw::draw;
use tlb_sim::swarm::report::failure;
use tlb_sim::swarm::scenario::{Scenario, Start, Then, Trouble};
use tlb_sim::swarm::shrink::shrink;
use tlb_sim::swarm::{Intensity, run, text};

/// Seed of a scenario with many clients and faults.
fn crowd() -> Scenario {
    (0..)
        .map(|seed| draw(seed, Intensity::Swarm))
        .find(|it| it.clients.len() >= 30 && it.faults.len() >= 20)
        .expect("there is one")
}

#[test]
fn shrinking_keeps_what_a_failure_needs_and_little_else() {
    let mut scenario = crowd();
    scenario.faults.push((3_000_000, Trouble::Kill(0)));
    scenario.clients[17].script.send = 4321;
    // An artificial checker: it minds one fault, and one client that sends enough.
    let fails = |it: &Scenario| {
        it.faults
            .iter()
            .any(|&(_, trouble)| trouble == Trouble::Kill(0))
            && it.clients.iter().any(|client| client.script.send >= 1000)
    };
    let small = shrink(&scenario, 1000, fails);
    assert!(fails(&small));
    assert_eq!((small.clients.len(), small.faults.len()), (1, 1));
    let client = &small.clients[0];
    assert!((1000..2000).contains(&client.script.send));
    assert_eq!(
        (client.garbage, client.script.pause_us, client.script.then),
        (0, 0, Then::Fin)
    );
    assert_eq!(client.script.start, Start::Now);
    assert_eq!(small.workers, 1);
}

#[test]
fn shrinking_ends_when_its_budget_does() {
    let scenario = crowd();
    let tries = std::cell::Cell::new(0);
    let same = shrink(&scenario, 10, |_| {
        tries.set(tries.get() + 1);
        false
    });
    assert_eq!((tries.get(), same), (10, scenario));
}

#[test]
fn a_failure_is_told_with_everything_that_is_needed() {
    let scenario = draw(7, Intensity::Swarm);
    let mut failed = run(&scenario);
    failed.findings = vec![Finding {
        checker: "made-up",
        what: "nothing is wrong".into(),
    }];
    let report = failure(&scenario, &failed, "the command");
    for part in [
        "seed 7, step ",
        "made-up: nothing is wrong",
        "the command",
        "as small as",
    ] {
        assert!(report.contains(part), "{part}");
    }
    let lines = report
        .lines()
        .filter(|line| line.contains("s w") && !line.starts_with('#'));
    assert!(lines.count() > 10, "the last lines of the trace");
    let (_, small) = report
        .split_once("--replay FILE):")
        .expect("a scenario follows");
    assert!(text::parse(small).is_ok(), "it can be run as it is printed");
}

#[test]
fn the_program_replays_a_scenario_from_a_file() {
    let directory = env!("CARGO_TARGET_TMPDIR");
    let path = format!("{directory}/replayed.scenario");
    let scenario = draw(12, Intensity::Swarm);
    std::fs::write(&path, text::print(&scenario)).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tlb-sim"))
        .args(["--replay", &path, "--hash"])
        .output()
        .expect("tlb-sim starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    assert!(
        text.starts_with(&format!("{:016x}\n", run(&scenario).hash)),
        "{text}"
    );
}

#[test]
fn the_program_refuses_what_it_does_not_know() {
    for args in [
        &["--mode", "wild"][..],
        &["--seeds"],
        &["--seed", "x"],
        &["--tea"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tlb-sim"))
            .args(args)
            .output()
            .expect("tlb-sim starts");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}
