//! A second opinion on the framings and on the preread, shared by the property tests and the fuzz
//! target: the same rules, written down a second time over the whole stream, in the simplest words
//! and at whatever cost. It shares no code with what it judges.

use std::boxed::Box;
use std::vec::Vec;

use tlb_engine::preread::{Preread, Verdict};
use tlb_engine::unpack::{
    Delimited, Endian, Fixed, FrameSize, FrameSpecError, Key, Length, LengthField, Reject, Status,
    Target, Unpack,
};

/// A built-in framing, as data.
#[derive(Clone, Debug)]
pub(crate) enum Framing {
    LengthField {
        magic: Vec<u8>,
        length: Length,
        key: Key,
        size: FrameSize,
    },
    Delimited {
        delimiter: Vec<u8>,
        key: Key,
        size: FrameSize,
    },
    Fixed {
        size: usize,
        key: Key,
    },
}

/// How a stream, and how much of it: one case for framing and oracle.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// All that the client sends.
    pub(crate) stream: Vec<u8>,
    /// The sizes of the pieces in which it comes, over and over again.
    pub(crate) pieces: Vec<usize>,
    /// Most bytes to look at.
    pub(crate) limit: usize,
    /// Whether the client then ends its stream.
    pub(crate) fin: bool,
}

/// What a case comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) skipped: usize,
}

/// What the bytes that may be looked at say, about a frame that begins at `start`.
enum Opinion {
    Route {
        start: usize,
        key: core::ops::Range<usize>,
    },
    Reject {
        start: usize,
        why: Reject,
    },
    /// Nothing can be said before `until` bytes have come.
    Wait {
        start: usize,
        until: usize,
    },
}

impl Framing {
    /// The implementation under test.
    pub(crate) fn build(&self) -> Result<Box<dyn Unpack>, FrameSpecError> {
        Ok(match self {
            Self::LengthField {
                magic,
                length,
                key,
                size,
            } => Box::new(LengthField::new(magic, *length, *key, *size)?),
            Self::Delimited {
                delimiter,
                key,
                size,
            } => Box::new(Delimited::new(delimiter, *key, *size)?),
            Self::Fixed { size, key } => Box::new(Fixed::new(*size, *key)?),
        })
    }

    /// Runs the case in its pieces, at once and byte by byte; all must come to what is expected.
    pub(crate) fn check(&self, unpack: &dyn Unpack, case: &Case) {
        let expected = self.expected(case);
        for pieces in [case.pieces.as_slice(), &[usize::MAX], &[1]] {
            let outcome = run(unpack, case, pieces);
            assert_eq!(outcome, expected, "{self:?}\n{case:?}\nin {pieces:?}");
        }
    }

    /// What the case must come to.
    pub(crate) fn expected(&self, case: &Case) -> Outcome {
        let seen = &case.stream[..case.stream.len().min(case.limit)];
        let opinion = match self {
            Self::LengthField {
                magic,
                length,
                key,
                size,
            } => length_field(seen, magic, *length, *key, *size),
            Self::Delimited {
                delimiter,
                key,
                size,
            } => delimited(seen, delimiter, *key, *size),
            Self::Fixed { size, key } => fixed(seen, *size, *key),
        };
        match opinion {
            Opinion::Route { start, key } => Outcome {
                verdict: Verdict::Route(Target::Key(key)),
                skipped: start,
            },
            Opinion::Reject { start, why } => Outcome {
                verdict: Verdict::Reject(why),
                skipped: start,
            },
            // Before the first byte nobody is asked.
            Opinion::Wait { start, until } => Outcome {
                verdict: if !seen.is_empty() && until > case.limit {
                    Verdict::Limit
                } else if case.fin {
                    Verdict::Reject(Reject::Truncated)
                } else {
                    Verdict::More
                },
                skipped: start,
            },
        }
    }
}

fn length_field(seen: &[u8], magic: &[u8], length: Length, key: Key, size: FrameSize) -> Opinion {
    for start in 0..=seen.len() {
        let rest = &seen[start..];
        if (0..magic.len()).any(|i| i < rest.len() && rest[i] != magic[i]) {
            continue;
        }
        if rest.len() < magic.len() {
            let until = seen.len() + 1;
            return Opinion::Wait { start, until };
        }
        let header = length.offset + length.width;
        if rest.len() < header {
            let until = start.saturating_add(header);
            return Opinion::Wait { start, until };
        }
        let mut value = 0_i128;
        for i in 0..length.width {
            let place = match length.endian {
                Endian::Big => length.width - 1 - i,
                Endian::Little => i,
            };
            value += i128::from(rest[length.offset + i]) << (8 * place);
        }
        let frame = value + length.adjust as i128 + header as i128;
        let why = if frame < header as i128 || frame > usize::MAX as i128 {
            Some(Reject::BadLength)
        } else if frame < size.min as i128 {
            Some(Reject::FrameTooShort)
        } else if size.max.is_some_and(|max| frame > max as i128) {
            Some(Reject::FrameTooLong)
        } else {
            None
        };
        match why {
            Some(why) if magic.is_empty() => return Opinion::Reject { start, why },
            Some(_) => continue,
            None => {}
        }
        let frame = frame as usize;
        let end = key.length.map_or(frame, |length| key.offset + length);
        if end > frame || end <= key.offset {
            let why = Reject::KeyOutsideFrame;
            return Opinion::Reject { start, why };
        }
        if rest.len() < end {
            let until = start.saturating_add(end);
            return Opinion::Wait { start, until };
        }
        let key = key.offset..end;
        return Opinion::Route { start, key };
    }
    unreachable!("a frame may always begin at the end")
}

/// Goes through the prefixes one byte at a time: the first that can be decided decides.
fn delimited(seen: &[u8], delimiter: &[u8], key: Key, size: FrameSize) -> Opinion {
    let start = 0;
    for n in 0..=seen.len() {
        let prefix = &seen[..n];
        // The first place where the delimiter is, or may yet turn out to be.
        let first = (0..=n)
            .find(|&at| {
                let rest = &prefix[at..];
                rest.starts_with(delimiter) || delimiter.starts_with(rest)
            })
            .expect("a delimiter may always begin at the end");
        let frame = first + delimiter.len();
        let end = key.length.map_or(first, |length| key.offset + length);
        if frame <= n {
            let why = if frame < size.min {
                Reject::FrameTooShort
            } else if size.max.is_some_and(|max| frame > max) {
                Reject::FrameTooLong
            } else if end > first || end <= key.offset {
                Reject::KeyOutsideFrame
            } else {
                let key = key.offset..end;
                return Opinion::Route { start, key };
            };
            return Opinion::Reject { start, why };
        }
        match (key.length, size.max) {
            (_, Some(max)) if frame > max => {
                let why = Reject::FrameTooLong;
                return Opinion::Reject { start, why };
            }
            (Some(_), None) if end <= first && frame >= size.min => {
                let key = key.offset..end;
                return Opinion::Route { start, key };
            }
            _ => {}
        }
    }
    let until = seen.len() + 1;
    Opinion::Wait { start, until }
}

fn fixed(seen: &[u8], size: usize, key: Key) -> Opinion {
    let start = 0;
    let until = key.length.map_or(size, |length| key.offset + length);
    if seen.len() < until {
        return Opinion::Wait { start, until };
    }
    let key = key.offset..until;
    Opinion::Route { start, key }
}

/// Sends the case's stream through a preread, in these pieces, until there is a verdict.
pub(crate) fn run(unpack: &dyn Unpack, case: &Case, pieces: &[usize]) -> Outcome {
    let mut preread = Preread::new();
    let mut verdict = Verdict::More;
    let mut sent = 0;
    let mut sizes = pieces.iter().cycle();
    while verdict == Verdict::More && sent < case.stream.len() {
        let rest = &case.stream[sent..];
        let size = sizes.next().map_or(usize::MAX, |size| (*size).max(1));
        let room = preread.room(case.limit);
        assert!(room > 0, "no room and no verdict: {case:?} in {pieces:?}");
        let piece = &rest[..rest.len().min(size).min(room)];
        verdict = preread.push(piece, case.limit, unpack);
        sent += piece.len();
        let skipped = preread.skipped() as usize;
        assert_eq!(
            preread.bytes(),
            &case.stream[skipped..sent],
            "{case:?} in {pieces:?}"
        );
        assert_eq!(preread.room(case.limit), case.limit - sent);
    }
    if verdict == Verdict::More && case.fin {
        verdict = preread.end(unpack);
        assert_ne!(verdict, Verdict::More, "{case:?} in {pieces:?}");
    }
    let skipped = preread.skipped() as usize;
    let preface = preread.into_preface();
    assert_eq!(
        preface,
        &case.stream[skipped..sent],
        "{case:?} in {pieces:?}"
    );
    Outcome { verdict, skipped }
}

/// Checks what [`Unpack`] promises, on each prefix of the stream.
pub(crate) fn check_contract(unpack: &dyn Unpack, stream: &[u8]) {
    let mut stream = stream;
    loop {
        let mut scanned = 0;
        let mut promised = 1;
        let mut last = None;
        for n in 1..=stream.len() {
            let prefix = &stream[..n];
            let fresh = unpack.unpack(prefix, 0, false);
            let context = || std::format!("{unpack:?}\n{prefix:?}\n{fresh:?}");
            let resumed = unpack.unpack(prefix, scanned, false);
            match (&fresh, &last) {
                (
                    Status::Partial {
                        at_least,
                        scanned: to,
                    },
                    None,
                ) => {
                    assert!(*at_least > n && *to <= n, "{}", context());
                    assert!(*at_least >= promised, "asks for fewer: {}", context());
                    promised = *at_least;
                    scanned = *to;
                }
                (Status::Skip { bytes }, None) => {
                    assert!((1..=n).contains(bytes), "{}", context());
                }
                (Status::Skip { bytes }, Some(Status::Skip { bytes: before })) => {
                    assert!((*before..=n).contains(bytes), "{}", context());
                }
                (_, None) => {}
                (_, Some(last)) => assert_eq!(fresh, *last, "changed its mind: {}", context()),
            }
            assert_eq!(fresh, resumed, "resumed at {scanned}: {}", context());
            assert_eq!(
                fresh,
                unpack.unpack(prefix, 0, true),
                "at the end: {}",
                context()
            );
            if !matches!(fresh, Status::Partial { .. }) {
                assert!(n >= promised, "promised {promised}: {}", context());
                last = Some(fresh);
            }
        }
        let Some(Status::Skip { bytes }) = last else {
            return;
        };
        stream = &stream[bytes..];
    }
}
