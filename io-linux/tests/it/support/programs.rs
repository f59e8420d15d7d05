//! Programs that nobody here wrote, as backends and as clients.

use std::env;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::PATIENCE;
use super::tlb::{Log, Process};

/// Set to `1`, a missing program is a failure.
pub(super) const REQUIRE: &str = "TLB_REQUIRE_PROGRAMS";

/// Whether all these programs can be run. If not, the test says so on the real stderr and is to
/// pass without doing anything, unless `TLB_REQUIRE_PROGRAMS=1`.
#[track_caller]
pub(crate) fn installed(programs: &[&str]) -> bool {
    for program in programs {
        let asked = Command::new(program)
            .arg("--version")
            .stdin(Stdio::null())
            .output();
        if asked.is_err() {
            assert!(
                env::var_os(REQUIRE).is_none_or(|value| value != "1"),
                "{program} is not installed, and {REQUIRE}=1"
            );
            // Not `eprintln`, which the test runner keeps to itself when a test passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {program} is not installed");
            return false;
        }
    }
    true
}

/// A free port on a loopback address that only this process's programs use. `number` tells the
/// programs of one test apart.
#[track_caller]
pub(crate) fn free_address(number: u8) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 70 + number, high, low.clamp(1, 254));
    let probe = TcpListener::bind(SocketAddrV4::new(ip, 0)).expect("a free port");
    probe.local_addr().expect("a bound socket")
}

/// A folder that everybody may look into, and that is gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    #[track_caller]
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("tlb-it-{name}-{}", std::process::id());
        let path = env::temp_dir().join(name);
        // Left over from a run that was killed, or not there.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder of one's own");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A leftover harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A program that serves until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    _process: Process,
    log: Log,
}

impl Server {
    /// Starts it, and waits until it has printed `ready` to its stdout.
    #[track_caller]
    pub(crate) fn start(command: &mut Command, ready: &str) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let log = Log::of(child.stdout.take().expect("stdout is piped"));
        let server = Self {
            _process: Process(child),
            log,
        };
        let what = format!("{ready:?} of {command:?}");
        server.log.await_line(&what, |line| line.contains(ready));
        server
    }

    /// How many lines with `text` it has printed to its stdout.
    pub(crate) fn printed(&self, text: &str) -> usize {
        self.log.lines(|line| line.contains(text)).len()
    }
}

/// The same command with its stderr where its stdout goes.
pub(crate) fn as_stdout(command: &Command) -> Command {
    let mut merged = Command::new("sh");
    merged
        .args(["-c", "exec \"$@\" 2>&1", "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    merged
}

/// Runs a program that ends by itself, and returns what it printed.
///
/// # Panics
///
/// When it fails or does not end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    run_with(command, Stdio::null())
}

/// As [`run`], with something on its stdin.
#[track_caller]
pub(crate) fn run_with(command: &mut Command, stdin: Stdio) -> String {
    let child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids are positive"));
    let (sender, ended) = mpsc::channel();
    let waiter = thread::spawn(move || sender.send(child.wait_with_output()));
    let in_time = ended.recv_timeout(PATIENCE);
    if in_time.is_err() {
        // Not reaped yet, or the waiter would have told us: the id is still its own.
        let _ = signal::kill(pid, Signal::SIGKILL);
    }
    let sent = waiter.join().expect("the waiter does not panic");
    let output = match in_time {
        Ok(output) => output.expect("our own child can be waited for"),
        Err(_) => panic!("{command:?} does not end; {sent:?}"),
    };
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{command:?} failed with {status}:\n{stdout}\n{}",
        String::from_utf8_lossy(&stderr)
    );
    stdout
}
