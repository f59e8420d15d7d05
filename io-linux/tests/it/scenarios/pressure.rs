//! Sides that are slow, hasty or urgent.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::support::proc;
use crate::support::site::{Site, Through};
use crate::support::stream::{Stream, frame};

use super::endings::push_until_stuck;
use super::{beside, result};

const MIB: usize = 1024 * 1024;

/// How much tlb may grow while bytes pile up in front of a reader that pauses.
const GROWTH: u64 = 4 * MIB as u64;

/// The client reads nothing for 1.5 s while the backend pushes as much as goes.
pub(crate) fn paused_client(through: Through) {
    let site = Site::new(through);
    let (client, backend) = site.session();
    paused_reader(&site, &backend, &client);
}

/// The backend reads nothing for 1.5 s while the client pushes as much as goes.
pub(crate) fn paused_backend(through: Through) {
    let site = Site::new(through);
    let (client, backend) = site.session();
    paused_reader(&site, &client, &backend);
}

fn paused_reader(site: &Site, writer: &TcpStream, reader: &TcpStream) {
    let stream = Stream::new(5, 64 * MIB);
    let memory = || site.tlb.as_ref().map_or(0, |tlb| proc::resident(tlb.pid()));
    let before = memory();
    thread::scope(|scope| {
        let sent = beside(scope, || push_until_stuck(writer, &stream));
        // The pause is the scenario.
        thread::sleep(Duration::from_millis(1500));
        let sent = result(&sent);
        let during = memory();
        assert!(
            during <= before + GROWTH,
            "tlb grew from {before} to {during} bytes with {sent} bytes before a paused reader"
        );
        let stream = &stream;
        let rest = beside(scope, move || {
            stream.send_from(sent, writer).expect("the writer sends");
            writer.shutdown(Shutdown::Write).expect("the writer's FIN");
        });
        stream.expect_from_then_fin(reader);
        result(&rest);
        let after = memory();
        assert!(
            after <= before + GROWTH,
            "tlb grew from {before} to {after} bytes"
        );
    });
}

/// The backend writes 4 MiB before it reads a byte, while the client is not done with a preface of
/// 4 MiB.
pub(crate) fn backend_talks_first(through: Through) {
    let site = Site::new(through);
    let client = site.connect();
    let forward = Stream::after(frame(11, 4 * MIB), 11, 0);
    let back = Stream::new(12, 4 * MIB);
    thread::scope(|scope| {
        let sent = beside(scope, || forward.send(&client).expect("the client sends"));
        let served = beside(scope, || {
            let (_, backend) = site.farm.accept();
            back.send(&backend).expect("the backend sends");
            forward.expect_from(&backend);
            backend
                .shutdown(Shutdown::Write)
                .expect("the backend's FIN");
            backend
        });
        back.expect_from_then_fin(&client);
        result(&sent);
        let _backend = result(&served);
    });
}

/// Urgent data both ways in mid-stream: every byte arrives in line, and the stream goes on.
pub(crate) fn urgent_data(through: Through) {
    let site = Site::new(through);
    let (client, backend) = site.session();
    for (from, to) in [(&client, &backend), (&backend, &client)] {
        for round in 0..4 {
            let bytes = Stream::new(13 + round, 200_000);
            thread::scope(|scope| {
                let sent = beside(scope, || {
                    bytes.send(from).expect("before the urgent byte");
                    send_urgent(from, b"!");
                    bytes.send(from).expect("after the urgent byte");
                });
                bytes.expect_from(to);
                Stream::after(b"!".to_vec(), 0, 0).expect_from(to);
                bytes.expect_from(to);
                result(&sent);
            });
            // Nothing follows: the mark is the last thing in the queue.
            send_urgent(from, b"?");
            Stream::after(b"?".to_vec(), 0, 0).expect_from(to);
        }
    }
}

/// The first frame has an urgent byte in it.
pub(crate) fn urgent_data_in_the_first_frame(through: Through) {
    let site = Site::new(through);
    let mut client = site.connect();
    let first = frame(14, 64);
    client.write_all(&first[..10]).expect("the frame's start");
    send_urgent(&client, &first[10..11]);
    client.write_all(&first[11..]).expect("the frame's rest");
    let (_, mut backend) = site.farm.accept();
    Stream::after(first, 0, 0).expect_from(&backend);
    backend.write_all(b"answer").expect("the backend answers");
    Stream::after(b"answer".to_vec(), 0, 0).expect_from(&client);
}

fn send_urgent(to: &TcpStream, bytes: &[u8]) {
    let sent = SockRef::from(to)
        .send_out_of_band(bytes)
        .expect("urgent data");
    assert_eq!(sent, bytes.len(), "urgent data is taken as a whole");
}
