//! What the home of a drive and the data cores' queues at it say to each other.
//!
//! Home brings all queues from one *step* to the next: it sends a step to each of them under a number, and goes on when the last
//! one has confirmed that ([`message::Quiesces`]). So at most one step is under way to each queue, and nobody has to wait for
//! room. A queue pair travels with the messages: who has it may use it, and home, which resets it, has it only while nobody
//! sends. See docs/design/many-cores.md.

use hal_api::Instant;
use heapless::Vec;
use message::Merge;

use crate::limits::NAMESPACES_PER_STEP;
use crate::plan::Limits;
use crate::queue::{Fault, IoNamespace, LaneMessage, Share};

/// Namespaces of a drive, by their places in the list that all its queues have been told.
pub(crate) type NamespaceSet = u64;

const _: () = assert!(crate::limits::NAMESPACES_PER_DRIVE <= NamespaceSet::BITS as usize);

/// What a queue is to do, and to confirm at once.
#[derive(Debug)]
pub(crate) enum Step<Q> {
    /// Send nothing any more, and give the queue pair back.
    Stop {
        /// The drive has lost the bus: requests end, pages come back, what comes is refused.
        away: bool,
    },
    /// No queue sends anything: requests at the drive end, and their pages stay in quarantine. Not before, since a host that was told
    /// of a write's end may write anew by another queue, and the old write may still happen.
    Stopped,
    /// The drive can touch no memory until the next [`Step::Up`]: pages come back. What the queue needs of its own is taken.
    Drained,
    /// What the drive's cache held is gone: say which namespaces had acknowledged writes there.
    CacheLost,
    /// Acknowledged writes to these namespaces are gone: hosts are to hear of it.
    WritesLost {
        /// Which, over all queues.
        namespaces: NamespaceSet,
        /// When that was found out.
        at: Instant,
    },
    /// Some of the namespaces that the drive has now.
    Namespaces {
        /// They replace those that were told before.
        first: bool,
        /// They are the last: the list counts from now on.
        last: bool,
        /// They.
        some: Vec<IoNamespace, NAMESPACES_PER_STEP>,
    },
    /// The queue pair exists at the drive: commands may be sent.
    Up {
        /// The pair.
        pair: Q,
        /// What of it is the core's own.
        share: Share,
        /// What the drive allows.
        limits: Limits,
    },
    /// There is none for this core: commands may be sent to one that has one, and is up.
    Borrow {
        /// What of that pair is this core's.
        share: Share,
        /// What the drive allows.
        limits: Limits,
    },
    /// For the others of some cores.
    Nothing,
    /// The drive is off the bus for good, and all its losses are told: nothing more comes.
    Over,
    /// The orderly end has begun: take no request any more, let those inside end, flush. [`FromQueue::Closed`] follows.
    Close {
        /// Until when.
        until: Instant,
    },
}

/// From a drive's home to a queue.
#[derive(Debug)]
pub(crate) enum ToQueue<Q> {
    /// Take this step and confirm it.
    Step {
        /// Home's name for it.
        number: u32,
        /// It.
        step: Step<Q>,
    },
    /// The Abort that the queue has asked for is over: it may ask for the next.
    AbortOver,
}

/// What a confirmation says.
#[derive(Debug)]
pub(crate) enum Answer<Q> {
    /// Nothing more.
    Done,
    /// To [`Step::Stop`]: the queue pair, where the queue had one.
    Stopped(Option<Q>),
    /// To [`Step::Drained`]: whether the queue has the pages that it needs.
    Prepared(bool),
    /// To [`Step::CacheLost`]: the namespaces with acknowledged writes that no Flush has covered.
    Dirty(NamespaceSet),
}

/// From a queue to the drive's home.
#[derive(Debug)]
pub(crate) enum FromQueue<Q> {
    /// The step is taken.
    Confirm {
        /// Which.
        number: u32,
        /// What there is to say of it.
        answer: Answer<Q>,
    },
    /// A command is late: abort it. One at a time; its CID is not used again before [`ToQueue::AbortOver`].
    Late {
        /// The command.
        cid: u16,
    },
    /// The drive has to be reset.
    Fault(Fault),
    /// After [`Step::Close`]: no request is inside, and all that could be flushed is flushed.
    Closed,
}

/// A message from one data core to another about the drive in a place.
#[derive(Debug)]
pub struct DriveMessage<Q> {
    pub(crate) place: u8,
    pub(crate) body: Body<Q>,
}

/// Of a SMART log, all up to the temperature sensors.
pub(crate) const HEALTH_BYTES: usize = 200;

/// What it says.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a few exist, in rings, and there is no heap to box it in")]
pub(crate) enum Body<Q> {
    /// From home: a drive has come to this place.
    Joined {
        /// Its number.
        number: u8,
        /// Where it is on the bus.
        address: u16,
    },
    /// From home: the drive is about to leave.
    Leaving,
    /// From home: it has left for good. To be answered, once nothing is inside any more.
    Leave,
    /// To home: the core has nothing of the drive any more.
    Left,
    /// From home.
    ToQueue(ToQueue<Q>),
    /// To home.
    FromQueue(FromQueue<Q>),
    /// A command for a pair that is lent, or its end; `generation` as in [`Share`].
    Lane {
        /// Of which time.
        generation: u32,
        /// It.
        message: LaneMessage,
    },
    /// To home: this core wants the drive's orderly end.
    EndWanted,
    /// From home: the beginning of the drive's SMART log, which hosts of all cores ask for.
    Health([u8; HEALTH_BYTES]),
    /// To all: a Flush that was sent no earlier has succeeded. What they were told of until then is safe, too.
    Flushed {
        /// The namespace on the drive.
        nsid: u32,
        /// When it was sent.
        sent: Instant,
    },
    /// To all: flush what you have acknowledged.
    AskFlush {
        /// The asking core's name for it.
        ticket: u64,
        /// Until when it has to be over.
        until: Instant,
    },
    /// To whom has asked: it is over.
    FlushOver {
        /// As it was asked.
        ticket: u64,
        /// All is flushed.
        complete: bool,
    },
}

/// Messages that may wait for a ring that is full, between any two cores, besides news: of each place, that nothing is to be
/// flushed in it. All others stay with the drive until there is room.
pub const DRIVE_BACKLOG_ENTRIES: usize = 16;

impl<Q> Merge for DriveMessage<Q> {
    /// Only what stays true wherever it stands among the others.
    fn absorbs(&self, later: &Self) -> bool {
        matches!((&self.body, &later.body), (Body::Leaving, Body::Leaving)) && self.place == later.place
    }
}
