//! Frames that say how long they are.

use memchr::memmem::Finder;

use super::search::partial_tail;
use super::{
    FrameSize, FrameSpecError, Key, Length, PATTERN_MAX, Pattern, Reject, Spec, Status, Target,
    Unpack,
};

/// Frames with a length field, and perhaps a magic at their start.
///
/// With a magic, what is not a frame is garbage: bytes before a magic, and a magic whose length
/// cannot be or is out of bounds, after which the search goes on one byte further. Without a
/// magic there is no way to resynchronise, and such a length is a reject. A key outside the frame
/// is always a reject.
///
/// Routes as soon as the magic, the length field and the key are there.
#[derive(Clone, Debug)]
pub struct LengthField {
    magic: Option<Finder<'static>>,
    length: Length,
    key: Key,
    size: FrameSize,
    /// Where the length field ends: the shortest frame there can be.
    header: usize,
}

impl LengthField {
    /// Frames that begin with `magic`, which may be empty.
    ///
    /// # Errors
    ///
    /// A magic longer than [`PATTERN_MAX`], a length field that has no possible width or lies in
    /// the magic, an empty key, and bounds or an adjustment that leave no possible frame.
    pub fn new(
        magic: &[u8],
        length: Length,
        key: Key,
        size: FrameSize,
    ) -> Result<Self, FrameSpecError> {
        if magic.len() > PATTERN_MAX {
            return Err(FrameSpecError::MagicTooLong);
        }
        if !(1..=8).contains(&length.width) {
            return Err(FrameSpecError::LengthWidth);
        }
        if length.offset < magic.len() {
            return Err(FrameSpecError::LengthInMagic);
        }
        let header = length
            .offset
            .checked_add(length.width)
            .ok_or(FrameSpecError::LengthTooFar)?;
        let content = key.least_content()?;
        size.validate(content)?;
        let longest = size.max.unwrap_or(usize::MAX);
        if longest < header {
            return Err(FrameSpecError::LengthBeyondMax);
        }
        let low = header as i128 + i128::from(length.adjust);
        let high = low + ((1 << (8 * length.width)) - 1);
        let shortest = header.max(content).max(size.min);
        if high < shortest as i128 || low > longest as i128 {
            return Err(FrameSpecError::NoFrameFits);
        }
        Ok(Self {
            magic: (!magic.is_empty()).then(|| Finder::new(magic).into_owned()),
            length,
            key,
            size,
            header,
        })
    }

    /// How many bytes the frame has whose length field this is.
    fn frame(&self, field: &[u8]) -> Result<usize, Reject> {
        // No overflow: each term is less than 2^64.
        let frame = i128::from(self.length.value(field))
            + i128::from(self.length.adjust)
            + self.header as i128;
        if frame < self.header as i128 {
            return Err(Reject::BadLength);
        }
        let frame = usize::try_from(frame).map_err(|_| Reject::BadLength)?;
        self.size.check(frame)?;
        Ok(frame)
    }

    /// The verdict on a frame that begins where `prefix` does; `Err` for a length that is garbage
    /// if there is a magic.
    fn judge(&self, prefix: &[u8]) -> Result<Status, Reject> {
        let Some(field) = prefix.get(self.length.offset..self.header) else {
            return Ok(Status::Partial {
                at_least: self.header,
                scanned: 0,
            });
        };
        let frame = self.frame(field)?;
        Ok(match self.key.within(frame) {
            None => Status::Invalid(Reject::KeyOutsideFrame),
            Some(key) if prefix.len() < key.end => Status::Partial {
                at_least: key.end,
                scanned: 0,
            },
            Some(key) => Status::Complete {
                frame: 0..frame,
                target: Target::Key(key),
            },
        })
    }

    /// The verdict on the first place that may be a frame, or the skip that leads there.
    fn resynchronise(&self, magic: &Finder<'_>, prefix: &[u8]) -> Status {
        let mut from = 0;
        while let Some(at) = magic.find(&prefix[from..]) {
            let start = from + at;
            match self.judge(&prefix[start..]) {
                Ok(status) if start == 0 => return status,
                Ok(_) => return Status::Skip { bytes: start },
                Err(_) => from = start + 1,
            }
        }
        match partial_tail(prefix, magic.needle()) {
            // The very next byte may show that this was no magic, and is asked for alone: to wait
            // for more would make the bytes skipped depend on how they came.
            0 => Status::Partial {
                at_least: prefix.len() + 1,
                scanned: 0,
            },
            bytes => Status::Skip { bytes },
        }
    }
}

impl Unpack for LengthField {
    fn unpack(&self, prefix: &[u8], _scanned: usize, _eof: bool) -> Status {
        self.magic.as_ref().map_or_else(
            || self.judge(prefix).unwrap_or_else(Status::Invalid),
            |magic| self.resynchronise(magic, prefix),
        )
    }

    fn spec(&self) -> Option<Spec> {
        let magic = self.magic.as_ref().map_or(&[][..], Finder::needle);
        Some(Spec::LengthField {
            magic: Pattern::new(magic)?,
            length: self.length,
            key: self.key,
            size: self.size,
        })
    }
}
