//! Scenarios: worlds as data, drawn from a seed before anything runs.

use std::env;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tlb_engine::balance::Policy;
use tlb_engine::config::{Failover, Limits, Listener};
use tlb_engine::fleet::{Admin, OnDown, ProbeConfig};
use tlb_engine::rng::Rng;
use tlb_engine::time::Duration;

use crate::check::check;
use crate::net::Chunking;
use crate::peers::{Client, Manner};
use crate::trace::Trace;
use crate::world::{self, Run};

/// A world, and what is done to it. Everything in it was drawn before it starts, so it can be
/// printed and changed.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// How many tlb hosts there are, all alike: `tlb0`, `tlb1`...
    pub tlbs: usize,
    /// The one listener of each.
    pub listener: Listener,
    /// The limits of each.
    pub limits: Limits,
    /// How the pool picks.
    pub policy: Policy,
    /// How the pool fails over.
    pub failover: Failover,
    /// Whether a fleet probes the backends and publishes the rosters, instead of the timetable.
    pub fleet: Option<FleetRules>,
    /// The backend hosts, `b0`, `b1`..., and how they behave.
    pub backends: Vec<Manner>,
    /// Which of them the first roster has.
    pub members: Vec<Member>,
    /// The clients. They come from the hosts `c0`, `c1`..., in turn.
    pub clients: Vec<Client>,
    /// How many hosts the clients come from.
    pub client_hosts: usize,
    /// What happens to the world, and when, in order.
    pub timetable: Vec<(Duration, Fault)>,
    /// How the tlbs' reads and writes are cut.
    pub chunking: Chunking,
    /// The longest way of a segment.
    pub latency: Duration,
    /// How many segments a peer may send before the other one reads; also how many connects may
    /// wait at a listener.
    pub window: usize,
    /// By when all clients must be done.
    pub limit: Duration,
    /// How long after them every tlb must have no session left.
    pub settle: Duration,
}

/// What a fleet under turmoil does.
#[derive(Clone, Debug)]
pub struct FleetRules {
    /// When it probes, and what follows.
    pub probe: ProbeConfig,
    /// What becomes of the sessions of a backend that goes away.
    pub on_down: OnDown,
    /// Whether a probe waits for the backend's first byte.
    pub exchange: bool,
    /// How long a word to the workers takes.
    pub delay: Duration,
}

/// A backend in a roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number: `b0`, `b1`...
    pub backend: usize,
    /// Its weight.
    pub weight: u32,
    /// Whether it is draining.
    pub draining: bool,
}

impl Member {
    /// The backends of these numbers, all of weight 1.
    pub fn all(backends: impl IntoIterator<Item = usize>) -> Vec<Self> {
        let member = |backend| Self {
            backend,
            weight: 1,
            draining: false,
        };
        backends.into_iter().map(member).collect()
    }
}

/// Something that happens to the world.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A backend's process dies; its host refuses from now on.
    Kill(usize),
    /// A backend's process starts again.
    Start(usize),
    /// A backend's host dies: its sockets are closed on the way, and from then on it does not
    /// answer at all.
    Crash(usize),
    /// A backend's host comes back, and its process with it.
    Bounce(usize),
    /// Nothing passes between two hosts any more, and nothing is lost.
    Hold(String, String),
    /// What was held passes, and everything after it.
    Release(String, String),
    /// An operator wants something of a backend, where there is a fleet.
    Operate(usize, Admin),
    /// All tlbs get a new roster.
    Publish(Vec<Member>),
    /// A tlb is told to stop.
    Stop(usize),
}

/// Where the seeds come from and how the world is divided among them.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Draws the scenario.
    pub workload: Rng,
    /// turmoil's own.
    pub network: Rng,
    /// The engines'.
    pub engine: Rng,
    /// Cuts the tlbs' reads and writes.
    pub chunking: Rng,
    /// The peers'.
    pub peers: Rng,
}

impl Streams {
    /// Splits a seed, so that one more draw from one stream does not shift the others.
    pub const fn new(seed: u64) -> Self {
        let mut root = Rng::new(seed);
        Self {
            workload: root.split(),
            network: root.split(),
            engine: root.split(),
            chunking: root.split(),
            peers: root.split(),
        }
    }
}

/// How many seeds a scenario runs under, unless the environment says otherwise.
pub const SEEDS: u64 = 8;

/// The seeds to run: `TLB_SIM_SEED=n` is that one alone, `TLB_SIM_SEEDS=n` the first `n`.
///
/// # Panics
/// The variable is not a number.
pub fn seeds() -> Vec<u64> {
    let number = |name| {
        let value = env::var(name).ok()?;
        Some(
            value
                .parse()
                .unwrap_or_else(|_| panic!("{name}={value} is not a number")),
        )
    };
    match number("TLB_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("TLB_SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

/// Runs a scenario under every seed. `test` is the test's name as the test runner knows it, `draw`
/// makes the world from its stream of chance, and `judge` says what must hold beyond what [`check`]
/// demands of every world.
///
/// # Panics Something was wrong. The seed, the world, the last lines of its trace and the command
/// that replays it are printed.
pub fn sweep(
    test: &str,
    draw: impl Fn(&mut Rng) -> Scenario,
    judge: impl Fn(&Scenario, &Run) -> Result<(), String>,
) {
    for seed in seeds() {
        let trace = Trace::default();
        let mut streams = Streams::new(seed);
        let scenario = draw(&mut streams.workload);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let run = world::run(&scenario, streams, trace.clone());
            let mut findings = check(&scenario, &run);
            findings.extend(judge(&scenario, &run).err());
            findings
        }));
        let findings = outcome.unwrap_or_else(|panic| vec![message(&*panic)]);
        if !findings.is_empty() {
            report(test, seed, &scenario, &trace);
            panic!("seed {seed}: {}", findings.join("\n  "));
        }
    }
}

fn report(test: &str, seed: u64, scenario: &impl Debug, trace: &Trace) {
    eprintln!("{scenario:#?}");
    eprintln!("the last of {} facts:", trace.count());
    for line in trace.last() {
        eprintln!("  {line}");
    }
    eprintln!("replay: TLB_SIM_SEED={seed} cargo test -p tlb-sim --test it {test}");
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}
