//! Reading tables: every key is taken by name and checked, and what nobody takes is an error.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::diagnostic::{Diagnostic, Report, Span, quote};
use super::tree::{Entry, Node, Value};
use super::values::{self, Problem, ShowDuration, ShowSize};

/// A kind of table, and the keys it may have.
#[derive(Debug)]
pub(super) struct Kind {
    /// As in "unknown key in …".
    pub(super) what: &'static str,
    pub(super) keys: &'static [&'static str],
}

pub(super) static TOP: Kind = Kind {
    what: "the top level",
    keys: &[
        "listener",
        "unpack",
        "pool",
        "workers",
        "relay",
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
        "keepalive",
        "user-timeout",
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
        "source",
    ],
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
static KINDS: [&Kind; 9] = [
    &TOP,
    &LISTENER,
    &POOL,
    &BACKEND,
    &LENGTH_FIELD,
    &DELIMITED,
    &FIXED,
    &LENGTH,
    &KEY,
];

/// What other load balancers say, and what is said here: the first that the table knows is meant.
static SYNONYMS: [(&[&str], &[&str]); 9] = [
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

/// As in `a`, `b` or `c`.
pub(super) fn either(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
        None => String::new(),
    }
}

/// What to say of a key that a table does not have.
fn unknown(found: &mut Diagnostic, kind: &Kind, key: &str) {
    let synonym = || {
        let (_, meant) = SYNONYMS.iter().find(|(words, _)| words.contains(&key))?;
        meant.iter().copied().find(|key| kind.keys.contains(key))
    };
    let home = || {
        KINDS
            .iter()
            .filter(|kind| kind.keys.contains(&key))
            .map(|home| home.what)
            .collect::<Vec<_>>()
    };
    let homes = home();
    if let Some(meant) = synonym() {
        found.help(format!("here it is called `{meant}`"));
    } else if !homes.is_empty() {
        found.help(format!(
            "{} is a key of {}",
            quote(key),
            homes.join(" and of ")
        ));
    } else if let Some(meant) = nearest(key, kind.keys.iter().copied()) {
        found.help(format!("did you mean `{meant}`?"));
    }
    let keys: Vec<String> = kind.keys.iter().map(|key| format!("`{key}`")).collect();
    found.help(format!("the keys of {} are {}", kind.what, keys.join(", ")));
}

/// A table whose keys are taken one by one.
#[derive(Debug)]
pub(super) struct Table<'t> {
    kind: &'static Kind,
    /// Where the table itself is, for what is missing in it.
    span: Span,
    entries: &'t [Entry],
    taken: Vec<bool>,
}

impl<'t> Table<'t> {
    pub(super) fn new(kind: &'static Kind, span: Span, entries: &'t [Entry]) -> Self {
        Self {
            kind,
            span,
            entries,
            taken: vec![false; entries.len()],
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
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'t Node> {
        debug_assert!(self.kind.keys.contains(&key), "{key} is listed");
        let at = self.entries.iter().position(|entry| entry.key == key)?;
        self.taken[at] = true;
        Some(&self.entries[at].node)
    }

    /// Where the value of `key` is; the table itself, if it is not given.
    pub(super) fn span_of(&self, key: &str) -> Span {
        let entry = self.entries.iter().find(|entry| entry.key == key);
        entry.map_or_else(|| self.span.clone(), |entry| entry.node.span.clone())
    }

    /// The value of `key`; without it, an error that shows `example`.
    pub(super) fn need(
        &mut self,
        key: &'static str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<&'t Node> {
        let node = self.take(key);
        if node.is_none() {
            report
                .error(&self.span, format!("{} has no `{key}`", self.kind.what))
                .help(format!("add `{key}`, as in {example}"));
        }
        node
    }

    /// The value of `key` as `read` sees it, or `default` where it is not given (or wrong, which is then noted).
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        default: T,
        report: &mut Report<'_>,
        read: impl FnOnce(&Node, &mut Report<'_>) -> Option<T>,
    ) -> T {
        let value = self.take(key).and_then(|node| read(node, report));
        value.unwrap_or(default)
    }

    /// Notes every key that nobody took.
    pub(super) fn finish(self, report: &mut Report<'_>) {
        for (entry, taken) in self.entries.iter().zip(self.taken) {
            if !taken {
                let message = format!("unknown key {} in {}", quote(&entry.key), self.kind.what);
                unknown(
                    report.error(&entry.key_span, message),
                    self.kind,
                    &entry.key,
                );
            }
        }
    }
}

/// Notes that a value is of another kind than its key takes.
pub(super) fn wrong_kind<'r>(
    node: &Node,
    expected: &str,
    report: &'r mut Report<'_>,
) -> &'r mut Diagnostic {
    report.error(
        &node.span,
        format!("expected {expected}, found {}", node.kind()),
    )
}

/// A string; `example` shows one.
pub(super) fn string<'t>(
    node: &'t Node,
    example: &str,
    report: &mut Report<'_>,
) -> Option<&'t str> {
    if let Value::String(text) = &node.value {
        return Some(text);
    }
    wrong_kind(node, "a string", report).help(format!("write a string, as in {example}"));
    None
}

/// The tables of a list, for the key that is named so in the file.
pub(super) fn tables<'t>(node: &'t Node, key: &str, report: &mut Report<'_>) -> &'t [Node] {
    if let Value::Array(nodes) = &node.value {
        return nodes;
    }
    wrong_kind(node, "a list of tables", report).help(format!(
        "write [[{key}]] with two brackets (in JSON, a list of objects)"
    ));
    &[]
}

/// A name or id: 1 to 128 bytes, none of them a control character.
pub(super) fn name(node: &Node, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = string(node, "\"devices\"", report)?;
    (!name_problem(text, &node.span, report)).then(|| text.into())
}

/// Whether `text` cannot be a name; it is noted then.
pub(super) fn name_problem(text: &str, span: &Span, report: &mut Report<'_>) -> bool {
    let fine = (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
    if !fine {
        report
            .error(span, "not a name")
            .help("a name has 1 to 128 bytes and no control characters");
    }
    !fine
}

/// One of a few words.
pub(super) fn word<T: Copy>(
    node: &Node,
    words: &[(&str, T)],
    report: &mut Report<'_>,
) -> Option<T> {
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let text = string(node, &format!("{:?}", names[0]), report)?;
    let found = words.iter().find(|(name, _)| *name == text);
    if found.is_none() {
        let message = format!("expected {}, found {}", either(&names), quote(text));
        let error = report.error(&node.span, message);
        match nearest(text, names.iter().copied()) {
            Some(meant) => error.help(format!("did you mean \"{meant}\"?")),
            None => error.help(format!("write one of these, as in \"{}\"", names[0])),
        };
    }
    found.map(|(_, value)| *value)
}

/// Whether a value is the string "off".
pub(super) fn is_off(node: &Node) -> bool {
    matches!(&node.value, Value::String(text) if text == "off")
}

/// A boolean.
pub(super) fn boolean(node: &Node, report: &mut Report<'_>) -> Option<bool> {
    if let Value::Bool(value) = node.value {
        return Some(value);
    }
    wrong_kind(node, "a boolean", report).help("write true or false, without quotes");
    None
}

/// An integer in `range`.
pub(super) fn integer<T>(
    node: &Node,
    range: RangeInclusive<T>,
    report: &mut Report<'_>,
) -> Option<T>
where
    T: TryFrom<i128> + PartialOrd + Display + Copy,
{
    let bounds = format!("{} to {}", range.start(), range.end());
    let Value::Integer(number) = node.value else {
        wrong_kind(node, "an integer", report)
            .help(format!("write a whole number of {bounds}, without quotes"));
        return None;
    };
    let value = T::try_from(number)
        .ok()
        .filter(|value| range.contains(value));
    if value.is_none() {
        report
            .error(&node.span, "out of range")
            .help(format!("write a whole number of {bounds}"));
    }
    value
}

/// What a string says in one of the small languages.
pub(super) fn parsed<T>(
    node: &Node,
    example: &str,
    parse: impl FnOnce(&str) -> Result<T, Problem>,
    report: &mut Report<'_>,
) -> Option<T> {
    let text = string(node, example, report)?;
    match parse(text) {
        Ok(value) => Some(value),
        Err(problem) => {
            let message = format!("{}: {}", quote(text), problem.message);
            report.error(&node.span, message).help(problem.help);
            None
        }
    }
}

/// A duration in `range`.
pub(super) fn duration(
    node: &Node,
    range: RangeInclusive<Duration>,
    report: &mut Report<'_>,
) -> Option<Duration> {
    if let Value::Integer(number) = node.value {
        let error = wrong_kind(node, "a duration", report);
        error.help(format!(
            "write it with a unit, as in \"{number}s\" or \"{number}ms\""
        ));
        return None;
    }
    let value = parsed(node, "\"5s\"", values::duration, report)?;
    if range.contains(&value) {
        return Some(value);
    }
    let (from, to) = (ShowDuration(*range.start()), ShowDuration(*range.end()));
    report
        .error(&node.span, "duration out of range")
        .help(format!("write one of \"{from}\" to \"{to}\""));
    None
}

/// A duration in `range`, or "off".
pub(super) fn duration_or_off(
    node: &Node,
    range: RangeInclusive<Duration>,
    report: &mut Report<'_>,
) -> Option<Option<Duration>> {
    if is_off(node) {
        return Some(None);
    }
    if matches!(node.value, Value::Bool(_)) {
        let error = wrong_kind(node, "a duration or \"off\"", report);
        error.help("write \"off\", or a duration such as \"60s\"");
        return None;
    }
    duration(node, range, report).map(Some)
}

/// A number of bytes in `range`: a size with a unit, or a plain integer.
pub(super) fn size(
    node: &Node,
    range: RangeInclusive<usize>,
    report: &mut Report<'_>,
) -> Option<usize> {
    let bytes = match node.value {
        Value::Integer(number) => usize::try_from(number).ok(),
        Value::String(_) => {
            let bytes = parsed(node, "\"64KiB\"", values::size, report)?;
            usize::try_from(bytes).ok()
        }
        _ => {
            wrong_kind(node, "a size", report)
                .help("write a size with a unit, as in \"64KiB\", or a whole number of bytes");
            return None;
        }
    };
    let bytes = bytes.filter(|bytes| range.contains(bytes));
    if bytes.is_none() {
        let (from, to) = (
            ShowSize(*range.start() as u64),
            ShowSize(*range.end() as u64),
        );
        report
            .error(&node.span, "size out of range")
            .help(format!("write one of \"{from}\" to \"{to}\""));
    }
    bytes
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
        assert_eq!(either(&["a"]), "`a`");
        assert_eq!(either(&["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
