use tlb_engine::unpack::{FrameSize, Pattern, Status, Target};

use super::*;

fn specs() -> Vec<Spec> {
    let key = |offset, length| Key { offset, length };
    let length = |offset, width, endian, adjust| Length {
        offset,
        width,
        endian,
        adjust,
    };
    let size = |min, max| FrameSize { min, max };
    let pattern = |of: &[u8]| Pattern::new(of).expect("short");
    vec![
        Spec::LengthField {
            magic: pattern(b"*"),
            length: length(1, 4, Endian::Big, 2),
            key: key(19, Some(4)),
            size: size(0, Some(4096)),
        },
        Spec::LengthField {
            magic: pattern(b"\x80\x81"),
            length: length(3, 2, Endian::Little, -5),
            key: key(6, None),
            size: size(20, None),
        },
        Spec::LengthField {
            magic: pattern(b""),
            length: length(0, 8, Endian::Little, 0),
            key: key(0, Some(9)),
            size: size(0, None),
        },
        Spec::Delimited {
            delimiter: pattern(b"\r\n"),
            key: key(2, Some(3)),
            size: size(10, None),
        },
        Spec::Delimited {
            delimiter: pattern(b"ABC"),
            key: key(0, None),
            size: size(0, Some(300)),
        },
        Spec::Fixed {
            size: 5,
            key: key(1, Some(2)),
        },
    ]
}

/// The frames are what they are meant to be: each unpack finds them, and the key where it was put.
#[test]
fn frames_are_frames() {
    for spec in specs() {
        let unpack = spec.build().expect("a framing");
        assert_eq!(unpack.spec(), Some(spec), "what was described is described");
        let (least, most) = sizes(&spec, 65_536).expect("frames fit");
        let mut rng = Rng::new(5);
        for number in 0..300_u16 {
            let frame = draw_size(&mut rng, (least, most));
            assert!((least..=most).contains(&(frame as usize)));
            let filler = |at: u64| (at as u8).wrapping_mul(number as u8);
            let bytes: Vec<u8> = (0..u64::from(frame))
                .map(|at| byte(&spec, frame, number, at, filler(at)))
                .collect();
            let status = unpack.unpack(&bytes, 0, false);
            let Status::Complete { target, .. } = status else {
                panic!("{spec:?} {frame}: {status:?}");
            };
            assert_eq!(target, Target::Key(key_range(&spec, frame)));
        }
    }
}

#[test]
fn garbage_is_skipped() {
    for spec in specs().into_iter().filter(skips) {
        let unpack = spec.build().expect("a framing");
        for evil in [false, true] {
            let bytes: Vec<u8> = (0..100).map(|at| garbage(&spec, evil, 100, at)).collect();
            let mut rest = &bytes[..];
            while let Status::Skip { bytes } = unpack.unpack(rest, 0, false) {
                rest = &rest[bytes..];
            }
            assert!(
                rest.is_empty() || !evil || rest.len() < 8,
                "{spec:?}: {rest:?}"
            );
        }
    }
}

#[test]
fn a_framing_that_does_not_fit_is_refused() {
    let spec = Spec::Fixed {
        size: LONGEST + 1,
        key: Key {
            offset: 0,
            length: Some(1),
        },
    };
    assert!(sizes(&spec, usize::MAX).is_err());
    let whole = specs()[1];
    assert!(
        sizes(&whole, 19).is_err(),
        "it needs 20 bytes for a verdict"
    );
    assert!(sizes(&whole, 20).is_ok());
}
