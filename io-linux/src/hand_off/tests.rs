use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

/// A session between two peers of this host, whose relay is the test.
struct Rig {
    handed: HandedOff,
    session: SessionId,
    peers: Vec<TcpStream>,
    sockets: Vec<TcpStream>,
    now: Timestamp,
}

/// `None`, visibly, where the process may not. Whether it should is for the tests of the binary to say.
fn program() -> Option<Arc<Program>> {
    let loaded = Program::load(SESSIONS);
    if let Err(error) = &loaded {
        // Not `eprintln`, which the test runner keeps to itself when a test passes.
        let _ = writeln!(io::stderr(), "SKIPPED: {error}");
    }
    loaded.ok().map(|(program, _)| Arc::new(program))
}

impl Rig {
    fn new(address: &str) -> Option<Self> {
        let handed = HandedOff::new(program()?, 0, 1).unwrap();
        Some(Self::of(handed, address))
    }

    /// The next session.
    fn of(handed: HandedOff, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let pair = || {
            let listener = TcpListener::bind(address).unwrap();
            let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (here, _) = listener.accept().unwrap();
            for socket in [&there, &here] {
                socket.set_nodelay(true).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_secs(20)))
                    .unwrap();
            }
            (there, here)
        };
        // The client connects to tlb, tlb to the backend.
        let ((client, near), (far, backend)) = (pair(), pair());
        Self {
            handed,
            session: SessionId::new(7, 3),
            peers: vec![client, backend],
            sockets: vec![near, far],
            now: Timestamp::from_millis(1000),
        }
    }

    /// One whose sockets are gone already.
    fn away(address: &str) -> Option<Self> {
        let mut rig = Self::new(address)?;
        rig.relay(Side::Client, b"hello");
        assert_eq!(rig.hand_off(), HandOff::Done, "{address}");
        rig.settle();
        Some(rig)
    }

    /// Relays `bytes` of either peer by hand.
    fn relay(&mut self, from: Side, bytes: &[u8]) {
        let (from, to) = (from as usize, from.other() as usize);
        self.peers[from].write_all(bytes).unwrap();
        let mut read = vec![0; bytes.len()];
        self.sockets[from].read_exact(&mut read).unwrap();
        self.sockets[to].write_all(&read).unwrap();
        self.takes(to, bytes);
    }

    fn takes(&mut self, peer: usize, bytes: &[u8]) {
        let mut read = vec![0; bytes.len()];
        self.peers[peer].read_exact(&mut read).unwrap();
        assert_eq!(read, bytes);
    }

    /// `bytes` go from one peer to the other with nobody between them.
    fn sends(&mut self, from: Side, bytes: &[u8]) {
        self.peers[from as usize].write_all(bytes).unwrap();
        self.takes(from.other() as usize, bytes);
    }

    fn hand_off(&mut self) -> HandOff {
        let sockets = Pair {
            client: &self.sockets[0],
            backend: &self.sockets[1],
        };
        self.handed.hand_off(self.now, self.session, sockets)
    }

    fn flow(&mut self) -> Flow {
        let sockets = self.sockets.first().zip(self.sockets.get(1));
        let sockets = sockets.map(|(client, backend)| Pair { client, backend });
        let flow = self.handed.flow(self.now, self.session, sockets, true);
        if flow.gone && !self.sockets.is_empty() {
            self.handed.keep_port(self.session, self.sockets.remove(1));
            self.sockets.clear();
        }
        flow
    }

    /// Until the sockets are gone.
    fn settle(&mut self) -> Flow {
        self.now = self.now + STRAGGLERS;
        for _ in 0..1000 {
            let flow = self.flow();
            if flow.gone {
                return flow;
            }
            thread::yield_now();
        }
        panic!("the sockets are not done: {:?}", self.handed);
    }

    /// Until the backend has the client's FIN, which the sockets pass on if it has come to them.
    fn until_end_of_client(&mut self) {
        for socket in [&self.sockets[0], &self.peers[1]] {
            socket.set_nonblocking(true).unwrap();
        }
        loop {
            if let Ok(0) = self.sockets[0].read(&mut [0]) {
                let _ = self.sockets[1].shutdown(Shutdown::Write);
                self.handed.ended(self.session, Dir::Forward);
            }
            match self.peers[1].read(&mut [0]) {
                Ok(bytes) => break assert_eq!(bytes, 0),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        self.peers[1].set_nonblocking(false).unwrap();
    }

    /// Until `is` holds of how things stand.
    fn until(&mut self, is: impl Fn(Flow) -> bool) -> Flow {
        for _ in 0..100_000 {
            let flow = self.flow();
            if is(flow) {
                return flow;
            }
            thread::yield_now();
        }
        panic!("{:?}", self.flow());
    }
}

const HOSTS: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

#[test]
fn peers_go_on_as_if_nothing_had_happened() {
    for host in HOSTS {
        let Some(mut rig) = Rig::new(host) else {
            return;
        };
        rig.relay(Side::Client, b"question");
        rig.relay(Side::Backend, b"answer");
        assert_eq!(rig.hand_off(), HandOff::Done, "{host}");
        for round in 0..50 {
            rig.sends(Side::Client, format!("question {round}").as_bytes());
            rig.sends(Side::Backend, format!("answer {round}").as_bytes());
        }
        rig.settle();
        assert!(rig.handed.has(rig.session));
        for _ in 0..50 {
            rig.sends(Side::Backend, b"unasked");
            rig.sends(Side::Client, b"heard");
        }
        let flow = rig.until(|flow| flow.moved[1] > 0);
        assert_eq!(flow.ended, [false; 2]);
    }
}

#[test]
fn a_message_on_its_way_arrives_and_is_not_counted_twice() {
    for host in HOSTS {
        let Some(mut rig) = Rig::new(host) else {
            return;
        };
        rig.relay(Side::Client, b"hello");
        rig.sockets[1].write_all(b"on its way").unwrap();
        assert_eq!(rig.hand_off(), HandOff::Done);
        rig.peers[0].write_all(b", after").unwrap();
        rig.takes(1, b"on its way, after");
        rig.sends(Side::Backend, b"fine");
        let first = rig.flow();
        let settled = rig.settle();
        let then = rig.until(|_| true);
        let moved = [0, 1].map(|dir| first.moved[dir] + settled.moved[dir] + then.moved[dir]);
        assert_eq!(
            moved,
            [7, 4],
            "{host}: what the sockets sent is not counted"
        );
    }
}

#[test]
fn a_stream_is_whole_both_ways_at_once() {
    const BYTES: usize = 32 << 20;
    for host in HOSTS {
        let Some(mut rig) = Rig::away(host) else {
            return;
        };
        let at = |place: usize| (place.wrapping_mul(2_654_435_761) >> 7) as u8;
        let stream: Vec<u8> = (0..BYTES).map(at).collect();
        thread::scope(|scope| {
            for peer in &rig.peers {
                let mut writer = peer.try_clone().unwrap();
                let stream = &stream;
                scope.spawn(move || {
                    writer.write_all(stream).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
            }
            for peer in &rig.peers {
                let mut reader = peer.try_clone().unwrap();
                let stream = &stream;
                scope.spawn(move || {
                    let mut read = Vec::with_capacity(BYTES);
                    reader.read_to_end(&mut read).unwrap();
                    assert!(read == *stream, "{} bytes, not the same", read.len());
                });
            }
        });
        let mut moved = [0; 2];
        for _ in 0..100_000 {
            let flow = rig.flow();
            moved = [0, 1].map(|dir| moved[dir] + flow.moved[dir]);
            if flow.ended == [true; 2] {
                break;
            }
        }
        assert_eq!(moved, [BYTES as u64; 2], "{host}");
        rig.handed.close(rig.now, rig.session, true);
        rig.handed.tick(rig.now + LAST_WORDS);
        assert!(rig.handed.places.is_empty());
    }
}

#[test]
fn a_reset_is_passed_on_and_told() {
    for host in HOSTS {
        let Some(mut rig) = Rig::away(host) else {
            return;
        };
        SockRef::from(&rig.peers[1])
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(rig.peers.pop());
        let error = rig.peers[0].read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert_eq!(rig.flow().broken, Some((Side::Backend, Fault::Reset)));
    }
}

#[test]
fn a_segment_that_is_forged_ends_nothing() {
    const FIN: u8 = 1;
    const RESET: u8 = 4;
    const ACK: u8 = 16;
    for host in HOSTS {
        let Some(mut rig) = Rig::away(host) else {
            return;
        };
        let addresses = rig.peers.iter().map(|peer| {
            let (from, to) = (peer.local_addr().unwrap(), peer.peer_addr().unwrap());
            (from, to)
        });
        for (from, to) in addresses.collect::<Vec<_>>() {
            for flags in [FIN | ACK, RESET, RESET | ACK, ACK] {
                poke::send(from, to, flags).unwrap();
            }
        }
        for _ in 0..10 {
            rig.sends(Side::Client, b"still here");
            rig.sends(Side::Backend, b"so am I");
        }
        let flow = rig.until(|flow| flow.moved != [0; 2]);
        assert_eq!((flow.ended, flow.broken), ([false; 2], None), "{host}");
    }
}

#[test]
fn both_peers_of_a_session_that_is_revoked_are_reset_though_they_are_idle() {
    for host in HOSTS {
        let Some(mut rig) = Rig::away(host) else {
            return;
        };
        rig.sends(Side::Backend, b"unasked");
        rig.handed.close(rig.now, rig.session, false);
        for peer in &mut rig.peers {
            let error = peer.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{host}");
        }
    }
}

#[test]
fn a_session_that_is_not_quiet_stays() {
    let Some(mut rig) = Rig::new(HOSTS[0]) else {
        return;
    };
    rig.relay(Side::Client, b"hello");
    rig.peers[0].write_all(b"unread").unwrap();
    assert_eq!(rig.hand_off(), HandOff::Later);
    let Some(mut rig) = Rig::new(HOSTS[0]) else {
        return;
    };
    rig.relay(Side::Client, b"hello");
    rig.peers[0].shutdown(Shutdown::Write).unwrap();
    assert_eq!(rig.sockets[0].read(&mut [0]).unwrap(), 0);
    assert_eq!(rig.hand_off(), HandOff::Later);
}

/// However the FIN and the hand-off fall together, the stream ends where it ended, and the other one goes on.
#[test]
fn an_end_that_comes_during_the_hand_off_is_passed_on() {
    let Some(mut rig) = Rig::new(HOSTS[0]) else {
        return;
    };
    for round in 0..3000 {
        rig = Rig::of(rig.handed, HOSTS[0]);
        rig.relay(Side::Client, b"hello");
        let (client, go) = (rig.peers[0].try_clone().unwrap(), AtomicBool::new(false));
        let done = thread::scope(|scope| {
            scope.spawn(|| {
                while !go.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                (0..round % 300 * 4).for_each(|_| std::hint::spin_loop());
                client.shutdown(Shutdown::Write).unwrap();
            });
            go.store(true, Ordering::Relaxed);
            rig.hand_off()
        });
        if done != HandOff::Done {
            continue;
        }
        rig.until_end_of_client();
        rig.sends(Side::Backend, b"last words");
        rig.peers[1].shutdown(Shutdown::Write).unwrap();
        assert_eq!(rig.peers[0].read(&mut [0]).unwrap(), 0, "round {round}");
        rig.settle();
        rig.until(|flow| flow.ended == [true; 2]);
        rig.handed.close(rig.now, rig.session, true);
        rig.handed.tick(rig.now + LAST_WORDS);
    }
}
