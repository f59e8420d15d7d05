use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;

use tokio::runtime;
use tokio::time::timeout;

use super::*;

/// A server for one connection.
fn server(serve: impl FnOnce(std::net::TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        if let Ok((stream, _)) = listener.accept() {
            serve(stream);
        }
    });
    address
}

/// Reads to the end of the stream, or to its reset.
fn linger(mut stream: std::net::TcpStream) {
    let mut rest = [0; 256];
    while matches!(stream.read(&mut rest), Ok(1..)) {}
}

/// `None` if there was no outcome within `within`.
fn outcome_within(kind: &ProbeKind, to: SocketAddr, within: Duration) -> Option<ProbeOutcome> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async { timeout(within, probe(kind, to)).await.ok() })
}

fn outcome(kind: &ProbeKind, to: SocketAddr) -> ProbeOutcome {
    outcome_within(kind, to, Duration::from_secs(20)).expect("an outcome")
}

fn failed(what: &str) -> ProbeOutcome {
    ProbeOutcome::Failed(what.into())
}

fn exchange(send: &str, expect: &str) -> ProbeKind {
    ProbeKind::Exchange {
        send: send.as_bytes().into(),
        expect: Expect::Prefix(expect.as_bytes().into()),
    }
}

fn pattern(expect: &str) -> ProbeKind {
    ProbeKind::Exchange {
        send: Box::default(),
        expect: Expect::Regex(regex::bytes::Regex::new(expect).expect("a regex")),
    }
}

fn http(status: (u16, u16)) -> ProbeKind {
    ProbeKind::Http {
        path: "/health?deep=1".into(),
        host: None,
        status,
    }
}

#[test]
fn a_connection_is_enough_for_tcp_and_is_reset() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let address = server(move |mut stream| {
        let ended = stream.read(&mut [0]).map_err(|error| error.kind());
        sender.send(ended).expect("somebody waits");
    });
    assert_eq!(outcome(&ProbeKind::Tcp, address), ProbeOutcome::Passed);
    let ended = receiver.recv_timeout(Duration::from_secs(20));
    assert_eq!(ended, Ok(Err(io::ErrorKind::ConnectionReset)));

    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = closed.local_addr().expect("an address");
    drop(closed);
    assert_eq!(
        outcome(&ProbeKind::Tcp, address),
        failed("connection refused")
    );
}

#[test]
fn an_answer_is_compared_as_it_comes() {
    let dripping = server(|mut stream| {
        stream.read_exact(&mut [0; 6]).expect("the question");
        for byte in b"+PONG and more" {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
        }
        linger(stream);
    });
    assert_eq!(
        outcome(&exchange("PING\r\n", "+PONG"), dripping),
        ProbeOutcome::Passed
    );

    let wrong = server(|mut stream| {
        stream.write_all(b"-ERR\r\n").expect("a client");
        linger(stream);
    });
    let said = outcome(&exchange("PING\r\n", "+PONG"), wrong);
    assert_eq!(said, failed("expected \"+PONG\", got \"-ERR\\r\\n\""));

    let short = server(|mut stream| {
        stream.write_all(b"+PO").expect("a client");
        stream.shutdown(Shutdown::Write).expect("a client");
        linger(stream);
    });
    assert_eq!(
        outcome(&exchange("", "+PONG"), short),
        failed("expected \"+PONG\", got \"+PO\"")
    );

    let silent = server(|stream| {
        stream.shutdown(Shutdown::Write).expect("a client");
        linger(stream);
    });
    assert_eq!(
        outcome(&exchange("", "+PONG"), silent),
        failed("expected \"+PONG\", got nothing")
    );
}

#[test]
fn a_backend_that_reads_nothing_may_answer_nevertheless() {
    let address = server(|mut stream| {
        stream.write_all(b"220 ready").expect("a client");
        // Until the probe is over; nothing of the question is read.
        while stream.write_all(b".").is_ok() {
            thread::yield_now();
        }
    });
    let much = "x".repeat(32 << 20);
    assert_eq!(
        outcome(&exchange(&much, "220 "), address),
        ProbeOutcome::Passed
    );
}

#[test]
fn a_pattern_is_looked_for_in_the_first_64_kib() {
    let answer = |before: usize| {
        server(move |mut stream| {
            let _ = stream.write_all(&vec![b'.'; before]);
            let _ = stream.write_all(b"state=ok");
            let _ = stream.shutdown(Shutdown::Write);
            linger(stream);
        })
    };
    let kind = pattern("state=(ok|fine)");
    assert_eq!(outcome(&kind, answer(0)), ProbeOutcome::Passed);
    assert_eq!(outcome(&kind, answer(ANSWER_MAX - 8)), ProbeOutcome::Passed);
    let ProbeOutcome::Failed(what) = outcome(&kind, answer(ANSWER_MAX - 7)) else {
        panic!("a byte too late");
    };
    assert!(
        what.starts_with("expected /state=(ok|fine)/, got \"...."),
        "{what}"
    );
}

#[test]
fn an_endless_answer_ends() {
    let address = server(|mut stream| while stream.write_all(&[b'.'; 1000]).is_ok() {});
    assert!(matches!(
        outcome(&pattern("ok"), address),
        ProbeOutcome::Failed(_)
    ));
    let address = server(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 ");
        while stream.write_all(&[b'1'; 1000]).is_ok() {}
    });
    assert!(matches!(
        outcome(&http((200, 399)), address),
        ProbeOutcome::Failed(_)
    ));
}

#[test]
fn whoever_does_not_answer_is_waited_for_until_it_is_given_up() {
    let address = server(linger);
    let none = outcome_within(&exchange("x", "y"), address, Duration::from_millis(50));
    assert_eq!(none, None);
}

#[test]
fn a_status_is_read_from_its_line() {
    let answer = |line: &'static str| {
        server(move |mut stream| {
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("the question");
                question.push(byte[0]);
            }
            let question = String::from_utf8(question).expect("text");
            assert!(question.starts_with("GET /health?deep=1 HTTP/1.1\r\nHost: 127.0.0.1:"));
            let _ = stream.write_all(line.as_bytes());
            let _ = stream.shutdown(Shutdown::Write);
            linger(stream);
        })
    };
    let kind = http((200, 399));
    for (line, expected) in [
        ("HTTP/1.1 200 OK\r\n\r\n", ProbeOutcome::Passed),
        ("HTTP/1.0 399\r\n", ProbeOutcome::Passed),
        ("HTTP/1.1 204 No Content\n", ProbeOutcome::Passed),
        (
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            failed("status 503"),
        ),
        ("HTTP/1.1 400\r\n", failed("status 400")),
        ("HTTP/1.1 199\r\n", failed("status 199")),
        (
            "HTTP/1.1 2x0 OK\r\n",
            failed("expected HTTP, got \"HTTP/1.1 2x0 OK\\r\\n\""),
        ),
        (
            "SSH-2.0-x\r\n",
            failed("expected HTTP, got \"SSH-2.0-x\\r\\n\""),
        ),
        ("", failed("expected HTTP, got nothing")),
    ] {
        assert_eq!(outcome(&kind, answer(line)), expected, "{line:?}");
    }
}
