//! The engine that ships, in networks made of one seed.
//!
//! Two worlds run it as `io-linux` does, in one loop per worker and without a task per connection:
//!
//! - **turmoil** gives hosts, their clocks and their links; [`net`] makes turmoil's streams look like a
//!   kernel's non-blocking sockets. [`scenario`] turns a seed into a world and a timetable of faults,
//!   [`peers`] are the clients and backends around it, [`check`] decides whether what happened was
//!   right, and [`trace`] proves that the same seed brings the same history.
//! - **the model net** ([`model`]) is a kernel in memory, with what turmoil does not have: byte windows,
//!   resets that destroy data, pipes with slots, descriptors that run out. [`swarm`] draws scenarios
//!   for it from seeds by the thousand, checks them, and shrinks those that fail.

#![forbid(unsafe_code)]

pub mod check;
pub mod cli;
pub mod conformance;
pub mod control;
pub mod host;
pub mod model;
pub mod net;
pub mod peers;
pub mod scenario;
pub mod stream;
pub mod swarm;
pub mod trace;
pub mod world;
