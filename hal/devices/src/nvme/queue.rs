//! One NVMe queue pair: two rings in memory and two doorbells (NVM Express Base 2.0, 3.3.1 and 3.3.3).
//!
//! The device writes the completion ring whenever it likes, so that ring is read by volatile accesses alone, each
//! entry once. Heads and tails are private; what the device reports of them is checked before it counts.

use hal_api::{COMMAND_BYTES, COMPLETION_BYTES, CommandQueue, QueueFull};
use hal_mem::{DmaRegion, MmioRegion, device_full_fence, device_read_fence, device_write_fence};

/// A queue pair of a drive behind the root complex.
///
/// Interrupts stay enabled all the time: a vector's mask lies behind the bus, and writing it at each sleep and
/// wake-up costs more than the interrupts that a busy core, which polls with interrupts masked, only pends.
#[derive(Debug)]
pub struct NvmeQueue {
    qid: u16,
    submission: DmaRegion,
    completion: DmaRegion,
    /// The two doorbells, `stride_bytes` apart.
    doorbells: MmioRegion,
    stride_bytes: usize,
    entries: u16,
    has_vector: bool,
    indices: Indices,
}

#[derive(Debug)]
struct Indices {
    /// Where the next command goes.
    tail: u16,
    /// What the device was last told of `tail`.
    announced_tail: u16,
    /// Up to where the device says it has fetched.
    fetched: u16,
    /// Where the next completion is expected.
    head: u16,
    /// What the device was last told of `head`.
    announced_head: u16,
    /// The phase tag of a new completion at `head`.
    phase: bool,
    /// Commands without a completion.
    outstanding: u16,
}

impl Indices {
    const NEW: Self = Self {
        tail: 0,
        announced_tail: 0,
        fetched: 0,
        head: 0,
        announced_head: 0,
        phase: true,
        outstanding: 0,
    };
}

impl NvmeQueue {
    /// A queue over rings that hold at least `entries` zeroed entries each, and a window onto its doorbells.
    pub(super) fn new(
        qid: u16,
        entries: u16,
        (submission, completion): (DmaRegion, DmaRegion),
        (doorbells, stride_bytes): (MmioRegion, usize),
        has_vector: bool,
    ) -> Self {
        debug_assert!(entries >= 2);
        debug_assert!(submission.len() >= usize::from(entries) * COMMAND_BYTES);
        debug_assert!(completion.len() >= usize::from(entries) * COMPLETION_BYTES);
        let indices = Indices::NEW;
        Self { qid, submission, completion, doorbells, stride_bytes, entries, has_vector, indices }
    }

    /// The memory of the two rings.
    pub(super) fn into_memory(self) -> (DmaRegion, DmaRegion) {
        (self.submission, self.completion)
    }

    /// Everything as new. The device must not be able to reach the rings.
    pub(super) fn reset(&mut self) {
        self.submission.zero(0, self.submission.len());
        self.completion.zero(0, self.completion.len());
        self.indices = Indices::NEW;
    }

    /// Which queue pair this is; 0 is the admin pair.
    #[must_use]
    pub const fn qid(&self) -> u16 {
        self.qid
    }

    /// DW3 of the entry at the head when its phase tag says that it is new.
    fn new_completion(&self) -> Option<u32> {
        const PHASE: u32 = 1 << 16;
        let offset = usize::from(self.indices.head) * COMPLETION_BYTES + 12;
        // SAFETY: the head is below `entries`, for which the ring has room (checked by the controller); the region's
        // memory is valid and aligned.
        let dw3 = unsafe { self.completion.as_ptr().add(offset).cast::<u32>().read_volatile() };
        ((dw3 & PHASE != 0) == self.indices.phase).then_some(dw3)
    }

    /// Believes SQHD only where it lies between what was known to be fetched and what was announced.
    fn note_fetched(&mut self, dw2: u32) {
        let (fetched, from) = (dw2 as u16, (dw2 >> 16) as u16);
        if from != self.qid || fetched >= self.entries {
            return;
        }
        let distance = |to: u16| {
            (u32::from(to) + u32::from(self.entries) - u32::from(self.indices.fetched))
                % u32::from(self.entries)
        };
        if distance(fetched) <= distance(self.indices.announced_tail) {
            self.indices.fetched = fetched;
        }
    }

    const fn after(&self, index: u16) -> u16 {
        if index + 1 == self.entries { 0 } else { index + 1 }
    }
}

impl CommandQueue for NvmeQueue {
    fn depth(&self) -> u16 {
        self.entries - 1
    }

    fn submit(&mut self, command: &[u8; COMMAND_BYTES]) -> Result<(), QueueFull> {
        let next = self.after(self.indices.tail);
        if next == self.indices.fetched {
            return Err(QueueFull);
        }
        let offset = usize::from(self.indices.tail) * COMMAND_BYTES;
        for (index, word) in command.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: the tail is below `entries`, for which the ring has room (checked by the controller); the
            // region's memory is valid and aligned.
            unsafe {
                let place = self.submission.as_ptr().add(offset).cast::<u64>().add(index);
                place.write_volatile(u64::from_ne_bytes(*word));
            }
        }
        self.indices.tail = next;
        self.indices.outstanding = self.indices.outstanding.saturating_add(1);
        Ok(())
    }

    fn complete(&mut self) -> Option<[u8; COMPLETION_BYTES]> {
        let dw3 = self.new_completion()?;
        // The phase tag was written last; the rest must not be read before it.
        device_read_fence();
        let offset = usize::from(self.indices.head) * COMPLETION_BYTES;
        // SAFETY: as in `new_completion`.
        let [dw0, dw1, dw2] = [0, 4, 8]
            .map(|word| unsafe { self.completion.as_ptr().add(offset + word).cast::<u32>().read_volatile() });
        self.indices.head = self.after(self.indices.head);
        if self.indices.head == 0 {
            self.indices.phase = !self.indices.phase;
        }
        self.indices.outstanding = self.indices.outstanding.saturating_sub(1);
        self.note_fetched(dw2);
        let low = u128::from(dw0) | u128::from(dw1) << 32;
        let high = u128::from(dw2) | u128::from(dw3) << 32;
        Some((low | high << 64).to_le_bytes())
    }

    fn flush(&mut self) {
        let submitted = self.indices.tail != self.indices.announced_tail;
        let taken = self.indices.head != self.indices.announced_head;
        if taken {
            // Reads of completions, too, come before the doorbell that lets the device write there again.
            device_full_fence();
        } else if submitted {
            device_write_fence();
        }
        if submitted {
            self.indices.announced_tail = self.indices.tail;
            self.doorbells.write32(0, u32::from(self.indices.tail));
        }
        if taken {
            self.indices.announced_head = self.indices.head;
            self.doorbells.write32(self.stride_bytes, u32::from(self.indices.head));
        }
    }

    fn arm(&mut self) -> bool {
        // Without a vector nothing would wake the core for what is outstanding.
        self.new_completion().is_some() || (!self.has_vector && self.indices.outstanding != 0)
    }

    fn disarm(&mut self) {}
}
