//! A whole server in this process: workers, their listeners, and what watches over them.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use tlb_engine::Engine;
use tlb_engine::drive::Driver;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::config_file::{ListenerSettings, Settings};
use crate::directory::Directory;
use crate::io::LinuxIo;
use crate::journal::Journal;
use crate::listen::listen;
use crate::socket::Keepalive;
use crate::worker::{self, Control, Remote, Worker};
use crate::{cli, limits, resolve};

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
            Self::Listen { .. } => cli::EXIT_UNAVAILABLE,
            Self::Start(_) | Self::Worker { .. } | Self::Panicked { .. } | Self::Cut => 1,
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
}

impl Server {
    /// A server with these settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Serves until a signal ends it. Blocks the calling thread.
    ///
    /// SIGTERM and SIGINT stop it: it accepts the queues empty, closes its listeners, and ends its
    /// sessions spread over `shutdown-timeout`, idle ones first. A second one of them, or SIGQUIT,
    /// ends it at once. SIGHUP is ignored: reading the configuration anew is not supported. These
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

    /// Starts it: raises the process's limit of descriptors, opens every listener of every worker,
    /// asks for the addresses of backends that have a name, and starts the workers' threads.
    /// Returns when all listen.
    ///
    /// A backend whose name does not resolve is down, and is asked for again in the background.
    ///
    /// # Errors
    /// A listener's address is refused, or the host has no descriptor, memory or thread left.
    /// Nothing is left running.
    pub fn start(self) -> Result<Running, Error> {
        let settings = self.settings;
        let descriptors = limits::raise_descriptors();
        let count = limits::workers(&settings);
        let (addresses, sockets) = open_listeners(&settings.listeners, count)?;
        let mut directory = Directory::new(settings.pools.clone());
        resolve::resolve(&mut directory, false);

        let pipes = limits::pipes(descriptors, count);
        let clock = Clock::start();
        let mut workers = Vec::with_capacity(count);
        let mut remotes = Vec::with_capacity(count);
        for (number, sockets) in sockets.into_iter().enumerate() {
            let share = Share {
                settings: &settings,
                number,
                count,
                sockets,
                pipes,
            };
            let (worker, remote) = share.prepare(&directory, clock).map_err(Error::Start)?;
            workers.push(worker);
            remotes.push(remote);
        }
        for (listener, address) in &addresses {
            info!(name = %listener, %address, workers = count, "listening");
        }

        let notices = mpsc::channel();
        let mut running = Running {
            addresses,
            remotes,
            threads: Vec::with_capacity(count),
            notices,
            resolver: None,
        };
        for (number, worker) in workers.into_iter().enumerate() {
            running.spawn(number, worker)?;
        }
        if !directory.unresolved().is_empty() {
            running.keep_resolving(directory)?;
        }
        Ok(running)
    }
}

/// Of listeners, by name.
type Addresses = Vec<(Box<str>, SocketAddr)>;
/// Of one worker, by listener.
type Sockets = Vec<(TcpListener, Keepalive)>;

/// Opens all sockets of all listeners: by worker, then by listener.
fn open_listeners(
    listeners: &[ListenerSettings],
    workers: usize,
) -> Result<(Addresses, Vec<Sockets>), Error> {
    let mut addresses = Vec::with_capacity(listeners.len());
    let mut by_worker: Vec<_> = (0..workers)
        .map(|_| Vec::with_capacity(listeners.len()))
        .collect();
    for settings in listeners {
        let keepalive = Keepalive {
            idle: settings.keepalive,
            user_timeout: settings.user_timeout,
        };
        let name = &settings.engine.name;
        let opened = listen(settings.bind, workers, keepalive).map_err(|source| Error::Listen {
            listener: name.clone(),
            address: settings.bind,
            source,
        });
        let (address, sockets) = opened?;
        addresses.push((name.clone(), address));
        for (sockets_of_worker, socket) in by_worker.iter_mut().zip(sockets) {
            sockets_of_worker.push((socket, keepalive));
        }
    }
    Ok((addresses, by_worker))
}

/// What one worker is made of.
struct Share<'s> {
    settings: &'s Settings,
    number: usize,
    count: usize,
    sockets: Sockets,
    pipes: usize,
}

impl Share<'_> {
    fn prepare(self, directory: &Directory, clock: Clock) -> io::Result<(Worker, Remote)> {
        let (poll, control, remote) = worker::open()?;
        let io = LinuxIo::new(poll.registry().try_clone()?, self.sockets, self.pipes)?;
        let config = Arc::new(limits::share(self.settings, self.number, self.count));
        let roster = directory.roster();
        let journal = Journal::new(&config, roster);
        let engine = Engine::new(config, Arc::clone(roster), seed(), clock.now());
        let driver = Driver::new(engine, io, self.settings.relay);
        Ok((Worker::new(poll, control, driver, clock, journal), remote))
    }
}

/// A number that another worker or process will not have. The standard library seeds its hash maps
/// from the kernel's random numbers.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

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
    /// Dropping it tells the thread that looks for addresses to stop.
    resolver: Option<Sender<()>>,
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

    /// Begins to stop, in order. [`Running::join`] waits for the end.
    pub fn stop(&self) {
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
                    warn!("SIGHUP ignored: reading the configuration anew is not supported");
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
        info!("stopped");
        Ok(())
    }

    fn spawn(&mut self, number: usize, worker: Worker) -> Result<(), Error> {
        let farewell = Farewell {
            worker: number,
            notices: self.notices.0.clone(),
        };
        let thread = thread::Builder::new()
            .name(format!("tlb-worker-{number}"))
            .spawn(move || {
                let _farewell = farewell;
                worker.run()
            });
        self.threads.push(Some(thread.map_err(Error::Start)?));
        Ok(())
    }

    fn keep_resolving(&mut self, directory: Directory) -> Result<(), Error> {
        let (sender, stop) = mpsc::channel();
        let workers = self.remotes.clone();
        thread::Builder::new()
            .name("tlb-resolver".into())
            .spawn(move || resolve::keep_trying(directory, &workers, &stop, resolve::FIRST_PAUSE))
            .map_err(Error::Start)?;
        // Nobody waits for the thread's end: it may hang in the system's resolver for as long as
        // that likes.
        self.resolver = Some(sender);
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
    }
}

#[cfg(test)]
mod tests;
