//! When to probe, and what follows from a result.

use alloc::boxed::Box;

use super::Fleet;
use super::api::{FleetAction, ProbeId, ProbeOutcome};
use crate::api::Why;
use crate::time::{Duration, Timestamp};

/// How much the time between two probes may be shorter or longer, in per cent.
const JITTER_PERCENT: u64 = 10;

impl Fleet {
    /// Has a backend be probed from now on, or no longer.
    pub(super) fn see_to_probing(&mut self, now: Timestamp, index: usize) {
        let member = &self.members[index];
        let rules = self.pools[member.pool.index()].config.probe;
        let Some(rules) = rules.filter(|_| member.is_probed()) else {
            return self.stop_probing(index);
        };
        if self.timers.get(index).is_some() {
            return;
        }
        // Somewhere in the first interval, so that the backends of a fleet do not go in step.
        let nanos = u64::try_from(rules.interval.as_nanos()).unwrap_or(u64::MAX);
        let mut wait = Duration::from_nanos(self.rng.below(nanos));
        if cfg!(tlb_planted = "probe-storm") {
            wait = Duration::ZERO;
        }
        self.timers.set(index, now + wait);
    }

    /// Nobody wants to know any more.
    pub(super) fn stop_probing(&mut self, index: usize) {
        self.timers.clear(index);
        if let Some((probe, _)) = self.members[index].probe.take() {
            self.probes.remove(&probe);
            self.actions.push_back(FleetAction::Cancel { probe });
        }
    }

    /// A backend's deadline has come: the end of a probe, or its begin.
    pub(super) fn expire(&mut self, now: Timestamp, index: usize) {
        self.timers.clear(index);
        let member = &mut self.members[index];
        if let Some((probe, began)) = member.probe.take() {
            self.probes.remove(&probe);
            self.actions.push_back(FleetAction::Cancel { probe });
            return self.concluded(now, index, began, ProbeOutcome::Failed("timed out".into()));
        }
        let rules = self.pools[member.pool.index()].config.probe;
        let (Some(rules), Some(to)) = (rules, member.config.address) else {
            return;
        };
        let probe = ProbeId(self.next_probe);
        self.next_probe += 1;
        member.probe = Some((probe, now));
        self.probes.insert(probe, index);
        self.timers.set(index, now + rules.timeout);
        self.actions.push_back(FleetAction::Probe {
            probe,
            pool: member.pool,
            to,
        });
    }

    /// A probe ended by itself.
    pub(super) fn probed(&mut self, now: Timestamp, probe: ProbeId, outcome: ProbeOutcome) {
        let known = self.probes.remove(&probe);
        let Some(index) = known.or_else(|| self.stale(probe)) else {
            return;
        };
        let Some((_, began)) = self.members[index].probe.take() else {
            return;
        };
        self.concluded(now, index, began, outcome);
    }

    /// A bug that counts a result of another life of its backend.
    fn stale(&self, probe: ProbeId) -> Option<usize> {
        let planted = cfg!(tlb_planted = "stale-probe-counts");
        let under_way = self.probes.range(probe..).next();
        planted.then_some(under_way).flatten().map(|(_, &it)| it)
    }

    /// A probe that began then found something out.
    fn concluded(&mut self, now: Timestamp, index: usize, began: Timestamp, outcome: ProbeOutcome) {
        let member = &mut self.members[index];
        let pool = member.pool;
        let Some(rules) = self.pools[pool.index()].config.probe else {
            return;
        };
        let passed = match &outcome {
            ProbeOutcome::Passed => Some(true),
            ProbeOutcome::Failed(_) => Some(false),
            // This host's own trouble says nothing.
            ProbeOutcome::Inconclusive(_) => None,
        };
        member.probes_passed += u64::from(passed == Some(true));
        member.probes_failed += u64::from(passed == Some(false));
        member.last_probe = Some((outcome, now.since(began)));
        let turned = passed.is_some_and(|passed| member.active.judge(passed, &rules));
        let changing = member.active.streak > 0;
        let up = member.active.up;
        member.downs += u64::from(turned && !up);
        let (cause, backend): (Box<str>, _) = (member.cause(), member.incarnation);
        if turned && up {
            self.rise(now, index);
        } else if turned {
            self.tell_later(pool, backend, Why::Down);
        }
        if turned {
            self.refresh(now, index, cause);
        }
        let interval = if changing {
            rules.fast_interval
        } else {
            rules.interval
        };
        let wait = self.jittered(interval);
        self.timers.set(index, now.max(began + wait));
    }

    fn jittered(&mut self, interval: Duration) -> Duration {
        let jitter = JITTER_PERCENT * 10_000;
        let millionths = 1_000_000 - jitter + self.rng.below(2 * jitter + 1);
        // Intervals are days at most, which leaves room.
        interval * millionths as u32 / 1_000_000
    }
}
