//! A seed is a history.

use std::process::Command;

use tlb_sim::scenario::{Fault as Blow, Scenario, Streams};
use tlb_sim::trace::Trace;
use tlb_sim::world::{Run, run};

use crate::worlds::{ms, world};

fn history(seed: u64, change: impl Fn(&mut Scenario)) -> Run {
    let mut streams = Streams::new(seed);
    let mut world = world(&mut streams.workload, 12);
    world.timetable = vec![
        (ms(150), Blow::Kill(0)),
        (ms(400), Blow::Start(0)),
        (ms(450), Blow::Crash(1)),
        (ms(900), Blow::Bounce(1)),
    ];
    change(&mut world);
    run(&world, streams, Trace::default())
}

#[test]
fn same_seed_same_history() {
    for seed in 0..4 {
        let (one, two) = (history(seed, |_| ()), history(seed, |_| ()));
        assert!(
            one.facts > 200,
            "seed {seed} did hardly anything: {}",
            one.facts
        );
        assert_eq!((one.hash, one.facts), (two.hash, two.facts), "seed {seed}");
    }
}

#[test]
fn another_seed_or_another_fault_is_another_history() {
    let plain = history(1, |_| ());
    assert_ne!(plain.hash, history(2, |_| ()).hash);
    let later = history(1, |world| world.timetable[0].0 = ms(151));
    assert_ne!(plain.hash, later.hash);
}

/// Set in a process that is to print hashes for another one.
const PRINT: &str = "TLB_SIM_PRINT_HASHES";

#[test]
fn same_seed_same_history_in_another_process() {
    let hashes = || {
        let hash = |seed| format!("history {seed} {:016x}", history(seed, |_| ()).hash);
        (0..4).map(hash).collect::<Vec<_>>()
    };
    if std::env::var_os(PRINT).is_some() {
        for line in hashes() {
            println!("{line}");
        }
        return;
    }
    let this = std::env::current_exe().expect("the test knows where it is");
    let output = Command::new(this)
        .args([
            "--exact",
            "--nocapture",
            "determinism::same_seed_same_history_in_another_process",
        ])
        .env(PRINT, "1")
        .output()
        .expect("the test starts again");
    let said = String::from_utf8_lossy(&output.stdout);
    let theirs: Vec<&str> = said
        .lines()
        .filter_map(|line| Some(&line[line.find("history ")?..]))
        .collect();
    assert_eq!(theirs, hashes());
}
