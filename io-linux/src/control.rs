//! The control thread: one thread with a tokio runtime that owns the [`Fleet`](tlb_engine::fleet::Fleet), probes
//! backends, resolves names, reloads the configuration and answers the admin API. No byte of a session passes it, and
//! no worker waits for it.

pub(crate) mod admin;
mod answers;
pub(crate) mod command;
mod metrics;
mod probe;
mod published;
mod reload;
mod thread;
pub mod view;

pub(crate) use answers::fits;
pub(crate) use published::Published;
pub(crate) use reload::{Source, options};
pub(crate) use thread::{ControlThread, Ears, Names, Note, Slot};
