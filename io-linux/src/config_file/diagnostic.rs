//! What is wrong with a configuration, shown where it is.

use std::error::Error;
use std::fmt;

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
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) excerpt: String,
    /// Columns of the excerpt before the place, and of the place.
    pub(super) marked: (usize, usize),
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
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) place: Option<Place>,
    pub(super) help: Vec<String>,
    pub(super) seen: Vec<(String, Place)>,
}

impl Diagnostic {
    /// An error about a file as a whole, which has no place in it.
    pub(super) fn whole_file(message: String, help: &str) -> Self {
        Self {
            severity: Severity::Error,
            message,
            place: None,
            help: vec![help.to_owned()],
            seen: Vec::new(),
        }
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
    pub(super) file: String,
    pub(super) found: Vec<Diagnostic>,
    /// How many more there were.
    pub(super) dropped: usize,
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
pub(super) fn printable(c: char) -> char {
    if c.is_control() {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}
