//! The transmitting half of a queue pair.

use core::ptr::NonNull;

use hal_api::{ChecksumRequest, DeviceAddress, FrameTransmit};
use hal_mem::DmaRegion;

use super::{Agreement, HEADER_OFFSET, NetCounters, SLOT_ALIGN, feature, header, slot_bytes};
use crate::virtio::queue::{Access, MAX_QUEUE_ENTRIES, Notifier, SplitQueue};

/// Sends frames, each written in place into the buffer of its descriptor.
#[derive(Debug)]
pub struct NetTransmit {
    ring: SplitQueue,
    notifier: Notifier,
    buffers: DmaRegion,
    slot_bytes: usize,
    /// Largest frame, in bytes.
    frame_bytes: usize,
    /// The device fills in checksums.
    offload: bool,
    /// Descriptors that the device does not have: the first `free_count`. The last used is the first taken, as
    /// its buffer may still be in the cache.
    free: [u16; MAX_QUEUE_ENTRIES as usize],
    free_count: usize,
    counters: NetCounters,
}

impl NetTransmit {
    /// Takes buffers from `dma`; `None` when there is too little.
    pub(super) fn new(
        ring: SplitQueue,
        notifier: Notifier,
        dma: &mut DmaRegion,
        agreement: &Agreement,
    ) -> Option<Self> {
        let slot_bytes = slot_bytes(agreement.frame_bytes());
        let buffers = dma.split_off(slot_bytes * usize::from(ring.entries()), SLOT_ALIGN)?;
        let mut free = [0; MAX_QUEUE_ENTRIES as usize];
        for (id, place) in (0..ring.entries()).zip(free.iter_mut()) {
            *place = id;
        }
        Some(Self {
            free_count: usize::from(ring.entries()),
            ring,
            notifier,
            buffers,
            slot_bytes,
            frame_bytes: agreement.frame_bytes(),
            offload: agreement.has(feature::CSUM),
            free,
            counters: NetCounters::default(),
        })
    }

    pub(super) fn counters(&self) -> NetCounters {
        NetCounters { broken_queues: u8::from(self.ring.fault().is_some()), ..self.counters }
    }

    /// Shows the device what was queued, and takes back what it has sent.
    pub(super) fn flush(&mut self) {
        if !self.ring.has_unpublished() {
            return;
        }
        if self.ring.publish() {
            self.notifier.kick();
            self.counters.kicks += 1;
        }
        self.reclaim();
    }

    /// Where nothing could be queued, asks for an interrupt when there is room again: true when there is
    /// already. Otherwise sent frames raise none.
    pub(super) fn arm(&mut self) -> bool {
        self.free_count == 0 && self.ring.arm()
    }

    pub(super) fn disarm(&mut self) {
        self.ring.disarm();
    }

    /// Takes back the buffers that the device has sent.
    fn reclaim(&mut self) {
        while let Some(used) = self.ring.take() {
            if let Some(place) = self.free.get_mut(self.free_count) {
                *place = used.id;
                self.free_count += 1;
            }
        }
    }

    /// `HEADER_OFFSET` in the slot of `id`, where its header starts.
    fn header_place(&self, id: u16) -> NonNull<u8> {
        debug_assert!(id < self.ring.entries());
        // SAFETY: the region has a slot for each entry of the ring, and `free` holds only such.
        unsafe { self.buffers.as_ptr().add(usize::from(id) * self.slot_bytes + HEADER_OFFSET) }
    }

    fn take_free(&mut self) -> Option<u16> {
        let last = self.free_count.checked_sub(1)?;
        let id = *self.free.get(last)?;
        self.free_count = last;
        Some(id)
    }

    fn write_header(&mut self, id: u16, checksum: Option<ChecksumRequest>) {
        let mut fields = [0; header::BYTES];
        if let Some(request) = checksum {
            let (start, offset) = (request.start.to_le_bytes(), request.offset.to_le_bytes());
            fields = [header::NEEDS_CSUM, 0, 0, 0, 0, 0, start[0], start[1], offset[0], offset[1], 0, 0];
        }
        let place = self.header_place(id);
        // SAFETY: the header lies within the slot, which the device has given back.
        unsafe { place.cast::<[u8; header::BYTES]>().write(fields) }
    }
}

impl FrameTransmit for NetTransmit {
    fn has_room(&mut self) -> bool {
        if self.free_count == 0 {
            self.reclaim();
        }
        self.free_count > 0 && self.ring.fault().is_none()
    }

    fn transmit_behind<R, F: FnOnce(&mut [u8]) -> R>(
        &mut self,
        headroom: usize,
        bytes: usize,
        fill: F,
        finish: impl FnOnce(&mut [u8]) -> Option<ChecksumRequest>,
    ) -> Result<R, F> {
        let Some(frame_bytes) = headroom.checked_add(bytes) else { return Err(fill) };
        if frame_bytes > self.frame_bytes || !self.has_room() {
            return Err(fill);
        }
        let Some(id) = self.take_free() else { return Err(fill) };
        // SAFETY: the frame fits into the slot after the header (checked above). The device has returned the
        // buffer (or never had it) and sees it again only with the next flush; what stands in it is
        // initialised, with zeros or an earlier frame.
        let start = unsafe { self.header_place(id).add(header::BYTES) };
        // SAFETY: as above.
        let result = fill(unsafe { core::slice::from_raw_parts_mut(start.add(headroom).as_ptr(), bytes) });
        // SAFETY: as above; the other slice is gone.
        let request = finish(unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), frame_bytes) });
        let request = request.filter(|_| self.offload);
        let request = request.filter(|request| {
            let fits = usize::from(request.start) + usize::from(request.offset) + 2 <= frame_bytes;
            debug_assert!(fits, "checksum field outside the frame");
            fits
        });
        self.write_header(id, request);
        let offset = usize::from(id) * self.slot_bytes + HEADER_OFFSET;
        let address = DeviceAddress(self.buffers.device_address().0 + offset as u64);
        self.ring.post(id, address, (header::BYTES + frame_bytes) as u32, Access::Read);
        self.counters.transmitted += 1;
        Ok(result)
    }
}
