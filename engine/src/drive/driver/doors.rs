//! Listeners, and the sessions that begin at them.

use super::{Driver, Link};
use crate::api::Action;
use crate::drive::{Accept, Io};
use crate::ids::{ListenerId, SessionId};
use crate::time::Timestamp;

/// Most connections one listener accepts in a turn, so that a storm of clients does not starve those that are in.
const ACCEPTS_PER_TURN: usize = 16;

/// What the driver knows of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Connections may wait: the queue was not found empty since the last event.
    Open,
    /// The queue is empty; an event will tell.
    Quiet,
    /// It takes no more.
    Shut,
}

impl<I: Io> Driver<I> {
    /// An event said that connections may wait at this listener.
    pub fn acceptable(&mut self, listener: ListenerId) {
        if let Some(door @ Door::Quiet) = self.listeners.get_mut(listener.index()) {
            *door = Door::Open;
        }
    }

    pub(super) fn accept(&mut self, now: Timestamp, listener: ListenerId) {
        let index = listener.index();
        for _ in 0..ACCEPTS_PER_TURN {
            if self.listeners[index] != Door::Open {
                break;
            }
            if !self.engine.may_accept(now, listener) {
                // Whoever still waits would wait for a place that will not be given.
                if self.engine.is_closing(listener) {
                    self.unlisten(listener);
                }
                break;
            }
            match self.io.accept(listener) {
                Accept::Conn(conn, peer) => {
                    if cfg!(tlb_planted = "one-accept-per-event") {
                        self.listeners[index] = Door::Quiet;
                    }
                    // Dropping the connection is what turning it away means.
                    if let Ok(id) = self.engine.accept(now, listener, peer) {
                        self.begin(now, id, conn);
                    }
                }
                Accept::WouldBlock if self.engine.is_closing(listener) => self.unlisten(listener),
                Accept::WouldBlock => self.listeners[index] = Door::Quiet,
                Accept::Gone => {}
                Accept::Exhausted(fault) => self.engine.accept_failed(now, listener, fault),
            }
        }
    }

    fn unlisten(&mut self, listener: ListenerId) {
        self.listeners[listener.index()] = Door::Shut;
        self.io.unlisten(listener);
    }

    fn begin(&mut self, now: Timestamp, id: SessionId, conn: I::Conn) {
        let index = id.index();
        if self.links.len() <= index {
            self.links.resize_with(index + 1, || None);
        }
        debug_assert!(
            self.links[index].is_none(),
            "a slot is free before it is used again"
        );
        self.links[index] = Some(Link {
            id,
            duplex: self.duplex(id),
            attempt: None,
            connecting: false,
            stirred: false,
            queued: false,
            bulk: false,
            visit: false,
            settling: false,
        });
        if let Err(fault) = self.io.adopt(id, conn) {
            // The accept may have led to a connect, which would be for a client that is not there.
            while let Some(action) = self.engine.poll_action() {
                match action {
                    Action::Connect { warm, .. } => warm.map_or((), |warm| self.io.cool(warm)),
                    action => drop(self.perform(action)),
                }
            }
            self.client_broken(now, id, fault);
            return;
        }
        self.settle(now);
        // The first frame is usually there already: an attempt to read it saves a wait.
        self.step(now, id);
    }
}
