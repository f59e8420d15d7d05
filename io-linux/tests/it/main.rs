//! Black-box tests of the `tlb` binary on the real kernel, over loopback.

mod admin;
mod affinity;
mod config;
mod conformance;
mod ctl;
mod curl;
mod failover;
mod fleet;
mod hand_off;
mod harness;
mod iperf3;
mod limits;
mod mosquitto;
mod openssl;
mod operations;
mod postgres;
mod redis;
mod relaying;
mod scenarios;
mod soak;
mod support;
