//! Every limit holds, and its reason is in the log.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::farm::{Farm, greet_and_echo};
use crate::support::peers::{connect, owner, reset, try_owner};
use crate::support::setup::Setup;
use crate::support::site::{Site, Through};
use crate::support::stream::{End, Stream, frame, rest};
use crate::support::tlb::{Tlb, field};

/// How late a deadline may be on a busy machine.
const LATE: Duration = Duration::from_secs(3);

/// Whether the session has ended, without waiting.
fn has_ended(mut client: &TcpStream) -> bool {
    client.set_nonblocking(true).expect("a socket");
    let answer = client.read(&mut [0]);
    client.set_nonblocking(false).expect("a socket");
    match answer {
        Ok(0) => true,
        Ok(_) => panic!("a byte that nobody expects"),
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

#[track_caller]
fn assert_lasted(since: Instant, limit: Duration) {
    let lasted = since.elapsed();
    // A timer counts from when tlb saw the cause, which may be before we took the time.
    assert!(
        lasted + Duration::from_millis(50) >= limit && lasted <= limit + LATE,
        "ended after {lasted:?} with a limit of {limit:?}"
    );
}

#[test]
fn a_client_that_sends_a_byte_at_a_time_has_one_deadline() {
    const LIMIT: Duration = Duration::from_secs(1);
    let site = Site::with(Through::Copy, |setup| {
        setup.listener("preread-timeout = \"1s\"")
    });
    let mut client = site.connect();
    let started = Instant::now();
    // Enough bytes for thirty seconds, if each of them were granted a new deadline.
    for byte in frame(1, 300) {
        let sent = client.write_all(&[byte]);
        // The slow client's pace.
        thread::sleep(Duration::from_millis(100));
        if sent.is_err() || has_ended(&client) {
            break;
        }
    }
    assert_lasted(started, LIMIT);
    let tlb = site.tlb.as_ref().expect("a site with tlb");
    tlb.await_closed("preread-timeout");
}

#[test]
fn a_client_that_says_nothing_has_a_deadline() {
    let site = Site::with(Through::Copy, |setup| {
        setup.listener("preread-timeout = \"500ms\"")
    });
    let client = site.connect();
    let started = Instant::now();
    assert_eq!(rest(&client), (Vec::new(), End::Fin));
    assert_lasted(started, Duration::from_millis(500));
    let tlb = site.tlb.as_ref().expect("a site with tlb");
    tlb.await_closed("preread-timeout");
}

#[test]
fn a_client_that_leaves_before_its_first_byte_is_no_session() {
    let site = Site::new(Through::Copy);
    reset(site.connect());
    let mut client = site.connect();
    client.write_all(&frame(1, 50)[..20]).expect("half a frame");
    client.shutdown(Shutdown::Write).expect("the client's FIN");
    let tlb = site.tlb.as_ref().expect("a site with tlb");
    tlb.await_closed("rejected");
    let ended = tlb.log().lines(|line| line.contains("session closed"));
    assert_eq!(ended.len(), 1, "{ended:?}");
}

#[test]
fn garbage_before_the_first_frame_is_skipped() {
    let site = Site::new(Through::Copy);
    let mut client = site.connect();
    let first = frame(2, 50);
    client.write_all(&[b'x'; 3000]).expect("garbage");
    client.write_all(&first).expect("the frame");
    let (_, backend) = site.farm.accept();
    Stream::after(first, 0, 0).expect_from(&backend);
}

#[test]
fn garbage_without_an_end_meets_the_preread_limit() {
    let site = Site::with(Through::Copy, |setup| {
        setup.listener("preread-limit = \"4KiB\"")
    });
    let mut client = site.connect();
    // What lies unread when tlb closes turns the end into a reset; either is one.
    let garbage = [b'x'; 4096];
    client.write_all(&garbage).expect("the first garbage");
    rest(&client);
    let tlb = site.tlb.as_ref().expect("a site with tlb");
    tlb.await_closed("preread-limit");
    assert!(
        site.farm.try_accept(Duration::ZERO).is_none(),
        "garbage reached a backend"
    );
}

#[test]
fn a_frame_cut_short_is_refused() {
    let site = Site::new(Through::Copy);
    let mut client = site.connect();
    client.write_all(&frame(3, 50)[..20]).expect("half a frame");
    client.shutdown(Shutdown::Write).expect("the client's FIN");
    assert_eq!(rest(&client), (Vec::new(), End::Fin));
    let tlb = site.tlb.as_ref().expect("a site with tlb");
    tlb.await_closed("rejected");
}

#[test]
fn a_client_that_leaves_without_a_byte_costs_nothing() {
    let site = Site::new(Through::Copy);
    let client = site.connect();
    client.shutdown(Shutdown::Write).expect("the client's FIN");
    assert_eq!(rest(&client), (Vec::new(), End::Fin));
    let tlb = site.tlb.as_ref().expect("a site with tlb");
    tlb.await_closed("client-left");
}

#[test]
fn an_idle_session_ends() {
    let site = Site::with(Through::Copy, |setup| {
        setup.listener("idle-timeout = \"1s\"")
    });
    let (mut client, mut backend) = site.session();
    // Either way's bytes keep it alive for longer than the timeout.
    let started = Instant::now();
    let mut idle = started;
    while started.elapsed() < Duration::from_secs(2) {
        client.write_all(b"+").expect("the client sends");
        Stream::after(b"+".to_vec(), 0, 0).expect_from(&backend);
        backend.write_all(b"-").expect("the backend sends");
        idle = Instant::now();
        Stream::after(b"-".to_vec(), 0, 0).expect_from(&client);
        // The pace of the scenario.
        thread::sleep(Duration::from_millis(100));
    }
    let (bytes, _) = rest(&client);
    assert_eq!(bytes, b"");
    assert_lasted(idle, Duration::from_secs(1));
    let (bytes, _) = rest(&backend);
    assert_eq!(bytes, b"");
    let tlb = site.tlb.as_ref().expect("a site with tlb");
    tlb.await_closed("idle-timeout");
}

#[test]
fn a_half_closed_session_ends_when_the_other_half_is_silent() {
    let site = Site::with(Through::Copy, |setup| {
        setup.listener("half-close-timeout = \"500ms\"")
    });
    let (client, backend) = site.session();
    client.shutdown(Shutdown::Write).expect("the client's FIN");
    let closed = Instant::now();
    assert_eq!(rest(&backend), (Vec::new(), End::Fin));
    let (bytes, _) = rest(&client);
    assert_eq!(bytes, b"");
    assert_lasted(closed, Duration::from_millis(500));
    let tlb = site.tlb.as_ref().expect("a site with tlb");
    tlb.await_closed("half-close-timeout");
}

#[test]
fn sessions_beyond_the_most_wait_for_room() {
    let serving = Farm::new(2).serve(greet_and_echo);
    let tlb = Tlb::start(&Setup::new(serving.addresses()).listener("max-sessions = 2"));
    let first = frame(4, 30);
    let mut clients: Vec<TcpStream> = (0..6).map(|_| connect(tlb.address())).collect();
    for client in &mut clients {
        client.write_all(&first).expect("the client sends");
    }
    while !clients.is_empty() {
        let served = eventually("two sessions are served", || {
            let greeted: Vec<usize> = (0..clients.len())
                .filter(|&index| has_bytes(&clients[index]))
                .collect();
            (greeted.len() >= clients.len().min(2)).then_some(greeted)
        });
        assert!(served.len() <= 2, "{} sessions at a time", served.len());
        let leaving = clients.remove(served[0]);
        drop(leaving);
    }
}

/// Whether something has come for the client.
fn has_bytes(client: &TcpStream) -> bool {
    client.set_nonblocking(true).expect("a socket");
    let seen = client.peek(&mut [0]);
    client.set_nonblocking(false).expect("a socket");
    match seen {
        Ok(count) => {
            assert!(count > 0, "a waiting client was sent away");
            true
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("a waiting client was sent away: {error}"),
    }
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let serving = Farm::new(1).serve(greet_and_echo);
    let setup = Setup::new(serving.addresses()).pool("fall = 1");
    let mut tlb = Tlb::start_with_descriptors(&setup, 64);
    let mut clients: Vec<TcpStream> = (0..120).map(|_| connect(tlb.address())).collect();
    for client in &mut clients {
        // One that tlb had to end meanwhile may refuse.
        let _ = client.write_all(&frame(5, 30));
    }
    eventually("tlb runs out of descriptors", || {
        let out = tlb.log().lines(|line| line.contains("descriptor"));
        (!out.is_empty()).then_some(())
    });
    assert!(tlb.is_running(), "tlb did not survive");
    drop(clients);
    // The lack was tlb's own: the backend did not go down for it.
    let served = eventually("tlb serves again", || try_owner(tlb.address(), 6));
    assert_eq!(served, 0);
    assert!(tlb.is_running(), "tlb did not survive");
}

#[test]
fn a_backend_whose_name_does_not_resolve_is_down_with_a_warning() {
    let serving = Farm::new(1).serve(greet_and_echo);
    let setup = Setup::new(serving.addresses()).backend("nowhere", "nowhere.invalid:7001");
    let tlb = Tlb::start(&setup);
    tlb.log()
        .await_line("a warning that names the backend's host", |line| {
            line.contains("WARN") && line.contains("nowhere.invalid")
        });
    for key in 0..20 {
        assert_eq!(owner(tlb.address(), key), 0, "key {key}");
    }
}

#[test]
fn a_pool_connects_from_its_source_addresses() {
    let site = Site::with(Through::Copy, |setup| {
        setup.pool("source = [\"127.0.0.5\", \"127.0.0.6\"]")
    });
    let sources: BTreeSet<String> = (0..4)
        .map(|_| {
            let (_, backend) = site.session();
            let peer = backend.peer_addr().expect("a connected socket");
            peer.ip().to_string()
        })
        .collect();
    assert_eq!(
        sources,
        ["127.0.0.5", "127.0.0.6"].map(str::to_owned).into()
    );
}

#[test]
fn a_session_leaves_one_line_with_its_totals() {
    let site = Site::new(Through::Copy);
    let (client, mut backend) = site.session();
    backend.write_all(&[7; 100]).expect("the backend answers");
    backend
        .shutdown(Shutdown::Write)
        .expect("the backend's FIN");
    assert_eq!(rest(&client), (vec![7; 100], End::Fin));
    drop(client);
    let tlb = site.tlb.as_ref().expect("a site with tlb");
    let line = tlb.await_closed("completed");
    assert_eq!(field(&line, "forward"), Some("40"), "{line}");
    assert_eq!(field(&line, "return"), Some("100"), "{line}");
    assert!(field(&line, "backend").is_some(), "{line}");
    assert!(field(&line, "key").is_some(), "{line}");
}
