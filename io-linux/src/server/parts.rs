//! What a server is made of, before it runs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use tlb_engine::Engine;
use tlb_engine::drive::Driver;
use tlb_engine::fleet::{Fleet, FleetInput};
use tokio::sync::mpsc::UnboundedSender;

use super::Error;
use crate::clock::Clock;
use crate::config_file::{ListenerSettings, Settings};
use crate::control::{Note, Published, Slot, options};
use crate::cpus::Cpus;
use crate::hand_off::{HandedOff, Program};
use crate::io::LinuxIo;
use crate::journal::Journal;
use crate::listen::listen;
use crate::session_log::SessionLog;
use crate::socket::SessionOptions;
use crate::spin::Spin;
use crate::worker::{self, Remote, Worker};
use crate::{limits, resolve};

/// The fleet of a configuration, and the backends whose names did not resolve.
pub(super) fn fleet(settings: &Settings, clock: Clock) -> (Fleet, Vec<resolve::Named>) {
    let now = clock.now();
    let mut fleet = Fleet::new(limits::fleet_config(settings), seed(), now);
    let mut names = resolve::named(settings);
    for (name, address) in resolve::resolve(&names, false) {
        names.retain(|it| *it != name);
        let (pool, backend) = (name.pool, name.backend);
        let input = FleetInput::Resolved {
            pool,
            backend,
            address,
        };
        fleet.handle(now, input);
    }
    // Nobody has the first roster yet, and what is there from the start is no change.
    while fleet.poll_action().is_some() {}
    while fleet.poll_event().is_some() {}
    (fleet, names)
}

/// Of one worker, by listener.
pub(super) type Sockets = Vec<(TcpListener, SessionOptions)>;

/// Opens all sockets of all listeners: by worker, then by listener.
pub(super) fn open_listeners(
    listeners: &[ListenerSettings],
    workers: usize,
    cpus: &Cpus,
) -> Result<(Vec<Slot>, Vec<Sockets>), Error> {
    let mut slots = Vec::with_capacity(listeners.len());
    let mut by_worker: Vec<_> = (0..workers)
        .map(|_| Vec::with_capacity(listeners.len()))
        .collect();
    for settings in listeners {
        let options = options(settings);
        let name = &settings.engine.name;
        let opened =
            listen(settings.bind, workers, options, cpus).map_err(|source| Error::Listen {
                listener: name.clone(),
                address: settings.bind,
                source,
            });
        let (address, sockets) = opened?;
        slots.push(Slot {
            name: name.clone(),
            bind: settings.bind,
            address,
        });
        for (sockets_of_worker, socket) in by_worker.iter_mut().zip(sockets) {
            sockets_of_worker.push((socket, options.session));
        }
    }
    Ok((slots, by_worker))
}

/// What one worker is made of.
pub(super) struct Share<'s> {
    pub(super) settings: &'s Settings,
    pub(super) number: usize,
    pub(super) count: usize,
    pub(super) sockets: Sockets,
    pub(super) pipes: usize,
    pub(super) log: Option<SessionLog>,
    pub(super) program: Option<Arc<Program>>,
    pub(super) reports: UnboundedSender<Note>,
}

impl Share<'_> {
    pub(super) fn prepare(
        self,
        published: &Published,
        clock: Clock,
    ) -> io::Result<(Worker, Remote)> {
        let (poll, control, remote) = worker::open()?;
        let mut io = LinuxIo::new(poll.registry().try_clone()?, self.sockets, self.pipes)?;
        let handed_off = self
            .program
            .map(|program| HandedOff::new(program, self.number, self.count));
        io.handed_off = handed_off.transpose()?;
        let places: Vec<_> = (0..self.settings.listeners.len()).map(Some).collect();
        let config = limits::share(self.settings, &places, self.number, self.count);
        let journal = Journal::new(&config, Arc::clone(published.names()));
        let roster = Arc::clone(published.roster());
        let engine = Engine::new(Arc::new(config), roster, seed(), clock.now());
        let worker = Worker {
            number: self.number as u32,
            poll,
            control,
            driver: Driver::new(engine, io, self.settings.relay),
            clock,
            spin: Spin::new(self.settings.spin),
            journal,
            log: self.log,
            reports: self.reports,
        };
        Ok((worker, remote))
    }
}

/// A number that another worker or process will not have. The standard library seeds its hash maps
/// from the kernel's random numbers.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
