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

/// Each framing describes itself, and the description makes the same framing again.
#[test]
fn descriptions_are_framings() {
    let pattern = |of: &[u8]| Pattern::new(of).expect("short");
    let length = Length {
        offset: 3,
        width: 2,
        endian: Endian::Little,
        adjust: -1,
    };
    let specs = [
        Spec::LengthField {
            magic: pattern(b"*!"),
            length,
            key: key(6, 2),
            size: size(9, 99),
        },
        Spec::LengthField {
            magic: Pattern::default(),
            length,
            key: key_to_end(6),
            size: ANY_SIZE,
        },
        Spec::Delimited {
            delimiter: pattern(b"\r\n"),
            key: key(1, 2),
            size: size(5, 50),
        },
        Spec::Fixed {
            size: 7,
            key: key(2, 5),
        },
    ];
    for spec in specs {
        let unpack = spec.build().expect("a framing");
        assert_eq!(unpack.spec(), Some(spec));
    }
    let wrong = Spec::Fixed {
        size: 2,
        key: key(2, 1),
    };
    assert_eq!(wrong.build().err(), Some(FrameSpecError::KeyBeyondSize));
}

#[test]
fn a_pattern_holds_up_to_sixteen_bytes() {
    let bytes = [7; PATTERN_MAX + 1];
    for len in 0..=PATTERN_MAX {
        let pattern = Pattern::new(&bytes[..len]).expect("it fits");
        assert_eq!(pattern.as_bytes(), &bytes[..len]);
    }
    assert_eq!(Pattern::new(&bytes), None);
    assert_eq!(Pattern::new(&[0; 256]), None);
}
