//! NVMe controllers behind the root complex: registers, rings and doorbells (NVM Express Base 2.0, NVMe over PCIe 1.0).
//!
//! What commands mean, time-outs and resets are the business of `firmware/drive`, which drives this through
//! [`NvmeDevice`] and [`CommandQueue`](hal_api::CommandQueue).

mod queue;
mod registers;
#[cfg(test)]
mod tests;

use hal_api::{COMMAND_BYTES, COMPLETION_BYTES, NvmeDevice, QueueLocation};
use hal_mem::{DmaRegion, MmioRegion, PAGE_BYTES, device_write_fence};
use heapless::Vec;

use crate::pci::{Function, MsiMessage};
pub use queue::NvmeQueue;
use registers::{ACQ, AQA, ASQ, CAP, CC, CRTO, CSTS, DOORBELLS, VS};

/// Class code of an NVMe I/O controller (NVMe over PCIe 1.0, 3.8.1).
pub const CLASS: u32 = 0x01_0802;
/// Queue pairs of a drive: the admin pair, and one for each core that an interrupt can be sent to.
pub const QUEUE_PAIRS_MAX: u16 = 1 + crate::gic::MAX_CORES as u16;
/// Entries of an I/O queue, where the drive allows as many.
pub const ENTRIES_MAX: u16 = 1024;
/// Entries of the admin queue, which CAP.MQES does not limit.
pub const ADMIN_ENTRIES: u16 = 64;

/// Why a controller cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvmeError {
    /// It does not answer.
    Gone,
    /// BAR 0 is missing, or too small for the registers and the doorbells of the queues.
    RegistersTooSmall,
    /// Its capabilities allow no queue of two entries.
    BadCapabilities,
}

impl NvmeError {
    /// For logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::RegistersTooSmall => "register BAR too small",
            Self::BadCapabilities => "impossible capabilities",
        }
    }
}

/// Memory for the rings of a controller's queues, enough for any drive. It outlives a drive that leaves its slot.
#[derive(Debug)]
pub struct RingMemory {
    /// Submission and completion ring of each pair, the admin pair first.
    pairs: Vec<(DmaRegion, DmaRegion), { QUEUE_PAIRS_MAX as usize }>,
}

impl RingMemory {
    /// Takes memory for the admin pair and `io_queues` I/O pairs ([`NvmeController::ring_bytes`] at most;
    /// [`QUEUE_PAIRS_MAX`] is the limit). `None` where there is too little.
    pub fn take(dma: &mut DmaRegion, io_queues: u16) -> Option<Self> {
        let mut pairs = Vec::new();
        for qid in 0..io_queues.saturating_add(1).min(QUEUE_PAIRS_MAX) {
            let entries = usize::from(if qid == 0 { ADMIN_ENTRIES } else { ENTRIES_MAX });
            let mut ring = |bytes| dma.split_off(entries * bytes, PAGE_BYTES);
            // Bounded by the loop.
            let _ = pairs.push((ring(COMMAND_BYTES)?, ring(COMPLETION_BYTES)?));
        }
        Some(Self { pairs })
    }
}

/// An NVMe controller on PCIe.
#[derive(Debug)]
pub struct NvmeController {
    function: Function,
    registers: MmioRegion,
    capabilities: u64,
    pairs: Vec<Pair, { QUEUE_PAIRS_MAX as usize }>,
}

#[derive(Debug)]
struct Pair {
    location: QueueLocation,
    /// `None` once it has been taken.
    queue: Option<NvmeQueue>,
}

impl NvmeController {
    /// Takes over `function`, gives its vectors their messages, and makes as many queue pairs as `rings` is for.
    ///
    /// Queue pair `qid` interrupts with `messages[qid]`. Pairs for which there is no message, or the drive has
    /// no vector, are only polled. Bus mastering stays off, and the controller as it was.
    ///
    /// # Errors
    /// [`NvmeError`], with the memory; the function's bus mastering is off then, too.
    #[allow(
        clippy::result_large_err,
        reason = "there is no heap to box it in, and it is not on the data path"
    )]
    pub fn new(
        mut function: Function,
        mut rings: RingMemory,
        messages: &[MsiMessage],
    ) -> Result<Self, (NvmeError, RingMemory)> {
        function.set_bus_master(false);
        function.enable_memory();
        let (registers, capabilities) = match examine(&function, rings.pairs.len()) {
            Ok(found) => found,
            Err(error) => return Err((error, rings)),
        };
        let mut controller = Self { function, registers, capabilities, pairs: Vec::new() };
        let vectors = controller.set_up_vectors(messages);
        // Taken from the end, one by one.
        rings.pairs.reverse();
        let mut qid = 0;
        while let Some(memory) = rings.pairs.pop() {
            // The doorbells are there, and there are as many places as rings.
            if let Some(pair) = controller.make_pair(qid, memory, qid < vectors) {
                let _ = controller.pairs.push(pair);
            }
            qid += 1;
        }
        Ok(controller)
    }

    /// The memory of the rings, when all queues are back; bus mastering is off. `None` where one is missing: then its
    /// memory is lost.
    #[must_use]
    pub fn into_rings(mut self) -> Option<RingMemory> {
        self.function.set_bus_master(false);
        let mut pairs = Vec::new();
        self.pairs.reverse();
        while let Some(pair) = self.pairs.pop() {
            // As many as there are places.
            let _ = pairs.push(pair.queue?.into_memory());
        }
        Some(RingMemory { pairs })
    }

    /// Bytes of ring memory that a controller with `io_queues` I/O pairs takes at most.
    #[must_use]
    pub const fn ring_bytes(io_queues: u16) -> usize {
        const fn pair(entries: u16) -> usize {
            (entries as usize * COMMAND_BYTES).next_multiple_of(PAGE_BYTES)
                + (entries as usize * COMPLETION_BYTES).next_multiple_of(PAGE_BYTES)
        }
        pair(ADMIN_ENTRIES) + io_queues as usize * pair(ENTRIES_MAX)
    }

    fn set_up_vectors(&mut self, messages: &[MsiMessage]) -> u16 {
        let count = usize::from(self.function.msix_vectors()).min(messages.len()) as u16;
        for (vector, message) in (0..count).zip(messages) {
            if self.function.set_msix_vector(vector, *message).is_ok() {
                self.function.unmask_vector(vector);
            }
        }
        if count != 0 {
            self.function.enable_msix();
        }
        count
    }

    fn make_pair(&self, qid: u16, memory: (DmaRegion, DmaRegion), has_vector: bool) -> Option<Pair> {
        let allowed = registers::maximum_queue_entries(self.capabilities).min(u32::from(ENTRIES_MAX));
        let entries = if qid == 0 { ADMIN_ENTRIES } else { allowed as u16 };
        let stride_bytes = registers::doorbell_stride_bytes(self.capabilities);
        let doorbells = DOORBELLS + 2 * usize::from(qid) * stride_bytes;
        let doorbells = self.registers.window(doorbells, 2 * stride_bytes)?;
        let (submission, completion) = memory;
        let location = QueueLocation {
            submission: submission.device_address(),
            completion: completion.device_address(),
            entries: u32::from(entries),
            vector: has_vector.then_some(qid),
        };
        let mut queue =
            NvmeQueue::new(qid, entries, (submission, completion), (doorbells, stride_bytes), has_vector);
        // Another drive may have used the rings.
        queue.reset();
        Some(Pair { location, queue: Some(queue) })
    }

    fn write_two_halves(&self, offset: usize, value: u64) {
        self.registers.write32(offset, value as u32);
        self.registers.write32(offset + 4, (value >> 32) as u32);
    }
}

/// The registers and capabilities of a controller that can have `pairs` queue pairs.
fn examine(function: &Function, pairs: usize) -> Result<(MmioRegion, u64), NvmeError> {
    let registers =
        function.bar(0).filter(|bar| bar.len() >= DOORBELLS).ok_or(NvmeError::RegistersTooSmall)?;
    let capabilities = read_two_halves(&registers, CAP);
    if registers.read32(CSTS) == u32::MAX {
        return Err(NvmeError::Gone);
    }
    if registers::maximum_queue_entries(capabilities) < 2 {
        return Err(NvmeError::BadCapabilities);
    }
    if DOORBELLS + 2 * pairs * registers::doorbell_stride_bytes(capabilities) > registers.len() {
        return Err(NvmeError::RegistersTooSmall);
    }
    Ok((registers, capabilities))
}

/// Halves, because a bus may not carry 64-bit accesses (NVM Express Base 2.0, 3.1.2 lets hosts choose).
fn read_two_halves(registers: &MmioRegion, offset: usize) -> u64 {
    u64::from(registers.read32(offset)) | u64::from(registers.read32(offset + 4)) << 32
}

impl NvmeDevice for NvmeController {
    type Queue = NvmeQueue;

    fn capabilities(&self) -> u64 {
        if self.status() == u32::MAX { u64::MAX } else { self.capabilities }
    }

    fn version(&self) -> u32 {
        self.registers.read32(VS)
    }

    fn status(&self) -> u32 {
        self.registers.read32(CSTS)
    }

    fn ready_timeouts(&self) -> u32 {
        self.registers.read32(CRTO)
    }

    fn set_configuration(&mut self, cc: u32) {
        // A controller that is enabled by this finds its rings as they were written.
        device_write_fence();
        self.registers.write32(CC, cc);
    }

    fn configuration(&self) -> u32 {
        self.registers.read32(CC)
    }

    fn set_admin_queue(&mut self) {
        let Some(location) = self.queue_location(0) else { return };
        let last = location.entries - 1;
        self.registers.write32(AQA, last << 16 | last);
        self.write_two_halves(ASQ, location.submission.0);
        self.write_two_halves(ACQ, location.completion.0);
    }

    fn set_bus_master(&mut self, on: bool) {
        self.function.set_bus_master(on);
    }

    fn queue_pairs(&self) -> u16 {
        self.pairs.len() as u16
    }

    fn take_queue(&mut self, qid: u16) -> Option<NvmeQueue> {
        self.pairs.get_mut(usize::from(qid))?.queue.take()
    }

    fn return_queue(&mut self, qid: u16, queue: NvmeQueue) {
        if let Some(pair) = self.pairs.get_mut(usize::from(qid)) {
            pair.queue = Some(queue);
        }
    }

    fn reset_queue(&mut self, queue: &mut NvmeQueue) {
        queue.reset();
    }

    fn queue_location(&self, qid: u16) -> Option<QueueLocation> {
        self.pairs.get(usize::from(qid)).map(|pair| pair.location)
    }

    fn address(&self) -> u16 {
        self.function.address()
    }
}
