//! What the directions of sessions hold between a read and a write: how it gets there, and how it goes.

use bytes::{Buf, Bytes};
use tlb_engine::drive::{Outcome, Via};
use tlb_engine::ids::{Dir, SessionId};

use super::{GONE, LinuxIo};
use crate::relay::{Store, copy, splice};
use crate::socket;

/// The buffer that all directions of a worker read into, one at a time.
#[derive(Debug)]
pub(super) struct Scratch {
    buffer: Box<[u8]>,
    /// The slot and the direction whose bytes are in it.
    pub(super) owner: Option<(usize, Dir)>,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; copy::BUFFER].into(),
            owner: None,
        }
    }

    fn bytes(&self, start: u32, end: u32) -> &[u8] {
        &self.buffer[start as usize..end as usize]
    }
}

impl LinuxIo {
    pub(super) fn fill_store(&mut self, session: SessionId, dir: Dir, via: Via) -> Outcome {
        let Some(entry) = self.sessions.get(session) else {
            return Outcome::Broken(GONE);
        };
        debug_assert!(
            matches!(entry.stores[dir as usize], Store::Empty),
            "only an empty store is filled"
        );
        match via {
            Via::Copy => self.fill_buffer(session, dir),
            Via::Splice => self.fill_pipe(session, dir),
        }
    }

    pub(super) fn drain_store(&mut self, session: SessionId, dir: Dir) -> Outcome {
        let Some(entry) = self.sessions.get_mut(session) else {
            return Outcome::Broken(GONE);
        };
        if dir == Dir::Forward && entry.writes_again() {
            entry.backend.as_ref().map(socket::set_nodelay);
        }
        let mut store = std::mem::take(&mut entry.stores[dir as usize]);
        let Some(destination) = entry.socket(dir.to()) else {
            entry.stores[dir as usize] = store;
            return Outcome::Broken(GONE);
        };
        let (outcome, empty) = match &mut store {
            Store::Empty => (Outcome::WouldBlock, true),
            Store::Scratch { start, end } => {
                let outcome = copy::send(destination, self.scratch.bytes(*start, *end));
                *start += moved(outcome) as u32;
                (outcome, start == end)
            }
            Store::Early { sent, rest } => {
                let outcome = Outcome::Moved {
                    bytes: *sent as usize,
                    short: false,
                };
                store = rest.take().map_or(Store::Empty, Store::Own);
                (outcome, false)
            }
            Store::Own(bytes) => {
                let outcome = copy::send(destination, bytes);
                bytes.advance(moved(outcome));
                (outcome, bytes.is_empty())
            }
            Store::Pipe(pipe) => {
                let outcome = splice::drain(pipe, destination);
                (outcome, pipe.held() == 0)
            }
        };
        entry.stores[dir as usize] = store;
        if empty {
            self.drop_store(session.index(), dir);
        }
        outcome
    }

    /// Moves whoever's bytes are in the shared buffer to a buffer of their own.
    fn free_scratch(&mut self) {
        let Some((slot, dir)) = self.scratch.owner.take() else {
            return;
        };
        let store = &mut self.sessions[slot].stores[dir as usize];
        if let Store::Scratch { start, end } = *store {
            let rest = Bytes::copy_from_slice(self.scratch.bytes(start, end));
            *store = Store::Own(Box::new(rest));
        }
    }

    fn fill_buffer(&mut self, session: SessionId, dir: Dir) -> Outcome {
        self.free_scratch();
        let entry = &mut self.sessions[session.index()];
        let Some(source) = entry.socket(dir.from()) else {
            return Outcome::Broken(GONE);
        };
        let outcome = copy::recv(source, &mut self.scratch.buffer);
        if let Outcome::Moved { bytes, .. } = outcome {
            self.moved[0] += bytes as u64;
            entry.stores[dir as usize] = Store::Scratch {
                start: 0,
                end: bytes as u32,
            };
            self.scratch.owner = Some((session.index(), dir));
        }
        outcome
    }

    fn fill_pipe(&mut self, session: SessionId, dir: Dir) -> Outcome {
        let entry = &mut self.sessions[session.index()];
        let Some(mut pipe) = self.pipes.take() else {
            return Outcome::NoPipe;
        };
        let Some(source) = entry.socket(dir.from()) else {
            self.pipes.give(pipe);
            return Outcome::Broken(GONE);
        };
        let outcome = splice::fill(&mut pipe, source);
        if let Outcome::Moved { bytes, .. } = outcome {
            self.moved[1] += bytes as u64;
            entry.stores[dir as usize] = Store::Pipe(pipe);
            return outcome;
        }
        self.pipes.give(pipe);
        match outcome {
            // Splicing does not get past urgent data: in front of it, once a FIN has come too, the
            // stream seems to have ended. `recv` knows.
            Outcome::Eof => self.fill_buffer(session, dir),
            other => other,
        }
    }

    pub(super) fn drop_store(&mut self, slot: usize, dir: Dir) {
        match std::mem::take(&mut self.sessions[slot].stores[dir as usize]) {
            Store::Scratch { .. } => self.scratch.owner = None,
            Store::Pipe(pipe) => self.pipes.give(pipe),
            Store::Empty | Store::Early { .. } | Store::Own(_) => {}
        }
    }
}

fn moved(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Moved { bytes, .. } => bytes,
        _ => 0,
    }
}
