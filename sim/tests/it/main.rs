//! tlb in simulation: the model's kernel and its sweeps.

mod model_determinism;
mod model_failures;
mod model_sweep;
