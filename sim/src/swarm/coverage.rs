//! What a sweep has seen of what there is to see.

use std::collections::BTreeMap;
use std::fmt;

use tlb_engine::api::{CloseReason, Closed, Event, Fault};
use tlb_engine::drive::{Outcome, Via};
use tlb_engine::fleet::{FleetAction, FleetEvent};
use tlb_engine::unpack::Reject;

use super::scenario::Trouble;
use crate::model::ledger::{Call, Injected};

/// A swarm sweep of at least so many seeds must have seen everything.
pub const WHOLE: u64 = 2000;

/// Counts by kind and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    counts: BTreeMap<(&'static str, &'static str), u64>,
}

/// Everything that there is to see: kinds and names.
fn expected() -> Vec<(&'static str, &'static str)> {
    let fault = Fault::Reset;
    let reasons = [
        CloseReason::Completed,
        CloseReason::ClientBroken(fault),
        CloseReason::BackendBroken(fault),
        CloseReason::BackendBroken(Fault::TimedOut),
        CloseReason::ClientLeft,
        CloseReason::PrereadTimeout,
        CloseReason::PrereadLimit,
        CloseReason::PrereadMemory,
        CloseReason::Rejected(Reject::Truncated),
        CloseReason::NoBackend,
        CloseReason::ConnectFailed(fault),
        CloseReason::RetryBudget,
        CloseReason::LocalFault(fault),
        CloseReason::IdleTimeout,
        CloseReason::HalfCloseTimeout,
        CloseReason::Shutdown,
        CloseReason::BackendDown,
        CloseReason::BackendMaint,
        CloseReason::BackendRemoved,
    ];
    let mut all: Vec<_> = reasons
        .iter()
        .map(|it| ("close reason", it.name()))
        .collect();
    let actions = [
        "connect", "abandon", "relay", "look", "wind", "close", "warm", "take", "cool",
    ];
    all.extend(actions.map(|action| ("action", action)));
    all.extend(
        [
            "copy",
            "splice",
            RESTS,
            HEARD_AGAIN,
            HANDED_OFF,
            KEPT,
            OVER,
            UNANSWERED,
        ]
        .map(|what| ("relay", what)),
    );
    let faults = [
        Fault::Refused,
        Fault::Unreachable,
        Fault::TimedOut,
        Fault::Reset,
        Fault::LocalPorts,
        Fault::LocalDescriptors,
        Fault::LocalMemory,
    ];
    all.extend(faults.map(|fault| ("fault", fault_name(fault))));
    all.extend(Injected::ALL.map(|kind| ("injected", injected_name(kind))));
    all.extend(TROUBLES.map(|trouble| ("timetable", trouble)));
    all.extend(FLEET.map(|name| ("fleet", name)));
    all
}

/// A source is not listened to any more.
const RESTS: &str = "rests";
/// And then it is.
const HEARD_AGAIN: &str = "heard-again";
/// The kernel took a session, or not now.
const HANDED_OFF: &str = "handed-off";
const KEPT: &str = "offered-in-vain";
/// And both its peers have ended it.
const OVER: &str = "over-by-itself";
/// A backend ended without an answer, and another one may have what it was given.
const UNANSWERED: &str = "unanswered";

/// What a fleet does.
const FLEET: [&str; 11] = [
    "publish", "tell", "advise", "probe", "cancel", "down", "up", "ejected", "maint", "panic",
    "moved",
];

const TROUBLES: [&str; 24] = [
    "kill",
    "up",
    "hang",
    "unreachable",
    "vanish",
    "freeze",
    "hold",
    "release",
    "latency",
    "descriptors",
    "ports",
    "memory",
    "plenty",
    "gone",
    "unregistered",
    "spurious",
    "late",
    "remove",
    "add",
    "drain",
    "readdress",
    "maint",
    "ready",
    "stop",
];

impl Coverage {
    fn count(&mut self, kind: &'static str, name: &'static str, by: u64) {
        if by > 0 {
            *self.counts.entry((kind, name)).or_default() += by;
        }
    }

    /// A call: each of some calls is made for one action only.
    pub fn call(&mut self, call: &Call) {
        match *call {
            Call::Connect(..) => self.count("action", "connect", 1),
            Call::Warm(..) => self.count("action", "warm", 1),
            Call::Take(_, _, _, Some(_)) => self.count("action", "take", 1),
            Call::Cool(..) => self.count("action", "cool", 1),
            Call::Load(..) => self.count("action", "relay", 1),
            Call::Unacknowledged(..) => self.count("action", "look", 1),
            Call::Close(_, tlb_engine::ids::Side::Client, ..) => self.count("action", "close", 1),
            Call::Fill(_, _, via, Outcome::Moved { .. }) => {
                let via = match via {
                    Via::Copy => "copy",
                    Via::Splice => "splice",
                };
                self.count("relay", via, 1);
            }
            Call::HandOff(_, done) => {
                self.count("relay", if done { HANDED_OFF } else { KEPT }, 1);
            }
            Call::Flow(_, flow) => self.count("relay", OVER, u64::from(flow.ended == [true; 2])),
            Call::Hear(_, on) => {
                let name = if on { HEARD_AGAIN } else { RESTS };
                self.count("relay", name, 1);
            }
            _ => {}
        }
        if let Call::Connect(_, _, _, Err(fault))
        | Call::Connected(_, Err(fault))
        | Call::Recv(_, Outcome::Broken(fault))
        | Call::Fill(_, _, _, Outcome::Broken(fault))
        | Call::Drain(_, _, _, Outcome::Broken(fault))
        | Call::Shutdown(_, _, Err(fault))
        | Call::TakeError(_, _, Some(fault)) = *call
        {
            self.count("fault", fault_name(fault), 1);
        }
    }

    /// A fact.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::AttemptFailed { fault, .. } => {
                self.count("action", "abandon", 1);
                // What a FIN is to an attempt that could still be another's.
                self.count("relay", UNANSWERED, u64::from(*fault == Fault::Closed));
            }
            Event::AcceptPaused { fault, .. } => self.count("fault", fault_name(*fault), 1),
            Event::Closed(Closed { reason, .. }) => {
                self.count("close reason", reason.name(), 1);
                if matches!(
                    reason,
                    CloseReason::IdleTimeout | CloseReason::HalfCloseTimeout
                ) {
                    self.count("action", "wind", 1);
                }
            }
            _ => {}
        }
    }

    /// Something that the timetable did.
    pub fn trouble(&mut self, trouble: Trouble) {
        self.count("timetable", trouble.name(), 1);
    }

    /// What the fleet wants done.
    pub fn fleet_action(&mut self, action: &FleetAction) {
        let name = match action {
            FleetAction::Publish(_) => "publish",
            FleetAction::Tell(_) => "tell",
            FleetAction::Advise { .. } => "advise",
            FleetAction::Probe { .. } => "probe",
            FleetAction::Cancel { .. } => "cancel",
            _ => return,
        };
        self.count("fleet", name, 1);
    }

    /// What the fleet says.
    pub fn fleet_event(&mut self, event: &FleetEvent) {
        match event {
            FleetEvent::State { to, .. } => self.count("fleet", to.name(), 1),
            FleetEvent::Panic { on: true, .. } => self.count("fleet", "panic", 1),
            FleetEvent::Moved { .. } => self.count("fleet", "moved", 1),
            _ => {}
        }
    }

    /// Trouble that the kernel made.
    pub fn injected(&mut self, kind: Injected, count: u64) {
        self.count("injected", injected_name(kind), count);
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (&(kind, name), &count) in &other.counts {
            self.count(kind, name, count);
        }
    }

    /// How many faults there were: what the timetable did and what the kernel made of it.
    pub fn faults(&self) -> u64 {
        let kinds = ["injected", "timetable"];
        let counts = self.counts.iter();
        counts
            .filter(|((kind, _), _)| kinds.contains(kind))
            .map(|(_, count)| count)
            .sum()
    }

    /// What was seen of a kind, and how often.
    pub fn of(&self, kind: &'static str) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.counts.iter().filter(move |((of, _), _)| *of == kind);
        counts.map(|(&(_, name), &count)| (name, count))
    }

    /// What was never seen.
    pub fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let unseen = |key: &(&'static str, &'static str)| !self.counts.contains_key(key);
        expected().into_iter().filter(unseen).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = expected();
        let extra = self.counts.keys().filter(|key| !all.contains(key));
        let extra: Vec<_> = extra.copied().collect();
        all.extend(extra);
        all.sort_by_key(|&(kind, _)| kind);
        let mut last = "";
        for (kind, name) in all {
            if kind != last {
                writeln!(f, "{kind}")?;
                last = kind;
            }
            let count = self.counts.get(&(kind, name)).copied().unwrap_or(0);
            let mark = if count == 0 { "   never" } else { "" };
            writeln!(f, "  {name:<20} {count:>12}{mark}")?;
        }
        Ok(())
    }
}

const fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Refused => "refused",
        Fault::Unreachable => "unreachable",
        Fault::TimedOut => "timed-out",
        Fault::Reset => "reset",
        Fault::LocalPorts => "local-ports",
        Fault::LocalDescriptors => "local-descriptors",
        Fault::LocalMemory => "local-memory",
        _ => "other",
    }
}

const fn injected_name(kind: Injected) -> &'static str {
    match kind {
        Injected::Refused => "connect-refused",
        Injected::Unreachable => "connect-unreachable",
        Injected::Hanging => "connect-hangs",
        Injected::TimedOut => "user-timeout",
        Injected::BackendBacklog => "backend-backlog-full",
        Injected::TlbBacklog => "tlb-backlog-full",
        Injected::AcceptGone => "accept-aborted",
        Injected::AcceptExhausted => "accept-emfile",
        Injected::ConnectExhausted => "connect-emfile",
        Injected::LocalPorts => "no-local-port",
        Injected::LocalMemory => "no-memory",
        Injected::NoPipe => "no-pipe",
        Injected::FullPipe => "pipe-full",
        Injected::UrgentMark => "urgent-mark",
        Injected::Spurious => "spurious-event",
        Injected::Late => "late-event",
    }
}

impl Trouble {
    /// Its word in the text form.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Up(_) => "up",
            Self::Hang(_) => "hang",
            Self::Unreachable(_) => "unreachable",
            Self::Vanish(_) => "vanish",
            Self::Freeze(_) => "freeze",
            Self::Hold(_) => "hold",
            Self::Release(_) => "release",
            Self::Latency(..) => "latency",
            Self::Descriptors(..) => "descriptors",
            Self::Ports(_) => "ports",
            Self::Memory(_) => "memory",
            Self::Plenty(_) => "plenty",
            Self::Gone(..) => "gone",
            Self::Unregistered(..) => "unregistered",
            Self::Spurious(_) => "spurious",
            Self::Late(_) => "late",
            Self::Remove(_) => "remove",
            Self::Add(_) => "add",
            Self::Drain(_) => "drain",
            Self::Readdress(_) => "readdress",
            Self::Maint(_) => "maint",
            Self::Ready(_) => "ready",
            Self::Stop => "stop",
        }
    }

    /// If it happens to a worker: to the first one.
    pub const fn to_first_worker(&mut self) {
        if let Self::Descriptors(of, _)
        | Self::Ports(of)
        | Self::Memory(of)
        | Self::Plenty(of)
        | Self::Gone(of, _)
        | Self::Unregistered(of, _)
        | Self::Spurious(of)
        | Self::Late(of) = self
        {
            *of = 0;
        }
    }

    /// Its numbers in the text form.
    pub const fn numbers(self) -> (Option<usize>, Option<u64>) {
        match self {
            Self::Stop => (None, None),
            Self::Latency(at, us) => (Some(at), Some(us)),
            Self::Descriptors(at, left) => (Some(at), Some(left as u64)),
            Self::Gone(at, count) | Self::Unregistered(at, count) => (Some(at), Some(count as u64)),
            Self::Kill(at)
            | Self::Up(at)
            | Self::Hang(at)
            | Self::Unreachable(at)
            | Self::Vanish(at)
            | Self::Freeze(at)
            | Self::Hold(at)
            | Self::Release(at)
            | Self::Ports(at)
            | Self::Memory(at)
            | Self::Plenty(at)
            | Self::Spurious(at)
            | Self::Late(at)
            | Self::Remove(at)
            | Self::Add(at)
            | Self::Drain(at)
            | Self::Readdress(at)
            | Self::Maint(at)
            | Self::Ready(at) => (Some(at), None),
        }
    }
}
