//! Scenarios as text: one line for each thing, to be read, kept, edited and run again.
//!
//! A line is a word and `name=value` fields, in any order; `#` begins a comment. Printing what was
//! read gives the same text.

mod fields;
mod fleet;
mod framing;

use std::fmt::{self, Write as _};

use tlb_engine::balance::Policy;
use tlb_engine::drive::Mode;

use self::fields::Fields;
use super::scenario::{
    Backend, Client, Door, Group, Membership, Scenario, Script, Start, Then, Trouble,
};
use crate::model::Tuning;

/// What is wrong with a scenario's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextError {
    /// The line, from 1; 0 for the whole.
    pub line: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for TextError {}

/// Prints a scenario.
pub fn print(scenario: &Scenario) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = print_to(scenario, &mut out);
    out
}

fn print_to(scenario: &Scenario, out: &mut String) -> fmt::Result {
    let s = scenario;
    writeln!(
        out,
        "world seed={} workers={} mode={} lag={} heal={} memory={} reset={} shutdown={} control={}",
        s.seed,
        s.workers,
        mode_name(s.mode),
        s.lag_us,
        s.heal_us,
        s.preread_memory,
        s.reset_ms,
        s.shutdown_ms,
        s.control_us
    )?;
    let t = &s.tuning;
    writeln!(
        out,
        "kernel send-buffer={} receive-buffer={} segment={} copy-buffer={} slots={} pipes={} \
         backlog={} partial={} immediate={} user-timeout={}",
        t.send_buffer,
        t.receive_buffer,
        t.segment,
        t.copy_buffer,
        t.pipe_slots,
        t.pipes,
        t.backlog,
        t.partial,
        t.immediate,
        t.user_timeout_ms
    )?;
    for door in &s.listeners {
        print_door(door, out)?;
    }
    for group in &s.pools {
        let (policy, points) = policy_name(group.policy);
        writeln!(
            out,
            "pool policy={policy} points={points} bounded={} connect={} retries={} fall={} warm={} early-resets={}{}",
            optional(group.bounded),
            group.connect_ms,
            group.retries,
            group.fall,
            group.warm,
            u8::from(group.early_resets),
            fleet::print(&group.fleet)
        )?;
    }
    for backend in &s.backends {
        write!(
            out,
            "backend pool={} weight={} membership={} latency={} jitter={}",
            backend.pool,
            backend.weight,
            membership_name(backend.membership),
            backend.latency_us,
            backend.jitter_us
        )?;
        print_script(&backend.script, out)?;
    }
    for client in &s.clients {
        write!(
            out,
            "client at={} worker={} listener={} key={} garbage={} evil={} frame={} host={}",
            client.at_us,
            client.worker,
            client.listener,
            client.key,
            client.garbage,
            u8::from(client.evil),
            client.frame,
            client.host
        )?;
        print_script(&client.script, out)?;
    }
    for &(at, trouble) in &s.faults {
        write!(out, "fault at={at} what={}", trouble.name())?;
        match trouble.numbers() {
            (Some(of), Some(value)) => writeln!(out, " of={of} value={value}")?,
            (Some(of), None) => writeln!(out, " of={of}")?,
            _ => writeln!(out)?,
        }
    }
    Ok(())
}

fn print_door(door: &Door, out: &mut String) -> fmt::Result {
    let framing = framing::print(door.framing);
    writeln!(
        out,
        "listener framing={framing} pool={} preread={} limit={} max={} idle={} half-close={} \
         admission={} per-source={} replay={}",
        door.pool,
        door.preread_ms,
        door.limit,
        door.max_sessions,
        optional(door.idle_ms),
        door.half_close_ms,
        fleet::pair(door.admission),
        optional(door.per_source),
        u8::from(door.replay)
    )
}

fn print_script(script: &Script, out: &mut String) -> fmt::Result {
    let start = match script.start {
        Start::Now => "now".into(),
        Start::End => "end".into(),
        Start::Echo => "echo".into(),
        Start::Bytes(bytes) => bytes.to_string(),
    };
    let (quit, how) = match script.quit {
        Some((bytes, how)) => (bytes.to_string(), then_name(how)),
        None => ("off".into(), "close"),
    };
    writeln!(
        out,
        " start={start} send={} chunk={} pause={} urgent={} then={} read={} read-pause={} \
         quit={quit} quit-by={how}",
        script.send,
        script.chunk,
        script.pause_us,
        u8::from(script.urgent),
        then_name(script.then),
        script.read,
        script.read_pause_us
    )
}

fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "off".into(), |value| value.to_string())
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Copy => "copy",
        Mode::Splice => "splice",
        Mode::Auto => "auto",
    }
}

const fn then_name(then: Then) -> &'static str {
    match then {
        Then::Fin => "fin",
        Then::FinLast => "fin-last",
        Then::Hold => "hold",
        Then::Reset => "reset",
        Then::Close => "close",
    }
}

const fn membership_name(membership: Membership) -> &'static str {
    match membership {
        Membership::Member => "member",
        Membership::Draining => "draining",
        Membership::Absent => "absent",
    }
}

const fn policy_name(policy: Policy) -> (&'static str, u32) {
    match policy {
        Policy::HashRing { points } => ("hash-ring", points),
        Policy::Source { points } => ("source", points),
        Policy::Maglev => ("maglev", 0),
        Policy::RoundRobin => ("round-robin", 0),
        Policy::LeastSessions => ("least-sessions", 0),
        Policy::PowerOfTwo => ("p2c", 0),
    }
}

impl Fields<'_> {
    fn script(&self) -> Result<Script, TextError> {
        let start = match self.word("start")? {
            "now" => Start::Now,
            "end" => Start::End,
            "echo" => Start::Echo,
            _ => Start::Bytes(self.number("start")?),
        };
        let quit = self.optional("quit")?;
        Ok(Script {
            start,
            send: self.number("send")?,
            chunk: self.number("chunk")?,
            pause_us: self.number("pause")?,
            urgent: self.flag("urgent")?,
            then: self.one_of("then", THENS)?,
            read: self.number("read")?,
            read_pause_us: self.number("read-pause")?,
            quit: match quit {
                Some(bytes) => Some((bytes, self.one_of("quit-by", THENS)?)),
                None => None,
            },
        })
    }

    fn world(&self, into: &mut Scenario) -> Result<(), TextError> {
        let modes = [
            ("copy", Mode::Copy),
            ("splice", Mode::Splice),
            ("auto", Mode::Auto),
        ];
        into.seed = self.number("seed")?;
        into.workers = self.number("workers")?;
        into.mode = self.one_of("mode", &modes)?;
        into.lag_us = self.number("lag")?;
        into.heal_us = self.number("heal")?;
        into.preread_memory = self.number("memory")?;
        into.reset_ms = self.number("reset")?;
        into.shutdown_ms = self.number("shutdown")?;
        into.control_us = self.or("control", "2000").number("control")?;
        Ok(())
    }

    fn kernel(&self) -> Result<Tuning, TextError> {
        Ok(Tuning {
            send_buffer: self.number("send-buffer")?,
            receive_buffer: self.number("receive-buffer")?,
            segment: self.number("segment")?,
            copy_buffer: self.number("copy-buffer")?,
            pipe_slots: self.number("slots")?,
            pipes: self.number("pipes")?,
            backlog: self.number("backlog")?,
            partial: self.number("partial")?,
            immediate: self.number("immediate")?,
            user_timeout_ms: self.number("user-timeout")?,
        })
    }

    fn door(&self) -> Result<Door, TextError> {
        let framing = framing::parse(self.word("framing")?);
        Ok(Door {
            framing: framing.map_err(|what| self.error(what))?,
            pool: self.number("pool")?,
            preread_ms: self.number("preread")?,
            limit: self.number("limit")?,
            max_sessions: self.number("max")?,
            idle_ms: self.optional("idle")?,
            half_close_ms: self.number("half-close")?,
            admission: self.or("admission", "off").pair("admission")?,
            per_source: self.or("per-source", "off").optional("per-source")?,
            replay: self.or("replay", "0").flag("replay")?,
        })
    }

    fn group(&self) -> Result<Group, TextError> {
        let points = self.number("points")?;
        let policies = [
            ("hash-ring", Policy::HashRing { points }),
            ("source", Policy::Source { points }),
            ("maglev", Policy::Maglev),
            ("round-robin", Policy::RoundRobin),
            ("least-sessions", Policy::LeastSessions),
            ("p2c", Policy::PowerOfTwo),
        ];
        Ok(Group {
            policy: self.one_of("policy", &policies)?,
            bounded: self.optional("bounded")?,
            connect_ms: self.number("connect")?,
            retries: self.number("retries")?,
            fall: self.number("fall")?,
            warm: self.or("warm", "0").number("warm")?,
            early_resets: self.or("early-resets", "0").flag("early-resets")?,
            fleet: fleet::parse(self)?,
        })
    }

    fn backend(&self) -> Result<Backend, TextError> {
        let memberships = [Membership::Member, Membership::Draining, Membership::Absent];
        let memberships = memberships.map(|it| (membership_name(it), it));
        Ok(Backend {
            pool: self.number("pool")?,
            weight: self.number("weight")?,
            membership: self.one_of("membership", &memberships)?,
            latency_us: self.number("latency")?,
            jitter_us: self.number("jitter")?,
            script: self.script()?,
        })
    }

    fn client(&self) -> Result<Client, TextError> {
        Ok(Client {
            at_us: self.number("at")?,
            worker: self.number("worker")?,
            listener: self.number("listener")?,
            key: self.number("key")?,
            garbage: self.number("garbage")?,
            evil: self.flag("evil")?,
            frame: self.number("frame")?,
            host: self.number("host")?,
            script: self.script()?,
        })
    }

    fn fault(&self) -> Result<(u64, Trouble), TextError> {
        let at = self.number("at")?;
        let of = || self.number::<usize>("of");
        let trouble = match self.word("what")? {
            "kill" => Trouble::Kill(of()?),
            "up" => Trouble::Up(of()?),
            "hang" => Trouble::Hang(of()?),
            "unreachable" => Trouble::Unreachable(of()?),
            "vanish" => Trouble::Vanish(of()?),
            "freeze" => Trouble::Freeze(of()?),
            "hold" => Trouble::Hold(of()?),
            "release" => Trouble::Release(of()?),
            "latency" => Trouble::Latency(of()?, self.number("value")?),
            "descriptors" => Trouble::Descriptors(of()?, self.number("value")?),
            "ports" => Trouble::Ports(of()?),
            "memory" => Trouble::Memory(of()?),
            "plenty" => Trouble::Plenty(of()?),
            "gone" => Trouble::Gone(of()?, self.number("value")?),
            "unregistered" => Trouble::Unregistered(of()?, self.number("value")?),
            "spurious" => Trouble::Spurious(of()?),
            "late" => Trouble::Late(of()?),
            "remove" => Trouble::Remove(of()?),
            "add" => Trouble::Add(of()?),
            "drain" => Trouble::Drain(of()?),
            "readdress" => Trouble::Readdress(of()?),
            "maint" => Trouble::Maint(of()?),
            "ready" => Trouble::Ready(of()?),
            "stop" => Trouble::Stop,
            other => return Err(self.error(format!("what={other} is unknown"))),
        };
        Ok((at, trouble))
    }
}

const THENS: &[(&str, Then)] = &[
    ("fin", Then::Fin),
    ("fin-last", Then::FinLast),
    ("hold", Then::Hold),
    ("reset", Then::Reset),
    ("close", Then::Close),
];

/// Reads a scenario.
///
/// # Errors
/// The first line that is not one, or a number of something that there is not.
pub fn parse(text: &str) -> Result<Scenario, TextError> {
    let mut scenario = super::draw::empty();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let mut words = line.split_whitespace();
        let Some(kind) = words.next() else {
            continue;
        };
        let fields = words.filter_map(|word| word.split_once('=')).collect();
        let fields = Fields {
            line: number + 1,
            fields,
        };
        match kind {
            "world" => fields.world(&mut scenario)?,
            "kernel" => scenario.tuning = fields.kernel()?,
            "listener" => scenario.listeners.push(fields.door()?),
            "pool" => scenario.pools.push(fields.group()?),
            "backend" => scenario.backends.push(fields.backend()?),
            "client" => scenario.clients.push(fields.client()?),
            "fault" => scenario.faults.push(fields.fault()?),
            other => return Err(fields.error(format!("{other} is unknown"))),
        }
    }
    scenario.faults.sort_by_key(|&(at, _)| at);
    validate(&scenario).map_err(|what| TextError { line: 0, what })?;
    Ok(scenario)
}

/// Whether all numbers name something.
fn validate(scenario: &Scenario) -> Result<(), String> {
    let s = scenario;
    let need = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    need(
        (1..=64).contains(&s.workers),
        "there must be 1 to 64 workers",
    )?;
    need(
        !s.pools.is_empty() && !s.listeners.is_empty(),
        "a pool or a listener is missing",
    )?;
    need(
        (1..=200).contains(&s.backends.len()),
        "there must be 1 to 200 backends",
    )?;
    let t = &s.tuning;
    let sizes = [
        t.send_buffer,
        t.receive_buffer,
        t.segment,
        t.copy_buffer,
        t.pipe_slots,
        t.backlog,
    ];
    need(!sizes.contains(&0), "a size of the kernel is zero")?;
    let pools = s
        .listeners
        .iter()
        .map(|it| it.pool)
        .chain(s.backends.iter().map(|it| it.pool));
    need(
        pools.max() < Some(s.pools.len()),
        "a pool's number is too high",
    )?;
    need(
        s.backends.iter().all(|it| it.weight > 0),
        "a weight is zero",
    )?;
    for client in &s.clients {
        need(
            client.listener < s.listeners.len(),
            "a client's listener is not there",
        )?;
        need(
            s.listeners[client.listener].framing.takes(client.frame),
            "a client's frame is too short, or not one of its listener's",
        )?;
    }
    for (_, trouble) in &s.faults {
        let most = match trouble {
            Trouble::Hold(_) | Trouble::Release(_) | Trouble::Latency(..) => s.links(),
            Trouble::Descriptors(..)
            | Trouble::Ports(_)
            | Trouble::Memory(_)
            | Trouble::Plenty(_)
            | Trouble::Gone(..)
            | Trouble::Unregistered(..)
            | Trouble::Spurious(_)
            | Trouble::Late(_) => s.workers,
            _ => s.backends.len(),
        };
        let of = trouble.numbers().0;
        need(
            of.is_none_or(|of| of < most),
            "a fault's number is too high",
        )?;
    }
    Ok(())
}
