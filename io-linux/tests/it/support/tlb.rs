//! A `tlb` process and its log.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::setup::Setup;
use super::{PATIENCE, eventually, proc};

/// How many lines of the log a failed test shows.
const TAIL: usize = 60;

/// A running `tlb run`. Killed when dropped; a panicking test shows the end of its log.
#[derive(Debug)]
pub(crate) struct Tlb {
    process: Process,
    log: Log,
    address: SocketAddr,
    config: PathBuf,
}

impl Tlb {
    /// Starts it, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(setup: &Setup) -> Self {
        Self::started(&setup.render(), |config| command(Some("debug"), config))
    }

    /// Starts it with this configuration, by `wrapper` if that is not empty: a program and its
    /// arguments, which runs the command that follows them.
    #[track_caller]
    pub(crate) fn start_text(config: &str, wrapper: &[&str]) -> Self {
        Self::started(config, |config| {
            let tlb = command(Some("info"), config);
            let Some((program, args)) = wrapper.split_first() else {
                return tlb;
            };
            let mut wrapped = Command::new(program);
            wrapped
                .args(args)
                .arg(tlb.get_program())
                .args(tlb.get_args());
            wrapped
        })
    }

    /// Starts it without a log line for each session that ends in order.
    #[track_caller]
    pub(crate) fn start_quiet(setup: &Setup) -> Self {
        Self::started(&setup.render(), |config| command(Some("info"), config))
    }

    /// Starts it with no more than `most` descriptors.
    #[track_caller]
    pub(crate) fn start_with_descriptors(setup: &Setup, most: u32) -> Self {
        Self::started(&setup.render(), |config| {
            let tlb = command(Some("debug"), config);
            let mut limited = Command::new("sh");
            limited
                .args(["-c", &format!("ulimit -n {most}; exec \"$@\""), "sh"])
                .arg(tlb.get_program())
                .args(tlb.get_args());
            limited
        })
    }

    #[track_caller]
    fn started(text: &str, command: impl FnOnce(&Path) -> Command) -> Self {
        let (config, mut process, log) = spawn(text, command);
        let started =
            log.find_or_end(|line| line.contains("listening") && line.contains("address="));
        let Some(line) = started else {
            let status = process.kill();
            panic!("tlb does not listen; {status}; it said:\n{}", log.tail());
        };
        let address = field(&line, "address")
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("no address in: {line}"));
        Self {
            process,
            log,
            address,
            config,
        }
    }

    /// Runs it where it is expected to refuse: its exit status and everything it said.
    #[track_caller]
    pub(crate) fn run_to_end(setup: &Setup) -> (ExitStatus, String) {
        let (config, mut process, log) = spawn(&setup.render(), |config| command(None, config));
        let status = process.await_end();
        log.find_or_end(|_| false);
        let _ = fs::remove_file(config);
        (status, log.tail())
    }

    /// Asks it whether it would run: its exit status and everything it said.
    #[track_caller]
    pub(crate) fn check(setup: &Setup) -> (ExitStatus, String) {
        let (config, mut process, log) = spawn(&setup.render(), |config| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tlb"));
            command.arg("check").arg("-c").arg(config);
            command
        });
        let status = process.await_end();
        log.find_or_end(|_| false);
        let _ = fs::remove_file(config);
        (status, log.tail())
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces its configuration file; it is told by [`Tlb::signal`] or by its API.
    pub(crate) fn rewrite(&self, config: &str) {
        fs::write(&self.config, config).expect("a place for the configuration");
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// What it has logged.
    pub(crate) const fn log(&self) -> &Log {
        &self.log
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, which: Signal) {
        let pid = i32::try_from(self.process.0.id()).expect("process ids are positive");
        signal::kill(Pid::from_raw(pid), which).expect("the child has not been waited for");
    }

    /// Stops it in its tracks, as SIGSTOP does, and waits until it stands.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        proc::await_stopped(self.pid());
    }

    /// Lets it go on after [`Tlb::freeze`].
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub(crate) fn await_exit(&mut self) -> ExitStatus {
        self.process.await_end()
    }

    /// Whether it is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.process.0.try_wait(), Ok(None))
    }

    /// Waits for the end of a session for this reason; its line in the log.
    #[track_caller]
    pub(crate) fn await_closed(&self, reason: &str) -> String {
        let what = format!("a session closed with reason={reason}");
        self.log.await_line(&what, |line| closed_with(line, reason))
    }
}

impl Drop for Tlb {
    fn drop(&mut self) {
        let status = self.process.kill();
        if thread::panicking() {
            eprintln!("tlb: {status}; the end of its log:\n{}", self.log.tail());
        }
        let _ = fs::remove_file(&self.config);
    }
}

/// The binary under test, told to run this file, and to log at this level.
fn command(level: Option<&str>, config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlb"));
    command.arg("run").arg("-c").arg(config);
    command.env_remove("RUST_LOG");
    if let Some(level) = level {
        command.args(["--log-level", level]);
    }
    command
}

fn spawn(text: &str, command: impl FnOnce(&Path) -> Command) -> (PathBuf, Process, Log) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("it-{}-{number}.toml", std::process::id());
    let config = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&config, text).expect("a place for the configuration");
    let mut child = command(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tlb can be run");
    let log = Log::of(child.stderr.take().expect("stderr is piped"));
    (config, Process(child), log)
}

/// A child that does not outlive us, whatever happens.
#[derive(Debug)]
pub(super) struct Process(pub(super) Child);

impl Process {
    #[track_caller]
    fn await_end(&mut self) -> ExitStatus {
        eventually("tlb ends", || self.0.try_wait().expect("our own child"))
    }

    /// Ends it if it has not ended, and reaps it: how it ended.
    fn kill(&mut self) -> String {
        let ended = matches!(self.0.try_wait(), Ok(Some(_)));
        let _ = self.0.kill();
        match self.0.wait() {
            Ok(status) if ended => format!("it had ended by itself with {status}"),
            Ok(_) => "it was still running".to_owned(),
            Err(error) => format!("it cannot be waited for: {error}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether the line tells of a session's end for that reason.
pub(crate) fn closed_with(line: &str, reason: &str) -> bool {
    line.contains("session closed") && field(line, "reason") == Some(reason)
}

/// The value of `name=value` in a log line, without quotes.
pub(crate) fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let start = line
        .match_indices(name)
        .map(|(at, _)| at)
        .find(|&at| line[..at].ends_with(' ') && line[at + name.len()..].starts_with('='))?;
    let value = &line[start + name.len() + 1..];
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split(' ').next(),
    }
}

/// What a process writes to a pipe, line by line.
#[derive(Clone, Debug)]
pub(crate) struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    /// Collects the lines of a pipe until it ends.
    pub(super) fn of(pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                writer
                    .lines
                    .lock()
                    .expect("no panic under it")
                    .lines
                    .push(line);
                writer.changed.notify_all();
            }
            writer.lines.lock().expect("no panic under it").ended = true;
            writer.changed.notify_all();
        });
        Self(shared)
    }

    /// The first line that `wanted` takes, once it is there.
    #[track_caller]
    pub(crate) fn await_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        match self.find_or_end(wanted) {
            Some(line) => line,
            None => panic!("not in the log within {PATIENCE:?}: {what}"),
        }
    }

    /// Every line up to now that `wanted` takes.
    pub(crate) fn lines(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let lines = self.0.lines.lock().expect("no panic under it");
        let wanted = lines.lines.iter().filter(|line| wanted(line));
        wanted.cloned().collect()
    }

    fn find_or_end(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = 0;
        let mut lines = self.0.lines.lock().expect("no panic under it");
        loop {
            if let Some(line) = lines.lines[seen..].iter().find(|line| wanted(line)) {
                return Some(line.clone());
            }
            seen = lines.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.ended || left.is_zero() {
                return None;
            }
            let waited = self.0.changed.wait_timeout(lines, left);
            lines = waited.expect("no panic under it").0;
        }
    }

    fn tail(&self) -> String {
        let lines = self.0.lines.lock().expect("no panic under it");
        let from = lines.lines.len().saturating_sub(TAIL);
        lines.lines[from..].join("\n")
    }
}
