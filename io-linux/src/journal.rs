//! Facts as lines of the log.

use std::fmt::{self, Write};
use std::sync::Arc;

use tlb_engine::api::{CloseReason, Closed, Event};
use tlb_engine::config::Config;
use tracing::field::display;
use tracing::{Level, debug, enabled, event, info, warn};

use crate::names::{FleetNames, Names};

/// Where a worker writes down what happens.
#[derive(Debug)]
pub(crate) struct Journal {
    names: Names,
}

impl Journal {
    /// One for the sessions of `config`.
    pub(crate) fn new(config: &Config, fleet: Arc<FleetNames>) -> Self {
        Self {
            names: Names::new(config, fleet),
        }
    }

    /// Learns the names of a new roster.
    pub(crate) fn learn(&mut self, fleet: Arc<FleetNames>) {
        self.names.learn_fleet(fleet);
    }

    /// Learns the names of a new configuration.
    pub(crate) fn reconfigure(&mut self, config: &Config) {
        self.names.learn_config(config);
    }

    /// What things are called, for the session log.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// Writes one.
    pub(crate) fn write(&self, event: &Event) {
        match event {
            Event::Closed(closed) => self.closed(closed),
            Event::AttemptFailed {
                session,
                attempt,
                backend,
                fault,
            } => {
                let backend = backend.map(|backend| display(self.names.backend(backend)));
                debug!(%session, attempt, backend, %fault, "connect failed");
            }
            Event::BackendDown {
                pool,
                backend,
                fault,
            } => {
                let (pool, backend) = (self.names.pool(*pool), self.names.backend(*backend));
                warn!(%pool, %backend, %fault, "backend down");
            }
            Event::HandedOff { session } => debug!(%session, "handed off"),
            Event::BackendUp { pool, backend } => {
                let (pool, backend) = (self.names.pool(*pool), self.names.backend(*backend));
                info!(%pool, %backend, "backend up");
            }
            Event::AcceptPaused { listener, fault } => {
                warn!(listener = %self.names.listener(*listener), %fault, "accepting paused");
            }
            _ => {}
        }
    }

    fn closed(&self, closed: &Closed) {
        // The level is part of what tracing knows at compile time, so that there are two of these.
        macro_rules! write_at {
            ($level:expr) => {
                if enabled!($level) {
                    event!(
                        $level,
                        reason = %closed.reason.name(),
                        detail = detail(closed.reason),
                        listener = %self.names.listener(closed.listener),
                        client = %closed.peer,
                        backend = closed.backend.map(|backend| display(self.names.backend(backend))),
                        to = closed.to.map(display),
                        key = closed.key.as_deref().map(Key).map(display),
                        forward = closed.forward,
                        "return" = closed.back,
                        skipped = closed.skipped,
                        attempts = closed.attempts,
                        ms = %format_args!("{:.3}", closed.lasted.as_secs_f64() * 1e3),
                        "session closed"
                    );
                }
            };
        }
        // Sessions that end as they should are many, and not news.
        match closed.reason {
            CloseReason::Completed | CloseReason::ClientLeft => write_at!(Level::DEBUG),
            _ => write_at!(Level::INFO),
        }
    }
}

/// What a reason says beyond its name.
fn detail(reason: CloseReason) -> Option<String> {
    match reason {
        CloseReason::ClientBroken(fault)
        | CloseReason::BackendBroken(fault)
        | CloseReason::ConnectFailed(fault)
        | CloseReason::LocalFault(fault) => Some(fault.to_string()),
        CloseReason::Rejected(reject) => Some(reject.to_string()),
        _ => None,
    }
}

/// A key as one word: as it is if it is printable, else in hex with `0x` before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'k>(pub(crate) &'k [u8]);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_word = !self.0.is_empty()
            && !self.0.starts_with(b"0x")
            && self
                .0
                .iter()
                .all(|byte| byte.is_ascii_graphic() && !b"\"\\=".contains(byte));
        if is_word {
            return self
                .0
                .iter()
                .try_for_each(|&byte| f.write_char(char::from(byte)));
        }
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_words_that_cannot_be_mistaken() {
        for (key, shown) in [
            (&b"*3"[..], "*3"),
            (b"station-17", "station-17"),
            (b"", "0x"),
            (b"two words", "0x74776f20776f726473"),
            (b"\x00\x01\xff", "0x0001ff"),
            (b"0x12", "0x30783132"),
            (b"a\"b", "0x612262"),
            (b"a=b", "0x613d62"),
            ("\u{e4}".as_bytes(), "0xc3a4"),
        ] {
            assert_eq!(Key(key).to_string(), shown);
        }
    }
}
