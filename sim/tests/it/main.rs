//! tlb in simulation: named scenarios under turmoil, and sweeps of the model net. Every byte, pick and
//! end is checked.
//!
//! `TLB_SIM_SEEDS=100` runs more seeds of each turmoil scenario, `TLB_SIM_SEED=17` that one alone.

mod adapter;
mod balancing;
mod canary;
mod connecting;
mod determinism;
mod fleet;
mod model_conformance;
mod model_determinism;
mod model_failures;
mod model_sweep;
mod preread;
mod relaying;
mod stopping;
mod swarm;
mod turmoil_conformance;
mod user_config;
mod worlds;
