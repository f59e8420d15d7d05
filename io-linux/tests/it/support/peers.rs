//! Clients' and backends' sockets: every one with timeouts, and without delay.

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::stream::{End, Stream, frame, rest};
use super::{PATIENCE, eventually};

/// Connects with the harness's timeouts.
#[track_caller]
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    match try_connect(to) {
        Ok(stream) => stream,
        Err(error) => panic!("cannot connect to {to}: {error}"),
    }
}

/// Connects from an address of one's own, with the harness's timeouts.
#[track_caller]
pub(crate) fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    // Whoever had it may still be waiting for its last acknowledgement.
    eventually("the port is free", || socket.bind(&from.into()).ok());
    if let Err(error) = socket.connect(&to.into()) {
        panic!("cannot connect from {from} to {to}: {error}");
    }
    let stream = socket.into();
    prepare(&stream).expect("its options");
    stream
}

/// Connects with the harness's timeouts, or says why not.
pub(crate) fn try_connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    prepare(&stream)?;
    Ok(stream)
}

/// Gives a socket the harness's timeouts; urgent data arrives in line.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_out_of_band_inline(true)
}

/// Ends a connection by a reset instead of in order.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER on a live socket");
    drop(stream);
}

/// The index of the backend that greets a session with this key, after it has echoed the frame and
/// some bytes more.
///
/// # Panics
///
/// When the greeting does not come, or the bytes come back wrong.
#[track_caller]
pub(crate) fn owner(entry: SocketAddr, key: u32) -> u8 {
    match try_owner(entry, key) {
        Some(owner) => owner,
        None => panic!("no backend greeted key {key:08x}"),
    }
}

/// As [`owner`]; `None` when the session ends without a greeting.
#[track_caller]
pub(crate) fn try_owner(entry: SocketAddr, key: u32) -> Option<u8> {
    let stream = Stream::after(frame(key, 40), u64::from(key), 1000);
    let mut client = try_connect(entry).ok()?;
    stream.send(&client).ok()?;
    let mut greeting = [0];
    client.read_exact(&mut greeting).ok()?;
    stream.expect_from(&client);
    client.shutdown(Shutdown::Write).expect("the client's FIN");
    let (surplus, end) = rest(&client);
    assert_eq!(
        (surplus.len(), end),
        (0, End::Fin),
        "after the echo of key {key:08x}"
    );
    Some(greeting[0])
}
