//! Pipes for splicing, lent to a direction only while bytes are in flight.
//!
//! An idle session holds no pipe: two of them would cost it four descriptors and, without
//! privilege, all pipes of a user share 64 MiB (`pipe-user-pages-soft`).

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use std::os::fd::AsFd;

/// What a pipe is asked to hold: twice as much takes as much CPU per byte, half as much a third more calls. The kernel
/// may round or refuse it; without privilege, all pipes of a user share 64 MiB, so that a smaller one may still be had.
const CAPACITIES: [i32; 2] = [512 * 1024, 256 * 1024];

/// A pipe below this is worse than the copying buffer, which has as much.
const WORTHWHILE: i32 = 64 * 1024;

/// After the kernel refused a pipe, this many requests are refused without asking it again.
const PATIENCE: u32 = 256;

/// A pipe and how many bytes are in it.
#[derive(Debug)]
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// No pipe holds as much as this can count.
    held: u32,
}

impl Pipe {
    fn new() -> nix::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Beyond the user's soft limit a new pipe has two pages, and growing it is refused.
        let grown = CAPACITIES
            .iter()
            .find_map(|&bytes| fcntl(&write, FcntlArg::F_SETPIPE_SZ(bytes)).ok());
        let capacity = grown.map_or_else(|| fcntl(&write, FcntlArg::F_GETPIPE_SZ), Ok)?;
        if capacity < WORTHWHILE {
            return Err(Errno::ENOBUFS);
        }
        Ok(Self {
            read,
            write,
            held: 0,
        })
    }

    /// Bytes in it.
    pub(crate) fn held(&self) -> usize {
        self.held as usize
    }

    /// Moves up to `most` bytes from a socket into the pipe. `EAGAIN`: the socket is empty *or* the
    /// pipe is full, which it is not as long as [`Pipe::held`] is 0.
    pub(crate) fn fill(&mut self, source: &impl AsFd, most: usize) -> nix::Result<usize> {
        let moved = move_bytes(source, &self.write, most)?;
        self.held += moved as u32;
        Ok(moved)
    }

    /// Moves bytes from the pipe to a socket.
    pub(crate) fn drain(&mut self, destination: &impl AsFd) -> nix::Result<usize> {
        let moved = move_bytes(&self.read, destination, self.held as usize)?;
        self.held -= moved as u32;
        Ok(moved)
    }
}

fn move_bytes(from: &impl AsFd, to: &impl AsFd, most: usize) -> nix::Result<usize> {
    // Without SPLICE_F_MORE: it would hold back the last segment of every message.
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    loop {
        match splice(from, None, to, None, most, flags) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// The pipes of one worker: made when first needed, kept for the next one that needs one, never
/// more than `limit`.
#[derive(Debug)]
pub(crate) struct PipePool {
    idle: Vec<Pipe>,
    made: usize,
    limit: usize,
    refusals_left: u32,
}

impl PipePool {
    /// A pool of at most `limit` pipes, none of them made yet.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            idle: Vec::new(),
            made: 0,
            limit,
            refusals_left: 0,
        }
    }

    /// An empty pipe, unless all are in use or the kernel refuses another.
    pub(crate) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            return Some(pipe);
        }
        if self.made == self.limit {
            return None;
        }
        if self.refusals_left > 0 {
            self.refusals_left -= 1;
            return None;
        }
        match Pipe::new() {
            Ok(pipe) => {
                self.made += 1;
                Some(pipe)
            }
            Err(_) => {
                self.refusals_left = PATIENCE;
                None
            }
        }
    }

    /// Gives a pipe back. One with bytes left is closed: they belong to a session that is gone.
    pub(crate) fn give(&mut self, pipe: Pipe) {
        if pipe.held == 0 {
            self.idle.push(pipe);
        } else {
            self.made -= 1;
        }
    }

    /// Pipes that sessions hold now.
    #[cfg(test)]
    pub(crate) fn lent(&self) -> usize {
        self.made - self.idle.len()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn pipes_are_used_again_and_never_exceed_the_limit() {
        let mut pool = PipePool::new(2);
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert_eq!(pool.lent(), 2);
        assert!(pool.take().is_none(), "the limit is two");

        pool.give(first);
        assert_eq!((pool.lent(), pool.made), (1, 2));
        let again = pool.take().unwrap();
        assert_eq!((pool.lent(), pool.made), (2, 2), "no third pipe was made");
        pool.give(second);
        pool.give(again);
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn a_pipe_with_bytes_in_it_is_never_lent_again() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(b"left behind").unwrap();

        let mut pool = PipePool::new(1);
        let mut dirty = pool.take().unwrap();
        assert_eq!(dirty.fill(&there, 1024).unwrap(), 11);
        assert_eq!(dirty.held(), 11);
        pool.give(dirty);
        assert_eq!((pool.made, pool.lent(), pool.idle.len()), (0, 0, 0));

        let mut clean = pool.take().unwrap();
        assert_eq!(clean.held(), 0);
        assert_eq!(
            clean.fill(&there, 1024).unwrap_err(),
            Errno::EAGAIN,
            "it holds nothing old"
        );
        pool.give(clean);
    }

    #[test]
    fn what_goes_in_comes_out() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let (out, mut end) = UnixStream::pair().unwrap();
        here.write_all(b"through the pipe").unwrap();

        let mut pipe = Pipe::new().unwrap();
        assert_eq!(pipe.fill(&there, 7).unwrap(), 7);
        assert_eq!(pipe.fill(&there, 100).unwrap(), 9);
        assert_eq!(pipe.drain(&out).unwrap(), 16);
        assert_eq!(pipe.held(), 0);
        let mut got = [0; 16];
        end.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"through the pipe");
    }

    #[test]
    fn a_refusal_is_not_asked_for_again_at_once() {
        let mut pool = PipePool::new(1);
        pool.refusals_left = 2;
        assert!(pool.take().is_none());
        assert!(pool.take().is_none());
        assert!(pool.take().is_some(), "then the kernel is asked again");
    }
}
