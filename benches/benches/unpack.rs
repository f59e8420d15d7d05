//! What it costs to find the frame and the key in a client's first bytes.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tlb_engine::preread::{Preread, Verdict};
use tlb_engine::unpack::{
    Delimited, Endian, Fixed, FrameSize, Key, Length, LengthField, Status, Unpack,
};

const LIMIT: usize = 64 * 1024;

const KEY: Key = Key {
    offset: 19,
    length: Some(4),
};

/// A magic, a length, a key: the frame of the default configuration.
fn station(magic: &[u8]) -> LengthField {
    let length = Length {
        offset: magic.len(),
        width: 4,
        endian: Endian::Big,
        adjust: 2,
    };
    LengthField::new(magic, length, KEY, FrameSize::default()).expect("a valid framing")
}

fn line(key: Key) -> Delimited {
    Delimited::new(b"\r\n", key, FrameSize::default()).expect("a valid framing")
}

fn station_frame() -> Vec<u8> {
    let mut frame = b"*\0\0\0\x14".to_vec();
    frame.extend_from_slice(b"..............unit....");
    frame
}

/// One small frame that came in one piece, by the framing alone and with its preread.
fn small_frame(c: &mut Criterion) {
    let line_frame = b"GET /some/path/unit-0017\r\n".as_slice();
    let to_end = Key {
        offset: 4,
        length: None,
    };
    let cases: [(&str, Box<dyn Unpack>, Vec<u8>); 4] = [
        ("length-field", Box::new(station(b"*")), station_frame()),
        ("delimited", Box::new(line(to_end)), line_frame.to_vec()),
        ("delimited-early", Box::new(line(KEY)), line_frame.to_vec()),
        (
            "fixed",
            Box::new(Fixed::new(27, KEY).expect("a valid framing")),
            vec![b'x'; 27],
        ),
    ];
    let mut group = c.benchmark_group("frame");
    for (name, unpack, frame) in &cases {
        let decided = unpack.unpack(frame, 0, false);
        assert!(matches!(decided, Status::Complete { .. }), "{name}");
        group.bench_function(*name, |b| {
            b.iter(|| unpack.unpack(black_box(frame), 0, false));
        });
        group.bench_function(format!("{name}/preread"), |b| {
            b.iter(|| {
                let mut preread = Preread::new();
                let verdict = preread.push(black_box(frame), LIMIT, &**unpack);
                (verdict, preread.into_preface())
            });
        });
    }
    group.finish();
}

/// 64 KiB of garbage before a frame, in one piece.
fn garbage(c: &mut Criterion) {
    let random: Vec<u8> = (0_u32..)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .filter(|byte| *byte != b'*')
        .take(LIMIT)
        .collect();
    let almost = b"xxxxxxx.".repeat(LIMIT / 8);
    // Each byte is a magic whose length is out of bounds: the worst there is.
    let hostile = vec![b'*'; LIMIT];
    let bounds = FrameSize {
        min: 0,
        max: Some(4096),
    };
    let length = Length {
        offset: 1,
        width: 4,
        endian: Endian::Big,
        adjust: 2,
    };
    let bounded = LengthField::new(b"*", length, KEY, bounds).expect("a valid framing");
    let cases = [
        ("one-byte-magic", station(b"*"), &random),
        ("four-byte-magic", station(b"*\0*\0"), &random),
        ("almost-magic", station(b"xxxxxxxx"), &almost),
        ("all-magic", bounded, &hostile),
    ];
    let mut group = c.benchmark_group("garbage");
    group.throughput(Throughput::Bytes(LIMIT as u64));
    for (name, unpack, stream) in &cases {
        let skip = unpack.unpack(stream, 0, false);
        assert!(
            matches!(skip, Status::Skip { bytes } if bytes > LIMIT - 16),
            "{name}: {skip:?}"
        );
        group.bench_function(*name, |b| {
            b.iter(|| unpack.unpack(black_box(stream), 0, false));
        });
    }
    group.finish();
}

/// 64 KiB that decide nothing, one byte at a time.
fn byte_at_a_time(c: &mut Criterion) {
    let to_end = Key {
        offset: 4,
        length: None,
    };
    let cases: [(&str, Box<dyn Unpack>); 2] = [
        ("garbage", Box::new(station(b"*"))),
        ("line", Box::new(line(to_end))),
    ];
    let mut group = c.benchmark_group("byte-at-a-time");
    group.throughput(Throughput::Bytes(LIMIT as u64));
    for (name, unpack) in &cases {
        group.bench_function(*name, |b| {
            b.iter_batched_ref(
                Preread::new,
                |preread| {
                    let mut verdict = Verdict::More;
                    for _ in 0..LIMIT {
                        verdict = preread.push(black_box(b"x"), LIMIT, &**unpack);
                    }
                    assert_eq!(verdict, Verdict::Limit);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, small_frame, garbage, byte_at_a_time);
criterion_main!(benches);
