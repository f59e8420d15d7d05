//! Through a pipe in the kernel: `splice`, twice.

use std::net::TcpStream;

use nix::errno::Errno;
use tlb_engine::drive::Outcome;

use crate::fault;
use crate::pipe_pool::Pipe;

/// What one call asks for: more than any pipe of ours holds, so that the pipe is the limit.
const MOST: usize = 1024 * 1024;

/// One `splice` from a socket. It is never [short](Outcome::Moved): a pipe takes one fragment per
/// slot, so it can be full at a part of its size, and less than asked for says nothing about the
/// socket.
pub(crate) fn fill(pipe: &mut Pipe, source: &TcpStream) -> Outcome {
    match pipe.fill(source, MOST) {
        Ok(0) => Outcome::Eof,
        Ok(bytes) => Outcome::Moved {
            bytes,
            short: false,
        },
        Err(errno) => failed(errno),
    }
}

/// One `splice` to a socket, of everything that is in the pipe, which is not empty.
pub(crate) fn drain(pipe: &mut Pipe, destination: &TcpStream) -> Outcome {
    match pipe.drain(destination) {
        Ok(0) => Outcome::WouldBlock,
        Ok(bytes) => Outcome::Moved {
            bytes,
            short: pipe.held() > 0,
        },
        Err(errno) => failed(errno),
    }
}

fn failed(errno: Errno) -> Outcome {
    match errno {
        Errno::EAGAIN => Outcome::WouldBlock,
        _ => Outcome::Broken(fault::of_errno(errno)),
    }
}
