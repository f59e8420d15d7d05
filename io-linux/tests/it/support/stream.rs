//! The bytes that tests exchange: frames, and streams in which every byte's place can be told from
//! its value.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use super::rng::{Rng, mix};

/// Bytes of a frame up to the end of its key: the shortest frame that has one, without the check
/// bytes.
const KEY_END: usize = 23;
/// Bytes of a frame beyond what its length field counts: magic, the field itself, check.
const FRAME_OVERHEAD: usize = 7;

/// A whole frame of `total` bytes: `'*'`, the length as big-endian `u32`, the payload with `key` at
/// offset 19, and two bytes of check, which nobody checks.
pub(crate) fn frame(key: u32, total: usize) -> Vec<u8> {
    assert!(total >= KEY_END + 2, "a frame of {total} bytes has no key");
    let mut bytes = vec![0; total];
    fill(u64::from(key) ^ 0xf0f0, 0, &mut bytes);
    let length = u32::try_from(total - FRAME_OVERHEAD).expect("a frame's length fits its field");
    bytes[0] = b'*';
    bytes[1..5].copy_from_slice(&length.to_be_bytes());
    bytes[19..KEY_END].copy_from_slice(&key.to_be_bytes());
    bytes
}

/// What one side sends: a head, then bytes that depend on their position alone.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    head: Vec<u8>,
    seed: u64,
    len: usize,
}

impl Stream {
    /// `len` bytes of the pattern that `seed` names.
    pub(crate) const fn new(seed: u64, len: usize) -> Self {
        Self::after(Vec::new(), seed, len)
    }

    /// `head`, then `tail` bytes of the pattern that `seed` names.
    pub(crate) const fn after(head: Vec<u8>, seed: u64, tail: usize) -> Self {
        let len = head.len() + tail;
        Self { head, seed, len }
    }

    /// Bytes in all.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// All of them.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read_at(0, &mut bytes);
        bytes
    }

    /// Puts the bytes from `offset` on into `buffer`; fewer than it holds only at the stream's end.
    pub(crate) fn read_at(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let count = buffer.len().min(self.len.saturating_sub(offset));
        let from_head = count.min(self.head.len().saturating_sub(offset));
        buffer[..from_head].copy_from_slice(&self.head[offset.min(self.head.len())..][..from_head]);
        if count > from_head {
            let place = offset + from_head - self.head.len();
            fill(self.seed, place, &mut buffer[from_head..count]);
        }
        count
    }

    /// Writes all of it, in pieces of up to 64 KiB.
    pub(crate) fn send(&self, to: &TcpStream) -> io::Result<()> {
        self.send_from(0, to)
    }

    /// Writes the bytes from `offset` on.
    pub(crate) fn send_from(&self, offset: usize, to: &TcpStream) -> io::Result<()> {
        self.send_pieces(offset, to, || 64 * 1024)
    }

    /// Writes all of it, in pieces of random sizes.
    pub(crate) fn send_chopped(&self, to: &TcpStream, rng: &mut Rng) -> io::Result<()> {
        self.send_pieces(0, to, || rng.size(64 * 1024))
    }

    fn send_pieces(
        &self,
        mut offset: usize,
        mut to: &TcpStream,
        mut size: impl FnMut() -> usize,
    ) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        while offset < self.len {
            let count = self.read_at(offset, &mut buffer[..size()]);
            to.write_all(&buffer[..count])?;
            offset += count;
        }
        Ok(())
    }

    /// Reads all of it and not a byte more.
    ///
    /// # Panics
    ///
    /// At the first byte that differs, at an early end, and at an error.
    #[track_caller]
    pub(crate) fn expect_from(&self, from: &TcpStream) {
        let end = Checker::new(self).read(from, self.len);
        assert!(
            end.is_none(),
            "the stream ended ({end:?}) before all of its {} bytes had come",
            self.len
        );
    }

    /// Reads all of it, then the end, which must be in order.
    #[track_caller]
    pub(crate) fn expect_from_then_fin(&self, from: &TcpStream) {
        self.expect_from(from);
        let (surplus, end) = rest(from);
        assert_eq!(
            (surplus.len(), end),
            (0, End::Fin),
            "after {} exact bytes",
            self.len
        );
    }
}

/// Compares what arrives with a [`Stream`], however it is cut.
#[derive(Debug)]
pub(crate) struct Checker<'a> {
    stream: &'a Stream,
    offset: usize,
    expected: Vec<u8>,
}

impl<'a> Checker<'a> {
    /// At the stream's first byte.
    pub(crate) fn new(stream: &'a Stream) -> Self {
        Self {
            stream,
            offset: 0,
            expected: vec![0; 64 * 1024],
        }
    }

    /// How many bytes were right so far.
    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    /// Reads until `until` bytes have come in all; `Some` when the stream ends before.
    #[track_caller]
    pub(crate) fn read(&mut self, mut from: &TcpStream, until: usize) -> Option<End> {
        let mut buffer = vec![0; 64 * 1024];
        while self.offset < until {
            let most = buffer.len().min(until - self.offset);
            match from.read(&mut buffer[..most]) {
                Ok(0) => return Some(End::Fin),
                Ok(count) => self.feed(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Some(End::Reset);
                }
                Err(error) => panic!(
                    "read failed at offset {} of {}: {error}",
                    self.offset,
                    self.stream.len()
                ),
            }
        }
        None
    }

    /// The next bytes.
    #[track_caller]
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let count = self
            .stream
            .read_at(self.offset, &mut self.expected[..bytes.len()]);
        assert_eq!(
            count,
            bytes.len(),
            "more bytes than the stream's {}",
            self.stream.len()
        );
        if self.expected[..count] != *bytes {
            self.explain(bytes);
        }
        self.offset += count;
    }

    #[track_caller]
    fn explain(&self, bytes: &[u8]) -> ! {
        let at = bytes
            .iter()
            .zip(&self.expected)
            .position(|(got, expected)| got != expected)
            .expect("they differ");
        let window = &bytes[at..bytes.len().min(at + 16)];
        let mut whole = vec![0; self.stream.len()];
        self.stream.read_at(0, &mut whole);
        let origin = whole
            .windows(window.len())
            .position(|candidate| candidate == window);
        panic!(
            "byte {} differs: got {window:02x?}, expected {:02x?}; {}",
            self.offset + at,
            &self.expected[at..at + window.len()],
            match origin {
                Some(place) => format!("what came belongs to offset {place}"),
                None => "what came is nowhere in the stream".to_owned(),
            }
        );
    }
}

/// How a peer ended its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In order.
    Fin,
    /// By a reset.
    Reset,
}

/// Everything up to the stream's end, and which end it was.
#[track_caller]
pub(crate) fn rest(mut from: &TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    match from.read_to_end(&mut bytes) {
        Ok(_) => (bytes, End::Fin),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (bytes, End::Reset),
        Err(error) => panic!("no end of the stream after {} bytes: {error}", bytes.len()),
    }
}

/// The pattern that `seed` names, from `offset` on: eight bytes of it are enough to tell where they
/// belong.
fn fill(seed: u64, offset: usize, buffer: &mut [u8]) {
    let mut word = offset / 8;
    let mut skip = offset % 8;
    let mut rest = buffer;
    while !rest.is_empty() {
        let bytes = mix(seed.wrapping_add(word as u64)).to_le_bytes();
        let count = rest.len().min(8 - skip);
        let (piece, tail) = rest.split_at_mut(count);
        piece.copy_from_slice(&bytes[skip..skip + count]);
        rest = tail;
        word += 1;
        skip = 0;
    }
}
