//! One tlb on one simulated host: the loop that ships, with turmoil's streams where mio's sockets
//! would be.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use tlb_engine::api::{Event, Tell};
use tlb_engine::config::Config;
use tlb_engine::drive::{Driver, Mode};
use tlb_engine::engine::Engine;
use tlb_engine::roster::Roster;
use tlb_engine::time::{Duration, Timestamp};
use tokio::task::coop::unconstrained;
use tokio::task::yield_now;

use crate::control::Ear;
use crate::net::{Chunker, Hub, Net, Resets, now};
use crate::trace::Trace;

/// Most turns without virtual time passing. A loop that needs more waits for something that cannot
/// come.
const SPIN: u32 = 1_000_000;

/// What makes a source rest: simulated peers say little.
const HEAVY: usize = 4096;

/// What a tlb host is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its name in the trace.
    pub name: Rc<str>,
    /// What its engine is told to do.
    pub config: Arc<Config>,
    /// The ports of its listeners.
    pub ports: Vec<u16>,
    /// The first roster.
    pub roster: Arc<Roster>,
    /// The engine's seed.
    pub seed: u64,
    /// How its reads and writes are cut.
    pub chunks: Chunker,
    /// The simulation's resets.
    pub resets: Resets,
    /// The simulation's trace.
    pub trace: Trace,
    /// Who hears what its sessions find out about backends.
    pub ear: Option<Ear>,
}

/// The strings by which a scenario pulls a running tlb, and what it shows of itself. Clones share
/// it.
#[derive(Clone, Debug, Default)]
pub struct Control(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    commands: RefCell<VecDeque<Command>>,
    hub: RefCell<Option<Arc<Hub>>>,
    events: RefCell<Vec<Seen>>,
    live: Cell<usize>,
    sockets: Cell<usize>,
    has_finished: Cell<bool>,
}

/// What a running tlb can be told.
#[derive(Clone, Debug)]
pub enum Command {
    /// Use this roster from now on.
    Publish(Arc<Roster>),
    /// The sessions of a backend are to go.
    Tell(Tell),
    /// Stop: accept the queues empty, close the listeners, spread the sessions' ends over the
    /// shutdown timeout.
    Stop,
}

/// An event of an engine, and when it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When.
    pub at: Timestamp,
    /// By which roster.
    pub epoch: u64,
    /// What.
    pub event: Event,
}

impl Control {
    /// Tells it something; it hears it in its next turn.
    pub fn tell(&self, command: Command) {
        self.0.commands.borrow_mut().push_back(command);
        if let Some(hub) = &*self.0.hub.borrow() {
            hub.wake();
        }
    }

    /// Live sessions after its last turn.
    pub fn live(&self) -> usize {
        self.0.live.get()
    }

    /// Open sockets after its last turn.
    pub fn sockets(&self) -> usize {
        self.0.sockets.get()
    }

    /// Whether it has stopped, with no session left.
    pub fn has_finished(&self) -> bool {
        self.0.has_finished.get()
    }

    /// Everything its engine has told so far.
    pub fn events(&self) -> Vec<Seen> {
        self.0.events.borrow().clone()
    }
}

/// Runs one tlb until it is told to stop and has stopped.
///
/// # Errors
/// A port cannot be bound.
///
/// # Panics
/// The loop spins: it claims work without end while no time passes.
pub async fn serve(setup: Setup, control: Control) -> io::Result<()> {
    // Budgets would turn a `Pending` into chance: this future yields by itself.
    unconstrained(run(setup, control)).await
}

async fn run(setup: Setup, control: Control) -> io::Result<()> {
    let Setup {
        name, trace, ear, ..
    } = setup;
    let net = Net::bind(
        Rc::clone(&name),
        &setup.ports,
        setup.chunks,
        setup.resets,
        trace.clone(),
    );
    let net = net.await?;
    let hub = Arc::clone(net.hub());
    *control.0.hub.borrow_mut() = Some(Arc::clone(&hub));
    let engine = Engine::new(setup.config, setup.roster, setup.seed, now());
    let mut driver = Driver::new(engine, net, Mode::Auto).heavy(HEAVY);
    let (mut spins, mut last) = (0, now());
    loop {
        take_in(&mut driver, &control);
        let turn = driver.turn(now());
        while let Some(event) = driver.poll_event() {
            trace.line(now(), &name, format_args!("{event:?}"));
            let (at, epoch) = (now(), driver.engine().roster().epoch);
            if let Some(ear) = &ear {
                ear.event(&event);
            }
            control
                .0
                .events
                .borrow_mut()
                .push(Seen { at, epoch, event });
        }
        control.0.live.set(driver.engine().live());
        control.0.sockets.set(driver.io().open());
        if driver.finished() {
            assert_eq!(driver.pending(), None, "{name} has finished");
            trace.line(now(), &name, "finished");
            control.0.has_finished.set(true);
            return Ok(());
        }
        spins = if now() == last { spins + 1 } else { 0 };
        last = now();
        assert!(spins < SPIN, "{name} spins: {turn:?}");
        if turn.busy {
            yield_now().await;
        } else {
            wait(&hub, turn.deadline).await;
        }
    }
}

/// Hands over events and commands.
fn take_in(driver: &mut Driver<Net>, control: &Control) {
    for listener in driver.io_mut().take_acceptable() {
        driver.acceptable(listener);
    }
    for (socket, readiness) in driver.io_mut().take_ready() {
        driver.ready(socket, readiness);
    }
    loop {
        let command = control.0.commands.borrow_mut().pop_front();
        match command {
            Some(Command::Publish(roster)) => driver.publish(now(), roster),
            Some(Command::Tell(tell)) => driver.tell(now(), &tell),
            Some(Command::Stop) => driver.stop(now()),
            None => return,
        }
    }
}

/// Waits for an event, a command or the deadline.
async fn wait(hub: &Hub, deadline: Option<Timestamp>) {
    let left = deadline.map_or(Duration::MAX, |at| at.since(now()));
    let mut sleep = pin!(tokio::time::sleep(left));
    poll_fn(|cx| match hub.poll(cx) {
        Poll::Pending if deadline.is_some() => sleep.as_mut().poll(cx),
        poll => poll,
    })
    .await;
}
