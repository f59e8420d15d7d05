//! Rates hold for the process: what its workers accept, give to a backend, and tell to go.

use std::collections::BTreeMap;

use tlb_engine::api::{Event, Why};
use tlb_engine::ids::{Incarnation, PoolId, SessionId};
use tlb_engine::time::{Duration, Timestamp};

use super::{Findings, Scene};
use crate::swarm::scenario::Scenario;

/// The generic cell rate algorithm, for whoever keeps to a rate.
#[derive(Clone, Copy, Debug, Default)]
struct Cells(u64);

impl Cells {
    /// One more; `false` if that is more than the rate, by more than `slack`.
    fn one(&mut self, now: Timestamp, (rate, burst): (u32, u32), slack: Duration) -> bool {
        let every = 1_000_000_000 / u64::from(rate);
        self.0 = self.0.max(now.as_nanos()) + every;
        let ahead = self.0 - now.as_nanos();
        ahead <= every * u64::from(burst) + slack.as_nanos() as u64
    }
}

/// Of all workers.
#[derive(Debug, Default)]
pub struct Rates {
    listeners: BTreeMap<usize, Cells>,
    backends: BTreeMap<Incarnation, Cells>,
    told: BTreeMap<usize, Cells>,
    /// Of live sessions.
    pools: BTreeMap<(usize, SessionId), PoolId>,
    /// When tlb began to stop: queues are accepted empty from then on.
    pub(crate) stopping: bool,
}

impl Rates {
    /// Something happened at a worker.
    pub fn event(&mut self, scene: &Scene<'_>, event: &Event, findings: &mut Findings) {
        let scenario = scene.scenario;
        // A worker does what is due when it comes to it.
        let lag = Duration::from_micros(2 * scenario.lag_us + 1000);
        match *event {
            Event::Accepted { listener, .. } => {
                let place = listener.index();
                let Some(rules) = scenario.listeners[place].admission else {
                    return;
                };
                let cells = self.listeners.entry(place).or_default();
                if !cells.one(scene.now, rules, Duration::ZERO) && !self.stopping {
                    findings.add("admission", format!("listener {place} is above its rate"));
                }
            }
            Event::Picked {
                session,
                pool,
                backend: Some(backend),
                ..
            } => {
                self.pools.insert((scene.worker, session), pool);
                let Some(rules) = scenario.pools[pool.index()].fleet.admission else {
                    return;
                };
                let cells = self.backends.entry(backend).or_default();
                if !cells.one(scene.now, rules, lag) {
                    findings.add("admission", format!("{backend} gets more than its rate"));
                }
            }
            Event::Told {
                session,
                backend,
                why,
            } => self.told(scene, session, (backend, why), lag, findings),
            Event::Closed(ref closed) => {
                self.pools.remove(&(scene.worker, closed.session));
            }
            _ => {}
        }
    }

    fn told(
        &mut self,
        scene: &Scene<'_>,
        session: SessionId,
        (backend, why): (Incarnation, Why),
        lag: Duration,
        findings: &mut Findings,
    ) {
        let Some(pool) = self.pools.get(&(scene.worker, session)).copied() else {
            return;
        };
        let rate = rate(scene.scenario, pool);
        // Each has its turn, and a jitter of up to two turns after it.
        let cells = self.told.entry(pool.index()).or_default();
        if !cells.one(scene.now, (rate, 3), lag) {
            findings.add(
                "tells",
                format!("{backend}: more than {rate} a second are told"),
            );
        }
        let known = scene.roster.pool(pool).into_iter();
        let mut known = known.flat_map(|pool| pool.backends());
        let up = known.any(|it| it.incarnation == backend && !it.down);
        if why == Why::Down && up {
            findings.add(
                "tells",
                format!("{session} is told of {backend}, which is up"),
            );
        }
    }
}

fn rate(scenario: &Scenario, pool: PoolId) -> u32 {
    scenario.pools[pool.index()].fleet.tell_rate
}
