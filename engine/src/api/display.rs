//! One line of text for each thing that goes in or comes out.

use core::fmt;
use core::net::IpAddr;

use super::{Action, CloseReason, Closed, Ends, Event, Fault, Input, Report, Standing};
use crate::ids::{Dir, Incarnation};

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed out",
            Self::Reset => "reset by peer",
            Self::Closed => "closed before its first byte",
            Self::LocalPorts => "no local port or address left",
            Self::LocalDescriptors => "no file descriptor left",
            Self::LocalMemory => "no socket memory left",
            Self::Denied => "denied by this host",
            Self::Other(errno) => return write!(f, "errno {errno}"),
        })
    }
}

impl fmt::Display for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Received { session, bytes } => {
                write!(f, "received {session} {}", bytes.escape_ascii())
            }
            Self::Ended { session } => write!(f, "ended {session}"),
            Self::ClientBroken { session, fault } => write!(f, "client-broken {session}: {fault}"),
            Self::Connected { session, attempt } => write!(f, "connected {session}#{attempt}"),
            Self::ConnectFailed {
                session,
                attempt,
                fault,
            } => write!(f, "connect-failed {session}#{attempt}: {fault}"),
            Self::Relayed {
                session,
                attempt,
                report,
                ..
            } => write!(f, "relayed {session}#{attempt} {report}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "forward={} back={}", self.forward, self.back)?;
        for dir in Dir::BOTH {
            if self.ended[dir as usize] {
                write!(f, " ended={dir}")?;
            }
        }
        if self.proven {
            f.write_str(" proven")?;
        }
        if let Some((side, fault)) = self.broken {
            write!(f, " broken={side} ({fault})")?;
        }
        match self.standing {
            Standing::Open => Ok(()),
            Standing::Unacknowledged => f.write_str(" unacknowledged"),
            Standing::Finished(ends) => write!(f, " finished {ends}"),
        }
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client={:?} backend={:?}", self.client, self.backend)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Connect {
                session,
                attempt,
                to,
                from,
                warm,
            } => {
                write!(f, "connect {session}#{attempt} to {to}{}", From(from))?;
                warm.map_or(Ok(()), |warm| write!(f, " by {warm}"))
            }
            Self::Warm { warm, to, from } => write!(f, "warm {warm} to {to}{}", From(from)),
            Self::Cool { warm } => write!(f, "cool {warm}"),
            Self::Abandon { session, attempt } => write!(f, "abandon {session}#{attempt}"),
            Self::Relay { session, attempt } => write!(f, "relay {session}#{attempt}"),
            Self::Look { session } => write!(f, "look {session}"),
            Self::Wind { session, how } => write!(f, "wind {session} {how:?}"),
            Self::Close { session, ends } => write!(f, "close {session} {ends}"),
        }
    }
}

/// A local address, if one is to be used.
struct From(Option<IpAddr>);

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |from| write!(f, " from {from}"))
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::ClientBroken(fault)
            | Self::BackendBroken(fault)
            | Self::ConnectFailed(fault)
            | Self::LocalFault(fault) => write!(f, ": {fault}"),
            Self::Rejected(reject) => write!(f, ": {reject}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted {
                session,
                listener,
                peer,
            } => write!(f, "accepted {session} at {listener} from {peer}"),
            Self::Picked {
                session,
                attempt,
                pool,
                backend,
                to,
            } => {
                write!(
                    f,
                    "picked {session}#{attempt} {} of {pool}",
                    Named(*backend)
                )?;
                write!(f, " at {to}")
            }
            Self::AttemptFailed {
                session,
                attempt,
                backend,
                fault,
            } => {
                let backend = Named(*backend);
                write!(f, "failed {session}#{attempt} {backend}: {fault}")
            }
            Self::Established { session, backend } => {
                write!(f, "established {session} {}", Named(*backend))
            }
            Self::HandedOff { session } => write!(f, "handed-off {session}"),
            Self::HalfClosed { session, dir } => write!(f, "half-closed {session} {dir}"),
            Self::Told {
                session,
                backend,
                why,
            } => write!(f, "told {session} {backend}: {}", why.name()),
            Self::Closed(closed) => write!(f, "{closed}"),
            Self::BackendDown {
                pool,
                backend,
                fault,
            } => write!(f, "down {backend} of {pool}: {fault}"),
            Self::AcceptPaused { listener, fault } => write!(f, "paused {listener}: {fault}"),
            Self::BackendUp { pool, backend } => write!(f, "up {backend} of {pool}"),
        }
    }
}

/// A backend in a line of text; an address that an unpack named has none.
struct Named(Option<Incarnation>);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(backend) => write!(f, "{backend}"),
            None => f.write_str("no-backend"),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            session,
            reason,
            forward,
            back,
            attempts,
            ..
        } = self;
        write!(
            f,
            "closed {session} {reason}; attempts={attempts} forward={forward} back={back}"
        )?;
        if self.skipped > 0 {
            write!(f, " skipped={}", self.skipped)?;
        }
        if let Some(key) = &self.key {
            write!(f, " key={}", key.escape_ascii())?;
        }
        write!(f, " lasted={:?}", self.lasted)
    }
}
