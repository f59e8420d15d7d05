//! Byte streams that know where they are.
//!
//! What a client sends and what a backend returns are functions of the sender and the offset, so
//! that whoever receives a byte knows whether it is the right one at its place.

use std::fmt;

use bytes::Bytes;
use tlb_engine::rng::Rng;

use super::scenario::{Client, Framing};

/// Bytes from a frame's start by which its client is known.
const NAME_END: usize = 9;
/// Bytes of a frame's head: all that decides something.
const HEAD: u64 = 23;
/// Bytes of a return stream that name the connection.
const LABEL: u64 = 8;
const LABEL_TAG: u64 = 0xb5 << 56;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client, by its number.
    Client(usize),
    /// A backend's end of a connection, by the connection's number.
    Conn(u32),
}

impl Origin {
    const fn stream(self) -> u64 {
        match self {
            Self::Client(client) => (client as u64) << 32,
            Self::Conn(conn) => (1 << 63) | ((conn as u64) << 32),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(f, "client {client}"),
            Self::Conn(conn) => write!(f, "connection {conn}"),
        }
    }
}

const fn word(origin: Origin, index: u64) -> [u8; 8] {
    Rng::new(origin.stream() ^ index.wrapping_mul(0x9e37_79b9))
        .next_u64()
        .to_be_bytes()
}

const fn pattern(origin: Origin, offset: u64) -> u8 {
    word(origin, offset / 8)[(offset % 8) as usize]
}

/// The byte at `offset` of a client's stream, counted from its frame's start.
fn forward(number: usize, client: &Client, framing: Framing, offset: u64) -> u8 {
    let frame = u64::from(client.frame);
    let letter = |value: u16, place: u64| b'a' + ((value >> (12 - 4 * place)) & 15) as u8;
    match offset {
        0 => b'*',
        1..=4 if framing == Framing::Length => {
            (client.frame - 7).to_be_bytes()[offset as usize - 1]
        }
        1..=4 => b'A',
        5..=8 => letter(number as u16, offset - 5),
        9..=18 => b'.',
        19..=22 => letter(client.key, offset - 19),
        _ if framing == Framing::Delimited && offset + 2 == frame => b'\r',
        _ if framing == Framing::Delimited && offset + 1 == frame => b'\n',
        _ if offset < frame => b'a' + pattern(Origin::Client(number), offset) % 26,
        _ => pattern(Origin::Client(number), offset),
    }
}

/// The key in a client's frame.
pub fn key(client: &Client) -> [u8; 4] {
    core::array::from_fn(|place| b'a' + ((client.key >> (12 - 4 * place)) & 15) as u8)
}

/// Garbage before a frame: no magic, or one whose length cannot be.
fn garbage(client: &Client, offset: u64) -> u8 {
    if client.evil {
        // "*" and a length of 2^32 - 1; what is left of the last one runs on into bytes of 0xff.
        let whole = u64::from(client.garbage) / 8 * 8;
        if offset.is_multiple_of(8) && offset < whole {
            b'*'
        } else {
            0xff
        }
    } else {
        0x80 | (offset % 64) as u8
    }
}

/// Makes what `origin` sends from `offset` on. Of a client, the garbage counts.
pub fn make(origin: Origin, client: Option<(&Client, Framing)>, offset: u64, len: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(len);
    let end = offset + len as u64;
    let mut at = offset;
    if let (Origin::Client(number), Some((client, framing))) = (origin, client) {
        let skip = u64::from(client.garbage);
        let special = skip + u64::from(client.frame);
        while at < end.min(special) {
            bytes.push(if at < skip {
                garbage(client, at)
            } else {
                forward(number, client, framing, at - skip)
            });
            at += 1;
        }
        return fill(bytes, origin, at - skip.min(at), end - skip.min(end));
    }
    if let Origin::Conn(conn) = origin {
        let label = (LABEL_TAG | u64::from(conn)).to_be_bytes();
        while at < end.min(LABEL) {
            bytes.push(label[at as usize]);
            at += 1;
        }
    }
    fill(bytes, origin, at, end)
}

fn fill(mut bytes: Vec<u8>, origin: Origin, mut at: u64, end: u64) -> Bytes {
    while at < end {
        let word = word(origin, at / 8);
        let from = (at % 8) as usize;
        let take = (8 - from).min((end - at) as usize);
        bytes.extend_from_slice(&word[from..from + take]);
        at += take as u64;
    }
    Bytes::from(bytes)
}

/// A byte that is not the one that was sent there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slip {
    /// Whose stream it should be, if that is known.
    pub origin: Option<Origin>,
    /// The offset of the first wrong byte, from the first byte that is not garbage.
    pub at: u64,
}

impl fmt::Display for Slip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin {
            Some(origin) => write!(f, "the stream of {origin} slips at byte {}", self.at),
            None => write!(f, "byte {} is of nobody's stream", self.at),
        }
    }
}

/// Checks what one end receives, as it comes.
#[derive(Clone, Debug)]
pub struct Expect {
    head: Vec<u8>,
    /// Whose stream it is, once that is known.
    pub origin: Option<Origin>,
    /// Bytes that came, all of them right.
    pub received: u64,
    backward: bool,
}

impl Expect {
    /// Of a backend's end: some client's stream from its frame on.
    pub const fn forward() -> Self {
        Self {
            head: Vec::new(),
            origin: None,
            received: 0,
            backward: false,
        }
    }

    /// Of a client's end: some connection's stream.
    pub const fn back() -> Self {
        Self {
            head: Vec::new(),
            origin: None,
            received: 0,
            backward: true,
        }
    }

    /// Checks the next bytes. `client` tells about a client by its number.
    ///
    /// # Errors
    /// The first byte that is wrong.
    pub fn feed<'a>(
        &mut self,
        bytes: &[u8],
        client: impl Fn(usize) -> Option<(&'a Client, Framing)>,
    ) -> Result<(), Slip> {
        let known = if self.backward {
            LABEL as usize
        } else {
            NAME_END
        };
        if self.origin.is_none() {
            let missing = known - self.head.len();
            let (head, rest) = bytes.split_at(missing.min(bytes.len()));
            self.head.extend_from_slice(head);
            if self.head.len() < known {
                self.received += head.len() as u64;
                return Ok(());
            }
            let origin = self.identify();
            let none = Slip {
                origin: None,
                at: 0,
            };
            self.origin = Some(origin.ok_or(none)?);
            let head = core::mem::take(&mut self.head);
            self.received = 0;
            self.compare(&head, &client)?;
            return self.compare(rest, &client);
        }
        self.compare(bytes, &client)
    }

    fn identify(&self) -> Option<Origin> {
        if self.backward {
            let label = u64::from_be_bytes(self.head.as_slice().try_into().ok()?);
            return (label & (0xff << 56) == LABEL_TAG).then_some(Origin::Conn(label as u32));
        }
        let mut number = 0;
        for letter in &self.head[5..NAME_END] {
            let nibble = letter.checked_sub(b'a').filter(|&nibble| nibble < 16)?;
            number = number * 16 + usize::from(nibble);
        }
        Some(Origin::Client(number))
    }

    fn compare<'a>(
        &mut self,
        bytes: &[u8],
        client: &impl Fn(usize) -> Option<(&'a Client, Framing)>,
    ) -> Result<(), Slip> {
        let Some(origin) = self.origin else {
            return Ok(());
        };
        let about = match origin {
            Origin::Client(number) => {
                let none = Slip {
                    origin: None,
                    at: self.received,
                };
                Some(client(number).ok_or(none)?)
            }
            Origin::Conn(_) => None,
        };
        let skip = about.map_or(0, |(client, _)| u64::from(client.garbage));
        let wanted = make(origin, about, skip + self.received, bytes.len());
        if wanted == bytes {
            self.received += bytes.len() as u64;
            return Ok(());
        }
        let good = wanted.iter().zip(bytes).take_while(|(a, b)| a == b).count();
        self.received += good as u64;
        Err(Slip {
            origin: Some(origin),
            at: self.received,
        })
    }
}

/// How many bytes of a client's frame must be there before anybody can route it, by its framing.
pub const fn decides(client: &Client, framing: Framing) -> u64 {
    match framing {
        Framing::None => 0,
        Framing::Length | Framing::Delimited => HEAD,
        Framing::Fixed => {
            if (client.frame as u64) < HEAD {
                client.frame as u64
            } else {
                HEAD
            }
        }
    }
}
