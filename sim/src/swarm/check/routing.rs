//! A session goes to its key's owner: the first backend on the documented ring that may take it, by
//! that worker's roster at the pick. Nothing new goes to a backend that drains or is down, except
//! one trial at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tlb_engine::api::{CloseReason, Event};
use tlb_engine::balance::{Policy, hash_key, hash_source};
use tlb_engine::health::{Change, Passive};
use tlb_engine::ids::{Incarnation, PoolId, SessionId};
use tlb_engine::rng::Rng;
use tlb_engine::roster::{Pool, Roster};
use tlb_engine::time::{Duration, Timestamp};

use super::health::is_known;
use super::{Findings, Scene};
use crate::swarm::scenario::FleetRules;
use crate::swarm::stream;

const NAME: &str = "routing";

/// A ring: its points in order, each with its slot.
type Points = Vec<(u64, usize)>;

#[derive(Debug, Default)]
struct Seeker {
    client: Option<usize>,
    tried: Vec<Incarnation>,
    failed_at: Option<Timestamp>,
    /// Where it is connecting to.
    now_at: Option<Incarnation>,
}

#[derive(Clone, Copy, Debug)]
struct Down {
    since: Timestamp,
    strikes: u32,
    trial: Option<SessionId>,
    /// The last trial said nothing: the next one may come at once.
    at_once: bool,
}

impl Down {
    const fn since(now: Timestamp) -> Self {
        Self {
            since: now,
            strikes: 1,
            trial: None,
            at_once: false,
        }
    }
}

/// The oracle.
#[derive(Debug, Default)]
pub(super) struct Routing {
    seekers: BTreeMap<SessionId, Seeker>,
    down: BTreeMap<Incarnation, Down>,
    /// Of the last roster that was looked at.
    epoch: u64,
    rings: Vec<(Arc<Pool>, Points)>,
}

impl Routing {
    pub(super) fn event(&mut self, scene: &Scene<'_>, event: &Event, findings: &mut Findings) {
        match *event {
            Event::Accepted { session, peer, .. } => {
                let client = scene.scenario.client_at(peer);
                let seeker = Seeker {
                    client,
                    ..Seeker::default()
                };
                self.seekers.insert(session, seeker);
            }
            Event::Picked {
                session,
                pool,
                backend: Some(backend),
                to,
                ..
            } => {
                let wrong = self.picked(scene, session, pool, backend, to);
                if let Err(what) = wrong {
                    findings.add(
                        NAME,
                        format!("{session} goes to {backend:?} at {to}: {what}"),
                    );
                }
            }
            Event::AttemptFailed {
                session,
                backend: Some(backend),
                fault,
                ..
            } => {
                if let Some(seeker) = self.seekers.get_mut(&session) {
                    seeker.failed_at = Some(scene.now);
                    seeker.now_at = None;
                    if !fault.is_local() {
                        seeker.tried.push(backend);
                    }
                }
                self.trial_over(scene.now, session, backend, !fault.is_local());
            }
            Event::Established { session, .. } => {
                if let Some(seeker) = self.seekers.get_mut(&session) {
                    seeker.now_at = None;
                }
            }
            Event::BackendDown { pool, backend, .. } => {
                self.down.insert(backend, Down::since(scene.now));
                if let Err(what) = self.within_cap(scene, pool) {
                    findings.add(NAME, what);
                }
            }
            Event::BackendUp { backend, .. } => {
                self.down.remove(&backend);
            }
            Event::Closed(ref closed) => {
                let seeker = self.seekers.remove(&closed.session);
                if let Some(backend) = seeker.and_then(|seeker| seeker.now_at) {
                    self.trial_over(scene.now, closed.session, backend, false);
                }
                if closed.reason == CloseReason::NoBackend {
                    let pool = scene.scenario.listeners[closed.listener.index()].pool;
                    self.nobody(scene, PoolId(pool as u32), closed.session, findings);
                }
            }
            _ => {}
        }
    }

    /// After a new roster: nobody waits for a backend that is not in it any more and has taken nothing.
    pub(super) fn turn(
        &mut self,
        scene: &Scene<'_>,
        taken: &BTreeSet<SessionId>,
        findings: &mut Findings,
    ) {
        let epoch = scene.roster.epoch;
        if core::mem::replace(&mut self.epoch, epoch) == epoch {
            return;
        }
        for (session, seeker) in &self.seekers {
            let Some(backend) = seeker.now_at.filter(|_| !taken.contains(session)) else {
                continue;
            };
            let pools = 0..scene.roster.pools.len() as u32;
            if !pools
                .map(PoolId)
                .any(|pool| is_known(scene.roster, pool, backend))
            {
                findings.add(
                    NAME,
                    format!("{session} waits for {backend:?}, which was removed"),
                );
            }
        }
    }

    /// Another worker's opinion. Returns whether it changes anything.
    pub(super) fn advised(
        &mut self,
        roster: &Roster,
        rules: &FleetRules,
        now: Timestamp,
        (pool, backend): (PoolId, Incarnation),
        change: Change,
    ) -> bool {
        match change {
            Change::Up => {
                self.down.remove(&backend);
                true
            }
            Change::Down if self.down.contains_key(&backend) => false,
            Change::Down => {
                let Some(pool) = roster.pool(pool) else {
                    return false;
                };
                let (eligible, ejected) = self.ejected(pool);
                let more = 100 * (ejected + 1) <= rules.max_ejected as usize * eligible;
                let may = ejected == 0 || more;
                if may {
                    self.down.insert(backend, Down::since(now));
                }
                may
            }
        }
    }

    /// Backends of a pool that would be used if all were well, and those of them that are ejected.
    fn ejected(&self, pool: &Pool) -> (usize, usize) {
        let backends = pool.backends().iter();
        let eligible = backends.filter(|it| !it.draining && it.address.is_some());
        let (mut all, mut ejected) = (0, 0);
        for backend in eligible {
            all += 1;
            ejected += usize::from(self.down.contains_key(&backend.incarnation));
        }
        (all, ejected)
    }

    fn within_cap(&self, scene: &Scene<'_>, id: PoolId) -> Result<(), String> {
        let Some(pool) = scene.roster.pool(id) else {
            return Ok(());
        };
        let most = scene.scenario.pools[id.index()].fleet.max_ejected as usize;
        let (eligible, ejected) = self.ejected(pool);
        if ejected <= 1 || 100 * ejected <= most * eligible {
            return Ok(());
        }
        Err(format!(
            "{ejected} of {eligible} are ejected, {most} % may be"
        ))
    }

    /// Whether so few backends of a pool are well that all are used.
    fn panics(&self, scene: &Scene<'_>, id: PoolId, pool: &Pool) -> bool {
        let (eligible, _) = self.ejected(pool);
        let well = pool.backends().iter().filter(|it| {
            !it.draining
                && it.address.is_some()
                && !it.down
                && !self.down.contains_key(&it.incarnation)
        });
        100 * well.count() < scene.scenario.pools[id.index()].fleet.panic as usize * eligible
    }

    fn trial_over(&mut self, now: Timestamp, session: SessionId, backend: Incarnation, fair: bool) {
        if let Some(down) = self.down.get_mut(&backend)
            && down.trial == Some(session)
        {
            down.trial = None;
            down.at_once = !fair;
            if fair {
                down.since = now;
                down.strikes += 1;
            }
        }
    }

    /// A session was turned away because nobody may take it: is that so?
    fn nobody(&self, scene: &Scene<'_>, pool: PoolId, session: SessionId, findings: &mut Findings) {
        let id = pool;
        let Some(pool) = scene.roster.pool(pool) else {
            return;
        };
        let panic = self.panics(scene, id, pool);
        let up = pool.backends().iter().find(|backend| {
            backend.address.is_some()
                && !backend.draining
                && (panic || !backend.down && !self.down.contains_key(&backend.incarnation))
        });
        if let Some(backend) = up {
            let id = &backend.id;
            findings.add(
                NAME,
                format!("{session} has no backend, but {id} could take it"),
            );
        }
    }

    fn picked(
        &mut self,
        scene: &Scene<'_>,
        session: SessionId,
        pool: PoolId,
        backend: Incarnation,
        to: std::net::SocketAddr,
    ) -> Result<(), String> {
        let id = pool;
        let pool = scene.roster.pool(pool).ok_or("its pool is unknown")?;
        let panic = self.panics(scene, id, pool);
        let slots = pool.backends();
        let slot = slots
            .iter()
            .position(|known| known.incarnation == backend)
            .ok_or("it is not in the roster")?;
        if slots[slot].draining {
            return Err("it drains".into());
        }
        if slots[slot].address != Some(to) {
            return Err("it is not there".into());
        }
        let seeker = self
            .seekers
            .get_mut(&session)
            .ok_or("there is no such session")?;
        seeker.now_at = Some(backend);
        if seeker.failed_at.is_some_and(|at| at < scene.now) {
            // It has waited, and begins a round anew.
            seeker.tried.clear();
        }
        let (client, tried) = (seeker.client, seeker.tried.clone());
        if tried.contains(&backend) {
            return Err("it has just failed there".into());
        }
        if slots[slot].down && !panic {
            return Err("it is down, as the roster says".into());
        }
        match self.down.get_mut(&backend) {
            Some(down) if panic => {
                // Whether this is its trial depends on when its back-off ends, which is chance.
                (down.trial, down.at_once) = (None, true);
            }
            Some(down) => try_out(down, scene.now, session)?,
            None => {}
        }
        let Some(client) = client else {
            return Err("nobody comes from there".into());
        };
        let Some(hash) = hash_of(scene, client, pool.policy) else {
            return Ok(());
        };
        if pool.bounded_load.is_some() {
            return Ok(());
        }
        // Whoever waits for a turn may have been given its owner under an earlier roster.
        let waits = slots[slot].admission.is_some();
        if panic || waits {
            return Ok(());
        }
        self.owner(pool, hash, slot, &tried)
    }

    /// Walks the ring to the picked slot, over those that may be passed.
    fn owner(
        &mut self,
        pool: &Arc<Pool>,
        hash: u64,
        picked: usize,
        tried: &[Incarnation],
    ) -> Result<(), String> {
        let known = self.rings.iter().position(|(of, _)| Arc::ptr_eq(of, pool));
        let place = known.unwrap_or_else(|| {
            self.rings.truncate(3);
            self.rings.insert(0, (Arc::clone(pool), naive_ring(pool)));
            0
        });
        let ring = &self.rings[place].1;
        let from = ring.partition_point(|(point, _)| *point < hash);
        for &(_, slot) in ring[from..].iter().chain(&ring[..from]) {
            if slot == picked {
                return Ok(());
            }
            let backend = &pool.backends()[slot];
            let may = backend.address.is_some()
                && !backend.draining
                && !backend.down
                // One that has come up lately takes a part only.
                && backend.ramp.is_none()
                && !tried.contains(&backend.incarnation)
                && !self.down.contains_key(&backend.incarnation);
            if may {
                return Err(format!("its key belongs to {}", backend.id));
            }
        }
        Err("it has no point on the ring".into())
    }
}

fn try_out(down: &mut Down, now: Timestamp, session: SessionId) -> Result<(), String> {
    if let Some(other) = down.trial {
        return Err(format!("it is down, and {other} is trying it"));
    }
    let doublings = (down.strikes - 1).min(10);
    let least = (Passive::BACK_OFF_MIN * (1 << doublings)).min(Passive::BACK_OFF_MAX);
    let least = least * (100 - Passive::JITTER_PERCENT as u32) / 100;
    if !down.at_once && now.since(down.since) < least - Duration::from_nanos(1000) {
        return Err("it is down, and its back-off is not over".into());
    }
    down.trial = Some(session);
    Ok(())
}

/// What the policy looks a client up by; `None` where chance or load decides.
fn hash_of(scene: &Scene<'_>, client: usize, policy: Policy) -> Option<u64> {
    let about = &scene.scenario.clients[client];
    let framing = scene.scenario.listeners[about.listener].framing;
    match policy {
        Policy::HashRing { .. } => Some(hash_key(&stream::key(client, about, framing)?)),
        Policy::Source { .. } => Some(hash_source(scene.scenario.client_address(client).ip())),
        _ => None,
    }
}

/// The ring as `tlb_engine::balance` documents it: all points of all backends, sorted.
fn naive_ring(pool: &Pool) -> Points {
    let (Policy::HashRing { points } | Policy::Source { points }) = pool.policy else {
        return Vec::new();
    };
    let mut ring = Vec::new();
    for (slot, backend) in pool.backends().iter().enumerate() {
        let mut stream = Rng::new(hash_key(backend.id.as_bytes()));
        for _ in 0..points * backend.weight {
            ring.push((stream.next_u64(), slot));
        }
    }
    ring.sort_unstable();
    ring
}
