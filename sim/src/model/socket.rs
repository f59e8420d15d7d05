//! One socket: its buffers, what is on the wire towards it, and what a poll of it would say.

use std::collections::VecDeque;

use bytes::Bytes;
use tlb_engine::api::Fault;
use tlb_engine::drive::Readiness;
use tlb_engine::ids::SocketId;
use tlb_engine::time::Timestamp;

use super::kernel::Bridge;

/// Number of a socket in its kernel. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sock(pub(super) u32);

impl Sock {
    /// Its place.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Who has the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A worker of tlb; registered for events once it has a name.
    Worker(usize, Option<SocketId>),
    /// A scripted peer, by its number.
    Peer(usize),
    /// Nobody yet: it waits in an accept queue.
    Nobody,
}

/// A segment, or what it acknowledges.
#[derive(Clone, Debug)]
pub(super) enum Segment {
    /// The connect succeeded.
    SynAck,
    /// Bytes; whether the last of them is urgent.
    Data(Bytes, bool),
    Fin,
    Rst,
    /// So many bytes arrived.
    Ack(usize),
    FinAck,
    /// There is room for so many more.
    Window(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Connecting,
    Established,
    /// Refused, reset, timed out, or closed by a reset: nothing will come or go any more.
    Dead,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) owner: Owner,
    pub(super) state: State,
    /// A descriptor refers to it.
    pub(super) open: bool,
    pub(super) other: Option<Sock>,
    pub(super) link: usize,
    pub(super) error: Option<Fault>,

    pub(super) received: VecDeque<Bytes>,
    pub(super) unread: usize,
    /// Bytes read so far.
    pub(super) read: u64,
    /// Place of the urgent byte.
    pub(super) mark: Option<u64>,
    pub(super) ended: bool,

    pub(super) unsent: VecDeque<(Bytes, bool)>,
    pub(super) unsent_bytes: usize,
    pub(super) unacknowledged: usize,
    /// What the other end has room for.
    pub(super) credit: usize,
    pub(super) shut: bool,
    pub(super) fin_sent: bool,
    pub(super) fin_acknowledged: bool,
    /// A write or a poll found no room: the next room brings an edge.
    pub(super) no_space: bool,
    pub(super) send_buffer: usize,

    /// On its way to this socket, in order.
    pub(super) wire: VecDeque<(Timestamp, Segment)>,
    pub(super) last_arrival: Timestamp,
    pub(super) signalled: bool,
    /// No event is to say that it is readable.
    pub(super) muted: bool,
    /// What arrives is for somebody else.
    pub(super) bridge: Option<Bridge>,
}

impl Socket {
    pub(super) fn new(owner: Owner, link: usize, send_buffer: usize, credit: usize) -> Self {
        Self {
            owner,
            state: State::Connecting,
            open: true,
            other: None,
            link,
            error: None,
            received: VecDeque::new(),
            unread: 0,
            read: 0,
            mark: None,
            ended: false,
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            unacknowledged: 0,
            credit,
            shut: false,
            fin_sent: false,
            fin_acknowledged: false,
            no_space: false,
            send_buffer,
            wire: VecDeque::new(),
            last_arrival: Timestamp::ZERO,
            signalled: false,
            muted: false,
            bridge: None,
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.unsent_bytes + self.unacknowledged
    }

    /// Linux calls a socket writable only while a third of its send buffer is free.
    pub(super) fn is_writable(&self) -> bool {
        self.queued() * 3 <= self.send_buffer * 2
    }

    /// What `tcp_poll` says now. Looking for room and finding none arms the next edge.
    pub(super) fn poll(&mut self) -> Readiness {
        let dead = self.state == State::Dead;
        let established = self.state == State::Established;
        let both = dead || (self.ended && self.shut && established);
        let writable = dead || (established && (self.shut || self.is_writable()));
        self.no_space |= established && !writable;
        Readiness {
            readable: !self.muted && (dead || self.unread > 0 || self.ended || self.mark.is_some()),
            writable,
            read_closed: both || (self.ended && !self.muted),
            error: self.error.is_some(),
            priority: self.mark.is_some() && !self.muted,
        }
    }

    /// It broke: what was to be sent is gone, what was received stays.
    pub(super) fn kill(&mut self, fault: Option<Fault>) {
        self.state = State::Dead;
        self.error = fault;
        self.unsent.clear();
        self.unsent_bytes = 0;
    }

    /// Takes the pending error, as the kernel tells it: once.
    pub(super) fn take_error(&mut self) -> Option<Fault> {
        self.error.take()
    }
}
