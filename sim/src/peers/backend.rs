//! Backends: each connection tells who it is by its first bytes, is checked, and answered as its
//! client's plan says.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tlb_engine::rng::Rng;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use turmoil::net::{TcpListener, TcpStream};

use super::{Client, End, Pace, Served, Table, Wire, both, rest, until};
use crate::net::{Chunker, Chunking, now};
use crate::stream::{Expect, Flow, HEAD};

/// How one backend behaves, whoever connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// How it reads; `None` never reads.
    pub pace: Option<Pace>,
    /// Whether it sends its first byte at once, before it has read anything.
    pub talks_first: bool,
    /// How its writes are cut.
    pub chunking: Chunking,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            pace: Some(Pace::default()),
            talks_first: false,
            chunking: Chunking::Random,
        }
    }
}

/// Turns the process of a backend on and off: off, its host still answers, and refuses.
#[derive(Clone, Debug, Default)]
pub struct Switch(Rc<(Cell<bool>, Notify)>);

impl Switch {
    /// Off if `is_off`.
    pub fn set(&self, is_off: bool) {
        self.0.0.set(is_off);
        self.0.1.notify_one();
    }

    fn is_off(&self) -> bool {
        self.0.0.get()
    }
}

/// What a backend's host is made of.
#[derive(Clone, Debug)]
pub struct Backends {
    /// Its number.
    pub number: u8,
    /// Where it listens.
    pub port: u16,
    /// How it behaves.
    pub manner: Manner,
    /// Turns it on and off.
    pub switch: Switch,
    /// What all peers share.
    pub table: Table,
}

/// Runs one backend for ever.
///
/// # Errors
/// Its port cannot be bound.
pub async fn backend(setup: Backends, mut rng: Rng) -> io::Result<()> {
    let changed = &setup.switch.0.1;
    loop {
        while setup.switch.is_off() {
            changed.notified().await;
        }
        let listener = TcpListener::bind(("0.0.0.0", setup.port)).await?;
        // Dropped with the listener: a process that dies takes its connections with it.
        let mut connections = JoinSet::new();
        while !setup.switch.is_off() {
            let (mut accept, mut change) = (pin!(listener.accept()), pin!(changed.notified()));
            let accepted = poll_fn(|cx| match accept.as_mut().poll(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => change.as_mut().poll(cx).map(|()| None),
            });
            if let Some(result) = accepted.await {
                let (stream, _) = result?;
                connections.spawn_local(serve(setup.clone(), stream, rng.split()));
            }
        }
        setup
            .table
            .trace
            .line(now(), "backend", format_args!("b{} off", setup.number));
    }
}

async fn serve(setup: Backends, stream: TcpStream, rng: Rng) {
    let Backends { number, table, .. } = &setup;
    let index = table.served.borrow().len();
    table.served.borrow_mut().push(Served {
        backend: *number,
        ..Served::default()
    });
    match Wire::new(stream, &table.resets) {
        Err(error) => table.find(format!("b{number} has no address: {error}")),
        Ok(wire) => {
            let serving = Serving {
                index,
                wire,
                stop: Cell::new(false),
                setup: &setup,
            };
            both(serving.read(), serving.answer(rng), &serving.stop).await;
        }
    }
}

/// A connection that a backend has accepted.
struct Serving<'a> {
    /// Its place among all that were served.
    index: usize,
    wire: Wire,
    stop: Cell<bool>,
    setup: &'a Backends,
}

impl Serving<'_> {
    fn change(&self, change: impl Fn(&mut Served)) {
        change(&mut self.setup.table.served.borrow_mut()[self.index]);
    }

    fn look(&self) -> Served {
        self.setup.table.served.borrow()[self.index].clone()
    }

    /// Checks what comes, to its end.
    async fn read(&self) {
        let Backends {
            number,
            table,
            manner,
            ..
        } = self.setup;
        let Some(pace) = manner.pace else {
            return pending().await;
        };
        let mut buf = vec![0; 4096];
        let (mut head, mut expect) = (Vec::new(), None);
        rest(pace.first).await;
        let end = loop {
            let bytes = match self.wire.read(&mut buf).await {
                Err(end) => break end,
                Ok(bytes) => bytes,
            };
            if let Err(what) = check(table, &mut head, &mut expect, &buf[..bytes]) {
                table.find(format!("b{number}: {what}"));
                self.stop.set(true);
            }
            if let Some((client, expect)) = &expect {
                self.change(|served| {
                    served.client = Some(*client);
                    served.received = Expect::received(expect);
                });
            }
            rest(pace.each).await;
        };
        self.change(|served| served.end = end);
        // A writer that waits for room does not hear of a reset.
        self.stop.set(self.stop.get() || end == End::Reset);
        let line = format!("b{number} {:?}", self.look());
        table.trace.line(now(), "backend", line);
    }

    /// Answers as the client's plan says, as far as the connection lets it.
    async fn answer(&self, rng: Rng) {
        let Backends {
            number,
            table,
            manner,
            ..
        } = self.setup;
        let mut chunks = Chunker::new(manner.chunking, rng);
        let tell = |bytes| self.change(|served| served.sent += bytes);
        if manner.talks_first {
            let first = self.wire.write(0..1, &mut chunks, |_| *number, tell);
            if first.await.is_err() {
                return;
            }
        }
        until(|| self.look().client.is_some() || self.look().end != End::Open).await;
        let Some(client) = self.look().client else {
            return;
        };
        let Client { answer, flow, .. } = &table.clients[usize::from(client)];
        until(|| {
            let Served { received, end, .. } = self.look();
            end != End::Open || answer.after.is_some_and(|bytes| received >= bytes)
        })
        .await;
        let range = self.look().sent..answer.bytes;
        let byte = |at| flow.back(*number, at);
        if self
            .wire
            .write(range, &mut chunks, byte, tell)
            .await
            .is_err()
        {
            return;
        }
        if !answer.ends_first {
            until(|| self.look().end != End::Open).await;
        }
        // A socket that a reset has closed cannot end its stream, which its reader has told
        // already.
        let _ = self.wire.fin().await;
    }
}

/// Checks the next bytes of a connection, whose first ones tell whose they are.
fn check(
    table: &Table,
    head: &mut Vec<u8>,
    expect: &mut Option<(u16, Expect)>,
    bytes: &[u8],
) -> Result<(), String> {
    if let Some((_, expect)) = expect {
        return expect.feed(bytes).map_err(|slip| slip.to_string());
    }
    head.extend_from_slice(bytes);
    let Some(client) = (head.len() >= HEAD)
        .then(|| Flow::client_of(head))
        .flatten()
    else {
        return Ok(());
    };
    let plan = table.clients.get(usize::from(client));
    let plan = plan.ok_or_else(|| format!("no client has the number {client}"))?;
    let mut fresh = Expect::forward(plan.flow);
    let result = fresh.feed(head).map_err(|slip| slip.to_string());
    *expect = Some((client, fresh));
    result
}
