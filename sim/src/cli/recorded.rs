//! Recorded frames for unpacks that are code.

use std::fs;
use std::sync::Arc;

use tlb::registry::UnpackRegistry;

use crate::swarm::frames::{Frame, LONGEST, Recorded};

/// Most frames of one unpack.
const FRAMES_MAX: usize = 10_000;

/// Reads a file of frames: `NAME HEX [HEX]` on each line, which is an unpack's name, a frame, and its key if that is
/// to be checked. `#` begins a comment.
///
/// The frames are kept as long as the process runs: every scenario refers to them.
///
/// # Errors
/// The file cannot be read, or the first line that is none.
pub(super) fn load(
    path: &str,
    registered: &UnpackRegistry,
) -> Result<Vec<&'static Recorded>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    let recorded = parse(&text, registered).map_err(|what| format!("{path}: {what}"))?;
    let keep = |it| &*Box::leak(Box::new(it));
    Ok(recorded.into_iter().map(keep).collect())
}

fn parse(text: &str, registered: &UnpackRegistry) -> Result<Vec<Recorded>, String> {
    let mut all: Vec<Recorded> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = |what: &str| format!("line {}: {what}", number + 1);
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else {
            continue;
        };
        let unpack = registered.get(name);
        let unpack =
            unpack.ok_or_else(|| wrong("there is no unpack of that name in the program"))?;
        let frame = words.next().and_then(hex);
        let key = words.next().map(hex);
        let (Some(bytes), None, Some(key)) = (
            frame,
            words.next(),
            key.map_or(Some(None), |key| key.map(Some)),
        ) else {
            return Err(wrong(
                "expected a name, a frame in hex and perhaps a key in hex",
            ));
        };
        if bytes.len() > LONGEST {
            return Err(wrong("a frame of more than 1 MiB is not simulated"));
        }
        let place = all
            .iter()
            .position(|it| it.name == name)
            .unwrap_or_else(|| {
                all.push(Recorded {
                    name: name.into(),
                    unpack: Arc::clone(unpack),
                    frames: Vec::new(),
                });
                all.len() - 1
            });
        all[place].frames.push(Frame { bytes, key });
        if all[place].frames.len() > FRAMES_MAX {
            return Err(wrong(
                "more than 10000 frames of one unpack are not simulated",
            ));
        }
    }
    Ok(all)
}

/// At least one byte, two digits each.
fn hex(word: &str) -> Option<Vec<u8>> {
    let digits = |at| u8::from_str_radix(word.get(at..at + 2)?, 16).ok();
    (0..word.len()).step_by(2).map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tlb_engine::unpack::{Status, Unpack};

    #[derive(Debug)]
    struct Mine;

    impl Unpack for Mine {
        fn unpack(&self, prefix: &[u8], _scanned: usize, _eof: bool) -> Status {
            Status::Skip {
                bytes: prefix.len(),
            }
        }
    }

    fn registry() -> UnpackRegistry {
        let mut registry = UnpackRegistry::new();
        registry.register("mine", Mine).expect("a new name");
        registry
    }

    #[test]
    fn lines_are_read() {
        let text = "# two\nmine 0a0b\n\nmine ff00 ff # the first byte\n";
        let recorded = parse(text, &registry()).expect("fine");
        assert_eq!(recorded.len(), 1);
        let frame = |bytes: &[u8], key: Option<&[u8]>| Frame {
            bytes: bytes.to_vec(),
            key: key.map(<[u8]>::to_vec),
        };
        assert_eq!(
            recorded[0].frames,
            [frame(&[10, 11], None), frame(&[255, 0], Some(&[255]))]
        );
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_line() {
        for text in [
            "other 00",
            "mine",
            "mine 0",
            "mine 0g",
            "mine 00 0",
            "mine 00 00 00",
        ] {
            let error = parse(&format!("mine 00\n{text}"), &registry()).expect_err(text);
            assert!(error.starts_with("line 2: "), "{text}: {error}");
        }
    }
}
