//! `[[listener]]`: where clients come in.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU32};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tlb_engine::config::Listener;
use tlb_engine::ids::PoolId;
use tlb_engine::unpack::Unpack;

use super::diagnostic::quote;
use super::framing::Framings;
use super::pools;
use super::reader;
use super::report::{Report, Span};
use super::table::{LISTENER, Table, nearest};
use super::tree::Node;
use super::values::{self, ShowSize};
use super::{ListenerSettings, PREREAD_LIMIT_MAX};
use crate::congestion::Congestion;
use crate::registry::UnpackRegistry;

/// Default of `keepalive`.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(60);

const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// What the kernel takes as `TCP_KEEPIDLE`.
const KEEPALIVES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(32_767);
/// What the kernel takes as `TCP_USER_TIMEOUT`: milliseconds in an `int`, less a margin.
const USER_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 86_400);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=YEAR;

/// What listeners may name.
#[derive(Debug)]
pub(super) struct Known<'k> {
    pub(super) framings: &'k mut Framings,
    pub(super) pools: &'k mut [pools::Draft],
    pub(super) registered: &'k UnpackRegistry,
}

/// Reads the list of listeners.
pub(super) fn read(
    node: &Node,
    known: &mut Known<'_>,
    report: &mut Report<'_>,
) -> Vec<ListenerSettings> {
    let mut listeners: Vec<ListenerSettings> = Vec::new();
    let mut names: HashMap<Box<str>, Span> = HashMap::new();
    let mut binds: HashMap<u16, Vec<(SocketAddr, Span)>> = HashMap::new();
    for node in reader::tables(node, "listener", report) {
        if report.full() {
            break;
        }
        let Some(draft) = listener(node, known, report) else {
            continue;
        };
        if let Some(first) = names.get(&draft.settings.engine.name) {
            let name = quote(&draft.settings.engine.name);
            report
                .error(&draft.name_span, format!("duplicate listener name {name}"))
                .help("give one of the two another name")
                .see("first used here", first);
        }
        let bind = draft.settings.bind;
        let others = binds.entry(bind.port()).or_default();
        let other = others.iter().find(|(other, _)| overlap(*other, bind));
        if let Some((other, span)) = other {
            let message = if *other == bind {
                format!("two listeners on {bind}")
            } else {
                format!("{bind} overlaps {other} of another listener")
            };
            report
                .error(&draft.bind_span, message)
                .help("give one of the two listeners another port, or an address of its own")
                .see("the other listener's address", span);
        }
        others.push((bind, draft.bind_span));
        names
            .entry(draft.settings.engine.name.clone())
            .or_insert(draft.name_span);
        listeners.push(draft.settings);
    }
    listeners
}

/// Whether the kernel refuses to listen on both. `[::]` takes IPv4 clients too.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    if a.port() != b.port() || a.port() == 0 {
        return false;
    }
    let covers = |wide: SocketAddr, other: SocketAddr| match wide.ip() {
        IpAddr::V4(ip) => ip.is_unspecified() && other.ip().to_canonical().is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    let scope = |address: SocketAddr| match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    };
    let same = a.ip().to_canonical() == b.ip().to_canonical() && scope(a) == scope(b);
    same || covers(a, b) || covers(b, a)
}

/// A listener, and where its name and address are.
struct Draft {
    settings: ListenerSettings,
    name_span: Span,
    bind_span: Span,
}

fn listener(node: &Node, known: &mut Known<'_>, report: &mut Report<'_>) -> Option<Draft> {
    let mut table = Table::of(&LISTENER, node, report)?;
    let name_node = table.need("name", "name = \"devices\"");
    let name = name_node.and_then(|node| reader::name(node, report));
    let bind_node = table.need("bind", "bind = \"127.0.0.1:8011\"");
    let bind =
        bind_node.and_then(|node| reader::parsed(node, "\"127.0.0.1:8011\"", values::bind, report));
    let limit_node = table.take("preread-limit");
    let limit = limit_node.and_then(|node| reader::size(node, 1..=PREREAD_LIMIT_MAX, report));
    let limit = limit.unwrap_or(Listener::PREREAD_LIMIT);
    let unpack_node = table.take("unpack");
    let at_limit = limit_node
        .or(unpack_node)
        .map_or(&node.span, |node| &node.span);
    let unpack = unpack_node.and_then(|node| read_unpack(node, (limit, at_limit), known, report));
    let pool_node = table.need("pool", "pool = \"stations\"");
    let pool = pool_node.and_then(|node| read_pool(node, known, report));
    if let (None, Some(node), Some(pool)) = (unpack_node, pool_node, pool) {
        needs_key(node, &known.pools[pool.index()], report);
    }
    let mut engine = Listener::new(
        name.clone().unwrap_or_default(),
        unpack,
        pool.unwrap_or(PoolId(0)),
    );
    engine.preread_limit = limit;
    limits(&mut engine, &mut table, report);
    let keepalive = table.get("keepalive", Some(KEEPALIVE), report, keepalive);
    let user_timeout = table.get("user-timeout", None, report, |node, report| {
        reader::duration_or_off(node, USER_TIMEOUTS, report)
    });
    let congestion = table.get("congestion", None, report, congestion);
    let admission = table.get("admission", None, report, |node, report| {
        reader::admission(node, report).map(Some)
    });
    let per_source = table.get("max-sessions-per-source", None, report, |node, report| {
        reader::integer(node, 1..=100_000_000, report).map(NonZeroU32::new)
    });
    table.finish(report);
    name?;
    Some(Draft {
        settings: ListenerSettings {
            bind: bind?,
            engine,
            keepalive,
            user_timeout,
            congestion,
            admission,
            per_source,
        },
        name_span: name_node?.span.clone(),
        bind_span: bind_node?.span.clone(),
    })
}

/// What the engine alone needs to know.
fn limits(engine: &mut Listener, table: &mut Table<'_>, report: &mut Report<'_>) {
    let timeout = |node: &Node, report: &mut Report<'_>| reader::duration(node, TIMEOUTS, report);
    engine.preread_timeout = table.get(
        "preread-timeout",
        Listener::PREREAD_TIMEOUT,
        report,
        timeout,
    );
    engine.half_close_timeout = table.get(
        "half-close-timeout",
        Listener::HALF_CLOSE_TIMEOUT,
        report,
        timeout,
    );
    engine.idle_timeout = table.get("idle-timeout", None, report, |node, report| {
        reader::duration_or_off(node, TIMEOUTS, report)
    });
    engine.max_sessions = table.get(
        "max-sessions",
        Listener::MAX_SESSIONS,
        report,
        |node, report| reader::integer(node, 1..=100_000_000, report),
    );
    engine.replay = table.get("replay-first-frame", false, report, reader::boolean);
    engine.allow_address = table.get("allow-address", false, report, reader::boolean);
    engine.hand_off = table.get("hand-off", None, report, |node, report| {
        reader::integer(node, 1..=255, report).map(NonZeroU8::new)
    });
}

fn keepalive(node: &Node, report: &mut Report<'_>) -> Option<Option<Duration>> {
    let time = reader::duration_or_off(node, KEEPALIVES, report)?;
    if time.is_some_and(|time| time.subsec_nanos() > 0) {
        report
            .error(&node.span, "the kernel counts keepalive in whole seconds")
            .help("write it in seconds, as in \"60s\"");
        return None;
    }
    Some(time)
}

fn congestion(node: &Node, report: &mut Report<'_>) -> Option<Option<Congestion>> {
    let name = reader::string(node, "\"cubic\"", report)?;
    let congestion = Congestion::new(name);
    if congestion.is_none() {
        report
            .error(&node.span, format!("{} is no name of a congestion control", quote(name)))
            .help("those that this host allows are in /proc/sys/net/ipv4/tcp_allowed_congestion_control");
        return None;
    }
    Some(congestion)
}

/// The unpack of that name, which must come to a verdict within the preread limit.
fn read_unpack(
    node: &Node,
    (limit, at_limit): (usize, &Span),
    known: &mut Known<'_>,
    report: &mut Report<'_>,
) -> Option<Arc<dyn Unpack>> {
    let name = reader::string(node, "\"station\"", report)?;
    if let Some(framing) = known.framings.get_mut(name) {
        framing.used = true;
        let built = framing.built.clone()?;
        if built.needs > limit {
            let (needs, limit) = (ShowSize(built.needs as u64), ShowSize(limit as u64));
            let message = format!("a preread limit of {limit} is too small for this unpack");
            report
                .error(at_limit, message)
                .help(format!(
                    "set preread-limit = \"{needs}\" or more: no frame routes before"
                ))
                .see("the unpack", &framing.span);
        }
        return Some(built.unpack);
    }
    if let Some(unpack) = known.registered.get(name) {
        return Some(Arc::clone(unpack));
    }
    let message = format!("unknown unpack {}", quote(name));
    let mut names: Vec<&str> = known.framings.keys().map(String::as_str).collect();
    names.extend(known.registered.names());
    let error = report.error(&node.span, message);
    suggest(error, name, "unpack", &names);
    if names.is_empty() {
        error.help(format!(
            "add [unpack.{name}] to this file, or remove `unpack`"
        ));
    }
    None
}

fn read_pool(node: &Node, known: &mut Known<'_>, report: &mut Report<'_>) -> Option<PoolId> {
    let name = reader::string(node, "\"stations\"", report)?;
    let named = |pool: &pools::Draft| &*pool.settings.name == name;
    if let Some(at) = known.pools.iter().position(named) {
        known.pools[at].used = true;
        return Some(PoolId(u32::try_from(at).ok()?));
    }
    let names: Vec<&str> = known
        .pools
        .iter()
        .map(|pool| &*pool.settings.name)
        .collect();
    let error = report.error(&node.span, format!("unknown pool {}", quote(name)));
    suggest(error, name, "pool", &names);
    if names.is_empty() {
        error.help("add a [[pool]] of this name to this file");
    }
    None
}

/// Adds which of `names` was probably meant, and which there are.
fn suggest(error: &mut super::report::Finding, name: &str, what: &str, names: &[&str]) {
    const SHOWN: usize = 10;
    if let Some(meant) = nearest(name, names.iter().copied()) {
        error.help(format!("did you mean \"{meant}\"?"));
    }
    if !names.is_empty() {
        let more = if names.len() > SHOWN { ", …" } else { "" };
        let shown: Vec<String> = names.iter().take(SHOWN).map(|name| quote(name)).collect();
        error.help(format!("known {what}s: {}{more}", shown.join(", ")));
    }
}

/// Without an unpack there is no key, and some policies are nothing without one.
fn needs_key(node: &Node, pool: &pools::Draft, report: &mut Report<'_>) {
    if pool.settings.policy.needs_key() {
        let message = format!(
            "pool {} routes by key, and there is none",
            quote(&pool.settings.name)
        );
        report
            .error(&node.span, message)
            .help("give the listener an `unpack`, which finds the key in the client's first bytes")
            .help(
                "or give the pool a policy without a key: \
                 \"source\", \"least-sessions\", \"p2c\" or \"round-robin\"",
            )
            .see("the pool", &pool.span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_what_the_kernel_refuses() {
        for (a, b, both) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "0.0.0.0:80", true),
            ("[::]:80", "[::1]:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("0.0.0.0:80", "[::ffff:127.0.0.1]:80", true),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
            ("[fe80::1%2]:80", "[fe80::1%3]:80", false),
            ("0.0.0.0:0", "0.0.0.0:0", false),
        ] {
            let (a, b) = (
                a.parse().expect("an address"),
                b.parse().expect("an address"),
            );
            assert_eq!(overlap(a, b), both, "{a} {b}");
            assert_eq!(overlap(b, a), both, "{b} {a}");
        }
    }
}
