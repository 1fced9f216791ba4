//! An NVMe/TCP host in user space, for machines without a kernel host.
//!
//! The protocol is `nvmeof::initiator`; this crate adds the kernel's sockets, memory, a clock, and load with its measures.
//! `dpuctl` and the tests' `native-host` are built on it. It decides nothing about what is printed.
#![forbid(unsafe_code)]

mod association;
mod buffers;
mod discovery;
mod error;
mod load;
mod queue;
mod socket;
mod target;

pub use association::Association;
pub use buffers::{Buffers, Random};
pub use discovery::{Subsystem, discover};
pub use error::{Error, Kind};
pub use load::{Area, Limit, Pattern, Stats, Worker, phase, queues, workers};
pub use queue::{COMMAND_LIMIT, Queue};
pub use target::{Host, Target};
