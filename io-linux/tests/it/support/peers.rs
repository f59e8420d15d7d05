//! Clients' and backends' sockets: every one with timeouts, and without delay.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::PATIENCE;

/// Connects with the harness's timeouts.
#[track_caller]
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    match try_connect(to) {
        Ok(stream) => stream,
        Err(error) => panic!("cannot connect to {to}: {error}"),
    }
}

/// Connects with the harness's timeouts, or says why not.
pub(crate) fn try_connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    prepare(&stream)?;
    Ok(stream)
}

/// Gives a socket the harness's timeouts; urgent data arrives in line.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
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
