//! A frame queue of one data core among several: a queue pair of the device, or none, and rings to the other cores.
//!
//! Whatever the device gives that belongs to another core goes on by ring; what others pass here is received as if it
//! had come from the device. A core without a queue pair sends by ring through the core that *carries* its frames. The
//! stack above does not know. Each crossing copies a frame once; a full ring drops it, as a wire does. Must not depend on
//! what the stack makes of a frame.

use hal_api::{ChecksumRequest, FrameQueue, FrameReceive, FrameTransmit, Moved, PortInfo};
use hal_mem::{Arena, CopyCount, FrameConsumer, FrameProducer, OutOfMemory, frame_ring, frame_ring_bytes};

use crate::steering::{MAX_CORES_OF_PORT, Steer, Steering};

/// Frames that a turn takes from each source at most (the device, each ring), so that no core waits long for another.
const SOURCE_BUDGET: usize = 64;
/// What a frame may have beside its IP packet: the Ethernet header and a VLAN tag.
const FRAME_OVERHEAD_BYTES: usize = 18;
/// Between cores that both have a queue pair few frames cross: for so many times fewer their ring has slots.
const RARE: usize = 8;

/// What a steered queue has done for other cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SteeringCounters {
    /// Received frames passed on to the core that they belong to; copies for several cores count once each.
    pub passed_on: u64,
    /// Received frames dropped because the other core's ring was full.
    pub dropped: u64,
    /// Frames sent for cores without a queue pair.
    pub carried: u64,
    /// Bytes of all these.
    pub copied_bytes: u64,
}

/// The queue of one data core; see [`steered_queues`].
pub struct SteeredQueue<F, W> {
    info: PortInfo,
    device: Option<F>,
    receive: Receiving<W>,
    transmit: Transmitting,
    /// Frames of the cores that this one carries, by core.
    carried: PerCore<FrameConsumer>,
    /// Whose turn it is to be carried first.
    next_carried: usize,
    /// Who carries this core's frames where it has no queue pair.
    carrier: usize,
}

type PerCore<T> = [Option<T>; MAX_CORES_OF_PORT];

/// What a core receives from, a bit for each: the device, then the rings.
type Sources = u32;
const _: () = assert!(MAX_CORES_OF_PORT < Sources::BITS as usize);

/// What the receiving half has beside the device.
struct Receiving<W> {
    steering: &'static Steering,
    core: usize,
    /// Frames on their way to the other cores.
    to: PerCore<FrameProducer>,
    from: PerCore<FrameConsumer>,
    /// Wakes another data core, by its number among them.
    wake: W,
    /// What each source may still give in this turn: the device, then each ring.
    left: [usize; 1 + MAX_CORES_OF_PORT],
    /// The source that is asked first: the one after who gave last.
    next: usize,
    /// All that there are, and those that may still give something in this turn.
    sources: Sources,
    asked: Sources,
    /// Something was passed on that the other cores do not see yet.
    unseen: bool,
    counters: SteeringCounters,
    copied: CopyCount,
    /// Frames moved for others since that was last asked for.
    moved: Moved,
}

/// What the transmitting half has beside the device.
struct Transmitting {
    /// To the core that carries this one's frames; `None` for a core with a queue pair.
    out: Option<FrameProducer>,
    /// Frames of its own that a core with a queue pair may still queue while others wait for the device.
    own_left: usize,
}

/// Makes the queues of all data cores of a port: `devices` are its queue pairs, at least one, for the first cores in their
/// order. A core without one is carried by the core that its number gives modulo the pairs. Each ring to or from it has
/// room for `frames` frames. `wake` makes what wakes other cores, for each core its own.
///
/// # Errors
/// [`OutOfMemory`] when the arena is too small; what was taken from it by then is lost.
pub fn steered_queues<F: FrameQueue, W: FnMut(usize)>(
    devices: impl IntoIterator<Item = F>,
    steering: &'static Steering,
    frames: usize,
    arena: &mut Arena,
    mut wake: impl FnMut() -> W,
) -> Result<heapless::Vec<SteeredQueue<F, W>, MAX_CORES_OF_PORT>, OutOfMemory> {
    let mut devices = devices.into_iter();
    let mut queues = heapless::Vec::<SteeredQueue<F, W>, MAX_CORES_OF_PORT>::new();
    let Some(first) = devices.next() else { return Ok(queues) };
    let info = first.info();
    let mut devices = core::iter::once(first).chain(devices);
    for core in 0..steering.cores() {
        let _ = queues.push(SteeredQueue::new(info, devices.next(), steering, core, wake()));
    }
    let pairs = queues.iter().filter(|queue| queue.device.is_some()).count();
    for from in 0..pairs {
        for to in (0..queues.len()).filter(|to| *to != from) {
            let frames = if to < pairs { frames.div_ceil(RARE) } else { frames };
            let (producer, consumer) = frame_ring(arena, frames, frame_bytes(info.mtu))?;
            place(&mut queues, from, |queue| &mut queue.receive.to, to, producer);
            place(&mut queues, to, |queue| &mut queue.receive.from, from, consumer);
        }
    }
    for core in pairs..queues.len() {
        let carrier = core.checked_rem(pairs).unwrap_or(0);
        let (producer, consumer) = frame_ring(arena, frames, frame_bytes(info.mtu))?;
        if let Some(queue) = queues.get_mut(core) {
            (queue.transmit.out, queue.carrier) = (Some(producer), carrier);
        }
        place(&mut queues, carrier, |queue| &mut queue.carried, core, consumer);
    }
    for queue in &mut queues {
        let rings = queue.receive.from.iter().map(Option::is_some);
        let sources = core::iter::once(queue.device.is_some()).chain(rings).zip(0..);
        queue.receive.sources = sources.map(|(is_there, source)| Sources::from(is_there) << source).sum();
        queue.receive.asked = queue.receive.sources;
    }
    Ok(queues)
}

/// Bytes that [`steered_queues`] takes from its arena at most.
#[must_use]
pub fn steered_queues_bytes(cores: usize, pairs: usize, frames: usize, mtu: u16) -> usize {
    let pairs = pairs.clamp(1, cores.max(1));
    let (carried, crossings) = (cores.saturating_sub(pairs), pairs * (pairs - 1));
    let bytes = |frames| frame_ring_bytes(frames, frame_bytes(mtu));
    carried * (pairs + 1) * bytes(frames) + crossings * bytes(frames.div_ceil(RARE))
}

fn frame_bytes(mtu: u16) -> usize {
    usize::from(mtu) + FRAME_OVERHEAD_BYTES
}

/// Puts one end of a ring into the place of core `other` among those that `ends` shows of `core`.
fn place<F, W, T>(
    queues: &mut [SteeredQueue<F, W>],
    core: usize,
    ends: impl FnOnce(&mut SteeredQueue<F, W>) -> &mut PerCore<T>,
    other: usize,
    end: T,
) {
    if let Some(place) = queues.get_mut(core).and_then(|queue| ends(queue).get_mut(other)) {
        *place = Some(end);
    }
}

impl<F: FrameQueue, W: FnMut(usize)> SteeredQueue<F, W> {
    fn new(info: PortInfo, device: Option<F>, steering: &'static Steering, core: usize, wake: W) -> Self {
        Self {
            info,
            device,
            receive: Receiving {
                steering,
                core,
                to: [const { None }; MAX_CORES_OF_PORT],
                from: [const { None }; MAX_CORES_OF_PORT],
                wake,
                left: [SOURCE_BUDGET; 1 + MAX_CORES_OF_PORT],
                next: 0,
                sources: 0,
                asked: 0,
                unseen: false,
                counters: SteeringCounters::default(),
                copied: CopyCount::new(),
                moved: Moved::default(),
            },
            transmit: Transmitting { out: None, own_left: usize::MAX },
            carried: [const { None }; MAX_CORES_OF_PORT],
            next_carried: 0,
            carrier: 0,
        }
    }

    /// The core's number among the data cores.
    #[must_use]
    pub fn core(&self) -> usize {
        self.receive.core
    }

    /// The rule that all cores of the port keep.
    #[must_use]
    pub fn steering(&self) -> &'static Steering {
        self.receive.steering
    }

    /// What it has done for other cores.
    #[must_use]
    pub fn counters(&self) -> SteeringCounters {
        SteeringCounters { copied_bytes: self.receive.copied.bytes(), ..self.receive.counters }
    }

    /// The device's queue pair, for what only its owner may ask it.
    pub fn device(&mut self) -> Option<&mut F> {
        self.device.as_mut()
    }

    /// Moves what other cores have queued to the device: one frame of each in turn, as far as there is room.
    fn carry(&mut self) {
        self.transmit.own_left = usize::MAX;
        let Some(device) = self.device.as_mut() else { return };
        if !self.carried.iter_mut().flatten().any(FrameConsumer::has_frame) {
            return;
        }
        let copied = &self.receive.copied;
        let mut transmit = device.halves().1;
        let mut left = [SOURCE_BUDGET; MAX_CORES_OF_PORT];
        let (mut moved, mut silent) = (0, 0);
        while silent < MAX_CORES_OF_PORT && transmit.has_room() {
            let core = self.next_carried;
            self.next_carried = (core + 1) % MAX_CORES_OF_PORT;
            let left = left.get_mut(core).filter(|left| **left > 0);
            let ring = self.carried.get_mut(core).and_then(Option::as_mut);
            let carried = left.zip(ring).and_then(|(left, ring)| {
                *left -= 1;
                ring.pop(|frame, note| carry_frame(&mut transmit, frame, note, copied))
            });
            (moved, silent) = if carried.is_some() { (moved + 1, 0) } else { (moved, silent + 1) };
        }
        self.receive.counters.carried += moved as u64;
        self.receive.moved.carried += moved;
        // Where others wait for room, this core's own frames get no more of it than those of each of them did.
        let full = !transmit.has_room();
        let waiting =
            self.carried.iter_mut().flatten().filter_map(|ring| ring.has_frame().then_some(())).count();
        // At least one: without room for an answer the stack would take no frame, not even for others.
        if full && let Some(left) = moved.checked_div(waiting) {
            self.transmit.own_left = left.max(1);
        }
    }

    /// Shows what this core has queued to the core that carries it.
    fn send_out(&mut self) {
        if self.transmit.out.as_mut().is_some_and(FrameProducer::publish) {
            (self.receive.wake)(self.carrier);
        }
    }
}

fn carry_frame(transmit: &mut impl FrameTransmit, frame: &[u8], note: u32, copied: &CopyCount) {
    // There is room, and the frame is no longer than one that the device takes.
    let sent = transmit.transmit(frame.len(), |room| copied.copy(frame, room), |_| checksum_request(note));
    debug_assert!(sent.is_ok());
}

/// A frame's checksum request as the note that goes with it; 0 for none, because a checksum is never the first byte.
fn checksum_note(request: Option<ChecksumRequest>) -> u32 {
    request.map_or(0, |request| u32::from(request.start) << 16 | u32::from(request.offset))
}

fn checksum_request(note: u32) -> Option<ChecksumRequest> {
    (note != 0).then_some(ChecksumRequest { start: (note >> 16) as u16, offset: note as u16 })
}

impl<W: FnMut(usize)> Receiving<W> {
    /// Shows the other cores what was passed on to them, and wakes those that sleep.
    fn publish(&mut self) {
        if !core::mem::take(&mut self.unseen) {
            return;
        }
        for (core, ring) in self.to.iter_mut().enumerate() {
            if ring.as_mut().is_some_and(FrameProducer::publish) {
                (self.wake)(core);
            }
        }
    }

    /// True when the other core will see it.
    fn pass_on(&mut self, core: usize, frame: &[u8]) -> bool {
        let ring = self.to.get_mut(core).and_then(Option::as_mut);
        let copied = &self.copied;
        let passed =
            ring.is_some_and(|ring| ring.push(frame.len(), |slot| copied.copy(frame, slot), |_| 0).is_ok());
        self.unseen |= passed;
        let count = if passed { &mut self.counters.passed_on } else { &mut self.counters.dropped };
        *count += 1;
        passed
    }

    /// Passes a frame of the device on to those to whom it belongs. True when it is also, or only, this core's.
    fn steer(&mut self, frame: &[u8]) -> bool {
        if self.steering.cores() == 1 {
            return true;
        }
        let owner = match self.steering.core_of_frame(frame) {
            Steer::Core(core) => core,
            Steer::First => 0,
            Steer::Copy => {
                let own = self.core;
                for core in (0..self.steering.cores()).filter(|core| *core != own) {
                    self.pass_on(core, frame);
                }
                // One frame, and this core's as well: the stack counts it.
                return true;
            }
        };
        if owner != self.core {
            let passed = self.pass_on(owner, frame);
            self.moved.passed_on += 1;
            self.moved.dropped += usize::from(!passed);
        }
        owner == self.core
    }

    /// The next frame in the ring of `core`.
    fn take_from_ring<R, C: FnOnce(&[u8]) -> R>(
        &mut self,
        core: usize,
        consume: &mut Option<C>,
    ) -> Option<R> {
        let left = self.left.get_mut(core + 1).filter(|left| **left > 0)?;
        let ring = self.from.get_mut(core)?.as_mut()?;
        let result = ring.pop(|frame, _| Some(consume.take()?(frame)))?;
        *left -= 1;
        result
    }
}

/// Receiving half of a [`SteeredQueue`].
pub struct SteeredReceive<'a, F: FrameQueue + 'a, W> {
    device: Option<F::Receive<'a>>,
    rest: &'a mut Receiving<W>,
}

impl<F: FrameQueue, W: FnMut(usize)> SteeredReceive<'_, F, W> {
    /// The device's next frame that is this core's; those before it go on.
    fn take_from_device<R, C: FnOnce(&[u8]) -> R>(&mut self, consume: &mut Option<C>) -> Option<R> {
        let device = self.device.as_mut()?;
        while self.rest.left.first().is_some_and(|left| *left > 0) {
            let rest = &mut *self.rest;
            let result = device
                .receive(|frame| if rest.steer(frame) { Some(consume.take()?(frame)) } else { None })?;
            if let Some(left) = self.rest.left.first_mut() {
                *left -= 1;
            }
            if result.is_some() {
                return result;
            }
        }
        None
    }
}

impl<F: FrameQueue, W: FnMut(usize)> FrameReceive for SteeredReceive<'_, F, W> {
    fn receive<R>(&mut self, consume: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let mut consume = Some(consume);
        loop {
            let behind = self.rest.asked >> self.rest.next << self.rest.next;
            let asked = if behind == 0 { self.rest.asked } else { behind };
            if asked == 0 {
                break;
            }
            let source = asked.trailing_zeros() as usize;
            self.rest.next = source + 1;
            let result = match source.checked_sub(1) {
                None => self.take_from_device(&mut consume),
                Some(core) => self.rest.take_from_ring(core, &mut consume),
            };
            if result.is_some() {
                return result;
            }
            self.rest.asked &= !(1 << source);
        }
        // What was passed on need not wait for the rest of the turn.
        self.rest.publish();
        None
    }

    /// A frame that waits at the device may turn out to be another core's.
    fn has_frame(&mut self) -> bool {
        self.device.as_mut().is_some_and(FrameReceive::has_frame)
            || self.rest.from.iter_mut().flatten().any(FrameConsumer::has_frame)
    }
}

/// Transmitting half of a [`SteeredQueue`].
pub struct SteeredTransmit<'a, F: FrameQueue + 'a> {
    device: Option<F::Transmit<'a>>,
    rest: &'a mut Transmitting,
}

impl<F: FrameQueue> FrameTransmit for SteeredTransmit<'_, F> {
    fn has_room(&mut self) -> bool {
        match (self.device.as_mut(), self.rest.out.as_mut()) {
            (Some(device), _) => self.rest.own_left > 0 && device.has_room(),
            (None, Some(out)) => out.has_room(),
            (None, None) => false,
        }
    }

    fn transmit_behind<R, C: FnOnce(&mut [u8]) -> R>(
        &mut self,
        headroom: usize,
        bytes: usize,
        fill: C,
        finish: impl FnOnce(&mut [u8]) -> Option<ChecksumRequest>,
    ) -> Result<R, C> {
        match (self.device.as_mut(), self.rest.out.as_mut()) {
            (Some(device), _) => {
                let Some(left) = self.rest.own_left.checked_sub(1) else { return Err(fill) };
                let result = device.transmit_behind(headroom, bytes, fill, finish)?;
                self.rest.own_left = left;
                Ok(result)
            }
            (None, Some(out)) => out.push_behind(headroom, bytes, fill, |frame| checksum_note(finish(frame))),
            (None, None) => Err(fill),
        }
    }
}

impl<F: FrameQueue, W: FnMut(usize)> FrameQueue for SteeredQueue<F, W> {
    type Receive<'a>
        = SteeredReceive<'a, F, W>
    where
        Self: 'a;
    type Transmit<'a>
        = SteeredTransmit<'a, F>
    where
        Self: 'a;

    fn info(&self) -> PortInfo {
        self.info
    }

    fn halves(&mut self) -> (SteeredReceive<'_, F, W>, SteeredTransmit<'_, F>) {
        let (receive, transmit) = self.device.as_mut().map(F::halves).unzip();
        (
            SteeredReceive { device: receive, rest: &mut self.receive },
            SteeredTransmit { device: transmit, rest: &mut self.transmit },
        )
    }

    fn flush(&mut self) {
        self.receive.left = [SOURCE_BUDGET; 1 + MAX_CORES_OF_PORT];
        self.receive.next = 0;
        self.receive.asked = self.receive.sources;
        self.receive.publish();
        self.carry();
        if let Some(device) = self.device.as_mut() {
            device.flush();
        }
        self.send_out();
    }

    fn take_moved(&mut self) -> Moved {
        core::mem::take(&mut self.receive.moved)
    }

    /// The first core is given all of it; the others have copies of what tells station addresses.
    fn answers_for_port(&self) -> bool {
        self.receive.core == 0
    }

    /// A core without a queue pair does not know, and takes the link to be up.
    fn link_is_up(&mut self) -> bool {
        self.device.as_mut().is_none_or(F::link_is_up)
    }

    fn arm(&mut self) -> bool {
        self.receive.publish();
        self.send_out();
        let mut waiting = self.device.as_mut().is_some_and(F::arm);
        for ring in self.receive.from.iter_mut().chain(&mut self.carried).flatten() {
            waiting |= ring.arm();
        }
        waiting
    }

    fn disarm(&mut self) {
        if let Some(device) = self.device.as_mut() {
            device.disarm();
        }
        for ring in self.receive.from.iter_mut().chain(&mut self.carried).flatten() {
            ring.disarm();
        }
    }
}

#[cfg(test)]
mod tests;
