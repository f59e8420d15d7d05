//! Through a buffer in user space: `recv` and `send`.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use tlb_engine::drive::Outcome;

use crate::fault;

/// Size of the buffer that the directions of a worker share.
pub(crate) const BUFFER: usize = 64 * 1024;

/// One `recv` into `buf`, which is not empty; repeated when a signal interrupts it.
pub(crate) fn recv(mut socket: &TcpStream, buf: &mut [u8]) -> Outcome {
    loop {
        match socket.read(buf) {
            Ok(0) => return Outcome::Eof,
            Ok(bytes) => {
                return Outcome::Moved {
                    bytes,
                    short: bytes < buf.len(),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return failed(&error),
        }
    }
}

/// One `send` of `bytes`, which are not empty; repeated when a signal interrupts it. The standard
/// library sets `MSG_NOSIGNAL`.
pub(crate) fn send(mut socket: &TcpStream, bytes: &[u8]) -> Outcome {
    loop {
        match socket.write(bytes) {
            Ok(sent) => {
                return Outcome::Moved {
                    bytes: sent,
                    short: sent < bytes.len(),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return failed(&error),
        }
    }
}

fn failed(error: &io::Error) -> Outcome {
    match error.kind() {
        io::ErrorKind::WouldBlock => Outcome::WouldBlock,
        _ => Outcome::Broken(fault::of(error)),
    }
}
