//! Through a buffer in user space: `recv` and `send`.

use std::net::TcpStream;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use tlb_engine::drive::Outcome;

use crate::fault;

/// Size of the buffer that the directions of a worker share.
pub(crate) const BUFFER: usize = 64 * 1024;

// These two calls are most of what a relay of small messages does in user space. The C library makes them points where a
// thread may be cancelled, which costs as much as all the rest of them: hence rustix, which asks the kernel itself.

/// One `recv` into `buf`, which is not empty; repeated when a signal interrupts it.
pub(crate) fn recv(socket: &TcpStream, buf: &mut [u8]) -> Outcome {
    let most = buf.len();
    loop {
        match rustix::net::recv(socket, &mut *buf, RecvFlags::empty()) {
            Ok((0, _)) => return Outcome::Eof,
            Ok((bytes, _)) => {
                return Outcome::Moved {
                    bytes,
                    short: bytes < most,
                };
            }
            Err(Errno::INTR) => {}
            Err(errno) => return failed(errno),
        }
    }
}

/// One `send` of `bytes`, which are not empty; repeated when a signal interrupts it.
pub(crate) fn send(socket: &TcpStream, bytes: &[u8]) -> Outcome {
    loop {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                return Outcome::Moved {
                    bytes: sent,
                    short: sent < bytes.len(),
                };
            }
            Err(Errno::INTR) => {}
            Err(errno) => return failed(errno),
        }
    }
}

fn failed(errno: Errno) -> Outcome {
    match errno {
        Errno::AGAIN => Outcome::WouldBlock,
        _ => Outcome::Broken(fault::of(&errno.into())),
    }
}
