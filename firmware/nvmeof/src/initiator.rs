//! The host side of NVMe/TCP: a queue without sockets, memory or a clock of its own, and the steps that bring a
//! controller up.
//!
//! NVMe/TCP Transport Specification 1.0 (TCP), NVM Express Base Specification 2.0 (Base). A [`HostQueue`] is given a
//! byte [`Stream`](crate::Stream), commands with tokens, and a [`Payload`], the caller's memory. A [`BringUp`]
//! runs the commands with which each connection begins. Time-outs and keep alive are the caller's: it has the clock.
//!
//! Whatever a target sends ends in a completion or in a [`Fault`]; never in a panic, and never in bytes outside of
//! what the command asked for.

mod bring_up;
pub mod commands;
mod fault;
mod frame;
mod queue;
mod receive;
mod send;
mod slots;
#[cfg(test)]
mod tests;

pub use bring_up::{BringUp, BringUpError, ControllerInfo, Identity, MAX_NAMESPACES, NamespaceInfo, Step};
pub use fault::Fault;
pub use queue::{Completed, HostQueue, Payload, QueueOptions, SubmitError};
pub use slots::{MAX_SLOTS, Slot, Transfer};
