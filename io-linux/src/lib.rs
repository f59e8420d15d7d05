//! tlb
pub mod cli;
pub mod config_file;
pub mod logging;
pub mod registry;
