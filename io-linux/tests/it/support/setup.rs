//! Configurations: the issue's deployment, with a test's own lines added.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// The framing of the tests: `'*'`, `u32` big-endian L, L bytes, two bytes of check; the key is
/// four bytes at 19.
const STATION: &str = r#"kind = "length-field"
magic = "2a"
length = { offset = 1, width = 4, endian = "big", adjust = 2 }
key = { offset = 19, length = 4 }"#;

/// One listener, one unpack, one pool.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    top: Vec<String>,
    bind: String,
    listener: Vec<String>,
    unpack: String,
    pool: Vec<String>,
    backends: Vec<(String, String)>,
}

impl Setup {
    /// Sessions of the test framing to these backends, whose ids are `b00` and up. One worker, on a
    /// free port.
    pub(crate) fn new(backends: &[SocketAddr]) -> Self {
        let named = |(index, address): (usize, &SocketAddr)| (id(index), address.to_string());
        Self {
            top: vec!["workers = 1".to_owned()],
            bind: "127.0.0.1:0".to_owned(),
            listener: Vec::new(),
            unpack: STATION.to_owned(),
            pool: Vec::new(),
            backends: backends.iter().enumerate().map(named).collect(),
        }
    }

    /// Adds a line at the top.
    pub(crate) fn top(mut self, line: &str) -> Self {
        self.top.push(line.to_owned());
        self
    }

    /// Replaces the number of workers.
    pub(crate) fn workers(mut self, count: usize) -> Self {
        self.top[0] = format!("workers = {count}");
        self
    }

    /// Replaces the listener's address.
    pub(crate) fn bind(mut self, address: impl Into<String>) -> Self {
        self.bind = address.into();
        self
    }

    /// Adds a line to the listener.
    pub(crate) fn listener(mut self, line: &str) -> Self {
        self.listener.push(line.to_owned());
        self
    }

    /// Replaces the unpack.
    pub(crate) fn unpack(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.unpack);
        self
    }

    /// Adds a line to the pool.
    pub(crate) fn pool(mut self, line: &str) -> Self {
        self.pool.push(line.to_owned());
        self
    }

    /// Takes backend `index` away.
    pub(crate) fn without(mut self, index: usize) -> Self {
        self.backends.retain(|(name, _)| *name != id(index));
        self
    }

    /// Adds a backend by host name.
    pub(crate) fn backend(mut self, name: &str, address: &str) -> Self {
        self.backends.push((name.to_owned(), address.to_owned()));
        self
    }

    /// The file.
    pub(crate) fn render(&self) -> String {
        let mut backends = String::new();
        for (name, address) in &self.backends {
            writeln!(
                backends,
                "  {{ id = \"{name}\", address = \"{address}\" }},"
            )
            .expect("a String takes it");
        }
        format!(
            r#"{top}

[[listener]]
name = "devices"
bind = "{bind}"
unpack = "station"
pool = "stations"
{listener}

[unpack.station]
{unpack}

[[pool]]
name = "stations"
{pool}
backends = [
{backends}]
"#,
            top = self.top.join("\n"),
            bind = self.bind,
            listener = self.listener.join("\n"),
            unpack = self.unpack,
            pool = self.pool.join("\n"),
        )
    }
}

/// The id of backend `index`.
pub(crate) fn id(index: usize) -> String {
    format!("b{index:02}")
}
