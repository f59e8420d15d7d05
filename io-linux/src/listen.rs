//! Listening sockets: one for each worker on one address, and none that another process shares.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::cpus::Cpus;
use crate::socket::{self, ListenerOptions};

/// Length of a listener's queue; the kernel clamps it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Opens `count` listening sockets (at least one) on the same address, and says which: of port 0,
/// the first socket chooses, and the others follow.
///
/// With `SO_REUSEPORT` a second process of the same user would share the port silently and get half
/// of the clients. So the first socket listens without it, which the kernel refuses wherever
/// anybody else listens, and only then becomes one that others may join.
///
/// Each takes the clients that `cpus` says, else those that the kernel deals out to it.
///
/// # Errors
/// `EADDRINUSE` if somebody listens there, and whatever else the kernel has against the address.
pub(crate) fn listen(
    address: SocketAddr,
    count: usize,
    options: ListenerOptions,
    cpus: &Cpus,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let first = prepare(&address, options)?;
    first.bind(&address.into())?;
    first.listen(BACKLOG)?;
    first.set_reuse_port(true)?;
    let first = TcpListener::from(first);
    let actual = first.local_addr()?;

    let mut sockets = Vec::with_capacity(count);
    sockets.push(first);
    for _ in 1..count {
        let other = prepare(&actual, options)?;
        other.set_reuse_port(true)?;
        other.bind(&actual.into())?;
        other.listen(BACKLOG)?;
        sockets.push(other.into());
    }
    cpus.direct(&sockets)?;
    Ok((actual, sockets))
}

fn prepare(address: &SocketAddr, options: ListenerOptions) -> io::Result<socket2::Socket> {
    let socket = socket::tcp(address)?;
    // Connections of an earlier process that linger in TIME_WAIT, or live on while it stops, are no
    // obstacle.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 clients too, whatever the host's default is.
        socket.set_only_v6(false)?;
    }
    socket::set_listener_options(&socket, options)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::iter;
    use std::net::{Shutdown, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Duration;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use socket2::SockRef;

    use super::*;
    use crate::congestion::Congestion;
    use crate::socket::SessionOptions;

    const LOOPBACK: &str = "127.0.0.1:0";

    fn open(address: &str, count: usize) -> (SocketAddr, Vec<TcpListener>) {
        listen(
            address.parse().unwrap(),
            count,
            ListenerOptions::default(),
            &Cpus::default(),
        )
        .unwrap()
    }

    /// Waits for the connection that a client has made.
    fn accept(listener: &TcpListener) -> TcpStream {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(5000_u16)), Ok(1));
        listener.accept().unwrap().0
    }

    #[test]
    fn all_sockets_share_the_port_that_the_first_one_got() {
        let (address, sockets) = open(LOOPBACK, 4);
        assert_ne!(address.port(), 0);
        assert_eq!(sockets.len(), 4);
        for socket in &sockets {
            assert_eq!(socket.local_addr().unwrap(), address);
        }
    }

    #[test]
    fn every_socket_gets_connections() {
        let (address, sockets) = open(LOOPBACK, 3);
        let clients: Vec<_> = (0..120)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let mut counts = vec![0; sockets.len()];
        while counts.iter().sum::<usize>() < clients.len() {
            let mut fds: Vec<_> = sockets
                .iter()
                .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
                .collect();
            assert!(
                poll(&mut fds, PollTimeout::from(5000_u16)).unwrap() > 0,
                "a client is lost"
            );
            for (socket, count) in sockets.iter().zip(&mut counts) {
                *count += iter::from_fn(|| socket.accept().ok()).count();
            }
        }
        assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    }

    #[test]
    fn a_second_server_on_the_port_is_refused() {
        let (address, _sockets) = open(LOOPBACK, 2);
        let refused = listen(address, 2, ListenerOptions::default(), &Cpus::default()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        // Also the one that overlaps without being equal.
        let everywhere = SocketAddr::new([0, 0, 0, 0].into(), address.port());
        let refused =
            listen(everywhere, 2, ListenerOptions::default(), &Cpus::default()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn the_port_is_free_again_while_old_connections_live() {
        let (address, sockets) = open(LOOPBACK, 1);
        let mut client = TcpStream::connect(address).unwrap();
        let mut served = accept(&sockets[0]);
        drop(sockets);

        let (again, _sockets) = open(&address.to_string(), 2);
        assert_eq!(again, address);
        served.write_all(b"still here").unwrap();
        served.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"still here");
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let session = SessionOptions {
            idle: Some(Duration::from_secs(40)),
            user_timeout: Some(Duration::from_secs(20)),
            congestion: Congestion::new("reno"),
        };
        let options = ListenerOptions {
            session,
            defer: false,
        };
        let (address, sockets) =
            listen(LOOPBACK.parse().unwrap(), 1, options, &Cpus::default()).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let accepted = accept(&sockets[0]);
        let options = SockRef::from(&accepted);
        assert!(options.tcp_nodelay().unwrap());
        assert!(options.out_of_band_inline().unwrap());
        assert!(options.keepalive().unwrap());
        assert_eq!(
            options.tcp_keepalive_time().unwrap(),
            Duration::from_secs(40)
        );
        assert_eq!(
            options.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(5)
        );
        assert_eq!(
            options.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(20))
        );
        assert!(options.tcp_congestion().unwrap().starts_with(b"reno\0"));
    }

    /// Whether a connection can be accepted within so many milliseconds.
    fn comes(listener: &TcpListener, within: u16) -> bool {
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(within)).unwrap() == 1
    }

    const DEFER: ListenerOptions = ListenerOptions {
        session: SessionOptions {
            idle: None,
            user_timeout: None,
            congestion: None,
        },
        defer: true,
    };

    #[test]
    fn a_client_that_has_said_nothing_can_be_left_to_the_kernel() {
        let (address, sockets) =
            listen(LOOPBACK.parse().unwrap(), 1, DEFER, &Cpus::default()).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        assert!(!comes(&sockets[0], 100), "it has said nothing");
        client.write_all(b"!").unwrap();
        accept(&sockets[0]).read_exact(&mut [0]).unwrap();

        let client = TcpStream::connect(address).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(accept(&sockets[0]).read(&mut [0]).unwrap(), 0);

        // Not for ever: whoever says nothing at all has to be told so in the end.
        let _silent = TcpStream::connect(address).unwrap();
        accept(&sockets[0]);
    }

    #[test]
    fn a_listener_can_change_its_mind_about_silent_clients() {
        let (address, sockets) =
            listen(LOOPBACK.parse().unwrap(), 1, DEFER, &Cpus::default()).unwrap();
        socket::change_options(&sockets[0], ListenerOptions::default()).unwrap();
        let _silent = TcpStream::connect(address).unwrap();
        assert!(comes(&sockets[0], 500));
        drop(sockets[0].accept().unwrap());
        socket::change_options(&sockets[0], DEFER).unwrap();
        let _silent = TcpStream::connect(address).unwrap();
        assert!(!comes(&sockets[0], 100));
    }

    #[test]
    fn the_wildcard_of_ipv6_takes_both() {
        let Ok((address, sockets)) = listen(
            "[::]:0".parse().unwrap(),
            1,
            ListenerOptions::default(),
            &Cpus::default(),
        ) else {
            return; // This host has no IPv6.
        };
        let client = TcpStream::connect(("127.0.0.1", address.port())).unwrap();
        assert_eq!(
            accept(&sockets[0]).peer_addr().unwrap().port(),
            client.local_addr().unwrap().port()
        );
    }
}
