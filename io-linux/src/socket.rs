//! TCP sockets as a relay needs them: options, connecting, and the two ways of closing.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tlb_engine::api::{Close, Fault};
use tlb_engine::drive::{Connect, First};

use crate::congestion::{self, Congestion};
use crate::{fault, sys};

/// How many unanswered keepalive probes break a connection.
const KEEPALIVE_PROBES: u32 = 4;

/// What both sockets of a session have: when the kernel gives a silent connection up, and how it controls congestion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionOptions {
    /// Silence after which the kernel probes whether the peer is still there, at least 1 s; `None`:
    /// never. A peer that does not answer four probes, an eighth of this apart (at least 1 s, at
    /// most 75 s), is broken.
    pub(crate) idle: Option<Duration>,
    /// How long written bytes may stay unacknowledged before the connection is broken
    /// (`TCP_USER_TIMEOUT`, in milliseconds); `None`: as long as the kernel retransmits, some 15
    /// minutes.
    pub(crate) user_timeout: Option<Duration>,
    /// `None`: what the host gives to all.
    pub(crate) congestion: Option<Congestion>,
}

impl SessionOptions {
    fn probes(self) -> Option<TcpKeepalive> {
        let idle = self.idle?.max(Duration::from_secs(1));
        let interval = (idle / 8).clamp(Duration::from_secs(1), Duration::from_secs(75));
        Some(
            TcpKeepalive::new()
                .with_time(idle)
                .with_interval(interval)
                .with_retries(KEEPALIVE_PROBES),
        )
    }
}

/// What a listening socket is to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListenerOptions {
    /// What the sockets of its sessions have.
    pub(crate) session: SessionOptions,
    /// Whether clients are to send something first, so that the kernel may keep a connection until they have, and nobody
    /// wakes up for one that says nothing.
    pub(crate) defer: bool,
}

/// For how many seconds the kernel keeps the connection of a client that sends nothing: then it is accepted all the
/// same, and its preread has its deadline. The least there is.
const DEFER: i32 = 1;

/// Sets for how many seconds a listening socket keeps to itself a connection whose client has sent nothing yet
/// (`TCP_DEFER_ACCEPT`, tcp(7)), which the kernel rounds up to its retransmissions; 0: not at all.
fn defer_accept(listener: &impl AsFd, seconds: i32) -> io::Result<()> {
    sys::set_tcp_option(listener, libc::TCP_DEFER_ACCEPT, seconds)
}

/// Sets what a listening socket has. Accepted ones inherit it.
///
/// # Errors
/// The kernel refuses an option.
pub(crate) fn set_listener_options(socket: &Socket, options: ListenerOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    if options.defer {
        defer_accept(socket, DEFER)?;
    }
    set_options(socket, options.session)
}

/// Small writes go at once, unacknowledged ones notwithstanding. A backend's connection has no need of it until its second
/// write. The only fault it could have is that of a connection that is broken already, which its next read tells.
pub(crate) fn set_nodelay(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
}

/// Sets what every relayed socket has.
///
/// `SO_RCVBUF` stays as it is: set before the handshake it would fix the window scale and switch
/// off the kernel's own tuning.
fn set_options(socket: &Socket, session: SessionOptions) -> io::Result<()> {
    // A relay passes urgent bytes on like any other. Out of line, a read would drop them from the
    // stream.
    socket.set_out_of_band_inline(true)?;
    if let Some(probes) = session.probes() {
        socket.set_tcp_keepalive(&probes)?;
    }
    set_late(socket, session)
}

/// Sets the keepalive of a backend's connection. The only fault it could have is that of a connection that is broken
/// already, which its next read tells.
pub(crate) fn set_keepalive(socket: &TcpStream, session: SessionOptions) {
    if let Some(probes) = session.probes() {
        let _ = SockRef::from(socket).set_tcp_keepalive(&probes);
    }
}

/// A new TCP socket for addresses like `address`: non-blocking, closed on exec.
pub(crate) fn tcp(address: &SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new(Domain::for_address(*address), kind, Some(Protocol::TCP))
}

/// How a backend is connected to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dial<'a> {
    /// The address to connect from; `None`: the kernel's choice.
    pub(crate) from: Option<IpAddr>,
    /// Without the keepalive.
    pub(crate) session: SessionOptions,
    /// What it will be sent as soon as it can take it.
    pub(crate) first: First<'a>,
}

/// Begins to connect to a backend. Its keepalive is left to [`set_keepalive`], as most connections end before they need
/// any, and it takes four calls; `TCP_NODELAY` to [`set_nodelay`].
///
/// Also says how many of the first bytes have gone with the SYN.
pub(crate) fn connect(
    to: SocketAddr,
    dial: Dial<'_>,
    ports: &EphemeralPorts,
) -> Result<(TcpStream, Connect, u32), Fault> {
    let Dial { from, first, .. } = dial;
    let speaks = !first.bytes.is_empty();
    let socket = tcp(&to).map_err(|error| fault::of(&error))?;
    let options = SessionOptions {
        idle: None,
        ..dial.session
    };
    set_options(&socket, options).map_err(|error| fault::of(&error))?;
    if speaks {
        // The handshake's last acknowledgement goes with the first bytes: one segment less, and the backend wakes up
        // once.
        socket
            .set_tcp_quickack(false)
            .map_err(|error| fault::of(&error))?;
    }
    if let Some(from) = from {
        // The port is chosen at connect, so that it need only be free towards this one backend.
        setsockopt(&socket, IpBindAddressNoPort, &true).map_err(fault::of_errno)?;
        socket
            .bind(&SocketAddr::new(from, 0).into())
            .map_err(|error| fault::of(&error))?;
    }
    let (progress, sent) = match first.in_syn.then(|| send_in_syn(&socket, to, first.bytes)) {
        Some(Ok(Some(sent))) => (Connect::InProgress, sent),
        Some(Err(fault)) => return Err(fault),
        Some(Ok(None)) | None => (begin(&socket, to)?, 0),
    };
    let socket = socket.into();
    // Over loopback the handshake is over before `connect` returns, although it says otherwise: to ask at once, or to
    // write, saves a wait for the event that would tell.
    let progress = match progress {
        Connect::InProgress if !to.ip().is_loopback() => progress,
        Connect::InProgress if speaks && sent == 0 && !ports.may_meet(to, from) => {
            Connect::Established
        }
        _ => connected(&socket)?,
    };
    Ok((socket, progress, sent))
}

fn begin(socket: &Socket, to: SocketAddr) -> Result<Connect, Fault> {
    match socket.connect(&to.into()) {
        Ok(()) => Ok(Connect::Established),
        Err(error) => match error.raw_os_error().map(Errno::from_raw) {
            // An interrupted connect goes on in the background, as one that would block does.
            Some(Errno::EINPROGRESS | Errno::EINTR) => Ok(Connect::InProgress),
            _ => Err(fault::of(&error)),
        },
    }
}

/// Begins to connect with as many bytes in the SYN as it takes (`MSG_FASTOPEN`, tcp(7)), and says how many: none where
/// the peer has given no cookie yet, which is asked for then. `None`: nothing was begun, as the kernel may not.
fn send_in_syn(socket: &Socket, to: SocketAddr, bytes: &[u8]) -> Result<Option<u32>, Fault> {
    let flags = SendFlags::from_bits_retain(libc::MSG_FASTOPEN as u32) | SendFlags::NOSIGNAL;
    match rustix::net::sendto(socket, bytes, flags, &to) {
        Ok(sent) => Ok(Some(sent as u32)),
        Err(rustix::io::Errno::INPROGRESS) => Ok(Some(0)),
        Err(rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(fault::of(&errno.into())),
    }
}

/// The ports that the kernel chooses from for a connection that has none (`net.ipv4.ip_local_port_range`, of IPv6 too).
#[derive(Clone, Debug)]
pub(crate) struct EphemeralPorts(RangeInclusive<u16>);

impl EphemeralPorts {
    /// As they are now; all, if the kernel does not say.
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let mut words = text.iter().flat_map(|text| text.split_whitespace());
        let mut port = || words.next()?.parse().ok();
        Self(
            port()
                .zip(port())
                .map_or(1..=u16::MAX, |(low, high)| low..=high),
        )
    }

    /// Whether a connection to `to` may be given that very address as its own.
    fn may_meet(&self, to: SocketAddr, from: Option<IpAddr>) -> bool {
        self.0.contains(&to.port()) && from.is_none_or(|from| from == to.ip())
    }
}

/// How far a connect is.
pub(crate) fn connected(socket: &TcpStream) -> Result<Connect, Fault> {
    match socket.peer_addr() {
        Ok(peer) if is_self_connected(socket, peer) => Err(Fault::Refused),
        Ok(_) => Ok(Connect::Established),
        Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => {
            match take_error(socket) {
                Some(fault) => Err(fault),
                None => Ok(Connect::InProgress),
            }
        }
        Err(error) => Err(fault::of(&error)),
    }
}

/// Where nobody listens on a local port of the ephemeral range, the kernel may choose that very
/// port as the source, and TCP then connects the socket to itself. Only an address of this host can
/// do that; other local ones than loopback are not worth a system call for each connection.
fn is_self_connected(socket: &TcpStream, peer: SocketAddr) -> bool {
    peer.ip().is_loopback() && socket.local_addr().is_ok_and(|local| local == peer)
}

/// The pending error, which is cleared.
pub(crate) fn take_error(socket: &TcpStream) -> Option<Fault> {
    match socket.take_error() {
        Ok(None) => None,
        Ok(Some(error)) | Err(error) => Some(fault::of(&error)),
    }
}

/// Changes what the connections have that a listening socket accepts from now on.
///
/// # Errors
/// The kernel refuses an option.
pub(crate) fn change_options(listener: &impl AsFd, options: ListenerOptions) -> io::Result<()> {
    let ListenerOptions { session, defer } = options;
    defer_accept(listener, if defer { DEFER } else { 0 })?;
    let socket = SockRef::from(listener);
    match session.probes() {
        Some(probes) => socket.set_tcp_keepalive(&probes)?,
        None => socket.set_keepalive(false)?,
    }
    socket.set_tcp_user_timeout(session.user_timeout)?;
    match session.congestion {
        Some(congestion) => congestion::set(listener, congestion),
        None => congestion::reset(listener),
    }
}

/// Whether the peer has ended its stream or broken the connection, and no byte is left to be read. One that is still
/// connecting has not.
pub(crate) fn has_ended(socket: &TcpStream) -> bool {
    match socket.peek(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// Sets what a connection lacks that was opened for nobody in particular, but for the keepalive.
///
/// # Errors
/// The kernel refuses an option.
pub(crate) fn set_late(socket: &impl AsFd, session: SessionOptions) -> io::Result<()> {
    if session.user_timeout.is_some() {
        SockRef::from(socket).set_tcp_user_timeout(session.user_timeout)?;
    }
    session
        .congestion
        .map_or(Ok(()), |congestion| congestion::set(socket, congestion))
}

/// Whether a byte waits to be read.
pub(crate) fn has_unread(socket: &TcpStream) -> bool {
    matches!(socket.peek(&mut [0]), Ok(1..))
}

/// Sends a FIN after everything written before.
pub(crate) fn finish(socket: &TcpStream) -> Result<(), Fault> {
    match socket.shutdown(Shutdown::Write) {
        Ok(()) => Ok(()),
        // Only a reset takes an established connection away.
        Err(error) if error.raw_os_error() == Some(Errno::ENOTCONN as i32) => {
            Err(take_error(socket).unwrap_or(Fault::Reset))
        }
        Err(error) => Err(fault::of(&error)),
    }
}

/// Closes the socket.
pub(crate) fn close(socket: TcpStream, how: Close) {
    if how == Close::Reset {
        // It can only fail for a socket that is gone already.
        let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    }
    drop(socket);
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpListener;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;

    use super::*;

    /// Waits until the connect is decided, either way.
    fn settle(socket: &TcpStream) -> Result<Connect, Fault> {
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::from(5000_u16)).unwrap();
        connected(socket)
    }

    fn dialled(to: SocketAddr, dial: Dial<'_>) -> Result<(TcpStream, Connect), Fault> {
        connect(to, dial, &EphemeralPorts::read()).map(|(socket, progress, _)| (socket, progress))
    }

    fn from_there(from: IpAddr) -> Dial<'static> {
        Dial {
            from: Some(from),
            ..Dial::default()
        }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    #[test]
    fn a_connect_is_established_once_somebody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let session = SessionOptions {
            idle: Some(Duration::from_secs(60)),
            user_timeout: Some(Duration::from_millis(30_500)),
            congestion: Congestion::new("reno"),
        };
        let dial = Dial {
            session,
            ..Dial::default()
        };
        let (socket, _) = dialled(listener.local_addr().unwrap(), dial).unwrap();
        assert_eq!(settle(&socket), Ok(Connect::Established));
        assert!(!SockRef::from(&socket).keepalive().unwrap());
        set_keepalive(&socket, session);

        let options = SockRef::from(&socket);
        assert!(!options.tcp_nodelay().unwrap(), "that has time");
        assert!(options.tcp_congestion().unwrap().starts_with(b"reno\0"));
        assert!(options.out_of_band_inline().unwrap());
        assert!(options.keepalive().unwrap());
        assert_eq!(
            options.tcp_keepalive_time().unwrap(),
            Duration::from_secs(60)
        );
        assert_eq!(
            options.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(7)
        );
        assert_eq!(options.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        assert_eq!(
            options.tcp_user_timeout().unwrap(),
            Some(Duration::from_millis(30_500))
        );
    }

    #[test]
    fn a_port_without_a_listener_refuses() {
        // Bound but not listening: nobody else can take the port meanwhile.
        let reserved = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        reserved
            .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
            .unwrap();
        let to = reserved.local_addr().unwrap().as_socket().unwrap();
        let refused = match dialled(to, Dial::default()) {
            Ok((socket, _)) => settle(&socket).unwrap_err(),
            Err(fault) => fault,
        };
        assert_eq!(refused, Fault::Refused);
    }

    /// Whoever has something to say learns by saying it: nobody asks before.
    #[test]
    fn a_write_finds_out_whether_a_connect_succeeded() {
        let first = First {
            bytes: b"frame",
            in_syn: false,
        };
        let speaks = Dial {
            first,
            ..Dial::default()
        };
        let none = EphemeralPorts(1..=1);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let (mut socket, progress, _) = connect(to, speaks, &none).unwrap();
        assert_eq!(progress, Connect::Established);
        socket.write_all(b"frame").unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        let mut got = [0; 5];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"frame");

        let reserved = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        reserved.bind(&any.into()).unwrap();
        let nobody = reserved.local_addr().unwrap().as_socket().unwrap();
        let (mut socket, progress, _) = connect(nobody, speaks, &none).unwrap();
        assert_eq!(progress, Connect::Established, "not tested yet");
        assert_eq!(
            fault::of(&socket.write(b"frame").unwrap_err()),
            Fault::Refused
        );
    }

    /// Runs in a network namespace of its own, whose kernel has TCP Fast Open for all listeners. Whoever may not have one
    /// skips, visibly.
    fn with_fast_open(run: impl FnOnce() + Send + 'static) {
        let run = move || {
            if let Err(errno) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
                assert!(
                    std::env::var_os("TLB_REQUIRE_PROGRAMS").is_none(),
                    "no namespace: {errno}"
                );
                return println!("SKIPPED: no namespace may be made: {errno}");
            }
            // Of this thread, as is the namespace.
            let up = std::process::Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.unwrap().success());
            std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "1027").unwrap();
            run();
        };
        std::thread::spawn(run).join().unwrap();
    }

    const EARLY: Dial<'_> = Dial {
        from: None,
        session: SessionOptions {
            idle: None,
            user_timeout: None,
            congestion: None,
        },
        first: First {
            bytes: b"frame",
            in_syn: true,
        },
    };

    #[test]
    fn the_first_bytes_go_with_the_syn_once_the_peer_has_given_a_cookie() {
        with_fast_open(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            let ports = EphemeralPorts::read();
            let (socket, _, sent) = connect(to, EARLY, &ports).unwrap();
            assert_eq!(sent, 0, "it has to be asked first");
            assert_eq!(settle(&socket), Ok(Connect::Established));
            let (theirs, _) = listener.accept().unwrap();
            drop((socket, theirs));

            let (socket, _, sent) = connect(to, EARLY, &ports).unwrap();
            assert_eq!(sent, 5);
            let (mut theirs, _) = listener.accept().unwrap();
            let mut got = [0; 5];
            theirs.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"frame");
            assert_eq!(settle(&socket), Ok(Connect::Established));

            // The cookie is of the host: somebody who is not there still refuses.
            drop((socket, theirs, listener));
            let refused = match connect(to, EARLY, &ports) {
                Ok((socket, ..)) => settle(&socket).unwrap_err(),
                Err(fault) => fault,
            };
            assert_eq!(refused, Fault::Refused);
        });
    }

    #[test]
    fn a_host_without_fast_open_connects_as_ever() {
        with_fast_open(|| {
            std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "0").unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let to = listener.local_addr().unwrap();
            let (socket, _, sent) = connect(to, EARLY, &EphemeralPorts::read()).unwrap();
            assert_eq!(sent, 0);
            assert_eq!(settle(&socket), Ok(Connect::Established));
        });
    }

    #[test]
    fn only_a_port_that_the_kernel_hands_out_can_meet_itself() {
        let ports = EphemeralPorts(32_768..=60_999);
        let to = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let [own, other] = ["127.0.0.1", "127.0.0.2"].map(|ip| Some(ip.parse().unwrap()));
        assert!(ports.may_meet(to(32_768), None) && ports.may_meet(to(60_999), own));
        assert!(!ports.may_meet(to(32_767), None) && !ports.may_meet(to(61_000), None));
        assert!(!ports.may_meet(to(40_000), other));
        let EphemeralPorts(here) = EphemeralPorts::read();
        assert!(here.start() < here.end(), "{here:?}");
    }

    #[test]
    fn the_source_address_is_the_one_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let from = "127.0.0.77".parse().unwrap();
        let to = listener.local_addr().unwrap();
        let (socket, _) = dialled(to, from_there(from)).unwrap();
        assert_eq!(settle(&socket), Ok(Connect::Established));
        assert_eq!(listener.accept().unwrap().1.ip(), from);
    }

    #[test]
    fn a_source_address_that_is_not_ours_is_a_local_fault() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let from = "192.0.2.1".parse().unwrap();
        let to = listener.local_addr().unwrap();
        let fault = dialled(to, from_there(from)).unwrap_err();
        assert_eq!(fault, Fault::LocalPorts);
    }

    #[test]
    fn a_socket_connected_to_itself_counts_as_refused() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket
            .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
            .unwrap();
        let own = socket.local_addr().unwrap();
        socket.connect(&own).unwrap();
        assert_eq!(connected(&socket.into()), Err(Fault::Refused));
    }

    #[test]
    fn closing_in_order_ends_the_stream_and_a_reset_breaks_it() {
        let (ours, mut theirs) = pair();
        (&ours).write_all(b"all").unwrap();
        close(ours, Close::Fin);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"all");

        let (ours, mut theirs) = pair();
        close(ours, Close::Reset);
        assert_eq!(
            theirs.read(&mut [0]).unwrap_err().kind(),
            ErrorKind::ConnectionReset
        );
    }

    #[test]
    fn an_error_is_taken_once() {
        let (ours, theirs) = pair();
        assert_eq!(take_error(&ours), None);
        close(theirs, Close::Reset);
        let mut fds = [PollFd::new(ours.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::from(5000_u16)).unwrap();
        assert_eq!(take_error(&ours), Some(Fault::Reset));
        assert_eq!(take_error(&ours), None);
    }
}
