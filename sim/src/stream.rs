//! Byte streams that know where they are: any slip, loss, repetition or mix-up is named by its
//! place.

use std::fmt;
use std::ops::Range;

use tlb_engine::ids::Dir;

/// Where the client's number lies in a frame.
const ID: Range<usize> = 5..7;
/// Where the key lies in a frame.
const KEY: Range<usize> = 19..23;
/// Bytes of a frame that decide something: all of header, number and key.
pub const HEAD: usize = KEY.end;

/// Odd, so that multiplication by it can be undone.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const TAG: u64 = 0x2b;

/// The bytes that pass between one client and its backend. Both ends know them all, so each checks
/// what it gets.
///
/// Forward, a station's frame comes first: `*`, a `u32` length, the client's number, the key at 19,
/// two bytes of check at the end. Backward, the first byte names the backend. The rest consists of
/// words that carry their own stream and place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The client's number in its scenario.
    pub client: u16,
    /// The key in its first frame.
    pub key: u32,
    /// Length of that frame, at least [`HEAD`] + 2.
    pub frame: usize,
}

impl Flow {
    /// The byte at `offset` of the forward stream, counted from the first byte that is not garbage.
    pub fn forward(&self, offset: u64) -> u8 {
        let place = usize::try_from(offset).unwrap_or(usize::MAX);
        match place {
            0 => b'*',
            1..=4 => (self.frame as u32 - 7).to_be_bytes()[place - 1],
            _ if ID.contains(&place) => self.client.to_be_bytes()[place - ID.start],
            _ if KEY.contains(&place) => self.key.to_be_bytes()[place - KEY.start],
            _ => pattern(self.client, Dir::Forward, offset),
        }
    }

    /// The byte at `offset` of the stream that backend number `backend` returns.
    pub fn back(&self, backend: u8, offset: u64) -> u8 {
        match offset {
            0 => backend,
            _ => pattern(self.client, Dir::Return, offset),
        }
    }

    /// The client's number, read from the first [`HEAD`] bytes of a forward stream.
    pub fn client_of(head: &[u8]) -> Option<u16> {
        let id = head.get(ID)?;
        Some(u16::from_be_bytes([id[0], id[1]]))
    }
}

/// A byte of garbage for before a frame: anything but the frame's magic.
pub const fn garbage(offset: u64) -> u8 {
    0x80 | (offset % 100) as u8
}

fn pattern(client: u16, dir: Dir, offset: u64) -> u8 {
    word(client, dir, offset / 8).to_be_bytes()[(offset % 8) as usize]
}

const fn word(client: u16, dir: Dir, index: u64) -> u64 {
    let dir = matches!(dir, Dir::Return) as u64;
    let plain = (TAG << 56) | ((client as u64) << 40) | (dir << 39) | index;
    let half = plain.wrapping_mul(SPREAD);
    (half ^ (half >> 32)).wrapping_mul(SPREAD)
}

/// The stream and the offset that `word` belongs to, if it is one of ours.
const fn unword(word: u64) -> Option<(u16, Dir, u64)> {
    let half = word.wrapping_mul(inverse(SPREAD));
    let plain = (half ^ (half >> 32)).wrapping_mul(inverse(SPREAD));
    // Nothing here sends 2^32 words, so that a stray word passes for one of ours once in 2^15.
    if plain >> 56 != TAG || plain & (((1 << 39) - 1) & !((1 << 32) - 1)) != 0 {
        return None;
    }
    let dir = if plain & (1 << 39) == 0 {
        Dir::Forward
    } else {
        Dir::Return
    };
    Some(((plain >> 40) as u16, dir, (plain & 0xffff_ffff) * 8))
}

/// Newton's iteration doubles the number of right bits.
const fn inverse(odd: u64) -> u64 {
    let mut x = odd;
    let mut round = 0;
    while round < 5 {
        x = x.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(x)));
        round += 1;
    }
    x
}

/// What an end of a flow expects to get: it is a prefix of what was sent, or the first difference
/// is named.
#[derive(Clone, Debug)]
pub struct Expect {
    flow: Flow,
    dir: Dir,
    /// The backend at the other end, known from the first byte where `dir` is [`Dir::Return`].
    backend: Option<u8>,
    at: u64,
}

impl Expect {
    /// The forward stream of `flow`, as its backend gets it.
    pub const fn forward(flow: Flow) -> Self {
        Self {
            flow,
            dir: Dir::Forward,
            backend: None,
            at: 0,
        }
    }

    /// The return stream of `flow`, as its client gets it.
    pub const fn back(flow: Flow) -> Self {
        Self {
            flow,
            dir: Dir::Return,
            backend: None,
            at: 0,
        }
    }

    /// How many bytes have come, all of them right.
    pub const fn received(&self) -> u64 {
        self.at
    }

    /// Which backend answered, once its first byte has come.
    pub const fn backend(&self) -> Option<u8> {
        self.backend
    }

    /// Checks the next bytes.
    ///
    /// # Errors
    /// The first byte that is not the expected one.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Slip> {
        for (index, &got) in bytes.iter().enumerate() {
            let wanted = match self.dir {
                Dir::Forward => self.flow.forward(self.at),
                Dir::Return => self.flow.back(*self.backend.get_or_insert(got), self.at),
            };
            if got != wanted {
                return Err(Slip {
                    client: self.flow.client,
                    dir: self.dir,
                    at: self.at,
                    is_from: locate(&bytes[index..]),
                });
            }
            self.at += 1;
        }
        Ok(())
    }
}

/// A byte that is not the one that was sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slip {
    /// Whose stream.
    pub client: u16,
    /// Which direction.
    pub dir: Dir,
    /// The offset of the first wrong byte.
    pub at: u64,
    /// Where the bytes there come from, if they are from any stream: client, direction, offset.
    pub is_from: Option<(u16, Dir, u64)>,
}

impl fmt::Display for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{} {} slips at byte {}", self.client, self.dir, self.at)?;
        match self.is_from {
            Some((client, dir, at)) => write!(f, ": there are c{client}'s {dir} bytes from {at}"),
            None => f.write_str(": foreign bytes"),
        }
    }
}

/// Finds the first whole word of any stream in `bytes`, and so the origin of their first byte.
fn locate(bytes: &[u8]) -> Option<(u16, Dir, u64)> {
    (0..8).find_map(|shift| {
        let word = bytes.get(shift..shift + 8)?;
        let (client, dir, offset) = unword(u64::from_be_bytes(word.try_into().ok()?))?;
        Some((client, dir, offset.checked_sub(shift as u64)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow {
        client: 7,
        key: 0xdead_beef,
        frame: 64,
    };

    fn sent(flow: Flow, range: Range<u64>) -> Vec<u8> {
        range.map(|at| flow.forward(at)).collect()
    }

    #[test]
    fn a_frame_is_a_frame_and_names_its_client_and_key() {
        let head = sent(FLOW, 0..HEAD as u64);
        assert_eq!(head[0], b'*');
        assert_eq!(u32::from_be_bytes(head[1..5].try_into().unwrap()), 57);
        assert_eq!(Flow::client_of(&head), Some(7));
        assert_eq!(head[19..23], 0xdead_beef_u32.to_be_bytes());
        assert!((0..1000).all(|at| garbage(at) != b'*'));
    }

    #[test]
    fn whole_streams_pass_however_they_are_cut() {
        for cut in 1..50 {
            let mut expect = Expect::forward(FLOW);
            for piece in sent(FLOW, 0..200).chunks(cut) {
                expect.feed(piece).unwrap();
            }
            assert_eq!(expect.received(), 200);
        }
    }

    #[test]
    fn loss_repetition_and_mix_up_are_named_by_their_place() {
        let other = Flow { client: 9, ..FLOW };
        for (bytes, at, is_from) in [
            // Ten bytes lost.
            ([sent(FLOW, 0..100), sent(FLOW, 110..200)], 100, (7, 110)),
            // Ten bytes twice.
            ([sent(FLOW, 0..100), sent(FLOW, 90..200)], 100, (7, 90)),
            // Another client's bytes.
            ([sent(FLOW, 0..100), sent(other, 100..200)], 100, (9, 100)),
        ] {
            let slip = Expect::forward(FLOW).feed(&bytes.concat()).unwrap_err();
            let origin = (is_from.0, Dir::Forward, is_from.1);
            // Neighbouring bytes can be alike by chance, so the difference may show a byte or two
            // later.
            let late = slip.at - at;
            assert!(late < 4, "{slip}");
            assert_eq!(slip.is_from, Some((origin.0, origin.1, origin.2 + late)));
        }
    }

    #[test]
    fn the_first_byte_back_names_the_backend() {
        let mut expect = Expect::back(FLOW);
        let bytes: Vec<u8> = (0..50).map(|at| FLOW.back(3, at)).collect();
        expect.feed(&bytes).unwrap();
        assert_eq!(expect.backend(), Some(3));
        let slip = expect.feed(&[0; 20]).unwrap_err();
        assert_eq!(slip.is_from, None);
        assert!(slip.to_string().contains("foreign"));
    }
}
