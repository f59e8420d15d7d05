//! Clients: what they do, how often in a while, and how long each took.

use std::collections::BTreeMap;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

/// Bytes of a first frame.
pub(crate) const FRAME: usize = 40;
/// Bytes of one read or write of a bulk flow.
const CHUNK: usize = 256 * 1024;
/// Most bytes of a connection that are on their way there and back. Without a bound, what is measured is how long the
/// kernel's buffers take to fill.
const UNDER_WAY: usize = 2 * 1024 * 1024;

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Send as much as they can; `both`: and take it back.
    Bulk {
        /// How many.
        conns: usize,
        /// Whether the backend sends it back.
        both: bool,
        /// Most megabytes a second of all of them; 0: as much as they can.
        pace: u32,
    },
    /// Send a message and wait for its echo.
    PingPong {
        /// How many.
        conns: usize,
        /// Bytes of a message.
        size: usize,
        /// Whether everybody shares one CPU.
        together: bool,
    },
    /// Connect, send a frame, take it back, close.
    Churn {
        /// How many at a time.
        conns: usize,
    },
    /// Connect, send a frame, take it back, and stay.
    Idle {
        /// How many.
        conns: usize,
    },
    /// Send small messages, alone and then beside bulk flows.
    Fair {
        /// How many send small messages.
        conns: usize,
        /// How many send much.
        bulk: usize,
        /// As of bulk flows.
        pace: u32,
    },
}

impl Work {
    /// Its name, as on the command line.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Bulk { conns, both, pace } => {
                let ways = if both { "both" } else { "one" };
                format!("bulk-{ways}-{conns}{}", paced(pace))
            }
            Self::PingPong {
                conns,
                size,
                together,
            } => {
                let place = if together { "-together" } else { "" };
                format!("ping-{size}-{conns}{place}")
            }
            Self::Churn { conns } => format!("churn-{conns}"),
            Self::Idle { conns } => format!("idle-{conns}"),
            Self::Fair { conns, bulk, pace } => format!("fair-{conns}-{bulk}{}", paced(pace)),
        }
    }

    /// That of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('-').collect();
        let number = |at: usize| parts.get(at)?.parse().ok();
        let pace = |at: usize| match parts.get(at) {
            Some(pace) => pace.parse().ok(),
            None => Some(0),
        };
        Some(match parts[..] {
            ["bulk", ways @ ("one" | "both"), _, ..] => Self::Bulk {
                conns: number(2)?,
                both: ways == "both",
                pace: pace(3)?,
            },
            ["ping", _, _] | ["ping", _, _, "together"] => Self::PingPong {
                size: number(1)?,
                conns: number(2)?,
                together: parts.len() == 4,
            },
            ["churn", _] => Self::Churn { conns: number(1)? },
            ["idle", _] => Self::Idle { conns: number(1)? },
            ["fair", _, _, ..] => Self::Fair {
                conns: number(1)?,
                bulk: number(2)?,
                pace: pace(3)?,
            },
            _ => return None,
        })
    }

    /// What is counted.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Bulk { .. } => "MB",
            Self::PingPong { .. } | Self::Fair { .. } => "round trip",
            Self::Churn { .. } => "connection",
            Self::Idle { .. } => "session",
        }
    }

    const fn conns(self) -> usize {
        match self {
            Self::Bulk { conns, .. }
            | Self::PingPong { conns, .. }
            | Self::Churn { conns }
            | Self::Idle { conns }
            | Self::Fair { conns, .. } => conns,
        }
    }
}

fn paced(pace: u32) -> String {
    match pace {
        0 => String::new(),
        pace => format!("-{pace}"),
    }
}

/// The process that plays the clients: says `ready` once all are connected, begins at a line of its
/// standard input, and says what it did: units, seconds, and nanoseconds of the median and the 99th
/// percentile of what has a duration.
pub(crate) fn main(work: Work, to: SocketAddr, lasts: Duration) -> io::Result<()> {
    let mut clients = Clients::connect(work, to)?;
    if matches!(work, Work::Idle { .. }) {
        // What a relay still has to do for new sessions is not what it does for idle ones.
        std::thread::sleep(Duration::from_secs(2));
    }
    println!("ready");
    io::stdin().lock().read_line(&mut String::new())?;
    let began = Instant::now();
    if matches!(work, Work::Idle { .. }) {
        std::thread::sleep(lasts);
        println!("{} {} 0 0", work.conns(), began.elapsed().as_secs_f64());
        return io::stdin().lock().read_line(&mut String::new()).map(drop);
    }
    clients.run(began + lasts)?;
    let seconds = began.elapsed().as_secs_f64();
    let units = match work {
        Work::Bulk { .. } => clients.bytes as f64 / 1e6,
        _ => clients.done as f64,
    };
    clients.took.sort_unstable();
    let percentile = |of: usize| {
        let took = &clients.took;
        took.get((took.len() * of / 100).min(took.len().saturating_sub(1)))
    };
    let (half, most) = (percentile(50), percentile(99));
    println!(
        "{units} {seconds} {} {}",
        half.copied().unwrap_or(0),
        most.copied().unwrap_or(0)
    );
    // Whoever reads this process's CPU does so now.
    io::stdin().lock().read_line(&mut String::new()).map(drop)
}

struct Client {
    stream: TcpStream,
    /// Still to be written of the frame or the message.
    owes: usize,
    /// Still to be read of its echo; of a bulk flow both ways, what is under way.
    awaits: usize,
    began: Instant,
}

struct Clients {
    work: Work,
    to: SocketAddr,
    poll: Poll,
    clients: BTreeMap<usize, Client>,
    next: usize,
    done: u64,
    began: Instant,
    bytes: u64,
    took: Vec<u32>,
    buffer: Vec<u8>,
    into: Vec<u8>,
}

/// Message bytes: whatever comes back is compared with them.
const BYTE: u8 = b'x';

fn frame(key: usize) -> [u8; FRAME] {
    let mut frame = [b'.'; FRAME];
    frame[0] = b'*';
    frame[1..5].copy_from_slice(&(FRAME as u32 - 7).to_be_bytes());
    frame[19..23].copy_from_slice(&(key as u32).to_be_bytes());
    frame
}

impl Clients {
    fn connect(work: Work, to: SocketAddr) -> io::Result<Self> {
        let mut clients = Self {
            work,
            to,
            poll: Poll::new()?,
            clients: BTreeMap::new(),
            next: 0,
            done: 0,
            began: Instant::now(),
            bytes: 0,
            took: Vec::with_capacity(1 << 20),
            buffer: vec![BYTE; CHUNK],
            into: vec![0; CHUNK],
        };
        if matches!(work, Work::Churn { .. }) {
            return Ok(clients);
        }
        for _ in 0..work.conns() {
            clients.settled()?;
        }
        Ok(clients)
    }

    /// A client whose frame has reached its backend.
    fn settled(&mut self) -> io::Result<()> {
        let mut stream = std::net::TcpStream::connect(self.to)?;
        stream.set_nodelay(true)?;
        stream.write_all(&frame(self.next))?;
        if !matches!(self.work, Work::Bulk { both: false, .. }) {
            let mut echo = [0; FRAME];
            stream.read_exact(&mut echo)?;
            if echo != frame(self.next) {
                return Err(io::Error::other("the frame came back wrong"));
            }
        }
        stream.set_nonblocking(true)?;
        self.add(TcpStream::from_std(stream), 0)
    }

    fn add(&mut self, mut stream: TcpStream, owes: usize) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(self.next), interest)?;
        let client = Client {
            stream,
            owes,
            awaits: owes,
            began: Instant::now(),
        };
        self.clients.insert(self.next, client);
        self.next += 1;
        Ok(())
    }

    /// One that connects, from an address of its own: the ports of one would run out.
    fn newcomer(&mut self) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        let [.., a, b] = (self.next as u32).to_be_bytes();
        let [.., high, low] = std::process::id().to_be_bytes();
        let from = Ipv4Addr::new(127, 100 + high % 100, low, a ^ b | 1);
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&self.to.into()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => {
                return Err(error);
            }
            _ => {}
        }
        let stream = std::net::TcpStream::from(socket);
        self.add(TcpStream::from_std(stream), FRAME)
    }

    fn run(&mut self, until: Instant) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        if matches!(self.work, Work::Churn { .. }) {
            for _ in 0..self.work.conns() {
                self.newcomer()?;
            }
        }
        let all: Vec<usize> = self.clients.keys().copied().collect();
        for client in all {
            if !matches!(self.work, Work::Churn { .. }) {
                self.begin(client);
                self.go_on(client)?;
            }
        }
        let wait = Duration::from_millis(if self.pace() > 0 { 1 } else { 100 });
        self.began = Instant::now();
        while Instant::now() < until {
            self.poll.poll(&mut events, Some(wait))?;
            for event in &events {
                self.go_on(event.token().0)?;
            }
            if self.pace() > 0 {
                // What they may send now, no event will tell.
                for client in 0..self.next {
                    self.go_on(client)?;
                }
            }
        }
        Ok(())
    }

    const fn pace(&self) -> u32 {
        match self.work {
            Work::Bulk { pace, .. } => pace,
            _ => 0,
        }
    }

    /// Bytes that may still be sent now.
    fn allowance(&self) -> usize {
        if self.pace() == 0 {
            return usize::MAX;
        }
        let most = self.began.elapsed().as_secs_f64() * f64::from(self.pace()) * 1e6;
        (most as usize).saturating_sub(self.bytes as usize)
    }

    /// The next message of a client.
    fn begin(&mut self, number: usize) {
        if let Some(client) = self.clients.get_mut(&number)
            && let Work::PingPong { size, .. } = self.work
        {
            client.owes = size;
            client.awaits = size;
            client.began = Instant::now();
        }
    }

    fn go_on(&mut self, number: usize) -> io::Result<()> {
        match self.work {
            Work::Bulk { both, .. } => self.pour(number, both),
            _ => self.exchange(number),
        }
    }

    fn pour(&mut self, number: usize, both: bool) -> io::Result<()> {
        // A bounded piece of work, so that all have their turn.
        for _ in 0..4 {
            let allowance = self.allowance();
            let Some(client) = self.clients.get_mut(&number).filter(|_| allowance > 0) else {
                return Ok(());
            };
            let mut idle = true;
            if both {
                match client.stream.read(&mut self.into) {
                    Ok(0) => return Err(io::Error::other("a bulk session ended")),
                    Ok(read) if self.into[0] != BYTE || self.into[read - 1] != BYTE => {
                        return Err(io::Error::other("a byte came back wrong"));
                    }
                    Ok(read) => {
                        self.bytes += read as u64;
                        client.awaits -= read;
                        idle = false;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            let most = (UNDER_WAY - client.awaits).min(CHUNK).min(allowance);
            match client.stream.write(&self.buffer[..most]) {
                Ok(wrote) if both => {
                    client.awaits += wrote;
                    idle &= wrote == 0;
                }
                Ok(wrote) => {
                    self.bytes += wrote as u64;
                    idle = false;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if idle {
                return Ok(());
            }
        }
        // More is left than one turn may take: an event will not tell.
        let Some(client) = self.clients.get_mut(&number) else {
            return Ok(());
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.reregister(&mut client.stream, Token(number), interest)
    }

    fn exchange(&mut self, number: usize) -> io::Result<()> {
        let churns = matches!(self.work, Work::Churn { .. });
        loop {
            let Some(client) = self.clients.get_mut(&number) else {
                return Ok(());
            };
            while client.owes > 0 {
                let from = client.awaits - client.owes;
                let frame = frame(number);
                let bytes = if churns {
                    &frame[from..]
                } else {
                    &self.buffer[..client.owes]
                };
                match client.stream.write(bytes) {
                    Ok(wrote) => client.owes -= wrote,
                    Err(error) if waits(&error) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            while client.awaits > 0 {
                let mut chunk = [0; 64 * 1024];
                let most = client.awaits.min(chunk.len());
                match client.stream.read(&mut chunk[..most]) {
                    Ok(0) => return Err(io::Error::other("a session ended early")),
                    Ok(_) if !churns && chunk[0] != BYTE => {
                        return Err(io::Error::other("a byte came back wrong"));
                    }
                    Ok(read) => client.awaits -= read,
                    Err(error) if waits(&error) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            let took = client.began.elapsed().as_nanos();
            self.took.push(u32::try_from(took).unwrap_or(u32::MAX));
            self.done += 1;
            if churns {
                self.clients.remove(&number);
                return self.newcomer();
            }
            self.begin(number);
        }
    }
}

fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}
