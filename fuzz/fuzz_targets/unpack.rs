//! Any framing, over any stream in any pieces, gives the oracle's verdict and keeps its contract.
//!
//! An input is read from the front; what is missing reads as zeros:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | framing: 0 length-field, 1 delimited, 2 fixed (modulo 3) |
//! | 1 | flags: 1 little-endian, 2 a longest frame, 4 the stream ends, 8 key to the end |
//! | number × 4 | key offset, key length, shortest frame, longest frame beyond the shortest |
//! | number | fixed: size. length-field: bytes between magic and length field. Else nothing |
//! | 1 + number | length-field only: width, adjust (a byte is signed) |
//! | 1 + as many | magic or delimiter: how long (modulo 20), then its bytes. Not for fixed |
//! | 2 | preread limit, little-endian (modulo 1024), plus 1 |
//! | 1 + as many | pieces: how many (modulo 8), then the size of each |
//! | the rest | the stream |
//!
//! A number is one byte, or for 248 and more the eight bytes that follow, little-endian.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tlb_engine::unpack::{Endian, FrameSize, Key, Length};

#[path = "../../engine/src/unpack/oracle.rs"]
mod oracle;

use oracle::{Case, Framing, check_contract};

/// The contract is checked at quadratic cost.
const STREAM_MAX: usize = 512;

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    fn wide(&mut self) -> u64 {
        let mut wide = [0; 8];
        let bytes = self.bytes(8);
        wide[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(wide)
    }

    fn number(&mut self) -> usize {
        match self.byte() {
            248.. => self.wide() as usize,
            byte => byte.into(),
        }
    }

    fn signed(&mut self) -> i64 {
        match self.byte() {
            248.. => self.wide() as i64,
            byte => i64::from(byte.cast_signed()),
        }
    }

    fn pattern(&mut self) -> Vec<u8> {
        let count = self.byte() % 20;
        self.bytes(count.into()).to_vec()
    }

    fn framing(&mut self, kind: u8, flags: u8) -> Framing {
        let offset = self.number();
        let length = self.number();
        let key = Key {
            offset,
            length: (flags & 8 == 0).then_some(length),
        };
        let min = self.number();
        let span = self.number();
        let size = FrameSize {
            min,
            max: (flags & 2 != 0).then_some(min.saturating_add(span)),
        };
        match kind % 3 {
            0 => {
                let gap = self.number();
                let width = self.byte().into();
                let adjust = self.signed();
                let magic = self.pattern();
                let length = Length {
                    offset: gap.saturating_add(magic.len()),
                    width,
                    endian: if flags & 1 == 0 {
                        Endian::Big
                    } else {
                        Endian::Little
                    },
                    adjust,
                };
                Framing::LengthField {
                    magic,
                    length,
                    key,
                    size,
                }
            }
            1 => Framing::Delimited {
                delimiter: self.pattern(),
                key,
                size,
            },
            _ => Framing::Fixed {
                size: self.number(),
                key,
            },
        }
    }

    fn case(&mut self, flags: u8) -> Case {
        let limit = usize::from(u16::from_le_bytes([self.byte(), self.byte()]) % 1024) + 1;
        let count = self.byte() % 8;
        let pieces = self
            .bytes(count.into())
            .iter()
            .map(|size| usize::from(*size));
        Case {
            limit,
            pieces: pieces.collect(),
            fin: flags & 4 != 0,
            stream: self.0[..self.0.len().min(STREAM_MAX)].to_vec(),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let kind = input.byte();
    let flags = input.byte();
    let framing = input.framing(kind, flags);
    let case = input.case(flags);
    if let Ok(unpack) = framing.build() {
        framing.check(&*unpack, &case);
        check_contract(&*unpack, &case.stream);
    }
});
