//! Backends: listening sockets on `127.0.0.11` and up, driven by the test itself or served by
//! threads.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{PATIENCE, peers};

/// How many backends the deployment has: `127.0.0.11` to `127.0.0.26`.
pub(crate) const BACKENDS: usize = 16;

/// How many connections may wait for a backend.
const BACKLOG: i32 = 1024;

/// The address of backend `index`, on a port that the kernel chooses.
fn wildcard(index: usize) -> SocketAddr {
    let last = u8::try_from(11 + index).expect("at most 244 backends");
    SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0).into()
}

/// An address that nobody else can take, where nobody listens: connections to it are refused until
/// [`Reserved::listen`].
#[derive(Debug)]
pub(crate) struct Reserved {
    socket: Socket,
    address: SocketAddr,
}

impl Reserved {
    /// On backend `index`'s address.
    pub(crate) fn new(index: usize) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket
            .bind(&SockAddr::from(wildcard(index)))
            .expect("a free port");
        let address = socket.local_addr().ok().and_then(|bound| bound.as_socket());
        Self {
            socket,
            address: address.expect("the bound address"),
        }
    }

    /// Where it is.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections are taken, up to `backlog` of them until they are accepted.
    pub(crate) fn listen(self, backlog: i32) -> TcpListener {
        self.socket.listen(backlog).expect("listen");
        self.socket.into()
    }
}

/// A backend whose queue is full, so that its kernel drops every further SYN: connects to it time
/// out.
#[derive(Debug)]
pub(crate) struct Mute {
    address: SocketAddr,
    _listener: TcpListener,
    _fillers: Vec<TcpStream>,
}

impl Mute {
    /// On backend `index`'s address.
    pub(crate) fn new(index: usize) -> Self {
        let reserved = Reserved::new(index);
        let address = reserved.address();
        let listener = reserved.listen(0);
        let mut fillers = Vec::new();
        loop {
            match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
                Ok(stream) => fillers.push(stream),
                Err(error) if error.kind() == ErrorKind::TimedOut => break,
                Err(error) => panic!("cannot fill the queue of {address}: {error}"),
            }
            assert!(fillers.len() < 16, "the queue of {address} never fills");
        }
        Self {
            address,
            _listener: listener,
            _fillers: fillers,
        }
    }

    /// Where it is.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Listening backends that the test drives itself.
#[derive(Debug)]
pub(crate) struct Farm {
    listeners: Vec<TcpListener>,
}

impl Farm {
    /// `count` backends.
    pub(crate) fn new(count: usize) -> Self {
        Self::of((0..count).map(|index| Reserved::new(index).listen(BACKLOG)))
    }

    /// These listeners, as backends 0 and up.
    pub(crate) fn of(listeners: impl IntoIterator<Item = TcpListener>) -> Self {
        let listeners: Vec<TcpListener> = listeners.into_iter().collect();
        for listener in &listeners {
            listener.set_nonblocking(true).expect("a socket");
        }
        Self { listeners }
    }

    /// Where the backends are.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let address = |listener: &TcpListener| listener.local_addr().expect("a bound socket");
        self.listeners.iter().map(address).collect()
    }

    /// The next connection, and which backend it came to.
    ///
    /// # Panics
    ///
    /// When none comes.
    #[track_caller]
    pub(crate) fn accept(&self) -> (usize, TcpStream) {
        match self.try_accept(PATIENCE) {
            Some(connection) => connection,
            None => panic!("no connection came to any backend within {PATIENCE:?}"),
        }
    }

    /// The next connection within `patience`, and which backend it came to.
    pub(crate) fn try_accept(&self, patience: Duration) -> Option<(usize, TcpStream)> {
        let deadline = Instant::now() + patience;
        loop {
            for (index, listener) in self.listeners.iter().enumerate() {
                match listener.accept() {
                    Ok((stream, _)) => {
                        peers::prepare(&stream).expect("options of a fresh socket");
                        return Some((index, stream));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => panic!("accept: {error}"),
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut waiting: Vec<PollFd<'_>> = self
                .listeners
                .iter()
                .map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN))
                .collect();
            // Interrupted or not, the loop looks again.
            let _ = poll(&mut waiting, timeout);
        }
    }

    /// Lets a thread for each connection run `script` with the backend's index.
    pub(crate) fn serve(
        self,
        script: impl Fn(usize, &TcpStream) + Send + Sync + 'static,
    ) -> Serving {
        let addresses = self.addresses();
        let stop = Arc::new(AtomicBool::new(false));
        let script = Arc::new(script);
        let stopping = Arc::clone(&stop);
        let acceptor = thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                let Some((index, stream)) = self.try_accept(Duration::from_millis(20)) else {
                    continue;
                };
                let script = Arc::clone(&script);
                thread::spawn(move || script(index, &stream));
            }
        });
        Serving {
            addresses,
            stop,
            acceptor: Some(acceptor),
        }
    }
}

/// Backends served by threads, until it is dropped.
#[derive(Debug)]
pub(crate) struct Serving {
    addresses: Vec<SocketAddr>,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Serving {
    /// Where the backends are.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            // A panic in it has been printed, and the clients have noticed.
            let _ = acceptor.join();
        }
    }
}

/// A script: says which backend it is in one byte, then sends back what it gets. Ends with the
/// stream; errors end it too, since the client is the one who judges.
pub(crate) fn greet_and_echo(index: usize, stream: &TcpStream) {
    let (mut reader, mut writer) = (stream, stream);
    let mut buffer = vec![0; 64 * 1024];
    let name = u8::try_from(index).expect("at most 256 backends");
    if writer.write_all(&[name]).is_err() {
        return;
    }
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        if writer.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}
