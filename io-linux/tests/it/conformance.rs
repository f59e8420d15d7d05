//! The table of [`tlb_sim::conformance`] on the real kernel, for each relay.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use socket2::{Domain, SockRef, Socket, Type};
use tlb_engine::ids::Side;
use tlb_sim::conformance::{
    Act, Backend, CONNECT_TIMEOUT_MS, GARBAGE, PREREAD_LIMIT, ROWS, Reader, Row, byte,
};

use crate::support::farm::{Mute, Reserved};
use crate::support::setup::Setup;
use crate::support::tlb::{Tlb, field};
use crate::support::{PATIENCE, eventually, peers, proc};

#[test]
fn the_table_holds_with_a_copying_relay() {
    run_all("copy");
}

#[test]
fn the_table_holds_with_a_splicing_relay() {
    run_all("splice");
}

#[test]
fn the_table_holds_with_a_relay_that_chooses() {
    run_all("auto");
}

/// All rows, and all that is wrong with them.
fn run_all(relay: &str) {
    let rows = ROWS.iter().filter(|row| row.not_in_kernel.is_none());
    let wrong: Vec<_> = rows
        .filter_map(|row| Some(format!("{}: {}", row.name, run(row, relay).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{relay}:\n{}", wrong.join("\n"));
}

fn run(row: &Row, relay: &str) -> Result<(), String> {
    let (reserved, mute);
    let (address, listener) = match row.backend {
        Backend::Listens => {
            reserved = Reserved::new(0);
            (reserved.address(), Some(reserved.listen(16)))
        }
        Backend::Refuses => {
            reserved = Reserved::new(0);
            (reserved.address(), None)
        }
        Backend::Hangs => {
            mute = Mute::new(0);
            (mute.address(), None)
        }
    };
    let setup = Setup::new(&[address])
        .top(&format!("relay = \"{relay}\""))
        .listener(&format!("preread-limit = \"{PREREAD_LIMIT}B\""))
        .pool(&format!("connect-timeout = \"{CONNECT_TIMEOUT_MS}ms\""))
        .pool("retries = 0")
        .unpack(
            r#"kind = "length-field"
magic = "2a"
length = { offset = 1, width = 2, endian = "big" }
key = { offset = 3, length = 4 }"#,
        );
    let tlb = Tlb::start(&setup);
    let mut stage = Stage {
        entry: tlb.address(),
        listener,
        peers: [None, None],
    };
    for (number, (side, act)) in row.steps.iter().enumerate() {
        let done = stage.perform(*side, *act);
        done.map_err(|what| format!("step {number}, the {side}'s {act:?}: {what}"))?;
    }
    let line = tlb
        .log()
        .await_line("the session's end", |line| line.contains("session closed"));
    match field(&line, "reason") {
        Some(reason) if row.reasons.contains(&reason) => Ok(()),
        reason => Err(format!("it ends for {reason:?}, not {:?}", row.reasons)),
    }
}

/// Client, backend, and the ways in.
struct Stage {
    entry: SocketAddr,
    listener: Option<TcpListener>,
    peers: [Option<Peer>; 2],
}

impl Stage {
    fn perform(&mut self, side: Side, act: Act) -> Result<(), String> {
        let stream = match act {
            Act::Connect => peers::try_connect(self.entry),
            Act::ConnectSmall => connect_small(self.entry),
            Act::Accept => self.accept(),
            _ => {
                let peer = &mut self.peers[side as usize];
                return match act {
                    Act::Close => peer.take().ok_or("gone")?.leave(false),
                    Act::Reset => peer.take().ok_or("gone")?.leave(true),
                    act => peer.as_mut().ok_or("gone")?.perform(act),
                };
            }
        };
        let stream = stream.map_err(|error| error.to_string())?;
        let peer = Peer::new(stream, side).map_err(|error| error.to_string())?;
        self.peers[side as usize] = Some(peer);
        Ok(())
    }

    fn accept(&self) -> io::Result<TcpStream> {
        let listener = self.listener.as_ref().ok_or(ErrorKind::NotConnected)?;
        listener.set_nonblocking(true)?;
        let stream = eventually("tlb connects to the backend", || match listener.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            accepted => Some(accepted),
        });
        let (stream, _) = stream?;
        peers::prepare(&stream)?;
        Ok(stream)
    }
}

fn connect_small(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(1)?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let stream = socket.into();
    peers::prepare(&stream)?;
    Ok(stream)
}

/// A socket of the test's own, and the thread that writes to it.
struct Peer {
    stream: TcpStream,
    reader: Reader,
    jobs: Sender<Act>,
    /// An answer for each job.
    done: Receiver<io::Result<()>>,
    under_way: usize,
    /// It has written something, which may not be acknowledged yet.
    owes: bool,
}

impl Peer {
    fn new(stream: TcpStream, side: Side) -> io::Result<Self> {
        let (jobs, todo) = mpsc::channel();
        let (tell, done) = mpsc::channel();
        let mut writer = Writer {
            stream: stream.try_clone()?,
            side,
            at: 0,
        };
        thread::spawn(move || {
            for job in todo {
                if tell.send(writer.perform(job)).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            stream,
            reader: Reader::new(side.other()),
            jobs,
            done,
            under_way: 0,
            owes: false,
        })
    }

    fn perform(&mut self, act: Act) -> Result<(), String> {
        match act {
            Act::Expect(bytes, piece) => self.expect(bytes, piece),
            Act::Await => match self.stream.peek(&mut [0]) {
                Ok(1) => Ok(()),
                other => Err(format!("{other:?}")),
            },
            Act::Eof => match self.read() {
                Ok(0) => Ok(()),
                other => Err(format!("{other:?}")),
            },
            Act::Cut => match self.read() {
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
                other => Err(format!("{other:?}")),
            },
            Act::End => loop {
                match self.read() {
                    Ok(0) => return Ok(()),
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
                    Err(error) => return Err(error.to_string()),
                    Ok(_) => {}
                }
            },
            job => {
                self.under_way += 1;
                self.owes |= job != Act::Fin;
                self.jobs
                    .send(job)
                    .map_err(|_| "the writer is gone".to_owned())
            }
        }
    }

    /// Reads a byte, or how the stream ends.
    fn read(&mut self) -> io::Result<usize> {
        self.stream.read(&mut [0])
    }

    fn expect(&mut self, bytes: usize, piece: usize) -> Result<(), String> {
        let mut buf = vec![0; piece.min(bytes)];
        let mut left = bytes;
        while left > 0 {
            let most = left.min(buf.len());
            match self.stream.read(&mut buf[..most]) {
                Ok(0) => return Err(format!("it ends, {left} bytes too early")),
                Ok(got) => {
                    self.reader.take(&buf[..got])?;
                    left -= got;
                }
                Err(error) => return Err(format!("{error}, {left} bytes too early")),
            }
        }
        Ok(())
    }

    /// Closes the socket when everything is written and acknowledged.
    fn leave(mut self, by_reset: bool) -> Result<(), String> {
        while self.under_way > 0 {
            let done = self.done.recv_timeout(PATIENCE);
            done.map_err(|_| "it does not get rid of its bytes")?
                .map_err(|error| error.to_string())?;
            self.under_way -= 1;
        }
        if self.owes {
            eventually("everything is acknowledged", || {
                (proc::unacknowledged(&self.stream) == 0).then_some(())
            });
        }
        // The writer's thread has a duplicate: closing means both.
        let Self {
            stream, jobs, done, ..
        } = self;
        drop(jobs);
        while done.recv().is_ok() {}
        if by_reset {
            peers::reset(stream);
        }
        Ok(())
    }
}

/// Writes in the background.
struct Writer {
    stream: TcpStream,
    side: Side,
    /// Bytes of the side's stream so far.
    at: usize,
}

impl Writer {
    fn perform(&mut self, job: Act) -> io::Result<()> {
        match job {
            Act::Send(bytes, piece) => {
                for start in (0..bytes).step_by(piece) {
                    let piece = self.next(piece.min(bytes - start));
                    self.stream.write_all(&piece)?;
                }
                Ok(())
            }
            Act::Garbage(bytes) => self.stream.write_all(&vec![GARBAGE; bytes]),
            Act::Urgent => {
                let piece = self.next(1);
                SockRef::from(&self.stream).send_out_of_band(&piece)?;
                Ok(())
            }
            _ => self.stream.shutdown(Shutdown::Write),
        }
    }

    fn next(&mut self, bytes: usize) -> Vec<u8> {
        let at = self.at;
        self.at += bytes;
        (at..self.at).map(|at| byte(self.side, at)).collect()
    }
}
