//! What a pick costs, and what building a table costs.
//!
//! Picks go through `Balancer::pick`, as the engine calls it, with a new key each time: the
//! processor's caches and its branch predictor see what they would see in service.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tlb_engine::balance::{Balancer, Policy, Query, hash_key};
use tlb_engine::config::Failover;
use tlb_engine::ids::Incarnation;
use tlb_engine::rng::Rng;
use tlb_engine::roster::{Backend, Pool};

/// Backends and points of each: 10, 1,000, 100,000, the default of 16 backends, and 1,280,000 in
/// all.
const RINGS: [(u32, u32); 5] = [
    (10, 1),
    (10, 100),
    (1000, 100),
    (16, Policy::POINTS),
    (10_000, 128),
];

fn pool(policy: Policy, backends: u32) -> Pool {
    let backends = (0..backends)
        .map(|number| {
            Arc::new(Backend {
                id: format!("10.0.{}.{}:7000", number / 256, number % 256).into(),
                incarnation: Incarnation(number),
                address: None,
                weight: 1,
                ..Backend::default()
            })
        })
        .collect();
    Pool::new("pool", policy, Failover::default(), backends)
}

/// Every policy and pool that is measured, by name.
fn subjects() -> Vec<(String, Policy, u32)> {
    let mut subjects: Vec<_> = RINGS
        .iter()
        .map(|&(backends, points)| {
            let name = format!("ring/{backends}x{points}");
            (name, Policy::HashRing { points }, backends)
        })
        .collect();
    subjects.push(("maglev/10000".into(), Policy::Maglev, 10_000));
    for backends in [16, 1000] {
        for (name, policy) in [
            ("maglev", Policy::Maglev),
            ("round-robin", Policy::RoundRobin),
            ("least-sessions", Policy::LeastSessions),
            ("power-of-two", Policy::PowerOfTwo),
        ] {
            subjects.push((format!("{name}/{backends}"), policy, backends));
        }
    }
    subjects
}

fn query(key: u64) -> Query<'static> {
    Query {
        key: Some(key),
        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
        tried: &[],
    }
}

fn picks(c: &mut Criterion) {
    let mut group = c.benchmark_group("pick");
    for (name, policy, backends) in subjects() {
        let pool = pool(policy, backends);
        let mut balancer = Balancer::default();
        let mut rng = Rng::new(1);
        let mut keys = Rng::new(2);
        group.bench_function(&name, |b| {
            b.iter(|| balancer.pick(&pool, &query(keys.next_u64()), |_| true, &mut rng));
        });
    }
    let one_down = pool(Policy::DEFAULT, 16);
    let mut keys = Rng::new(2);
    group.bench_function("ring/16x8192, one down", |b| {
        let mut rng = Rng::new(1);
        b.iter(|| {
            Balancer::default().pick(&one_down, &query(keys.next_u64()), |s| s != 5, &mut rng)
        });
    });
    group.bench_function("ring/16x8192, all down", |b| {
        let mut rng = Rng::new(1);
        b.iter(|| {
            Balancer::default().pick(&one_down, &query(keys.next_u64()), |_| false, &mut rng)
        });
    });
    let mut bounded = pool(Policy::DEFAULT, 16);
    bounded.bounded_load = Some(125);
    group.bench_function("ring/16x8192, bounded", |b| {
        let mut rng = Rng::new(1);
        b.iter(|| Balancer::default().pick(&bounded, &query(keys.next_u64()), |_| true, &mut rng));
    });
    group.finish();
}

fn hashes(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash");
    for length in [4, 16, 64, 1024] {
        let key = vec![7; length];
        group.bench_with_input(BenchmarkId::from_parameter(length), &key, |b, key| {
            b.iter(|| hash_key(black_box(key)));
        });
    }
    group.finish();
}

fn builds(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    for (name, policy, backends) in subjects() {
        if matches!(policy, Policy::HashRing { .. } | Policy::Maglev) {
            let backends = pool(policy, backends).backends().to_vec();
            group.bench_function(&name, |b| {
                b.iter(|| Pool::new("pool", policy, Failover::default(), backends.clone()));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, picks, hashes, builds);
criterion_main!(benches);
