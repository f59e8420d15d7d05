//! Smooth weighted round robin.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::ids::Incarnation;
use crate::rng::Rng;
use crate::roster::Backend;

/// How finely credits divide a unit of weight. Sums stay within an `i64` up to 2^21 backends of any
/// weight.
const UNIT: i64 = 1 << 10;

/// nginx's algorithm: at each pick every open backend gains its weight, the richest is picked, and
/// pays what all have gained. A heavy backend's turns so lie among the others', not in a row.
///
/// Two things differ. Backends begin with a random part of their first gain, so that each engine
/// goes round in an order of its own. And nobody lags behind the richest by more than two prices:
/// else a backend that paid the price of a full pool would wait for long in one that has become
/// small.
#[derive(Clone, Debug, Default)]
pub(super) struct RoundRobin {
    accounts: Vec<Account>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    incarnation: Incarnation,
    credit: i64,
}

impl RoundRobin {
    /// Picks an open slot. Slots that are not open neither gain nor pay.
    pub(super) fn pick(
        &mut self,
        backends: &[Arc<Backend>],
        open: impl Fn(usize) -> bool,
        rng: &mut Rng,
    ) -> Option<usize> {
        if !self.fits(backends) {
            self.adopt(backends, rng);
        }
        let (mut price, mut top) = (0, i64::MIN);
        for (slot, backend) in backends.iter().enumerate() {
            if open(slot) {
                price += gain(backend);
                top = top.max(self.accounts[slot].credit);
            }
        }
        let mut richest: Option<(i64, usize)> = None;
        for (slot, backend) in backends.iter().enumerate() {
            if !open(slot) {
                continue;
            }
            let account = &mut self.accounts[slot];
            account.credit = account.credit.max(top - 2 * price) + gain(backend);
            if richest.is_none_or(|(credit, _)| account.credit > credit) {
                richest = Some((account.credit, slot));
            }
        }
        let (_, slot) = richest?;
        self.accounts[slot].credit -= price;
        Some(slot)
    }

    fn fits(&self, backends: &[Arc<Backend>]) -> bool {
        self.accounts.len() == backends.len()
            && self
                .accounts
                .iter()
                .zip(backends)
                .all(|(account, backend)| account.incarnation == backend.incarnation)
    }

    /// Follows a change of membership. Who stays keeps its place in the turn, about a mean of zero,
    /// for those who left took their credit along; who comes begins in the middle.
    fn adopt(&mut self, backends: &[Arc<Backend>], rng: &mut Rng) {
        let mut old = core::mem::take(&mut self.accounts);
        old.sort_unstable_by_key(|account| account.incarnation);
        let credit_of = |backend: &Backend| {
            old.binary_search_by_key(&backend.incarnation, |account| account.incarnation)
                .ok()
                .map(|found| old[found].credit)
        };
        let (mut sum, mut stayed) = (0, 0);
        for credit in backends.iter().filter_map(|backend| credit_of(backend)) {
            sum += credit;
            stayed += 1;
        }
        let mean = sum / stayed.max(1);
        self.accounts = backends
            .iter()
            .map(|backend| Account {
                incarnation: backend.incarnation,
                credit: match credit_of(backend) {
                    Some(credit) => credit - mean,
                    None => rng.below(gain(backend).unsigned_abs()) as i64,
                },
            })
            .collect();
    }
}

/// What a backend gains at each pick.
fn gain(backend: &Backend) -> i64 {
    i64::from(backend.weight) * UNIT
}
