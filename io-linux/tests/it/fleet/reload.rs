//! Reloads under load: what does not change does not notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::eventually;
use crate::support::farm::{Farm, greet_and_echo};
use crate::support::peers::{connect, try_connect};
use crate::support::programs::{Folder, free_address};
use crate::support::stream::frame;
use crate::support::tlb::Tlb;

const SESSIONS: u32 = 1000;
const RELOADS: usize = 50;
const FRAME: usize = 40;

/// A configuration: with a second listener and a third backend, or without.
fn config(
    first: SocketAddr,
    second: Option<SocketAddr>,
    backends: &[SocketAddr],
    admin: &str,
) -> String {
    let listener = |name: &str, bind: SocketAddr| {
        format!(
            "[[listener]]\nname = \"{name}\"\nbind = \"{bind}\"\nunpack = \"station\"\npool = \"stations\"\n"
        )
    };
    let backends: Vec<String> = backends
        .iter()
        .enumerate()
        .map(|(index, address)| format!("{{ id = \"{index}\", address = \"{address}\" }}"))
        .collect();
    format!(
        "workers = 2\n[admin]\nbind = \"unix:{admin}\"\n{}{}\
         [unpack.station]\nkind = \"length-field\"\nmagic = \"2a\"\n\
         length = {{ offset = 1, width = 4, adjust = 2 }}\nkey = {{ offset = 19, length = 4 }}\n\
         [[pool]]\nname = \"stations\"\nbackends = [ {} ]\n",
        listener("first", first),
        second
            .map(|second| listener("second", second))
            .unwrap_or_default(),
        backends.join(", ")
    )
}

fn lives(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    stream.write_all(b"?").is_ok() && stream.read_exact(&mut byte).is_ok() && byte == *b"?"
}

/// The backend that greets, after the frame has come back.
fn greeted(stream: &mut TcpStream, key: u32) -> Option<u8> {
    let mut answer = [0; 1 + FRAME];
    stream.read_exact(&mut answer).ok()?;
    assert_eq!(answer[1..], frame(key, FRAME));
    Some(answer[0])
}

fn reload(admin: &str) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tlb"))
        .args(["ctl", "--admin", &format!("unix:{admin}"), "reload"])
        .env_remove("TLB_ADMIN_TOKEN")
        .output()
        .expect("tlb ctl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn fifty_reloads_cost_nobody_anything() {
    let farm = Farm::new(3).serve(greet_and_echo);
    let (first, second) = (free_address(41), free_address(42));
    let folder = Folder::new("reload");
    let admin = folder.path().join("admin.sock").display().to_string();
    let small = config(first, None, &farm.addresses()[..2], &admin);
    let large = config(first, Some(second), farm.addresses(), &admin);
    let tlb = Tlb::start_text(&small, &[]);
    let mut sessions: Vec<TcpStream> = (0..SESSIONS)
        .map(|key| {
            let mut stream = connect(first);
            stream
                .write_all(&frame(key, FRAME))
                .expect("the client sends");
            greeted(&mut stream, key).expect("it is served");
            stream
        })
        .collect();

    for round in 0..RELOADS {
        let invalid = round == RELOADS / 2;
        let grow = round % 2 == 0;
        // Whoever waits at a listener that goes is served: it has come before.
        let mut waiting = (!grow && !invalid).then(|| {
            let mut stream = connect(second);
            stream
                .write_all(&frame(7, FRAME))
                .expect("the client sends");
            stream
        });
        tlb.rewrite(if invalid {
            "[[listener]]\nname = 3\n"
        } else if grow {
            &large
        } else {
            &small
        });
        let (done, text) = reload(&admin);
        assert_eq!(done, !invalid, "round {round}: {text}");
        if invalid {
            assert!(text.contains("name") && text.contains(":2:"), "{text}");
        }
        if let Some(stream) = &mut waiting {
            assert!(greeted(stream, 7).is_some(), "round {round}: it waited");
        }
        if grow || invalid {
            // Those of the new listener reach all three backends.
            let mut client = connect(second);
            client
                .write_all(&frame(round as u32, FRAME))
                .expect("the client sends");
            assert!(greeted(&mut client, round as u32).is_some());
        } else {
            eventually("the second listener is gone", || {
                try_connect(second).is_err().then_some(())
            });
        }
        for (key, stream) in sessions.iter_mut().enumerate().skip(round % 10).step_by(10) {
            assert!(lives(stream), "round {round}: session {key}");
        }
    }
    for (key, stream) in sessions.iter_mut().enumerate() {
        assert!(lives(stream), "session {key}");
    }
}

#[test]
fn a_signal_reloads_too_and_a_wrong_file_is_told_in_the_log() {
    let farm = Farm::new(2).serve(greet_and_echo);
    let (first, second) = (free_address(43), free_address(44));
    let folder = Folder::new("hup");
    let admin = folder.path().join("admin.sock").display().to_string();
    let tlb = Tlb::start_text(&config(first, None, farm.addresses(), &admin), &[]);
    tlb.rewrite("workers = 0");
    tlb.signal(Signal::SIGHUP);
    tlb.log().await_line("the reload is refused", |line| {
        line.contains("configuration not reloaded")
    });
    tlb.rewrite(&config(first, Some(second), farm.addresses(), &admin));
    tlb.signal(Signal::SIGHUP);
    eventually("the new listener serves", || {
        let mut client = try_connect(second).ok()?;
        client.write_all(&frame(1, FRAME)).ok()?;
        greeted(&mut client, 1)
    });
    // A listener that cannot be opened refuses the whole, and the old ones go on.
    let taken = std::net::TcpListener::bind(free_address(45)).expect("a free address");
    let taken_at = taken.local_addr().expect("bound");
    tlb.rewrite(&config(first, Some(taken_at), farm.addresses(), &admin));
    let (done, text) = reload(&admin);
    assert!(!done && text.contains("cannot listen"), "{text}");
    // So does what this kernel does not have, of a listener that stays.
    let text = config(first, Some(second), farm.addresses(), &admin);
    tlb.rewrite(&text.replace("unpack = ", "congestion = \"no_such\"\nunpack = "));
    let (done, text) = reload(&admin);
    assert!(!done && text.contains("no_such"), "{text}");
    let mut client = connect(second);
    client
        .write_all(&frame(1, FRAME))
        .expect("the client sends");
    assert!(greeted(&mut client, 1).is_some());
}
