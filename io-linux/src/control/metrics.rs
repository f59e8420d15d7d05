//! What is counted, in the text format of Prometheus.
//!
//! It is made from what there is when it is asked for: the series of a backend, pool or listener go with it. No label
//! holds what clients choose, such as their addresses or keys.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use tlb_engine::fleet::State;
use tlb_engine::stats::{BackendStats, LastedStats, ListenerStats};

use super::view::{BackendView, FleetStats, Metrics};

mod process;
#[cfg(test)]
mod tests;

/// The format, as HTTP names it.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All states, as `state` labels have them.
const STATES: [State; 6] = [
    State::Up,
    State::Drain,
    State::Ejected,
    State::Down,
    State::Unresolved,
    State::Maint,
];

/// Writes all of it.
pub(super) fn render(metrics: &Metrics) -> String {
    let mut text = Text::default();
    whole(&mut text, metrics);
    process::render(&mut text);
    listeners(&mut text, &metrics.listeners);
    pools(&mut text, metrics);
    backends(&mut text, metrics);
    text.0
}

/// What concerns the process as a whole.
fn whole(text: &mut Text, metrics: &Metrics) {
    text.family("tlb_build_info", GAUGE, "The version that runs; always 1.");
    text.sample("", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.one(
        "process_start_time_seconds",
        GAUGE,
        "When the process began, in seconds since 1970.",
        metrics.start_seconds,
    );
    text.one("tlb_workers", GAUGE, "Workers.", metrics.workers);
    text.one(
        "tlb_stopping",
        GAUGE,
        "Whether the process is stopping.",
        u8::from(metrics.stopping),
    );
    text.one(
        "tlb_config_generation",
        GAUGE,
        "The number of the configuration; the first is 1.",
        metrics.generation,
    );
    text.family(
        "tlb_config_reloads_total",
        COUNTER,
        "Configurations after the first, by what became of them.",
    );
    text.sample("", &[("result", "applied")], metrics.reloads.0);
    text.sample("", &[("result", "refused")], metrics.reloads.1);
    text.one(
        "tlb_config_last_reload_success_timestamp_seconds",
        GAUGE,
        "When the configuration was put to work, in seconds since 1970.",
        metrics.last_reload_seconds,
    );
    text.one(
        "tlb_copy_bytes_total",
        COUNTER,
        "Bytes that were relayed through a buffer.",
        metrics.bytes_copied,
    );
    text.one(
        "tlb_splice_bytes_total",
        COUNTER,
        "Bytes that were relayed through a pipe.",
        metrics.bytes_spliced,
    );
    text.one(
        "tlb_session_log_dropped_lines_total",
        COUNTER,
        "Lines that the session log dropped.",
        metrics.session_log_dropped,
    );
}

/// A number of a listener: its metric's name, kind, help, and where it is.
type ListenerField = (
    &'static str,
    &'static str,
    &'static str,
    fn(&ListenerStats) -> u64,
);

const LISTENER: [ListenerField; 6] = [
    (
        "tlb_listener_connections_total",
        COUNTER,
        "Connections that became sessions.",
        |stats| stats.sessions,
    ),
    (
        "tlb_listener_connections_active",
        GAUGE,
        "Live sessions.",
        |stats| stats.live,
    ),
    (
        "tlb_listener_connections_shed_total",
        COUNTER,
        "Connections that were turned away because their address had its share.",
        |stats| stats.shed,
    ),
    (
        "tlb_listener_accept_pauses_total",
        COUNTER,
        "Times that accepting paused because the host ran out of something.",
        |stats| stats.accept_pauses,
    ),
    (
        "tlb_listener_skipped_bytes_total",
        COUNTER,
        "Bytes of garbage before first frames.",
        |stats| stats.skipped,
    ),
    (
        "tlb_listener_handed_off_total",
        COUNTER,
        "Sessions that were handed to the kernel.",
        |stats| stats.handed_off,
    ),
];

/// What concerns listeners.
fn listeners(text: &mut Text, listeners: &[(String, ListenerStats)]) {
    for (name, kind, help, field) in LISTENER {
        text.family(name, kind, help);
        for (listener, stats) in listeners {
            text.sample("", &[("listener", listener)], field(stats));
        }
    }
    text.family(
        "tlb_listener_bytes_total",
        COUNTER,
        "Bytes that were relayed: forward to backends, return to clients.",
    );
    for (listener, stats) in listeners {
        for (direction, bytes) in [("forward", stats.forward), ("return", stats.back)] {
            text.sample(
                "",
                &[("listener", listener), ("direction", direction)],
                bytes,
            );
        }
    }
    text.family(
        "tlb_listener_sessions_closed_total",
        COUNTER,
        "Sessions that ended, by why.",
    );
    for (listener, stats) in listeners {
        for (reason, count) in &stats.closed {
            text.sample("", &[("listener", listener), ("reason", reason)], count);
        }
    }
    text.family(
        "tlb_session_duration_seconds",
        "histogram",
        "How long ended sessions lasted.",
    );
    for (listener, stats) in listeners {
        text.histogram(("listener", listener), &stats.lasted);
    }
}

/// What concerns pools.
fn pools(text: &mut Text, metrics: &Metrics) {
    text.family("tlb_pool_members", GAUGE, "Backends, by how they stand.");
    for pool in &metrics.pools {
        for state in STATES.map(State::name) {
            let members = pool.backends.iter();
            let count = members.filter(|backend| backend.state == state).count();
            text.sample("", &[("pool", &pool.name), ("state", state)], count);
        }
    }
    text.family(
        "tlb_pool_panic",
        GAUGE,
        "Whether too few backends are up, so that all are used.",
    );
    for pool in &metrics.pools {
        text.sample("", &[("pool", &pool.name)], u8::from(pool.panic));
    }
}

/// A backend: its pool's name, how operators see it, and what was counted.
struct Backend<'a> {
    pool: &'a str,
    view: &'a BackendView,
    stats: BackendStats,
    fleet: FleetStats,
}

/// As [`ListenerField`], of a backend.
type BackendField = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Backend<'_>) -> u64,
);

const BACKEND: [BackendField; 13] = [
    (
        "tlb_backend_up",
        GAUGE,
        "Whether it is up or draining.",
        |backend| u64::from(matches!(backend.view.state.as_str(), "up" | "drain")),
    ),
    (
        "tlb_backend_weight",
        GAUGE,
        "Its share, relative to the others'.",
        |backend| u64::from(backend.view.weight),
    ),
    (
        "tlb_backend_connections_total",
        COUNTER,
        "Sessions that it took.",
        |backend| backend.stats.sessions,
    ),
    (
        "tlb_backend_connections_active",
        GAUGE,
        "Live sessions, attempts to connect included.",
        |backend| backend.stats.live,
    ),
    (
        "tlb_backend_connect_attempts_total",
        COUNTER,
        "Attempts to connect.",
        |backend| backend.stats.attempts,
    ),
    (
        "tlb_backend_redispatches_total",
        COUNTER,
        "Attempts to connect that followed another's failure.",
        |backend| backend.stats.redispatched,
    ),
    (
        "tlb_backend_replays_total",
        COUNTER,
        "First frames that were sent to another backend because it ended before its first byte.",
        |backend| backend.stats.replayed,
    ),
    (
        "tlb_backend_admission_waits_total",
        COUNTER,
        "Sessions that waited for its admission.",
        |backend| backend.stats.admission_waits,
    ),
    (
        "tlb_backend_checks_passed_total",
        COUNTER,
        "Probes that passed.",
        |backend| backend.view.probes_passed,
    ),
    (
        "tlb_backend_check_failures_total",
        COUNTER,
        "Probes that failed.",
        |backend| backend.view.probes_failed,
    ),
    (
        "tlb_backend_downs_total",
        COUNTER,
        "Times that its probes took it down.",
        |backend| backend.fleet.downs,
    ),
    (
        "tlb_backend_ejections_total",
        COUNTER,
        "Times that workers ejected it.",
        |backend| backend.fleet.ejections,
    ),
    (
        "tlb_backend_state_age_seconds",
        GAUGE,
        "How long it has been in its state.",
        |backend| backend.view.state_seconds,
    ),
];

/// What concerns backends: those that the pools have now.
fn backends(text: &mut Text, metrics: &Metrics) {
    let mut counted = BTreeMap::new();
    for (pool, id, stats, fleet) in &metrics.backends {
        counted.insert((pool.as_str(), id.as_str()), (stats, fleet));
    }
    let mut backends = Vec::new();
    for pool in &metrics.pools {
        for view in &pool.backends {
            let found = counted.get(&(pool.name.as_str(), view.id.as_str()));
            let (stats, fleet) = found.map_or_else(Default::default, |(stats, fleet)| {
                ((*stats).clone(), **fleet)
            });
            let pool = pool.name.as_str();
            backends.push(Backend {
                pool,
                view,
                stats,
                fleet,
            });
        }
    }
    for (name, kind, help, field) in BACKEND {
        text.family(name, kind, help);
        for backend in &backends {
            text.sample("", &backend.labels(), field(backend));
        }
    }
    labelled_backends(text, &backends);
}

/// What has more labels than the backend's.
fn labelled_backends(text: &mut Text, backends: &[Backend<'_>]) {
    text.family(
        "tlb_backend_state",
        GAUGE,
        "1 for the state in which it is, 0 for the others.",
    );
    for backend in backends {
        let [pool, id] = backend.labels();
        for state in STATES.map(State::name) {
            let is = u8::from(backend.view.state == state);
            text.sample("", &[pool, id, ("state", state)], is);
        }
    }
    text.family(
        "tlb_backend_bytes_total",
        COUNTER,
        "Bytes that were relayed: forward to it, return from it.",
    );
    for backend in backends {
        let [pool, id] = backend.labels();
        let stats = &backend.stats;
        text.sample("", &[pool, id, ("direction", "forward")], stats.forward);
        text.sample("", &[pool, id, ("direction", "return")], stats.back);
    }
    text.family(
        "tlb_backend_connect_errors_total",
        COUNTER,
        "Attempts to connect that failed, by why.",
    );
    for backend in backends {
        let [pool, id] = backend.labels();
        for (reason, count) in &backend.stats.failed {
            text.sample("", &[pool, id, ("reason", reason)], count);
        }
    }
    text.family(
        "tlb_backend_check_duration_seconds",
        GAUGE,
        "How long its last probe took.",
    );
    for backend in backends.iter().filter(|one| one.view.last_probe.is_some()) {
        let seconds = seconds(u128::from(backend.fleet.probe_nanos));
        text.sample("", &backend.labels(), seconds);
    }
}

impl Backend<'_> {
    fn labels(&self) -> [(&str, &str); 2] {
        [("pool", self.pool), ("backend", &self.view.id)]
    }
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

/// The text so far, and the family that samples go to.
#[derive(Debug, Default)]
struct Text(String, &'static str);

impl Text {
    /// Begins a family of samples. `help` has neither backslash nor newline.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.1 = name;
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// A family of one sample.
    fn one(&mut self, name: &'static str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample("", &[], value);
    }

    /// A sample of the family; `suffix` follows the family's name.
    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let family = self.1;
        self.put(format_args!("{family}{suffix}"));
        for (number, (label, text)) in labels.iter().enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            self.put(format_args!("{before}{label}=\"{}\"", escape(text)));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        self.put(format_args!("{after} {value}\n"));
    }

    /// The samples of a histogram.
    fn histogram(&mut self, label: (&str, &str), lasted: &LastedStats) {
        let mut sum = 0;
        for (at, count) in lasted.counts.iter().enumerate() {
            sum += count;
            let bound = LastedStats::BOUNDS.get(at).map_or_else(
                || "+Inf".to_owned(),
                |millis| seconds(u128::from(*millis) * 1_000_000).to_string(),
            );
            self.sample("_bucket", &[label, ("le", &bound)], sum);
        }
        self.sample("_sum", &[label], seconds(lasted.nanos));
        self.sample("_count", &[label], sum);
    }

    fn put(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = self.0.write_fmt(what);
    }
}

/// Nanoseconds in seconds; beyond 2^53 ns, to 16 digits.
fn seconds(nanos: u128) -> f64 {
    nanos as f64 / 1e9
}

/// A label's value, in quotes.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
