//! A FIN is passed on exactly once, after the last byte, and never for a stream that was reset; a
//! reset stays one.

use std::collections::BTreeMap;

use tlb_engine::api::{Close, CloseReason, Event};
use tlb_engine::drive::Outcome;
use tlb_engine::ids::{Dir, SessionId, Side};
use tlb_engine::time::{Duration, Timestamp};

use super::{Findings, Scene};
use crate::model::ledger::Call;

const NAME: &str = "half-close";

#[derive(Clone, Debug, Default)]
struct Relay {
    /// The end was read, by the side that it came from.
    ended: [bool; 2],
    /// The side broke, as some call was told.
    broken: [bool; 2],
    /// A FIN was sent to that side.
    shut: [bool; 2],
    /// Bytes read and not yet written, by direction.
    held: [usize; 2],
    established: bool,
    /// Something was written to that side.
    written: [bool; 2],
    /// All that was written to that side was acknowledged when last asked.
    acknowledged: [bool; 2],
    /// Since when something is broken.
    broken_at: Option<Timestamp>,
    /// FINs that the engine has told of.
    told: [u8; 2],
    /// A side that was reset before it had all that was written, and before the fault was as old as the reset timeout.
    hasty: Option<Side>,
    /// Its peers talk to each other.
    away: bool,
    /// There was an attempt before, whose FINs may be told of after the next one has begun.
    again: bool,
}

/// Follows both directions of each session by the calls alone.
#[derive(Debug, Default)]
pub(super) struct HalfClose {
    relays: BTreeMap<SessionId, Relay>,
    stopped: bool,
}

impl HalfClose {
    pub(super) fn call(&mut self, scene: &Scene<'_>, call: &Call, findings: &mut Findings) {
        let Some(session) = call.session() else {
            return;
        };
        let relay = self.relays.entry(session).or_default();
        let early = |relay: &Relay| {
            let wait = Duration::from_millis(scene.scenario.reset_ms);
            relay.broken_at.is_some_and(|at| scene.now < at + wait)
        };
        match *call {
            Call::Recv(_, outcome) => relay.read(Side::Client, outcome),
            Call::Connect(..) | Call::Take(..) => {
                let client = Side::Client as usize;
                *relay = Relay {
                    ended: [relay.ended[client], false],
                    broken: [relay.broken[client], false],
                    again: relay.shut[Side::Backend as usize] || relay.again,
                    ..Relay::default()
                };
            }
            Call::Load(_, bytes) => relay.held[Dir::Forward as usize] += bytes,
            Call::Fill(_, dir, _, outcome) => {
                if relay.shut[dir.to() as usize] {
                    findings.add(NAME, format!("{session} {dir}: read on after the FIN"));
                }
                if let Outcome::Moved { bytes, .. } = outcome {
                    relay.held[dir as usize] += bytes;
                }
                relay.read(dir.from(), outcome);
            }
            Call::Drain(_, dir, _, outcome) => {
                if relay.shut[dir.to() as usize] {
                    findings.add(NAME, format!("{session} {dir}: bytes after the FIN"));
                }
                match outcome {
                    Outcome::Moved { bytes, .. } => {
                        relay.held[dir as usize] -= bytes;
                        relay.acknowledged[dir.to() as usize] = false;
                        relay.written[dir.to() as usize] = true;
                    }
                    Outcome::Broken(_) => relay.broken[dir.to() as usize] = true,
                    _ => {}
                }
            }
            Call::Unacknowledged(_, side, bytes) => relay.acknowledged[side as usize] = bytes == 0,
            Call::HandOff(_, true) => relay.away = true,
            Call::Flow(_, flow) => {
                for dir in Dir::BOTH {
                    relay.shut[dir.to() as usize] |= flow.ended[dir as usize];
                }
            }
            // The kernel sees to it.
            Call::Close(..) if relay.away => {}
            // Before a reset goes out, the peer has what was written, or time is up.
            Call::Close(_, side, Close::Reset, true)
                if relay.established
                    && relay.written[side as usize]
                    && !relay.broken[side as usize]
                    && !relay.acknowledged[side as usize]
                    && !self.stopped
                    && early(relay) =>
            {
                relay.hasty = Some(side);
            }
            Call::TakeError(_, side, Some(_)) => relay.broken[side as usize] = true,
            Call::Shutdown(_, side, result) => {
                relay.shutdown(session, side, findings);
                match result {
                    Ok(()) => relay.shut[side as usize] = true,
                    Err(_) => relay.broken[side as usize] = true,
                }
            }
            Call::Close(_, side, Close::Fin, true) => {
                let other = side.other();
                let cut = relay.broken[other as usize] || relay.held[other.outgoing() as usize] > 0;
                if relay.established && cut && !relay.shut[side as usize] {
                    findings.add(
                        "reset",
                        format!("{session}: the {other} broke, the {side} gets a clean end"),
                    );
                }
                relay.shut[side as usize] |= relay.ended[other as usize] && !cut;
            }
            _ => {}
        }
        if relay.broken.contains(&true) {
            relay.broken_at.get_or_insert(scene.now);
        }
    }

    /// All workers were told to stop: time is short.
    pub(super) const fn stopped(&mut self) {
        self.stopped = true;
    }

    pub(super) fn event(&mut self, event: &Event, findings: &mut Findings) {
        match event {
            Event::Established { session, .. } => {
                self.relays.entry(*session).or_default().established = true;
            }
            Event::HalfClosed { session, dir } => {
                let relay = self.relays.entry(*session).or_default();
                relay.told[*dir as usize] += 1;
                let odd = relay.told[*dir as usize] != 1 || !relay.shut[dir.to() as usize];
                if odd && !relay.again {
                    findings.add(NAME, format!("{session} {dir}: told of a FIN that was not"));
                }
            }
            Event::Closed(closed) => {
                let relay = self.relays.remove(&closed.session);
                // One that a timeout was already ending has had its time since then, not since the fault.
                let fault = matches!(
                    closed.reason,
                    CloseReason::ClientBroken(_) | CloseReason::BackendBroken(_)
                );
                if let Some(side) = relay.and_then(|relay| relay.hasty).filter(|_| fault) {
                    let session = closed.session;
                    findings.add(
                        "reset",
                        format!(
                            "{session}: the {side} is reset before it has all that was written"
                        ),
                    );
                }
            }
            _ => {}
        }
    }
}

impl Relay {
    fn read(&mut self, side: Side, outcome: Outcome) {
        match outcome {
            Outcome::Eof => self.ended[side as usize] = true,
            Outcome::Broken(_) => self.broken[side as usize] = true,
            _ => {}
        }
    }

    fn shutdown(&self, session: SessionId, side: Side, findings: &mut Findings) {
        let from = side.other();
        let held = self.held[from.outgoing() as usize];
        let wrong = if self.shut[side as usize] {
            "a second FIN"
        } else if self.broken[from as usize] {
            "a FIN for a stream that was reset"
        } else if !self.ended[from as usize] {
            "a FIN before the end"
        } else if held > 0 {
            "a FIN before the last byte"
        } else {
            return;
        };
        findings.add(NAME, format!("{session} {}: {wrong}", from.outgoing()));
    }
}
