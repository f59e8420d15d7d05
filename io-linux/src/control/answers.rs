//! What the admin API is told: the fleet's view, and what the workers counted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tlb_engine::balance::Policy;
use tlb_engine::fleet::{
    Admin, BackendView as Backend, FleetError, PoolView as Pool, ProbeOutcome,
};
use tlb_engine::ids::Incarnation;
use tlb_engine::stats::{BackendStats, Stats};
use tlb_engine::time::Timestamp;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use super::command::{Command, Refusal};
use super::reload::now_seconds;
use super::thread::ControlThread;
use super::view::{
    BackendView, FleetStats, ListenerView, Metrics, PoolView, SessionFilter, SessionsView,
};
use crate::config_file::ListenerSettings;
use crate::worker::{Control, Inspect, Inspection};

/// How long workers may take to answer: one that serves a storm is late, and is left out.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the control thread counts itself.
#[derive(Debug)]
pub(crate) struct Counters {
    /// Counts configurations from 1.
    pub(super) generation: u64,
    /// Reloads that were put to work and that were refused.
    pub(super) reloads: (u64, u64),
    /// In seconds since 1970.
    pub(super) last_reload: u64,
    /// Of session logs that were replaced.
    pub(super) log_dropped: u64,
    start: f64,
}

impl Counters {
    /// Nothing yet, but the first configuration.
    pub(super) fn begin() -> Self {
        Self {
            generation: 1,
            reloads: (0, 0),
            last_reload: now_seconds(),
            log_dropped: 0,
            start: now_seconds() as f64,
        }
    }
}

impl ControlThread {
    /// Answers. Whoever asked may have gone meanwhile, which is fine.
    pub(super) fn answer(&mut self, command: Command) {
        match command {
            Command::Pools(reply) => {
                let (pools, now) = (self.fleet.view(), self.clock.now());
                self.inspect(Inspect::Stats, move |answers| {
                    let stats = sum(answers);
                    let _ = reply.send(
                        pools
                            .iter()
                            .map(|pool| pool_view(pool, &stats, now))
                            .collect(),
                    );
                });
            }
            Command::Listeners(reply) => {
                let listeners = self.listeners();
                self.inspect(Inspect::Stats, move |answers| {
                    let stats = sum(answers);
                    let view = |(id, view): (usize, ListenerView)| {
                        let stats = stats.listeners.get(id).cloned().unwrap_or_default();
                        ListenerView {
                            sessions: stats.live,
                            sessions_total: stats.sessions,
                            ..view
                        }
                    };
                    let _ = reply.send(listeners.into_iter().map(view).collect());
                });
            }
            Command::Sessions(filter, reply) => {
                let limit = filter.limit;
                self.inspect(Inspect::Sessions(filter), move |answers| {
                    let _ = reply.send(gather(answers, limit));
                });
            }
            Command::Set {
                pool,
                backend,
                admin,
                reply,
            } => {
                let _ = reply.send(self.set(&pool, &backend, admin));
            }
            Command::Reload(reply) => self.reload(reply),
            Command::Metrics(reply) => {
                let metrics = self.metrics();
                let (pools, now) = (self.fleet.view(), self.clock.now());
                let listeners = self.listeners();
                self.inspect(Inspect::Stats, move |answers| {
                    let names = listeners.into_iter().map(|(id, view)| (id, view.name));
                    let _ = reply.send(whole(metrics, &pools, names.collect(), answers, now));
                });
            }
            Command::Ready(reply) => {
                let _ = reply.send(!self.stopping);
            }
        }
    }

    fn set(&mut self, pool: &str, backend: &str, admin: Admin) -> Result<(), Refusal> {
        let set = self.fleet.set(self.clock.now(), pool, backend, admin);
        set.map_err(|error| match error {
            FleetError::UnknownBackend => Refusal::UnknownBackend(pool.into(), backend.into()),
            _ => Refusal::UnknownPool(pool.into()),
        })
    }

    /// Asks all workers, and goes on with what those say that answer in time. This thread does not wait.
    fn inspect(&self, what: Inspect, then: impl FnOnce(Vec<Inspection>) + 'static) {
        let (sender, mut answers) = mpsc::channel(self.remotes.len().max(1));
        self.tell_all(|| Control::Inspect(what.clone(), sender.clone()));
        drop(sender);
        let deadline = Instant::now() + PATIENCE;
        tokio::task::spawn_local(async move {
            let mut all = Vec::new();
            while let Ok(Some(answer)) = timeout_at(deadline.into(), answers.recv()).await {
                all.push(answer);
            }
            then(all);
        });
    }

    /// Listeners with their ids, in the order of the configuration.
    fn listeners(&self) -> Vec<(usize, ListenerView)> {
        let roster = self.fleet.roster();
        let by_name: BTreeMap<&str, usize> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(id, slot)| Some((&*slot.as_ref()?.name, id)))
            .collect();
        let view = |settings: &ListenerSettings| {
            let engine = &settings.engine;
            let id = *by_name.get(&*engine.name)?;
            let address = self.slots[id].as_ref()?.address;
            let pool = roster
                .pool(engine.pool)
                .map(|pool| String::from(&*pool.name));
            let view = ListenerView {
                name: String::from(&*engine.name),
                address: address.to_string(),
                pool: pool.unwrap_or_default(),
                sessions: 0,
                sessions_total: 0,
                max_sessions: engine.max_sessions as u64,
            };
            Some((id, view))
        };
        self.settings.listeners.iter().filter_map(view).collect()
    }

    /// What does not have to be asked for.
    fn metrics(&self) -> Metrics {
        let dropped = self.log.as_ref().map_or(0, |(log, _)| log.dropped());
        Metrics {
            reloads: self.counters.reloads,
            generation: self.counters.generation,
            last_reload_seconds: self.counters.last_reload,
            session_log_dropped: self.counters.log_dropped + dropped,
            workers: self.remotes.len() as u64,
            start_seconds: self.counters.start,
            stopping: self.stopping,
            ..Metrics::default()
        }
    }
}

fn sum(answers: Vec<Inspection>) -> Stats {
    let mut stats = Stats::default();
    for answer in answers {
        stats.add(&answer.stats);
    }
    stats
}

fn gather(answers: Vec<Inspection>, limit: usize) -> SessionsView {
    let total = answers.iter().map(|answer| answer.total).sum();
    let sessions = answers.into_iter().flat_map(|answer| answer.sessions);
    SessionsView {
        sessions: sessions.take(limit).collect(),
        total,
    }
}

fn whole(
    mut metrics: Metrics,
    pools: &[Pool],
    listeners: Vec<(usize, String)>,
    answers: Vec<Inspection>,
    now: Timestamp,
) -> Metrics {
    for answer in &answers {
        metrics.bytes_copied += answer.bytes_copied;
        metrics.bytes_spliced += answer.bytes_spliced;
    }
    let stats = sum(answers);
    for (id, name) in listeners {
        let stats = stats.listeners.get(id).cloned().unwrap_or_default();
        metrics.listeners.push((name, stats));
    }
    for pool in pools {
        for backend in &pool.backends {
            let fleet = FleetStats {
                downs: backend.downs,
                ejections: backend.ejections,
                probe_nanos: nanos(backend.last_probe.as_ref().map(|(_, took)| *took)),
            };
            let counted = of(&stats, backend.incarnation);
            let names = (pool.name.clone(), backend.id.clone());
            metrics.backends.push((names.0, names.1, counted, fleet));
        }
        metrics.pools.push(pool_view(pool, &stats, now));
    }
    metrics
}

fn nanos(of: Option<Duration>) -> u64 {
    of.map_or(0, |of| u64::try_from(of.as_nanos()).unwrap_or(u64::MAX))
}

fn of(stats: &Stats, backend: Incarnation) -> BackendStats {
    stats.backends.get(&backend).cloned().unwrap_or_default()
}

fn pool_view(pool: &Pool, stats: &Stats, now: Timestamp) -> PoolView {
    let backends = pool.backends.iter();
    PoolView {
        name: pool.name.clone(),
        policy: policy(pool.policy).into(),
        panic: pool.panic,
        backends: backends
            .map(|backend| backend_view(backend, &of(stats, backend.incarnation), now))
            .collect(),
    }
}

const fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::HashRing { .. } => "hash-ring",
        Policy::Maglev => "maglev",
        Policy::RoundRobin => "round-robin",
        Policy::LeastSessions => "least-sessions",
        Policy::PowerOfTwo => "p2c",
        Policy::Source { .. } => "source",
    }
}

fn backend_view(backend: &Backend, stats: &BackendStats, now: Timestamp) -> BackendView {
    let admin = match backend.admin {
        Admin::Ready => "ready",
        Admin::Drain => "drain",
        Admin::Maint => "maint",
    };
    let last_probe = backend
        .last_probe
        .as_ref()
        .map(|(outcome, _)| match outcome {
            ProbeOutcome::Passed => "passed".to_owned(),
            ProbeOutcome::Failed(what) | ProbeOutcome::Inconclusive(what) => what.to_string(),
        });
    BackendView {
        id: backend.id.clone(),
        address: backend.address.map(|address| address.to_string()),
        weight: backend.weight,
        state: backend.state.name().into(),
        state_seconds: now.since(backend.since).as_secs(),
        admin: admin.into(),
        sessions: backend.sessions,
        sessions_total: stats.sessions,
        bytes_forward: stats.forward,
        bytes_return: stats.back,
        probes_passed: backend.probes_passed,
        probes_failed: backend.probes_failed,
        last_probe,
    }
}

/// Whether a session is wanted, by its names.
pub(crate) fn fits(
    filter: &SessionFilter,
    listener: &str,
    pool: &str,
    backend: Option<&str>,
) -> bool {
    let same = |wanted: &Option<String>, is: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| Some(wanted) == is)
    };
    same(&filter.listener, Some(listener))
        && same(&filter.pool, Some(pool))
        && same(&filter.backend, backend)
}
