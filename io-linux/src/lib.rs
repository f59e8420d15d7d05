//! tlb, a content-aware TCP load balancer for Linux, as a library.
//!
//! The `tlb` binary is [`cli::main`]. A program that finds the key in its own way registers an
//! [`Unpack`](tlb_engine::unpack::Unpack) by name and runs the same server: see [`cli::main_with`]
//! and the example `custom_unpack`. To run a server inside a process, see [`server::Server`].

pub mod cli;
pub mod config_file;
pub mod registry;
pub mod server;

mod clock;
pub mod congestion;
pub mod control;
mod cpus;
mod demo;
mod fault;
mod hand_off;
mod io;
mod journal;
mod limits;
mod listen;
mod logging;
mod names;
mod pipe_pool;
mod relay;
mod resolve;
mod session_log;
mod socket;
mod spin;
mod sys;
mod worker;

pub use tlb_engine as engine;

const _: () = assert!(
    tlb_engine::planted::NAME.is_none(),
    "a bug that was planted for the simulation must never be shipped"
);
