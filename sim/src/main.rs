//! `tlb-sim`: failures in bulk, from a seed or from a file.

use std::process::ExitCode;

fn main() -> ExitCode {
    tlb_sim::cli::main()
}
