//! tlb under turmoil: each scenario runs under several seeds, and every byte, pick and end is checked.
//!
//! `TLB_SIM_SEEDS=100` runs more of them, `TLB_SIM_SEED=17` that one alone.

mod adapter;
mod balancing;
mod canary;
mod connecting;
mod determinism;
mod preread;
mod relaying;
mod stopping;
mod swarm;
mod worlds;
