use alloc::format;
use alloc::vec;
use core::net::SocketAddr;
use core::num::NonZeroU32;

use super::*;
use crate::api::TellHow;
use crate::balance::Policy;
use crate::config::Failover;
use crate::time::Duration;

mod properties;

const RULES: ProbeConfig = ProbeConfig {
    interval: Duration::from_millis(1000),
    fast_interval: Duration::from_millis(100),
    timeout: Duration::from_millis(80),
    rise: 2,
    fall: 3,
};

fn backend(id: &str) -> BackendConfig {
    let last = id.bytes().fold(0_u8, u8::wrapping_add);
    BackendConfig {
        id: id.into(),
        address: Some(SocketAddr::from(([10, 0, 0, last], 7000))),
        weight: 1,
        draining: false,
    }
}

fn pool(ids: &[&str]) -> PoolConfig {
    PoolConfig {
        name: "p".into(),
        policy: Policy::HashRing { points: 16 },
        bounded_load: None,
        failover: Failover::default(),
        sources: Vec::new(),
        probe: Some(RULES),
        on_down: OnDown::default(),
        slow_start: None,
        admission: None,
        backends: ids.iter().map(|id| backend(id)).collect(),
    }
}

fn config(pool: PoolConfig) -> FleetConfig {
    FleetConfig { pools: vec![pool] }
}

/// A fleet, its clock, and what it said.
struct Rig {
    fleet: Fleet,
    now: Timestamp,
    said: Vec<FleetAction>,
    /// Under way, by backend's address.
    probes: BTreeMap<SocketAddr, ProbeId>,
}

impl Rig {
    fn new(config: FleetConfig) -> Self {
        let now = Timestamp::from_millis(5);
        let mut rig = Self {
            fleet: Fleet::new(config, 7, now),
            now,
            said: Vec::new(),
            probes: BTreeMap::new(),
        };
        rig.drain();
        assert!(rig.said.is_empty(), "the first roster is there at once");
        rig
    }

    fn drain(&mut self) {
        while let Some(action) = self.fleet.poll_action() {
            match &action {
                FleetAction::Probe { probe, to, .. } => {
                    assert!(self.probes.insert(*to, *probe).is_none(), "one at a time");
                }
                FleetAction::Cancel { probe } => self.probes.retain(|_, it| it != probe),
                _ => self.said.push(action),
            }
        }
    }

    fn handle(&mut self, input: FleetInput) {
        self.fleet.handle(self.now, input);
        self.drain();
    }

    /// Lets time pass until `backend` is being probed.
    fn until_probed(&mut self, id: &str) -> ProbeId {
        let to = backend(id).address.unwrap();
        for _ in 0..1000 {
            if let Some(&probe) = self.probes.get(&to) {
                return probe;
            }
            let others: Vec<_> = self.probes.values().copied().collect();
            self.probes.clear();
            for probe in others {
                let outcome = ProbeOutcome::Inconclusive("not asked".into());
                self.handle(FleetInput::Probed { probe, outcome });
            }
            self.pass_time();
        }
        panic!("{id} is not probed");
    }

    fn pass_time(&mut self) {
        self.now = self.fleet.poll_timeout().expect("something is due");
        self.fleet.handle_timeout(self.now);
        self.drain();
    }

    fn probe(&mut self, id: &str, outcome: ProbeOutcome) {
        let probe = self.until_probed(id);
        self.probes.retain(|_, it| *it != probe);
        self.handle(FleetInput::Probed { probe, outcome });
    }

    fn fail(&mut self, id: &str) {
        self.probe(id, ProbeOutcome::Failed("refused".into()));
    }

    fn take_down(&mut self, id: &str) {
        for _ in 0..RULES.fall {
            self.fail(id);
        }
    }

    fn bring_up(&mut self, id: &str) {
        for _ in 0..RULES.rise {
            self.probe(id, ProbeOutcome::Passed);
        }
    }

    fn view(&self, id: &str) -> BackendView {
        let view = self.fleet.view();
        let mut backends = view.into_iter().flat_map(|pool| pool.backends);
        backends.find(|it| it.id == id).expect("it is there")
    }

    fn state(&self, id: &str) -> State {
        self.view(id).state
    }

    /// What was said since the last time, as words.
    fn said(&mut self) -> Vec<String> {
        let said = core::mem::take(&mut self.said);
        said.iter().map(|action| format!("{action}")).collect()
    }

    fn events(&mut self) -> Vec<String> {
        core::iter::from_fn(|| self.fleet.poll_event())
            .map(|event| format!("{event}"))
            .collect()
    }

    fn set(&mut self, id: &str, admin: Admin) {
        self.fleet.set(self.now, "p", id, admin).expect("known");
        self.drain();
    }
}

#[test]
fn falls_and_rises_at_the_boundary() {
    let mut rig = Rig::new(config(pool(&["a", "b", "c"])));
    rig.fail("a");
    rig.fail("a");
    assert_eq!(rig.state("a"), State::Up, "fall - 1 do nothing");
    rig.probe("a", ProbeOutcome::Passed);
    rig.fail("a");
    rig.fail("a");
    assert_eq!(rig.state("a"), State::Up, "they must be in a row");
    assert_eq!(rig.said(), [""; 0]);
    rig.fail("a");
    assert_eq!(rig.state("a"), State::Down);
    assert!(rig.fleet.roster().pools[0].backends()[0].down);
    assert_eq!(
        rig.said(),
        ["publish epoch 2", "tell backend-1: down, close"]
    );
    rig.probe("a", ProbeOutcome::Passed);
    assert_eq!(rig.state("a"), State::Down, "rise - 1 do nothing");
    rig.probe("a", ProbeOutcome::Passed);
    assert_eq!(rig.state("a"), State::Up);
    assert_eq!(rig.said(), ["publish epoch 3"]);
    let view = rig.view("a");
    assert_eq!((view.probes_passed, view.probes_failed), (3, 5));
    assert_eq!(view.downs, 1);
    let events = rig.events();
    assert_eq!(
        events[3..],
        [
            "p/a: up -> down (refused)",
            "p/a: down -> up (probe passed)"
        ]
    );
}

#[test]
fn a_probe_that_takes_too_long_has_failed() {
    let mut rig = Rig::new(config(pool(&["a"])));
    let probe = rig.until_probed("a");
    let began = rig.now;
    rig.pass_time();
    assert_eq!(rig.now.since(began), RULES.timeout);
    assert!(rig.probes.is_empty(), "it is cancelled");
    assert_eq!(rig.view("a").probes_failed, 1);
    let outcome = ProbeOutcome::Passed;
    rig.handle(FleetInput::Probed { probe, outcome });
    assert_eq!(rig.view("a").probes_passed, 0, "too late");
}

#[test]
fn this_hosts_own_trouble_is_nobodys_failure() {
    let mut rig = Rig::new(config(pool(&["a"])));
    rig.fail("a");
    rig.fail("a");
    for _ in 0..5 {
        rig.probe("a", ProbeOutcome::Inconclusive("no descriptor".into()));
    }
    assert_eq!(rig.state("a"), State::Up);
    rig.fail("a");
    assert_eq!(rig.state("a"), State::Down, "and the row goes on");
}

#[test]
fn results_of_another_life_do_not_count() {
    let mut rig = Rig::new(config(pool(&["a", "b"])));
    rig.fail("a");
    rig.fail("a");
    let old = rig.until_probed("a");
    let mut moved = pool(&["a", "b"]);
    moved.backends[0].address = Some(SocketAddr::from(([10, 9, 9, 9], 1)));
    rig.handle(FleetInput::Configure(config(moved)));
    let outcome = ProbeOutcome::Failed("refused".into());
    rig.handle(FleetInput::Probed {
        probe: old,
        outcome,
    });
    assert_eq!(rig.state("a"), State::Up);
    // Its successor is being probed, and has other results.
    rig.pass_time();
    for _ in 0..RULES.fall {
        rig.handle(FleetInput::Probed {
            probe: old,
            outcome: ProbeOutcome::Failed("refused".into()),
        });
    }
    let view = rig.view("a");
    assert_eq!((view.state, view.probes_failed), (State::Up, 2));
    assert_eq!(rig.view("b").probes_failed, 0);
}

#[test]
fn after_a_contradiction_it_is_asked_faster() {
    let mut rig = Rig::new(config(pool(&["a"])));
    let gap = |rig: &mut Rig| {
        let from = rig.now;
        rig.until_probed("a");
        rig.now.since(from).as_millis()
    };
    rig.fail("a");
    assert!((90..=110).contains(&gap(&mut rig)));
    rig.probe("a", ProbeOutcome::Passed);
    assert!((900..=1100).contains(&gap(&mut rig)));
    rig.take_down("a");
    assert!((900..=1100).contains(&gap(&mut rig)), "down is settled");
}

#[test]
fn first_probes_and_those_that_follow_are_spread() {
    let ids: Vec<String> = (0..1000).map(|number| format!("b{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
    let mut config = pool(&ids);
    for (number, backend) in config.backends.iter_mut().enumerate() {
        let [high, low] = (number as u16).to_be_bytes();
        backend.address = Some(SocketAddr::from(([10, 1, high, low], 7000)));
    }
    let mut rig = Rig::new(self::config(config));
    for round in 0..5 {
        let mut slots = [0; 10];
        for _ in 0..1000 {
            rig.pass_time();
            let probes: Vec<_> = rig.probes.values().copied().collect();
            rig.probes.clear();
            for probe in probes {
                slots[(rig.now.as_nanos() / 100_000_000) as usize % 10] += 1;
                let outcome = ProbeOutcome::Passed;
                rig.handle(FleetInput::Probed { probe, outcome });
            }
        }
        assert!(slots.iter().all(|&it| it < 200), "round {round}: {slots:?}");
    }
}

#[test]
fn an_operators_word_outlives_reloads_and_removal() {
    let mut rig = Rig::new(config(pool(&["a", "b"])));
    rig.set("a", Admin::Drain);
    assert_eq!(rig.state("a"), State::Drain);
    assert_eq!(rig.said(), ["publish epoch 2"], "its sessions stay");
    rig.handle(FleetInput::Configure(config(pool(&["a", "b"]))));
    assert_eq!(rig.state("a"), State::Drain);
    rig.handle(FleetInput::Configure(config(pool(&["b"]))));
    rig.handle(FleetInput::Configure(config(pool(&["a", "b"]))));
    assert_eq!(rig.state("a"), State::Drain);

    let mut draining = pool(&["a", "b"]);
    draining.backends[0].draining = true;
    rig.set("a", Admin::Ready);
    rig.handle(FleetInput::Configure(config(draining)));
    assert_eq!(rig.state("a"), State::Up, "the word counts for more");

    let unknown = rig.fleet.set(rig.now, "q", "a", Admin::Drain);
    assert_eq!(unknown, Err(FleetError::UnknownPool));
    let unknown = rig.fleet.set(rig.now, "p", "z", Admin::Drain);
    assert_eq!(unknown, Err(FleetError::UnknownBackend));
}

#[test]
fn maintenance_tells_and_is_not_probed() {
    let mut rules = pool(&["a", "b"]);
    rules.on_down.how = None;
    let mut rig = Rig::new(config(rules));
    rig.until_probed("a");
    rig.set("a", Admin::Maint);
    assert_eq!(
        rig.said(),
        ["publish epoch 2", "tell backend-1: maint, keep"]
    );
    assert!(rig.fleet.roster().pools[0].backends()[0].draining);
    let to = backend("a").address.unwrap();
    for _ in 0..20 {
        rig.pass_time();
        assert!(!rig.probes.contains_key(&to));
        rig.probes.clear();
    }
    rig.set("a", Admin::Ready);
    assert_eq!(rig.state("a"), State::Up);
    rig.until_probed("a");
}

#[test]
fn the_removed_are_told_after_the_roster_that_has_them_no_more() {
    let mut rig = Rig::new(config(pool(&["a", "b"])));
    rig.handle(FleetInput::Configure(config(pool(&["b", "c"]))));
    assert_eq!(
        rig.said(),
        ["publish epoch 2", "tell backend-1: removed, close"]
    );
    assert_eq!(
        rig.events()[2..],
        ["p/c: added at 10.0.0.99:7000", "p/a: removed"]
    );
    rig.handle(FleetInput::Configure(FleetConfig::default()));
    assert_eq!(rig.fleet.pool("p"), None);
    assert_eq!(rig.said().len(), 3, "a roster, and two are told");
    assert!(rig.fleet.roster().pools[0].backends().is_empty());

    // The name returns, and has its id again.
    let mut two = config(pool(&["a"]));
    two.pools.insert(
        0,
        PoolConfig {
            name: "q".into(),
            ..pool(&["x"])
        },
    );
    assert_eq!(rig.fleet.ids(&two), [PoolId(1), PoolId(0)]);
    rig.handle(FleetInput::Configure(two));
    assert_eq!(rig.fleet.pool("p"), Some(PoolId(0)));
    assert_eq!(rig.fleet.pool("q"), Some(PoolId(1)));
}

#[test]
fn who_keeps_its_sessions_says_nothing_of_down_and_removed() {
    let mut rules = pool(&["a", "b"]);
    rules.on_down.how = None;
    let mut rig = Rig::new(config(rules.clone()));
    rig.take_down("a");
    rules.backends.remove(1);
    rig.handle(FleetInput::Configure(config(rules)));
    assert_eq!(rig.said(), ["publish epoch 2", "publish epoch 3"]);
}

#[test]
fn another_address_is_another_life() {
    let mut rig = Rig::new(config(pool(&["a", "b"])));
    rig.take_down("a");
    rig.said();
    rig.fleet.roster().pools[0].backends()[0].load.add();
    let mut moved = pool(&["a", "b"]);
    moved.backends[0].address = Some(SocketAddr::from(([10, 9, 9, 9], 1)));
    rig.handle(FleetInput::Configure(config(moved)));
    assert_eq!(
        rig.said(),
        ["publish epoch 3", "tell backend-1: removed, close"]
    );
    let backend = Arc::clone(&rig.fleet.roster().pools[0].backends()[0]);
    assert_eq!(backend.incarnation, Incarnation(3));
    assert!(
        !backend.down,
        "what was known of the old place is not of it"
    );
    assert_eq!(backend.load.get(), 0);
    assert_eq!(rig.view("a").downs, 1, "the id's history goes on");
}

#[test]
fn a_name_resolves_and_keeps_its_address() {
    let mut rules = pool(&["a", "b"]);
    rules.backends[0].address = None;
    let mut rig = Rig::new(config(rules.clone()));
    assert_eq!(rig.state("a"), State::Unresolved);
    let address = SocketAddr::from(([10, 0, 0, 97], 7000));
    rig.handle(FleetInput::Resolved {
        pool: "p".into(),
        backend: "a".into(),
        address,
    });
    assert_eq!(rig.state("a"), State::Up);
    assert_eq!(rig.view("a").incarnation, Incarnation(1), "the same life");
    rig.until_probed("a");
    rig.said();
    rig.handle(FleetInput::Configure(config(rules)));
    assert_eq!(rig.view("a").address, Some(address));
    assert_eq!(rig.said(), [""; 0], "nothing is new");
    rig.handle(FleetInput::Resolved {
        pool: "p".into(),
        backend: "nobody".into(),
        address,
    });
    assert_eq!(rig.said(), [""; 0]);
}

#[test]
fn panic_is_reached_and_left() {
    let mut rules = pool(&["a", "b", "c", "d"]);
    rules.failover.panic = 50;
    let mut rig = Rig::new(config(rules));
    rig.events();
    rig.take_down("a");
    rig.take_down("b");
    assert!(!rig.fleet.view()[0].panic, "half of them are up");
    rig.said();
    rig.take_down("c");
    assert!(rig.fleet.view()[0].panic);
    assert_eq!(rig.said(), ["publish epoch 4"], "health is not believed");
    rig.bring_up("a");
    assert!(!rig.fleet.view()[0].panic);
    assert_eq!(
        rig.said(),
        [
            "publish epoch 5",
            "tell backend-2: down, close",
            "tell backend-3: down, close"
        ],
        "now it is"
    );
    let events = rig.events();
    let panics: Vec<_> = events.iter().filter(|it| it.contains("panic")).collect();
    assert_eq!(panics, ["p: panic", "p: no panic"]);
    // Those that drain do not count.
    rig.set("b", Admin::Drain);
    rig.set("c", Admin::Drain);
    assert!(!rig.fleet.view()[0].panic);
}

#[test]
fn what_workers_find_out_is_passed_on() {
    let mut rig = Rig::new(config(pool(&["a", "b"])));
    let report = |worker, change| FleetInput::Reported {
        worker,
        backend: Incarnation(1),
        change,
    };
    rig.handle(report(2, Change::Down));
    assert_eq!(rig.said(), ["advise backend-1: down, but for worker 2"]);
    assert_eq!(rig.state("a"), State::Ejected);
    rig.handle(report(2, Change::Down));
    rig.handle(report(1, Change::Down));
    assert_eq!(rig.said().len(), 1);
    assert_eq!(rig.view("a").ejections, 2);
    rig.handle(report(1, Change::Up));
    assert_eq!(rig.said(), ["advise backend-1: up, but for worker 1"]);
    assert_eq!(rig.state("a"), State::Up);
    rig.handle(FleetInput::Reported {
        worker: 1,
        backend: Incarnation(99),
        change: Change::Down,
    });
    assert_eq!(rig.said(), [""; 0]);

    // What probes say of a backend that was away ends the workers' doubts.
    rig.handle(report(0, Change::Down));
    rig.take_down("a");
    rig.said();
    rig.bring_up("a");
    assert_eq!(rig.said(), ["advise backend-1: up", "publish epoch 3"]);
}

#[test]
fn who_comes_back_takes_its_share_little_by_little() {
    let mut rules = pool(&["a", "b"]);
    let over = Duration::from_secs(30);
    rules.slow_start = Some(over);
    let mut rig = Rig::new(config(rules.clone()));
    let ramp = |rig: &Rig| rig.fleet.roster().pools[0].backends()[0].ramp;
    assert_eq!(ramp(&rig), None, "not those that are there from the start");
    rig.take_down("a");
    rig.bring_up("a");
    let from = rig.now;
    assert_eq!(ramp(&rig), Some(Ramp { from, over }));
    rig.now = from + over;
    rules.backends[1].weight = 2;
    rig.handle(FleetInput::Configure(config(rules)));
    assert_eq!(ramp(&rig), None, "it is over");
}

#[test]
fn buckets_are_kept_while_their_rules_are() {
    let admission = |rate| {
        let rate = NonZeroU32::new(rate).unwrap();
        Some(Admission { rate, burst: rate })
    };
    let mut rules = pool(&["a", "b"]);
    rules.admission = admission(5);
    let mut rig = Rig::new(config(rules.clone()));
    let bucket = |rig: &Rig| rig.fleet.roster().pools[0].backends()[0].admission.clone();
    let first = bucket(&rig).unwrap();
    assert!(
        !first.is(rig.fleet.roster().pools[0].backends()[1]
            .admission
            .as_ref()
            .unwrap())
    );
    rules.backends[0].weight = 3;
    rig.handle(FleetInput::Configure(config(rules.clone())));
    assert!(bucket(&rig).unwrap().is(&first));
    rules.admission = admission(6);
    rig.handle(FleetInput::Configure(config(rules.clone())));
    assert!(!bucket(&rig).unwrap().is(&first));
    rules.admission = None;
    rules.on_down.how = Some(TellHow::Reset);
    rig.handle(FleetInput::Configure(config(rules)));
    assert!(bucket(&rig).is_none());
}

#[test]
fn without_probes_health_is_what_it_was_never_told() {
    let mut rules = pool(&["a", "b"]);
    let mut rig = Rig::new(config(rules.clone()));
    rig.take_down("a");
    rules.probe = None;
    rig.handle(FleetInput::Configure(config(rules)));
    assert_eq!(rig.state("a"), State::Up);
    assert_eq!(rig.fleet.poll_timeout(), None);
}

#[test]
fn ten_thousand_backends_that_go_down_together_are_one_roster() {
    let mut rules = pool(&[]);
    rules.policy = Policy::HashRing { points: 1 };
    rules.probe = Some(ProbeConfig { fall: 1, ..RULES });
    rules.backends = (0..10_000_u16)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            BackendConfig {
                id: format!("b{number}").into(),
                address: Some(SocketAddr::from(([10, 1, high, low], 7000))),
                weight: 1,
                draining: false,
            }
        })
        .collect();
    let mut rig = Rig::new(config(rules));
    rig.now = rig.now + RULES.interval;
    rig.fleet.handle_timeout(rig.now);
    rig.drain();
    assert_eq!(rig.probes.len(), 10_000);
    let table: *const _ = rig.fleet.roster().pools[0].table();
    for probe in rig.probes.values().copied().take(9_000) {
        let outcome = ProbeOutcome::Failed("refused".into());
        let input = FleetInput::Probed { probe, outcome };
        rig.fleet.handle(rig.now, input);
    }
    rig.drain();
    let said = rig.said();
    assert_eq!(said.len(), 9_001, "one roster, and each is told");
    assert_eq!(said[0], "publish epoch 2");
    assert!(
        core::ptr::eq(table, rig.fleet.roster().pools[0].table()),
        "health is an overlay"
    );
}
