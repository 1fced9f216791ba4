//! A second model of an NVMe/TCP target, for tests only: what a controller has to answer to any bytes of a host.
//!
//! Written from NVMe/TCP Transport 1.0 (TCP), NVM Express Base 2.0 (Base) and NVM Command Set 1.0 (NVM), without a line of the target: this
//! crate depends on nothing. [`pdu_rules`] and [`command_rules`] are the tables; [`Model`] keeps what they need to know of connections,
//! commands, controllers and blocks; [`conversation`] makes hosts that keep to the rules and then do not; [`cases`] are the inputs
//! that broke other targets, each with its answer; [`fused`] judges whether fused pairs were atomic.
#![forbid(unsafe_code)]

pub mod blocks;
pub mod cases;
pub mod command_rules;
mod controllers;
pub mod conversation;
pub mod fused;
mod model;
mod mutation;
pub mod pdu_rules;
mod random;
mod replies;
pub mod wire;

pub use model::{Fate, Model, Phase, View};
pub use random::Random;

/// What a card has and a host cannot tell from the specification.
#[derive(Debug, Clone)]
pub struct Card {
    /// NQN of the subsystem.
    pub nqn: &'static str,
    /// NSID of the only namespace.
    pub nsid: u32,
    /// Its blocks, of 512 bytes.
    pub blocks: u64,
    /// MDTS in bytes.
    pub max_transfer: u32,
    /// IOCCSZ less the command, in bytes; on the admin queue as well.
    pub in_capsule: u32,
    /// MAXH2CDATA.
    pub max_host_data: u32,
    /// MQES + 1.
    pub max_entries: u16,
    /// I/O queues of a controller.
    pub max_io_queues: u16,
    /// AERL + 1.
    pub max_event_requests: usize,
}
