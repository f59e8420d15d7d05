//! An in-memory kernel: TCP as a program sees it through Linux's system calls, in virtual time.
//!
//! Nothing here knows tlb's engine beyond [`Io`](tlb_engine::drive::Io), which [`io::ModelIo`]
//! implements. The [`Kernel`] moves segments over links that delay, hold and lose hosts; sockets
//! have bounded buffers on both ends, edge-triggered readiness, and errors that are told once.
//! Where it could be kinder or harsher than Linux it is harsher, but never so that a correct
//! program fails: no edge is given that the kernel does not owe, and none is withheld that it does.
//!
//! What is modelled, each with a test in this module:
//!
//! - a socket's send and receive buffers, partial reads and writes, window updates, latency,
//!   acknowledgements;
//! - edges: new data, a FIN, an error, and room to write once a write has found none
//!   (`SOCK_NOSPACE`), each reported with everything that is true at that moment, several merged
//!   into one;
//! - half-close; a reset that leaves what was received readable, then is told once, by whichever
//!   call comes first, then a clean end; `EPIPE`; a close with unread data, data for a closed
//!   socket, `SO_LINGER` of zero;
//! - connects that succeed at once or later, are refused, unreachable, or hang; accept queues that
//!   drop what does not fit; `ECONNABORTED`, `EMFILE`, `EADDRNOTAVAIL`;
//! - pipes with a limited number of slots, one for each segment, and the `EAGAIN` that does not say
//!   which end is at fault; a pool of pipes that runs out;
//! - urgent data: reads stop in front of the mark once, splices for good.

pub mod io;
pub mod kernel;
pub mod ledger;
mod socket;
#[cfg(test)]
mod tests;

pub use kernel::{Hatch, Kernel, Tuning};
