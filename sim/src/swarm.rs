//! Scenarios from one number each, run on the model's kernel, checked, and made small when they
//! fail.
//!
//! [`Scenario`] is data: [`draw`](draw::draw) makes it from a seed before anything runs, [`text`]
//! prints it and reads it back, [`shrink`](shrink::shrink) makes it smaller. [`world::run`] runs it
//! in two phases: *safety*, with whatever the timetable does to it, and *liveness*, in which
//! everything is healed and must come to an end in bounded virtual time. What must hold all the
//! while is in [`check`], and [`coverage`] tells whether a sweep has seen what there is to see.

pub mod check;
pub mod coverage;
pub mod draw;
pub mod frames;
pub mod peers;
pub mod report;
pub mod scenario;
pub mod shrink;
pub mod stream;
pub mod text;
pub mod world;

pub use draw::Intensity;
pub use scenario::Scenario;
pub use world::{Run, run};
