//! The top level of a configuration, and what its parts have to do with each other.

use std::time::Duration;

use tlb_engine::config::Limits;
use tlb_engine::drive::Mode;

use super::admin;
use super::diagnostic::quote;
use super::framing::{self, Framings};
use super::listeners::{self, Known};
use super::pools;
use super::reader;
use super::report::Report;
use super::table::{TOP, Table};
use super::tree::{Entry, Value};
use super::values::ShowSize;
use super::{LARGEST, ListenerSettings, Settings};
use crate::registry::UnpackRegistry;

/// Reads all of it. `None` only with an error noted; a `Some` is of no use if one was.
pub(super) fn read(
    entries: &[Entry],
    registered: &UnpackRegistry,
    report: &mut Report<'_>,
) -> Option<Settings> {
    let mut table = Table::new(&TOP, 0..0, entries);
    let workers = table.get("workers", None, report, |node, report| {
        reader::integer(node, 1..=1024, report).map(Some)
    });
    let cpus = cpus(&table, report);
    let incoming_cpu = table.get("incoming-cpu", false, report, reader::boolean);
    if incoming_cpu && cpus.is_empty() && !report.failed() {
        report
            .error(
                &table.span_of("incoming-cpu"),
                "no worker has a CPU of its own",
            )
            .help("set `cpus`, as in cpus = [0, 1], or remove `incoming-cpu`");
    }
    let relay = table.get("relay", Mode::default(), report, |node, report| {
        let words = [
            ("auto", Mode::Auto),
            ("copy", Mode::Copy),
            ("splice", Mode::Splice),
        ];
        reader::word(node, &words, report)
    });
    let spin = table.get("spin-us", 0, report, |node, report| {
        reader::integer(node, 0..=1000, report)
    });
    let memory_span = table.span_of("preread-memory");
    let limits = limits(&mut table, report);
    let unpacks = table.take("unpack");
    let mut framings = unpacks.map_or_else(Framings::new, |node| {
        framing::read(node, registered, report)
    });
    let pool_list = table.take("pool");
    let mut pools = pool_list.map_or_else(Vec::new, |node| pools::read(node, report));
    // With an API, listeners may come by a reload.
    let listener_list = if table.take("admin").is_some() {
        table.take("listener")
    } else {
        table.need("listener", "a [[listener]] with name, bind and pool")
    };
    let mut known = Known {
        framings: &mut framings,
        pools: &mut pools,
        registered,
    };
    let listeners =
        listener_list.map_or_else(Vec::new, |node| listeners::read(node, &mut known, report));
    if let (Some(node), true) = (listener_list, listeners.is_empty() && !report.failed()) {
        report
            .error(&node.span, "no listener")
            .help("add a [[listener]] with name, bind and pool");
    }
    let admin = table.take("admin");
    let admin = admin.and_then(|node| admin::read(node, &listeners, report));
    let session_log = table.take("session-log");
    let session_log = session_log.and_then(|node| admin::session_log(node, report));
    table.finish(report);
    unused(&framings, &pools, report);
    hurries(&pools, &listeners, report);
    let largest = listeners
        .iter()
        .map(|one| one.engine.preread_limit)
        .max()
        .unwrap_or(0);
    if limits.preread_memory < largest {
        let largest = ShowSize(largest as u64);
        report
            .error(
                &memory_span,
                "less preread memory than one session may need",
            )
            .help(format!(
                "set preread-memory = \"{largest}\" (the largest preread-limit) or more"
            ));
    }
    Some(Settings {
        workers,
        cpus,
        incoming_cpu,
        relay,
        spin: Duration::from_micros(spin as u64),
        listeners,
        pools: pools.into_iter().map(|draft| draft.settings).collect(),
        limits,
        admin,
        session_log,
        warnings: Vec::new(),
    })
}

/// The CPUs that workers are kept to.
fn cpus(table: &Table<'_>, report: &mut Report<'_>) -> Vec<usize> {
    let mut cpus = Vec::new();
    let Some(node) = table.take("cpus") else {
        return cpus;
    };
    let nodes = match &node.value {
        Value::Array(nodes) if !nodes.is_empty() => nodes,
        Value::Array(_) => {
            report
                .error(&node.span, "no CPU")
                .help("remove `cpus`, and the kernel runs the workers where it likes");
            return cpus;
        }
        _ => {
            reader::wrong_kind(node, "a list of CPUs", report).help("write a list, as in [0, 1]");
            return cpus;
        }
    };
    for node in nodes {
        match reader::integer(node, 0..=1023, report) {
            Some(cpu) if cpus.contains(&cpu) => {
                report
                    .error(&node.span, format!("CPU {cpu} given twice"))
                    .help("remove one of the two: if there are more workers than CPUs, they share them");
            }
            Some(cpu) => cpus.push(cpu),
            None => {}
        }
    }
    cpus
}

fn limits(table: &mut Table<'_>, report: &mut Report<'_>) -> Limits {
    let seconds = Duration::from_secs;
    Limits {
        preread_memory: table.get(
            "preread-memory",
            Limits::PREREAD_MEMORY,
            report,
            |node, report| reader::size(node, 1..=LARGEST, report),
        ),
        reset_timeout: table.get(
            "reset-timeout",
            Limits::RESET_TIMEOUT,
            report,
            |node, report| reader::duration(node, Duration::from_millis(1)..=seconds(3600), report),
        ),
        shutdown_timeout: table.get(
            "shutdown-timeout",
            Limits::SHUTDOWN_TIMEOUT,
            report,
            |node, report| reader::duration(node, Duration::ZERO..=seconds(86_400), report),
        ),
    }
}

/// A pool whose backends may get a preface twice, while none of its listeners may have that happen.
fn hurries(pools: &[pools::Draft], listeners: &[ListenerSettings], report: &mut Report<'_>) {
    if report.failed() {
        return;
    }
    let wanted = |pool: &&pools::Draft| pool.settings.failover.fast_open;
    for (index, pool) in pools.iter().enumerate().filter(|(_, pool)| wanted(pool)) {
        let mut of_pool = listeners
            .iter()
            .filter(|it| it.engine.pool.index() == index);
        if !of_pool.any(|listener| listener.engine.replay) {
            report
                .warning(&pool.fast_open, "no listener of this pool lets it")
                .help("set replay-first-frame = true in a listener whose first frame may arrive twice, or remove `fast-open`");
        }
    }
}

/// What nobody uses is probably misspelt somewhere; where there are errors, they say more.
fn unused(framings: &Framings, pools: &[pools::Draft], report: &mut Report<'_>) {
    if report.failed() {
        return;
    }
    for (name, framing) in framings.iter().filter(|(_, framing)| !framing.used) {
        report
            .warning(
                &framing.span,
                format!("no listener uses the unpack {}", quote(name)),
            )
            .help("name it in the `unpack` of a listener, or remove it");
    }
    for pool in pools.iter().filter(|pool| !pool.used) {
        let name = quote(&pool.settings.name);
        report
            .warning(&pool.span, format!("no listener uses the pool {name}"))
            .help("name it in the `pool` of a listener, or remove it");
    }
}
