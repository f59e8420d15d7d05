//! Reading single values: of the right kind, and in range.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use tlb_engine::fleet::Admission;

use super::diagnostic::quote;
use super::report::{Finding, Report, Span};
use super::table::{ADMISSION, Table, nearest};
use super::tree::{Node, Value};
use super::values::{self, Problem, ShowDuration, ShowSize};

/// Most of anything in a second, and most that may come at once.
const RATE_MAX: u32 = 1_000_000;

/// Notes that a value is of another kind than its key takes.
pub(super) fn wrong_kind<'r>(
    node: &Node,
    expected: &str,
    report: &'r mut Report<'_>,
) -> &'r mut Finding {
    report.error(
        &node.span,
        format!("expected {expected}, found {}", node.kind()),
    )
}

/// Notes that a value is of the right kind, but too small or too large.
pub(super) fn out_of_range<'r>(node: &Node, report: &'r mut Report<'_>) -> &'r mut Finding {
    let message = format!("{} is out of range", quote(report.text(&node.span)));
    report.error(&node.span, message)
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

/// As in `a`, `b` or `c`.
pub(super) fn either(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, first)) => format!("{} or {last}", first.join(", ")),
        None => String::new(),
    }
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
        out_of_range(node, report).help(format!("write a whole number of {bounds}"));
    }
    value
}

/// How many a second.
pub(super) fn rate(node: &Node, report: &mut Report<'_>) -> Option<NonZeroU32> {
    integer(node, 1..=RATE_MAX, report).and_then(NonZeroU32::new)
}

/// An `admission`: a rate, and by default a tenth of it at once.
pub(super) fn admission(node: &Node, report: &mut Report<'_>) -> Option<Admission> {
    let mut table = Table::of(&ADMISSION, node, report)?;
    let rate_node = table.need("rate", "rate = 1000, in sessions a second");
    let rate = rate_node.and_then(|node| rate(node, report));
    let burst = table.get("burst", None, report, |node, report| {
        self::rate(node, report).map(Some)
    });
    table.finish(report);
    let rate = rate?;
    let tenth = NonZeroU32::new(rate.get() / 10).unwrap_or(NonZeroU32::MIN);
    Some(Admission {
        rate,
        burst: burst.unwrap_or(tenth),
    })
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
    out_of_range(node, report).help(format!("write a duration of \"{from}\" to \"{to}\""));
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
        out_of_range(node, report).help(format!("write a size of \"{from}\" to \"{to}\""));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_listed() {
        assert_eq!(either(&[]), "");
        assert_eq!(either(&["a"]), "`a`");
        assert_eq!(either(&["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
