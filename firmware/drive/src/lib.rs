//! What commands to an NVMe drive mean: bring-up, splits, time-outs, reset and quarantine.
//!
//! NVM Express Base Specification 2.0 (Base), NVM Command Set Specification 1.0 (NVM). The hardware is reached
//! through [`hal_api::NvmeDevice`] and [`hal_api::CommandQueue`] alone. Nothing here blocks or reads a clock; a drive
//! and everything it writes are not trusted.
//!
//! A [`Drive`] joins three things that know little of each other: the controller's state machine with its admin
//! queue, the queue of a data core with its tables, and the list of namespaces.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod admin;
mod drive;
mod drives;
mod events;
mod io_queue;
pub mod limits;
mod namespaces;
mod plan;
mod removal;
mod report;
pub mod status;
mod tables;
#[cfg(test)]
mod tests;

pub use drive::Drive;
pub use drives::{Drives, Place};
pub use events::{DriveCounters, DriveEvent, DriveIdentity, FailReason, NamespaceInfo, RefusalReason};
pub use removal::Removed;
pub use tables::DriveMemory;
