//! `tlb check`: would `tlb run` start?

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config_file::{ListenerSettings, Settings, count};

/// A listener cannot listen: whoever wrote its address, or runs something else there, is at fault.
#[derive(Debug)]
pub(super) struct BindError {
    listener: Box<str>,
    address: SocketAddr,
    cause: io::Error,
}

impl BindError {
    pub(super) fn new(listener: &ListenerSettings, cause: io::Error) -> Self {
        Self {
            listener: listener.engine.name.clone(),
            address: listener.bind,
            cause,
        }
    }

    /// What may be done about it.
    fn help(&self) -> String {
        let port = self.address.port();
        match self.cause.kind() {
            io::ErrorKind::AddrInUse => format!(
                "something listens there already, perhaps another tlb; \
                 see it with: ss -ltnp 'sport = :{port}'"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "port {port} needs the capability CAP_NET_BIND_SERVICE, or take a port from 1024 on"
            ),
            io::ErrorKind::AddrNotAvailable => {
                "this host has no such address; see those it has with: ip address".to_owned()
            }
            _ => "choose another address for `bind`".to_owned(),
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            listener,
            address,
            cause,
        } = self;
        write!(
            f,
            "listener `{listener}` cannot listen on {address}: {cause}"
        )?;
        write!(f, "\n  = help: {}", self.help())
    }
}

impl Error for BindError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

/// Listens on every address for a moment, all at the same time, and says which cannot be had.
pub(super) fn probe(listeners: &[ListenerSettings]) -> Vec<BindError> {
    let mut held = Vec::new();
    let mut refused = Vec::new();
    for listener in listeners {
        match listen(listener.bind) {
            Ok(socket) => held.push(socket),
            Err(cause) => refused.push(BindError::new(listener, cause)),
        }
    }
    refused
}

/// A listening socket that shares its port with nobody: without `SO_REUSEPORT`, under which the
/// kernel would let two processes of one user both have the port.
fn listen(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // As `tlb run` does it.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(1)?;
    Ok(socket)
}

/// As in `3 listeners, 1 unpack`.
pub(super) fn summary(settings: &Settings) -> String {
    let backends = settings.pools.iter().map(|pool| pool.backends.len()).sum();
    format!(
        "{}, {}, {}",
        count(settings.listeners.len(), "listener"),
        count(settings.pools.len(), "pool"),
        count(backends, "backend")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::UnpackRegistry;
    use std::net::TcpListener;

    fn listeners(binds: &[SocketAddr]) -> Settings {
        let mut text = String::from(
            "[[pool]]\nname = \"p\"\npolicy = \"p2c\"\n\
             backends = [{ id = \"a\", address = \"127.0.0.1:1\" }]\n",
        );
        for (at, bind) in binds.iter().enumerate() {
            text += &format!("[[listener]]\nname = \"l{at}\"\npool = \"p\"\nbind = \"{bind}\"\n");
        }
        Settings::parse("t", &text, &UnpackRegistry::new()).expect("a fine configuration")
    }

    #[test]
    fn a_taken_port_is_seen_also_behind_reuse_port() {
        let plain = TcpListener::bind("127.0.0.1:0").expect("a port");
        let plain = (plain.local_addr().expect("bound"), plain);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let sharing = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        sharing.set_reuse_port(true).expect("an option");
        sharing.set_reuse_address(true).expect("an option");
        sharing.bind(&any.into()).expect("a port");
        sharing.listen(1).expect("a queue");
        let shared = sharing
            .local_addr()
            .ok()
            .and_then(|at| at.as_socket())
            .expect("bound");

        let settings = listeners(&[plain.0, shared, any]);
        let refused = probe(&settings.listeners);
        assert_eq!(refused.len(), 2);
        for (error, name) in refused.iter().zip(["l0", "l1"]) {
            assert_eq!(error.cause.kind(), io::ErrorKind::AddrInUse);
            let shown = error.to_string();
            assert!(shown.starts_with(&format!("listener `{name}` cannot listen on 127.0.0.1:")));
            assert!(
                shown.contains("= help: something listens there already"),
                "{shown}"
            );
        }
        assert_eq!(summary(&settings), "3 listeners, 1 pool, 1 backend");
    }

    #[test]
    fn what_was_probed_is_free_again() {
        let settings = listeners(&["127.0.0.1:0".parse().expect("an address")]);
        assert!(probe(&settings.listeners).is_empty());
        assert!(probe(&settings.listeners).is_empty());
    }

    #[test]
    fn every_cause_brings_its_own_help() {
        let settings = listeners(&["127.0.0.1:80".parse().expect("an address")]);
        let help = |kind: io::ErrorKind| BindError::new(&settings.listeners[0], kind.into()).help();
        assert!(help(io::ErrorKind::PermissionDenied).contains("port 80 needs"));
        assert!(help(io::ErrorKind::AddrNotAvailable).contains("ip address"));
        assert!(help(io::ErrorKind::OutOfMemory).contains("`bind`"));
    }
}
