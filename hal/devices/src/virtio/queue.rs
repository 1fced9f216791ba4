//! A split virtqueue (Virtio 1.2, section 2.7) whose every buffer is one descriptor, or a command with its answer.
//!
//! The device can write the used ring and, being a bus master, could write the rest as well. So nothing is
//! ever read back: what was posted stands in a private shadow, an index or an entry of the used ring is read
//! once, checked against the shadow, and then used. A device that breaks the rules breaks its queue
//! ([`SplitQueue::fault`]), nothing else. Must not depend on what the buffers contain.

use hal_api::DeviceAddress;
use hal_mem::{DmaRegion, MmioRegion, device_full_fence, device_read_fence};

/// Entries of a queue that this driver uses at most, whatever the device offers.
pub const MAX_QUEUE_ENTRIES: u16 = 256;

const DESCRIPTOR_BYTES: usize = 16;
/// VIRTQ_DESC_F_NEXT: the buffer goes on with another descriptor.
const DESCRIPTOR_NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE: the device writes the buffer.
const DESCRIPTOR_WRITE: u16 = 2;
/// VIRTQ_AVAIL_F_NO_INTERRUPT, without event index.
const AVAIL_NO_INTERRUPT: u16 = 1;
/// VIRTQ_USED_F_NO_NOTIFY, without event index.
const USED_NO_NOTIFY: u16 = 1;

/// What the device does with a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The device reads it (transmission).
    Read,
    /// The device writes it (reception).
    Write,
}

/// A buffer that the device has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The buffer's descriptor, as given to [`SplitQueue::post`].
    pub id: u16,
    /// Bytes that the device says it wrote; at most the buffer's length.
    pub bytes: u32,
}

/// How a device broke its queue. The queue returns no buffer any more until the device has been reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueFault {
    /// The used index runs ahead of what was made available.
    IndexTooFar,
    /// A used entry names a descriptor that does not exist.
    UnknownDescriptor,
    /// A used entry names a descriptor that the device does not have.
    NotOutstanding,
    /// A used entry claims more bytes than the buffer has.
    TooLong,
    /// The contents make it impossible to tell which buffers belong together.
    BadContents,
}

/// Where the device finds the three parts of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueAddresses {
    /// Descriptor table.
    pub descriptors: DeviceAddress,
    /// Available ring ("driver area").
    pub available: DeviceAddress,
    /// Used ring ("device area").
    pub used: DeviceAddress,
}

/// What the driver knows of a descriptor, out of the device's reach.
#[derive(Debug, Clone, Copy)]
struct Shadow {
    bytes: u32,
    /// Value of the available index under which it was posted.
    sequence: u16,
    outstanding: bool,
}

/// One split virtqueue; exactly one core owns it.
#[derive(Debug)]
pub struct SplitQueue {
    memory: RingMemory,
    addresses: QueueAddresses,
    shadow: [Shadow; MAX_QUEUE_ENTRIES as usize],
    entries: u16,
    event_index: bool,
    /// Available index that includes what is not yet published.
    next: u16,
    /// Available index that the device may know.
    published: u16,
    /// Descriptors posted and not yet returned, unpublished ones included.
    outstanding: u16,
    /// Used entries taken.
    used_next: u16,
    /// The used index when it was last read.
    used_seen: u16,
    fault: Option<QueueFault>,
}

impl SplitQueue {
    /// Alignment of the memory of a queue, in bytes.
    pub const MEMORY_ALIGN: usize = 64;

    /// Bytes of DMA memory that a queue of `entries` needs.
    #[must_use]
    pub const fn memory_bytes(entries: u16) -> usize {
        used_offset(entries) + 6 + 8 * entries as usize
    }

    /// A queue of `entries` (a power of two up to [`MAX_QUEUE_ENTRIES`]) in `memory`, which is zeroed; `None`
    /// when either does not fit. With `event_index`, VIRTIO_F_EVENT_IDX has been negotiated.
    ///
    /// Interrupts are off until [`SplitQueue::arm`].
    #[must_use]
    pub fn new(memory: DmaRegion, entries: u16, event_index: bool) -> Option<Self> {
        Self::starting_at(memory, entries, event_index, 0)
    }

    /// A queue whose indices start at `index`, for tests of their wrap.
    pub(super) fn starting_at(
        memory: DmaRegion,
        entries: u16,
        event_index: bool,
        index: u16,
    ) -> Option<Self> {
        if !entries.is_power_of_two()
            || entries > MAX_QUEUE_ENTRIES
            || memory.len() < Self::memory_bytes(entries)
            || !memory.device_address().0.is_multiple_of(Self::MEMORY_ALIGN as u64)
        {
            return None;
        }
        let base = memory.device_address().0;
        let addresses = QueueAddresses {
            descriptors: DeviceAddress(base),
            available: DeviceAddress(base + available_offset(entries) as u64),
            used: DeviceAddress(base + used_offset(entries) as u64),
        };
        let mut memory = RingMemory { region: memory };
        memory.region.zero(0, Self::memory_bytes(entries));
        memory.write16(available_offset(entries) + 2, index);
        memory.write16(used_offset(entries) + 2, index);
        let shadow = [Shadow { bytes: 0, sequence: 0, outstanding: false }; MAX_QUEUE_ENTRIES as usize];
        let mut queue = Self {
            memory,
            addresses,
            shadow,
            entries,
            event_index,
            next: index,
            published: index,
            outstanding: 0,
            used_next: index,
            used_seen: index,
            fault: None,
        };
        queue.disarm();
        Some(queue)
    }

    /// Where the device finds the queue.
    #[must_use]
    pub const fn addresses(&self) -> QueueAddresses {
        self.addresses
    }

    /// Entries of the queue.
    #[must_use]
    pub const fn entries(&self) -> u16 {
        self.entries
    }

    /// How the device broke the queue, if it did.
    #[must_use]
    pub const fn fault(&self) -> Option<QueueFault> {
        self.fault
    }

    /// Declares the queue broken, for what the owner finds wrong in the contents of its buffers.
    pub fn set_fault(&mut self, fault: QueueFault) {
        self.fault.get_or_insert(fault);
    }

    /// Puts the buffer of `bytes` at `address` under descriptor `id` into the available ring; the device sees
    /// it after [`SplitQueue::publish`]. An `id` that is out of range or that the device already has is a
    /// programmer error and is not posted.
    pub fn post(&mut self, id: u16, address: DeviceAddress, bytes: u32, access: Access) {
        let free = id < self.entries && self.shadow.get(usize::from(id)).is_some_and(|s| !s.outstanding);
        let Some(shadow) = self.shadow.get_mut(usize::from(id)).filter(|_| free) else {
            debug_assert!(false, "descriptor out of range or posted twice");
            return;
        };
        *shadow = Shadow { bytes, sequence: self.next, outstanding: true };
        let flags = if access == Access::Write { DESCRIPTOR_WRITE } else { 0 };
        let descriptor = usize::from(id) * DESCRIPTOR_BYTES;
        self.memory.write64(descriptor, address.0);
        self.memory.write64(descriptor + 8, u64::from(bytes) | u64::from(flags) << 32);
        let slot = usize::from(self.next & (self.entries - 1));
        self.memory.write16(available_offset(self.entries) + 4 + 2 * slot, id);
        self.next = self.next.wrapping_add(1);
        self.outstanding += 1;
    }

    /// Puts a command and the place of its answer, each an address and a length, into a queue that has nothing else and
    /// at least two entries: descriptors 0 and 1, one chain. It comes back under the id 0.
    pub fn post_command(&mut self, command: (DeviceAddress, u32), answer: (DeviceAddress, u32)) {
        if self.outstanding != 0 || self.entries < 2 {
            debug_assert!(false, "one command at a time");
            return;
        }
        self.post(0, command.0, answer.1, Access::Read);
        self.memory.write64(8, u64::from(command.1) | u64::from(DESCRIPTOR_NEXT) << 32 | 1 << 48);
        self.memory.write64(DESCRIPTOR_BYTES, answer.0.0);
        self.memory.write64(DESCRIPTOR_BYTES + 8, u64::from(answer.1) | u64::from(DESCRIPTOR_WRITE) << 32);
    }

    /// Whether [`SplitQueue::publish`] has something to publish.
    #[must_use]
    pub const fn has_unpublished(&self) -> bool {
        self.next != self.published
    }

    /// Shows the device what was posted. True when it has to be notified.
    #[must_use = "the device may sleep until it is notified"]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.next);
        if old == new || self.fault.is_some() {
            return false;
        }
        // Full, not only for writes: what was read out of a returned buffer was read before the device may
        // write the buffer again.
        device_full_fence();
        self.memory.write16(available_offset(self.entries) + 2, new);
        self.published = new;
        // The index is written before the device's wish is read. The device does it the other way round, so
        // one of the two sees the other (section 2.7.13.4.1).
        device_full_fence();
        if self.event_index {
            crosses_event(self.memory.read16(self.available_event_offset()), new, old)
        } else {
            self.memory.read16(used_offset(self.entries)) & USED_NO_NOTIFY == 0
        }
    }

    /// Whether [`SplitQueue::take`] would look at an entry. Reads the used index at most once.
    pub fn has_used(&mut self) -> bool {
        if self.fault.is_some() {
            return false;
        }
        if self.used_seen != self.used_next {
            return true;
        }
        let index = self.memory.read16(used_offset(self.entries) + 2);
        let arrived = index.wrapping_sub(self.used_next);
        if arrived == 0 {
            return false;
        }
        let with_device = self.outstanding - self.next.wrapping_sub(self.published);
        if arrived > with_device {
            self.set_fault(QueueFault::IndexTooFar);
            return false;
        }
        device_read_fence();
        self.used_seen = index;
        true
    }

    /// The next buffer that the device has returned. It is the driver's again, to fill, read and post.
    pub fn take(&mut self) -> Option<Used> {
        if !self.has_used() {
            return None;
        }
        let entry = used_offset(self.entries) + 4 + 8 * usize::from(self.used_next & (self.entries - 1));
        let id = self.memory.read32(entry);
        let bytes = self.memory.read32(entry + 4);
        match self.check(id, bytes) {
            Ok(used) => {
                self.used_next = self.used_next.wrapping_add(1);
                self.outstanding -= 1;
                Some(used)
            }
            Err(fault) => {
                self.set_fault(fault);
                None
            }
        }
    }

    /// Asks for an interrupt at the next returned buffer. True when one is already there.
    pub fn arm(&mut self) -> bool {
        if self.event_index {
            self.memory.write16(self.used_event_offset(), self.used_next);
        } else {
            self.memory.write16(available_offset(self.entries), 0);
        }
        // The wish is written before the index is read again: a buffer that came in between is seen here.
        device_full_fence();
        self.has_used()
    }

    /// Asks for no interrupts. With event index that holds for the next 65,535 buffers; the interrupt that
    /// comes then does no harm.
    pub fn disarm(&mut self) {
        if self.event_index {
            self.memory.write16(self.used_event_offset(), self.used_next.wrapping_sub(1));
        } else {
            self.memory.write16(available_offset(self.entries), AVAIL_NO_INTERRUPT);
        }
    }

    fn check(&mut self, id: u32, bytes: u32) -> Result<Used, QueueFault> {
        let id =
            u16::try_from(id).ok().filter(|id| *id < self.entries).ok_or(QueueFault::UnknownDescriptor)?;
        let shadow = self.shadow.get_mut(usize::from(id)).ok_or(QueueFault::UnknownDescriptor)?;
        let unpublished = self.next.wrapping_sub(self.published);
        if !shadow.outstanding || shadow.sequence.wrapping_sub(self.published) < unpublished {
            return Err(QueueFault::NotOutstanding);
        }
        if bytes > shadow.bytes {
            return Err(QueueFault::TooLong);
        }
        shadow.outstanding = false;
        Ok(Used { id, bytes })
    }

    /// `used_event`, at the end of the available ring, is ours to write.
    const fn used_event_offset(&self) -> usize {
        available_offset(self.entries) + 4 + 2 * self.entries as usize
    }

    /// `avail_event`, at the end of the used ring, is the device's to write.
    const fn available_event_offset(&self) -> usize {
        used_offset(self.entries) + 4 + 8 * self.entries as usize
    }
}

/// The register that tells the device of new buffers in one queue.
#[derive(Debug)]
pub struct Notifier {
    window: MmioRegion,
    offset: usize,
    queue: u16,
}

impl Notifier {
    /// Writes the number `queue` at `offset` (a multiple of 2) of `window` at each kick; `None` when that is
    /// outside.
    #[must_use]
    pub fn new(window: MmioRegion, offset: usize, queue: u16) -> Option<Self> {
        let fits = offset.is_multiple_of(2) && offset.checked_add(2)? <= window.len();
        fits.then_some(Self { window, offset, queue })
    }

    /// Tells the device; after [`SplitQueue::publish`], whose fence orders the memory before this write.
    pub fn kick(&self) {
        self.window.write16(self.offset, self.queue);
    }
}

/// Whether going from `old` to `new` passes the index `event` (section 2.7.10.1, modulo 65,536).
const fn crosses_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

const fn available_offset(entries: u16) -> usize {
    DESCRIPTOR_BYTES * entries as usize
}

/// The used ring starts on a cache line of its own: the device writes it, we write the rest.
const fn used_offset(entries: u16) -> usize {
    (available_offset(entries) + 6 + 2 * entries as usize).next_multiple_of(64)
}

/// Volatile little-endian accesses to the memory of a queue, checked against its length.
#[derive(Debug)]
struct RingMemory {
    region: DmaRegion,
}

macro_rules! accessors {
    ($read:ident, $write:ident, $type:ty) => {
        #[allow(dead_code, reason = "not every width is both read and written")]
        #[inline(always)]
        fn $read(&self, offset: usize) -> $type {
            if !self.covers(offset, size_of::<$type>()) {
                debug_assert!(false, "ring read out of range");
                return 0;
            }
            // SAFETY: in range and aligned (checked above, the region itself is aligned to 64 bytes); the
            // region is valid memory into which no references exist.
            <$type>::from_le(unsafe { self.region.as_ptr().add(offset).cast::<$type>().read_volatile() })
        }

        #[allow(dead_code, reason = "not every width is both read and written")]
        #[inline(always)]
        fn $write(&mut self, offset: usize, value: $type) {
            if !self.covers(offset, size_of::<$type>()) {
                debug_assert!(false, "ring write out of range");
                return;
            }
            // SAFETY: as above.
            unsafe { self.region.as_ptr().add(offset).cast::<$type>().write_volatile(value.to_le()) }
        }
    };
}

impl RingMemory {
    fn covers(&self, offset: usize, bytes: usize) -> bool {
        offset.is_multiple_of(bytes) && offset.checked_add(bytes).is_some_and(|end| end <= self.region.len())
    }

    accessors!(read16, write16, u16);
    accessors!(read32, write32, u32);
    accessors!(read64, write64, u64);
}

#[cfg(test)]
mod tests;
