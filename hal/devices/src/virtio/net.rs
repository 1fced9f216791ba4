//! The network device (Virtio 1.2, section 5.1): a port, its queue pairs, and what was negotiated for them.
//!
//! No segmentation offload. One queue pair, or several where the device has them (VIRTIO_NET_F_MQ): then it steers
//! segments by the card's own hash and table where it can (VIRTIO_NET_F_RSS), else as it likes.

mod agreement;
mod checksum;
mod control;
mod receive;
mod transmit;

use hal_api::{FrameQueue, PortInfo};
use hal_mem::{DmaRegion, MmioRegion};

use super::queue::{MAX_QUEUE_ENTRIES, Notifier, SplitQueue};
use super::{FEATURE_EVENT_INDEX, PciTransport, Transport, VirtioError, enable_queue, queue_bytes, status};
use crate::pci::{Function, MsiMessage};

use agreement::Agreement;
use control::ControlQueue;

pub use checksum::checksum_is_acceptable;
pub use receive::NetReceive;
pub use transmit::NetTransmit;

/// Queue pairs of a port that are used at most. The whole port passes through the stack at boot.
pub const MAX_QUEUE_PAIRS: usize = 4;
/// Bytes of the key of the hash.
pub const KEY_BYTES: usize = 40;
/// Entries of the table that the hash leads to.
pub const TABLE_ENTRIES: usize = 128;

/// Feature bits (section 5.1.3).
mod feature {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const MTU: u64 = 1 << 3;
    pub const MAC: u64 = 1 << 5;
    pub const MRG_RXBUF: u64 = 1 << 15;
    pub const STATUS: u64 = 1 << 16;
    pub const CTRL_VQ: u64 = 1 << 17;
    pub const MQ: u64 = 1 << 22;
    pub const RSS: u64 = 1 << 60;
    /// What more than one queue pair takes.
    pub const SEVERAL: u64 = CTRL_VQ | MQ | RSS;
    pub const WANTED: u64 = CSUM | GUEST_CSUM | MTU | MAC | MRG_RXBUF | STATUS | super::FEATURE_EVENT_INDEX;
}

/// Offsets in the device's configuration (section 5.1.4).
mod configuration {
    pub const MAC: usize = 0;
    pub const STATUS: usize = 6;
    pub const MAX_PAIRS: usize = 8;
    pub const MTU: usize = 10;
    pub const MAX_KEY_BYTES: usize = 17;
    pub const MAX_TABLE_ENTRIES: usize = 18;
    pub const HASH_TYPES: usize = 20;
    pub const LINK_UP: u16 = 1;
}

/// `struct virtio_net_hdr` (section 5.1.6), the same with and without mergeable buffers.
mod header {
    pub const BYTES: usize = 12;
    pub const NUM_BUFFERS: usize = 10;
    /// The checksum has still to be computed: the field holds the sum of the pseudo-header.
    pub const NEEDS_CSUM: u8 = 1;
    /// The checksum has been found right.
    pub const DATA_VALID: u8 = 2;
}

const ETHERNET_HEADER_BYTES: usize = 14;
const VLAN_TAG_BYTES: usize = 4;
/// What a frame may have beside its IP packet.
const FRAME_OVERHEAD_BYTES: usize = ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES;
const DEFAULT_MTU: u16 = 1500;
const LEAST_MTU: u16 = 68;
const LARGEST_MTU: u16 = 9000;
/// The header starts here in its slot, so that the IP header (after 12 and 14 bytes) starts at a multiple of 32.
const HEADER_OFFSET: usize = 6;
/// Slots begin at a cache line.
const SLOT_ALIGN: usize = 64;

/// What the board decides about a port.
#[derive(Debug, Clone, Copy)]
pub struct NetOptions<'a> {
    /// Largest IP packet wanted in bytes, 68 to 9000; lowers what the device offers, never raises it.
    pub mtu_limit: u16,
    /// Entries of each ring at most; the device and [`MAX_QUEUE_ENTRIES`] limit it too. Bounds the memory.
    pub queue_entries: u16,
    /// Queue pairs wanted; the device and [`MAX_QUEUE_PAIRS`] limit it too. Bounds the memory.
    pub pairs: u16,
    /// Which pair a received segment goes to, where there are several.
    pub steering: Option<DeviceSteering<'a>>,
    /// Interrupt messages, one for each queue pair; the first also tells of link changes. With fewer, the
    /// queues without one are only polled.
    pub messages: &'a [MsiMessage],
}

impl Default for NetOptions<'_> {
    fn default() -> Self {
        Self {
            mtu_limit: LARGEST_MTU,
            queue_entries: MAX_QUEUE_ENTRIES,
            pairs: 1,
            steering: None,
            messages: &[],
        }
    }
}

/// What decides the queue pair of a received segment: a Toeplitz hash of its addresses and ports leads to an entry of
/// the table (Virtio 1.2, section 5.1.6.5.7).
#[derive(Debug, Clone, Copy)]
pub struct DeviceSteering<'a> {
    /// Key of the hash.
    pub key: &'a [u8; KEY_BYTES],
    /// The number of the core for each remainder of the hash; it gets the pair of its number modulo the pairs.
    pub table: &'a [u8; TABLE_ENTRIES],
}

impl NetOptions<'_> {
    /// DMA memory that a port needs at most, in bytes.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        let entries = self.queue_entries as usize;
        let ring = queue_bytes(self.queue_entries);
        let slots = slot_bytes(FRAME_OVERHEAD_BYTES + self.mtu_limit as usize) * entries;
        let scratch = slot_bytes(FRAME_OVERHEAD_BYTES + LARGEST_MTU as usize);
        let control = ring + control::BUFFER_BYTES;
        self.wanted_pairs() as usize * (2 * (ring + slots) + scratch) + control + SLOT_ALIGN
    }

    const fn wanted_pairs(&self) -> u16 {
        let most = MAX_QUEUE_PAIRS as u16;
        if self.pairs == 0 {
            1
        } else if self.pairs < most {
            self.pairs
        } else {
            most
        }
    }
}

/// What a queue pair has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Frames handed up.
    pub received: u64,
    /// Frames queued for transmission.
    pub transmitted: u64,
    /// Received frames dropped because their TCP or UDP checksum is wrong or cannot be verified.
    pub bad_checksum: u64,
    /// Received frames dropped because their header, length or number of buffers makes no sense.
    pub malformed: u64,
    /// Bytes copied to put received frames together that came in several buffers.
    pub copied_bytes: u64,
    /// Notifications sent to the device.
    pub kicks: u64,
    /// Queues that the device broke (0 to 2): they carry no more frames until the port is set up anew.
    pub broken_queues: u8,
}

/// A virtio network device: the owner of its registers, and where its queue pairs come from.
#[derive(Debug)]
pub struct VirtioNetPort<T = PciTransport> {
    transport: T,
    made: Made,
    vectors: u16,
}

/// What became of a device.
#[derive(Debug)]
struct Made {
    info: PortInfo,
    queues: [Option<VirtioNetQueue>; MAX_QUEUE_PAIRS],
    pairs: usize,
    steers: bool,
}

/// One receive and transmit queue pair of a port.
#[derive(Debug)]
pub struct VirtioNetQueue {
    info: PortInfo,
    receive: NetReceive,
    transmit: NetTransmit,
    /// The configuration where the link state stands; `None` where the device does not tell.
    link: Option<MmioRegion>,
}

impl VirtioNetPort<PciTransport> {
    /// Sets up the device behind `function`, with rings and buffers from `dma`, up to the first posted
    /// receive buffer.
    ///
    /// # Errors
    /// Any [`VirtioError`]. The device has been told to give up, and its bus mastering is off, so that memory
    /// taken from `dma` is lost but not written.
    pub fn new(function: Function, dma: &mut DmaRegion, options: &NetOptions) -> Result<Self, VirtioError> {
        let mut transport = PciTransport::new(function)?;
        let vectors = transport.enable(options.messages)?;
        match set_up(&mut transport, dma, options, vectors) {
            Ok(made) => Ok(Self { transport, made, vectors }),
            Err(error) => {
                transport.set_status(transport.status() | status::FAILED);
                transport.disconnect();
                Err(error)
            }
        }
    }

    /// The function's address, for logs: bus << 8 | device << 3 | function.
    #[must_use]
    pub fn address(&self) -> u16 {
        self.transport.address()
    }
}

impl<T: Transport> VirtioNetPort<T> {
    /// As [`VirtioNetPort::new`], over a transport that is connected and has `vectors` interrupt vectors.
    ///
    /// # Errors
    /// Any [`VirtioError`]; the device's status is FAILED then.
    pub fn over(
        mut transport: T,
        dma: &mut DmaRegion,
        options: &NetOptions,
        vectors: u16,
    ) -> Result<Self, VirtioError> {
        match set_up(&mut transport, dma, options, vectors) {
            Ok(made) => Ok(Self { transport, made, vectors }),
            Err(error) => {
                transport.set_status(transport.status() | status::FAILED);
                Err(error)
            }
        }
    }

    /// What is fixed about the port.
    #[must_use]
    pub const fn info(&self) -> PortInfo {
        self.made.info
    }

    /// How many queue pairs are in use: those up to here can be taken.
    #[must_use]
    pub const fn pairs(&self) -> usize {
        self.made.pairs
    }

    /// Whether the device keeps to [`NetOptions::steering`]; otherwise any segment may come to any pair.
    #[must_use]
    pub const fn steers(&self) -> bool {
        self.made.steers
    }

    /// Whether queue pair `index` has an interrupt; without one it is polled.
    #[must_use]
    pub const fn has_interrupt(&self, index: usize) -> bool {
        index < self.vectors as usize
    }

    /// Hands out queue pair `index` to its owner; `None` the second time or when there is no such pair.
    pub fn take_queue(&mut self, index: usize) -> Option<VirtioNetQueue> {
        self.made.queues.get_mut(index)?.take()
    }
}

fn set_up<T: Transport>(
    transport: &mut T,
    dma: &mut DmaRegion,
    options: &NetOptions,
    vectors: u16,
) -> Result<Made, VirtioError> {
    let agreement = Agreement::reach(transport, options)?;
    let vector = |wanted: u16| (wanted < vectors).then_some(wanted);
    transport.set_configuration_vector(vector(0))?;
    let mut queues = [const { None }; MAX_QUEUE_PAIRS];
    for (pair, place) in (0..agreement.pairs).zip(queues.iter_mut()) {
        *place = Some(VirtioNetQueue::new(transport, dma, options, &agreement, pair, vector(pair))?);
    }
    let control =
        if agreement.pairs > 1 { Some(enable_control(transport, dma, options, &agreement)?) } else { None };
    transport.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK);
    // Not before DRIVER_OK may the device be notified.
    for queue in queues.iter_mut().flatten() {
        queue.receive.flush();
    }
    let mut made = Made { info: agreement.info, queues, pairs: 1, steers: false };
    if let Some(control) = control {
        made.use_pairs(transport, control, options, &agreement);
    }
    Ok(made)
}

impl Made {
    /// Switches the other pairs on. A device that does not take the command goes on with the first alone.
    fn use_pairs<T: Transport>(
        &mut self,
        transport: &T,
        mut control: ControlQueue,
        options: &NetOptions,
        agreement: &Agreement,
    ) {
        let pairs = agreement.pairs;
        let steering = options.steering.as_ref().filter(|_| agreement.has(feature::RSS));
        self.steers = steering.is_some_and(|steering| control.steer(transport, pairs, steering).is_ok());
        let several =
            self.steers || agreement.has(feature::MQ) && control.use_pairs(transport, pairs).is_ok();
        if several {
            self.pairs = usize::from(pairs);
        } else {
            hal_log::warn!("the port keeps to one queue pair: its device does not take the command for more");
            self.queues.iter_mut().skip(1).for_each(|queue| *queue = None);
        }
    }
}

fn enable_control<T: Transport>(
    transport: &mut T,
    dma: &mut DmaRegion,
    options: &NetOptions,
    agreement: &Agreement,
) -> Result<ControlQueue, VirtioError> {
    let index = 2 * agreement.device_pairs;
    let (ring, notifier) = enable_port_queue(transport, dma, options, agreement, index, None)?;
    let buffer = dma.split_off(control::BUFFER_BYTES, SLOT_ALIGN).ok_or(VirtioError::OutOfMemory)?;
    if ring.entries() < control::ENTRIES {
        return Err(VirtioError::BadQueue);
    }
    ControlQueue::new(ring, notifier, buffer).ok_or(VirtioError::OutOfMemory)
}

impl VirtioNetQueue {
    fn new<T: Transport>(
        transport: &mut T,
        dma: &mut DmaRegion,
        options: &NetOptions,
        agreement: &Agreement,
        pair: u16,
        vector: Option<u16>,
    ) -> Result<Self, VirtioError> {
        let (ring, notifier) = enable_port_queue(transport, dma, options, agreement, 2 * pair, vector)?;
        let receive = NetReceive::new(ring, notifier, dma, agreement).ok_or(VirtioError::OutOfMemory)?;
        let (ring, notifier) = enable_port_queue(transport, dma, options, agreement, 2 * pair + 1, vector)?;
        let transmit = NetTransmit::new(ring, notifier, dma, agreement).ok_or(VirtioError::OutOfMemory)?;
        let fields = transport.configuration();
        let link = if agreement.has(feature::STATUS) { fields.window(0, fields.len()) } else { None };
        Ok(Self { info: agreement.info, receive, transmit, link })
    }

    /// What the queue pair has done so far.
    #[must_use]
    pub fn counters(&self) -> NetCounters {
        let (receive, transmit) = (self.receive.counters(), self.transmit.counters());
        NetCounters {
            transmitted: transmit.transmitted,
            kicks: receive.kicks + transmit.kicks,
            broken_queues: receive.broken_queues + transmit.broken_queues,
            ..receive
        }
    }
}

impl FrameQueue for VirtioNetQueue {
    type Receive<'a> = &'a mut NetReceive;
    type Transmit<'a> = &'a mut NetTransmit;

    fn info(&self) -> PortInfo {
        self.info
    }

    fn halves(&mut self) -> (&mut NetReceive, &mut NetTransmit) {
        (&mut self.receive, &mut self.transmit)
    }

    fn flush(&mut self) {
        self.receive.flush();
        self.transmit.flush();
    }

    /// One read over the bus (an exit to the emulator under QEMU): ask about ten times a second, and after a
    /// sleep, not once a turn.
    fn link_is_up(&mut self) -> bool {
        // One 16-bit field is read at once, so the generation need not be looked at.
        self.link
            .as_ref()
            .is_none_or(|fields| fields.read16(configuration::STATUS) & configuration::LINK_UP != 0)
    }

    fn arm(&mut self) -> bool {
        self.flush();
        let frame_waits = self.receive.arm();
        let room_waits = self.transmit.arm();
        frame_waits || room_waits
    }

    fn disarm(&mut self) {
        self.receive.disarm();
        self.transmit.disarm();
    }
}

fn enable_port_queue<T: Transport>(
    transport: &mut T,
    dma: &mut DmaRegion,
    options: &NetOptions,
    agreement: &Agreement,
    index: u16,
    vector: Option<u16>,
) -> Result<(SplitQueue, Notifier), VirtioError> {
    enable_queue(transport, dma, options.queue_entries, agreement.has(FEATURE_EVENT_INDEX), index, vector)
}

/// Distance between buffers for frames of `frame_bytes`.
const fn slot_bytes(frame_bytes: usize) -> usize {
    (HEADER_OFFSET + header::BYTES + frame_bytes).next_multiple_of(SLOT_ALIGN)
}

#[cfg(test)]
mod tests;
