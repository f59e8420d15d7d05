//! System calls that neither the standard library nor the socket crates offer: the only `unsafe` of
//! this package.
#![allow(
    unsafe_code,
    reason = "what has no safe wrapper anywhere; everything unsafe lives in this file"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

mod ioctl {
    use nix::libc;

    // SIOCOUTQ is defined as TIOCOUTQ; only the latter is in `libc` for every target.
    nix::ioctl_read_bad!(siocoutq, libc::TIOCOUTQ, libc::c_int);
}

/// Sets an option of TCP (tcp(7)) whose value is an `int`.
///
/// # Errors
/// It is not a TCP socket, or the option is not for this user or this state.
pub(crate) fn set_tcp_option(socket: &impl AsFd, option: i32, value: i32) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    let value: libc::c_int = value;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel reads `size` bytes, which are
    // those of `value`, before the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            (&raw const value).cast(),
            size,
        )
    };
    Errno::result(result).map(drop).map_err(io::Error::from)
}

/// Asks for an option of TCP (tcp(7)): at most `N` bytes of its value, and zeros for what this kernel does not say.
///
/// # Errors
/// As for [`set_tcp_option`].
pub(crate) fn tcp_option<const N: usize>(socket: &impl AsFd, option: i32) -> io::Result<[u8; N]> {
    let mut value = [0; N];
    let mut size = N as libc::socklen_t;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel writes at most `size` bytes to
    // `value`, which has as many, and one length to `size`, and both live until the call has returned.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            option,
            value.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    Errno::result(result)
        .map(|_| value)
        .map_err(io::Error::from)
}

/// Bytes in the socket's send queue, sent or not, that the peer's kernel has not acknowledged.
/// Counts the FIN as one. Zero for a descriptor that has no such queue.
pub(crate) fn unacknowledged(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and SIOCOUTQ writes
    // exactly one `int`, through a pointer to one that lives until the call has returned.
    let result = unsafe { ioctl::siocoutq(socket.as_fd().as_raw_fd(), &raw mut bytes) };
    match result {
        Ok(_) => usize::try_from(bytes).unwrap_or(0),
        Err(_) => 0,
    }
}

/// Waits until an event queue has something or so long, to the nanosecond: `epoll_wait(2)` counts in milliseconds. Whether
/// there may be something.
pub(crate) fn has_events_within(queue: &impl AsRawFd, wait: Duration) -> bool {
    // SAFETY: the queue is borrowed for longer than its descriptor is used here.
    let fd = unsafe { BorrowedFd::borrow_raw(queue.as_raw_fd()) };
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    ppoll(&mut fds, Some(wait.into()), None) != Ok(0)
}

/// Has tokio tell when there is something to read. Called within its runtime.
///
/// # Errors
/// The descriptor cannot be waited for.
pub(crate) fn watch<T: AsFd + AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: a source that lends its descriptor has the same one, open, for as long as it lives.
    let watched = unsafe { AsyncFd::register_with_interest(source, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn unacknowledged_counts_what_the_peer_has_no_room_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        assert_eq!(unacknowledged(&sender), 0, "nothing was written");

        sender.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(bytes) = sender.write(&[7; 65536]) {
            written += bytes;
        }
        assert!(
            unacknowledged(&sender) > 0,
            "{written} bytes fill both kernel buffers"
        );

        receiver.read_exact(&mut vec![0; written]).unwrap();
        // A byte back carries the acknowledgement of everything that was read.
        receiver.write_all(b"!").unwrap();
        sender.set_nonblocking(false).unwrap();
        sender.read_exact(&mut [0]).unwrap();
        assert_eq!(unacknowledged(&sender), 0);
    }

    #[test]
    fn a_descriptor_without_a_send_queue_has_nothing_unacknowledged() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(unacknowledged(&file), 0);
    }

    #[test]
    fn waits_no_longer_than_an_event_takes() {
        let (near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!has_events_within(&near, Duration::from_micros(50)));
        far.write_all(b"x").unwrap();
        assert!(has_events_within(&near, Duration::from_secs(60)));
    }
}
