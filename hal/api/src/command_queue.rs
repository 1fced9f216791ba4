//! One NVMe queue pair towards a drive, and the registers of the drive's controller.
//!
//! 64 bytes in, 16 bytes out: what the bytes mean is the business of `firmware/drive`.

use crate::DeviceAddress;

/// Size of a submission queue entry (NVM Express Base 2.0, 3.3.3.1: SQE).
pub const COMMAND_BYTES: usize = 64;
/// Size of a completion queue entry (NVM Express Base 2.0, 3.3.3.2: CQE).
pub const COMPLETION_BYTES: usize = 16;

/// The submission queue has no free entry. Take completions, then try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

/// One submission and completion queue pair; exactly one core owns it.
pub trait CommandQueue {
    /// How many commands may be outstanding at once (entries less one).
    fn depth(&self) -> u16;

    /// Queues a command; the device sees it after [`CommandQueue::flush`] at the latest.
    ///
    /// # Errors
    /// [`QueueFull`] when the device has not yet fetched enough of what was submitted before.
    fn submit(&mut self, command: &[u8; COMMAND_BYTES]) -> Result<(), QueueFull>;

    /// The next completion, copied out of the memory that the device writes: its phase tag was checked
    /// first, and it is read once. Its contents are the device's word and not to be trusted.
    fn complete(&mut self) -> Option<[u8; COMPLETION_BYTES]>;

    /// Rings the doorbells for what was submitted and taken since the last call. Once a turn.
    fn flush(&mut self);

    /// Asks for an interrupt at the next completion. True when one is already waiting.
    fn arm(&mut self) -> bool;

    /// The core is awake and polls.
    fn disarm(&mut self);
}

/// An NVMe controller's registers and the memory of its queues (NVM Express Base 2.0, 3.1.4).
///
/// Queue memory is set aside when the device is found, so that a reset never allocates: [`Self::take_queue`]
/// hands out a queue once, [`Self::reset_queue`] empties it for use after a controller reset.
pub trait NvmeDevice {
    /// The queue pairs of this device.
    type Queue: CommandQueue;

    /// CAP, Controller Capabilities. All ones when the device is gone.
    fn capabilities(&self) -> u64;
    /// VS, Version.
    fn version(&self) -> u32;
    /// CSTS, Controller Status. All ones when the device is gone.
    fn status(&self) -> u32;
    /// CRTO, Controller Ready Timeouts; meaningful where CAP.CRMS is set.
    fn ready_timeouts(&self) -> u32;
    /// Writes CC, Controller Configuration.
    fn set_configuration(&mut self, cc: u32);
    /// Reads CC.
    fn configuration(&self) -> u32;
    /// Writes AQA, ASQ and ACQ from the admin queue's memory. Only while the controller is disabled.
    fn set_admin_queue(&mut self);
    /// Turns bus mastering on or off: while it is off the device can touch no memory of the card.
    fn set_bus_master(&mut self, on: bool);

    /// How many queue pairs, the admin pair included, there is memory (and an interrupt vector) for.
    fn queue_pairs(&self) -> u16;
    /// Hands out queue pair `qid` (0 is the admin pair) to its owner; `None` the second time or when there is
    /// no such pair.
    fn take_queue(&mut self, qid: u16) -> Option<Self::Queue>;
    /// Takes back what [`Self::take_queue`] handed out, from an owner that gives the device up. Only while the device
    /// cannot touch it.
    fn return_queue(&mut self, qid: u16, queue: Self::Queue);
    /// Empties `queue`: indices, phase and memory as new. Only while the device cannot touch it.
    fn reset_queue(&mut self, queue: &mut Self::Queue);
    /// Where the device finds queue pair `qid`: submission ring, completion ring, entries of each (not
    /// zero-based), interrupt vector.
    fn queue_location(&self, qid: u16) -> Option<QueueLocation>;
    /// A short name for logs, for example the PCI address, as bus, device, function packed as in a
    /// configuration address (bus << 8 | device << 3 | function).
    fn address(&self) -> u16;
}

/// What Create I/O Completion Queue and Create I/O Submission Queue have to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLocation {
    /// The submission ring, physically contiguous.
    pub submission: DeviceAddress,
    /// The completion ring, physically contiguous.
    pub completion: DeviceAddress,
    /// Entries of each ring, 2 to 65536, at most CAP.MQES + 1.
    pub entries: u32,
    /// MSI-X vector that completions raise, or `None` where the queue is only polled.
    pub vector: Option<u16>,
}
