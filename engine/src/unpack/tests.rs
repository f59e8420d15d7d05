use super::*;

mod delimited;
mod fixed;
mod length_field;
mod properties;

const ANY_SIZE: FrameSize = FrameSize { min: 0, max: None };

fn key(offset: usize, length: usize) -> Key {
    let length = Some(length);
    Key { offset, length }
}

fn key_to_end(offset: usize) -> Key {
    let length = None;
    Key { offset, length }
}

fn size(min: usize, max: usize) -> FrameSize {
    let max = Some(max);
    FrameSize { min, max }
}

fn route(frame: usize, key: Range<usize>) -> Status {
    Status::Complete {
        frame: 0..frame,
        target: Target::Key(key),
    }
}

/// How many bytes the framing asks for; anything but [`Status::Partial`] is a failure.
#[track_caller]
fn wants(unpack: &dyn Unpack, prefix: &[u8]) -> usize {
    match unpack.unpack(prefix, 0, false) {
        Status::Partial { at_least, .. } => at_least,
        status => panic!("decided: {status:?}"),
    }
}

#[track_caller]
fn says(unpack: &dyn Unpack, prefix: &[u8], status: Status) {
    assert_eq!(unpack.unpack(prefix, 0, false), status);
}

#[track_caller]
fn rejects(unpack: &dyn Unpack, prefix: &[u8], reject: Reject) {
    says(unpack, prefix, Status::Invalid(reject));
}

#[test]
fn every_spec_error_says_what_and_where() {
    use std::string::ToString;
    let all = [
        FrameSpecError::MagicTooLong,
        FrameSpecError::DelimiterEmpty,
        FrameSpecError::DelimiterTooLong,
        FrameSpecError::LengthWidth,
        FrameSpecError::LengthInMagic,
        FrameSpecError::LengthTooFar,
        FrameSpecError::LengthBeyondMax,
        FrameSpecError::NoFrameFits,
        FrameSpecError::KeyEmpty,
        FrameSpecError::KeyTooFar,
        FrameSpecError::KeyBeyondMax,
        FrameSpecError::KeyBeyondSize,
        FrameSpecError::MinAboveMax,
        FrameSpecError::SizeZero,
    ];
    let messages: std::collections::BTreeSet<_> = all.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), all.len(), "two errors read alike");
    let fields: std::collections::BTreeSet<_> = all.iter().map(|error| error.field()).collect();
    let known = ["delimiter", "key", "length", "magic", "min-frame", "size"];
    assert!(fields.iter().eq(known.iter()), "{fields:?}");
}
