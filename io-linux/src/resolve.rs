//! Host names of backends.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use crate::config_file::{Address, Settings};

/// Names that are asked for at the same time: a name server that does not answer takes seconds for
/// each.
const AT_A_TIME: usize = 32;
/// From the first failure to the second try; doubled with each.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause between two tries.
pub(crate) const LAST_PAUSE: Duration = Duration::from_secs(60);

/// A backend that is given by a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Named {
    pub(crate) pool: Box<str>,
    pub(crate) backend: Box<str>,
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
}

/// All backends that are given by a name.
pub(crate) fn named(settings: &Settings) -> Vec<Named> {
    let mut all = Vec::new();
    for pool in &settings.pools {
        for backend in &pool.backends {
            if let Address::Name { host, port } = &backend.address {
                all.push(Named {
                    pool: pool.name.clone(),
                    backend: backend.id.clone(),
                    host: host.clone(),
                    port: *port,
                });
            }
        }
    }
    all
}

/// Asks the system's resolver (getaddrinfo) for each. Takes as long as the resolver does. Says in
/// the log which were not found; with `again`, only which were.
pub(crate) fn resolve(asked: &[Named], again: bool) -> Vec<(Named, SocketAddr)> {
    let mut found = Vec::new();
    for group in asked.chunks(AT_A_TIME) {
        let answers: Vec<_> = thread::scope(|scope| {
            let asked: Vec<_> = group
                .iter()
                .map(|one| scope.spawn(|| look_up(one)))
                .collect();
            asked
                .into_iter()
                .map(|one| one.join().unwrap_or_else(|_| Err(no_address())))
                .collect()
        });
        for (one, answer) in group.iter().zip(answers) {
            let Named {
                pool,
                backend,
                host,
                port,
            } = one;
            match answer {
                Ok(address) => {
                    info!(%pool, %backend, %host, %address, "backend resolved");
                    found.push((one.clone(), address));
                }
                Err(error) if !again => {
                    let address = format_args!("{host}:{port}");
                    warn!(%pool, %backend, %address, %error, "backend down: unresolved name");
                }
                Err(_) => {}
            }
        }
    }
    found
}

/// The first address, in the order of the system's preference.
fn look_up(backend: &Named) -> io::Result<SocketAddr> {
    let mut addresses = (&*backend.host, backend.port).to_socket_addrs()?;
    addresses.next().ok_or_else(no_address)
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no address")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::UnpackRegistry;

    #[test]
    fn names_are_found_or_left_out() {
        let text = "[[pool]]\nname = 'p'\npolicy = 'p2c'\nbackends = [\
                    { id = 'a', address = 'localhost:7001' }, { id = 'b', address = '127.0.0.1:2' },\
                    { id = 'c', address = 'nobody.invalid:7001' }]\n\
                    [[listener]]\nname = 'l'\npool = 'p'\nbind = '127.0.0.1:0'\n";
        let settings = Settings::parse("t", text, &UnpackRegistry::new()).expect("fine");
        let names = named(&settings);
        let ids: Vec<_> = names.iter().map(|it| &*it.backend).collect();
        assert_eq!(ids, ["a", "c"]);
        let found = resolve(&names, false);
        assert_eq!(found.len(), 1);
        assert_eq!(&*found[0].0.backend, "a");
        assert!(found[0].1.ip().is_loopback());
        assert_eq!(found[0].1.port(), 7001);
    }
}
