//! Two Ethernet queue pairs joined by a wire in memory.
//!
//! Stricter than a device: frames leave only at [`FrameQueue::flush`], a receive buffer returns to the
//! device only then, a frame that finds no buffer is lost, buffers come filled with rubbish, and a checksum
//! request that does not fit its frame panics. Not for use across threads.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use hal_api::{ChecksumRequest, FrameQueue, FrameReceive, FrameTransmit, PortInfo};

/// One direction of the wire.
#[derive(Debug, Default)]
struct Direction {
    /// Frames that the receiver may take.
    arrived: VecDeque<Vec<u8>>,
    /// Frames that the receiver sees once it has flushed: they come after its poll and before it arms.
    late: Vec<Vec<u8>>,
    /// Buffers that the receiver took and has not returned.
    held: usize,
    /// The receiver asks for an interrupt.
    armed: bool,
    /// Frames that have arrived since the start.
    arrivals: u64,
    depth: usize,
    /// Every n-th frame is lost on the wire; 0 loses none.
    lose_every: u64,
    carried: u64,
    lost: u64,
}

impl Direction {
    fn carry(&mut self, frame: Vec<u8>) {
        self.carried += 1;
        let unlucky = self.lose_every != 0 && self.carried.is_multiple_of(self.lose_every);
        if unlucky || self.arrived.len() + self.late.len() + self.held >= self.depth {
            self.lost += 1;
        } else {
            self.arrivals += 1;
            if self.late.is_empty() {
                self.arrived.push_back(frame);
            } else {
                // Nothing overtakes a frame on the wire.
                self.late.push(frame);
            }
        }
    }
}

/// Receiving half of a [`FakeFrameQueue`].
#[derive(Debug)]
pub struct FakeReceive {
    from: Rc<RefCell<Direction>>,
}

impl FrameReceive for FakeReceive {
    fn receive<R>(&mut self, consume: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let frame = {
            let mut from = self.from.borrow_mut();
            let frame = from.arrived.pop_front()?;
            from.held += 1;
            frame
        };
        Some(consume(&frame))
    }

    fn has_frame(&mut self) -> bool {
        !self.from.borrow().arrived.is_empty()
    }
}

/// Transmitting half of a [`FakeFrameQueue`].
#[derive(Debug)]
pub struct FakeTransmit {
    queued: VecDeque<Vec<u8>>,
    depth: usize,
    info: PortInfo,
    checksums_filled: u64,
}

impl FrameTransmit for FakeTransmit {
    fn has_room(&mut self) -> bool {
        self.queued.len() < self.depth
    }

    fn transmit_behind<R, F: FnOnce(&mut [u8]) -> R>(
        &mut self,
        headroom: usize,
        bytes: usize,
        fill: F,
        finish: impl FnOnce(&mut [u8]) -> Option<ChecksumRequest>,
    ) -> Result<R, F> {
        if !self.has_room() || headroom + bytes > usize::from(self.info.mtu) + 18 {
            return Err(fill);
        }
        let mut frame = vec![0xa5; headroom + bytes];
        let result = fill(&mut frame[headroom..]);
        if let Some(request) = finish(&mut frame) {
            assert!(self.info.transmit_checksum_offload, "checksum request to a device that adds none");
            fill_checksum(&mut frame, request);
            self.checksums_filled += 1;
        }
        self.queued.push_back(frame);
        Ok(result)
    }
}

/// Does what a device does with a request: sums from `start` to the end, the field itself included.
fn fill_checksum(frame: &mut [u8], request: ChecksumRequest) {
    let start = usize::from(request.start);
    let field = start + usize::from(request.offset);
    assert!(field + 2 <= frame.len(), "checksum field outside of the frame");
    let mut sum: u64 = 0;
    for pair in frame[start..].chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[field..field + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// One end of a wire; see [`frame_queue_pair`].
#[derive(Debug)]
pub struct FakeFrameQueue {
    info: PortInfo,
    receive: FakeReceive,
    transmit: FakeTransmit,
    to: Rc<RefCell<Direction>>,
    link: Rc<RefCell<bool>>,
}

/// A look at what waits for the other end of a wire, as its device knows it.
#[derive(Debug, Clone)]
pub struct FarEnd {
    to: Rc<RefCell<Direction>>,
}

impl FarEnd {
    /// Whether the other end asks for an interrupt.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.to.borrow().armed
    }

    /// Whether a frame waits for the other end.
    #[must_use]
    pub fn has_frame(&self) -> bool {
        !self.to.borrow().arrived.is_empty()
    }

    /// Frames that have arrived at the other end since the start.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.to.borrow().arrivals
    }
}

impl FakeFrameQueue {
    /// A look at the other end.
    #[must_use]
    pub fn far_end(&self) -> FarEnd {
        FarEnd { to: Rc::clone(&self.to) }
    }

    /// Puts a frame on the wire that arrives in the middle of the other end's turn: after its poll, before it arms.
    pub fn inject_late(&mut self, frame: &[u8]) {
        let mut to = self.to.borrow_mut();
        let lost = to.lost;
        let waits = !to.late.is_empty();
        to.carry(frame.to_vec());
        if to.lost == lost
            && !waits
            && let Some(frame) = to.arrived.pop_back()
        {
            to.late.push(frame);
        }
    }

    /// Takes the link up or down for both ends; while it is down, frames are lost.
    pub fn set_link(&self, up: bool) {
        *self.link.borrow_mut() = up;
    }

    /// Loses every `n`-th frame that this end sends from now on; 0 loses none.
    pub fn lose_every(&self, n: u64) {
        self.to.borrow_mut().lose_every = n;
    }

    /// Frames of this end that the wire carried or lost.
    #[must_use]
    pub fn frames_sent(&self) -> u64 {
        self.to.borrow().carried
    }

    /// Frames of this end that were lost, on the wire or for want of a receive buffer.
    #[must_use]
    pub fn frames_lost(&self) -> u64 {
        self.to.borrow().lost
    }

    /// Checksums that this end's device filled in.
    #[must_use]
    pub fn checksums_filled(&self) -> u64 {
        self.transmit.checksums_filled
    }

    /// Whether an interrupt is asked for.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.receive.from.borrow().armed
    }

    /// A copy of what this end queued and has not flushed.
    #[must_use]
    pub fn queued_frames(&self) -> Vec<Vec<u8>> {
        self.transmit.queued.iter().cloned().collect()
    }

    /// Puts a frame on the wire as it is, as a hostile peer may.
    pub fn inject(&mut self, frame: &[u8]) {
        self.to.borrow_mut().carry(frame.to_vec());
    }
}

impl FrameQueue for FakeFrameQueue {
    type Receive<'a> = &'a mut FakeReceive;
    type Transmit<'a> = &'a mut FakeTransmit;

    fn info(&self) -> PortInfo {
        self.info
    }

    fn halves(&mut self) -> (&mut FakeReceive, &mut FakeTransmit) {
        (&mut self.receive, &mut self.transmit)
    }

    fn flush(&mut self) {
        let mut from = self.receive.from.borrow_mut();
        from.held = 0;
        let late = core::mem::take(&mut from.late);
        from.arrived.extend(late);
        drop(from);
        let up = *self.link.borrow();
        let mut to = self.to.borrow_mut();
        for frame in self.transmit.queued.drain(..) {
            if up {
                to.carry(frame);
            } else {
                to.lost += 1;
            }
        }
    }

    fn link_is_up(&mut self) -> bool {
        *self.link.borrow()
    }

    fn arm(&mut self) -> bool {
        self.receive.from.borrow_mut().armed = true;
        self.receive.has_frame()
    }

    fn disarm(&mut self) {
        self.receive.from.borrow_mut().armed = false;
    }
}

/// Two queue pairs of `depth` buffers in each direction, joined by a wire whose link is up.
#[must_use]
pub fn frame_queue_pair(a: PortInfo, b: PortInfo, depth: usize) -> (FakeFrameQueue, FakeFrameQueue) {
    let direction = || Rc::new(RefCell::new(Direction { depth, ..Direction::default() }));
    let (a_to_b, b_to_a) = (direction(), direction());
    let link = Rc::new(RefCell::new(true));
    let end = |info, to: &Rc<RefCell<Direction>>, from: &Rc<RefCell<Direction>>| FakeFrameQueue {
        info,
        receive: FakeReceive { from: Rc::clone(from) },
        transmit: FakeTransmit { queued: VecDeque::new(), depth, info, checksums_filled: 0 },
        to: Rc::clone(to),
        link: Rc::clone(&link),
    };
    (end(a, &a_to_b, &b_to_a), end(b, &b_to_a, &a_to_b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: PortInfo = PortInfo {
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        receive_checksums_verified: false,
        transmit_checksum_offload: true,
    };

    #[test]
    fn frames_cross_at_flush_and_buffers_return_at_flush() {
        let (mut a, mut b) = frame_queue_pair(INFO, INFO, 2);
        for n in 0..2 {
            assert!(a.halves().1.transmit(60, |frame| frame.fill(n), |_| None).is_ok());
        }
        assert!(a.halves().1.transmit(60, |_| (), |_| None).is_err());
        assert!(b.halves().0.receive(|_| ()).is_none());
        a.flush();
        assert_eq!(b.halves().0.receive(|frame| frame[59]), Some(0));
        assert!(a.halves().1.transmit(60, |_| (), |_| None).is_ok());
        a.flush();
        assert_eq!(a.frames_lost(), 1);
        b.flush();
        assert_eq!(b.halves().0.receive(|frame| frame[0]), Some(1));
    }

    #[test]
    fn a_late_frame_shows_after_the_receiver_has_polled_and_flushed() {
        let (mut a, mut b) = frame_queue_pair(INFO, INFO, 2);
        a.inject_late(&[1; 60]);
        a.inject(&[2; 60]);
        assert!(!b.halves().0.has_frame() && a.far_end().arrivals() == 2);
        b.flush();
        assert!(b.arm() && a.far_end().is_armed() && a.far_end().has_frame());
        assert_eq!(b.halves().0.receive(|frame| frame[0]), Some(1));
    }

    #[test]
    fn the_device_completes_a_checksum() {
        let (mut a, mut b) = frame_queue_pair(INFO, INFO, 2);
        let request = ChecksumRequest { start: 2, offset: 0 };
        let fill = |frame: &mut [u8]| frame.copy_from_slice(&[9, 9, 0, 1, 2, 3]);
        assert!(a.halves().1.transmit(6, fill, |_| Some(request)).is_ok());
        a.flush();
        assert_eq!(b.halves().0.receive(<[u8]>::to_vec), Some(vec![9, 9, 0xfd, 0xfb, 2, 3]));
    }
}
