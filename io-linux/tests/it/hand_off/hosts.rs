//! A client, tlb and a backend on three hosts, which are network namespaces of this test.

use std::fs::File;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::{hands_off, until_handed_off};
use crate::support::eventually;
use crate::support::peers::prepare;
use crate::support::programs::{installed, run};
use crate::support::rng::Rng;
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

    /// From now on the wires to the client and to the backend lose one in so many packets: of those with much data, and
    /// of acknowledgements and small messages. SYNs arrive: who has to repeat one believes the way to be long, and waits
    /// for seconds before it repeats anything else.
    fn lose(&self, large: u32, small: u32) {
        for role in ["client", "backend"] {
            let host = self.name(role);
            // Smaller pieces than a host without a wire would send, so that what is lost is a hole and not all there is.
            ip(&format!("-n {host} link set dev up gso_max_segs 4"));
            let tlb = self.name("tlb");
            ip(&format!("-n {tlb} link set dev to-{role} gso_max_segs 4"));
            self.nft(role, "add table netdev wire");
            // Behind tlb, and three times less often before it.
            for (hook, times) in [("ingress", 1), ("egress", 3)] {
                let chain = format!("type filter hook {hook} device \"up\" priority 0;");
                self.nft(role, &format!("add chain netdev wire {hook} {{ {chain} }}"));
                for (which, every) in [(">", times * large), ("<=", times * small)] {
                    self.nft(role, &format!(
                        "add rule netdev wire {hook} tcp flags & syn == 0 meta length {which} 200 numgen random mod {every} 0 counter drop"
                    ));
                }
            }
        }
    }

    /// How many packets each wire has lost: large and small ones, towards the client and towards the backend.
    fn lost(&self) -> Vec<u32> {
        let lost = |role| self.nft(role, "list table netdev wire");
        let rules = lost("client") + &lost("backend");
        rules
            .split("counter packets ")
            .skip(1)
            .map(|rest| rest.split(' ').next().unwrap_or_default())
            .map(|count| count.parse().expect("a number"))
            .collect()
    }

    fn nft(&self, role: &str, command: &str) -> String {
        let host = self.name(role);
        run(Command::new("ip").args(["netns", "exec", &host, "nft", command]))
    }

    /// What the TCP of a host has counted so far (`TcpExt`).
    fn counted(&self, role: &str, what: &str) -> u64 {
        let host = self.name(role);
        let said = run(Command::new("ip").args(["netns", "exec", &host, "nstat", "-asz", what]));
        let line = said.lines().find(|line| line.starts_with(what));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or_else(|| panic!("{said:?} has no {what}"))
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

/// A backend, and tlb, each on a host of their own.
struct Deployed {
    hosts: Hosts,
    tlb: Tlb,
    listener: TcpListener,
}

impl Deployed {
    fn new(hosts: Hosts, tlb: &str, backend: &str, option: &str) -> Self {
        let at: SocketAddr = backend.parse().expect("an address");
        let listener = hosts.on("backend", || TcpListener::bind(at).expect("a free port"));
        let to = listener.local_addr().expect("a bound socket");
        let setup = Setup::new(&[to]).bind(tlb).listener(option);
        let tlb = hosts.on("tlb", || Tlb::start(&setup));
        Self {
            hosts,
            tlb,
            listener,
        }
    }

    /// A client and the backend's end of its session, after its first frame.
    fn session(&self, key: u32) -> [TcpStream; 2] {
        let to = self.tlb.address();
        let client = self
            .hosts
            .on("client", || TcpStream::connect(to).expect("tlb"));
        prepare(&client).expect("its options");
        let first = Stream::after(frame(key, 60), 0, 0);
        first.send(&client).expect("a frame");
        let (backend, _) = self.listener.accept().expect("a session");
        prepare(&backend).expect("its options");
        first.expect_from(&backend);
        [client, backend]
    }

    /// Sessions, one after the other, that are handed off, and carry small talk and a stream each way then.
    fn exercise(&self) {
        for number in 1..=5 {
            let [client, backend] = self.session(number);
            until_handed_off(&self.tlb, &client, &backend);
            for _ in 0..TALK {
                talk(&client, &backend);
            }
            let stream = Stream::new(u64::from(number), BYTES);
            thread::scope(|scope| {
                for peer in [&client, &backend] {
                    scope.spawn(|| {
                        stream.send(peer).expect("a peer that lives");
                        peer.shutdown(Shutdown::Write).expect("a FIN");
                    });
                }
                scope.spawn(|| stream.expect_from_then_fin(&client));
                stream.expect_from_then_fin(&backend);
            });
        }
        self.expect_completed(5);
    }

    /// All sessions so far have ended in order, as tlb sees it.
    fn expect_completed(&self, sessions: usize) {
        let log = self.tlb.log();
        eventually("the last session's end", || {
            (log.lines(|line| line.contains("reason=")).len() == sessions).then_some(())
        });
        let completed = log.lines(|line| line.contains("reason=completed"));
        assert_eq!(completed.len(), sessions);
    }
}

fn across(test: &str, tlb: &str, backend: &str) {
    if hands_off() {
        Deployed::new(Hosts::new(test), tlb, backend, "hand-off = 4").exercise();
    }
}

/// Over wires that lose data and acknowledgements.
fn across_losses(test: &str, tlb: &str, backend: &str) {
    if !hands_off() || !installed(&["nft"]) {
        return;
    }
    let hosts = Hosts::new(test);
    hosts.lose(40, 140);
    let there = Deployed::new(hosts, tlb, backend, "hand-off = 4");
    there.exercise();
    let lost = there.hosts.lost();
    assert!(
        lost.len() == 8 && lost.iter().sum::<u32>() > 200,
        "hardly anything was lost: {lost:?}"
    );
    for role in ["client", "backend"] {
        // Either peer has to understand which of its bytes the other one has, although these have other numbers there.
        // If it did not, it would disregard what it is told, and find out about each hole by a timeout.
        let counted = |what| there.hosts.counted(role, what);
        let mended = counted("TcpExtTCPSackRecovery");
        let [timeouts, nonsense] = ["TcpExtTCPTimeouts", "TcpExtTCPSACKDiscard"].map(counted);
        assert!(
            mended > 20 && mended > 10 * (timeouts + nonsense),
            "the {role} mended {mended} holes, had {timeouts} timeouts and heard {nonsense} times nonsense"
        );
    }
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
fn what_is_lost_on_the_way_is_sent_again_by_ipv4() {
    across_losses("loss4", "10.77.1.1:0", "10.77.2.2:0");
}

#[test]
fn what_is_lost_on_the_way_is_sent_again_by_ipv6() {
    across_losses("loss6", "[fd77:1::1]:0", "[fd77:2::2]:0");
}

#[test]
fn a_backend_of_another_family_is_relayed_to() {
    if !hands_off() {
        return;
    }
    let there = Deployed::new(
        Hosts::new("mix"),
        "[fd77:1::1]:0",
        "10.77.2.2:0",
        "hand-off = 1",
    );
    let [client, backend] = there.session(1);
    for _ in 0..TALK {
        talk(&client, &backend);
    }
    assert_eq!(
        there
            .tlb
            .log()
            .lines(|line| line.contains("handed off"))
            .len(),
        0
    );
}

/// What tlb's sockets sent last is lost, too, so that they repeat it while the peers already talk to each other.
#[test]
fn sessions_are_handed_off_while_packets_are_lost() {
    const THREADS: u32 = 8;
    const SESSIONS: u32 = 4;
    if !hands_off() || !installed(&["nft"]) {
        return;
    }
    let hosts = Hosts::new("early");
    hosts.lose(12, 16);
    let there = Deployed::new(hosts, "10.77.1.1:0", "10.77.2.2:0", "hand-off = 1");
    // Who is accepted next is whose frame came.
    let door = Mutex::new(());
    let mut seeds = Rng::from_env();
    let seed = seeds.next();
    let one = |number: u32| {
        let mut rng = Rng::new(seed ^ u64::from(number));
        let open = door.lock().expect("nobody panicked");
        let mut peers = there.session(number);
        drop(open);
        for _ in 0..rng.size(20) {
            if rng.size(2) == 2 {
                peers.reverse();
            }
            let said = Stream::new(rng.next(), rng.size(9_000));
            said.send(&peers[0]).expect("a peer that lives");
            said.expect_from(&peers[1]);
        }
        // Those that had to repeat something may still be at it.
        let streams = [0, 1].map(|_| Stream::new(rng.next(), 400_000));
        thread::scope(|scope| {
            for place in [0, 1] {
                let (peers, streams, mut rng) = (&peers, &streams, rng.fork());
                scope.spawn(move || streams[place].send_chopped(&peers[place], &mut rng));
                scope.spawn(move || streams[place].expect_from(&peers[1 - place]));
            }
        });
        let [first, second] = peers;
        first.shutdown(Shutdown::Write).expect("a FIN");
        Stream::new(0, 0).expect_from_then_fin(&second);
        let last = Stream::new(rng.next(), rng.size(100_000));
        thread::scope(|scope| {
            scope.spawn(|| {
                last.send(&second).expect("a peer that lives");
                second.shutdown(Shutdown::Write).expect("a FIN");
            });
            last.expect_from_then_fin(&first);
        });
    };
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let one = &one;
            scope.spawn(move || (0..SESSIONS).for_each(|each| one(thread * SESSIONS + each)));
        }
    });
    there.expect_completed((THREADS * SESSIONS) as usize);
    let handed_off = there.tlb.log().lines(|line| line.contains("handed off"));
    assert!(handed_off.len() > 8, "{} were handed off", handed_off.len());
}
