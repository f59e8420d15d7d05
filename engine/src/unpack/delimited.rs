//! Frames that end with a delimiter.

use memchr::memmem::Finder;

use super::search::partial_tail;
use super::{
    FrameSize, FrameSpecError, Key, PATTERN_MAX, Pattern, Reject, Spec, Status, Target, Unpack,
};

/// Frames that end with the first delimiter, for example lines.
///
/// The key lies in the content, which is what comes before the delimiter. A key with a length
/// routes as soon as it is certain that no delimiter comes too early for the key and for the
/// shortest frame. Two things need the frame's end, and wait for it: a key without a length, and
/// a longest frame, which can only be checked there.
#[derive(Clone, Debug)]
pub struct Delimited {
    delimiter: Finder<'static>,
    key: Key,
    size: FrameSize,
    decides: Decides,
}

/// What it means that no delimiter begins before some place: the place where it decides, and
/// what is decided then.
#[derive(Clone, Copy, Debug)]
enum Decides {
    /// The key and the shortest frame are safe.
    Route(usize),
    /// The frame is longer than the longest.
    TooLong(usize),
    /// Nothing: only a delimiter decides.
    Never,
}

impl Delimited {
    /// Frames that end with `delimiter`, which `size` counts in.
    ///
    /// # Errors
    ///
    /// A delimiter that is empty or longer than [`PATTERN_MAX`], an empty key, and bounds that
    /// contradict each other or leave no room for the key.
    pub fn new(delimiter: &[u8], key: Key, size: FrameSize) -> Result<Self, FrameSpecError> {
        if delimiter.is_empty() {
            return Err(FrameSpecError::DelimiterEmpty);
        }
        if delimiter.len() > PATTERN_MAX {
            return Err(FrameSpecError::DelimiterTooLong);
        }
        let content = key.least_content()?;
        let least = content
            .checked_add(delimiter.len())
            .ok_or(FrameSpecError::KeyTooFar)?;
        size.validate(least)?;
        let decides = match (size.max, key.length) {
            // No underflow: a valid `max` is at least `least`, which counts the delimiter in.
            (Some(max), _) => Decides::TooLong(max - delimiter.len() + 1),
            (None, Some(_)) => {
                Decides::Route(content.max(size.min.saturating_sub(delimiter.len())))
            }
            (None, None) => Decides::Never,
        };
        Ok(Self {
            delimiter: Finder::new(delimiter).into_owned(),
            key,
            size,
            decides,
        })
    }

    /// The verdict on a frame whose content is known.
    fn ended(&self, content: usize) -> Status {
        let frame = content + self.delimiter.needle().len();
        if let Err(reject) = self.size.check(frame) {
            return Status::Invalid(reject);
        }
        self.key
            .within(content)
            .map_or(Status::Invalid(Reject::KeyOutsideFrame), |key| {
                Status::Complete {
                    frame: 0..frame,
                    target: Target::Key(key),
                }
            })
    }

    /// The verdict, if any, where it is known that no delimiter begins before `clear`.
    fn not_before(&self, clear: usize) -> Option<Status> {
        match self.decides {
            Decides::Route(stop) if clear >= stop => {
                // The end that is reported must not depend on how much has come, so it is the
                // least that it can be even where the delimiter happens to be there.
                let frame = stop + self.delimiter.needle().len();
                let target = Target::Key(self.key.within(stop)?);
                Some(Status::Complete {
                    frame: 0..frame,
                    target,
                })
            }
            Decides::TooLong(stop) if clear >= stop => Some(Status::Invalid(Reject::FrameTooLong)),
            _ => None,
        }
    }
}

impl Unpack for Delimited {
    fn unpack(&self, prefix: &[u8], scanned: usize, _eof: bool) -> Status {
        let needle = self.delimiter.needle();
        // A delimiter that begins at `stop` or later decides nothing that is not decided before,
        // so the search must not depend on whether it has come.
        let end = match self.decides {
            Decides::Route(stop) | Decides::TooLong(stop) => {
                prefix.len().min(stop - 1 + needle.len())
            }
            Decides::Never => prefix.len(),
        };
        let seen = &prefix[..end];
        // No overrun: what was scanned without a verdict ends before `stop`.
        if let Some(at) = self.delimiter.find(&seen[scanned..]) {
            return self.ended(scanned + at);
        }
        let clear = partial_tail(seen, needle);
        self.not_before(clear).unwrap_or(Status::Partial {
            at_least: prefix.len() + 1,
            scanned: clear,
        })
    }

    fn spec(&self) -> Option<Spec> {
        Some(Spec::Delimited {
            delimiter: Pattern::new(self.delimiter.needle())?,
            key: self.key,
            size: self.size,
        })
    }
}
