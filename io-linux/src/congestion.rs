//! The congestion control that a session's sockets have.

use std::os::fd::AsFd;
use std::{fmt, fs, io};

use socket2::SockRef;

/// Longest name, in bytes (`TCP_CA_NAME_MAX`, less the final zero).
const NAME_MAX: usize = 15;

/// Name of a congestion control (`TCP_CONGESTION`, tcp(7)).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Congestion {
    name: [u8; NAME_MAX],
    length: u8,
}

impl Congestion {
    /// The congestion control of that name: 1 to 15 small letters, digits and underscores, as all of the kernel's are.
    /// Whether this kernel has it comes out when a socket is to have it.
    pub fn new(name: &str) -> Option<Self> {
        let is_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if !(1..=NAME_MAX).contains(&name.len()) || !name.bytes().all(is_name) {
            return None;
        }
        let mut it = Self {
            name: [0; NAME_MAX],
            length: name.len() as u8,
        };
        it.name[..name.len()].copy_from_slice(name.as_bytes());
        Some(it)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        // It was a `str`.
        str::from_utf8(&self.name[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

/// Gives a socket, or those that a listening socket accepts, a congestion control.
///
/// # Errors
/// This kernel does not have it, or not for this user: the error says which there are.
pub(crate) fn set(socket: &impl AsFd, congestion: Congestion) -> io::Result<()> {
    let name = congestion.name();
    let result = SockRef::from(socket).set_tcp_congestion(name.as_bytes());
    result.map_err(|error| {
        let have = fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control");
        let have = have.unwrap_or_default();
        let known = have.trim();
        io::Error::new(
            error.kind(),
            format!("congestion control {name}: {error}; allowed are {known}"),
        )
    })
}

/// Gives a socket the congestion control that the host gives to those that ask for none.
///
/// # Errors
/// The kernel does not say which, or refuses it.
pub(crate) fn reset(socket: &impl AsFd) -> io::Result<()> {
    set(socket, usual()?)
}

/// What the host gives to sockets that ask for none.
fn usual() -> io::Result<Congestion> {
    let name = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?;
    Ok(Congestion::new(name.trim()).ok_or(io::ErrorKind::InvalidData)?)
}

/// Whether sockets with this congestion control, or with the host's, pace what they send. That the `fq` qdisc may do it
/// for them is not looked at: which interface a session leaves by is not known here.
pub(crate) fn paces(congestion: Option<Congestion>) -> bool {
    let named = congestion.or_else(|| usual().ok());
    named.is_some_and(|it| it.name().starts_with("bbr"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_name_is_one_of_the_kernels() {
        for name in ["reno", "cubic", "dctcp", "a23456789012345", "x_1"] {
            assert_eq!(Congestion::new(name).unwrap().name(), name);
        }
        for name in ["", "a234567890123456", "Reno", "re no", "reno\n", "ré"] {
            assert_eq!(Congestion::new(name), None, "{name:?}");
        }
    }

    #[test]
    fn bbr_paces() {
        for (name, does) in [
            ("bbr", true),
            ("bbr2", true),
            ("cubic", false),
            ("reno", false),
        ] {
            assert_eq!(paces(Congestion::new(name)), does);
        }
        assert_eq!(paces(None), paces(usual().ok()));
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let none = Congestion::new("no_such").unwrap();
        let error = set(&listener, none).unwrap_err().to_string();
        assert!(
            error.contains("no_such") && error.contains("reno"),
            "{error}"
        );
    }

    #[test]
    fn it_can_be_had_and_given_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let of = |listener| SockRef::from(listener).tcp_congestion().unwrap();
        let before = of(&listener);
        set(&listener, Congestion::new("reno").unwrap()).unwrap();
        assert!(of(&listener).starts_with(b"reno\0"));
        reset(&listener).unwrap();
        assert_eq!(of(&listener), before);
    }
}
