//! The fleet, with real processes and sockets: backends that die, hang or lose their link, and what
//! becomes of their clients.

mod outage;
mod probing;
mod reload;
mod replay;
mod storm;
mod warm;
