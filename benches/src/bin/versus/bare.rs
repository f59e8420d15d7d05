//! The least a relay can do: nothing is framed, picked, timed, limited or counted.
//!
//! It is no peer. What it costs is what the kernel costs, and a bound for whoever ends one connection and begins another:
//! so far can a relay be ahead of its peers, and no further. It copies, so that it bounds messages and short connections,
//! and no bulk.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

const BUFFER: usize = 64 * 1024;
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// One of the two connections of a session.
struct Conn {
    stream: TcpStream,
    /// Where to, once there are bytes.
    backend: SocketAddr,
    /// The descriptor of the other one.
    peer: Option<usize>,
    /// What it has not taken yet. Nothing is read for it meanwhile.
    held: Vec<u8>,
    /// Its stream has ended.
    ended: bool,
}

struct Bare {
    poll: Poll,
    /// By descriptor.
    conns: Vec<Option<Conn>>,
    buffer: Vec<u8>,
}

/// Relays from each of the addresses to the backend that it comes with, until it is killed.
pub(crate) fn main(routes: [(SocketAddr, SocketAddr); 2]) -> io::Result<()> {
    let mut bare = Bare {
        poll: Poll::new()?,
        conns: Vec::new(),
        buffer: vec![0; BUFFER],
    };
    let mut listeners = Vec::new();
    for (at, to) in routes {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), None)?;
        socket.set_reuse_address(true)?;
        // Accepted ones inherit it. Towards the backend nothing waits for an acknowledgement here.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&at.into())?;
        socket.listen(4096)?;
        let mut listener = TcpListener::from_std(socket.into());
        let token = Token(listener.as_raw_fd() as usize);
        let registry = bare.poll.registry();
        registry.register(&mut listener, token, Interest::READABLE)?;
        listeners.push((token, listener, to));
    }
    let mut events = Events::with_capacity(1024);
    loop {
        match bare.poll.poll(&mut events, None) {
            // A tracer has come or gone.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            let token = event.token();
            match listeners.iter().find(|it| it.0 == token) {
                Some((_, listener, to)) => bare.accept(listener, *to),
                None => bare.ready(token.0, event.is_read_closed()),
            }
        }
    }
}

impl Bare {
    fn accept(&mut self, listener: &TcpListener, backend: SocketAddr) {
        while let Ok((stream, _)) = listener.accept() {
            if let Some(fd) = self.add(stream, backend, None) {
                self.ready(fd, false);
            }
        }
    }

    /// Registers a connection; `None`: the kernel does not take it.
    fn add(
        &mut self,
        mut stream: TcpStream,
        backend: SocketAddr,
        peer: Option<usize>,
    ) -> Option<usize> {
        let fd = stream.as_raw_fd() as usize;
        let registry = self.poll.registry();
        registry.register(&mut stream, Token(fd), BOTH).ok()?;
        if self.conns.len() <= fd {
            self.conns.resize_with(fd + 1, || None);
        }
        self.conns[fd] = Some(Conn {
            stream,
            backend,
            peer,
            held: Vec::new(),
            ended: false,
        });
        Some(fd)
    }

    /// Does what can be done for a connection; `closed`: the end of its stream is there, too.
    fn ready(&mut self, fd: usize, closed: bool) {
        let Some(conn) = self.conns.get_mut(fd).and_then(Option::as_mut) else {
            return;
        };
        let peer = conn.peer;
        if !conn.held.is_empty() {
            match conn.stream.write(&conn.held) {
                Ok(wrote) => drop(conn.held.drain(..wrote)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return self.close(fd),
            }
            if let Some(peer) = peer.filter(|_| conn.held.is_empty()) {
                self.read(peer, true);
            }
        }
        self.read(fd, closed);
    }

    /// Passes on what a connection has; `more`: even if a read does not fill the buffer.
    fn read(&mut self, fd: usize, more: bool) {
        loop {
            let peer = self.conns[fd].as_ref().and_then(|conn| conn.peer);
            let behind = self.is_behind(peer);
            let Some(conn) = self.conns[fd].as_mut().filter(|it| !it.ended && !behind) else {
                return;
            };
            let backend = conn.backend;
            let read = match conn.stream.read(&mut self.buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.close(fd),
            };
            conn.ended = read == 0;
            let peer = match peer {
                Some(peer) => peer,
                None if read == 0 => return self.close(fd),
                None => match self.connect(fd, backend) {
                    Some(peer) => peer,
                    None => return self.close(fd),
                },
            };
            let passed = match read {
                0 => self.end(peer),
                _ => self.write(peer, read),
            };
            if !passed {
                return self.close(fd);
            }
            if read == 0 || (read < BUFFER && !more) {
                return;
            }
        }
    }

    fn is_behind(&self, peer: Option<usize>) -> bool {
        let peer = peer.and_then(|fd| self.conns.get(fd)?.as_ref());
        peer.is_some_and(|peer| !peer.held.is_empty())
    }

    fn connect(&mut self, client: usize, backend: SocketAddr) -> Option<usize> {
        let stream = TcpStream::connect(backend).ok()?;
        let fd = self.add(stream, backend, Some(client))?;
        if let Some(conn) = &mut self.conns[client] {
            conn.peer = Some(fd);
        }
        Some(fd)
    }

    /// Writes so much of the buffer, or keeps it; `false`: the connection is broken.
    fn write(&mut self, to: usize, bytes: usize) -> bool {
        let Some(conn) = &mut self.conns[to] else {
            return false;
        };
        let wrote = match conn.stream.write(&self.buffer[..bytes]) {
            Ok(wrote) => wrote,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return false,
        };
        conn.held.extend_from_slice(&self.buffer[wrote..bytes]);
        true
    }

    /// Passes the end of a stream on; `false`: there is nothing more to pass on, or nobody to take it.
    fn end(&mut self, to: usize) -> bool {
        let conn = self.conns[to].as_ref();
        conn.is_some_and(|conn| !conn.ended && conn.stream.shutdown(Shutdown::Write).is_ok())
    }

    /// Closes both connections of a session.
    fn close(&mut self, fd: usize) {
        let conn = self.conns[fd].take();
        if let Some(peer) = conn.and_then(|conn| conn.peer) {
            self.conns[peer] = None;
        }
    }
}
