//! The control side of a tlb host under turmoil: the fleet that ships, with probes over the simulated network.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use tlb_engine::api::Event;
use tlb_engine::fleet::{
    Admin, Fleet, FleetAction, FleetConfig, FleetInput, ProbeId, ProbeOutcome,
};
use tlb_engine::health::Change;
use tlb_engine::roster::Roster;
use tlb_engine::time::{Duration, Timestamp};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use turmoil::net::TcpStream;

use crate::host::{Command, Control};
use crate::net::now;
use crate::trace::Trace;

/// What a fleet under turmoil begins with.
#[derive(Clone, Debug)]
pub struct FleetSetup {
    /// Its pools.
    pub config: FleetConfig,
    /// Whether a probe waits for a first byte, which the backends must send unasked.
    pub exchange: bool,
    /// How long a word to the workers takes.
    pub delay: Duration,
}

/// What the control side is told. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Ear(Rc<(RefCell<VecDeque<Told>>, Notify)>);

#[derive(Debug)]
enum Told {
    Report(FleetInput),
    Operator(String, Admin),
}

impl Ear {
    /// A worker's engine said something.
    pub fn event(&self, event: &Event) {
        let (backend, change) = match *event {
            Event::BackendDown { backend, .. } => (backend, Change::Down),
            Event::BackendUp { backend, .. } => (backend, Change::Up),
            _ => return,
        };
        self.tell(Told::Report(FleetInput::Reported {
            worker: 0,
            backend,
            change,
        }));
    }

    /// An operator wants something of a backend of the first pool.
    pub fn operate(&self, backend: String, admin: Admin) {
        self.tell(Told::Operator(backend, admin));
    }

    fn tell(&self, told: Told) {
        self.0.0.borrow_mut().push_back(told);
        self.0.1.notify_one();
    }
}

/// A fleet and its first roster, made before the host runs.
pub fn fleet(setup: &FleetSetup, seed: u64) -> (Fleet, Arc<Roster>) {
    let fleet = Fleet::new(setup.config.clone(), seed, Timestamp::ZERO);
    let roster = Arc::clone(fleet.roster());
    (fleet, roster)
}

/// Runs for ever.
pub async fn control(
    mut fleet: Fleet,
    setup: FleetSetup,
    ear: Ear,
    control: Control,
    trace: Trace,
) {
    let mut probes: JoinSet<(ProbeId, ProbeOutcome)> = JoinSet::new();
    let mut aborts: BTreeMap<ProbeId, AbortHandle> = BTreeMap::new();
    loop {
        while let Some(action) = fleet.poll_action() {
            trace.line(now(), "fleet", format_args!("{action}"));
            let command = match action {
                FleetAction::Publish(roster) => Command::Publish(roster),
                FleetAction::Tell(tell) => Command::Tell(tell),
                FleetAction::Probe { probe, to, .. } => {
                    let exchange = setup.exchange;
                    let task = async move { (probe, ask(to, exchange).await) };
                    aborts.insert(probe, probes.spawn_local(task));
                    continue;
                }
                FleetAction::Cancel { probe } => {
                    if let Some(abort) = aborts.remove(&probe) {
                        abort.abort();
                    }
                    continue;
                }
                // There is but one worker.
                _ => continue,
            };
            // Words are not faster than one another.
            sleep(setup.delay).await;
            control.tell(command);
        }
        while let Some(event) = fleet.poll_event() {
            trace.line(now(), "fleet", format_args!("{event}"));
        }
        let due = fleet
            .poll_timeout()
            .map_or(Duration::MAX, |at| at.since(now()));
        tokio::select! {
            biased;
            () = ear.0.1.notified() => {}
            Some(ended) = probes.join_next(), if !probes.is_empty() => {
                if let Ok((probe, outcome)) = ended {
                    aborts.remove(&probe);
                    fleet.handle(now(), FleetInput::Probed { probe, outcome });
                }
            }
            () = sleep(due) => fleet.handle_timeout(now()),
        }
        loop {
            let told = ear.0.0.borrow_mut().pop_front();
            match told {
                Some(Told::Report(report)) => fleet.handle(now(), report),
                Some(Told::Operator(backend, admin)) => {
                    let pool = fleet.view().first().map(|pool| pool.name.clone());
                    let set = fleet.set(now(), &pool.unwrap_or_default(), &backend, admin);
                    assert_eq!(set, Ok(()), "the scenario names its backends");
                }
                None => break,
            }
        }
    }
}

/// One probe: a connection, and perhaps a first byte.
async fn ask(to: SocketAddr, exchange: bool) -> ProbeOutcome {
    let failed = |what: std::io::Error| ProbeOutcome::Failed(what.to_string().into());
    let mut stream = match TcpStream::connect(to).await {
        Ok(stream) => stream,
        Err(error) => return failed(error),
    };
    if !exchange {
        return ProbeOutcome::Passed;
    }
    match stream.read_u8().await {
        Ok(_) => ProbeOutcome::Passed,
        Err(error) => failed(error),
    }
}
