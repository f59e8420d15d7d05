//! Connections that are kept ready for sessions to come.

use super::*;
use crate::engine::WARM_FOR;
use crate::ids::WarmId;

fn keeping(warm: u8, mut backend: Backend) -> Pool {
    backend.address = Some(address("a"));
    let failover = Failover {
        warm,
        ..Failover::default()
    };
    let backends = vec![Arc::new(backend)];
    Pool::new("pool", Policy::HashRing { points: 16 }, failover, backends)
}

/// What was opened and what was closed of them.
fn changes(actions: &[Action]) -> (Vec<WarmId>, Vec<WarmId>) {
    let (mut opened, mut closed) = (Vec::new(), Vec::new());
    for action in actions {
        match *action {
            Action::Warm { warm, to, .. } => {
                assert_eq!(to, address("a"));
                opened.push(warm);
            }
            Action::Cool { warm } => closed.push(warm),
            _ => {}
        }
    }
    (opened, closed)
}

impl Rig {
    /// A session that gets its backend, and by which connection; then what was opened after it.
    fn passes(&mut self) -> (Option<WarmId>, Vec<WarmId>) {
        let session = self.accept();
        let connect = self.received(session, FRAME);
        let [Action::Connect { warm, .. }] = connect[..] else {
            panic!("{connect:?}");
        };
        let (opened, closed) = changes(&self.establish(session));
        assert_eq!(closed, []);
        (warm, opened)
    }
}

#[test]
fn a_session_takes_the_oldest_and_leaves_as_many_behind_as_are_missing() {
    let mut rig = Rig::new(listener(), keeping(2, backend("a", 1)));
    let (none, opened) = rig.passes();
    assert_eq!((none, opened.len()), (None, 2));
    rig.pass(Duration::from_millis(1));
    let (taken, third) = rig.passes();
    assert_eq!((taken, third.len()), (Some(opened[0]), 1));
    let (taken, _) = rig.passes();
    assert_eq!(taken, Some(opened[1]));
    let (taken, _) = rig.passes();
    assert_eq!(taken, Some(third[0]));
}

#[test]
fn a_pool_that_wants_none_has_none() {
    let mut rig = Rig::new(listener(), keeping(0, backend("a", 1)));
    for _ in 0..3 {
        assert_eq!(rig.passes(), (None, vec![]));
    }
    assert_ne!(
        rig.engine.poll_timeout().map(|(_, it)| it),
        Some(Timer::Warm)
    );
}

#[test]
fn what_nobody_takes_is_closed_in_time_and_not_opened_again() {
    let mut rig = Rig::new(listener(), keeping(3, backend("a", 1)));
    let (_, opened) = rig.passes();
    let due = rig.now + WARM_FOR;
    assert_eq!(rig.engine.poll_timeout(), Some((due, Timer::Warm)));
    let early = rig.pass(WARM_FOR.checked_sub(Duration::from_nanos(1)).expect("long"));
    assert_eq!(changes(&early), (vec![], vec![]));
    let (again, closed) = changes(&rig.pass(Duration::from_nanos(1)));
    assert_eq!((again, closed), (vec![], opened));
    assert_eq!(rig.passes().0, None);
}

#[test]
fn none_is_kept_to_a_backend_that_gets_no_sessions() {
    type Change = fn(&mut Backend, &mut u8);
    let changes_of_mind: [(&str, Change); 5] = [
        ("down", |it, _| it.down = true),
        ("draining", |it, _| it.draining = true),
        ("another life", |it, _| it.incarnation = Incarnation(9)),
        ("no address", |it, _| it.address = None),
        ("not wanted", |_, warm| *warm = 0),
    ];
    for (what, change) in changes_of_mind {
        let (mut it, mut warm) = (backend("a", 1), 2);
        it.address = Some(address("a"));
        let mut rig = Rig::new(listener(), keeping(warm, it.clone()));
        let (_, opened) = rig.passes();
        change(&mut it, &mut warm);
        let failover = Failover {
            warm,
            ..Failover::default()
        };
        let policy = Policy::HashRing { points: 16 };
        let next = Pool::new("pool", policy, failover, vec![Arc::new(it)]);
        rig.engine.publish(rig.now, roster(2, next));
        assert_eq!(changes(&rig.actions()), (vec![], opened), "{what}");
    }
}

#[test]
fn none_is_kept_to_a_backend_that_is_ejected() {
    let mut rig = Rig::new(listener(), keeping(2, backend("a", 1)));
    let (_, opened) = rig.passes();
    let down = Change::Down;
    rig.engine.advise(rig.now, PoolId(0), Incarnation(1), down);
    assert_eq!(changes(&rig.actions()), (vec![], opened));
    // The trial brings it back, and with it the connections.
    rig.pass(Passive::BACK_OFF_MIN * 2);
    let (taken, opened) = rig.passes();
    assert_eq!((taken, opened.len()), (None, 2));
}

#[test]
fn none_is_kept_once_tlb_stops() {
    let mut rig = Rig::new(listener(), keeping(2, backend("a", 1)));
    let (_, opened) = rig.passes();
    rig.engine.stop(rig.now);
    assert_eq!(changes(&rig.actions()), (vec![], opened));
    assert_eq!(rig.passes(), (None, vec![]));
}
