//! Where the admin API listens.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::net;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net as unix;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config_file::{AdminBind, AdminSettings};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;

/// A bound and listening socket of the admin API. Dropped, it removes the unix socket's file.
#[derive(Debug)]
pub(crate) struct AdminListener {
    socket: Option<Bound>,
    file: Option<SocketFile>,
    address: String,
    token: Option<Box<str>>,
}

#[derive(Debug)]
enum Bound {
    Unix(unix::UnixListener),
    Tcp(net::TcpListener),
}

/// An [`AdminListener`] that accepts.
#[derive(Debug)]
pub(super) struct Accepting {
    socket: Async,
    /// Removed when accepting ends.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Async {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AdminListener {
    /// Listens. A unix socket's file that nobody answers at is replaced; whoever may connect is settled by its mode
    /// before anybody can.
    ///
    /// # Errors
    /// The address is taken or not permitted, or a file that is not a socket is in the way. The text names the
    /// address.
    pub(crate) fn bind(settings: &AdminSettings) -> io::Result<Self> {
        let bound = match &settings.bind {
            AdminBind::Unix { path, mode } => bind_unix(path, *mode),
            AdminBind::Tcp(address) => bind_tcp(*address),
        };
        let (socket, file, address) = bound.map_err(|error| {
            let address = match &settings.bind {
                AdminBind::Unix { path, .. } => format!("unix:{}", path.display()),
                AdminBind::Tcp(address) => address.to_string(),
            };
            let text = format!("the admin API cannot listen on {address}: {error}");
            io::Error::new(error.kind(), text)
        })?;
        Ok(Self {
            socket: Some(socket),
            file,
            address,
            token: settings.token.clone(),
        })
    }

    /// What clients must present.
    pub(super) fn token(&self) -> Option<Box<str>> {
        self.token.clone()
    }

    /// Makes it part of the runtime. To be called once.
    pub(super) fn start(&mut self) -> io::Result<Accepting> {
        let socket = match self.socket.take() {
            Some(Bound::Unix(socket)) => Async::Unix(UnixListener::from_std(socket)?),
            Some(Bound::Tcp(socket)) => Async::Tcp(TcpListener::from_std(socket)?),
            None => return Err(io::ErrorKind::NotConnected.into()),
        };
        Ok(Accepting {
            socket,
            _file: self.file.take(),
        })
    }
}

/// The address as `tlb ctl --admin` takes it.
impl fmt::Display for AdminListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

impl Accepting {
    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        Ok(match &self.socket {
            Async::Unix(socket) => Stream::Unix(socket.accept().await?.0),
            Async::Tcp(socket) => Stream::Tcp(socket.accept().await?.0),
        })
    }
}

/// The file of a unix socket, removed when dropped unless another process has put its own there.
#[derive(Debug)]
struct SocketFile {
    path: Box<Path>,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|now| now.dev() == self.device && now.ino() == self.inode);
        if ours {
            // A leftover is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

type Listening = (Bound, Option<SocketFile>, String);

fn bind_tcp(address: net::SocketAddr) -> io::Result<Listening> {
    let socket = net::TcpListener::bind(address)?;
    socket.set_nonblocking(true)?;
    let address = format!("http://{}", socket.local_addr()?);
    Ok((Bound::Tcp(socket), None, address))
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Listening> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        remove_stale(path, &address)?;
        socket.bind(&address)?;
    }
    let made = fs::symlink_metadata(path)?;
    let file = SocketFile {
        path: path.into(),
        device: made.dev(),
        inode: made.ino(),
    };
    // Nobody can connect to a socket that is bound and does not listen yet, so the mode is there in time. The umask
    // would do as well, but belongs to all threads of the process.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let address = format!("unix:{}", path.display());
    Ok((Bound::Unix(socket.into()), Some(file), address))
}

/// Removes the file of a socket that nobody listens at.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let in_use = |text: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return in_use("a file that is not a socket is there");
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener with a full queue would make a blocking socket wait.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => in_use("another process answers there"),
    }
}
