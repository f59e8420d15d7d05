//! A backend that cannot be reached costs a session nothing but time.

use std::io::Write;
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;

use crate::support::farm::{Farm, Mute, Reserved, greet_and_echo};
use crate::support::peers::{connect, owner, reset, try_owner};
use crate::support::setup::Setup;
use crate::support::stream::frame;
use crate::support::tlb::{Tlb, closed_with, field};
use crate::support::{PATIENCE, eventually, proc};

const KEYS: u32 = 48;

/// Backends 1, 2 and 3 live; backend 0 is at `dead`. Every key must reach a live one with its bytes
/// intact, those of the live ones their own.
fn keys_of_the_dead_move_on(dead: SocketAddr, pool: &[&str]) {
    let serving = Farm::new(4).serve(greet_and_echo);
    let setup = Setup::new(serving.addresses());
    let all_live = Tlb::start(&setup);
    let before: Vec<u8> = (0..KEYS)
        .map(|key| owner(all_live.address(), key))
        .collect();
    drop(all_live);

    let mut addresses = serving.addresses().to_vec();
    addresses[0] = dead;
    let setup = pool
        .iter()
        .fold(Setup::new(&addresses), |setup, line| setup.pool(line));
    let tlb = Tlb::start(&setup);
    // All at once: with a dead backend each of its sessions waits for a timeout.
    let after: Vec<u8> = thread::scope(|scope| {
        let entry = tlb.address();
        let clients: Vec<_> = (0..KEYS)
            .map(|key| scope.spawn(move || owner(entry, key)))
            .collect();
        let joined = clients.into_iter().map(thread::ScopedJoinHandle::join);
        joined
            .map(|owner| owner.expect("a served session"))
            .collect()
    });
    assert!(before.contains(&0), "no key belongs to the dead backend");
    for (key, (before, after)) in before.iter().zip(&after).enumerate() {
        if *before == 0 {
            assert_ne!(*after, 0, "key {key} reached a dead backend");
        } else {
            assert_eq!(before, after, "key {key} moved although its backend lives");
        }
    }
}

#[test]
fn a_refused_session_lands_on_the_next_owner() {
    let dead = Reserved::new(9);
    keys_of_the_dead_move_on(dead.address(), &["fall = 1000000"]);
}

#[test]
fn a_session_that_gets_no_answer_lands_on_the_next_owner() {
    let dead = Mute::new(9);
    let pool = ["fall = 1000000", "connect-timeout = \"400ms\""];
    keys_of_the_dead_move_on(dead.address(), &pool);
}

#[test]
fn a_backend_that_is_down_is_left_alone() {
    let dead = Mute::new(9);
    let serving = Farm::new(1).serve(greet_and_echo);
    let addresses = [dead.address(), serving.addresses()[0]];
    let setup = Setup::new(&addresses)
        .pool("fall = 1")
        .pool("connect-timeout = \"2s\"");
    let tlb = Tlb::start(&setup);
    for key in 0..KEYS {
        assert_eq!(owner(tlb.address(), key), 0, "key {key}");
    }
    let started = Instant::now();
    for key in 0..KEYS {
        assert_eq!(owner(tlb.address(), key), 0, "key {key}");
    }
    // At two seconds for each key of the dead backend this would take half a minute.
    assert!(
        started.elapsed() < PATIENCE / 2,
        "sessions still wait for a backend that is down: {:?}",
        started.elapsed()
    );
}

#[test]
fn a_client_that_resets_while_tlb_connects_is_gone_at_once() {
    let dead = Mute::new(9);
    let setup = Setup::new(&[dead.address()]).pool("connect-timeout = \"600s\"");
    let tlb = Tlb::start(&setup);
    let mut client = connect(tlb.address());
    client.write_all(&frame(1, 40)).expect("the client sends");
    eventually("tlb connects", || {
        proc::is_connecting(dead.address()).then_some(())
    });
    reset(client);
    tlb.await_closed("client-reset");
}

#[test]
fn no_owner_left_ends_the_session_in_order() {
    let dead: Vec<Reserved> = (0..3).map(Reserved::new).collect();
    let addresses: Vec<SocketAddr> = dead.iter().map(Reserved::address).collect();
    let setup = Setup::new(&addresses)
        .pool("fall = 1")
        .pool("retries = 1")
        .pool("panic-threshold = \"off\"");
    let tlb = Tlb::start(&setup);
    // Two attempts each take at least one backend down, and no session finds one.
    for key in 0..6 {
        assert_eq!(try_owner(tlb.address(), key), None, "key {key}");
    }
    tlb.await_closed("connect-failed");
    tlb.await_closed("no-backend");
}

#[test]
fn a_session_makes_as_many_attempts_as_it_may() {
    let dead: Vec<Reserved> = (0..6).map(Reserved::new).collect();
    let addresses: Vec<SocketAddr> = dead.iter().map(Reserved::address).collect();
    let setup = Setup::new(&addresses)
        .pool("fall = 1000000")
        .pool("retries = 4");
    let tlb = Tlb::start(&setup);
    assert_eq!(try_owner(tlb.address(), 1), None);
    let line = tlb.await_closed("connect-failed");
    assert_eq!(field(&line, "attempts"), Some("5"), "in: {line}");
    let closed = tlb.log().lines(|line| closed_with(line, "connect-failed"));
    assert_eq!(closed.len(), 1, "one line for one session: {closed:?}");
}

#[test]
fn a_backend_that_comes_back_gets_its_keys_back() {
    let reserved = Reserved::new(9);
    let serving = Farm::new(3).serve(greet_and_echo);
    let mut addresses = serving.addresses().to_vec();
    addresses.push(reserved.address());
    let setup = Setup::new(&addresses).pool("fall = 1");
    let tlb = Tlb::start(&setup);
    let without: Vec<u8> = (0..KEYS).map(|key| owner(tlb.address(), key)).collect();

    // A farm counts from zero: this greeting tells the fourth backend from the others.
    let revived = Farm::of([reserved.listen(64)]).serve(|_, stream| greet_and_echo(3, stream));
    assert_eq!(revived.addresses(), &addresses[3..]);
    eventually("the fourth backend gets a key", || {
        let served = (0..KEYS).any(|key| owner(tlb.address(), key) == 3);
        served.then_some(())
    });
    let with: Vec<u8> = (0..KEYS).map(|key| owner(tlb.address(), key)).collect();
    for (key, (without, with)) in without.iter().zip(&with).enumerate() {
        assert!(
            with == without || *with == 3,
            "key {key} moved from backend {without} to {with} when the fourth came back"
        );
    }
    drop(tlb);
    // Those that would be its own had it never been away.
    let fresh = Tlb::start(&setup);
    let expected: Vec<u8> = (0..KEYS).map(|key| owner(fresh.address(), key)).collect();
    assert_eq!(with, expected);
}
