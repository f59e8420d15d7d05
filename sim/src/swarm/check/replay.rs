//! What one backend has taken goes to another one only where that is allowed: with first-frame replay, what was read
//! before the pick and nothing else, as long as the client has no answer.

use std::collections::BTreeMap;

use tlb_engine::api::Event;
use tlb_engine::drive::Outcome;
use tlb_engine::ids::{Dir, SessionId};

use super::{Findings, Scene};
use crate::model::ledger::Call;

const NAME: &str = "replay";

/// What has passed since the session's last connect.
#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    /// Of the client's stream, a byte was written.
    taken: bool,
    /// The client got a byte of the backend's.
    answered: bool,
    /// More than the preface was read from the client.
    more: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Replayed {
    last: Attempt,
    /// The attempt before had taken something.
    again: bool,
}

/// Follows each session's attempts by the calls alone.
#[derive(Debug, Default)]
pub(super) struct Replay {
    sessions: BTreeMap<SessionId, Replayed>,
}

impl Replay {
    pub(super) fn call(&mut self, call: &Call, findings: &mut Findings) {
        let Some(session) = call.session() else {
            return;
        };
        let state = self.sessions.entry(session).or_default();
        match *call {
            Call::Connect(..) | Call::Take(_, _, _, Some(_)) => {
                let last = core::mem::take(&mut state.last);
                state.again |= last.taken;
                let what = match last {
                    Attempt { answered: true, .. } => "after one has answered",
                    Attempt { more: true, .. } => "after one got more than the preface",
                    _ => return,
                };
                findings.add(NAME, format!("{session} goes to another backend {what}"));
            }
            Call::Fill(_, Dir::Forward, _, Outcome::Moved { .. }) => state.last.more = true,
            Call::Drain(_, dir, _, Outcome::Moved { .. }) => match dir {
                Dir::Forward => state.last.taken = true,
                Dir::Return => state.last.answered = true,
            },
            _ => {}
        }
    }

    pub(super) fn event(&mut self, scene: &Scene<'_>, event: &Event, findings: &mut Findings) {
        let Event::Closed(closed) = event else {
            return;
        };
        let again = self
            .sessions
            .remove(&closed.session)
            .is_some_and(|it| it.again);
        if again && !scene.scenario.listeners[closed.listener.index()].replay {
            let session = closed.session;
            findings.add(NAME, format!("{session} is replayed, but must not be"));
        }
    }
}
