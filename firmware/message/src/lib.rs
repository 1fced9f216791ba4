//! What cores say to each other: the types of messages, and the ways that they take.
//!
//! Here stands what control may ask of a data core, and what it is answered: each data core has a pair of rings with control,
//! one for requests, one for answers; each is moved, so that a device has one owner at any time. Data cores look at theirs every 100 ms. What an
//! operator asks goes by ways of its own, at which they look in every turn (`calls.rs`). What data
//! cores say to each other stands in `between_cores.rs`, how it travels in `mesh.rs`, and how a change that all of them have to
//! make is known to be complete in `quiesce.rs`. Must not depend on who sends or receives.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod between_cores;
mod calls;
mod command_trace;
pub mod configuration;
mod core_counters;
mod core_meter;
mod histogram;
pub mod mailbox;
mod mesh;
mod namespace_meter;
mod orderly_end;
mod quiesce;
mod roster;

pub use between_cores::{
    Address, Change, CoreMessage, CoreSet, EndReason, ErrorReport, LockName, LockedBlocks, LostList,
    MAX_CHANGES, MAX_CONNECT_REQUESTS, MAX_DATA_CORES, MAX_LOCK_REQUESTS, MAX_NAMESPACES, MAX_QUEUES,
    MAX_RANGE_LOCKS, QueueGrant, QueueRequest,
};
pub use calls::{CALL_RING_ENTRIES, CallDesk, Calls, Reply, Request, call_ways};
pub use command_trace::{
    CommandTrace, Stages, TRACES_OF_PAGE, TraceEnd, TraceLog, TracePage, TraceSettings, Waits,
};
pub use core_counters::{ConnectionCounters, ControllerCounters, CoreCounters, MessageCounters, PoolLevels};
pub use core_meter::{CoreMeter, CoreReading};
pub use histogram::{BUCKETS, BucketRange, Histogram};
pub use mesh::{BACKLOG_ENTRIES, MESH_RING_ENTRIES, Merge, Mesh, MeshCounters};
pub use namespace_meter::{MeterPage, MeterPlace, MeterTotals, NamespaceMeter, NamespaceTotals};
pub use orderly_end::{OrderlyEnd, Then};
pub use quiesce::{Confirmed, Quiesce, Quiesces};
pub use roster::Roster;

use hal_mem::{Arena, Consumer, OutOfMemory, Producer, Ring};

/// Messages on their way in one direction; who finds the ring full tries again.
pub const RING_ENTRIES: usize = 4;

/// What control asks of a data core.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "a few exist, in rings, and there is no heap to box a device in"
)]
pub enum DriveRequest<D> {
    /// Take over the device of a drive that was plugged in, bring it up and serve it.
    Add {
        /// The place for it, which is empty.
        place: u8,
        /// The device.
        device: D,
    },
    /// Let go of the drive in a place, and hand its device back. May be asked again, more urgently.
    Remove {
        /// The place.
        place: u8,
        /// The drive is there: its hosts' commands end, it is told to shut down. Else it has been pulled.
        in_order: bool,
    },
}

/// What a data core answers.
#[derive(Debug)]
pub enum DriveReply<D> {
    /// The place is empty.
    Removed {
        /// The place.
        place: u8,
        /// The device, off the bus, with all its queues.
        device: D,
        /// It was shut down before.
        in_order: bool,
    },
}

/// The way from control to a data core.
pub type RequestRing<D> = Ring<DriveRequest<D>, RING_ENTRIES>;
/// The way back.
pub type ReplyRing<D> = Ring<DriveReply<D>, RING_ENTRIES>;

/// Control's ends.
#[derive(Debug)]
pub struct ControlEnds<'a, D> {
    /// To the data core.
    pub requests: Producer<'a, DriveRequest<D>, RING_ENTRIES>,
    /// From it.
    pub replies: Consumer<'a, DriveReply<D>, RING_ENTRIES>,
}

/// A data core's ends.
#[derive(Debug)]
pub struct DataEnds<'a, D> {
    /// From control.
    pub requests: Consumer<'a, DriveRequest<D>, RING_ENTRIES>,
    /// To it.
    pub replies: Producer<'a, DriveReply<D>, RING_ENTRIES>,
}

/// The ends of the two ways between control and one data core, whose rings are made in the arena.
///
/// # Errors
/// [`OutOfMemory`] when the arena is too small.
pub fn drive_ends<D>(
    arena: &mut Arena,
) -> Result<(ControlEnds<'static, D>, DataEnds<'static, D>), OutOfMemory> {
    let requests: &mut RequestRing<D> = arena.ring()?;
    let replies: &mut ReplyRing<D> = arena.ring()?;
    let (to_data, from_control) = requests.split();
    let (to_control, from_data) = replies.split();
    let control = ControlEnds { requests: to_data, replies: from_data };
    Ok((control, DataEnds { requests: from_control, replies: to_control }))
}
