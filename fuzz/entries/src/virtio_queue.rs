//! The used ring of a virtqueue, which the device writes: entries and indices of its choice.

use hal_devices::virtio::{Access, SplitQueue};

use crate::memory::{Input, Memory};

const ENTRIES: u16 = 8;
const BUFFER_BYTES: u32 = 256;

/// Posts buffers and lets the device do as the bytes say. It never returns a buffer that it does not have, nor claims
/// more bytes than there are, without being found out.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mut memory = Memory::take();
    let event_index = input.byte() & 1 == 1;
    let rings = memory.dma(SplitQueue::memory_bytes(ENTRIES));
    let buffers = memory.dma(usize::from(ENTRIES) * BUFFER_BYTES as usize).device_address();
    let mut queue = SplitQueue::new(rings, ENTRIES, event_index).expect("a queue of 8 entries");
    let used = queue.addresses().used.0;
    let mut posted = [false; ENTRIES as usize];
    while !input.0.is_empty() {
        match input.byte() % 4 {
            0 => {
                let id = u16::from(input.byte()) % ENTRIES;
                if !std::mem::replace(&mut posted[usize::from(id)], true) {
                    queue.post(id, buffers, BUFFER_BYTES, Access::Write);
                }
            }
            1 => _ = queue.publish(),
            2 => {
                let offset = u64::from(input.byte()) % (6 + 8 * u64::from(ENTRIES));
                // SAFETY: inside the used ring, which the queue reads by volatile accesses only.
                unsafe { ((used + offset) as *mut u8).write_volatile(input.byte()) };
            }
            _ => {
                if let Some(taken) = queue.take() {
                    assert!(std::mem::replace(&mut posted[usize::from(taken.id)], false), "not the device's");
                    assert!(taken.bytes <= BUFFER_BYTES);
                }
            }
        }
        let _ = if input.0.len() & 1 == 0 { queue.arm() } else { queue.has_used() };
    }
}
