//! The configuration file: read, checked, and turned into settings that work.
//!
//! A file is TOML, or JSON of the same structure if its name ends in `.json`. Every mistake in it
//! is reported with its place, the line, and a way to put it right; see [`ConfigErrors`]. What has
//! passed is a [`Settings`].
//!
//! ```toml
//! [[listener]]
//! name = "devices"
//! bind = "127.0.0.1:8011"
//! unpack = "station"
//! pool = "stations"
//!
//! [unpack.station]
//! kind = "length-field"
//! magic = "2a"
//! length = { offset = 1, width = 4, endian = "big", adjust = 2 }
//! key = { offset = 19, length = 4 }
//!
//! [[pool]]
//! name = "stations"
//! backends = [
//!   { id = "a", address = "127.0.0.11:7001", weight = 2 },
//!   { id = "b", address = "127.0.0.12:7001" },
//! ]
//! health = { kind = "send-expect", send = "PING\r\n", expect = "+PONG" }
//! on-down = { sessions = "close", rate = 1000 }
//!
//! [admin]
//! bind = "127.0.0.1:16061"
//! ```
//!
//! # Reference
//!
#![doc = include_str!("config_file/reference.md")]

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use tlb_engine::balance::Policy;
use tlb_engine::config::{Failover, Limits, Listener};
use tlb_engine::drive::Mode;
use tlb_engine::fleet::{Admission, OnDown, ProbeConfig};

pub(crate) use self::diagnostic::count;
pub use self::diagnostic::{ConfigErrors, Diagnostic, Place, Severity};
use self::report::Report;
use self::tree::Syntax;
use crate::congestion::Congestion;
use crate::registry::UnpackRegistry;

mod admin;
mod diagnostic;
mod framing;
mod health;
mod json;
mod listeners;
mod original;
mod pools;
mod reader;
mod report;
mod table;
#[cfg(test)]
mod tests;
mod top;
mod tree;
mod values;

/// Most bytes of a configuration file.
const FILE_MAX: usize = 16 << 20;
/// Most bytes that a listener may look at before a verdict.
const PREREAD_LIMIT_MAX: usize = 16 << 20;
/// Most bytes of anything: 1 TiB, or as near to it as this machine can count.
const LARGEST: usize = if usize::BITS > 40 {
    1_u64.wrapping_shl(40) as usize
} else {
    usize::MAX >> 1
};

/// A configuration that works. Limits are those of the whole process, whatever the number of
/// workers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many workers; `None` for one per CPU: of `cpus`, if there are any, else of those that the process may use.
    pub workers: Option<usize>,
    /// The CPUs that workers are kept to, in turn; empty: wherever the kernel runs them.
    pub cpus: Vec<usize>,
    /// Whether the kernel gives each worker the clients whose packets come in on its CPU. Not without `cpus`.
    pub incoming_cpu: bool,
    /// Through what relays move their bytes.
    pub relay: Mode,
    /// How long a worker that has just served an event looks for the next one before it sleeps, at most 1 ms; zero:
    /// not at all. On a virtual machine, 100 µs let one connection alone have 2 to 3 times the round trips at the same
    /// CPU for each; beside many connections it changes nothing.
    pub spin: Duration,
    /// The listeners: at least one, unless there is an API, which can bring some.
    pub listeners: Vec<ListenerSettings>,
    /// The pools, by [`PoolId`](tlb_engine::ids::PoolId): at least one if there is a listener.
    pub pools: Vec<PoolSettings>,
    /// Limits that are not a listener's own.
    pub limits: Limits,
    /// The admin API; `None` for no API.
    pub admin: Option<AdminSettings>,
    /// Where each session leaves a line when it ends; `None` for the log alone.
    pub session_log: Option<SessionLogSettings>,
    /// What is probably not meant as it is written.
    pub warnings: Vec<Diagnostic>,
}

/// One place where clients come in.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Where it listens. Port 0 lets the kernel choose.
    pub bind: SocketAddr,
    /// Its name, pool and limits. `max_sessions` counts the whole process.
    pub engine: Listener,
    /// Idle time before TCP keepalive probes, on both sides of a session, in whole seconds; `None`
    /// for no probes.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT` of both sides of a session; `None` leaves it to the kernel.
    pub user_timeout: Option<Duration>,
    /// Congestion control of both sides of a session; `None` leaves it to the host.
    pub congestion: Option<Congestion>,
    /// How fast it accepts sessions, over the whole process; `None` as fast as they come. What `engine` has of this is
    /// made from it when the server starts.
    pub admission: Option<Admission>,
    /// Most live sessions of one client address, over the whole process. As above.
    pub per_source: Option<NonZeroU32>,
}

/// A group of backends that serve the same keys.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// Its name, unique.
    pub name: Box<str>,
    /// How a key becomes a backend; fits the weights.
    pub policy: Policy,
    /// `Some(percent)`: no backend gets more than this share of the mean load. At least 101.
    pub bounded_load: Option<u32>,
    /// How its sessions connect and fail over.
    pub failover: Failover,
    /// Local addresses to connect from, in turn; empty leaves it to the kernel.
    pub sources: Vec<IpAddr>,
    /// How they are probed; `None` for not at all.
    pub health: Option<HealthSettings>,
    /// What becomes of the sessions of a backend that goes down, into maintenance, or away.
    pub on_down: OnDown,
    /// How long a backend that comes up takes until it has its whole share; `None` for at once.
    pub slow_start: Option<Duration>,
    /// How fast each backend takes new sessions; `None` as fast as they come.
    pub admission: Option<Admission>,
    /// The backends, in the file's order: at least one.
    pub backends: Vec<BackendSettings>,
}

/// How the backends of a pool are probed.
#[derive(Clone, Debug)]
pub struct HealthSettings {
    /// What a probe does.
    pub kind: ProbeKind,
    /// When, and what follows from it.
    pub schedule: ProbeConfig,
    /// The port to probe; `None` for the backend's own.
    pub port: Option<u16>,
}

/// What a probe does. Each begins with a TCP connect.
#[derive(Clone, Debug)]
pub enum ProbeKind {
    /// Nothing more.
    Tcp,
    /// Sends bytes, perhaps none, and reads until the answer decides.
    Exchange {
        /// What to send.
        send: Box<[u8]>,
        /// What must come.
        expect: Expect,
    },
    /// `GET path HTTP/1.1`.
    Http {
        /// The path, with its query.
        path: Box<str>,
        /// The `Host` header; `None` for the backend's address.
        host: Option<Box<str>>,
        /// The status codes that pass: from, to (both included).
        status: (u16, u16),
    },
}

/// What a backend must answer to a probe.
#[derive(Clone, Debug)]
pub enum Expect {
    /// Exactly these bytes come first. Not empty.
    Prefix(Box<[u8]>),
    /// This matches somewhere in the first 64 KiB.
    Regex(regex::bytes::Regex),
}

/// The admin API. Its token is not shown in what `Debug` writes.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it listens.
    pub bind: AdminBind,
    /// What clients must present as `Authorization: Bearer ...`; `None` only on a unix socket or a loopback address.
    pub token: Option<Box<str>>,
}

impl fmt::Debug for AdminSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminSettings")
            .field("bind", &self.bind)
            .field("token", &self.token.as_ref().map(|_| "..."))
            .finish()
    }
}

/// Where the admin API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBind {
    /// A unix socket with these permissions.
    Unix {
        /// Its path.
        path: Box<Path>,
        /// Its mode, as in 0o660.
        mode: u32,
    },
    /// A TCP address.
    Tcp(SocketAddr),
}

/// The session log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLogSettings {
    /// How a line looks.
    pub format: SessionLogFormat,
    /// Where lines go.
    pub to: SessionLogTarget,
}

/// How a line of the session log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionLogFormat {
    /// One JSON object.
    #[default]
    Json,
    /// As HAProxy's `option tcplog`.
    Haproxy,
}

/// Where the session log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionLogTarget {
    /// Standard output.
    Stdout,
    /// A file, which is appended to.
    File(Box<Path>),
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSettings {
    /// Its id, unique in the pool.
    pub id: Box<str>,
    /// Where it is.
    pub address: Address,
    /// Its share, relative to the others': 1 to 65535.
    pub weight: u32,
    /// Gets no new session.
    pub draining: bool,
}

/// Where a backend is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port, which is not 0.
    Socket(SocketAddr),
    /// A host name, not resolved yet.
    Name {
        /// The name.
        host: Box<str>,
        /// The port, which is not 0.
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl Settings {
    /// Reads and checks a file. `registered` are the unpacks that it may name besides its own.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8, has more than 16 MiB, or says something that cannot
    /// be: all that was found, with its places.
    pub fn load(path: &Path, registered: &UnpackRegistry) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let refuse = |message: String, help: &str| {
            let error = Diagnostic::whole_file(message, help);
            Err(ConfigErrors::whole_file(&name, error))
        };
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                let help = match error.kind() {
                    io::ErrorKind::NotFound => "name the file with --config, or set TLB_CONFIG",
                    io::ErrorKind::PermissionDenied => "let the user that runs tlb read it",
                    _ => "a configuration is a regular file that can be read",
                };
                return refuse(format!("cannot read {name}: {error}"), help);
            }
        };
        if bytes.len() > FILE_MAX {
            let message = format!("{name} is larger than 16 MiB");
            return refuse(message, "is this the configuration?");
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(&name, text, registered),
            Err(error) => {
                let valid = &bytes[..error.valid_up_to()];
                let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
                let message = format!("{name} is not UTF-8: see line {line}");
                refuse(message, "save the file in UTF-8")
            }
        }
    }

    /// Checks a text. `name` is the file's, which decides between TOML and JSON and is shown in
    /// errors. The file of a token, if one is named, is read too.
    ///
    /// # Errors
    /// As [`Settings::load`], as far as it concerns the text.
    pub fn parse(
        name: &str,
        text: &str,
        registered: &UnpackRegistry,
    ) -> Result<Self, ConfigErrors> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut report = Report::new(name, text);
        let syntax = Syntax::of(name);
        let settings = syntax.parse(text, &mut report).and_then(|entries| {
            if syntax == Syntax::Json && original::recognise(&entries) {
                original::read(&entries, &(0..1), &mut report)
            } else {
                top::read(&entries, registered, &mut report)
            }
        });
        let warnings = report.finish()?;
        let settings = settings.expect("without an error there are settings");
        Ok(Self {
            warnings,
            ..settings
        })
    }
}

/// The file's bytes, cut shortly beyond the size that is refused.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
