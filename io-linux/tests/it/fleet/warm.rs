//! Connections that are kept ready, on the real kernel.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::support::PATIENCE;
use crate::support::farm::Farm;
use crate::support::peers::connect;
use crate::support::setup::Setup;
use crate::support::stream::frame;
use crate::support::tlb::Tlb;

const FRAME: usize = 40;

fn tlb(farm: &Farm, relay: &str) -> Tlb {
    let setup = Setup::new(&farm.addresses()).top(&format!("relay = \"{relay}\""));
    Tlb::start(&setup.pool("warm = 1"))
}

fn begin(tlb: &Tlb, key: u32) -> TcpStream {
    let mut client = connect(tlb.address());
    client.write_all(&frame(key, FRAME)).expect("a frame");
    client
}

/// What one end reads next.
fn read(mut stream: &TcpStream, bytes: usize) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut read = vec![0; bytes];
    stream.read_exact(&mut read).expect("bytes");
    read
}

#[test]
fn a_session_goes_by_a_connection_that_was_there_before_it() {
    for relay in ["copy", "splice", "auto"] {
        let farm = Farm::new(1);
        let tlb = tlb(&farm, relay);
        let first = begin(&tlb, 1);
        let (_, cold) = farm.accept();
        assert_eq!(read(&cold, FRAME), frame(1, FRAME));
        // The next session's, of which nothing is known yet: what the backend says first is kept for it.
        let (_, mut warm) = farm.accept();
        warm.set_nonblocking(true).expect("a socket");
        let silent = warm.read(&mut [0]).expect_err("nobody speaks");
        assert_eq!(silent.kind(), ErrorKind::WouldBlock);
        warm.set_nonblocking(false).expect("a socket");
        warm.write_all(b"hello").expect("a greeting");

        let second = begin(&tlb, 2);
        assert_eq!(read(&warm, FRAME), frame(2, FRAME));
        assert_eq!(read(&second, 5), b"hello");
        let (_, next) = farm.accept();
        for (mut client, mut backend) in [(first, cold), (second, warm)] {
            backend.write_all(b"answer").expect("an answer");
            assert_eq!(read(&client, 6), b"answer");
            drop(backend);
            assert_eq!(client.read(&mut [0]).expect("an end"), 0);
        }
        drop(tlb);
        assert_eq!((&next).read(&mut [0]).expect("an end"), 0, "{relay}");
    }
}

#[test]
fn one_that_its_backend_has_closed_costs_the_session_nothing() {
    let farm = Farm::new(1);
    let tlb = tlb(&farm, "auto");
    let _first = begin(&tlb, 1);
    let (_, _cold) = farm.accept();
    for key in 2..10 {
        drop(farm.accept());
        let mut client = begin(&tlb, key);
        let (_, mut backend) = farm.accept();
        assert_eq!(read(&backend, FRAME), frame(key, FRAME));
        backend.write_all(b"!").expect("an answer");
        assert_eq!(read(&client, 1), b"!");
        drop(backend);
        assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    }
}
