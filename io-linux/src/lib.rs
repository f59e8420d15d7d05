//! tlb
mod fault;
mod io;
mod listen;
mod pipe_pool;
mod relay;
mod socket;
mod sys;
