//! Configuration files as the binary sees them: every mistake gives its message, its place and exit
//! code 78.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const EXIT_UNAVAILABLE: i32 = 69;
const EXIT_CONFIG: i32 = 78;

/// Set to write what the tests see over what they expect.
const BLESS: &str = "TLB_BLESS";

fn snapshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/config")
}

/// `tlb` with these arguments in `directory`, whatever the environment of the tests says.
fn tlb(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tlb"))
        .args(args)
        .current_dir(directory)
        .env_remove("RUST_LOG")
        .env_remove("TLB_CONFIG")
        .output()
        .expect("tlb starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are UTF-8")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("messages are UTF-8")
}

/// A directory of a test's own, gone when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{test}"));
        // Left over from a run that was killed, or not there.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), content).expect("a file");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_snapshot_is_what_check_says() {
    let directory = snapshots();
    let mut names: Vec<String> = fs::read_dir(&directory)
        .expect("the snapshots")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| !name.ends_with(".stderr"))
        .collect();
    names.sort();
    assert!(names.len() >= 50, "only {} cases", names.len());
    let mut wrong = Vec::new();
    for name in &names {
        let output = tlb(&directory, &["check", "-c", name]);
        let seen = stderr(&output);
        let (stem, _) = name.rsplit_once('.').expect("an extension");
        let file = directory.join(format!("{stem}.stderr"));
        if std::env::var_os(BLESS).is_some() {
            fs::write(&file, &seen).expect("the snapshot is written");
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        let code = if stem.starts_with("warn-") {
            0
        } else {
            EXIT_CONFIG
        };
        if output.status.code() != Some(code) {
            wrong.push(format!("{name}: {}, not {code}\n{seen}", output.status));
        } else if seen != expected {
            wrong.push(format!("{name}: expected\n{expected}\nbut it says\n{seen}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n({BLESS}=1 takes over what is said)",
        wrong.join("\n\n")
    );
}

#[test]
fn run_refuses_what_check_refuses() {
    let check = tlb(&snapshots(), &["check", "-c", "unknown-pool.toml"]);
    let run = tlb(&snapshots(), &["run", "-c", "unknown-pool.toml"]);
    assert_eq!(run.status.code(), Some(EXIT_CONFIG));
    assert_eq!(stderr(&run), stderr(&check));
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_cause() {
    let scratch = Scratch::new("unreadable");
    scratch.write("latin1.toml", b"# caf\xe9\n");
    scratch.write("huge.toml", "#\n".repeat((8 << 20) + 1));
    for (name, message, help) in [
        (
            "none.toml",
            "cannot read none.toml: No such file",
            "TLB_CONFIG",
        ),
        (".", "cannot read .: Is a directory", "regular file"),
        (
            "latin1.toml",
            "latin1.toml is not UTF-8: see line 1",
            "save the file in UTF-8",
        ),
        (
            "huge.toml",
            "huge.toml is larger than 16 MiB",
            "is this the configuration?",
        ),
    ] {
        let output = tlb(&scratch.0, &["check", "-c", name]);
        let seen = stderr(&output);
        assert_eq!(output.status.code(), Some(EXIT_CONFIG), "{seen}");
        assert!(seen.starts_with(&format!("error: {message}")), "{seen}");
        assert!(seen.contains(help), "{seen}");
    }
}

/// The configuration of the README, at another address.
fn station(bind: SocketAddr) -> String {
    let text = include_str!("../../src/config_file/tests/station.toml");
    text.replace("127.0.0.1:8011", &bind.to_string())
}

#[test]
fn a_fine_configuration_is_summed_up() {
    let scratch = Scratch::new("fine");
    scratch.write("fine.toml", station(([127, 0, 0, 1], 0).into()));
    let output = tlb(&scratch.0, &["check", "-c", "fine.toml"]);
    assert_eq!(stderr(&output), "");
    assert_eq!(
        stdout(&output),
        "fine.toml: ok (1 listener, 1 pool, 2 backends)\n"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_file_may_come_from_the_environment() {
    let scratch = Scratch::new("environment");
    scratch.write("fine.toml", station(([127, 0, 0, 1], 0).into()));
    let output = Command::new(env!("CARGO_BIN_EXE_tlb"))
        .arg("check")
        .current_dir(&scratch.0)
        .env("TLB_CONFIG", "fine.toml")
        .output()
        .expect("tlb starts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_port_that_is_taken_is_named_with_its_listener() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    let scratch = Scratch::new("taken");
    scratch.write("taken.toml", station(address));
    let output = tlb(&scratch.0, &["check", "-c", "taken.toml"]);
    let port = address.port();
    assert_eq!(
        stderr(&output),
        format!(
            "error: listener `devices` cannot listen on {address}: \
             Address already in use (os error 98)\n  \
             = help: something listens there already, perhaps another tlb; \
             see it with: ss -ltnp 'sport = :{port}'\n"
        )
    );
    assert_eq!(stdout(&output), "");
    assert_eq!(output.status.code(), Some(EXIT_UNAVAILABLE));
}

#[test]
fn an_address_of_another_host_is_refused() {
    let scratch = Scratch::new("elsewhere");
    scratch.write("elsewhere.toml", station(([192, 0, 2, 1], 8011).into()));
    let output = tlb(&scratch.0, &["check", "-c", "elsewhere.toml"]);
    let seen = stderr(&output);
    assert_eq!(output.status.code(), Some(EXIT_UNAVAILABLE), "{seen}");
    assert!(seen.contains("this host has no such address"), "{seen}");
}

#[test]
fn usage_errors_have_their_own_exit_code_and_help_tells_all_of_them() {
    let here = snapshots();
    for args in [
        &[][..],
        &["serve"],
        &["run"],
        &["check", "-c", "x", "--workers", "1"],
    ] {
        let output = tlb(&here, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains("Usage: tlb"), "{args:?}");
    }
    for args in [&["--help"][..], &["run", "--help"], &["check", "-h"]] {
        let output = tlb(&here, args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        for code in ["  0  ", "  1  ", "  2  ", " 69  ", " 78  "] {
            assert!(stdout(&output).contains(code), "{args:?} {code}");
        }
    }
    let version = format!("tlb {}\n", env!("CARGO_PKG_VERSION"));
    for flag in ["--version", "-V"] {
        assert_eq!(stdout(&tlb(&here, &[flag])), version);
    }
}
