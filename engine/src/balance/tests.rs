//! What all of the balance tests share.

mod mapping;
mod movement;
mod picks;

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::config::Failover;
use crate::ids::Incarnation;
use crate::rng::Rng;

const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

const POLICIES: [Policy; 6] = [
    Policy::HashRing { points: 64 },
    Policy::Source { points: 64 },
    Policy::Maglev,
    Policy::RoundRobin,
    Policy::LeastSessions,
    Policy::PowerOfTwo,
];

fn backend(id: &str, weight: u32) -> Arc<Backend> {
    Arc::new(Backend {
        id: id.into(),
        incarnation: Incarnation(hash_key(id.as_bytes()) as u32),
        address: None,
        weight,
        ..Backend::default()
    })
}

fn pool(policy: Policy, members: &[(&str, u32)]) -> Pool {
    let backends = members
        .iter()
        .map(|(id, weight)| backend(id, *weight))
        .collect();
    Pool::new("pool", policy, Failover::default(), backends)
}

/// A pool of `b0`, `b1`, ... with these weights.
fn numbered(policy: Policy, weights: &[u32]) -> Pool {
    let ids: Vec<String> = (0..weights.len()).map(|n| format!("b{n}")).collect();
    let members: Vec<_> = ids
        .iter()
        .map(String::as_str)
        .zip(weights.iter().copied())
        .collect();
    pool(policy, &members)
}

fn keyed(hash: u64) -> Query<'static> {
    Query {
        key: Some(hash),
        source: NOWHERE,
        tried: &[],
    }
}

fn keyless() -> Query<'static> {
    Query {
        key: None,
        ..keyed(0)
    }
}

/// The hashes of some keys as devices have them: small numbers in four bytes.
fn keys(count: u32) -> impl Iterator<Item = u64> {
    (0..count).map(|station| hash_key(&station.to_be_bytes()))
}

/// The backend that a key's session is given to, while `away` are not to be had.
fn owner<'a>(pool: &'a Pool, hash: u64, away: &[&str]) -> Option<&'a str> {
    let eligible = |slot: usize| !away.contains(&&*pool.backends()[slot].id);
    // The seed differs from key to key, and must not matter.
    let slot = Balancer::default().pick(pool, &keyed(hash), eligible, &mut Rng::new(hash))?;
    Some(&pool.backends()[slot].id)
}

fn weights(most: u32) -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(1..=most, 1..20)
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
