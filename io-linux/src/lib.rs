//! tlb
pub mod config_file;
pub mod registry;

mod fault;
mod io;
mod listen;
mod pipe_pool;
mod relay;
mod socket;
mod sys;
