//! The kernel: time, links, and what arrives. The system calls are in a module of their own.

mod arrivals;
mod bridge;
mod calls;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;

use tlb_engine::api::{Close, Fault};
use tlb_engine::ids::{ListenerId, SessionId};
use tlb_engine::rng::Rng;
use tlb_engine::time::{Duration, Timestamp};

use super::ledger::{Injected, Ledger};
pub use super::socket::{Owner, Sock};
use super::socket::{Segment, Socket, State};
pub(super) use bridge::Bridge;
pub use bridge::Crossed;

/// Sizes and habits of the kernel, drawn with the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Send buffer of every socket, in bytes.
    pub send_buffer: usize,
    /// Receive buffer of every socket, in bytes.
    pub receive_buffer: usize,
    /// Largest segment, in bytes.
    pub segment: usize,
    /// Size of the buffer that copies go through.
    pub copy_buffer: usize,
    /// Slots of a pipe.
    pub pipe_slots: usize,
    /// Pipes of a worker.
    pub pipes: usize,
    /// Connections that may wait at a listener.
    pub backlog: usize,
    /// Of 256 reads and writes, how many move less than they could.
    pub partial: u8,
    /// Of 256 connects and refusals that the loopback could answer at once, how many are.
    pub immediate: u8,
    /// How long a host may be gone before the kernel gives up its connections.
    pub user_timeout_ms: u64,
}

/// A way between tlb and one peer host, both directions alike.
#[derive(Clone, Copy, Debug)]
struct Link {
    latency: Duration,
    jitter_us: u64,
    held: bool,
}

/// How a host answers who wants to connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hatch {
    /// Somebody listens there.
    #[default]
    Open,
    /// Nobody does: refused.
    Refusing,
    /// No answer.
    Hanging,
    /// The network says that there is no such host.
    Unreachable,
}

impl Hatch {
    /// What a connect fails with, where it fails at once.
    const fn refusal(self) -> Fault {
        match self {
            Self::Unreachable => Fault::Unreachable,
            _ => Fault::Refused,
        }
    }
}

/// What a probe of a backend would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its kernel takes connections.
    Answers,
    /// Its kernel refuses them.
    Refuses,
    /// The network says that there is no such host.
    Unreachable,
    /// Nothing.
    Silent,
}

/// A place where one listens.
#[derive(Debug, Default)]
struct Door {
    hatch: Hatch,
    queue: VecDeque<(Sock, SocketAddr)>,
    signalled: bool,
}

/// Something that is to be done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Look at what has arrived at a socket.
    Arrival(Sock),
    /// A SYN reaches the host at a link.
    Syn(Sock),
    /// A peer asked to be run.
    Peer(usize),
    /// The owner of the kernel asked for it, with a number of its own.
    Note(u64),
}

/// What [`Kernel::advance`] stopped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A note of [`Kernel::note_at`] is due.
    Note(u64),
    /// Nothing more is due now.
    Idle,
}

/// The kernel of all hosts.
#[derive(Debug)]
pub struct Kernel {
    now: Timestamp,
    tuning: Tuning,
    sequence: u64,
    due: BinaryHeap<Reverse<(Timestamp, u64, Due)>>,
    sockets: Vec<Socket>,
    links: Vec<Link>,
    /// Where tlb's workers listen, by worker and listener.
    tlb_doors: BTreeMap<(usize, u32), Door>,
    /// Where backends listen: their doors, by link.
    backend_doors: Vec<Door>,
    /// Which link an address is at.
    addresses: BTreeMap<SocketAddr, usize>,
    /// Where a connecting socket wants to go.
    wanted: BTreeMap<Sock, Wanted>,
    worker_ready: Vec<Vec<Sock>>,
    /// By worker: sessions of which a bridge has news.
    crossings: Vec<Vec<SessionId>>,
    peers_ready: VecDeque<usize>,
    accepting: VecDeque<usize>,
    network: Rng,
    chunking: Rng,
    /// What was done and what was injected.
    pub ledger: Ledger,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Backend,
    Tlb(usize, ListenerId, SocketAddr),
}

impl Kernel {
    /// A kernel with no socket. Links are numbered; backends have the first ones.
    pub fn new(tuning: Tuning, workers: usize, links: usize, network: Rng, chunking: Rng) -> Self {
        let link = Link {
            latency: Duration::ZERO,
            jitter_us: 0,
            held: false,
        };
        Self {
            now: Timestamp::ZERO,
            tuning,
            sequence: 0,
            due: BinaryHeap::new(),
            sockets: Vec::new(),
            links: vec![link; links],
            tlb_doors: BTreeMap::new(),
            backend_doors: (0..links).map(|_| Door::default()).collect(),
            addresses: BTreeMap::new(),
            wanted: BTreeMap::new(),
            worker_ready: vec![Vec::new(); workers],
            crossings: vec![Vec::new(); workers],
            peers_ready: VecDeque::new(),
            accepting: VecDeque::new(),
            network,
            chunking,
            ledger: Ledger::new(workers),
        }
    }

    /// The time.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The sizes it was made with.
    pub const fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Sets the clock forward; nothing may be due before.
    pub fn set_time(&mut self, now: Timestamp) {
        debug_assert!(now >= self.now, "time goes forward");
        self.now = now;
    }

    /// Asks for a [`Stop::Note`].
    pub fn note_at(&mut self, at: Timestamp, note: u64) {
        self.at(at, Due::Note(note));
    }

    /// Asks for a peer to be run at a time.
    pub fn peer_at(&mut self, at: Timestamp, peer: usize) {
        self.at(at, Due::Peer(peer));
    }

    /// Does what is due by now, until a note.
    pub fn advance(&mut self) -> Stop {
        while let Some(Reverse((at, _, due))) = self.due.peek().copied() {
            if at > self.now {
                break;
            }
            self.due.pop();
            self.ledger.events += 1;
            match due {
                Due::Note(note) => return Stop::Note(note),
                Due::Peer(peer) => self.peers_ready.push_back(peer),
                Due::Syn(from) => self.syn(from),
                Due::Arrival(at) => self.arrive(at),
            }
        }
        Stop::Idle
    }

    /// The next peer that has something to do.
    pub fn ready_peer(&mut self) -> Option<usize> {
        self.peers_ready.pop_front()
    }

    /// The next link at whose backend a connection waits to be accepted.
    pub fn ready_backend(&mut self) -> Option<usize> {
        self.accepting.pop_front()
    }

    fn at(&mut self, at: Timestamp, due: Due) {
        self.sequence += 1;
        self.due
            .push(Reverse((at.max(self.now), self.sequence, due)));
    }

    // ---- Hosts and links.

    /// Sets how long a segment takes over a link, and how much longer it may.
    pub fn set_latency(&mut self, link: usize, latency: Duration, jitter_us: u64) {
        self.links[link].latency = latency;
        self.links[link].jitter_us = jitter_us;
    }

    /// Holds back everything on a link, or lets it go.
    pub fn hold(&mut self, link: usize, held: bool) {
        if core::mem::replace(&mut self.links[link].held, held) && !held {
            for index in 0..self.sockets.len() {
                if self.sockets[index].link == link && !self.sockets[index].wire.is_empty() {
                    self.at(self.now, Due::Arrival(Sock(index as u32)));
                }
            }
        }
    }

    /// How the host at a link answers connects from now on.
    pub fn reach(&self, link: usize) -> Reach {
        if self.links[link].held {
            return Reach::Silent;
        }
        match self.backend_doors[link].hatch {
            Hatch::Open => Reach::Answers,
            Hatch::Refusing => Reach::Refuses,
            Hatch::Hanging => Reach::Silent,
            Hatch::Unreachable => Reach::Unreachable,
        }
    }

    /// What becomes of connects to a backend from now on.
    pub fn set_hatch(&mut self, link: usize, hatch: Hatch) {
        self.backend_doors[link].hatch = hatch;
    }

    /// Gives the host at a link an address.
    pub fn set_address(&mut self, link: usize, address: SocketAddr) {
        self.addresses.insert(address, link);
    }

    /// Takes an address away: connects to it are refused.
    pub fn drop_address(&mut self, address: SocketAddr) {
        self.addresses.remove(&address);
    }

    /// Takes a waiting connection, for the peer of that number.
    pub fn backend_accept(&mut self, link: usize, peer: usize) -> Option<Sock> {
        let (sock, _) = self.backend_doors[link].queue.pop_front()?;
        self.sockets[sock.index()].owner = Owner::Peer(peer);
        self.peers_ready.push_back(peer);
        Some(sock)
    }

    /// Connections that wait at a link's backend.
    pub fn waiting(&self, link: usize) -> usize {
        self.backend_doors[link].queue.len()
    }

    /// Asks for the waiting connections of a link's backend to be accepted.
    pub fn accept_again(&mut self, link: usize) {
        for _ in 0..self.backend_doors[link].queue.len() {
            self.accepting.push_back(link);
        }
    }

    /// The process behind a link is killed: its kernel closes its sockets.
    pub fn crash(&mut self, link: usize) {
        while let Some((sock, _)) = self.backend_doors[link].queue.pop_front() {
            self.close(sock, Close::Reset);
        }
        for index in 0..self.sockets.len() {
            let socket = &self.sockets[index];
            if socket.link == link && socket.open && matches!(socket.owner, Owner::Peer(_)) {
                self.close(Sock(index as u32), Close::Fin);
            }
        }
    }

    /// The host behind a link comes back without its connections. What tlb sends on them is
    /// answered by a reset, a keepalive probe at the latest.
    pub fn reboot(&mut self, link: usize) {
        self.backend_doors[link].queue.clear();
        let probe = self.now + Duration::from_millis(self.tuning.user_timeout_ms);
        for index in 0..self.sockets.len() {
            let socket = &mut self.sockets[index];
            if socket.link == link && !matches!(socket.owner, Owner::Worker(..)) {
                socket.open = false;
                socket.kill(None);
                socket.wire.clear();
                if let Owner::Peer(peer) = socket.owner {
                    self.peers_ready.push_back(peer);
                }
                let other = socket.other;
                if let Some(other) = other {
                    let ours = &mut self.sockets[other.index()];
                    let at = probe.max(ours.last_arrival);
                    ours.last_arrival = at;
                    ours.wire.push_back((at, Segment::Rst));
                    self.at(at, Due::Arrival(other));
                }
            }
        }
    }

    /// The kernel gives up what tlb has sent over a link and nobody acknowledged.
    pub fn give_up(&mut self, link: usize) {
        for index in 0..self.sockets.len() {
            let socket = &mut self.sockets[index];
            let ours =
                matches!(socket.owner, Owner::Worker(..)) && socket.open && socket.bridge.is_none();
            if socket.link == link && ours && socket.state == State::Established {
                socket.kill(Some(Fault::TimedOut));
                self.ledger.inject(Injected::TimedOut);
                self.signal(Sock(index as u32));
            }
        }
    }

    fn new_socket(&self, owner: Owner, link: usize) -> Socket {
        Socket::new(
            owner,
            link,
            self.tuning.send_buffer,
            self.tuning.receive_buffer,
        )
    }

    fn push(&mut self, socket: Socket) -> Sock {
        self.sockets.push(socket);
        Sock((self.sockets.len() - 1) as u32)
    }
}
