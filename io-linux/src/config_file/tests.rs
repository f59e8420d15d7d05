//! What is written is what is set; nothing that can be written makes it panic.

use std::fmt::Write;
use std::sync::Arc;

use proptest::prelude::*;
use tlb_engine::unpack::{Status, Target, Unpack};

use super::*;

const STATION: &str = include_str!("tests/station.toml");
const ORIGINAL: &str = include_str!("tests/original.json");
mod fleet;

const EVERY_KEY: &str = include_str!("tests/every-key.toml");

fn parse(name: &str, text: &str) -> Settings {
    match Settings::parse(name, text, &UnpackRegistry::new()) {
        Ok(settings) => settings,
        Err(errors) => panic!("{errors}"),
    }
}

fn messages(errors: &ConfigErrors) -> Vec<&str> {
    errors
        .diagnostics()
        .iter()
        .map(Diagnostic::message)
        .collect()
}

fn unpack_of(listener: &ListenerSettings) -> &Arc<dyn Unpack> {
    listener.engine.unpack.as_ref().expect("an unpack")
}

/// `*`, the length, a payload, two bytes of check.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload");
    [b"*", &length.to_be_bytes()[..], payload, b"cc"].concat()
}

#[test]
fn the_example_means_what_it_says() {
    let settings = parse("tlb.toml", STATION);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    assert_eq!(settings.workers, None);
    assert!(settings.cpus.is_empty() && !settings.incoming_cpu);
    assert_eq!(settings.relay, Mode::Auto);
    assert_eq!(settings.spin, Duration::ZERO);
    assert_eq!(settings.limits.preread_memory, 256 << 20);

    let [listener] = &settings.listeners[..] else {
        panic!("{settings:?}")
    };
    assert_eq!(&*listener.engine.name, "devices");
    assert_eq!(listener.bind, "127.0.0.1:8011".parse().expect("an address"));
    assert_eq!(listener.engine.pool.index(), 0);
    assert_eq!(listener.engine.preread_timeout, Duration::from_secs(5));
    assert_eq!(listener.engine.preread_limit, 65_536);
    assert_eq!(listener.engine.half_close_timeout, Duration::from_secs(300));
    assert_eq!(listener.engine.idle_timeout, None);
    assert_eq!(listener.engine.max_sessions, 1_000_000);
    assert_eq!(listener.keepalive, Some(Duration::from_secs(60)));
    assert_eq!(listener.user_timeout, None);
    assert!(!listener.engine.allow_address);
    assert_eq!(
        unpack_of(listener).unpack(&frame(b"..............unit...."), 0, false),
        Status::Complete {
            frame: 0..29,
            target: Target::Key(19..23)
        }
    );

    let [pool] = &settings.pools[..] else {
        panic!("{settings:?}")
    };
    assert_eq!(pool.policy, Policy::default());
    assert_eq!(pool.bounded_load, None);
    assert_eq!(pool.failover, Failover::default());
    assert!(pool.sources.is_empty());
    let backends: Vec<String> = pool
        .backends
        .iter()
        .map(|one| format!("{} {} {} {}", one.id, one.address, one.weight, one.draining))
        .collect();
    assert_eq!(
        backends,
        ["a 127.0.0.11:7001 2 false", "b 127.0.0.12:7001 1 false"]
    );
}

#[test]
fn every_key_does_something() {
    let settings = parse("tlb.toml", EVERY_KEY);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    assert_eq!(settings.workers, Some(3));
    assert_eq!(settings.cpus, [1, 0]);
    assert!(settings.incoming_cpu);
    assert_eq!(settings.relay, Mode::Splice);
    assert_eq!(settings.spin, Duration::from_micros(100));
    assert_eq!(settings.limits.preread_memory, 1 << 30);
    assert_eq!(settings.limits.reset_timeout, Duration::from_secs(1));
    assert_eq!(settings.limits.shutdown_timeout, Duration::ZERO);

    let [one, two, three, _] = &settings.listeners[..] else {
        panic!("{settings:?}")
    };
    assert_eq!(one.bind.to_string(), "[::1]:8011");
    assert_eq!(one.engine.preread_timeout, Duration::from_millis(250));
    assert_eq!(one.engine.preread_limit, 4096);
    assert_eq!(one.engine.idle_timeout, Some(Duration::from_secs(86_400)));
    assert_eq!(one.engine.half_close_timeout, Duration::from_secs(120));
    assert_eq!(one.engine.max_sessions, 5);
    assert_eq!(one.keepalive, None);
    assert_eq!(one.user_timeout, Some(Duration::from_secs(30)));
    assert!(one.engine.allow_address);
    assert_eq!(
        unpack_of(one).unpack(b"SET station1 = 1\r\n", 0, false),
        Status::Complete {
            frame: 0..18,
            target: Target::Key(4..12)
        }
    );
    assert_eq!(
        unpack_of(two).unpack(&[b'c'; 40], 0, false),
        Status::Complete {
            frame: 0..37,
            target: Target::Key(0..37)
        }
    );
    assert_eq!(two.keepalive, Some(Duration::from_secs(10)));
    assert!(three.engine.unpack.is_none());
    let pools = settings.listeners.iter().map(|one| one.engine.pool.index());
    assert!(pools.eq([0, 1, 2, 3]));

    let [p, q, r, _] = &settings.pools[..] else {
        panic!("{settings:?}")
    };
    assert_eq!(p.policy, Policy::HashRing { points: 100 });
    assert_eq!(p.bounded_load, Some(125));
    assert_eq!(p.failover.connect_timeout, Duration::from_secs(1));
    assert_eq!((p.failover.retries, p.failover.fall), (0, 1));
    assert_eq!(p.sources.len(), 2);
    assert_eq!((p.backends[0].weight, p.backends[0].draining), (1000, true));
    assert_eq!(
        p.backends[1].address,
        Address::Name {
            host: "device-hub".into(),
            port: 7002
        }
    );
    assert_eq!((q.policy, q.bounded_load), (Policy::Maglev, None));
    assert_eq!(r.policy, Policy::Source { points: 7 });
}

#[test]
fn the_original_configuration_is_the_example_with_a_longer_key() {
    let settings = parse("config.json", ORIGINAL);
    let [warning] = &settings.warnings[..] else {
        panic!("{settings:?}")
    };
    assert_eq!(warning.severity(), Severity::Warning);
    assert!(
        warning
            .to_string()
            .contains("key = { offset = 19, length = 4 }")
    );
    let [listener] = &settings.listeners[..] else {
        panic!("{settings:?}")
    };
    assert_eq!(listener.bind.to_string(), "0.0.0.0:2048");
    assert_eq!(
        unpack_of(listener).unpack(&frame(b"..............unit...."), 0, false),
        Status::Complete {
            frame: 0..29,
            target: Target::Key(19..29)
        }
    );
    let [pool] = &settings.pools[..] else {
        panic!("{settings:?}")
    };
    let address = "192.168.2.115:22048";
    assert_eq!(pool.policy, Policy::default());
    assert_eq!(
        pool.backends,
        [BackendSettings {
            id: address.into(),
            address: Address::Socket(address.parse().expect("an address")),
            weight: 2,
            draining: false
        }]
    );
    // Only a file that is named as JSON is read so.
    let as_toml = Settings::parse("config.toml", ORIGINAL, &UnpackRegistry::new());
    assert!(
        as_toml
            .expect_err("no TOML")
            .to_string()
            .contains("looks like JSON")
    );
}

#[test]
fn json_of_the_same_structure_says_the_same() {
    let json = r#"{
        "listener": [{"name": "devices", "bind": "127.0.0.1:8011", "unpack": "station",
            "pool": "stations", "preread-timeout": "5s", "preread-limit": "64KiB"}],
        "unpack": {"station": {"kind": "length-field", "magic": "2a",
            "length": {"offset": 1, "width": 4, "endian": "big", "adjust": 2},
            "key": {"offset": 19, "length": 4}}},
        "pool": [{"name": "stations", "policy": "hash-ring", "backends": [
            {"id": "a", "address": "127.0.0.11:7001", "weight": 2},
            {"id": "b", "address": "127.0.0.12:7001"}]}]
    }"#;
    let (json, toml) = (parse("tlb.json", json), parse("tlb.toml", STATION));
    assert_eq!(format!("{json:?}"), format!("{toml:?}"));
}

#[test]
fn the_example_of_the_documentation_works() {
    let docs = include_str!("../config_file.rs").lines();
    let docs = docs
        .filter_map(|line| line.strip_prefix("//!"))
        .map(str::trim_start);
    let example = docs.skip_while(|line| *line != "```toml").skip(1);
    let example: Vec<&str> = example.take_while(|line| *line != "```").collect();
    let settings = parse("docs.toml", &example.join("\n"));
    assert_eq!(settings.pools[0].backends.len(), 2);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
}

#[test]
fn every_key_and_default_is_in_the_reference() {
    let reference = include_str!("reference.md");
    for key in table::KINDS.iter().flat_map(|kind| kind.keys) {
        let found =
            reference.contains(&format!("`{key}`")) || reference.contains(&format!(".{key}`"));
        assert!(found, "`{key}` is not in the reference");
    }
    for (key, default) in [
        (
            "preread-memory",
            values::ShowSize(Limits::PREREAD_MEMORY as u64).to_string(),
        ),
        (
            "reset-timeout",
            values::ShowDuration(Limits::RESET_TIMEOUT).to_string(),
        ),
        (
            "shutdown-timeout",
            values::ShowDuration(Limits::SHUTDOWN_TIMEOUT).to_string(),
        ),
        (
            "preread-timeout",
            values::ShowDuration(Listener::PREREAD_TIMEOUT).to_string(),
        ),
        (
            "preread-limit",
            values::ShowSize(Listener::PREREAD_LIMIT as u64).to_string(),
        ),
        (
            "half-close-timeout",
            values::ShowDuration(Listener::HALF_CLOSE_TIMEOUT).to_string(),
        ),
        ("max-sessions", Listener::MAX_SESSIONS.to_string()),
        (
            "connect-timeout",
            values::ShowDuration(Failover::CONNECT_TIMEOUT).to_string(),
        ),
        ("retries", Failover::RETRIES.to_string()),
        (
            "ejection",
            values::ShowDuration(Failover::EJECTION).to_string(),
        ),
        ("max-ejected", format!("{}%", Failover::MAX_EJECTED)),
        ("panic-threshold", format!("{}%", Failover::PANIC)),
        ("on-down.rate", OnDown::default().rate.to_string()),
        ("admin.bind", format!("unix:{}", admin::SOCKET)),
        ("admin.mode", format!("{:04o}", admin::MODE)),
        ("fall", Failover::FALL.to_string()),
        ("points", Policy::POINTS.to_string()),
    ] {
        let row = reference
            .lines()
            .find(|line| line.starts_with(&format!("| `{key}` |")));
        let cell = row.and_then(|row| row.split('|').nth(3)).expect("a row");
        assert_eq!(cell.trim().trim_matches(['`', '"']), default, "{key}");
    }
    for (key, default) in [
        (
            "health.interval",
            values::ShowDuration(health::INTERVAL).to_string(),
        ),
        (
            "health.timeout",
            values::ShowDuration(health::TIMEOUT).to_string(),
        ),
        ("health.rise", health::RISE.to_string()),
        ("health.fall", health::FALL.to_string()),
    ] {
        let row = reference
            .lines()
            .find(|line| line.starts_with(&format!("| `{key}` |")));
        let cell = row.and_then(|row| row.split('|').nth(4)).expect("a row");
        assert_eq!(cell.trim().trim_matches(['`', '"']), default, "{key}");
    }
}

#[test]
fn a_preread_limit_that_no_frame_of_the_unpack_fits_is_refused() {
    for (unpack, needs) in [
        ("kind = 'fixed'\nsize = 37\nkey = { offset = 0 }", 37),
        (
            "kind = 'fixed'\nsize = 37\nkey = { offset = 2, length = 4 }",
            6,
        ),
        (
            "kind = 'delimited'\ndelimiter = '0a'\nkey = { offset = 2, length = 4 }",
            6,
        ),
        (
            "kind = 'length-field'\nlength = { offset = 8, width = 2 }\nkey = { offset = 0 }",
            10,
        ),
        (
            "kind = 'length-field'\nlength = { offset = 0, width = 2 }\nkey = { offset = 0 }\n\
             min-frame = 64",
            64,
        ),
    ] {
        let with = |limit: usize| {
            let text = format!(
                "[unpack.u]\n{unpack}\n\
                 [[listener]]\nname = 'l'\nbind = '127.0.0.1:0'\nunpack = 'u'\npool = 'p'\n\
                 preread-limit = {limit}\n\
                 [[pool]]\nname = 'p'\nbackends = [{{ id = 'a', address = '127.0.0.1:1' }}]\n"
            );
            Settings::parse("t", &text, &UnpackRegistry::new())
        };
        assert!(with(needs).is_ok(), "{unpack}");
        let errors = with(needs - 1).expect_err(unpack);
        assert!(
            errors
                .to_string()
                .contains(&format!("preread-limit = \"{needs}B\"")),
            "{errors}"
        );
    }
}

/// Any backend will do.
#[derive(Debug)]
struct Whatever;

impl Unpack for Whatever {
    fn unpack(&self, _prefix: &[u8], _scanned: usize, _eof: bool) -> Status {
        Status::Complete {
            frame: 0..0,
            target: Target::Any,
        }
    }
}

#[test]
fn a_listener_may_name_an_unpack_that_the_program_registers() {
    let mut registered = UnpackRegistry::new();
    registered
        .register("whatever", Whatever)
        .expect("a new name");
    let text = STATION.replace("unpack = \"station\"", "unpack = \"whatever\"");
    let settings = Settings::parse("t", &text, &registered).expect("a fine configuration");
    assert!(matches!(
        unpack_of(&settings.listeners[0]).unpack(b"", 0, true),
        Status::Complete {
            target: Target::Any,
            ..
        }
    ));
    let warnings: Vec<&str> = settings.warnings.iter().map(Diagnostic::message).collect();
    assert_eq!(warnings, ["no listener uses the unpack `station`"]);

    let unknown = text.replace("\"whatever\"", "\"whatevr\"");
    let errors = Settings::parse("t", &unknown, &registered).expect_err("unknown");
    assert_eq!(messages(&errors), ["unknown unpack `whatevr`"]);
    let shown = errors.to_string();
    assert!(shown.contains("did you mean \"whatever\"?"), "{shown}");
    assert!(
        shown.contains("known unpacks: `station`, `whatever`"),
        "{shown}"
    );

    let twice = text.replace("[unpack.station]", "[unpack.whatever]");
    let errors = Settings::parse("t", &twice, &registered).expect_err("ambiguous");
    assert_eq!(
        messages(&errors),
        ["the program registers an unpack `whatever` too"]
    );
}

#[test]
fn line_ends_and_a_byte_order_mark_change_nothing() {
    let text = format!("\u{feff}{}", STATION.replace('\n', "\r\n"));
    assert_eq!(
        format!("{:?}", parse("t", &text)),
        format!("{:?}", parse("t", STATION))
    );
    let wrong = text.replace("pool = \"stations\"", "pool = \"x\"");
    let errors = Settings::parse("t", &wrong, &UnpackRegistry::new()).expect_err("unknown");
    let place = errors.diagnostics()[0].place().expect("a place");
    assert_eq!((place.line(), place.column()), (5, 8));
    assert!(!errors.to_string().contains('\r'));
}

#[test]
fn a_file_full_of_mistakes_is_refused_in_bounded_space() {
    let mut text = STATION.to_owned();
    for at in 0..10_000 {
        let _ = writeln!(text, "[[listener]]\nwrong{at} = {at}");
    }
    let errors = Settings::parse("t", &text, &UnpackRegistry::new()).expect_err("wrong");
    assert!(
        errors.diagnostics().len() <= 101,
        "{}",
        errors.diagnostics().len()
    );
    for nested in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        "a=".to_owned() + &"[".repeat(100_000),
    ] {
        for name in ["t.json", "t.toml"] {
            assert!(Settings::parse(name, &nested, &UnpackRegistry::new()).is_err());
        }
    }
}

/// A text with one part replaced by something else.
fn mutated(text: &'static str) -> impl Strategy<Value = String> {
    let tokens = prop::sample::select(vec![
        "",
        "\"",
        "[",
        "]",
        "{",
        "}",
        "=",
        ",",
        "\n",
        "0",
        "-1",
        "99999999999999999999",
        "1.5",
        "true",
        "null",
        "\"\"",
        "\"off\"",
        "\"é\"",
        "[[pool]]",
        "[unpack.x]",
        "a.b=1",
        "\\",
        "\u{0}",
        "😀",
        "1979-05-27",
        "\"5s\"",
        "\"64KiB\"",
        "{ offset = 0 }",
        "[1, 2]",
        "#",
    ]);
    let edit = (any::<prop::sample::Index>(), 0..12_usize, tokens);
    prop::collection::vec(edit, 1..5).prop_map(move |edits| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, removed, token) in edits {
            let from = at.index(chars.len() + 1);
            let to = (from + removed).min(chars.len());
            chars.splice(from..to, token.chars());
        }
        chars.into_iter().collect()
    })
}

/// It is read, and shown, whatever it is.
fn survives(text: &str) {
    for name in ["t.toml", "t.json"] {
        if let Err(errors) = Settings::parse(name, text, &UnpackRegistry::new()) {
            let shown = errors.to_string();
            let one = errors
                .diagnostics()
                .iter()
                .any(|one| one.severity() == Severity::Error);
            assert!(one, "{shown}");
            assert!(
                shown.chars().all(|c| c == '\n' || !c.is_control()),
                "{shown:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,60}|[\\[\\]{}=\",.#:a-z0-9\n\t\\\\ ]{0,120}") {
        survives(&text);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_mistake_in_a_configuration_makes_it_panic(
        text in prop_oneof![mutated(STATION), mutated(EVERY_KEY), mutated(ORIGINAL)],
    ) {
        survives(&text);
    }
}
