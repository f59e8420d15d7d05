//! The fleet follows the rules that it was given: what it publishes about a backend is what its probes found, and
//! whoever is to be told is told, after the roster that says why.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tlb_engine::api::Why;
use tlb_engine::fleet::{Admin, Fleet, FleetAction, ProbeId, ProbeOutcome};
use tlb_engine::ids::Incarnation;
use tlb_engine::roster::Roster;
use tlb_engine::time::Timestamp;

use super::Findings;
use crate::swarm::scenario::{Probing, Scenario};

const NAME: &str = "active health";
/// So many first probes at one moment are no accident.
const STORM: usize = 4;

/// What the fleet was doing when it acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// Its time had come: a probe that it gives up has failed.
    Timeout,
    /// It got another configuration.
    Configuration,
    /// Something else.
    Elsewhere,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    up: bool,
    streak: u32,
    pool: usize,
    probed: bool,
}

/// A model of active health, and of who must be told.
#[derive(Debug, Default)]
pub struct FleetCheck {
    rows: BTreeMap<Incarnation, Row>,
    places: BTreeMap<SocketAddr, Incarnation>,
    /// Under way.
    probes: BTreeMap<ProbeId, SocketAddr>,
    /// Of each probe, whose it was.
    lives: BTreeMap<ProbeId, Incarnation>,
    words: BTreeMap<String, Admin>,
    /// As published last.
    members: BTreeSet<Incarnation>,
    down: BTreeSet<Incarnation>,
    /// Left with the last roster, and not told yet: with the pool that they were of.
    left: BTreeMap<Incarnation, usize>,
    /// When backends were probed for the first time.
    first: BTreeMap<Timestamp, usize>,
}

impl FleetCheck {
    /// A roster goes out.
    pub fn published(&mut self, roster: &Roster) {
        let before = std::mem::take(&mut self.members);
        self.down.clear();
        for (pool, known) in roster.pools.iter().enumerate() {
            for backend in known.backends() {
                self.members.insert(backend.incarnation);
                if backend.down {
                    self.down.insert(backend.incarnation);
                }
                if let Some(address) = backend.address {
                    self.places.insert(address, backend.incarnation);
                }
                self.rows.entry(backend.incarnation).or_insert(Row {
                    up: true,
                    streak: 0,
                    pool,
                    probed: false,
                });
            }
        }
        for gone in before.difference(&self.members) {
            if let Some(row) = self.rows.get(gone) {
                self.left.insert(*gone, row.pool);
            }
        }
    }

    /// A probe sets out.
    pub fn probing(&mut self, probe: ProbeId, to: SocketAddr) {
        self.probes.insert(probe, to);
        if let Some(&life) = self.places.get(&to) {
            self.lives.insert(probe, life);
        }
    }

    /// A probe has its answer.
    pub fn probed(&mut self, scenario: &Scenario, probe: ProbeId, outcome: &ProbeOutcome) {
        self.probes.remove(&probe);
        self.judge(scenario, probe, *outcome == ProbeOutcome::Passed);
    }

    fn judge(&mut self, scenario: &Scenario, probe: ProbeId, passed: bool) {
        let row = self
            .lives
            .get(&probe)
            .and_then(|life| self.rows.get_mut(life));
        let Some(row) = row else {
            return;
        };
        let Some(Probing { rise, fall, .. }) = scenario.pools[row.pool].fleet.health else {
            return;
        };
        row.streak = if passed == row.up { 0 } else { row.streak + 1 };
        if row.streak >= if passed { rise } else { fall } {
            (row.up, row.streak) = (passed, 0);
        }
    }

    /// An operator said so.
    pub fn word(&mut self, backend: &str, admin: Admin) {
        self.words.insert(backend.to_owned(), admin);
    }

    /// The fleet wants something done.
    pub fn action(
        &mut self,
        scenario: &Scenario,
        action: &FleetAction,
        whence: Whence,
        now: Timestamp,
        findings: &mut Findings,
    ) {
        match action {
            FleetAction::Publish(roster) => self.published(roster),
            FleetAction::Tell(tell) => {
                let (is_member, is_down) = (
                    self.members.contains(&tell.backend),
                    self.down.contains(&tell.backend),
                );
                let fits = match tell.why {
                    Why::Removed => !is_member,
                    Why::Down => is_member && is_down,
                    Why::Maint => true,
                };
                if !fits {
                    let (backend, why) = (tell.backend, tell.why);
                    let what = format!("{backend} is told {why:?} before the roster says so");
                    findings.add("divergence", what);
                }
                self.left.remove(&tell.backend);
            }
            FleetAction::Probe { to, .. } => {
                let life = self.places.get(to).copied();
                let row = life.and_then(|life| self.rows.get_mut(&life));
                if let Some(row) = row.filter(|row| !row.probed) {
                    row.probed = true;
                    let together = self.first.entry(now).or_default();
                    *together += 1;
                    if *together >= STORM {
                        findings.add(NAME, format!("{together} first probes at once"));
                    }
                }
            }
            FleetAction::Cancel { probe } => {
                if self.probes.remove(probe).is_some() && whence == Whence::Timeout {
                    self.judge(scenario, *probe, false);
                }
                self.lives.remove(probe);
            }
            _ => {}
        }
    }

    /// The fleet has said all: is it what follows from what it was told?
    pub fn settled(&mut self, scenario: &Scenario, fleet: &Fleet, findings: &mut Findings) {
        let roster = fleet.roster();
        for backend in roster.pools.iter().flat_map(|pool| pool.backends()) {
            let row = self.rows.get(&backend.incarnation);
            if row.is_some_and(|row| row.up == backend.down) {
                let (id, down) = (&backend.id, backend.down);
                findings.add(NAME, format!("{id} is published with down={down}"));
            }
            if let Some(word) = self.words.get(&*backend.id)
                && backend.draining != (*word != Admin::Ready)
            {
                findings.add(NAME, format!("{}: the operator said {word:?}", backend.id));
            }
        }
        for (backend, pool) in std::mem::take(&mut self.left) {
            // Some pools keep the sessions of those that leave.
            if scenario.pools[pool].fleet.on_down.is_some() {
                findings.add("divergence", format!("{backend} left, and nobody is told"));
            }
        }
    }
}
