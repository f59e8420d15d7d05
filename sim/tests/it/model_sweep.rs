//! Sweeps that every test run makes, and the seeds that once failed.

use tlb_sim::swarm::draw::draw;
use tlb_sim::swarm::report::{failure, run_caught};
use tlb_sim::swarm::{Intensity, Run, text};

/// What once found a bug: the seed, as long as seeds mean what they mean now, and the scenario made
/// small.
const REGRESSIONS: &[(u64, &str)] = &[
    (1, include_str!("regressions/unregistered-client.scenario")),
    (612, include_str!("regressions/copy-behind-pipe.scenario")),
    (
        72993,
        include_str!("regressions/client-broken-with-its-backend.scenario"),
    ),
    (
        155,
        include_str!("regressions/warm-of-unregistered-client.scenario"),
    ),
    (
        256,
        include_str!("regressions/read-beyond-preface.scenario"),
    ),
    (987, include_str!("regressions/winding-replayed.scenario")),
    (16598, include_str!("regressions/told-elsewhere.scenario")),
];

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name);
    text.map_or(default, |text| text.parse().expect("it is a number"))
}

fn must_hold(seed: u64, intensity: Intensity) -> Run {
    let scenario = draw(seed, intensity);
    let run = run_caught(&scenario);
    if !run.findings.is_empty() {
        let command = format!("cargo run -p tlb-sim -- --mode {intensity} --seeds 1 --seed {seed}");
        panic!("{}", failure(&scenario, &run, &command));
    }
    run
}

/// `TLB_SIM_SEED` is the first seed, `TLB_SIM_MODEL_SEEDS` how many there are.
#[test]
fn a_swarm_of_scenarios_holds() {
    let first = number("TLB_SIM_SEED", 1);
    let count = number("TLB_SIM_MODEL_SEEDS", 300);
    let sessions: u64 = (first..first + count)
        .map(|seed| must_hold(seed, Intensity::Swarm).sessions)
        .sum();
    assert!(sessions > count, "the scenarios have sessions in them");
}

#[test]
fn calm_scenarios_complete_every_session() {
    for seed in 0..30 {
        let run = must_hold(seed, Intensity::Calm);
        let incomplete = run
            .coverage
            .of("close reason")
            .filter(|(name, _)| *name != "completed");
        assert_eq!(incomplete.count(), 0, "seed {seed}");
    }
}

#[test]
fn what_once_failed_holds() {
    for &(seed, small) in REGRESSIONS {
        must_hold(seed, Intensity::Swarm);
        let run = run_caught(&text::parse(small).expect("it is a scenario"));
        assert_eq!(run.findings, [], "seed {seed}, made small");
        assert!(
            run.coverage.of("close reason").count() > 0,
            "a session ended"
        );
    }
}
