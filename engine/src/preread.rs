//! A client's first bytes, until they say where the session goes.

use bytes::{Buf, Bytes, BytesMut};

use crate::unpack::{Reject, Status, Target, Unpack};

/// What the first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet: wait for more bytes or for the stream's end.
    More,
    /// The session goes here. Ranges lie within [`Preread::bytes`].
    Route(Target),
    /// The session ends: the client is at fault, or with [`Reject::BrokenUnpack`] the unpack.
    Reject(Reject),
    /// As many bytes as may be looked at do not decide.
    Limit,
}

/// Bounded reassembly of a client's first bytes.
///
/// The verdict, the number of bytes skipped and the preface's start depend on the bytes alone,
/// never on how they were cut into [`push`](Self::push) calls, as long as the [`Unpack`] keeps
/// its contract. The work is linear in the number of bytes, a few bytes at a time or all at once.
///
/// The limit is given with each call rather than kept, because it is the listener's and there is
/// one preread per session; it must be the same each time.
#[derive(Debug)]
pub struct Preread {
    /// The bytes from the first one not skipped.
    held: BytesMut,
    /// Before so many bytes are held, the unpack is not asked again. More than are held,
    /// after a verdict of [`Verdict::More`].
    at_least: usize,
    /// What the unpack need not look at again.
    scanned: usize,
    /// Bytes dropped before those held.
    skipped: usize,
}

impl Preread {
    /// The first allocation, so that a client that sends single bytes does not cost one each.
    const FIRST: usize = 64;

    /// Before the first byte. Allocates nothing.
    pub fn new() -> Self {
        Self {
            held: BytesMut::new(),
            at_least: 1,
            scanned: 0,
            skipped: 0,
        }
    }

    /// How many more bytes may be taken: those skipped count towards `limit`, too.
    pub fn room(&self, limit: usize) -> usize {
        self.reach(limit).saturating_sub(self.held.len())
    }

    /// How many bytes may ever be held from here on.
    fn reach(&self, limit: usize) -> usize {
        limit.saturating_sub(self.skipped)
    }

    /// Takes the client's next bytes, at most [`room`](Self::room) of them.
    ///
    /// After another verdict than [`Verdict::More`] nothing may be pushed any more.
    pub fn push(&mut self, bytes: &[u8], limit: usize, unpack: &dyn Unpack) -> Verdict {
        debug_assert!(bytes.len() <= self.room(limit), "more bytes than room");
        self.append(bytes, limit);
        if self.held.len() >= self.at_least {
            let verdict = self.ask(unpack, false);
            if verdict != Verdict::More {
                return verdict;
            }
        }
        if self.at_least > self.reach(limit) {
            return Verdict::Limit;
        }
        Verdict::More
    }

    /// The client has ended its stream: the last verdict, which is never [`Verdict::More`].
    pub fn end(&mut self, unpack: &dyn Unpack) -> Verdict {
        self.ask(unpack, true)
    }

    /// How many bytes were dropped as garbage.
    pub fn skipped(&self) -> u64 {
        self.skipped as u64
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The bytes held: all from the first one not skipped.
    pub fn bytes(&self) -> &[u8] {
        &self.held
    }

    /// The bytes held, as what the backend gets first. Copies nothing.
    pub fn into_preface(self) -> Bytes {
        self.held.freeze()
    }

    /// Appends, growing by doubling but never beyond what the limit leaves.
    ///
    /// `BytesMut` would grow by doubling too, but past the limit, and with the room of the bytes
    /// skipped.
    fn append(&mut self, bytes: &[u8], limit: usize) {
        let bytes = &bytes[..bytes.len().min(self.room(limit))];
        let needed = self.held.len() + bytes.len();
        if needed > self.held.capacity() {
            let capacity = needed
                .max(self.held.len().saturating_mul(2))
                .max(Self::FIRST)
                .min(self.reach(limit));
            let mut grown = BytesMut::with_capacity(capacity);
            grown.extend_from_slice(&self.held);
            self.held = grown;
        }
        self.held.extend_from_slice(bytes);
    }

    /// Asks the unpack until it has said all it can about the bytes held. Ends, because each turn
    /// but the last drops a byte.
    fn ask(&mut self, unpack: &dyn Unpack, eof: bool) -> Verdict {
        loop {
            let held = self.held.len();
            match unpack.unpack(&self.held, self.scanned, eof) {
                Status::Partial { .. } if eof => return Verdict::Reject(Reject::Truncated),
                Status::Partial { at_least, scanned } if at_least > held && scanned <= held => {
                    self.at_least = at_least;
                    self.scanned = scanned;
                    return Verdict::More;
                }
                Status::Skip { bytes } if (1..=held).contains(&bytes) => self.skip(bytes),
                Status::Complete { frame, target }
                    if frame.start <= frame.end && frame.start <= held && self.holds(&target) =>
                {
                    return Verdict::Route(target);
                }
                Status::Invalid(reject) => return Verdict::Reject(reject),
                Status::Partial { .. } | Status::Skip { .. } | Status::Complete { .. } => {
                    return Verdict::Reject(Reject::BrokenUnpack);
                }
            }
            if self.held.is_empty() && !eof {
                return Verdict::More;
            }
        }
    }

    /// Drops the first `bytes` bytes.
    fn skip(&mut self, bytes: usize) {
        self.skipped += bytes;
        self.at_least = 1;
        self.scanned = 0;
        if bytes == self.held.len() {
            // Unlike `advance`, this keeps the room in front: a run of garbage that comes in
            // small pieces reuses one small allocation.
            self.held.clear();
        } else {
            self.held.advance(bytes);
        }
    }

    /// Whether the target's bytes are held.
    fn holds(&self, target: &Target) -> bool {
        match target {
            Target::Key(range) | Target::Backend(range) => {
                range.start <= range.end && range.end <= self.held.len()
            }
            Target::KeyHash(_) | Target::Address(_) | Target::Pool(_) | Target::Any => true,
        }
    }
}

impl Default for Preread {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
