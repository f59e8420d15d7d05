//! tlb

pub mod config_file;
pub mod registry;
pub mod server;

mod clock;
mod directory;
mod fault;
mod io;
mod journal;
mod limits;
mod listen;
mod pipe_pool;
mod relay;
mod resolve;
mod socket;
mod sys;
mod worker;
