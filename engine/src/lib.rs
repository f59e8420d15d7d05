//! The sans-IO heart of tlb.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
// The oracle of `unpack` is shared with `fuzz/`, which knows this crate by its name.
#[cfg(test)]
extern crate self as tlb_engine;
#[cfg(test)]
extern crate std;

pub mod api;
pub mod balance;
pub mod config;
pub mod drive;
pub mod duplex;
pub mod engine;
pub mod failover;
pub mod health;
pub mod ids;
pub mod preread;
pub mod rng;
pub mod roster;
pub mod session;
pub mod time;
pub mod timer;
pub mod unpack;

pub use engine::Engine;
