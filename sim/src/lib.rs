//! The engine that ships, in a network made of one seed.
//!
//! turmoil gives the hosts, their clocks and their links; [`net`] makes turmoil's streams look like a kernel's
//! non-blocking sockets, so that [`tlb_engine::drive::Driver`] runs here as it runs over mio: one loop per host, no
//! task per connection. [`scenario`] turns a seed into a world and a timetable of faults, [`peers`] are the clients
//! and backends around it, [`check`] decides whether what happened was right, and [`trace`] proves that the same seed
//! brings the same history.

#![forbid(unsafe_code)]

pub mod check;
pub mod conformance;
pub mod host;
pub mod net;
pub mod peers;
pub mod scenario;
pub mod stream;
pub mod trace;
pub mod world;
