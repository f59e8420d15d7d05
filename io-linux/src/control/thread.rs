//! The thread itself: what comes in, what the fleet makes of it, and who is told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tlb_engine::fleet::{Fleet, FleetAction, FleetEvent, FleetInput, ProbeId, ProbeOutcome, State};
use tlb_engine::health::Change;
use tlb_engine::ids::{Incarnation, PoolId};
use tlb_engine::time::Timestamp;
use tokio::runtime;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::task::{AbortHandle, JoinHandle, JoinSet, LocalSet};
use tracing::{error, info, warn};

use super::admin::{self, AdminListener};
use super::answers::Counters;
use super::command::{Command, Handle};
use super::probe;
use super::published::Published;
use super::reload::{Reloading, Source};
use crate::clock::Clock;
use crate::config_file::{HealthSettings, Settings};
use crate::cpus::Cpus;
use crate::hand_off::{HandedOff, News, Ring};
use crate::resolve::{self, Named};
use crate::session_log::{SessionLog, SessionLogThread};
use crate::worker::{Control, Remote};

/// What the control thread hears from workers and from the server that owns it.
#[derive(Debug)]
pub(crate) enum Note {
    /// A worker's passive health changed its mind about a backend.
    Report {
        /// Which worker.
        worker: u32,
        /// Which backend.
        backend: Incarnation,
        /// What it believes now.
        change: Change,
    },
    /// tlb begins to stop.
    Stopping,
    /// All workers have ended.
    End,
}

/// A listener of the process, by its [`ListenerId`](tlb_engine::ids::ListenerId).
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) name: Box<str>,
    /// As configured; a port of 0 stays 0 here.
    pub(crate) bind: SocketAddr,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

/// The session log and what writes it.
pub(crate) type Log = (SessionLog, SessionLogThread);

/// All that the thread knows and owns.
#[derive(Debug)]
pub(crate) struct ControlThread {
    pub(crate) fleet: Fleet,
    published: Published,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) source: Option<Source>,
    /// Of the workers, for listeners that come later.
    pub(crate) cpus: Cpus,
    pub(crate) remotes: Vec<Remote>,
    /// By id; `None` for those that were removed.
    pub(crate) slots: Vec<Option<Slot>>,
    pub(crate) log: Option<Log>,
    pub(crate) counters: Counters,
    pub(crate) stopping: bool,
    pub(crate) reloading: Reloading,
    pub(crate) names: Names,
    /// Whether sessions may be handed off, which is decided at start.
    pub(crate) hands_off: bool,
    probes: Probes,
}

/// Probes under way.
#[derive(Debug, Default)]
struct Probes {
    tasks: JoinSet<(ProbeId, ProbeOutcome)>,
    aborts: BTreeMap<ProbeId, AbortHandle>,
}

/// Backends whose names are not resolved.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) wanted: Vec<Named>,
    /// When they are asked for, and how long the pause before was.
    at: Option<(Timestamp, Duration)>,
    asking: Option<JoinHandle<Vec<(Named, SocketAddr)>>>,
    /// Somebody wants to hear of those that are not found.
    aloud: bool,
}

impl Names {
    /// These are not resolved, although they were asked for at start.
    pub(crate) fn new(wanted: Vec<Named>, now: Timestamp) -> Self {
        let pause = resolve::FIRST_PAUSE;
        Self {
            at: (!wanted.is_empty()).then_some((now + pause, pause)),
            wanted,
            asking: None,
            aloud: false,
        }
    }

    /// These are to be asked for now.
    pub(crate) fn ask(&mut self, wanted: Vec<Named>, now: Timestamp) {
        self.at = (!wanted.is_empty()).then_some((now, resolve::FIRST_PAUSE));
        self.wanted = wanted;
        self.aloud = true;
    }
}

/// What the thread is made of besides its state.
#[derive(Debug)]
pub(crate) struct Ears {
    pub(crate) notes: UnboundedReceiver<Note>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) handle: Handle,
    pub(crate) admin: Option<AdminListener>,
    /// What the kernel has to say of sessions that it forwards.
    pub(crate) news: Option<Ring>,
}

/// What woke the thread.
enum Woken {
    Note(Option<Note>),
    Command(Command),
    Probe(ProbeId, ProbeOutcome),
    Resolved(Vec<(Named, SocketAddr)>),
    Loaded(Result<Box<Settings>, String>),
    Flow(u32),
    Time,
}

impl ControlThread {
    pub(crate) fn new(
        fleet: Fleet,
        published: Published,
        clock: Clock,
        settings: Settings,
        remotes: Vec<Remote>,
        slots: Vec<Slot>,
    ) -> Self {
        Self {
            fleet,
            published,
            clock,
            settings,
            source: None,
            cpus: Cpus::default(),
            remotes,
            slots: slots.into_iter().map(Some).collect(),
            log: None,
            counters: Counters::begin(),
            stopping: false,
            reloading: Reloading::default(),
            names: Names::new(Vec::new(), clock.now()),
            hands_off: false,
            probes: Probes::default(),
        }
    }

    /// Works until [`Note::End`] comes, or nobody is left who could send it.
    ///
    /// # Errors
    /// The runtime cannot be had: this host has no descriptor left.
    pub(crate) fn run(self, ears: Ears) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(4)
            .build()?;
        let log = LocalSet::new().block_on(&runtime, self.work(ears));
        // Names may hang in the system's resolver for as long as that likes.
        runtime.shutdown_background();
        if let Some((log, thread)) = log {
            drop(log);
            if !thread.finish(Duration::from_secs(2)) {
                warn!("the session log is not written to its end");
            }
        }
        Ok(())
    }

    async fn work(mut self, mut ears: Ears) -> Option<Log> {
        let admin = serve(ears.admin.take(), ears.handle.clone());
        tokio::pin!(admin);
        let mut served = true;
        let mut news = News::of(ears.news.take());
        self.execute();
        loop {
            let due = until(self.clock, self.due());
            let woken = tokio::select! {
                biased;
                note = ears.notes.recv() => Woken::Note(note),
                Some(command) = ears.commands.recv() => Woken::Command(command),
                Some(ended) = self.probes.tasks.join_next(), if !self.probes.tasks.is_empty() =>
                    match ended {
                        Ok((probe, outcome)) => Woken::Probe(probe, outcome),
                        // Cancelled, or a bug that its own panic message tells.
                        Err(_) => continue,
                    },
                found = asked(&mut self.names.asking) => Woken::Resolved(found),
                loaded = self.reloading.loaded() => Woken::Loaded(loaded),
                slot = news.next() => Woken::Flow(slot),
                () = due => Woken::Time,
                error = &mut admin, if served => {
                    error!("the admin API has ended: {error}");
                    served = false;
                    continue;
                }
            };
            match woken {
                Woken::Note(None | Some(Note::End)) => break,
                Woken::Note(Some(note)) => self.note(note),
                Woken::Command(command) => self.answer(command),
                Woken::Probe(probe, outcome) => self.probed(probe, outcome),
                Woken::Resolved(found) => self.resolved(found),
                Woken::Loaded(loaded) => self.loaded(loaded),
                Woken::Flow(slot) => {
                    let worker = HandedOff::worker_of(slot, self.remotes.len());
                    if let Some(remote) = self.remotes.get(worker) {
                        remote.tell(Control::Flow(slot));
                    }
                }
                Woken::Time => self.handle_timeout(),
            }
            self.execute();
        }
        self.log.take()
    }

    fn due(&self) -> Option<Timestamp> {
        let names = self.names.at.filter(|_| self.names.asking.is_none());
        let names = names.map(|(at, _)| at);
        self.fleet.poll_timeout().into_iter().chain(names).min()
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Report {
                worker,
                backend,
                change,
            } => self.fleet.handle(
                self.clock.now(),
                FleetInput::Reported {
                    worker,
                    backend,
                    change,
                },
            ),
            Note::Stopping => self.stopping = true,
            Note::End => {}
        }
    }

    /// A probe ended; those that ended with it are one roster with it.
    fn probed(&mut self, probe: ProbeId, outcome: ProbeOutcome) {
        let mut ended = Some((probe, outcome));
        while let Some((probe, outcome)) = ended {
            self.probes.aborts.remove(&probe);
            let now = self.clock.now();
            self.fleet
                .handle(now, FleetInput::Probed { probe, outcome });
            ended = loop {
                match self.probes.tasks.try_join_next() {
                    Some(Ok(next)) => break Some(next),
                    Some(Err(_)) => {}
                    None => break None,
                }
            };
        }
    }

    fn handle_timeout(&mut self) {
        let now = self.clock.now();
        self.fleet.handle_timeout(now);
        if let Some((at, pause)) = self.names.at
            && at <= now
            && self.names.asking.is_none()
        {
            let wanted = self.names.wanted.clone();
            let again = !std::mem::take(&mut self.names.aloud);
            self.names.at = Some((at, (pause * 2).min(resolve::LAST_PAUSE)));
            let task = tokio::task::spawn_blocking(move || resolve::resolve(&wanted, again));
            self.names.asking = Some(task);
        }
    }

    fn resolved(&mut self, found: Vec<(Named, SocketAddr)>) {
        let now = self.clock.now();
        for (name, address) in found {
            // A reload may have taken it out, or given it another name, meanwhile.
            let before = self.names.wanted.len();
            self.names.wanted.retain(|it| *it != name);
            if self.names.wanted.len() < before {
                let (pool, backend) = (name.pool, name.backend);
                let input = FleetInput::Resolved {
                    pool,
                    backend,
                    address,
                };
                self.fleet.handle(now, input);
            }
        }
        let pause = self
            .names
            .at
            .map_or(resolve::FIRST_PAUSE, |(_, pause)| pause);
        let left = !self.names.wanted.is_empty();
        // What a reload asked for meanwhile is asked for at once.
        let wait = if self.names.aloud {
            Duration::ZERO
        } else {
            pause
        };
        self.names.at = left.then_some((now + wait, pause));
    }

    /// Does what the fleet asks for.
    pub(crate) fn execute(&mut self) {
        while let Some(action) = self.fleet.poll_action() {
            match action {
                FleetAction::Publish(roster) => {
                    self.published.replace(roster);
                    let (roster, names) = (self.published.roster(), self.published.names());
                    self.tell_all(|| Control::Publish(Arc::clone(roster), Arc::clone(names)));
                }
                FleetAction::Tell(tell) => self.tell_all(|| Control::Tell(tell.clone())),
                FleetAction::Advise {
                    pool,
                    backend,
                    change,
                    except,
                } => {
                    for (worker, remote) in (0..).zip(&self.remotes) {
                        if Some(worker) != except {
                            remote.tell(Control::Advise(pool, backend, change));
                        }
                    }
                }
                FleetAction::Probe { probe, pool, to } => self.probe(probe, pool, to),
                FleetAction::Cancel { probe } => {
                    if let Some(abort) = self.probes.aborts.remove(&probe) {
                        abort.abort();
                    }
                }
                _ => {}
            }
        }
        while let Some(event) = self.fleet.poll_event() {
            log(&event);
        }
        self.published.free_old();
    }

    pub(crate) fn tell_all(&self, control: impl Fn() -> Control) {
        for remote in &self.remotes {
            remote.tell(control());
        }
    }

    fn probe(&mut self, probe: ProbeId, pool: PoolId, to: SocketAddr) {
        let name = self.fleet.roster().pool(pool).map(|pool| pool.name.clone());
        let mut pools = self.settings.pools.iter();
        let settings = pools.find(|it| Some(&it.name) == name.as_ref());
        let Some(HealthSettings { kind, port, .. }) = settings.and_then(|it| it.health.clone())
        else {
            return;
        };
        let to = SocketAddr::new(to.ip(), port.unwrap_or(to.port()));
        let task = async move {
            let outcome = probe::probe(&kind, to).await;
            (probe, outcome)
        };
        let abort = self.probes.tasks.spawn_local(task);
        self.probes.aborts.insert(probe, abort);
    }
}

/// Serves the admin API, if there is one, until that fails.
async fn serve(listener: Option<AdminListener>, handle: Handle) -> io::Error {
    let Some(listener) = listener else {
        return pending().await;
    };
    let served: io::Result<Infallible> = admin::serve(listener, handle).await;
    match served {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

/// What a lookup found.
async fn asked(
    asking: &mut Option<JoinHandle<Vec<(Named, SocketAddr)>>>,
) -> Vec<(Named, SocketAddr)> {
    let Some(task) = asking else {
        return pending().await;
    };
    let found = task.await.unwrap_or_default();
    *asking = None;
    found
}

async fn until(clock: Clock, at: Option<Timestamp>) {
    match at {
        Some(at) => tokio::time::sleep(at.since(clock.now())).await,
        None => pending().await,
    }
}

fn log(event: &FleetEvent) {
    match event {
        FleetEvent::State {
            pool,
            backend,
            from,
            to,
            cause,
        } => {
            if matches!(to, State::Down | State::Ejected | State::Unresolved) {
                warn!(%pool, %backend, %from, %cause, "backend {to}");
            } else {
                info!(%pool, %backend, %from, %cause, "backend {to}");
            }
        }
        FleetEvent::Added {
            pool,
            backend,
            address,
        } => {
            let address = address.map(tracing::field::display);
            info!(%pool, %backend, address, "backend added");
        }
        FleetEvent::Removed { pool, backend } => info!(%pool, %backend, "backend removed"),
        FleetEvent::Moved {
            pool,
            backend,
            address,
        } => info!(%pool, %backend, %address, "backend moved"),
        FleetEvent::Weight {
            pool,
            backend,
            from,
            to,
        } => info!(%pool, %backend, from, to, "backend's weight changed"),
        FleetEvent::Panic { pool, on: true } => {
            warn!(%pool, "too few backends are up: all of them are used");
        }
        FleetEvent::Panic { pool, on: false } => {
            info!(%pool, "enough backends are up again");
        }
        _ => {}
    }
}
