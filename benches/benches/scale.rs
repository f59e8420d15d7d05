//! What grows with the number of sessions and backends, and what must not: timers, the loop body over a kernel that
//! costs nothing, and another roster.

use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tlb_engine::Engine;
use tlb_engine::api::{Close, Fault};
use tlb_engine::balance::Policy;
use tlb_engine::config::{Config, Failover, Limits, Listener};
use tlb_engine::drive::{
    Accept, Connect, Driver, First, Flow, HandOff, Io, Mode, Outcome, Readiness, Via,
};
use tlb_engine::ids::{Dir, Incarnation, ListenerId, PoolId, SessionId, Side, SocketId, WarmId};
use tlb_engine::rng::Rng;
use tlb_engine::roster::{Backend, Pool, Roster};
use tlb_engine::time::Timestamp;
use tlb_engine::timer::Queue;

const SESSIONS: [usize; 3] = [1, 1000, 100_000];
const BACKENDS: [u32; 3] = [10, 1000, 10_000];

fn timers(c: &mut Criterion) {
    let mut group = c.benchmark_group("timer");
    group.throughput(Throughput::Elements(1));
    let slots = 100_000;
    let mut rng = Rng::new(1);
    let mut queue = Queue::default();
    for slot in 0..slots {
        queue.set(slot, Timestamp::from_nanos(rng.below(1 << 40)));
    }
    group.bench_function("move one of 100,000", |b| {
        b.iter(|| {
            let slot = rng.below(slots as u64) as usize;
            queue.set(slot, Timestamp::from_nanos(rng.below(1 << 40)));
        });
    });
    group.bench_function("the first of 100,000 comes and is armed again", |b| {
        b.iter(|| {
            if let Some((at, slot)) = queue.first() {
                let next = at.as_nanos() + (1 << 40);
                queue.set(slot, Timestamp::from_nanos(next));
            }
        });
    });
    group.finish();
}

/// Everybody is accepted and connected at once, and each event brings a message.
struct Nothing {
    waiting: usize,
}

impl Io for Nothing {
    type Conn = ();

    fn accept(&mut self, _: ListenerId) -> Accept<()> {
        if self.waiting == 0 {
            return Accept::WouldBlock;
        }
        self.waiting -= 1;
        Accept::Conn((), ([127, 0, 0, 1], 4000).into())
    }

    fn unlisten(&mut self, _: ListenerId) {}

    fn adopt(&mut self, _: SessionId, (): ()) -> Result<(), Fault> {
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

    fn fill(&mut self, _: SessionId, _: Dir, _: Via) -> Outcome {
        Outcome::Moved {
            bytes: 64,
            short: true,
        }
    }

    fn drain(&mut self, _: SessionId, _: Dir) -> Outcome {
        Outcome::Moved {
            bytes: 64,
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

fn backends(count: u32) -> Vec<Arc<Backend>> {
    let backend = |number| {
        Arc::new(Backend {
            id: format!("b{number}").into(),
            incarnation: Incarnation(number),
            address: Some(([127, 0, 0, 2], 7000).into()),
            weight: 1,
            ..Backend::default()
        })
    };
    (0..count).map(backend).collect()
}

fn roster(backends: Vec<Arc<Backend>>) -> Arc<Roster> {
    let policy = Policy::HashRing { points: 128 };
    let pool = Pool::new("pool", policy, Failover::default(), backends);
    Arc::new(Roster {
        epoch: 1,
        pools: vec![Arc::new(pool)],
    })
}

/// A driver with so many sessions that relay.
fn driver(sessions: usize, count: u32) -> (Driver<Nothing>, Vec<SessionId>) {
    let listener = Listener::new("any", None, PoolId(0));
    let config = Arc::new(Config::new(vec![listener], Limits::default()));
    let engine = Engine::new(config, roster(backends(count)), 7, Timestamp::ZERO);
    let io = Nothing { waiting: sessions };
    let mut driver = Driver::new(engine, io, Mode::Copy);
    while driver.engine().live() < sessions {
        driver.turn(Timestamp::ZERO);
        while driver.poll_event().is_some() {}
    }
    let ids = driver.engine().sessions().map(|it| it.session).collect();
    (driver, ids)
}

/// A message there and back, of a session chosen at random.
fn messages(c: &mut Criterion) {
    let mut group = c.benchmark_group("loop");
    group.throughput(Throughput::Elements(1));
    let hint = Readiness {
        readable: true,
        writable: true,
        ..Readiness::default()
    };
    let now = Timestamp::from_millis(1);
    for sessions in SESSIONS {
        let (mut driver, ids) = driver(sessions, 16);
        let mut rng = Rng::new(3);
        group.bench_function(BenchmarkId::new("message there and back", sessions), |b| {
            b.iter(|| {
                let id = ids[rng.below(ids.len() as u64) as usize];
                driver.ready(SocketId::client(id), hint);
                black_box(driver.turn(now));
                driver.ready(SocketId::backend(id, 0), hint);
                black_box(driver.turn(now));
            });
        });
    }
    group.finish();
}

/// What a worker does when it is given another roster, beside 1,000 sessions: one in which a backend is down, and one
/// in which it is gone; in between, it is back. Whoever lets go of a roster last frees it, which is not the worker.
fn publishes(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish");
    for count in BACKENDS {
        let all = backends(count);
        let down = Backend {
            down: true,
            ..Backend::clone(&all[0])
        };
        let changes = [
            ("down", [&[Arc::new(down)], &all[1..]].concat()),
            ("gone", all[1..].to_vec()),
        ];
        for (what, changed) in changes {
            let (mut driver, _) = driver(1000, count);
            let rosters = [roster(changed), roster(all.clone())];
            let mut turn = 0;
            group.bench_function(BenchmarkId::new(what, count), |b| {
                b.iter(|| {
                    turn ^= 1;
                    driver.publish(Timestamp::from_millis(1), Arc::clone(&rosters[turn]));
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, timers, messages, publishes);
criterion_main!(benches);
