//! What commands to an NVMe drive mean: bring-up, splits, time-outs, reset and quarantine.
//!
//! NVM Express Base Specification 2.0 (Base), NVM Command Set Specification 1.0 (NVM). The hardware is reached
//! through [`hal_api::NvmeDevice`] and [`hal_api::CommandQueue`] alone. Nothing here blocks or reads a clock; a drive
//! and everything it writes are not trusted.
//!
//! A [`Drive`] is what one data core has of a drive: a queue with its tables, and on one of the cores the drive's home, which
//! has its registers, its admin queue and its list of namespaces. Both know each other by messages alone, on one core as on
//! many.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod admin;
mod awake;
mod drive;
mod drives;
mod events;
mod home;
pub mod limits;
mod messages;
mod name;
mod namespaces;
mod plan;
mod queue;
mod removal;
mod report;
mod shared_lately;
pub mod status;
mod tables;
#[cfg(test)]
mod tests;

pub use drive::Drive;
pub use drives::{Drives, Place};
pub use events::{DriveCounters, DriveEvent, DriveIdentity, FailReason, NamespaceInfo, RefusalReason};
pub use messages::{DRIVE_BACKLOG_ENTRIES, DriveMessage};
pub use removal::Removed;
pub use shared_lately::SharedLately;
pub use tables::DriveMemory;
