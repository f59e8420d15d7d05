//! One thread that serves sessions: it waits for events, and runs the engine's loop.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll, Waker};
use tlb_engine::drive::{Driver, Readiness, Turn};
use tlb_engine::roster::Roster;
use tlb_engine::time::Timestamp;

use crate::clock::Clock;
use crate::io::LinuxIo;
use crate::io::token::Source;
use crate::journal::Journal;

/// Most events taken from the kernel at once.
const EVENTS: usize = 1024;

/// What a worker is told from outside, in order.
#[derive(Debug)]
pub(crate) enum Control {
    /// This is the roster from now on.
    Publish(Arc<Roster>),
    /// Accept the queues empty, close the listeners and end the sessions, each in its time.
    Stop,
    /// Leave at once. The sessions' sockets are closed as they are.
    Abort,
}

/// The other end of a worker's ear.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    sender: Sender<Control>,
    waker: Arc<Waker>,
}

impl Remote {
    /// Tells the worker. One that has ended does not hear it.
    pub(crate) fn tell(&self, control: Control) {
        if self.sender.send(control).is_ok() {
            // Waking fails only if the kernel has no memory for eight bytes; the worker's next
            // event then does.
            let _ = self.waker.wake();
        }
    }
}

/// A worker before its thread runs it.
#[derive(Debug)]
pub(crate) struct Worker {
    poll: Poll,
    control: Receiver<Control>,
    driver: Driver<LinuxIo>,
    clock: Clock,
    journal: Journal,
}

/// Opens a worker's poll and its ear.
///
/// # Errors
/// The kernel has no descriptor or memory for them.
pub(crate) fn open() -> io::Result<(Poll, Receiver<Control>, Remote)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), Source::Waker.token())?);
    let (sender, control) = mpsc::channel();
    Ok((poll, control, Remote { sender, waker }))
}

impl Worker {
    /// A worker that waits at `poll`, where `driver`'s sockets are registered, and listens to
    /// `control`.
    pub(crate) fn new(
        poll: Poll,
        control: Receiver<Control>,
        driver: Driver<LinuxIo>,
        clock: Clock,
        journal: Journal,
    ) -> Self {
        Self {
            poll,
            control,
            driver,
            clock,
            journal,
        }
    }

    /// Serves until it was stopped and nothing is left, or is told to leave.
    ///
    /// # Errors
    /// The kernel does not let it wait for events any more.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut wait = Some(Duration::ZERO);
        loop {
            if let Err(error) = self.poll.poll(&mut events, wait)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error);
            }
            let now = self.clock.now();
            let mut told = false;
            for event in &events {
                match Source::of(event.token()) {
                    Source::Socket(socket) => self.driver.ready(socket, readiness(event)),
                    Source::Listener(listener) => self.driver.acceptable(listener),
                    Source::Waker => told = true,
                }
            }
            if told && self.obey(now) == Then::Leave {
                return Ok(());
            }
            let turn = self.driver.turn(now);
            while let Some(event) = self.driver.poll_event() {
                self.journal.write(&event);
            }
            if self.driver.finished() {
                return Ok(());
            }
            wait = patience(turn, now);
        }
    }

    fn obey(&mut self, now: Timestamp) -> Then {
        while let Ok(control) = self.control.try_recv() {
            match control {
                Control::Publish(roster) => {
                    self.journal.learn(&roster);
                    self.driver.publish(now, roster);
                }
                Control::Stop => self.driver.stop(now),
                Control::Abort => return Then::Leave,
            }
        }
        Then::Serve
    }
}

#[derive(PartialEq, Eq)]
enum Then {
    Serve,
    Leave,
}

fn readiness(event: &Event) -> Readiness {
    Readiness {
        readable: event.is_readable(),
        writable: event.is_writable(),
        read_closed: event.is_read_closed(),
        error: event.is_error(),
        priority: event.is_priority(),
    }
}

/// How long to wait for events; `None` for as long as it takes.
fn patience(turn: Turn, now: Timestamp) -> Option<Duration> {
    if turn.busy {
        return Some(Duration::ZERO);
    }
    turn.deadline.map(|at| at.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_as_long_as_the_turn_allows() {
        let now = Timestamp::from_millis(100);
        let wait = |deadline, busy| patience(Turn { deadline, busy }, now);
        assert_eq!(wait(None, false), None);
        assert_eq!(wait(None, true), Some(Duration::ZERO));
        let later = Some(Timestamp::from_millis(150));
        assert_eq!(wait(later, false), Some(Duration::from_millis(50)));
        assert_eq!(wait(later, true), Some(Duration::ZERO));
        assert_eq!(
            wait(Some(Timestamp::from_millis(90)), false),
            Some(Duration::ZERO)
        );
    }
}
