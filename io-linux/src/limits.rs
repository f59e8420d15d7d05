//! What one worker may use of what the process has.

use std::num::NonZero;
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tlb_engine::config::{Config, Listener};
use tracing::{info, warn};

use crate::config_file::Settings;

/// Most pipes of a worker, whatever the number of descriptors: 256 KiB each.
const PIPES: u64 = 256;
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

/// How many workers there are to be: as the settings say, or one for each CPU that the process may
/// use.
pub(crate) fn workers(settings: &Settings) -> usize {
    settings
        .workers
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
pub(crate) fn share(settings: &Settings, worker: usize, workers: usize) -> Config {
    let listeners: Vec<_> = settings
        .listeners
        .iter()
        .map(|listener| Listener {
            max_sessions: part(listener.engine.max_sessions, worker, workers).max(1),
            ..listener.engine.clone()
        })
        .collect();
    let least = listeners
        .iter()
        .map(|listener| listener.preread_limit)
        .max()
        .unwrap_or(0);
    let mut limits = settings.limits.clone();
    limits.preread_memory = part(limits.preread_memory, worker, workers).max(least);
    Config::new(listeners, limits)
}

/// The parts of all workers add up to `whole`.
fn part(whole: usize, worker: usize, workers: usize) -> usize {
    whole / workers + usize::from(worker < whole % workers)
}

#[cfg(test)]
mod tests {
    use super::*;

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
