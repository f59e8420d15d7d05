//! What was done, as one number, as the last lines of it, and as counts.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;

use tlb_engine::api::{Close, Fault};
use tlb_engine::drive::{Connect, Flow, Outcome, Via};
use tlb_engine::ids::{Dir, ListenerId, SessionId, Side, SocketId, WarmId};
use tlb_engine::time::Timestamp;

/// How many lines are kept for a failure's output.
pub const KEPT: usize = 50;

/// One call of [`Io`](tlb_engine::drive::Io) and what came of it.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are those of the calls")]
pub enum Call {
    Accept(ListenerId, Taken),
    Unlisten(ListenerId),
    /// With whether it could be registered.
    Adopt(SessionId, SocketAddr, bool),
    Recv(SessionId, Outcome),
    Connect(SessionId, u8, SocketAddr, Result<Connect, Fault>),
    Connected(SessionId, Result<Connect, Fault>),
    Warm(WarmId, SocketAddr, Result<Connect, Fault>),
    Take(SessionId, u8, WarmId, Option<Connect>),
    /// With whether it was there.
    Cool(WarmId, bool),
    Load(SessionId, usize),
    Fill(SessionId, Dir, Via, Outcome),
    /// With what the store held before.
    Drain(SessionId, Dir, usize, Outcome),
    Shutdown(SessionId, Side, Result<(), Fault>),
    TakeError(SessionId, Side, Option<Fault>),
    Unacknowledged(SessionId, Side, usize),
    Hear(SocketId, bool),
    /// With whether the kernel took it.
    HandOff(SessionId, bool),
    Flow(SessionId, Flow),
    /// With whether there was a socket.
    Close(SessionId, Side, Close, bool),
}

/// What an accept brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A connection.
    One,
    /// None waits.
    None,
    /// One that was gone.
    Gone,
    /// No descriptor.
    Exhausted,
}

/// A kind of trouble that the kernel made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Injected {
    Refused,
    Unreachable,
    Hanging,
    TimedOut,
    BackendBacklog,
    TlbBacklog,
    AcceptGone,
    AcceptExhausted,
    ConnectExhausted,
    LocalPorts,
    LocalMemory,
    NoPipe,
    FullPipe,
    UrgentMark,
    Spurious,
    Late,
}

impl Injected {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Refused,
        Self::Unreachable,
        Self::Hanging,
        Self::TimedOut,
        Self::BackendBacklog,
        Self::TlbBacklog,
        Self::AcceptGone,
        Self::AcceptExhausted,
        Self::ConnectExhausted,
        Self::LocalPorts,
        Self::LocalMemory,
        Self::NoPipe,
        Self::FullPipe,
        Self::UrgentMark,
        Self::Spurious,
        Self::Late,
    ];
}

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which checker says so.
    pub checker: &'static str,
    /// What.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.what)
    }
}

#[derive(Clone, Debug)]
enum Line {
    Call(usize, Call),
    Text(String),
}

/// The record of a run.
#[derive(Debug)]
pub struct Ledger {
    /// Things that were due, turns and calls.
    pub events: u64,
    /// Calls that checkers have not seen yet, with their worker.
    pub calls: Vec<(usize, Call)>,
    /// What was found wrong.
    pub findings: Vec<Finding>,
    injected: [u64; Injected::ALL.len()],
    hash: u64,
    lines: VecDeque<(Timestamp, Line)>,
    /// Descriptors each worker has now.
    pub descriptors: Vec<usize>,
}

impl Ledger {
    /// An empty one, for so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            events: 0,
            calls: Vec::new(),
            findings: Vec::new(),
            injected: [0; Injected::ALL.len()],
            hash: 0x243f_6a88_85a3_08d3,
            lines: VecDeque::with_capacity(KEPT),
            descriptors: vec![0; workers],
        }
    }

    /// Takes a call of a worker.
    pub fn call(&mut self, now: Timestamp, worker: usize, call: Call) {
        self.events += 1;
        self.mix(now.as_nanos());
        for word in call.words() {
            self.mix(word);
        }
        self.calls.push((worker, call));
        self.keep(now, Line::Call(worker, call));
    }

    /// Takes a line, hash and all.
    pub fn line(&mut self, now: Timestamp, text: String) {
        self.mix(now.as_nanos());
        for chunk in text.as_bytes().chunks(8) {
            let word = chunk
                .iter()
                .fold(0, |word, &byte| (word << 8) | u64::from(byte));
            self.mix(word);
        }
        self.keep(now, Line::Text(text));
    }

    /// Counts trouble.
    pub fn inject(&mut self, kind: Injected) {
        self.injected[kind as usize] += 1;
    }

    /// How often each kind of trouble was made.
    pub fn injected(&self) -> impl Iterator<Item = (Injected, u64)> + '_ {
        Injected::ALL.into_iter().zip(self.injected)
    }

    /// Something is wrong.
    pub fn find(&mut self, checker: &'static str, what: String) {
        self.findings.push(Finding { checker, what });
    }

    /// The hash of everything so far.
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines, oldest first.
    pub fn last(&self) -> Vec<String> {
        let text = |(at, line): &(Timestamp, Line)| match line {
            Line::Call(worker, call) => format!("{at} w{worker} {call:?}"),
            Line::Text(text) => format!("{at} {text}"),
        };
        self.lines.iter().map(text).collect()
    }

    fn keep(&mut self, now: Timestamp, line: Line) {
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back((now, line));
    }

    const fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

const fn outcome_word(outcome: Outcome) -> u64 {
    match outcome {
        Outcome::Moved { bytes, short } => 16 + 2 * bytes as u64 + short as u64,
        Outcome::Eof => 1,
        Outcome::WouldBlock => 2,
        Outcome::Broken(fault) => 4 + fault_word(fault),
        Outcome::NoPipe => 3,
    }
}

const fn fault_word(fault: Fault) -> u64 {
    match fault {
        Fault::Refused => 0,
        Fault::Unreachable => 1,
        Fault::TimedOut => 2,
        Fault::Reset => 3,
        Fault::LocalPorts => 4,
        Fault::LocalDescriptors => 5,
        Fault::LocalMemory => 6,
        Fault::Denied => 7,
        _ => 8,
    }
}

const fn connect_word(result: Result<Connect, Fault>) -> u64 {
    match result {
        Ok(Connect::InProgress) => 100,
        Ok(Connect::Established) => 101,
        Err(fault) => fault_word(fault),
    }
}

impl Call {
    /// The session that it is about, if any.
    pub const fn session(&self) -> Option<SessionId> {
        match *self {
            Self::Accept(..) | Self::Unlisten(_) | Self::Warm(..) | Self::Cool(..) => None,
            Self::Adopt(session, ..)
            | Self::Recv(session, _)
            | Self::Connect(session, ..)
            | Self::Take(session, ..)
            | Self::Connected(session, _)
            | Self::Load(session, _)
            | Self::Fill(session, ..)
            | Self::Drain(session, ..)
            | Self::Shutdown(session, ..)
            | Self::TakeError(session, ..)
            | Self::Unacknowledged(session, ..)
            | Self::HandOff(session, _)
            | Self::Flow(session, _)
            | Self::Close(session, ..) => Some(session),
            Self::Hear(socket, _) => Some(socket.session),
        }
    }

    fn words(&self) -> [u64; 3] {
        let (kind, detail) = match *self {
            Self::Accept(listener, taken) => (1, u64::from(listener.0) * 4 + taken as u64),
            Self::Unlisten(listener) => (2, u64::from(listener.0)),
            Self::Adopt(_, peer, well) => (3, u64::from(peer.port()) * 2 + u64::from(well)),
            Self::Recv(_, outcome) => (4, outcome_word(outcome)),
            Self::Connect(_, attempt, to, result) => (
                (u64::from(attempt) << 8) + 5,
                (u64::from(to.port()) << 8) + connect_word(result),
            ),
            Self::Connected(_, result) => (6, connect_word(result)),
            Self::Warm(warm, to, result) => (
                14 + (u64::from(warm.0) << 8),
                (u64::from(to.port()) << 8) + connect_word(result),
            ),
            Self::Take(_, attempt, warm, progress) => (
                15 + (u64::from(attempt) << 8) + (u64::from(warm.0) << 16),
                progress.map_or(99, |progress| connect_word(Ok(progress))),
            ),
            Self::Cool(warm, there) => (16 + (u64::from(warm.0) << 8), u64::from(there)),
            Self::HandOff(_, done) => (18, u64::from(done)),
            Self::Flow(_, flow) => (
                19 + (u64::from(flow.gone) << 8) + ((flow.quiet.as_nanos() as u64) << 16),
                flow.moved[0].rotate_left(32) ^ flow.moved[1],
            ),
            Self::Hear(socket, on) => (17 + ((socket.side as u64) << 8), u64::from(on)),
            Self::Load(_, bytes) => (7, bytes as u64),
            Self::Fill(_, dir, via, outcome) => (
                8 + ((dir as u64) << 8) + ((via as u64) << 16),
                outcome_word(outcome),
            ),
            Self::Drain(_, dir, held, outcome) => (
                9 + ((dir as u64) << 8) + ((held as u64) << 16),
                outcome_word(outcome),
            ),
            Self::Shutdown(_, side, result) => (
                10 + ((side as u64) << 8),
                result.err().map_or(99, fault_word),
            ),
            Self::TakeError(_, side, fault) => {
                (11 + ((side as u64) << 8), fault.map_or(99, fault_word))
            }
            Self::Unacknowledged(_, side, bytes) => (12 + ((side as u64) << 8), bytes as u64),
            Self::Close(_, side, how, open) => {
                (13 + ((side as u64) << 8), how as u64 * 2 + u64::from(open))
            }
        };
        let session = self.session().map_or(0, |session| {
            ((session.index() as u64) << 32) | u64::from(session.generation())
        });
        [kind, detail, session]
    }
}
