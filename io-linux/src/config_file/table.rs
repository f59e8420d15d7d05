//! Tables: the keys each kind may have, taken by name; what nobody takes is an error.

use super::diagnostic::quote;
use super::report::{Finding, Report, Span};
use super::tree::{Entry, Node, Value};

/// A kind of table, and the keys it may have.
#[derive(Debug)]
pub(super) struct Kind {
    /// As in "unknown key in …".
    pub(super) what: &'static str,
    pub(super) keys: &'static [&'static str],
}

pub(super) static TOP: Kind = Kind {
    what: "the configuration",
    keys: &[
        "listener",
        "unpack",
        "pool",
        "admin",
        "session-log",
        "workers",
        "cpus",
        "incoming-cpu",
        "relay",
        "spin-us",
        "preread-memory",
        "reset-timeout",
        "shutdown-timeout",
    ],
};

pub(super) static LISTENER: Kind = Kind {
    what: "a listener",
    keys: &[
        "name",
        "bind",
        "unpack",
        "pool",
        "preread-timeout",
        "preread-limit",
        "idle-timeout",
        "half-close-timeout",
        "max-sessions",
        "max-sessions-per-source",
        "admission",
        "replay-first-frame",
        "keepalive",
        "user-timeout",
        "congestion",
        "hand-off",
        "allow-address",
    ],
};

pub(super) static POOL: Kind = Kind {
    what: "a pool",
    keys: &[
        "name",
        "policy",
        "points",
        "bounded-load",
        "backends",
        "connect-timeout",
        "retries",
        "fall",
        "ejection",
        "max-ejected",
        "early-resets",
        "fast-open",
        "warm",
        "panic-threshold",
        "health",
        "on-down",
        "slow-start",
        "admission",
        "source",
    ],
};

pub(super) static HEALTH_TCP: Kind = Kind {
    what: "a `health` of kind \"tcp\"",
    keys: &[
        "kind",
        "interval",
        "fast-interval",
        "timeout",
        "rise",
        "fall",
        "port",
    ],
};

pub(super) static HEALTH_EXCHANGE: Kind = Kind {
    what: "a `health` of kind \"send-expect\"",
    keys: &[
        "kind",
        "send",
        "send-hex",
        "expect",
        "expect-hex",
        "expect-regex",
        "interval",
        "fast-interval",
        "timeout",
        "rise",
        "fall",
        "port",
    ],
};

pub(super) static HEALTH_HTTP: Kind = Kind {
    what: "a `health` of kind \"http\"",
    keys: &[
        "kind",
        "path",
        "host",
        "status",
        "interval",
        "fast-interval",
        "timeout",
        "rise",
        "fall",
        "port",
    ],
};

pub(super) static ON_DOWN: Kind = Kind {
    what: "the `on-down` of a pool",
    keys: &["sessions", "rate"],
};

pub(super) static ADMISSION: Kind = Kind {
    what: "an `admission`",
    keys: &["rate", "burst"],
};

pub(super) static ADMIN: Kind = Kind {
    what: "[admin]",
    keys: &["bind", "mode", "token", "token-file"],
};

pub(super) static SESSION_LOG: Kind = Kind {
    what: "[session-log]",
    keys: &["format", "to"],
};

pub(super) static BACKEND: Kind = Kind {
    what: "a backend",
    keys: &["id", "address", "weight", "draining"],
};

pub(super) static LENGTH_FIELD: Kind = Kind {
    what: "an unpack of kind \"length-field\"",
    keys: &["kind", "magic", "length", "key", "min-frame", "max-frame"],
};

pub(super) static DELIMITED: Kind = Kind {
    what: "an unpack of kind \"delimited\"",
    keys: &["kind", "delimiter", "key", "min-frame", "max-frame"],
};

pub(super) static FIXED: Kind = Kind {
    what: "an unpack of kind \"fixed\"",
    keys: &["kind", "size", "key"],
};

pub(super) static LENGTH: Kind = Kind {
    what: "the `length` of an unpack",
    keys: &["offset", "width", "endian", "adjust"],
};

pub(super) static KEY: Kind = Kind {
    what: "the `key` of an unpack",
    keys: &["offset", "length"],
};

/// In the order in which a key's home is looked for.
pub(super) static KINDS: [&Kind; 16] = [
    &TOP,
    &LISTENER,
    &POOL,
    &BACKEND,
    &LENGTH_FIELD,
    &DELIMITED,
    &FIXED,
    &LENGTH,
    &KEY,
    &HEALTH_TCP,
    &HEALTH_EXCHANGE,
    &HEALTH_HTTP,
    &ON_DOWN,
    &ADMISSION,
    &ADMIN,
    &SESSION_LOG,
];

/// What other load balancers say, and what is said here: the first that the table knows is meant.
static SYNONYMS: [(&[&str], &[&str]); 16] = [
    (
        &[
            "upstream",
            "upstreams",
            "cluster",
            "clusters",
            "backend-group",
            "service",
            "services",
        ],
        &["pool"],
    ),
    (
        &[
            "frontend",
            "frontends",
            "listen",
            "entrypoint",
            "entrypoints",
            "port",
        ],
        &["bind", "listener"],
    ),
    (
        &[
            "server",
            "servers",
            "backend",
            "endpoint",
            "endpoints",
            "member",
            "members",
            "node",
            "nodes",
        ],
        &["backends", "listener"],
    ),
    (
        &[
            "algorithm",
            "balance",
            "balancer",
            "lb-policy",
            "method",
            "strategy",
        ],
        &["policy"],
    ),
    (
        &["framing", "decoder", "codec", "protocol", "parser"],
        &["unpack"],
    ),
    (
        &["address", "addr", "host", "url", "target"],
        &["address", "bind"],
    ),
    (&["type"], &["kind"]),
    (&["threads", "nbthread", "worker-processes"], &["workers"]),
    (&["endianness", "byte-order", "order"], &["endian"]),
    (
        &["check", "health-check", "healthcheck", "probe", "monitor"],
        &["health"],
    ),
    (
        &["rate-limit", "maxconnrate", "throttle", "connection-rate"],
        &["admission"],
    ),
    (&["api", "management", "control", "stats"], &["admin"]),
    (&["access-log", "accesslog", "log"], &["session-log"]),
    (&["uri"], &["path"]),
    (&["path", "file", "output"], &["to"]),
    (&["panic", "healthy-panic-threshold"], &["panic-threshold"]),
];

/// How many single edits make `b` of `a`, swapped neighbours counting as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = [
        vec![0; b.len() + 1],
        (0..=b.len()).collect(),
        vec![0; b.len() + 1],
    ];
    for i in 1..=a.len() {
        rows[2][0] = i;
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[1][j - 1] + same)
                .min(rows[1][j] + 1)
                .min(rows[2][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[0][j - 2] + 1);
            }
            rows[2][j] = best;
        }
        rows.rotate_left(1);
    }
    rows[1][b.len()]
}

/// The one of `known` that was probably meant.
pub(super) fn nearest<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    const LONGEST: usize = 128;
    if text.len() > LONGEST {
        return None;
    }
    let lower = text.to_lowercase().replace('_', "-");
    let near = known.into_iter().filter(|known| known.len() <= LONGEST);
    let (far, best) = near
        .map(|known| (distance(&lower, &known.to_lowercase()), known))
        .min_by_key(|(far, _)| *far)?;
    (far <= (best.chars().count() / 3).clamp(1, 3)).then_some(best)
}

/// The key of `kind` that `key`, which is none, was probably meant to be.
fn meant(kind: &'static Kind, key: &str) -> Option<&'static str> {
    let synonym = SYNONYMS.iter().find(|(words, _)| words.contains(&key));
    let meant = synonym.and_then(|(_, meant)| meant.iter().find(|key| kind.keys.contains(key)));
    match meant {
        Some(meant) => Some(meant),
        None if homes(key).next().is_some() => None,
        None => nearest(key, kind.keys.iter().copied()),
    }
}

/// The kinds of table that have a key.
fn homes(key: &str) -> impl Iterator<Item = &'static Kind> {
    KINDS
        .into_iter()
        .filter(move |kind| kind.keys.contains(&key))
}

/// What to say of a key that a table does not have.
fn unknown(found: &mut Finding, kind: &Kind, key: &str, meant: Option<&str>) {
    let homes: Vec<&str> = homes(key).map(|home| home.what).collect();
    if let Some(meant) = meant {
        found.help(format!("did you mean `{meant}`?"));
    } else if !homes.is_empty() {
        found.help(format!(
            "{} is a key of {}",
            quote(key),
            homes.join(" and of ")
        ));
    }
    let keys: Vec<String> = kind.keys.iter().map(|key| format!("`{key}`")).collect();
    found.help(format!("the keys here are {}", keys.join(", ")));
}

/// Unknown keys of one table whose meaning is guessed at most: a file of nothing else must not take
/// for ever.
const GUESSES: usize = 100;

/// A table whose keys are taken one by one.
///
/// A key that is unknown, but close to one that is not given, is read as that one: so the error
/// about its name is the only one it brings, and what is wrong with its value is found too.
#[derive(Debug)]
pub(super) struct Table<'t> {
    kind: &'static Kind,
    /// Where the table itself is, for what is missing in it.
    span: Span,
    entries: &'t [Entry],
    /// For each entry of an unknown key, the known one that was probably meant.
    meant: Vec<Option<&'static str>>,
    /// Required keys that are not given, and how each could look.
    missing: Vec<(&'static str, &'static str)>,
}

impl<'t> Table<'t> {
    pub(super) fn new(kind: &'static Kind, span: Span, entries: &'t [Entry]) -> Self {
        let mut guesses = 0;
        let meant = |entry: &Entry| {
            if kind.keys.contains(&entry.key.as_str()) || guesses == GUESSES {
                return None;
            }
            guesses += 1;
            meant(kind, &entry.key)
        };
        Self {
            kind,
            span,
            entries,
            meant: entries.iter().map(meant).collect(),
            missing: Vec::new(),
        }
    }

    /// The table of a node; anything else is an error.
    pub(super) fn of(kind: &'static Kind, node: &'t Node, report: &mut Report<'_>) -> Option<Self> {
        if let Value::Table(entries) = &node.value {
            return Some(Self::new(kind, node.span.clone(), entries));
        }
        let message = format!("expected a table for {}, found {}", kind.what, node.kind());
        let keys = kind.keys[..2.min(kind.keys.len())].join(" = …, ");
        report
            .error(&node.span, message)
            .help(format!("write a table, as in {{ {keys} = … }}"));
        None
    }

    /// The value of `key`, if it is given.
    pub(super) fn take(&self, key: &'static str) -> Option<&'t Node> {
        debug_assert!(self.kind.keys.contains(&key), "{key} is listed");
        let given = self.entries.iter().position(|entry| entry.key == key);
        let at = given.or_else(|| self.meant.iter().position(|meant| *meant == Some(key)));
        at.map(|at| &self.entries[at].node)
    }

    /// Where the table is.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Where the value of `key` is; the table itself, if it is not given.
    pub(super) fn span_of(&self, key: &'static str) -> Span {
        self.take(key).map_or(&self.span, |node| &node.span).clone()
    }

    /// The value of `key`; without it, [`Table::finish`] notes an error that shows `example`.
    pub(super) fn need(&mut self, key: &'static str, example: &'static str) -> Option<&'t Node> {
        let node = self.take(key);
        if node.is_none() {
            self.missing.push((key, example));
        }
        node
    }

    /// The value of `key` as `read` sees it, or `default` where it is not given (or wrong, which is
    /// then noted).
    pub(super) fn get<T>(
        &self,
        key: &'static str,
        default: T,
        report: &mut Report<'_>,
        read: impl FnOnce(&Node, &mut Report<'_>) -> Option<T>,
    ) -> T {
        let value = self.take(key).and_then(|node| read(node, report));
        value.unwrap_or(default)
    }

    /// Notes every key that is missing and every one that is unknown.
    pub(super) fn finish(self, report: &mut Report<'_>) {
        for (key, example) in self.missing {
            report
                .error(&self.span, format!("{} has no `{key}`", self.kind.what))
                .help(format!("add {example}"));
        }
        for (entry, meant) in self.entries.iter().zip(self.meant) {
            if report.full() {
                return;
            }
            if !self.kind.keys.contains(&entry.key.as_str()) {
                let message = format!("unknown key {} in {}", quote(&entry.key), self.kind.what);
                let error = report.error(&entry.key_span, message);
                unknown(error, self.kind, &entry.key, meant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, far) in [
            ("", "", 0),
            ("", "abc", 3),
            ("pool", "pool", 0),
            ("pol", "pool", 1),
            ("poool", "pool", 1),
            ("poll", "pool", 1),
            ("popl", "pool", 1),
            ("opol", "pool", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), far, "{a} {b}");
            assert_eq!(distance(b, a), far, "{b} {a}");
        }
    }

    #[test]
    fn only_what_is_near_is_meant() {
        let keys = LISTENER.keys.iter().copied();
        let near = |text| nearest(text, keys.clone());
        assert_eq!(near("preread_timeout"), Some("preread-timeout"));
        assert_eq!(near("Binds"), Some("bind"));
        assert_eq!(near("half-closed-timeout"), Some("half-close-timeout"));
        assert_eq!(near("colour"), None);
        assert_eq!(near(""), None);
        assert_eq!(near(&"x".repeat(1_000_000)), None);
    }

    #[test]
    fn synonyms_name_keys_that_exist() {
        for (_, meant) in &SYNONYMS {
            for key in *meant {
                assert!(KINDS.iter().any(|kind| kind.keys.contains(key)), "{key}");
            }
        }
    }
}
