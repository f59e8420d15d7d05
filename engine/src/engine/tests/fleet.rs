//! What a fleet does to an engine: health, tells, advice, rates, panic, replay, reload.

use core::net::IpAddr;
use core::num::NonZeroU32;

use super::*;
use crate::api::{Tell, TellHow, Why};
use crate::health::Change;
use crate::pace::{Bucket, Sources};
use crate::roster::Ramp;

fn number(of: u32) -> NonZeroU32 {
    NonZeroU32::new(of).expect("not zero")
}

fn bucket(rate: u32, burst: u32) -> Bucket {
    Bucket::new(number(rate), number(burst))
}

/// Three backends, of which `change` makes something else.
fn changed(change: impl Fn(&mut Backend)) -> Pool {
    let backends = ["a", "b", "c"].iter().zip(1..);
    let backends = backends.map(|(id, incarnation)| {
        let mut backend = backend(id, incarnation);
        change(&mut backend);
        backend
    });
    pool(backends.collect())
}

fn rules(mut pool: Pool, failover: Failover) -> Pool {
    pool.failover = failover;
    pool
}

/// One whose first frame may arrive twice.
fn patient() -> Listener {
    Listener {
        replay: true,
        ..listener()
    }
}

fn tell(backend: u32, why: Why, how: Option<TellHow>, pace: &Bucket) -> Tell {
    Tell {
        backend: Incarnation(backend),
        why,
        how,
        pace: pace.clone(),
    }
}

impl Rig {
    fn publish(&mut self, epoch: u64, pool: Pool) -> Vec<Action> {
        self.engine.publish(self.now, roster(epoch, pool));
        self.actions()
    }

    fn tell(&mut self, tell: &Tell) -> Vec<Action> {
        self.engine.tell(self.now, tell);
        self.actions()
    }

    /// The backend that a new session of this key gets.
    fn owner(&mut self, key: u32) -> Option<Incarnation> {
        let session = self.accept();
        let frame = [&key.to_be_bytes()[..], b"body"].concat();
        self.received(session, &frame);
        let owner = self.engine.sessions().find(|it| it.session == session);
        let owner = owner.and_then(|it| it.backend).map(|it| it.incarnation);
        self.handle(Input::ClientBroken {
            session,
            fault: Fault::Reset,
        });
        owner
    }

    /// Established sessions with the backend of that number.
    fn established_at(&mut self, backend: u32, count: usize) -> Vec<SessionId> {
        let mut sessions = Vec::new();
        for key in 0_u32.. {
            if sessions.len() == count {
                break;
            }
            let session = self.accept();
            let frame = [&key.to_be_bytes()[..], b"body"].concat();
            self.received(session, &frame);
            let view = self.engine.sessions().find(|it| it.session == session);
            let owner = view.and_then(|it| it.backend).map(|it| it.incarnation);
            if owner == Some(Incarnation(backend)) {
                self.establish(session);
                sessions.push(session);
            } else {
                let fault = Fault::Reset;
                self.handle(Input::ClientBroken { session, fault });
            }
        }
        sessions
    }

    /// A session whose backend has taken the preface, and not answered.
    fn asking(&mut self) -> SessionId {
        let session = self.accept();
        self.received(session, FRAME);
        self.take(session, 0);
        session
    }

    /// Its backend takes the preface.
    fn take(&mut self, session: SessionId, attempt: u8) {
        self.handle(Input::Connected { session, attempt });
        let taken = Report {
            forward: 8,
            ..Report::default()
        };
        self.relayed(session, attempt, taken);
    }

    fn winds(&mut self, actions: &[Action]) -> Vec<(SessionId, Close)> {
        let wind = |action: &Action| match *action {
            Action::Wind { session, how } => Some((session, how)),
            _ => None,
        };
        actions.iter().filter_map(wind).collect()
    }
}

#[test]
fn a_backend_that_is_down_gets_nothing_and_its_keys_come_home() {
    let mut rig = Rig::new(listener(), abc());
    let homes: Vec<_> = (0..60).map(|key| rig.owner(key)).collect();
    rig.publish(2, changed(|it| it.down = &*it.id == "b"));
    for (key, home) in (0..).zip(&homes) {
        let owner = rig.owner(key);
        assert_ne!(owner, Some(Incarnation(2)));
        if *home != Some(Incarnation(2)) {
            assert_eq!(owner, *home, "only its keys move");
        }
    }
    rig.publish(3, abc());
    let again: Vec<_> = (0..60).map(|key| rig.owner(key)).collect();
    assert_eq!(again, homes);
}

#[test]
fn who_connects_to_a_backend_that_goes_down_goes_elsewhere_if_it_can() {
    for why in ["down", "gone"] {
        let mut rig = Rig::new(listener(), abc());
        let session = rig.accept();
        let first = to(&rig.received(session, FRAME));
        let owner = rig.picks()[0];
        let next = match why {
            "down" => changed(|it| it.down = Some(it.incarnation) == owner),
            _ => {
                let all = [backend("a", 1), backend("b", 2), backend("c", 3)];
                pool(
                    all.into_iter()
                        .filter(|it| Some(it.incarnation) != owner)
                        .collect(),
                )
            }
        };
        let actions = rig.publish(2, next);
        assert_ne!(to(&actions), first, "{why}");
    }
    // With nobody else to go to, the attempt under way is the best there is.
    let mut rig = Rig::new(listener(), pool(vec![backend("a", 1)]));
    let failover = Failover {
        panic: 0,
        retries: 0,
        ..Failover::default()
    };
    let session = rig.accept();
    rig.received(session, FRAME);
    let mut down = backend("a", 1);
    down.down = true;
    assert_eq!(rig.publish(2, rules(pool(vec![down]), failover)), []);
    let pace = bucket(1000, 1);
    let told = rig.tell(&tell(1, Why::Down, Some(TellHow::Close), &pace));
    assert_eq!(told, [], "nor does the word about its sessions end it");
    let connected = Input::Connected {
        session,
        attempt: 0,
    };
    assert_eq!(rig.handle(connected).len(), 1);
}

#[test]
fn too_few_healthy_backends_are_as_good_as_none() {
    let half = || Failover {
        panic: 50,
        ..Failover::default()
    };
    let mut rig = Rig::new(listener(), rules(abc(), half()));
    let homes: Vec<_> = (0..60).map(|key| rig.owner(key)).collect();
    let down = |ids: &'static str| rules(changed(|it| it.down = ids.contains(&*it.id)), half());
    rig.publish(2, down("b"));
    assert!((0..60).all(|key| rig.owner(key) != Some(Incarnation(2))));
    rig.publish(3, down("bc"));
    let panicking: Vec<_> = (0..60).map(|key| rig.owner(key)).collect();
    assert_eq!(panicking, homes, "health is not believed");
    rig.publish(4, down("b"));
    assert!((0..60).all(|key| rig.owner(key) != Some(Incarnation(2))));
    // Those that drain do not count: of the two others one is up.
    let draining = changed(|it| {
        it.draining = &*it.id == "a";
        it.down = &*it.id == "b";
    });
    rig.publish(5, rules(draining, half()));
    assert!((0..60).all(|key| rig.owner(key) == Some(Incarnation(3))));

    // By default, of a few backends the last one stands for all.
    let mut rig = Rig::new(listener(), changed(|it| it.down = true));
    assert!(rig.owner(1).is_some());
    let never = Failover {
        panic: 0,
        ..Failover::default()
    };
    rig.publish(2, rules(changed(|it| it.down = true), never));
    assert_eq!(rig.owner(1), None);
}

#[test]
fn sessions_are_told_one_after_the_other() {
    let mut rig = Rig::new(listener(), abc());
    let others = rig.established_at(1, 2);
    let sessions = rig.established_at(2, 20);
    rig.pass(Duration::from_secs(2));
    // One of them is in the middle of something.
    let busy = sessions[7];
    rig.publish(2, changed(|it| it.down = &*it.id == "b"));
    let began = rig.now;
    let pace = bucket(100, 1);
    rig.tell(&tell(2, Why::Down, Some(TellHow::Close), &pace));
    let moved = Report {
        back: 1,
        ..Report::default()
    };
    rig.relayed(busy, 0, moved);
    let mut order = Vec::new();
    while order.len() < sessions.len() {
        let actions = rig.expire();
        for (session, how) in rig.winds(&actions) {
            let expected = if session == busy {
                Close::Reset
            } else {
                Close::Fin
            };
            assert_eq!(how, expected, "a FIN cuts nothing off");
            order.push(session);
            let turn = Duration::from_millis(10) * (order.len() as u32 - 1);
            let since = rig.now.since(began);
            assert!(since + Duration::from_millis(30) >= turn, "{since:?}");
            rig.relayed(session, 0, finished(Ends::FIN));
            assert_eq!(rig.closed(session).reason, CloseReason::BackendDown);
        }
    }
    assert_ne!(order, sessions, "in no order of theirs");
    let lasted = rig.now.since(began).as_millis();
    assert!((180..=220).contains(&lasted), "{lasted} ms");
    assert_eq!(rig.engine.live(), others.len());
}

#[test]
fn whose_turn_has_not_come_stays_when_its_backend_is_up_again() {
    let mut rig = Rig::new(listener(), abc());
    rig.established_at(2, 5);
    rig.publish(2, changed(|it| it.down = &*it.id == "b"));
    rig.tell(&tell(2, Why::Down, Some(TellHow::Reset), &bucket(1, 1)));
    let actions = rig.expire();
    assert_eq!(rig.winds(&actions).len(), 1, "a reset, in its turn");
    rig.publish(3, abc());
    let actions = rig.pass(Duration::from_secs(60));
    assert_eq!(rig.winds(&actions), []);

    // A backend that was removed does not come back, nor one in maintenance.
    rig.tell(&tell(
        2,
        Why::Removed,
        Some(TellHow::Reset),
        &bucket(1000, 1),
    ));
    rig.publish(4, abc());
    let actions = rig.pass(Duration::from_secs(60));
    assert_eq!(rig.winds(&actions).len(), 4);
}

#[test]
fn maintenance_keeps_sessions_where_that_is_wanted() {
    let mut rig = Rig::new(listener(), abc());
    let kept = rig.established_at(2, 1)[0];
    let session = rig.accept();
    let first = to(&rig.received(session, FRAME));
    let owner = rig.picks().pop().flatten().expect("a backend");
    rig.publish(2, changed(|it| it.draining = it.incarnation == owner));
    let told = tell(owner.0, Why::Maint, None, &bucket(1, 1));
    let actions = rig.tell(&told);
    assert_ne!(to(&actions), first, "who connects goes elsewhere at once");
    rig.tell(&tell(2, Why::Maint, None, &bucket(1, 1)));
    rig.pass(Duration::from_secs(60));
    assert!(rig.engine.phase(kept).is_some());
}

#[test]
fn a_backend_that_is_back_takes_its_share_little_by_little() {
    let mut rig = Rig::new(listener(), abc());
    let over = Duration::from_secs(10);
    let from = rig.now;
    let ramp = Some(Ramp { from, over });
    rig.publish(2, changed(|it| it.ramp = ramp.filter(|_| &*it.id == "b")));
    let mut whole = Rig::new(listener(), abc());
    let share = |rig: &mut Rig| {
        let owners = (0..600).map(|key| rig.owner(key));
        owners.filter(|it| *it == Some(Incarnation(2))).count()
    };
    let all = share(&mut whole);
    assert_eq!(share(&mut rig), 0, "nothing at first");
    rig.now = from + over / 2;
    let half = share(&mut rig);
    assert!(
        (all * 3 / 10..=all * 7 / 10).contains(&half),
        "{half} of {all}"
    );
    rig.now = from + over;
    assert_eq!(share(&mut rig), all);
    // When there is nobody else, it takes what comes.
    let alone = changed(|it| {
        it.ramp = Some(Ramp {
            from: Timestamp::from_millis(100_000),
            over,
        });
        it.draining = &*it.id != "b";
    });
    rig.publish(3, alone);
    assert_eq!(rig.owner(1), Some(Incarnation(2)));
}

#[test]
fn a_session_waits_for_its_turn_at_its_owner() {
    let rated = |bucket: &Bucket| {
        let bucket = Some(bucket.clone());
        changed(move |it| it.admission.clone_from(&bucket))
    };
    let turns = bucket(10, 1);
    let mut rig = Rig::new(listener(), rated(&turns));
    let (first, second) = (rig.accept(), rig.accept());
    let owner = to(&rig.received(first, FRAME));
    assert_eq!(rig.received(second, FRAME), [], "its turn comes later");
    assert_eq!(rig.engine.phase(second), Some(Phase::Waiting));
    let began = rig.now;
    let actions = rig.expire();
    assert_eq!(to(&actions), owner, "affinity is kept");
    assert_eq!(rig.now.since(began), Duration::from_millis(100));
    let stats = rig.engine.stats();
    let waits: u64 = stats.backends.values().map(|it| it.admission_waits).sum();
    assert_eq!(waits, 1);

    // One whose backend goes meanwhile does not wait for it.
    let third = rig.accept();
    assert_eq!(rig.received(third, FRAME), []);
    let gone = rig.picks()[0];
    let down = changed(|it| it.down = Some(it.incarnation) == gone);
    let actions = rig.publish(2, down);
    let elsewhere = actions.iter().find_map(|action| match action {
        Action::Connect { session, to, .. } if *session == third => Some(*to),
        _ => None,
    });
    assert!(elsewhere.is_some_and(|to| to != owner), "{actions:?}");
}

#[test]
fn a_listener_accepts_at_its_rate_and_sheds_nobody() {
    let mut slow = listener();
    slow.admission = Some(bucket(10, 2));
    let mut rig = Rig::new(slow, abc());
    for _ in 0..2 {
        assert!(rig.engine.may_accept(rig.now, LISTENER));
        rig.accept();
    }
    assert!(!rig.engine.may_accept(rig.now, LISTENER));
    let next = rig.now + Duration::from_millis(100);
    assert_eq!(rig.engine.poll_timeout(), Some((next, Timer::Accept)));
    rig.expire();
    assert_eq!(rig.now, next);
    assert!(rig.engine.may_accept(rig.now, LISTENER));
    rig.accept();
    assert!(!rig.engine.may_accept(rig.now, LISTENER));
    // Whoever is in the queue when tlb stops is let in.
    rig.engine.stop(rig.now);
    assert!(rig.engine.may_accept(rig.now, LISTENER));
    rig.accept();
}

#[test]
fn an_address_has_so_many_sessions_and_no_more() {
    let mut few = listener();
    let sources = Sources::new(number(2));
    few.per_source = Some(sources.clone());
    let mut rig = Rig::new(few, abc());
    let (first, _) = (rig.accept(), rig.accept());
    let shed = rig.engine.accept(rig.now, LISTENER, peer());
    assert_eq!(shed, Err(Shed::PerSource));
    let other = SocketAddr::new(IpAddr::from([127, 0, 0, 9]), 1);
    assert!(rig.engine.accept(rig.now, LISTENER, other).is_ok());
    rig.handle(Input::ClientBroken {
        session: first,
        fault: Fault::Reset,
    });
    rig.accept();
    assert_eq!(rig.engine.stats().listener(LISTENER).shed, 1);
    assert_eq!(sources.live(), 2);
}

#[test]
fn another_workers_opinion_counts() {
    let mut rig = Rig::new(listener(), abc());
    let homes: Vec<_> = (0..60).map(|key| rig.owner(key)).collect();
    let pool = PoolId(0);
    let advise = |rig: &mut Rig, backend, change| {
        rig.engine
            .advise(rig.now, pool, Incarnation(backend), change);
        rig.actions();
    };
    rig.events.clear();
    advise(&mut rig, 2, Change::Down);
    assert!((0..60).all(|key| rig.owner(key) != Some(Incarnation(2))));
    advise(&mut rig, 2, Change::Up);
    let again: Vec<_> = (0..60).map(|key| rig.owner(key)).collect();
    assert_eq!(again, homes);
    let echo = |event: &Event| matches!(event, Event::BackendDown { .. } | Event::BackendUp { .. });
    assert!(
        !rig.events.iter().any(echo),
        "what others said is not reported"
    );
    advise(&mut rig, 99, Change::Down);
    rig.engine
        .advise(rig.now, PoolId(7), Incarnation(1), Change::Down);
}

#[test]
fn only_so_many_are_ejected() {
    let rules_ = Failover {
        max_ejected: 34,
        fall: 1,
        panic: 0,
        ..Failover::default()
    };
    let mut rig = Rig::new(listener(), rules(abc(), rules_));
    for backend in [1, 2, 3] {
        let pool = PoolId(0);
        rig.engine
            .advise(rig.now, pool, Incarnation(backend), Change::Down);
        rig.actions();
    }
    let owners: BTreeSet<_> = (0..60).map(|key| rig.owner(key)).collect();
    assert_eq!(owners.len(), 2, "one of three is a third: {owners:?}");
    let session = rig.accept();
    rig.received(session, FRAME);
    rig.fails(session, 0, Fault::Refused);
    let down = |event: &Event| matches!(event, Event::BackendDown { .. });
    assert!(
        !rig.events.iter().any(down),
        "its own failures are bound as well"
    );
}

#[test]
fn a_reset_before_the_first_byte_counts_where_that_is_wanted() {
    for early_resets in [false, true] {
        let failover = Failover {
            fall: 2,
            early_resets,
            ..Failover::default()
        };
        let mut rig = Rig::new(listener(), rules(abc(), failover));
        for session in rig.established_at(2, 2) {
            let report = Report {
                broken: Some((Side::Backend, Fault::Reset)),
                ..finished(Ends::RESET)
            };
            rig.relayed(session, 0, report);
            let reason = rig.closed(session).reason;
            assert_eq!(reason, CloseReason::BackendBroken(Fault::Reset));
        }
        let down = |event: &Event| matches!(event, Event::BackendDown { backend, .. } if *backend == Incarnation(2));
        assert_eq!(rig.events.iter().any(down), early_resets);
    }
}

/// Only such resets in a row do.
#[test]
fn a_byte_or_an_end_of_the_backend_in_between_shows_that_it_is_well() {
    let spoke = Report {
        back: 1,
        ..Report::default()
    };
    let ended = Report {
        ended: [false, true],
        ..Report::default()
    };
    for (sign, well) in [(spoke, true), (ended, true), (Report::default(), false)] {
        let failover = Failover {
            fall: 2,
            early_resets: true,
            ..Failover::default()
        };
        let mut rig = Rig::new(listener(), rules(abc(), failover));
        let sessions = rig.established_at(2, 3);
        let reset = Report {
            broken: Some((Side::Backend, Fault::Reset)),
            ..finished(Ends::RESET)
        };
        rig.relayed(sessions[0], 0, reset);
        rig.relayed(sessions[1], 0, sign);
        rig.relayed(sessions[2], 0, reset);
        let down = |event: &Event| matches!(event, Event::BackendDown { .. });
        assert_eq!(rig.events.iter().any(down), !well, "{sign:?}");
    }
}

#[test]
fn the_preface_goes_to_the_next_owner_until_somebody_spoke() {
    let patient = patient();
    let taken = Report {
        forward: 8,
        ended: [true, false],
        ..Report::default()
    };
    let ended = Report {
        broken: Some((Side::Backend, Fault::Closed)),
        ..Report::default()
    };
    let connected = |session, attempt| Input::Connected { session, attempt };

    let mut rig = Rig::new(patient.clone(), abc());
    let session = rig.accept();
    let first = to(&rig.received(session, FRAME));
    rig.handle(connected(session, 0));
    assert!(rig.engine.replays(session));
    rig.relayed(session, 0, taken);
    rig.pass(Duration::from_secs(60));
    assert!(rig.engine.phase(session).is_some(), "it may take its time");
    let second = to(&rig.relayed(session, 0, ended));
    assert_ne!(second, first);
    assert_eq!(rig.engine.preface(session), FRAME[..]);
    rig.handle(connected(session, 1));
    rig.relayed(session, 1, taken);
    let spoke = Report {
        back: 1,
        proven: true,
        ..Report::default()
    };
    rig.relayed(session, 1, spoke);
    assert!(!rig.engine.replays(session));
    let broken = Report {
        broken: Some((Side::Backend, Fault::Reset)),
        ..finished(Ends::RESET)
    };
    rig.relayed(session, 1, broken);
    let closed = rig.closed(session);
    assert_eq!(closed.reason, CloseReason::BackendBroken(Fault::Reset));
    assert_eq!((closed.forward, closed.back, closed.attempts), (8, 1, 2));
    let stats = rig.engine.stats();
    let replayed: u64 = stats.backends.values().map(|it| it.replayed).sum();
    assert_eq!(replayed, 1);
    assert_eq!(rig.engine.preread_memory(), 0);

    // A byte of the client alone does it, too.
    let mut rig = Rig::new(patient, abc());
    let session = rig.accept();
    rig.received(session, FRAME);
    rig.handle(connected(session, 0));
    let more = Report {
        proven: true,
        forward: 9,
        ..Report::default()
    };
    rig.relayed(session, 0, more);
    assert!(!rig.engine.replays(session));
}

/// It would be lost on the way to another backend, or the client would hear two of them.
#[test]
fn what_was_read_and_not_yet_written_ends_the_replay_too() {
    let mut rig = Rig::new(patient(), abc());
    let session = rig.asking();
    let held = Report {
        proven: true,
        ..Report::default()
    };
    rig.relayed(session, 0, held);
    assert!(!rig.engine.replays(session));
    let broken = Report {
        broken: Some((Side::Backend, Fault::TimedOut)),
        ..finished(Ends::RESET)
    };
    rig.relayed(session, 0, broken);
    let closed = rig.closed(session);
    assert_eq!(closed.reason, CloseReason::BackendBroken(Fault::TimedOut));
    assert_eq!(closed.attempts, 1);
}

#[test]
fn the_last_attempts_end_is_passed_on() {
    let failover = Failover {
        retries: 1,
        ..Failover::default()
    };
    let mut rig = Rig::new(patient(), rules(abc(), failover));
    let session = rig.accept();
    rig.received(session, FRAME);
    for attempt in [0, 1] {
        rig.take(session, attempt);
        assert_eq!(rig.engine.replays(session), attempt == 0);
        let broken = Report {
            broken: Some((Side::Backend, Fault::Reset)),
            ..Report::default()
        };
        rig.relayed(session, attempt, broken);
    }
    rig.relayed(session, 1, finished(Ends::RESET));
    let reason = rig.closed(session).reason;
    assert_eq!(reason, CloseReason::BackendBroken(Fault::Reset));
}

/// Its end was decided before its backend broke: that is no reason to go to another one.
#[test]
fn a_session_that_ends_is_not_replayed() {
    let mut patient = patient();
    patient.idle_timeout = Some(Duration::from_secs(1));
    let mut rig = Rig::new(patient, abc());
    let session = rig.asking();
    let actions = rig.pass(Duration::from_secs(1));
    assert_eq!(rig.winds(&actions), [(session, Close::Fin)]);
    let broken = Report {
        broken: Some((Side::Backend, Fault::Reset)),
        ..Report::default()
    };
    assert_eq!(rig.relayed(session, 0, broken), []);
    rig.relayed(session, 0, finished(Ends::RESET));
    assert_eq!(rig.closed(session).reason, CloseReason::IdleTimeout);
}

/// Nor is it when the fleet says so.
#[test]
fn a_session_that_ends_stays_with_a_dead_backend() {
    let mut patient = patient();
    patient.idle_timeout = Some(Duration::from_secs(1));
    let mut rig = Rig::new(patient, abc());
    let session = rig.asking();
    let owner = rig.picks()[0].expect("a backend");
    let actions = rig.pass(Duration::from_secs(1));
    assert_eq!(rig.winds(&actions), [(session, Close::Fin)]);
    rig.publish(2, changed(|it| it.down = it.incarnation == owner));
    let pace = bucket(1000, 1);
    let actions = rig.tell(&tell(owner.0, Why::Down, Some(TellHow::Close), &pace));
    assert_eq!(actions, []);
    rig.relayed(session, 0, finished(Ends::RESET));
    assert_eq!(rig.closed(session).reason, CloseReason::IdleTimeout);
}

#[test]
fn a_question_that_a_dead_backend_took_goes_to_the_next_owner() {
    for alone in [false, true] {
        let all = if alone {
            pool(vec![backend("a", 1)])
        } else {
            abc()
        };
        let mut rig = Rig::new(patient(), all);
        let session = rig.accept();
        let first = to(&rig.received(session, FRAME));
        let owner = rig.picks()[0].expect("a backend");
        rig.take(session, 0);
        rig.pass(Duration::from_secs(2));
        let down = if alone {
            let mut only = backend("a", 1);
            only.down = true;
            pool(vec![only])
        } else {
            changed(|it| it.down = it.incarnation == owner)
        };
        assert_eq!(rig.publish(2, down), [], "it may still answer");
        let pace = bucket(1000, 1);
        let actions = rig.tell(&tell(owner.0, Why::Down, Some(TellHow::Close), &pace));
        if !alone {
            assert_ne!(to(&actions), first);
            continue;
        }
        // With nobody else to ask it is told as any other.
        let actions = rig.expire();
        assert_eq!(rig.winds(&actions), [(session, Close::Fin)]);
    }
}

/// It has its turn to go because of a backend that it is not at any more.
#[test]
fn a_session_that_went_elsewhere_is_not_told() {
    let mut rig = Rig::new(patient(), pool(vec![backend("a", 1)]));
    let session = rig.asking();
    let mut only = backend("a", 1);
    only.down = true;
    rig.publish(2, pool(vec![only]));
    let pace = bucket(1, 1);
    rig.tell(&tell(1, Why::Down, Some(TellHow::Reset), &pace));
    rig.publish(3, pool(vec![backend("a", 2)]));
    let actions = rig.tell(&tell(1, Why::Removed, Some(TellHow::Reset), &pace));
    to(&actions);
    rig.take(session, 1);
    assert_eq!(rig.pass(Duration::from_secs(60)), []);
}

#[test]
fn a_reload_leaves_sessions_as_they_began() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.accept();
    let narrow = Listener {
        max_sessions: 1,
        preread_limit: 4,
        ..listener()
    };
    let second = Listener::new("second", None, PoolId(0));
    let config = |listeners: Vec<Option<Listener>>| {
        let listeners = listeners.into_iter().map(|it| it.map(Arc::new)).collect();
        Arc::new(Config {
            listeners,
            limits: Limits::default(),
        })
    };
    rig.engine
        .reconfigure(rig.now, config(vec![Some(narrow), Some(second.clone())]));
    assert_eq!(rig.engine.wants(session), Listener::PREREAD_LIMIT);
    assert!(
        !rig.engine.may_accept(rig.now, LISTENER),
        "the new limit holds"
    );
    assert!(rig.engine.may_accept(rig.now, ListenerId(1)));

    // One that is removed serves who is in its queue, and is closed then.
    rig.engine
        .reconfigure(rig.now, config(vec![None, Some(second)]));
    assert!(rig.engine.is_closing(LISTENER) && !rig.engine.is_closing(ListenerId(1)));
    rig.handle(Input::ClientBroken {
        session,
        fault: Fault::Reset,
    });
    assert!(rig.engine.may_accept(rig.now, LISTENER));
    let late = rig.accept();
    assert_eq!(rig.engine.wants(late), 4, "by the rules that were its last");
    assert_eq!(rig.engine.stats().listener(LISTENER).sessions, 2);
}

#[test]
fn what_is_counted_adds_up() {
    let mut rig = Rig::new(listener(), abc());
    let session = rig.established();
    let moved = Report {
        forward: 3,
        back: 70,
        ..Report::default()
    };
    rig.relayed(session, 0, moved);
    let view: Vec<_> = rig.engine.sessions().collect();
    assert_eq!(view.len(), 1);
    assert_eq!((view[0].forward, view[0].back), (11, 70));
    assert_eq!(view[0].phase, Phase::Relaying);
    assert_eq!(view[0].key, Some(&b"key0"[..]));
    let owner = view[0].backend.expect("a backend").incarnation;

    let failing = rig.accept();
    rig.received(failing, b"key0body");
    rig.fails(failing, 0, Fault::Refused);
    let stats = rig.engine.stats();
    let listener = stats.listener(LISTENER);
    assert_eq!((listener.sessions, listener.live), (2, 2));
    assert_eq!((listener.forward, listener.back), (11, 70));
    let counted = &stats.backends[&owner];
    assert_eq!(
        (counted.attempts, counted.sessions, counted.live),
        (2, 1, 1)
    );
    assert_eq!(counted.failed["refused"], 1);
    assert_eq!((counted.forward, counted.back), (11, 70));
    let other = stats.backends.iter().find(|(it, _)| **it != owner);
    assert_eq!(
        other.map(|(_, it)| (it.redispatched, it.live)),
        Some((1, 1))
    );

    rig.pass(Duration::from_millis(1500));
    rig.relayed(session, 0, finished(Ends::FIN));
    let listener = rig.engine.stats().listener(LISTENER);
    assert_eq!(listener.closed["completed"], 1);
    assert_eq!(
        listener.lasted.counts[4], 1,
        "more than a second, at most ten"
    );
    assert_eq!(listener.lasted.nanos, 1_500_000_000);

    // Who left the roster is counted as long as somebody is there.
    let all = [backend("a", 1), backend("b", 2), backend("c", 3)];
    let gone = all.into_iter().filter(|it| it.incarnation != owner);
    rig.publish(2, pool(gone.collect()));
    assert!(!rig.engine.stats().backends.contains_key(&owner));
}

#[test]
fn counters_of_backends_that_are_gone_do_not_pile_up_if_nobody_asks_for_them() {
    let mut rig = Rig::new(listener(), abc());
    let mut most = 0;
    for epoch in 2..1000 {
        // One life after the other, and each of them has a session.
        rig.publish(u64::from(epoch), pool(vec![backend("a", epoch)]));
        assert_eq!(rig.owner(0), Some(Incarnation(epoch)));
        most = most.max(rig.engine.counted().backends.len());
    }
    assert!((2..=64).contains(&most), "{most} backends are counted");
    let stats = rig.engine.stats();
    assert_eq!(
        stats.backends.into_keys().collect::<Vec<_>>(),
        [Incarnation(999)]
    );
}

#[test]
fn a_backend_is_forgotten_with_its_last_session() {
    let mut rig = Rig::new(listener(), abc());
    let sessions = rig.established_at(2, 2);
    rig.publish(2, pool(vec![backend("a", 1)]));
    let counted = |rig: &mut Rig| {
        let stats = rig.engine.stats();
        stats.backends.get(&Incarnation(2)).map(|it| it.live)
    };
    for (session, left) in sessions.into_iter().zip([Some(1), None]) {
        let fault = Fault::Reset;
        rig.handle(Input::ClientBroken { session, fault });
        rig.relayed(session, 0, finished(Ends::RESET));
        assert_eq!(counted(&mut rig), left);
    }
}
