//! Where one of a session's two connections stands, as its socket knows it.

use std::io;
use std::net::{SocketAddr, TcpStream};

use nix::libc;

use super::layout::Tuple;
use crate::sys;

/// Of `TCP_REPAIR` (`linux/tcp.h`): on, and off without a window probe.
pub(super) const REPAIR: i32 = 1;
const NO_REPAIR: i32 = -1;
/// Of `TCP_REPAIR_QUEUE`.
const RECV_QUEUE: i32 = 1;
const SEND_QUEUE: i32 = 2;
/// What may be on its way at a hand-off. A peer's kernel that has room for it does not lose it, and it need not be
/// repeated while its session goes on without tlb.
const MESSAGE: usize = 16 * 1024;
/// Of `tcpi_state`.
const ESTABLISHED: u8 = 1;

/// One of a session's connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg {
    /// The packets that its peer sends.
    pub(super) tuple: Tuple,
    /// The number of the byte that tlb writes next, and of the one that it receives next.
    pub(super) sent: u32,
    pub(super) received: u32,
    /// A value of its timestamp clock, and at which millisecond of `CLOCK_MONOTONIC` it was read.
    pub(super) clock: (u32, u32),
    info: Info,
}

impl Leg {
    /// As it is at this moment, if it is quiet: simply connected, nothing odd about it, and nothing left to do but to hear
    /// that the last message has arrived.
    ///
    /// # Errors
    /// The process may not know (it takes `CAP_NET_ADMIN`), or there is no such connection any more.
    pub(super) fn of(socket: &TcpStream) -> io::Result<Option<Self>> {
        if unread(socket)? > 0 || sys::unacknowledged(socket) > MESSAGE {
            return Ok(None);
        }
        // Before it is read: a clock that is ahead by a tick passes for one, one that is behind does not (RFC 7323
        // section 5).
        let clock_ms = (now() / 1_000_000) as u32;
        let clock = word(socket, libc::TCP_TIMESTAMP)?;
        let (sent, received) = numbers(socket)?;
        // These are the numbers of what was read and written if nothing has come, up to here: a FIN has a number, too.
        //
        // What came out of order may still be here, and not what it waits for. Its sender will find out that nobody has it
        // any more (RFC 2018 section 8).
        let info = Info::of(socket)?;
        if info.unsent > 0 || !info.is_quiet(socket)? {
            return Ok(None);
        }
        let tuple = Tuple {
            from: canonical(socket.peer_addr()?),
            to: canonical(socket.local_addr()?),
        };
        Ok(Some(Self {
            tuple,
            sent,
            received,
            clock: (clock, clock_ms),
            info,
        }))
    }

    /// Whether what each peer says to tlb can be said to the other one.
    pub(super) fn suits(&self, other: &Self) -> bool {
        const TIMESTAMPS: u8 = 1;
        const SELECTIVE: u8 = 2;
        const ECN: u8 = 8;
        const MICROSECONDS: u8 = 64;
        let (own, others) = (self.info.options, other.info.options);
        let headers = if self.tuple.from.is_ipv4() { 40 } else { 60 };
        self.tuple.from.is_ipv4() == other.tuple.from.is_ipv4()
            && (own ^ others) & (TIMESTAMPS | SELECTIVE) == 0
            && (own | others) & (ECN | MICROSECONDS) == 0
            // Nobody tells a peer that its packets are too large for the other one's path.
            && self.info.advertised + headers <= other.info.path
            && other.info.advertised + headers <= self.info.path
    }

    /// Window scales: the peer's, and the one that it was told.
    pub(super) const fn scales(&self) -> (u8, u8) {
        (self.info.scales & 15, self.info.scales >> 4)
    }
}

/// What is asked of `struct tcp_info` (`linux/tcp.h`).
#[derive(Clone, Copy, Debug)]
struct Info {
    state: u8,
    options: u8,
    scales: u8,
    path: u32,
    advertised: u32,
    unsent: u32,
}

impl Info {
    fn of(socket: &TcpStream) -> io::Result<Self> {
        let bytes: [u8; 148] = sys::tcp_option(socket, libc::TCP_INFO)?;
        let word = |at: usize| {
            let word = bytes[at..].first_chunk().copied();
            u32::from_ne_bytes(word.unwrap_or_default())
        };
        Ok(Self {
            state: bytes[0],
            options: bytes[5],
            scales: bytes[6],
            path: word(60),
            advertised: word(84),
            unsent: word(144),
        })
    }

    fn is_quiet(&self, socket: &TcpStream) -> io::Result<bool> {
        Ok(self.state == ESTABLISHED && unread(socket)? == 0)
    }
}

/// Whether nothing has come since [`Leg::of`], neither a byte nor an end.
///
/// # Errors
/// As for [`Leg::of`].
pub(super) fn is_quiet(socket: &TcpStream) -> io::Result<bool> {
    Info::of(socket)?.is_quiet(socket)
}

/// Received bytes that were not read.
///
/// # Errors
/// There is no such socket any more.
pub(super) fn unread(socket: &TcpStream) -> io::Result<u64> {
    Ok(rustix::io::ioctl_fionread(socket)?)
}

/// Written bytes that were not sent.
///
/// # Errors
/// As for [`Leg::of`].
pub(super) fn unsent(socket: &TcpStream) -> io::Result<u32> {
    Ok(Info::of(socket)?.unsent)
}

/// What the socket of a connection writes and receives next, by number.
///
/// # Errors
/// As for [`Leg::of`].
pub(super) fn numbers(socket: &TcpStream) -> io::Result<(u32, u32)> {
    sys::set_tcp_option(socket, libc::TCP_REPAIR, REPAIR)?;
    let number = |queue| {
        sys::set_tcp_option(socket, libc::TCP_REPAIR_QUEUE, queue)?;
        word(socket, libc::TCP_QUEUE_SEQ)
    };
    let numbers = number(SEND_QUEUE).and_then(|sent| Ok((sent, number(RECV_QUEUE)?)));
    sys::set_tcp_option(socket, libc::TCP_REPAIR, NO_REPAIR)?;
    numbers
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(super) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn word(socket: &TcpStream, option: i32) -> io::Result<u32> {
    sys::tcp_option(socket, option).map(u32::from_ne_bytes)
}

/// An IPv4 address that a socket of IPv6 has is one on the wire.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
