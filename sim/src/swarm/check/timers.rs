//! Deadlines are kept, neither early nor late, and the loop does not spin.

use std::collections::{BTreeMap, BTreeSet};

use tlb_engine::api::{CloseReason, Event};
use tlb_engine::drive::{Outcome, Turn};
use tlb_engine::ids::SessionId;
use tlb_engine::time::{Duration, Timestamp};

use super::{Findings, Scene};
use crate::model::ledger::Call;
use crate::swarm::scenario::Framing;

const NAME: &str = "timers";
/// Most turns in a row, at one moment, that get nothing done.
const SPINS: u32 = 50;

#[derive(Clone, Copy, Debug)]
struct Watch {
    accepted: Timestamp,
    listener: usize,
    pool: usize,
    picked: Option<Timestamp>,
    first_pick: bool,
    active: Option<Timestamp>,
    /// The longest time in which no byte passed.
    longest: Duration,
    half_closed: bool,
}

/// Follows each session's deadlines with its own arithmetic.
#[derive(Debug, Default)]
pub(super) struct Timers {
    watches: BTreeMap<SessionId, Watch>,
    spins: u32,
    turned: Timestamp,
    stopped: Option<Timestamp>,
}

const fn ms(of: u64) -> Duration {
    Duration::from_millis(of)
}

/// What a worker may be late.
fn slack(scene: &Scene<'_>) -> Duration {
    Duration::from_micros(scene.scenario.lag_us + 1)
}

impl Timers {
    pub(super) const fn stopped(&mut self, now: Timestamp) {
        self.stopped = Some(now);
    }

    pub(super) fn turn(
        &mut self,
        scene: &Scene<'_>,
        turn: Turn,
        progress: bool,
        findings: &mut Findings,
    ) {
        let same = core::mem::replace(&mut self.turned, scene.now) == scene.now;
        self.spins = if same && !progress { self.spins + 1 } else { 0 };
        if self.spins > SPINS {
            findings.add(NAME, format!("{} turns bring nothing", self.spins));
            self.spins = 0;
        }
        if !turn.busy && turn.deadline.is_some_and(|at| at <= scene.now) {
            findings.add(NAME, "a deadline that has passed is still set".into());
        }
    }

    pub(super) fn call(&mut self, scene: &Scene<'_>, call: &Call, findings: &mut Findings) {
        if let Call::Connect(session, ..) | Call::Take(session, _, _, Some(_)) = *call
            && let Some(watch) = self.watches.get_mut(&session)
        {
            (watch.active, watch.half_closed) = (None, false);
        }
        if let Call::Flow(session, flow) = *call
            && let Some(watch) = self.watches.get_mut(&session)
        {
            watch.active = Some(scene.now.before(flow.quiet));
        }
        let Call::Drain(session, _, _, Outcome::Moved { .. }) = *call else {
            return;
        };
        let Some(watch) = self.watches.get_mut(&session) else {
            return;
        };
        let quiet = watch.active.replace(scene.now);
        watch.longest = watch
            .longest
            .max(quiet.map_or(Duration::ZERO, |at| scene.now.since(at)));
        let door = &scene.scenario.listeners[watch.listener];
        let most = match (watch.half_closed, door.idle_ms) {
            (true, _) => door.half_close_ms,
            (false, Some(idle)) => idle,
            (false, None) => return,
        };
        let most = ms(most + scene.scenario.reset_ms) + slack(scene);
        if quiet.is_some_and(|at| scene.now.since(at) > most) {
            findings.add(NAME, format!("{session} lives on after its idle timeout"));
        }
    }

    pub(super) fn event(
        &mut self,
        scene: &Scene<'_>,
        event: &Event,
        taken: &BTreeSet<SessionId>,
        findings: &mut Findings,
    ) {
        let now = scene.now;
        match *event {
            Event::Accepted {
                session, listener, ..
            } => {
                let listener = listener.index();
                let watch = Watch {
                    accepted: now,
                    listener,
                    pool: scene.scenario.listeners[listener].pool,
                    picked: None,
                    first_pick: true,
                    active: None,
                    longest: Duration::ZERO,
                    half_closed: false,
                };
                self.watches.insert(session, watch);
            }
            Event::Picked { session, .. } => {
                let Some(watch) = self.watches.get_mut(&session) else {
                    return;
                };
                let door = &scene.scenario.listeners[watch.listener];
                let by = watch.accepted + ms(door.preread_ms) + slack(scene);
                let framed = door.framing != Framing::None;
                // Whoever had to wait for its turn at a backend came in time.
                let waits = scene.scenario.pools[watch.pool].fleet.admission.is_some();
                // What was written in the turn of the accept was before the watch.
                if watch.first_pick && taken.contains(&session) {
                    watch.active = Some(now);
                }
                if core::mem::take(&mut watch.first_pick) && framed && !waits && now > by {
                    findings.add(NAME, format!("{session} outlives its preread timeout"));
                }
                watch.picked = Some(now);
            }
            Event::Established { session, .. } | Event::AttemptFailed { session, .. } => {
                self.attempt_over(scene, session, taken, findings);
                if let (Event::Established { .. }, Some(watch)) =
                    (event, self.watches.get_mut(&session))
                {
                    watch.active = Some(now);
                }
            }
            Event::HalfClosed { session, .. } => {
                if let Some(watch) = self.watches.get_mut(&session) {
                    watch.half_closed = true;
                    watch.active = Some(now);
                }
            }
            Event::Closed(ref closed) => {
                self.attempt_over(scene, closed.session, taken, findings);
                if let Some(watch) = self.watches.remove(&closed.session)
                    && let Some(what) = self.closed(scene, &watch, closed.reason)
                {
                    findings.add(NAME, format!("{} {what}", closed.session));
                }
            }
            _ => {}
        }
    }

    fn attempt_over(
        &mut self,
        scene: &Scene<'_>,
        session: SessionId,
        taken: &BTreeSet<SessionId>,
        findings: &mut Findings,
    ) {
        let Some(watch) = self.watches.get_mut(&session) else {
            return;
        };
        let Some(picked) = watch.picked.take() else {
            return;
        };
        let most = ms(scene.scenario.pools[watch.pool].connect_ms) + slack(scene);
        let replay = scene.scenario.listeners[watch.listener].replay;
        let taken = replay && taken.contains(&session);
        if scene.now.since(picked) > most && !taken {
            findings.add(NAME, format!("{session} outlives its connect timeout"));
        }
    }

    fn closed(
        &self,
        scene: &Scene<'_>,
        watch: &Watch,
        reason: CloseReason,
    ) -> Option<&'static str> {
        let now = scene.now;
        let door = &scene.scenario.listeners[watch.listener];
        let slack = slack(scene);
        let quiet = watch.active.map(|at| now.since(at));
        match reason {
            CloseReason::PrereadTimeout => {
                let lasted = now.since(watch.accepted);
                let limit = ms(door.preread_ms);
                if lasted < limit {
                    return Some("ends before its preread timeout");
                }
                (lasted > limit + slack).then_some("ends after its preread timeout")
            }
            CloseReason::IdleTimeout => {
                let limit = ms(door.idle_ms.unwrap_or(u64::MAX / 2_000_000));
                let late = limit + ms(scene.scenario.reset_ms) + slack * 2;
                let quiet = quiet?;
                // What is held may still be written while it winds up.
                if quiet.max(watch.longest) < limit {
                    return Some("ends before its idle timeout");
                }
                (quiet > late).then_some("ends after its idle timeout")
            }
            CloseReason::Shutdown => {
                let Some(stopped) = self.stopped else {
                    return Some("ends by a shutdown that was not");
                };
                let most = ms(scene.scenario.shutdown_ms + 1000 + scene.scenario.reset_ms);
                (now.since(stopped) > most + slack * 4).then_some("ends after the shutdown")
            }
            _ => None,
        }
    }
}
