//! What the kernel says about a process and its sockets.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use super::eventually;

/// Resident memory of the process, in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.trim().parse::<u64>().ok())
        .expect("a VmRSS line");
    kib * 1024
}

/// Number of descriptors that the process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process lives")
        .count()
}

/// Number of descriptors of a process that has nothing to do: it stayed the same for twenty looks.
pub(crate) fn descriptors_at_rest(pid: u32) -> usize {
    let mut last = descriptors(pid);
    let mut looks = 0;
    eventually("the number of descriptors settles", || {
        let now = descriptors(pid);
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        (looks == 20).then_some(now)
    })
}

/// Waits until the process has been stopped by a signal.
pub(crate) fn await_stopped(pid: u32) {
    eventually("the process is stopped", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
        // The name in parentheses may hold anything; the state is the first word after it.
        let state = stat.rsplit(") ").next()?.chars().next()?;
        (state == 'T').then_some(())
    });
}

/// How many bytes the socket has taken that its peer's kernel has not acknowledged.
#[track_caller]
pub(crate) fn unacknowledged(stream: &TcpStream) -> usize {
    let local = as_in_proc(stream.local_addr().expect("a connected socket"));
    let peer = as_in_proc(stream.peer_addr().expect("a connected socket"));
    sockets(|socket| {
        let queue = socket.queues.split(':').next()?;
        let wanted = socket.local == local && socket.peer == peer;
        wanted.then(|| usize::from_str_radix(queue, 16).expect("a length in hex"))
    })
    .expect("the socket's line in /proc/net/tcp")
}

/// Whether a socket of this host waits for its connection to that address.
pub(crate) fn is_connecting(to: SocketAddr) -> bool {
    const SYN_SENT: &str = "02";
    let to = as_in_proc(to);
    sockets(|socket| (socket.peer == to && socket.state == SYN_SENT).then_some(())).is_some()
}

/// A line of `/proc/net/tcp`.
struct Line<'a> {
    local: &'a str,
    peer: &'a str,
    state: &'a str,
    queues: &'a str,
}

/// The first answer that `look` gives to a socket of this host.
fn sockets<T>(look: impl Fn(Line<'_>) -> Option<T>) -> Option<T> {
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace().skip(1);
        look(Line {
            local: columns.next()?,
            peer: columns.next()?,
            state: columns.next()?,
            queues: columns.next()?,
        })
    })
}

fn as_in_proc(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else {
        panic!("{address} is not IPv4");
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    format!("{ip:08X}:{:04X}", address.port())
}
