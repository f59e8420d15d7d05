//! From a seed to a scenario.

mod fleet;
mod timetable;
mod wild;

use std::fmt;

use tlb_engine::balance::Policy;
use tlb_engine::drive::Mode;
use tlb_engine::rng::Rng;

use self::wild::{Classes, draw_client, wild_workload};
use super::scenario::{
    Backend, Door, FleetRules, Framing, Group, Membership, Scenario, Script, Start, Then, Trouble,
};
use crate::model::Tuning;

/// How hard a scenario is on tlb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intensity {
    /// No faults, and everybody does as they should.
    Calm,
    /// Whole classes of faults switched off at random, the others with wild weights.
    Swarm,
}

impl fmt::Display for Intensity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Calm => "calm",
            Self::Swarm => "swarm",
        })
    }
}

/// Of so many swarm seeds, one is a storm of retries that spends a pool's budget.
const STORMS: u64 = 97;

/// What every scenario has alike, whatever its seed: a configuration that somebody wants to know
/// about.
#[derive(Clone, Debug)]
pub struct Template {
    /// How relays move bytes.
    pub mode: Mode,
    /// Most bytes of all prereads of a worker.
    pub preread_memory: usize,
    /// How long a reset may wait.
    pub reset_ms: u64,
    /// Over how long sessions end when tlb stops.
    pub shutdown_ms: u64,
    /// The listeners: at least one.
    pub listeners: Vec<Door>,
    /// The pools: at least one.
    pub pools: Vec<Group>,
    /// Pool, weight and membership of each backend: at least one.
    pub backends: Vec<(usize, u32, Membership)>,
}

impl Template {
    fn impose(&self, on: &mut Scenario, rng: &mut Rng) {
        on.mode = self.mode;
        on.preread_memory = self.preread_memory;
        on.reset_ms = self.reset_ms;
        on.shutdown_ms = self.shutdown_ms;
        on.listeners.clone_from(&self.listeners);
        on.pools.clone_from(&self.pools);
        let drawn = core::mem::take(&mut on.backends);
        for &(pool, weight, membership) in &self.backends {
            on.backends.push(Backend {
                pool,
                weight,
                membership,
                ..one_of(rng, &drawn)
            });
        }
    }
}

/// A scenario from a seed.
pub fn draw(seed: u64, intensity: Intensity) -> Scenario {
    draw_like(None, seed, intensity)
}

/// A scenario from a seed, of which a template has decided some things. Each worker has the whole
/// limits of it.
pub fn draw_like(template: Option<&Template>, seed: u64, intensity: Intensity) -> Scenario {
    // Streams of their own, so that a draw more in one does not shift the others.
    let mut root = Rng::new(seed);
    let (mut world, mut workload, mut faults) = (root.split(), root.split(), root.split());
    let mut fleet = root.split();
    let mut scenario = draw_world(seed, &mut world);
    if let Some(template) = template {
        template.impose(&mut scenario, &mut world);
    }
    if intensity == Intensity::Calm {
        calm_workload(&mut scenario, &mut workload, template.is_none());
        return scenario;
    }
    if seed % STORMS == STORMS - 1 && template.is_none() {
        storm(&mut scenario, &mut workload);
        return scenario;
    }
    let classes = Classes::draw(&mut workload);
    wild_workload(&mut scenario, &mut workload, &classes, template.is_none());
    timetable::draw(&mut scenario, &mut faults);
    if template.is_none() && chance(&mut fleet, 50) {
        fleet::draw(&mut scenario, &mut fleet);
    }
    if scenario
        .pools
        .iter()
        .any(|group| group.fleet.health.is_some())
    {
        fleet::trouble(&mut scenario, &mut fleet);
    }
    scenario
}

fn one_of<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.below(of.len() as u64) as usize]
}

fn chance(rng: &mut Rng, percent: u64) -> bool {
    rng.below(100) < percent
}

fn within(rng: &mut Rng, least: u64, most: u64) -> u64 {
    least + rng.below(most - least + 1)
}

/// Mostly small, sometimes several windows.
fn size(rng: &mut Rng) -> u32 {
    let most = one_of(rng, &[1, 10, 100, 1000, 10_000, 10_000, 100_000]);
    let most = if chance(rng, 4) { 600_000 } else { most };
    rng.below(most + 1) as u32
}

fn draw_world(seed: u64, rng: &mut Rng) -> Scenario {
    let buffer = one_of(rng, &[512, 2048, 8192, 65_536, 131_072]);
    let tuning = Tuning {
        send_buffer: buffer,
        receive_buffer: one_of(rng, &[512, 4096, 16_384, 131_072]),
        segment: one_of(rng, &[100, 536, 1460, 16_384]),
        copy_buffer: one_of(rng, &[64, 1024, 16_384, 65_536]),
        pipe_slots: one_of(rng, &[1, 2, 4, 16]),
        pipes: one_of(rng, &[0, 1, 3, 1000]),
        backlog: one_of(rng, &[2, 16, 128]),
        partial: one_of(rng, &[0, 0, 16, 128]),
        immediate: one_of(rng, &[0, 64, 255]),
        user_timeout_ms: within(rng, 200, 3000),
    };
    let pools = within(rng, 1, 2) as usize;
    let backends = within(rng, 1, 8) as usize;
    let latency = one_of(rng, &[0, 0, 50, 500, 5000]);
    Scenario {
        seed,
        workers: within(rng, 1, 3) as usize,
        mode: one_of(rng, &[Mode::Copy, Mode::Splice, Mode::Auto]),
        lag_us: one_of(rng, &[0, 0, 20, 500]),
        heal_us: 4_000_000,
        tuning,
        preread_memory: one_of(rng, &[2000, 100_000, 1 << 20]),
        reset_ms: within(rng, 50, 1500),
        shutdown_ms: within(rng, 0, 1500),
        control_us: 2000,
        listeners: (0..pools).map(|pool| draw_door(rng, pool)).collect(),
        pools: (0..pools).map(|_| draw_group(rng)).collect(),
        backends: (0..backends)
            .map(|backend| Backend {
                pool: backend % pools,
                weight: within(rng, 1, 3) as u32,
                membership: Membership::Member,
                latency_us: latency,
                jitter_us: one_of(rng, &[0, 0, 100, 2000]),
                script: echo(),
            })
            .collect(),
        clients: vec![],
        faults: vec![],
    }
}

fn draw_door(rng: &mut Rng, pool: usize) -> Door {
    Door {
        framing: one_of(
            rng,
            &[
                Framing::None,
                Framing::Length,
                Framing::Length,
                Framing::Delimited,
                Framing::Fixed,
            ],
        ),
        pool,
        preread_ms: within(rng, 100, 2000),
        limit: one_of(rng, &[64, 1000, 65_536]),
        max_sessions: one_of(rng, &[2, 1000, 1000]),
        idle_ms: one_of(rng, &[None, None, Some(300), Some(2000)]),
        half_close_ms: one_of(rng, &[200, 3000, 10_000]),
        admission: None,
        per_source: None,
        replay: chance(rng, 30),
    }
}

fn draw_group(rng: &mut Rng) -> Group {
    let points = one_of(rng, &[16, 64]);
    Group {
        policy: one_of(
            rng,
            &[
                Policy::HashRing { points },
                Policy::HashRing { points },
                Policy::HashRing { points },
                Policy::Source { points },
                Policy::RoundRobin,
                Policy::LeastSessions,
                Policy::PowerOfTwo,
            ],
        ),
        bounded: one_of(rng, &[None, None, None, Some(150)]),
        connect_ms: within(rng, 50, 800),
        retries: within(rng, 0, 5) as u8,
        fall: within(rng, 1, 4) as u32,
        warm: one_of(rng, &[0, 0, 1, 3]),
        early_resets: chance(rng, 20),
        fleet: FleetRules::NONE,
    }
}

const fn echo() -> Script {
    Script {
        start: Start::Echo,
        send: 0,
        chunk: u32::MAX,
        pause_us: 0,
        urgent: false,
        then: Then::FinLast,
        read: u32::MAX,
        read_pause_us: 0,
        quit: None,
    }
}

/// Limits that no calm scenario comes near.
fn make_patient(scenario: &mut Scenario) {
    scenario.preread_memory = 1 << 24;
    for door in &mut scenario.listeners {
        door.preread_ms = 60_000;
        door.limit = 65_536;
        door.max_sessions = 1000;
        door.idle_ms = None;
        door.half_close_ms = 60_000;
    }
    for group in &mut scenario.pools {
        group.connect_ms = 30_000;
    }
    scenario.reset_ms = 30_000;
    ensure_members(scenario);
}

/// Well-formed clients; nothing goes wrong, and timeouts are long enough for all.
fn calm_workload(scenario: &mut Scenario, rng: &mut Rng, free: bool) {
    if free {
        make_patient(scenario);
    }
    scenario.tuning.backlog = 1000;
    scenario.tuning.pipes = 1000;
    for backend in &mut scenario.backends {
        let answer = size(rng).min(50_000);
        backend.script = one_of(
            rng,
            &[
                echo(),
                Script {
                    start: Start::End,
                    send: answer,
                    ..echo()
                },
                Script {
                    start: Start::Now,
                    send: answer,
                    then: Then::Fin,
                    ..echo()
                },
            ],
        );
    }
    let count = one_of(rng, &[1, 5, 20]);
    for _ in 0..count {
        let mut client = draw_client(scenario, rng, &Classes::default());
        client.garbage = 0;
        client.script.send = client.script.send.min(50_000).max(client.frame);
        client.script.pause_us = client.script.pause_us.min(50);
        scenario.clients.push(client);
    }
}

fn ensure_members(scenario: &mut Scenario) {
    let pools = scenario.pools.len();
    while scenario.backends.len() < pools {
        let mut backend = scenario.backends[0];
        backend.pool = scenario.backends.len();
        scenario.backends.push(backend);
    }
}

/// Many clients, nobody to take them, and more retries than the budget has.
fn storm(scenario: &mut Scenario, rng: &mut Rng) {
    for group in &mut scenario.pools {
        group.retries = 20;
        group.fall = 1_000_000;
    }
    for door in &mut scenario.listeners {
        door.framing = Framing::None;
        door.max_sessions = 1000;
    }
    scenario.workers = 1;
    scenario.tuning.backlog = 1000;
    for _ in 0..150 {
        let mut client = draw_client(scenario, rng, &Classes::default());
        client.at_us = rng.below(100_000);
        client.script.send = client.frame;
        scenario.clients.push(client);
    }
    for backend in 0..scenario.backends.len() {
        scenario.faults.push((0, Trouble::Kill(backend)));
    }
}

/// A scenario with nothing in it, which is to be filled.
pub(super) fn empty() -> Scenario {
    Scenario {
        listeners: vec![],
        pools: vec![],
        backends: vec![],
        ..draw_world(0, &mut Rng::new(0))
    }
}
