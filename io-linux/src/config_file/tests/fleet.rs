//! Health, failover, admission, the admin API and the session log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tlb_engine::api::TellHow;

use super::*;

const FLEET: &str = include_str!("fleet.toml");
const FULL: &str = include_str!("../../../examples/full.toml");

/// A configuration with these keys in its only pool, in its only listener, and after them.
fn with(pool: &str, listener: &str, rest: &str) -> String {
    format!(
        "[[listener]]\nname = 'l'\nbind = '127.0.0.1:0'\npool = 'p'\n{listener}\n\
         [[pool]]\nname = 'p'\npolicy = 'p2c'\n\
         backends = [{{ id = 'a', address = '127.0.0.1:7001' }}]\n{pool}\n{rest}\n"
    )
}

fn pool(keys: &str) -> Result<PoolSettings, ConfigErrors> {
    let settings = Settings::parse("t", &with(keys, "", ""), &UnpackRegistry::new())?;
    Ok(settings.pools.into_iter().next().expect("a pool"))
}

fn listener(keys: &str) -> Result<ListenerSettings, ConfigErrors> {
    let settings = Settings::parse("t", &with("", keys, ""), &UnpackRegistry::new())?;
    Ok(settings.listeners.into_iter().next().expect("a listener"))
}

fn rest(text: &str) -> Result<Settings, ConfigErrors> {
    Settings::parse("t", &with("", "", text), &UnpackRegistry::new())
}

fn rates(admission: Option<Admission>) -> Option<(u32, u32)> {
    admission.map(|admission| (admission.rate.get(), admission.burst.get()))
}

/// A file of a test's own, gone when it ends.
struct Token(PathBuf);

impl Token {
    fn new(test: &str, content: &str, mode: u32) -> Self {
        let name = format!("tlb-token-{}-{test}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
        Self(path)
    }

    fn load(&self) -> Result<Settings, ConfigErrors> {
        rest(&format!("[admin]\ntoken-file = '{}'", self.0.display()))
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // A leftover harms nobody.
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_fleet_with_probes_and_an_api_works_as_it_stands() {
    let settings = parse("tlb.toml", FLEET);
    assert!(settings.listeners.is_empty(), "{settings:?}");
    let [pool] = &settings.pools[..] else {
        panic!("{settings:?}")
    };
    let health = pool.health.as_ref().expect("health");
    assert!(matches!(health.kind, ProbeKind::Tcp));
    let fifth = Duration::from_millis(200);
    assert_eq!(
        health.schedule,
        ProbeConfig {
            interval: fifth,
            fast_interval: fifth,
            timeout: fifth,
            rise: 2,
            fall: 2
        }
    );
    assert_eq!(pool.on_down.how, Some(TellHow::Close));
    assert_eq!(pool.on_down.rate.get(), 1000);
    let admin = settings.admin.expect("an API");
    let address = "127.0.0.1:16061".parse().expect("an address");
    assert_eq!(admin.bind, AdminBind::Tcp(address));
    assert_eq!(admin.token, None);
    let [warning] = &settings.warnings[..] else {
        panic!("{:?}", settings.warnings)
    };
    assert_eq!(warning.message(), "no listener uses the pool `stations`");

    // With a listener, there is nothing to warn of.
    let text = format!(
        "[[listener]]\nname = 'devices'\nbind = '127.0.0.1:8011'\nunpack = 'u'\npool = 'stations'\n\
         [unpack.u]\nkind = 'fixed'\nsize = 8\nkey = {{ offset = 0 }}\n{FLEET}"
    );
    let settings = parse("tlb.toml", &text);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
}

#[test]
fn every_key_of_the_fleet_does_something() {
    let settings = parse("tlb.toml", EVERY_KEY);
    let admin = settings.admin.as_ref().expect("an API");
    let path = Path::new("/run/tlb/other.sock").into();
    assert_eq!(admin.bind, AdminBind::Unix { path, mode: 0o600 });
    assert_eq!(admin.token.as_deref(), Some("a-token-of-a-test"));
    assert!(!format!("{settings:?}").contains("a-token-of-a-test"));
    let path = Path::new("/var/log/tlb/sessions.log").into();
    assert_eq!(
        settings.session_log,
        Some(SessionLogSettings {
            format: SessionLogFormat::Haproxy,
            to: SessionLogTarget::File(path)
        })
    );
    let one = &settings.listeners[0];
    assert_eq!(rates(one.admission), Some((500, 7)));
    assert_eq!(one.per_source, NonZeroU32::new(8));
    assert!(one.engine.replay);

    let [p, q, r, s] = &settings.pools[..] else {
        panic!("{settings:?}")
    };
    assert_eq!(p.failover.ejection, Duration::from_millis(250));
    assert_eq!((p.failover.max_ejected, p.failover.panic), (50, 25));
    assert!(p.failover.early_resets);
    assert!(p.failover.fast_open);
    assert_eq!(p.failover.warm, Failover::MAX_WARM);
    assert_eq!(p.slow_start, Some(Duration::from_secs(30)));
    assert_eq!(rates(p.admission), Some((25, 2)));
    assert_eq!(
        (p.on_down.how, p.on_down.rate.get()),
        (Some(TellHow::Reset), 50)
    );
    let health = p.health.as_ref().expect("health");
    let ms = Duration::from_millis;
    assert_eq!(
        health.schedule,
        ProbeConfig {
            interval: ms(200),
            fast_interval: ms(50),
            timeout: ms(100),
            rise: 4,
            fall: 5
        }
    );
    assert_eq!(health.port, Some(7070));
    let exchange = |pool: &PoolSettings| match pool.health.as_ref().map(|health| &health.kind) {
        Some(ProbeKind::Exchange { send, expect }) => (send.to_vec(), format!("{expect:?}")),
        other => panic!("{other:?}"),
    };
    let prefix = |bytes: &[u8]| format!("{:?}", Expect::Prefix(bytes.into()));
    assert_eq!(exchange(p), (b"PING\r\n".to_vec(), prefix(b"+PONG")));
    assert_eq!(exchange(r), (b"\r\n".to_vec(), prefix(b"+")));
    assert_eq!(exchange(s), (vec![], r#"Regex(Regex("^2[0-9]+ "))"#.into()));
    assert_eq!((q.failover.panic, q.slow_start), (0, None));
    assert_eq!(q.on_down.how, None);
    let Some(ProbeKind::Http { path, host, status }) = q.health.as_ref().map(|it| &it.kind) else {
        panic!("{q:?}")
    };
    assert_eq!((&**path, *status), ("/up?now", (204, 204)));
    assert_eq!(host.as_deref(), Some("example.org:80"));
}

#[test]
fn defaults_are_those_of_the_reference() {
    let tcp = pool("health = { kind = 'tcp' }").expect("a pool");
    let schedule = tcp.health.expect("health").schedule;
    assert_eq!(schedule.interval, Duration::from_secs(2));
    assert_eq!(schedule.fast_interval, schedule.interval);
    assert_eq!(schedule.timeout, Duration::from_secs(1));
    assert_eq!((schedule.rise, schedule.fall), (2, 3));
    assert_eq!(tcp.on_down, OnDown::default());
    assert_eq!(tcp.failover, Failover::default());
    assert_eq!((tcp.slow_start, tcp.admission), (None, None));
    let http = pool("health = { kind = 'http' }").expect("a pool");
    let Some(ProbeKind::Http { path, host, status }) = http.health.map(|health| health.kind) else {
        panic!("no probe of HTTP")
    };
    assert_eq!((&*path, host, status), ("/", None, (200, 399)));
    let bare = rest("[admin]\n[session-log]").expect("settings");
    let path = Path::new("/run/tlb/admin.sock").into();
    let admin = bare.admin.expect("an API");
    assert_eq!(admin.bind, AdminBind::Unix { path, mode: 0o660 });
    let log = bare.session_log.expect("a log");
    assert_eq!(
        (log.format, log.to),
        (SessionLogFormat::Json, SessionLogTarget::Stdout)
    );
    let none = rest("").expect("settings");
    assert!(none.admin.is_none() && none.session_log.is_none());
}

#[test]
fn ranges_of_pools_end_where_the_reference_says() {
    let send = |length: usize| {
        format!(
            "health = {{ kind = 'send-expect', send = '{}', expect = 'a' }}",
            "x".repeat(length)
        )
    };
    let health = |key: &str| format!("health = {{ kind = 'tcp', {key} }}");
    let http = |key: &str| format!("health = {{ kind = 'http', {key} }}");
    let long = "x".repeat(4095);
    for (fine, wrong) in [
        (health("interval = '10ms'"), health("interval = '9ms'")),
        (health("interval = '1h'"), health("interval = '3601s'")),
        (
            health("fast-interval = '10ms'"),
            health("fast-interval = '9ms'"),
        ),
        (
            health("fast-interval = '2s'"),
            health("fast-interval = '2001ms'"),
        ),
        (health("timeout = '1ms'"), health("timeout = '0ms'")),
        (health("timeout = '1h'"), health("timeout = '3601s'")),
        (health("rise = 1"), health("rise = 0")),
        (health("rise = 1000"), health("rise = 1001")),
        (health("fall = 1"), health("fall = 0")),
        (health("fall = 1000"), health("fall = 1001")),
        (health("port = 1"), health("port = 0")),
        (health("port = 65535"), health("port = 65536")),
        (send(1), send(0)),
        (send(65_536), send(65_537)),
        (http("status = '100'"), http("status = '099'")),
        (http("status = '599'"), http("status = '600'")),
        (http("status = '200-200'"), http("status = '201-200'")),
        (
            http(&format!("path = '/{long}'")),
            http(&format!("path = '/x{long}'")),
        ),
        (
            http(&format!("host = 'x{long}'")),
            http(&format!("host = 'xx{long}'")),
        ),
        (http("path = '/'"), http("path = ''")),
        (http("host = 'a'"), http("host = ''")),
        (
            "on-down = { rate = 1 }".into(),
            "on-down = { rate = 0 }".into(),
        ),
        (
            "on-down = { rate = 1000000 }".into(),
            "on-down = { rate = 1000001 }".into(),
        ),
        ("slow-start = '1ms'".into(), "slow-start = '0s'".into()),
        ("slow-start = '1d'".into(), "slow-start = '86401s'".into()),
        (
            "admission = { rate = 1 }".into(),
            "admission = { rate = 0 }".into(),
        ),
        (
            "admission = { rate = 1000000 }".into(),
            "admission = { rate = 1000001 }".into(),
        ),
        (
            "admission = { rate = 1, burst = 1 }".into(),
            "admission = { rate = 1, burst = 0 }".into(),
        ),
        (
            "admission = { rate = 1, burst = 1000000 }".into(),
            "admission = { rate = 1, burst = 1000001 }".into(),
        ),
        ("ejection = '1ms'".into(), "ejection = '0ms'".into()),
        ("ejection = '60s'".into(), "ejection = '61s'".into()),
        ("max-ejected = '0%'".into(), "max-ejected = 0".into()),
        ("max-ejected = '100%'".into(), "max-ejected = '101%'".into()),
        (
            "panic-threshold = '100%'".into(),
            "panic-threshold = '101%'".into(),
        ),
    ] {
        if let Err(errors) = pool(&fine) {
            panic!("{fine}: {errors}");
        }
        let errors = pool(&wrong).expect_err(&wrong);
        assert_eq!(errors.diagnostics().len(), 1, "{wrong}: {errors}");
    }
}

#[test]
fn ranges_of_listeners_and_the_api_end_where_the_reference_says() {
    for (fine, wrong) in [
        ("max-sessions-per-source = 1", "max-sessions-per-source = 0"),
        (
            "max-sessions-per-source = 100000000",
            "max-sessions-per-source = 100000001",
        ),
        ("admission = { rate = 1 }", "admission = { rate = 0 }"),
        (
            "admission = { rate = 9, burst = 1 }",
            "admission = { burst = 1 }",
        ),
        ("replay-first-frame = false", "replay-first-frame = 'no'"),
    ] {
        if let Err(errors) = listener(fine) {
            panic!("{fine}: {errors}");
        }
        let errors = listener(wrong).expect_err(wrong);
        assert_eq!(errors.diagnostics().len(), 1, "{wrong}: {errors}");
    }
    let path = |length: usize| format!("bind = 'unix:/{}'", "x".repeat(length - 1));
    let token = |length: usize| format!("token = '{}'", "x".repeat(length));
    let off = |token: &str| format!("bind = '192.0.2.1:1'\n{token}");
    for (fine, wrong) in [
        (path(107), path(108)),
        (token(16), token(15)),
        (token(1024), token(1025)),
        ("mode = '0000'".into(), "mode = '00000'".into()),
        ("mode = '777'".into(), "mode = '1777'".into()),
        (off(&token(16)), off("")),
        ("bind = '127.9.9.9:1'".into(), "bind = '128.0.0.1:1'".into()),
        ("bind = '[::1]:1'".into(), "bind = '[::2]:1'".into()),
        (
            "bind = '[::ffff:127.0.0.1]:1'".into(),
            "bind = '[::]:1'".into(),
        ),
    ] {
        let (fine, wrong) = (format!("[admin]\n{fine}"), format!("[admin]\n{wrong}"));
        if let Err(errors) = rest(&fine) {
            panic!("{fine}: {errors}");
        }
        let errors = rest(&wrong).expect_err(&wrong);
        assert_eq!(errors.diagnostics().len(), 1, "{wrong}: {errors}");
    }
}

#[test]
fn a_token_comes_from_its_file_without_the_newline() {
    for (name, end) in [("none", ""), ("unix", "\n"), ("dos", "\r\n")] {
        let file = Token::new(name, &format!("0123456789abcdef{end}"), 0o600);
        let settings = file.load().expect("settings");
        let token = settings.admin.and_then(|admin| admin.token);
        assert_eq!(token.as_deref(), Some("0123456789abcdef"), "{name}");
        assert!(settings.warnings.is_empty());
    }
    let open = Token::new("open", "0123456789abcdef\n", 0o644);
    let settings = open.load().expect("settings");
    let [warning] = &settings.warnings[..] else {
        panic!("{settings:?}")
    };
    assert!(warning.message().contains("every user"), "{warning}");
    let long = Token::new("long", &"x".repeat(1025), 0o600);
    let longest = Token::new("longest", &format!("{}\r\n", "x".repeat(1024)), 0o600);
    assert!(longest.load().is_ok());
    for file in [long, Token::new("two", "0123456789abcdef\n\n", 0o600)] {
        let errors = file.load().expect_err("no token");
        assert!(!errors.to_string().contains("0123456789"), "{errors}");
    }
}

#[test]
fn the_example_with_every_key_loads_and_lacks_none() {
    let settings = parse("full.toml", FULL);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    let code = |line: &str| line.trim_start().trim_start_matches("# ").to_owned();
    let lines: Vec<String> = FULL.lines().map(code).collect();
    for kind in table::KINDS {
        for key in kind.keys {
            let given = lines.iter().any(|line| {
                let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
                let is_key = words.into_iter().any(|word| word == *key);
                is_key && (line.contains('=') || line.starts_with('['))
            });
            assert!(given, "`{key}` of {} is not in the example", kind.what);
        }
    }
}

#[test]
fn json_says_the_same_of_a_fleet() {
    let json = r#"{
        "listener": [{"name": "l", "bind": "127.0.0.1:0", "pool": "p"}],
        "pool": [{"name": "p", "policy": "p2c",
            "backends": [{"id": "a", "address": "127.0.0.1:7001"}],
            "health": {"kind": "send-expect", "send": "PING\r\n", "expect-regex": "^\\+PONG"},
            "on-down": {"sessions": "keep", "rate": 9}}],
        "admin": {"bind": "127.0.0.1:16061"},
        "session-log": {"format": "haproxy"}
    }"#;
    let toml = with(
        "health = { kind = 'send-expect', send = \"PING\\r\\n\", expect-regex = '^\\+PONG' }\n\
         on-down = { sessions = 'keep', rate = 9 }",
        "",
        "[admin]\nbind = '127.0.0.1:16061'\n[session-log]\nformat = 'haproxy'",
    );
    let (json, toml) = (parse("t.json", json), parse("t.toml", &toml));
    assert_eq!(format!("{json:?}"), format!("{toml:?}"));
}
