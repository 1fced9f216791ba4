//! The control queue of a network device (Virtio 1.2, section 5.1.6.5): how many queue pairs are used, and which of them
//! a received segment goes to. Used at boot alone, one command at a time.

use core::ptr::NonNull;

use hal_api::DeviceAddress;
use hal_mem::DmaRegion;

use super::{DeviceSteering, KEY_BYTES, TABLE_ENTRIES};
use crate::virtio::queue::{Notifier, SplitQueue};
use crate::virtio::{Transport, VirtioError, status};

/// Class VIRTIO_NET_CTRL_MQ and its commands (sections 5.1.6.5.5 and 5.1.6.5.7).
const CLASS_QUEUES: u8 = 4;
const COMMAND_PAIRS: u8 = 0;
const COMMAND_STEERING: u8 = 1;
/// VIRTIO_NET_OK.
const ACCEPTED: u8 = 0;
/// Nothing that a device answers.
const NO_ANSWER: u8 = 0xaa;

/// VIRTIO_NET_RSS_HASH_TYPE_TCPv4 and TCPv6 (section 5.1.6.4.3.1).
pub(super) const HASH_TYPES: u32 = 1 << 1 | 1 << 4;

/// Room for the longest command.
const COMMAND_BYTES: usize = 2 + 8 + 2 * TABLE_ENTRIES + 3 + KEY_BYTES;
/// Where the device's answer goes, in the same piece of memory.
const ANSWER_OFFSET: usize = 448;
const _: () = assert!(COMMAND_BYTES <= ANSWER_OFFSET);
/// Memory for one command and its answer, in bytes.
pub(super) const BUFFER_BYTES: usize = 512;
/// Descriptors of the queue that are used: the command, the answer.
pub(super) const ENTRIES: u16 = 2;
/// How often the device is looked at before a command counts as lost; each look goes over the bus.
const LOOKS: u32 = 1_000_000;

/// The control queue.
pub(super) struct ControlQueue {
    ring: SplitQueue,
    notifier: Notifier,
    buffer: DmaRegion,
    /// A command was not answered: the device may still read it.
    lost: bool,
}

impl ControlQueue {
    /// Over an enabled queue and [`BUFFER_BYTES`] of memory.
    pub(super) fn new(ring: SplitQueue, notifier: Notifier, buffer: DmaRegion) -> Option<Self> {
        (buffer.len() >= BUFFER_BYTES).then_some(Self { ring, notifier, buffer, lost: false })
    }

    /// Has the device use `pairs` queue pairs, in its own way (VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET).
    pub(super) fn use_pairs<T: Transport>(&mut self, transport: &T, pairs: u16) -> Result<(), VirtioError> {
        let [low, high] = pairs.to_le_bytes();
        self.send(transport, &[CLASS_QUEUES, COMMAND_PAIRS, low, high])
    }

    /// Has the device use `pairs` queue pairs and choose among them by hash (VIRTIO_NET_CTRL_MQ_RSS_CONFIG).
    pub(super) fn steer<T: Transport>(
        &mut self,
        transport: &T,
        pairs: u16,
        steering: &DeviceSteering<'_>,
    ) -> Result<(), VirtioError> {
        let mut command = heapless::Vec::<u8, COMMAND_BYTES>::new();
        let _ = command.extend_from_slice(&[CLASS_QUEUES, COMMAND_STEERING]);
        let _ = command.extend_from_slice(&HASH_TYPES.to_le_bytes());
        let _ = command.extend_from_slice(&(TABLE_ENTRIES as u16 - 1).to_le_bytes());
        // What has no hash goes to the first queue.
        let _ = command.extend_from_slice(&0u16.to_le_bytes());
        for core in steering.table {
            // Cores without a queue pair of their own are served by the others in turn.
            let _ = command.extend_from_slice(&(u16::from(*core) % pairs.max(1)).to_le_bytes());
        }
        let _ = command.extend_from_slice(&pairs.to_le_bytes());
        let _ = command.push(KEY_BYTES as u8);
        let _ = command.extend_from_slice(steering.key);
        debug_assert_eq!(command.len(), COMMAND_BYTES);
        self.send(transport, &command)
    }

    fn send<T: Transport>(&mut self, transport: &T, command: &[u8]) -> Result<(), VirtioError> {
        if self.lost {
            return Err(VirtioError::ControlRefused);
        }
        let command = command.get(..COMMAND_BYTES.min(command.len())).unwrap_or_default();
        let base = self.buffer.as_ptr();
        // SAFETY: the command fits before the answer, and that into the region (`new`); the device has nothing of the
        // region now, because commands are sent one at a time.
        unsafe {
            core::ptr::copy_nonoverlapping(command.as_ptr(), base.as_ptr(), command.len());
            self.answer_place().write_volatile(NO_ANSWER);
        }
        let address = self.buffer.device_address().0;
        let answer = (DeviceAddress(address + ANSWER_OFFSET as u64), 1);
        self.ring.post_command((DeviceAddress(address), command.len() as u32), answer);
        if self.ring.publish() {
            self.notifier.kick();
        }
        for _ in 0..LOOKS {
            if let Some(used) = self.ring.take() {
                // SAFETY: as above; the device has given the region back.
                let answer = unsafe { self.answer_place().read_volatile() };
                let accepted = used.bytes == 1 && answer == ACCEPTED;
                return if accepted { Ok(()) } else { Err(VirtioError::ControlRefused) };
            }
            if transport.status() & status::NEEDS_RESET != 0 || self.ring.fault().is_some() {
                break;
            }
            core::hint::spin_loop();
        }
        self.lost = true;
        Err(VirtioError::ControlRefused)
    }

    fn answer_place(&self) -> NonNull<u8> {
        // SAFETY: inside of the region (`new`).
        unsafe { self.buffer.as_ptr().add(ANSWER_OFFSET) }
    }
}
