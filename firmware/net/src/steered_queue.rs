//! A frame queue of one data core among several: a queue pair of the device, or none, and rings to the other cores.
//!
//! Whatever the device gives that belongs to another core goes on by ring; what others pass here is received as if it
//! had come from the device. A core without a queue pair sends by ring through the core that *carries* its frames. The
//! stack above does not know. Each crossing copies a frame once; a full ring drops it, as a wire does. A core looks into those
//! rings only for which its bell has rung. Must not depend on what the stack makes of a frame.

use core::net::SocketAddr;

use hal_api::{ChecksumRequest, FrameQueue, FrameReceive, FrameTransmit, Moved, PortInfo};
use hal_mem::{
    Arena, Bell, CopyCount, FrameConsumer, FrameProducer, OutOfMemory, frame_ring, frame_ring_bytes,
};

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
}

type PerCore<T> = [Option<T>; MAX_CORES_OF_PORT];

/// What a core receives from, a bit for each: the device, the rings of what is passed on to it, those of what it carries. The
/// bell has the same numbers.
type Sources = u32;
const DEVICE: usize = 0;
const PASSED_ON: usize = 1;
const CARRIED: usize = PASSED_ON + MAX_CORES_OF_PORT;
const _: () = assert!(CARRIED + MAX_CORES_OF_PORT <= Bell::RINGS);

/// The rings for this core itself.
const ALL_PASSED_ON: Sources = (1 << CARRIED) - (1 << PASSED_ON);

/// One end of a ring to another core.
struct Way {
    ring: FrameProducer,
    /// The other core, and what is rung there.
    core: usize,
    bell: &'static Bell,
    source: usize,
}

impl Way {
    /// Shows the other core what was put in, and wakes it where it sleeps.
    fn publish(&mut self, wake: &mut impl FnMut(usize)) {
        if self.ring.publish() && self.bell.ring(self.source) {
            wake(self.core);
        }
    }
}

/// What the receiving half has beside the device.
struct Receiving<W> {
    steering: &'static Steering,
    core: usize,
    /// Frames on their way to the other cores.
    to: PerCore<Way>,
    from: PerCore<FrameConsumer>,
    bell: &'static Bell,
    /// Wakes another data core, by its number among them.
    wake: W,
    /// What each source may still give in this turn: the device, then each ring.
    left: [usize; CARRIED],
    /// The source that is asked first: the one after who gave last.
    next: usize,
    has_device: bool,
    /// Rings that may hold something.
    rung: Sources,
    /// Sources that are not to be asked again in this turn: they had nothing, or have given enough.
    silent: Sources,
    /// Cores that something was passed on to that they do not see yet.
    unseen: Sources,
    counters: SteeringCounters,
    copied: CopyCount,
    /// Frames moved for others since that was last asked for.
    moved: Moved,
}

/// What the transmitting half has beside the device.
struct Transmitting {
    /// To the core that carries this one's frames; `None` for a core with a queue pair.
    out: Option<Way>,
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
    let bells: &'static [Bell] = arena.slice(steering.cores(), |_| Bell::default())?;
    for (core, bell) in bells.iter().enumerate() {
        let _ = queues.push(SteeredQueue::new(info, devices.next(), steering, core, bell, wake()));
    }
    let pairs = queues.iter().filter(|queue| queue.device.is_some()).count();
    for from in 0..pairs {
        for (to, bell) in bells.iter().enumerate().filter(|(to, _)| *to != from) {
            let frames = if to < pairs { frames.div_ceil(RARE) } else { frames };
            let (ring, consumer) = frame_ring(arena, frames, frame_bytes(info.mtu))?;
            let way = Way { ring, core: to, bell, source: PASSED_ON + from };
            place(&mut queues, from, |queue| &mut queue.receive.to, to, way);
            place(&mut queues, to, |queue| &mut queue.receive.from, from, consumer);
        }
    }
    for core in pairs..queues.len() {
        let carrier = core.checked_rem(pairs).unwrap_or(0);
        let (ring, consumer) = frame_ring(arena, frames, frame_bytes(info.mtu))?;
        if let (Some(queue), Some(bell)) = (queues.get_mut(core), bells.get(carrier)) {
            queue.transmit.out = Some(Way { ring, core: carrier, bell, source: CARRIED + core });
        }
        place(&mut queues, carrier, |queue| &mut queue.carried, core, consumer);
    }
    Ok(queues)
}

/// Bytes that [`steered_queues`] takes from its arena at most.
#[must_use]
pub fn steered_queues_bytes(cores: usize, pairs: usize, frames: usize, mtu: u16) -> usize {
    let pairs = pairs.clamp(1, cores.max(1));
    let (carried, crossings) = (cores.saturating_sub(pairs), pairs * (pairs - 1));
    let bytes = |frames| frame_ring_bytes(frames, frame_bytes(mtu));
    carried * (pairs + 1) * bytes(frames)
        + crossings * bytes(frames.div_ceil(RARE))
        + cores * size_of::<Bell>()
        + align_of::<Bell>()
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
    fn new(
        info: PortInfo,
        device: Option<F>,
        steering: &'static Steering,
        core: usize,
        bell: &'static Bell,
        wake: W,
    ) -> Self {
        let has_device = device.is_some();
        Self {
            info,
            device,
            receive: Receiving {
                steering,
                core,
                to: [const { None }; MAX_CORES_OF_PORT],
                from: [const { None }; MAX_CORES_OF_PORT],
                bell,
                wake,
                left: [SOURCE_BUDGET; CARRIED],
                next: 0,
                has_device,
                rung: 0,
                silent: 0,
                unseen: 0,
                counters: SteeringCounters::default(),
                copied: CopyCount::new(),
                moved: Moved::default(),
            },
            transmit: Transmitting { out: None, own_left: usize::MAX },
            carried: [const { None }; MAX_CORES_OF_PORT],
            next_carried: 0,
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
        let mut waiting = self.receive.hear() >> CARRIED;
        let Some(device) = self.device.as_mut().filter(|_| waiting != 0) else { return };
        let copied = &self.receive.copied;
        let mut transmit = device.halves().1;
        let mut left = [SOURCE_BUDGET; MAX_CORES_OF_PORT];
        let mut moved = 0;
        while waiting != 0 && transmit.has_room() {
            let core = next_of(waiting, self.next_carried);
            self.next_carried = core + 1;
            let left = left.get_mut(core).filter(|left| **left > 0);
            let ring = self.carried.get_mut(core).and_then(Option::as_mut);
            let carried = left.zip(ring).and_then(|(left, ring)| {
                *left -= 1;
                ring.pop(|frame, note| carry_frame(&mut transmit, frame, note, copied))
            });
            match carried {
                Some(()) => moved += 1,
                None => waiting &= !Bell::bit(core),
            }
        }
        self.receive.counters.carried += moved as u64;
        self.receive.moved.carried += moved;
        let full = !transmit.has_room();
        let mut waiting = 0;
        for (core, ring) in (CARRIED..).zip(&mut self.carried) {
            // What comes into a ring that is empty now rings again.
            match ring.as_mut().is_some_and(FrameConsumer::has_frame) {
                true => waiting += 1,
                false => self.receive.rung &= !Bell::bit(core),
            }
        }
        // Where others wait for room, this core's own frames get no more of it than those of each of them did.
        if full && let Some(left) = moved.checked_div(waiting) {
            // At least one: without room for an answer the stack would take no frame, not even for others.
            self.transmit.own_left = left.max(1);
        }
    }

    /// Shows what this core has queued to the core that carries it.
    fn send_out(&mut self) {
        if let Some(out) = &mut self.transmit.out {
            out.publish(&mut self.receive.wake);
        }
    }
}

/// The first of some sources from `first` on, and from the beginning where there is none; there is one.
fn next_of(sources: Sources, first: usize) -> usize {
    let behind = sources & Bell::bit(first).wrapping_neg();
    if behind == 0 { sources } else { behind }.trailing_zeros() as usize
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

impl<W> Receiving<W> {
    /// The rings that may hold something.
    fn hear(&mut self) -> Sources {
        self.rung |= self.bell.take();
        self.rung
    }

    /// Whether there is a frame in a ring for this core itself.
    fn has_passed_on(&mut self) -> bool {
        let rung = self.hear() >> PASSED_ON;
        let rings = self.from.iter_mut().enumerate().filter(|(core, _)| rung & Bell::bit(*core) != 0);
        rings.filter_map(|(_, ring)| ring.as_mut()).any(FrameConsumer::has_frame)
    }
}

impl<W: FnMut(usize)> Receiving<W> {
    /// Shows the other cores what was passed on to them, and wakes those that sleep.
    fn publish(&mut self) {
        let mut unseen = core::mem::take(&mut self.unseen);
        while unseen != 0 {
            let core = next_of(unseen, 0);
            unseen &= !Bell::bit(core);
            if let Some(way) = self.to.get_mut(core).and_then(Option::as_mut) {
                way.publish(&mut self.wake);
            }
        }
    }

    /// True when the other core will see it.
    fn pass_on(&mut self, core: usize, frame: &[u8]) -> bool {
        let ring = self.to.get_mut(core).and_then(Option::as_mut);
        let copied = &self.copied;
        let passed = ring
            .is_some_and(|way| way.ring.push(frame.len(), |slot| copied.copy(frame, slot), |_| 0).is_ok());
        if passed {
            self.unseen |= Bell::bit(core);
        }
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
        let left = self.left.get_mut(PASSED_ON + core).filter(|left| **left > 0)?;
        let ring = self.from.get_mut(core)?.as_mut()?;
        let Some(result) = ring.pop(|frame, _| Some(consume.take()?(frame))) else {
            // What comes from now on rings again.
            self.rung &= !Bell::bit(PASSED_ON + core);
            return None;
        };
        *left -= 1;
        result
    }

    /// The source to be asked next in this turn, where there is one.
    fn next_source(&mut self) -> Option<usize> {
        let device = Sources::from(self.has_device) << DEVICE;
        let asked = (self.hear() & ALL_PASSED_ON | device) & !self.silent;
        (asked != 0).then(|| next_of(asked, self.next))
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
        while let Some(source) = self.rest.next_source() {
            self.rest.next = source + 1;
            let result = match source.checked_sub(PASSED_ON) {
                None => self.take_from_device(&mut consume),
                Some(core) => self.rest.take_from_ring(core, &mut consume),
            };
            if result.is_some() {
                return result;
            }
            self.rest.silent |= Bell::bit(source);
        }
        // What was passed on need not wait for the rest of the turn.
        self.rest.publish();
        None
    }

    /// A frame that waits at the device may turn out to be another core's.
    fn has_frame(&mut self) -> bool {
        self.device.as_mut().is_some_and(FrameReceive::has_frame) || self.rest.has_passed_on()
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
            (None, Some(out)) => out.ring.has_room(),
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
            (None, Some(out)) => {
                out.ring.push_behind(headroom, bytes, fill, |frame| checksum_note(finish(frame)))
            }
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
        self.receive.left = [SOURCE_BUDGET; CARRIED];
        self.receive.next = 0;
        self.receive.silent = 0;
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

    fn is_given(&self, remote: SocketAddr, local: SocketAddr) -> bool {
        self.receive.steering.core_of(remote, local) == self.receive.core
    }

    /// A core without a queue pair does not know, and takes the link to be up.
    fn link_is_up(&mut self) -> bool {
        self.device.as_mut().is_none_or(F::link_is_up)
    }

    fn arm(&mut self) -> bool {
        self.receive.publish();
        self.send_out();
        let waiting = self.device.as_mut().is_some_and(F::arm);
        // What was heard of may be a ring that is empty since: the next turn knows.
        self.receive.bell.arm() || self.receive.rung != 0 || waiting
    }

    fn disarm(&mut self) {
        if let Some(device) = self.device.as_mut() {
            device.disarm();
        }
        self.receive.bell.disarm();
    }
}

#[cfg(test)]
mod tests;
