//! The table of [`tlb_sim::conformance`] on the model net: for each relay, with and without latency, with and without
//! calls that do only a part of what they could.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use tlb_engine::Engine;
use tlb_engine::api::{Close, CloseReason, Event, Fault};
use tlb_engine::balance::Policy;
use tlb_engine::config::{Config, Failover, Limits, Listener};
use tlb_engine::drive::{Connect, Driver, Mode, Outcome, Turn};
use tlb_engine::ids::{Incarnation, ListenerId, PoolId, Side};
use tlb_engine::rng::Rng;
use tlb_engine::roster::{self, Pool, Roster};
use tlb_engine::time::{Duration, Timestamp};
use tlb_engine::unpack::{Endian, FrameSize, Key, Length, LengthField};
use tlb_sim::conformance::{
    Act, Backend, CONNECT_TIMEOUT_MS, GARBAGE, PREREAD_LIMIT, ROWS, Reader, Row, byte,
};
use tlb_sim::model::io::{ModelIo, Scarcity};
use tlb_sim::model::kernel::Sock;
use tlb_sim::model::ledger::Call;
use tlb_sim::model::{Hatch, Kernel, Tuning};

/// The links: to the backend, and to the client.
const BACKEND: usize = 0;
const CLIENT: usize = 1;
const LISTENER: ListenerId = ListenerId(0);
/// No step takes longer, in virtual time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Nor more rounds of the loop.
const ROUNDS: usize = 100_000;

/// More than any row's side sends.
const LONGEST: usize = 8_100_000;
/// Latency of both links and jitter of the backend's, in microseconds, and of 256 reads and writes, how many are
/// partial. Each also is a seed. Without latency, a client's reset can be there together with its bytes.
const NETS: [(u64, u64, u8); 4] = [(0, 0, 0), (0, 0, 128), (1000, 0, 0), (1000, 300, 200)];

/// All that each side may send, made once.
static STREAMS: LazyLock<[Bytes; 2]> = LazyLock::new(|| {
    [Side::Client, Side::Backend].map(|side| (0..LONGEST).map(|at| byte(side, at)).collect())
});

#[test]
fn the_table_holds_with_a_copying_relay() {
    run_all(Mode::Copy);
}

#[test]
fn the_table_holds_with_a_splicing_relay() {
    run_all(Mode::Splice);
}

#[test]
fn the_table_holds_with_a_relay_that_chooses() {
    run_all(Mode::Auto);
}

/// No read finds the reset, as there is nothing more to be read for; the backend would never answer.
#[test]
fn a_reset_that_comes_with_the_frame_is_seen_before_the_connect_is_over() {
    let name = "client_resets_while_connecting";
    let row = ROWS.iter().find(|row| row.name == name).expect("the row");
    let mut stage = Stage::new(row, Mode::Copy, NETS[0]);
    stage.play(row).expect("the client's reset");
    assert_eq!(stage.now(), Timestamp::ZERO);
    let kernel = stage.kernel.borrow();
    let calls = &kernel.ledger.calls;
    let read = calls
        .iter()
        .position(|(_, call)| matches!(call, Call::Recv(_, Outcome::Moved { bytes: 7, .. })));
    let (_, after) = calls.split_at(read.expect("the frame is read"));
    let told = Some(Fault::Reset);
    let taken =
        |call: &Call| matches!(call, Call::TakeError(_, Side::Client, fault) if *fault == told);
    assert!(after.iter().any(|(_, call)| taken(call)), "{calls:?}");
}

/// All rows on all nets, and all that is wrong with them.
fn run_all(mode: Mode) {
    let mut wrong = Vec::new();
    for row in ROWS.iter().filter(|row| row.not_in_model.is_none()) {
        for net in NETS {
            let mut stage = Stage::new(row, mode, net);
            if let Err(what) = stage.play(row) {
                let last = stage.kernel.borrow().ledger.last().join("\n    ");
                wrong.push(format!("{} {net:?}: {what}\n    {last}", row.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{mode:?}:\n{}", wrong.join("\n"));
}

/// tlb, its kernel, and the two peers.
struct Stage {
    kernel: Rc<RefCell<Kernel>>,
    driver: Driver<ModelIo>,
    /// What the driver's last turn asked for.
    wake: Turn,
    peers: [Option<Peer>; 2],
    reason: Option<CloseReason>,
}

/// One end of the test's own.
struct Peer {
    sock: Sock,
    side: Side,
    reader: Reader,
    /// Bytes of its stream that were given to be written.
    sent: usize,
    jobs: VecDeque<Job>,
}

/// What is still to be written.
enum Job {
    Bytes(VecDeque<Bytes>, bool),
    Fin,
}

impl Peer {
    fn new(sock: Sock, side: Side) -> Self {
        Self {
            sock,
            side,
            reader: Reader::new(side.other()),
            sent: 0,
            jobs: VecDeque::new(),
        }
    }

    fn add(&mut self, act: Act) {
        match act {
            Act::Send(bytes, piece) => {
                for start in (0..bytes).step_by(piece) {
                    let piece = self.next(piece.min(bytes - start));
                    self.jobs.push_back(Job::Bytes([piece].into(), false));
                }
            }
            Act::Garbage(bytes) => {
                let garbage = Bytes::from(vec![GARBAGE; bytes]);
                self.jobs.push_back(Job::Bytes([garbage].into(), false));
            }
            Act::Urgent => {
                let piece = self.next(1);
                self.jobs.push_back(Job::Bytes([piece].into(), true));
            }
            _ => self.jobs.push_back(Job::Fin),
        }
    }

    fn next(&mut self, bytes: usize) -> Bytes {
        let at = self.sent;
        self.sent += bytes;
        STREAMS[self.side as usize].slice(at..self.sent)
    }

    /// Writes as much as goes now.
    fn write(&mut self, kernel: &mut Kernel) {
        while let Some(job) = self.jobs.front_mut() {
            let more = match job {
                Job::Bytes(bytes, urgent) => match kernel.write(self.sock, bytes, *urgent) {
                    Ok(_) => !bytes.is_empty(),
                    Err(None) => return,
                    Err(Some(_)) => false,
                },
                Job::Fin => {
                    // A socket that is broken has no stream to end; whoever reads hears of it.
                    let _ = kernel.shutdown(self.sock);
                    false
                }
            };
            if !more {
                self.jobs.pop_front();
            }
        }
    }
}

fn tuning(row: &Row, partial: u8) -> Tuning {
    let small = row.steps.iter().any(|(_, act)| *act == Act::ConnectSmall);
    Tuning {
        send_buffer: 200_000,
        receive_buffer: if small { 2_000 } else { 150_000 },
        segment: 16_000,
        copy_buffer: 64 * 1024,
        pipe_slots: 16,
        pipes: 8,
        backlog: 16,
        partial,
        immediate: 128,
        user_timeout_ms: 30_000,
    }
}

fn config() -> Config {
    let length = Length {
        offset: 1,
        width: 2,
        endian: Endian::Big,
        adjust: 0,
    };
    let key = Key {
        offset: 3,
        length: Some(4),
    };
    let unpack = LengthField::new(b"*", length, key, FrameSize::default()).expect("a framing");
    let mut listener = Listener::new("devices", Some(Arc::new(unpack)), PoolId(0));
    listener.preread_limit = PREREAD_LIMIT;
    Config::new(vec![listener], Limits::default())
}

fn roster(address: SocketAddr) -> Roster {
    let failover = Failover {
        connect_timeout: Duration::from_millis(CONNECT_TIMEOUT_MS),
        retries: 0,
        ..Failover::default()
    };
    let backend = roster::Backend {
        id: "b".into(),
        incarnation: Incarnation(1),
        address: Some(address),
        weight: 1,
        ..roster::Backend::default()
    };
    let pool = Pool::new("all", Policy::RoundRobin, failover, vec![Arc::new(backend)]);
    Roster {
        epoch: 1,
        pools: vec![Arc::new(pool)],
    }
}

impl Stage {
    fn new(row: &Row, mode: Mode, (latency, jitter, partial): (u64, u64, u8)) -> Self {
        let address = SocketAddr::from(([10, 0, 0, 1], 7000));
        let mut rng = Rng::new(latency + jitter + u64::from(partial));
        let mut kernel = Kernel::new(tuning(row, partial), 1, 2, rng.split(), rng.split());
        kernel.set_address(BACKEND, address);
        kernel.set_hatch(
            BACKEND,
            match row.backend {
                Backend::Listens => Hatch::Open,
                Backend::Refuses => Hatch::Refusing,
                Backend::Hangs => Hatch::Hanging,
            },
        );
        kernel.set_latency(BACKEND, Duration::from_micros(latency), jitter);
        kernel.set_latency(CLIENT, Duration::from_micros(latency), 0);
        kernel.listen(0, LISTENER);
        let kernel = Rc::new(RefCell::new(kernel));
        let io = ModelIo::new(Rc::clone(&kernel), 0, Scarcity::default());
        let (config, roster) = (Arc::new(config()), Arc::new(roster(address)));
        let engine = Engine::new(config, roster, rng.next_u64(), Timestamp::ZERO);
        Self {
            driver: Driver::new(engine, io, mode),
            kernel,
            wake: Turn {
                deadline: None,
                busy: true,
            },
            peers: [None, None],
            reason: None,
        }
    }

    fn play(&mut self, row: &Row) -> Result<(), String> {
        for (number, (side, act)) in row.steps.iter().enumerate() {
            let done = self.perform(*side, *act);
            done.map_err(|what| format!("step {number}, the {side}'s {act:?}: {what}"))?;
        }
        let reason = self.until(|stage| stage.reason.map(Ok))?;
        if !row.reasons.contains(&reason.name()) {
            return Err(format!("it ends for {reason}, not {:?}", row.reasons));
        }
        if let Some(what) = self.driver.pending() {
            return Err(what.into());
        }
        match self.kernel.borrow().ledger.findings.first() {
            Some(finding) => Err(finding.to_string()),
            None => Ok(()),
        }
    }

    fn perform(&mut self, side: Side, act: Act) -> Result<(), String> {
        match act {
            Act::Connect | Act::ConnectSmall => {
                let from = SocketAddr::from(([10, 0, 0, 2], 4000));
                let mut kernel = self.kernel.borrow_mut();
                let sock = kernel.client_connect(side as usize, CLIENT, 0, LISTENER, from);
                drop(kernel);
                self.peers[side as usize] = Some(Peer::new(sock, side));
                self.until(|stage| {
                    let far = stage.kernel.borrow_mut().connected(sock);
                    (far != Ok(Connect::InProgress)).then_some(Ok(()))
                })
            }
            Act::Accept => {
                let sock = self.until(|stage| {
                    let mut kernel = stage.kernel.borrow_mut();
                    kernel.backend_accept(BACKEND, side as usize).map(Ok)
                })?;
                self.peers[side as usize] = Some(Peer::new(sock, side));
                Ok(())
            }
            Act::Expect(bytes, piece) => self.expect(side, bytes, piece),
            Act::Await => self.until(|stage| {
                let sock = stage.peer(side).ok()?.sock;
                (stage.kernel.borrow().unread(sock) > 0).then_some(Ok(()))
            }),
            Act::Eof => self.read_end(side, |end| end == Ok(0)),
            Act::Cut => self.read_end(side, |end| end == Err(Fault::Reset)),
            Act::End => loop {
                match self.read(side, usize::MAX)? {
                    Ok(0) | Err(Fault::Reset) => return Ok(()),
                    Ok(_) => {}
                    Err(fault) => return Err(fault.to_string()),
                }
            },
            Act::Close => self.leave(side, Close::Fin),
            Act::Reset => self.leave(side, Close::Reset),
            write => {
                self.peer(side)?.add(write);
                Ok(())
            }
        }
    }

    fn peer(&mut self, side: Side) -> Result<&mut Peer, String> {
        self.peers[side as usize].as_mut().ok_or("gone".into())
    }

    fn expect(&mut self, side: Side, bytes: usize, piece: usize) -> Result<(), String> {
        let mut left = bytes;
        while left > 0 {
            match self.read(side, left.min(piece))? {
                Ok(got) if got > 0 => left -= got,
                end => return Err(format!("{end:?}, {left} bytes too early")),
            }
        }
        Ok(())
    }

    fn read_end(
        &mut self,
        side: Side,
        is_it: impl Fn(Result<usize, Fault>) -> bool,
    ) -> Result<(), String> {
        match self.read(side, 1)? {
            end if is_it(end) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// Waits for bytes or an end; the bytes are the other side's next ones.
    fn read(&mut self, side: Side, most: usize) -> Result<Result<usize, Fault>, String> {
        self.until(|stage| {
            let kernel = Rc::clone(&stage.kernel);
            let peer = stage.peer(side).ok()?;
            let mut chunks = VecDeque::new();
            let read = kernel
                .borrow_mut()
                .read(peer.sock, most, usize::MAX, false, &mut chunks);
            match read {
                Ok(bytes) => {
                    let taken = chunks.iter().try_for_each(|chunk| peer.reader.take(chunk));
                    Some(taken.map(|()| Ok(bytes)))
                }
                Err(None) => None,
                Err(Some(fault)) => Some(Ok(Err(fault))),
            }
        })
    }

    /// Closes when everything is written and acknowledged.
    fn leave(&mut self, side: Side, how: Close) -> Result<(), String> {
        let sock = self.peer(side)?.sock;
        self.until(|stage| {
            let written = stage.peer(side).ok()?.jobs.is_empty();
            let acknowledged = stage.kernel.borrow().unacknowledged(sock) == 0;
            (written && acknowledged).then_some(Ok(()))
        })?;
        self.peers[side as usize] = None;
        self.kernel.borrow_mut().close(sock, how);
        Ok(())
    }

    /// Lets the world go on until `done`: what is due arrives, the peers write, tlb has a turn if there is a reason for
    /// one, and only when nothing is left to do at this time does time go on.
    fn until<T>(
        &mut self,
        mut done: impl FnMut(&mut Self) -> Option<Result<T, String>>,
    ) -> Result<T, String> {
        let give_up = self.now() + PATIENCE;
        for _ in 0..ROUNDS {
            let kernel = Rc::clone(&self.kernel);
            kernel.borrow_mut().advance();
            for peer in self.peers.iter_mut().flatten() {
                peer.write(&mut kernel.borrow_mut());
            }
            if let Some(result) = done(self) {
                return result;
            }
            let due = self.wake.deadline.is_some_and(|at| at <= self.now());
            if self.wake.busy || due || kernel.borrow().has_events(0) {
                self.turn();
                continue;
            }
            let next = kernel.borrow().next_due();
            match next.into_iter().chain(self.wake.deadline).min() {
                Some(next) if next <= give_up => kernel.borrow_mut().set_time(next),
                _ => return Err("it does not come".into()),
            }
        }
        Err("it spins".into())
    }

    fn now(&self) -> Timestamp {
        self.kernel.borrow().now()
    }

    /// One turn of tlb's loop.
    fn turn(&mut self) {
        let now = self.now();
        let (mut events, mut accepts) = (Vec::new(), Vec::new());
        {
            let mut kernel = self.kernel.borrow_mut();
            kernel.take_events(0, &mut events);
            kernel.take_accepts(0, &mut accepts);
        }
        for (socket, hint) in events {
            self.driver.ready(socket, hint);
        }
        for listener in accepts {
            self.driver.acceptable(listener);
        }
        self.wake = self.driver.turn(now);
        while let Some(event) = self.driver.poll_event() {
            if let Event::Closed(closed) = event {
                self.reason = Some(closed.reason);
            }
        }
    }
}
