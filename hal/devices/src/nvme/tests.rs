//! A model of a controller behind plain memory: takes commands from the ring, posts completions with phase tags.

use std::vec::Vec;

use hal_api::{CommandQueue, NvmeDevice, QueueFull};
use hal_mem::{DmaRegion, MmioRegion};

use super::*;

/// MQES of 7 (8 entries), DSTRD of 1 (8 bytes).
const CAPABILITIES: u64 = 1 << 32 | 7;
const STRIDE: usize = 8;
const PAIRS: usize = 3;

struct Model {
    bar: MmioRegion,
    config: MmioRegion,
    location: QueueLocation,
    qid: usize,
    fetched: u32,
    tail: u32,
    phase: bool,
}

fn mmio(bytes: usize) -> MmioRegion {
    let region = DmaRegion::leak_for_host(bytes);
    // SAFETY: fresh, leaked, page-aligned memory.
    unsafe { MmioRegion::new(region.as_ptr(), bytes) }
}

fn function(bar: &MmioRegion) -> (Function, MmioRegion) {
    let config = mmio(4096);
    config.write32(0x04, 1 << 20);
    config.write32(0x34, 0x40);
    // MSI-X with two vectors, its table at 0x2000 of BAR 0.
    config.write32(0x40, 1 << 16 | 0x11);
    config.write32(0x44, 0x2000);
    let mut bars = [const { None }; 6];
    bars[0] = bar.window(0, bar.len());
    (Function::new(0x0120, config.window(0, 4096).unwrap(), bars), config)
}

fn controller(
    bar_bytes: usize,
    capabilities: u64,
) -> (Result<NvmeController, NvmeError>, MmioRegion, MmioRegion) {
    let bar = mmio(bar_bytes);
    bar.write64(CAP, capabilities);
    let (function, config) = function(&bar);
    let mut rings = DmaRegion::leak_for_host(NvmeController::ring_bytes(PAIRS as u16 - 1));
    let rings = RingMemory::take(&mut rings, PAIRS as u16 - 1).unwrap();
    let message = |data| MsiMessage { address: 0x1_0802_0040, data };
    let messages = [message(80), message(81), message(82)];
    let made = NvmeController::new(function, rings, &messages).map_err(|(error, _)| error);
    (made, bar, config)
}

impl Model {
    fn with_queue(qid: u16) -> (NvmeController, NvmeQueue, Self) {
        let (controller, bar, config) = controller(0x4000, CAPABILITIES);
        let mut controller = controller.unwrap();
        let queue = controller.take_queue(qid).unwrap();
        let location = controller.queue_location(qid).unwrap();
        let model = Self { bar, config, location, qid: qid.into(), fetched: 0, tail: 0, phase: true };
        (controller, queue, model)
    }

    fn doorbell(&self, index: usize) -> u32 {
        self.bar.read32(DOORBELLS + (2 * self.qid + index) * STRIDE)
    }

    /// Takes what was announced and gives the first byte of each command.
    fn fetch(&mut self) -> Vec<u8> {
        let mut commands = Vec::new();
        while self.fetched != self.doorbell(0) {
            let address = self.location.submission.0 + u64::from(self.fetched) * 64;
            // SAFETY: an entry of the ring, which the test's thread alone reaches now.
            let command = unsafe { (address as *const [u8; 64]).read_volatile() };
            assert!(command.iter().all(|byte| *byte == command[0]));
            commands.push(command[0]);
            self.fetched = (self.fetched + 1) % self.location.entries;
        }
        commands
    }

    fn post(&mut self, cid: u8, sqhd: u32) {
        self.post_as(cid, sqhd, self.phase);
        self.tail = (self.tail + 1) % self.location.entries;
        self.phase ^= self.tail == 0;
    }

    fn post_as(&mut self, cid: u8, sqhd: u32, phase: bool) {
        let address = (self.location.completion.0 + u64::from(self.tail) * 16) as *mut u32;
        let words = [7, 8, (self.qid as u32) << 16 | sqhd & 0xffff, u32::from(phase) << 16 | u32::from(cid)];
        for (index, word) in words.into_iter().enumerate() {
            // SAFETY: an entry of the ring, as above.
            unsafe { address.add(index).write_volatile(word) };
        }
    }
}

#[test]
fn construction_sets_up_vectors_and_leaves_bus_mastering_off() {
    let (mut controller, _queue, model) = Model::with_queue(1);
    assert_eq!(controller.queue_pairs(), 3);
    assert!(controller.take_queue(1).is_none());
    assert!(controller.take_queue(3).is_none());
    assert_eq!(controller.queue_location(1).unwrap().vector, Some(1));
    assert_eq!(controller.queue_location(2).unwrap().vector, None, "the drive has two vectors");
    assert_eq!(controller.queue_location(0).unwrap().entries, 64);
    let entry: Vec<u32> = (0..4).map(|word| model.bar.read32(0x2010 + 4 * word)).collect();
    assert_eq!(entry, [0x0802_0040, 1, 81, 0]);
    assert_eq!(model.config.read16(0x42) >> 14, 0b10, "MSI-X on, not masked");
    assert_eq!(model.config.read16(0x04), 1 << 10 | 1 << 1);
    controller.set_bus_master(true);
    assert_eq!(model.config.read16(0x04), 1 << 10 | 1 << 2 | 1 << 1);
    controller.set_admin_queue();
    assert_eq!(model.bar.read32(AQA), 63 << 16 | 63);
    assert_eq!(model.bar.read64(ASQ), controller.queue_location(0).unwrap().submission.0);
    assert_eq!(model.bar.read64(ACQ), controller.queue_location(0).unwrap().completion.0);
}

#[test]
fn what_cannot_be_used_is_refused() {
    assert_eq!(controller(0x1000, CAPABILITIES).0.unwrap_err(), NvmeError::RegistersTooSmall);
    assert_eq!(controller(0x4000, 0xf << 32 | 7).0.unwrap_err(), NvmeError::RegistersTooSmall);
    assert_eq!(controller(0x4000, 0).0.unwrap_err(), NvmeError::BadCapabilities);
    let bar = mmio(0x4000);
    bar.write64(CAP, CAPABILITIES);
    assert!(RingMemory::take(&mut DmaRegion::leak_for_host(0x3000), 1).is_none());
    let mut rings = DmaRegion::leak_for_host(NvmeController::ring_bytes(1));
    let rings = RingMemory::take(&mut rings, 1).unwrap();
    bar.write32(CSTS, u32::MAX);
    let (error, rings) = NvmeController::new(function(&bar).0, rings, &[]).unwrap_err();
    assert_eq!(error, NvmeError::Gone);
    bar.write32(CSTS, 0);
    assert!(NvmeController::new(function(&bar).0, rings, &[]).is_ok());
}

#[test]
fn rings_go_from_drive_to_drive_and_are_empty_for_each() {
    let mut rings = DmaRegion::leak_for_host(NvmeController::ring_bytes(1));
    let mut rings = RingMemory::take(&mut rings, 1).unwrap();
    let mut locations = Vec::new();
    for entries in [8u64, 2, 1024, 4096] {
        let bar = mmio(0x4000);
        bar.write64(CAP, CAPABILITIES & !0xffff | (entries - 1));
        let (function, config) = function(&bar);
        let mut controller = NvmeController::new(function, rings, &[]).unwrap();
        let location = controller.queue_location(1).unwrap();
        assert_eq!(u64::from(location.entries), entries.min(1024));
        locations.push((location.submission, location.completion));
        let (admin, mut queue) = (controller.take_queue(0).unwrap(), controller.take_queue(1).unwrap());
        assert!(queue.complete().is_none(), "nothing of the drive before");
        queue.submit(&[0xff; 64]).unwrap();
        let completion = location.completion.0 as *mut u32;
        // SAFETY: the completion ring, which only this test touches besides the queue.
        unsafe { completion.add(3).write_volatile(1 << 16) };
        controller.set_bus_master(true);
        controller.return_queue(0, admin);
        controller.return_queue(1, queue);
        rings = controller.into_rings().expect("all queues are back");
        assert_eq!(config.read16(0x04) & 1 << 2, 0, "bus mastering is off");
    }
    assert!(locations.windows(2).all(|pair| pair[0] == pair[1]));
    let bar = mmio(0x4000);
    bar.write64(CAP, CAPABILITIES);
    let mut controller = NvmeController::new(function(&bar).0, rings, &[]).unwrap();
    let _queue = controller.take_queue(1);
    assert!(controller.into_rings().is_none(), "a queue is missing");
}

#[test]
fn doorbells_ring_once_for_a_batch_and_only_at_flush() {
    let (_controller, mut queue, mut model) = Model::with_queue(1);
    for cid in 1..=3 {
        queue.submit(&[cid; 64]).unwrap();
    }
    assert_eq!(model.doorbell(0), 0);
    queue.flush();
    assert_eq!(model.doorbell(0), 3);
    assert_eq!(model.fetch(), [1, 2, 3]);
    model.post(2, 3);
    model.post(1, 3);
    assert!(queue.arm());
    let completion = queue.complete().unwrap();
    assert_eq!(completion, [7, 0, 0, 0, 8, 0, 0, 0, 3, 0, 1, 0, 2, 0, 1, 0]);
    assert!(queue.complete().is_some());
    assert!(queue.complete().is_none());
    assert!(!queue.arm());
    assert_eq!(model.doorbell(1), 0);
    queue.flush();
    assert_eq!(model.doorbell(1), 2);
}

#[test]
fn a_hundred_turns_wrap_both_rings() {
    let (_controller, mut queue, mut model) = Model::with_queue(1);
    let mut expected = 0u8;
    for turn in 0..100u8 {
        let batch = turn % 7 + 1;
        for index in 0..batch {
            queue.submit(&[expected.wrapping_add(index); 64]).unwrap();
        }
        queue.flush();
        for cid in model.fetch() {
            assert_eq!(cid, expected);
            expected = expected.wrapping_add(1);
            let fetched = model.fetched;
            model.post(cid, fetched);
            assert_eq!(queue.complete().unwrap()[12], cid);
            assert!(queue.complete().is_none());
        }
        queue.flush();
    }
}

#[test]
fn full_until_the_device_says_that_it_has_fetched() {
    let (_controller, mut queue, mut model) = Model::with_queue(1);
    assert_eq!(queue.depth(), 7);
    for cid in 0..7 {
        queue.submit(&[cid; 64]).unwrap();
    }
    assert_eq!(queue.submit(&[7; 64]), Err(QueueFull));
    queue.flush();
    model.fetch();
    model.post(0, 2);
    queue.complete().unwrap();
    assert_eq!(queue.submit(&[7; 64]), Ok(()));
    assert_eq!(queue.submit(&[8; 64]), Ok(()));
    assert_eq!(queue.submit(&[9; 64]), Err(QueueFull));
}

#[test]
fn a_submission_head_that_cannot_be_is_ignored() {
    let (_controller, mut queue, mut model) = Model::with_queue(1);
    for cid in 0..7 {
        queue.submit(&[cid; 64]).unwrap();
        if cid == 3 {
            queue.flush();
        }
    }
    // Beyond the ring, beyond what was announced, and for another queue.
    model.post(0, 8);
    model.post(1, 0xffff);
    model.post(2, 5);
    model.qid = 2;
    model.post(3, 4);
    for _ in 0..4 {
        queue.complete().unwrap();
        assert_eq!(queue.submit(&[9; 64]), Err(QueueFull));
    }
    model.qid = 1;
    model.post(4, 4);
    queue.complete().unwrap();
    // Backwards.
    model.post(5, 3);
    queue.complete().unwrap();
    for _ in 0..4 {
        queue.submit(&[9; 64]).unwrap();
    }
    assert_eq!(queue.submit(&[9; 64]), Err(QueueFull));
}

#[test]
fn the_wrong_phase_is_no_completion() {
    let (_controller, mut queue, mut model) = Model::with_queue(1);
    model.post_as(1, 0, false);
    assert!(queue.complete().is_none());
    for cid in 0..8 {
        model.post(cid, 0);
        assert!(queue.complete().is_some());
    }
    model.post_as(1, 0, true);
    assert!(queue.complete().is_none(), "left over from the round before");
    model.post(9, 0);
    assert_eq!(queue.complete().unwrap()[12], 9);
}

#[test]
fn reset_makes_a_queue_new() {
    let (mut controller, mut queue, mut model) = Model::with_queue(1);
    for cid in 0..5 {
        queue.submit(&[cid; 64]).unwrap();
        model.post(cid, 0);
        queue.complete().unwrap();
    }
    model.post(6, 0);
    controller.reset_queue(&mut queue);
    assert!(queue.complete().is_none());
    (model.tail, model.phase, model.fetched) = (0, true, 0);
    model.bar.write32(DOORBELLS + 2 * STRIDE, 0);
    queue.submit(&[42; 64]).unwrap();
    queue.flush();
    assert_eq!(model.fetch(), [42]);
    model.post(42, 1);
    assert_eq!(queue.complete().unwrap()[12], 42);
}

#[test]
fn a_queue_without_a_vector_keeps_its_core_awake_while_commands_are_outstanding() {
    let (_controller, mut queue, mut model) = Model::with_queue(2);
    assert!(!queue.arm());
    queue.submit(&[0; 64]).unwrap();
    queue.flush();
    assert!(queue.arm());
    model.post(0, 1);
    assert!(queue.arm());
    queue.complete().unwrap();
    assert!(!queue.arm());
}

#[test]
fn a_queue_can_go_to_another_core() {
    fn is_send<T: Send>() {}
    is_send::<NvmeQueue>();
    is_send::<NvmeController>();
}
