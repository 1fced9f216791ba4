//! A transport-neutral NVMe controller: subsystem, namespaces, admin and I/O semantics.
//!
//! NVM Express Base Specification 2.0 (Base), NVM Command Set Specification 1.0 (NVM). It knows neither
//! PDUs nor sockets nor drives: a transport brings commands and moves data, a [`Backend`] carries out block
//! I/O.
//!
//! A command goes through [`Subsystem::admit`] before any of its data moves. Block commands become a
//! [`BlockWork`] for the backend; all others are carried out here by [`Subsystem::fill`] (data to the host)
//! and then [`Subsystem::execute`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod admit;
mod ana;
mod association;
pub mod backend;
#[cfg(test)]
mod claims;
pub mod config;
mod cores;
mod delegate;
mod directory;
mod errors;
mod events;
mod execute;
mod features;
mod identify;
pub mod identity;
mod lines;
mod log_pages;
mod lost_writes;
mod namespace;
mod properties;
mod slot;
mod subsystem;
mod telling;
#[cfg(test)]
mod testing;
mod window;

pub use admit::{Admission, Attached, BlockWork, Transfer, Work};
pub use ana::{AnaState, PortId};
pub use association::{Connected, Failure, Origin};
pub use backend::{Backend, BackendNamespace, IoCompletion, IoRequest, Operation, RejectReason, Rejected};
pub use config::{MAX_IO_QUEUES, MAX_LISTENERS, MAX_NAMESPACES, SubsystemConfig};
pub use cores::{AnaStart, Cores, FenceStart, Heard, LockNews, Mark, Message, Owed};
pub use delegate::HomeAnswer;
pub use directory::DirectoryRoom;
pub use events::EndedRequest;
pub use execute::Outcome;
pub use identity::{Identity, namespace_identity};
pub use lines::LineKind;
pub use message::configuration::SubsystemPlace;
pub use namespace::{AttachError, Namespace, OptimalSizes};
pub use slot::{ControllerHandle, ControllerSlot, QueueContext, ShutdownFlush};
pub use subsystem::{ControllerCounters, Listener, Subsystem};
