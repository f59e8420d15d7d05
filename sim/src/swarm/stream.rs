//! Byte streams that know where they are.
//!
//! What a client sends and what a backend returns are functions of the sender and the offset, so
//! that whoever receives a byte knows whether it is the right one at its place.

use std::fmt;

use bytes::Bytes;
use tlb_engine::rng::Rng;

use super::frames::{self, Frame, Recorded};
use super::scenario::{Client, Framing};

/// Of bytes that may be any client's, so many are looked at first: enough to tell most clients apart.
const GLANCE: usize = 32;
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
    let chance = || pattern(Origin::Client(number), offset);
    match framing {
        Framing::Spec(spec) if offset < frame => {
            return frames::byte(&spec, client.frame, client.key, offset, chance());
        }
        Framing::Recorded(recorded) if offset < frame => {
            return recorded_of(recorded, client).bytes[offset as usize];
        }
        _ => {}
    }
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
        _ if offset < frame => b'a' + chance() % 26,
        _ => chance(),
    }
}

fn recorded_of(recorded: &'static Recorded, client: &Client) -> &'static Frame {
    &recorded.frames[usize::from(client.key) % recorded.frames.len()]
}

/// The key in a client's frame; `None` where only the unpack could tell.
pub fn key(number: usize, client: &Client, framing: Framing) -> Option<Vec<u8>> {
    let range = match framing {
        Framing::None => return None,
        Framing::Recorded(recorded) => return recorded_of(recorded, client).key.clone(),
        Framing::Spec(spec) => frames::key_range(&spec, client.frame),
        Framing::Length | Framing::Delimited | Framing::Fixed => 19..23,
    };
    let byte = |at| forward(number, client, framing, at as u64);
    Some(range.map(byte).collect())
}

/// Garbage before a frame: no magic, or one whose length cannot be.
fn garbage(client: &Client, framing: Framing, offset: u64) -> u8 {
    if let Framing::Spec(spec) = framing {
        return frames::garbage(&spec, client.evil, u64::from(client.garbage), offset);
    }
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
                garbage(client, framing, at)
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
        if self.origin.is_none() {
            self.head.extend_from_slice(bytes);
            self.received += bytes.len() as u64;
            let Some(origin) = self.identify(&client)? else {
                return Ok(());
            };
            self.origin = Some(origin);
            let head = core::mem::take(&mut self.head);
            self.received = 0;
            return self.compare(&head, &client);
        }
        self.compare(bytes, &client)
    }

    /// Whose stream begins so; `None` while it may be several.
    fn identify<'a>(
        &self,
        client: &impl Fn(usize) -> Option<(&'a Client, Framing)>,
    ) -> Result<Option<Origin>, Slip> {
        let nobody = Slip {
            origin: None,
            at: 0,
        };
        if self.backward {
            let Some(label) = self.head.first_chunk() else {
                return Ok(None);
            };
            let label = u64::from_be_bytes(*label);
            let named = (label & (0xff << 56) == LABEL_TAG).then_some(Origin::Conn(label as u32));
            return named.ok_or(nobody).map(Some);
        }
        let mut candidates: Vec<_> = (0..)
            .map_while(|number| Some((number, client(number)?)))
            .collect();
        let mut seen = 0;
        while seen < self.head.len() && candidates.len() != 1 || seen == 0 {
            seen = self.head.len().min((2 * seen).max(GLANCE));
            candidates.retain(|&(number, (about, framing))| {
                let skip = u64::from(about.garbage);
                let wanted = make(Origin::Client(number), Some((about, framing)), skip, seen);
                wanted == self.head[..seen]
            });
        }
        match candidates[..] {
            [] => Err(nobody),
            [(number, _)] => Ok(Some(Origin::Client(number))),
            _ => Ok(None),
        }
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
