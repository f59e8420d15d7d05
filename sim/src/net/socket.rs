//! One stream as a non-blocking socket with a kernel's receive buffer.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use tlb_engine::api::{Close, Fault};
use tlb_engine::drive::{Connect, Outcome, Readiness};
use tlb_engine::ids::SocketId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::TcpStream;

use super::chunk::Chunker;
use super::hub::{BROKEN, ENDED, Hub, QUIET, READABLE, Signal, WRITABLE, merged};

/// Bytes that a socket takes in before anybody reads them.
const WINDOW: usize = 64 * 1024;
/// Most bytes of one segment that are taken in at once.
const PIECE: usize = 4096;

/// Streams whose end is a reset although turmoil could only send a FIN, as (sender, receiver). One
/// per simulation.
#[derive(Clone, Debug, Default)]
pub struct Resets(Rc<RefCell<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    streams: BTreeSet<(SocketAddr, SocketAddr)>,
    /// Who has read the FIN already, and would never hear of it.
    readers: BTreeMap<(SocketAddr, SocketAddr), Waker>,
}

impl Resets {
    /// The FIN that `from` sends, or has sent, is a reset.
    pub fn note(&self, from: SocketAddr, to: SocketAddr) {
        let reader = {
            let mut noted = self.0.borrow_mut();
            noted.streams.insert((from, to));
            noted.readers.remove(&(from, to))
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Whether the FIN from `from` that `to` reads is a reset.
    pub fn is_noted(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.0.borrow().streams.contains(&(from, to))
    }

    /// Whether it is one; if not, `reader` is woken should it become one.
    fn watch(&self, from: SocketAddr, to: SocketAddr, reader: &Waker) -> bool {
        let mut noted = self.0.borrow_mut();
        let is_reset = noted.streams.contains(&(from, to));
        if !is_reset {
            noted.readers.insert((from, to), reader.clone());
        }
        is_reset
    }
}

pub(super) fn fault(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Fault::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Fault::Reset,
        _ => Fault::Other(error.raw_os_error().unwrap_or_default()),
    }
}

pub(super) type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

pub(super) enum State {
    Connecting(Connecting),
    Open(TcpStream),
    Failed(Fault),
}

/// How the peer's stream ends, behind the bytes that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
    /// A reset that was reported: as in a kernel, whoever reads after that gets a clean end.
    ResetTaken,
}

pub(super) struct Socket {
    pub(super) id: SocketId,
    state: State,
    hub: Arc<Hub>,
    resets: Resets,
    read: Waker,
    write: Waker,
    inbox: BytesMut,
    end: Option<End>,
    /// A FIN waits for room.
    owes_fin: bool,
    /// No event is to say that it is readable.
    muted: bool,
}

impl Socket {
    /// A socket whose first event tells what is there already.
    pub(super) fn new(id: SocketId, state: State, hub: &Arc<Hub>, resets: &Resets) -> Self {
        let mut socket = Self {
            id,
            state,
            hub: Arc::clone(hub),
            resets: resets.clone(),
            read: Waker::from(Arc::new(Signal::Read(id, Arc::clone(hub)))),
            write: Waker::from(Arc::new(Signal::Write(id, Arc::clone(hub)))),
            inbox: BytesMut::new(),
            end: None,
            owes_fin: false,
            muted: false,
        };
        if matches!(socket.state, State::Open(_)) {
            socket.pump();
            let readiness = socket.readiness();
            socket.hub.raise(id, merged(readiness, WRITABLE));
        }
        socket
    }

    /// Goes on with a connect, if there is one.
    pub(super) fn connected(&mut self) -> Result<Connect, Fault> {
        if let State::Connecting(connecting) = &mut self.state {
            let mut cx = Context::from_waker(&self.write);
            match connecting.as_mut().poll(&mut cx) {
                Poll::Pending => return Ok(Connect::InProgress),
                Poll::Ready(Ok(stream)) => {
                    self.state = State::Open(stream);
                    self.news();
                }
                Poll::Ready(Err(error)) => self.state = State::Failed(fault(&error)),
            }
        }
        match self.state {
            State::Failed(fault) => Err(fault),
            _ => Ok(Connect::Established),
        }
    }

    /// Takes in what has come, as a kernel would; says whether anything had. Unless the window is
    /// full or the stream has ended, the waker is armed afterwards.
    fn pump(&mut self) -> bool {
        let State::Open(stream) = &mut self.state else {
            return false;
        };
        let (local, peer) = ends(stream);
        if self.end == Some(End::Fin) && self.resets.is_noted(peer, local) {
            self.end = Some(End::Reset);
            return true;
        }
        let mut cx = Context::from_waker(&self.read);
        let mut has_come = false;
        while self.end.is_none() && self.inbox.len() < WINDOW {
            let mut piece = [0; PIECE];
            let mut buf = ReadBuf::new(&mut piece);
            match Pin::new(&mut *stream).poll_read(&mut cx, &mut buf) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                    let is_reset = self.resets.watch(peer, local, &self.read);
                    self.end = Some(if is_reset { End::Reset } else { End::Fin });
                }
                Poll::Ready(Ok(())) => self.inbox.extend_from_slice(buf.filled()),
                Poll::Ready(Err(_)) => self.end = Some(End::Reset),
            }
            has_come = true;
        }
        has_come
    }

    fn is_reset(&self) -> bool {
        matches!(self.end, Some(End::Reset | End::ResetTaken))
    }

    /// An event for what has come, if anything has.
    fn news(&mut self) {
        if self.pump() {
            let readiness = self.readiness();
            self.hub.raise(self.id, readiness);
        }
    }

    /// What an event queue would say now.
    fn readiness(&self) -> Readiness {
        match self.end {
            Some(End::Reset) => BROKEN,
            Some(_) => ENDED,
            None if self.inbox.is_empty() => QUIET,
            None => READABLE,
        }
    }

    /// Completes what a waker told: it knows that there is something, not what.
    pub(super) fn look(&mut self, hint: Readiness) -> Readiness {
        let was_connecting = matches!(self.state, State::Connecting(_));
        match self.connected() {
            Err(_) => BROKEN,
            // The event that ends a connect tells no more than that.
            Ok(_) if was_connecting => hint,
            Ok(_) => {
                self.send_fin();
                self.pump();
                let seen = if hint.readable {
                    self.readiness()
                } else {
                    QUIET
                };
                let all = merged(hint, seen);
                if self.muted && !all.error {
                    return Readiness {
                        writable: all.writable,
                        ..QUIET
                    };
                }
                all
            }
        }
    }

    /// Whether events are to say that it is readable.
    pub(super) fn hear(&mut self, on: bool) {
        self.muted = !on;
        self.pump();
        let readiness = self.readiness();
        if on && readiness != QUIET {
            self.hub.raise(self.id, readiness);
        }
    }

    /// What keeps a call from being made, if anything does.
    fn obstacle(&mut self) -> Option<Outcome> {
        match self.connected() {
            Ok(Connect::Established) => None,
            Ok(Connect::InProgress) => Some(Outcome::WouldBlock),
            Err(fault) => Some(Outcome::Broken(fault)),
        }
    }

    pub(super) fn read(&mut self, buf: &mut [u8], chunks: &mut Chunker) -> Outcome {
        if let Some(outcome) = self.obstacle() {
            return outcome;
        }
        self.pump();
        if self.inbox.is_empty() {
            return match self.end {
                None => Outcome::WouldBlock,
                Some(End::Fin | End::ResetTaken) => Outcome::Eof,
                Some(End::Reset) => {
                    self.end = Some(End::ResetTaken);
                    Outcome::Broken(Fault::Reset)
                }
            };
        }
        let bytes = chunks.cut(self.inbox.len().min(buf.len()));
        self.inbox.copy_to_slice(&mut buf[..bytes]);
        let short = bytes < buf.len();
        if short && !self.inbox.is_empty() {
            // As if the rest had come a moment later.
            self.hub.raise(self.id, self.readiness());
        }
        self.news();
        Outcome::Moved { bytes, short }
    }

    pub(super) fn write(&mut self, bytes: &[u8], chunks: &mut Chunker) -> Outcome {
        if let Some(outcome) = self.obstacle() {
            return outcome;
        }
        self.pump();
        if self.is_reset() {
            self.end = Some(End::ResetTaken);
            return Outcome::Broken(Fault::Reset);
        }
        let write = self.write.clone();
        let mut cx = Context::from_waker(&write);
        let mut sent = 0;
        for _ in 0..chunks.segments() {
            let cut = chunks.cut(bytes.len() - sent);
            let result = Pin::new(self.stream()).poll_write(&mut cx, &bytes[sent..sent + cut]);
            match result {
                Poll::Ready(Ok(taken)) => sent += taken,
                Poll::Ready(Err(error)) if sent == 0 => {
                    self.end = Some(End::ResetTaken);
                    return Outcome::Broken(fault(&error));
                }
                _ => break,
            }
            if sent == bytes.len() {
                break;
            }
        }
        if sent == 0 {
            return Outcome::WouldBlock;
        }
        let short = sent < bytes.len();
        if short && self.has_room() {
            // As if the peer had made room a moment later.
            self.hub.raise(self.id, WRITABLE);
        }
        Outcome::Moved { bytes: sent, short }
    }

    fn stream(&mut self) -> &mut TcpStream {
        match &mut self.state {
            State::Open(stream) => stream,
            _ => unreachable!("{:?} is not connected", self.id),
        }
    }

    /// Whether a segment may be sent; if not, the waker is armed.
    fn has_room(&mut self) -> bool {
        let write = self.write.clone();
        let mut cx = Context::from_waker(&write);
        pin!(self.stream().writable()).poll(&mut cx).is_ready()
    }

    /// Whether the peer's stream has ended or broken, and nothing is left to read.
    pub(super) fn has_ended(&mut self) -> bool {
        self.pump();
        self.end.is_some() && self.inbox.is_empty()
    }

    /// Whether bytes came that were not read.
    pub(super) fn has_unread(&mut self) -> bool {
        self.pump();
        !self.inbox.is_empty()
    }

    pub(super) fn take_error(&mut self) -> Option<Fault> {
        if let Err(fault) = self.connected() {
            return Some(fault);
        }
        self.pump();
        if self.end != Some(End::Reset) {
            return None;
        }
        self.end = Some(End::ResetTaken);
        Some(Fault::Reset)
    }

    pub(super) fn shutdown(&mut self) -> Result<(), Fault> {
        assert!(
            matches!(self.state, State::Open(_)),
            "{:?}: a FIN without a connection",
            self.id
        );
        self.pump();
        if self.is_reset() {
            return Err(Fault::Reset);
        }
        self.owes_fin = true;
        self.send_fin();
        Ok(())
    }

    /// Sends a FIN that is owed, if there is room for it.
    ///
    /// turmoil counts no credit for a FIN, and never delivers one that finds the peer's window
    /// full.
    fn send_fin(&mut self) {
        if self.owes_fin && self.has_room() {
            let write = self.write.clone();
            let mut cx = Context::from_waker(&write);
            // Where the peer has reset the connection meanwhile, no FIN is needed.
            let _ = Pin::new(self.stream()).poll_shutdown(&mut cx);
            self.owes_fin = false;
        }
    }

    /// Closes it. What comes back has to linger until [`Socket::has_gone`].
    pub(super) fn close(mut self, how: Close) -> Option<Self> {
        // A connect that was answered since the last look is a stream, which has to end as one.
        if self.connected() != Ok(Connect::Established) {
            return None;
        }
        self.pump();
        if how == Close::Reset || !self.inbox.is_empty() {
            let (local, peer) = ends(self.stream());
            self.resets.note(local, peer);
        }
        (!self.has_gone()).then_some(self)
    }

    /// Whether the stream's end can be sent now, and its sender dropped.
    pub(super) fn has_gone(&mut self) -> bool {
        self.pump();
        self.has_room() || self.is_reset()
    }
}

fn ends(stream: &TcpStream) -> (SocketAddr, SocketAddr) {
    let known = "a simulated stream knows its addresses";
    (
        stream.local_addr().expect(known),
        stream.peer_addr().expect(known),
    )
}
