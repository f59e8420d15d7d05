//! The alarm itself: histories with a planted fault must be noticed.

use tlb_engine::api::Event;
use tlb_engine::ids::Incarnation;
use tlb_sim::check::check;
use tlb_sim::scenario::{Scenario, Streams};
use tlb_sim::trace::Trace;
use tlb_sim::world::{Run, run};

use crate::worlds::world;

/// What is found in a good history after `change`.
fn findings(change: impl Fn(&Scenario, &mut Run)) -> Vec<String> {
    let mut streams = Streams::new(7);
    let world = world(&mut streams.workload, 6);
    let mut run = run(&world, streams, Trace::default());
    assert_eq!(
        check(&world, &run),
        Vec::<String>::new(),
        "it was good before"
    );
    change(&world, &mut run);
    check(&world, &run)
}

fn assert_found(what: &str, change: impl Fn(&Scenario, &mut Run)) {
    let findings = findings(change);
    assert!(
        findings.iter().any(|finding| finding.contains(what)),
        "{what}: {findings:?}"
    );
}

#[test]
fn a_session_without_an_end_is_noticed() {
    assert_found("never ended", |_, run| {
        run.events[0].retain(|seen| !matches!(seen.event, Event::Closed(_)));
    });
}

#[test]
fn a_key_at_the_wrong_backend_is_noticed() {
    assert_found("past b", |_, run| {
        for seen in &mut run.events[0] {
            if let Event::Picked {
                backend: Some(Incarnation(number)),
                ..
            } = &mut seen.event
            {
                *number = (*number + 1) % 3;
            }
        }
    });
}

#[test]
fn a_cut_stream_with_a_clean_end_is_noticed() {
    assert_found("took a clean end", |_, run| run.clients[2].received -= 1);
    assert_found("took c", |_, run| {
        for served in &mut run.served {
            served.received -= 1;
        }
    });
}

#[test]
fn a_backend_that_goes_down_for_nothing_is_noticed() {
    assert_found("is down after 0 failures", |_, run| {
        let (pool, backend) = run.events[0]
            .iter()
            .find_map(|seen| match seen.event {
                Event::Picked { pool, backend, .. } => Some((pool, backend?)),
                _ => None,
            })
            .expect("somebody was picked");
        let mut seen = run.events[0][0].clone();
        seen.event = Event::BackendDown {
            pool,
            backend,
            fault: tlb_engine::api::Fault::Refused,
        };
        run.events[0].insert(0, seen);
    });
}

#[test]
fn bytes_that_were_not_counted_are_noticed() {
    assert_found("counted", |_, run| {
        for seen in &mut run.events[0] {
            if let Event::Closed(closed) = &mut seen.event {
                closed.forward -= 1;
            }
        }
    });
}
