//! Host names of backends.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use crate::directory::{Directory, Place, Unresolved};
use crate::worker::{Control, Remote};

/// Names that are asked for at the same time: a name server that does not answer takes seconds for
/// each.
const AT_A_TIME: usize = 32;
/// From the first failure to the second try; doubled with each.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// The longest pause between two tries.
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Asks the system's resolver (getaddrinfo) for every backend that has no address. Takes as long as
/// the resolver does. Says in the log which were not found; with `again`, only which were.
pub(crate) fn resolve(directory: &mut Directory, again: bool) -> Vec<(Place, SocketAddr)> {
    let unresolved = directory.unresolved();
    let mut found = Vec::new();
    for group in unresolved.chunks(AT_A_TIME) {
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
        for (Unresolved { place, host, port }, answer) in group.iter().zip(answers) {
            let (backend, pool) = directory.names(*place);
            match answer {
                Ok(address) => {
                    info!(%pool, %backend, %host, %address, "backend resolved");
                    found.push((*place, address));
                }
                Err(error) if !again => {
                    let address = format_args!("{host}:{port}");
                    warn!(%pool, %backend, %address, %error, "backend down: unresolved name");
                }
                Err(_) => {}
            }
        }
    }
    if !found.is_empty() {
        directory.resolve(&found);
    }
    found
}

/// The first address, in the order of the system's preference.
fn look_up(backend: &Unresolved) -> io::Result<SocketAddr> {
    let mut addresses = (&*backend.host, backend.port).to_socket_addrs()?;
    addresses.next().ok_or_else(no_address)
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no address")
}

/// Goes on trying what did not resolve, and publishes what does, until nothing is left or `stop` is
/// hung up. It waits for `pause` (as a rule [`FIRST_PAUSE`]), then for ever longer.
///
/// An address that was found stays: a backend that moves needs a restart.
pub(crate) fn keep_trying(
    mut directory: Directory,
    workers: &[Remote],
    stop: &Receiver<()>,
    mut pause: Duration,
) {
    while !directory.unresolved().is_empty() {
        if stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        if !resolve(&mut directory, true).is_empty() {
            for worker in workers {
                worker.tell(Control::Publish(Arc::clone(directory.roster())));
            }
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tlb_engine::balance::Policy;
    use tlb_engine::config::Failover;
    use tlb_engine::fleet::OnDown;

    use super::*;
    use crate::config_file::{Address, BackendSettings, PoolSettings};
    use crate::worker;

    fn directory(host: &str) -> Directory {
        let address = Address::Name {
            host: host.into(),
            port: 7001,
        };
        Directory::new(vec![PoolSettings {
            name: "all".into(),
            policy: Policy::RoundRobin,
            bounded_load: None,
            failover: Failover::default(),
            sources: Vec::new(),
            health: None,
            on_down: OnDown::default(),
            slow_start: None,
            admission: None,
            backends: vec![BackendSettings {
                id: "a".into(),
                address,
                weight: 1,
                draining: false,
            }],
        }])
    }

    #[test]
    fn what_resolves_later_is_published() {
        let (_poll, control, remote) = worker::open().unwrap();
        let (_sender, stop) = mpsc::channel();
        keep_trying(
            directory("localhost"),
            &[remote],
            &stop,
            Duration::from_millis(1),
        );
        let Ok(Control::Publish(roster)) = control.try_recv() else {
            panic!("a roster")
        };
        let address = roster.pools[0].backends()[0].address.unwrap();
        assert!(address.ip().is_loopback(), "{address}");
        assert_eq!(address.port(), 7001);
    }

    #[test]
    fn what_never_resolves_is_given_up_at_the_end() {
        let (_poll, control, remote) = worker::open().unwrap();
        let (sender, stop) = mpsc::channel();
        drop(sender);
        keep_trying(directory("nowhere.invalid"), &[remote], &stop, FIRST_PAUSE);
        assert!(control.try_recv().is_err(), "nothing to publish");
    }
}
