//! What is wrong with a configuration, shown where it is.

use std::error::Error;
use std::fmt;
use std::ops::Range;

/// A range of bytes in the text of a configuration.
pub(super) type Span = Range<usize>;

/// Most findings that one file brings: beyond it, more would help nobody.
const FINDINGS: usize = 100;
/// Columns of source that an excerpt shows at most. Longer lines (JSON on one line) are cut around
/// the place.
const EXCERPT: usize = 120;
/// Columns that a tab takes in an excerpt.
const TAB: &str = "    ";

/// Whether a [`Diagnostic`] keeps the configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// It cannot be used.
    Error,
    /// It can, but probably does something that was not meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a configuration file, with enough of the line to show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: String,
    line: usize,
    column: usize,
    excerpt: String,
    /// Columns of the excerpt before the place, and of the place.
    marked: (usize, usize),
}

impl Place {
    /// Number of the line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Number of the character in its line, from 1.
    pub fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for Place {
    /// As in `tlb.toml:3:8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One thing that is wrong, or doubtful, with a configuration file.
///
/// Its `Display` is many lines long, in the manner of a compiler: what is wrong, the file, line and
/// column, the line itself with carets under the place, and how to put it right. It ends without a
/// line break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    severity: Severity,
    message: String,
    place: Option<Place>,
    help: Vec<String>,
    seen: Vec<(String, Place)>,
}

impl Diagnostic {
    /// An error about a file as a whole, which has no place in it.
    pub(super) fn whole_file(message: impl Into<String>) -> Self {
        Self::new(Severity::Error, message.into(), None)
    }

    fn new(severity: Severity, message: String, place: Option<Place>) -> Self {
        Self {
            severity,
            message,
            place,
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
    pub(super) fn see(&mut self, text: impl Into<String>, place: Place) -> &mut Self {
        self.seen.push((text.into(), place));
        self
    }

    /// Whether it is an error or a warning.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where; `None` where the file could not be read as text at all.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.message)?;
        let gutter = self
            .place
            .iter()
            .chain(self.seen.iter().map(|(_, place)| place))
            .map(|place| place.line.to_string().len())
            .max()
            .unwrap_or(0);
        if let Some(place) = &self.place {
            show(f, place, gutter)?;
        }
        for help in &self.help {
            write!(f, "\n{:gutter$} = help: {help}", "")?;
        }
        for (text, place) in &self.seen {
            write!(f, "\nnote: {text}")?;
            show(f, place, gutter)?;
        }
        Ok(())
    }
}

fn show(f: &mut fmt::Formatter<'_>, place: &Place, gutter: usize) -> fmt::Result {
    let (before, width) = place.marked;
    write!(f, "\n{:gutter$}--> {place}", "")?;
    write!(f, "\n{:gutter$} |", "")?;
    write!(f, "\n{:gutter$} | {}", place.line, place.excerpt)?;
    write!(f, "\n{:gutter$} | {:before$}{:^<width$}", "", "", "")
}

/// Why a configuration cannot be used: at least one error, and the warnings found on the way, by
/// their place.
#[derive(Clone, Debug)]
pub struct ConfigErrors {
    file: String,
    found: Vec<Diagnostic>,
    /// How many more there were.
    dropped: usize,
}

impl ConfigErrors {
    /// The one about a file as a whole.
    pub(super) fn whole_file(file: &str, error: Diagnostic) -> Self {
        Self {
            file: file.to_owned(),
            found: vec![error],
            dropped: 0,
        }
    }

    /// What was found, in the file's order; of very many, the first.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.found
    }
}

impl fmt::Display for ConfigErrors {
    /// All of them, with an empty line after each, and a last line that counts them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.found {
            write!(f, "{diagnostic}\n\n")?;
        }
        let warnings = self
            .found
            .iter()
            .filter(|one| one.severity == Severity::Warning)
            .count();
        let errors = count(self.found.len() - warnings, "error");
        write!(f, "{}: {errors}", self.file)?;
        if warnings > 0 {
            write!(f, ", {}", count(warnings, "warning"))?;
        }
        if self.dropped > 0 {
            write!(f, ", and {} more", self.dropped)?;
        }
        Ok(())
    }
}

impl Error for ConfigErrors {}

/// As in `1 listener`, `2 listeners`.
pub(crate) fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// A text from a configuration as a message may show it: cut, and without control characters.
pub(super) fn quote(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).map(printable).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The terminal must not obey what a file holds.
fn printable(c: char) -> char {
    if c.is_control() {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

/// The text of one configuration file, and what has been found wrong with it.
#[derive(Debug)]
pub(super) struct Report<'s> {
    file: &'s str,
    text: &'s str,
    /// Where each line begins.
    lines: Vec<usize>,
    found: Vec<(usize, Diagnostic)>,
    errors: usize,
    /// Takes what is over [`FINDINGS`].
    overflow: Diagnostic,
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
            errors: 0,
            overflow: Diagnostic::whole_file(""),
            dropped: 0,
        }
    }

    /// Notes an error.
    pub(super) fn error(&mut self, span: &Span, message: impl Into<String>) -> &mut Diagnostic {
        self.errors += 1;
        self.add(Severity::Error, span, message.into())
    }

    /// Notes a warning.
    pub(super) fn warning(&mut self, span: &Span, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Warning, span, message.into())
    }

    fn add(&mut self, severity: Severity, span: &Span, message: String) -> &mut Diagnostic {
        // An error is kept even where warnings have taken all the room: it is why the file is
        // refused.
        let first_error = severity == Severity::Error && self.errors == 1;
        if self.found.len() >= FINDINGS && !first_error {
            self.dropped += 1;
            self.overflow = Diagnostic::whole_file("");
            return &mut self.overflow;
        }
        let diagnostic = Diagnostic::new(severity, message, Some(self.place(span)));
        self.found.push((span.start, diagnostic));
        &mut self.found.last_mut().expect("just pushed").1
    }

    /// Whether an error was noted.
    pub(super) fn failed(&self) -> bool {
        self.errors > 0
    }

    /// What was found, ordered by place: warnings if nothing else was, else errors.
    pub(super) fn finish(mut self) -> Result<Vec<Diagnostic>, ConfigErrors> {
        self.found.sort_by_key(|(at, _)| *at);
        let found = self.found.into_iter().map(|(_, one)| one).collect();
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
    pub(super) fn place(&self, span: &Span) -> Place {
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
        let (excerpt, marked) = excerpt(text, before, width);
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

    fn shown(text: &str, span: Span) -> String {
        let mut report = Report::new("f", text);
        report.error(&span, "wrong").help("do right");
        report.finish().expect_err("an error").found[0].to_string()
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
