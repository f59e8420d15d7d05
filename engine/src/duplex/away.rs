//! Sessions that the kernel forwards.
//!
//! A session that has exchanged some messages is offered to the kernel ([`Op::HandOff`]) whenever its relay has nothing
//! else to do. From then on its peers' packets pass by. For a while the relay goes on, as its sockets may still hold what
//! came before; when they are gone, all that is left is to ask how the kernel gets on ([`Op::Flow`]).

use core::num::NonZeroU8;

use super::{Duplex, Op};
use crate::api::{Close, Ends, Standing};
use crate::drive::{Flow, HandOff};
use crate::ids::Dir;

/// Who passes bytes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Away {
    /// tlb, to the end.
    Never,
    /// tlb, until an offer is accepted; the next one is so many fills away.
    Offer(u8),
    /// The kernel, and tlb what its sockets still have.
    Late,
    /// The kernel.
    Gone,
}

impl Duplex {
    /// Says after how many fills the session is offered to the kernel; `None`, as it is unless told: never.
    #[must_use]
    pub fn hands_off(mut self, after: Option<NonZeroU8>) -> Self {
        self.messages = after;
        self.away = self.next_offer();
        self
    }

    fn next_offer(&self) -> Away {
        self.messages
            .map_or(Away::Never, |messages| Away::Offer(messages.get()))
    }

    /// Whether the kernel forwards what either peer sends.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.away, Away::Late | Away::Gone)
    }

    /// Whether the sockets of a session that was handed off may still have something to do: [`Duplex::look`] is to be
    /// called soon.
    pub fn is_late(&self) -> bool {
        self.away == Away::Late && !self.is_finished()
    }

    /// A fill brought something.
    pub(super) fn count_message(&mut self) {
        if let Away::Offer(left) = &mut self.away {
            *left = left.saturating_sub(1);
        }
    }

    /// Called when nothing else is to be done.
    pub(super) fn offer(&mut self) -> Option<Op> {
        if self.is_finished() {
            return None;
        }
        match self.away {
            Away::Offer(0) => {
                let plain = self.wind.is_none()
                    && !self.watch
                    && self.held() == 0
                    && self.halves.iter().all(|half| !half.shut)
                    && self
                        .ends
                        .iter()
                        .all(|end| end.fault.is_none() && !end.finished);
                plain.then_some(Op::HandOff)
            }
            Away::Late | Away::Gone => core::mem::take(&mut self.look).then_some(Op::Flow),
            Away::Offer(_) | Away::Never => None,
        }
    }

    /// What came of the offer.
    pub fn handed_off(&mut self, outcome: HandOff) {
        self.away = match outcome {
            HandOff::Done => {
                self.report.handed_off = true;
                Away::Late
            }
            HandOff::Later => {
                // A stream that never pauses is asked less and less often.
                let more = |messages: NonZeroU8| messages.saturating_add(1 + messages.get() / 4);
                self.messages = self.messages.map(more);
                self.next_offer()
            }
            HandOff::Never => Away::Never,
        };
    }

    /// How the kernel gets on.
    pub fn flowed(&mut self, flow: Flow) {
        if !cfg!(tlb_planted = "away-not-counted") {
            self.report.forward += flow.moved[Dir::Forward as usize];
            self.report.back += flow.moved[Dir::Return as usize];
        }
        if flow.gone {
            self.away = Away::Gone;
        }
        for dir in Dir::BOTH {
            let half = &mut self.halves[dir as usize];
            self.report.ended[dir as usize] |= flow.ended[dir as usize] && !half.shut;
            half.shut |= flow.ended[dir as usize];
        }
        if let Some((side, fault)) = flow.broken {
            // What it had sent before and the sockets still have is passed on, as ever.
            self.broke(side, fault);
        }
        let over = flow.gone && self.halves.iter().all(|half| half.shut);
        let revoked = self.wind.is_some() && !over && !cfg!(tlb_planted = "away-not-revoked");
        if (flow.gone && flow.broken.is_some()) || revoked {
            self.report.standing = Standing::Finished(Ends::RESET);
        } else if over {
            self.report.standing = Standing::Finished(Ends::FIN);
        }
    }

    /// It is to end, when the kernel was asked for the last time. Nobody here knows what its peers are saying to each
    /// other, so that only a reset is honest.
    pub(super) fn revoke(&mut self) {
        self.wind = Some(Close::Reset);
        self.look = true;
    }
}
