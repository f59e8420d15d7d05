//! Two one-way machines that share two sockets: half-close, faults, back-pressure, and what is to be done next.
//!
//! A [`Duplex`] decides, a driver executes: it asks [`Duplex::next_op`] for one kernel call, makes it, and says what
//! came of it. Nothing but the outcome of a call changes what is known about a socket; what the event queue says
//! ([`Duplex::ready`]) only makes calls worth trying.
//!
//! ```text
//!             fill                     drain
//!   source ─────────▶ store (bytes) ─────────▶ destination         one Half for each direction
//!     Open ── source ended, store empty ──▶ shutdown(destination) ──▶ Shut
//! ```
//!
//! **Faults belong to sockets.** A reset is noticed by one direction and concerns both, and the kernel tells it only
//! once: the call that hears of it consumes it, and the next read returns a clean end of stream. So the fault is
//! kept with the socket, and an end of stream read from a broken socket is never passed on as a FIN.
//! What the broken peer had sent before still comes out of its socket; it is read to the end and written to the
//! other side, and only when the other side's kernel has acknowledged it all is that side reset: a reset destroys
//! what a peer has not read.

mod away;
mod ending;
mod half;
mod rest;

use core::num::NonZeroU8;

use crate::api::{Close, Fault, Report, Standing};
use crate::drive::{Mode, Outcome, Readiness, Via};
use crate::ids::{Dir, Side};
use away::Away;
use half::Half;
use rest::Ear;

/// One kernel call to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Move bytes from a direction's source into its store; answer with [`Duplex::filled`].
    Fill(Dir, Via),
    /// Move bytes from a direction's store to its destination; answer with [`Duplex::drained`].
    Drain(Dir),
    /// Send a FIN on this side; answer with [`Duplex::shut`].
    Shutdown(Side),
    /// Take the socket's pending error; answer with [`Duplex::took_error`].
    TakeError(Side),
    /// Ask how much the peer's kernel has not acknowledged; answer with [`Duplex::unacknowledged`].
    Unacknowledged(Side),
    /// Ask whether the client has sent a byte that nobody has read; answer with [`Duplex::waiting`].
    Waiting,
    /// Have no more events that say that this side is readable; answer with [`Duplex::switched`].
    Mute(Side),
    /// Have them again, and one for what is there already; answer with [`Duplex::switched`].
    Listen(Side),
    /// Have the kernel forward what either peer sends from now on; answer with [`Duplex::handed_off`].
    HandOff,
    /// Ask how the kernel gets on with it; answer with [`Duplex::flowed`].
    Flow,
}

/// What is known about one socket.
#[derive(Clone, Copy, Debug, Default)]
struct End {
    /// A read may bring something.
    readable: bool,
    /// A write may take something.
    writable: bool,
    /// The last event announced an end or urgent data behind the bytes that are there: a short read then proves
    /// nothing, as no further edge will come.
    more: bool,
    /// Urgent data may be near, at which a splice stops for good.
    urgent: bool,
    /// An error was hinted at and nobody has looked yet.
    suspect: bool,
    /// Everything the peer will ever send has been read.
    finished: bool,
    /// Everything written was acknowledged when last asked, which was after the last write.
    acknowledged: bool,
    /// What is written to it goes out by a timer.
    paced: bool,
    /// How it broke. Sticky.
    fault: Option<Fault>,
}

/// The relay of one session, as decisions.
#[derive(Clone, Debug)]
pub struct Duplex {
    ends: [End; 2],
    halves: [Half; 2],
    mode: Mode,
    /// As a power of two, what a source brings at a time if it is to rest.
    heavy: u8,
    relaying: bool,
    wind: Option<Close>,
    look: bool,
    /// `broken` was already reported.
    told: bool,
    /// The backend has sent no byte and the client none beyond the preface: an end of the backend is not passed on
    /// but reported, so that another one may take its place.
    watch: bool,
    /// It was, and nothing is left to do here.
    failed: bool,
    away: Away,
    /// Fills between two offers to the kernel.
    messages: Option<NonZeroU8>,
    report: Report,
}

impl Duplex {
    /// A relay that has not begun, for a client that was just accepted: there may well be bytes to read already.
    pub fn new(mode: Mode) -> Self {
        let half = Half::new(mode);
        let client = End {
            readable: true,
            writable: true,
            ..End::default()
        };
        Self {
            ends: [client, End::default()],
            halves: [half; 2],
            mode,
            heavy: rest::HEAVY,
            relaying: false,
            wind: None,
            look: false,
            told: false,
            watch: false,
            failed: false,
            away: Away::Never,
            messages: None,
            report: Report::default(),
        }
    }

    /// Begins to relay; the store of [`Dir::Forward`] holds the `preface` bytes already. With `replay`, an end of the
    /// backend before its first byte is reported as a break ([`Fault::Closed`] for a FIN) instead of being passed on,
    /// as long as the client has sent nothing beyond the preface.
    pub fn begin(&mut self, preface: usize, replay: bool) {
        debug_assert!(!self.relaying, "a relay begins once for each attempt");
        self.relaying = true;
        self.end(Side::Backend).writable = true;
        self.halves[Dir::Forward as usize].held = u32::try_from(preface).unwrap_or(u32::MAX);
        self.watch = replay;
    }

    /// Forgets the backend and what was to go there, for another attempt. Only what is known of the client stays.
    ///
    /// Nothing is lost by it as long as the backend took nothing: until the preface is written the client is not
    /// read any further.
    pub fn abandon(&mut self) {
        debug_assert!(
            self.halves[Dir::Forward as usize].ear == Ear::Open,
            "a client is not read before its preface is written, and so does not rest"
        );
        let client = self.ends[Side::Client as usize];
        let new = Self::new(self.mode).paced(client.paced);
        *self = Self {
            ends: [client, new.ends[Side::Backend as usize]],
            heavy: self.heavy,
            away: self.away,
            messages: self.messages,
            ..new
        };
    }

    /// Whether the relay has begun.
    pub fn is_relaying(&self) -> bool {
        self.relaying
    }

    /// Bytes in both stores.
    pub fn held(&self) -> usize {
        self.halves[0].held as usize + self.halves[1].held as usize
    }

    /// Takes a hint about a socket.
    pub fn ready(&mut self, side: Side, hint: Readiness) {
        let end = self.end(side);
        end.readable |= hint.readable | hint.read_closed;
        end.finished |= hint.read_closed && cfg!(tlb_planted = "hint-taken-for-end");
        end.writable |= hint.writable;
        end.more |= hint.read_closed | hint.priority;
        end.urgent |= hint.priority;
        end.suspect |= hint.error;
        self.look = true;
    }

    /// Whether reading the client may bring something (before the relay has begun).
    pub fn client_readable(&self) -> bool {
        self.ends[Side::Client as usize].readable
    }

    /// How the client's socket broke, if a relay found that out: its next call may not.
    pub fn client_fault(&self) -> Option<Fault> {
        self.ends[Side::Client as usize].fault
    }

    /// Whether an error was hinted at on the client's socket (before the relay has begun); asking clears it.
    pub fn take_client_suspect(&mut self) -> bool {
        core::mem::take(&mut self.end(Side::Client).suspect)
    }

    /// What a read of the client brought before the relay began.
    pub fn client_read(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Moved { short, .. } => self.read_short(Side::Client, short),
            Outcome::WouldBlock | Outcome::NoPipe => self.read_nothing(Side::Client),
            // The end stays to be read again by the relay.
            Outcome::Eof | Outcome::Broken(_) => {}
        }
    }

    /// Lets it look again whether the peers have acknowledged everything.
    pub fn look(&mut self) {
        self.look = true;
    }

    /// Takes no more bytes, writes out what is held and then finishes: in order, or by a reset.
    ///
    /// Where bytes are held their reader has paused, and more may wait behind them: that stream is cut, so it ends by a
    /// reset in any case.
    pub fn wind(&mut self, how: Close) {
        if self.is_away() {
            return self.revoke();
        }
        let how = if self.held() > 0 { Close::Reset } else { how };
        self.wind = Some(how);
        self.unwatch();
        self.look = true;
        // What a hint was about may not have been read yet, and will not be any more: an error is asked for instead.
        for side in Side::BOTH {
            let rests = self.halves[side.outgoing() as usize].ear != Ear::Open;
            let end = self.end(side);
            end.suspect |= end.readable || rests;
        }
    }

    /// The next call to make; `None` when only an event, a [`Duplex::look`] or nothing at all can bring work.
    pub fn next_op(&mut self) -> Option<Op> {
        if !self.relaying || self.is_finished() || self.failed {
            return None;
        }
        if self.watch && self.ends[Side::Backend as usize].finished {
            return Some(Op::Waiting);
        }
        if self.away == Away::Gone || (self.is_away() && self.wind.is_some()) {
            return self.offer();
        }
        self.suspicions()
            .or_else(|| self.transfers())
            .or_else(|| self.shutdowns())
            .or_else(|| self.completion())
            .or_else(|| self.rests())
            .or_else(|| self.offer())
    }

    /// An error hint: read first, as queued bytes still come out before the error does. Where reading is not
    /// possible now, take the error and keep it.
    fn suspicions(&mut self) -> Option<Op> {
        for side in Side::BOTH {
            if !core::mem::take(&mut self.end(side).suspect) {
                continue;
            }
            if self.ends[side as usize].fault.is_some() {
                continue;
            }
            if !self.may_fill(side.outgoing()) {
                return Some(Op::TakeError(side));
            }
            let end = self.end(side);
            end.readable = true;
            end.more = true;
        }
        None
    }

    fn transfers(&self) -> Option<Op> {
        // Draining comes first: it makes room, and it is what the peers wait for.
        let drain = Dir::BOTH
            .into_iter()
            .find(|&dir| self.owes(dir) && self.ends[dir.to() as usize].writable);
        if let Some(dir) = drain {
            return Some(Op::Drain(dir));
        }
        let fill = Dir::BOTH
            .into_iter()
            .find(|&dir| self.may_fill(dir) && self.ends[dir.from() as usize].readable)?;
        let half = &self.halves[fill as usize];
        let via = if half.copy_once { Via::Copy } else { half.via };
        Some(Op::Fill(fill, via))
    }

    fn shutdowns(&mut self) -> Option<Op> {
        let dir = Dir::BOTH.into_iter().find(|&dir| {
            let source = &self.ends[dir.from() as usize];
            source.finished
                && source.fault.is_none()
                && self.halves[dir as usize].held == 0
                && !self.halves[dir as usize].shut
                && self.wind.is_none()
                && self.ends[dir.to() as usize].fault.is_none()
        })?;
        if self.halves[dir.other() as usize].shut && self.ends.iter().all(|end| end.fault.is_none())
        {
            // Nothing is left to come from there either, so that closing the socket sends the same FIN.
            self.shut(dir.to(), Ok(()));
            return None;
        }
        Some(Op::Shutdown(dir.to()))
    }

    /// What a fill did.
    pub fn filled(&mut self, dir: Dir, via: Via, outcome: Outcome) {
        let side = dir.from();
        let half = &mut self.halves[dir as usize];
        half.copy_once = false;
        match outcome {
            Outcome::Moved { bytes, short } => {
                // What a buffer or a pipe takes at once, of a store that holds no more than a pipe does.
                half.held += bytes as u32;
                half.piped = via == Via::Splice;
                half.adapt(self.mode, via, bytes, short);
                self.read_short(side, short);
                self.brought(dir, via, bytes);
                self.count_message();
                if self.watch {
                    self.report.proven = true;
                    self.unwatch();
                }
            }
            Outcome::Eof => self.read_to_end(side),
            Outcome::NoPipe => half.copy_once = !cfg!(tlb_planted = "no-pipe-spins"),
            // At an urgent mark a splice stops for good, and only a read gets past it.
            Outcome::WouldBlock
                if via == Via::Splice
                    && self.ends[side as usize].urgent
                    && !cfg!(tlb_planted = "urgent-mark-stops-splice") =>
            {
                half.copy_once = true;
                self.end(side).urgent = false;
            }
            Outcome::WouldBlock => self.read_nothing(side),
            Outcome::Broken(fault) => {
                self.broke(side, fault);
                self.read_to_end(side);
            }
        }
    }

    /// What a drain did.
    pub fn drained(&mut self, dir: Dir, outcome: Outcome) {
        let side = dir.to();
        let half = &mut self.halves[dir as usize];
        match outcome {
            Outcome::Moved { bytes, short } => {
                debug_assert!(bytes <= half.held as usize, "no more can go than is there");
                half.held = half.held.saturating_sub(bytes as u32);
                // A pipe may give less than it holds for reasons of its own.
                let full = short && !half.piped && half.held > 0;
                match dir {
                    Dir::Forward => self.report.forward += bytes as u64,
                    Dir::Return => self.report.back += bytes as u64,
                }
                let end = self.end(side);
                end.acknowledged = false;
                end.writable &= !full;
            }
            Outcome::WouldBlock | Outcome::NoPipe | Outcome::Eof => self.end(side).writable = false,
            Outcome::Broken(fault) => self.broke(side, fault),
        }
    }

    /// What a shutdown did.
    pub fn shut(&mut self, side: Side, result: Result<(), Fault>) {
        let dir = side.other().outgoing();
        match result {
            Ok(()) => {
                self.halves[dir as usize].shut = true;
                self.report.ended[dir as usize] = true;
            }
            Err(fault) => self.broke(side, fault),
        }
    }

    /// What taking the error brought.
    pub fn took_error(&mut self, side: Side, fault: Option<Fault>) {
        if let Some(fault) = fault
            && !cfg!(tlb_planted = "taken-error-forgotten")
        {
            self.broke(side, fault);
        }
    }

    /// Whether the client has sent a byte that nobody has read, asked when the backend ended before its first byte.
    pub fn waiting(&mut self, waiting: bool) {
        if waiting || self.ends[Side::Client as usize].fault.is_some() {
            self.report.proven |= waiting;
            return self.unwatch();
        }
        self.watch = false;
        self.failed = true;
        self.told = true;
        let fault = self.ends[Side::Backend as usize].fault;
        self.report.broken = Some((Side::Backend, fault.unwrap_or(Fault::Closed)));
    }

    /// No other backend can take this one's place any more: what it does counts.
    fn unwatch(&mut self) {
        self.watch = false;
        if let Some(fault) = self.ends[Side::Backend as usize].fault
            && !core::mem::replace(&mut self.told, true)
        {
            self.report.broken = Some((Side::Backend, fault));
        }
    }

    /// How many bytes that side's peer has not acknowledged.
    pub fn unacknowledged(&mut self, side: Side, bytes: usize) {
        self.end(side).acknowledged = bytes == 0;
        // The other side, if it waits too, is asked in the same turn.
        self.look |= bytes == 0;
    }

    /// What happened since the last report; `None` if nothing did.
    pub fn take_report(&mut self) -> Option<Report> {
        let next = Report {
            standing: self.report.standing,
            ..Report::default()
        };
        let report = core::mem::replace(&mut self.report, next);
        let news = report != Report::default();
        if !self.is_finished() {
            self.report.standing = Standing::Open;
        }
        news.then_some(report)
    }

    /// Whether nothing is left to do.
    pub fn is_finished(&self) -> bool {
        matches!(self.report.standing, Standing::Finished(_))
    }

    fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    /// There are bytes to write, and somebody to take them.
    fn owes(&self, dir: Dir) -> bool {
        self.halves[dir as usize].held > 0 && self.ends[dir.to() as usize].fault.is_none()
    }

    /// Whether more may be read in this direction: only when all that was read is written. Otherwise reading pauses,
    /// which is the back-pressure; meanwhile the kernel's buffer of the source gathers what comes.
    ///
    /// That holds for a pipe, too. It could take more, but of a pipe that holds something `EAGAIN` says nothing: the
    /// source may be empty or the pipe full. And a destination that takes little at a time would be fed crumb by crumb.
    fn may_fill(&self, dir: Dir) -> bool {
        let half = &self.halves[dir as usize];
        let destination = &self.ends[dir.to() as usize];
        let greedy =
            cfg!(tlb_planted = "eagain-means-empty") && half.piped && !destination.writable;
        let room = half.held == 0 || greedy;
        let wanted = self.wind.is_none() && destination.fault.is_none() && !half.shut;
        room && wanted && !self.ends[dir.from() as usize].finished
    }

    fn broke(&mut self, side: Side, fault: Fault) {
        let rested = self.halves[side.outgoing() as usize].ear != Ear::Open;
        let end = self.end(side);
        if end.fault.is_some() {
            return;
        }
        end.fault = Some(fault).filter(|_| !cfg!(tlb_planted = "fault-not-sticky"));
        // Whatever it had sent before is still to be read, and no event will say so.
        end.readable = true;
        end.more = true;
        // Nor has one told of urgent data, while it rested.
        end.urgent |= rested;
        self.look = true;
        // While it is not certain what follows from it, the backend's end is not reported.
        if side == Side::Backend && self.watch {
            return;
        }
        if !core::mem::replace(&mut self.told, true) {
            self.report.broken = Some((side, fault));
        }
    }

    fn read_to_end(&mut self, side: Side) {
        let end = self.end(side);
        end.readable = false;
        end.finished = true;
    }

    fn read_short(&mut self, side: Side, short: bool) {
        let end = self.end(side);
        end.readable &= !short || (end.more && !cfg!(tlb_planted = "short-read-hides-fin"));
    }

    fn read_nothing(&mut self, side: Side) {
        let end = self.end(side);
        end.readable = false;
        end.more = false;
        // A broken socket that has nothing more will never have anything.
        end.finished |= end.fault.is_some();
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
