//! Backends: each connection tells who it is by its first bytes, is checked, and answered as its client's plan says.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tlb_engine::rng::Rng;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use turmoil::net::{TcpListener, TcpStream};

use super::{End, Pace, Served, Table, Wire, both, rest, until};
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
    let Backends { number, table, manner, .. } = setup;
    let index = {
        let mut served = table.served.borrow_mut();
        served.push(Served {
            backend: number,
            ..Served::default()
        });
        served.len() - 1
    };
    let change = |change: &dyn Fn(&mut Served)| change(&mut table.served.borrow_mut()[index]);
    let look = || table.served.borrow()[index].clone();
    let wire = match Wire::new(stream, &table.resets) {
        Ok(wire) => wire,
        Err(error) => return table.find(format!("b{number} has no address: {error}")),
    };
    let stop = Cell::new(false);
    let reader = async {
        let Some(pace) = manner.pace else {
            return std::future::pending().await;
        };
        let mut buf = vec![0; 4096];
        let (mut head, mut expect) = (Vec::new(), None);
        rest(pace.first).await;
        loop {
            let end = match wire.read(&mut buf).await {
                Err(end) => end,
                Ok(bytes) => {
                    if let Err(what) = check(&table, &mut head, &mut expect, &buf[..bytes]) {
                        table.find(format!("b{number}: {what}"));
                        stop.set(true);
                    }
                    if let Some((client, expect)) = &expect {
                        change(&|served| {
                            served.client = Some(*client);
                            served.received = Expect::received(expect);
                        });
                    }
                    rest(pace.each).await;
                    continue;
                }
            };
            change(&|served| served.end = end);
            stop.set(stop.get() || end == End::Reset);
            table
                .trace
                .line(now(), "backend", format_args!("b{number} {:?}", look()));
            return;
        }
    };
    let writer = async {
        let mut chunks = Chunker::new(manner.chunking, rng);
        let tell = |bytes| change(&|served| served.sent += bytes);
        if manner.talks_first && wire.write(0..1, &mut chunks, |_| number, tell).await.is_err() {
            return;
        }
        until(|| look().client.is_some() || look().end != End::Open).await;
        let Some(client) = look().client else {
            return;
        };
        let plan = &table.clients[usize::from(client)];
        until(|| {
            let Served { received, end, .. } = look();
            end != End::Open || plan.answer.after.is_some_and(|bytes| received >= bytes)
        })
        .await;
        let range = look().sent..plan.answer.bytes;
        let byte = |at| plan.flow.back(number, at);
        if wire.write(range, &mut chunks, byte, tell).await.is_err() {
            return;
        }
        if !plan.answer.ends_first {
            until(|| look().end != End::Open).await;
        }
        // A socket that a reset has closed cannot end its stream, which its reader has told already.
        let _ = wire.fin().await;
    };
    both(reader, writer, &stop).await;
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
    let Some(client) = (head.len() >= HEAD).then(|| Flow::client_of(head)).flatten() else {
        return Ok(());
    };
    let plan = table.clients.get(usize::from(client));
    let plan = plan.ok_or_else(|| format!("no client has the number {client}"))?;
    let mut fresh = Expect::forward(plan.flow);
    let result = fresh.feed(head).map_err(|slip| slip.to_string());
    *expect = Some((client, fresh));
    result
}

