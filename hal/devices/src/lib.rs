//! Registers, rings and doorbells, one file or folder per hardware block.
#![cfg_attr(not(test), no_std)]

mod cfi_flash;
pub mod device_tree;
pub mod drive_slots;
pub mod gic;
pub mod inventory;
pub mod nvme;
pub mod pci;
mod pl011;
mod pl061;
mod tick_rate;
pub mod virtio;

pub use cfi_flash::{CfiError, CfiFlash};
pub use pl011::Pl011;
pub use pl061::PowerKey;
pub use tick_rate::TickRate;
