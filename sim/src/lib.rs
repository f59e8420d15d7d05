//! Deterministic simulation: the engine that ships, in a network made of one seed.

#![forbid(unsafe_code)]

pub mod model;
pub mod swarm;
