//! One backend as the fleet knows it.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use core::net::SocketAddr;

use super::api::{Admin, BackendConfig, BackendView, ProbeConfig, ProbeId, ProbeOutcome, State};
use crate::ids::{Incarnation, PoolId};
use crate::pace::Bucket;
use crate::roster::{Backend, Load, Ramp};
use crate::time::{Duration, Timestamp};

/// What probes say about a backend: it goes down after `fall` failures in a row, and comes up after `rise` successes
/// in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Active {
    pub(super) up: bool,
    /// Results in a row that contradict `up`.
    pub(super) streak: u32,
}

impl Active {
    /// Nothing is known: up.
    pub(super) const UP: Self = Self {
        up: true,
        streak: 0,
    };

    /// Takes a result. Returns whether the backend changed sides.
    pub(super) fn judge(&mut self, passed: bool, config: &ProbeConfig) -> bool {
        if passed == self.up {
            self.streak = 0;
            return false;
        }
        self.streak += 1;
        let mut enough = if passed { config.rise } else { config.fall };
        if cfg!(tlb_planted = "rise-at-once") && passed {
            enough = 1;
        }
        if cfg!(tlb_planted = "fall-one-too-late") && !passed {
            enough += 1;
        }
        if self.streak < enough {
            return false;
        }
        *self = Self {
            up: passed,
            streak: 0,
        };
        true
    }
}

/// One backend.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) pool: PoolId,
    pub(super) config: BackendConfig,
    pub(super) incarnation: Incarnation,
    /// What an operator said, if anything.
    pub(super) word: Option<Admin>,
    pub(super) active: Active,
    /// Under way since then.
    pub(super) probe: Option<(ProbeId, Timestamp)>,
    /// Workers whose own sessions could not connect.
    pub(super) ejected_by: BTreeSet<u32>,
    pub(super) ramp: Option<Ramp>,
    pub(super) admission: Option<Bucket>,
    pub(super) load: Load,
    /// As it is in the roster.
    shared: Arc<Backend>,
    /// As it was last told.
    pub(super) state: State,
    pub(super) since: Timestamp,
    pub(super) probes_passed: u64,
    pub(super) probes_failed: u64,
    pub(super) last_probe: Option<(ProbeOutcome, Duration)>,
    pub(super) ejections: u64,
    pub(super) downs: u64,
}

impl Member {
    pub(super) fn new(
        pool: PoolId,
        config: BackendConfig,
        incarnation: Incarnation,
        word: Option<Admin>,
        now: Timestamp,
    ) -> Self {
        let mut member = Self {
            pool,
            config,
            incarnation,
            word,
            active: Active::UP,
            probe: None,
            ejected_by: BTreeSet::new(),
            ramp: None,
            admission: None,
            load: Load::default(),
            shared: Arc::default(),
            state: State::Up,
            since: now,
            probes_passed: 0,
            probes_failed: 0,
            last_probe: None,
            ejections: 0,
            downs: 0,
        };
        member.state = member.stands();
        member
    }

    /// Another server under the same id.
    pub(super) fn moved(&mut self, to: SocketAddr, incarnation: Incarnation) {
        self.config.address = Some(to);
        self.incarnation = incarnation;
        self.active = Active::UP;
        self.ejected_by.clear();
        self.ramp = None;
        self.load = Load::default();
    }

    /// What an operator wants of it; without a word of theirs, what the configuration says.
    pub(super) fn admin(&self) -> Admin {
        match self.word {
            Some(word) => word,
            None if self.config.draining => Admin::Drain,
            None => Admin::Ready,
        }
    }

    /// How it stands now.
    pub(super) fn stands(&self) -> State {
        let admin = self.admin();
        if admin == Admin::Maint {
            State::Maint
        } else if self.config.address.is_none() {
            State::Unresolved
        } else if !self.active.up {
            State::Down
        } else if !self.ejected_by.is_empty() {
            State::Ejected
        } else if admin == Admin::Drain {
            State::Drain
        } else {
            State::Up
        }
    }

    /// Whether it would get sessions if it were well.
    pub(super) fn is_eligible(&self) -> bool {
        self.admin() == Admin::Ready && self.config.address.is_some()
    }

    /// Whether it is to be probed, where its pool is.
    pub(super) fn is_probed(&self) -> bool {
        self.admin() != Admin::Maint && self.config.address.is_some()
    }

    /// As it is to be in a roster of `now`: the same `Arc` as long as nothing about it changes.
    pub(super) fn shared(&mut self, now: Timestamp) -> Arc<Backend> {
        if self
            .ramp
            .is_some_and(|ramp| now.since(ramp.from) >= ramp.over)
        {
            self.ramp = None;
        }
        let draining = self.admin() != Admin::Ready;
        let down = !self.active.up && !cfg!(tlb_planted = "down-backend-published-up");
        let old = &*self.shared;
        let same = old.incarnation == self.incarnation
            && old.id == self.config.id
            && old.address == self.config.address
            && old.weight == self.config.weight
            && old.draining == draining
            && old.down == down
            && old.ramp == self.ramp
            && same_bucket(old.admission.as_ref(), self.admission.as_ref());
        if !same {
            self.shared = Arc::new(Backend {
                id: self.config.id.clone(),
                incarnation: self.incarnation,
                address: self.config.address,
                weight: self.config.weight,
                draining,
                down,
                ramp: self.ramp,
                admission: self.admission.clone(),
                load: self.load.clone(),
            });
        }
        Arc::clone(&self.shared)
    }

    pub(super) fn view(&self) -> BackendView {
        BackendView {
            id: String::from(&*self.config.id),
            incarnation: self.incarnation,
            address: self.config.address,
            weight: self.config.weight,
            state: self.state,
            since: self.since,
            admin: self.admin(),
            sessions: self.load.get(),
            probes_passed: self.probes_passed,
            probes_failed: self.probes_failed,
            last_probe: self.last_probe.clone(),
            ejections: self.ejections,
            downs: self.downs,
        }
    }

    /// Why it stands as it does, if a probe is the reason.
    pub(super) fn cause(&self) -> Box<str> {
        match &self.last_probe {
            Some((ProbeOutcome::Failed(what) | ProbeOutcome::Inconclusive(what), _)) => {
                what.clone()
            }
            _ => "probe passed".into(),
        }
    }
}

fn same_bucket(one: Option<&Bucket>, other: Option<&Bucket>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is(other),
        (None, None) => true,
        _ => false,
    }
}
