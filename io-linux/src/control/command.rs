//! What the control thread is asked.

use tlb_engine::fleet::Admin;
use tokio::sync::{mpsc, oneshot};

use super::view::{ListenerView, Metrics, PoolView, ReloadView, SessionFilter, SessionsView};

/// Most questions that wait at a time: whoever comes then waits for a place.
const QUEUE: usize = 64;

/// Asks the control thread.
#[derive(Clone, Debug)]
pub(crate) struct Handle(mpsc::Sender<Command>);

/// A question and where its answer goes.
#[derive(Debug)]
pub(crate) enum Command {
    /// All pools, ordered by name.
    Pools(oneshot::Sender<Vec<PoolView>>),
    /// All listeners, in the configuration's order.
    Listeners(oneshot::Sender<Vec<ListenerView>>),
    /// Live sessions.
    Sessions(SessionFilter, oneshot::Sender<SessionsView>),
    /// What an operator wants of a backend.
    Set {
        /// The pool's name.
        pool: String,
        /// The backend's id.
        backend: String,
        /// What.
        admin: Admin,
        /// Whether it is done.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Read the configuration anew.
    Reload(oneshot::Sender<Result<ReloadView, Refusal>>),
    /// Everything that is counted.
    Metrics(oneshot::Sender<Metrics>),
    /// Whether the process takes sessions: it listens and is not stopping.
    Ready(oneshot::Sender<bool>),
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The caller names a pool that is not there.
    #[error("there is no pool {0:?}")]
    UnknownPool(String),
    /// The caller names a backend that is not there.
    #[error("pool {0:?} has no backend {1:?}")]
    UnknownBackend(String, String),
    /// The new configuration is wrong or cannot be put to work; the old one goes on. The text says why, over several
    /// lines.
    #[error("{0}")]
    Config(String),
    /// tlb runs without a configuration file, or is stopping.
    #[error("{0}")]
    NotNow(&'static str),
    /// The control thread has ended.
    #[error("tlb is stopping")]
    Gone,
}

impl Handle {
    /// A handle, and where its questions arrive.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Asks, and does not wait: neither for a place in the queue nor for the answer.
    ///
    /// # Errors
    /// The queue is full, or nobody is there.
    pub(crate) fn ask_later(&self, command: Command) -> Result<(), ()> {
        self.0.try_send(command).map_err(drop)
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`Refusal::Gone`].
    pub(crate) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.0
            .send(command(reply))
            .await
            .map_err(|_| Refusal::Gone)?;
        answer.await.map_err(|_| Refusal::Gone)
    }
}
