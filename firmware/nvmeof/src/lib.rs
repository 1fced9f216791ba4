//! NVMe/TCP target: PDUs, queues and command slots on top of `controller`.
//!
//! NVMe/TCP Transport Specification 1.0 (TCP), NVM Express Base Specification 2.0 (Base). A [`Target`] serves
//! the connections of one core. It knows neither sockets nor drives: bytes come and go through a [`Stream`],
//! blocks through the controller's `Backend`, time is an argument.
//!
//! What a peer sends ends in a status, a TermReq or a closed connection; never in a panic, and never in
//! memory that is not returned.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod commands;
mod connect;
mod cores;
mod ended;
mod fencing;
mod fused;
pub mod initiator;
mod leftovers;
mod lock_home;
mod meters;
mod outgoing;
pub mod pdu;
mod queue;
mod range_locks;
mod receive;
mod send;
mod slots;
mod stream;
mod target;
mod telling;
#[cfg(test)]
mod tests;
mod turn;
mod waiting;

pub use cores::Settling;
pub use queue::{DATA_TIMEOUT, PDU_TIMEOUT, SEND_TIMEOUT, SETUP_TIMEOUT, TERMINATE_TIMEOUT};
pub use stream::Stream;
pub use target::{ConnectionState, Counters, Counts, Limits, Progress, QueueIndex, Refusal, Target};
pub use turn::Environment;
