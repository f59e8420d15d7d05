//! Integration tests of the `tlb` binary.

mod config;
