//! Any history of inputs: the engine keeps its promises, with its invariants checked after each.
//!
//! The bytes of an input are read as `exercise` says: eight that choose the configuration, then operations.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../engine/src/engine/exercise.rs"]
mod exercise;

fuzz_target!(|data: &[u8]| exercise::run(data));
