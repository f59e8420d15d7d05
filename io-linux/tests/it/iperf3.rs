//! `iperf3` through tlb: every connection of one test begins with the same 37-byte cookie and must
//! reach the server that holds the test's control connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use crate::support::eventually;
use crate::support::programs::{Server, free_address, installed, run};
use crate::support::setup::{Setup, id};
use crate::support::site::UNPACED;
use crate::support::tlb::{Tlb, field};

/// A cookie is 36 characters and a NUL.
const COOKIE: &str = "kind = \"fixed\"\nsize = 37\nkey = { offset = 0, length = 37 }";

/// What a server prints once it listens: at first, and after each test, for which it stops.
const READY: &str = "Server listening on";

fn serve(address: SocketAddr) -> Server {
    let mut command = Command::new("iperf3");
    command
        .args(["--server", "--forceflush", "--bind"])
        .arg(address.ip().to_string())
        .arg("--port")
        .arg(address.port().to_string());
    Server::start(&mut command, READY)
}

fn control_and_data_meet(relay: &str, listener: Option<&str>) {
    if !installed(&["iperf3"]) {
        return;
    }
    let addresses: Vec<SocketAddr> = (0..3).map(free_address).collect();
    let servers: Vec<Server> = addresses.iter().map(|&address| serve(address)).collect();
    let mut setup = Setup::new(&addresses).workers(2).unpack(COOKIE).top(relay);
    if let Some(line) = listener {
        setup = setup.listener(line);
    }
    let tlb = Tlb::start(&setup);
    let mut sessions = 0;
    let mut tests = 0;
    for round in 0..4 {
        for (options, streams) in [
            (&[][..], 1),
            (&["-R"][..], 1),
            (&["-P", "4"][..], 4),
            (&["-P", "4", "-R"][..], 4),
        ] {
            let mut command = Command::new("iperf3");
            command
                .args(["--client", &tlb.address().ip().to_string(), "--port"])
                .arg(tlb.address().port().to_string())
                .args(["--bytes", "8M"])
                .args(options);
            let output = run(&mut command);
            assert!(
                output.contains("iperf Done."),
                "round {round} with {options:?} printed:\n{output}"
            );
            sessions += 1 + streams;
            tests += 1;
            // The server may still be busy with this test when the client is done.
            eventually("the server listens again", || {
                let listened: usize = servers.iter().map(|server| server.printed(READY)).sum();
                (listened == servers.len() + tests).then_some(())
            });
        }
    }
    every_cookie_has_one_server(&tlb, sessions);
}

/// By the log: each test's connections went to one server, and not all tests to the same.
fn every_cookie_has_one_server(tlb: &Tlb, sessions: usize) {
    let closed = eventually("all sessions of all tests are closed", || {
        let lines = tlb.log().lines(|line| line.contains("session closed"));
        (lines.len() >= sessions).then_some(lines)
    });
    assert_eq!(closed.len(), sessions, "{closed:#?}");
    let mut servers: BTreeMap<&str, &str> = BTreeMap::new();
    for line in &closed {
        let key = field(line, "key").expect("the key in a session's line");
        let backend = field(line, "backend").expect("the backend in a session's line");
        let first = *servers.entry(key).or_insert(backend);
        assert_eq!(backend, first, "cookie {key} reached two servers");
    }
    assert_eq!(servers.len(), 16, "one cookie for each test: {servers:?}");
    let used = |index| servers.values().any(|backend| **backend == id(index));
    let count = (0..3).filter(|&index| used(index)).count();
    // Sixteen random cookies on three servers: one in a hundred million runs uses a single one.
    assert!(count > 1, "all tests went to one server: {servers:?}");
}

#[test]
fn control_and_data_connections_meet_through_copy() {
    control_and_data_meet("relay = \"copy\"", None);
}

#[test]
fn control_and_data_connections_meet_through_splice() {
    control_and_data_meet("relay = \"splice\"", None);
}

#[test]
fn control_and_data_meet_where_sources_rest() {
    control_and_data_meet("relay = \"auto\"", Some(UNPACED));
}
