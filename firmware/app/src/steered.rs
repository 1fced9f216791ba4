//! The queues of several data cores at the card's Ethernet ports.

use hal_api::FrameQueue;
use hal_mem::{Arena, OutOfMemory};
use heapless::Vec;
use message::MAX_DATA_CORES;
use net::{SteeredQueue, Steering, steered_queues, steered_queues_bytes};

use crate::assemble::Ports;

/// Frames that wait in a ring between two cores: as many as a device has room for.
const FRAMES: usize = 256;
/// A queue without its rings, above what it really takes.
const QUEUE_BYTES: usize = 16 << 10;

/// Bytes that [`steered_ports`] takes at most for a port with so many queue pairs and this MTU.
#[must_use]
pub fn steered_port_bytes(cores: usize, pairs: usize, mtu: u16) -> usize {
    steered_queues_bytes(cores, pairs, FRAMES, mtu) + cores * QUEUE_BYTES
}

/// A data core's queue at a port. It stays where it is made: with its rings' ends it is large to move about.
pub type CoreQueue<F> = &'static mut SteeredQueue<F, fn(usize)>;

/// Makes each data core a queue at each port, from the queue pairs that the port's device has: one for each core, or fewer, or one.
/// `wake` wakes the data core of a number.
///
/// # Errors
/// [`OutOfMemory`] when the arena has less than the [`steered_port_bytes`] of all ports.
pub fn steered_ports<F: FrameQueue + 'static, P: IntoIterator<Item = F>>(
    ports: impl IntoIterator<Item = P>,
    steering: &'static Steering,
    arena: &mut Arena,
    wake: fn(usize),
) -> Result<Vec<Ports<CoreQueue<F>>, MAX_DATA_CORES>, OutOfMemory> {
    let mut cores: Vec<Ports<CoreQueue<F>>, MAX_DATA_CORES> =
        (0..steering.cores()).map(|_| Vec::new()).collect();
    for devices in ports {
        let queues = steered_queues(devices, steering, FRAMES, arena, || wake)?;
        for (core, queue) in cores.iter_mut().zip(queues) {
            // As many as there may be ports.
            let _ = core.push(arena.value(queue)?);
        }
    }
    Ok(cores)
}
