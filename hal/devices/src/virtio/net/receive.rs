//! The receiving half of a queue pair.

use core::ptr::NonNull;

use hal_api::{DeviceAddress, FrameReceive};
use hal_mem::{CopyCount, DmaRegion};

use super::checksum::{Verdict, verify};
use super::{
    Agreement, ETHERNET_HEADER_BYTES, HEADER_OFFSET, NetCounters, SLOT_ALIGN, feature, header, slot_bytes,
};
use crate::virtio::queue::{Access, Notifier, QueueFault, SplitQueue, Used};

/// Receives frames; each descriptor has a buffer of its own that holds a whole frame.
#[derive(Debug)]
pub struct NetReceive {
    ring: SplitQueue,
    notifier: Notifier,
    buffers: DmaRegion,
    slot_bytes: usize,
    /// Header and frame that fit into one buffer, in bytes.
    buffer_bytes: usize,
    mergeable: bool,
    /// The device vouches for the frames that it flags; the others are verified here.
    verifies: bool,
    /// Where a frame that came in several buffers is put together. The device does not know its address.
    scratch: DmaRegion,
    /// Largest frame, in bytes.
    frame_bytes: usize,
    joining: Option<Joining>,
    ready: Option<Ready>,
    counters: NetCounters,
    copied: CopyCount,
}

/// A frame of which not all buffers have been taken.
#[derive(Debug, Clone, Copy)]
struct Joining {
    buffers_left: u16,
    bytes: usize,
    flags: u8,
    /// Nothing more is kept; the frame's other buffers are only skipped.
    dropped: bool,
}

/// The next frame to hand up.
#[derive(Debug, Clone, Copy)]
enum Ready {
    /// In the buffer of descriptor `id`.
    InBuffer { id: u16, bytes: usize },
    /// In the scratch buffer.
    Joined { bytes: usize },
}

/// The fields of a received header that matter here, read once.
#[derive(Debug, Clone, Copy)]
struct Header {
    flags: u8,
    segmentation: u8,
    buffers: u16,
}

impl NetReceive {
    /// Takes buffers from `dma` and posts them all; `None` when there is too little. [`NetReceive::flush`]
    /// shows them to the device.
    pub(super) fn new(
        ring: SplitQueue,
        notifier: Notifier,
        dma: &mut DmaRegion,
        agreement: &Agreement,
    ) -> Option<Self> {
        let slot_bytes = slot_bytes(agreement.frame_bytes());
        let buffers = dma.split_off(slot_bytes * usize::from(ring.entries()), SLOT_ALIGN)?;
        let scratch = dma.split_off(agreement.received_frame_bytes, SLOT_ALIGN)?;
        let mut receive = Self {
            ring,
            notifier,
            buffers,
            slot_bytes,
            buffer_bytes: header::BYTES + agreement.frame_bytes(),
            mergeable: agreement.has(feature::MRG_RXBUF),
            verifies: agreement.has(feature::GUEST_CSUM),
            scratch,
            frame_bytes: agreement.received_frame_bytes,
            joining: None,
            ready: None,
            counters: NetCounters::default(),
            copied: CopyCount::new(),
        };
        for id in 0..receive.ring.entries() {
            receive.post(id);
        }
        Some(receive)
    }

    pub(super) fn counters(&self) -> NetCounters {
        NetCounters {
            broken_queues: u8::from(self.ring.fault().is_some()),
            copied_bytes: self.copied.bytes(),
            ..self.counters
        }
    }

    /// Returns the buffers of frames that were consumed.
    pub(super) fn flush(&mut self) {
        if self.ring.has_unpublished() && self.ring.publish() {
            self.notifier.kick();
            self.counters.kicks += 1;
        }
    }

    /// Asks for an interrupt at the next frame; true when something waits already.
    pub(super) fn arm(&mut self) -> bool {
        let waits = self.ring.arm();
        waits || self.ready.is_some()
    }

    pub(super) fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// Takes buffers until a frame is ready to be handed up. Each turn of the loop takes one buffer, of which
    /// there are as many as the ring has: what the device returns is posted again only by `flush`.
    fn advance(&mut self) -> bool {
        while self.ready.is_none() {
            let Some(used) = self.ring.take() else { return false };
            match self.joining.take() {
                None => self.begin(used),
                Some(joining) => self.join(joining, used),
            }
        }
        true
    }

    /// The first buffer of a frame.
    fn begin(&mut self, used: Used) {
        let bytes = used.bytes as usize;
        if bytes < header::BYTES {
            // Without a header it is not known how many buffers follow; the next one is taken for a frame's
            // first, and as such checked.
            self.counters.malformed += 1;
            self.post(used.id);
            return;
        }
        let header = self.read_header(used.id);
        let buffers = if self.mergeable { header.buffers } else { 1 };
        if buffers == 0 || buffers > self.ring.entries() {
            self.counters.malformed += 1;
            self.ring.set_fault(QueueFault::BadContents);
            return;
        }
        let frame_bytes = bytes - header::BYTES;
        let malformed = header.segmentation != 0;
        if buffers == 1 && !malformed {
            self.finish_in_buffer(used.id, frame_bytes, header.flags);
            return;
        }
        let joining = Joining { buffers_left: buffers, bytes: 0, flags: header.flags, dropped: malformed };
        if malformed {
            self.counters.malformed += 1;
        }
        self.append(joining, used.id, HEADER_OFFSET + header::BYTES, frame_bytes);
    }

    /// A further buffer of a frame; it has no header.
    fn join(&mut self, joining: Joining, used: Used) {
        self.append(joining, used.id, HEADER_OFFSET, used.bytes as usize);
    }

    /// Adds `bytes` at `offset` of the slot of `id` to the frame, and ends the frame with its last buffer.
    fn append(&mut self, mut joining: Joining, id: u16, offset: usize, bytes: usize) {
        if !joining.dropped {
            if bytes > self.frame_bytes.saturating_sub(joining.bytes) {
                joining.dropped = true;
                self.counters.malformed += 1;
            } else {
                let from = self.place(id, offset);
                // SAFETY: `bytes` is at most what is left of `frame_bytes`, for which the scratch region was
                // made, after the bytes joined before. The device has never been told of it, and no other
                // reference into it lives: those that are handed out end with their call.
                let into = unsafe {
                    core::slice::from_raw_parts_mut(self.scratch.as_ptr().add(joining.bytes).as_ptr(), bytes)
                };
                // SAFETY: the queue has checked that the device wrote no more than the buffer holds, which lies
                // in its slot of the region.
                unsafe { self.copied.copy_from_device(from, into) };
                joining.bytes += bytes;
            }
        }
        self.post(id);
        joining.buffers_left -= 1;
        if joining.buffers_left > 0 {
            self.joining = Some(joining);
        } else if !joining.dropped && self.accepts(self.scratch.as_ptr(), joining.bytes, joining.flags) {
            self.ready = Some(Ready::Joined { bytes: joining.bytes });
        }
    }

    /// A frame that came in one buffer.
    fn finish_in_buffer(&mut self, id: u16, bytes: usize, flags: u8) {
        if self.accepts(self.place(id, HEADER_OFFSET + header::BYTES), bytes, flags) {
            self.ready = Some(Ready::InBuffer { id, bytes });
        } else {
            self.post(id);
        }
    }

    /// Whether the frame of `bytes` at `start` may be handed up; counts it if not.
    fn accepts(&mut self, start: NonNull<u8>, bytes: usize, flags: u8) -> bool {
        if bytes < ETHERNET_HEADER_BYTES {
            self.counters.malformed += 1;
            return false;
        }
        if !self.verifies || flags & (header::NEEDS_CSUM | header::DATA_VALID) != 0 {
            return true;
        }
        // SAFETY: as in `receive`.
        let frame = unsafe { core::slice::from_raw_parts(start.as_ptr(), bytes) };
        let good = verify(frame) == Verdict::Acceptable;
        self.counters.bad_checksum += u64::from(!good);
        good
    }

    fn read_header(&self, id: u16) -> Header {
        let start = self.place(id, HEADER_OFFSET);
        // SAFETY: all within the slot; the slot is aligned to 64 bytes and the header to 2.
        let (flags, segmentation, buffers) = unsafe {
            (
                start.read_volatile(),
                start.add(1).read_volatile(),
                start.add(header::NUM_BUFFERS).cast::<u16>().read_volatile(),
            )
        };
        Header { flags, segmentation, buffers: u16::from_le(buffers) }
    }

    /// `offset` in the slot of `id`, which the queue has checked to be one of its entries.
    fn place(&self, id: u16, offset: usize) -> NonNull<u8> {
        debug_assert!(id < self.ring.entries() && offset < self.slot_bytes);
        // SAFETY: the region has a slot for each entry of the ring.
        unsafe { self.buffers.as_ptr().add(usize::from(id) * self.slot_bytes + offset) }
    }

    /// Gives the buffer of `id` to the device, with the next flush.
    fn post(&mut self, id: u16) {
        let offset = usize::from(id) * self.slot_bytes + HEADER_OFFSET;
        let address = DeviceAddress(self.buffers.device_address().0 + offset as u64);
        self.ring.post(id, address, self.buffer_bytes as u32, Access::Write);
    }
}

impl FrameReceive for NetReceive {
    fn receive<R>(&mut self, consume: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if !self.advance() {
            return None;
        }
        self.counters.received += 1;
        match self.ready.take()? {
            Ready::InBuffer { id, bytes } => {
                let start = self.place(id, HEADER_OFFSET + header::BYTES);
                // SAFETY: `bytes` was checked against the buffer's length. The device has returned the buffer
                // and gets it back only after `consume`, so by protocol it does not write it now. One that
                // did is a bus master of our own card with all memory in reach anyway; what it could change
                // here are a network peer's bytes, parsed in safe code, and nothing in this driver decides
                // about memory by them.
                let frame = unsafe { core::slice::from_raw_parts(start.as_ptr(), bytes) };
                let result = consume(frame);
                self.post(id);
                Some(result)
            }
            Ready::Joined { bytes } => {
                // SAFETY: `bytes` were put together there and checked against its length; the device does not
                // know of the scratch region, and nothing is joined while `ready` is borrowed.
                let frame = unsafe { core::slice::from_raw_parts(self.scratch.as_ptr().as_ptr(), bytes) };
                Some(consume(frame))
            }
        }
    }

    fn has_frame(&mut self) -> bool {
        self.advance()
    }
}
