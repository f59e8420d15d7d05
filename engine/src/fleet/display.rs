//! One line of text for each thing that comes out of a fleet.

use core::fmt;

use super::{FleetAction, FleetEvent, ProbeId, State};
use crate::api::{TellHow, Why};
use crate::health::Change;

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ProbeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "probe-{}", self.0)
    }
}

impl Why {
    /// A stable word for logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Maint => "maint",
            Self::Removed => "removed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

impl fmt::Display for FleetAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish(roster) => write!(f, "publish epoch {}", roster.epoch),
            Self::Tell(tell) => {
                let how = match tell.how {
                    Some(TellHow::Close) => "close",
                    Some(TellHow::Reset) => "reset",
                    None => "keep",
                };
                write!(f, "tell {}: {}, {how}", tell.backend, tell.why.name())
            }
            Self::Advise {
                backend,
                change,
                except,
                ..
            } => {
                write!(f, "advise {backend}: {change}")?;
                match except {
                    Some(worker) => write!(f, ", but for worker {worker}"),
                    None => Ok(()),
                }
            }
            Self::Probe { probe, pool, to } => write!(f, "{probe} of {pool} to {to}"),
            Self::Cancel { probe } => write!(f, "cancel {probe}"),
        }
    }
}

impl fmt::Display for FleetEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State {
                pool,
                backend,
                from,
                to,
                cause,
            } => write!(f, "{pool}/{backend}: {from} -> {to} ({cause})"),
            Self::Added {
                pool,
                backend,
                address,
            } => {
                write!(f, "{pool}/{backend}: added")?;
                match address {
                    Some(address) => write!(f, " at {address}"),
                    None => Ok(()),
                }
            }
            Self::Removed { pool, backend } => write!(f, "{pool}/{backend}: removed"),
            Self::Moved {
                pool,
                backend,
                address,
            } => write!(f, "{pool}/{backend}: moved to {address}"),
            Self::Weight {
                pool,
                backend,
                from,
                to,
            } => write!(f, "{pool}/{backend}: weight {from} -> {to}"),
            Self::Panic { pool, on } => write!(f, "{pool}: {}panic", if *on { "" } else { "no " }),
        }
    }
}
