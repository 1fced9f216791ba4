//! The console device (Virtio 1.2, section 5.3): its first port, as a line of bytes.
//!
//! VIRTIO_CONSOLE_F_MULTIPORT is not taken: then there is one port, with queue 0 towards the card and queue 1 from it, and no
//! control queue. So it is not told whether anybody is at the other end.

use core::ptr::NonNull;

use hal_api::{ByteStream, DeviceAddress};
use hal_mem::DmaRegion;

use super::queue::{Access, Notifier, QueueFault, SplitQueue};
use super::{
    FEATURE_EVENT_INDEX, PciTransport, Transport, VirtioError, enable_queue, negotiate, queue_bytes, status,
};
use crate::pci::{Function, MsiMessage};

/// Buffers in each direction.
const ENTRIES: u16 = 8;
/// Bytes of a buffer.
const BUFFER_BYTES: usize = 512;
const BUFFER_ALIGN: usize = 64;
const RECEIVE_QUEUE: u16 = 0;
const TRANSMIT_QUEUE: u16 = 1;

/// A line to an operator's machine.
#[derive(Debug)]
pub struct VirtioConsole {
    receive: Half,
    transmit: Half,
    /// The received buffer that is being read: its descriptor, its bytes, and how many of them are taken.
    reading: Option<(u16, usize, usize)>,
    /// Descriptors whose buffers are free to be filled, as bits.
    free: u16,
    has_interrupt: bool,
}

/// A queue and its buffers, one for each descriptor.
#[derive(Debug)]
struct Half {
    ring: SplitQueue,
    notifier: Notifier,
    buffers: DmaRegion,
}

impl VirtioConsole {
    /// DMA memory that a console needs at most, in bytes.
    pub const MEMORY_BYTES: usize =
        2 * (queue_bytes(ENTRIES) + ENTRIES as usize * BUFFER_BYTES + BUFFER_ALIGN);

    /// Sets up the device behind `function`, with rings and buffers from `dma`, up to posted receive buffers. Without a
    /// message it has to be polled.
    ///
    /// # Errors
    /// Any [`VirtioError`]. The device has been told to give up, and its bus mastering is off, so that memory taken from `dma` is
    /// lost but not written.
    pub fn new(
        function: Function,
        dma: &mut DmaRegion,
        message: Option<MsiMessage>,
    ) -> Result<Self, VirtioError> {
        let mut transport = PciTransport::new(function)?;
        let vectors = transport.enable(message.as_slice())?;
        let console = Self::over(&mut transport, dma, vectors);
        if console.is_err() {
            transport.disconnect();
        }
        console
    }

    /// As [`VirtioConsole::new`], over a transport that is connected and has `vectors` interrupt vectors.
    ///
    /// # Errors
    /// Any [`VirtioError`]; the device's status is FAILED then.
    pub fn over<T: Transport>(
        transport: &mut T,
        dma: &mut DmaRegion,
        vectors: u16,
    ) -> Result<Self, VirtioError> {
        let console = Self::set_up(transport, dma, vectors);
        if console.is_err() {
            transport.set_status(transport.status() | status::FAILED);
        }
        console
    }

    fn set_up<T: Transport>(
        transport: &mut T,
        dma: &mut DmaRegion,
        vectors: u16,
    ) -> Result<Self, VirtioError> {
        let features = negotiate(transport, FEATURE_EVENT_INDEX, |_, features| Ok(features))?;
        let event_index = features & FEATURE_EVENT_INDEX != 0;
        transport.set_configuration_vector(None)?;
        let vector = (vectors > 0).then_some(0);
        let mut half = |index| {
            let (ring, notifier) = enable_queue(transport, dma, ENTRIES, event_index, index, vector)?;
            let buffers = dma
                .split_off(usize::from(ring.entries()) * BUFFER_BYTES, BUFFER_ALIGN)
                .ok_or(VirtioError::OutOfMemory)?;
            Ok(Half { ring, notifier, buffers })
        };
        let (mut receive, transmit) = (half(RECEIVE_QUEUE)?, half(TRANSMIT_QUEUE)?);
        transport.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK);
        for id in 0..receive.ring.entries() {
            receive.post(id, BUFFER_BYTES, Access::Write);
        }
        receive.publish();
        let free = (1u16 << transmit.ring.entries().min(15)) - 1;
        Ok(Self { receive, transmit, reading: None, free, has_interrupt: vectors > 0 })
    }

    /// Whether the device can wake a core; otherwise it is polled.
    #[must_use]
    pub const fn has_interrupt(&self) -> bool {
        self.has_interrupt
    }

    /// How the device broke one of its queues, if it did: it carries nothing more.
    #[must_use]
    pub fn fault(&self) -> Option<QueueFault> {
        self.receive.ring.fault().or(self.transmit.ring.fault())
    }

    fn reclaim(&mut self) {
        while let Some(used) = self.transmit.ring.take() {
            self.free |= bit(used.id);
        }
    }
}

fn bit(id: u16) -> u16 {
    1u16.checked_shl(u32::from(id)).unwrap_or(0)
}

impl Half {
    fn post(&mut self, id: u16, bytes: usize, access: Access) {
        let address = self.buffers.device_address().0 + u64::from(id) * BUFFER_BYTES as u64;
        self.ring.post(id, DeviceAddress(address), bytes as u32, access);
    }

    fn publish(&mut self) {
        if self.ring.publish() {
            self.notifier.kick();
        }
    }

    /// Where byte `at` of a buffer stands, when `bytes` from there are inside.
    fn place(&self, id: u16, at: usize, bytes: usize) -> Option<NonNull<u8>> {
        let fits = id < self.ring.entries() && at.checked_add(bytes)? <= BUFFER_BYTES;
        // SAFETY: inside of buffer `id`, of which there are as many as entries.
        fits.then(|| unsafe { self.buffers.as_ptr().add(usize::from(id) * BUFFER_BYTES + at) })
    }
}

impl ByteStream for VirtioConsole {
    fn read(&mut self, into: &mut [u8]) -> usize {
        let mut read = 0;
        while let Some(room) = into.get_mut(read..).filter(|room| !room.is_empty()) {
            let next = || self.receive.ring.take().map(|used| (used.id, used.bytes as usize, 0));
            let Some((id, bytes, taken)) = self.reading.take().or_else(next) else { break };
            let count = room.len().min(bytes - taken);
            if let Some(place) = self.receive.place(id, taken, count) {
                // SAFETY: `place` has `count` bytes, as `room` has; the device has given the buffer back, and nobody else has
                // a reference into it.
                unsafe { core::ptr::copy_nonoverlapping(place.as_ptr(), room.as_mut_ptr(), count) };
                read += count;
            }
            if taken + count < bytes {
                self.reading = Some((id, bytes, taken + count));
            } else {
                self.receive.post(id, BUFFER_BYTES, Access::Write);
            }
        }
        read
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        self.reclaim();
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty())
            && self.free != 0
        {
            let id = self.free.trailing_zeros() as u16;
            let count = rest.len().min(BUFFER_BYTES);
            let Some(place) = self.transmit.place(id, 0, count) else { break };
            // SAFETY: `place` has `count` bytes, as `rest` has; the device does not have the buffer, and nobody else has a
            // reference into it.
            unsafe { core::ptr::copy_nonoverlapping(rest.as_ptr(), place.as_ptr(), count) };
            self.free &= !bit(id);
            self.transmit.post(id, count, Access::Read);
            written += count;
        }
        written
    }

    fn flush(&mut self) {
        self.receive.publish();
        self.transmit.publish();
    }

    fn arm(&mut self) -> bool {
        self.flush();
        let received = self.receive.ring.arm() || self.reading.is_some();
        // Sent buffers are of interest only to who waits for room.
        let room = self.free == 0 && self.transmit.ring.arm();
        received || room
    }

    fn disarm(&mut self) {
        self.receive.ring.disarm();
        self.transmit.ring.disarm();
    }
}

#[cfg(test)]
mod tests;
