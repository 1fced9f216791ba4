//! One Ethernet receive/transmit queue pair.

use core::net::SocketAddr;

/// What is fixed about a port, and what its device takes off the software's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortInfo {
    /// The station address.
    pub mac: [u8; 6],
    /// Largest IP packet in bytes (without the Ethernet header); 68 to 9000.
    pub mtu: u16,
    /// Every received frame whose TCP or UDP checksum is wrong is dropped or marked before we see it, so
    /// the stack need not verify.
    pub receive_checksums_verified: bool,
    /// The device fills in TCP and UDP checksums. The stack then leaves the pseudo-header sum in the field
    /// (not zero) and says so through [`FrameTransmit::transmit`]'s `checksum`.
    pub transmit_checksum_offload: bool,
}

/// Where the device has to put a checksum that the stack left to it (Virtio 1.2, section 5.1.6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChecksumRequest {
    /// First byte that is summed, from the start of the frame.
    pub start: u16,
    /// Where the sum goes, from `start`.
    pub offset: u16,
}

/// The receiving half of a [`FrameQueue`].
pub trait FrameReceive {
    /// Gives the next frame to `consume` and its buffer back to the device afterwards.
    ///
    /// The slice is the whole frame from the Ethernet header on, without padding of ours or FCS, and is
    /// private for the time of the call: the device no longer writes it. `None` when nothing has arrived.
    fn receive<R>(&mut self, consume: impl FnOnce(&[u8]) -> R) -> Option<R>;

    /// Whether [`FrameReceive::receive`] would give a frame.
    fn has_frame(&mut self) -> bool;
}

/// The transmitting half of a [`FrameQueue`].
pub trait FrameTransmit {
    /// Whether a frame can be queued now.
    fn has_room(&mut self) -> bool;

    /// Queues a frame of `bytes` bytes that `fill` writes. `fill` comes back as the error, not called, when there
    /// is no room or `bytes` exceeds MTU + 18. After `fill`, `checksum` looks at the finished frame and says
    /// whether the device has to add a checksum. The device may see the frame only after
    /// [`FrameQueue::flush`].
    fn transmit<R, F: FnOnce(&mut [u8]) -> R>(
        &mut self,
        bytes: usize,
        fill: F,
        checksum: impl FnOnce(&mut [u8]) -> Option<ChecksumRequest>,
    ) -> Result<R, F> {
        self.transmit_behind(0, bytes, fill, checksum)
    }

    /// As [`FrameTransmit::transmit`], with `headroom` bytes before those that `fill` gets. `finish` sees the whole frame,
    /// writes what is missing at its start, and answers as `checksum` does; it is called even where the device adds none.
    ///
    /// So whoever fills is given a place of exactly the size that was asked for, and the compiler sees that.
    fn transmit_behind<R, F: FnOnce(&mut [u8]) -> R>(
        &mut self,
        headroom: usize,
        bytes: usize,
        fill: F,
        finish: impl FnOnce(&mut [u8]) -> Option<ChecksumRequest>,
    ) -> Result<R, F>;
}

impl<T: FrameReceive> FrameReceive for &mut T {
    fn receive<R>(&mut self, consume: impl FnOnce(&[u8]) -> R) -> Option<R> {
        (**self).receive(consume)
    }

    fn has_frame(&mut self) -> bool {
        (**self).has_frame()
    }
}

impl<T: FrameTransmit> FrameTransmit for &mut T {
    fn has_room(&mut self) -> bool {
        (**self).has_room()
    }

    fn transmit_behind<R, F: FnOnce(&mut [u8]) -> R>(
        &mut self,
        headroom: usize,
        bytes: usize,
        fill: F,
        finish: impl FnOnce(&mut [u8]) -> Option<ChecksumRequest>,
    ) -> Result<R, F> {
        (**self).transmit_behind(headroom, bytes, fill, finish)
    }
}

/// Frames of other cores that went through a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// Received here and passed on.
    pub passed_on: usize,
    /// Those of them that were dropped, because the other core's ring was full.
    pub dropped: usize,
    /// Sent here for a core that has no queue of its own at the device.
    pub carried: usize,
}

/// One Ethernet receive/transmit queue pair; exactly one core owns it.
pub trait FrameQueue {
    /// Receiving half, for the time of a borrow.
    type Receive<'a>: FrameReceive
    where
        Self: 'a;
    /// Transmitting half, for the time of a borrow.
    type Transmit<'a>: FrameTransmit
    where
        Self: 'a;

    /// What is fixed about the port.
    fn info(&self) -> PortInfo;

    /// Both halves at once, as a protocol stack needs them to answer a frame that it still holds.
    fn halves(&mut self) -> (Self::Receive<'_>, Self::Transmit<'_>);

    /// Publishes what was queued, returns buffers to the device, and rings doorbells where the device asks
    /// for it. Once a turn of the core loop.
    fn flush(&mut self);

    /// Frames of other cores that went through this queue since the last call: work of the core that it does for others.
    fn take_moved(&mut self) -> Moved {
        Moved::default()
    }

    /// Whether what is no connection's, such as a question where the port's addresses are, is answered here. Of the queues of a port
    /// that are all given such a frame one says so.
    fn answers_for_port(&self) -> bool {
        true
    }

    /// Whether segments from `remote` to `local` come to this queue: of the queues of a port each is given its own connections alone.
    fn is_given(&self, _remote: SocketAddr, _local: SocketAddr) -> bool {
        true
    }

    /// Whether the link is up now.
    fn link_is_up(&mut self) -> bool;

    /// Asks for an interrupt at the next frame or link change. True when something is already waiting: then
    /// the core must not sleep. The interrupt stays quiet again after the next [`FrameQueue::disarm`].
    fn arm(&mut self) -> bool;

    /// The core is awake and polls: no interrupts, please.
    fn disarm(&mut self);
}

impl<T: FrameQueue> FrameQueue for &mut T {
    type Receive<'a>
        = T::Receive<'a>
    where
        Self: 'a;
    type Transmit<'a>
        = T::Transmit<'a>
    where
        Self: 'a;

    fn info(&self) -> PortInfo {
        (**self).info()
    }

    fn halves(&mut self) -> (Self::Receive<'_>, Self::Transmit<'_>) {
        (**self).halves()
    }

    fn flush(&mut self) {
        (**self).flush();
    }

    fn take_moved(&mut self) -> Moved {
        (**self).take_moved()
    }

    fn answers_for_port(&self) -> bool {
        (**self).answers_for_port()
    }

    fn is_given(&self, remote: SocketAddr, local: SocketAddr) -> bool {
        (**self).is_given(remote, local)
    }

    fn link_is_up(&mut self) -> bool {
        (**self).link_is_up()
    }

    fn arm(&mut self) -> bool {
        (**self).arm()
    }

    fn disarm(&mut self) {
        (**self).disarm();
    }
}
