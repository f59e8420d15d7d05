//! Collects what is wrong with a text, and finds the places to show.

use std::ops::Range;

use super::diagnostic::{ConfigErrors, Diagnostic, Place, Severity, printable};

/// A range of bytes in the text of a configuration.
pub(super) type Span = Range<usize>;

/// Most findings that one file brings: beyond it, more would help nobody.
const FINDINGS: usize = 100;
/// Columns of source that an excerpt shows at most. Longer lines (JSON on one line) are cut around
/// the place.
const EXCERPT: usize = 120;
/// Columns that a tab takes in an excerpt.
const TAB: &str = "    ";

/// Something that was found, before its place is looked up.
#[derive(Debug)]
pub(super) struct Finding {
    severity: Severity,
    message: String,
    span: Span,
    help: Vec<String>,
    seen: Vec<(&'static str, Span)>,
}

impl Finding {
    fn new(severity: Severity, span: &Span, message: String) -> Self {
        Self {
            severity,
            message,
            span: span.clone(),
            help: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// Adds a way to put it right.
    pub(super) fn help(&mut self, text: impl Into<String>) -> &mut Self {
        self.help.push(text.into());
        self
    }

    /// Adds another place that has to do with it.
    pub(super) fn see(&mut self, text: &'static str, span: &Span) -> &mut Self {
        self.seen.push((text, span.clone()));
        self
    }
}

/// The text of one configuration file, and what has been found wrong with it.
#[derive(Debug)]
pub(super) struct Report<'s> {
    file: &'s str,
    text: &'s str,
    /// Where each line begins.
    lines: Vec<usize>,
    found: Vec<Finding>,
    /// What no excerpt may show.
    secrets: Vec<Span>,
    errors: usize,
    /// Takes what is over [`FINDINGS`].
    overflow: Finding,
    dropped: usize,
}

impl<'s> Report<'s> {
    pub(super) fn new(file: &'s str, text: &'s str) -> Self {
        let starts = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        Self {
            file,
            text,
            lines: std::iter::once(0)
                .chain(starts.map(|(at, _)| at + 1))
                .collect(),
            found: Vec::new(),
            secrets: Vec::new(),
            errors: 0,
            overflow: Finding::new(Severity::Error, &(0..0), String::new()),
            dropped: 0,
        }
    }

    /// Notes an error.
    pub(super) fn error(&mut self, span: &Span, message: impl Into<String>) -> &mut Finding {
        self.errors += 1;
        self.add(Severity::Error, span, message.into())
    }

    /// Notes a warning.
    pub(super) fn warning(&mut self, span: &Span, message: impl Into<String>) -> &mut Finding {
        self.add(Severity::Warning, span, message.into())
    }

    fn add(&mut self, severity: Severity, span: &Span, message: String) -> &mut Finding {
        // An error is kept even where warnings have taken all the room: it is why the file is
        // refused.
        let first_error = severity == Severity::Error && self.errors == 1;
        let finding = Finding::new(severity, span, message);
        if self.found.len() >= FINDINGS && !first_error {
            self.dropped += 1;
            self.overflow = finding;
            return &mut self.overflow;
        }
        self.found.push(finding);
        self.found.last_mut().expect("just pushed")
    }

    /// Keeps what is written there out of excerpts, which get into logs and over the API.
    pub(super) fn hide(&mut self, span: &Span) {
        self.secrets.push(span.clone());
    }

    /// Whether an error was noted.
    pub(super) fn failed(&self) -> bool {
        self.errors > 0
    }

    /// Whether there are so many errors that it is no use to look for more.
    pub(super) fn full(&self) -> bool {
        self.errors >= FINDINGS
    }

    /// What was found, ordered by place: warnings if nothing else was, else errors.
    pub(super) fn finish(mut self) -> Result<Vec<Diagnostic>, ConfigErrors> {
        self.found.sort_by_key(|finding| finding.span.start);
        let show = |finding: &Finding| {
            let seen = finding.seen.iter();
            Diagnostic {
                severity: finding.severity,
                message: finding.message.clone(),
                place: Some(self.place(&finding.span)),
                help: finding.help.clone(),
                seen: seen
                    .map(|(text, span)| ((*text).to_owned(), self.place(span)))
                    .collect(),
            }
        };
        let found: Vec<Diagnostic> = self.found.iter().map(show).collect();
        if self.errors == 0 {
            return Ok(found);
        }
        Err(ConfigErrors {
            file: self.file.to_owned(),
            found,
            dropped: self.dropped,
        })
    }

    /// What was written there.
    pub(super) fn text(&self, span: &Span) -> &'s str {
        let (from, to) = (floor(self.text, span.start), floor(self.text, span.end));
        &self.text[from..to.max(from)]
    }

    /// The place of a span; where it covers several lines, only the part in its first line is
    /// marked.
    fn place(&self, span: &Span) -> Place {
        let start = floor(self.text, span.start);
        let line = self.lines.partition_point(|&begin| begin <= start) - 1;
        let begin = self.lines[line];
        let text = self.text[begin..].split('\n').next().unwrap_or_default();
        let text = text.strip_suffix('\r').unwrap_or(text);
        // A span may lie on the line break itself.
        let from = (start - begin).min(text.len());
        let to = floor(text, span.end.saturating_sub(begin)).max(from);
        let before = text[..from].chars().count();
        let width = text[from..to].chars().count();
        let hidden = |at: usize| self.secrets.iter().any(|span| span.contains(&(begin + at)));
        let shown = text.char_indices();
        let shown = shown.map(|(at, c)| if hidden(at) { '*' } else { c });
        let (excerpt, marked) = excerpt(&shown.collect::<String>(), before, width);
        Place {
            file: self.file.chars().map(printable).collect(),
            line: line + 1,
            column: before + 1,
            excerpt,
            marked,
        }
    }
}

/// The last character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// What to show of a line whose `width` characters after the first `before` are to be marked, and
/// which columns of it those are.
fn excerpt(line: &str, before: usize, width: usize) -> (String, (usize, usize)) {
    let cut = line.chars().nth(EXCERPT).is_some();
    let skipped = if cut {
        before.saturating_sub(EXCERPT / 3)
    } else {
        0
    };
    let taken = if cut { EXCERPT } else { usize::MAX };
    let mut shown = String::from(if skipped > 0 { "…" } else { "" });
    let mut marked = (usize::from(skipped > 0), 0);
    let mut rest = line.chars().enumerate().skip(skipped);
    for (at, c) in rest.by_ref().take(taken) {
        let columns = if c == '\t' {
            shown.push_str(TAB);
            TAB.len()
        } else {
            shown.push(printable(c));
            1
        };
        if at < before {
            marked.0 += columns;
        } else if at < before + width {
            marked.1 += columns;
        }
    }
    if rest.next().is_some() {
        shown.push('…');
    }
    (shown, (marked.0, marked.1.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_file::diagnostic::quote;

    fn shown(text: &str, span: Span) -> String {
        let mut report = Report::new("f", text);
        report.error(&span, "wrong").help("do right");
        report.finish().expect_err("an error").diagnostics()[0].to_string()
    }

    #[test]
    fn marks_the_place_in_its_line() {
        assert_eq!(
            shown("a\nkey = \"ü\" # x\r\nb", 8..12),
            "error: wrong\n --> f:2:7\n  |\n2 | key = \"ü\" # x\n  |       ^^^\n  = help: do right"
        );
    }

    #[test]
    fn marks_something_at_the_end_of_a_line_of_the_file_and_beyond() {
        for (text, span) in [
            ("ab", 2..2),
            ("ab\n", 2..3),
            ("ab", 9..12),
            ("ab\r\n", 3..4),
        ] {
            let shown = shown(text, span);
            assert!(
                shown.contains("--> f:1:3\n  |\n1 | ab\n  |   ^\n"),
                "{shown}"
            );
        }
        assert!(shown("", 0..0).contains("--> f:1:1\n  |\n1 | \n  | ^\n"));
    }

    #[test]
    fn a_span_over_lines_is_marked_in_its_first() {
        let shown = shown("a = {\n}", 4..7);
        assert!(shown.contains("1 | a = {\n  |     ^\n"), "{shown}");
    }

    #[test]
    fn tabs_widen_and_control_characters_vanish() {
        let shown = shown("\ta\u{1b}[31m = 1", 1..2);
        assert!(
            shown.contains("1 |     a\u{fffd}[31m = 1\n  |     ^\n"),
            "{shown}"
        );
        assert_eq!(quote("a\nb"), "`a\u{fffd}b`");
        assert_eq!(quote(&"x".repeat(61)), format!("`{}…`", "x".repeat(60)));
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}KEY{}", "x".repeat(500), "y".repeat(500));
        let shown = shown(&text, 500..503);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].ends_with("f:1:501"));
        assert_eq!(lines[3].chars().count(), "1 | ".len() + EXCERPT + 2);
        let column = lines[4].find('^').expect("a caret");
        assert_eq!(lines[4].matches('^').count(), 3);
        assert!(
            lines[3]
                .chars()
                .skip(column)
                .collect::<String>()
                .starts_with("KEYy")
        );
    }

    #[test]
    fn what_is_hidden_is_not_shown_wherever_the_place_is() {
        let mut report = Report::new("f", "a = 1, token = \"ge\u{4e}heim\u{fc}\", b");
        report.hide(&(15..25));
        report.error(&(0..1), "wrong");
        report.error(&(15..25), "short");
        let errors = report.finish().expect_err("an error").to_string();
        assert!(!errors.contains("heim"), "{errors}");
        assert_eq!(errors.matches("a = 1, token = ").count(), 2, "{errors}");
        assert!(errors.contains(", b"), "{errors}");
    }

    #[test]
    fn findings_are_bounded_and_ordered_and_an_error_is_never_lost() {
        let mut report = Report::new("f", "abc");
        for _ in 0..FINDINGS + 5 {
            report.warning(&(2..3), "doubtful");
        }
        report.error(&(1..2), "wrong");
        report.error(&(0..1), "too many");
        assert!(report.failed());
        let errors = report.finish().expect_err("an error");
        let shown = errors.to_string();
        assert!(
            shown.ends_with("f: 1 error, 100 warnings, and 6 more"),
            "{shown}"
        );
        let found = errors.diagnostics();
        assert_eq!(found.len(), FINDINGS + 1);
        assert_eq!(found[0].message(), "wrong");
        assert_eq!(found[0].place().map(Place::column), Some(2));
    }
}
