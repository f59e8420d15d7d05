//! `LinuxIo` on loopback, one call at a time.

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::SockRef;

use super::*;
use crate::cpus::Cpus;
use crate::listen::listen;

const DEADLINE: Duration = Duration::from_secs(5);
const FIRST: SessionId = SessionId::new(0, 7);
const SECOND: SessionId = SessionId::new(1, 0);

struct World {
    poll: Poll,
    events: Events,
    io: LinuxIo,
    door: SocketAddr,
    backends: TcpListener,
}

/// The far ends of a session.
struct Ends {
    client: TcpStream,
    backend: TcpStream,
}

impl World {
    fn new(pipes: usize) -> Self {
        let poll = Poll::new().unwrap();
        let (door, listeners) = listen(
            "127.0.0.1:0".parse().unwrap(),
            1,
            ListenerOptions::default(),
            &Cpus::default(),
        )
        .unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let listeners = listeners
            .into_iter()
            .map(|socket| (socket, SessionOptions::default()));
        let io = LinuxIo::new(registry, listeners.collect(), pipes).unwrap();
        let backends = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            poll,
            events: Events::with_capacity(64),
            io,
            door,
            backends,
        }
    }

    /// Repeats a call, after events, until it is no longer `None`.
    fn until<T>(&mut self, mut call: impl FnMut(&mut LinuxIo) -> Option<T>) -> T {
        loop {
            if let Some(result) = call(&mut self.io) {
                return result;
            }
            self.poll.poll(&mut self.events, Some(DEADLINE)).unwrap();
            assert!(!self.events.is_empty(), "no event came");
        }
    }

    fn outcome(&mut self, mut call: impl FnMut(&mut LinuxIo) -> Outcome) -> Outcome {
        self.until(|io| match call(io) {
            Outcome::WouldBlock => None,
            other => Some(other),
        })
    }

    fn accept(&mut self) -> (Conn, SocketAddr) {
        self.until(|io| match io.accept(ListenerId(0)) {
            Accept::Conn(conn, peer) => Some((conn, peer)),
            Accept::WouldBlock => None,
            other => panic!("{other:?}"),
        })
    }

    /// A client that was accepted as `session`.
    fn enter(&mut self, session: SessionId) -> TcpStream {
        let client = TcpStream::connect(self.door).unwrap();
        let (conn, peer) = self.accept();
        assert_eq!(peer, client.local_addr().unwrap());
        self.io.adopt(session, conn).unwrap();
        client
    }

    /// A session with both sockets.
    fn session(&mut self, session: SessionId) -> Ends {
        let client = self.enter(session);
        let to = self.backends.local_addr().unwrap();
        self.io
            .connect(session, 1, to, None, First::default())
            .unwrap();
        self.until(|io| (io.connected(session).unwrap() == Connect::Established).then_some(()));
        let (backend, _) = self.backends.accept().unwrap();
        for end in [&client, &backend] {
            end.set_read_timeout(Some(DEADLINE)).unwrap();
            end.set_write_timeout(Some(DEADLINE)).unwrap();
        }
        Ends { client, backend }
    }

    fn close(&mut self, session: SessionId) {
        for side in Side::BOTH {
            self.io.close(session, side, Close::Fin);
        }
    }

    /// Whether nothing waits to be written forward.
    fn is_empty(&self, session: SessionId) -> bool {
        matches!(self.io.sessions[session.index()].stores[0], Store::Empty)
    }

    /// Moves bytes until `bytes` of them have been taken from the source.
    fn relay(&mut self, session: SessionId, dir: Dir, via: Via, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let filled = self.outcome(|io| io.fill(session, dir, via));
            let Outcome::Moved { bytes, .. } = filled else {
                panic!("{filled:?}")
            };
            left -= bytes;
            let mut held = bytes;
            while held > 0 {
                let drained = self.outcome(|io| io.drain(session, dir));
                let Outcome::Moved { bytes, .. } = drained else {
                    panic!("{drained:?}")
                };
                held -= bytes;
            }
        }
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Fills the kernel's buffers of a session's `dir` until neither end takes more, and says how much
/// went in. What is left over stays in the store.
fn stuff(world: &mut World, session: SessionId, ends: &mut Ends, via: Via) -> Vec<u8> {
    let mut sent = Vec::new();
    let chunk = pattern(48_000);
    ends.client.set_nonblocking(true).unwrap();
    loop {
        if let Ok(bytes) = ends.client.write(&chunk) {
            sent.extend_from_slice(&chunk[..bytes]);
        }
        if world.is_empty(session) {
            world.io.fill(session, Dir::Forward, via);
        }
        if world.io.drain(session, Dir::Forward) == Outcome::WouldBlock && !world.is_empty(session)
        {
            break;
        }
    }
    ends.client.set_nonblocking(false).unwrap();
    sent
}

/// Waits until everything that was sent, a FIN included, has reached the other kernel socket.
fn arrived(sender: &TcpStream) {
    let deadline = Instant::now() + DEADLINE;
    while sys::unacknowledged(sender) > 0 {
        assert!(Instant::now() < deadline, "never acknowledged");
        thread::yield_now();
    }
}

#[test]
fn both_ways_of_relaying_move_bytes_in_both_directions() {
    for via in [Via::Copy, Via::Splice] {
        let mut world = World::new(2);
        let mut ends = world.session(FIRST);
        let bytes = pattern(30_000);
        let mut got = vec![0; bytes.len()];

        ends.client.write_all(&bytes).unwrap();
        world.relay(FIRST, Dir::Forward, via, bytes.len());
        ends.backend.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes);

        got.fill(0);
        ends.backend.write_all(&bytes).unwrap();
        world.relay(FIRST, Dir::Return, via, bytes.len());
        ends.client.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes);

        let entry = world.io.sessions.get(FIRST).unwrap();
        assert!(
            entry
                .stores
                .iter()
                .all(|store| matches!(store, Store::Empty)),
            "{via:?}"
        );
        assert_eq!(world.io.pipes.lent(), 0, "an idle session holds no pipe");
        world.close(FIRST);
        assert!(world.io.is_idle());
    }
}

#[test]
fn the_preface_goes_first_and_may_be_larger_than_the_kernel_takes() {
    let mut world = World::new(2);
    let mut ends = world.session(FIRST);
    let preface = pattern(20_000_000);
    world.io.load(FIRST, preface.clone().into());
    let full = world.io.drain(FIRST, Dir::Forward);
    assert!(
        matches!(full, Outcome::Moved { short: true, .. }),
        "{full:?}"
    );
    let reader = thread::spawn(move || {
        let mut got = vec![0; 20_000_000];
        ends.backend.read_exact(&mut got).unwrap();
        got
    });
    while !world.is_empty(FIRST) {
        world.outcome(|io| io.drain(FIRST, Dir::Forward));
    }
    assert!(reader.join().unwrap() == preface);
}

#[test]
fn what_a_slow_destination_left_over_survives_the_next_user_of_the_buffer() {
    let mut world = World::new(0);
    let mut slow = world.session(FIRST);
    let mut other = world.session(SECOND);
    let sent = stuff(&mut world, FIRST, &mut slow, Via::Copy);
    assert!(matches!(
        world.io.sessions[0].stores[0],
        Store::Scratch { .. }
    ));

    other.client.write_all(b"in between").unwrap();
    world.relay(SECOND, Dir::Forward, Via::Copy, 10);
    let mut got = [0; 10];
    other.backend.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"in between");
    assert!(matches!(world.io.sessions[0].stores[0], Store::Own(_)));

    let total = sent.len();
    let reader = thread::spawn(move || {
        let mut got = vec![0; total];
        slow.backend.read_exact(&mut got).unwrap();
        got
    });
    while !reader.is_finished() {
        // Events come as long as bytes are under way; the last ones need none.
        if world.is_empty(FIRST) {
            world.io.fill(FIRST, Dir::Forward, Via::Copy);
        }
        world.io.drain(FIRST, Dir::Forward);
    }
    assert!(reader.join().unwrap() == sent);
    drop(slow.client);
}

#[test]
fn a_pipe_with_bytes_left_at_the_close_is_not_lent_again() {
    let mut world = World::new(1);
    let mut ends = world.session(FIRST);
    stuff(&mut world, FIRST, &mut ends, Via::Splice);
    assert_eq!(world.io.pipes.lent(), 1);

    let mut next = world.session(SECOND);
    next.client.write_all(b"clean").unwrap();
    assert_eq!(
        world.io.fill(SECOND, Dir::Forward, Via::Splice),
        Outcome::NoPipe
    );
    world.close(FIRST);
    assert_eq!(world.io.pipes.lent(), 0);

    world.relay(SECOND, Dir::Forward, Via::Splice, 5);
    let mut got = [0; 5];
    next.backend.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"clean");
    world.close(SECOND);
    assert!(world.io.is_idle());
}

#[test]
fn a_fin_is_an_end_and_can_be_passed_on() {
    for via in [Via::Copy, Via::Splice] {
        let mut world = World::new(1);
        let mut ends = world.session(FIRST);
        ends.client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(
            world.outcome(|io| io.fill(FIRST, Dir::Forward, via)),
            Outcome::Eof
        );
        world.io.shutdown(FIRST, Side::Backend).unwrap();
        assert_eq!(ends.backend.read(&mut [0]).unwrap(), 0);

        ends.backend.write_all(b"answer").unwrap();
        world.relay(FIRST, Dir::Return, via, 6);
        let mut got = [0; 6];
        ends.client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"answer");
        world.close(FIRST);
        assert!(world.io.is_idle());
    }
}

#[test]
fn a_reset_is_a_fault_for_both_directions() {
    for via in [Via::Copy, Via::Splice] {
        let mut world = World::new(2);
        let ends = world.session(FIRST);
        SockRef::from(&ends.client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(ends.client);
        let read = world.outcome(|io| io.fill(FIRST, Dir::Forward, via));
        assert_eq!(read, Outcome::Broken(Fault::Reset), "{via:?}");

        // The error has been consumed: a write and a shutdown still say that it was a reset.
        world.io.sessions[0].stores[1] = Store::Own(Box::new(Bytes::from_static(b"late")));
        assert_eq!(
            world.io.drain(FIRST, Dir::Return),
            Outcome::Broken(Fault::Reset)
        );
        assert_eq!(world.io.shutdown(FIRST, Side::Client), Err(Fault::Reset));
    }
}

#[test]
fn writing_into_a_reset_connection_is_a_fault_through_a_pipe_too() {
    let mut world = World::new(1);
    let mut ends = world.session(FIRST);
    ends.client.write_all(b"for nobody").unwrap();
    let filled = world.outcome(|io| io.fill(FIRST, Dir::Forward, Via::Splice));
    assert_eq!(
        filled,
        Outcome::Moved {
            bytes: 10,
            short: false
        }
    );
    SockRef::from(&ends.backend)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(ends.backend);
    world.until(|io| io.take_error(FIRST, Side::Backend));
    // EPIPE, and SIGPIPE is ignored: a Rust program starts like that.
    assert_eq!(
        world.io.drain(FIRST, Dir::Forward),
        Outcome::Broken(Fault::Reset)
    );
    world.close(FIRST);
    assert!(world.io.is_idle(), "the pipe with ten bytes in it is gone");
}

#[test]
fn a_close_reaches_the_peer_as_it_was_meant() {
    let mut world = World::new(0);
    let mut ends = world.session(FIRST);
    world.io.close(FIRST, Side::Client, Close::Reset);
    world.io.close(FIRST, Side::Backend, Close::Fin);
    let broken = ends.client.read(&mut [0]).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    assert_eq!(ends.backend.read(&mut [0]).unwrap(), 0);
    assert!(world.io.is_idle());
}

#[test]
fn urgent_data_stays_in_the_stream() {
    for via in [Via::Copy, Via::Splice] {
        for finish in [false, true] {
            let mut world = World::new(1);
            let mut ends = world.session(FIRST);
            ends.client.write_all(b"before").unwrap();
            SockRef::from(&ends.client).send_out_of_band(b"!").unwrap();
            ends.client.write_all(b"after").unwrap();
            if finish {
                ends.client.shutdown(std::net::Shutdown::Write).unwrap();
            }
            arrived(&ends.client);
            world.relay(FIRST, Dir::Forward, via, 6);
            // Here is the mark. A splice stops in front of it: it would even call it the end once a
            // FIN has come.
            let at_mark = world.io.fill(FIRST, Dir::Forward, via);
            match (via, finish) {
                (Via::Splice, false) => {
                    assert_eq!(at_mark, Outcome::WouldBlock);
                    world.relay(FIRST, Dir::Forward, Via::Copy, 6);
                }
                _ => {
                    assert!(
                        matches!(at_mark, Outcome::Moved { bytes: 6, .. }),
                        "{at_mark:?}"
                    );
                    world.outcome(|io| io.drain(FIRST, Dir::Forward));
                }
            }
            let mut got = [0; 12];
            ends.backend.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"before!after", "{via:?}");
            let then = world.io.fill(FIRST, Dir::Forward, via);
            assert_eq!(
                then,
                if finish {
                    Outcome::Eof
                } else {
                    Outcome::WouldBlock
                }
            );
        }
    }
}

#[test]
fn unacknowledged_bytes_are_seen_until_the_peer_has_them() {
    let mut world = World::new(0);
    let mut ends = world.session(FIRST);
    assert_eq!(world.io.unacknowledged(FIRST, Side::Backend), 0);
    stuff(&mut world, FIRST, &mut ends, Via::Copy);
    assert!(world.io.unacknowledged(FIRST, Side::Backend) > 0);
    assert_eq!(
        world.io.unacknowledged(FIRST, Side::Client),
        0,
        "nothing was written there"
    );
}

#[test]
fn a_refused_connect_is_a_fault_and_the_next_attempt_is_another_socket() {
    let mut world = World::new(0);
    let _client = world.enter(FIRST);
    // Bound but not listening: nobody else can take the port meanwhile.
    let reserved = socket::tcp(&world.door).unwrap();
    reserved
        .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
        .unwrap();
    let nobody = reserved.local_addr().unwrap().as_socket().unwrap();

    let started = world.io.connect(FIRST, 1, nobody, None, First::default());
    let fault = match started {
        Err(fault) => fault,
        Ok(_) => world.until(|io| io.connected(FIRST).err()),
    };
    assert_eq!(fault, Fault::Refused);
    world.io.close(FIRST, Side::Backend, Close::Fin);

    let to = world.backends.local_addr().unwrap();
    world
        .io
        .connect(FIRST, 2, to, None, First::default())
        .unwrap();
    world.until(|io| (io.connected(FIRST).unwrap() == Connect::Established).then_some(()));
}

#[test]
fn a_backend_has_its_keepalive_once_its_session_stays() {
    let mut world = World::new(0);
    let session = SessionOptions {
        idle: Some(Duration::from_secs(60)),
        user_timeout: None,
        congestion: None,
    };
    let options = ListenerOptions {
        session,
        defer: false,
    };
    world.io.set_options(ListenerId(0), options).unwrap();
    world.io.tick(Timestamp::from_millis(100));
    let _stays = world.session(FIRST);
    let _leaves = world.session(SECOND);
    assert_eq!(world.io.due(), Some(Timestamp::from_millis(1100)));
    world.close(SECOND);

    let has_it = |world: &World| {
        let backend = world.io.sessions[0].backend.as_ref().unwrap();
        SockRef::from(backend).keepalive().unwrap()
    };
    world.io.tick(Timestamp::from_millis(599));
    assert!(!has_it(&world));
    world.io.tick(Timestamp::from_millis(1100));
    assert!(has_it(&world));
    assert_eq!(world.io.due(), None);
}

#[test]
fn a_backend_has_no_delay_from_the_second_write_on() {
    let mut world = World::new(0);
    let mut ends = world.session(FIRST);
    let nodelay = |world: &World| {
        let backend = world.io.sessions[0].backend.as_ref().unwrap();
        SockRef::from(backend).tcp_nodelay().unwrap()
    };
    assert!(!nodelay(&world));
    for has_it in [false, true] {
        ends.client.write_all(b"once").unwrap();
        world.until(|io| moved_all(io.fill(FIRST, Dir::Forward, Via::Copy)));
        world.until(|io| moved_all(io.drain(FIRST, Dir::Forward)));
        ends.backend.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(nodelay(&world), has_it);
    }
}

/// What has gone with the SYN is not written again, and what has not follows it.
#[test]
fn what_was_sent_early_is_answered_for_once() {
    for rest in [&b""[..], b" and more"] {
        let mut world = World::new(0);
        let mut ends = world.session(FIRST);
        world.io.sessions[0].stores[Dir::Forward as usize] = Store::Early {
            sent: 5,
            rest: None,
        };
        let preface = [b"early", rest].concat();
        world.io.load(FIRST, Bytes::from(preface));
        let all = |bytes| Outcome::Moved {
            bytes,
            short: false,
        };
        assert_eq!(world.io.drain(FIRST, Dir::Forward), all(5));
        if !rest.is_empty() {
            assert_eq!(world.io.drain(FIRST, Dir::Forward), all(rest.len()));
            let mut got = vec![0; rest.len()];
            ends.backend.read_exact(&mut got).unwrap();
            assert_eq!(got, rest);
        }
        world.close(FIRST);
        assert!(world.io.is_idle());
    }
}

fn moved_all(outcome: Outcome) -> Option<()> {
    matches!(outcome, Outcome::Moved { bytes: 4, .. }).then_some(())
}

#[test]
fn an_outdated_id_names_nothing() {
    let mut world = World::new(1);
    let _ends = world.session(FIRST);
    let old = SessionId::new(FIRST.index(), FIRST.generation() - 1);
    assert_eq!(world.io.recv(old, &mut [0]), Outcome::Broken(GONE));
    assert_eq!(
        world.io.fill(old, Dir::Forward, Via::Copy),
        Outcome::Broken(GONE)
    );
    assert_eq!(
        world.io.fill(old, Dir::Forward, Via::Splice),
        Outcome::Broken(GONE)
    );
    assert_eq!(world.io.drain(old, Dir::Return), Outcome::Broken(GONE));
    assert_eq!(world.io.connected(old), Err(GONE));
    assert_eq!(world.io.take_error(old, Side::Client), None);
    world.io.close(old, Side::Client, Close::Reset);
    assert_eq!(
        world.io.connected(FIRST),
        Ok(Connect::Established),
        "untouched"
    );
}

#[test]
fn a_listener_that_was_closed_accepts_nothing_and_refuses() {
    let mut world = World::new(0);
    let _waiting = TcpStream::connect(world.door).unwrap();
    world.accept();
    world.io.unlisten(ListenerId(0));
    assert!(matches!(world.io.accept(ListenerId(0)), Accept::WouldBlock));
    let refused = TcpStream::connect(world.door).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

/// Marks the process that [`running_out_of_descriptors_is_this_hosts_fault`] starts.
const CHILD: &str = "TLB_TEST_WITHOUT_DESCRIPTORS";

/// Runs itself in a process of its own, as the limit concerns all tests of one.
#[test]
fn running_out_of_descriptors_is_this_hosts_fault() {
    if std::env::var_os(CHILD).is_none() {
        let own_name = thread::current().name().unwrap().to_owned();
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &own_name])
            .env(CHILD, "1")
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
    let mut world = World::new(1);
    let ends = world.session(FIRST);
    world.io.close(FIRST, Side::Backend, Close::Fin);
    let _waiting = TcpStream::connect(world.door).unwrap();
    let to = world.backends.local_addr().unwrap();
    let mut hoard = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        hoard.push(file);
    }

    assert_eq!(
        world.io.connect(FIRST, 2, to, None, First::default()),
        Err(Fault::LocalDescriptors)
    );
    let accepted = world.until(|io| match io.accept(ListenerId(0)) {
        Accept::WouldBlock => None,
        other => Some(other),
    });
    assert!(
        matches!(accepted, Accept::Exhausted(Fault::LocalDescriptors)),
        "{accepted:?}"
    );
    assert_eq!(
        world.io.fill(FIRST, Dir::Forward, Via::Splice),
        Outcome::NoPipe
    );

    hoard.clear();
    world.accept();
    assert!(
        world
            .io
            .connect(FIRST, 3, to, None, First::default())
            .is_ok()
    );
    drop(ends);
}

#[test]
fn a_session_takes_a_warm_connection_with_what_its_backend_has_said() {
    let mut world = World::new(0);
    let to = world.backends.local_addr().unwrap();
    let (warm, ended) = (WarmId(3), WarmId(0));
    world.io.warm(warm, to, None);
    let (mut backend, _) = world.backends.accept().unwrap();
    backend.write_all(b"hello").unwrap();
    world.io.warm(ended, to, None);
    drop(world.backends.accept().unwrap());

    let _client = world.enter(FIRST);
    // Its end is on the way at most as long as it takes to come over loopback.
    let gone = |io: &mut LinuxIo| io.warm.get(ended).is_some_and(socket::has_ended);
    while !gone(&mut world.io) {
        thread::yield_now();
    }
    assert_eq!(world.io.take(FIRST, 1, ended, First::default()), None);
    assert_eq!(world.io.take(FIRST, 1, ended, First::default()), None);
    let taken = world.io.take(FIRST, 1, warm, First::default());
    assert_eq!(taken, Some(Connect::InProgress));
    world.until(|io| (io.connected(FIRST).unwrap() == Connect::Established).then_some(()));
    let read = world.outcome(|io| io.fill(FIRST, Dir::Return, Via::Copy));
    assert_eq!(
        read,
        Outcome::Moved {
            bytes: 5,
            short: true
        }
    );
    world.close(FIRST);
    assert!(world.io.is_idle());
}

#[test]
fn a_warm_connection_that_was_refused_or_cooled_is_not_there() {
    let mut world = World::new(0);
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let to = world.backends.local_addr().unwrap();
    world.io.warm(WarmId(0), nobody, None);
    world.io.warm(WarmId(1), to, None);
    world.io.cool(WarmId(1));
    world.io.cool(WarmId(7));
    let (mut backend, _) = world.backends.accept().unwrap();
    backend.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(backend.read(&mut [0]).unwrap(), 0, "it was closed");
    let _client = world.enter(FIRST);
    let first = First {
        bytes: b"frame",
        in_syn: false,
    };
    for warm in [WarmId(0), WarmId(1), WarmId(7)] {
        assert_eq!(world.io.take(FIRST, 1, warm, first), None);
    }
    world.close(FIRST);
    assert!(world.io.is_idle());
}
