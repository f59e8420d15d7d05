//! Backends: one process that sends back what it gets, or throws it away.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const ECHO: Token = Token(0);
const SINK: Token = Token(1);
const BUFFER: usize = 256 * 1024;
/// Most reads of a connection before the others have their turn.
const READS: usize = 4;

struct Conn {
    stream: TcpStream,
    echoes: bool,
    /// Read, and not written yet.
    held: Vec<u8>,
    ended: bool,
}

/// Serves until it is killed: echoes at one address, discards at the other. Says `ready` when it
/// listens.
pub(crate) fn main(echo: SocketAddr, sink: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listeners = [TcpListener::bind(echo)?, TcpListener::bind(sink)?];
    for (listener, token) in listeners.iter_mut().zip([ECHO, SINK]) {
        poll.registry()
            .register(listener, token, Interest::READABLE)?;
    }
    println!("ready");
    let mut conns: HashMap<usize, Conn> = HashMap::new();
    let mut next = 2;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; BUFFER];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            let token = event.token();
            if token == ECHO || token == SINK {
                while let Ok((mut stream, _)) = listeners[token.0].accept() {
                    stream.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry()
                        .register(&mut stream, Token(next), interest)?;
                    let conn = Conn {
                        stream,
                        echoes: token == ECHO,
                        held: Vec::new(),
                        ended: false,
                    };
                    conns.insert(next, conn);
                    next += 1;
                }
                continue;
            }
            let Some(conn) = conns.get_mut(&token.0) else {
                continue;
            };
            match conn.run(&mut buffer) {
                Ok(false) => {}
                // An event will tell when there is none other.
                Ok(true) => {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry()
                        .reregister(&mut conn.stream, token, interest)?;
                }
                Err(_) => drop(conns.remove(&token.0)),
            }
        }
    }
}

impl Conn {
    /// Does what it can in a turn, and says whether there may be more to do; an error is the end.
    fn run(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..READS {
            while !self.held.is_empty() {
                match self.stream.write(&self.held) {
                    Ok(wrote) => drop(self.held.drain(..wrote)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
            if self.ended {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            match self.stream.read(buffer) {
                Ok(0) => self.ended = true,
                Ok(read) if self.echoes => match self.stream.write(&buffer[..read]) {
                    Ok(wrote) => self.held.extend_from_slice(&buffer[wrote..read]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.held.extend_from_slice(&buffer[..read]);
                    }
                    Err(error) => return Err(error),
                },
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
