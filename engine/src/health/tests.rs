use super::*;
use crate::rng::Rng;
use proptest::prelude::*;

const FALL: u32 = 3;

fn down(strikes: u32, until: Timestamp) -> Passive {
    Passive {
        state: State::Down { until, strikes },
    }
}

fn in_trial(strikes: u32) -> Passive {
    Passive {
        state: State::Trial { strikes },
    }
}

fn bounds(strikes: u32) -> (Duration, Duration) {
    let seconds = 1_u64
        .checked_shl(strikes - 1)
        .map_or(60, |doubled| doubled.min(60));
    (
        Duration::from_millis(seconds * 800),
        Duration::from_millis(seconds * 1200),
    )
}

fn rules(fall: u32) -> Blame {
    Blame {
        fall,
        ejection: Passive::BACK_OFF_MIN,
        may_eject: true,
    }
}

#[test]
fn one_failure_less_than_fall_does_nothing_and_fall_takes_it_down() {
    for fall in [1, 2, 3, 10] {
        let mut rng = Rng::new(1);
        let mut passive = Passive::new();
        let now = Timestamp::from_millis(5);
        for _ in 1..fall {
            assert_eq!(passive.failed(now, rules(fall), &mut rng), None);
            assert!(passive.eligible(now) && !passive.is_down());
            assert_eq!(passive.retry_at(), None);
        }
        assert_eq!(
            passive.failed(now, rules(fall), &mut rng),
            Some(Change::Down)
        );
        assert!(!passive.eligible(now) && passive.is_down());
        assert!(passive.retry_at() > Some(now));
    }
}

#[test]
fn only_failures_in_a_row_count() {
    let mut rng = Rng::new(1);
    let mut passive = Passive::new();
    for _ in 0..10 {
        for _ in 1..FALL {
            assert_eq!(passive.failed(Timestamp::ZERO, rules(FALL), &mut rng), None);
        }
        // A cancel is no success: it does not interrupt the row, nor does it lengthen it.
        passive.cancelled(Timestamp::ZERO);
        assert!(!passive.is_down());
        assert_eq!(passive.succeeded(), None);
    }
}

#[test]
fn it_is_eligible_from_its_deadline_on_and_not_a_nanosecond_before() {
    let until = Timestamp::from_millis(700);
    let just_before = Timestamp::from_nanos(until.as_nanos() - 1);
    let mut passive = down(1, until);
    assert!(!passive.eligible(just_before));
    assert!(!passive.picked(just_before), "no trial before the deadline");
    assert_eq!(passive.retry_at(), Some(until));
    assert!(passive.eligible(until));
    assert!(passive.picked(until), "a trial at the deadline");
    assert!(!passive.eligible(until), "one trial at a time");
    assert!(!passive.picked(until));
    assert_eq!(passive.retry_at(), None);
    assert!(passive.is_down());
}

#[test]
fn every_transition_is_as_the_table_says() {
    let now = Timestamp::from_millis(10_000);
    let until = Timestamp::from_millis(20_000);
    let past = Timestamp::from_millis(9_000);

    // An attempt that began before the backend went down must not double the strikes.
    let mut passive = down(2, until);
    assert_eq!(passive.failed(now, rules(FALL), &mut Rng::new(1)), None);
    assert_eq!(passive.state, down(2, until).state);
    passive.cancelled(now);
    assert_eq!(passive.state, down(2, until).state);
    // Nor is it new when the back-off is over but nobody has tried.
    let mut passive = down(2, past);
    assert_eq!(passive.failed(now, rules(FALL), &mut Rng::new(1)), None);
    assert_eq!(passive.state, down(2, past).state);
    // But if it succeeds after all, the backend is up, with a clean slate.
    assert_eq!(passive.succeeded(), Some(Change::Up));
    assert_eq!(passive.state, Passive::new().state);

    let mut passive = in_trial(2);
    assert_eq!(passive.failed(now, rules(FALL), &mut Rng::new(1)), None);
    let State::Down {
        until: next,
        strikes,
    } = passive.state
    else {
        panic!("a failed trial leaves it down, not {:?}", passive.state);
    };
    assert_eq!(strikes, 3);
    let (least, most) = bounds(3);
    assert!((least..=most).contains(&next.since(now)));

    let mut passive = in_trial(2);
    passive.cancelled(now);
    assert_eq!(passive.state, down(2, now).state);
    assert!(passive.eligible(now), "the next may try at once");

    let mut passive = in_trial(2);
    assert_eq!(passive.succeeded(), Some(Change::Up));
    assert_eq!(passive.state, Passive::new().state);
    assert!(
        !passive.picked(now),
        "an attempt at a backend that is up is no trial"
    );
    assert_eq!(passive.state, Passive::new().state);
}

#[test]
fn the_back_off_doubles_to_its_cap_and_spreads_over_its_jitter() {
    for (strikes, seconds) in [
        (1, 1),
        (2, 2),
        (3, 4),
        (6, 32),
        (7, 60),
        (8, 60),
        (u32::MAX, 60),
    ] {
        let mut rng = Rng::new(9);
        let plain = Duration::from_secs(seconds);
        let drawn: std::vec::Vec<_> = (0..1000)
            .map(|_| back_off(strikes, Passive::BACK_OFF_MIN, &mut rng))
            .collect();
        let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
        assert!(*least >= plain * 8 / 10 && *least < plain * 81 / 100);
        assert!(*most <= plain * 12 / 10 && *most > plain * 119 / 100);
    }
}

#[test]
fn the_back_off_is_a_function_of_the_seed() {
    let draw = |seed| back_off(4, Passive::BACK_OFF_MIN, &mut Rng::new(seed));
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Pick,
    Succeed(usize),
    Fail(usize),
    Cancel(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u64..100_000).prop_map(Step::Wait),
        Just(Step::Pick),
        Just(Step::Pick),
        any::<usize>().prop_map(Step::Succeed),
        any::<usize>().prop_map(Step::Fail),
        any::<usize>().prop_map(Step::Fail),
        any::<usize>().prop_map(Step::Cancel),
    ]
}

/// Sessions as an engine has them: attempts in flight that end in any order, each once. `exact`
/// callers keep back what is not the trial's, as [`Passive::picked`] explains.
struct World {
    passive: Passive,
    now: Timestamp,
    rng: Rng,
    flights: std::vec::Vec<bool>,
    exact: bool,
}

impl World {
    fn end(&mut self, which: usize, step: Step) {
        if self.flights.is_empty() {
            return;
        }
        let trial = self.flights.swap_remove(which % self.flights.len());
        let before = self.passive.clone();
        let change = match step {
            Step::Succeed(_) => self.passive.succeeded(),
            _ if self.exact && !trial && self.passive.is_down() => return,
            Step::Fail(_) => self.passive.failed(self.now, rules(FALL), &mut self.rng),
            _ => {
                self.passive.cancelled(self.now);
                None
            }
        };
        let expected = match (before.is_down(), self.passive.is_down()) {
            (false, true) => Some(Change::Down),
            (true, false) => Some(Change::Up),
            _ => None,
        };
        assert_eq!(
            change, expected,
            "a change is told exactly when there is one"
        );
        if let State::Down { until, strikes } = self.passive.state
            && before.state != self.passive.state
        {
            // Down anew: by a strike, or at once again after a cancelled trial.
            let (least, most) = bounds(strikes);
            let wait = until.since(self.now);
            assert!(wait.is_zero() || (least..=most).contains(&wait), "{wait:?}");
        }
        if trial && matches!(before.state, State::Trial { .. }) {
            assert!(
                !matches!(self.passive.state, State::Trial { .. }),
                "a trial ends with its result"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_never_gets_stuck(
        steps in proptest::collection::vec(step(), 0..200),
        seed: u64,
        exact: bool,
    ) {
        let mut world = World {
            passive: Passive::new(),
            now: Timestamp::ZERO,
            rng: Rng::new(seed),
            flights: std::vec::Vec::new(),
            exact,
        };
        for step in steps {
            match step {
                Step::Wait(millis) => world.now = world.now + Duration::from_millis(millis),
                Step::Pick => {
                    if world.passive.eligible(world.now) {
                        let trial = world.passive.picked(world.now);
                        prop_assert_eq!(trial, world.passive.is_down());
                        world.flights.push(trial);
                    }
                }
                Step::Succeed(which) | Step::Fail(which) | Step::Cancel(which) => {
                    world.end(which, step);
                }
            }
            if exact {
                // Every trial in flight but one was overtaken by a success.
                let trials = world.flights.iter().filter(|trial| **trial).count();
                let in_trial = matches!(world.passive.state, State::Trial { .. });
                prop_assert!(!in_trial || trials >= 1, "a trial that nobody flies");
            }
        }
        // When everything in flight has ended, whoever waits the longest back-off may try.
        while !world.flights.is_empty() {
            world.end(0, Step::Cancel(0));
        }
        let (_, longest) = bounds(u32::MAX);
        prop_assert!(world.passive.eligible(world.now + longest));
    }
}

#[test]
fn a_pool_that_can_spare_nobody_ejects_nobody() {
    let mut passive = Passive::new();
    let mut rng = Rng::new(1);
    let spared = Blame {
        may_eject: false,
        ..rules(2)
    };
    for _ in 0..10 {
        assert_eq!(passive.failed(Timestamp::ZERO, spared, &mut rng), None);
    }
    assert!(!passive.is_down());
    let change = passive.failed(Timestamp::ZERO, rules(2), &mut rng);
    assert_eq!(change, Some(Change::Down), "the row has gone on");
}

#[test]
fn the_first_back_off_is_as_configured() {
    let mut rng = Rng::new(1);
    for millis in [10, 500, 30_000] {
        let ejection = Duration::from_millis(millis);
        let drawn = back_off(1, ejection, &mut rng);
        assert!(
            drawn >= ejection * 4 / 5 && drawn <= ejection * 6 / 5,
            "{drawn:?}"
        );
    }
    let long = back_off(1, Duration::MAX, &mut rng);
    assert!(long <= Passive::BACK_OFF_MAX * 6 / 5);
}
