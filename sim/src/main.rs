//! `tlb-sim`: failures in bulk, from a seed or from a file.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args().skip(1))
}
