//! How a peer learns that its connection is gone, although nobody here knows its numbers.
//!
//! A SYN within a connection is answered with an acknowledgement that carries what its peer expects next (the challenge of
//! RFC 5961 section 4). No socket here has that connection, so that this host answers the challenge with a reset, and that
//! one is right.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::layout::Tuple;

const SYN: u8 = 2;

/// Has whoever sends packets of this tuple ask what became of its connection.
///
/// # Errors
/// The process may not (it takes `CAP_NET_RAW`), or the kernel has no way there.
pub(super) fn poke(tuple: Tuple) -> io::Result<()> {
    send(tuple.to, tuple.from, SYN)
}

/// Sends a segment with these flags and without numbers.
pub(super) fn send(own: SocketAddr, peer: SocketAddr, flags: u8) -> io::Result<()> {
    let kind = Type::RAW.cloexec();
    let socket = Socket::new(Domain::for_address(peer), kind, Some(Protocol::TCP))?;
    // A raw socket of IPv6 takes a port for a protocol.
    socket.bind(&SocketAddr::new(own.ip(), 0).into())?;
    socket.send_to(
        &segment(own, peer, flags),
        &SocketAddr::new(peer.ip(), 0).into(),
    )?;
    Ok(())
}

fn segment(from: SocketAddr, to: SocketAddr, flags: u8) -> [u8; 20] {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&from.port().to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = flags;
    let sum = checksum(from.ip(), to.ip(), &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// Of a segment with an even number of bytes (RFC 9293 section 3.1).
fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let sum = |bytes: &[u8]| -> u32 {
        let words = bytes.as_chunks().0.iter();
        words.map(|word| u32::from(u16::from_be_bytes(*word))).sum()
    };
    let address = |ip| match ip {
        IpAddr::V4(ip) => sum(&ip.octets()),
        IpAddr::V6(ip) => sum(&ip.octets()),
    };
    let mut total = address(from) + address(to) + sum(segment) + segment.len() as u32 + 6;
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    !(total as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_makes_the_whole_sum_up_to_nothing() {
        for (from, to) in [
            ("10.1.2.3:80", "10.3.2.1:4096"),
            ("[::1]:1", "[fd00::7]:65535"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let segment = segment(from, to, SYN);
            assert_ne!(segment[16..18], [0, 0]);
            assert_eq!(checksum(from.ip(), to.ip(), &segment), 0);
        }
    }
}
