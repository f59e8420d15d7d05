//! One stream as a non-blocking socket.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tlb_engine::api::{Close, Fault};
use tlb_engine::drive::{Connect, Outcome, Readiness};
use tlb_engine::ids::SocketId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use super::chunk::Chunker;
use super::hub::{BROKEN, ENDED, Hub, QUIET, READABLE, Signal, WRITABLE};

/// Streams whose end is a reset although turmoil could only send a FIN, as (sender, receiver). One per simulation.
#[derive(Clone, Debug, Default)]
pub struct Resets(Rc<RefCell<BTreeSet<(SocketAddr, SocketAddr)>>>);

impl Resets {
    /// The FIN that `from` sends, or has sent and `to` has not read, is a reset.
    pub fn note(&self, from: SocketAddr, to: SocketAddr) {
        self.0.borrow_mut().insert((from, to));
    }

    /// Whether the FIN from `from` that `to` reads is a reset.
    pub fn is_noted(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.0.borrow().contains(&(from, to))
    }
}

fn fault(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Fault::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Fault::Reset,
        _ => Fault::Other(error.raw_os_error().unwrap_or_default()),
    }
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

pub(super) enum State {
    Connecting(Connecting),
    Open(TcpStream),
    Failed(Fault),
}

pub(super) struct Socket {
    pub(super) id: SocketId,
    state: State,
    hub: Arc<Hub>,
    resets: Resets,
    read: Waker,
    write: Waker,
    /// Whether the reset was reported: as in a kernel, a read after that returns a clean end.
    is_reset_taken: bool,
}

impl Socket {
    pub(super) fn new(id: SocketId, state: State, hub: &Arc<Hub>, resets: &Resets) -> Self {
        Self {
            id,
            state,
            hub: Arc::clone(hub),
            resets: resets.clone(),
            read: Waker::from(Arc::new(Signal::Read(id, Arc::clone(hub)))),
            write: Waker::from(Arc::new(Signal::Write(id, Arc::clone(hub)))),
            is_reset_taken: false,
        }
    }

    /// Goes on with a connect, if there is one.
    pub(super) fn connected(&mut self) -> Result<Connect, Fault> {
        if let State::Connecting(connecting) = &mut self.state {
            match connecting
                .as_mut()
                .poll(&mut Context::from_waker(&self.write))
            {
                Poll::Pending => return Ok(Connect::InProgress),
                Poll::Ready(Ok(stream)) => {
                    self.state = State::Open(stream);
                    self.arm(true);
                }
                Poll::Ready(Err(error)) => self.state = State::Failed(fault(&error)),
            }
        }
        match self.state {
            State::Failed(fault) => Err(fault),
            _ => Ok(Connect::Established),
        }
    }

    /// What is next to read: `None` until something comes, `Ok(0)` at the end.
    fn peek(&mut self) -> Option<io::Result<usize>> {
        let State::Open(stream) = &mut self.state else {
            return None;
        };
        let mut byte = [0];
        let mut cx = Context::from_waker(&self.read);
        match stream.poll_peek(&mut cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Pending => None,
            Poll::Ready(Ok(0)) if is_noted(&self.resets, stream) => Some(Err(reset())),
            Poll::Ready(result) => Some(result),
        }
    }

    fn readable(&mut self) -> Readiness {
        match self.peek() {
            None => QUIET,
            Some(Ok(0)) => ENDED,
            Some(Ok(_)) => READABLE,
            Some(Err(_)) => BROKEN,
        }
    }

    /// Sees to it that an event comes for whatever comes next; for bytes that are there only if `short`, that is, if
    /// the reader was told that there are none.
    pub(super) fn arm(&mut self, short: bool) {
        let readiness = self.readable();
        if readiness.read_closed || (short && readiness.readable) {
            self.hub.raise(self.id, readiness);
        }
    }

    /// Completes what a waker told: it knows that there is something, not what.
    pub(super) fn look(&mut self, hint: &mut Readiness) {
        let was_connecting = matches!(self.state, State::Connecting(_));
        let seen = match self.connected() {
            Err(_) => BROKEN,
            // The event that ends a connect tells no more than that.
            Ok(_) if was_connecting || !hint.readable => QUIET,
            Ok(_) => self.readable(),
        };
        hint.read_closed |= seen.read_closed;
        hint.error |= seen.error;
        hint.writable |= seen.writable;
    }

    pub(super) fn take_error(&mut self) -> Option<Fault> {
        match self.connected() {
            Err(fault) => Some(fault),
            Ok(_) if self.is_reset_taken => None,
            Ok(_) => {
                let error = self.peek()?.err()?;
                self.is_reset_taken = true;
                Some(fault(&error))
            }
        }
    }

    pub(super) fn shutdown(&mut self) -> Result<(), Fault> {
        let State::Open(stream) = &mut self.state else {
            panic!("{:?}: a FIN without a connection", self.id);
        };
        let mut cx = Context::from_waker(&self.write);
        match Pin::new(stream).poll_shutdown(&mut cx) {
            Poll::Ready(result) => result.map_err(|error| fault(&error)),
            Poll::Pending => unreachable!("turmoil sends a FIN at once"),
        }
    }

    pub(super) fn close(mut self, how: Close) {
        // A connect that was answered since the last look is a stream, which has to end as one.
        let _ = self.connected();
        if let (State::Open(stream), Close::Reset) = (&self.state, how) {
            let (local, peer) = ends(stream);
            self.resets.note(local, peer);
        }
    }

    pub(super) fn read(&mut self, buf: &mut [u8], chunks: &mut Chunker) -> Outcome {
        match self.connected() {
            Ok(Connect::Established) => (),
            Ok(Connect::InProgress) => return Outcome::WouldBlock,
            Err(fault) => return Outcome::Broken(fault),
        }
        let (want, mut segments) = (chunks.cut(buf.len()), chunks.segments());
        let mut got = 0;
        let end = loop {
            let State::Open(stream) = &mut self.state else {
                unreachable!("a socket that is connected stays open until it is closed")
            };
            let mut buf = ReadBuf::new(&mut buf[got..want]);
            let mut cx = Context::from_waker(&self.read);
            match Pin::new(stream).poll_read(&mut cx, &mut buf) {
                Poll::Pending => break Outcome::WouldBlock,
                Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                    break self.end();
                }
                Poll::Ready(Ok(())) => got += buf.filled().len(),
                Poll::Ready(Err(_)) => break self.end_by_reset(got > 0),
            }
            segments -= 1;
            if got == want || segments == 0 {
                break Outcome::WouldBlock;
            }
        };
        if got == 0 {
            return end;
        }
        let short = got < buf.len();
        self.arm(short);
        Outcome::Moved { bytes: got, short }
    }

    /// The stream ended by a FIN, or by what stands for a reset.
    fn end(&mut self) -> Outcome {
        let State::Open(stream) = &self.state else {
            return Outcome::Eof;
        };
        if is_noted(&self.resets, stream) {
            return self.end_by_reset(false);
        }
        Outcome::Eof
    }

    /// A kernel reports a reset once; whoever asks again reads a clean end. Bytes go first.
    fn end_by_reset(&mut self, has_bytes: bool) -> Outcome {
        if has_bytes {
            return Outcome::WouldBlock;
        }
        if std::mem::replace(&mut self.is_reset_taken, true) {
            return Outcome::Eof;
        }
        Outcome::Broken(Fault::Reset)
    }

    pub(super) fn write(&mut self, bytes: &[u8], chunks: &mut Chunker) -> Outcome {
        match self.connected() {
            Ok(Connect::Established) => (),
            Ok(Connect::InProgress) => return Outcome::WouldBlock,
            Err(fault) => return Outcome::Broken(fault),
        }
        let State::Open(stream) = &mut self.state else {
            unreachable!("a socket that is connected stays open until it is closed")
        };
        let mut sent = 0;
        let mut is_full = false;
        for _ in 0..chunks.segments() {
            let cut = chunks.cut(bytes.len() - sent);
            let mut cx = Context::from_waker(&self.write);
            match Pin::new(&mut *stream).poll_write(&mut cx, &bytes[sent..sent + cut]) {
                Poll::Pending => is_full = true,
                Poll::Ready(Ok(taken)) => sent += taken,
                Poll::Ready(Err(_)) if sent > 0 => (),
                Poll::Ready(Err(error)) => {
                    self.is_reset_taken = true;
                    return Outcome::Broken(fault(&error));
                }
            }
            if is_full || sent == bytes.len() {
                break;
            }
        }
        if sent == 0 {
            return Outcome::WouldBlock;
        }
        let short = sent < bytes.len();
        if short && !is_full {
            let mut cx = Context::from_waker(&self.write);
            if pin!(stream.writable()).poll(&mut cx).is_ready() {
                self.hub.raise(self.id, WRITABLE);
            }
        }
        Outcome::Moved { bytes: sent, short }
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

fn ends(stream: &TcpStream) -> (SocketAddr, SocketAddr) {
    let known = "a simulated stream knows its addresses";
    (
        stream.local_addr().expect(known),
        stream.peer_addr().expect(known),
    )
}

fn is_noted(resets: &Resets, stream: &TcpStream) -> bool {
    let (local, peer) = ends(stream);
    resets.is_noted(peer, local)
}
