//! What the directions of sessions hold between a read and a write.

use std::collections::VecDeque;

use bytes::Bytes;
use tlb_engine::drive::{Outcome, Via};
use tlb_engine::ids::{Dir, SessionId};

use super::{GONE, ModelIo};
use crate::model::kernel::Sock;
use crate::model::ledger::Injected;

/// What a direction has read and not yet written.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) chunks: VecDeque<Bytes>,
    pub(super) held: usize,
    pub(super) pipe: bool,
}

impl ModelIo {
    pub(super) fn fill_store(&mut self, session: SessionId, dir: Dir, via: Via) -> Outcome {
        let Some(sock) = self.sock(session, dir.from()) else {
            return Outcome::Broken(GONE);
        };
        let store = &self.sessions[session.index()].stores[dir as usize];
        let empty = store.held == 0;
        match via {
            Via::Copy if !empty => {
                self.find(format!(
                    "{session} {dir}: a buffer is filled that is not empty"
                ));
                Outcome::WouldBlock
            }
            Via::Copy => self.fill_buffer(sock, session, dir),
            Via::Splice if !empty && !store.pipe => Outcome::WouldBlock,
            Via::Splice => self.fill_pipe(sock, session, dir),
        }
    }

    fn fill_buffer(&mut self, sock: Sock, session: SessionId, dir: Dir) -> Outcome {
        let store = &mut self.sessions[session.index()].stores[dir as usize];
        let mut kernel = self.kernel.borrow_mut();
        let size = kernel.tuning().copy_buffer;
        match kernel.read(sock, size, usize::MAX, false, &mut store.chunks) {
            Ok(0) => Outcome::Eof,
            Ok(bytes) => {
                store.held += bytes;
                Outcome::Moved {
                    bytes,
                    short: bytes < size,
                }
            }
            Err(None) => Outcome::WouldBlock,
            Err(Some(fault)) => Outcome::Broken(fault),
        }
    }

    fn fill_pipe(&mut self, sock: Sock, session: SessionId, dir: Dir) -> Outcome {
        let slots = self.kernel.borrow().tuning().pipe_slots;
        let most = self.kernel.borrow().tuning().pipes;
        let short = self.is_short(2);
        let store = &mut self.sessions[session.index()].stores[dir as usize];
        let mut kernel = self.kernel.borrow_mut();
        if !store.pipe && (self.pipes == most || short) {
            kernel.ledger.inject(Injected::NoPipe);
            return Outcome::NoPipe;
        }
        let free = slots.saturating_sub(store.chunks.len());
        if free == 0 {
            return Outcome::WouldBlock;
        }
        let at_mark = kernel.is_at_mark(sock);
        let result = kernel.read(sock, usize::MAX, free, true, &mut store.chunks);
        if at_mark {
            kernel.ledger.inject(Injected::UrgentMark);
        }
        match result {
            Ok(0) if store.held > 0 => Outcome::WouldBlock,
            // A splice may take an urgent mark for the end. A read knows.
            Ok(0) => {
                drop(kernel);
                self.fill_buffer(sock, session, dir)
            }
            Ok(bytes) => {
                store.held += bytes;
                if store.chunks.len() == slots && kernel.unread(sock) > 0 {
                    kernel.ledger.inject(Injected::FullPipe);
                }
                if !core::mem::replace(&mut store.pipe, true) {
                    self.pipes += 1;
                    kernel.ledger.descriptors[self.worker] += 2;
                }
                Outcome::Moved {
                    bytes,
                    short: false,
                }
            }
            Err(None) => Outcome::WouldBlock,
            Err(Some(fault)) => Outcome::Broken(fault),
        }
    }

    pub(super) fn drain_store(&mut self, session: SessionId, dir: Dir) -> (usize, Outcome) {
        let Some(sock) = self.sock(session, dir.to()) else {
            return (0, Outcome::Broken(GONE));
        };
        let store = &mut self.sessions[session.index()].stores[dir as usize];
        let held = store.held;
        if held == 0 {
            self.find(format!("{session} {dir}: an empty store is drained"));
            return (0, Outcome::WouldBlock);
        }
        let result = self
            .kernel
            .borrow_mut()
            .write(sock, &mut store.chunks, false);
        let outcome = match result {
            Ok(bytes) => {
                store.held -= bytes;
                Outcome::Moved {
                    bytes,
                    short: store.held > 0,
                }
            }
            Err(None) => Outcome::WouldBlock,
            Err(Some(fault)) => Outcome::Broken(fault),
        };
        if self.sessions[session.index()].stores[dir as usize].held == 0 {
            self.drop_store(session, dir);
        }
        (held, outcome)
    }

    pub(super) fn drop_store(&mut self, session: SessionId, dir: Dir) {
        let store = core::mem::take(&mut self.sessions[session.index()].stores[dir as usize]);
        if store.pipe {
            self.pipes -= 1;
            self.kernel.borrow_mut().ledger.descriptors[self.worker] -= 2;
        }
    }
}
