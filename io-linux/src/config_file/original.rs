//! The `config.json` of the original program that tlb counts as its ancestor: a port, and backends
//! with weights.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use tlb_engine::balance::Policy;
use tlb_engine::config::{Failover, Limits, Listener};
use tlb_engine::drive::Mode;
use tlb_engine::fleet::OnDown;
use tlb_engine::ids::PoolId;

use super::diagnostic::quote;
use super::listeners::KEEPALIVE;
use super::reader;
use super::report::{Report, Span};
use super::table::{self, Kind, Table};
use super::tree::{Entry, Node, Value};
use super::{
    Address, BackendSettings, ListenerSettings, PoolSettings, Settings, framing, pools, values,
};

static ORIGINAL: Kind = Kind {
    what: "a configuration of the original program",
    keys: &["port", "backend"],
};

/// Whether a file is of this form: by its keys, of which none is one of today's.
pub(super) fn recognise(entries: &[Entry]) -> bool {
    let has = |key: &str| entries.iter().any(|entry| entry.key == key);
    (has("port") || has("backend")) && !table::TOP.keys.iter().any(|key| has(key))
}

/// Reads it into what it means today.
pub(super) fn read(entries: &[Entry], span: &Span, report: &mut Report<'_>) -> Option<Settings> {
    let mut table = Table::new(&ORIGINAL, span.clone(), entries);
    let port = table.need("port", "\"port\": \"2048\"");
    let port = port.and_then(|node| read_port(node, report));
    let example = "\"backend\": {\"192.168.2.115:22048\": 2}";
    let backends = table.need("backend", example);
    let backends = backends.and_then(|node| read_backends(node, report));
    table.finish(report);

    let place = entries.first().map_or(span, |entry| &entry.key_span);
    report
        .warning(
            place,
            "in this form, the key is all from byte 19 to the frame's end",
        )
        .help(
            "it includes payload and check bytes, \
             so it may change from frame to frame of one device",
        )
        .help(
            "write a TOML configuration whose unpack has a key length, as in \
             key = { offset = 19, length = 4 }",
        );

    let policy = Policy::default();
    let (port, backends) = (port?, backends?);
    let weights = backends.iter().map(|backend| backend.weight);
    if let Err(error) = policy.check(weights) {
        let node = table_node(entries, "backend")?;
        report
            .error(&node.span, error.to_string())
            .help("or write a TOML configuration, whose pools may have fewer `points`");
        return None;
    }
    let unpack = framing::original();
    Some(Settings {
        workers: None,
        relay: Mode::default(),
        cpus: Vec::new(),
        incoming_cpu: false,
        spin: std::time::Duration::ZERO,
        listeners: vec![ListenerSettings {
            bind: SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            engine: Listener::new("devices", Some(unpack), PoolId(0)),
            keepalive: Some(KEEPALIVE),
            user_timeout: None,
            congestion: None,
            admission: None,
            per_source: None,
        }],
        pools: vec![PoolSettings {
            name: "backend".into(),
            policy,
            bounded_load: None,
            failover: Failover::default(),
            sources: Vec::new(),
            health: None,
            on_down: OnDown::default(),
            slow_start: None,
            admission: None,
            backends,
        }],
        limits: Limits::default(),
        admin: None,
        session_log: None,
        warnings: Vec::new(),
    })
}

fn table_node<'t>(entries: &'t [Entry], key: &str) -> Option<&'t Node> {
    entries
        .iter()
        .find(|entry| entry.key == key)
        .map(|entry| &entry.node)
}

fn read_port(node: &Node, report: &mut Report<'_>) -> Option<u16> {
    let Value::String(text) = &node.value else {
        return reader::integer(node, 0..=u16::MAX, report);
    };
    let port = text.parse().ok().filter(|_| !text.starts_with('+'));
    if port.is_none() {
        report
            .error(&node.span, format!("{}: not a port", quote(text)))
            .help("write a number of 0 to 65535, as in \"2048\"");
    }
    port
}

fn read_backends(node: &Node, report: &mut Report<'_>) -> Option<Vec<BackendSettings>> {
    let Value::Table(entries) = &node.value else {
        reader::wrong_kind(node, "an object of addresses and weights", report)
            .help("write {\"192.168.2.115:22048\": 2}");
        return None;
    };
    if entries.is_empty() {
        report
            .error(&node.span, "no backend")
            .help("add one, as in {\"192.168.2.115:22048\": 2}");
        return None;
    }
    let mut backends = Vec::new();
    let mut seen: HashMap<Address, Span> = HashMap::new();
    for entry in entries {
        let weight = pools::weight(&entry.node, report);
        let address = match values::address(&entry.key) {
            Ok(address) => address,
            Err(problem) => {
                let message = format!("{}: {}", quote(&entry.key), problem.message);
                report.error(&entry.key_span, message).help(problem.help);
                continue;
            }
        };
        if let Some(first) = seen.insert(address.clone(), entry.key_span.clone()) {
            report
                .warning(&entry.key_span, format!("two backends at {address}"))
                .help("one backend with the weight of both does the same")
                .see("first used here", &first);
        }
        backends.push(BackendSettings {
            id: entry.key.as_str().into(),
            address,
            weight: weight.unwrap_or(1),
            draining: false,
        });
    }
    Some(backends)
}
