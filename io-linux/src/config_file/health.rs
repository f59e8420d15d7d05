//! What a pool says about health: its probes, and what follows from a backend that goes down.

use std::time::Duration;

use regex::bytes::Regex;
use tlb_engine::api::TellHow;
use tlb_engine::fleet::{OnDown, ProbeConfig};

use super::reader;
use super::report::{Report, Span};
use super::table::{HEALTH_EXCHANGE, HEALTH_HTTP, HEALTH_TCP, Kind, ON_DOWN, Table};
use super::tree::{Node, Value};
use super::values::{self, Problem, ShowDuration};
use super::{Expect, HealthSettings, ProbeKind};

/// Default of `health.interval`.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
/// Default of `health.timeout`.
pub(super) const TIMEOUT: Duration = Duration::from_secs(1);
/// Default of `health.rise`.
pub(super) const RISE: u32 = 2;
/// Default of `health.fall`.
pub(super) const FALL: u32 = 3;
/// Default of `health.status`.
const STATUS: (u16, u16) = (200, 399);

const HOUR: Duration = Duration::from_secs(3600);
/// A shorter interval would be a load of its own.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), HOUR);
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(1), HOUR);
/// Most bytes that a probe sends, and that its answer may have to begin with.
const BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a regular expression.
const REGEX_MAX: usize = 4096;
/// Most bytes of a path, and of a `Host` header.
const PATH_MAX: usize = 4096;

type Build = fn(&mut Table<'_>, &mut Report<'_>) -> Option<ProbeKind>;

/// Reads `health`.
pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Option<HealthSettings> {
    let kinds: [(&str, (&'static Kind, Build)); 3] = [
        ("tcp", (&HEALTH_TCP, |_, _| Some(ProbeKind::Tcp))),
        ("send-expect", (&HEALTH_EXCHANGE, exchange)),
        ("http", (&HEALTH_HTTP, http)),
    ];
    let Value::Table(entries) = &node.value else {
        reader::wrong_kind(node, "a table for `health`", report)
            .help("write a table, as in { kind = \"tcp\" }");
        return None;
    };
    let Some(kind) = entries.iter().find(|entry| entry.key == "kind") else {
        report
            .error(&node.span, "`health` has no `kind`")
            .help("add kind = \"tcp\", \"send-expect\" or \"http\"");
        return None;
    };
    let (kind, build) = reader::word(&kind.node, &kinds, report)?;
    let mut table = Table::new(kind, node.span.clone(), entries);
    table.take("kind");
    let schedule = schedule(&mut table, report);
    let port = table.get("port", None, report, |node, report| {
        reader::integer(node, 1..=u16::MAX, report).map(Some)
    });
    let kind = build(&mut table, report);
    table.finish(report);
    Some(HealthSettings {
        kind: kind?,
        schedule,
        port,
    })
}

fn schedule(table: &mut Table<'_>, report: &mut Report<'_>) -> ProbeConfig {
    let interval = table.get("interval", INTERVAL, report, |node, report| {
        reader::duration(node, INTERVALS.0..=INTERVALS.1, report)
    });
    let fast_interval = table.get("fast-interval", interval, report, |node, report| {
        let fast = reader::duration(node, INTERVALS.0..=INTERVALS.1, report)?;
        if fast > interval {
            let interval = ShowDuration(interval);
            report
                .error(
                    &node.span,
                    format!("a fast interval that is longer than the interval, {interval}"),
                )
                .help("shorten it, or leave it out: it is the interval then");
            return None;
        }
        Some(fast)
    });
    let timeout = table.get("timeout", TIMEOUT, report, |node, report| {
        reader::duration(node, TIMEOUTS.0..=TIMEOUTS.1, report)
    });
    let count = |node: &Node, report: &mut Report<'_>| reader::integer(node, 1..=1000, report);
    let rise = table.get("rise", RISE, report, count);
    let fall = table.get("fall", FALL, report, count);
    if timeout > interval {
        let (shown, within) = (
            ShowDuration(timeout),
            ShowDuration(interval + fast_interval.max(timeout) * (fall - 1) + timeout),
        );
        report
            .warning(
                &table.span_of("timeout"),
                format!(
                    "a backend that hangs is down only after {within}: each probe waits {shown}"
                ),
            )
            .help("set a timeout of at most the interval");
    }
    ProbeConfig {
        interval,
        fast_interval,
        timeout,
        rise,
        fall,
    }
}

fn exchange(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<ProbeKind> {
    let send = one_of(table, &["send", "send-hex"], report);
    let send = match send {
        Ok(None) => Some(Box::default()),
        Ok(Some(("send", node))) => text(node, report),
        Ok(Some((_, node))) => hex(node, report),
        Err(()) => None,
    };
    let expect = match one_of(table, &["expect", "expect-hex", "expect-regex"], report) {
        Ok(None) => {
            report
                .error(&table.span(), "nothing to expect of a backend")
                .help("add expect = \"+PONG\", expect-hex = \"2b\" or expect-regex = \"^2[0-9]+\"")
                .help("if it is enough that the backend accepts, use kind = \"tcp\"");
            None
        }
        Ok(Some(("expect", node))) => text(node, report).map(Expect::Prefix),
        Ok(Some(("expect-hex", node))) => hex(node, report).map(Expect::Prefix),
        Ok(Some((_, node))) => read_regex(node, report).map(Expect::Regex),
        Err(()) => None,
    };
    Some(ProbeKind::Exchange {
        send: send?,
        expect: expect?,
    })
}

/// The one of `keys` that is given, if any; `Err` if there are several, which is noted.
fn one_of<'t>(
    table: &Table<'t>,
    keys: &[&'static str],
    report: &mut Report<'_>,
) -> Result<Option<(&'static str, &'t Node)>, ()> {
    let given = keys.iter().filter_map(|key| Some((*key, table.take(key)?)));
    let given: Vec<_> = given.collect();
    match given[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        [(first, see), (second, node), ..] => {
            report
                .error(
                    &node.span,
                    format!("`{second}` where there is `{first}` already"),
                )
                .help("remove one of the two")
                .see("the other one", &see.span);
            Err(())
        }
    }
}

/// Bytes of a probe as text; never empty.
fn text(node: &Node, report: &mut Report<'_>) -> Option<Box<[u8]>> {
    let text = reader::string(node, "\"PING\\r\\n\"", report)?;
    fits(text.as_bytes(), &node.span, report).then(|| text.as_bytes().into())
}

/// Bytes of a probe as hex; never empty.
fn hex(node: &Node, report: &mut Report<'_>) -> Option<Box<[u8]>> {
    let bytes = reader::parsed(node, "\"0d 0a\"", values::hex, report)?;
    fits(&bytes, &node.span, report).then(|| bytes.into())
}

fn fits(bytes: &[u8], span: &Span, report: &mut Report<'_>) -> bool {
    if bytes.is_empty() {
        report
            .error(span, "empty: no byte to send or to expect")
            .help("write what the protocol says, or leave the key out");
    } else if bytes.len() > BYTES_MAX {
        report
            .error(span, format!("{} bytes are too many", bytes.len()))
            .help("a probe has at most 64 KiB");
    }
    (1..=BYTES_MAX).contains(&bytes.len())
}

fn read_regex(node: &Node, report: &mut Report<'_>) -> Option<Regex> {
    let regex = reader::parsed(node, "\"^2[0-9]+\"", regex, report)?;
    if regex.is_match(b"") {
        report
            .error(
                &node.span,
                "this matches an answer without a byte, and so any",
            )
            .help("let it need at least one byte, as in \"^2[0-9]+\"");
        return None;
    }
    Some(regex)
}

/// Reads a regular expression over bytes.
fn regex(text: &str) -> Result<Regex, Problem> {
    let problem = |message: String, help: &str| Problem {
        message,
        help: help.to_owned(),
    };
    if text.len() > REGEX_MAX {
        let message = format!("a regular expression of {} bytes", text.len());
        return Err(problem(message, "write at most 4096 bytes"));
    }
    let parsed = regex_syntax::ParserBuilder::new()
        .utf8(false)
        .build()
        .parse(text);
    let (at, what) = match &parsed {
        Err(regex_syntax::Error::Parse(error)) => (error.span(), error.kind().to_string()),
        Err(regex_syntax::Error::Translate(error)) => (error.span(), error.kind().to_string()),
        _ => {
            const HELP: &str = "make it simpler: fewer or smaller repetitions";
            return Regex::new(text)
                .map_err(|_| problem("too large a regular expression".to_owned(), HELP));
        }
    };
    let character = text[..at.start.offset].chars().count() + 1;
    Err(problem(
        format!("not a regular expression: {what}, at character {character}"),
        "see https://docs.rs/regex/latest/regex/#syntax; \
         in a TOML string of single quotes, a backslash is itself",
    ))
}

fn http(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<ProbeKind> {
    let path = table.get("path", "/".into(), report, |node, report| {
        reader::parsed(node, "\"/health\"", path, report)
    });
    let host = table.get("host", None, report, |node, report| {
        reader::parsed(node, "\"example.org\"", host, report).map(Some)
    });
    let status = table.get("status", STATUS, report, |node, report| {
        if let Value::Integer(number) = node.value {
            reader::wrong_kind(node, "a string", report).help(format!(
                "write it in quotes, as in \"{number}\" or \"200-399\""
            ));
            return None;
        }
        reader::parsed(node, "\"200-399\"", status, report)
    });
    Some(ProbeKind::Http { path, host, status })
}

/// Reads the path of a request.
fn path(text: &str) -> Result<Box<str>, Problem> {
    let fine = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fine && text.len() <= PATH_MAX && !text.contains('#') {
        return Ok(text.into());
    }
    Err(Problem {
        message: "not the path of a request".to_owned(),
        help: "begin it with `/`, and write other than printable ASCII as %20 and so on; \
               4096 bytes at most"
            .to_owned(),
    })
}

/// Reads a `Host` header.
fn host(text: &str) -> Result<Box<str>, Problem> {
    let fine = |byte: u8| byte.is_ascii_graphic() && !b"/?#@\\\"".contains(&byte);
    if !text.is_empty() && text.len() <= PATH_MAX && text.bytes().all(fine) {
        return Ok(text.into());
    }
    Err(Problem {
        message: "not a host".to_owned(),
        help: "write a name, with a port if wanted, as in \"example.org\"".to_owned(),
    })
}

/// Reads one status code, or the first and the last of a range.
fn status(text: &str) -> Result<(u16, u16), Problem> {
    let problem = |message: &str, help: String| Problem {
        message: message.to_owned(),
        help,
    };
    let code = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        let code = text.parse().ok().filter(|_| digits);
        code.filter(|code| (100..=599).contains(code))
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (Some(from), Some(to)) = (code(from.trim()), code(to.trim())) else {
        let help = "write a code of 100 to 599, as in \"200\", or a range, as in \"200-399\"";
        return Err(problem("not a range of status codes", help.to_owned()));
    };
    if from > to {
        let help = format!("write \"{to}-{from}\"");
        return Err(problem("a range that ends before it begins", help));
    }
    Ok((from, to))
}

/// Reads `on-down`.
pub(super) fn on_down(node: &Node, report: &mut Report<'_>) -> Option<OnDown> {
    let table = Table::of(&ON_DOWN, node, report)?;
    let default = OnDown::default();
    let words = [
        ("close", Some(TellHow::Close)),
        ("keep", None),
        ("reset", Some(TellHow::Reset)),
    ];
    let how = table.get("sessions", default.how, report, |node, report| {
        reader::word(node, &words, report)
    });
    let rate = table.get("rate", default.rate, report, reader::rate);
    table.finish(report);
    Some(OnDown { how, rate })
}

/// Reads a percentage of 0 to 100.
pub(super) fn share(node: &Node, report: &mut Report<'_>) -> Option<u32> {
    if let Value::Integer(number) = node.value {
        reader::wrong_kind(node, "a percentage", report).help(format!("write it as \"{number}%\""));
        return None;
    }
    let percent = |text: &str| {
        values::percent(text).map_err(|problem| Problem {
            help: "write a whole number and `%`, as in \"50%\"".to_owned(),
            ..problem
        })
    };
    let percent = reader::parsed(node, "\"50%\"", percent, report)?;
    if percent > 100 {
        reader::out_of_range(node, report).help("write \"0%\" to \"100%\"");
        return None;
    }
    Some(percent)
}

/// Reads `panic-threshold`, of which "off" is 0.
pub(super) fn panic_threshold(node: &Node, report: &mut Report<'_>) -> Option<u32> {
    if reader::is_off(node) {
        return Some(0);
    }
    share(node, report)
}
