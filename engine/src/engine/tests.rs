//! The engine as a driver sees it: inputs in, actions and events out.

use super::pools::Suspects;
use super::*;
use crate::api::{Close, Closed, Shed, Standing};
use crate::balance::Policy;
use crate::config::{Failover, Limits, Listener};
use crate::failover::Budget;
use crate::health::{Blame, Change, Passive};
use crate::ids::{Incarnation, ListenerId, PoolId};
use crate::roster::{Backend, Pool};
use crate::unpack::{Fixed, Key};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use core::net::SocketAddr;
use proptest::prelude::{ProptestConfig, any, prop, proptest};
use std::collections::BTreeMap;

mod fleet;
mod warm;

const LISTENER: ListenerId = ListenerId(0);
const BLAME: Blame = Blame {
    fall: Failover::FALL,
    ejection: Failover::EJECTION,
    may_eject: true,
};
/// A frame of the test protocol: eight bytes, of which the first four are the key.
const FRAME: &[u8; 8] = b"key0body";

fn peer() -> SocketAddr {
    "127.0.0.1:40000".parse().expect("an address")
}

fn address(id: &str) -> SocketAddr {
    let last = id.bytes().map(u32::from).sum::<u32>() % 250;
    format!("127.0.0.{last}:7000").parse().expect("an address")
}

fn backend(id: &str, incarnation: u32) -> Backend {
    Backend {
        id: id.into(),
        incarnation: Incarnation(incarnation),
        address: Some(address(id)),
        weight: 1,
        ..Backend::default()
    }
}

fn pool(backends: Vec<Backend>) -> Pool {
    let backends = backends.into_iter().map(Arc::new).collect();
    Pool::new(
        "pool",
        Policy::HashRing { points: 64 },
        Failover::default(),
        backends,
    )
}

fn roster(epoch: u64, pool: Pool) -> Arc<Roster> {
    Arc::new(Roster {
        epoch,
        pools: vec![Arc::new(pool)],
    })
}

fn listener() -> Listener {
    let key = Key {
        offset: 0,
        length: Some(4),
    };
    let unpack = Fixed::new(8, key).expect("a valid framing");
    Listener::new("devices", Some(Arc::new(unpack)), PoolId(0))
}

fn abc() -> Pool {
    pool(vec![backend("a", 1), backend("b", 2), backend("c", 3)])
}

/// An engine, its clock, and all that it said.
struct Rig {
    engine: Engine,
    now: Timestamp,
    events: Vec<Event>,
}

impl Rig {
    fn new(listener: Listener, pool: Pool) -> Self {
        Self::with_limits(listener, pool, Limits::default())
    }

    fn with_limits(listener: Listener, pool: Pool, limits: Limits) -> Self {
        let config = Arc::new(Config::new(vec![listener], limits));
        let now = Timestamp::from_millis(1000);
        let engine = Engine::new(config, roster(1, pool), 7, now);
        Self {
            engine,
            now,
            events: Vec::new(),
        }
    }

    fn actions(&mut self) -> Vec<Action> {
        let actions = core::iter::from_fn(|| self.engine.poll_action()).collect();
        self.events
            .extend(core::iter::from_fn(|| self.engine.poll_event()));
        self.engine.check_all();
        actions
    }

    /// The backend that listens there.
    fn backend_at(&self, address: SocketAddr) -> Arc<Backend> {
        let mut backends = self.engine.roster().pools[0].backends().iter();
        let backend = backends.find(|it| it.address == Some(address));
        Arc::clone(backend.expect("a backend"))
    }

    /// Lets so many attempts at a backend fail that it is down.
    fn take_down(&mut self, backend: &Arc<Backend>) {
        let passive = self.engine.pools[0].suspects.suspect(backend);
        for _ in 0..Failover::FALL {
            passive.failed(self.now, BLAME, &mut Rng::new(1));
        }
    }

    fn accept(&mut self) -> SessionId {
        self.engine
            .accept(self.now, LISTENER, peer())
            .expect("a session")
    }

    fn handle(&mut self, input: Input<'_>) -> Vec<Action> {
        self.engine.handle(self.now, input);
        self.actions()
    }

    fn received(&mut self, session: SessionId, bytes: &[u8]) -> Vec<Action> {
        self.handle(Input::Received { session, bytes })
    }

    fn fails(&mut self, session: SessionId, attempt: u8, fault: Fault) -> Vec<Action> {
        self.handle(Input::ConnectFailed {
            session,
            attempt,
            fault,
        })
    }

    fn relayed(&mut self, session: SessionId, attempt: u8, report: Report) -> Vec<Action> {
        self.handle(Input::Relayed {
            session,
            attempt,
            report,
            quiet: None,
        })
    }

    /// Jumps to the next deadline.
    fn expire(&mut self) -> Vec<Action> {
        let (at, _) = self.engine.poll_timeout().expect("a deadline");
        self.now = self.now.max(at);
        self.engine.handle_timeout(self.now);
        self.actions()
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now = self.now + time;
        self.engine.handle_timeout(self.now);
        self.actions()
    }

    /// A session's first backend takes the preface.
    fn establish(&mut self, session: SessionId) -> Vec<Action> {
        self.handle(Input::Connected {
            session,
            attempt: 0,
        });
        let report = Report {
            forward: 8,
            ..Report::default()
        };
        self.relayed(session, 0, report)
    }

    /// A session whose backend took the preface.
    fn established(&mut self) -> SessionId {
        let session = self.accept();
        self.received(session, FRAME);
        self.establish(session);
        session
    }

    fn closed(&self, session: SessionId) -> &Closed {
        let mut ends = self.events.iter().filter_map(|event| match event {
            Event::Closed(closed) if closed.session == session => Some(closed),
            _ => None,
        });
        let end = ends.next().expect("the session ended");
        assert_eq!(ends.next(), None, "a session ends once");
        end
    }

    fn picks(&self) -> Vec<Option<Incarnation>> {
        let pick = |event: &Event| match event {
            Event::Picked { backend, .. } => Some(*backend),
            _ => None,
        };
        self.events.iter().filter_map(pick).collect()
    }
}

fn to(actions: &[Action]) -> SocketAddr {
    match actions.last() {
        Some(Action::Connect { to, .. }) => *to,
        other => panic!("a connect was expected, not {other:?}"),
    }
}

fn finished(ends: Ends) -> Report {
    Report {
        standing: Standing::Finished(ends),
        ..Report::default()
    }
}

const CLOSE_FIN: [&str; 1] = ["client=Fin backend=Fin"];

fn ends(actions: &[Action]) -> Vec<String> {
    let close = |action: &Action| {
        let text = action.to_string();
        text.strip_prefix("close ")
            .and_then(|rest| rest.split_once(' '))
            .map(|(_, ends)| ends.into())
    };
    actions.iter().filter_map(close).collect()
}

#[test]
fn a_session_walks_from_accept_to_close() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    assert_eq!(rig.actions(), []);
    assert_eq!(rig.engine.wants(session), Listener::PREREAD_LIMIT);
    assert_eq!(rig.received(session, b"ke"), []);
    let actions = rig.received(session, b"y0body");
    assert_eq!(actions.len(), 1);
    let chosen = to(&actions);
    assert_eq!(
        rig.engine.wants(session),
        0,
        "nothing is read after the verdict"
    );
    assert_eq!(rig.engine.preface(session), FRAME[..]);
    let actions = rig.handle(Input::Connected {
        session,
        attempt: 0,
    });
    assert_eq!(
        actions,
        [Action::Relay {
            session,
            attempt: 0
        }]
    );
    rig.relayed(
        session,
        0,
        Report {
            forward: 8,
            ..Report::default()
        },
    );
    rig.relayed(
        session,
        0,
        Report {
            back: 5,
            ended: [true, false],
            ..Report::default()
        },
    );
    let mut report = finished(Ends::FIN);
    report.ended = [false, true];
    let actions = rig.relayed(session, 0, report);
    assert_eq!(
        actions,
        [Action::Close {
            session,
            ends: Ends::FIN
        }]
    );
    let closed = rig.closed(session);
    assert_eq!(closed.reason, CloseReason::Completed);
    assert_eq!((closed.forward, closed.back, closed.attempts), (8, 5, 1));
    assert_eq!(closed.to, Some(chosen));
    assert_eq!(closed.key.as_deref(), Some(&b"key0"[..]));
    let half_closed = |event: &&Event| matches!(event, Event::HalfClosed { .. });
    assert_eq!(rig.events.iter().filter(half_closed).count(), 2);
    assert_eq!(rig.engine.pending(), None);
    assert_eq!(rig.engine.poll_timeout(), None);
}

#[test]
fn one_key_has_one_backend() {
    let mut rig = Rig::new(listener(), abc());
    let mut owners = BTreeMap::new();
    for round in 0..3 {
        for key in 0..50u32 {
            let session = rig.accept();
            let frame = [&key.to_be_bytes()[..], b"body"].concat();
            let chosen = to(&rig.received(session, &frame));
            let owner = *owners.entry(key).or_insert(chosen);
            assert_eq!(owner, chosen, "key {key} in round {round}");
        }
    }
    assert_eq!(owners.values().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn ids_that_are_not_live_are_ignored() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    rig.handle(Input::ClientBroken {
        session,
        fault: Fault::Reset,
    });
    assert_eq!(
        rig.closed(session).reason,
        CloseReason::ClientBroken(Fault::Reset)
    );
    let again = rig.accept();
    assert_eq!(again.index(), session.index(), "the slot is used again");
    assert_ne!(again, session);
    for input in [
        Input::Received {
            session,
            bytes: FRAME,
        },
        Input::Ended { session },
        Input::Connected {
            session,
            attempt: 0,
        },
        Input::ConnectFailed {
            session,
            attempt: 0,
            fault: Fault::Refused,
        },
        Input::Relayed {
            session,
            attempt: 0,
            report: finished(Ends::FIN),
            quiet: None,
        },
        Input::ClientBroken {
            session,
            fault: Fault::Reset,
        },
    ] {
        assert_eq!(rig.handle(input), []);
    }
    assert_eq!(rig.engine.phase(again), Some(Phase::Preread));
    assert_eq!(rig.engine.live(), 1);
}

#[test]
fn inputs_that_do_not_fit_the_phase_are_ignored() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    assert_eq!(
        rig.handle(Input::Connected {
            session,
            attempt: 0
        }),
        []
    );
    assert_eq!(rig.fails(session, 255, Fault::Refused), []);
    rig.received(session, FRAME);
    assert_eq!(rig.received(session, FRAME), []);
    assert_eq!(rig.handle(Input::Ended { session }), []);
    assert_eq!(
        rig.handle(Input::Connected {
            session,
            attempt: 1
        }),
        [],
        "not the current attempt"
    );
    rig.handle(Input::Connected {
        session,
        attempt: 0,
    });
    assert_eq!(
        rig.handle(Input::Connected {
            session,
            attempt: 0
        }),
        []
    );
    assert_eq!(
        rig.fails(session, 0, Fault::Refused),
        [],
        "too late to fail"
    );
    assert_eq!(rig.engine.phase(session), Some(Phase::Relaying));
}

#[test]
fn the_preread_deadline_counts_from_accept() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    let nanosecond = Duration::from_nanos(1);
    rig.pass(Listener::PREREAD_TIMEOUT / 2);
    rig.received(session, b"k");
    assert_eq!(rig.pass(Listener::PREREAD_TIMEOUT / 2 - nanosecond), []);
    let actions = rig.pass(nanosecond);
    assert_eq!(ends(&actions), CLOSE_FIN);
    assert_eq!(rig.closed(session).reason, CloseReason::PrereadTimeout);
}

#[test]
fn a_client_that_leaves_is_told_apart_from_one_that_stops_in_a_frame() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    rig.handle(Input::Ended { session });
    assert_eq!(rig.closed(session).reason, CloseReason::ClientLeft);
    let session = rig.accept();
    rig.received(session, b"ke");
    rig.handle(Input::Ended { session });
    assert_eq!(
        rig.closed(session).reason,
        CloseReason::Rejected(Reject::Truncated)
    );
}

#[test]
fn the_preread_limit_ends_a_session() {
    let mut small = listener();
    small.preread_limit = 3;
    let mut rig = Rig::new(small, abc());
    let session = rig.accept();
    assert_eq!(rig.engine.wants(session), 3);
    rig.received(session, b"key");
    assert_eq!(rig.closed(session).reason, CloseReason::PrereadLimit);
}

#[test]
fn all_prereads_together_stay_within_their_memory() {
    let limits = Limits {
        preread_memory: 10,
        ..Limits::default()
    };
    let mut rig = Rig::with_limits(listener(), abc(), limits);
    let first = rig.accept();
    rig.received(first, FRAME);
    assert_eq!(
        rig.engine.preread_memory(),
        8,
        "a preface counts until it is written"
    );
    let second = rig.accept();
    rig.received(second, b"ke");
    assert_eq!(rig.engine.preread_memory(), 10);
    let third = rig.accept();
    rig.received(third, b"k");
    assert_eq!(rig.closed(third).reason, CloseReason::PrereadMemory);
    rig.handle(Input::Connected {
        session: first,
        attempt: 0,
    });
    rig.relayed(
        first,
        0,
        Report {
            forward: 7,
            ..Report::default()
        },
    );
    assert_eq!(rig.engine.preread_memory(), 10);
    rig.relayed(
        first,
        0,
        Report {
            forward: 1,
            ..Report::default()
        },
    );
    assert_eq!(rig.engine.preread_memory(), 2);
    let fourth = rig.accept();
    rig.received(fourth, FRAME);
    assert_eq!(rig.engine.preread_memory(), 10);
    for session in [first, second, fourth] {
        rig.handle(Input::ClientBroken {
            session,
            fault: Fault::Reset,
        });
    }
    assert_eq!(rig.engine.pending(), None, "everything was given back");
}

#[test]
fn a_listener_takes_max_sessions() {
    let mut small = listener();
    small.max_sessions = 2;
    let mut rig = Rig::new(small, abc());
    let first = rig.accept();
    assert!(rig.engine.may_accept(rig.now, LISTENER));
    rig.accept();
    assert!(!rig.engine.may_accept(rig.now, LISTENER));
    assert_eq!(
        rig.engine.accept(rig.now, LISTENER, peer()),
        Err(Shed::MaxSessions)
    );
    rig.handle(Input::ClientBroken {
        session: first,
        fault: Fault::Reset,
    });
    assert!(rig.engine.may_accept(rig.now, LISTENER));
}

#[test]
fn accepting_pauses_when_this_host_has_nothing_left() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    rig.engine
        .accept_failed(rig.now, LISTENER, Fault::LocalDescriptors);
    assert!(!rig.engine.may_accept(rig.now, LISTENER));
    let pause = (rig.now + ACCEPT_PAUSE, Timer::Accept);
    assert_eq!(rig.engine.poll_timeout(), Some(pause));
    rig.handle(Input::ClientBroken {
        session,
        fault: Fault::Reset,
    });
    assert!(
        rig.engine.may_accept(rig.now, LISTENER),
        "a descriptor was given back"
    );
    rig.engine
        .accept_failed(rig.now, LISTENER, Fault::LocalDescriptors);
    rig.pass(ACCEPT_PAUSE - Duration::from_nanos(1));
    assert!(!rig.engine.may_accept(rig.now, LISTENER));
    rig.pass(Duration::from_nanos(1));
    assert!(rig.engine.may_accept(rig.now, LISTENER));
    assert_eq!(
        rig.engine.poll_timeout(),
        None,
        "a pause that is over is forgotten"
    );
}

#[test]
fn a_refused_connect_goes_to_the_next_owner_at_once_and_in_full() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    let first = to(&rig.received(session, FRAME));
    let actions = rig.fails(session, 0, Fault::Refused);
    assert_eq!(
        actions[0],
        Action::Abandon {
            session,
            attempt: 0
        }
    );
    let second = to(&actions);
    assert_ne!(first, second);
    assert_eq!(
        rig.engine.preface(session),
        FRAME[..],
        "the first bytes are still there"
    );
    let third = to(&rig.fails(session, 1, Fault::Unreachable));
    assert!(third != first && third != second);
    // All were tried: the first one again, after a pause.
    let actions = rig.fails(session, 2, Fault::Refused);
    assert_eq!(
        actions,
        [Action::Abandon {
            session,
            attempt: 2
        }]
    );
    assert_eq!(rig.engine.phase(session), Some(Phase::Waiting));
    assert_eq!(
        rig.engine.poll_timeout().map(|(_, timer)| timer),
        Some(Timer::Retry)
    );
    let actions = rig.expire();
    assert_eq!(to(&actions), first);
    let actions = rig.fails(session, 3, Fault::Refused);
    assert_eq!(ends(&actions), CLOSE_FIN, "three retries were allowed");
    let closed = rig.closed(session);
    assert_eq!(closed.reason, CloseReason::ConnectFailed(Fault::Refused));
    assert_eq!(closed.attempts, 4);
    assert_eq!(rig.engine.pending(), None);
}

#[test]
fn a_connect_that_hangs_times_out_and_moves_on() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    let first = to(&rig.received(session, FRAME));
    let timeout = Failover::CONNECT_TIMEOUT;
    assert_eq!(rig.pass(timeout - Duration::from_nanos(1)), []);
    let actions = rig.pass(Duration::from_nanos(1));
    assert_ne!(to(&actions), first);
    // A connection that stands but takes no byte in time has not proven itself either.
    rig.handle(Input::Connected {
        session,
        attempt: 1,
    });
    let actions = rig.pass(timeout);
    assert_eq!(
        actions[0],
        Action::Abandon {
            session,
            attempt: 1
        }
    );
    assert!(matches!(actions[1], Action::Connect { attempt: 2, .. }));
}

#[test]
fn a_backend_that_breaks_before_it_took_a_byte_is_a_failed_attempt() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    rig.received(session, FRAME);
    rig.handle(Input::Connected {
        session,
        attempt: 0,
    });
    let broken = Report {
        broken: Some((Side::Backend, Fault::Reset)),
        ..Report::default()
    };
    let actions = rig.relayed(session, 0, broken);
    assert_eq!(
        actions[0],
        Action::Abandon {
            session,
            attempt: 0
        }
    );
    assert!(matches!(actions[1], Action::Connect { attempt: 1, .. }));
    assert_eq!(rig.engine.preface(session), FRAME[..]);
    // One byte later it is the end.
    rig.handle(Input::Connected {
        session,
        attempt: 1,
    });
    let taken = Report {
        forward: 1,
        ..broken
    };
    assert_eq!(rig.relayed(session, 1, taken), []);
    assert_eq!(rig.engine.phase(session), Some(Phase::Winding));
    let actions = rig.relayed(session, 1, finished(Ends::RESET));
    assert_eq!(ends(&actions), ["client=Reset backend=Reset"]);
    assert_eq!(
        rig.closed(session).reason,
        CloseReason::BackendBroken(Fault::Reset)
    );
}

#[test]
fn a_local_fault_is_no_backends_fault() {
    let mut rig = Rig::new(listener(), abc());
    for fault in [
        Fault::LocalPorts,
        Fault::LocalDescriptors,
        Fault::LocalMemory,
        Fault::Denied,
    ] {
        let session = rig.accept();
        let first = to(&rig.received(session, FRAME));
        for attempt in 0..Failover::RETRIES {
            assert_eq!(rig.fails(session, attempt, fault).len(), 1, "it waits");
            assert_eq!(to(&rig.expire()), first, "and stays with its owner");
        }
        rig.fails(session, Failover::RETRIES, fault);
        assert_eq!(rig.closed(session).reason, CloseReason::LocalFault(fault));
    }
    let down = |event: &Event| matches!(event, Event::BackendDown { .. });
    assert!(!rig.events.iter().any(down));
}

#[test]
fn fall_failures_take_a_backend_down_and_it_comes_back() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    let owner = to(&rig.received(session, FRAME));
    rig.fails(session, 0, Fault::Refused);
    for _ in 1..Failover::FALL {
        let session = rig.accept();
        assert_eq!(
            to(&rig.received(session, FRAME)),
            owner,
            "fewer failures than fall do nothing"
        );
        rig.fails(session, 0, Fault::Refused);
    }
    let down = |event: &Event| matches!(event, Event::BackendDown { .. });
    assert_eq!(rig.events.iter().filter(|event| down(event)).count(), 1);
    let other = rig.accept();
    assert_ne!(
        to(&rig.received(other, FRAME)),
        owner,
        "a backend that is down gets nothing new"
    );
    // After the back-off one session tries, and the others wait for what it finds.
    rig.pass(Passive::BACK_OFF_MIN * 2);
    let trial = rig.accept();
    assert_eq!(to(&rig.received(trial, FRAME)), owner);
    let second = rig.accept();
    assert_ne!(to(&rig.received(second, FRAME)), owner);
    rig.handle(Input::Connected {
        session: trial,
        attempt: 0,
    });
    rig.relayed(
        trial,
        0,
        Report {
            forward: 1,
            ..Report::default()
        },
    );
    assert!(
        rig.events
            .iter()
            .any(|event| matches!(event, Event::BackendUp { .. }))
    );
    let home = rig.accept();
    assert_eq!(to(&rig.received(home, FRAME)), owner, "its keys come back");
}

#[test]
fn a_trial_that_ends_without_a_verdict_lets_the_next_one_try() {
    let mut rig = Rig::new(listener(), abc());
    let mut owner = peer();
    for _ in 0..Failover::FALL {
        let session = rig.accept();
        owner = to(&rig.received(session, FRAME));
        rig.fails(session, 0, Fault::Refused);
    }
    rig.pass(Passive::BACK_OFF_MIN * 2);
    let trial = rig.accept();
    assert_eq!(to(&rig.received(trial, FRAME)), owner);
    rig.handle(Input::ClientBroken {
        session: trial,
        fault: Fault::Reset,
    });
    let next = rig.accept();
    assert_eq!(to(&rig.received(next, FRAME)), owner);
}

#[test]
fn sessions_that_still_connect_leave_a_backend_that_goes_down() {
    let mut rig = Rig::new(listener(), abc());
    let hanging = rig.accept();
    let owner = to(&rig.received(hanging, FRAME));
    let mut last = Vec::new();
    for _ in 0..Failover::FALL {
        let session = rig.accept();
        rig.received(session, FRAME);
        last = rig.fails(session, 0, Fault::Refused);
    }
    let moved = last.iter().find_map(|action| match action {
        Action::Connect { session, to, .. } if *session == hanging => Some(*to),
        _ => None,
    });
    assert!(
        moved.is_some_and(|to| to != owner),
        "it went on at once: {last:?}"
    );
}

#[test]
fn nobody_to_go_to_is_the_end() {
    let mut rig = Rig::new(listener(), pool(vec![]));
    let session = rig.accept();
    let actions = rig.received(session, FRAME);
    assert_eq!(ends(&actions), CLOSE_FIN);
    assert_eq!(rig.closed(session).reason, CloseReason::NoBackend);

    let mut unresolved = backend("a", 1);
    unresolved.address = None;
    let mut draining = backend("b", 2);
    draining.draining = true;
    let mut rig = Rig::new(listener(), pool(vec![unresolved, draining]));
    let session = rig.accept();
    rig.received(session, FRAME);
    assert_eq!(rig.closed(session).reason, CloseReason::NoBackend);
}

#[test]
fn the_retry_budget_is_shared_by_the_pool() {
    let mut rig = Rig::new(listener(), abc());
    let mut spent = false;
    for _ in 0..2 * Budget::CAPACITY {
        let session = rig.accept();
        let mut actions = rig.received(session, FRAME);
        let mut attempt = 0;
        while let Some(Action::Connect { .. }) = actions.last() {
            // Not the backend's fault, so that none goes down.
            actions = rig.fails(session, attempt, Fault::Refused);
            attempt += 1;
        }
        if rig.engine.phase(session).is_some() {
            rig.handle(Input::ClientBroken {
                session,
                fault: Fault::Reset,
            });
        }
        if rig.closed(session).reason == CloseReason::RetryBudget {
            spent = true;
            break;
        }
        rig.events.clear();
        rig.engine.pools[0].suspects = Suspects::default();
    }
    assert!(spent, "retries without end were granted");
}

#[test]
fn load_is_counted_from_pick_to_end() {
    let one = backend("a", 1);
    let load = one.load.clone();
    let mut rig = Rig::new(listener(), pool(vec![one]));
    let session = rig.established();
    assert_eq!(load.get(), 1);
    let second = rig.accept();
    rig.received(second, FRAME);
    assert_eq!(load.get(), 2);
    rig.fails(second, 0, Fault::Refused);
    assert_eq!(load.get(), 1, "a failed attempt is not a session");
    rig.relayed(session, 0, finished(Ends::FIN));
    assert_eq!(load.get(), 0);
}

#[test]
fn a_removed_backend_loses_its_connecting_sessions_and_keeps_the_others() {
    let mut rig = Rig::new(listener(), abc());
    let live = rig.established();
    let owner = rig.picks()[0].expect("a backend");
    let connecting = rig.accept();
    rig.received(connecting, FRAME);
    let left = [("a", 1), ("b", 2), ("c", 3)]
        .into_iter()
        .filter(|(_, it)| Incarnation(*it) != owner);
    let next = pool(
        left.map(|(id, incarnation)| backend(id, incarnation))
            .collect(),
    );
    rig.engine.publish(rig.now, roster(2, next));
    let actions = rig.actions();
    assert_eq!(
        actions[0],
        Action::Abandon {
            session: connecting,
            attempt: 0
        }
    );
    assert!(
        matches!(actions[1], Action::Connect { session, attempt: 1, .. } if session == connecting)
    );
    assert_eq!(
        rig.engine.phase(live),
        Some(Phase::Relaying),
        "a live session stays"
    );
    // An older roster changes nothing.
    rig.engine.publish(rig.now, roster(1, abc()));
    assert_eq!(rig.engine.roster().epoch, 2);
}

#[test]
fn what_was_learnt_about_a_backend_survives_a_roster() {
    let mut rig = Rig::new(listener(), abc());
    let mut owner = peer();
    for _ in 0..Failover::FALL {
        let session = rig.accept();
        owner = to(&rig.received(session, FRAME));
        rig.fails(session, 0, Fault::Refused);
    }
    rig.engine.publish(rig.now, roster(2, abc()));
    rig.actions();
    let session = rig.accept();
    assert_ne!(to(&rig.received(session, FRAME)), owner, "it is still down");
    // A new incarnation (another address, say) starts afresh.
    let fresh = pool(vec![backend("a", 4), backend("b", 5), backend("c", 6)]);
    rig.engine.publish(rig.now, roster(3, fresh));
    rig.actions();
    let session = rig.accept();
    assert_eq!(to(&rig.received(session, FRAME)), owner);
}

#[test]
fn an_idle_session_ends_in_order() {
    let mut idle = listener();
    idle.idle_timeout = Some(Duration::from_secs(60));
    let mut rig = Rig::new(idle, abc());
    let session = rig.established();
    rig.pass(Duration::from_secs(59));
    rig.relayed(
        session,
        0,
        Report {
            back: 1,
            ..Report::default()
        },
    );
    assert_eq!(
        rig.pass(Duration::from_secs(60) - Duration::from_nanos(1)),
        []
    );
    let actions = rig.pass(Duration::from_nanos(1));
    assert_eq!(
        actions,
        [Action::Wind {
            session,
            how: Close::Fin
        }]
    );
    rig.relayed(session, 0, finished(Ends::FIN));
    assert_eq!(rig.closed(session).reason, CloseReason::IdleTimeout);
}

/// A connect may be reported before it is certain: what takes long then is the backend's answer, not a silence.
#[test]
fn a_session_is_not_idle_before_its_backend_took_a_byte() {
    let mut hasty = listener();
    hasty.idle_timeout = Some(Duration::from_millis(10));
    let mut rig = Rig::new(hasty, abc());
    let session = rig.accept();
    rig.received(session, FRAME);
    rig.handle(Input::Connected {
        session,
        attempt: 0,
    });
    let actions = rig.pass(Failover::CONNECT_TIMEOUT);
    let gives_up = |action: &Action| matches!(action, Action::Abandon { .. });
    assert!(actions.first().is_some_and(gives_up), "{actions:?}");
    let failed = rig.events.iter().any(|event| {
        matches!(
            event,
            Event::AttemptFailed {
                fault: Fault::TimedOut,
                ..
            }
        )
    });
    assert!(failed);
}

#[test]
fn a_half_closed_session_that_rests_is_reset() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.established();
    rig.relayed(
        session,
        0,
        Report {
            ended: [true, false],
            ..Report::default()
        },
    );
    rig.pass(Listener::HALF_CLOSE_TIMEOUT / 2);
    rig.relayed(
        session,
        0,
        Report {
            back: 1,
            ..Report::default()
        },
    );
    assert_eq!(
        rig.pass(Listener::HALF_CLOSE_TIMEOUT - Duration::from_nanos(1)),
        []
    );
    let actions = rig.pass(Duration::from_nanos(1));
    assert_eq!(
        actions,
        [Action::Wind {
            session,
            how: Close::Reset
        }]
    );
    rig.relayed(session, 0, finished(Ends::RESET));
    assert_eq!(rig.closed(session).reason, CloseReason::HalfCloseTimeout);
}

#[test]
fn winding_up_takes_no_longer_than_the_reset_timeout() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.established();
    let broken = Report {
        broken: Some((Side::Client, Fault::TimedOut)),
        ..Report::default()
    };
    rig.relayed(session, 0, broken);
    assert_eq!(
        rig.pass(Limits::RESET_TIMEOUT - Duration::from_nanos(1)),
        []
    );
    let actions = rig.pass(Duration::from_nanos(1));
    assert_eq!(ends(&actions), ["client=Reset backend=Reset"]);
    assert_eq!(
        rig.closed(session).reason,
        CloseReason::ClientBroken(Fault::TimedOut)
    );
}

#[test]
fn looks_at_unacknowledged_bytes_grow_apart() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.established();
    let mut report = Report {
        broken: Some((Side::Backend, Fault::Reset)),
        ..Report::default()
    };
    let mut distances = Vec::new();
    for _ in 0..9 {
        report.standing = Standing::Unacknowledged;
        rig.relayed(session, 0, report);
        let before = rig.now;
        assert_eq!(rig.expire(), [Action::Look { session }]);
        distances.push(rig.now.since(before).as_millis());
    }
    assert_eq!(distances, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
}

#[test]
fn a_client_that_breaks_before_the_backend_is_proven_ends_at_once() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    rig.received(session, FRAME);
    rig.handle(Input::Connected {
        session,
        attempt: 0,
    });
    let broken = Report {
        broken: Some((Side::Client, Fault::Reset)),
        ..Report::default()
    };
    let actions = rig.relayed(session, 0, broken);
    assert_eq!(ends(&actions), ["client=Reset backend=Reset"]);
    assert_eq!(
        rig.closed(session).reason,
        CloseReason::ClientBroken(Fault::Reset)
    );
}

#[test]
fn stopping_spreads_the_ends_with_the_idle_ones_first() {
    let mut rig = Rig::new(listener(), abc());
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(rig.established());
        rig.pass(Duration::from_millis(10));
    }
    // The first one spoke last.
    rig.relayed(
        sessions[0],
        0,
        Report {
            forward: 1,
            ..Report::default()
        },
    );
    rig.engine.stop(rig.now);
    let start = rig.now;
    let quarter = Limits::SHUTDOWN_TIMEOUT / 4;
    let mut order = Vec::new();
    for place in 1..=4 {
        let actions = rig.expire();
        assert_eq!(rig.now.since(start), quarter * place);
        let [
            Action::Wind {
                session,
                how: Close::Fin,
            },
        ] = actions[..]
        else {
            panic!("one session winds up: {actions:?}");
        };
        order.push(session);
        rig.relayed(session, 0, finished(Ends::FIN));
        assert_eq!(rig.closed(session).reason, CloseReason::Shutdown);
    }
    assert_eq!(order, [sessions[1], sessions[2], sessions[3], sessions[0]]);
    assert_eq!(rig.engine.pending(), None);
}

#[test]
fn stopping_cuts_a_flow_by_a_reset_and_a_preread_by_a_fin() {
    let mut rig = Rig::new(listener(), abc());
    let flowing = rig.established();
    rig.engine.stop(rig.now);
    let late = rig.accept();
    let mut cut = Vec::new();
    for _ in 0..100 {
        rig.pass(Limits::SHUTDOWN_TIMEOUT / 50);
        if rig.engine.live() == 0 {
            break;
        }
        if rig.engine.phase(flowing) == Some(Phase::Relaying) {
            rig.relayed(
                flowing,
                0,
                Report {
                    back: 1000,
                    ..Report::default()
                },
            );
        } else if rig.engine.phase(flowing).is_some() {
            cut = rig.relayed(flowing, 0, finished(Ends::RESET));
        }
    }
    assert_eq!(ends(&cut), ["client=Reset backend=Reset"]);
    assert_eq!(rig.closed(flowing).reason, CloseReason::Shutdown);
    // It was accepted from the queue of a stopping listener, and had its own deadline.
    assert_eq!(rig.closed(late).reason, CloseReason::PrereadTimeout);
    rig.pass(Limits::SHUTDOWN_TIMEOUT);
    assert_eq!(
        rig.engine.accept(rig.now, LISTENER, peer()),
        Err(Shed::Stopping)
    );
}

/// Says the same whatever it is shown.
#[derive(Debug)]
struct Says(Target);

impl crate::unpack::Unpack for Says {
    fn unpack(&self, _: &[u8], _: usize, _: bool) -> crate::unpack::Status {
        crate::unpack::Status::Complete {
            frame: 0..1,
            target: self.0.clone(),
        }
    }
}

fn saying(target: Target) -> Listener {
    Listener::new("says", Some(Arc::new(Says(target))), PoolId(0))
}

#[test]
fn an_unpack_may_name_the_backend() {
    let mut rig = Rig::new(saying(Target::Backend(0..1)), abc());
    for id in ["a", "b", "c"] {
        let session = rig.accept();
        assert_eq!(to(&rig.received(session, id.as_bytes())), address(id));
    }
    let session = rig.accept();
    rig.received(session, b"d");
    assert_eq!(
        rig.closed(session).reason,
        CloseReason::Rejected(Reject::UnknownBackend)
    );
    // A named backend has no next owner: the same one again, after a pause.
    let session = rig.accept();
    rig.received(session, b"a");
    assert_eq!(rig.fails(session, 0, Fault::Refused).len(), 1);
    assert_eq!(to(&rig.expire()), address("a"));
}

#[test]
fn an_unpack_may_name_an_address_where_the_listener_allows_it() {
    let elsewhere: SocketAddr = "127.0.0.99:9".parse().expect("an address");
    let mut rig = Rig::new(saying(Target::Address(elsewhere)), abc());
    let session = rig.accept();
    rig.received(session, b"x");
    assert_eq!(
        rig.closed(session).reason,
        CloseReason::Rejected(Reject::AddressNotAllowed)
    );

    let mut allowing = saying(Target::Address(elsewhere));
    allowing.allow_address = true;
    let mut rig = Rig::new(allowing, abc());
    let session = rig.accept();
    assert_eq!(to(&rig.received(session, b"x")), elsewhere);
    for attempt in 0..Failover::RETRIES {
        assert_eq!(
            rig.fails(session, attempt, Fault::Refused).len(),
            1,
            "each retry waits"
        );
        assert_eq!(to(&rig.expire()), elsewhere);
    }
    rig.fails(session, Failover::RETRIES, Fault::Refused);
    assert_eq!(
        rig.closed(session).reason,
        CloseReason::ConnectFailed(Fault::Refused)
    );
}

#[test]
fn an_unpack_may_name_a_pool() {
    let mut rig = Rig::new(saying(Target::Pool(PoolId(1))), abc());
    let session = rig.accept();
    rig.received(session, b"x");
    assert_eq!(
        rig.closed(session).reason,
        CloseReason::Rejected(Reject::UnknownPool)
    );
    let other = Arc::new(pool(vec![backend("z", 9)]));
    let pools = vec![Arc::new(abc()), other];
    rig.engine
        .publish(rig.now, Arc::new(Roster { epoch: 2, pools }));
    let session = rig.accept();
    assert_eq!(to(&rig.received(session, b"x")), address("z"));
}

#[test]
fn without_an_unpack_a_session_is_routed_at_accept() {
    let mut open = listener();
    open.unpack = None;
    let pool = Pool::new(
        "pool",
        Policy::RoundRobin,
        Failover::default(),
        vec![Arc::new(backend("a", 1))],
    );
    let mut rig = Rig::new(open, pool);
    let session = rig.accept();
    assert_eq!(to(&rig.actions()), address("a"));
    assert_eq!(rig.engine.wants(session), 0);
    rig.handle(Input::Connected {
        session,
        attempt: 0,
    });
    let established = |event: &Event| matches!(event, Event::Established { .. });
    assert!(
        rig.events.iter().any(established),
        "with nothing to send, the connection is the proof"
    );
}

#[test]
fn local_addresses_are_taken_in_turn() {
    let mut pool = abc();
    pool.sources = ["127.0.0.5", "::1", "127.0.0.6"]
        .map(|it| it.parse().expect("an address"))
        .into();
    let mut rig = Rig::new(listener(), pool);
    let mut taken = BTreeMap::new();
    for _ in 0..10 {
        let session = rig.accept();
        let [
            Action::Connect {
                from: Some(from), ..
            },
        ] = rig.received(session, FRAME)[..]
        else {
            panic!("a connect from a chosen address was expected");
        };
        *taken.entry(from.to_string()).or_insert(0) += 1;
    }
    let expected = [("127.0.0.5".into(), 5), ("127.0.0.6".into(), 5)];
    assert_eq!(
        taken,
        expected.into(),
        "in turn, and of the family of the backend"
    );
}

#[test]
fn timeouts_may_be_handled_too_early_and_twice() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    for _ in 0..3 {
        rig.engine.handle_timeout(rig.now);
        assert_eq!(rig.actions(), []);
    }
    rig.expire();
    assert_eq!(rig.closed(session).reason, CloseReason::PrereadTimeout);
    rig.engine.handle_timeout(rig.now);
    assert_eq!(rig.actions(), []);
}

#[test]
fn what_is_unfinished_is_named() {
    let mut rig = Rig::new(listener(), abc());
    assert_eq!(rig.engine.listeners(), 1);
    assert_eq!(rig.engine.pending(), None);
    let session = rig.accept();
    assert_eq!(rig.engine.pending(), Some("an event was not taken"));
    rig.actions();
    assert_eq!(rig.engine.pending(), Some("a session is live"));
    rig.engine.handle(
        rig.now,
        Input::Received {
            session,
            bytes: FRAME,
        },
    );
    assert_eq!(rig.engine.pending(), Some("an action was not taken"));
    rig.actions();
    rig.handle(Input::ClientBroken {
        session,
        fault: Fault::Reset,
    });
    assert_eq!(rig.engine.pending(), None);
    rig.engine.timers.set(0, rig.now);
    assert_eq!(
        rig.engine.pending(),
        Some("a deadline is armed without a session")
    );
    rig.engine.timers.clear(0);
    rig.engine.preread_memory = 1;
    assert_eq!(
        rig.engine.pending(),
        Some("preread memory is held without a session")
    );
}

#[test]
fn a_pool_has_its_own_way_to_fail_over() {
    let failover = Failover {
        connect_timeout: Duration::from_secs(1),
        retries: 0,
        fall: 1,
        ..Failover::default()
    };
    let backends = vec![Arc::new(backend("a", 1)), Arc::new(backend("b", 2))];
    let strict = Pool::new("pool", Policy::HashRing { points: 64 }, failover, backends);
    let mut rig = Rig::new(listener(), strict);
    let session = rig.accept();
    let owner = to(&rig.received(session, FRAME));
    assert_eq!(
        rig.pass(Duration::from_secs(1) - Duration::from_nanos(1)),
        []
    );
    let actions = rig.pass(Duration::from_nanos(1));
    assert_eq!(ends(&actions), CLOSE_FIN, "no retry is allowed");
    let next = rig.accept();
    assert_ne!(
        to(&rig.received(next, FRAME)),
        owner,
        "one failure was enough"
    );
}

#[test]
fn a_preface_hurries_where_both_the_pool_and_the_listener_let_it() {
    for (fast_open, replay) in [(false, false), (false, true), (true, false), (true, true)] {
        let failover = Failover {
            fast_open,
            ..Failover::default()
        };
        let backends = vec![Arc::new(backend("a", 1))];
        let pool = Pool::new("pool", Policy::HashRing { points: 64 }, failover, backends);
        let mut rig = Rig::new(
            Listener {
                replay,
                ..listener()
            },
            pool,
        );
        let session = rig.accept();
        assert!(!rig.engine.hurries(session), "there is no preface yet");
        rig.received(session, FRAME);
        assert_eq!(rig.engine.hurries(session), fast_open && replay);
    }
}

#[test]
fn a_backend_that_goes_down_keeps_the_sessions_that_have_nowhere_else_to_go() {
    // Each of the others is out of reach in its own way.
    type Spoil = fn(&mut Backend);
    let spoils: [Spoil; 2] = [|other| other.draining = true, |other| other.address = None];
    for spoil in spoils {
        let mut other = backend("b", 2);
        spoil(&mut other);
        let mut rig = Rig::new(listener(), pool(vec![backend("a", 1), other]));
        let hanging = rig.accept();
        rig.received(hanging, FRAME);
        for _ in 0..Failover::FALL {
            let session = rig.accept();
            rig.received(session, FRAME);
            rig.fails(session, 0, Fault::Refused);
        }
        let down = |event: &Event| matches!(event, Event::BackendDown { .. });
        assert!(rig.events.iter().any(down));
        assert_eq!(
            rig.engine.phase(hanging),
            Some(Phase::Connecting),
            "it may yet succeed"
        );
    }
}

#[test]
fn a_backend_that_was_tried_or_is_down_is_nowhere_else_to_go() {
    let mut rig = Rig::new(listener(), pool(vec![backend("a", 1), backend("b", 2)]));
    let hanging = rig.accept();
    let first = to(&rig.received(hanging, FRAME));
    // It has tried its owner already, and now hangs at the other one.
    let second = to(&rig.fails(hanging, 0, Fault::Refused));
    let (first, second) = (rig.backend_at(first), rig.backend_at(second));
    assert!(
        !rig.engine.has_other(rig.now, hanging.index()),
        "its owner was tried"
    );
    let fresh = rig.accept();
    rig.received(fresh, FRAME);
    assert!(
        rig.engine.has_other(rig.now, fresh.index()),
        "the other one is free"
    );
    rig.take_down(&second);
    assert!(
        !rig.engine.has_other(rig.now, fresh.index()),
        "the other one is down"
    );
    let suspects = &rig.engine.pools[0].suspects;
    assert!(suspects.eligible(first.incarnation, rig.now));
}

#[test]
fn an_attempt_that_failed_is_not_looked_at_any_more() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    rig.received(session, FRAME);
    rig.handle(Input::Connected {
        session,
        attempt: 0,
    });
    let waiting = Report {
        standing: Standing::Unacknowledged,
        ..Report::default()
    };
    rig.relayed(session, 0, waiting);
    let broken = Report {
        broken: Some((Side::Backend, Fault::Reset)),
        ..Report::default()
    };
    rig.relayed(session, 0, broken);
    let (at, timer) = rig.engine.poll_timeout().expect("a deadline");
    assert!(at > rig.now && timer != Timer::Look, "{timer:?} at {at}");
    assert_eq!(rig.pass(Duration::from_secs(1)), []);
}

#[test]
fn reasons_have_words() {
    let reason = CloseReason::BackendBroken(Fault::Reset);
    assert_eq!(
        format!("{} / {reason}", reason.name()),
        "backend-reset / backend-reset: reset by peer"
    );
    let reason = CloseReason::Rejected(Reject::Custom(7));
    assert_eq!(
        reason.to_string(),
        "rejected: refused by the unpack with code 7"
    );
}

#[test]
fn an_old_attempt_does_not_speak_for_the_trial() {
    let mut rig = Rig::new(listener(), abc());
    let old = rig.accept();
    let owner = to(&rig.received(old, FRAME));
    let backend = rig.backend_at(owner);
    rig.take_down(&backend);
    rig.pass(Passive::BACK_OFF_MIN * 2);
    let trial = rig.accept();
    assert_eq!(to(&rig.received(trial, FRAME)), owner);
    rig.handle(Input::ClientBroken {
        session: old,
        fault: Fault::Reset,
    });
    let second = rig.accept();
    assert_ne!(
        to(&rig.received(second, FRAME)),
        owner,
        "the trial is still under way"
    );
}

#[test]
fn a_report_of_a_relay_that_never_began_is_ignored() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    rig.received(session, FRAME);
    let report = Report {
        forward: 8,
        broken: Some((Side::Backend, Fault::Reset)),
        ..finished(Ends::FIN)
    };
    // Of an attempt that is still connecting, and of one that was given up.
    assert_eq!(rig.relayed(session, 0, report), []);
    assert_eq!(rig.engine.phase(session), Some(Phase::Connecting));
    for attempt in [0, 1, 2] {
        rig.fails(session, attempt, Fault::Refused);
    }
    assert_eq!(rig.engine.phase(session), Some(Phase::Waiting));
    assert_eq!(rig.relayed(session, 2, report), []);
    assert_eq!(rig.engine.phase(session), Some(Phase::Waiting));
}

#[test]
fn an_end_that_was_passed_on_binds_the_session_to_its_backend() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    rig.received(session, FRAME);
    rig.handle(Input::Connected {
        session,
        attempt: 0,
    });
    // The backend ends its stream before it takes a byte: the client has its FIN, and another backend could not answer.
    let report = Report {
        ended: [false, true],
        broken: Some((Side::Backend, Fault::Reset)),
        standing: Standing::Finished(Ends::RESET),
        ..Report::default()
    };
    let actions = rig.relayed(session, 0, report);
    assert_eq!(ends(&actions), ["client=Reset backend=Reset"]);
    let reason = rig.closed(session).reason;
    assert_eq!(reason, CloseReason::BackendBroken(Fault::Reset));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn no_history_makes_it_break_a_promise(bytes in prop::collection::vec(any::<u8>(), 0..1000)) {
        exercise::run(&bytes);
    }
}
