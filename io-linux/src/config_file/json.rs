//! Strict JSON (RFC 8259) into a tree that knows where everything was written.
//!
//! Written by hand because a configuration wants positions, duplicate keys as errors, and a depth
//! that is bounded.

use std::collections::HashMap;

use super::diagnostic::quote;
use super::report::{Report, Span};
use super::tree::{Entry, Node, Value};

/// How deep lists and objects may nest.
const DEPTH: usize = 64;

/// The one value of a text; `None`, with an error noted, if it is not JSON.
pub(super) fn parse(text: &str, report: &mut Report<'_>) -> Option<Node> {
    let mut parser = Parser { text, at: 0 };
    let result = parser.value(0).and_then(|node| {
        parser.blank();
        if parser.at < text.len() {
            return Err(parser.unexpected("the end of the file"));
        }
        Ok(node)
    });
    match result {
        Ok(node) => Some(node),
        Err(problem) => {
            let message = format!("not valid JSON: {}", problem.message);
            let found = report.error(&problem.span, message).help(problem.help);
            if let Some(first) = problem.first {
                found.see("first given here", &first);
            }
            None
        }
    }
}

struct Problem {
    span: Span,
    message: String,
    help: &'static str,
    first: Option<Span>,
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Goes past `byte`, if it is the next one after blanks.
    fn eat(&mut self, byte: u8) -> bool {
        self.blank();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn problem(&self, span: Span, message: impl Into<String>, help: &'static str) -> Problem {
        Problem {
            span,
            message: message.into(),
            help,
            first: None,
        }
    }

    /// Something else stands where `expected` should be.
    fn unexpected(&self, expected: &str) -> Problem {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else {
            let help = "close every `{`, `[` and `\"`";
            let message = format!("expected {expected}, found the end of the file");
            return self.problem(self.at..self.at, message, help);
        };
        let word = rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '+')))
            .unwrap_or(rest.len());
        let end = self.at + if word > 0 { word } else { first.len_utf8() };
        let found = &self.text[self.at..end];
        let help = match first {
            '/' | '#' => "JSON has no comments: remove it, or write the configuration in TOML",
            '\'' => "strings and keys stand in double quotes",
            '}' | ']' => "remove the comma before it, or what is too much",
            '"' | '{' | '[' if expected.contains(',') => "put a comma before it",
            _ if expected.contains(':') => "put a colon between a key and its value",
            _ if word > 0 => "strings and keys stand in double quotes",
            _ => "see https://www.json.org",
        };
        let message = format!("expected {expected}, found {}", quote(found));
        self.problem(self.at..end, message, help)
    }

    fn value(&mut self, depth: usize) -> Result<Node, Problem> {
        self.blank();
        let start = self.at;
        let value = match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH => {
                let message = format!("lists and objects nest deeper than {DEPTH}");
                return Err(self.problem(start..start + 1, message, "nest less deep"));
            }
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Value::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => self.word()?,
        };
        Ok(Node {
            span: start..self.at,
            value,
        })
    }

    fn word(&mut self) -> Result<Value, Problem> {
        let rest = &self.text[self.at..];
        let length = rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let value = match &rest[..length] {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Other("null"),
            _ => return Err(self.unexpected("a value")),
        };
        self.at += length;
        Ok(value)
    }

    fn array(&mut self, depth: usize) -> Result<Value, Problem> {
        self.at += 1;
        let mut items = Vec::new();
        if self.eat(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.eat(b']') {
                return Ok(Value::Array(items));
            }
            if !self.eat(b',') {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, Problem> {
        self.at += 1;
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        if self.eat(b'}') {
            return Ok(Value::Table(entries));
        }
        loop {
            self.blank();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key"));
            }
            let key = self.string()?;
            let key_span = start..self.at;
            if let Some(first) = seen.insert(key.clone(), key_span.clone()) {
                let message = format!("duplicate key {}", quote(&key));
                let help = "a key may be given once in an object: remove one of the two";
                return Err(Problem {
                    first: Some(first),
                    ..self.problem(key_span, message, help)
                });
            }
            if !self.eat(b':') {
                return Err(self.unexpected("`:`"));
            }
            let node = self.value(depth + 1)?;
            entries.push(Entry {
                key,
                key_span,
                node,
            });
            if self.eat(b'}') {
                return Ok(Value::Table(entries));
            }
            if !self.eat(b',') {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
    }

    fn digits(&mut self) -> Result<(), Problem> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.unexpected("a digit"));
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Value, Problem> {
        let start = self.at;
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let first = self.at;
        self.digits()?;
        if self.at - first > 1 && self.text.as_bytes()[first] == b'0' {
            let help = "remove the leading zero";
            return Err(self.problem(start..self.at, "a number that begins with 0", help));
        }
        let whole = self.at;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        if self.at > whole {
            return Ok(Value::Other("a number that is not whole"));
        }
        let beyond = if negative { i128::MIN } else { i128::MAX };
        Ok(Value::Integer(
            self.text[start..whole].parse().unwrap_or(beyond),
        ))
    }

    fn string(&mut self) -> Result<String, Problem> {
        let start = self.at;
        self.at += 1;
        let mut decoded = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest
                .find(|c: char| c == '"' || c == '\\' || c < ' ')
                .unwrap_or(rest.len());
            decoded.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(decoded);
                }
                Some(b'\\') => decoded.push(self.escape()?),
                _ => {
                    let help = "close it with `\"`; a line break in a string is written `\\n`";
                    return Err(self.problem(start..self.at, "a string without an end", help));
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Problem> {
        let start = self.at;
        self.at += 2;
        let c = match self.text.as_bytes().get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(start),
            _ => {
                let help = "write a backslash as `\\\\`";
                return Err(self.problem(start..start + 1, "an unknown escape", help));
            }
        };
        Ok(c)
    }

    /// The rest of a `\u` escape, of which the second half of a surrogate pair may be part.
    fn unicode(&mut self, start: usize) -> Result<char, Problem> {
        let high = self.unit(start)?;
        let code = if (0xd800..0xdc00).contains(&high) && self.text[self.at..].starts_with("\\u") {
            self.at += 2;
            let low = self.unit(start)?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(self.bad_unicode(start));
            }
            0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
        } else {
            high
        };
        char::from_u32(code).ok_or_else(|| self.bad_unicode(start))
    }

    fn unit(&mut self, start: usize) -> Result<u32, Problem> {
        let digits = self.text.get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let Some(unit) = unit else {
            return Err(self.bad_unicode(start));
        };
        self.at += 4;
        Ok(unit)
    }

    fn bad_unicode(&self, start: usize) -> Problem {
        let help = "`\\u` is followed by four hexadecimal digits, two such for a surrogate pair";
        self.problem(start..start + 2, "an escape that is no character", help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Value, String> {
        let mut report = Report::new("x.json", text);
        match parse(text, &mut report) {
            Some(node) => Ok(node.value),
            None => {
                let errors = report.finish().expect_err("an error is noted");
                Err(errors.diagnostics()[0].message().to_owned())
            }
        }
    }

    #[test]
    fn reads_what_json_is() {
        assert_eq!(
            check(r#" "a\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00ü" "#),
            Ok(Value::String("a\"\\/\u{8}\u{c}\n\r\tä😀ü".to_owned()))
        );
        assert_eq!(check("-0"), Ok(Value::Integer(0)));
        assert_eq!(check("10"), Ok(Value::Integer(10)));
        assert_eq!(check(&"9".repeat(50)), Ok(Value::Integer(i128::MAX)));
        for fraction in ["1.0", "1e3", "-1.5E-7"] {
            assert!(matches!(check(fraction), Ok(Value::Other(_))), "{fraction}");
        }
        for fine in ["[]", "{}", "[1 , [ ] ]", "null", "{\"a\":{\"a\":true}}"] {
            assert!(check(fine).is_ok(), "{fine}");
        }
        assert!(check(&("[".repeat(DEPTH) + &"]".repeat(DEPTH))).is_ok());
    }

    #[test]
    fn refuses_what_json_is_not() {
        for bad in [
            "",
            " ",
            "[1,]",
            "{\"a\":1,}",
            "[1 2]",
            "{\"a\" 1}",
            "{\"a\":1 \"b\":2}",
            "{a:1}",
            "'a'",
            "// c\n1",
            "/* c */ 1",
            "01",
            "-",
            "1.",
            "1e",
            ".5",
            "+1",
            "tru",
            "truex",
            "NaN",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "\"\\",
            "\"\\u12\"",
            "\"\\u+123\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\ud800\\uffff\"",
            "\"\\udc00\"",
            "\"\\u00é\"",
            "1 1",
            "[",
            "{",
            "]",
            "{\"a\":1,\"a\":2}",
            "\u{feff}1",
            "\u{a0}1",
            "é",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            check(&"[".repeat(1_000_000)),
            Err("not valid JSON: lists and objects nest deeper than 64".to_owned())
        );
    }
}
