//! The sans-IO heart of tlb, a content-aware TCP load balancer: framing, balancing, failover and relay decisions as
//! a state machine that touches no socket, no clock, no thread and no entropy.
//!
//! One client connection is a *session*. Its first bytes are collected in a bounded [`preread`], an
//! [`Unpack`](unpack::Unpack) finds the key in them, a [`balance::Policy`] picks the backend that owns the key, the
//! bytes become the *preface* that the backend receives first, and from then on a [`Duplex`](duplex::Duplex)
//! decides how bytes pass both ways.
//!
//! Whoever drives an [`Engine`] tells it what happened ([`api::Input`]), does as it says ([`api::Action`]), and
//! calls it again at its deadline. [`drive::Driver`] does that over any kernel that implements [`drive::Io`];
//! underneath it is this:
//!
//! ```
//! use std::sync::Arc;
//! use tlb_engine::api::{Action, Input};
//! use tlb_engine::balance::Policy;
//! use tlb_engine::config::{Config, Failover, Limits, Listener};
//! use tlb_engine::ids::{Incarnation, ListenerId, PoolId};
//! use tlb_engine::roster::{Backend, Load, Pool, Roster};
//! use tlb_engine::time::Timestamp;
//! use tlb_engine::unpack::{Fixed, Key};
//! use tlb_engine::Engine;
//!
//! // Frames of eight bytes, of which the first four are the key; one pool of two backends.
//! let unpack = Fixed::new(8, Key { offset: 0, length: Some(4) })?;
//! let listener = Listener::new("devices", Some(Arc::new(unpack)), PoolId(0));
//! let backend = |id: &str, number, address: &str| {
//!     Arc::new(Backend {
//!         id: id.into(),
//!         incarnation: Incarnation(number),
//!         address: address.parse().ok(),
//!         weight: 1,
//!         ..Backend::default()
//!     })
//! };
//! let backends = vec![backend("a", 1, "127.0.0.11:7001"), backend("b", 2, "127.0.0.12:7001")];
//! let pool = Pool::new("stations", Policy::DEFAULT, Failover::default(), backends);
//! let roster = Arc::new(Roster { epoch: 1, pools: vec![Arc::new(pool)] });
//! let config = Arc::new(Config::new(vec![listener], Limits::default()));
//! let mut engine = Engine::new(config, roster, 7, Timestamp::ZERO);
//!
//! // A driver accepted a connection, and read from it what the engine wants.
//! let now = Timestamp::from_millis(1);
//! let session = engine.accept(now, ListenerId(0), "127.0.0.1:4000".parse()?).expect("room");
//! assert!(engine.wants(session) > 0);
//! engine.handle(now, Input::Received { session, bytes: b"key1body" });
//! while let Some(action) = engine.poll_action() {
//!     match action {
//!         Action::Connect { to, .. } => println!("{session} goes to {to}"),
//!         action => println!("{action}"),
//!     }
//! }
//! assert_eq!(&engine.preface(session)[..], b"key1body");
//! assert!(engine.poll_timeout().is_some(), "the connect has a deadline");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
// The oracle of `unpack` is shared with `fuzz/`, which knows this crate by its name.
#[cfg(test)]
extern crate self as tlb_engine;
#[cfg(test)]
extern crate std;

pub mod api;
pub mod balance;
pub mod config;
pub mod drive;
pub mod duplex;
pub mod engine;
pub mod failover;
pub mod fleet;
pub mod health;
pub mod ids;
pub mod pace;
#[doc(hidden)]
pub mod planted;
pub mod preread;
pub mod rng;
pub mod roster;
pub mod session;
pub mod stats;
pub mod time;
pub mod timer;
pub mod unpack;

pub use engine::Engine;
