//! The harness: a `tlb` process, scripted backends and clients, and the bytes they exchange.
//!
//! Nothing here waits without a deadline: sockets carry [`PATIENCE`] as their read and write
//! timeouts, and conditions are awaited with [`eventually`].

pub(crate) mod farm;
pub(crate) mod kernel;
pub(crate) mod peers;
pub(crate) mod proc;
pub(crate) mod programs;
pub(crate) mod rng;
pub(crate) mod setup;
pub(crate) mod site;
pub(crate) mod stream;
pub(crate) mod tlb;

use std::thread;
use std::time::{Duration, Instant};

/// How long anything that is expected to happen may take, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long a condition is left alone before it is looked at again.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks `probe` until it answers, for at most [`PATIENCE`].
///
/// # Panics
///
/// When it never does; `what` names the expectation.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(PAUSE);
    }
}
