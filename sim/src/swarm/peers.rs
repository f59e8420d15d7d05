//! Scripted ends of connections: clients, and what backends do with each connection.

use std::collections::VecDeque;

use bytes::Bytes;
use tlb_engine::api::{Close, Fault};
use tlb_engine::time::{Duration, Timestamp};

use super::scenario::{Client, Framing, Scenario, Script, Start, Then};
use super::stream::{self, Expect, Origin, Slip};
use crate::model::kernel::{Kernel, Sock};

/// Most writes and reads of one run, so that one peer does not keep the others waiting.
const STEPS: usize = 64;

/// One end of a connection, and what became of it.
#[derive(Debug)]
pub struct Peer {
    /// Who it is.
    pub origin: Origin,
    /// Of a connection: at which backend.
    pub backend: Option<usize>,
    /// Its socket.
    pub sock: Sock,
    script: Script,
    number: usize,
    out: VecDeque<Bytes>,
    generated: u64,
    /// Bytes that its kernel took; of a client, the garbage counts.
    pub sent: u64,
    /// What came.
    pub expect: Expect,
    /// It read the end of the stream.
    pub ended: bool,
    /// What it was told when its connection broke.
    pub broken: Option<Fault>,
    /// It sent a FIN, and everything before it.
    pub finished: bool,
    /// It left by itself, otherwise than in order.
    pub left: bool,
    /// Its process or host went away under it.
    pub killed: bool,
    /// Nothing is left to do.
    pub done: bool,
    next_write: Timestamp,
    next_read: Timestamp,
    /// It is asked for at this time already.
    asked: Timestamp,
}

impl Peer {
    /// An end with a script; `number` is the peer's own.
    pub fn new(
        number: usize,
        origin: Origin,
        backend: Option<usize>,
        sock: Sock,
        script: Script,
    ) -> Self {
        let expect = match origin {
            Origin::Client(_) => Expect::back(),
            Origin::Conn(_) => Expect::forward(),
        };
        Self {
            origin,
            backend,
            sock,
            script,
            number,
            out: VecDeque::new(),
            generated: 0,
            sent: 0,
            expect,
            ended: false,
            broken: None,
            finished: false,
            left: false,
            killed: false,
            done: false,
            next_write: Timestamp::ZERO,
            next_read: Timestamp::ZERO,
            asked: Timestamp::NEVER,
        }
    }

    /// Whether it does what its script says to the end: nothing that it does cuts a stream off.
    pub const fn is_faithful(&self) -> bool {
        !self.left && !self.killed
    }

    /// Does what it can do now.
    ///
    /// # Errors
    /// A byte came that should not have.
    pub fn run(&mut self, kernel: &mut Kernel, world: &Scenario, healed: bool) -> Result<(), Slip> {
        let now = kernel.now();
        if self.asked <= now {
            self.asked = Timestamp::NEVER;
        }
        if self.done {
            return Ok(());
        }
        if kernel.is_closed(self.sock) {
            self.killed = true;
            self.done = true;
            return Ok(());
        }
        for _ in 0..STEPS {
            let read = self.read(kernel, world, healed)?;
            if self.done {
                return Ok(());
            }
            let wrote = self.write(kernel, world, healed);
            if self.done {
                return Ok(());
            }
            if !read && !wrote {
                return Ok(());
            }
        }
        self.ask(kernel, now + Duration::from_micros(1));
        Ok(())
    }

    fn ask(&mut self, kernel: &mut Kernel, at: Timestamp) {
        if at < self.asked {
            self.asked = at;
            kernel.peer_at(at, self.number);
        }
    }

    fn read(&mut self, kernel: &mut Kernel, world: &Scenario, healed: bool) -> Result<bool, Slip> {
        if self.ended {
            return Ok(false);
        }
        let most = if healed { u32::MAX } else { self.script.read };
        if most == 0 {
            return Ok(false);
        }
        if !healed && kernel.now() < self.next_read {
            self.ask(kernel, self.next_read);
            return Ok(false);
        }
        let mut chunks = VecDeque::new();
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        match kernel.read(self.sock, most, usize::MAX, false, &mut chunks) {
            Ok(0) => {
                self.ended = true;
                if self.broken.is_some() {
                    self.finish(kernel, Close::Fin);
                }
            }
            Ok(_) => {
                let pause = Duration::from_micros(u64::from(self.script.read_pause_us));
                self.next_read = kernel.now() + pause;
                for chunk in chunks {
                    self.expect.feed(&chunk, |client| about(world, client))?;
                }
                if let Some((bytes, how)) = self.script.quit
                    && self.expect.received >= u64::from(bytes)
                {
                    self.leave(kernel, how);
                }
            }
            Err(Some(fault)) => {
                self.broken.get_or_insert(fault);
            }
            Err(None) => return Ok(false),
        }
        Ok(true)
    }

    /// How much it is to send in all, as far as it knows now.
    fn budget(&self, world: &Scenario) -> u64 {
        let garbage = match self.origin {
            Origin::Client(client) => u64::from(world.clients[client].garbage),
            Origin::Conn(_) => 0,
        };
        let send = u64::from(self.script.send) + garbage;
        match self.script.start {
            Start::Now => send,
            Start::Bytes(bytes) if self.expect.received >= u64::from(bytes) => send,
            Start::Bytes(_) | Start::End if self.ended => send,
            Start::Bytes(_) | Start::End => 0,
            Start::Echo => self.expect.received,
        }
    }

    /// Whether it will never have more to send than it has now.
    fn is_all(&self, healed: bool) -> bool {
        match self.script.start {
            Start::Now => true,
            Start::Bytes(bytes) => self.ended || self.expect.received >= u64::from(bytes) || healed,
            Start::End => self.ended,
            Start::Echo => self.ended,
        }
    }

    fn write(&mut self, kernel: &mut Kernel, world: &Scenario, healed: bool) -> bool {
        if self.broken.is_some() && !self.ended {
            // A broken end is read to its end, whatever the script says.
            return self.read(kernel, world, true).unwrap_or(false);
        }
        if self.finished || self.broken.is_some() || kernel.is_connecting(self.sock) {
            return false;
        }
        let budget = self.budget(world);
        if self.out.is_empty() && self.generated == budget {
            return self.is_all(healed) && self.conclude(kernel, healed);
        }
        if self.out.is_empty() {
            if !healed && kernel.now() < self.next_write {
                self.ask(kernel, self.next_write);
                return false;
            }
            let len = (budget - self.generated).min(u64::from(self.script.chunk.max(1)));
            let about = match self.origin {
                Origin::Client(client) => about(world, client),
                Origin::Conn(_) => None,
            };
            let bytes = stream::make(self.origin, about, self.generated, len as usize);
            self.out.push_back(bytes);
            self.generated += len;
            let pause = Duration::from_micros(u64::from(self.script.pause_us));
            self.next_write = kernel.now() + pause;
        }
        match kernel.write(self.sock, &mut self.out, self.script.urgent) {
            Ok(bytes) => {
                self.sent += bytes as u64;
                bytes > 0
            }
            Err(None) => false,
            Err(Some(fault)) => {
                self.broken.get_or_insert(fault);
                true
            }
        }
    }

    /// All is sent.
    fn conclude(&mut self, kernel: &mut Kernel, healed: bool) -> bool {
        match self.script.then {
            Then::Reset | Then::Close => self.leave(kernel, self.script.then),
            Then::FinLast if !self.ended && !healed => return false,
            Then::Hold if !healed => return false,
            Then::Fin | Then::FinLast | Then::Hold => match kernel.shutdown(self.sock) {
                Ok(()) => self.finished = true,
                Err(fault) => {
                    self.broken.get_or_insert(fault);
                }
            },
        }
        true
    }

    fn leave(&mut self, kernel: &mut Kernel, how: Then) {
        // After both ends have finished, nothing is cut off any more.
        self.left = !(self.ended && self.finished);
        let how = if how == Then::Reset {
            Close::Reset
        } else {
            // A close with nothing unread ends the stream in order, although what comes later is
            // refused.
            self.finished |= kernel.unread(self.sock) == 0;
            Close::Fin
        };
        self.finish(kernel, how);
    }

    /// Closes its socket once nothing is left to do with it.
    pub fn retire(&mut self, kernel: &mut Kernel) {
        if !self.done && self.ended && (self.finished || self.broken.is_some()) {
            self.finish(kernel, Close::Fin);
        }
    }

    fn finish(&mut self, kernel: &mut Kernel, how: Close) {
        self.done = true;
        kernel.close(self.sock, how);
    }
}

/// A client and the framing of its listener.
pub fn about(world: &Scenario, client: usize) -> Option<(&Client, Framing)> {
    let it = world.clients.get(client)?;
    let framing = world.listeners.get(it.listener)?.framing;
    Some((it, framing))
}
