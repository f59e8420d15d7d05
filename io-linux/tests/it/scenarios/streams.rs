//! Bytes arrive as they were sent, however they are cut.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::farm::BACKENDS;
use crate::support::rng::Rng;
use crate::support::site::{Site, Through};
use crate::support::stream::{Stream, frame};

use super::{beside, result};

const MIB: usize = 1024 * 1024;

/// 20 MB each way at once.
pub(crate) fn one_large_stream(through: Through) {
    let site = Site::new(through);
    let forward = Stream::after(frame(1, 60), 1, 20_000_000);
    let back = Stream::new(2, 20_000_000);
    let client = site.connect();
    thread::scope(|scope| {
        let sent = beside(scope, || {
            forward.send(&client).expect("the client sends");
            client.shutdown(Shutdown::Write).expect("the client's FIN");
        });
        let (_, backend) = site.farm.accept();
        thread::scope(|scope| {
            let answered = beside(scope, || {
                back.send(&backend).expect("the backend sends");
                backend
                    .shutdown(Shutdown::Write)
                    .expect("the backend's FIN");
            });
            let received = beside(scope, || forward.expect_from_then_fin(&backend));
            back.expect_from_then_fin(&client);
            result(&answered);
            result(&received);
        });
        result(&sent);
    });
}

/// Sixteen clients get 4 MB each echoed, written and read in pieces of random sizes.
pub(crate) fn echo_in_random_pieces(through: Through) {
    let mut rng = Rng::from_env();
    let site = Site::new(through);
    thread::scope(|scope| {
        let mut done = Vec::new();
        for number in 0..BACKENDS {
            let client = site.connect();
            let mut writes = rng.fork();
            let key = u32::try_from(number).expect("a small number");
            let head = frame(key, 25 + rng.size(4000));
            let stream = Stream::after(head, rng.next(), 4 * MIB);
            done.push(beside(scope, move || {
                thread::scope(|scope| {
                    let sent = beside(scope, || {
                        stream
                            .send_chopped(&client, &mut writes)
                            .expect("the client sends");
                        client.shutdown(Shutdown::Write).expect("the client's FIN");
                    });
                    stream.expect_from_then_fin(&client);
                    result(&sent);
                });
            }));
        }
        for _ in 0..BACKENDS {
            let (_, backend) = site.farm.accept();
            let sizes = rng.fork();
            beside(scope, move || echo(&backend, sizes));
        }
        for outcome in &done {
            result(outcome);
        }
    });
}

/// Sends back what comes, in reads of random sizes, and its end.
fn echo(stream: &TcpStream, mut sizes: Rng) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let most = sizes.size(buffer.len());
        let (mut reader, mut writer) = (stream, stream);
        let count =
            std::io::Read::read(&mut reader, &mut buffer[..most]).expect("the backend reads");
        if count == 0 {
            return;
        }
        writer
            .write_all(&buffer[..count])
            .expect("the backend echoes");
    }
}

/// The first frame comes as one segment for each byte.
pub(crate) fn frame_byte_by_byte(through: Through) {
    let site = Site::new(through);
    let mut client = site.connect();
    let first = frame(7, 48);
    for byte in &first {
        client.write_all(&[*byte]).expect("the client sends a byte");
        // The pace of the scenario, so that the bytes are not read as one: nothing depends on it.
        thread::sleep(Duration::from_millis(2));
    }
    let (_, mut backend) = site.farm.accept();
    Stream::after(first, 0, 0).expect_from(&backend);
    answer(&mut backend, &client);
}

/// The first frame and 1000 bytes more come as one segment.
pub(crate) fn frame_and_more_in_one_segment(through: Through) {
    let site = Site::new(through);
    let mut client = site.connect();
    let stream = Stream::after(frame(8, 100), 8, 1000);
    let mut segment = vec![0; stream.len()];
    stream.read_at(0, &mut segment);
    client.write_all(&segment).expect("the client sends");
    let (_, mut backend) = site.farm.accept();
    stream.expect_from(&backend);
    answer(&mut backend, &client);
}

/// The first frame is 1 MiB long: more than a preread may hold.
pub(crate) fn large_first_frame(through: Through) {
    let site = Site::new(through);
    let client = site.connect();
    let first = Stream::after(frame(9, MIB), 0, 0);
    thread::scope(|scope| {
        let sent = beside(scope, || first.send(&client).expect("the client sends"));
        let (_, mut backend) = site.farm.accept();
        first.expect_from(&backend);
        result(&sent);
        answer(&mut backend, &client);
    });
}

/// Three connections with their frames wait in the accept queue before anybody looks at it.
pub(crate) fn three_wait_before_the_first_poll(through: Through) {
    let site = Site::new(through);
    if let Some(tlb) = &site.tlb {
        tlb.freeze();
    }
    let first = frame(3, 32);
    let mut clients: Vec<TcpStream> = (0..3).map(|_| site.connect()).collect();
    for client in &mut clients {
        client.write_all(&first).expect("the client sends");
    }
    if let Some(tlb) = &site.tlb {
        tlb.thaw();
    }
    let expected = Stream::after(first, 0, 0);
    for _ in 0..clients.len() {
        let (_, mut backend) = site.farm.accept();
        expected.expect_from(&backend);
        backend.write_all(b"served").expect("the backend answers");
    }
    let served = Stream::after(b"served".to_vec(), 0, 0);
    for client in &clients {
        served.expect_from_then_fin(client);
    }
}

/// The way back works too.
#[track_caller]
fn answer(backend: &mut TcpStream, client: &TcpStream) {
    backend.write_all(b"answer").expect("the backend answers");
    Stream::after(b"answer".to_vec(), 0, 0).expect_from(client);
}
