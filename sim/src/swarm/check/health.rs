//! A backend goes down by `fall` failures in a row, neither before nor after.

use std::collections::BTreeMap;

use tlb_engine::api::{Event, Fault};
use tlb_engine::health::Change;
use tlb_engine::ids::{Incarnation, PoolId, SessionId};
use tlb_engine::roster::Roster;

use super::{Findings, Scene};

const NAME: &str = "health";

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    failures: u32,
    down: bool,
    /// An attempt was given up, and whether that was the backend's failure cannot be told from outside.
    doubtful: bool,
}

/// Counts failures.
#[derive(Debug, Default)]
pub(super) struct Health {
    rows: BTreeMap<Incarnation, Row>,
    pools: BTreeMap<SessionId, PoolId>,
    /// The next event must say that it is down.
    due: Option<Incarnation>,
}

/// Whether a backend is in a pool of a roster.
pub(super) fn is_known(roster: &Roster, pool: PoolId, backend: Incarnation) -> bool {
    roster.pool(pool).is_some_and(|pool| {
        pool.backends()
            .iter()
            .any(|known| known.incarnation == backend)
    })
}

/// Whether resets before the first byte count as failures, and that byte as a success: neither is seen here.
fn counts_resets(scene: &Scene<'_>, pool: PoolId) -> bool {
    scene.scenario.pools[pool.index()].early_resets
}

impl Health {
    pub(super) fn event(&mut self, scene: &Scene<'_>, event: &Event, findings: &mut Findings) {
        if let Some(due) = self.due.take()
            && !matches!(event, Event::BackendDown { backend, .. } if *backend == due)
        {
            findings.add(
                NAME,
                format!("{due:?} failed often enough, but is not down"),
            );
        }
        match *event {
            Event::Picked { session, pool, .. } => {
                self.pools.insert(session, pool);
            }
            Event::AttemptFailed {
                session,
                backend: Some(backend),
                fault,
                ..
            } if !fault.is_local() => {
                let Some(&pool) = self.pools.get(&session) else {
                    return;
                };
                let row = self.rows.entry(backend).or_default();
                if row.down || !is_known(scene.roster, pool, backend) {
                    return;
                }
                row.failures += 1;
                // One that drains is none of those that a pool may eject so many of. One that was left because the fleet
                // took it down has not failed by itself.
                let known = scene.roster.pool(pool).into_iter();
                let known = known.flat_map(|pool| pool.backends());
                row.doubtful |= known
                    .filter(|it| it.incarnation == backend)
                    .any(|it| it.draining || it.down && fault == Fault::Unreachable);
                if row.doubtful || counts_resets(scene, pool) {
                    return;
                }
                // Where a pool can spare nobody more, failures are counted and that is all.
                let capped = scene.scenario.pools[pool.index()].fleet.max_ejected < 100;
                if capped {
                    return;
                }
                if row.failures >= scene.scenario.pools[pool.index()].fall {
                    self.due = Some(backend);
                }
            }
            Event::Established {
                backend: Some(backend),
                ..
            } => {
                let row = self.rows.entry(backend).or_default();
                (row.failures, row.doubtful) = (0, false);
            }
            Event::BackendDown { pool, backend, .. } => {
                let row = self.rows.entry(backend).or_default();
                let fall = scene.scenario.pools[pool.index()].fall;
                let certain = !row.doubtful && !counts_resets(scene, pool);
                if row.down || row.failures < fall && certain {
                    let failures = row.failures;
                    findings.add(
                        NAME,
                        format!("{backend:?} is down after {failures} failures"),
                    );
                }
                row.down = true;
            }
            Event::BackendUp { backend, .. } => {
                let row = self.rows.entry(backend).or_default();
                if !row.down {
                    findings.add(NAME, format!("{backend:?} comes up, but was not down"));
                }
                *row = Row::default();
            }
            Event::Closed(ref closed) => {
                self.pools.remove(&closed.session);
            }
            _ => {}
        }
    }

    /// Another worker's opinion: the row is that of a backend that it took down, or knows nothing of.
    pub(super) fn advised(&mut self, backend: Incarnation, change: Change) {
        let row = Row {
            failures: 0,
            down: change == Change::Down,
            doubtful: false,
        };
        self.rows.insert(backend, row);
    }

    pub(super) fn end(&self, findings: &mut Findings) {
        if let Some(due) = self.due {
            findings.add(
                NAME,
                format!("{due:?} failed often enough, but is not down"),
            );
        }
    }
}
