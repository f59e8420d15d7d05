//! Smooth weighted round robin.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::ids::Incarnation;
use crate::rng::Rng;
use crate::roster::Backend;

/// nginx's algorithm: at each pick every open backend gains its weight, the richest is picked, and pays what all
/// have gained. A heavy backend's turns so lie among the others', not in a row.
///
/// Backends begin with a random part of what one pick costs: each engine goes round in an order of its own, and
/// nobody gets more than one pick ahead of its share by it.
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
        let mut price = 0;
        let mut richest: Option<(i64, usize)> = None;
        for (slot, backend) in backends.iter().enumerate() {
            if !open(slot) {
                continue;
            }
            let account = &mut self.accounts[slot];
            let weight = i64::from(backend.weight);
            account.credit += weight;
            price += weight;
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

    /// Follows a change of membership. Who stays keeps its place in the turn: credits are taken about their mean,
    /// for those who left have taken theirs along, and within one pick's price, for weights may have shrunk.
    fn adopt(&mut self, backends: &[Arc<Backend>], rng: &mut Rng) {
        let mut old = core::mem::take(&mut self.accounts);
        old.sort_unstable_by_key(|account| account.incarnation);
        let credit_of = |backend: &Backend| {
            old.binary_search_by_key(&backend.incarnation, |account| account.incarnation)
                .ok()
                .map(|found| old[found].credit)
        };
        let price: i64 = backends
            .iter()
            .map(|backend| i64::from(backend.weight))
            .sum();
        let (mut sum, mut stayed) = (0_i64, 0_i64);
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
                    Some(credit) => (credit - mean).clamp(-price, price),
                    None => rng.below(price.unsigned_abs()) as i64 - price / 2,
                },
            })
            .collect();
    }
}
