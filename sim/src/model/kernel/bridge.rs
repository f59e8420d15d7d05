//! Two connections of a worker whose peers talk to each other.
//!
//! What arrives at either socket goes on to the other one's peer. Nothing here has sequence numbers, so that a bridge is
//! only built where both sockets have read and sent everything; what they have sent themselves may still be on its way,
//! and is acknowledged to them.

use tlb_engine::api::Close;
use tlb_engine::time::Timestamp;

use super::{Kernel, Owner, Sock};
use crate::model::socket::{Segment, State};
use tlb_engine::ids::SessionId;

/// What arrives at a socket is for somebody else.
#[derive(Clone, Copy, Debug)]
pub(in crate::model) struct Bridge {
    /// The session's other socket, whose peer it is for.
    to: Sock,
    /// Bytes that its peer has acknowledged to the other one.
    acked: u64,
    /// Its peer has acknowledged the other one's FIN.
    fin_acked: bool,
    /// Its peer has reset the connection.
    reset: bool,
    /// When its peer sent a byte or an end last.
    last: Timestamp,
}

/// What was seen of a socket's peer since the bridge was built.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crossed {
    /// Bytes of the other peer that it acknowledged.
    pub acked: u64,
    /// It acknowledged the other peer's FIN.
    pub fin_acked: bool,
    /// It reset the connection.
    pub reset: bool,
    /// When it sent a byte or an end last.
    pub last: Timestamp,
}

impl Kernel {
    /// Whether two sockets of a session may be bridged now; if so, they are.
    pub fn bridge(&mut self, pair: [Sock; 2]) -> bool {
        let rooms = pair.map(|sock| self.room_of_peer(sock));
        let [Some(at_first), Some(at_second)] = rooms else {
            return false;
        };
        let credits = pair.map(|sock| self.sockets[sock.index()].credit);
        // What a peer may still send was room at its own socket here, and becomes room at the other peer.
        let room = self.tuning.receive_buffer;
        let after = [at_first + credits[1], at_second + credits[0]];
        let [Some(first), Some(second)] = after.map(|sum| sum.checked_sub(room)) else {
            return false;
        };
        for (place, credit) in [first, second].into_iter().enumerate() {
            let (sock, to) = (pair[place], pair[1 - place]);
            let last = self.now;
            let socket = &mut self.sockets[sock.index()];
            socket.bridge = Some(Bridge {
                to,
                acked: 0,
                fin_acked: false,
                reset: false,
                last,
            });
            if let Some(peer) = socket.other {
                self.sockets[peer.index()].credit = credit;
            }
        }
        true
    }

    /// What the peer of a socket that is at rest may send.
    fn room_of_peer(&self, sock: Sock) -> Option<usize> {
        let socket = &self.sockets[sock.index()];
        let plain = socket.state == State::Established
            && socket.open
            && !socket.shut
            && !socket.ended
            && socket.unread == 0
            && socket.unsent_bytes == 0
            && socket.mark.is_none()
            && socket.bridge.is_none();
        let peer = socket.other.filter(|_| plain)?;
        Some(self.sockets[peer.index()].credit)
    }

    /// Whether what arrives at a socket is for somebody else, who then gets it.
    pub(super) fn crosses(&mut self, at: Sock, segment: &Segment) -> bool {
        let now = self.now;
        let over = self.is_over(at);
        let owed = self.owes_others_peer(at);
        let socket = &mut self.sockets[at.index()];
        let Some(bridge) = &mut socket.bridge else {
            return false;
        };
        let to = bridge.to;
        let (mut news, mut held) = (false, false);
        let mut goes = segment.clone();
        match segment {
            Segment::Ack(bytes) => {
                let own = (*bytes).min(socket.unacknowledged);
                socket.unacknowledged -= own;
                bridge.acked += (bytes - own) as u64;
                goes = Segment::Ack(bytes - own);
                if own == *bytes {
                    return true;
                }
            }
            Segment::FinAck => news = !core::mem::replace(&mut bridge.fin_acked, true),
            // Nobody asks any more, so that nobody is answered.
            Segment::Rst if over => return true,
            Segment::Rst => {
                news = !core::mem::replace(&mut bridge.reset, true);
                bridge.last = now;
                held = owed;
            }
            Segment::Data(..) | Segment::Fin => bridge.last = now,
            Segment::Window(_) => {}
            Segment::SynAck => return true,
        }
        if news && let Owner::Worker(worker, Some(name)) = socket.owner {
            self.crossings[worker].push(name.session);
        }
        if !held {
            self.send_segment(to, goes);
        }
        true
    }

    /// Whether the other socket has sent something of its own that is not acknowledged: a reset would destroy it.
    fn owes_others_peer(&self, at: Sock) -> bool {
        let bridge = self.sockets[at.index()].bridge;
        bridge.is_some_and(|bridge| self.unacknowledged(bridge.to) > 0)
    }

    /// Whether both peers have ended what they send, and know it of each other.
    fn is_over(&self, at: Sock) -> bool {
        let bridge = |sock: Sock| self.sockets[sock.index()].bridge;
        let there = bridge(at).and_then(|here| bridge(here.to).filter(|_| here.fin_acked));
        there.is_some_and(|there| there.fin_acked)
    }

    /// What was seen of a bridged socket's peer.
    pub fn crossed(&self, sock: Sock) -> Crossed {
        let bridge = self.sockets[sock.index()].bridge;
        bridge.map_or_else(Crossed::default, |bridge| Crossed {
            acked: bridge.acked,
            fin_acked: bridge.fin_acked,
            reset: bridge.reset,
            last: bridge.last,
        })
    }

    /// Sessions of a worker of which there is news.
    pub fn take_crossings(&mut self, worker: usize) -> Vec<SessionId> {
        core::mem::take(&mut self.crossings[worker])
    }

    /// Closes a socket if it is bridged. After a reset nothing crosses any more, and its peer learns of it.
    pub(super) fn close_bridged(&mut self, sock: Sock, how: Close) -> bool {
        let socket = &mut self.sockets[sock.index()];
        if socket.bridge.is_none() {
            return false;
        }
        if how == Close::Reset {
            socket.bridge = None;
            socket.kill(None);
            self.send_segment(sock, Segment::Rst);
        }
        true
    }
}
