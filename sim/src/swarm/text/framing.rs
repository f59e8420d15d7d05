//! Framings as words of a scenario's text.
//!
//! A description is a kind and its parts, in the order of [`Spec`]'s fields, with `/` between them:
//! `length-field/2a/1/4/big/2/19/4/0/off`, `delimited/0d0a/0/end/0/off`, `fixed/37/19/4`.

use std::str::FromStr;

use tlb_engine::unpack::{Endian, FrameSize, Key, Length, Pattern, Spec};

use crate::swarm::scenario::Framing;

/// The word for a framing.
pub(super) fn print(framing: Framing) -> String {
    match framing {
        Framing::None => "none".into(),
        Framing::Length => "length".into(),
        Framing::Delimited => "delimited".into(),
        Framing::Fixed => "fixed".into(),
        Framing::Recorded(recorded) => format!("recorded/{}", recorded.name),
        Framing::Spec(spec) => print_spec(&spec),
    }
}

fn print_spec(spec: &Spec) -> String {
    match spec {
        Spec::LengthField {
            magic,
            length,
            key,
            size,
        } => {
            let endian = match length.endian {
                Endian::Big => "big",
                Endian::Little => "little",
            };
            format!(
                "length-field/{}/{}/{}/{endian}/{}/{}/{}",
                hex(magic),
                length.offset,
                length.width,
                length.adjust,
                print_key(key),
                print_size(size)
            )
        }
        Spec::Delimited {
            delimiter,
            key,
            size,
        } => format!(
            "delimited/{}/{}/{}",
            hex(delimiter),
            print_key(key),
            print_size(size)
        ),
        Spec::Fixed { size, key } => format!("fixed/{size}/{}", print_key(key)),
    }
}

fn hex(pattern: &Pattern) -> String {
    let bytes = pattern.as_bytes().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

fn print_key(key: &Key) -> String {
    let length = key.length.map_or("end".into(), |length| length.to_string());
    format!("{}/{length}", key.offset)
}

fn print_size(size: &FrameSize) -> String {
    let max = size.max.map_or("off".into(), |max| max.to_string());
    format!("{}/{max}", size.min)
}

/// Reads a word that [`print`] wrote.
///
/// # Errors
/// What is wrong with it. An unpack that only its code describes cannot be had from a text.
pub(super) fn parse(word: &str) -> Result<Framing, String> {
    Ok(match word {
        "none" => Framing::None,
        "length" => Framing::Length,
        "delimited" => Framing::Delimited,
        "fixed" => Framing::Fixed,
        _ if word.starts_with("recorded/") => {
            return Err(format!(
                "framing={word} is in no text: run its seed with --config and --frames"
            ));
        }
        _ => Framing::Spec(parse_spec(word).ok_or(format!("framing={word} is unknown"))?),
    })
}

fn parse_spec(word: &str) -> Option<Spec> {
    let mut parts = word.split('/');
    let spec = match parts.next()? {
        "length-field" => Spec::LengthField {
            magic: pattern(parts.next()?)?,
            length: Length {
                offset: number(&mut parts)?,
                width: number(&mut parts)?,
                endian: match parts.next()? {
                    "big" => Endian::Big,
                    "little" => Endian::Little,
                    _ => return None,
                },
                adjust: number(&mut parts)?,
            },
            key: key(&mut parts)?,
            size: size(&mut parts)?,
        },
        "delimited" => Spec::Delimited {
            delimiter: pattern(parts.next()?)?,
            key: key(&mut parts)?,
            size: size(&mut parts)?,
        },
        "fixed" => Spec::Fixed {
            size: number(&mut parts)?,
            key: key(&mut parts)?,
        },
        _ => return None,
    };
    (parts.next().is_none() && spec.build().is_ok()).then_some(spec)
}

fn number<'a, T: FromStr>(parts: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    parts.next()?.parse().ok()
}

/// A number, or none for `word`.
fn unless<'a>(word: &str, parts: &mut impl Iterator<Item = &'a str>) -> Option<Option<usize>> {
    let part = parts.next()?;
    if part == word {
        return Some(None);
    }
    part.parse().ok().map(Some)
}

fn key<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<Key> {
    Some(Key {
        offset: number(parts)?,
        length: unless("end", parts)?,
    })
}

fn size<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<FrameSize> {
    Some(FrameSize {
        min: number(parts)?,
        max: unless("off", parts)?,
    })
}

fn pattern(hex: &str) -> Option<Pattern> {
    let digits = |at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(digits).collect();
    Pattern::new(&bytes?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for word in [
            "none",
            "length",
            "delimited",
            "fixed",
            "length-field/2a/1/4/big/2/19/4/0/off",
            "length-field//0/8/little/-5/9/end/20/4096",
            "delimited/0d0a/0/end/0/off",
            "delimited/00/3/2/10/100",
            "fixed/37/19/4",
        ] {
            assert_eq!(parse(word).map(print).as_deref(), Ok(word));
        }
    }

    #[test]
    fn what_is_no_framing_is_refused() {
        for word in [
            "",
            "fixed/37/19",
            "fixed/37/19/4/1",
            "fixed/3/19/4",
            "delimited/0d0/0/end/0/off",
            "delimited//0/end/0/off",
            "length-field/2a/1/4/middle/2/19/4/0/off",
            "recorded/mine",
        ] {
            assert!(parse(word).is_err(), "{word}");
        }
    }
}
