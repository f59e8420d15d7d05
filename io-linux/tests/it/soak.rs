//! Nothing is left behind by sessions that have ended.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::support::farm::{BACKENDS, Reserved};
use crate::support::setup::Setup;
use crate::support::stream::frame;
use crate::support::tlb::Tlb;
use crate::support::{eventually, peers, proc};

/// Sessions in each half.
const HALF: usize = 50_000;
/// Clients at a time.
const CLIENTS: usize = 8;
/// One session in so many ends in order, which costs two ports for a minute; the others end by the
/// client's reset.
const IN_ORDER: usize = 4;
/// Bytes of a frame.
const FRAME: usize = 25;
/// How much memory the second half may add.
const GROWTH: u64 = 1024 * 1024;

/// Serves one session after the other: a frame, its answer, the end.
fn serve(listener: &TcpListener, stop: &AtomicBool) {
    let mut buffer = [0; 64];
    while let Ok((mut stream, _)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        peers::prepare(&stream).expect("options of a fresh socket");
        if stream.read_exact(&mut buffer[..FRAME]).is_ok() {
            stream
                .write_all(&buffer[19..23])
                .expect("the backend answers");
        }
        // Until the end, of either kind.
        while let Ok(1..) = stream.read(&mut buffer) {}
    }
}

fn session(number: usize, port: u16) {
    // Ports are counted for each pair of addresses: eight of ours are enough for all sessions.
    let last = u8::try_from(1 + number % 8).expect("below nine");
    let entry = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
    let key = u32::try_from(number).expect("numbers of sessions are small");
    let mut stream = peers::connect(entry);
    stream
        .write_all(&frame(key, FRAME))
        .unwrap_or_else(|error| panic!("session {number} cannot send: {error}"));
    let mut answer = [0; 4];
    stream
        .read_exact(&mut answer)
        .unwrap_or_else(|error| panic!("session {number} got no answer: {error}"));
    assert_eq!(answer, key.to_be_bytes(), "the answer to session {number}");
    if number.is_multiple_of(IN_ORDER) {
        stream.shutdown(Shutdown::Write).expect("the client's FIN");
        assert_eq!(
            stream.read(&mut answer).ok(),
            Some(0),
            "session {number}'s end"
        );
    } else {
        peers::reset(stream);
    }
}

/// Sessions `from..from + HALF`, a few at a time.
fn half(from: usize, port: u16) {
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                (from + client..from + HALF)
                    .step_by(CLIENTS)
                    .for_each(|number| session(number, port));
            });
        }
    });
}

#[test]
fn a_hundred_thousand_sessions_leave_nothing_behind() {
    let listeners: Vec<TcpListener> = (0..BACKENDS)
        .map(|index| Reserved::new(index).listen(1024))
        .collect();
    let address = |listener: &TcpListener| listener.local_addr().expect("a bound socket");
    let addresses: Vec<SocketAddr> = listeners.iter().map(address).collect();
    let stop = Arc::new(AtomicBool::new(false));
    for listener in listeners {
        let stop = Arc::clone(&stop);
        thread::spawn(move || serve(&listener, &stop));
    }
    let setup = Setup::new(&addresses).workers(2).bind("0.0.0.0:0");
    let mut tlb = Tlb::start_quiet(&setup);
    let port = tlb.address().port();
    // Some sessions first, for what is opened on first use and kept.
    (0..64).for_each(|number| session(number, port));
    let before = proc::descriptors_at_rest(tlb.pid());
    let settled = || {
        eventually("every descriptor is closed", || {
            (proc::descriptors(tlb.pid()) <= before).then_some(())
        });
        proc::resident(tlb.pid())
    };
    half(0, port);
    let first = settled();
    half(HALF, port);
    let second = settled();
    assert!(
        second <= first + GROWTH,
        "the second {HALF} sessions took memory from {first} to {second} bytes"
    );
    // A session that was left would hold the process until its shutdown-timeout of half a minute.
    tlb.signal(Signal::SIGTERM);
    assert!(tlb.await_exit().success(), "tlb's exit");
    stop.store(true, Ordering::Relaxed);
    for address in addresses {
        // Wakes the backend up, so that it sees that it must stop.
        drop(TcpStream::connect(address));
    }
}
