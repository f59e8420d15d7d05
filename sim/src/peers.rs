//! Scripted clients and backends, which check every byte that reaches them.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};

use tlb_engine::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;
use turmoil::net::TcpStream;

use crate::net::{Chunker, Chunking, Resets, now};
use crate::stream::Flow;
use crate::trace::Trace;

mod backend;
mod client;

pub use backend::{Backends, Manner, Switch, backend};
pub use client::client;

/// One client of a scenario: what it sends and how it behaves.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its number and the first frame.
    pub flow: Flow,
    /// Which tlb it connects to.
    pub tlb: usize,
    /// When it connects.
    pub at: Duration,
    /// Bytes of garbage before the frame.
    pub garbage: u64,
    /// How its writes are cut.
    pub chunking: Chunking,
    /// What it does, one after the other, while it reads all along.
    pub script: Vec<Op>,
    /// How it reads.
    pub pace: Pace,
    /// After how long it gives up whatever it waits for, and resets.
    pub patience: Duration,
    /// How its backend answers.
    pub answer: Answer,
}

/// One step of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sends the next so many bytes of its stream, garbage included.
    Send(u64),
    /// Waits.
    Pause(Duration),
    /// Waits until that many bytes have come back, or no more can come.
    Await(u64),
    /// Ends its stream.
    Fin,
    /// Resets the connection and leaves.
    Abort,
}

/// How fast a reader takes what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Waits so long before the first read.
    pub first: Duration,
    /// Waits so long after each read.
    pub each: Duration,
}

/// What a backend does for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bytes it returns, at least one: its number.
    pub bytes: u64,
    /// How many forward bytes it waits for before all but the first byte; `None` waits for their
    /// end.
    pub after: Option<u64>,
    /// Whether it ends its stream after them without waiting for the client's end.
    pub ends_first: bool,
}

/// How a stream ended for who read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// It has not.
    #[default]
    Open,
    /// In order.
    Eof,
    /// By a reset.
    Reset,
    /// There never was a connection.
    Refused,
}

/// How it went for a client.
#[derive(Clone, Debug, Default)]
pub struct ClientReport {
    /// Its address, once connected.
    pub from: Option<SocketAddr>,
    /// Bytes of its stream that were sent, garbage not counted.
    pub sent: u64,
    /// Bytes that came back, all of them right.
    pub received: u64,
    /// The backend that answered.
    pub backend: Option<u8>,
    /// How the stream that came back ended.
    pub end: End,
    /// Whether it broke the connection off itself.
    pub has_aborted: bool,
    /// Whether it is done.
    pub is_done: bool,
}

/// How it went for a backend with one connection.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Which backend.
    pub backend: u8,
    /// Whose connection, once its first bytes have come.
    pub client: Option<u16>,
    /// Bytes that came, all of them right.
    pub received: u64,
    /// Bytes returned.
    pub sent: u64,
    /// How the stream ended.
    pub end: End,
}

/// What all peers of a simulation share.
#[derive(Clone, Debug)]
pub struct Table {
    /// The clients' plans, by number: a backend looks up how to answer.
    pub clients: Rc<[Client]>,
    /// How it went for each of them.
    pub reports: Rc<RefCell<Vec<ClientReport>>>,
    /// How it went for each connection that a backend accepted.
    pub served: Rc<RefCell<Vec<Served>>>,
    /// What was wrong, in the order it was found.
    pub findings: Rc<RefCell<Vec<String>>>,
    /// The simulation's resets.
    pub resets: Resets,
    /// The simulation's trace.
    pub trace: Trace,
}

impl Table {
    /// A table for these clients.
    pub fn new(clients: Vec<Client>, resets: Resets, trace: Trace) -> Self {
        Self {
            reports: Rc::new(RefCell::new(vec![ClientReport::default(); clients.len()])),
            clients: clients.into(),
            served: Rc::default(),
            findings: Rc::default(),
            resets,
            trace,
        }
    }

    fn find(&self, what: String) {
        self.trace.line(now(), "check", &what);
        self.findings.borrow_mut().push(what);
    }
}

/// A peer's connection, read and written in turn, whose end may be a reset.
struct Wire {
    stream: RefCell<TcpStream>,
    local: SocketAddr,
    peer: SocketAddr,
    resets: Resets,
}

impl Wire {
    fn new(stream: TcpStream, resets: &Resets) -> io::Result<Self> {
        Ok(Self {
            local: stream.local_addr()?,
            peer: stream.peer_addr()?,
            stream: RefCell::new(stream),
            resets: resets.clone(),
        })
    }

    /// Reads once.
    ///
    /// # Errors
    /// How the stream ended.
    async fn read(&self, buf: &mut [u8]) -> Result<usize, End> {
        let mut buf = ReadBuf::new(buf);
        let result =
            poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, &mut buf)).await;
        match (result, buf.filled().len()) {
            (Ok(()), 0) if !self.resets.is_noted(self.peer, self.local) => Err(End::Eof),
            (Ok(()), bytes) if bytes > 0 => Ok(bytes),
            _ => Err(End::Reset),
        }
    }

    /// Writes `range` of the stream that `byte` gives, in pieces; tells `sent` the size of each.
    async fn write(
        &self,
        range: Range<u64>,
        chunks: &mut Chunker,
        byte: impl Fn(u64) -> u8,
        sent: impl Fn(u64),
    ) -> io::Result<()> {
        let mut at = range.start;
        while at < range.end {
            let most = (range.end - at).min(4096) as usize;
            let piece: Vec<u8> = (at..at + chunks.cut(most) as u64).map(&byte).collect();
            let taken =
                poll_fn(|cx| Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, &piece));
            let taken = taken.await? as u64;
            at += taken;
            sent(taken);
        }
        Ok(())
    }

    /// Ends the stream, once there is room: turmoil never delivers a FIN that finds its peer's
    /// window full.
    async fn fin(&self) -> io::Result<()> {
        poll_fn(|cx| {
            let mut stream = self.stream.borrow_mut();
            ready!(pin!(stream.writable()).poll(cx))?;
            Pin::new(&mut *stream).poll_shutdown(cx)
        })
        .await
    }

    /// Makes the end that follows a reset.
    fn reset(&self) {
        self.resets.note(self.local, self.peer);
    }
}

/// Polls a reader and a writer in this order until both are done, or `stop` is set.
async fn both(
    reader: impl Future<Output = ()>,
    writer: impl Future<Output = ()>,
    stop: &Cell<bool>,
) {
    let (mut reader, mut writer) = (pin!(reader), pin!(writer));
    let (mut has_read, mut has_written) = (false, false);
    poll_fn(|cx| {
        has_read = has_read || reader.as_mut().poll(cx).is_ready();
        has_written = has_written || writer.as_mut().poll(cx).is_ready();
        if stop.get() || (has_read && has_written) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Sleeps, if there is anything to sleep: even no time at all would last until the clock's next
/// tick.
async fn rest(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// Waits for what the other half of [`both`] brings about.
async fn until(condition: impl Fn() -> bool) {
    poll_fn(|_| {
        if condition() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}
