//! tlb, a content-aware TCP load balancer for Linux: the binary's parts, for programs that bring
//! their own.
//!
//! A client's first bytes pick its backend. What they mean is said by a framing of the
//! configuration or by an [`Unpack`](tlb_engine::unpack::Unpack) of one's own, which a program
//! registers by name before it does what the binary does:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use tlb::registry::UnpackRegistry;
//! use tlb_engine::unpack::{Status, Target, Unpack};
//!
//! /// The first byte is the key.
//! #[derive(Debug)]
//! struct FirstByte;
//!
//! impl Unpack for FirstByte {
//!     fn unpack(&self, prefix: &[u8], _scanned: usize, _eof: bool) -> Status {
//!         if prefix.is_empty() {
//!             return Status::Partial { at_least: 1, scanned: 0 };
//!         }
//!         Status::Complete { frame: 0..1, target: Target::Key(0..1) }
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     let mut registry = UnpackRegistry::new();
//!     registry.register("first-byte", FirstByte).expect("a name of its own");
//!     tlb::cli::main_with(&registry)
//! }
//! ```
//!
//! A program with a command line of its own loads [`Settings`](config_file::Settings) and gives
//! them to a [`Server`](server::Server), which either owns the process
//! ([`run`](server::Server::run)) or is a part of it ([`start`](server::Server::start)).

pub mod cli;
pub mod config_file;
pub mod logging;
pub mod registry;
pub mod server;

mod clock;
mod directory;
mod fault;
mod io;
mod journal;
mod limits;
mod listen;
mod pipe_pool;
mod relay;
mod resolve;
mod socket;
mod sys;
mod worker;
