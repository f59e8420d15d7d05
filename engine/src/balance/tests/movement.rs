//! Which keys move when backends come, go, and come back.

use super::*;

/// How many of `count` keys have another owner in `after`, not counting those that belonged to
/// `gone` before or belong to `come` now.
fn bystanders(before: &Pool, after: &Pool, gone: &str, come: &str, count: u32) -> u32 {
    let mut moved = 0;
    for hash in keys(count) {
        let (was, is) = (owner(before, hash, &[]), owner(after, hash, &[]));
        moved += u32::from(was != is && was != Some(gone) && is != Some(come));
    }
    moved
}

fn without(pool: &Pool, id: &str) -> Pool {
    let mut rest = pool.backends().to_vec();
    rest.retain(|backend| &*backend.id != id);
    pool.with_backends(rest)
}

#[test]
fn taking_one_of_sixteen_moves_its_keys_and_no_others() {
    let before = numbered(Policy::DEFAULT, &[1; 16]);
    for gone in ["b0", "b7", "b15"] {
        let after = without(&before, gone);
        assert_eq!(bystanders(&before, &after, gone, "", 20_000), 0);
        // The same the other way: a newcomer gets its share and nothing else moves.
        assert_eq!(bystanders(&after, &before, "", gone, 20_000), 0);
        let moved = keys(20_000).filter(|hash| owner(&before, *hash, &[]) == Some(gone));
        let share = moved.count() as f64 / 20_000.0 * 16.0;
        assert!(
            (0.88..1.12).contains(&share),
            "{gone} had {share} of its share"
        );
    }
}

#[test]
fn a_maglev_table_moves_few_others() {
    // Measured: 0.05 %, 0.3 %, 0.6 % and 1 % of all keys.
    for (count, most) in [(4, 0.002), (16, 0.006), (100, 0.012), (500, 0.016)] {
        let before = numbered(Policy::Maglev, &alloc::vec![1; count]);
        for gone in ["b0", "b2", "b3"] {
            let after = without(&before, gone);
            let moved = f64::from(bystanders(&before, &after, gone, "", 20_000)) / 20_000.0;
            assert!(moved < most, "{moved} of {count} without {gone}");
        }
    }
}

#[test]
fn a_maglev_table_moves_few_others_when_weights_differ() {
    let weights: Vec<u32> = (0..16).map(|n| 1 + n % 5).collect();
    let before = numbered(Policy::Maglev, &weights);
    for gone in ["b0", "b4", "b9"] {
        let moved = bystanders(&before, &without(&before, gone), gone, "", 20_000);
        assert!(f64::from(moved) / 20_000.0 < 0.01);
    }
}

#[test]
fn keys_of_one_that_is_down_spread_by_weight_and_come_back() {
    for policy in [Policy::DEFAULT, Policy::Maglev] {
        let pool = pool(policy, &[("a", 4), ("b", 1), ("c", 3), ("d", 2)]);
        let (mut to_b, mut to_c, mut to_d) = (0_u32, 0_u32, 0_u32);
        for hash in keys(20_000) {
            let usual = owner(&pool, hash, &[]);
            let meanwhile = owner(&pool, hash, &["a"]);
            match (usual, meanwhile) {
                (Some("a"), Some("b")) => to_b += 1,
                (Some("a"), Some("c")) => to_c += 1,
                (Some("a"), Some("d")) => to_d += 1,
                _ => assert_eq!(usual, meanwhile, "{policy:?} moved a bystander"),
            }
            assert_eq!(
                owner(&pool, hash, &[]),
                usual,
                "{policy:?}: it did not come back"
            );
        }
        let unit = f64::from(to_b + to_c + to_d) / 6.0;
        for (count, weight) in [(to_b, 1.0), (to_c, 3.0), (to_d, 2.0)] {
            let share = f64::from(count) / unit / weight;
            assert!(
                (0.88..1.12).contains(&share),
                "{policy:?}: {share} of the share"
            );
        }
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn on_the_ring_only_the_keys_of_the_changed_move(
        weights in weights(4),
        which: usize,
        points in 1_u32..100,
    ) {
        let before = numbered(Policy::HashRing { points }, &weights);
        let gone = before.backends()[which % weights.len()].id.clone();
        let after = without(&before, &gone);
        for hash in keys(300) {
            let was = owner(&before, hash, &[]);
            // Being removed and being down look alike from here.
            prop_assert_eq!(owner(&after, hash, &[]), owner(&before, hash, &[&gone]));
            if was != Some(&*gone) {
                prop_assert_eq!(was, owner(&after, hash, &[]));
            }
        }
    }

    #[test]
    fn a_heavier_weight_only_draws_keys_to_itself(
        weights in weights(4),
        which: usize,
        points in 1_u32..100,
    ) {
        let before = numbered(Policy::HashRing { points }, &weights);
        let slot = which % weights.len();
        let mut backends = before.backends().to_vec();
        let heavier = Backend { weight: backends[slot].weight + 1, ..(*backends[slot]).clone() };
        let id = heavier.id.clone();
        backends[slot] = Arc::new(heavier);
        let after = before.with_backends(backends);
        prop_assert_eq!(bystanders(&before, &after, "", &id, 300), 0);
    }

    #[test]
    fn a_backend_that_is_down_moves_only_its_own_keys(
        weights in weights(4),
        which: usize,
        other: usize,
    ) {
        for policy in [Policy::HashRing { points: 50 }, Policy::Maglev] {
            let pool = numbered(policy, &weights);
            let down = &*pool.backends()[which % weights.len()].id;
            let also = &*pool.backends()[other % weights.len()].id;
            for hash in keys(100) {
                let one = owner(&pool, hash, &[down]);
                if owner(&pool, hash, &[]) != Some(down) {
                    prop_assert_eq!(one, owner(&pool, hash, &[]));
                }
                // And so it goes on with the second one.
                if one != Some(also) {
                    prop_assert_eq!(one, owner(&pool, hash, &[down, also]));
                }
            }
        }
    }
}
