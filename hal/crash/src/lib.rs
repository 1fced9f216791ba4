//! What a card keeps of its own bugs: the layout of the crash record and of the counters beside it, the form in which
//! they go over the serial line, the watchdog's judgement, and the words that ask for a bug on purpose.
//!
//! The card writes and `cargo xtask crash` reads; both use this code. Must not depend on registers, on an architecture,
//! or on a clock: it is arithmetic over bytes and numbers.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod counters;
mod fault;
mod line;
mod record;
mod watch;

pub use counters::{COUNTERS_BYTES, Counters};
pub use fault::{Fault, FaultKind, Target};
pub use line::{LINE_BYTES, LINE_START, Line, lines_of};
pub use record::{CoreState, Item, Items, Kind, Life, Record, RecordError, Registers, Tag, Writer};
pub use watch::{BOOT_LOOKS, BUDDY_LOOKS, Look, STUCK_LOOKS, Sample};

/// Size of the region that survives a reset, in bytes: counters and record.
pub const REGION_BYTES: usize = 32 * 1024;

/// Log bytes of each core that are kept at most.
pub const LOG_BYTES: usize = 2048;

/// Deepest backtrace that is kept.
pub const MOST_FRAMES: usize = 32;
