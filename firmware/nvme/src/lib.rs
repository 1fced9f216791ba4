//! NVMe bits, used towards hosts and towards drives: commands, completions, statuses, identify data, log
//! pages, features and registers. Layouts only: what they mean stands in `controller` and `drive`.
//!
//! NVM Express Base Specification 2.0 (below: Base), NVM Command Set Specification 1.0 (below: NVM),
//! NVMe over Fabrics parts of Base. All numbers are little-endian on the wire; all structures are plain
//! bytes (no padding, alignment 1), so that any 64 bytes are a [`Command`].
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod command;
mod completion;
pub mod fabrics;
pub mod features;
pub mod identify;
pub mod log_page;
pub mod opcode;
pub mod registers;
mod status;

pub use command::{Command, CopyRange, DatasetRange, SglDescriptor, SglKind};
pub use completion::Completion;
pub use status::Status;

/// NSID that means all namespaces (Base 3.2.1.2).
pub const NSID_ALL: u32 = 0xffff_ffff;
/// Largest NSID that can name one namespace.
pub const NSID_LAST: u32 = 0xffff_fffe;
