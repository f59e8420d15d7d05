//! The same seed brings the same history, and a scenario survives being written down.

use std::process::Command;

use tlb_sim::swarm::draw::draw;
use tlb_sim::swarm::{Intensity, run, text};

const SEEDS: std::ops::Range<u64> = 500..530;

#[test]
fn the_same_seed_twice_in_one_process() {
    let mut hashes = Vec::new();
    for seed in SEEDS {
        let scenario = draw(seed, Intensity::Swarm);
        assert_eq!(scenario, draw(seed, Intensity::Swarm));
        let (one, two) = (run(&scenario), run(&scenario));
        assert_eq!(
            (one.hash, one.events),
            (two.hash, two.events),
            "seed {seed}"
        );
        hashes.push(one.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(
        hashes.len() as u64,
        SEEDS.end - SEEDS.start,
        "different seeds differ"
    );
}

#[test]
fn the_same_seed_in_two_processes() {
    let hashes = || {
        let output = Command::new(env!("CARGO_BIN_EXE_tlb-sim"))
            .args(["--seed", "500", "--seeds", "30", "--hash"])
            .output()
            .expect("tlb-sim starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        let text = String::from_utf8(output.stdout).expect("it prints text");
        let hash = |line: &str| line.split_once(' ').map(|(_, hash)| hash.to_owned());
        text.lines().take(30).filter_map(hash).collect::<Vec<_>>()
    };
    let (one, two) = (hashes(), hashes());
    assert_eq!(one.len(), 30);
    assert_eq!(one, two);
    let here = SEEDS.map(|seed| format!("{:016x}", run(&draw(seed, Intensity::Swarm)).hash));
    assert_eq!(one, here.collect::<Vec<_>>());
}

#[test]
fn scenarios_survive_being_printed() {
    for intensity in [Intensity::Calm, Intensity::Swarm] {
        for seed in 0..200 {
            let scenario = draw(seed, intensity);
            let printed = text::print(&scenario);
            assert_eq!(text::parse(&printed).as_ref(), Ok(&scenario), "seed {seed}");
        }
    }
}

#[test]
fn what_is_not_a_scenario_is_refused_with_its_place() {
    let good = text::print(&draw(3, Intensity::Swarm));
    let cases = [
        ("", 0),
        ("planet seed=1", 1),
        ("# nothing\n\nfault at=x what=stop", 3),
        ("fault at=1 what=tea", 1),
        ("fault at=1 what=kill", 1),
    ];
    for (text, line) in cases {
        assert_eq!(text::parse(text).unwrap_err().line, line, "{text}");
    }
    for bad in ["fault at=1 what=kill of=999", "fault at=1 what=ports of=64"] {
        assert_eq!(
            text::parse(&format!("{good}{bad}\n")).unwrap_err().line,
            0,
            "{bad}"
        );
    }
}
