//! `[unpack.NAME]`: the built-in framings.

use std::collections::BTreeMap;
use std::sync::Arc;

use tlb_engine::unpack::{
    Delimited, Endian, Fixed, FrameSize, FrameSpecError, Key, Length, LengthField, PATTERN_MAX,
    Unpack,
};

use super::diagnostic::quote;
use super::reader;
use super::report::{Report, Span};
use super::table::{DELIMITED, FIXED, KEY, Kind, LENGTH, LENGTH_FIELD, Table};
use super::tree::{Entry, Node, Value};
use super::values;
use super::{LARGEST, PREREAD_LIMIT_MAX};
use crate::registry::UnpackRegistry;

/// An unpack of the file.
#[derive(Debug)]
pub(super) struct Framing {
    /// Where its name is.
    pub(super) span: Span,
    /// `None` where it could not be read, which is noted.
    pub(super) built: Option<Built>,
    /// Whether a listener names it.
    pub(super) used: bool,
}

/// An unpack that works.
#[derive(Clone, Debug)]
pub(super) struct Built {
    pub(super) unpack: Arc<dyn Unpack>,
    /// No verdict comes before this many bytes of a frame are there.
    pub(super) needs: usize,
}

/// The unpacks of a file by name.
pub(super) type Framings = BTreeMap<String, Framing>;

/// Reads the table of unpacks.
pub(super) fn read(node: &Node, registered: &UnpackRegistry, report: &mut Report<'_>) -> Framings {
    let mut framings = Framings::new();
    let Value::Table(entries) = &node.value else {
        reader::wrong_kind(node, "a table of unpacks by name", report)
            .help("name each unpack, as in [unpack.station]");
        return framings;
    };
    for entry in entries {
        if reader::name_problem(&entry.key, &entry.key_span, report) {
            continue;
        }
        if registered.get(&entry.key).is_some() {
            let message = format!("the program registers an unpack {} too", quote(&entry.key));
            report
                .error(&entry.key_span, message)
                .help("give this one another name");
        }
        let framing = Framing {
            span: entry.key_span.clone(),
            built: unpack(entry, report),
            used: false,
        };
        framings.insert(entry.key.clone(), framing);
    }
    framings
}

type Build = fn(&mut Table<'_>, &mut Report<'_>) -> Option<Built>;

fn unpack(entry: &Entry, report: &mut Report<'_>) -> Option<Built> {
    let kinds: [(&str, (&'static Kind, Build)); 3] = [
        ("length-field", (&LENGTH_FIELD, length_field)),
        ("delimited", (&DELIMITED, delimited)),
        ("fixed", (&FIXED, fixed)),
    ];
    let Value::Table(entries) = &entry.node.value else {
        reader::wrong_kind(&entry.node, "a table for an unpack", report)
            .help("unpacks have names, as in [unpack.station], and a `kind`");
        return None;
    };
    let Some(kind) = entries.iter().find(|inner| inner.key == "kind") else {
        let names = kinds.map(|(name, _)| name);
        let message = format!("unpack {} has no `kind`", quote(&entry.key));
        report
            .error(&entry.key_span, message)
            .help(format!("add `kind`: {}", reader::either(&names)));
        return None;
    };
    let (kind, build) = reader::word(&kind.node, &kinds, report)?;
    let mut table = Table::new(kind, entry.node.span.clone(), entries);
    table.take("kind");
    let built = build(&mut table, report);
    table.finish(report);
    built
}

fn length_field(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Built> {
    let magic = table.get("magic", Vec::new(), report, pattern);
    let length = table.need("length", "length = { offset = 1, width = 4 }");
    let length = length.and_then(|node| read_length(node, report));
    let key = read_key(table, report);
    let size = frame_size(table, report);
    let (length, key) = (length?, key?);
    // The bytes of the length field, of the key, and where the key has no length of its own, of the
    // shortest frame.
    let whole = if key.length.is_none() { size.min } else { 0 };
    let needs = (length.offset + length.width).max(key_end(key)).max(whole);
    let built = LengthField::new(&magic, length, key, size);
    finish(built, needs, table, report)
}

fn delimited(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Built> {
    let delimiter = table.need("delimiter", "delimiter = \"0d 0a\"");
    let delimiter = delimiter.and_then(|node| pattern(node, report));
    let key = read_key(table, report);
    let size = frame_size(table, report);
    let (delimiter, key) = (delimiter?, key?);
    let whole = if key.length.is_none() { size.min } else { 0 };
    let built = Delimited::new(&delimiter, key, size);
    finish(built, key_end(key).max(whole), table, report)
}

fn fixed(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Built> {
    let size = table.need("size", "size = 37");
    let size = size.and_then(|node| reader::size(node, 1..=LARGEST, report));
    let key = read_key(table, report);
    let (size, key) = (size?, key?);
    let needs = if key.length.is_none() {
        size
    } else {
        key_end(key)
    };
    finish(Fixed::new(size, key), needs, table, report)
}

fn finish<U: Unpack + 'static>(
    built: Result<U, FrameSpecError>,
    needs: usize,
    table: &Table<'_>,
    report: &mut Report<'_>,
) -> Option<Built> {
    match built {
        Ok(unpack) => Some(Built {
            unpack: Arc::new(unpack),
            needs,
        }),
        Err(error) => {
            report
                .error(&table.span_of(error.field()), error.to_string())
                .help(help(error));
            None
        }
    }
}

/// How to put right a framing that cannot be.
fn help(error: FrameSpecError) -> &'static str {
    match error {
        FrameSpecError::LengthInMagic => {
            "the magic stands at the frame's start: let the length's `offset` begin after it"
        }
        FrameSpecError::NoFrameFits => {
            "a frame has value + `adjust` + `offset` + `width` bytes: check these and the bounds"
        }
        FrameSpecError::LengthBeyondMax | FrameSpecError::KeyBeyondMax => {
            "raise `max-frame`, or take a smaller `offset` or `length`"
        }
        FrameSpecError::KeyBeyondSize => "let `offset` (and `length` after it) stay within `size`",
        FrameSpecError::MinAboveMax => "swap the two, or leave one out",
        _ => "see the configuration reference for what it may be",
    }
}

/// The first byte that the key certainly does not need.
fn key_end(key: Key) -> usize {
    key.offset + key.length.unwrap_or(1)
}

/// A magic or a delimiter.
fn pattern(node: &Node, report: &mut Report<'_>) -> Option<Vec<u8>> {
    let bytes = reader::parsed(node, "\"2a\"", values::hex, report)?;
    if (1..=PATTERN_MAX).contains(&bytes.len()) {
        return Some(bytes);
    }
    let message = format!("expected 1 to {PATTERN_MAX} bytes, found {}", bytes.len());
    report
        .error(&node.span, message)
        .help("two hex digits make a byte, as in \"2a\"; leave the key out if there is none");
    None
}

/// The bounds of `min-frame` and `max-frame`.
fn frame_size(table: &mut Table<'_>, report: &mut Report<'_>) -> FrameSize {
    let bound = |node: &Node, report: &mut Report<'_>| reader::size(node, 1..=LARGEST, report);
    FrameSize {
        min: table.get("min-frame", 0, report, bound),
        max: table.get("max-frame", None, report, |node, report| {
            bound(node, report).map(Some)
        }),
    }
}

fn read_length(node: &Node, report: &mut Report<'_>) -> Option<Length> {
    /// Beyond it, every frame would be longer than any that can be.
    const ADJUST: i64 = 1 << 40;
    let mut table = Table::of(&LENGTH, node, report)?;
    let offset = table.need("offset", "offset = 1");
    let offset = offset.and_then(|node| reader::integer(node, 0..=PREREAD_LIMIT_MAX - 1, report));
    let width = table.need("width", "width = 4");
    let width = width.and_then(|node| reader::integer(node, 1..=8, report));
    let endian = table.get("endian", Endian::Big, report, |node, report| {
        let words = [("big", Endian::Big), ("little", Endian::Little)];
        reader::word(node, &words, report)
    });
    let adjust = table.get("adjust", 0, report, |node, report| {
        reader::integer(node, -ADJUST..=ADJUST, report)
    });
    table.finish(report);
    Some(Length {
        offset: offset?,
        width: width?,
        endian,
        adjust,
    })
}

/// The unpack's `key`.
fn read_key(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Key> {
    let node = table.need("key", "key = { offset = 19, length = 4 }")?;
    let mut table = Table::of(&KEY, node, report)?;
    let offset = table.need("offset", "offset = 19");
    let offset = offset.and_then(|node| reader::integer(node, 0..=PREREAD_LIMIT_MAX - 1, report));
    let length = table.get("length", None, report, |node, report| {
        reader::integer(node, 1..=PREREAD_LIMIT_MAX, report).map(Some)
    });
    table.finish(report);
    Some(Key {
        offset: offset?,
        length,
    })
}

/// The framing of the original's `config.json`: `*`, a big-endian u32 L, L bytes, 2 bytes of check.
/// The key is all from byte 19 to the frame's end.
pub(super) fn original() -> Arc<dyn Unpack> {
    let length = Length {
        offset: 1,
        width: 4,
        endian: Endian::Big,
        adjust: 2,
    };
    let key = Key {
        offset: 19,
        length: None,
    };
    let framing = LengthField::new(b"*", length, key, FrameSize::default());
    Arc::new(framing.expect("these constants describe a framing"))
}
