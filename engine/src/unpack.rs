//! Finding the frame and the key in a client's first bytes.
//!
//! [`LengthField`], [`Delimited`] and [`Fixed`] are described by data. What they cannot describe is
//! a user's own [`Unpack`].
//!
//! ```
//! use tlb_engine::unpack::{Endian, FrameSize, Key, Length, LengthField, Status, Target, Unpack};
//!
//! // '*', a big-endian u32 L, L bytes, 2 bytes of check: L + 7 in all. The key is 4 bytes at 19.
//! let length = Length { offset: 1, width: 4, endian: Endian::Big, adjust: 2 };
//! let key = Key { offset: 19, length: Some(4) };
//! let station = LengthField::new(b"*", length, key, FrameSize::default())?;
//!
//! let frame = b"*\0\0\0\x14..............unit....";
//! let status = station.unpack(&frame[..23], 0, false);
//! assert_eq!(status, Status::Complete { frame: 0..27, target: Target::Key(19..23) });
//! # Ok::<(), tlb_engine::unpack::FrameSpecError>(())
//! ```

use core::fmt;
use core::net::SocketAddr;
use core::ops::Range;

use crate::ids::PoolId;

mod delimited;
mod fixed;
mod length_field;
#[cfg(test)]
mod oracle;
mod search;
mod spec;
#[cfg(test)]
mod tests;

pub use delimited::Delimited;
pub use fixed::Fixed;
pub use length_field::LengthField;
pub use spec::{Endian, FrameSize, FrameSpecError, Key, Length, PATTERN_MAX, Pattern, Spec};

/// Finds the first frame in a client's bytes, and in it what decides the backend.
///
/// Implementations are *pure*: the answer depends on `prefix` and `eof` alone, never on how reads
/// were split, on time, or on earlier calls. The engine calls again whenever more bytes have come.
///
/// A client that sends the same bytes in other pieces must reach the same backend. For that, an
/// answer other than [`Status::Partial`] must stay the same for every longer prefix (more garbage
/// may be skipped, of course), and `at_least` must keep its promise. Then the engine sees to the
/// rest.
pub trait Unpack: fmt::Debug + Send + Sync {
    /// Looks at all bytes that are there, from the first one not skipped.
    ///
    /// `scanned` is the value an earlier [`Status::Partial`] gave for a shorter prefix of the same
    /// bytes (zero at first and after a skip): it may save work, never change the answer. `eof`
    /// says that no more bytes will come; `prefix` is empty only then.
    fn unpack(&self, prefix: &[u8], scanned: usize, eof: bool) -> Status;

    /// The framing as data, if data describes it: what a simulation makes frames from.
    fn spec(&self) -> Option<Spec> {
        None
    }
}

/// What an [`Unpack`] says about a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Undecided: call again with at least `at_least` bytes. With `eof`, a truncated frame: the
    /// session is rejected.
    Partial {
        /// How many bytes of prefix the next answer needs at least, which must be more than there
        /// are now. A promise: every shorter prefix of the same stream is `Partial`, and no longer
        /// one asks for fewer. The session ends at once if its preread limit is less than this.
        at_least: usize,
        /// How many bytes need not be looked at again: at most all.
        scanned: usize,
    },
    /// The first `bytes` bytes (at least one, at most all) are garbage before a frame: drop them
    /// and ask again.
    Skip {
        /// How many bytes to drop.
        bytes: usize,
    },
    /// Decided. The frame may end beyond the prefix: only what was inspected needs to be there.
    Complete {
        /// Where the frame lies, counted from the prefix's start. An end that is not known is given
        /// as the least that it can be.
        frame: Range<usize>,
        /// Where it goes.
        target: Target,
    },
    /// Not a frame of this protocol: the session ends.
    Invalid(Reject),
}

/// What decides the backend. Ranges are counted from the prefix's start and must lie within the
/// prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// These bytes of the prefix are the key that the pool's policy maps to a backend.
    Key(Range<usize>),
    /// A key that was computed; it is taken as the hash itself and must be well mixed.
    KeyHash(u64),
    /// These bytes of the prefix are the id of a backend of the listener's pool.
    Backend(Range<usize>),
    /// This very address, which need not be in any pool. Only where the listener allows it.
    Address(SocketAddr),
    /// Any backend of another pool, by that pool's policy, without a key.
    Pool(PoolId),
    /// Any backend of the listener's pool, without a key.
    Any,
}

/// Why a client's first bytes were refused: one variant for each check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reject {
    /// The stream ended inside a frame.
    Truncated,
    /// The frame's length field gives a length that cannot be (it overflows, or ends before the
    /// field does).
    BadLength,
    /// The frame is shorter than `min-frame`.
    FrameTooShort,
    /// The frame is longer than `max-frame`.
    FrameTooLong,
    /// The key does not lie within the frame.
    KeyOutsideFrame,
    /// The unpack named a backend that the roster does not have.
    UnknownBackend,
    /// The unpack named a pool that the roster does not have.
    UnknownPool,
    /// The unpack named an address on a listener that does not allow it.
    AddressNotAllowed,
    /// The unpack broke its contract: a skip of nothing or of more than there is, no more bytes
    /// asked for than are there, more bytes scanned than are there, or a range outside the prefix.
    BrokenUnpack,
    /// The user's unpack panicked.
    Panicked,
    /// A reason of a user's own unpack, by a number of its choice.
    Custom(u16),
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the stream ended inside a frame",
            Self::BadLength => "the frame's length cannot be",
            Self::FrameTooShort => "the frame is shorter than min-frame",
            Self::FrameTooLong => "the frame is longer than max-frame",
            Self::KeyOutsideFrame => "the key lies outside the frame",
            Self::UnknownBackend => "the unpack named an unknown backend",
            Self::UnknownPool => "the unpack named an unknown pool",
            Self::AddressNotAllowed => {
                "the unpack named an address, which this listener does not allow"
            }
            Self::BrokenUnpack => "the unpack broke its contract",
            Self::Panicked => "the unpack panicked",
            Self::Custom(code) => return write!(f, "refused by the unpack with code {code}"),
        })
    }
}
