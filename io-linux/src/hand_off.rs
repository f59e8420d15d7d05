//! Sessions whose packets the kernel forwards: what tlb does when it has nothing left to decide.
//!
//! tlb has two connections for each session. After the hand-off its client and its backend talk to each other: a program at
//! the ingress of every interface (`hand_off.bpf.c`) turns the packets of one connection into packets of the other one,
//! which costs about what routing them would. Neither peer notices.
//!
//! ```text
//!   relayed ── hand_off ──▶ late ── settled ──▶ gone ── over, or revoked
//! ```
//! *Late*: packets go their own way, but the sockets may still hold bytes, or wait for acknowledgements of what they sent
//! themselves. They relay and repeat as ever, as the numbers they use stay right; what the peers get twice they drop.
//! *Gone*: the sockets are closed without a word (`TCP_REPAIR`, tcp(7)). The port towards the backend stays taken, by a
//! socket that never says anything, so that no other connection comes to have the same addresses.
//!
//! It takes `CAP_NET_ADMIN`, `CAP_NET_RAW`, `CAP_BPF` and `CAP_PERFMON`, and Linux 6.6. The program goes with the process:
//! if tlb is killed, the sessions end as they would have.

mod layout;
mod leg;
mod news;
mod poke;
mod program;
mod routes;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::MapError;
use nix::libc;
use slab::Slab;
use socket2::SockRef;
use tlb_engine::api::Fault;
use tlb_engine::drive::{Flow, HandOff};
use tlb_engine::ids::{Dir, SessionId, Side};
use tlb_engine::time::Timestamp;

use self::layout::{Own, Seen, Tuple};
use self::leg::Leg;
use self::routes::Routes;
use crate::sys;

pub(crate) use news::News;
pub(crate) use program::{Program, Ring};

/// Most sessions that are handed off at a time, in the process.
pub(crate) const SESSIONS: u32 = 65_536;
/// Sockets that have not caught up by then never will: their peers do not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// For how long packets are awaited that came before the hand-off.
const STRAGGLERS: Duration = Duration::from_millis(20);
/// For how long a session that is over is remembered, for the last acknowledgement may be lost.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// One worker's sessions that were handed off.
#[derive(Debug)]
pub(crate) struct HandedOff {
    program: Arc<Program>,
    routes: Routes,
    /// The first of its places in the maps.
    base: u32,
    /// How many it has.
    limit: usize,
    places: Slab<SessionId>,
    /// By the slot of the session.
    sessions: HashMap<usize, Handed>,
    /// Those that are over, the first one first.
    over: VecDeque<(Timestamp, Handed)>,
}

/// A session that was handed off. What comes in pairs is by [`Side`].
#[derive(Debug)]
struct Handed {
    place: usize,
    since: Timestamp,
    tuples: [Tuple; 2],
    flows: [layout::Flow; 2],
    /// What the sockets had written then.
    sent: [u32; 2],
    /// What they have written themselves since.
    own: [u64; 2],
    /// Directions whose FIN the sockets passed on themselves, by [`Dir`].
    ended: [bool; 2],
    /// What was reported, by [`Dir`].
    told: [u64; 2],
    gone: bool,
    /// Keeps the port towards the backend.
    port: Option<TcpStream>,
}

/// Both sockets of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) client: &'a TcpStream,
    pub(crate) backend: &'a TcpStream,
}

impl HandedOff {
    /// Nothing yet, for worker `number` of `workers`.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub(crate) fn new(program: Arc<Program>, number: usize, workers: usize) -> io::Result<Self> {
        let limit = SESSIONS as usize / workers.max(1);
        Ok(Self {
            program,
            routes: Routes::new()?,
            base: (number * limit) as u32,
            limit,
            places: Slab::new(),
            sessions: HashMap::new(),
            over: VecDeque::new(),
        })
    }

    /// Which worker of `workers` the program speaks to when it names that slot.
    pub(crate) const fn worker_of(slot: u32, workers: usize) -> usize {
        slot as usize / 2 / (SESSIONS as usize / workers)
    }

    /// Which session has that slot.
    pub(crate) fn session_of(&self, slot: u32) -> Option<SessionId> {
        let place = (slot / 2).checked_sub(self.base)?;
        self.places.get(place as usize).copied()
    }

    /// Whether the session is handed off.
    #[cfg(test)]
    fn has(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session.index())
    }

    /// Hands a session off, of which nothing is held that was read and not written, if its sockets allow it now.
    pub(crate) fn hand_off(
        &mut self,
        now: Timestamp,
        session: SessionId,
        sockets: Pair<'_>,
    ) -> HandOff {
        if self.places.len() == self.limit {
            return HandOff::Later;
        }
        let leg = |socket| match Leg::of(socket) {
            Ok(leg) => leg.ok_or(HandOff::Later),
            Err(_) => Err(HandOff::Never),
        };
        let legs = leg(sockets.client).and_then(|client| Ok((client, leg(sockets.backend)?)));
        let (client, backend) = match legs {
            Ok(legs) => legs,
            Err(why) => return why,
        };
        if !client.suits(&backend) {
            return HandOff::Never;
        }
        let interfaces = [client, backend].map(|leg| self.routes.interface(leg.tuple.from.ip()));
        let interfaces = match interfaces {
            // A packet for this host itself must have come from it, and may not leave it.
            [Some(0), Some(0)] => [0, 0],
            [Some(0) | None, _] | [_, Some(0) | None] => return HandOff::Never,
            [Some(client), Some(backend)] => [client, backend],
        };
        let place = self.places.insert(session);
        let handed = Handed {
            place,
            since: now,
            tuples: [client.tuple, backend.tuple],
            flows: flows(
                &client,
                &backend,
                interfaces,
                2 * (self.base + place as u32),
            ),
            sent: [client.sent, backend.sent],
            own: [0; 2],
            ended: [false; 2],
            told: [0; 2],
            gone: false,
            port: None,
        };
        let seen = [client, backend].map(|leg| Seen::new(leg::now(), leg.sent, leg.received));
        if self.put(&handed, Some(seen)).is_err() || self.takes_back(&handed, sockets, seen) {
            self.forget(handed);
            return HandOff::Later;
        }
        self.sessions.insert(session.index(), handed);
        HandOff::Done
    }

    fn put(&self, handed: &Handed, seen: Option<[Seen; 2]>) -> Result<(), MapError> {
        for side in [0, 1] {
            let seen = seen.map(|seen| seen[side]);
            self.program
                .put(handed.tuples[side], &handed.flows[side], seen)?;
        }
        Ok(())
    }

    /// Takes a hand-off back if something reached the sockets after they were looked at, unless a packet has gone its own
    /// way since.
    fn takes_back(&self, handed: &Handed, sockets: Pair<'_>, before: [Seen; 2]) -> bool {
        let quiet = |socket| leg::is_quiet(socket).unwrap_or(true);
        if quiet(sockets.client) && quiet(sockets.backend) {
            return false;
        }
        handed.remove(&self.program);
        let after = [0, 1].map(|side| self.program.seen(handed.flows[side].slot));
        if after == before {
            return true;
        }
        // There is room for them, as they were there a moment ago. Were there none, the peers would be reset by this host,
        // which is better than to relay by numbers that are no longer theirs.
        let _ = self.put(handed, None);
        false
    }

    /// A socket of a session that is handed off has sent a FIN.
    pub(crate) fn ended(&mut self, session: SessionId, dir: Dir) {
        if let Some(handed) = self.sessions.get_mut(&session.index()) {
            handed.ended[dir as usize] = true;
        }
    }

    /// How things stand, and what was moved since it was asked last. `sockets` are there until it has said that they are
    /// gone, and hold nothing if `empty`. The backend's is to be replaced then by what [`HandedOff::close`] needs.
    pub(crate) fn flow(
        &mut self,
        now: Timestamp,
        session: SessionId,
        sockets: Option<Pair<'_>>,
        empty: bool,
    ) -> Flow {
        let Some(handed) = self.sessions.get_mut(&session.index()) else {
            return Flow::default();
        };
        let seen = [0, 1].map(|side| self.program.seen(handed.flows[side].slot));
        let reset = Side::BOTH
            .into_iter()
            .find(|&side| seen[side as usize].has_reset());
        if let Some(sockets) = sockets
            && !handed.gone
        {
            let patient = empty && now.since(handed.since) >= STRAGGLERS;
            // A socket that does not say leaves everything as it is.
            let _ = handed.settle(&self.program, sockets, seen, patient);
        }
        let mut flow = Flow {
            quiet: Duration::from_nanos(leg::now().saturating_sub(seen[0].last.max(seen[1].last))),
            broken: match reset {
                Some(side) => Some((side, Fault::Reset)),
                None if handed.is_stuck(now) => Some((Side::Backend, Fault::TimedOut)),
                None => None,
            },
            gone: handed.gone,
            ..Flow::default()
        };
        for dir in Dir::BOTH {
            let (to, place) = (dir.to() as usize, dir as usize);
            let fin = seen[to].has_acked_fin() && !handed.ended[place];
            flow.ended[place] = handed.gone && (fin || handed.ended[place]);
            let moved = seen[to]
                .acked
                .saturating_sub(handed.own[to] + u64::from(fin));
            flow.moved[place] = moved.saturating_sub(handed.told[place]);
            handed.told[place] = handed.told[place].max(moved);
        }
        flow
    }

    /// The session ends. If that is not what its peers have agreed on, they are told.
    pub(crate) fn close(&mut self, now: Timestamp, session: SessionId, in_order: bool) {
        let Some(handed) = self.sessions.remove(&session.index()) else {
            return;
        };
        if in_order && handed.gone {
            self.over.push_back((now + LAST_WORDS, handed));
            return;
        }
        let tuples = handed.tuples;
        self.forget(handed);
        // In order, but not gone: the sockets themselves have seen both ends.
        if !in_order {
            for tuple in tuples {
                // A peer without a way to it finds out when it sends something.
                let _ = poke::poke(tuple);
            }
        }
    }

    /// It is `now`: forgets those that have been over for long enough.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        while self.due().is_some_and(|due| due <= now) {
            if let Some((_, handed)) = self.over.pop_front() {
                self.forget(handed);
            }
        }
    }

    /// When to call [`HandedOff::tick`] at the latest.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.over.front().map(|&(at, _)| at)
    }

    /// Gives everything back. The packets of its peers are answered with resets from now on.
    fn forget(&mut self, handed: Handed) {
        handed.remove(&self.program);
        self.places.remove(handed.place);
    }

    /// What the backend's port is kept by, to be taken off the event queue before.
    pub(crate) fn keep_port(&mut self, session: SessionId, backend: TcpStream) {
        if let Some(handed) = self.sessions.get_mut(&session.index()) {
            handed.port = Some(backend);
        }
    }
}

impl Drop for HandedOff {
    fn drop(&mut self) {
        let handed = self.sessions.drain().map(|(_, handed)| handed);
        for handed in handed.chain(self.over.drain(..).map(|(_, handed)| handed)) {
            handed.remove(&self.program);
        }
    }
}

impl Handed {
    /// Its packets are this host's own again.
    fn remove(&self, program: &Program) {
        for (tuple, flow) in self.tuples.into_iter().zip(&self.flows) {
            program.remove(tuple, flow.slot);
        }
    }

    fn is_stuck(&self, now: Timestamp) -> bool {
        !self.gone && now.since(self.since) >= PATIENCE
    }

    /// Sees how far the sockets have come, and closes them without a word if they have nothing left to do and that is
    /// certain by now (`patient`).
    fn settle(
        &mut self,
        program: &Program,
        sockets: Pair<'_>,
        seen: [Seen; 2],
        patient: bool,
    ) -> io::Result<()> {
        let pair = [sockets.client, sockets.backend];
        let mut done = patient;
        for side in [0, 1] {
            let socket = pair[side];
            let (sent, next) = leg::numbers(socket)?;
            let idle = leg::unread(socket)? == 0;
            done &= idle && (sys::unacknowledged(socket) == 0 || seen[side].has_acked(sent));
            self.own[side] = u64::from(sent.wrapping_sub(self.sent[side]));
            // An acknowledgement of what is not sent yet is none that it takes, but one that the other peer waits for.
            let end = sent.wrapping_sub(leg::unsent(socket)?);
            let own = Some(Own { end, next });
            if self.flows[side].own != own {
                self.flows[side].own = own;
                let _ = program.put(self.tuples[side], &self.flows[side], None);
            }
        }
        if !done {
            return Ok(());
        }
        for side in [0, 1] {
            self.flows[side].own = None;
            let _ = program.put(self.tuples[side], &self.flows[side], None);
        }
        silence(sockets.client)?;
        silence(sockets.backend)?;
        hold(sockets.backend, self.tuples[Side::Backend as usize])?;
        self.gone = true;
        Ok(())
    }
}

/// What becomes of packets of either side.
fn flows(client: &Leg, backend: &Leg, interfaces: [u32; 2], slot: u32) -> [layout::Flow; 2] {
    // Byte n of a stream has number n of the connection it comes in by, and its own of the one it leaves by. What was
    // received so far was sent.
    let forward = backend.sent.wrapping_sub(client.received);
    let back = client.sent.wrapping_sub(backend.received);
    let flow = |of: &Leg, other: &Leg, seq_add: u32, ack_add: u32, place: u32| layout::Flow {
        becomes: other.tuple.reversed(),
        seq_add,
        ack_add: ack_add.wrapping_neg(),
        slot: slot + place,
        interface: interfaces[1 - place as usize],
        clock: other.clock,
        scale: (of.scales().0, other.scales().1),
        own: Some(Own {
            end: of.sent,
            next: of.received,
        }),
    };
    [
        flow(client, backend, forward, back, 0),
        flow(backend, client, back, forward, 1),
    ]
}

/// Ends a connection of which its peer is to hear nothing.
fn silence(socket: &TcpStream) -> io::Result<()> {
    sys::set_tcp_option(socket, libc::TCP_REPAIR, leg::REPAIR)?;
    Ok(rustix::net::connect_unspec(socket)?)
}

/// Has the kernel take it for connected, as `tuple` says, so that nobody else gets the same addresses. It never says
/// anything.
fn hold(socket: &TcpStream, tuple: Tuple) -> io::Result<()> {
    let it = SockRef::from(socket);
    it.set_keepalive(false)?;
    it.bind(&tuple.to.into())?;
    it.connect(&tuple.from.into())
}

#[cfg(test)]
mod tests;
