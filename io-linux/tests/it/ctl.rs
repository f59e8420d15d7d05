//! `tlb ctl` as its users see it: tables, JSON, messages and exit codes, against an API that says what it is told to.

use std::fs;
use std::io::{BufRead as _, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

use crate::support::programs::Folder;

const EXIT_FAILURE: i32 = 1;
const EXIT_UNAVAILABLE: i32 = 69;

/// Set to write what the tests see over what they expect.
const BLESS: &str = "TLB_BLESS";

fn snapshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/ctl")
}

/// `tlb ctl` with these arguments, whatever the environment of the tests says.
fn ctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tlb"));
    command
        .arg("ctl")
        .args(args)
        .env_remove("RUST_LOG")
        .env_remove("TLB_ADMIN")
        .env_remove("TLB_ADMIN_TOKEN");
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("tlb starts")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

/// An API that answers one request, and returns its head.
struct Api {
    address: String,
    thread: JoinHandle<String>,
}

impl Api {
    fn answering(status: &str, body: &str) -> Self {
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}"
        );
        Self::sending(format!("{head}\r\n\r\n{body}"))
    }

    /// Answers with these bytes, and closes.
    fn sending(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let mut head = String::new();
            let mut lines = BufReader::new(&stream);
            while !head.ends_with("\r\n\r\n") {
                if lines.read_line(&mut head).expect("a line") == 0 {
                    break;
                }
            }
            (&stream).write_all(answer.as_bytes()).expect("sent");
            head
        });
        Self {
            address: format!("http://{address}"),
            thread,
        }
    }

    /// `tlb ctl` with these arguments, asking this API; and the head of its request.
    fn asked(self, args: &[&str], adapt: impl FnOnce(&mut Command)) -> (Output, String) {
        let mut command = ctl(args);
        command.args(["--admin", &self.address]);
        adapt(&mut command);
        let output = run(&mut command);
        (output, self.thread.join().expect("it was asked"))
    }
}

/// What is asked, with what, and which answer is shown.
const SHOWN: [(&str, &[&str], &str, &str); 8] = [
    ("pools", &["pools"], "GET /v1/pools", "pools"),
    ("backends", &["backends"], "GET /v1/pools", "pools"),
    (
        "backends-of-one",
        &["backends", "web / 1"],
        "GET /v1/pools/web%20%2F%201",
        "pool",
    ),
    (
        "listeners",
        &["listeners"],
        "GET /v1/listeners",
        "listeners",
    ),
    (
        "sessions",
        &[
            "sessions",
            "--pool",
            "a&b",
            "--listener",
            "l",
            "--backend",
            "x",
            "--limit",
            "2",
        ],
        "GET /v1/sessions?listener=l&pool=a%26b&backend=x&limit=2",
        "sessions",
    ),
    (
        "drain",
        &["drain", "stations", "b"],
        "POST /v1/pools/stations/backends/b/drain",
        "backend",
    ),
    ("reload", &["reload"], "POST /v1/config/reload", "reload"),
    (
        "reload-nothing",
        &["reload"],
        "POST /v1/config/reload",
        "reload-nothing",
    ),
];

#[test]
fn every_snapshot_is_what_ctl_shows() {
    let directory = snapshots();
    let mut wrong = Vec::new();
    for (name, args, request, answer) in SHOWN {
        let json = fs::read_to_string(directory.join(format!("{answer}.json"))).expect(answer);
        let (output, head) = Api::answering("200 OK", &json).asked(args, |_| {});
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
        assert!(
            head.starts_with(&format!("{request} HTTP/1.1\r\n")),
            "{head}"
        );
        let path = directory.join(format!("{name}.stdout"));
        if std::env::var_os(BLESS).is_some() {
            fs::write(&path, &output.stdout).expect("written");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if stdout(&output) != expected {
            wrong.push(format!("{name}:\n{}", stdout(&output)));
        }
        // The same answer for programs.
        let mut with_json = args.to_vec();
        with_json.push("--json");
        let (output, _) = Api::answering("200 OK", &json).asked(&with_json, |_| {});
        assert_eq!(stdout(&output), json, "{name}");
        assert_eq!(output.status.code(), Some(0), "{name}");
    }
    assert!(
        wrong.is_empty(),
        "not as the snapshots; if they are to change, set {BLESS}=1\n{}",
        wrong.join("\n")
    );
}

#[test]
fn ready_and_maint_are_said() {
    let json = fs::read_to_string(snapshots().join("backend.json")).expect("an answer");
    for verb in ["ready", "maint"] {
        let (output, head) = Api::answering("200 OK", &json).asked(&[verb, "p", "b"], |_| {});
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let request = format!("POST /v1/pools/p/backends/b/{verb} HTTP/1.1\r\n");
        assert!(head.starts_with(&request), "{head}");
    }
}

#[test]
fn the_api_is_found_by_the_environment_and_over_a_unix_socket() {
    let folder = Folder::new("ctl-unix");
    let path = folder.path().join("admin.sock");
    let listener = UnixListener::bind(&path).expect("listening");
    let api = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let mut line = String::new();
        BufReader::new(&stream)
            .read_line(&mut line)
            .expect("a line");
        (&stream)
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
            .expect("sent");
        line
    });
    let address = format!("unix:{}", path.display());
    let output = run(ctl(&["pools", "--json"]).env("TLB_ADMIN", address));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(stdout(&output), "[]\n");
    assert_eq!(
        api.join().expect("it was asked"),
        "GET /v1/pools HTTP/1.1\r\n"
    );
}

#[test]
fn a_token_is_presented() {
    let folder = Folder::new("ctl-token");
    let file = folder.path().join("token");
    fs::write(&file, "of-the-file-0123456\n").expect("a file");
    let from_file = |command: &mut Command| {
        command.arg("--token-file").arg(&file);
    };
    let (output, head) = Api::answering("200 OK", "[]").asked(&["pools"], from_file);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(head.contains("Bearer of-the-file-0123456\r\n"), "{head}");

    let from_both = |command: &mut Command| {
        from_file(command);
        command.env("TLB_ADMIN_TOKEN", "of-the-environment");
    };
    let (_, head) = Api::answering("200 OK", "[]").asked(&["pools"], from_both);
    assert!(head.contains("Bearer of-the-file-0123456\r\n"), "{head}");

    let from_environment = |command: &mut Command| {
        command.env("TLB_ADMIN_TOKEN", "of-the-environment");
    };
    let (_, head) = Api::answering("200 OK", "[]").asked(&["pools"], from_environment);
    assert!(head.contains("Bearer of-the-environment\r\n"), "{head}");

    let (_, head) = Api::answering("200 OK", "[]").asked(&["pools"], |_| {});
    assert!(
        !head.to_ascii_lowercase().contains("authorization"),
        "{head}"
    );
}

/// Fails with this code and says all of this.
#[track_caller]
fn fails(output: &Output, code: i32, texts: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(stdout(output), "");
    let said = stderr(output);
    assert!(said.starts_with("error: "), "{said}");
    for text in texts {
        assert!(said.contains(text), "no {text:?} in: {said}");
    }
}

#[test]
fn a_token_that_cannot_be_had_is_named() {
    let output = run(&mut ctl(&["pools", "--token-file", "/nonexistent/token"]));
    let texts = ["cannot read the token file /nonexistent/token", "help:"];
    fails(&output, EXIT_FAILURE, &texts);
    let output = run(ctl(&["pools"]).env("TLB_ADMIN_TOKEN", "two words"));
    fails(&output, EXIT_FAILURE, &["cannot be sent"]);
}

#[test]
fn what_tlb_refuses_is_said_with_what_to_do() {
    let unauthorized = r#"{"error":"a token is needed"}"#;
    let (output, _) = Api::answering("401 Unauthorized", unauthorized).asked(&["pools"], |_| {});
    let texts = ["a token is needed", "--token-file", "TLB_ADMIN_TOKEN"];
    fails(&output, EXIT_FAILURE, &texts);

    let wrong = r#"{"error":"this is not the token"}"#;
    let (output, _) = Api::answering("401 Unauthorized", wrong).asked(&["pools"], |command| {
        command.env("TLB_ADMIN_TOKEN", "wrong");
    });
    fails(&output, EXIT_FAILURE, &["this is not the token", "[admin]"]);

    let missing = r#"{"error":"there is no pool \"x\""}"#;
    let (output, _) = Api::answering("404 Not Found", missing).asked(&["drain", "x", "a"], |_| {});
    let texts = [r#"there is no pool "x""#, "tlb ctl backends"];
    fails(&output, EXIT_FAILURE, &texts);

    let refused = r#"{"error":"error: unknown key\n --> tlb.toml:3:1"}"#;
    let (output, _) = Api::answering("409 Conflict", refused).asked(&["reload", "--json"], |_| {});
    fails(&output, EXIT_FAILURE, &["unknown key\n --> tlb.toml:3:1"]);
}

#[test]
fn an_answer_of_something_else_is_no_tlb() {
    let page = "<html>";
    for status in ["200 OK", "404 Not Found", "502 Bad Gateway"] {
        let (output, _) = Api::answering(status, page).asked(&["pools"], |_| {});
        fails(
            &output,
            EXIT_FAILURE,
            &["does not answer as tlb's admin API"],
        );
    }
}

#[test]
fn who_cannot_be_reached_is_named() {
    // Nobody else gets a port that is bound, and nobody answers at one that does not listen.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let address: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    socket.bind(&address.into()).expect("a port");
    let address = socket.local_addr().expect("bound").as_socket();
    let address = format!("http://{}", address.expect("an IP address"));
    let output = run(&mut ctl(&["pools", "--admin", &address]));
    let cannot = format!("cannot connect to {address}");
    fails(&output, EXIT_UNAVAILABLE, &[&cannot, "[admin]", "--admin"]);

    let folder = Folder::new("ctl-nobody");
    let address = format!("unix:{}/admin.sock", folder.path().display());
    let output = run(&mut ctl(&["pools", "--admin", &address]));
    let cannot = format!("cannot connect to {address}");
    fails(&output, EXIT_UNAVAILABLE, &[&cannot, "[admin]", "--admin"]);
}

#[test]
fn a_connection_that_ends_early_is_no_answer() {
    for begin in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[",
    ] {
        let (output, _) = Api::sending(begin.to_owned()).asked(&["pools"], |_| {});
        fails(
            &output,
            EXIT_UNAVAILABLE,
            &["no answer from http://127.0.0.1:"],
        );
    }
}
