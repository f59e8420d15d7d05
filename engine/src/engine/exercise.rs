//! An engine under any history of inputs, judged from outside: shared by a property test and the fuzz target.
//!
//! The bytes of an input are a list of operations ([`Exercise::operate`]) after eight that choose the configuration.
//! The driver behind it keeps the contract (it drains actions, passes no more bytes than are wanted, and lets time
//! go forward), but knows no manners: it tells of sessions that are gone, of attempts that were given up, and of
//! relays that never began.

use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::vec;
use std::vec::Vec;

use tlb_engine::Engine;
use tlb_engine::api::{
    Action, Closed, Ends, Event, Fault, Input, Report, Shed, Standing, Tell, TellHow, Why,
};
use tlb_engine::balance::Policy;
use tlb_engine::config::{Config, Failover, Limits, Listener};
use tlb_engine::health::{Change, Passive};
use tlb_engine::ids::{Dir, Incarnation, ListenerId, PoolId, SessionId, Side, WarmId};
use tlb_engine::pace::{Bucket, Sources};
use tlb_engine::roster::{Backend, Load, Pool, Ramp, Roster};
use tlb_engine::time::{Duration, Timestamp};
use tlb_engine::unpack::{Reject, Status, Target, Unpack};

/// Backends have these ids, in each pool.
const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// An address that is in no pool, for the unpack to name.
const ELSEWHERE: &str = "127.9.9.9:9";
const FAULTS: [Fault; 9] = [
    Fault::Refused,
    Fault::Unreachable,
    Fault::TimedOut,
    Fault::Reset,
    Fault::LocalPorts,
    Fault::LocalDescriptors,
    Fault::LocalMemory,
    Fault::Denied,
    Fault::Other(99),
];
/// Nanoseconds by which time may pass: from nothing to a day.
const STEPS: [u64; 8] = [
    0,
    1,
    1_000_000,
    50_000_000,
    900_000_000,
    5_000_000_000,
    100_000_000_000,
    86_400_000_000_000,
];

/// A protocol that can name every target: its first byte says which.
#[derive(Debug)]
struct Words;

impl Unpack for Words {
    fn unpack(&self, prefix: &[u8], scanned: usize, _eof: bool) -> Status {
        let more = |at_least| Status::Partial {
            at_least,
            scanned: prefix.len().max(scanned),
        };
        let (Some(&word), second) = (prefix.first(), prefix.get(1)) else {
            return more(1);
        };
        let Some(&second) = second.filter(|_| word % 16 < 12) else {
            return match word % 16 {
                0..12 => more(2),
                12 => Status::Invalid(Reject::Custom(7)),
                // It breaks its contract.
                13 => Status::Skip { bytes: 0 },
                _ => Status::Skip { bytes: 1 },
            };
        };
        let target = match word % 16 {
            0..5 => Target::Key(1..2),
            5 => Target::KeyHash(u64::from(second) << 56),
            6 | 7 => Target::Backend(1..2),
            8 => Target::Address(ELSEWHERE.parse().expect("an address")),
            9 => Target::Pool(PoolId(u32::from(second % 4))),
            _ => Target::Any,
        };
        Status::Complete {
            frame: 0..prefix.len(),
            target,
        }
    }
}

/// What the driver knows of a live session.
#[derive(Debug, Default)]
struct Seen {
    attempts: u8,
    /// A connection to a backend was asked for and not given up since.
    open: bool,
    relaying: bool,
    winding: bool,
    /// The directions whose end was reported.
    ended: [bool; 2],
    half_closed: [bool; 2],
    /// Bytes that its relays reported, forward and back.
    passed: [u64; 2],
}

/// The bytes of an input, read from the front; what is missing reads as zeros.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.byte()) % choices.len()]
    }

    fn fault(&mut self) -> Fault {
        self.of(&FAULTS)
    }
}

struct Exercise<'a> {
    input: Source<'a>,
    engine: Engine,
    now: Timestamp,
    /// The pools as they were published last, and the epoch.
    pools: Vec<Vec<Arc<Backend>>>,
    shape: [(Policy, Failover); 2],
    epoch: u64,
    incarnations: u32,
    /// Of every backend that there ever was.
    loads: Vec<Load>,
    live: BTreeMap<SessionId, Seen>,
    warm: BTreeMap<WarmId, SocketAddr>,
    dead: Vec<SessionId>,
    /// Backends that are down, and since when nobody may try them.
    down: BTreeMap<Incarnation, Timestamp>,
    /// Backends of which another worker was said to have an opinion.
    advised: BTreeSet<Incarnation>,
    config: Config,
    pace: Bucket,
    accepted: u64,
    closed: u64,
}

/// Runs an input to its end, and then until the engine has nothing left to do.
///
/// # Panics
/// Where the engine breaks a promise.
pub(crate) fn run(bytes: &[u8]) {
    let mut exercise = Exercise::new(Source(bytes));
    while !exercise.input.0.is_empty() {
        exercise.operate();
        exercise.settle();
    }
    exercise.finish();
}

fn config(input: &mut Source<'_>) -> Config {
    let limits = Limits {
        preread_memory: input.of(&[1 << 20, 16, 0]),
        reset_timeout: Duration::from_millis(input.of(&[10_000, 0])),
        shutdown_timeout: Duration::from_millis(input.of(&[30_000, 0])),
    };
    let flags = input.byte();
    let mut keyed = Listener::new("keyed", Some(Arc::new(Words)), PoolId(0));
    keyed.preread_limit = if flags & 1 == 0 { 8 } else { 2 };
    keyed.max_sessions = if flags & 2 == 0 { 64 } else { 2 };
    keyed.allow_address = flags & 4 == 0;
    keyed.idle_timeout = (flags & 8 == 0).then_some(Duration::from_secs(60));
    keyed.replay = flags & 32 != 0;
    let three = NonZeroU32::new(3).expect("not zero");
    keyed.per_source = (flags & 64 != 0).then(|| Sources::new(three));
    let mut plain = Listener::new("plain", None, PoolId(1));
    plain.admission = (flags & 128 != 0).then(|| Bucket::new(three, three));
    if flags & 16 != 0 {
        plain.idle_timeout = Some(Duration::ZERO);
        plain.half_close_timeout = Duration::ZERO;
        keyed.preread_timeout = Duration::ZERO;
    }
    Config::new(vec![keyed, plain], limits)
}

fn shape(input: &mut Source<'_>) -> (Policy, Failover) {
    let policy = input.of(&[
        Policy::HashRing { points: 8 },
        Policy::RoundRobin,
        Policy::LeastSessions,
        Policy::PowerOfTwo,
        Policy::Source { points: 8 },
    ]);
    let flags = input.byte();
    let failover = Failover {
        connect_timeout: Duration::from_secs(if flags & 1 == 0 { 5 } else { 0 }),
        retries: [3, 0, 32, 1][usize::from(flags >> 1 & 3)],
        fall: [3, 1, 2, 1000][usize::from(flags >> 3 & 3)],
        panic: [0, 0, 0, 60][usize::from(flags >> 5 & 3)],
        max_ejected: if flags & 128 == 0 { 100 } else { 50 },
        early_resets: flags & 1 != 0,
        warm: [0, 1, 2, 0][usize::from(flags >> 3 & 3)],
        ..Failover::default()
    };
    (policy, failover)
}

impl<'a> Exercise<'a> {
    fn new(mut input: Source<'a>) -> Self {
        let config = config(&mut input);
        let shape = [shape(&mut input), shape(&mut input)];
        let now = Timestamp::from_millis(1000);
        let seed = input.byte().into();
        let engine = Engine::new(Arc::new(config.clone()), Arc::default(), seed, now);
        let mut exercise = Self {
            input,
            engine,
            now,
            pools: vec![Vec::new(), Vec::new()],
            shape,
            epoch: 0,
            incarnations: 0,
            loads: Vec::new(),
            live: BTreeMap::new(),
            warm: BTreeMap::new(),
            dead: Vec::new(),
            down: BTreeMap::new(),
            advised: BTreeSet::new(),
            config,
            pace: Bucket::new(NonZeroU32::MIN, NonZeroU32::MIN),
            accepted: 0,
            closed: 0,
        };
        for id in [0, 1, 2] {
            exercise.newcomer(0, id);
            exercise.newcomer(1, id);
        }
        exercise.publish();
        exercise
    }

    fn newcomer(&mut self, pool: usize, id: usize) {
        self.incarnations += 1;
        let number = self.incarnations;
        let load = Load::default();
        self.loads.push(load.clone());
        let address = format!("127.{}.{}.{}:7", pool + 1, number / 250, number % 250);
        self.pools[pool].push(Arc::new(Backend {
            id: IDS[id].into(),
            incarnation: Incarnation(number),
            address: address.parse().ok(),
            weight: 1,
            draining: false,
            load,
            ..Backend::default()
        }));
    }

    fn publish(&mut self) {
        self.epoch += 1;
        let pools = self.pools.iter().zip(&self.shape).enumerate();
        let pools = pools.map(|(index, (backends, (policy, failover)))| {
            let name = ["first", "second"][index];
            Arc::new(Pool::new(name, *policy, failover.clone(), backends.clone()))
        });
        let roster = Roster {
            epoch: self.epoch,
            pools: pools.collect(),
        };
        self.engine.publish(self.now, Arc::new(roster));
    }

    /// One operation.
    fn operate(&mut self) {
        match self.input.byte() % 16 {
            0 | 1 => self.accept(),
            2..5 => self.preread(),
            5..11 => self.inform(),
            11 | 12 => self.expire(),
            13 => self.pass(),
            14 => self.change_roster(),
            _ => self.rare(),
        }
    }

    fn accept(&mut self) {
        let byte = self.input.byte();
        let listener = ListenerId(u32::from(byte & 1));
        let peer = SocketAddr::from(([127, 0, 0, byte | 1], 4000));
        let may = self.engine.may_accept(self.now, listener);
        match self.engine.accept(self.now, listener, peer) {
            Ok(id) => {
                self.accepted += 1;
                assert!(
                    self.live.insert(id, Seen::default()).is_none(),
                    "{id} is new"
                );
                assert!(!self.dead.contains(&id), "{id} was never used");
            }
            Err(shed) => {
                let stopping = self.engine.is_stopping();
                let known = !may || stopping || shed == Shed::PerSource;
                assert!(known, "it was told to come, and then {shed:?}");
            }
        }
    }

    /// A session, mostly a live one.
    fn session(&mut self) -> Option<SessionId> {
        let byte = usize::from(self.input.byte());
        if byte >= 240 || self.live.is_empty() {
            return self.dead.get(byte % self.dead.len().max(1)).copied();
        }
        self.live.keys().nth(byte % self.live.len()).copied()
    }

    fn preread(&mut self) {
        let Some(session) = self.session() else {
            return;
        };
        let how = self.input.byte();
        if how >= 224 {
            return self.engine.handle(self.now, Input::Ended { session });
        }
        let wanted = self.engine.wants(session);
        let bytes = self.input.bytes(usize::from(how % 4).min(wanted));
        let bytes = &bytes[..];
        self.engine
            .handle(self.now, Input::Received { session, bytes });
    }

    /// Something is told of a session's sockets.
    fn inform(&mut self) {
        let Some(session) = self.session() else {
            return;
        };
        let how = self.input.byte();
        let current = self
            .live
            .get(&session)
            .map_or(0, |seen| seen.attempts.wrapping_sub(1));
        // One in eight is of an attempt that is over, or never was.
        let attempt = if how >= 224 {
            current.wrapping_sub(how % 4)
        } else {
            current
        };
        let input = match how % 8 {
            0..2 => Input::Connected { session, attempt },
            2 => Input::ConnectFailed {
                session,
                attempt,
                fault: self.input.fault(),
            },
            3 if how < 32 => Input::ClientBroken {
                session,
                fault: self.input.fault(),
            },
            _ => {
                let report = self.report(session);
                let asked = self.input.byte().is_multiple_of(4);
                let quiet = asked
                    .then(|| Duration::from_nanos(self.input.of(&[0, 1 << 30, 1 << 36, 1 << 60])));
                let seen = self.live.get_mut(&session);
                if let Some(seen) = seen.filter(|seen| seen.relaying && attempt == current) {
                    seen.passed[0] += report.forward;
                    seen.passed[1] += report.back;
                }
                Input::Relayed {
                    session,
                    attempt,
                    report,
                    quiet,
                }
            }
        };
        self.engine.handle(self.now, input);
    }

    /// Any report, but for one thing: a direction ends once.
    fn report(&mut self, session: SessionId) -> Report {
        let flags = self.input.byte();
        let mut ended = [flags & 1 != 0, flags & 2 != 0];
        if let Some(seen) = self.live.get_mut(&session) {
            for dir in Dir::BOTH {
                let before = &mut seen.ended[dir as usize];
                ended[dir as usize] &= !*before;
                *before |= ended[dir as usize];
            }
        }
        let side = Side::BOTH[usize::from(flags >> 2 & 1)];
        let broken = (flags & 0x38 == 0x38).then(|| (side, self.input.fault()));
        let standing = match flags >> 6 {
            0 | 1 => Standing::Open,
            2 => Standing::Unacknowledged,
            _ => Standing::Finished(if flags & 4 == 0 {
                Ends::FIN
            } else {
                Ends::RESET
            }),
        };
        Report {
            proven: self.input.0.len().is_multiple_of(3),
            forward: self.input.of(&[0, 0, 1, 8, 1 << 32]),
            back: self.input.of(&[0, 0, 1, 1 << 32]),
            ended,
            broken,
            handed_off: flags & 0x34 == 0x34,
            standing,
        }
    }

    /// The next deadline comes, to the point or late.
    fn expire(&mut self) {
        let Some((at, timer)) = self.engine.poll_timeout() else {
            return;
        };
        self.now = self.now.max(at);
        self.engine.handle_timeout(self.now);
        if let Some((next, _)) = self.engine.poll_timeout() {
            assert!(next > self.now, "{timer:?} was due, and {next} still is");
        }
    }

    /// Time passes, unnoticed or noticed.
    fn pass(&mut self) {
        let by = Duration::from_nanos(self.input.of(&STEPS));
        let quiet = self
            .engine
            .poll_timeout()
            .is_none_or(|(at, _)| at > self.now + by);
        self.now = self.now + by;
        self.engine.handle_timeout(self.now);
        if quiet {
            assert_eq!(self.engine.poll_action(), None, "nothing was due");
        }
    }

    fn change_roster(&mut self) {
        let what = self.input.byte();
        let place = usize::from(self.input.byte());
        let pool = usize::from(what >> 4 & 1);
        if what >> 5 == 7 {
            // A pool that goes, and comes again.
            if self.pools.len() == 2 {
                self.pools.truncate(1);
            } else {
                self.pools.push(Vec::new());
            }
            return self.publish();
        }
        let Some(backends) = self.pools.get_mut(pool) else {
            return;
        };
        let at = place % backends.len().max(1);
        match what % 7 {
            0 if !backends.is_empty() => drop(backends.remove(at)),
            1 => {
                let free = |id: &usize| backends.iter().all(|known| *known.id != *IDS[*id]);
                if let Some(id) = (0..IDS.len()).find(free) {
                    self.newcomer(pool, id);
                }
            }
            change if !backends.is_empty() => {
                let mut backend = (*backends[at]).clone();
                match change {
                    2 => backend.draining = !backend.draining,
                    3 => backend.weight = 1 + u32::from(what % 3),
                    4 => backend.down = !backend.down,
                    5 => {
                        let over = Duration::from_secs(1);
                        let from = self.now;
                        backend.ramp = (what & 8 == 0).then_some(Ramp { from, over });
                        let bucket = Bucket::new(NonZeroU32::MIN, NonZeroU32::MIN);
                        backend.admission = (what & 16 == 0).then_some(bucket);
                    }
                    _ => {
                        // Another address, or none, is another life.
                        self.incarnations += 1;
                        let text = format!("127.3.0.{}:7", self.incarnations % 250);
                        backend.address = (what & 8 == 0).then(|| text.parse().expect("valid"));
                        backend.incarnation = Incarnation(self.incarnations);
                        backend.load = Load::default();
                        self.loads.push(backend.load.clone());
                    }
                }
                backends[at] = Arc::new(backend);
            }
            _ => {}
        }
        self.publish();
    }

    fn rare(&mut self) {
        match self.input.byte() {
            0..8 => self.engine.stop(self.now),
            8..128 => {
                let listener = ListenerId(u32::from(self.input.byte() & 1));
                let fault = self.input.fault();
                self.engine.accept_failed(self.now, listener, fault);
            }
            // An old roster that comes late, and a look at the clock that is too early.
            128..144 => self.engine.publish(self.now, Arc::default()),
            144..208 => self.tell(),
            208..224 => self.advise(),
            224..240 => self.reconfigure(),
            _ => self.engine.handle_timeout(Timestamp::ZERO),
        }
    }
}

/// What a fleet does.
impl Exercise<'_> {
    fn some_backend(&mut self) -> Option<(PoolId, Incarnation)> {
        let byte = usize::from(self.input.byte());
        let pool = byte % self.pools.len();
        let backends = &self.pools[pool];
        let backend = backends.get(byte / 2 % backends.len().max(1))?;
        Some((PoolId(pool as u32), backend.incarnation))
    }

    fn tell(&mut self) {
        let how = self.input.byte();
        let Some((_, backend)) = self.some_backend() else {
            return;
        };
        let tell = Tell {
            backend,
            why: [Why::Down, Why::Maint, Why::Removed][usize::from(how % 3)],
            how: [None, Some(TellHow::Close), Some(TellHow::Reset)][usize::from(how / 4 % 3)],
            pace: self.pace.clone(),
        };
        self.engine.tell(self.now, &tell);
    }

    fn advise(&mut self) {
        let up = self.input.byte().is_multiple_of(2);
        let Some((pool, backend)) = self.some_backend() else {
            return;
        };
        self.advised.insert(backend);
        if up {
            self.down.remove(&backend);
        }
        let change = if up { Change::Up } else { Change::Down };
        self.engine.advise(self.now, pool, backend, change);
    }

    fn reconfigure(&mut self) {
        let rules = &mut self.config.listeners;
        let place = usize::from(self.input.byte()) % rules.len();
        match &rules[place] {
            Some(_) if rules.len() > 2 => rules[place] = None,
            Some(known) if rules.len() < 4 => rules.push(Some(Arc::clone(known))),
            _ => {}
        }
        self.engine
            .reconfigure(self.now, Arc::new(self.config.clone()));
    }
}

/// The judge.
impl Exercise<'_> {
    /// Takes what the engine has to say about the last call.
    fn settle(&mut self) {
        self.engine.check_all();
        let mut picked = BTreeMap::new();
        let mut ended = BTreeMap::new();
        while let Some(event) = self.engine.poll_event() {
            self.event(event, &mut picked, &mut ended);
        }
        while let Some(action) = self.engine.poll_action() {
            self.action(action, &mut picked, &mut ended);
        }
        assert!(
            picked.is_empty(),
            "picked, but not connected to: {picked:?}"
        );
        assert!(ended.is_empty(), "ended, but not closed: {ended:?}");
        assert_eq!(
            self.engine.live(),
            self.live.len(),
            "it counts its sessions"
        );
    }

    fn event(
        &mut self,
        event: Event,
        picked: &mut BTreeMap<(SessionId, u8), SocketAddr>,
        ended: &mut BTreeMap<SessionId, Closed>,
    ) {
        match event {
            Event::Accepted { session, .. } => self.assert_live(session),
            Event::Picked {
                session,
                attempt,
                pool,
                backend,
                to,
            } => {
                self.assert_live(session);
                assert_eq!(picked.insert((session, attempt), to), None, "one pick each");
                self.eligible(pool, backend, to);
            }
            Event::AttemptFailed { session, .. } | Event::Established { session, .. } => {
                self.assert_live(session);
            }
            Event::HalfClosed { session, dir } => {
                let seen = self.live.get_mut(&session).expect("a live session");
                let before = core::mem::replace(&mut seen.half_closed[dir as usize], true);
                assert!(!before, "{session}: {dir} ends once");
            }
            Event::Closed(closed) => {
                let again = ended.insert(closed.session, closed);
                assert_eq!(again, None, "a session ends once");
            }
            Event::BackendDown { backend, .. } => {
                let least = Passive::BACK_OFF_MIN * (100 - Passive::JITTER_PERCENT as u32) / 100;
                let again = self.down.insert(backend, self.now + least);
                let known = again.is_some() && !self.advised.contains(&backend);
                assert!(!known, "{backend:?} is down already");
            }
            Event::BackendUp { backend, .. } => {
                let down = self.down.remove(&backend).is_some();
                assert!(down || self.advised.contains(&backend), "{backend:?} is up");
            }
            _ => {}
        }
    }

    /// A pick is of the roster there is, and of nobody who drains or is down.
    fn eligible(&self, pool: PoolId, backend: Option<Incarnation>, to: SocketAddr) {
        let Some(backend) = backend else {
            assert_eq!(Ok(to), ELSEWHERE.parse(), "an address of the unpack");
            return;
        };
        let strict = self.shape[pool.index()].1.panic == 0;
        let pool = &self.pools[pool.index()];
        let known = pool.iter().find(|known| known.incarnation == backend);
        let known = known.expect("a backend of the pool");
        assert_eq!(known.address, Some(to), "its address");
        assert!(!known.draining, "{to} drains");
        // In panic nobody's health is believed.
        assert!(!known.down || !strict, "{to} is down, as the roster says");
        let strict = strict && !self.advised.contains(&backend);
        if let Some(since) = self.down.get(&backend).filter(|_| strict) {
            assert!(*since <= self.now, "{to} is down");
        }
    }

    fn action(
        &mut self,
        action: Action,
        picked: &mut BTreeMap<(SessionId, u8), SocketAddr>,
        ended: &mut BTreeMap<SessionId, Closed>,
    ) {
        let Some(id) = action.session() else {
            return self.warm_action(action);
        };
        let seen = self.live.get_mut(&id);
        let seen = seen.unwrap_or_else(|| panic!("{action} of a dead session"));
        let current = seen.attempts.wrapping_sub(1);
        match action {
            Action::Connect {
                attempt, to, warm, ..
            } => {
                let there = warm.is_none_or(|warm| self.warm.remove(&warm) == Some(to));
                assert!(there, "{action}: it is not there, or goes elsewhere");
                assert!(!seen.open && !seen.winding, "{action}: one at a time");
                assert_eq!(attempt, seen.attempts, "attempts are counted");
                assert_eq!(picked.remove(&(id, attempt)), Some(to), "as picked");
                seen.attempts += 1;
                seen.open = true;
                seen.ended = [false; 2];
            }
            Action::Abandon { attempt, .. } => {
                assert!(seen.open && attempt == current, "{action}: it was not open");
                (seen.open, seen.relaying) = (false, false);
                // What one backend had of the preface, the next one has anew.
                seen.passed[0] = 0;
                seen.half_closed = [false; 2];
            }
            Action::Relay { attempt, .. } => {
                assert!(seen.open && attempt == current, "{action}: it is not open");
                assert!(!seen.relaying, "{action}: a relay begins once");
                seen.relaying = true;
            }
            Action::Look { .. } => assert!(seen.relaying, "{action}: nothing to look at"),
            Action::Wind { .. } => {
                assert!(
                    seen.relaying && !seen.winding,
                    "{action}: once, and a relay"
                );
                seen.winding = true;
            }
            _ => {
                let closed = ended.remove(&id).expect("closed, but it did not end");
                assert_eq!(closed.attempts, seen.attempts, "{id} counts its attempts");
                let passed = [closed.forward, closed.back];
                assert_eq!(passed, seen.passed, "{id} counts its bytes");
                self.live.remove(&id);
                self.dead.push(id);
                self.closed += 1;
            }
        }
    }

    /// Connections for sessions that may come.
    fn warm_action(&mut self, action: Action) {
        match action {
            Action::Warm { warm, to, .. } => {
                assert_eq!(self.warm.insert(warm, to), None, "{action}: a new one");
                let most = self.shape.iter().map(|(_, rules)| rules.warm).max();
                let there = self.warm.values().filter(|it| **it == to).count();
                assert!(there <= usize::from(most.unwrap_or(0)), "{action}");
                assert!(!self.engine.is_stopping(), "{action}: for nobody");
            }
            Action::Cool { warm } => {
                assert!(self.warm.remove(&warm).is_some(), "{action}: one there is");
            }
            _ => panic!("{action} is of no session"),
        }
    }

    fn assert_live(&self, session: SessionId) {
        assert!(self.live.contains_key(&session), "{session} is not live");
    }

    /// tlb stops, and time passes until nothing is left.
    fn finish(&mut self) {
        self.engine.stop(self.now);
        self.settle();
        while self.engine.poll_timeout().is_some() {
            self.expire();
            self.settle();
        }
        assert_eq!(self.engine.pending(), None);
        assert_eq!(self.warm, BTreeMap::new(), "none is kept for nobody");
        assert_eq!(self.accepted, self.closed, "each session ends");
        for load in &self.loads {
            assert_eq!(load.get(), 0, "no session is left at a backend");
        }
    }
}
