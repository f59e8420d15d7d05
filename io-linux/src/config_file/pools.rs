//! `[[pool]]`: backends, and how sessions are spread over them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tlb_engine::balance::{Policy, PolicyError};
use tlb_engine::config::Failover;
use tlb_engine::fleet::OnDown;
use tlb_engine::health::Passive;

use super::diagnostic::{count, quote};
use super::health;
use super::reader;
use super::report::{Report, Span};
use super::table::{BACKEND, POOL, Table};
use super::tree::{Node, Value};
use super::values;
use super::{Address, BackendSettings, PoolSettings};

const SLOW_STARTS: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(86_400);
/// The longest is what the back-off of a backend that keeps failing is cut to.
const EJECTIONS: RangeInclusive<Duration> = Duration::from_millis(1)..=Passive::BACK_OFF_MAX;

/// A pool of the file.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) settings: PoolSettings,
    /// Where its name is.
    pub(super) span: Span,
    /// Whether a listener names it.
    pub(super) used: bool,
    /// Where its `fast-open` is.
    pub(super) fast_open: Span,
}

/// Reads the list of pools. A pool that is wrong is there all the same, so that listeners may name
/// it.
pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Vec<Draft> {
    let mut pools: Vec<Draft> = Vec::new();
    let mut names: HashMap<Box<str>, Span> = HashMap::new();
    for node in reader::tables(node, "pool", report) {
        if report.full() {
            break;
        }
        let Some(draft) = pool(node, report) else {
            continue;
        };
        let name = &draft.settings.name;
        if let Some(first) = names.get(name) {
            report
                .error(&draft.span, format!("duplicate pool name {}", quote(name)))
                .help("give one of the two another name")
                .see("first used here", first);
            continue;
        }
        names.insert(name.clone(), draft.span.clone());
        pools.push(draft);
    }
    pools
}

fn pool(node: &Node, report: &mut Report<'_>) -> Option<Draft> {
    let mut table = Table::of(&POOL, node, report)?;
    let name_node = table.need("name", "name = \"stations\"");
    let name = name_node.and_then(|node| reader::name(node, report));
    let policy = read_policy(&mut table, report);
    let bounded_load = table.get("bounded-load", None, report, |node, report| {
        read_bounded_load(node, policy, report)
    });
    let fast_open = table.span_of("fast-open");
    let failover = failover(&mut table, report);
    let health = table.take("health");
    let health = health.and_then(|node| health::read(node, report));
    let on_down = table.get("on-down", OnDown::default(), report, health::on_down);
    let slow_start = table.get("slow-start", None, report, |node, report| {
        reader::duration_or_off(node, SLOW_STARTS, report)
    });
    let admission = table.get("admission", None, report, |node, report| {
        reader::admission(node, report).map(Some)
    });
    let example = "backends = [{ id = \"a\", address = \"127.0.0.11:7001\" }]";
    let backends = table.need("backends", example);
    let drafts = backends.map_or_else(Vec::new, |node| read_backends(node, report));
    let sources = read_sources(&mut table, &drafts, report);
    if !drafts.is_empty() {
        let weights = drafts.iter().map(|draft| draft.settings.weight);
        check_policy(policy, weights, &table, report);
    }
    table.finish(report);
    let backends = drafts.into_iter().map(|draft| draft.settings).collect();
    Some(Draft {
        span: name_node?.span.clone(),
        settings: PoolSettings {
            name: name?,
            policy,
            bounded_load,
            failover,
            sources,
            health,
            on_down,
            slow_start,
            admission,
            backends,
        },
        used: false,
        fast_open,
    })
}

fn read_bounded_load(node: &Node, policy: Policy, report: &mut Report<'_>) -> Option<Option<u32>> {
    if reader::is_off(node) {
        return Some(None);
    }
    let percent = reader::parsed(node, "\"125%\"", values::percent, report)?;
    if !(101..=1000).contains(&percent) {
        reader::out_of_range(node, report)
            .help("write \"101%\" to \"1000%\" of the mean load, or \"off\"");
        return None;
    }
    if !(policy.needs_key() || matches!(policy, Policy::Source { .. })) {
        report
            .error(
                &node.span,
                "this policy has no owner of a key whose load could be bounded",
            )
            .help(
                "remove `bounded-load`, or use the policy \"hash-ring\", \"maglev\" or \"source\"",
            );
        return None;
    }
    Some(Some(percent))
}

fn failover(table: &mut Table<'_>, report: &mut Report<'_>) -> Failover {
    const TIMEOUT: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(3600));
    Failover {
        connect_timeout: table.get(
            "connect-timeout",
            Failover::CONNECT_TIMEOUT,
            report,
            |node, report| reader::duration(node, TIMEOUT.0..=TIMEOUT.1, report),
        ),
        retries: table.get("retries", Failover::RETRIES, report, |node, report| {
            reader::integer(node, 0..=32, report)
        }),
        fall: table.get("fall", Failover::FALL, report, |node, report| {
            reader::integer(node, 1..=1_000_000, report)
        }),
        ejection: table.get("ejection", Failover::EJECTION, report, |node, report| {
            reader::duration(node, EJECTIONS, report)
        }),
        max_ejected: table.get("max-ejected", Failover::MAX_EJECTED, report, health::share),
        early_resets: table.get("early-resets", false, report, reader::boolean),
        fast_open: table.get("fast-open", false, report, reader::boolean),
        warm: table.get("warm", 0, report, |node, report| {
            reader::integer(node, 0..=Failover::MAX_WARM, report)
        }),
        panic: table.get(
            "panic-threshold",
            Failover::PANIC,
            report,
            health::panic_threshold,
        ),
    }
}

fn read_policy(table: &mut Table<'_>, report: &mut Report<'_>) -> Policy {
    let points_node = table.take("points");
    let points = points_node.and_then(|node| {
        let most = u32::try_from(Policy::MAX_POINTS).unwrap_or(u32::MAX);
        reader::integer(node, 1..=most, report)
    });
    let points = points.unwrap_or(Policy::POINTS);
    let words = [
        ("hash-ring", Policy::HashRing { points }),
        ("maglev", Policy::Maglev),
        ("round-robin", Policy::RoundRobin),
        ("least-sessions", Policy::LeastSessions),
        ("p2c", Policy::PowerOfTwo),
        ("source", Policy::Source { points }),
    ];
    let policy = table.get("policy", words[0].1, report, |node, report| {
        reader::word(node, &words, report)
    });
    let has_ring = matches!(policy, Policy::HashRing { .. } | Policy::Source { .. });
    if let (Some(node), false) = (points_node, has_ring) {
        report
            .error(&node.span, "this policy has no ring, and so no `points`")
            .help("remove `points`, or use the policy \"hash-ring\" or \"source\"");
    }
    policy
}

fn check_policy(
    policy: Policy,
    weights: impl Iterator<Item = u32>,
    table: &Table<'_>,
    report: &mut Report<'_>,
) {
    let Err(error) = policy.check(weights) else {
        return;
    };
    let (span, message, help) = match error {
        PolicyError::NoPoints => return,
        PolicyError::TooManyPoints { wanted, fits } => (
            table.span_of(if fits == 0 { "backends" } else { "points" }),
            format!(
                "too many ring points: {wanted} in all, which is more than {}",
                Policy::MAX_POINTS
            ),
            match fits {
                0 => "divide the weights by a common factor".to_owned(),
                _ => {
                    format!("set points = {fits} or less, or divide the weights by a common factor")
                }
            },
        ),
        PolicyError::TooUneven { .. } => (
            table.span_of("backends"),
            format!("weights too uneven for maglev: {error}"),
            "let the weights differ less, or use the policy \"hash-ring\"".to_owned(),
        ),
    };
    report.error(&span, message).help(help);
}

/// A backend and where its address is.
struct BackendDraft {
    settings: BackendSettings,
    address_span: Span,
}

fn read_backends(node: &Node, report: &mut Report<'_>) -> Vec<BackendDraft> {
    let mut drafts: Vec<BackendDraft> = Vec::new();
    let mut ids: HashMap<Box<str>, Span> = HashMap::new();
    let mut addresses: HashMap<Address, Span> = HashMap::new();
    let nodes = reader::tables(node, "pool.backends", report);
    if nodes.is_empty() && matches!(node.value, Value::Array(_)) {
        report
            .error(&node.span, "a pool without a backend")
            .help("add one, as in { id = \"a\", address = \"127.0.0.11:7001\" }");
    }
    for node in nodes {
        if report.full() {
            break;
        }
        let Some((draft, id_span)) = backend(node, report) else {
            continue;
        };
        let BackendSettings { id, address, .. } = &draft.settings;
        if let Some(first) = ids.get(id) {
            report
                .error(&id_span, format!("duplicate backend id {}", quote(id)))
                .help("give each backend of a pool its own id")
                .see("first used here", first);
        }
        if let Some(first) = addresses.get(address) {
            report
                .warning(&draft.address_span, format!("two backends at {address}"))
                .help("one backend with the weight of both does the same")
                .see("first used here", first);
        }
        ids.entry(id.clone()).or_insert(id_span);
        addresses
            .entry(address.clone())
            .or_insert_with(|| draft.address_span.clone());
        drafts.push(draft);
    }
    if !drafts.is_empty() && drafts.iter().all(|draft| draft.settings.draining) {
        let all = count(drafts.len(), "backend");
        report
            .warning(
                &node.span,
                format!("a pool that takes no session: {all}, all draining"),
            )
            .help("remove `draining` from one of them");
    }
    drafts
}

/// A backend, and where its id is.
fn backend(node: &Node, report: &mut Report<'_>) -> Option<(BackendDraft, Span)> {
    let mut table = Table::of(&BACKEND, node, report)?;
    let id_node = table.need(
        "id",
        "an id, as in id = \"a\": keys are bound to it, so that the address may change",
    );
    let id = id_node.and_then(|node| reader::name(node, report));
    let address_node = table.need("address", "address = \"127.0.0.11:7001\"");
    let address = address_node
        .and_then(|node| reader::parsed(node, "\"127.0.0.11:7001\"", values::address, report));
    let weight = table.get("weight", 1, report, weight);
    let draining = table.get("draining", false, report, reader::boolean);
    table.finish(report);
    let settings = BackendSettings {
        id: id?,
        address: address?,
        weight,
        draining,
    };
    let address_span = address_node?.span.clone();
    Some((
        BackendDraft {
            settings,
            address_span,
        },
        id_node?.span.clone(),
    ))
}

/// A backend's share.
pub(super) fn weight(node: &Node, report: &mut Report<'_>) -> Option<u32> {
    if node.value == Value::Integer(0) {
        report
            .error(&node.span, "a weight of zero")
            .help("to give a backend no new session, set draining = true; or remove it");
        return None;
    }
    reader::integer(node, 1..=65_535, report)
}

fn read_sources(
    table: &mut Table<'_>,
    backends: &[BackendDraft],
    report: &mut Report<'_>,
) -> Vec<IpAddr> {
    let Some(node) = table.take("source") else {
        return Vec::new();
    };
    let Value::Array(nodes) = &node.value else {
        reader::wrong_kind(node, "a list of addresses", report)
            .help("write a list, as in [\"127.0.0.5\"]");
        return Vec::new();
    };
    let mut sources: Vec<IpAddr> = Vec::new();
    for node in nodes {
        let Some(ip) = reader::parsed(node, "\"127.0.0.5\"", values::ip, report) else {
            continue;
        };
        if ip.is_unspecified() {
            report
                .error(&node.span, "not an address to connect from")
                .help("leave `source` out, and the kernel chooses");
        } else if sources.contains(&ip) {
            report
                .error(&node.span, format!("source address {ip} given twice"))
                .help("remove one of the two");
        } else {
            sources.push(ip);
        }
    }
    check_families(node, &sources, backends, report);
    sources
}

/// A backend can only be reached from an address of its own family. What a host name resolves to is
/// not known yet.
fn check_families(
    node: &Node,
    sources: &[IpAddr],
    backends: &[BackendDraft],
    report: &mut Report<'_>,
) {
    if sources.is_empty() {
        return;
    }
    for BackendDraft {
        settings,
        address_span,
    } in backends
    {
        let Address::Socket(address) = settings.address else {
            continue;
        };
        if !sources
            .iter()
            .any(|source| source.is_ipv4() == address.is_ipv4())
        {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            report
                .error(address_span, format!("no source address reaches {address}"))
                .help(format!(
                    "add an {family} address to `source`, or remove `source`"
                ))
                .see("the pool's source addresses", &node.span);
        }
    }
}
