//! A tlb that speaks a protocol of its own: everything that `tlb` does, and one more unpack for
//! `unpack = "..."`.
//!
//! The protocol is made of netstrings: a decimal length, a colon, so many bytes, and a comma. The
//! bytes of the first one are the key:
//!
//! ```text
//! 7:plant-4,...
//! ```
//!
//! Run it with a configuration that names it:
//!
//! ```text
//! $ cat netstring.toml
//! [[listener]]
//! name = "plants"
//! bind = "127.0.0.1:8011"
//! unpack = "netstring"
//! pool = "plants"
//!
//! [[pool]]
//! name = "plants"
//! backends = [
//!   { id = "a", address = "127.0.0.11:7001" },
//!   { id = "b", address = "127.0.0.12:7001" },
//! ]
//!
//! $ cargo run --release -p tlb-io-linux --example custom_unpack -- run -c netstring.toml
//! ```

use std::process::ExitCode;

use tlb::engine::unpack::{Reject, Status, Target, Unpack};
use tlb::registry::UnpackRegistry;

/// The most digits that a length may have.
const DIGITS: usize = 4;

/// Why a client is refused, for the log.
const NOT_A_NETSTRING: Reject = Reject::Custom(1);

#[derive(Debug)]
struct Netstring;

impl Unpack for Netstring {
    fn unpack(&self, prefix: &[u8], _scanned: usize, _eof: bool) -> Status {
        let digits = prefix
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        match prefix.get(digits) {
            None if digits <= DIGITS => {
                return Status::Partial {
                    at_least: prefix.len() + 1,
                    scanned: 0,
                };
            }
            Some(b':') if (1..=DIGITS).contains(&digits) => {}
            _ => return Status::Invalid(NOT_A_NETSTRING),
        }
        let length = prefix[..digits]
            .iter()
            .fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
        let (start, end) = (digits + 1, digits + 1 + length);
        match prefix.get(end) {
            None => Status::Partial {
                at_least: end + 1,
                scanned: 0,
            },
            Some(b',') => Status::Complete {
                frame: 0..end + 1,
                target: Target::Key(start..end),
            },
            Some(_) => Status::Invalid(NOT_A_NETSTRING),
        }
    }
}

fn main() -> ExitCode {
    let mut registry = UnpackRegistry::new();
    registry
        .register("netstring", Netstring)
        .expect("no other unpack has this name");
    tlb::cli::main_with(&registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_string_is_the_key_as_soon_as_it_is_whole() {
        let whole = b"7:plant-4,and more";
        for cut in 0..10 {
            let status = Netstring.unpack(&whole[..cut], 0, false);
            assert!(
                matches!(status, Status::Partial { at_least, .. } if at_least > cut),
                "{cut}"
            );
        }
        let complete = Status::Complete {
            frame: 0..10,
            target: Target::Key(2..9),
        };
        assert_eq!(Netstring.unpack(&whole[..10], 0, false), complete);
        assert_eq!(Netstring.unpack(whole, 0, false), complete);
    }

    #[test]
    fn anything_else_is_refused() {
        for other in [&b":,"[..], b"x", b"99999:", b"99999", b"1:ab", b"-1:,"] {
            assert_eq!(
                Netstring.unpack(other, 0, false),
                Status::Invalid(NOT_A_NETSTRING)
            );
        }
    }
}
