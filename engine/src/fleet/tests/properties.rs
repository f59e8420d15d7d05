//! A fleet under whatever may happen, beside a model that knows the rules and nothing else.

use proptest::prelude::*;

use super::*;

/// What may happen.
#[derive(Clone, Debug)]
enum Op {
    /// Time passes until something is due.
    Wait,
    /// A probe that is under way ends: which, and how.
    Probed(usize, u8),
    /// A result of a probe that is not under way.
    Stale(u64, bool),
    Set(usize, u8),
    /// Which of the ids are configured, and how.
    Configure(u8, u8),
    Reported(u32, u32, bool),
}

const IDS: [&str; 4] = ["a", "b", "c", "d"];

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Wait),
        6 => (0..4_usize, 0..3_u8).prop_map(|(which, how)| Op::Probed(which, how)),
        1 => (0..50_u64, any::<bool>()).prop_map(|(id, passed)| Op::Stale(id, passed)),
        1 => (0..4_usize, 0..3_u8).prop_map(|(id, admin)| Op::Set(id, admin)),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(ids, rules)| Op::Configure(ids, rules)),
        1 => (0..3_u32, 1..9_u32, any::<bool>())
            .prop_map(|(worker, backend, down)| Op::Reported(worker, backend, down)),
    ]
}

/// What is known of a backend: up or down, and results in a row that say otherwise.
#[derive(Clone, Copy, Debug)]
struct Known {
    incarnation: Incarnation,
    up: bool,
    streak: u32,
}

#[derive(Debug, Default)]
struct Model {
    known: BTreeMap<String, Known>,
    words: BTreeMap<String, Admin>,
    /// By incarnation: every one there ever was.
    lives: BTreeSet<Incarnation>,
    /// Under way, by its id: of which life.
    probes: BTreeMap<ProbeId, Incarnation>,
    epoch: u64,
    /// Those that the last roster has.
    members: BTreeSet<Incarnation>,
}

impl Model {
    fn judge(&mut self, incarnation: Incarnation, passed: bool) {
        let known = self.known.values_mut();
        let Some(known) = known.into_iter().find(|it| it.incarnation == incarnation) else {
            return;
        };
        known.streak = if passed == known.up {
            0
        } else {
            known.streak + 1
        };
        let enough = if passed { RULES.rise } else { RULES.fall };
        if known.streak == enough {
            (known.up, known.streak) = (passed, 0);
        }
    }
}

fn rules(ids: u8, how: u8) -> FleetConfig {
    let mut pool = pool(&[]);
    let chosen = IDS
        .iter()
        .enumerate()
        .filter(|(bit, _)| ids & (1 << bit) != 0);
    pool.backends = chosen.map(|(_, id)| backend(id)).collect();
    if how & 1 != 0 {
        pool.on_down.how = None;
    }
    pool.failover.panic = if how & 2 != 0 { 60 } else { 0 };
    if let Some(first) = pool.backends.first_mut() {
        first.weight = 1 + u32::from(how >> 6);
        first.draining = how & 4 != 0;
        if how & 8 != 0 {
            first.address = Some(SocketAddr::from(([10, 7, 7, how], 7)));
        }
    }
    config(pool)
}

/// Takes what a fleet says, and checks it against the model.
fn drain(fleet: &mut Fleet, model: &mut Model) {
    while let Some(action) = fleet.poll_action() {
        match action {
            FleetAction::Publish(roster) => {
                assert_eq!(roster.epoch, model.epoch + 1, "rosters count up");
                model.epoch += 1;
                let backends = roster.pools.iter().flat_map(|pool| pool.backends());
                model.members = backends.map(|it| it.incarnation).collect();
            }
            FleetAction::Tell(tell) => {
                let is_member = model.members.contains(&tell.backend);
                assert_eq!(
                    is_member,
                    tell.why != Why::Removed,
                    "the roster comes first"
                );
                let known = model
                    .known
                    .values()
                    .find(|it| it.incarnation == tell.backend);
                if tell.why == Why::Down {
                    assert!(known.is_some_and(|it| !it.up), "{tell:?}");
                }
            }
            FleetAction::Probe { probe, to, .. } => {
                let pools = &fleet.roster().pools;
                let mut backends = pools.iter().flat_map(|pool| pool.backends());
                let backend = backends.find(|it| it.address == Some(to)).expect("known");
                let word = model.words.get(&*backend.id);
                assert_ne!(word, Some(&Admin::Maint), "not probed in maintenance");
                let again = model.probes.values().any(|&it| it == backend.incarnation);
                assert!(!again, "one probe at a time");
                model.probes.insert(probe, backend.incarnation);
            }
            FleetAction::Cancel { probe } => {
                assert!(model.probes.remove(&probe).is_some(), "it was under way");
            }
            FleetAction::Advise { .. } => {}
        }
    }
    for backend in fleet.view().iter().flat_map(|pool| &pool.backends) {
        let known = model.known.get(&backend.id).copied();
        let fresh = known.is_none_or(|it| it.incarnation != backend.incarnation);
        if fresh {
            assert!(model.lives.insert(backend.incarnation), "a life of its own");
            let known = Known {
                incarnation: backend.incarnation,
                up: true,
                streak: 0,
            };
            model.known.insert(backend.id.clone(), known);
        }
    }
    while fleet.poll_event().is_some() {}
}

fn check(fleet: &Fleet, model: &Model) {
    assert_eq!(fleet.pending(), None);
    let pools = &fleet.roster().pools;
    let roster: BTreeMap<&str, _> = pools
        .iter()
        .flat_map(|pool| pool.backends())
        .map(|it| (&*it.id, it))
        .collect();
    let view = fleet.view();
    let shown: Vec<_> = view.iter().flat_map(|pool| &pool.backends).collect();
    assert_eq!(roster.len(), shown.len());
    for backend in shown {
        let known = model.known[&backend.id];
        let shared = roster[&*backend.id];
        assert_eq!(shared.incarnation, backend.incarnation);
        assert_eq!(shared.down, !known.up, "{}", backend.id);
        assert_eq!(shared.draining, backend.admin != Admin::Ready);
        if let Some(&word) = model.words.get(&backend.id) {
            assert_eq!(backend.admin, word, "an operator's word holds");
        }
    }
}

fn run(seed: u64, ops: Vec<Op>) {
    let mut now = Timestamp::from_millis(1);
    let mut fleet = Fleet::new(rules(0b0111, 0), seed, now);
    let mut model = Model {
        epoch: fleet.roster().epoch,
        ..Model::default()
    };
    drain(&mut fleet, &mut model);
    for op in ops {
        match op {
            Op::Wait => {
                now = fleet.poll_timeout().unwrap_or(now).max(now);
                // Those that are under way and due fail: nothing else is told to them.
                let before = model.probes.clone();
                fleet.handle_timeout(now);
                let mut after = before.clone();
                while let Some(action) = fleet.actions.front() {
                    if let FleetAction::Cancel { probe } = action {
                        let life = after.remove(probe).expect("it was under way");
                        model.probes.remove(probe);
                        model.judge(life, false);
                        fleet.actions.pop_front();
                    } else {
                        break;
                    }
                }
            }
            Op::Probed(which, how) => {
                let Some((&probe, &life)) = model.probes.iter().nth(which) else {
                    continue;
                };
                model.probes.remove(&probe);
                let outcome = match how {
                    0 => ProbeOutcome::Passed,
                    1 => ProbeOutcome::Failed("refused".into()),
                    _ => ProbeOutcome::Inconclusive("ours".into()),
                };
                if how < 2 {
                    model.judge(life, how == 0);
                }
                fleet.handle(now, FleetInput::Probed { probe, outcome });
            }
            Op::Stale(id, passed) => {
                let probe = ProbeId(id);
                if model.probes.contains_key(&probe) {
                    continue;
                }
                let outcome = if passed {
                    ProbeOutcome::Passed
                } else {
                    ProbeOutcome::Failed("late".into())
                };
                fleet.handle(now, FleetInput::Probed { probe, outcome });
            }
            Op::Set(id, admin) => {
                let admin = [Admin::Ready, Admin::Drain, Admin::Maint][usize::from(admin)];
                if fleet.set(now, "p", IDS[id], admin).is_ok() {
                    model.words.insert(IDS[id].into(), admin);
                }
            }
            Op::Configure(ids, how) => {
                fleet.handle(now, FleetInput::Configure(rules(ids, how)));
            }
            Op::Reported(worker, backend, down) => {
                let change = if down { Change::Down } else { Change::Up };
                let backend = Incarnation(backend);
                fleet.handle(
                    now,
                    FleetInput::Reported {
                        worker,
                        backend,
                        change,
                    },
                );
            }
        }
        drain(&mut fleet, &mut model);
        check(&fleet, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn follows_the_rules(seed: u64, ops in prop::collection::vec(op(), 1..120)) {
        run(seed, ops);
    }
}
