//! Facts as lines of the log.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;

use tlb_engine::api::{CloseReason, Closed, Event};
use tlb_engine::config::Config;
use tlb_engine::ids::{Incarnation, ListenerId, PoolId};
use tlb_engine::roster::Roster;
use tracing::field::display;
use tracing::{Level, debug, enabled, event, info, warn};

/// What a worker needs to name things as the configuration does.
#[derive(Debug)]
pub(crate) struct Journal {
    config: Arc<Config>,
    roster: Arc<Roster>,
    backends: HashMap<Incarnation, Box<str>>,
}

impl Journal {
    /// One for the sessions of `config`.
    pub(crate) fn new(config: Arc<Config>, roster: &Arc<Roster>) -> Self {
        let mut journal = Self {
            config,
            roster: Arc::clone(roster),
            backends: HashMap::new(),
        };
        journal.learn(roster);
        journal
    }

    /// Learns the names of a new roster. Those of the last one are still known, as sessions outlive
    /// rosters.
    pub(crate) fn learn(&mut self, roster: &Arc<Roster>) {
        let last = std::mem::replace(&mut self.roster, Arc::clone(roster));
        self.backends = [&last, roster]
            .into_iter()
            .flat_map(|roster| &roster.pools)
            .flat_map(|pool| pool.backends())
            .map(|backend| (backend.incarnation, backend.id.clone()))
            .collect();
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
                let backend = backend.map(|backend| display(self.backend(backend)));
                debug!(%session, attempt, backend, %fault, "connect failed");
            }
            Event::BackendDown {
                pool,
                backend,
                fault,
            } => {
                let (pool, backend) = (self.pool(*pool), self.backend(*backend));
                warn!(%pool, %backend, %fault, "backend down");
            }
            Event::BackendUp { pool, backend } => {
                let (pool, backend) = (self.pool(*pool), self.backend(*backend));
                info!(%pool, %backend, "backend up");
            }
            Event::AcceptPaused { listener, fault } => {
                warn!(listener = %self.listener(*listener), %fault, "accepting paused");
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
                        listener = %self.listener(closed.listener),
                        client = %closed.peer,
                        backend = closed.backend.map(|backend| display(self.backend(backend))),
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

    fn listener(&self, id: ListenerId) -> &str {
        self.config
            .listeners
            .get(id.index())
            .and_then(Option::as_ref)
            .map_or("?", |listener| &listener.name)
    }

    fn pool(&self, id: PoolId) -> &str {
        self.roster.pool(id).map_or("?", |pool| &pool.name)
    }

    fn backend(&self, incarnation: Incarnation) -> &str {
        self.backends.get(&incarnation).map_or("?", |id| id)
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
struct Key<'k>(&'k [u8]);

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
