//! Vector kernels behind safe functions.
//!
//! Which instructions a kernel uses is settled at compile time by target features, because a card without
//! an operating system has no run-time detection; on the host the processor is asked. Must not depend on
//! anything but `core`.
#![cfg_attr(not(any(test, target_os = "linux")), no_std)]

mod crc32c;

pub use crc32c::crc32c;
