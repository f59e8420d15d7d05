//! A client, tlb and a backend on three hosts, which are network namespaces of this test.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::{hands_off, until_handed_off};
use crate::support::peers::prepare;
use crate::support::programs::run;
use crate::support::setup::Setup;
use crate::support::stream::{Stream, frame};
use crate::support::tlb::Tlb;

/// Messages of small talk.
const TALK: usize = 200;
/// Bytes of a stream, each way at the same time.
const BYTES: usize = 8 << 20;

/// Three hosts in a row, and what lies between them. Gone when dropped.
struct Hosts {
    tag: String,
}

const ROLES: [&str; 3] = ["client", "tlb", "backend"];

fn ip(args: &str) -> String {
    run(Command::new("ip").args(args.split(' ')))
}

impl Hosts {
    fn new(test: &str) -> Self {
        let hosts = Self {
            tag: format!("tlb-it-{test}-{}", std::process::id()),
        };
        for role in ROLES {
            ip(&format!("netns add {}", hosts.name(role)));
            ip(&format!("-n {} link set lo up", hosts.name(role)));
        }
        let tlb = hosts.name("tlb");
        for (net, role) in [(1, "client"), (2, "backend")] {
            let other = hosts.name(role);
            ip(&format!(
                "-n {tlb} link add to-{role} type veth peer name up netns {other}"
            ));
            for (host, name, end) in [(&tlb, &*format!("to-{role}"), 1), (&other, "up", 2)] {
                ip(&format!(
                    "-n {host} addr add 10.77.{net}.{end}/24 dev {name}"
                ));
                ip(&format!(
                    "-n {host} addr add fd77:{net}::{end}/64 dev {name} nodad"
                ));
                ip(&format!("-n {host} link set dev {name} up"));
            }
        }
        hosts
    }

    fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.tag)
    }

    /// Does something on one of them.
    fn on<T: Send>(&self, role: &str, what: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name(role));
        thread::scope(|scope| {
            let there = scope.spawn(move || {
                let host = File::open(path).expect("a namespace of our own");
                setns(host, CloneFlags::CLONE_NEWNET).expect("root");
                what()
            });
            match there.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for role in ROLES {
            // One of them may not have come to be.
            let _ = Command::new("ip")
                .args(["netns", "delete", &self.name(role)])
                .output();
        }
    }
}

fn talk(one: &TcpStream, other: &TcpStream) {
    for (from, to) in [(one, other), (other, one)] {
        let said = Stream::new(7, 100);
        said.send(from).expect("a peer that lives");
        said.expect_from(to);
    }
}

fn across(test: &str, tlb: &str, backend: &str) {
    if !hands_off() {
        return;
    }
    let hosts = Hosts::new(test);
    let at: SocketAddr = backend.parse().expect("an address");
    let listener = hosts.on("backend", || TcpListener::bind(at).expect("a free port"));
    let to = listener.local_addr().expect("a bound socket");
    let setup = Setup::new(&[to]).bind(tlb).listener("hand-off = 4");
    let tlb = hosts.on("tlb", || Tlb::start(&setup));
    for number in 1..=5 {
        let client = hosts.on("client", || TcpStream::connect(tlb.address()).expect("tlb"));
        prepare(&client).expect("its options");
        Stream::after(frame(number, 60), 0, 0)
            .send(&client)
            .expect("a frame");
        let (backend, _) = listener.accept().expect("a session");
        prepare(&backend).expect("its options");
        Stream::after(frame(number, 60), 0, 0).expect_from(&backend);
        until_handed_off(&tlb, &client, &backend);
        for _ in 0..TALK {
            talk(&client, &backend);
        }
        let stream = Stream::new(u64::from(number), BYTES);
        thread::scope(|scope| {
            for peer in [&client, &backend] {
                scope.spawn(|| {
                    stream.send(peer).expect("a peer that lives");
                    peer.shutdown(std::net::Shutdown::Write).expect("a FIN");
                });
            }
            scope.spawn(|| stream.expect_from_then_fin(&client));
            stream.expect_from_then_fin(&backend);
        });
    }
    let closed = |line: &str| line.contains("reason=completed");
    tlb.log().await_line("the last session's end", closed);
}

#[test]
fn packets_go_from_one_host_to_another_by_ipv4() {
    across("v4", "10.77.1.1:0", "10.77.2.2:0");
}

#[test]
fn packets_go_from_one_host_to_another_by_ipv6() {
    across("v6", "[fd77:1::1]:0", "[fd77:2::2]:0");
}

#[test]
fn a_backend_of_another_family_is_relayed_to() {
    if !hands_off() {
        return;
    }
    let hosts = Hosts::new("mix");
    let listener = hosts.on("backend", || {
        TcpListener::bind("10.77.2.2:0").expect("a free port")
    });
    let to = listener.local_addr().expect("a bound socket");
    let setup = Setup::new(&[to])
        .bind("[fd77:1::1]:0")
        .listener("hand-off = 1");
    let tlb = hosts.on("tlb", || Tlb::start(&setup));
    let client = hosts.on("client", || TcpStream::connect(tlb.address()).expect("tlb"));
    prepare(&client).expect("its options");
    Stream::after(frame(1, 60), 0, 0)
        .send(&client)
        .expect("a frame");
    let (backend, _) = listener.accept().expect("a session");
    prepare(&backend).expect("its options");
    Stream::after(frame(1, 60), 0, 0).expect_from(&backend);
    for _ in 0..TALK {
        talk(&client, &backend);
    }
    assert_eq!(tlb.log().lines(|line| line.contains("handed off")).len(), 0);
}
