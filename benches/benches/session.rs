//! What a whole session costs the engine, and what a relay's decisions cost, with a kernel that costs nothing.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tlb_engine::Engine;
use tlb_engine::api::{Ends, Input, Report, Standing};
use tlb_engine::balance::Policy;
use tlb_engine::config::{Config, Failover, Limits, Listener};
use tlb_engine::drive::{Mode, Outcome, Readiness};
use tlb_engine::duplex::{Duplex, Op};
use tlb_engine::ids::{Incarnation, ListenerId, PoolId, Side};
use tlb_engine::roster::{Backend, Pool, Roster};
use tlb_engine::time::Timestamp;
use tlb_engine::unpack::{Fixed, Key};

fn engine() -> Engine {
    let key = Key {
        offset: 0,
        length: Some(4),
    };
    let unpack = Fixed::new(8, key).expect("a valid framing");
    let listener = Listener::new("devices", Some(Arc::new(unpack)), PoolId(0));
    let backends = (0..16u8).map(|number| {
        Arc::new(Backend {
            id: format!("b{number}").into(),
            incarnation: Incarnation(number.into()),
            address: Some(([127, 0, 0, 11 + number], 7001).into()),
            weight: 1,
            ..Backend::default()
        })
    });
    let pool = Pool::new(
        "pool",
        Policy::DEFAULT,
        Failover::default(),
        backends.collect(),
    );
    let roster = Arc::new(Roster {
        epoch: 1,
        pools: vec![Arc::new(pool)],
    });
    let config = Arc::new(Config::new(vec![listener], Limits::default()));
    Engine::new(config, roster, 7, Timestamp::ZERO)
}

fn drain(engine: &mut Engine) {
    while let Some(action) = engine.poll_action() {
        black_box(action);
    }
    while let Some(event) = engine.poll_event() {
        black_box(event);
    }
}

/// Accept, first frame, pick, connect, preface, one answer, end.
fn one_session(engine: &mut Engine, key: u32) {
    let now = Timestamp::from_millis(1);
    let peer = ([127, 0, 0, 1], 40_000).into();
    let session = engine.accept(now, ListenerId(0), peer).expect("room");
    let frame = [key.to_be_bytes(), *b"body"].concat();
    engine.handle(
        now,
        Input::Received {
            session,
            bytes: &frame,
        },
    );
    drain(engine);
    engine.handle(
        now,
        Input::Connected {
            session,
            attempt: 0,
        },
    );
    drain(engine);
    let report = Report {
        forward: 8,
        ..Report::default()
    };
    engine.handle(
        now,
        Input::Relayed {
            session,
            attempt: 0,
            report,
            quiet: None,
        },
    );
    drain(engine);
    let standing = Standing::Finished(Ends::FIN);
    let report = Report {
        back: 8,
        ended: [true, true],
        standing,
        ..Report::default()
    };
    engine.handle(
        now,
        Input::Relayed {
            session,
            attempt: 0,
            report,
            quiet: None,
        },
    );
    drain(engine);
}

fn sessions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    group.throughput(Throughput::Elements(1));
    let mut idle = engine();
    let mut key = 0u32;
    group.bench_function("whole life, nobody else there", |bench| {
        bench.iter(|| {
            key = key.wrapping_add(1);
            one_session(&mut idle, key);
        });
    });
    let mut busy = engine();
    for _ in 0..100_000 {
        let peer = ([127, 0, 0, 1], 40_000).into();
        busy.accept(Timestamp::ZERO, ListenerId(0), peer)
            .expect("room");
        drain(&mut busy);
    }
    group.bench_function("whole life, 100,000 others there", |bench| {
        bench.iter(|| {
            key = key.wrapping_add(1);
            one_session(&mut busy, key);
        });
    });
    group.finish();
}

/// A message each way: event, read, write.
fn message(duplex: &mut Duplex, from: Side) {
    duplex.ready(
        from,
        Readiness {
            readable: true,
            ..Readiness::default()
        },
    );
    while let Some(op) = duplex.next_op() {
        match op {
            Op::Fill(dir, via) => {
                duplex.filled(
                    dir,
                    via,
                    Outcome::Moved {
                        bytes: 64,
                        short: true,
                    },
                );
            }
            Op::Drain(dir) => duplex.drained(
                dir,
                Outcome::Moved {
                    bytes: 64,
                    short: false,
                },
            ),
            op => unreachable!("a quiet relay asks for nothing but bytes: {op:?}"),
        }
    }
    black_box(duplex.take_report());
}

fn relays(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("duplex");
    group.throughput(Throughput::Elements(1));
    let mut relay = Duplex::new(Mode::Copy);
    relay.begin(0, false);
    group.bench_function("message there and back", |bench| {
        bench.iter(|| {
            message(&mut relay, Side::Client);
            message(&mut relay, Side::Backend);
        });
    });
    group.bench_function("begin, two FINs, end", |bench| {
        bench.iter_batched_ref(
            || Duplex::new(Mode::Copy),
            |duplex| {
                duplex.begin(0, false);
                for side in Side::BOTH {
                    duplex.ready(
                        side,
                        Readiness {
                            readable: true,
                            ..Readiness::default()
                        },
                    );
                }
                while let Some(op) = duplex.next_op() {
                    match op {
                        Op::Fill(dir, via) => duplex.filled(dir, via, Outcome::Eof),
                        Op::Shutdown(side) => duplex.shut(side, Ok(())),
                        op => unreachable!("an empty relay only ends: {op:?}"),
                    }
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, sessions, relays);
criterion_main!(benches);
