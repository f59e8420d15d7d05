//! The admin API of a `tlb run`, asked by `tlb ctl` and as Prometheus asks.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;

use crate::support::programs::{free_address, installed};
use crate::support::site::{Site, Through};
use crate::support::{PATIENCE, eventually};

/// A path for a socket, free again when the test ends. Short, as it has to be.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(test: &str) -> Self {
        let name = format!("tlb-it-{test}-{}.sock", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn site(&self) -> Site {
        let bind = format!("bind = \"unix:{}\"", self.0.display());
        Site::with(Through::Copy, |setup| setup.top("[admin]").top(&bind))
    }

    fn ctl(&self, args: &[&str]) -> Output {
        run(ctl(args).env("TLB_ADMIN", format!("unix:{}", self.0.display())))
    }

    /// The API's answer, in JSON.
    #[track_caller]
    fn json(&self, args: &[&str]) -> String {
        let output = self.ctl(&[args, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// `tlb ctl` with these arguments, whatever the environment of the tests says.
fn ctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlb"));
    command.arg("ctl").args(args);
    for variable in ["RUST_LOG", "TLB_ADMIN", "TLB_ADMIN_TOKEN"] {
        command.env_remove(variable);
    }
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("tlb starts")
}

/// The values of a field wherever it is in a JSON text, as they are written there. None of them has a comma in it.
fn values<'a>(json: &'a str, field: &str) -> Vec<&'a str> {
    let field = format!("\"{field}\":");
    let found = json.match_indices(&field);
    let rest = found.map(|(at, _)| &json[at + field.len()..]);
    rest.map(|rest| rest.split([',', '}', ']']).next().unwrap_or_default())
        .collect()
}

#[test]
fn an_operator_sees_what_runs_and_changes_it() {
    let socket = SocketPath::new("operator");
    let site = socket.site();
    let sessions: Vec<_> = (0..3).map(|_| site.session()).collect();

    let pools = socket.json(&["pools"]);
    assert_eq!(values(&pools, "name"), ["\"stations\""]);
    assert_eq!(values(&pools, "id").len(), 16);
    assert_eq!(
        values(&socket.json(&["listeners"]), "name"),
        ["\"devices\""]
    );
    let seen = eventually("all sessions are shown", || {
        let seen = socket.json(&["sessions"]);
        (values(&seen, "phase") == ["\"relaying\""; 3]).then_some(seen)
    });
    assert_eq!(values(&seen, "total"), ["3"]);
    let cut = socket.json(&["sessions", "--limit", "2"]);
    assert_eq!(values(&cut, "phase").len(), 2);
    assert_eq!(values(&cut, "total"), ["3"]);
    let backend = values(&seen, "backend")[0].trim_matches('"');

    for (verb, state) in [("drain", "drain"), ("maint", "maint"), ("ready", "up")] {
        let now = socket.json(&[verb, "stations", backend]);
        assert_eq!(values(&now, "state"), [format!("\"{state}\"")], "{verb}");
        assert_eq!(values(&now, "admin"), [format!("\"{verb}\"")]);
    }
    for args in [["drain", "nowhere", "b00"], ["drain", "stations", "b99"]] {
        let output = socket.ctl(&args);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    assert_eq!(values(&socket.json(&["reload"]), "generation"), ["2"]);
    drop(sessions);
}

/// The metrics, as Prometheus gets them.
#[track_caller]
fn scrape(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: tlb\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

#[test]
fn promtool_is_content_with_a_process() {
    if !installed(&["promtool"]) {
        return;
    }
    let socket = SocketPath::new("promtool");
    let site = socket.site();
    let _live = site.session();
    let text = eventually("the session is counted", || {
        let text = scrape(&socket.0);
        let counted = r#"tlb_listener_connections_active{listener="devices"} 1"#;
        text.lines().any(|line| line == counted).then_some(text)
    });
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut stdin = promtool.stdin.take().expect("stdin is piped");
    stdin.write_all(text.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    assert!(output.status.success(), "{output:?}\n{text}");
}

#[test]
fn the_socket_is_the_groups_and_goes_with_the_process() {
    let socket = SocketPath::new("mode");
    let mut site = socket.site();
    let metadata = fs::symlink_metadata(&socket.0).expect("it is there once tlb listens");
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    let mut tlb = site.tlb.take().expect("a site with tlb");
    tlb.signal(Signal::SIGTERM);
    assert_eq!(tlb.await_exit().code(), Some(0));
    assert!(!socket.0.exists(), "its file is left");
    let output = socket.ctl(&["pools"]);
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}

#[test]
fn a_token_is_asked_for() {
    let address = free_address(9).to_string();
    let bind = format!("bind = \"{address}\"");
    let _site = Site::with(Through::Copy, |setup| {
        let setup = setup.top("[admin]").top(&bind);
        setup.top("token = \"0123456789abcdef\"")
    });
    let args = ["pools", "--admin", &format!("http://{address}")];
    let output = run(&mut ctl(&args));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("TLB_ADMIN_TOKEN"), "{said}");
    let output = run(ctl(&args).env("TLB_ADMIN_TOKEN", "0123456789abcdef"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.starts_with("POOL "), "{shown}");
}
