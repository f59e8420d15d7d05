//! Where keys belong: the fixed mapping, and how even it is.

use super::*;
use core::net::Ipv6Addr;
use std::string::ToString;

const MEMBERS: [(&str, u32); 6] = [
    ("a", 2),
    ("b", 1),
    ("c", 1),
    ("s01", 3),
    ("10.0.0.7:7000", 1),
    ("7d3a1f0e-6f0b-4c8e-9a52-3f1f4f0c2b11", 1),
];

/// The owners of a key, each passed over once it was named.
fn owners(pool: &Pool, hash: u64) -> Vec<&str> {
    let mut tried = Vec::new();
    let mut balancer = Balancer::default();
    let mut rng = Rng::new(1);
    loop {
        let query = Query {
            tried: &tried,
            ..keyed(hash)
        };
        match balancer.pick(pool, &query, |_| true, &mut rng) {
            Some(slot) => tried.push(slot as u32),
            None => break,
        }
    }
    tried
        .iter()
        .map(|slot| &*pool.backends()[*slot as usize].id)
        .collect()
}

/// One number for the owners of 10,000 keys, all six of each in their order.
fn digest(policy: Policy) -> u64 {
    let pool = pool(policy, &MEMBERS);
    let mut lines = String::new();
    for key in 0..10_000 {
        let hash = hash_key(format!("key-{key}").as_bytes());
        lines += &owners(&pool, hash).join(",");
        lines += ";";
    }
    hash_key(lines.as_bytes())
}

// All expected values here come from a program in another language, written from the module's
// documentation.

#[test]
fn hashes_are_the_published_xxh3() {
    assert_eq!(hash_key(b""), 0x2d06_8005_38d3_94c2);
    assert_eq!(hash_key(&[0, 0, 0, 1]), 0x0da1_a814_1638_550f);
    assert_eq!(hash_key(b"station-7"), 0x382d_1466_c04d_7d47);
    assert_eq!(hash_key(&[0xff; 300]), 0xa6eb_8a92_d637_e066);
}

#[test]
fn an_address_counts_as_its_bytes_and_a_mapped_one_as_the_ipv4_it_is() {
    let v4 = Ipv4Addr::new(192, 0, 2, 1);
    assert_eq!(hash_source(v4.into()), 0x2c1c_901e_ed9a_dc4a);
    assert_eq!(
        hash_source(v4.to_ipv6_mapped().into()),
        0x2c1c_901e_ed9a_dc4a
    );
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    assert_eq!(hash_source(v6.into()), 0x275c_8fa5_8c2d_19a0);
}

#[test]
fn ring_owners_are_fixed() {
    let pool = pool(Policy::DEFAULT, &MEMBERS);
    for (hash, first) in [
        (0, ["c", "s01", "b"]),
        (u64::MAX, ["c", "s01", "b"]),
        (1 << 63, ["a", "s01", "10.0.0.7:7000"]),
        (hash_key(b"key-1"), ["c", "a", "s01"]),
        (hash_key(b"key-5"), ["b", "s01", "a"]),
    ] {
        assert_eq!(owners(&pool, hash)[..3], first);
    }
    assert_eq!(digest(Policy::DEFAULT), 0xa938_7500_8b85_4a1f);
    assert_eq!(
        digest(Policy::HashRing { points: 1 }),
        0x703a_9a7d_9c5d_5aac
    );
}

#[test]
fn maglev_owners_are_fixed() {
    let pool = pool(Policy::Maglev, &MEMBERS);
    for (hash, first) in [
        (0, ["s01", "a", "10.0.0.7:7000"]),
        (u64::MAX, ["s01", "b", "a"]),
        (1 << 63, ["b", "c", "s01"]),
        (hash_key(b"key-1"), ["b", "10.0.0.7:7000", "a"]),
    ] {
        assert_eq!(owners(&pool, hash)[..3], first);
    }
    assert_eq!(digest(Policy::Maglev), 0xe862_f0b7_09fc_20ea);
}

#[test]
fn source_is_the_ring_by_address_whatever_the_key() {
    let ring = pool(Policy::DEFAULT, &MEMBERS);
    let by_source = pool(
        Policy::Source {
            points: Policy::POINTS,
        },
        &MEMBERS,
    );
    for host in 0..=255 {
        let source = IpAddr::V4(Ipv4Addr::new(10, 1, 2, host));
        let query = Query {
            key: Some(7),
            source,
            tried: &[],
        };
        let slot = Balancer::default().pick(&by_source, &query, |_| true, &mut Rng::new(3));
        let expected = owner(&ring, hash_source(source), &[]);
        assert_eq!(slot.map(|slot| &*by_source.backends()[slot].id), expected);
    }
}

/// Sixteen ids in each of the ways in which people name backends.
fn id_sets() -> Vec<Vec<String>> {
    let sixteen = |name: &dyn Fn(u64) -> String| (0..16).map(name).collect::<Vec<_>>();
    let mut sets = alloc::vec![
        sixteen(&|n| char::from(b'a' + n as u8).to_string()),
        sixteen(&|n| n.to_string()),
        sixteen(&|n| format!("b{n}")),
        sixteen(&|n| format!("b{}", n + 1)),
        sixteen(&|n| format!("s{n:02}")),
        sixteen(&|n| format!("s{:02}", n + 1)),
        sixteen(&|n| format!("srv{n}")),
        sixteen(&|n| format!("backend-{n}")),
        sixteen(&|n| format!("backend-{n:04}.example.net")),
        sixteen(&|n| format!("{n:064}")),
        sixteen(&|n| format!("{n:0400}")),
    ];
    for net in 0..20 {
        sets.push(sixteen(&|n| format!("10.0.{net}.{n}:7000")));
        sets.push(sixteen(&|n| format!("127.0.{net}.{}:{}", n + 11, 7001)));
        sets.push(sixteen(&|n| {
            format!("192.168.2.115:{}", 22_000 + 16 * net + n)
        }));
        let mut rng = Rng::new(net);
        sets.push(
            (0..16)
                .map(|_| format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64()))
                .collect(),
        );
    }
    sets
}

/// How far the worst backend's part is from its due part, relative to that.
fn worst(shares: &[f64], weights: &[u32]) -> f64 {
    let total: u32 = weights.iter().sum();
    shares
        .iter()
        .zip(weights)
        .map(|(share, weight)| (share * f64::from(total) / f64::from(*weight) - 1.0).abs())
        .fold(0.0, f64::max)
}

fn ring_shares(points: u32, ids: &[String], weights: &[u32]) -> Vec<f64> {
    let mut backends: Vec<_> = ids
        .iter()
        .zip(weights)
        .map(|(id, weight)| backend(id, *weight))
        .collect();
    backends.sort_by(|a, b| a.id.cmp(&b.id));
    let ring = Ring::build(points, &backends);
    let by_slot = ring.shares(backends.len());
    let slot_of = |id: &String| backends.iter().position(|backend| *backend.id == **id);
    ids.iter().map(|id| by_slot[slot_of(id).unwrap()]).collect()
}

#[test]
fn the_worst_of_sixteen_is_within_five_per_cent_of_its_share() {
    for ids in id_sets() {
        let error = worst(&ring_shares(Policy::POINTS, &ids, &[1; 16]), &[1; 16]);
        assert!(error < 0.05, "{error} with {ids:?}");
    }
}

#[test]
fn so_it_is_with_weights() {
    let mut rng = Rng::new(5);
    for (round, ids) in id_sets().iter().enumerate().step_by(7) {
        let weights: Vec<u32> = (0..16).map(|_| 1 + rng.below(5) as u32).collect();
        let error = worst(&ring_shares(Policy::POINTS, ids, &weights), &weights);
        assert!(error < 0.05, "{error} in round {round} with {weights:?}");
    }
}

#[test]
fn ids_of_up_to_three_bytes_do_not_share_points() {
    // With XXH3's own seed they would, nearly all: see the documentation of `balance`.
    let ids: Vec<String> = (0..16).map(|n| format!("s{n:02}")).collect();
    let backends: Vec<_> = ids.iter().map(|id| backend(id, 1)).collect();
    let ring = Ring::build(Policy::POINTS, &backends);
    let points: Vec<u64> = ring.in_order().map(|(point, _)| point).collect();
    assert_eq!(points.len(), 16 * Policy::POINTS as usize);
    assert!(points.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn maglev_shares_are_exact_to_two_entries() {
    let mut rng = Rng::new(5);
    for count in [1, 2, 3, 16, 100, 1000] {
        let weights: Vec<u32> = (0..count).map(|_| 1 + rng.below(9) as u32).collect();
        let pool = numbered(Policy::Maglev, &weights);
        let Table::Maglev(maglev) = pool.table() else {
            panic!("not a maglev table");
        };
        let mut entries = alloc::vec![0_u32; count];
        for entry in 0..Maglev::SIZE as u128 {
            let hash = ((entry << 64) / Maglev::SIZE as u128 + 1) as u64;
            entries[maglev.walk(hash).next().unwrap()] += 1;
        }
        assert_eq!(entries.iter().sum::<u32>() as usize, Maglev::SIZE);
        let total: u32 = weights.iter().sum();
        for (slot, backend) in pool.backends().iter().enumerate() {
            let due = Maglev::SIZE as f64 * f64::from(backend.weight) / f64::from(total);
            assert!((f64::from(entries[slot]) - due).abs() < 2.0);
        }
    }
}

#[test]
fn a_keyless_session_goes_anywhere_by_weight() {
    for policy in [Policy::DEFAULT, Policy::Maglev, Policy::PowerOfTwo] {
        let pool = pool(policy, &[("a", 1), ("b", 2), ("c", 5)]);
        let mut rng = Rng::new(11);
        let mut counts = [0_u32; 3];
        for _ in 0..16_000 {
            let slot = Balancer::default().pick(&pool, &keyless(), |slot| slot < 2, &mut rng);
            counts[slot.unwrap()] += 1;
        }
        assert_eq!(counts[2], 0, "{policy:?} picked what is not eligible");
        let heavier = f64::from(counts[1]) / f64::from(counts[0]);
        // Without load, power of two choices draws the first of its two by weight.
        assert!((1.85..2.15).contains(&heavier), "{policy:?}: {counts:?}");
    }
}

proptest! {
    #![proptest_config(cases(40))]

    /// The packed ring against the plain one: a sorted list of points.
    #[test]
    fn the_ring_is_a_sorted_list_of_points(
        weights in weights(5),
        points in 1_u32..200,
        hashes in proptest::collection::vec(any::<u64>(), 50),
    ) {
        let pool = numbered(Policy::HashRing { points }, &weights);
        let Table::Ring(ring) = pool.table() else { panic!("not a ring") };
        let mut plain = Vec::new();
        for (slot, backend) in pool.backends().iter().enumerate() {
            let mut rng = Rng::new(hash_key(backend.id.as_bytes()));
            plain.extend((0..points * backend.weight).map(|_| (rng.next_u64(), slot)));
        }
        plain.sort_unstable();
        prop_assert_eq!(ring.points(), plain.len());
        prop_assert!(ring.in_order().eq(plain.iter().copied()));
        // Every hash that matters: some by chance, and those on, before and after a point.
        let near = plain.iter().flat_map(|(point, _)| [point - 1, *point, point + 1]).take(300);
        for hash in hashes.into_iter().chain([0, u64::MAX]).chain(near) {
            let at = plain.partition_point(|(point, _)| *point < hash);
            let expected = plain[at..].iter().chain(&plain[..at]).map(|(_, slot)| *slot);
            prop_assert!(ring.walk(hash).eq(expected));
        }
    }

    #[test]
    fn the_order_in_which_backends_are_listed_does_not_matter(
        weights in weights(5),
        seed: u64,
    ) {
        for policy in [Policy::HashRing { points: 100 }, Policy::Maglev] {
            let listed = numbered(policy, &weights);
            let mut shuffled = listed.backends().to_vec();
            let mut rng = Rng::new(seed);
            for end in (1..shuffled.len()).rev() {
                shuffled.swap(end, rng.below(end as u64 + 1) as usize);
            }
            let other = Pool::new("other", policy, Failover::default(), shuffled);
            for hash in keys(200) {
                prop_assert_eq!(owner(&listed, hash, &[]), owner(&other, hash, &[]));
            }
        }
    }
}

#[test]
fn a_policy_says_what_would_fit() {
    let ring = |points| Policy::HashRing { points };
    assert_eq!(ring(0).check([1]), Err(PolicyError::NoPoints));
    assert_eq!(
        Policy::Source { points: 0 }.check([]),
        Err(PolicyError::NoPoints)
    );
    assert_eq!(Policy::DEFAULT.check([32; 16]), Ok(()), "exactly the most");
    let too_many = Policy::DEFAULT.check([100; 16]);
    assert_eq!(
        too_many,
        Err(PolicyError::TooManyPoints {
            wanted: 13_107_200,
            fits: 2621
        })
    );
    assert_eq!(
        too_many.unwrap_err().to_string(),
        "the ring would have 13107200 points, more than 4194304: set points = 2621 or less, \
         or divide the weights by a common factor"
    );
    assert_eq!(ring(2621).check([100; 16]), Ok(()));
    assert!(ring(2622).check([100; 16]).is_err());
    assert_eq!(
        ring(u32::MAX).check([u32::MAX; 3]),
        Err(PolicyError::TooManyPoints {
            wanted: u64::MAX,
            fits: 0
        })
    );
    assert_eq!(ring(1).check([]), Ok(()));
    assert_eq!(Policy::Maglev.check([]), Ok(()));
    assert_eq!(Policy::Maglev.check([1, 65_536]), Ok(()));
    assert_eq!(
        Policy::Maglev.check([1, 65_537]),
        Err(PolicyError::TooUneven {
            least: 1,
            total: 65_538
        })
    );
    assert_eq!(Policy::RoundRobin.check([u32::MAX; 9]), Ok(()));
}

#[test]
fn whoever_passes_the_check_has_a_maglev_entry() {
    let pool = pool(Policy::Maglev, &[("a", 65_536), ("b", 1)]);
    assert_eq!(owner(&pool, 12_345, &["a"]), Some("b"));
    let Table::Maglev(maglev) = pool.table() else {
        panic!("not a maglev table");
    };
    assert!(maglev.walk(12_345).any(|slot| slot == 1));
}
