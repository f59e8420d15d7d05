//! From `errno` to whose fault it is.

use std::io;

use nix::errno::Errno;
use tlb_engine::api::Fault;

/// What an `errno` of a socket call says to the engine.
pub(crate) fn of_errno(errno: Errno) -> Fault {
    match errno {
        Errno::ECONNREFUSED => Fault::Refused,
        Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EHOSTDOWN | Errno::ENETDOWN => {
            Fault::Unreachable
        }
        Errno::ETIMEDOUT => Fault::TimedOut,
        Errno::ECONNRESET | Errno::EPIPE | Errno::ECONNABORTED => Fault::Reset,
        Errno::EADDRNOTAVAIL | Errno::EADDRINUSE => Fault::LocalPorts,
        Errno::EMFILE | Errno::ENFILE => Fault::LocalDescriptors,
        Errno::ENOBUFS | Errno::ENOMEM => Fault::LocalMemory,
        Errno::EACCES | Errno::EPERM => Fault::Denied,
        other => Fault::Other(other as i32),
    }
}

/// As [`of_errno`]; an error without an `errno` (the standard library makes a few itself) is
/// `Other(0)`.
pub(crate) fn of(error: &io::Error) -> Fault {
    match error.raw_os_error() {
        Some(errno) => of_raw(errno),
        None => Fault::Other(0),
    }
}

/// As [`of_errno`], from a number that may have no name here.
fn of_raw(errno: i32) -> Fault {
    match Errno::from_raw(errno) {
        Errno::UnknownErrno => Fault::Other(errno),
        known => of_errno(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_errno_has_its_culprit() {
        let table = [
            (Errno::ECONNREFUSED, Fault::Refused, false),
            (Errno::EHOSTUNREACH, Fault::Unreachable, false),
            (Errno::ENETUNREACH, Fault::Unreachable, false),
            (Errno::EHOSTDOWN, Fault::Unreachable, false),
            (Errno::ENETDOWN, Fault::Unreachable, false),
            (Errno::ETIMEDOUT, Fault::TimedOut, false),
            (Errno::ECONNRESET, Fault::Reset, false),
            (Errno::EPIPE, Fault::Reset, false),
            (Errno::ECONNABORTED, Fault::Reset, false),
            (Errno::EADDRNOTAVAIL, Fault::LocalPorts, true),
            (Errno::EADDRINUSE, Fault::LocalPorts, true),
            (Errno::EMFILE, Fault::LocalDescriptors, true),
            (Errno::ENFILE, Fault::LocalDescriptors, true),
            (Errno::ENOBUFS, Fault::LocalMemory, true),
            (Errno::ENOMEM, Fault::LocalMemory, true),
            (Errno::EACCES, Fault::Denied, true),
            (Errno::EPERM, Fault::Denied, true),
            (Errno::EPROTO, Fault::Other(Errno::EPROTO as i32), false),
        ];
        for (errno, fault, local) in table {
            assert_eq!(of_errno(errno), fault, "{errno}");
            assert_eq!(of(&io::Error::from(errno)), fault, "{errno}");
            assert_eq!(fault.is_local(), local, "{errno}");
        }
    }

    #[test]
    fn unknown_numbers_are_kept_and_numberless_errors_are_zero() {
        assert_eq!(of(&io::Error::from_raw_os_error(4095)), Fault::Other(4095));
        assert_eq!(of(&io::Error::other("made here")), Fault::Other(0));
    }
}
