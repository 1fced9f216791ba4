//! The card's defmt sink: an encoder and a byte ring for each core, read out by one.
//!
//! A core writes only its own ring, so that no lock is taken and none is needed: interrupt handlers do not
//! log (docs/ARCHITECTURE.md), and a panic inside a log call is caught by a flag. A writer never
//! waits: a frame that does not fit is dropped whole and counted, and the reader says how many were lost.
//!
//! On the serial line each frame stands as SOH (01h), 40h + core, the rzcobs bytes of the frame, 00h. rzcobs
//! leaves no 00h inside a frame. What stands outside of SOH ... 00h is plain text: a panic before or
//! beside the log.
//!
//! Use: the board calls `install` with its `Hooks` once, before its first log call; the control core takes the
//! `Reader` by `take_reader` and moves its bytes to the UART; the panic handler calls `flush_for_panic`. All
//! of them exist on the card alone; on the host only the rings and their tests do.
#![cfg_attr(not(test), no_std)]
// On the host only the tests use what stands between the logger and the UART.
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

mod ring;
mod wire;

#[cfg(target_os = "none")]
mod logger;

#[cfg(target_os = "none")]
pub use logger::{Hooks, Reader, flush_for_panic, has_unread, history, install, take_reader};

/// How many cores have a ring. What a core beyond it logs is dropped.
pub const MAX_CORES: usize = 8;

/// Bytes of each ring; a power of two.
pub const RING_BYTES: usize = 16 * 1024;

/// Start of a frame on the serial line.
pub const START_OF_FRAME: u8 = 0x01;

/// Added to the core's index, so that the byte after [`START_OF_FRAME`] is printable.
pub const CORE_BASE: u8 = 0x40;
