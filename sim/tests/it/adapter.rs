//! The sockets themselves, without an engine: what a kernel would do, they do.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tlb_engine::api::{Close, Fault};
use tlb_engine::drive::{Accept, Connect, First, Io, Outcome, Readiness, Via};
use tlb_engine::ids::{Dir, ListenerId, SessionId, Side, SocketId};
use tlb_engine::rng::Rng;
use tlb_sim::net::{Chunker, Chunking, Net, Resets};
use tlb_sim::trace::Trace;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};

const PORT: u16 = 8011;
const BACK: u16 = 7001;
const SESSION: SessionId = SessionId::new(0, 1);
/// Segments of a window.
const WINDOW: usize = 8;

/// Runs `lb`, which has the sockets, and `peer`, which connects to it and listens at [`BACK`]. A
/// segment takes at most 2 ms.
fn play(
    lb: impl AsyncFnOnce(Net) + 'static,
    peer: impl AsyncFnOnce(TcpStream, TcpListener, Resets) + 'static,
) {
    let mut sim: Sim<'_> = Builder::new()
        .epoch(SystemTime::UNIX_EPOCH)
        .rng_seed(1)
        .max_message_latency(Duration::from_millis(2))
        .tcp_capacity(WINDOW)
        .build();
    let resets = Resets::default();
    let theirs = resets.clone();
    sim.client("lb", async move {
        let chunks = Chunker::new(Chunking::Whole, Rng::new(1));
        let net = Net::bind("lb".into(), &[PORT], chunks, resets, Trace::default());
        lb(net.await?).await;
        Ok(())
    });
    sim.client("peer", async move {
        let listener = TcpListener::bind(("0.0.0.0", BACK)).await?;
        let stream = TcpStream::connect(("lb", PORT)).await?;
        peer(stream, listener, theirs).await;
        Ok(())
    });
    sim.run().expect("both come to their end");
}

/// Long enough for whatever is on its way.
async fn settle() {
    sleep(Duration::from_millis(20)).await;
}

async fn event(net: &Net) {
    poll_fn(|cx| net.hub().poll(cx)).await;
}

/// Accepts one connection as [`SESSION`].
async fn adopt(net: &mut Net) {
    loop {
        match net.accept(ListenerId(0)) {
            Accept::Conn(conn, _) => return net.adopt(SESSION, conn).expect("it is adopted"),
            Accept::WouldBlock => event(net).await,
            other => panic!("{other:?}"),
        }
    }
}

/// Begins to connect to the peer.
fn connect(net: &mut Net) {
    let to = SocketAddr::new(turmoil::lookup("peer"), BACK);
    assert_eq!(
        net.connect(SESSION, 0, to, None, First::default()),
        Ok(Connect::InProgress)
    );
}

async fn established(net: &mut Net) {
    while net.connected(SESSION).expect("nobody refuses") == Connect::InProgress {
        event(net).await;
    }
}

/// The hint for a socket among the events of now.
fn hint(net: &mut Net, socket: SocketId) -> Option<Readiness> {
    let events = net.take_ready();
    let event = events.into_iter().find(|(id, _)| *id == socket);
    event.map(|(_, readiness)| readiness)
}

fn client_hint(net: &mut Net) -> Option<Readiness> {
    hint(net, SocketId::client(SESSION))
}

const fn moved(bytes: usize, short: bool) -> Outcome {
    Outcome::Moved { bytes, short }
}

#[test]
fn events_come_once_for_something_new() {
    play(
        async |mut net| {
            adopt(&mut net).await;
            settle().await;
            assert!(client_hint(&mut net).is_some_and(|hint| hint.readable && hint.writable));
            let mut buf = [0; 4];
            // A full read proves nothing and brings no event; a short one says that there is no
            // more.
            assert_eq!(net.recv(SESSION, &mut buf), moved(4, false));
            assert_eq!(net.recv(SESSION, &mut buf), moved(4, false));
            assert_eq!(net.recv(SESSION, &mut buf), moved(2, true));
            assert_eq!(net.recv(SESSION, &mut buf), Outcome::WouldBlock);
            assert_eq!(client_hint(&mut net), None);
            // Data and FIN that come together are one event, which announces the end.
            settle().await;
            let hint = client_hint(&mut net).expect("something new has come");
            assert!(hint.readable && hint.read_closed && !hint.error);
            assert_eq!(net.recv(SESSION, &mut buf), moved(3, true));
            assert_eq!(client_hint(&mut net), None);
            assert_eq!(net.recv(SESSION, &mut buf), Outcome::Eof);
        },
        async |mut stream, _, _| {
            stream.write_all(b"ten bytes!").await.expect("sent");
            sleep(Duration::from_millis(25)).await;
            stream.write_all(b"end").await.expect("sent");
            stream.shutdown().await.expect("sent");
            settle().await;
        },
    );
}

#[test]
fn a_reset_is_told_once_and_after_the_bytes_before_it() {
    play(
        async |mut net| {
            adopt(&mut net).await;
            settle().await;
            assert!(client_hint(&mut net).is_some_and(|hint| hint.error && hint.readable));
            let mut buf = [0; 16];
            assert_eq!(net.recv(SESSION, &mut buf), moved(4, true));
            assert_eq!(net.recv(SESSION, &mut buf), Outcome::Broken(Fault::Reset));
            assert_eq!(net.recv(SESSION, &mut buf), Outcome::Eof);
            assert_eq!(net.take_error(SESSION, Side::Client), None);
            assert_eq!(net.shutdown(SESSION, Side::Client), Err(Fault::Reset));
        },
        async |mut stream, _, resets| {
            stream.write_all(b"last").await.expect("sent");
            let (local, peer) = (stream.local_addr(), stream.peer_addr());
            resets.note(local.expect("known"), peer.expect("known"));
        },
    );
}

#[test]
fn taking_the_error_leaves_a_clean_end_behind() {
    play(
        async |mut net| {
            adopt(&mut net).await;
            settle().await;
            assert_eq!(net.take_error(SESSION, Side::Client), Some(Fault::Reset));
            assert_eq!(net.take_error(SESSION, Side::Client), None);
            let mut buf = [0; 16];
            assert_eq!(net.recv(SESSION, &mut buf), moved(4, true));
            assert_eq!(net.recv(SESSION, &mut buf), Outcome::Eof);
        },
        async |mut stream, _, resets| {
            stream.write_all(b"last").await.expect("sent");
            let (local, peer) = (stream.local_addr(), stream.peer_addr());
            resets.note(local.expect("known"), peer.expect("known"));
        },
    );
}

/// What a peer that has sent four bytes gets to see when its socket is closed.
fn close_looks_like_a_reset(how: Close, reads: bool) -> bool {
    let (tell, told) = std::sync::mpsc::channel();
    play(
        async move |mut net| {
            adopt(&mut net).await;
            settle().await;
            if reads {
                assert_eq!(net.recv(SESSION, &mut [0; 16]), moved(4, true));
            }
            assert_eq!(net.open(), 1);
            net.close(SESSION, Side::Client, how);
            assert_eq!(net.open(), 0);
            settle().await;
        },
        async move |mut stream, _, resets| {
            stream.write_all(b"four").await.expect("sent");
            let is_clean = stream
                .read(&mut [0; 16])
                .await
                .is_ok_and(|bytes| bytes == 0);
            let (local, peer) = (stream.local_addr(), stream.peer_addr());
            let is_noted = resets.is_noted(peer.expect("known"), local.expect("known"));
            tell.send(!is_clean || is_noted).expect("heard");
        },
    );
    told.recv().expect("the peer has seen an end")
}

#[test]
fn a_close_is_a_reset_if_it_was_meant_or_bytes_are_lost() {
    assert!(!close_looks_like_a_reset(Close::Fin, true));
    assert!(close_looks_like_a_reset(Close::Fin, false));
    assert!(close_looks_like_a_reset(Close::Reset, true));
}

#[test]
fn a_refused_connect_brings_an_event_and_its_fault() {
    play(
        async |mut net| {
            adopt(&mut net).await;
            let nobody = SocketAddr::new(turmoil::lookup("peer"), 9);
            assert_eq!(
                net.connect(SESSION, 3, nobody, None, First::default()),
                Ok(Connect::InProgress)
            );
            assert_eq!(net.connected(SESSION), Ok(Connect::InProgress));
            settle().await;
            let hint = hint(&mut net, SocketId::backend(SESSION, 3));
            assert!(hint.is_some_and(|hint| hint.error && hint.writable));
            assert_eq!(net.connected(SESSION), Err(Fault::Refused));
            net.close(SESSION, Side::Backend, Close::Fin);
            assert_eq!(net.open(), 1);
        },
        async |stream, _, _| {
            sleep(Duration::from_millis(100)).await;
            drop(stream);
        },
    );
}

#[test]
fn both_directions_pass_their_bytes_and_ends() {
    play(
        async |mut net| {
            adopt(&mut net).await;
            connect(&mut net);
            net.load(SESSION, Bytes::from_static(b"preface, "));
            established(&mut net).await;
            assert_eq!(net.drain(SESSION, Dir::Forward), moved(9, false));
            for dir in Dir::BOTH {
                assert_eq!(net.fill(SESSION, dir, Via::Splice), Outcome::NoPipe);
                settle().await;
                let outcome = net.fill(SESSION, dir, Via::Copy);
                assert_eq!(outcome, moved(4, true), "{dir}");
                assert_eq!(net.drain(SESSION, dir), moved(4, false));
                assert_eq!(net.fill(SESSION, dir, Via::Copy), Outcome::Eof);
                assert_eq!(net.shutdown(SESSION, dir.to()), Ok(()));
            }
            settle().await;
        },
        async |mut stream, listener, _| {
            stream.write_all(b"ping").await.expect("sent");
            stream.shutdown().await.expect("sent");
            let (mut served, _) = listener.accept().await.expect("accepted");
            let mut bytes = vec![];
            served.read_to_end(&mut bytes).await.expect("a clean end");
            assert_eq!(bytes, b"preface, ping");
            served.write_all(b"pong").await.expect("sent");
            served.shutdown().await.expect("sent");
            bytes.clear();
            stream.read_to_end(&mut bytes).await.expect("a clean end");
            assert_eq!(bytes, b"pong");
        },
    );
}

#[test]
fn a_fin_waits_for_room() {
    play(
        async |mut net| {
            adopt(&mut net).await;
            connect(&mut net);
            established(&mut net).await;
            for _ in 0..WINDOW {
                net.load(SESSION, Bytes::from_static(b"x"));
                assert_eq!(net.drain(SESSION, Dir::Forward), moved(1, false));
            }
            net.load(SESSION, Bytes::from_static(b"x"));
            assert_eq!(net.drain(SESSION, Dir::Forward), Outcome::WouldBlock);
            // Everything arrives, and then the end, although the window is full and the socket
            // closed.
            assert_eq!(net.shutdown(SESSION, Side::Backend), Ok(()));
            net.close(SESSION, Side::Backend, Close::Fin);
            for _ in 0..10 {
                settle().await;
                let _ = net.take_ready();
            }
        },
        async |stream, listener, _| {
            let (mut served, _) = listener.accept().await.expect("accepted");
            sleep(Duration::from_millis(50)).await;
            let mut bytes = vec![];
            served.read_to_end(&mut bytes).await.expect("a clean end");
            assert_eq!(bytes, [b'x'; WINDOW]);
            drop(stream);
        },
    );
}

#[test]
fn an_abandoned_connect_leaves_no_half_open_stream() {
    play(
        async |mut net| {
            adopt(&mut net).await;
            connect(&mut net);
            // It is answered by now, but nobody has looked.
            settle().await;
            net.close(SESSION, Side::Backend, Close::Fin);
            settle().await;
        },
        async |stream, listener, _| {
            let (mut served, _) = listener.accept().await.expect("accepted");
            assert_eq!(served.read(&mut [0; 16]).await.expect("a clean end"), 0);
            drop(stream);
        },
    );
}
