//! Black-box tests of the `tlb` binary on the real kernel, over loopback.

mod harness;
mod relaying;
mod scenarios;
mod support;
