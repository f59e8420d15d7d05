//! Frames of a user's own framing: made from its description, or recorded.
//!
//! The unpack under test has no part in this: where a frame begins, how long it is and what its key
//! is are known because the frame was made so.

use std::fmt;
use std::sync::Arc;

use tlb_engine::rng::Rng;
use tlb_engine::unpack::{Endian, Key, Length, Spec, Unpack};

/// Longest frame that is made.
pub const LONGEST: usize = 1 << 20;
/// How much longer than the shortest a drawn frame may be.
const SPREAD: u64 = 2000;

/// What an unpack that only its code describes is to find.
pub struct Recorded {
    /// Its name in the configuration.
    pub name: String,
    /// The unpack.
    pub unpack: Arc<dyn Unpack>,
    /// At least one.
    pub frames: Vec<Frame>,
}

/// A recorded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What a client sends first. Not empty.
    pub bytes: Vec<u8>,
    /// The key in it, if the test is to know.
    pub key: Option<Vec<u8>>,
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} frames", self.name, self.frames.len())
    }
}

impl PartialEq for Recorded {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.frames == other.frames
    }
}

impl Eq for Recorded {}

/// Shortest and longest frame of a description that is worth making; `limit` is most that tlb looks at.
///
/// # Errors
/// No frame of it fits into a simulation, or into the limit.
pub fn sizes(spec: &Spec, limit: usize) -> Result<(usize, usize), String> {
    let content = |key: &Key| key.offset + key.length.unwrap_or(1);
    let (least, most, whole) = match spec {
        Spec::LengthField {
            length, key, size, ..
        } => {
            let header = length.offset + length.width;
            let low = header as i128 + i128::from(length.adjust);
            let high = low + ((1_i128 << (8 * length.width)) - 1);
            let least = header.max(content(key)).max(size.min);
            let least = least.max(usize::try_from(low).unwrap_or(0));
            let most = usize::try_from(high).unwrap_or(usize::MAX);
            let most = most.min(size.max.unwrap_or(usize::MAX));
            (least, most, key.length.is_none())
        }
        Spec::Delimited {
            delimiter,
            key,
            size,
        } => {
            let least = size.min.max(content(key) + delimiter.as_bytes().len());
            let whole = key.length.is_none() || size.max.is_some();
            (least, size.max.unwrap_or(usize::MAX), whole)
        }
        Spec::Fixed { size, .. } => (*size, *size, false),
    };
    let bound = if whole { limit.min(LONGEST) } else { LONGEST };
    if least > bound {
        return Err(format!(
            "its shortest frame has {least} bytes, and no more than {bound} can be simulated"
        ));
    }
    Ok((least, most.min(bound)))
}

/// A frame's size.
pub fn draw_size(rng: &mut Rng, (least, most): (usize, usize)) -> u32 {
    let spread = SPREAD.min((most - least) as u64);
    least as u32 + rng.below(spread + 1) as u32
}

/// Whether garbage before a frame is skipped.
pub fn skips(spec: &Spec) -> bool {
    matches!(spec, Spec::LengthField { magic, .. } if !magic.as_bytes().is_empty())
}

/// A byte of garbage; if `evil`, of one that looks like a frame with an impossible length where the description
/// makes that possible.
pub fn garbage(spec: &Spec, evil: bool, whole: u64, offset: u64) -> u8 {
    let Spec::LengthField {
        magic,
        length,
        size,
        ..
    } = spec
    else {
        return 0;
    };
    let magic = magic.as_bytes();
    let header = (length.offset + length.width) as u64;
    let top = header as i128 + i128::from(length.adjust) + (1 << (8 * length.width)) - 1;
    let impossible = size.max.is_some_and(|max| top > max as i128) && !magic.contains(&0xff);
    if evil && impossible {
        let within = offset % header;
        // The last one is whole: it must not run on into the frame.
        if offset - within + header <= whole && within < magic.len() as u64 {
            return magic[within as usize];
        }
        return 0xff;
    }
    let quiet = |byte: &u8| !magic.contains(byte);
    (0x80..=0xff).find(quiet).unwrap_or(0x80)
}

/// A byte of a frame of so many bytes, whose key stands for a number. `filler` is chance.
pub fn byte(spec: &Spec, frame: u32, key: u16, offset: u64, filler: u8) -> u8 {
    let at = offset as usize;
    match spec {
        Spec::LengthField {
            magic,
            length,
            key: place,
            ..
        } => {
            let magic = magic.as_bytes();
            if let Some(&byte) = magic.get(at) {
                return byte;
            }
            if let Some(byte) = length_byte(length, frame, at) {
                return byte;
            }
            letter(&[], place, key, at, filler)
        }
        Spec::Delimited {
            delimiter,
            key: place,
            ..
        } => {
            let delimiter = delimiter.as_bytes();
            let content = frame as usize - delimiter.len();
            if at >= content {
                return delimiter[at - content];
            }
            letter(delimiter, place, key, at, filler)
        }
        Spec::Fixed { key: place, .. } => letter(&[], place, key, at, filler),
    }
}

/// Where the key lies in a frame of so many bytes.
pub fn key_range(spec: &Spec, frame: u32) -> std::ops::Range<usize> {
    let (key, end) = match spec {
        Spec::LengthField { key, .. } | Spec::Fixed { key, .. } => (key, frame as usize),
        Spec::Delimited { key, delimiter, .. } => {
            (key, frame as usize - delimiter.as_bytes().len())
        }
    };
    key.offset..key.length.map_or(end, |length| key.offset + length)
}

fn length_byte(length: &Length, frame: u32, at: usize) -> Option<u8> {
    let place = at
        .checked_sub(length.offset)
        .filter(|&it| it < length.width)?;
    let header = (length.offset + length.width) as i128;
    let value = i128::from(frame) - header - i128::from(length.adjust);
    let place = match length.endian {
        Endian::Big => length.width - 1 - place,
        Endian::Little => place,
    };
    Some((value >> (8 * place)) as u8)
}

/// A byte that no delimiter has: of the key, or chance.
fn letter(avoid: &[u8], place: &Key, key: u16, at: usize, filler: u8) -> u8 {
    let length = place.length.unwrap_or(usize::MAX);
    let nth = match at.checked_sub(place.offset) {
        // The last digits of the number if there is not room for all.
        Some(digit) if digit < length => {
            let digit = digit + 4_usize.saturating_sub(length);
            let shift = 12_usize.checked_sub(4 * digit);
            shift.map_or(0, |shift| usize::from((key >> shift) & 15))
        }
        _ => usize::from(filler % 16),
    };
    let mut letters = (b'A'..=b'z').filter(|byte| !avoid.contains(byte));
    letters.nth(nth).unwrap_or(b'A')
}

#[cfg(test)]
mod tests;
