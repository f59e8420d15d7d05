//! Events: what the wakers of a host's sockets leave behind.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use tlb_engine::drive::Readiness;
use tlb_engine::ids::{ListenerId, SocketId};

/// Where the wakers of a host's sockets leave their events, and whom they wake.
#[derive(Debug, Default)]
pub struct Hub(Mutex<HubState>);

#[derive(Debug, Default)]
struct HubState {
    sockets: Vec<(SocketId, Readiness)>,
    listeners: Vec<ListenerId>,
    woken: bool,
    host: Option<Waker>,
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, HubState> {
        self.0.lock().expect("nobody panics with the hub in hand")
    }

    fn change(&self, change: impl FnOnce(&mut HubState)) {
        let host = {
            let mut state = self.state();
            change(&mut state);
            state.woken = true;
            state.host.take()
        };
        if let Some(host) = host {
            host.wake();
        }
    }

    pub(super) fn take_sockets(&self) -> Vec<(SocketId, Readiness)> {
        std::mem::take(&mut self.state().sockets)
    }

    pub(super) fn take_listeners(&self) -> Vec<ListenerId> {
        std::mem::take(&mut self.state().listeners)
    }

    /// Wakes the host without an event.
    pub fn wake(&self) {
        self.change(|_| ());
    }

    /// Ready once something was raised since the last time it was ready.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if std::mem::take(&mut state.woken) {
            return Poll::Ready(());
        }
        state.host = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn raise(&self, id: SocketId, new: Readiness) {
        self.change(|state| {
            let known = state.sockets.iter().position(|(known, _)| *known == id);
            let index = known.unwrap_or_else(|| {
                state.sockets.push((id, Readiness::default()));
                state.sockets.len() - 1
            });
            let old = &mut state.sockets[index].1;
            *old = merged(*old, new);
        });
    }
}

/// A waker of one socket or listener: leaves its event in the hub.
pub(super) enum Signal {
    Read(SocketId, Arc<Hub>),
    Write(SocketId, Arc<Hub>),
    Accept(ListenerId, Arc<Hub>),
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        match &*self {
            Self::Read(id, hub) => hub.raise(*id, READABLE),
            Self::Write(id, hub) => hub.raise(*id, WRITABLE),
            Self::Accept(id, hub) => hub.change(|state| state.listeners.push(*id)),
        }
    }
}

pub(super) const QUIET: Readiness = Readiness {
    readable: false,
    writable: false,
    read_closed: false,
    error: false,
    priority: false,
};
pub(super) const READABLE: Readiness = Readiness {
    readable: true,
    ..QUIET
};
pub(super) const WRITABLE: Readiness = Readiness {
    writable: true,
    ..QUIET
};
pub(super) const ENDED: Readiness = Readiness {
    read_closed: true,
    ..READABLE
};
pub(super) const BROKEN: Readiness = Readiness {
    readable: true,
    writable: true,
    read_closed: true,
    error: true,
    priority: false,
};

/// Both hints as one.
pub(super) const fn merged(one: Readiness, two: Readiness) -> Readiness {
    Readiness {
        readable: one.readable || two.readable,
        writable: one.writable || two.writable,
        read_closed: one.read_closed || two.read_closed,
        error: one.error || two.error,
        priority: one.priority || two.priority,
    }
}
