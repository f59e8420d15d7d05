//! Probes: each kind against a server that is what it is for.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};

use crate::support::eventually;
use crate::support::farm::Farm;
use crate::support::programs::{Folder, free_address, installed};
use crate::support::setup::Setup;
use crate::support::tlb::Tlb;

const QUICK: &str = "interval = \"50ms\", timeout = \"2s\"";

fn changes(tlb: &Tlb) -> Vec<String> {
    let lines = tlb.log().lines(|line| {
        line.contains("tlb::control")
            && (line.contains("backend down") || line.contains("backend up"))
    });
    lines
        .iter()
        .map(|line| {
            let state = if line.contains("backend down") {
                "down"
            } else {
                "up"
            };
            let cause = line.split("cause=").nth(1).unwrap_or_default();
            format!("{state}: {cause}")
        })
        .collect()
}

#[track_caller]
fn await_change(tlb: &Tlb, which: usize) -> String {
    eventually("a backend's state changes", || {
        changes(tlb).get(which).cloned()
    })
}

struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(program: &str, args: &[&str]) -> Served {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Served(child.expect("the program starts"))
}

#[test]
fn redis_is_asked_for_a_pong() {
    if !installed(&["redis-server"]) {
        return;
    }
    let address = free_address(31);
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let start = || {
        let args = [
            "--bind",
            &host,
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        spawn("redis-server", &args)
    };
    let health = format!(
        "health = {{ kind = \"send-expect\", send = \"PING\\r\\n\", expect = \"+PONG\", {QUICK} }}"
    );
    let redis = start();
    let tlb = Tlb::start(&Setup::new(&[address]).pool(&health));
    drop(redis);
    let down = await_change(&tlb, 0);
    assert!(
        down.starts_with("down: ") && down.contains("refused"),
        "{down}"
    );
    let _redis = start();
    assert_eq!(await_change(&tlb, 1), "up: probe passed");
}

#[test]
fn a_web_server_is_asked_for_its_status() {
    if !installed(&["python3"]) {
        return;
    }
    let address = free_address(32);
    let folder = Folder::new("web");
    let page = folder.path().join("health");
    fs::write(&page, "well").expect("a page");
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let root = folder.path().display().to_string();
    let args = [
        "-m",
        "http.server",
        "--bind",
        &host,
        "--directory",
        &root,
        &port,
    ];
    let _web = spawn("python3", &args);
    let health =
        format!("health = {{ kind = \"http\", path = \"/health\", status = \"200\", {QUICK} }}");
    let tlb = Tlb::start(&Setup::new(&[address]).pool(&health));
    // It may take longer to begin than the probes have patience.
    eventually("the web server serves", || {
        std::net::TcpStream::connect(address).ok()
    });
    eventually("it is up", || {
        let last = changes(&tlb).pop();
        last.is_none_or(|last| last.starts_with("up")).then_some(())
    });
    let seen = changes(&tlb).len();
    fs::remove_file(&page).expect("it is there");
    assert!(await_change(&tlb, seen).contains("status 404"));
    fs::write(&page, "well").expect("a page");
    assert_eq!(await_change(&tlb, seen + 1), "up: probe passed");
}

#[test]
fn rise_and_fall_are_exact() {
    let farm = Farm::new(1);
    let health = format!(
        "health = {{ kind = \"send-expect\", send = \"?\", expect = \"ok\", rise = 2, fall = 3, {QUICK} }}"
    );
    let tlb = Tlb::start(&Setup::new(&farm.addresses()).pool(&health));
    // One probe after the other: what each is told, and what has been said before it comes.
    let answer = |well: bool| {
        let (_, mut stream) = farm.accept();
        stream.read_exact(&mut [0]).expect("the question");
        // This one comes after those before it were judged, and is not judged itself before it has its answer.
        let said = changes(&tlb).len();
        stream
            .write_all(if well { b"ok" } else { b"no" })
            .expect("a probe");
        let _ = stream.read(&mut [0]);
        said
    };
    for (well, before) in [
        (true, 0),
        (false, 0),
        (false, 0),
        (true, 0),
        (false, 0),
        (false, 0),
        (false, 0),
    ] {
        assert_eq!(answer(well), before, "fall - 1 in a row do nothing");
    }
    assert!(await_change(&tlb, 0).starts_with("down: "), "fall do");
    for well in [true, false, true] {
        assert_eq!(answer(well), 1, "rise - 1 in a row do nothing");
    }
    answer(true);
    assert_eq!(await_change(&tlb, 1), "up: probe passed");
}
