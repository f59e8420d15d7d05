//! A whole server in this process: workers, their listeners, and what watches over them.

mod parts;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use self::parts::{Share, fleet, open_listeners};
use crate::clock::Clock;
use crate::config_file::Settings;
use crate::control::admin::AdminListener;
use crate::control::command::{Command, Handle};
use crate::control::view::ReloadView;
use crate::control::{ControlThread, Ears, Names, Note, Published, Source};
use crate::cpus::{self, Cpus};
use crate::hand_off::{Program, Ring};
use crate::registry::UnpackRegistry;
use crate::session_log::SessionLog;
use crate::worker::{Control, Remote, Worker};
use crate::{cli, hand_off, limits};

/// How long workers that are told to leave at once may take for it.
const LEAVE: Duration = Duration::from_secs(1);

/// Why a server did not start, or did not end in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refuses a listener's address: somebody else listens there, or it is not this
    /// host's, or the process may not have it. The configuration or the host is at fault.
    #[error("listener {listener}: cannot listen on {address}: {source}")]
    Listen {
        /// The listener's name.
        listener: Box<str>,
        /// Its address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// The process may not use a CPU that workers are to be kept to, or there is none of that number. The configuration
    /// or the host is at fault.
    #[error("cpus: this process may not use CPU {0}, see taskset -p")]
    Cpu(usize),
    /// The admin API cannot listen where the configuration says. The configuration or the host is
    /// at fault.
    #[error("{0}")]
    Admin(#[source] io::Error),
    /// The kernel does not take the program that forwards sessions that are handed off, or not from this process. The
    /// configuration or the host is at fault.
    #[error(
        "hand-off needs Linux 6.6 and CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON, which root has: {0}"
    )]
    HandOff(Box<str>),
    /// The session log cannot be opened. The configuration or the host is at fault.
    #[error("the session log cannot be opened: {0}")]
    SessionLog(#[source] io::Error),
    /// This host has no thread, descriptor or memory left for the server's own needs.
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    /// A worker cannot go on.
    #[error("worker {worker} failed: {source}")]
    Worker {
        /// Which.
        worker: usize,
        /// What the kernel says.
        source: io::Error,
    },
    /// A worker panicked: a bug in tlb.
    #[error("worker {worker} panicked")]
    Panicked {
        /// Which.
        worker: usize,
    },
    /// It was told to end at once, by a second signal to stop or by SIGQUIT, and cut its sessions
    /// off.
    #[error("ended at once, as told by a signal")]
    Cut,
}

impl Error {
    /// The exit code of a process that ends with it: that of the command line, 69 where it cannot
    /// listen and 1 where it failed while it ran.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { .. } | Self::Admin(_) => cli::EXIT_UNAVAILABLE,
            Self::Cpu(_)
            | Self::HandOff(_)
            | Self::SessionLog(_)
            | Self::Start(_)
            | Self::Worker { .. }
            | Self::Panicked { .. }
            | Self::Cut => 1,
        }
    }
}

/// A server that has not started yet.
///
/// ```no_run
/// use tlb::config_file::Settings;
/// use tlb::registry::UnpackRegistry;
/// use tlb::server::Server;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let settings = Settings::load("tlb.toml".as_ref(), &UnpackRegistry::new())?;
/// Server::new(settings).run()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    source: Option<Source>,
}

impl Server {
    /// A server with these settings.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            source: None,
        }
    }

    /// It may read its configuration anew from there: on SIGHUP, by [`Running::reload`], and by the
    /// admin API. `registered` are the unpacks that the file may name besides its own.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>, registered: &UnpackRegistry) -> Self {
        self.source = Some(Source {
            path: path.into(),
            registry: registered.clone(),
        });
        self
    }

    /// Serves until a signal ends it. Blocks the calling thread.
    ///
    /// SIGTERM and SIGINT stop it: it accepts the queues empty, closes its listeners, and ends its
    /// sessions spread over `shutdown-timeout`, idle ones first. A second one of them, or SIGQUIT,
    /// ends it at once. SIGHUP has it read its configuration anew, see [`Running::reload`]. These
    /// are the process's own signals from now on.
    ///
    /// # Errors
    /// As [`Server::start`] and [`Running::join`]; [`Error::Cut`] if it was told to end at once.
    pub fn run(self) -> Result<(), Error> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP]).map_err(Error::Start)?;
        let handle = signals.handle();
        let running = self.start()?;
        let notices = running.notices.0.clone();
        let watch = thread::Builder::new()
            .name("tlb-signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    if notices.send(Notice::Signal(signal)).is_err() {
                        break;
                    }
                }
            });
        let watch = watch.map_err(Error::Start)?;
        let result = running.join();
        handle.close();
        let _ = watch.join();
        result
    }

    /// Starts it: raises the process's limit of descriptors, opens every listener of every worker
    /// and the admin API's, asks for the addresses of backends that have a name, and starts the
    /// workers' threads and the control thread. Returns when all listen.
    ///
    /// A backend whose name does not resolve is down, and is asked for again in the background.
    ///
    /// # Errors
    /// A listener's address is refused, or the host has no descriptor, memory or thread left.
    /// Nothing is left running.
    pub fn start(self) -> Result<Running, Error> {
        let mut settings = self.settings;
        let descriptors = limits::raise_descriptors();
        let count = limits::workers(&settings);
        let cpus = Cpus::of(&settings);
        if let Some(cpu) = cpus.first_denied().map_err(Error::Start)? {
            return Err(Error::Cpu(cpu));
        }
        let (slots, sockets) = open_listeners(&settings.listeners, count, &cpus)?;
        let admin = settings.admin.as_ref().map(AdminListener::bind);
        let admin = admin.transpose().map_err(Error::Admin)?;
        let log = settings.session_log.as_ref().map(SessionLog::open);
        let log = log.transpose().map_err(Error::SessionLog)?;
        let (program, news) = forwarding(&settings)?
            .map(|(program, news)| (Arc::new(program), news))
            .unzip();
        limits::adopt(&mut settings, None);
        let clock = Clock::start();
        let (fleet, unresolved) = fleet(&settings, clock);

        let published = Published::new(fleet.roster());
        let pipes = limits::pipes(descriptors, count);
        let (notes, heard) = unbounded_channel();
        let mut workers = Vec::with_capacity(count);
        let mut remotes = Vec::with_capacity(count);
        for (number, sockets) in sockets.into_iter().enumerate() {
            let share = Share {
                settings: &settings,
                number,
                count,
                sockets,
                pipes,
                log: log.as_ref().map(|(log, _)| log.clone()),
                program: program.clone(),
                reports: notes.clone(),
            };
            let prepared = share.prepare(&published, clock);
            let (worker, remote) = prepared.map_err(Error::Start)?;
            workers.push(worker);
            remotes.push(remote);
        }
        for slot in &slots {
            info!(name = %slot.name, address = %slot.address, workers = count, "listening");
        }
        if let Some(admin) = &admin {
            info!(address = %admin, "admin API");
        }

        let (handle, commands) = Handle::new();
        let mut control = ControlThread::new(
            fleet,
            published,
            clock,
            settings,
            remotes.clone(),
            slots.clone(),
        );
        control.source = self.source;
        control.cpus = cpus.clone();
        control.log = log;
        control.hands_off = program.is_some();
        control.names = Names::new(unresolved, clock.now());
        let ears = Ears {
            notes: heard,
            commands,
            handle: handle.clone(),
            admin,
            news,
        };
        let mut running = Running {
            addresses: slots.into_iter().map(|it| (it.name, it.address)).collect(),
            remotes,
            threads: Vec::with_capacity(count),
            notices: mpsc::channel(),
            notes,
            handle,
            control: None,
        };
        for (number, worker) in workers.into_iter().enumerate() {
            running.spawn(number, worker, cpus.of_worker(number))?;
        }
        let control = thread::Builder::new()
            .name("tlb-control".into())
            .spawn(move || control.run(ears));
        running.control = Some(control.map_err(Error::Start)?);
        Ok(running)
    }
}

/// What forwards sessions that are handed off, if any listener wants that.
///
/// # Errors
/// [`Error::HandOff`].
pub(crate) fn forwarding(settings: &Settings) -> Result<Option<(Program, Ring)>, Error> {
    let mut listeners = settings.listeners.iter();
    let wanted = listeners.any(|it| it.engine.hand_off.is_some());
    let program = wanted.then(|| Program::load(hand_off::SESSIONS));
    program
        .transpose()
        .map_err(|error| Error::HandOff(error.to_string().into()))
}

/// Of listeners, by name.
type Addresses = Vec<(Box<str>, SocketAddr)>;

/// A server that runs in threads of its own.
///
/// Dropping it ends it at once.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    remotes: Vec<Remote>,
    /// By worker; `None` when it has ended.
    threads: Vec<Option<JoinHandle<io::Result<()>>>>,
    notices: (Sender<Notice>, Receiver<Notice>),
    notes: UnboundedSender<Note>,
    handle: Handle,
    control: Option<JoinHandle<io::Result<()>>>,
}

/// What the server is told while it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    /// A worker's thread ends, in whatever way.
    Ended(usize),
    /// A signal came.
    Signal(i32),
}

/// Tells of the end of the thread that owns it, even if that panics.
struct Farewell {
    worker: usize,
    notices: Sender<Notice>,
}

impl Drop for Farewell {
    fn drop(&mut self) {
        // Nobody listens any more when the server was dropped.
        let _ = self.notices.send(Notice::Ended(self.worker));
    }
}

impl Running {
    /// Where the listeners listen, with their names, in the order of the settings.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.addresses
            .iter()
            .map(|(name, address)| (&**name, *address))
    }

    /// Where the listener of that name listens.
    pub fn address(&self, listener: &str) -> Option<SocketAddr> {
        self.addresses()
            .find(|(name, _)| *name == listener)
            .map(|(_, address)| address)
    }

    /// Reads the configuration anew: listeners, pools, backends and unpacks follow it, and sessions
    /// that began before go on as they began. Waits until that is done.
    ///
    /// # Errors
    /// The file is wrong or cannot be put to work, the server has none, or it is stopping. The text
    /// says why; nothing was changed.
    ///
    /// # Panics
    /// Called within an asynchronous task, which must not wait like that.
    pub fn reload(&self) -> Result<ReloadView, String> {
        let (reply, answer) = oneshot::channel();
        let gone = |()| "tlb is stopping".to_owned();
        self.handle
            .ask_later(Command::Reload(reply))
            .map_err(gone)?;
        let answer = answer.blocking_recv().map_err(drop).map_err(gone)?;
        answer.map_err(|refusal| refusal.to_string())
    }

    /// Begins to stop, in order. [`Running::join`] waits for the end.
    pub fn stop(&self) {
        // The control thread has gone if it could not begin.
        let _ = self.notes.send(Note::Stopping);
        self.tell_all(|| Control::Stop);
    }

    /// Waits until all workers have ended.
    ///
    /// # Errors
    /// A worker failed or panicked: then the others are ended at once.
    pub fn join(mut self) -> Result<(), Error> {
        let mut stopping = false;
        while self.threads.iter().any(Option::is_some) {
            // The sender lives as long as `self`, so that there is always somebody who might still
            // send.
            let Ok(notice) = self.notices.1.recv() else {
                break;
            };
            match notice {
                Notice::Ended(worker) => self.bury(worker)?,
                Notice::Signal(SIGHUP) => {
                    // The control thread says in the log what came of it.
                    let (reply, _) = oneshot::channel();
                    if self.handle.ask_later(Command::Reload(reply)).is_err() {
                        warn!("SIGHUP ignored: tlb is busy with others");
                    }
                }
                Notice::Signal(SIGTERM | SIGINT) if !stopping => {
                    info!("stopping");
                    stopping = true;
                    self.stop();
                }
                Notice::Signal(signal) => {
                    warn!(signal, "ending at once");
                    return Err(Error::Cut);
                }
            }
        }
        self.end_control();
        info!("stopped");
        Ok(())
    }

    /// Ends the control thread, after the workers: they report to it to the last.
    fn end_control(&mut self) {
        let _ = self.notes.send(Note::End);
        match self.control.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => error!(%error, "the control thread could not begin"),
            Some(Err(_)) => error!("the control thread panicked"),
        }
    }

    fn spawn(&mut self, number: usize, worker: Worker, cpu: Option<usize>) -> Result<(), Error> {
        let farewell = Farewell {
            worker: number,
            notices: self.notices.0.clone(),
        };
        let thread = thread::Builder::new()
            .name(format!("tlb-worker-{number}"))
            .spawn(move || {
                let _farewell = farewell;
                cpu.map_or(Ok(()), cpus::keep_to)?;
                worker.run()
            });
        self.threads.push(Some(thread.map_err(Error::Start)?));
        Ok(())
    }

    fn tell_all(&self, control: impl Fn() -> Control) {
        for remote in &self.remotes {
            remote.tell(control());
        }
    }

    /// What became of a worker.
    fn bury(&mut self, worker: usize) -> Result<(), Error> {
        match self.threads[worker].take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(source))) => Err(Error::Worker { worker, source }),
            Some(Err(_)) => Err(Error::Panicked { worker }),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tell_all(|| Control::Abort);
        let deadline = Instant::now() + LEAVE;
        while self.threads.iter().any(Option::is_some) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.notices.1.recv_timeout(left) {
                Ok(Notice::Ended(worker)) => {
                    if let Err(error) = self.bury(worker) {
                        error!(%error, "while ending");
                    }
                }
                Ok(Notice::Signal(_)) => {}
                // Something holds it, a user's unpack perhaps. It ends with the process.
                Err(_) => break,
            }
        }
        self.end_control();
    }
}

#[cfg(test)]
mod tests;
