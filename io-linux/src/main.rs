//! The `tlb` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    tlb::cli::main()
}
