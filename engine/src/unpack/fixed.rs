//! Frames of one size.

use super::{FrameSpecError, Key, Spec, Status, Target, Unpack};

/// Frames that all have the same number of bytes.
///
/// Routes as soon as the key is there; a key without a length ends where the frame does.
#[derive(Clone, Debug)]
pub struct Fixed {
    size: usize,
    key: core::ops::Range<usize>,
}

impl Fixed {
    /// Frames of `size` bytes.
    ///
    /// # Errors
    ///
    /// A size of zero, or a key that is empty or not within `size`.
    pub fn new(size: usize, key: Key) -> Result<Self, FrameSpecError> {
        if size == 0 {
            return Err(FrameSpecError::SizeZero);
        }
        key.least_content()?;
        let key = key.within(size).ok_or(FrameSpecError::KeyBeyondSize)?;
        Ok(Self { size, key })
    }
}

impl Unpack for Fixed {
    fn unpack(&self, prefix: &[u8], _scanned: usize, _eof: bool) -> Status {
        if prefix.len() < self.key.end {
            return Status::Partial {
                at_least: self.key.end,
                scanned: 0,
            };
        }
        Status::Complete {
            frame: 0..self.size,
            target: Target::Key(self.key.clone()),
        }
    }

    fn spec(&self) -> Option<Spec> {
        let key = Key {
            offset: self.key.start,
            length: Some(self.key.len()),
        };
        Some(Spec::Fixed {
            size: self.size,
            key,
        })
    }
}
