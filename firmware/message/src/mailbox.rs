//! The mailbox: how an operator's tool asks the card, and what it answers.
//!
//! A client sends a [`Request`], the card answers each with one [`Response`] of the same sequence number, in order. Both are
//! postcard messages of at most [`MESSAGE_BYTES`] bytes, so that one fits into a slot of a BAR window; on a stream of bytes each is
//! COBS-encoded and ended by a zero (`frame.rs`). The first request of a client is [`Call::Hello`]: it says which edition of this file the
//! client was built with, and the card says which one it has. Nothing else is answered before the two agree. A request that is
//! repeated does no harm. Must not depend on who serves, or on what carries the bytes.

mod cobs;
mod core_types;
mod error;
mod frame;
mod types;

pub use core_types::{
    Controller, CoreAnswer, CoreCall, Drive, DriveCounters, DriveHealth, DriveHome, DriveState,
    MAX_CONTROLLERS_OF_ANSWER, MAX_DRIVES_OF_ANSWER, MAX_PORTS_OF_ANSWER, MAX_QUEUES_OF_ANSWER, Port,
    PortAddress, PortCounters, Queue,
};
pub use error::Error;
pub use frame::{Frame, FrameReader, MAX_FRAME_BYTES, encode};
pub use types::{
    Answer, Call, Core, Cores, Edition, Kept, MAX_CHANGES_OF_ANSWER, MAX_CORES_OF_ANSWER, Request, Response,
    Role, Roles, Status, Text,
};

/// Bytes of a request or a response at most, before it is encoded for a stream.
pub const MESSAGE_BYTES: usize = 1024;
