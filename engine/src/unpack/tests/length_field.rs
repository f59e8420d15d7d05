use std::vec;
use std::vec::Vec;

use super::*;

const U16: Length = Length {
    offset: 0,
    width: 2,
    endian: Endian::Big,
    adjust: 0,
};

/// A `u16` at the start, then as many bytes; the key is the first two of them.
fn plain(size: FrameSize) -> LengthField {
    LengthField::new(b"", U16, key(2, 2), size).unwrap()
}

/// The same, after the magic `7e 7e`.
fn magic(size: FrameSize) -> LengthField {
    let length = Length { offset: 2, ..U16 };
    LengthField::new(b"~~", length, key(4, 2), size).unwrap()
}

fn station() -> LengthField {
    let length = Length {
        offset: 1,
        width: 4,
        endian: Endian::Big,
        adjust: 2,
    };
    LengthField::new(&[0x2a], length, key(19, 4), ANY_SIZE).unwrap()
}

#[test]
fn a_magic_a_length_and_a_check_behind_the_payload() {
    let mut frame = vec![b'*', 0, 0, 0, 20];
    frame.extend_from_slice(b"..............unit..");
    frame.extend_from_slice(b"\xc0\xde");
    assert_eq!(frame.len(), 27, "L + 7");
    assert_eq!(wants(&station(), b"*"), 5);
    assert_eq!(wants(&station(), &frame[..5]), 23);
    says(&station(), &frame[..23], route(27, 19..23));
    says(&station(), &frame, route(27, 19..23));
    let mut late = Vec::from(*b"noise");
    late.extend_from_slice(&frame);
    says(&station(), &late, Status::Skip { bytes: 5 });
}

#[test]
fn a_frame_larger_than_what_has_come_routes() {
    let mut prefix = vec![b'*', 0x7f, 0xff, 0xff, 0xff];
    prefix.resize(23, 1);
    says(&station(), &prefix, route(0x7fff_ffff + 7, 19..23));
}

#[test]
fn every_width_and_byte_order() {
    for width in 1..=8 {
        for endian in [Endian::Big, Endian::Little] {
            let length = Length {
                offset: 1,
                width,
                endian,
                adjust: 0,
            };
            let unpack = LengthField::new(b"", length, key(0, 1), ANY_SIZE).unwrap();
            let mut frame = vec![0; 1 + width];
            // The value is 0x0102.. cut to the width, with a top byte that fits a 64-bit frame.
            for i in 0..width {
                let place = match endian {
                    Endian::Big => i,
                    Endian::Little => width - 1 - i,
                };
                frame[1 + place] = i as u8 + 1;
            }
            let value = (1..=width).fold(0, |value, byte| value << 8 | byte);
            assert_eq!(wants(&unpack, &frame[..width]), 1 + width);
            says(&unpack, &frame, route(1 + width + value, 0..1));
        }
    }
}

#[test]
fn adjust_counts_from_the_fields_end() {
    let whole = Length { adjust: -2, ..U16 };
    let unpack = LengthField::new(b"", whole, key(0, 1), ANY_SIZE).unwrap();
    says(&unpack, &[0, 9], route(9, 0..1));
    says(&unpack, &[0, 2], route(2, 0..1));
    rejects(&unpack, &[0, 1], Reject::BadLength);
    rejects(&unpack, &[0, 0], Reject::BadLength);
}

#[test]
fn hostile_lengths_are_lengths_that_cannot_be() {
    let length = |adjust| Length {
        width: 8,
        adjust,
        ..U16
    };
    let with = |adjust| LengthField::new(b"", length(adjust), key(0, 1), ANY_SIZE).unwrap();
    rejects(&with(0), &[0xff; 8], Reject::BadLength);
    rejects(&with(i64::MAX), &[0xff; 8], Reject::BadLength);
    rejects(&with(i64::MIN), &[0; 8], Reject::BadLength);
    says(&with(-8), &[0xff; 8], route(usize::MAX, 0..1));
    // After a magic the same is garbage, of which nothing but a next magic can be kept.
    let magic = Length {
        offset: 1,
        ..length(300)
    };
    let magic = LengthField::new(b"*", magic, key(0, 1), ANY_SIZE).unwrap();
    says(
        &magic,
        b"*\xff\xff\xff\xff\xff\xff\xff\xff",
        Status::Skip { bytes: 9 },
    );
    says(
        &magic,
        b"*\xff\xff\xff\xff\xff\xff\xff*",
        Status::Skip { bytes: 8 },
    );
}

#[test]
fn bounds_are_inclusive() {
    let bounded = plain(size(5, 7));
    rejects(&bounded, &[0, 2], Reject::FrameTooShort);
    assert_eq!(wants(&bounded, &[0, 3]), 4);
    assert_eq!(wants(&bounded, &[0, 5]), 4);
    rejects(&bounded, &[0, 6], Reject::FrameTooLong);
}

#[test]
fn out_of_bounds_is_garbage_after_a_magic() {
    let bounded = magic(size(7, 9));
    says(&bounded, b"~~\0\x02", Status::Skip { bytes: 4 });
    says(&bounded, b"~~\0\x06", Status::Skip { bytes: 4 });
    assert_eq!(wants(&bounded, b"~~\0\x03"), 6);
    assert_eq!(wants(&bounded, b"~~\0\x05"), 6);
    // The search goes on one byte further, inside what the length had claimed.
    says(&bounded, b"~~~\0\x03ab", Status::Skip { bytes: 1 });
    says(&bounded, b"~~\xff~~\0\x03ab", Status::Skip { bytes: 3 });
}

#[test]
fn a_magic_that_may_have_begun_is_kept() {
    let magic = magic(ANY_SIZE);
    assert_eq!(wants(&magic, b"~"), 2);
    says(&magic, b"ab~", Status::Skip { bytes: 2 });
    says(&magic, b"ab~c", Status::Skip { bytes: 4 });
    says(&magic, b"abc", Status::Skip { bytes: 3 });
    assert_eq!(wants(&magic, b"~~"), 4);
    assert_eq!(wants(&magic, b"~~\0\x02a"), 6);
}

#[test]
fn a_key_outside_the_frame_is_a_reject_even_after_a_magic() {
    rejects(&plain(ANY_SIZE), &[0, 1], Reject::KeyOutsideFrame);
    rejects(&magic(ANY_SIZE), b"~~\0\x01", Reject::KeyOutsideFrame);
    assert_eq!(wants(&plain(ANY_SIZE), &[0, 2]), 4);
    let rest = LengthField::new(b"", U16, key_to_end(4), ANY_SIZE).unwrap();
    rejects(&rest, &[0, 2], Reject::KeyOutsideFrame);
    assert_eq!(wants(&rest, &[0, 3]), 5);
}

#[test]
fn a_key_without_length_needs_the_frames_end() {
    let rest = LengthField::new(b"", U16, key_to_end(3), ANY_SIZE).unwrap();
    assert_eq!(wants(&rest, b"\0\x04.ke"), 6);
    says(&rest, b"\0\x04.key", route(6, 3..6));
    says(&rest, b"\0\x04.key+", route(6, 3..6));
}

#[test]
fn a_key_before_the_length_field_still_needs_the_length() {
    let length = Length { offset: 4, ..U16 };
    let unpack = LengthField::new(b"", length, key(0, 4), ANY_SIZE).unwrap();
    assert_eq!(wants(&unpack, b"unit"), 6);
    says(&unpack, b"unit\0\x09", route(15, 0..4));
}

#[test]
fn descriptions_that_cannot_be_are_refused() {
    let error =
        |magic: &[u8], length, key, size| LengthField::new(magic, length, key, size).unwrap_err();
    let at = |offset| Length { offset, ..U16 };
    let wide = |width| Length { width, ..U16 };
    let adjusted = |adjust| Length { adjust, ..U16 };
    let k = key(0, 1);
    assert!(LengthField::new(&[1; 16], at(16), k, ANY_SIZE).is_ok());
    assert_eq!(
        error(&[1; 17], at(17), k, ANY_SIZE),
        FrameSpecError::MagicTooLong
    );
    assert_eq!(
        error(b"", wide(0), k, ANY_SIZE),
        FrameSpecError::LengthWidth
    );
    assert_eq!(
        error(b"", wide(9), k, ANY_SIZE),
        FrameSpecError::LengthWidth
    );
    assert_eq!(
        error(b"~~", at(1), k, ANY_SIZE),
        FrameSpecError::LengthInMagic
    );
    assert_eq!(
        error(b"", at(usize::MAX), k, ANY_SIZE),
        FrameSpecError::LengthTooFar
    );
    assert_eq!(
        error(b"", at(3), k, size(0, 4)),
        FrameSpecError::LengthBeyondMax
    );
    assert!(LengthField::new(b"", at(2), k, size(0, 4)).is_ok());
    assert_eq!(
        error(b"", U16, key(0, 0), ANY_SIZE),
        FrameSpecError::KeyEmpty
    );
    assert_eq!(
        error(b"", U16, key_to_end(usize::MAX), ANY_SIZE),
        FrameSpecError::KeyTooFar
    );
    assert_eq!(
        error(b"", U16, key(2, 2), size(0, 3)),
        FrameSpecError::KeyBeyondMax
    );
    assert_eq!(error(b"", U16, k, size(8, 7)), FrameSpecError::MinAboveMax);
    // A u16 says at most 65535, so a frame has at most 65537 bytes.
    assert!(LengthField::new(b"", U16, key(65_536, 1), ANY_SIZE).is_ok());
    assert_eq!(
        error(b"", U16, key(65_537, 1), ANY_SIZE),
        FrameSpecError::NoFrameFits
    );
    let at_least = |min| FrameSize { min, max: None };
    assert!(LengthField::new(b"", U16, k, at_least(65_537)).is_ok());
    assert_eq!(
        error(b"", U16, k, at_least(65_538)),
        FrameSpecError::NoFrameFits
    );
    assert!(LengthField::new(b"", adjusted(-65_535), k, ANY_SIZE).is_ok());
    assert_eq!(
        error(b"", adjusted(-65_536), k, ANY_SIZE),
        FrameSpecError::NoFrameFits
    );
    assert!(LengthField::new(b"", adjusted(5), k, size(0, 7)).is_ok());
    assert_eq!(
        error(b"", adjusted(6), k, size(0, 7)),
        FrameSpecError::NoFrameFits
    );
}
