//! When a relay is done, and how its sockets are to be closed then.

use super::{Duplex, Op};
use crate::api::{Ends, Standing};
use crate::ids::Side;

impl Duplex {
    /// Whether the end has come, and whether it has to wait for acknowledgements.
    pub(super) fn completion(&mut self) -> Option<Op> {
        let ends = match (self.ends[0].fault, self.ends[1].fault) {
            (Some(_), Some(_)) => return self.finish(Ends::RESET),
            (Some(_), None) => self.end_after_fault(Side::Client),
            (None, Some(_)) => self.end_after_fault(Side::Backend),
            (None, None) => self.end_in_order(),
        }?;
        if ends == Ends::FIN {
            return self.finish(ends);
        }
        let waits = Side::BOTH.into_iter().find(|&side| {
            let end = &self.ends[side as usize];
            end.fault.is_none()
                && !end.acknowledged
                && !cfg!(tlb_planted = "reset-before-acknowledged")
        });
        let Some(side) = waits else {
            return self.finish(ends);
        };
        if core::mem::take(&mut self.look) {
            return Some(Op::Unacknowledged(side));
        }
        self.report.standing = Standing::Unacknowledged;
        None
    }

    /// `broken` is broken, its peer is not: is everything passed on that `broken` had sent?
    fn end_after_fault(&self, broken: Side) -> Option<Ends> {
        let dir = broken.outgoing();
        let read = self.ends[broken as usize].finished || self.wind.is_some();
        if cfg!(tlb_planted = "reset-becomes-fin") && read && self.halves[dir as usize].held == 0 {
            return Some(Ends::FIN);
        }
        (read && self.halves[dir as usize].held == 0).then_some(Ends::RESET)
    }

    fn end_in_order(&self) -> Option<Ends> {
        if self.halves.iter().all(|half| half.shut) {
            return Some(Ends::FIN);
        }
        if cfg!(tlb_planted = "half-close-closes") && self.halves.iter().any(|half| half.shut) {
            return Some(Ends::FIN);
        }
        let how = self.wind?;
        let empty = self.halves.iter().all(|half| half.held == 0);
        empty.then_some(Ends {
            client: how,
            backend: how,
        })
    }

    fn finish(&mut self, ends: Ends) -> Option<Op> {
        self.report.standing = Standing::Finished(ends);
        None
    }
}
