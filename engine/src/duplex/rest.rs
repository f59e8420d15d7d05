//! Sources that are looked at by the clock instead of by events.
//!
//! A fast source brings an event for every segment or two, and whoever follows them moves a stream in its smallest
//! pieces, with a wake-up, two splices and an acknowledgement for each. So a side that brought much before it was found
//! empty *rests*: events saying that it is readable are off ([`Op::Mute`]), and what it has gathered is taken when its
//! time has come ([`Duplex::visit`]). It is listened to again ([`Op::Listen`]) when that was little. A side whose
//! destination takes nothing rests, too, as its events would be for nothing.

use super::half::GRAIN;
use super::{Duplex, Op};
use crate::api::Fault;
use crate::drive::Via;
use crate::ids::{Dir, Side};

/// Bytes, as a power of two, that make a source rest unless it is told otherwise: 128 KiB. A flow of which less gathers
/// between two visits is not worth a timer.
pub(super) const HEAVY: u8 = 17;

/// How it is known that a source is readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ear {
    /// By its events.
    Open,
    /// It rests, until a visit.
    Muted,
    /// It rests, and was not found empty since the visit.
    Visited,
}

impl Duplex {
    /// Makes a source rest that brings so many bytes at a time: rounded up to a power of two, 64 at least. Unless told,
    /// 128 KiB; simulations, whose sockets hold little, take less.
    #[must_use]
    pub fn heavy(mut self, bytes: usize) -> Self {
        self.heavy = bytes.max(GRAIN).next_power_of_two().trailing_zeros() as u8;
        self
    }

    /// Says whether what either side is given goes out by a timer: see [`Listener::paced`](crate::config::Listener::paced).
    #[must_use]
    pub fn paced(mut self, paced: bool) -> Self {
        for end in &mut self.ends {
            end.paced = paced;
        }
        self
    }

    /// Whether [`Duplex::visit`] is to be called soon, as no event will tell that a resting source has something.
    pub fn wants_visit(&self) -> bool {
        Dir::BOTH
            .into_iter()
            .any(|dir| self.halves[dir as usize].ear == Ear::Muted && self.may_fill(dir))
    }

    /// Time to look at sources that rest.
    pub fn visit(&mut self) {
        for dir in Dir::BOTH {
            let half = &mut self.halves[dir as usize];
            if half.ear == Ear::Muted {
                half.ear = Ear::Visited;
                self.end(dir.from()).readable = true;
            }
        }
    }

    /// What switching a side's events off or on did.
    pub fn switched(&mut self, side: Side, result: Result<(), Fault>) {
        if let Err(fault) = result {
            self.broke(side, fault);
        }
    }

    /// A fill through `via` brought so many bytes.
    pub(super) fn brought(&mut self, dir: Dir, via: Via, bytes: usize) {
        let half = &mut self.halves[dir as usize];
        half.gather(bytes);
        // Asking a resting source again would bring a crumb or `EAGAIN`: what it has by the next visit comes then.
        if half.ear != Ear::Open && via == Via::Splice && bytes < 1 << self.heavy {
            self.end(dir.from()).readable = false;
        }
    }

    /// Called when nothing else is to be done: whose events are to be switched.
    pub(super) fn rests(&mut self) -> Option<Op> {
        if self.is_finished() {
            return None;
        }
        Side::BOTH.into_iter().find_map(|side| {
            let dir = side.outgoing();
            let (blocked, reads) = (self.halves[dir as usize].held > 0, self.may_fill(dir));
            // Where bytes go out by a timer, larger pieces would only wait longer.
            let gathers = !self.ends[dir.to() as usize].paced;
            let half = &mut self.halves[dir as usize];
            let heavy = gathers && half.is_heavy(self.heavy);
            let before = half.ear;
            half.ear = match before {
                Ear::Open if blocked && heavy => Ear::Muted,
                Ear::Muted => return None,
                _ if blocked || !reads => return None,
                _ => {
                    half.brought = 0;
                    if heavy { Ear::Muted } else { Ear::Open }
                }
            };
            match (before, half.ear) {
                (Ear::Open, Ear::Muted) => Some(Op::Mute(side)),
                (Ear::Muted | Ear::Visited, Ear::Open) => {
                    // Of urgent data that came meanwhile only the next event will tell.
                    self.end(side).urgent = true;
                    Some(Op::Listen(side))
                }
                _ => None,
            }
        })
    }
}
