//! Any split of any stream gives the oracle's verdict.

use std::vec::Vec;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::unpack::oracle::{Case, Framing, check_contract};
use crate::unpack::{Endian, FrameSize, Key, Length};

/// Cases for each framing.
const CASES: u32 = 10_000;

/// Bytes that are likely to be taken for magics, delimiters and small lengths.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![6 => 0_u8..4, 1 => any::<u8>()]
}

fn key() -> impl Strategy<Value = Key> {
    let length = prop_oneof![1 => Just(None), 3 => (1_usize..6).prop_map(Some)];
    (0_usize..12, length).prop_map(|(offset, length)| Key { offset, length })
}

fn size() -> impl Strategy<Value = FrameSize> {
    let min = prop_oneof![2 => Just(0), 1 => 0_usize..20];
    let max = prop_oneof![2 => Just(None), 1 => (8_usize..40).prop_map(Some)];
    (min, max).prop_map(|(min, max)| FrameSize { min, max })
}

fn length() -> impl Strategy<Value = Length> {
    let endian = prop_oneof![Just(Endian::Big), Just(Endian::Little)];
    let adjust = prop_oneof![8 => -12_i64..12, 1 => any::<i64>()];
    (0_usize..5, 1_usize..=8, endian, adjust).prop_map(|(offset, width, endian, adjust)| Length {
        offset,
        width,
        endian,
        adjust,
    })
}

/// One frame, whole or cut short, with any bytes where the description has none.
fn frame(framing: &Framing, mut body: Vec<u8>, value: u8, keep: usize) -> Vec<u8> {
    match framing {
        Framing::LengthField { magic, length, .. } => {
            let header = length.offset + length.width;
            body.resize(body.len().max(header), 0);
            body[..magic.len()].copy_from_slice(magic);
            let field = &mut body[length.offset..header];
            field.fill(0);
            match length.endian {
                Endian::Big => field[length.width - 1] = value,
                Endian::Little => field[0] = value,
            }
        }
        Framing::Delimited { delimiter, .. } => body.extend_from_slice(delimiter),
        Framing::Fixed { .. } => {}
    }
    // One time in four the frame is cut short.
    if keep.is_multiple_of(4) {
        body.truncate(keep / 4);
    }
    body
}

/// Frames, truncated frames, garbage and garbage that looks like a frame's start, in any order.
fn stream(framing: &Framing) -> impl Strategy<Value = Vec<u8>> + use<> {
    let pattern = match framing {
        Framing::LengthField { magic, .. } => magic.clone(),
        Framing::Delimited { delimiter, .. } => delimiter.clone(),
        Framing::Fixed { .. } => Vec::new(),
    };
    let framing = framing.clone();
    let frames = (vec(byte(), 0..24), 0_u8..40, 0_usize..64)
        .prop_map(move |(body, value, keep)| frame(&framing, body, value, keep));
    let near = (0_usize..=16).prop_map(move |keep| pattern[..keep.min(pattern.len())].to_vec());
    let garbage = vec(byte(), 0..12);
    vec(prop_oneof![3 => frames, 2 => near, 1 => garbage], 0..5).prop_map(|parts| parts.concat())
}

fn case(framing: Framing) -> impl Strategy<Value = (Framing, Case)> {
    let limit = prop_oneof![2 => 1_usize..60, 1 => Just(1000)];
    (
        stream(&framing),
        vec(1_usize..9, 1..5),
        limit,
        any::<bool>(),
    )
        .prop_map(move |(stream, pieces, limit, fin)| {
            let case = Case {
                stream,
                pieces,
                limit,
                fin,
            };
            (framing.clone(), case)
        })
}

/// Runs `CASES` cases of framings that can be.
fn hold(framings: impl Strategy<Value = Framing>) {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CASES,
        max_global_rejects: 10 * CASES,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let cases = framings
        .prop_filter("not a framing", |framing| framing.build().is_ok())
        .prop_flat_map(case);
    let outcome = runner.run(&cases, |(framing, case)| {
        let unpack = framing.build().expect("filtered");
        framing.check(&*unpack, &case);
        check_contract(&*unpack, &case.stream);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn any_split_of_length_fields() {
    hold(
        (vec(0_u8..3, 0..5), length(), key(), size()).prop_map(|(magic, length, key, size)| {
            let offset = length.offset + magic.len();
            Framing::LengthField {
                magic,
                length: Length { offset, ..length },
                key,
                size,
            }
        }),
    );
}

#[test]
fn any_split_of_delimited() {
    hold(
        (vec(0_u8..3, 1..5), key(), size()).prop_map(|(delimiter, key, size)| Framing::Delimited {
            delimiter,
            key,
            size,
        }),
    );
}

#[test]
fn any_split_of_fixed() {
    hold((1_usize..30, key()).prop_map(|(size, key)| Framing::Fixed { size, key }));
}
