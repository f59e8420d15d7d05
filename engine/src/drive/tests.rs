//! The loop body over a kernel that does as it is told at once.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::{IpAddr, SocketAddr};

use super::driver::{BYTES_PER_TURN, CALLS_PER_TURN, VISIT_EVERY};
use super::schedule::BULK_PER_TURN;
use super::{Accept, Connect, Driver, First, Flow, HandOff, Io, Mode, Outcome, Readiness, Via};
use crate::Engine;
use crate::api::{Close, Fault};
use crate::balance::Policy;
use crate::config::{Config, Failover, Limits, Listener};
use crate::ids::{Dir, Incarnation, ListenerId, PoolId, SessionId, Side, SocketId, WarmId};
use crate::roster::{Backend, Pool, Roster};
use crate::time::Timestamp;

const FILL: usize = 64 * 1024;
const SMALL: usize = 64;

/// Everybody is accepted and connected at once. The first clients have no end of bytes, which go out `crumb` by `crumb`;
/// each of the others has one message.
struct Endless {
    bulk: usize,
    waiting: usize,
    crumb: usize,
    held: Vec<usize>,
    /// How many bytes the first clients have left, if there is an end of them.
    left: Option<usize>,
    /// Whose bytes went out, and how many.
    drained: Vec<(usize, usize)>,
}

impl Io for Endless {
    type Conn = ();

    fn accept(&mut self, _: ListenerId) -> Accept<()> {
        if self.waiting == 0 {
            return Accept::WouldBlock;
        }
        self.waiting -= 1;
        Accept::Conn((), ([127, 0, 0, 1], 4000).into())
    }

    fn unlisten(&mut self, _: ListenerId) {}

    fn adopt(&mut self, session: SessionId, (): ()) -> Result<(), Fault> {
        self.held.resize(session.index() + 1, 0);
        Ok(())
    }

    fn recv(&mut self, _: SessionId, _: &mut [u8]) -> Outcome {
        Outcome::WouldBlock
    }

    fn connect(
        &mut self,
        _: SessionId,
        _: u8,
        _: SocketAddr,
        _: Option<IpAddr>,
        _: First<'_>,
    ) -> Result<Connect, Fault> {
        Ok(Connect::Established)
    }

    fn warm(&mut self, _: WarmId, _: SocketAddr, _: Option<IpAddr>) {}

    fn take(&mut self, _: SessionId, _: u8, _: WarmId, _: First<'_>) -> Option<Connect> {
        None
    }

    fn cool(&mut self, _: WarmId) {}

    fn connected(&mut self, _: SessionId) -> Result<Connect, Fault> {
        Ok(Connect::Established)
    }

    fn load(&mut self, _: SessionId, _: Bytes) {}

    fn fill(&mut self, session: SessionId, dir: Dir, _: Via) -> Outcome {
        if dir == Dir::Return {
            return Outcome::WouldBlock;
        }
        let bulk = session.index() < self.bulk;
        if bulk && let Some(left) = &mut self.left {
            if *left == 0 {
                return Outcome::WouldBlock;
            }
            *left -= FILL;
        }
        let bytes = if bulk { FILL } else { SMALL };
        self.held[session.index()] = bytes;
        Outcome::Moved {
            bytes,
            short: !bulk,
        }
    }

    fn drain(&mut self, session: SessionId, _: Dir) -> Outcome {
        let held = &mut self.held[session.index()];
        let bytes = self.crumb.min(*held);
        *held -= bytes;
        self.drained.push((session.index(), bytes));
        Outcome::Moved {
            bytes,
            short: false,
        }
    }

    fn shutdown(&mut self, _: SessionId, _: Side) -> Result<(), Fault> {
        Ok(())
    }

    fn take_error(&mut self, _: SessionId, _: Side) -> Option<Fault> {
        None
    }

    fn unacknowledged(&mut self, _: SessionId, _: Side) -> usize {
        0
    }

    fn waiting(&mut self, _: SessionId) -> bool {
        false
    }

    fn hear(&mut self, _: SocketId, _: bool) -> Result<(), Fault> {
        Ok(())
    }

    fn hand_off(&mut self, _: SessionId) -> HandOff {
        HandOff::Never
    }

    fn flow(&mut self, _: SessionId) -> Flow {
        Flow::default()
    }

    fn close(&mut self, _: SessionId, _: Side, _: Close) {}
}

fn driver(bulk: usize, small: usize, crumb: usize) -> Driver<Endless> {
    let listener = Listener::new("any", None, PoolId(0));
    let backend = Backend {
        id: "a".into(),
        incarnation: Incarnation(1),
        address: Some(([127, 0, 0, 2], 7000).into()),
        weight: 1,
        ..Backend::default()
    };
    let pool = Pool::new(
        "pool",
        Policy::RoundRobin,
        Failover::default(),
        vec![Arc::new(backend)],
    );
    let roster = Roster {
        epoch: 1,
        pools: vec![Arc::new(pool)],
    };
    let config = Arc::new(Config::new(vec![listener], Limits::default()));
    let engine = Engine::new(config, Arc::new(roster), 7, Timestamp::ZERO);
    let io = Endless {
        bulk,
        waiting: bulk + small,
        crumb,
        held: Vec::new(),
        left: None,
        drained: Vec::new(),
    };
    Driver::new(engine, io, Mode::Copy)
}

/// A turn that begins with something to read from everybody, in the order of their slots.
fn turn(driver: &mut Driver<Endless>) -> (Vec<(usize, usize)>, bool) {
    let readable = Readiness {
        readable: true,
        ..Readiness::default()
    };
    let ids: Vec<SessionId> = driver.engine().sessions().map(|it| it.session).collect();
    for id in ids {
        driver.ready(SocketId::client(id), readable);
    }
    let busy = driver.turn(Timestamp::from_millis(1)).busy;
    (core::mem::take(&mut driver.io_mut().drained), busy)
}

/// A bulk flow that always finds something to do once had most of a turn that others waited for.
#[test]
fn a_bulk_flow_has_its_share_of_a_turn_and_no_more() {
    let small = 100;
    let mut driver = driver(1, small, usize::MAX);
    // They come in, sixteen in a turn.
    while driver.engine().live() < 1 + small {
        driver.turn(Timestamp::ZERO);
    }
    driver.io_mut().drained.clear();
    for _ in 0..3 {
        let (drained, busy) = turn(&mut driver);
        let bulk: usize = drained
            .iter()
            .filter(|(who, _)| *who == 0)
            .map(|(_, bytes)| bytes)
            .sum();
        assert_eq!(bulk, BYTES_PER_TURN);
        for who in 1..=small {
            assert!(drained.contains(&(who, SMALL)), "{who} has its turn");
        }
        assert!(busy, "more is left, and no event will tell");
    }
}

/// A source that brought much is looked at by the clock, and no event is needed for it.
#[test]
fn a_resting_source_is_visited_in_time() {
    let mut driver = driver(1, 0, usize::MAX).heavy(FILL);
    driver.turn(Timestamp::ZERO);
    driver.io_mut().left = Some(3 * FILL);
    driver.io_mut().drained.clear();
    let (drained, busy) = turn(&mut driver);
    assert_eq!((drained.len(), busy), (3, false));

    let due = Timestamp::from_millis(1) + VISIT_EVERY;
    driver.io_mut().left = Some(FILL);
    let early = Timestamp::from_millis(1) + VISIT_EVERY / 2;
    assert_eq!(driver.turn(early).deadline, Some(due));
    assert!(driver.io_mut().drained.is_empty(), "its time has not come");
    driver.turn(due);
    assert_eq!(driver.io_mut().drained, [(0, FILL)]);
    assert_eq!(driver.turn(due).deadline, Some(due + VISIT_EVERY));
    driver.turn(due + VISIT_EVERY);
    let last = driver.turn(due + VISIT_EVERY).deadline;
    assert_ne!(
        last,
        Some(due + VISIT_EVERY + VISIT_EVERY),
        "it brought nothing"
    );
}

/// However many bulk flows there were, each had its share of a turn that others waited for.
#[test]
fn bulk_flows_share_a_turn_and_take_turns() {
    let (bulk, small) = (20, 100);
    let mut driver = driver(bulk, small, usize::MAX);
    while driver.engine().live() < bulk + small {
        driver.turn(Timestamp::ZERO);
    }
    // Who they are is known once they have had a turn.
    turn(&mut driver);
    let mut shares = vec![0; bulk];
    for _ in 0..bulk {
        let (drained, _) = turn(&mut driver);
        let mut sum = 0;
        for &(who, bytes) in drained.iter().filter(|(who, _)| *who < bulk) {
            shares[who] += bytes;
            sum += bytes;
        }
        assert_eq!(sum, BULK_PER_TURN);
        for who in bulk..bulk + small {
            assert!(drained.contains(&(who, SMALL)), "{who} has its turn");
        }
    }
    assert_eq!(shares, vec![BULK_PER_TURN; bulk]);
}

#[test]
fn a_flow_that_goes_out_in_crumbs_has_so_many_calls_in_a_turn() {
    let mut driver = driver(1, 0, 10);
    driver.turn(Timestamp::ZERO);
    driver.io_mut().drained.clear();
    let (drained, busy) = turn(&mut driver);
    assert!(
        (CALLS_PER_TURN - 1..=CALLS_PER_TURN).contains(&drained.len()),
        "{} calls",
        drained.len()
    );
    assert!(busy);
}
