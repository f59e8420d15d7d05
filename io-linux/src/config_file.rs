//! The configuration file: read, checked, and turned into settings that work.
//!
//! A file is TOML, or JSON of the same structure if its name ends in `.json`. Every mistake in it is reported with
//! its place, the line, and a way to put it right; see [`ConfigErrors`]. What has passed is a [`Settings`].
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
//! ```
//!
//! # Reference
//!
//! Durations are strings of a whole number and a unit: `"250ms"`, `"5s"`, `"2m"`, `"1h"`, `"1d"`. Sizes are strings of
//! a whole number and a unit, `"512B"`, `"64KiB"`, `"1MiB"`, `"1GiB"`, or plain integers, which count bytes. Hex is two
//! digits for each byte, with blanks between bytes if wanted: `"2a"`, `"0d 0a"`. Names and ids are strings of 1 to 128
//! bytes without control characters.
//!
//! Top level:
//!
//! | key | type | default | range | meaning |
//! |---|---|---|---|---|
//! | `workers` | integer | one per CPU | 1 to 1024 | threads that serve sessions; `--workers` wins |
//! | `relay` | string | `"auto"` | `"auto"`, `"copy"`, `"splice"` | through what bytes pass: buffers for small messages and pipes for large flows, always buffers, always pipes |
//! | `preread-memory` | size | `"256MiB"` | `"1B"` to `"1TiB"`, at least the largest `preread-limit` | most memory that all prereads of the process hold |
//! | `reset-timeout` | duration | `"10s"` | `"1ms"` to `"1h"` | how long a reset waits until the peer has what was written before it |
//! | `shutdown-timeout` | duration | `"30s"` | `"0ms"` to `"1d"` | over how long live sessions are closed when tlb stops |
//! | `listener` | list of tables | required | at least one | see below |
//! | `unpack` | table of tables | none | | see below |
//! | `pool` | list of tables | required | at least one | see below |
//!
//! `[[listener]]`, a place where clients come in:
//!
//! | key | type | default | range | meaning |
//! |---|---|---|---|---|
//! | `name` | name | required | unique | its name in logs |
//! | `bind` | string | required | IP address and port | where it listens; `[::]` takes IPv4 clients too, port 0 lets the kernel choose |
//! | `unpack` | name | none | an `[unpack.NAME]`, or one that the program registers | finds the key in the client's first bytes; without it a session is routed at accept, and the pool needs a policy without a key |
//! | `pool` | name | required | a `[[pool]]` | where its sessions go |
//! | `preread-timeout` | duration | `"10s"` | `"1ms"` to `"365d"` | deadline of the whole first frame (as far as it must be seen), from accept |
//! | `preread-limit` | size | `"64KiB"` | `"1B"` to `"16MiB"` | most bytes to look at before a verdict, garbage included |
//! | `idle-timeout` | duration or `"off"` | `"off"` | `"1ms"` to `"365d"` | how long a session may pass no byte at all |
//! | `half-close-timeout` | duration | `"5m"` | `"1ms"` to `"365d"` | how long a session whose one direction has ended may pass no byte the other way |
//! | `max-sessions` | integer | 1000000 | 1 to 100000000 | most sessions at a time, in the whole process |
//! | `keepalive` | duration or `"off"` | `"60s"` | `"1s"` to `"32767s"`, whole seconds | idle time before TCP keepalive probes, on both sides of a session |
//! | `user-timeout` | duration or `"off"` | `"off"` | `"1ms"` to `"24d"` | how long written bytes may stay unacknowledged (`TCP_USER_TIMEOUT`), on both sides of a session |
//! | `allow-address` | boolean | `false` | | whether an unpack may name an address that is in no pool |
//!
//! `[unpack.NAME]`, a framing, by `kind`:
//!
//! | key | of kind | type | default | range | meaning |
//! |---|---|---|---|---|---|
//! | `kind` | | string | required | `"length-field"`, `"delimited"`, `"fixed"` | how a frame's end is known |
//! | `magic` | length-field | hex | none | 1 to 16 bytes | what a frame begins with; garbage before it is skipped |
//! | `length` | length-field | table | required | | the length field; a frame has value + `adjust` + `offset` + `width` bytes |
//! | `length.offset` | | integer | required | 0 to 16777215 | where it begins, from the frame's start |
//! | `length.width` | | integer | required | 1 to 8 | its bytes |
//! | `length.endian` | | string | `"big"` | `"big"`, `"little"` | its byte order |
//! | `length.adjust` | | integer | 0 | ± 1099511627776 | what to add to its value to get the number of bytes that follow it |
//! | `delimiter` | delimited | hex | required | 1 to 16 bytes | what a frame ends with |
//! | `size` | fixed | size | required | `"1B"` to `"1TiB"` | the bytes of every frame |
//! | `key` | all | table | required | | the bytes that decide the backend |
//! | `key.offset` | | integer | required | 0 to 16777215 | where it begins, from the frame's start |
//! | `key.length` | | integer | to the frame's end | 1 to 16777216 | its bytes |
//! | `min-frame`, `max-frame` | length-field, delimited | size | none | `"1B"` to `"1TiB"` | a frame outside these bounds is garbage where there is a magic, else the session ends |
//!
//! `[[pool]]`, a group of backends that serve the same keys:
//!
//! | key | type | default | range | meaning |
//! |---|---|---|---|---|
//! | `name` | name | required | unique | its name |
//! | `policy` | string | `"hash-ring"` | `"hash-ring"`, `"maglev"` (by key), `"source"` (by client address), `"round-robin"`, `"least-sessions"`, `"p2c"` | how a backend is picked |
//! | `points` | integer | 8192 | at least 1; in the whole ring at most 4194304 | ring points per unit of weight, for `"hash-ring"` and `"source"`: more make shares more even and take more memory |
//! | `bounded-load` | string | `"off"` | `"101%"` to `"1000%"`, `"off"` | for `"hash-ring"`, `"maglev"` and `"source"`: no backend gets more than this share of the mean load; keys over it go to their next owner |
//! | `backends` | list of tables | required | at least one | see below |
//! | `connect-timeout` | duration | `"5s"` | `"1ms"` to `"1h"` | how long one connect attempt may take |
//! | `retries` | integer | 3 | 0 to 32 | connect attempts after the first |
//! | `fall` | integer | 3 | 1 to 1000000 | failed connects in a row that take a backend down |
//! | `source` | list of IP addresses | kernel's choice | one of each family that the backends have | local addresses to connect from, in turn |
//!
//! A pool without a backend is an error: this file is the only place where backends come from, so that such a pool
//! could only ever turn its clients away.
//!
//! A backend of `backends` (or `[[pool.backends]]`):
//!
//! | key | type | default | range | meaning |
//! |---|---|---|---|---|
//! | `id` | name | required | unique in the pool | what consistent hashing hashes: a backend that keeps its id keeps its keys, whatever its address |
//! | `address` | string | required | IP address or host name, and port | where it is |
//! | `weight` | integer | 1 | 1 to 65535 | its share, relative to the others' |
//! | `draining` | boolean | `false` | | gets no new session |
//!
//! The `config.json` of the original program, `{"port": "2048", "backend": {"192.168.2.115:22048": 2}}`, is read too:
//! all IPv4 addresses at that port, the framing of the example above with the key from byte 19 to the frame's end, a
//! hash ring, and the addresses as ids.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tlb_engine::balance::Policy;
use tlb_engine::config::{Failover, Limits, Listener};
use tlb_engine::drive::Mode;

use self::diagnostic::Report;
pub(crate) use self::diagnostic::count;
pub use self::diagnostic::{ConfigErrors, Diagnostic, Place, Severity};
use self::tree::Syntax;
use crate::registry::UnpackRegistry;

mod diagnostic;
mod framing;
mod json;
mod listeners;
mod original;
mod pools;
mod reader;
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

/// A configuration that works. Limits are those of the whole process, whatever the number of workers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many workers; `None` for one per CPU.
    pub workers: Option<usize>,
    /// Through what relays move their bytes.
    pub relay: Mode,
    /// The listeners: at least one.
    pub listeners: Vec<ListenerSettings>,
    /// The pools, by [`PoolId`](tlb_engine::ids::PoolId): at least one.
    pub pools: Vec<PoolSettings>,
    /// Limits that are not a listener's own.
    pub limits: Limits,
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
    /// Idle time before TCP keepalive probes, on both sides of a session, in whole seconds; `None` for no probes.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT` of both sides of a session; `None` leaves it to the kernel.
    pub user_timeout: Option<Duration>,
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
    /// The backends, in the file's order: at least one.
    pub backends: Vec<BackendSettings>,
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
    /// The file cannot be read, is not UTF-8, has more than 16 MiB, or says something that cannot be: all that was
    /// found, with its places.
    pub fn load(path: &Path, registered: &UnpackRegistry) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let refuse = |message: String, help: &str| {
            let mut error = Diagnostic::whole_file(message);
            error.help(help);
            Err(ConfigErrors::new(&name, vec![error]))
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

    /// Checks a text. `name` is the file's, which decides between TOML and JSON and is shown in errors.
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
        let failed = report.failed();
        let found = report.finish();
        match settings {
            Some(settings) if !failed => Ok(Self {
                warnings: found,
                ..settings
            }),
            _ => Err(ConfigErrors::new(name, found)),
        }
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
