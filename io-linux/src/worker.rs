//! One thread that serves sessions: it waits for events, and runs the engine's loop.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use mio::event::Event;
use mio::{Events, Poll, Waker};
use tlb_engine::api::{Event as Fact, Tell};
use tlb_engine::config::Config;
use tlb_engine::drive::{Driver, Readiness, Turn};
use tlb_engine::health::Change;
use tlb_engine::ids::{Incarnation, ListenerId, PoolId};
use tlb_engine::roster::Roster;
use tlb_engine::session::Phase;
use tlb_engine::stats::Stats;
use tlb_engine::time::Timestamp;
use tokio::sync::mpsc;
use tracing::error;

use crate::clock::Clock;
use crate::control::view::{SessionFilter, SessionView};
use crate::control::{Note, fits};
use crate::io::LinuxIo;
use crate::io::token::Source;
use crate::journal::{Journal, Key};
use crate::names::FleetNames;
use crate::session_log::SessionLog;
use crate::socket::{ListenerOptions, SessionOptions};
use crate::spin::Spin;
use crate::sys;

/// Most events taken from the kernel at once.
const EVENTS: usize = 1024;

/// Waits below this are too short for `epoll_wait(2)`, which counts in milliseconds.
const BRIEF: Duration = Duration::from_millis(1);

/// What a worker is told from outside, in order.
#[derive(Debug)]
pub(crate) enum Control {
    /// This is the roster from now on, and these are its names.
    Publish(Arc<Roster>, Arc<FleetNames>),
    /// The sessions of a backend are to go.
    Tell(Tell),
    /// Another worker changed its mind about a backend.
    Advise(PoolId, Incarnation, Change),
    /// These are the listeners from now on.
    Reconfigure(Box<Reconfigure>),
    /// The kernel has news of the session that it knows by that slot.
    Flow(u32),
    /// Ended sessions leave their lines there.
    Log(Option<SessionLog>),
    /// Somebody wants to know how things stand.
    Inspect(Inspect, mpsc::Sender<Inspection>),
    /// Accept the queues empty, close the listeners and end the sessions, each in its time.
    Stop,
    /// Leave at once. The sessions' sockets are closed as they are.
    Abort,
}

/// What changes for a worker when the configuration does.
#[derive(Debug)]
pub(crate) struct Reconfigure {
    /// Its share.
    pub(crate) config: Arc<Config>,
    /// New listeners, whose ids follow those that there were.
    pub(crate) opened: Vec<(ListenerId, TcpListener, SessionOptions)>,
    /// Those that stay, with what they have from now on.
    pub(crate) kept: Vec<(ListenerId, ListenerOptions)>,
}

/// What somebody wants to know.
#[derive(Clone, Debug)]
pub(crate) enum Inspect {
    /// What was counted.
    Stats,
    /// What was counted, and live sessions.
    Sessions(SessionFilter),
}

/// What a worker says about itself.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    /// What its engine counted.
    pub(crate) stats: Stats,
    /// Bytes that it moved through a buffer.
    pub(crate) bytes_copied: u64,
    /// Bytes that it moved through pipes.
    pub(crate) bytes_spliced: u64,
    /// Sessions that were asked for, up to the limit.
    pub(crate) sessions: Vec<SessionView>,
    /// How many there are of these.
    pub(crate) total: u64,
}

/// The other end of a worker's ear.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    sender: std::sync::mpsc::Sender<Control>,
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
    pub(crate) number: u32,
    pub(crate) poll: Poll,
    pub(crate) control: Receiver<Control>,
    pub(crate) driver: Driver<LinuxIo>,
    pub(crate) clock: Clock,
    pub(crate) spin: Spin,
    pub(crate) journal: Journal,
    pub(crate) log: Option<SessionLog>,
    /// Where it reports what its sessions find out about backends.
    pub(crate) reports: mpsc::UnboundedSender<Note>,
}

/// Opens a worker's poll and its ear.
///
/// # Errors
/// The kernel has no descriptor or memory for them.
pub(crate) fn open() -> io::Result<(Poll, Receiver<Control>, Remote)> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), Source::Waker.token())?);
    let (sender, control) = channel();
    Ok((poll, control, Remote { sender, waker }))
}

impl Worker {
    /// Serves until it was stopped and nothing is left, or is told to leave.
    ///
    /// # Errors
    /// The kernel does not let it wait for events any more.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut wait = Some(Duration::ZERO);
        loop {
            self.await_events(&mut events, wait)?;
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
            self.driver.io_mut().tick(now);
            let turn = self.driver.turn(now);
            while let Some(fact) = self.driver.poll_event() {
                self.note(&fact);
            }
            if self.driver.finished() {
                return Ok(());
            }
            wait = patience(turn, self.driver.io().due(), now);
        }
    }

    /// Waits for events, for `wait` at most (`None`: as long as it takes).
    fn await_events(&mut self, events: &mut Events, wait: Option<Duration>) -> io::Result<()> {
        let patience = self.spin.patience(wait);
        if patience > Duration::ZERO {
            let since = self.clock.now();
            loop {
                self.look(events, Some(Duration::ZERO))?;
                let found = !events.is_empty();
                if found || self.clock.now().since(since) >= patience {
                    self.spin.looked(found);
                    if found {
                        return Ok(());
                    }
                    break;
                }
            }
            return self.look(events, wait);
        }
        if self.spin.is_off() {
            return self.look(events, wait);
        }
        let since = self.clock.now();
        self.look(events, wait)?;
        self.spin.slept(self.clock.now().since(since));
        Ok(())
    }

    fn look(&mut self, events: &mut Events, wait: Option<Duration>) -> io::Result<()> {
        let brief = wait.filter(|&wait| wait > Duration::ZERO && wait < BRIEF);
        let wait = match brief {
            Some(brief) if !sys::has_events_within(&self.poll, brief) => {
                events.clear();
                return Ok(());
            }
            Some(_) => Some(Duration::ZERO),
            None => wait,
        };
        match self.poll.poll(events, wait) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// Passes a fact on to whom it concerns.
    fn note(&self, fact: &Fact) {
        self.journal.write(fact);
        let (backend, change) = match *fact {
            Fact::Closed(ref closed) => {
                if let Some(log) = &self.log {
                    log.write(closed, self.journal.names());
                }
                return;
            }
            Fact::BackendDown { backend, .. } => (backend, Change::Down),
            Fact::BackendUp { backend, .. } => (backend, Change::Up),
            _ => return,
        };
        let worker = self.number;
        // Nobody listens any more when tlb ends.
        let _ = self.reports.send(Note::Report {
            worker,
            backend,
            change,
        });
    }

    fn obey(&mut self, now: Timestamp) -> Then {
        while let Ok(control) = self.control.try_recv() {
            match control {
                Control::Publish(roster, names) => {
                    self.journal.learn(names);
                    self.driver.publish(now, roster);
                }
                Control::Tell(tell) => self.driver.tell(now, &tell),
                Control::Advise(pool, backend, change) => {
                    self.driver.advise(now, pool, backend, change);
                }
                Control::Flow(slot) => {
                    let handed_off = self.driver.io().handed_off.as_ref();
                    if let Some(session) = handed_off.and_then(|it| it.session_of(slot)) {
                        self.driver.flow(session);
                    }
                }
                Control::Reconfigure(change) => self.reconfigure(now, *change),
                Control::Log(log) => self.log = log,
                Control::Inspect(what, reply) => {
                    // Whoever asked has given up.
                    let _ = reply.try_send(self.inspect(now, &what));
                }
                Control::Stop => self.driver.stop(now),
                Control::Abort => return Then::Leave,
            }
        }
        Then::Serve
    }

    fn reconfigure(&mut self, now: Timestamp, change: Reconfigure) {
        let io = self.driver.io_mut();
        for (id, socket, session) in change.opened {
            if let Err(error) = io.listen(id, socket, session) {
                error!(%error, listener = id.0, worker = self.number, "cannot accept here");
            }
        }
        for (id, options) in change.kept {
            if let Err(error) = io.set_options(id, options) {
                error!(%error, listener = id.0, worker = self.number, "options not changed");
            }
        }
        self.journal.reconfigure(&change.config);
        self.driver.reconfigure(now, change.config);
    }

    fn inspect(&mut self, now: Timestamp, what: &Inspect) -> Inspection {
        let [bytes_copied, bytes_spliced] = self.driver.io().moved;
        let mut inspection = Inspection {
            stats: self.driver.stats(),
            bytes_copied,
            bytes_spliced,
            ..Inspection::default()
        };
        let Inspect::Sessions(filter) = what else {
            return inspection;
        };
        let (engine, names) = (self.driver.engine(), self.journal.names());
        for session in engine.sessions() {
            let listener = names.listener(session.listener);
            let pool = names.pool(session.pool);
            let backend = session.backend.map(|backend| &*backend.id);
            if !fits(filter, listener, pool, backend) {
                continue;
            }
            inspection.total += 1;
            if inspection.sessions.len() < filter.limit {
                inspection.sessions.push(SessionView {
                    id: format!("{}-{}", self.number, session.session),
                    listener: listener.to_string(),
                    client: session.peer.to_string(),
                    pool: pool.to_string(),
                    backend: backend.map(str::to_owned),
                    key: session.key.map(|key| Key(key).to_string()),
                    phase: phase(session.phase).to_owned(),
                    bytes_forward: session.forward,
                    bytes_return: session.back,
                    age_seconds: now.since(session.accepted).as_secs(),
                    idle_seconds: now.since(session.active).as_secs(),
                });
            }
        }
        inspection
    }
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Preread => "preread",
        Phase::Connecting => "connecting",
        Phase::Waiting => "waiting",
        Phase::Relaying => "relaying",
        Phase::Winding => "winding",
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
fn patience(turn: Turn, due: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    if turn.busy {
        return Some(Duration::ZERO);
    }
    let first = turn.deadline.into_iter().chain(due).min();
    first.map(|at| at.since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_as_long_as_the_turn_allows() {
        let now = Timestamp::from_millis(100);
        let wait = |deadline, busy| patience(Turn { deadline, busy }, None, now);
        assert_eq!(wait(None, false), None);
        assert_eq!(wait(None, true), Some(Duration::ZERO));
        let later = Some(Timestamp::from_millis(150));
        assert_eq!(wait(later, false), Some(Duration::from_millis(50)));
        assert_eq!(wait(later, true), Some(Duration::ZERO));
        assert_eq!(
            wait(Some(Timestamp::from_millis(90)), false),
            Some(Duration::ZERO)
        );
        let idle = Turn {
            deadline: later,
            busy: false,
        };
        for (due, ms) in [(120, 20), (170, 50)] {
            assert_eq!(
                patience(idle, Some(Timestamp::from_millis(due)), now),
                Some(Duration::from_millis(ms))
            );
        }
    }
}
