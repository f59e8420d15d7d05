//! Who may be picked at all, and the policies that look at turns and load.

use super::*;

fn add_load(pool: &Pool, slot: usize, sessions: u32) {
    for _ in 0..sessions {
        pool.backends()[slot].load.add();
    }
}

fn loads(pool: &Pool) -> Vec<u32> {
    pool.backends()
        .iter()
        .map(|backend| backend.load.get())
        .collect()
}

#[test]
fn the_ring_and_maglev_need_a_key() {
    let needy = POLICIES.into_iter().filter(|policy| policy.needs_key());
    let needy: Vec<Policy> = needy.collect();
    assert!(
        needy
            .iter()
            .all(|it| matches!(it, Policy::HashRing { .. } | Policy::Maglev))
    );
    assert!(needy.contains(&Policy::Maglev) && needy.len() > 1);
}

#[test]
fn a_pool_without_anybody_to_pick_has_nobody() {
    for policy in POLICIES {
        let mut rng = Rng::new(1);
        for bounded_load in [None, Some(125)] {
            let mut empty = pool(policy, &[]);
            empty.bounded_load = bounded_load;
            let mut one = pool(policy, &[("a", 3)]);
            one.bounded_load = bounded_load;
            let tried = Query {
                tried: &[0],
                ..keyed(9)
            };
            for query in [keyed(9), keyless()] {
                let mut balancer = Balancer::default();
                assert_eq!(balancer.pick(&empty, &query, |_| true, &mut rng), None);
                assert_eq!(balancer.pick(&one, &query, |_| true, &mut rng), Some(0));
                assert_eq!(balancer.pick(&one, &query, |_| false, &mut rng), None);
                assert_eq!(balancer.pick(&one, &tried, |_| true, &mut rng), None);
            }
        }
    }
}

#[test]
fn the_last_one_standing_is_found_in_a_large_pool() {
    for policy in POLICIES {
        let pool = numbered(policy, &[1; 500]);
        let mut balancer = Balancer::default();
        let mut rng = Rng::new(1);
        for hash in keys(20) {
            let pick = balancer.pick(&pool, &keyed(hash), |slot| slot == 137, &mut rng);
            assert_eq!(pick, Some(137), "{policy:?}");
        }
    }
}

#[test]
fn picks_are_a_function_of_the_seed() {
    for policy in POLICIES {
        let run = |seed| {
            let pool = numbered(policy, &[1, 2, 3, 1, 2, 3]);
            let mut balancer = Balancer::default();
            let mut rng = Rng::new(seed);
            let mut picked = Vec::new();
            for _ in 0..50 {
                let slot = balancer
                    .pick(&pool, &keyless(), |_| true, &mut rng)
                    .unwrap();
                pool.backends()[slot].load.add();
                picked.push(slot);
            }
            picked
        };
        assert_eq!(run(4), run(4), "{policy:?}");
        // The source's address is a key that is always there: no chance.
        let source = matches!(policy, Policy::Source { .. });
        assert_eq!(run(4) == run(5), source, "{policy:?}");
    }
}

#[test]
fn round_robin_passes_everyone_once_a_round_and_each_engine_in_its_own_order() {
    let pool = numbered(Policy::RoundRobin, &[1; 7]);
    let mut orders = Vec::new();
    for seed in 0..10 {
        let mut balancer = Balancer::default();
        let mut rng = Rng::new(seed);
        let mut round = || {
            let picks = (0..7).map(|_| balancer.pick(&pool, &keyless(), |_| true, &mut rng));
            picks.map(Option::unwrap).collect::<Vec<_>>()
        };
        let first = round();
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(round(), first, "the order stays");
        orders.push(first);
    }
    orders.sort_unstable();
    orders.dedup();
    assert!(orders.len() >= 9, "engines march in step: {orders:?}");
}

#[test]
fn round_robin_lets_the_light_in_between_the_heavy() {
    let pool = pool(Policy::RoundRobin, &[("a", 5), ("b", 1), ("c", 1)]);
    for seed in 0..20 {
        let mut balancer = Balancer::default();
        let mut rng = Rng::new(seed);
        let picks: Vec<_> = (0..70)
            .map(|_| {
                balancer
                    .pick(&pool, &keyless(), |_| true, &mut rng)
                    .unwrap()
            })
            .collect();
        for (slot, due) in [(0, 50), (1, 10), (2, 10)] {
            assert_eq!(picks.iter().filter(|pick| **pick == slot).count(), due);
        }
        let in_a_row = picks.split(|slot| *slot != 0).map(<[usize]>::len).max();
        assert!(in_a_row <= Some(5), "{picks:?}");
    }
}

#[test]
fn round_robin_goes_on_where_it_was_when_the_membership_changes() {
    let mut balancer = Balancer::default();
    let mut rng = Rng::new(1);
    let mut members = numbered(Policy::RoundRobin, &[1; 8]);
    // One leaves in the middle of a round: those who had their turn wait until the others have had
    // theirs.
    let mut had = Vec::new();
    for _ in 0..4 {
        let slot = balancer
            .pick(&members, &keyless(), |_| true, &mut rng)
            .unwrap();
        had.push(members.backends()[slot].id.clone());
    }
    let mut rest = members.backends().to_vec();
    rest.retain(|backend| backend.id != had[0]);
    members = members.with_backends(rest);
    for _ in 0..4 {
        let slot = balancer
            .pick(&members, &keyless(), |_| true, &mut rng)
            .unwrap();
        let id = &members.backends()[slot].id;
        assert!(!had.contains(id), "{id} had its turn already: {had:?}");
        had.push(id.clone());
    }
}

#[test]
fn round_robin_owes_nobody_more_than_two_rounds_when_the_pool_shrinks() {
    let pool = numbered(Policy::RoundRobin, &[1; 100]);
    for seed in 0..20 {
        let mut balancer = Balancer::default();
        let mut rng = Rng::new(seed);
        // Two of a hundred are open from the start: they take turns at once.
        let two = |slot: usize| slot == 3 || slot == 77;
        let mut pick = |open: &dyn Fn(usize) -> bool| {
            balancer.pick(&pool, &keyless(), open, &mut rng).unwrap()
        };
        let (first, second) = (pick(&two), pick(&two));
        assert_ne!(first, second);
        assert_eq!(pick(&two), first);
        // After a while in the full pool one of them has just paid for a hundred.
        while pick(&|_| true) != 3 {}
        let turns: Vec<_> = (0..6).map(|_| pick(&two)).collect();
        assert!(turns.contains(&3), "{turns:?}");
    }
}

#[test]
fn least_sessions_is_least_for_the_weight() {
    let pool = pool(Policy::LeastSessions, &[("a", 1), ("b", 2), ("c", 4)]);
    let mut balancer = Balancer::default();
    let mut rng = Rng::new(1);
    let mut pick = |pool: &Pool| balancer.pick(pool, &keyless(), |_| true, &mut rng);
    add_load(&pool, 0, 2);
    add_load(&pool, 1, 3);
    add_load(&pool, 2, 7);
    assert_eq!(pick(&pool), Some(1), "3 / 2 is less than 7 / 4 and 2 / 1");
    add_load(&pool, 1, 1);
    assert_eq!(pick(&pool), Some(2), "7 / 4 is less than 2");
    // From a tie at 2 sessions for each unit of weight, seven more come to one more for each.
    add_load(&pool, 2, 1);
    for _ in 0..7 {
        let slot = pick(&pool).unwrap();
        add_load(&pool, slot, 1);
    }
    assert_eq!(loads(&pool), [3, 6, 12]);
}

#[test]
fn least_sessions_breaks_ties_by_weight() {
    let pool = pool(Policy::LeastSessions, &[("a", 1), ("b", 3), ("c", 4)]);
    add_load(&pool, 2, 1);
    let mut rng = Rng::new(1);
    let mut counts = [0_u32; 3];
    for _ in 0..8000 {
        let slot = Balancer::default().pick(&pool, &keyless(), |_| true, &mut rng);
        counts[slot.unwrap()] += 1;
    }
    assert_eq!(counts[2], 0);
    assert!((2.7..3.3).contains(&(f64::from(counts[1]) / f64::from(counts[0]))));
}

#[test]
fn power_of_two_avoids_the_most_loaded_and_keeps_loads_close() {
    let members = pool(Policy::PowerOfTwo, &[("a", 1), ("b", 1), ("c", 1)]);
    add_load(&members, 1, 1);
    let mut rng = Rng::new(1);
    for _ in 0..500 {
        let slot = Balancer::default().pick(&members, &keyless(), |_| true, &mut rng);
        assert_ne!(
            slot,
            Some(1),
            "any two different ones have a less loaded one"
        );
    }

    let many = numbered(Policy::PowerOfTwo, &[1; 100]);
    for _ in 0..10_000 {
        let slot = Balancer::default().pick(&many, &keyless(), |_| true, &mut rng);
        add_load(&many, slot.unwrap(), 1);
    }
    let most = loads(&many).into_iter().max().unwrap();
    assert!(most <= 105, "{most} where chance alone comes to about 125");
}

/// The capacity as the documentation has it, with a real division.
fn capacity(percent: u32, sessions: u64, weight: u32, weights: u64) -> u64 {
    (u64::from(percent) * (sessions + 1) * u64::from(weight)).div_ceil(100 * weights)
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn no_policy_picks_what_is_tried_or_not_eligible(
        weights in weights(9),
        open: u32,
        tried in proptest::collection::vec(0_u32..20, 0..6),
        loads in proptest::collection::vec(0_u32..5, 20),
        bounded in proptest::option::of(100_u32..200),
        seed: u64,
    ) {
        for policy in POLICIES {
            let mut pool = numbered(policy, &weights);
            pool.bounded_load = bounded;
            for (slot, load) in loads.iter().take(weights.len()).enumerate() {
                add_load(&pool, slot, *load);
            }
            let mut balancer = Balancer::default();
            let mut rng = Rng::new(seed);
            let eligible = |slot: usize| open >> slot & 1 == 1;
            let may = |slot: usize| eligible(slot) && !tried.contains(&(slot as u32));
            let anybody = (0..weights.len()).any(may);
            for key in [None, Some(seed), Some(0), Some(u64::MAX)] {
                let query = Query { key, source: NOWHERE, tried: &tried };
                match balancer.pick(&pool, &query, eligible, &mut rng) {
                    Some(slot) => prop_assert!(slot < weights.len() && may(slot), "{:?}", policy),
                    None => prop_assert!(!anybody, "{:?} found nobody", policy),
                }
            }
        }
    }

    #[test]
    fn bounded_load_is_never_exceeded_and_otherwise_the_owner_is_kept(
        weights in weights(9),
        open: u32,
        percent in 100_u32..250,
        hot in any::<u64>(),
        sessions in 1_u32..100,
    ) {
        for policy in [Policy::HashRing { points: 20 }, Policy::Maglev] {
            let mut pool = numbered(policy, &weights);
            let unbounded = pool.clone();
            pool.bounded_load = Some(percent);
            let eligible = |slot: usize| (open | 1) >> slot & 1 == 1;
            let total_weight: u64 = pool.backends().iter().enumerate()
                .filter(|(slot, _)| eligible(*slot))
                .map(|(_, backend)| u64::from(backend.weight))
                .sum();
            let mut balancer = Balancer::default();
            let mut rng = Rng::new(1);
            for n in 0..sessions {
                // Every other session has the same key: the worst that affinity can meet.
                let hash = if n % 2 == 0 { hot } else { hash_key(&n.to_be_bytes()) };
                let before = loads(&pool);
                let slot = balancer.pick(&pool, &keyed(hash), eligible, &mut rng).unwrap();
                let room = |slot: usize| {
                    let weight = pool.backends()[slot].weight;
                    u64::from(before[slot]) < capacity(percent, u64::from(n), weight, total_weight)
                };
                prop_assert!(eligible(slot) && room(slot));
                let usual = balancer.pick(&unbounded, &keyed(hash), eligible, &mut rng).unwrap();
                prop_assert!(slot == usual || !room(usual), "moved without need");
                add_load(&pool, slot, 1);
            }
        }
    }

    #[test]
    fn round_robin_keeps_to_the_weights(
        weights in weights(9),
        open: u32,
        rounds in 1_u32..4,
        seed: u64,
    ) {
        let pool = numbered(Policy::RoundRobin, &weights);
        let eligible = |slot: usize| (open | 1) >> slot & 1 == 1;
        let total: u32 = (0..weights.len())
            .filter(|slot| eligible(*slot))
            .map(|slot| pool.backends()[slot].weight)
            .sum();
        let mut balancer = Balancer::default();
        let mut rng = Rng::new(seed);
        let mut counts = alloc::vec![0_u32; weights.len()];
        for _ in 0..rounds * total {
            counts[balancer.pick(&pool, &keyless(), eligible, &mut rng).unwrap()] += 1;
        }
        for (slot, count) in counts.iter().enumerate() {
            let due = if eligible(slot) { rounds * pool.backends()[slot].weight } else { 0 };
            let slack = u32::from(eligible(slot));
            prop_assert!(count.abs_diff(due) <= slack, "slot {} of {:?}", slot, counts);
        }
    }

    /// Memberships, weights and eligibility that change all the time.
    #[test]
    fn round_robin_survives_any_history(
        history in proptest::collection::vec((weights(1000), any::<u32>(), 0_usize..30), 1..20),
        seed: u64,
    ) {
        let mut balancer = Balancer::default();
        let mut rng = Rng::new(seed);
        for (weights, open, picks) in history {
            let pool = numbered(Policy::RoundRobin, &weights);
            for _ in 0..picks {
                let pick = balancer.pick(&pool, &keyless(), |slot| open >> slot & 1 == 1, &mut rng);
                let anybody = open & ((1 << weights.len()) - 1) != 0;
                prop_assert_eq!(pick.is_some(), anybody);
            }
        }
        // Whatever was: now everybody has its turn within two rounds.
        let pool = numbered(Policy::RoundRobin, &[1; 20]);
        let mut counts = [0_u32; 20];
        for _ in 0..60 {
            counts[balancer.pick(&pool, &keyless(), |_| true, &mut rng).unwrap()] += 1;
        }
        prop_assert!(counts.iter().all(|count| (1..=5).contains(count)), "{:?}", counts);
    }
}
