//! The two ends of the demo: backends that echo, and devices that check what comes back.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// Nothing in the demo may take longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a device sends behind its first frame, in each exchange.
const PAYLOAD: usize = 64 * 1024;

/// A server that says its id once on each connection and then echoes.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) id: char,
    pub(super) address: SocketAddr,
    listener: TcpListener,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Backend {
    /// Starts it on `address`, or on a free port of its own address of loopback.
    pub(super) fn start(id: char, address: Option<SocketAddr>) -> io::Result<Self> {
        let own = ([127, 0, 0, 11 + (id as u8 - b'a')], 0).into();
        let listener = TcpListener::bind(address.unwrap_or(own))?;
        let address = listener.local_addr()?;
        let connections = Arc::new(Mutex::new(Vec::new()));
        let accepting = (listener.try_clone()?, Arc::clone(&connections));
        thread::spawn(move || {
            let (listener, connections) = accepting;
            // Ends when `kill` shuts the listener down.
            while let Ok((connection, _)) = listener.accept() {
                let Ok(ours) = connection.try_clone() else {
                    break;
                };
                connections
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(ours);
                thread::spawn(move || echo(connection, id));
            }
        });
        Ok(Self {
            id,
            address,
            listener,
            connections,
        })
    }

    /// Ends it and all its connections, as the kernel does for a process that is killed.
    pub(super) fn kill(&mut self) {
        // A listener that is shut down refuses connections and wakes whoever waits in accept.
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for connection in connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Serves one connection; it ends with whichever side ends first, and there is nobody to tell.
fn echo(mut connection: TcpStream, id: char) {
    let mut buffer = [0; 16 * 1024];
    let mut greeted = false;
    while let Ok(bytes @ 1..) = connection.read(&mut buffer) {
        let greeting = if greeted { &[][..] } else { &[id as u8][..] };
        greeted = true;
        if connection.write_all(greeting).is_err()
            || connection.write_all(&buffer[..bytes]).is_err()
        {
            break;
        }
    }
}

/// A client with a key.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) key: &'static str,
    /// The backend that answered.
    pub(super) backend: char,
    /// Bytes that went there and came back.
    pub(super) bytes: usize,
    connection: TcpStream,
    framed: bool,
}

impl Device {
    pub(super) fn connect(tlb: SocketAddr, key: &'static str) -> io::Result<Self> {
        let connection = dial(tlb)?;
        Ok(Self {
            key,
            backend: '?',
            bytes: 0,
            connection,
            framed: false,
        })
    }

    pub(super) fn reconnect(&mut self, tlb: SocketAddr) -> io::Result<()> {
        self.connection = dial(tlb)?;
        self.framed = false;
        Ok(())
    }

    /// Sends bytes (on a new connection a frame first, in pieces), and checks that just these come back.
    pub(super) fn exchange(&mut self) -> io::Result<()> {
        let mut sent = Vec::with_capacity(PAYLOAD + 64);
        let first = !self.framed;
        if first {
            sent.extend(frame(self.key));
            for piece in sent.chunks(7) {
                self.connection.write_all(piece)?;
            }
            self.framed = true;
        }
        // A pattern that depends on the place, so that no piece passes for another.
        let payload: Vec<u8> = (0..PAYLOAD as u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let mut writer = self.connection.try_clone()?;
        sent.extend(&payload);
        let writing = thread::spawn(move || writer.write_all(&payload));
        if first {
            let mut id = [0];
            self.connection.read_exact(&mut id)?;
            self.backend = id[0].into();
        }
        let mut came = vec![0; sent.len()];
        self.connection.read_exact(&mut came)?;
        writing
            .join()
            .map_err(|_| io::Error::other("the writer panicked"))??;
        if let Some(at) = (0..sent.len()).find(|&at| sent[at] != came[at]) {
            let (key, want, got) = (self.key, sent[at], came[at]);
            return Err(io::Error::other(format!(
                "{key}: byte {at} is {got:#04x}, not {want:#04x}"
            )));
        }
        self.bytes += sent.len();
        Ok(())
    }

    /// Waits until the other side ends the connection, in whatever way.
    pub(super) fn await_end(&mut self) -> io::Result<()> {
        match self.connection.read(&mut [0]) {
            Ok(0) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Ok(_) => Err(io::Error::other(format!(
                "{}: a dead backend said something",
                self.key
            ))),
            Err(error) => Err(error),
        }
    }
}

fn dial(tlb: SocketAddr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&tlb, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// A frame with the key at offset 19: '*', the length of the body, the body, two bytes of check.
fn frame(key: &str) -> Vec<u8> {
    let mut body = vec![b'.'; 14];
    body.extend(key.bytes());
    body.extend(b"measurements");
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&b"*"[..], &length.to_be_bytes(), &body, b"ok"].concat()
}
