//! The table of [`tlb_sim::conformance`] under turmoil, cut by two seeds.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::future::{Future, pending, poll_fn};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use tlb_engine::api::Event;
use tlb_engine::balance::Policy;
use tlb_engine::config::{Config, Failover, Limits, Listener};
use tlb_engine::ids::{Incarnation, PoolId, Side};
use tlb_engine::rng::Rng;
use tlb_engine::roster::{self, Pool, Roster};
use tlb_engine::time::Duration;
use tlb_engine::unpack::{Endian, FrameSize, Key, Length, LengthField};
use tlb_sim::conformance::{
    Act, Backend, CONNECT_TIMEOUT_MS, GARBAGE, PREREAD_LIMIT, ROWS, Reader, Row, Step, byte,
};
use tlb_sim::host::{Control, Setup, serve};
use tlb_sim::net::{Chunker, Chunking, Resets};
use tlb_sim::trace::Trace;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};

use crate::worlds::ms;

const SEEDS: [u64; 2] = [1, 2];
/// Where tlb listens.
const FRONT: u16 = 8011;
/// Where the backend listens.
const BACK: u16 = 7001;
/// The longest that a segment is under way.
const LATENCY: Duration = ms(3);
/// After this everything that was written has reached the other host: what finds no room is not
/// written yet. Two steps of the simulation are for their granularity.
const DELIVERY: Duration = LATENCY.saturating_add(ms(2));
/// Virtual time for a row.
const PATIENCE: Duration = Duration::from_secs(30);
/// Segments of a window. A relay that is stopped must fill up long before 8 MB.
const WINDOW: usize = 16;

#[test]
fn the_table_holds() {
    let rows = ROWS.iter().filter(|row| row.not_in_turmoil.is_none());
    let runs = rows.flat_map(|row| SEEDS.map(|seed| (row, seed)));
    let wrong: Vec<_> = runs
        .filter_map(|(row, seed)| {
            let (name, what) = (row.name, run(row, seed).err()?);
            Some(format!("{name}, seed {seed}: {what}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn run(row: &'static Row, seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    // The window is the simulation's: a client's that is small makes all small.
    let is_small = row.steps.iter().any(|(_, act)| *act == Act::ConnectSmall);
    let mut sim = Builder::new()
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        .rng_seed(rng.next_u64())
        .simulation_duration(PATIENCE)
        .max_message_latency(LATENCY)
        .tcp_capacity(if is_small { 1 } else { WINDOW })
        .build();
    let stage = Rc::new(Stage {
        steps: row.steps,
        turn: Cell::default(),
        turned: Default::default(),
        wrong: RefCell::default(),
        resets: Resets::default(),
    });
    let control = Control::default();
    add_backend(&mut sim, row.backend, &stage);
    add_tlb(&mut sim, &mut rng, &stage, control.clone());
    let (to, theirs) = (SocketAddr::new(sim.lookup("tlb"), FRONT), Rc::clone(&stage));
    sim.client("client", async move {
        theirs.play(Side::Client, Way::To(to)).await
    });
    let reason = finish(&mut sim, &stage, &control)?;
    if row.reasons.contains(&reason) {
        Ok(())
    } else {
        Err(format!("it ends for {reason}, not {:?}", row.reasons))
    }
}

fn add_backend(sim: &mut Sim<'_>, backend: Backend, stage: &Rc<Stage>) {
    let stage = Rc::clone(stage);
    sim.client("backend", async move {
        if backend == Backend::Refuses {
            // A host whose software has ended does not even refuse.
            return pending().await;
        }
        // turmoil answers a connect when it is accepted: who has no step that accepts hangs.
        let listener = TcpListener::bind(("0.0.0.0", BACK)).await?;
        stage.play(Side::Backend, Way::From(listener)).await
    });
}

fn add_tlb(sim: &mut Sim<'_>, rng: &mut Rng, stage: &Stage, control: Control) {
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
    let unpack = LengthField::new(b"*", length, key, FrameSize::default());
    let unpack = Arc::new(unpack.expect("the table's frame is a possible frame"));
    let mut listener = Listener::new("devices", Some(unpack), PoolId(0));
    listener.preread_limit = PREREAD_LIMIT;
    let backend = roster::Backend {
        id: "backend".into(),
        incarnation: Incarnation(0),
        address: Some(SocketAddr::new(sim.lookup("backend"), BACK)),
        weight: 1,
        ..roster::Backend::default()
    };
    let failover = Failover {
        connect_timeout: ms(CONNECT_TIMEOUT_MS),
        retries: 0,
        ..Failover::default()
    };
    let pool = Pool::new(
        "stations",
        Policy::RoundRobin,
        failover,
        vec![Arc::new(backend)],
    );
    let setup = Setup {
        ear: None,
        name: "tlb".into(),
        config: Arc::new(Config::new(vec![listener], Limits::default())),
        ports: vec![FRONT],
        roster: Arc::new(Roster {
            epoch: 0,
            pools: vec![Arc::new(pool)],
        }),
        seed: rng.next_u64(),
        chunks: Chunker::new(Chunking::Random, rng.split()),
        resets: stage.resets.clone(),
        trace: Trace::default(),
    };
    sim.client("tlb", async move { Ok(serve(setup, control).await?) });
}

/// Steps until the row is through and the session has ended; says for what reason.
fn finish(sim: &mut Sim<'_>, stage: &Stage, tlb: &Control) -> Result<&'static str, String> {
    loop {
        if let Some(what) = stage.wrong.take() {
            return Err(what);
        }
        let events = tlb.events();
        let ends: Vec<_> = events
            .iter()
            .filter_map(|seen| match &seen.event {
                Event::Closed(closed) => Some(closed.reason.name()),
                _ => None,
            })
            .collect();
        let is_through = stage.turn.get() == stage.steps.len();
        if is_through && !ends.is_empty() && tlb.live() == 0 && tlb.sockets() == 0 {
            return match ends[..] {
                [reason] => Ok(reason),
                _ => Err(format!("more than one session ends: {ends:?}")),
            };
        }
        if let Err(error) = sim.step() {
            let (turn, live) = (stage.turn.get(), tlb.live());
            let step = stage.steps.get(turn);
            return Err(format!(
                "{error} at step {turn}, {step:?}; {live} live, ended: {ends:?}"
            ));
        }
    }
}

/// What both peers share: the steps, and whose turn it is.
struct Stage {
    steps: &'static [Step],
    turn: Cell<usize>,
    /// A peer hears here that the other is done with a step.
    turned: [Notify; 2],
    wrong: RefCell<Option<String>>,
    resets: Resets,
}

/// How a peer gets its connection.
enum Way {
    To(SocketAddr),
    From(TcpListener),
}

impl Way {
    async fn open(&self) -> io::Result<TcpStream> {
        match self {
            Self::To(address) => TcpStream::connect(address).await,
            Self::From(listener) => listener.accept().await.map(|(stream, _)| stream),
        }
    }
}

impl Stage {
    /// Takes the steps of one side, each when it is its turn, until one goes wrong. It never comes
    /// back: the table says nothing of closing what is left.
    async fn play(&self, side: Side, way: Way) -> turmoil::Result {
        let mut peer = None;
        for (number, (who, act)) in self.steps.iter().enumerate() {
            if *who != side {
                continue;
            }
            while self.turn.get() != number {
                self.turned[side as usize].notified().await;
            }
            if let Err(what) = self.perform(side, &way, &mut peer, *act).await {
                let what = format!("step {number}, the {side}'s {act:?}: {what}");
                *self.wrong.borrow_mut() = Some(what);
                break;
            }
            self.turn.set(number + 1);
            self.turned[side.other() as usize].notify_one();
        }
        pending().await
    }

    async fn perform(
        &self,
        side: Side,
        way: &Way,
        peer: &mut Option<Peer>,
        act: Act,
    ) -> Result<(), String> {
        match act {
            Act::Connect | Act::ConnectSmall | Act::Accept => {
                let stream = way.open().await.map_err(text)?;
                *peer = Some(Peer::new(stream, side, &self.resets).map_err(text)?);
                Ok(())
            }
            Act::Close | Act::Reset => {
                let peer = peer.take().ok_or("gone")?;
                peer.leave(act == Act::Reset).await.map_err(text)
            }
            act => peer.as_mut().ok_or("gone")?.perform(act).await,
        }
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// A connection of the test's own, and the task that writes to it.
struct Peer {
    wire: Rc<Wire>,
    reader: Reader,
    jobs: UnboundedSender<Act>,
    writer: JoinHandle<io::Result<()>>,
    /// It has written something, which may not have arrived yet.
    owes: bool,
}

impl Peer {
    fn new(stream: TcpStream, side: Side, resets: &Resets) -> io::Result<Self> {
        let wire = Rc::new(Wire {
            local: stream.local_addr()?,
            peer: stream.peer_addr()?,
            stream: RefCell::new(stream),
            resets: resets.clone(),
        });
        let (jobs, todo) = mpsc::unbounded_channel();
        Ok(Self {
            writer: spawn_local(write(Rc::clone(&wire), side, todo)),
            wire,
            reader: Reader::new(side.other()),
            jobs,
            owes: false,
        })
    }

    async fn perform(&mut self, act: Act) -> Result<(), String> {
        match act {
            Act::Expect(bytes, piece) => self.expect(bytes, piece).await,
            Act::Await => match self.wire.peek().await {
                Ok(1) => Ok(()),
                other => Err(format!("{other:?}")),
            },
            Act::Eof => match self.wire.read(&mut [0]).await {
                Ok(0) => Ok(()),
                other => Err(format!("{other:?}")),
            },
            Act::Cut => match self.wire.read(&mut [0]).await {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
                other => Err(format!("{other:?}")),
            },
            Act::End => loop {
                match self.wire.read(&mut [0]).await {
                    Ok(0) => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                    Err(error) => return Err(error.to_string()),
                    Ok(_) => {}
                }
            },
            job => {
                self.owes |= job != Act::Fin;
                self.jobs.send(job).map_err(text)
            }
        }
    }

    async fn expect(&mut self, bytes: usize, piece: usize) -> Result<(), String> {
        let mut buf = vec![0; piece.min(bytes)];
        let mut left = bytes;
        while left > 0 {
            let most = left.min(buf.len());
            match self.wire.read(&mut buf[..most]).await {
                Ok(0) => return Err(format!("it ends, {left} bytes too early")),
                Ok(got) => {
                    self.reader.take(&buf[..got])?;
                    left -= got;
                }
                Err(error) => return Err(format!("{error}, {left} bytes too early")),
            }
        }
        Ok(())
    }

    /// Closes the connection when everything is written and has arrived.
    async fn leave(self, by_reset: bool) -> io::Result<()> {
        drop(self.jobs);
        self.writer.await??;
        if self.owes {
            sleep(DELIVERY).await;
        }
        let wire = self.wire;
        if by_reset {
            wire.reset();
        } else if !wire.has_unread() {
            // Nobody's from now on; a kernel keeps such a socket too.
            spawn_local(async move { wire.linger().await });
            return Ok(());
        }
        // Dropping it sends a FIN, or turmoil's own reset if bytes are lost.
        wire.writable().await;
        Ok(())
    }
}

/// Does what is to be written in the background.
async fn write(wire: Rc<Wire>, side: Side, mut todo: UnboundedReceiver<Act>) -> io::Result<()> {
    let mut at = 0;
    while let Some(job) = todo.recv().await {
        match job {
            Act::Send(bytes, piece) => {
                for start in (0..bytes).step_by(piece) {
                    let end = at + piece.min(bytes - start);
                    let piece: Vec<u8> = (at..end).map(|at| byte(side, at)).collect();
                    wire.write(&piece).await?;
                    at = end;
                }
            }
            Act::Garbage(bytes) => wire.write(&vec![GARBAGE; bytes]).await?,
            Act::Fin => wire.fin().await?,
            other => unreachable!("turmoil has no {other:?}"),
        }
    }
    Ok(())
}

/// A stream whose reader and writer are two tasks, and whose end may be a reset.
struct Wire {
    stream: RefCell<TcpStream>,
    local: SocketAddr,
    peer: SocketAddr,
    resets: Resets,
}

impl Wire {
    async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut buf)).await?;
        match buf.filled().len() {
            0 if self.resets.is_noted(self.peer, self.local) => {
                Err(ErrorKind::ConnectionReset.into())
            }
            bytes => Ok(bytes),
        }
    }

    /// Waits for something to read; says how much of a byte there is.
    async fn peek(&self) -> io::Result<usize> {
        poll_fn(|cx| {
            let mut byte = [0];
            self.stream
                .borrow_mut()
                .poll_peek(cx, &mut ReadBuf::new(&mut byte))
        })
        .await
    }

    fn has_unread(&self) -> bool {
        let mut peek = pin!(self.peek());
        let mut cx = Context::from_waker(Waker::noop());
        matches!(peek.as_mut().poll(&mut cx), Poll::Ready(Ok(1)))
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write =
                poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes));
            bytes = &bytes[write.await?..];
        }
        Ok(())
    }

    /// Waits for room for a FIN: turmoil never delivers one that finds its peer's window full. A
    /// stream that has ended needs none.
    async fn writable(&self) {
        let _ = poll_fn(|cx| pin!(self.stream.borrow().writable()).poll(cx)).await;
    }

    async fn fin(&self) -> io::Result<()> {
        self.writable().await;
        poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)).await
    }

    /// Makes the end that follows, or the one before, a reset.
    fn reset(&self) {
        self.resets.note(self.local, self.peer);
    }

    /// A closed socket until the other end is closed too: what still comes is answered by a reset,
    /// also behind a FIN, where turmoil's own would not be seen.
    async fn linger(&self) {
        // It may have sent its FIN already.
        let _ = self.fin().await;
        if matches!(self.read(&mut [0]).await, Ok(1)) {
            self.reset();
        }
    }
}
