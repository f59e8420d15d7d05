//! What TOML and JSON have in common: a tree of values, each of which knows where it was written.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::quote;
use super::json;
use super::report::{Report, Span};

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) value: Value,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    String(String),
    /// Numbers beyond the range are at its ends, which no key allows.
    Integer(i128),
    Bool(bool),
    Array(Vec<Node>),
    Table(Vec<Entry>),
    /// Something that no key takes, by its name.
    Other(&'static str),
}

/// A key of a table and its value, in the order in which they were written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) node: Node,
}

impl Node {
    /// What kind of value it is, as in "expected a string, found …".
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Bool(_) => "a boolean",
            Value::Array(_) => "a list",
            Value::Table(_) => "a table",
            Value::Other(kind) => kind,
        }
    }
}

/// The languages that a configuration can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    Toml,
    Json,
}

impl Syntax {
    /// JSON where the file's name says so, TOML otherwise.
    pub(super) fn of(name: &str) -> Self {
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        if extension.eq_ignore_ascii_case("json") {
            Self::Json
        } else {
            Self::Toml
        }
    }

    /// The entries of the top level; `None` if the text is not of this language.
    pub(super) fn parse(self, text: &str, report: &mut Report<'_>) -> Option<Vec<Entry>> {
        let node = match self {
            Self::Toml => toml(text, report)?,
            Self::Json => json::parse(text, report)?,
        };
        let kind = node.kind();
        if let Value::Table(entries) = node.value {
            return Some(entries);
        }
        report
            .error(&node.span, format!("expected an object, found {kind}"))
            .help("a configuration begins with `{` and ends with `}`");
        None
    }
}

fn toml(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let error = match DeTable::parse(text) {
        Ok(document) => return Some(table(document.span(), document.get_ref())),
        Err(error) => error,
    };
    let span = error.span().unwrap_or(0..0);
    let message = error.message();
    let message = message
        .strip_suffix(", expected nothing")
        .unwrap_or(message);
    if message.contains("duplicate key") {
        let key = quote(report.text(&span));
        report
            .error(&span, format!("not valid TOML: duplicate key {key}"))
            .help("a key may be given once in a table, and a table once in a file: remove one");
        return None;
    }
    let help = if text.trim_start().starts_with('{') {
        "this looks like JSON: a file is read as JSON if its name ends in `.json`"
    } else if message.contains("string") {
        "a string ends in its line with the quote it began with; a backslash is written `\\\\`"
    } else {
        "strings need quotes, as in name = \"devices\"; see https://toml.io"
    };
    report
        .error(&span, format!("not valid TOML: {message}"))
        .help(help);
    None
}

/// The tree of a TOML table. The parser bounds how deep it nests.
fn table(span: Span, table: &DeTable<'_>) -> Node {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            key_span: key.span(),
            node: value_node(value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    Node {
        span,
        value: Value::Table(entries),
    }
}

fn value_node(value: &Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let text = number.as_str();
            let beyond = if text.starts_with('-') {
                i128::MIN
            } else {
                i128::MAX
            };
            Value::Integer(i128::from_str_radix(text, number.radix()).unwrap_or(beyond))
        }
        DeValue::Float(_) => Value::Other("a number that is not whole"),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(values) => Value::Array(values.iter().map(value_node).collect()),
        DeValue::Table(entries) => return table(span, entries),
    };
    Node { span, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> Vec<Entry> {
        let mut report = Report::new(name, text);
        let tree = Syntax::of(name).parse(text, &mut report);
        tree.unwrap_or_else(|| panic!("{:?}", report.finish()))
    }

    fn values(node: &Node) -> String {
        match &node.value {
            Value::Array(items) => format!("{:?}", items.iter().map(values).collect::<Vec<_>>()),
            Value::Table(entries) => entries
                .iter()
                .map(|entry| format!("{}={};", entry.key, values(&entry.node)))
                .collect(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn both_languages_give_the_same_tree() {
        let toml = parse(
            "x.toml",
            "b = 0x10\na = \"s\"\nbig = -170141183460469231731687303715884105729\n\
             huge = 170141183460469231731687303715884105729\n\
             [[t]]\nc = [true, 1.5]\n[[t]]\n[u.v]\nw = {x = 1}",
        );
        let json = parse(
            "x.JSON",
            r#"{"b": 16, "a": "s", "big": -170141183460469231731687303715884105729,
                "huge": 170141183460469231731687303715884105729,
                "t": [{"c": [true, 1.5]}, {}], "u": {"v": {"w": {"x": 1}}}}"#,
        );
        let all = |entries: Vec<Entry>| {
            values(&Node {
                span: 0..0,
                value: Value::Table(entries),
            })
        };
        assert_eq!(all(toml), all(json));
    }

    #[test]
    fn toml_spans_lie_on_keys_values_and_headers() {
        let text = "[[pool]]\nname = \"x\"\n[unpack.a]\nkind = 1\n";
        let tree = parse("x", text);
        let Value::Array(pools) = &tree[0].node.value else {
            panic!("{tree:?}")
        };
        assert_eq!(&text[pools[0].span.clone()], "[[pool]]");
        let Value::Table(entries) = &pools[0].value else {
            panic!("{tree:?}")
        };
        assert_eq!(&text[entries[0].key_span.clone()], "name");
        assert_eq!(&text[entries[0].node.span.clone()], "\"x\"");
        let Value::Table(unpacks) = &tree[1].node.value else {
            panic!("{tree:?}")
        };
        assert_eq!(&text[unpacks[0].key_span.clone()], "a");
        assert_eq!(&text[unpacks[0].node.span.clone()], "[unpack.a]");
    }
}
