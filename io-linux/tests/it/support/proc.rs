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
pub(crate) fn unacknowledged(stream: &TcpStream) -> usize {
    let local = as_in_proc(stream.local_addr().expect("a connected socket"));
    let peer = as_in_proc(stream.peer_addr().expect("a connected socket"));
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc/net/tcp");
    table
        .lines()
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|columns| columns.len() > 4 && columns[1] == local && columns[2] == peer)
        .and_then(|columns| columns[4].split(':').next())
        .and_then(|queue| usize::from_str_radix(queue, 16).ok())
        .expect("the socket's line in /proc/net/tcp")
}

fn as_in_proc(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else {
        panic!("{address} is not IPv4");
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    format!("{ip:08X}:{:04X}", address.port())
}
