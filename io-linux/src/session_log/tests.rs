//! Lines as they are documented; nothing waits, nothing is lost uncounted.

use std::fs;
use std::io::{PipeReader, Read};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use tlb_engine::api::{CloseReason, Fault};
use tlb_engine::balance::Policy;
use tlb_engine::config::{Config, Failover, Limits, Listener};
use tlb_engine::ids::{Incarnation, ListenerId, PoolId, SessionId};
use tlb_engine::roster::{Backend, Pool, Roster};

use super::*;
use crate::names::FleetNames;

const PATIENCE: Duration = Duration::from_secs(20);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn names(listener: &str, pool: &str, backend: &str) -> Names {
    let backend = Arc::new(Backend {
        id: backend.into(),
        incarnation: Incarnation(4),
        weight: 1,
        ..Backend::default()
    });
    let failover = Failover::default();
    let pool = Pool::new(pool, Policy::RoundRobin, failover, vec![backend]);
    let roster = Roster {
        epoch: 1,
        pools: vec![Arc::new(pool)],
    };
    let listener = Listener::new(listener, None, PoolId(0));
    let mut fleet = FleetNames::default();
    fleet.learn(&roster);
    let config = Config::new(vec![listener], Limits::default());
    Names::new(&config, Arc::new(fleet))
}

fn plain() -> Names {
    names("devices", "stations", "a")
}

fn closed(reason: CloseReason) -> Closed {
    Closed {
        session: SessionId::new(7, 1),
        listener: ListenerId(0),
        peer: address("192.0.2.9:4711"),
        reason,
        backend: Some(Incarnation(4)),
        to: Some(address("127.0.0.11:7001")),
        key: Some(Bytes::from_static(b"unit-17")),
        forward: 120,
        back: 3456,
        skipped: 2,
        attempts: 2,
        lasted: Duration::from_micros(61_234_567),
    }
}

/// A session that ended before it had a backend.
fn early(reason: CloseReason) -> Closed {
    Closed {
        backend: None,
        to: None,
        key: None,
        forward: 0,
        back: 0,
        skipped: 0,
        attempts: 0,
        lasted: Duration::from_millis(5),
        ..closed(reason)
    }
}

fn shown(format: SessionLogFormat, closed: &Closed, names: &Names) -> String {
    let ended = "2026-02-03T04:05:06.789Z".parse().expect("a time");
    let mut line = Vec::new();
    line::add(&mut line, format, &Ended::new(closed, names, ended));
    String::from_utf8(line).expect("text")
}

#[test]
fn json_lines_are_golden() {
    let json = |closed| shown(SessionLogFormat::Json, &closed, &plain());
    assert_eq!(
        json(closed(CloseReason::Completed)),
        concat!(
            r#"{"time":"2026-02-03T04:05:06.789Z","session":"s7.1","listener":"devices","#,
            r#""client":"192.0.2.9:4711","reason":"completed","pool":"stations","backend":"a","#,
            r#""address":"127.0.0.11:7001","key":"unit-17","bytes_forward":120,"#,
            r#""bytes_return":3456,"bytes_skipped":2,"attempts":2,"seconds":61.234567}"#,
            "\n"
        )
    );
    assert_eq!(
        json(early(CloseReason::PrereadTimeout)),
        concat!(
            r#"{"time":"2026-02-03T04:05:06.789Z","session":"s7.1","listener":"devices","#,
            r#""client":"192.0.2.9:4711","reason":"preread-timeout","pool":"stations","#,
            r#""backend":null,"address":null,"key":null,"bytes_forward":0,"bytes_return":0,"#,
            r#""bytes_skipped":0,"attempts":0,"seconds":0.005}"#,
            "\n"
        )
    );
}

#[test]
fn haproxy_lines_are_golden() {
    let text = |closed| shown(SessionLogFormat::Haproxy, &closed, &plain());
    assert_eq!(
        text(closed(CloseReason::Completed)),
        "192.0.2.9:4711 [03/Feb/2026:04:04:05.554] devices stations/a \
         -1/-1/61234 3456 -- 0/0/0/0/1 0/0 {unit-17}\n"
    );
    assert_eq!(
        text(early(CloseReason::PrereadTimeout)),
        "192.0.2.9:4711 [03/Feb/2026:04:05:06.784] devices stations/<NOSRV> \
         -1/-1/5 0 cR 0/0/0/0/0 0/0\n"
    );
    let named = Closed {
        backend: None,
        ..closed(CloseReason::IdleTimeout)
    };
    assert!(text(named).contains(" stations/127.0.0.11:7001 "));
}

#[test]
fn every_reason_has_its_two_letters() {
    let state = |closed| {
        let text = shown(SessionLogFormat::Haproxy, &closed, &plain());
        text.split(' ').nth(6).expect("a state").to_owned()
    };
    let connecting = |reason| Closed {
        attempts: 1,
        ..early(reason)
    };
    for (closed, letters) in [
        (closed(CloseReason::Completed), "--"),
        (early(CloseReason::ClientBroken(Fault::Reset)), "CR"),
        (connecting(CloseReason::ClientBroken(Fault::Reset)), "CC"),
        (closed(CloseReason::ClientBroken(Fault::TimedOut)), "CD"),
        (closed(CloseReason::BackendBroken(Fault::Reset)), "SD"),
        (early(CloseReason::ClientLeft), "CR"),
        (early(CloseReason::PrereadTimeout), "cR"),
        (early(CloseReason::PrereadLimit), "PR"),
        (early(CloseReason::PrereadMemory), "RR"),
        (early(CloseReason::NoBackend), "SC"),
        (connecting(CloseReason::ConnectFailed(Fault::Refused)), "SC"),
        (
            connecting(CloseReason::ConnectFailed(Fault::TimedOut)),
            "sC",
        ),
        (connecting(CloseReason::RetryBudget), "PC"),
        (connecting(CloseReason::LocalFault(Fault::LocalPorts)), "RC"),
        (closed(CloseReason::IdleTimeout), "cD"),
        (closed(CloseReason::HalfCloseTimeout), "sD"),
        (early(CloseReason::Shutdown), "KR"),
        (connecting(CloseReason::Shutdown), "KC"),
        (closed(CloseReason::Shutdown), "KD"),
        (closed(CloseReason::BackendDown), "DD"),
        (closed(CloseReason::BackendMaint), "KD"),
        (closed(CloseReason::BackendRemoved), "KD"),
    ] {
        let reason = closed.reason;
        assert_eq!(state(closed), letters, "{reason}");
    }
}

#[test]
fn hostile_names_and_keys_stay_in_their_place() {
    let names = names("a \"b\"", "p/q", "x{\u{e4}}");
    let hostile = Closed {
        key: Some(Bytes::from_static(b"\"}\n{\"a\":1\x00\xff")),
        ..closed(CloseReason::Completed)
    };
    let json = shown(SessionLogFormat::Json, &hostile, &names);
    assert_eq!(json.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["listener"], "a \"b\"");
    assert_eq!(value["key"], "0x227d0a7b2261223a3100ff");
    let text = shown(SessionLogFormat::Haproxy, &hostile, &names);
    assert!(
        text.contains("] a#20#22b#22 p#2Fq/x#7B#C3#A4#7D "),
        "{text}"
    );
    assert!(text.ends_with(" {0x227d0a7b2261223a3100ff}\n"), "{text}");
    let braces = Closed {
        key: Some(Bytes::from_static(b"}{")),
        ..closed(CloseReason::Completed)
    };
    let text = shown(SessionLogFormat::Haproxy, &braces, &names);
    assert!(text.ends_with(" {#7D#7B}\n"), "{text}");
}

/// A directory of a test's own, gone when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let name = format!("tlb-session-log-{}-{test}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn open(&self, name: &str) -> (SessionLog, SessionLogThread) {
        open(&self.0.join(name))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> (SessionLog, SessionLogThread) {
    let settings = SessionLogSettings {
        format: SessionLogFormat::Json,
        to: SessionLogTarget::File(path.into()),
    };
    SessionLog::open(&settings).expect("a session log")
}

/// Looks until `done`, for a while.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what} does not come");
        thread::yield_now();
    }
}

/// A session that is known by the bytes that it forwarded.
fn numbered(number: u64) -> Closed {
    Closed {
        forward: number,
        ..closed(CloseReason::Completed)
    }
}

fn numbers(text: &str) -> Vec<u64> {
    let value = |line| serde_json::from_str::<serde_json::Value>(line).expect("a whole line");
    let number = |line| value(line)["bytes_forward"].as_u64().expect("a number");
    text.lines().map(number).collect()
}

#[test]
fn lines_of_a_worker_keep_their_order_and_all_are_written_at_the_end() {
    const EACH: u64 = 2000;
    let scratch = Scratch::new("order");
    let (log, thread) = scratch.open("log");
    thread::scope(|scope| {
        for worker in 0..3 {
            let log = log.clone();
            scope.spawn(move || {
                let names = plain();
                for number in 0..EACH {
                    log.write(&numbered(worker * EACH + number), &names);
                }
            });
        }
    });
    assert_eq!(log.dropped(), 0);
    drop(log);
    assert!(thread.finish(PATIENCE));
    let mut seen = numbers(&scratch.read("log"));
    for worker in 0..3 {
        let of_worker = seen.iter().filter(|number| **number / EACH == worker);
        assert!(of_worker.is_sorted(), "worker {worker}");
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..3 * EACH));
}

/// A log into a pipe that nobody reads yet, with a queue of a few lines.
fn stalled(queue: usize) -> (SessionLog, SessionLogThread, PipeReader) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let file = File::from(OwnedFd::from(writer));
    let (log, thread) =
        SessionLog::start(file, None, SessionLogFormat::Json, queue).expect("a session log");
    (log, thread, reader)
}

#[test]
fn a_full_queue_drops_and_counts_and_nobody_waits() {
    const LINES: u64 = 5000;
    let (log, thread, mut reader) = stalled(8);
    let names = plain();
    // More than a pipe takes: this ends only because no call waits.
    for number in 0..LINES {
        log.write(&numbered(number), &names);
    }
    let dropped = log.dropped();
    assert!(dropped > 0);
    drop(log);
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("text");
    let seen = numbers(&text);
    assert_eq!(seen.len() as u64 + dropped, LINES);
    assert!(seen.is_sorted());
    assert!(thread.finish(PATIENCE));
}

#[test]
fn the_end_is_bounded_where_nobody_reads() {
    let (log, thread, _reader) = stalled(1000);
    let names = plain();
    // A pipe takes 64 KiB.
    for number in 0..900 {
        log.write(&numbered(number), &names);
    }
    drop(log);
    assert!(!thread.finish(Duration::from_millis(20)));
}

#[test]
fn a_reader_that_leaves_costs_lines_and_nothing_else() {
    let (log, thread, reader) = stalled(8);
    drop(reader);
    log.write(&numbered(1), &plain());
    until("a dropped line", || log.dropped() == 1);
    log.write(&numbered(2), &plain());
    until("another", || log.dropped() == 2);
    drop(log);
    assert!(thread.finish(PATIENCE));
}

#[test]
fn a_full_disk_drops_and_counts_and_is_tried_again() {
    let (log, thread) = open(Path::new("/dev/full"));
    let names = plain();
    for number in 1..=3 {
        log.write(&numbered(number), &names);
        until("a dropped line", || log.dropped() == number);
    }
    drop(log);
    assert!(thread.finish(PATIENCE));
}

#[test]
fn a_file_that_was_renamed_is_opened_anew() {
    let scratch = Scratch::new("rotation");
    let (log, thread) = scratch.open("log");
    let names = plain();
    log.write(&numbered(1), &names);
    until("the first line", || scratch.read("log").ends_with('\n'));
    fs::rename(scratch.0.join("log"), scratch.0.join("log.1")).expect("renamed");
    log.write(&numbered(2), &names);
    until("the second line", || {
        numbers(&scratch.read("log.1")).len() == 2
    });
    log.reopen();
    until("the new file", || scratch.0.join("log").exists());
    log.write(&numbered(3), &names);
    drop(log);
    assert!(thread.finish(PATIENCE));
    assert_eq!(numbers(&scratch.read("log.1")), [1, 2]);
    assert_eq!(numbers(&scratch.read("log")), [3]);
}

#[test]
fn a_file_that_cannot_be_opened_anew_is_written_on() {
    let scratch = Scratch::new("gone");
    let (log, thread) = scratch.open("log");
    let moved = Scratch::new("moved");
    let target = moved.0.join("log");
    fs::rename(scratch.0.join("log"), &target).expect("renamed");
    fs::remove_dir(&scratch.0).expect("removed");
    log.reopen();
    log.write(&numbered(1), &plain());
    drop(log);
    assert!(thread.finish(PATIENCE));
    assert_eq!(numbers(&moved.read("log")), [1]);
}

#[test]
fn a_file_is_appended_to_and_one_in_no_directory_refused() {
    let scratch = Scratch::new("append");
    for number in 1..=2 {
        let (log, thread) = scratch.open("log");
        log.write(&numbered(number), &plain());
        drop(log);
        assert!(thread.finish(PATIENCE));
    }
    assert_eq!(numbers(&scratch.read("log")), [1, 2]);
    let settings = SessionLogSettings {
        format: SessionLogFormat::Json,
        to: SessionLogTarget::File(scratch.0.join("none/log").into()),
    };
    let error = SessionLog::open(&settings).expect_err("no directory");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
