//! What must hold on the way between client and backend, with or without tlb in between.
//!
//! Each scenario runs three times: [`crate::harness`] proves it on a direct connection,
//! [`crate::relaying`] runs it through tlb, once for each relay.

mod endings;
mod pressure;
mod streams;

pub(crate) use endings::{
    backend_closes_first, backend_resets, backend_resets_behind_a_backlog, client_closes_first,
    client_resets, client_resets_behind_a_backlog, everything_at_once,
};
pub(crate) use pressure::{
    backend_talks_first, paused_backend, paused_client, urgent_data, urgent_data_in_the_first_frame,
};
pub(crate) use streams::{
    echo_in_random_pieces, frame_and_more_in_one_segment, frame_byte_by_byte, large_first_frame,
    one_large_stream, three_wait_before_the_first_poll,
};

use std::sync::mpsc::{self, Receiver};
use std::thread::{self, Scope};

use crate::support::PATIENCE;

/// Runs `job` beside the caller, and hands out its result once.
fn beside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    job: impl FnOnce() -> T + Send + 'scope,
) -> Receiver<T> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new()
        .spawn_scoped(scope, move || {
            // Nobody may be waiting for it.
            let _ = sender.send(job());
        })
        .expect("a thread");
    receiver
}

/// The result of a job [`beside`] us.
#[track_caller]
fn result<T>(of: &Receiver<T>) -> T {
    match of.recv_timeout(PATIENCE) {
        Ok(result) => result,
        Err(error) => panic!("the other thread has no result: {error}"),
    }
}
