//! From a seed to a scenario.

mod fleet;
mod timetable;

use std::fmt;

use tlb_engine::balance::Policy;
use tlb_engine::drive::Mode;
use tlb_engine::rng::Rng;

use super::frames;
use super::scenario::{
    Backend, Client, Door, FRAME_FIXED, FRAME_MIN, FleetRules, Framing, Group, Membership,
    Scenario, Script, Start, Then, Trouble,
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

/// Which kinds of behaviour a swarm scenario has.
#[derive(Clone, Copy, Debug, Default)]
struct Classes {
    garbage: bool,
    truncated: bool,
    aborts: bool,
    slow: bool,
    trickle: bool,
    urgent: bool,
    hold: bool,
    odd_backends: bool,
}

impl Classes {
    fn draw(rng: &mut Rng) -> Self {
        let mut on = || chance(rng, 50);
        Self {
            garbage: on(),
            truncated: on(),
            aborts: on(),
            slow: on(),
            trickle: on(),
            urgent: on(),
            hold: on(),
            odd_backends: on(),
        }
    }
}

fn wild_workload(scenario: &mut Scenario, rng: &mut Rng, classes: &Classes, free: bool) {
    for backend in &mut scenario.backends {
        let membership = one_of(
            rng,
            &[
                Membership::Member,
                Membership::Member,
                Membership::Member,
                Membership::Member,
                Membership::Draining,
                Membership::Absent,
            ],
        );
        if free {
            backend.membership = membership;
        }
        backend.script = draw_backend(rng, classes);
    }
    let count = one_of(rng, &[1, 3, 10, 30]);
    for _ in 0..count {
        let client = draw_client(scenario, rng, classes);
        scenario.clients.push(client);
    }
}

fn draw_backend(rng: &mut Rng, classes: &Classes) -> Script {
    if !classes.odd_backends {
        return echo();
    }
    let send = size(rng);
    let start = match rng.below(5) {
        0 => Start::Now,
        1 => Start::End,
        2 => Start::Bytes(rng.below(200) as u32),
        _ => Start::Echo,
    };
    let mut then = one_of(rng, &[Then::FinLast, Then::FinLast, Then::Fin]);
    let mut quit = None;
    if classes.aborts && chance(rng, 30) {
        match rng.below(3) {
            0 => then = Then::Reset,
            1 => then = Then::Close,
            _ => {
                quit = Some((
                    rng.below(3000) as u32,
                    one_of(rng, &[Then::Reset, Then::Close]),
                ));
            }
        }
    } else if classes.hold && chance(rng, 20) {
        then = Then::Hold;
    }
    let (read, read_pause_us) = draw_reading(rng, classes);
    let chunk = draw_chunk(rng, classes);
    Script {
        start,
        send: if chunk < 100 { send.min(3000) } else { send },
        chunk,
        pause_us: one_of(rng, &[0, 0, 10, 1000]),
        urgent: classes.urgent && chance(rng, 20),
        then,
        read,
        read_pause_us,
        quit,
    }
}

fn draw_reading(rng: &mut Rng, classes: &Classes) -> (u32, u32) {
    if classes.slow && chance(rng, 25) {
        one_of(rng, &[(0, 0), (1000, 5000), (100, 1000), (20_000, 20_000)])
    } else {
        (u32::MAX, 0)
    }
}

fn draw_chunk(rng: &mut Rng, classes: &Classes) -> u32 {
    if classes.trickle && chance(rng, 30) {
        one_of(rng, &[1, 3, 50])
    } else {
        one_of(rng, &[500, 1460, 20_000, 1 << 20])
    }
}

fn draw_client(scenario: &Scenario, rng: &mut Rng, classes: &Classes) -> Client {
    let listener = rng.below(scenario.listeners.len() as u64) as usize;
    let framing = scenario.listeners[listener].framing;
    // Which recording, or a key of its own, by which a backend can tell whose frame it is.
    let key = match framing {
        Framing::Spec(_) => Some(scenario.clients.len() as u16),
        Framing::Recorded(recorded) => Some(rng.below(recorded.frames.len() as u64) as u16),
        _ => None,
    };
    let (frame, skips) = match framing {
        Framing::Fixed => (FRAME_FIXED, false),
        Framing::None | Framing::Delimited => (FRAME_MIN + size(rng).min(2000), false),
        Framing::Length => (FRAME_MIN + size(rng).min(2000), true),
        // Listeners whose frames cannot be simulated are refused before anything is drawn.
        Framing::Spec(spec) => {
            let limit = scenario.listeners[listener].limit;
            let sizes = frames::sizes(&spec, limit).unwrap_or_default();
            (frames::draw_size(rng, sizes), frames::skips(&spec))
        }
        Framing::Recorded(recorded) => {
            let frame = &recorded.frames[usize::from(key.unwrap_or(0))];
            (frame.bytes.len() as u32, false)
        }
    };
    let garbage = if classes.garbage && skips && chance(rng, 40) {
        one_of(rng, &[1, 7, 40, 300, 2000])
    } else {
        0
    };
    let mut send = frame + size(rng);
    if classes.truncated && chance(rng, 20) {
        send = rng.below(u64::from(frame)) as u32;
    }
    let chunk = draw_chunk(rng, classes);
    // A trickle of single bytes must come to an end within the scenario.
    if chunk < 100 {
        send = send.min(3000);
    }
    let (read, read_pause_us) = draw_reading(rng, classes);
    let mut then = one_of(rng, &[Then::Fin, Then::Fin, Then::FinLast]);
    let mut quit = None;
    if classes.aborts && chance(rng, 25) {
        match rng.below(3) {
            0 => then = Then::Reset,
            1 => then = Then::Close,
            _ => {
                quit = Some((
                    rng.below(3000) as u32,
                    one_of(rng, &[Then::Reset, Then::Close]),
                ));
            }
        }
    } else if classes.hold && chance(rng, 25) {
        then = Then::Hold;
    }
    // Both ends waiting for the other's end would be nobody's fault.
    if then == Then::FinLast && !classes.hold {
        then = Then::Fin;
    }
    Client {
        at_us: rng.below(2_500_000),
        worker: rng.below(scenario.workers as u64) as usize,
        listener,
        key: key.unwrap_or_else(|| rng.below(64) as u16 * 977),
        garbage,
        evil: garbage >= 8 && chance(rng, 50),
        frame,
        host: rng.below(4) as usize,
        script: Script {
            start: Start::Now,
            send,
            chunk,
            pause_us: one_of(rng, &[0, 0, 10, 1000]),
            urgent: classes.urgent && chance(rng, 20),
            then,
            read,
            read_pause_us,
            quit,
        },
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
