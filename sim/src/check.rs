//! What must hold in every world, whatever its scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tlb_engine::api::{CloseReason, Closed, Event};
use tlb_engine::balance::{Policy, hash_key};
use tlb_engine::ids::{Incarnation, SessionId};
use tlb_engine::rng::Rng;

use crate::host::Seen;
use crate::peers::{ClientReport, End, Served};
use crate::scenario::{Member, Scenario};
use crate::world::{Run, id};

/// All that was wrong; nothing if all is well.
///
/// That every byte was the right one at its place is checked by the peers, as it comes.
pub fn check(scenario: &Scenario, run: &Run) -> Vec<String> {
    let mut findings = run.findings.clone();
    for (tlb, events) in run.events.iter().enumerate() {
        let at = |what| format!("tlb{tlb}: {what}");
        findings.extend(conservation(events).map(at));
        findings.extend(health(scenario, events).map(at));
        // A fleet's rosters are its own; its scenarios judge who serves whom.
        if scenario.fleet.is_none() {
            findings.extend(Routing::new(scenario, run).check(events).map(at));
        }
    }
    findings.extend((0..run.clients.len()).filter_map(|client| completeness(run, client)));
    findings
}

/// Every session that began ended once, and its parts add up.
fn conservation(events: &[Seen]) -> impl Iterator<Item = String> {
    let mut live = BTreeSet::new();
    let mut findings = vec![];
    for Seen { event, .. } in events {
        match event {
            Event::Accepted { session, .. } if !live.insert(*session) => {
                findings.push(format!("{session} began twice"));
            }
            Event::Closed(closed) if !live.remove(&closed.session) => {
                findings.push(format!("{} ended without being live", closed.session));
            }
            Event::Picked { session, .. } | Event::Established { session, .. }
                if !live.contains(session) =>
            {
                findings.push(format!("{session} goes on after its end"));
            }
            _ => (),
        }
    }
    findings.extend(live.iter().map(|session| format!("{session} never ended")));
    findings.into_iter()
}

/// A backend goes down only by `fall` failures in a row.
fn health(scenario: &Scenario, events: &[Seen]) -> impl Iterator<Item = String> {
    let mut failures: BTreeMap<Incarnation, u32> = BTreeMap::new();
    let mut findings = vec![];
    for Seen { event, .. } in events {
        match event {
            Event::AttemptFailed {
                backend: Some(backend),
                fault,
                ..
            } if !fault.is_local() => *failures.entry(*backend).or_default() += 1,
            Event::Established {
                backend: Some(backend),
                ..
            } => {
                failures.remove(backend);
            }
            Event::BackendDown { backend, .. } => {
                let failures = failures.get(backend).copied().unwrap_or_default();
                if failures < scenario.failover.fall {
                    findings.push(format!("{backend:?} is down after {failures} failures"));
                }
            }
            _ => (),
        }
    }
    findings.into_iter()
}

/// A clean end of stream means that nothing is missing before it; what both ends got is what the
/// session counted.
fn completeness(run: &Run, client: usize) -> Option<String> {
    let report = &run.clients[client];
    let mut served = run.served.iter();
    let served = served.find(|served| served.client.map(usize::from) == Some(client));
    let got = served.cloned().unwrap_or_default();
    let closed = closed(run, report);
    // A session that is closed because nothing passed is not asked whether something is about to.
    let was_at_rest = closed.is_some_and(|closed| {
        matches!(
            closed.reason,
            CloseReason::Shutdown
                | CloseReason::IdleTimeout
                | CloseReason::BackendDown
                | CloseReason::BackendMaint
        )
    });
    if report.end == End::Eof && !was_at_rest && report.received < got.sent {
        return Some(format!(
            "c{client} took a clean end after {} of {} bytes",
            report.received, got.sent
        ));
    }
    if got.end == End::Eof && got.received < report.sent && !was_at_rest {
        return Some(format!(
            "b{} took c{client}'s clean end after {} of {} bytes",
            got.backend, got.received, report.sent
        ));
    }
    let closed = closed?;
    // Bytes that a kernel took are counted, even if nobody was left to read them.
    let is_whole =
        closed.reason == CloseReason::Completed && (report.end, got.end) == (End::Eof, End::Eof);
    let counted = (closed.forward, closed.back);
    if is_whole && counted != (got.received, report.received) {
        return Some(format!(
            "c{client}: counted {counted:?}, there are {:?}",
            (got.received, report.received)
        ));
    }
    (counted.0 < got.received || counted.1 < report.received)
        .then(|| format!("c{client}: more came through than was counted: {counted:?}"))
}

/// How a client's session ended.
pub fn closed<'a>(run: &'a Run, client: &ClientReport) -> Option<&'a Closed> {
    let events = run.events.iter().flatten();
    let mut closed = events.filter_map(|seen| match &seen.event {
        Event::Closed(closed) => Some(closed),
        _ => None,
    });
    closed.find(|closed| Some(closed.peer) == client.from)
}

/// What the backends' hosts saw of a client.
pub fn served(run: &Run, client: usize) -> Option<&Served> {
    let mut served = run.served.iter();
    served.find(|served| served.client.map(usize::from) == Some(client))
}

/// The owner of a key comes first; who was passed over had to be.
struct Routing<'a> {
    scenario: &'a Scenario,
    run: &'a Run,
    keys: BTreeMap<SocketAddr, u32>,
    sessions: BTreeMap<SessionId, SocketAddr>,
    tried: BTreeMap<SessionId, BTreeSet<usize>>,
    down: BTreeSet<usize>,
    epoch: u64,
}

impl<'a> Routing<'a> {
    fn new(scenario: &'a Scenario, run: &'a Run) -> Self {
        let keys = scenario.clients.iter().zip(&run.clients);
        let keys = keys.filter_map(|(plan, report)| Some((report.from?, plan.flow.key)));
        Self {
            scenario,
            run,
            keys: keys.collect(),
            sessions: BTreeMap::new(),
            tried: BTreeMap::new(),
            down: BTreeSet::new(),
            epoch: 0,
        }
    }

    fn check(mut self, events: &[Seen]) -> impl Iterator<Item = String> {
        let mut findings = vec![];
        for seen in events {
            if std::mem::replace(&mut self.epoch, seen.epoch) != seen.epoch {
                let members = &self.run.rosters[seen.epoch as usize];
                self.down
                    .retain(|down| members.iter().any(|member| member.backend == *down));
            }
            match &seen.event {
                Event::Accepted { session, peer, .. } => {
                    self.sessions.insert(*session, *peer);
                }
                Event::Picked {
                    session,
                    backend: Some(Incarnation(backend)),
                    ..
                } => findings.extend(self.picked(*session, *backend as usize).err()),
                Event::AttemptFailed {
                    session,
                    backend: Some(Incarnation(backend)),
                    ..
                } => {
                    self.tried
                        .entry(*session)
                        .or_default()
                        .insert(*backend as usize);
                }
                Event::BackendDown { backend, .. } => {
                    self.down.insert(backend.0 as usize);
                }
                Event::BackendUp { backend, .. } => {
                    self.down.remove(&(backend.0 as usize));
                }
                _ => (),
            }
        }
        findings.into_iter()
    }

    fn picked(&self, session: SessionId, picked: usize) -> Result<(), String> {
        let members = &self.run.rosters[self.epoch as usize];
        let Some(member) = members.iter().find(|member| member.backend == picked) else {
            return Err(format!(
                "{session} goes to b{picked}, which is in no roster"
            ));
        };
        if member.draining {
            return Err(format!("{session} goes to b{picked}, which is draining"));
        }
        let (Policy::HashRing { points }, Some(key)) = (
            self.scenario.policy,
            self.sessions
                .get(&session)
                .and_then(|peer| self.keys.get(peer)),
        ) else {
            return Ok(());
        };
        let tried = self.tried.get(&session);
        let is_excused = |member: &Member| {
            member.draining
                || self.down.contains(&member.backend)
                || tried.is_some_and(|tried| tried.contains(&member.backend))
        };
        for owner in owners(points, members, *key) {
            if owner.backend == picked {
                break;
            }
            if !is_excused(&owner) {
                return Err(format!(
                    "{session} with key {key:08x} goes to b{picked}, past b{}",
                    owner.backend
                ));
            }
        }
        Ok(())
    }
}

/// Who owns `key`, and who comes next, by the hash ring as it is documented: every point drawn,
/// sorted and walked.
pub fn owners(points: u32, members: &[Member], key: u32) -> Vec<Member> {
    let mut ring: Vec<_> = members
        .iter()
        .flat_map(|member| {
            let mut stream = Rng::new(hash_key(id(member.backend).as_bytes()));
            (0..points * member.weight)
                .map(move |_| (stream.next_u64(), id(member.backend), *member))
        })
        .collect();
    ring.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let hash = hash_key(&key.to_be_bytes());
    let start = ring.partition_point(|point| point.0 < hash);
    let mut owners: Vec<Member> = vec![];
    for (.., member) in ring[start..].iter().chain(&ring[..start]) {
        if !owners.contains(member) {
            owners.push(*member);
        }
    }
    owners
}
