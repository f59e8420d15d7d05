use core::mem::size_of;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::unpack::{Delimited, Endian, Fixed, FrameSize, Key, Length, LengthField};

const LIMIT: usize = 64 * 1024;

/// `~~`, a `u16`, as many bytes, of which the first two are the key.
fn framed() -> LengthField {
    let length = Length {
        offset: 2,
        width: 2,
        endian: Endian::Big,
        adjust: 0,
    };
    let key = Key {
        offset: 4,
        length: Some(2),
    };
    LengthField::new(b"~~", length, key, FrameSize::default()).unwrap()
}

/// Lines, whole.
fn lines() -> Delimited {
    let key = Key {
        offset: 0,
        length: None,
    };
    Delimited::new(b"\r\n", key, FrameSize::default()).unwrap()
}

fn fixed(size: usize) -> Fixed {
    let key = Key {
        offset: 0,
        length: None,
    };
    Fixed::new(size, key).unwrap()
}

fn routed(range: core::ops::Range<usize>) -> Verdict {
    Verdict::Route(Target::Key(range))
}

/// An unpack that is one function.
struct Script<F>(F);

impl<F> core::fmt::Debug for Script<F> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Script")
    }
}

impl<F: Fn(&[u8], usize, bool) -> Status + Send + Sync> Unpack for Script<F> {
    fn unpack(&self, prefix: &[u8], scanned: usize, eof: bool) -> Status {
        (self.0)(prefix, scanned, eof)
    }
}

/// An unpack that always gives this answer.
fn always(status: Status) -> impl Unpack {
    Script(move |_: &[u8], _, _| status.clone())
}

#[test]
fn the_preface_starts_at_the_first_byte_not_skipped() {
    let unpack = framed();
    let mut preread = Preread::new();
    assert_eq!(preread.push(b"noise~", LIMIT, &unpack), Verdict::More);
    assert_eq!((preread.skipped(), preread.held()), (5, 1));
    assert_eq!(preread.push(b"~\0\x09k", LIMIT, &unpack), Verdict::More);
    assert_eq!(preread.push(b"ey and", LIMIT, &unpack), routed(4..6));
    assert_eq!(preread.skipped(), 5);
    assert_eq!(preread.bytes(), b"~~\0\x09key and");
    assert_eq!(&preread.into_preface()[..], b"~~\0\x09key and");
}

#[test]
fn the_preface_is_not_copied() {
    let mut preread = Preread::new();
    preread.push(b"some garbage~~\0\x09key", LIMIT, &framed());
    let before = preread.bytes().as_ptr();
    assert_eq!(preread.into_preface().as_ptr(), before);
}

#[test]
fn the_limit_is_the_last_byte_looked_at() {
    // The key's last byte is the stream's sixth.
    for (limit, verdict) in [(5, Verdict::Limit), (6, routed(4..6)), (7, routed(4..6))] {
        for size in 1..=6 {
            let mut preread = Preread::new();
            let mut verdict_so_far = Verdict::More;
            for piece in b"~~\0\x02ke".chunks(size) {
                if verdict_so_far == Verdict::More {
                    let piece = &piece[..piece.len().min(preread.room(limit))];
                    verdict_so_far = preread.push(piece, limit, &framed());
                }
            }
            assert_eq!(verdict_so_far, verdict, "limit {limit} in pieces of {size}");
        }
    }
}

#[test]
fn skipped_bytes_count_towards_the_limit() {
    let mut preread = Preread::new();
    assert_eq!(preread.room(10), 10);
    assert_eq!(preread.push(b"garbage", 10, &framed()), Verdict::More);
    assert_eq!(preread.room(10), 3);
    assert_eq!(preread.push(b"gar", 10, &framed()), Verdict::Limit);
    assert_eq!((preread.skipped(), preread.room(10)), (10, 0));
}

#[test]
fn a_frame_that_cannot_be_reached_is_not_waited_for() {
    let mut preread = Preread::new();
    assert_eq!(preread.push(b"a", 99, &fixed(100)), Verdict::Limit);
    let mut preread = Preread::new();
    assert_eq!(preread.push(b"a", 100, &fixed(100)), Verdict::More);
    let mut preread = Preread::new();
    assert_eq!(preread.push(b"garbage ~~", 11, &framed()), Verdict::Limit);
    assert_eq!(preread.skipped(), 8);
}

#[test]
fn the_end_of_the_stream_inside_a_frame_is_a_truncation() {
    let truncated = Verdict::Reject(Reject::Truncated);
    let unpacks: [Box<dyn Unpack>; 3] =
        [Box::new(framed()), Box::new(lines()), Box::new(fixed(100))];
    for unpack in &unpacks {
        let mut preread = Preread::new();
        assert_eq!(
            preread.end(&**unpack),
            truncated,
            "{unpack:?} without a byte"
        );
        let mut preread = Preread::new();
        assert_eq!(
            preread.push(b"garbage ~~\0", LIMIT, &**unpack),
            Verdict::More
        );
        assert_eq!(preread.end(&**unpack), truncated, "{unpack:?}");
    }
}

#[test]
fn the_end_of_the_stream_is_told_to_the_unpack_even_if_it_wants_more() {
    // Whatever comes until the stream's end is the key.
    let unpack = Script(|prefix: &[u8], _, eof| {
        if eof {
            Status::Complete {
                frame: 0..prefix.len(),
                target: Target::Key(0..prefix.len()),
            }
        } else {
            Status::Partial {
                at_least: prefix.len() + 10,
                scanned: 0,
            }
        }
    });
    let mut preread = Preread::new();
    assert_eq!(preread.push(b"key", LIMIT, &unpack), Verdict::More);
    assert_eq!(preread.end(&unpack), routed(0..3));
}

#[test]
fn garbage_at_the_end_of_the_stream_is_skipped() {
    let unpack = Script(|prefix: &[u8], _, eof| match prefix.len() {
        0 if eof => Status::Complete {
            frame: 0..0,
            target: Target::Any,
        },
        held if eof => Status::Skip { bytes: held.min(2) },
        held => Status::Partial {
            at_least: held + 1,
            scanned: 0,
        },
    });
    let mut preread = Preread::new();
    assert_eq!(preread.push(b"garbage", LIMIT, &unpack), Verdict::More);
    assert_eq!(preread.end(&unpack), Verdict::Route(Target::Any));
    assert_eq!((preread.skipped(), preread.held()), (7, 0));
}

#[test]
fn a_broken_unpack_is_found_out() {
    let complete = |frame, target| Status::Complete { frame, target };
    #[expect(
        clippy::reversed_empty_ranges,
        reason = "a user's unpack can build them"
    )]
    let broken = [
        Status::Skip { bytes: 0 },
        Status::Skip { bytes: 4 },
        Status::Skip { bytes: usize::MAX },
        Status::Partial {
            at_least: 0,
            scanned: 0,
        },
        Status::Partial {
            at_least: 3,
            scanned: 0,
        },
        Status::Partial {
            at_least: 4,
            scanned: 4,
        },
        complete(0..3, Target::Key(0..4)),
        complete(0..3, Target::Key(2..1)),
        complete(0..3, Target::Key(usize::MAX..usize::MAX)),
        complete(0..3, Target::Backend(3..4)),
        complete(0..3, Target::Backend(1..0)),
        complete(2..1, Target::Any),
        complete(4..9, Target::Any),
    ];
    for status in broken {
        let mut preread = Preread::new();
        let verdict = preread.push(b"abc", LIMIT, &always(status.clone()));
        assert_eq!(verdict, Verdict::Reject(Reject::BrokenUnpack), "{status:?}");
    }
}

#[test]
fn a_skip_of_nothing_at_the_end_does_not_hang() {
    for bytes in [0, 1] {
        let mut preread = Preread::new();
        let verdict = preread.end(&always(Status::Skip { bytes }));
        assert_eq!(verdict, Verdict::Reject(Reject::BrokenUnpack));
    }
}

#[test]
fn every_other_target_and_reject_passes_through() {
    let targets = [
        Target::Key(0..3),
        Target::Key(3..3),
        Target::KeyHash(7),
        Target::Backend(0..3),
        Target::Address(([127, 0, 0, 1], 80).into()),
        Target::Any,
    ];
    for target in targets {
        let status = Status::Complete {
            frame: 3..usize::MAX,
            target: target.clone(),
        };
        let mut preread = Preread::new();
        let verdict = preread.push(b"abc", LIMIT, &always(status));
        assert_eq!(verdict, Verdict::Route(target));
    }
    let mut preread = Preread::new();
    let verdict = preread.push(b"abc", LIMIT, &always(Status::Invalid(Reject::Custom(7))));
    assert_eq!(verdict, Verdict::Reject(Reject::Custom(7)));
}

/// Counts what a framing may look at: its calls, and the bytes it was not told to leave out.
#[derive(Debug)]
struct Counting<U> {
    unpack: U,
    calls: AtomicUsize,
    inspected: AtomicUsize,
}

impl<U: Unpack> Unpack for Counting<U> {
    fn unpack(&self, prefix: &[u8], scanned: usize, eof: bool) -> Status {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.inspected
            .fetch_add(prefix.len() - scanned, Ordering::Relaxed);
        self.unpack.unpack(prefix, scanned, eof)
    }
}

/// Sends the stream byte by byte; how many calls that took, and how many bytes they had to see.
fn cost(unpack: impl Unpack, stream: &[u8], last: &Verdict) -> (usize, usize) {
    let unpack = Counting {
        unpack,
        calls: AtomicUsize::new(0),
        inspected: AtomicUsize::new(0),
    };
    let mut preread = Preread::new();
    for (n, byte) in stream.iter().enumerate() {
        let verdict = preread.push(&[*byte], stream.len(), &unpack);
        if n + 1 == stream.len() {
            assert_eq!(verdict, *last);
        } else {
            assert_eq!(verdict, Verdict::More, "after {n} of {}", stream.len());
        }
    }
    (unpack.calls.into_inner(), unpack.inspected.into_inner())
}

#[test]
fn a_byte_at_a_time_costs_linear_work() {
    let n = LIMIT;
    // A delimiter that seems to begin at every byte.
    let mut almost = vec![b'\r'; n];
    almost[n - 1] = b'\n';
    let (calls, inspected) = cost(lines(), &almost, &routed(0..n - 2));
    assert!(
        calls <= n && inspected <= 3 * n,
        "lines: {calls}, {inspected}"
    );

    let (calls, _) = cost(fixed(n), &vec![b'x'; n], &routed(0..n));
    assert_eq!(calls, 2, "fixed");
}

#[test]
fn garbage_a_byte_at_a_time_costs_linear_work() {
    let n = LIMIT;
    let bounds = FrameSize {
        min: 0,
        max: Some(100),
    };
    let length = Length {
        offset: 50,
        width: 2,
        endian: Endian::Big,
        adjust: 0,
    };
    let key = Key {
        offset: 0,
        length: Some(1),
    };
    // Each byte is a magic whose length, 50 bytes on, is out of bounds.
    let unpack = LengthField::new(b"~", length, key, bounds).unwrap();
    let (calls, inspected) = cost(unpack, &vec![b'~'; n], &Verdict::Limit);
    assert!(
        calls <= 2 * n && inspected <= 2 * 52 * n,
        "{calls}, {inspected}"
    );
    for garbage in [b"xx", b"~x"] {
        let (calls, inspected) = cost(framed(), &garbage.repeat(n / 2), &Verdict::Limit);
        assert!(
            calls <= n && inspected <= 2 * n,
            "{garbage:?}: {calls}, {inspected}"
        );
    }
}

#[test]
fn memory_grows_by_doubling_and_stays_within_the_limit() {
    let limit = 1000;
    let mut preread = Preread::new();
    assert_eq!(preread.held.capacity(), 0);
    let mut capacities = Vec::new();
    for _ in 0..limit {
        preread.push(b"x", limit, &lines());
        assert!(preread.held.capacity() <= limit);
        if capacities.last() != Some(&preread.held.capacity()) {
            capacities.push(preread.held.capacity());
        }
    }
    assert_eq!(capacities, [64, 128, 256, 512, 1000]);
    let mut preread = Preread::new();
    preread.push(&[b'x'; 300], limit, &lines());
    assert_eq!(preread.held.capacity(), 300);
}

#[test]
fn memory_is_not_taken_for_bytes_that_were_skipped() {
    let limit = 1000;
    let mut preread = Preread::new();
    let mut garbage = vec![b'x'; 600];
    garbage.extend_from_slice(b"~~");
    let rest = LengthField::new(
        b"~~",
        Length {
            offset: 2,
            width: 2,
            endian: Endian::Big,
            adjust: 0,
        },
        Key {
            offset: 4,
            length: None,
        },
        FrameSize::default(),
    )
    .unwrap();
    preread.push(&garbage, limit, &rest);
    assert_eq!(preread.skipped(), 600);
    for byte in [1, 0x8c].into_iter().chain([b'x'; 395]) {
        assert_eq!(preread.push(&[byte], limit, &rest), Verdict::More);
    }
    assert_eq!((preread.held(), preread.held.capacity()), (399, 400));
    assert_eq!(preread.push(b"x", limit, &rest), routed(4..400));
}

#[test]
fn nothing_is_scanned_after_a_skip() {
    let unpack = Script(|prefix: &[u8], scanned, _| match (prefix, scanned) {
        (b"abc", 0) => Status::Partial {
            at_least: 4,
            scanned: 3,
        },
        (b"abcd", 3) => Status::Skip { bytes: 1 },
        (b"bcd", 0) => Status::Invalid(Reject::Custom(1)),
        _ => panic!("{prefix:?} after {scanned}"),
    });
    let mut preread = Preread::new();
    assert_eq!(preread.push(b"abc", LIMIT, &unpack), Verdict::More);
    let verdict = preread.push(b"d", LIMIT, &unpack);
    assert_eq!(verdict, Verdict::Reject(Reject::Custom(1)));
}

#[test]
fn garbage_in_small_pieces_reuses_one_small_allocation() {
    let mut preread = Preread::new();
    preread.push(b"x", LIMIT, &framed());
    let place = preread.held.as_ptr();
    for _ in 0..1000 {
        assert_eq!(
            preread.push(b"more garbage", LIMIT, &framed()),
            Verdict::More
        );
    }
    assert_eq!(preread.skipped(), 12_001);
    assert_eq!(
        (preread.held.as_ptr(), preread.held.capacity()),
        (place, Preread::FIRST)
    );
}

#[test]
fn it_is_small() {
    assert!(size_of::<Preread>() <= 7 * size_of::<usize>());
}
