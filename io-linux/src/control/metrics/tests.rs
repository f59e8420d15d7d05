use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;
use crate::control::view::PoolView;

fn backend(id: &str, state: State) -> BackendView {
    BackendView {
        id: id.to_owned(),
        address: Some("127.0.0.1:7001".to_owned()),
        weight: 2,
        state: state.name().to_owned(),
        state_seconds: 7,
        admin: "ready".to_owned(),
        sessions: 3,
        sessions_total: 9,
        bytes_forward: 1,
        bytes_return: 2,
        probes_passed: 11,
        probes_failed: 4,
        last_probe: Some("passed".to_owned()),
    }
}

fn pool(name: &str, backends: Vec<BackendView>) -> PoolView {
    PoolView {
        name: name.to_owned(),
        policy: "hash-ring".to_owned(),
        panic: true,
        backends,
    }
}

fn counted() -> BackendStats {
    BackendStats {
        attempts: 21,
        failed: BTreeMap::from([("refused", 5), ("timed-out", 6)]),
        sessions: 16,
        live: 3,
        redispatched: 2,
        replayed: 1,
        forward: 1_000,
        back: 2_000,
        admission_waits: 8,
        ejections: 0,
    }
}

/// Something of everything, with a name that has to be escaped and a backend that is no longer there.
fn metrics() -> Metrics {
    let mut lasted = LastedStats::default();
    lasted.counts[0] = 1;
    lasted.counts[3] = 2;
    lasted.counts[11] = 4;
    lasted.nanos = 2_500_000_000;
    let listener = ListenerStats {
        sessions: 16,
        live: 3,
        shed: 1,
        closed: BTreeMap::from([("completed", 12)]),
        forward: 1_000,
        back: 2_000,
        lasted,
        ..ListenerStats::default()
    };
    let fleet = FleetStats {
        downs: 1,
        ejections: 2,
        probe_nanos: 1_500_000,
    };
    Metrics {
        listeners: vec![("devices".to_owned(), listener)],
        pools: vec![pool(
            "st\"at\\ions\n",
            vec![backend("a", State::Up), backend("b", State::Down)],
        )],
        backends: vec![
            (
                "st\"at\\ions\n".to_owned(),
                "a".to_owned(),
                counted(),
                fleet,
            ),
            (
                "st\"at\\ions\n".to_owned(),
                "gone".to_owned(),
                counted(),
                fleet,
            ),
        ],
        reloads: (2, 1),
        generation: 3,
        start_seconds: 1_700_000_000.25,
        ..Metrics::default()
    }
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|one| one == line), "no {line} in:\n{text}");
}

#[test]
fn numbers_are_where_they_belong() {
    let text = render(&metrics());
    has(&text, "# TYPE tlb_listener_connections_total counter");
    has(
        &text,
        r#"tlb_listener_connections_total{listener="devices"} 16"#,
    );
    has(
        &text,
        r#"tlb_listener_bytes_total{listener="devices",direction="return"} 2000"#,
    );
    has(
        &text,
        r#"tlb_listener_sessions_closed_total{listener="devices",reason="completed"} 12"#,
    );
    has(&text, r#"tlb_config_reloads_total{result="refused"} 1"#);
    has(&text, "process_start_time_seconds 1700000000.25");
    let a = r#"pool="st\"at\\ions\n",backend="a""#;
    has(&text, &format!("tlb_backend_up{{{a}}} 1"));
    has(&text, &format!("tlb_backend_connections_total{{{a}}} 16"));
    has(
        &text,
        &format!(r#"tlb_backend_connect_errors_total{{{a},reason="timed-out"}} 6"#),
    );
    has(&text, &format!("tlb_backend_check_failures_total{{{a}}} 4"));
    has(
        &text,
        &format!("tlb_backend_check_duration_seconds{{{a}}} 0.0015"),
    );
    let b = r#"pool="st\"at\\ions\n",backend="b""#;
    has(&text, &format!("tlb_backend_up{{{b}}} 0"));
    has(
        &text,
        &format!(r#"tlb_backend_state{{{b},state="down"}} 1"#),
    );
    has(&text, &format!(r#"tlb_backend_state{{{b},state="up"}} 0"#));
    // Nothing was counted of it yet.
    has(&text, &format!("tlb_backend_connections_total{{{b}}} 0"));
    let members = r#"tlb_pool_members{pool="st\"at\\ions\n",state="down"} 1"#;
    has(&text, members);
}

#[test]
fn buckets_are_cumulative_and_in_seconds() {
    let text = render(&metrics());
    let buckets: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("tlb_session_duration_seconds_"))
        .collect();
    let bucket = |le: &str, sum: u64| format!(r#"bucket{{listener="devices",le="{le}"}} {sum}"#);
    assert_eq!(
        buckets,
        [
            bucket("0.001", 1),
            bucket("0.01", 1),
            bucket("0.1", 1),
            bucket("1", 3),
            bucket("10", 3),
            bucket("60", 3),
            bucket("600", 3),
            bucket("3600", 3),
            bucket("21600", 3),
            bucket("86400", 3),
            bucket("604800", 3),
            bucket("+Inf", 7),
            r#"sum{listener="devices"} 2.5"#.to_owned(),
            r#"count{listener="devices"} 7"#.to_owned(),
        ]
    );
}

#[test]
fn a_removed_backend_has_no_series() {
    let mut metrics = metrics();
    assert!(!render(&metrics).contains("gone"));
    metrics.pools[0].backends.pop();
    assert!(!render(&metrics).contains(r#"backend="b""#));
    metrics.pools.clear();
    let text = render(&metrics);
    assert!(!text.contains("pool="), "{text}");
}

/// Set to `1`, a missing promtool is a failure.
const REQUIRE: &str = "TLB_REQUIRE_PROGRAMS";

#[test]
fn promtool_is_content() {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = started else {
        assert!(
            std::env::var_os(REQUIRE).is_none_or(|value| value != "1"),
            "promtool is not installed, and {REQUIRE}=1"
        );
        // Not `eprintln`, which the test runner keeps to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: promtool is not installed");
        return;
    };
    let mut stdin = promtool.stdin.take().expect("stdin is piped");
    let text = render(&metrics());
    stdin.write_all(text.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}\n{text}",
        String::from_utf8_lossy(&said)
    );
}
