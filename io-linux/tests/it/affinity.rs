//! A key's backend depends on the key and the membership, on nothing else.

use std::net::SocketAddr;

use crate::support::farm::{BACKENDS, Farm, greet_and_echo};
use crate::support::peers::owner;
use crate::support::setup::Setup;
use crate::support::tlb::Tlb;

/// Which backend greets each of the keys `0..count`.
#[track_caller]
fn owners(entry: SocketAddr, count: u32) -> Vec<u8> {
    (0..count).map(|key| owner(entry, key)).collect()
}

#[test]
fn a_key_has_one_backend_from_every_worker_and_after_a_restart() {
    let serving = Farm::new(BACKENDS).serve(greet_and_echo);
    let setup = Setup::new(serving.addresses()).workers(4);
    let tlb = Tlb::start(&setup);
    let first = owners(tlb.address(), 64);
    for round in 0..7 {
        // The kernel spreads the connections of one key over the workers by their ports.
        assert_eq!(owners(tlb.address(), 64), first, "round {round}");
    }
    drop(tlb);
    let restarted = Tlb::start(&setup.workers(2));
    assert_eq!(owners(restarted.address(), 64), first, "after a restart");
}

#[test]
fn a_backend_taken_away_moves_only_its_own_keys() {
    let serving = Farm::new(BACKENDS).serve(greet_and_echo);
    let setup = Setup::new(serving.addresses()).workers(2);
    let tlb = Tlb::start(&setup);
    let before = owners(tlb.address(), 256);
    for backend in 0..16 {
        assert!(before.contains(&backend), "no key for backend {backend}");
    }
    drop(tlb);
    let gone = before[0];
    let smaller = Tlb::start(&setup.without(usize::from(gone)));
    let after = owners(smaller.address(), 256);
    for (key, (before, after)) in before.iter().zip(&after).enumerate() {
        if *before == gone {
            assert_ne!(*after, gone, "key {key} goes to a backend that is gone");
        } else {
            assert_eq!(before, after, "key {key} moved although its backend stayed");
        }
    }
}
