//! The `tlb` binary.
fn main() {}
