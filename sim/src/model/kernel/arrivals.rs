//! What is on its way, and what becomes of it where it arrives.

use std::net::SocketAddr;

use tlb_engine::api::Fault;
use tlb_engine::time::Duration;

use super::{Due, Hatch, Kernel, Link, Wanted};
use crate::model::ledger::Injected;
use crate::model::socket::{Owner, Segment, Sock, State};

/// A SYN that found no room in an accept queue is sent again after this.
const SYN_AGAIN: Duration = Duration::from_secs(1);

impl Kernel {
    pub(super) fn transit(&mut self, link: usize) -> Duration {
        let Link {
            latency, jitter_us, ..
        } = self.links[link];
        latency + Duration::from_micros(self.network.below(jitter_us + 1))
    }

    pub(super) fn send_segment(&mut self, from: Sock, segment: Segment) {
        let Some(to) = self.sockets[from.index()].other else {
            return;
        };
        let transit = self.transit(self.sockets[from.index()].link);
        let socket = &mut self.sockets[to.index()];
        let at = (self.now + transit).max(socket.last_arrival);
        socket.last_arrival = at;
        match (socket.wire.back_mut(), &segment) {
            (Some((when, Segment::Ack(sum))), Segment::Ack(more))
            | (Some((when, Segment::Window(sum))), Segment::Window(more))
                if *when == at =>
            {
                *sum += more;
                return;
            }
            _ => {}
        }
        socket.wire.push_back((at, segment));
        self.at(at, Due::Arrival(to));
    }

    pub(super) fn arrive(&mut self, at: Sock) {
        if self.links[self.sockets[at.index()].link].held {
            return;
        }
        while let Some((when, _)) = self.sockets[at.index()].wire.front() {
            if *when > self.now {
                break;
            }
            if let Some((_, segment)) = self.sockets[at.index()].wire.pop_front() {
                self.deliver(at, segment);
            }
        }
    }

    fn deliver(&mut self, at: Sock, segment: Segment) {
        if self.crosses(at, &segment) {
            return;
        }
        let socket = &mut self.sockets[at.index()];
        match segment {
            Segment::Rst => {
                if socket.state != State::Dead {
                    let refused = socket.state == State::Connecting;
                    socket.kill(Some(if refused {
                        Fault::Refused
                    } else {
                        Fault::Reset
                    }));
                    self.signal(at);
                }
            }
            Segment::Data(..) | Segment::SynAck if socket.state == State::Dead || !socket.open => {
                // Nobody will ever read it.
                socket.kill(None);
                self.send_segment(at, Segment::Rst);
            }
            _ if socket.state == State::Dead => {}
            Segment::SynAck => {
                socket.state = State::Established;
                self.signal(at);
            }
            Segment::Data(bytes, urgent) => {
                let len = bytes.len();
                socket.unread += len;
                if urgent {
                    socket.mark = Some(socket.read + socket.unread as u64 - 1);
                }
                socket.received.push_back(bytes);
                self.send_segment(at, Segment::Ack(len));
                self.signal(at);
            }
            Segment::Fin => {
                socket.ended = true;
                self.send_segment(at, Segment::FinAck);
                self.signal(at);
            }
            Segment::Ack(bytes) => {
                socket.unacknowledged -= bytes;
                if socket.no_space && socket.is_writable() {
                    socket.no_space = false;
                    self.signal(at);
                }
            }
            Segment::FinAck => socket.fin_acknowledged = true,
            Segment::Window(bytes) => {
                socket.credit += bytes;
                self.transmit(at);
            }
        }
    }

    /// Sends what the other end has room for, and then the FIN.
    pub(super) fn transmit(&mut self, from: Sock) {
        loop {
            let socket = &mut self.sockets[from.index()];
            let Some((chunk, urgent)) = socket.unsent.front_mut() else {
                break;
            };
            let len = chunk.len().min(socket.credit).min(self.tuning.segment);
            if len == 0 {
                return;
            }
            let whole = len == chunk.len();
            let (bytes, urgent) = (chunk.split_to(len), *urgent && whole);
            if whole {
                socket.unsent.pop_front();
            }
            socket.unsent_bytes -= len;
            socket.unacknowledged += len;
            socket.credit -= len;
            self.send_segment(from, Segment::Data(bytes, urgent));
        }
        let socket = &mut self.sockets[from.index()];
        if socket.shut && !socket.fin_sent && socket.state == State::Established {
            socket.fin_sent = true;
            self.send_segment(from, Segment::Fin);
        }
    }

    pub(super) fn syn(&mut self, from: Sock) {
        let socket = &self.sockets[from.index()];
        let link = socket.link;
        if socket.state != State::Connecting || !socket.open {
            self.wanted.remove(&from);
            return;
        }
        if self.links[link].held {
            return self.at(self.now + SYN_AGAIN, Due::Syn(from));
        }
        match self.wanted.get(&from) {
            Some(Wanted::Backend) => match self.backend_doors[link].hatch {
                Hatch::Open => {
                    if self.backend_doors[link].queue.len() >= self.tuning.backlog {
                        self.ledger.inject(Injected::BackendBacklog);
                        return self.at(self.now + SYN_AGAIN, Due::Syn(from));
                    }
                    let other = self.establish(from, link);
                    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                    self.backend_doors[link].queue.push_back((other, nowhere));
                    self.accepting.push_back(link);
                }
                Hatch::Hanging => {
                    self.ledger.inject(Injected::Hanging);
                    self.at(self.now + SYN_AGAIN, Due::Syn(from));
                }
                hatch => self.fail_connect(from, hatch),
            },
            Some(&Wanted::Tlb(worker, listener, peer)) => {
                let Some(door) = self.tlb_doors.get(&(worker, listener.0)) else {
                    return self.fail_connect(from, Hatch::Refusing);
                };
                if door.queue.len() >= self.tuning.backlog {
                    self.ledger.inject(Injected::TlbBacklog);
                    return self.at(self.now + SYN_AGAIN, Due::Syn(from));
                }
                let other = self.establish(from, link);
                let Some(door) = self.tlb_doors.get_mut(&(worker, listener.0)) else {
                    return;
                };
                door.queue.push_back((other, peer));
                door.signalled = true;
            }
            None => {}
        }
    }

    /// The other end of a connect that reached a listener.
    fn establish(&mut self, from: Sock, link: usize) -> Sock {
        self.wanted.remove(&from);
        let mut socket = self.new_socket(Owner::Nobody, link);
        socket.state = State::Established;
        socket.other = Some(from);
        let sock = self.push(socket);
        self.sockets[from.index()].other = Some(sock);
        self.send_segment(sock, Segment::SynAck);
        sock
    }

    fn fail_connect(&mut self, from: Sock, hatch: Hatch) {
        self.wanted.remove(&from);
        let fault = hatch.refusal();
        self.ledger.inject(if fault == Fault::Refused {
            Injected::Refused
        } else {
            Injected::Unreachable
        });
        self.sockets[from.index()].kill(Some(fault));
        self.signal(from);
    }
}
