//! Child processes, and what the kernel counts about them.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The CPU of the relay, and that of everybody else.
pub(crate) const RELAY_CPU: &str = "0";
pub(crate) const OTHER_CPU: &str = "1";

/// A child that does not outlive this process, however that ends.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    said: Option<BufReader<ChildStdout>>,
    heard: Option<ChildStdin>,
}

impl Process {
    /// Starts a program on a CPU, with its standard input and output for this process.
    pub(crate) fn start(cpu: &str, program: &str, args: &[&str]) -> io::Result<Self> {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "taskset", "-c", cpu, program])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let said = child.stdout.take().map(BufReader::new);
        let heard = child.stdin.take();
        Ok(Self { child, said, heard })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its next line.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        let read = match &mut self.said {
            Some(said) => said.read_line(&mut line)?,
            None => 0,
        };
        if read == 0 {
            return Err(io::Error::other("it ended without a word"));
        }
        Ok(line.trim().to_owned())
    }

    /// Says a line to it.
    pub(crate) fn say(&mut self, line: &str) -> io::Result<()> {
        match &mut self.heard {
            Some(heard) => writeln!(heard, "{line}"),
            None => Ok(()),
        }
    }

    /// Whether it is still there.
    pub(crate) fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.heard = None;
        self.child.wait().map(drop)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.lives() {
            let pid = Pid::from_raw(self.child.id() as i32);
            let _ = kill(pid, Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Moves all threads of a process to a CPU.
///
/// # Errors
/// It has ended, or there is no such CPU.
pub(crate) fn pin(pid: u32, cpu: &str) -> io::Result<()> {
    let status = Command::new("taskset")
        .args(["-a", "-p", "-c", cpu, &pid.to_string()])
        .stdout(Stdio::null())
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other("a process cannot be moved to another CPU")),
    }
}

/// Nanoseconds of CPU that all threads of a process have had.
pub(crate) fn cpu(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0;
    };
    let of = |task: fs::DirEntry| -> Option<u64> {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse().ok()
    };
    tasks.flatten().filter_map(of).sum()
}

/// Anonymous memory of a process, in bytes.
pub(crate) fn memory(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Pipes that a process has open.
pub(crate) fn pipes(pid: u32) -> usize {
    let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return 0;
    };
    let is_pipe = |entry: &fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok();
        target.is_some_and(|target| target.to_string_lossy().starts_with("pipe:"))
    };
    open.flatten().filter(is_pipe).count()
}

/// Counts the system calls of a process until it is asked for them.
#[derive(Debug)]
pub(crate) struct Trace {
    strace: Child,
    file: std::path::PathBuf,
}

impl Trace {
    /// `None` where strace is not installed.
    pub(crate) fn begin(pid: u32) -> Option<Self> {
        let file = std::env::temp_dir().join(format!("versus-{pid}.strace"));
        let strace = Command::new("strace")
            .args(["-c", "-f", "-p", &pid.to_string(), "-o"])
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        // Tracing has begun when the process says so.
        for _ in 0..200 {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let traced = status
                .lines()
                .find_map(|line| line.strip_prefix("TracerPid:"));
            if traced.is_some_and(|by| by.trim() != "0") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Some(Self { strace, file })
    }

    /// How many there were.
    pub(crate) fn end(mut self) -> Option<u64> {
        let pid = Pid::from_raw(self.strace.id() as i32);
        let _ = kill(pid, Signal::SIGINT);
        let _ = self.strace.wait();
        let text = fs::read_to_string(&self.file).ok()?;
        let _ = fs::remove_file(&self.file);
        let total = text.lines().find(|line| line.ends_with("total"))?;
        let mut words = total.split_whitespace();
        words.nth(3)?.parse().ok()
    }
}
