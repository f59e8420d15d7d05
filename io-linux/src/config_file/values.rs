//! The small languages inside strings: durations, sizes, hex, percentages, addresses.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::Address;

/// Why a string is not what its key takes, and how to put it right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) message: String,
    pub(super) help: String,
}

fn problem<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Problem> {
    Err(Problem {
        message: message.into(),
        help: help.into(),
    })
}

const MILLIS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

const BYTES: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A whole number with a unit, as a multiple of the smallest unit; `None` if it is none or too
/// large to count.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show_unit(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)]) -> fmt::Result {
    let exact = |unit: &&(&str, u64)| amount >= unit.1 && amount.is_multiple_of(unit.1);
    let (name, factor) = units.iter().find(exact).unwrap_or(&units[units.len() - 1]);
    write!(f, "{}{name}", amount / factor)
}

/// A duration in whole milliseconds, shown as [`duration`] reads it, in the largest unit that is
/// exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShowDuration(pub(super) Duration);

impl fmt::Display for ShowDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        show_unit(f, millis, &MILLIS)
    }
}

/// A number of bytes, shown as [`size`] reads it, in the largest unit that is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShowSize(pub(super) u64);

impl fmt::Display for ShowSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_unit(f, self.0, &BYTES)
    }
}

/// Reads `250ms`, `5s`, `2m`, `1h`, `1d`.
pub(super) fn duration(text: &str) -> Result<Duration, Problem> {
    match with_unit(text, &MILLIS) {
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => problem(
            "not a duration",
            "a duration is a whole number and one unit of `ms`, `s`, `m`, `h`, `d`, \
             as in \"250ms\" or \"5s\"",
        ),
    }
}

/// Reads `512B`, `64KiB`, `1MiB`, `2GiB`, `1TiB`.
pub(super) fn size(text: &str) -> Result<u64, Problem> {
    match with_unit(text, &BYTES) {
        Some(bytes) => Ok(bytes),
        None => problem(
            "not a size",
            "a size is a whole number and one unit of `B`, `KiB`, `MiB`, `GiB`, `TiB`, \
             as in \"64KiB\"",
        ),
    }
}

/// Reads pairs of hex digits, with blanks between the bytes if wanted.
pub(super) fn hex(text: &str) -> Result<Vec<u8>, Problem> {
    const HELP: &str = "write each byte as two hex digits, as in \"2a\" or \"0d 0a\"";
    let mut bytes = Vec::new();
    for group in text.split_ascii_whitespace() {
        if let Some(c) = group.chars().find(|c| !c.is_ascii_hexdigit()) {
            return problem(format!("not hex: {c:?} is no hex digit"), HELP);
        }
        if group.len() % 2 == 1 {
            return problem("not hex: half a byte, an odd number of digits", HELP);
        }
        // Only ASCII is left, so that every second byte is a boundary.
        let pairs = (0..group.len()).step_by(2).map(|at| &group[at..at + 2]);
        bytes.extend(pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()));
    }
    Ok(bytes)
}

/// Reads a whole percentage, as in `125%`.
pub(super) fn percent(text: &str) -> Result<u32, Problem> {
    let number = text.strip_suffix('%').map(str::trim_end);
    let digits = number.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(percent) => Ok(percent),
        None => problem(
            "not a percentage",
            "write a whole number and `%`, as in \"125%\"",
        ),
    }
}

/// Reads an IP address without a port.
pub(super) fn ip(text: &str) -> Result<IpAddr, Problem> {
    if let Ok(ip) = text.parse() {
        return Ok(ip);
    }
    let help = match text.parse::<SocketAddr>() {
        Ok(address) => format!("leave the port to the kernel: \"{}\"", address.ip()),
        Err(_) => "write an IP address, as in \"127.0.0.5\" or \"::1\"".to_owned(),
    };
    problem("not an IP address", help)
}

/// Reads an address to listen on: an IP address and a port.
pub(super) fn bind(text: &str) -> Result<SocketAddr, Problem> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bare = text
        .strip_prefix(':')
        .or_else(|| text.strip_prefix("*:"))
        .unwrap_or(text);
    let help = if bare.parse::<u16>().is_ok() {
        format!(
            "to listen on all IPv4 addresses, write \"0.0.0.0:{bare}\"; on all, \"[::]:{bare}\""
        )
    } else if let Some(help) = address_help(text, 8011) {
        help
    } else if host_port(text).is_ok_and(|(host, _)| is_name(host)) {
        "a name does not say which address to listen on: write the address".to_owned()
    } else {
        "write an IP address and a port, as in \"127.0.0.1:8011\" or \"[::1]:8011\"".to_owned()
    };
    problem("not an address to listen on", help)
}

/// Reads where a backend is: an IP address or a host name, and a port.
pub(super) fn address(text: &str) -> Result<Address, Problem> {
    const WHAT: &str = "not the address of a backend";
    if let Ok(address) = text.parse::<SocketAddr>() {
        if address.port() == 0 {
            return problem(
                WHAT,
                "nothing listens on port 0: write a port of 1 to 65535",
            );
        }
        if address.ip().is_unspecified() {
            return problem(WHAT, "nothing is at this address: write the backend's own");
        }
        return Ok(Address::Socket(address));
    }
    if let Some(help) = address_help(text, 7001) {
        return problem(WHAT, help);
    }
    let (host, port) = match host_port(text) {
        Ok(found) => found,
        Err(help) => return problem(WHAT, help),
    };
    if port == 0 {
        return problem(
            WHAT,
            "nothing listens on port 0: write a port of 1 to 65535",
        );
    }
    if host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        let help = "an IPv4 address is four numbers of 0 to 255, as in \"192.168.2.115\"";
        return problem(WHAT, help);
    }
    if !is_name(host) {
        let help = "a host name has letters, digits, `-`, `_` and dots; \
                    an IPv6 address stands in `[` and `]`";
        return problem(WHAT, help);
    }
    Ok(Address::Name {
        host: host.into(),
        port,
    })
}

/// How to put right what is nearly an address; `port` is one that would do.
fn address_help(text: &str, port: u16) -> Option<String> {
    let split = text.rsplit_once(':');
    let bracketed = split.and_then(|(ip, port)| {
        let (ip, port): (Ipv6Addr, u16) = (ip.parse().ok()?, port.parse().ok()?);
        Some(format!(
            "an IPv6 address stands in brackets: \"[{ip}]:{port}\""
        ))
    });
    let bare = || match text.parse().ok()? {
        IpAddr::V4(ip) => Some(format!("add a port, as in \"{ip}:{port}\"")),
        IpAddr::V6(ip) => Some(format!("add a port, as in \"[{ip}]:{port}\"")),
    };
    bracketed.or_else(bare)
}

/// Splits at the last colon; otherwise says how to put it right.
fn host_port(text: &str) -> Result<(&str, u16), &'static str> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err("add a port, as in \"192.168.2.115:7001\" or \"device-hub:7001\"");
    };
    if text.contains("://") || port.contains('/') {
        return Err("write the host and the port alone, without scheme or path");
    }
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits => Ok((host, port)),
        _ => Err("a port is a number of 1 to 65535"),
    }
}

/// Whether it may be the name of a host: labels of 1 to 63 characters, 253 in all, and not numbers
/// alone.
fn is_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let fine = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(fine)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_and_sizes_at_their_boundaries() {
        let ms = |millis| Ok(Duration::from_millis(millis));
        assert_eq!(duration("0ms"), ms(0));
        assert_eq!(duration("250ms"), ms(250));
        assert_eq!(duration("2m"), ms(120_000));
        assert_eq!(duration("1h"), ms(3_600_000));
        assert_eq!(duration("1 d"), ms(86_400_000));
        assert_eq!(duration("18446744073709551615ms"), ms(u64::MAX));
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "+5s",
            "5S",
            "5 sec",
            "1m30s",
            "0.5s",
            "5  s",
            " 5s",
            "18446744073709551616ms",
            "18446744073709551615s",
            "٥s",
            "5µs",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(size("512B"), Ok(512));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("16777215TiB"), Ok(16_777_215 << 40));
        for bad in [
            "",
            "64",
            "64K",
            "64kB",
            "64kib",
            "1.5MiB",
            "-1B",
            "16777216TiB",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn durations_and_sizes_are_read_as_they_are_shown(
            amount in prop_oneof![
                any::<u64>(),
                0..100_000_u64,
                (0..100_u64).prop_map(|days| days * 86_400_000),
            ],
        ) {
            let time = Duration::from_millis(amount);
            prop_assert_eq!(duration(&ShowDuration(time).to_string()), Ok(time));
            prop_assert_eq!(size(&ShowSize(amount).to_string()), Ok(amount));
        }

        #[test]
        fn nothing_that_is_read_panics(
            text in "\\PC{0,40}|[0-9a-f:.%\\[\\]]{0,24}|[0-9]{1,22}[msdhKiB]{1,3}",
        ) {
            let _ = (duration(&text), size(&text), hex(&text), percent(&text));
            let _ = (ip(&text), bind(&text), address(&text));
        }

        #[test]
        fn hex_is_read_as_it_is_written(
            bytes in prop::collection::vec(any::<u8>(), 0..20),
            gap in any::<bool>(),
        ) {
            let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(hex(&pairs.join(if gap { " " } else { "" })), Ok(bytes));
        }
    }

    #[test]
    fn shows_the_largest_exact_unit() {
        let show = |millis| ShowDuration(Duration::from_millis(millis)).to_string();
        assert_eq!(
            [0, 1, 1500, 90_000, 120_000, 86_400_000].map(show),
            ["0ms", "1ms", "1500ms", "90s", "2m", "1d"]
        );
        assert_eq!(
            [0, 1023, 1024, 1 << 20].map(|bytes| ShowSize(bytes).to_string()),
            ["0B", "1023B", "1KiB", "1MiB"]
        );
    }

    #[test]
    fn hex_and_percentages() {
        assert_eq!(hex("0d 0A"), Ok(vec![13, 10]));
        assert_eq!(hex(""), Ok(vec![]));
        for bad in ["0", "0x2a", "2a 5", "zz", "é9"] {
            assert!(hex(bad).is_err(), "{bad}");
        }
        assert_eq!(percent("125%"), Ok(125));
        assert_eq!(percent("125 %"), Ok(125));
        for bad in ["", "%", "125", "-5%", "+5%", "1.25", "99999999999%"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }

    fn help<T: fmt::Debug>(result: Result<T, Problem>) -> String {
        result.expect_err("not an address").help
    }

    #[test]
    fn what_is_nearly_an_address_brings_the_right_one() {
        assert!(help(bind("8011")).contains("\"0.0.0.0:8011\""));
        assert!(help(bind(":8011")).contains("\"[::]:8011\""));
        assert!(help(bind("127.0.0.1")).contains("\"127.0.0.1:8011\""));
        assert!(help(bind("fe80::1")).contains("\"[fe80::1]:8011\""));
        assert!(help(address("::1:7001")).contains("\"[::1]:7001\""));
        assert!(help(address("::1")).contains("\"[::1]:7001\""));
        assert!(help(address("fd00:0:0:0:0:0:0:1:7001")).contains("\"[fd00::1]:7001\""));
        assert!(help(bind("localhost:80")).contains("a name"));
        assert!(help(address("127.0.0.256:7001")).contains("0 to 255"));
        assert!(help(address("hub")).contains("add a port"));
        assert!(help(address("hub:http")).contains("number of 1 to 65535"));
        assert!(help(address("hub:70000")).contains("number of 1 to 65535"));
        assert!(help(address("tcp://hub:7001")).contains("scheme"));
        assert!(help(address("hub:0")).contains("port 0"));
        assert!(help(address("127.0.0.1:0")).contains("port 0"));
        assert!(help(address("0.0.0.0:7001")).contains("own"));
        assert!(help(address("a b:7001")).contains("host name"));
        assert!(help(address(":7001")).contains("IPv4") || help(address(":7001")).contains("name"));
        assert!(help(ip("127.0.0.5:80")).contains("\"127.0.0.5\""));
    }

    #[test]
    fn addresses_and_names() {
        assert_eq!(bind("[::1]:0").map(|address| address.port()), Ok(0));
        for fine in [
            "hub:1",
            "hub.example.:65535",
            "a_b-c.d1:7",
            "10.0.0.1x:7",
            "[::1]:7",
        ] {
            assert!(address(fine).is_ok(), "{fine}");
        }
        assert_eq!(
            address("device-hub:7001"),
            Ok(Address::Name {
                host: "device-hub".into(),
                port: 7001
            })
        );
        for bad in [
            "-a:1",
            "a..b:1",
            "a.1:1",
            &format!("{}:1", "a".repeat(64)),
            "é:1",
            "a:+1",
            "[::1]",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
