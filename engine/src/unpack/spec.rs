//! The words that describe a framing as data, and what can be wrong with a description.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Range;

use super::{Delimited, Fixed, LengthField, Reject, Unpack};

/// Most bytes of a magic or a delimiter.
pub const PATTERN_MAX: usize = 16;

/// Where the key lies, counted from the frame's start.
///
/// A key has at least one byte. A frame that ends before the key does is
/// [`Reject::KeyOutsideFrame`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key's first byte.
    pub offset: usize,
    /// How many bytes; `None` takes all to the frame's end, for which that end must have come.
    pub length: Option<usize>,
}

impl Key {
    /// The shortest content that holds this key, once checked.
    pub(super) fn least_content(self) -> Result<usize, FrameSpecError> {
        if self.length == Some(0) {
            return Err(FrameSpecError::KeyEmpty);
        }
        self.offset
            .checked_add(self.length.unwrap_or(1))
            .ok_or(FrameSpecError::KeyTooFar)
    }

    /// The key in a content of this many bytes; `None` where it does not fit.
    pub(super) fn within(self, content: usize) -> Option<Range<usize>> {
        let end = match self.length {
            Some(length) => self.offset.checked_add(length)?,
            None => content,
        };
        (self.offset < end && end <= content).then_some(self.offset..end)
    }
}

/// Byte order of a length field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endian {
    /// Most significant byte first.
    Big,
    /// Least significant byte first.
    Little,
}

/// A length field, in the terms of Netty's `LengthFieldBasedFrameDecoder`: a frame has
/// `value + adjust + offset + width` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length {
    /// The field's first byte, counted from the frame's start, magic included.
    pub offset: usize,
    /// The field's bytes: 1 to 8.
    pub width: usize,
    /// The field's byte order.
    pub endian: Endian,
    /// What to add to the field's value to get the number of bytes that follow the field.
    pub adjust: i64,
}

impl Length {
    /// The field's value. `field` has `width` bytes, at most eight.
    pub(super) fn value(self, field: &[u8]) -> u64 {
        let shift_in = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
        match self.endian {
            Endian::Big => field.iter().fold(0, shift_in),
            Endian::Little => field.iter().rev().fold(0, shift_in),
        }
    }
}

/// How long a whole frame may be, in bytes, both bounds included. The default is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameSize {
    /// The shortest frame.
    pub min: usize,
    /// The longest frame; `None` for no limit.
    pub max: Option<usize>,
}

impl FrameSize {
    /// Checks the bounds themselves, and that a frame of `least` bytes is not too long.
    pub(super) fn validate(self, least: usize) -> Result<(), FrameSpecError> {
        match self.max {
            Some(max) if max < self.min => Err(FrameSpecError::MinAboveMax),
            Some(max) if max < least => Err(FrameSpecError::KeyBeyondMax),
            _ => Ok(()),
        }
    }

    /// Checks a frame.
    pub(super) fn check(self, frame: usize) -> Result<(), Reject> {
        if frame < self.min {
            Err(Reject::FrameTooShort)
        } else if self.max.is_some_and(|max| frame > max) {
            Err(Reject::FrameTooLong)
        } else {
            Ok(())
        }
    }
}

/// A magic or a delimiter: up to [`PATTERN_MAX`] bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Pattern {
    len: u8,
    bytes: [u8; PATTERN_MAX],
}

impl Pattern {
    /// These bytes; `None` if there are too many.
    pub fn new(of: &[u8]) -> Option<Self> {
        let mut pattern = Self {
            len: of.len() as u8,
            ..Self::default()
        };
        pattern.bytes.get_mut(..of.len())?.copy_from_slice(of);
        Some(pattern)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().fmt(f)
    }
}

/// A framing as data, for whoever wants to make frames of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spec {
    /// As [`LengthField::new`] takes it.
    LengthField {
        /// What a frame begins with, if anything.
        magic: Pattern,
        /// The length field.
        length: Length,
        /// The key.
        key: Key,
        /// The bounds.
        size: FrameSize,
    },
    /// As [`Delimited::new`] takes it.
    Delimited {
        /// What a frame ends with.
        delimiter: Pattern,
        /// The key.
        key: Key,
        /// The bounds.
        size: FrameSize,
    },
    /// As [`Fixed::new`] takes it.
    Fixed {
        /// The bytes of a frame.
        size: usize,
        /// The key.
        key: Key,
    },
}

impl Spec {
    /// What finds such frames.
    ///
    /// # Errors
    /// It is no framing; see the functions that take it.
    pub fn build(&self) -> Result<Arc<dyn Unpack>, FrameSpecError> {
        Ok(match self {
            Self::LengthField {
                magic,
                length,
                key,
                size,
            } => Arc::new(LengthField::new(magic.as_bytes(), *length, *key, *size)?),
            Self::Delimited {
                delimiter,
                key,
                size,
            } => Arc::new(Delimited::new(delimiter.as_bytes(), *key, *size)?),
            Self::Fixed { size, key } => Arc::new(Fixed::new(*size, *key)?),
        })
    }
}

/// Why a description is no framing: whoever wrote the configuration is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrameSpecError {
    /// The magic has more than [`PATTERN_MAX`] bytes.
    MagicTooLong,
    /// The delimiter has no byte.
    DelimiterEmpty,
    /// The delimiter has more than [`PATTERN_MAX`] bytes.
    DelimiterTooLong,
    /// The length field's width is not 1 to 8.
    LengthWidth,
    /// The length field begins inside the magic.
    LengthInMagic,
    /// The length field ends beyond what can be counted.
    LengthTooFar,
    /// The length field ends beyond the longest frame.
    LengthBeyondMax,
    /// No value of the length field gives a frame that holds its own length field and key and is
    /// within the bounds.
    NoFrameFits,
    /// The key has a length of zero.
    KeyEmpty,
    /// The key ends beyond what can be counted.
    KeyTooFar,
    /// The longest frame is too short for the key (and the delimiter).
    KeyBeyondMax,
    /// The key does not lie within the fixed size.
    KeyBeyondSize,
    /// The shortest frame is longer than the longest.
    MinAboveMax,
    /// A fixed size of zero.
    SizeZero,
}

impl FrameSpecError {
    /// The part of the description at fault, in the names of the configuration file.
    pub const fn field(self) -> &'static str {
        match self {
            Self::MagicTooLong => "magic",
            Self::DelimiterEmpty | Self::DelimiterTooLong => "delimiter",
            Self::LengthWidth
            | Self::LengthInMagic
            | Self::LengthTooFar
            | Self::LengthBeyondMax
            | Self::NoFrameFits => "length",
            Self::KeyEmpty | Self::KeyTooFar | Self::KeyBeyondMax | Self::KeyBeyondSize => "key",
            Self::MinAboveMax => "min-frame",
            Self::SizeZero => "size",
        }
    }
}

impl fmt::Display for FrameSpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MagicTooLong => "the magic is longer than 16 bytes",
            Self::DelimiterEmpty => "the delimiter is empty",
            Self::DelimiterTooLong => "the delimiter is longer than 16 bytes",
            Self::LengthWidth => "the length field's width is not 1 to 8 bytes",
            Self::LengthInMagic => "the length field begins inside the magic",
            Self::LengthTooFar => "the length field's offset is too large",
            Self::LengthBeyondMax => "the length field ends beyond max-frame",
            Self::NoFrameFits => {
                "no value of the length field gives a frame that holds the key \
                 and is within min-frame and max-frame"
            }
            Self::KeyEmpty => "the key's length is zero",
            Self::KeyTooFar => "the key's offset and length are too large",
            Self::KeyBeyondMax => "a frame of max-frame bytes is too short for the key",
            Self::KeyBeyondSize => "the key ends beyond the frame's size",
            Self::MinAboveMax => "min-frame is larger than max-frame",
            Self::SizeZero => "the frame's size is zero",
        })
    }
}

impl core::error::Error for FrameSpecError {}
