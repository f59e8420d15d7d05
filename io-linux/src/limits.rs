//! What one worker may use of what the process has.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tlb_engine::config::{Config, Listener};
use tlb_engine::fleet::{Admission, BackendConfig, FleetConfig, PoolConfig};
use tlb_engine::pace::{Bucket, Sources};
use tracing::{info, warn};

use crate::config_file::{Address, BackendSettings, ListenerSettings, Settings};
use crate::congestion;

/// Most pipes of a worker, whatever the number of descriptors: 512 KiB each.
const PIPES: u64 = 128;
/// The part of the process's descriptors that pipes may take, two each: one eighth.
const DESCRIPTORS_PER_PIPE: u64 = 16;

/// Raises the process's limit of descriptors as far as it may, and says how many it has then.
pub(crate) fn raise_descriptors() -> u64 {
    let (soft, hard) = match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok(limits) => limits,
        Err(error) => {
            warn!(%error, "cannot read the limit of file descriptors");
            return 1024;
        }
    };
    if soft == hard {
        info!(limit = soft, "file descriptors");
        return soft;
    }
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => {
            info!(limit = hard, before = soft, "file descriptors");
            hard
        }
        Err(error) => {
            warn!(limit = soft, hard, %error, "cannot raise the limit of file descriptors");
            soft
        }
    }
}

/// How many workers there are to be: as the settings say, or one for each CPU that they are kept to or that the process
/// may use.
pub(crate) fn workers(settings: &Settings) -> usize {
    let cpus = Some(settings.cpus.len()).filter(|&cpus| cpus > 0);
    settings
        .workers
        .or(cpus)
        .or_else(|| thread::available_parallelism().map(NonZero::get).ok())
        .unwrap_or(1)
        .max(1)
}

/// How many pipes a worker may have.
pub(crate) fn pipes(descriptors: u64, workers: usize) -> usize {
    let share = descriptors / DESCRIPTORS_PER_PIPE / workers.max(1) as u64;
    share.min(PIPES) as usize
}

/// What worker number `worker` of `workers` is told: the limits of the process, divided.
///
/// The kernel spreads connections over the workers by a hash of their addresses, not by how full
/// they are, so that one worker may be at its limit a little before the process is. None gets less
/// than one session, or less preread memory than one session of its listeners may need; so with
/// very small limits, the process may get more than it was told.
///
/// `places` are those of the listeners in the settings, by their ids; `None` was removed.
pub(crate) fn share(
    settings: &Settings,
    places: &[Option<usize>],
    worker: usize,
    workers: usize,
) -> Config {
    let share = |place: usize| {
        let listener = &settings.listeners[place].engine;
        Arc::new(listener_share(listener, worker, workers))
    };
    let listeners: Vec<_> = places.iter().map(|place| place.map(share)).collect();
    let least = listeners
        .iter()
        .flatten()
        .map(|listener| listener.preread_limit)
        .max()
        .unwrap_or(0);
    let mut limits = settings.limits.clone();
    limits.preread_memory = part(limits.preread_memory, worker, workers).max(least);
    Config { listeners, limits }
}

/// A worker's share of one listener, as [`share`] divides. Rates, and sessions by source, are counted
/// over the process whatever the number of workers: a clone of these is the same count.
pub(crate) fn listener_share(listener: &Listener, worker: usize, workers: usize) -> Listener {
    Listener {
        max_sessions: part(listener.max_sessions, worker, workers).max(1),
        ..listener.clone()
    }
}

/// Makes what the listeners of `settings` count with, and finds out whether their kernel paces, once for the process. A
/// listener that `before` has too, by its name, goes on with what it counted there: sessions that live count, and a rate
/// that stays is not granted a second burst by a reload.
pub(crate) fn adopt(settings: &mut Settings, before: Option<&Settings>) {
    let before: HashMap<&str, &ListenerSettings> = before
        .into_iter()
        .flat_map(|settings| &settings.listeners)
        .map(|listener| (&*listener.engine.name, listener))
        .collect();
    for listener in &mut settings.listeners {
        listener.engine.paced = congestion::paces(listener.congestion);
        let old = before.get(&*listener.engine.name).copied();
        let kept = old.filter(|old| old.admission == listener.admission);
        listener.engine.admission = listener.admission.map(|Admission { rate, burst }| {
            let kept = kept.and_then(|old| old.engine.admission.clone());
            kept.unwrap_or_else(|| Bucket::new(rate, burst))
        });
        // A listener without a limit has counted nobody.
        listener.engine.per_source = listener.per_source.map(|limit| {
            let counted = old.and_then(|old| old.engine.per_source.as_ref());
            counted.map_or_else(|| Sources::new(limit), |counted| counted.with_limit(limit))
        });
    }
}

/// What the fleet is told of the settings' pools, in their order. A backend that is given by name
/// has no address yet: see [`FleetInput::Resolved`](tlb_engine::fleet::FleetInput::Resolved).
pub(crate) fn fleet_config(settings: &Settings) -> FleetConfig {
    let pools = settings.pools.iter().map(|pool| PoolConfig {
        name: pool.name.clone(),
        policy: pool.policy,
        bounded_load: pool.bounded_load,
        failover: pool.failover.clone(),
        sources: pool.sources.clone(),
        probe: pool.health.as_ref().map(|health| health.schedule),
        on_down: pool.on_down,
        slow_start: pool.slow_start,
        admission: pool.admission,
        backends: pool.backends.iter().map(backend_config).collect(),
    });
    FleetConfig {
        pools: pools.collect(),
    }
}

fn backend_config(backend: &BackendSettings) -> BackendConfig {
    BackendConfig {
        id: backend.id.clone(),
        address: match backend.address {
            Address::Socket(address) => Some(address),
            Address::Name { .. } => None,
        },
        weight: backend.weight,
        draining: backend.draining,
    }
}

/// The parts of all workers add up to `whole`.
fn part(whole: usize, worker: usize, workers: usize) -> usize {
    whole / workers + usize::from(worker < whole % workers)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tlb_engine::time::Timestamp;

    use super::*;
    use crate::registry::UnpackRegistry;

    #[test]
    fn parts_add_up() {
        for whole in [0, 1, 5, 7, 1000] {
            for workers in 1..9 {
                let parts: Vec<_> = (0..workers).map(|one| part(whole, one, workers)).collect();
                assert_eq!(parts.iter().sum::<usize>(), whole);
                assert!(parts.iter().max().unwrap() - parts.iter().min().unwrap() <= 1);
            }
        }
    }

    fn settings(listener: &str) -> Settings {
        let text = format!(
            "[[pool]]\nname = 'p'\npolicy = 'p2c'\nslow-start = '5s'\nadmission = {{ rate = 7 }}\n\
             health = {{ kind = 'tcp', rise = 5 }}\nbackends = [{{ id = 'a', address = '127.0.0.1:1' }}, \
             {{ id = 'b', address = 'device-hub:2', weight = 3, draining = true }}]\n\
             [[listener]]\nname = 'l'\npool = 'p'\nbind = '127.0.0.1:0'\n{listener}\n"
        );
        Settings::parse("t", &text, &UnpackRegistry::new()).expect("a fine configuration")
    }

    /// How many sessions the first listener admits at once.
    fn burst(settings: &Settings) -> usize {
        let bucket = settings.listeners[0].engine.admission.as_ref();
        let bucket = bucket.expect("a bucket");
        (0..100)
            .take_while(|_| bucket.take(Timestamp::ZERO).is_ok())
            .count()
    }

    #[test]
    fn workers_share_the_rate_of_a_listener_and_so_does_a_reload_that_keeps_it() {
        let mut first = settings("admission = { rate = 100 }");
        adopt(&mut first, None);
        let shares = [0, 1].map(|worker| share(&first, &[Some(0)], worker, 2));
        let taken = shares.map(|share| {
            let listener = share.listeners[0].as_ref().expect("a listener");
            let bucket = listener.admission.as_ref().expect("a bucket");
            (0..4)
                .filter(|_| bucket.take(Timestamp::ZERO).is_ok())
                .count()
        });
        assert_eq!(taken, [4, 4]);
        let mut same = settings("admission = { rate = 100, burst = 10 }");
        adopt(&mut same, Some(&first));
        assert_eq!(burst(&same), 2);
        let mut other = settings("admission = { rate = 100, burst = 11 }");
        adopt(&mut other, Some(&same));
        assert_eq!(burst(&other), 11);
        let mut none = settings("");
        adopt(&mut none, Some(&other));
        assert!(none.listeners[0].engine.admission.is_none());
    }

    #[test]
    fn sessions_of_a_source_count_over_reloads() {
        let source = "10.0.0.1".parse().expect("an address");
        let sources = |settings: &Settings| {
            let sources = settings.listeners[0].engine.per_source.clone();
            sources.expect("a limit")
        };
        let mut first = settings("max-sessions-per-source = 1");
        adopt(&mut first, None);
        assert!(sources(&first).enter(source));
        let mut second = settings("max-sessions-per-source = 2");
        adopt(&mut second, Some(&first));
        assert!(sources(&second).enter(source));
        assert!(!sources(&second).enter(source));
    }

    #[test]
    fn the_fleet_is_told_what_the_file_says() {
        let config = fleet_config(&settings(""));
        let [pool] = &config.pools[..] else {
            panic!("{config:?}")
        };
        assert_eq!(&*pool.name, "p");
        assert_eq!(pool.slow_start, Some(Duration::from_secs(5)));
        assert_eq!(pool.probe.map(|probe| probe.rise), Some(5));
        let admission = pool.admission.expect("admission");
        assert_eq!((admission.rate.get(), admission.burst.get()), (7, 1));
        let [a, b] = &pool.backends[..] else {
            panic!("{pool:?}")
        };
        assert_eq!(a.address, "127.0.0.1:1".parse().ok());
        assert_eq!((b.address, b.weight, b.draining), (None, 3, true));
    }

    #[test]
    fn pipes_leave_descriptors_for_sessions() {
        assert_eq!(pipes(1024, 2), 32);
        assert_eq!(pipes(1024, 2) as u64 * 2 * 2, 1024 / 8);
        assert_eq!(pipes(1_000_000, 4), PIPES as usize);
        assert_eq!(pipes(8, 1), 0);
    }

    #[test]
    fn the_descriptor_limit_is_at_its_hard_limit_afterwards() {
        let limit = raise_descriptors();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, limit), (hard, hard));
    }
}
