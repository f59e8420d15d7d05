//! The sans-IO heart of tlb.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod api;
pub mod balance;
pub mod config;
pub mod drive;
pub mod engine;
pub mod health;
pub mod ids;
pub mod rng;
pub mod roster;
pub mod time;
pub mod unpack;
