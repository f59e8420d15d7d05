//! A session as one line.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};
use std::sync::Arc;

use jiff::{Timestamp, fmt::strtime};
use serde::{Serialize, Serializer};
use tlb_engine::api::{CloseReason, Closed, Fault};

use crate::config_file::SessionLogFormat;
use crate::journal::Key;
use crate::names::Names;

/// A session that ended, with the names that it had: what a worker hands over.
#[derive(Debug)]
pub(super) struct Ended {
    closed: Closed,
    at: Timestamp,
    listener: Arc<str>,
    pool: Arc<str>,
    backend: Option<Arc<str>>,
}

impl Ended {
    pub(super) fn new(closed: &Closed, names: &Names, at: Timestamp) -> Self {
        let backend = closed.backend.map(|backend| names.backend(backend));
        Self {
            at,
            listener: Arc::clone(names.listener(closed.listener)),
            pool: Arc::clone(names.pool_of(closed.listener, closed.backend)),
            backend: backend.map(Arc::clone),
            closed: closed.clone(),
        }
    }
}

/// Adds the line of a session, with a newline at its end and none within.
pub(super) fn add(line: &mut Vec<u8>, format: SessionLogFormat, ended: &Ended) {
    // Writing to memory does not fail, and a record is JSON.
    let _ = match format {
        SessionLogFormat::Json => {
            serde_json::to_writer(&mut *line, &Record::new(ended)).map_err(io::Error::from)
        }
        SessionLogFormat::Haproxy => write!(line, "{}", TcpLog(ended)),
    };
    line.push(b'\n');
}

/// The JSON form. What there is not is `null`, so that every line has the same fields.
#[derive(Serialize)]
struct Record<'r> {
    /// When the session ended: RFC 3339, UTC.
    time: String,
    session: Shown<'r>,
    listener: &'r str,
    client: Shown<'r>,
    reason: &'static str,
    pool: &'r str,
    backend: Option<&'r str>,
    address: Option<Shown<'r>>,
    key: Option<String>,
    bytes_forward: u64,
    bytes_return: u64,
    bytes_skipped: u64,
    attempts: u8,
    seconds: f64,
}

impl<'r> Record<'r> {
    fn new(ended: &'r Ended) -> Self {
        let closed = &ended.closed;
        Self {
            time: format!("{:.3}", ended.at),
            session: Shown(&closed.session),
            listener: &ended.listener,
            client: Shown(&closed.peer),
            reason: closed.reason.name(),
            pool: &ended.pool,
            backend: ended.backend.as_deref(),
            address: closed.to.as_ref().map(|to| Shown(to)),
            key: closed.key.as_deref().map(|key| Key(key).to_string()),
            bytes_forward: closed.forward,
            bytes_return: closed.back,
            bytes_skipped: closed.skipped,
            attempts: closed.attempts,
            seconds: closed.lasted.as_micros() as f64 / 1e6,
        }
    }
}

/// A string of what shows itself.
struct Shown<'s>(&'s dyn Display);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

/// The form of HAProxy's `option tcplog`, without the tag that syslog puts before it:
///
/// ```text
/// client:port [accepted] listener pool/backend -1/-1/ms bytes state 0/0/0/0/retries 0/0 {key}
/// ```
///
/// The date is in UTC. The times in a queue and until the connect are not measured (-1), counts of
/// concurrent connections and queues not kept (0). The bytes are those that the client took. A
/// session without a backend has `<NOSRV>`, one to an address that its unpack named has the
/// address. The key, if there is one, follows at the end, as HAProxy writes what it captures.
struct TcpLog<'l>(&'l Ended);

impl Display for TcpLog<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ended {
            closed,
            at,
            listener,
            pool,
            backend,
        } = self.0;
        let lasted = closed.lasted.as_millis();
        let accepted = at
            .checked_sub(closed.lasted)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        // Only a date beyond the calendar has no form.
        let date = strtime::format("%d/%b/%Y:%H:%M:%S%.3f", accepted).map_err(|_| fmt::Error)?;
        write!(f, "{} [{date}] ", closed.peer)?;
        escaped(f, listener)?;
        f.write_char(' ')?;
        escaped(f, pool)?;
        f.write_char('/')?;
        match (backend, closed.to) {
            (Some(backend), _) => escaped(f, backend)?,
            (None, Some(to)) => write!(f, "{to}")?,
            (None, None) => f.write_str("<NOSRV>")?,
        }
        let state = state(closed);
        let retries = closed.attempts.saturating_sub(1);
        write!(
            f,
            " -1/-1/{lasted} {} {state} 0/0/0/0/{retries} 0/0",
            closed.back
        )?;
        if let Some(key) = &closed.key {
            f.write_str(" {")?;
            escaped(f, &Key(key).to_string())?;
            f.write_char('}')?;
        }
        Ok(())
    }
}

/// Writes text so that it is one word: as HAProxy does, `#` and two hex digits for each byte that
/// would part words.
fn escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !b"#/{}\"".contains(&byte) {
            f.write_char(char::from(byte))?;
        } else {
            write!(f, "#{byte:02X}")?;
        }
    }
    Ok(())
}

/// HAProxy's two letters for how a session ended: who was the cause, and what it was in the middle
/// of. The reference of the configuration has them as a table.
fn state(closed: &Closed) -> String {
    // Bytes pass only once a backend is there.
    let phase = if closed.attempts == 0 {
        'R'
    } else if closed.forward == 0 && closed.back == 0 {
        'C'
    } else {
        'D'
    };
    let fixed = match closed.reason {
        CloseReason::Completed => "--",
        CloseReason::ClientBroken(_) => return format!("C{phase}"),
        CloseReason::ClientLeft => "CR",
        CloseReason::BackendBroken(_) => "SD",
        CloseReason::PrereadTimeout => "cR",
        CloseReason::PrereadLimit | CloseReason::Rejected(_) => "PR",
        CloseReason::PrereadMemory => "RR",
        CloseReason::ConnectFailed(Fault::TimedOut) => "sC",
        CloseReason::NoBackend | CloseReason::ConnectFailed(_) => "SC",
        CloseReason::RetryBudget => "PC",
        CloseReason::LocalFault(_) => "RC",
        CloseReason::IdleTimeout => "cD",
        CloseReason::HalfCloseTimeout => "sD",
        CloseReason::BackendDown => "DD",
        CloseReason::Shutdown | CloseReason::BackendMaint | CloseReason::BackendRemoved => {
            return format!("K{phase}");
        }
        _ => return format!("I{phase}"),
    };
    fixed.to_owned()
}
