//! What was accepted is live or has ended, and every byte that the engine counts was moved.

use std::collections::{BTreeMap, BTreeSet};

use tlb_engine::api::Event;
use tlb_engine::drive::Outcome;
use tlb_engine::ids::{Dir, SessionId, Side};

use super::{Findings, Scene};
use crate::model::ledger::Call;

const NAME: &str = "conservation";

#[derive(Debug, Default)]
struct Sums {
    moved: [u64; 2],
    connects: u8,
    /// Attempts that failed: what was written for those is not counted.
    failures: u8,
    closed: bool,
}

/// Counts.
#[derive(Debug, Default)]
pub(super) struct Conservation {
    live: BTreeMap<SessionId, Sums>,
    /// Their clients could not be registered: they end at once.
    stillborn: BTreeSet<SessionId>,
    began: u64,
}

impl Conservation {
    pub(super) const fn began(&self) -> u64 {
        self.began
    }

    pub(super) fn call(&mut self, call: &Call, findings: &mut Findings) {
        match *call {
            Call::Adopt(session, _, true) => {
                self.began += 1;
                if self.live.insert(session, Sums::default()).is_some() {
                    findings.add(NAME, format!("{session} begins twice"));
                }
            }
            Call::Adopt(session, _, false) => {
                self.stillborn.insert(session);
            }
            Call::Drain(session, dir, _, Outcome::Moved { bytes, .. }) => {
                if let Some(sums) = self.live.get_mut(&session) {
                    sums.moved[dir as usize] += bytes as u64;
                }
            }
            Call::Flow(session, flow) => {
                if let Some(sums) = self.live.get_mut(&session) {
                    for (sum, moved) in sums.moved.iter_mut().zip(flow.moved) {
                        *sum += moved;
                    }
                }
            }
            Call::Connect(session, ..) | Call::Take(session, _, _, Some(_)) => {
                if let Some(sums) = self.live.get_mut(&session) {
                    sums.connects = sums.connects.wrapping_add(1);
                    sums.moved[Dir::Forward as usize] = 0;
                }
            }
            Call::Close(session, Side::Client, ..) => {
                if let Some(sums) = self.live.get_mut(&session)
                    && core::mem::replace(&mut sums.closed, true)
                {
                    findings.add(NAME, format!("{session} is closed twice"));
                }
            }
            _ => {}
        }
    }

    pub(super) fn event(&mut self, scene: &Scene<'_>, event: &Event, findings: &mut Findings) {
        if let Event::AttemptFailed { session, .. } = event
            && let Some(sums) = self.live.get_mut(session)
        {
            sums.failures = sums.failures.wrapping_add(1);
        }
        let Event::Closed(closed) = event else {
            return;
        };
        let session = closed.session;
        let Some(mut sums) = self.live.remove(&session) else {
            if !self.stillborn.remove(&session) {
                findings.add(NAME, format!("{session} ended, but was not live"));
            }
            return;
        };
        if sums.failures == sums.connects {
            sums.moved[Dir::Forward as usize] = 0;
        }
        let told = [closed.forward, closed.back];
        if told != sums.moved {
            let [forward, back] = sums.moved;
            findings.add(
                NAME,
                format!("{session} moved {forward} and {back} bytes, but tells of {told:?}"),
            );
        }
        if closed.attempts != sums.connects {
            let (told, made) = (closed.attempts, sums.connects);
            findings.add(
                NAME,
                format!("{session} made {made} attempts, tells of {told}"),
            );
        }
        let pool = scene.scenario.listeners[closed.listener.index()].pool;
        let most = scene.scenario.pools[pool].retries.saturating_add(1);
        if closed.attempts > most {
            let made = closed.attempts;
            findings.add(
                NAME,
                format!("{session} made {made} attempts, {most} are allowed"),
            );
        }
        if !sums.closed {
            findings.add(NAME, format!("{session} ended, but is not closed"));
        }
    }

    pub(super) fn end(&self, scene: &Scene<'_>, findings: &mut Findings) {
        for session in self.live.keys() {
            let worker = scene.worker;
            findings.add(NAME, format!("{session} of worker {worker} never ended"));
        }
    }
}
