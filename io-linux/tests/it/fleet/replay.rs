//! First-frame replay: a backend that ends before its first byte costs the client nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::PATIENCE;
use crate::support::farm::{Farm, Serving};
use crate::support::peers::connect;
use crate::support::setup::Setup;
use crate::support::stream::frame;
use crate::support::tlb::{Tlb, field};

const FRAME: usize = 40;

/// What backend 1 does once it has read so many bytes.
#[derive(Clone, Copy, Debug)]
struct Death {
    reads: usize,
    answers: &'static [u8],
    resets: bool,
}

/// Backend 1 dies as told, and says so; the others answer with their number and the frame.
fn farm(death: Death, dead: Sender<()>) -> Serving {
    let dead = Arc::new(Mutex::new(dead));
    Farm::new(3).serve(move |index, mut stream| {
        let mut bytes = vec![0; if index == 1 { death.reads } else { FRAME }];
        if stream.read_exact(&mut bytes).is_err() {
            return;
        }
        if index == 1 {
            let _ = stream.write_all(death.answers);
            if death.resets {
                let socket = socket2::SockRef::from(stream);
                let _ = socket.set_linger(Some(Duration::ZERO));
            }
            let _ = dead.lock().expect("no panic").send(());
            return;
        }
        let _ = stream.write_all(&[index as u8]);
        let _ = stream.write_all(&bytes);
        let _ = stream.read(&mut [0]);
    })
}

fn front(farm: &Serving, relay: &str) -> Tlb {
    let setup = Setup::new(farm.addresses())
        .top(&format!("relay = \"{relay}\""))
        .listener("replay-first-frame = true")
        // Its failures are to be met again and again.
        .pool("fall = 1000000");
    Tlb::start(&setup)
}

/// What a client gets that sends its frame, and perhaps its end: all until the session ends or the
/// answer is whole.
fn ask(tlb: &Tlb, key: u32, ends: bool) -> Vec<u8> {
    let mut stream = connect(tlb.address());
    stream
        .write_all(&frame(key, FRAME))
        .expect("the client sends");
    if ends {
        stream.shutdown(Shutdown::Write).expect("the client's FIN");
    }
    read(&mut stream)
}

fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut chunk = [0; 100];
    while answer.len() < 1 + FRAME {
        match stream.read(&mut chunk) {
            Ok(count @ 1..) => answer.extend_from_slice(&chunk[..count]),
            _ => break,
        }
    }
    answer
}

#[test]
fn everybody_gets_an_answer_from_the_next_owner() {
    for (relay, resets, ends) in [
        ("copy", false, false),
        ("splice", true, false),
        ("auto", true, true),
        ("auto", false, true),
    ] {
        let (sender, died) = channel();
        let death = Death {
            reads: FRAME,
            answers: b"",
            resets,
        };
        let farm = farm(death, sender);
        let tlb = front(&farm, relay);
        for key in 0..100 {
            let answer = ask(&tlb, key, ends);
            assert_eq!(answer.len(), 1 + FRAME, "key {key}, {relay}: an answer");
            assert_eq!(answer[1..], frame(key, FRAME), "key {key}");
            assert_ne!(answer[0], 1, "key {key}");
        }
        let deaths = died.try_iter().count();
        assert!(deaths > 15, "backend 1 was met {deaths} times");
    }
}

/// With nobody left to ask, the end is what it is.
#[test]
fn how_the_last_one_ends_is_passed_on() {
    for resets in [false, true] {
        let farm = Farm::new(2).serve(move |_, mut stream| {
            let _ = stream.read_exact(&mut [0; FRAME]);
            if resets {
                let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        });
        let setup = Setup::new(farm.addresses())
            .listener("replay-first-frame = true")
            .pool("retries = 1");
        let tlb = Tlb::start(&setup);
        let mut stream = connect(tlb.address());
        stream
            .write_all(&frame(7, FRAME))
            .expect("the client sends");
        match stream.read(&mut [0]) {
            Ok(0) => assert!(!resets, "a reset became a FIN"),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => assert!(resets),
            other => panic!("{other:?}"),
        }
        drop(stream);
        let line = tlb.await_closed(if resets { "backend-reset" } else { "completed" });
        assert_eq!(field(&line, "attempts"), Some("2"), "in: {line}");
    }
}

/// A key that backend 1 owns: its answer tells.
fn key_of_backend_1(tlb: &Tlb, died: impl Fn() -> bool) -> u32 {
    let is_its = |key: &u32| {
        ask(tlb, *key, false);
        died()
    };
    (0..100).find(is_its).expect("it owns a key")
}

#[test]
fn one_byte_of_the_backend_ends_it() {
    let (sender, died) = channel();
    let death = Death {
        reads: FRAME,
        answers: b"!",
        resets: false,
    };
    let farm = farm(death, sender);
    let tlb = front(&farm, "auto");
    let key = key_of_backend_1(&tlb, || died.try_recv().is_ok());
    assert_eq!(ask(&tlb, key, false), b"!", "the byte, and the end");
    let line = tlb.await_closed("completed");
    assert_eq!(field(&line, "attempts"), Some("1"), "in: {line}");
}

#[test]
fn one_more_byte_of_the_client_ends_it() {
    // Backend 1 waits for the byte; of the others nobody is asked.
    let (sender, died) = channel();
    let death = Death {
        reads: FRAME + 1,
        answers: b"",
        resets: false,
    };
    let farm = farm(death, sender);
    let tlb = front(&farm, "auto");
    let mut ended = 0;
    for key in 0..100 {
        let mut stream = connect(tlb.address());
        stream
            .write_all(&frame(key, FRAME))
            .expect("the client sends");
        // Whoever answers the frame alone is another backend.
        stream
            .set_read_timeout(Some(PATIENCE / 100))
            .expect("a socket");
        if !read(&mut stream).is_empty() {
            continue;
        }
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.write_all(b"+").expect("the client sends");
        assert_eq!(read(&mut stream), b"", "key {key}: nobody else answers");
        died.recv_timeout(PATIENCE).expect("backend 1 read it all");
        ended += 1;
        if ended == 3 {
            break;
        }
    }
    assert_eq!(ended, 3, "backend 1 owns keys");
    assert!(died.try_recv().is_err(), "each was asked once");
}

#[test]
fn without_the_listeners_leave_nothing_is_replayed() {
    let (sender, died) = channel();
    let death = Death {
        reads: FRAME,
        answers: b"",
        resets: false,
    };
    let farm = farm(death, sender);
    let tlb = Tlb::start(&Setup::new(farm.addresses()).pool("fall = 1000000"));
    let lost = (0..50)
        .filter(|&key| ask(&tlb, key, false).is_empty())
        .count();
    assert_eq!(died.try_iter().count(), lost);
    assert!(lost > 5, "backend 1 owns keys");
}
