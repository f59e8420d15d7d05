//! A stream ends for the one side as it ended for the other: in order or by a reset, after its last
//! byte.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::site::{Site, Through};
use crate::support::stream::{Checker, End, Stream, frame, rest};
use crate::support::{eventually, peers, proc};

use super::{beside, result};

const MIB: usize = 1024 * 1024;

/// More than the kernel's buffers hold on a way where nobody reads.
const MORE_THAN_FITS: usize = 64 * MIB;

/// The client sends its FIN; the backend answers only after that.
pub(crate) fn client_closes_first(through: Through) {
    let site = Site::new(through);
    let (client, backend) = site.session();
    half_close_then_answer(&client, &backend);
    end_in_log(&site, "completed");
}

/// The backend sends its FIN; the client goes on sending.
pub(crate) fn backend_closes_first(through: Through) {
    let site = Site::new(through);
    let (client, backend) = site.session();
    half_close_then_answer(&backend, &client);
    end_in_log(&site, "completed");
}

fn half_close_then_answer(first: &TcpStream, second: &TcpStream) {
    let question = Stream::new(1, MIB);
    let reply = Stream::new(2, 3 * MIB);
    thread::scope(|scope| {
        let asked = beside(scope, || {
            question.send(first).expect("the first side sends");
            first
                .shutdown(Shutdown::Write)
                .expect("the first side's FIN");
        });
        question.expect_from_then_fin(second);
        result(&asked);
        let replied = beside(scope, || {
            reply.send(second).expect("the second side sends");
            second
                .shutdown(Shutdown::Write)
                .expect("the second side's FIN");
        });
        reply.expect_from_then_fin(first);
        result(&replied);
    });
}

/// Frame, bytes and FIN are all in the queue before anybody looks at it.
pub(crate) fn everything_at_once(through: Through) {
    let site = Site::new(through);
    if let Some(tlb) = &site.tlb {
        tlb.freeze();
    }
    let question = Stream::after(frame(21, 40), 21, 20_000);
    let client = site.connect();
    question.send(&client).expect("the client sends");
    client.shutdown(Shutdown::Write).expect("the client's FIN");
    await_acknowledged(&client);
    if let Some(tlb) = &site.tlb {
        tlb.thaw();
    }
    let (_, mut backend) = site.farm.accept();
    question.expect_from_then_fin(&backend);
    backend.write_all(b"answer").expect("the backend answers");
    drop(backend);
    Stream::after(b"answer".to_vec(), 0, 0).expect_from_then_fin(&client);
    end_in_log(&site, "completed");
}

/// A client's reset reaches the backend as one, after the bytes before it.
pub(crate) fn client_resets(through: Through) {
    let site = Site::new(through);
    let (client, backend) = site.session();
    reset_after_bytes(client, &backend);
    end_in_log(&site, "client-reset");
}

/// A backend's reset reaches the client as one, after the bytes before it.
pub(crate) fn backend_resets(through: Through) {
    let site = Site::new(through);
    let (client, backend) = site.session();
    reset_after_bytes(backend, &client);
    end_in_log(&site, "backend-reset");
}

fn reset_after_bytes(from: TcpStream, to: &TcpStream) {
    // Fits into the window of a socket that nobody reads.
    let stream = Stream::new(3, 30_000);
    stream.send(&from).expect("the side that resets sends");
    await_acknowledged(&from);
    peers::reset(from);
    stream.expect_from(to);
    assert_eq!(rest(to), (Vec::new(), End::Reset), "after the exact bytes");
}

/// A client resets while the backend is behind with reading: what the client's peer had taken still
/// arrives.
pub(crate) fn client_resets_behind_a_backlog(through: Through) {
    let site = Site::new(through);
    let (client, backend) = site.session();
    reset_behind_a_backlog(client, &backend);
    end_in_log(&site, "client-reset");
}

/// A backend resets while the client is behind with reading: what the backend's peer had taken
/// still arrives.
pub(crate) fn backend_resets_behind_a_backlog(through: Through) {
    let site = Site::new(through);
    let (client, backend) = site.session();
    reset_behind_a_backlog(backend, &client);
    end_in_log(&site, "backend-reset");
}

fn reset_behind_a_backlog(from: TcpStream, to: &TcpStream) {
    let stream = Stream::new(4, MORE_THAN_FITS);
    let sent = push_until_stuck(&from, &stream);
    // A reset destroys what its sender still holds; everything else has been taken over.
    let delivered = sent - proc::unacknowledged(&from);
    peers::reset(from);
    let mut checker = Checker::new(&stream);
    let end = checker.read(to, delivered);
    assert_eq!(
        end,
        None,
        "ended after {} bytes; {sent} were sent, and {delivered} of them acknowledged",
        checker.offset()
    );
    // Nobody can say how much of the unacknowledged rest made it.
    let end = checker.read(to, MORE_THAN_FITS);
    assert_eq!(end, Some(End::Reset), "after {} bytes", checker.offset());
    assert!(checker.offset() <= sent, "bytes that nobody sent");
}

/// Sends as much of the stream as goes without anybody reading; how much.
#[track_caller]
pub(super) fn push_until_stuck(mut to: &TcpStream, stream: &Stream) -> usize {
    /// Without progress for so long, the way counts as full.
    const STUCK: Duration = Duration::from_millis(300);
    to.set_nonblocking(true).expect("a socket");
    let mut buffer = vec![0; 64 * 1024];
    let mut sent = 0;
    let mut progress = Instant::now();
    while sent < stream.len() && progress.elapsed() < STUCK {
        let count = stream.read_at(sent, &mut buffer);
        match to.write(&buffer[..count]) {
            Ok(taken) => {
                sent += taken;
                progress = Instant::now();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("write failed after {sent} bytes: {error}"),
        }
    }
    to.set_nonblocking(false).expect("a socket");
    assert!(
        sent < stream.len(),
        "{sent} bytes went although nobody reads: no back-pressure"
    );
    sent
}

/// Waits until the peer's kernel has everything.
fn await_acknowledged(stream: &TcpStream) {
    eventually("the peer's kernel acknowledges everything", || {
        (proc::unacknowledged(stream) == 0).then_some(())
    });
}

fn end_in_log(site: &Site, reason: &str) {
    if let Some(tlb) = &site.tlb {
        tlb.await_closed(reason);
    }
}
