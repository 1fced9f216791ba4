//! Drives that come and go: numbers, memory, queues and pages are all there again afterwards.

use controller::{Backend, RejectReason};
use nvme::Status;

use super::*;
use crate::{Drives, Place, Removed};

/// Drives in places, a pool that all of them use, and a clock.
struct Bay {
    drives: Drives<FakeNvme>,
    control: NvmeControl,
    pool: PagePool,
    now: Instant,
    ended: Vec<IoCompletion>,
}

impl Bay {
    /// With one drive in place 1 of 2.
    fn new() -> Self {
        let region = DmaRegion::leak_for_host(POOL_PAGES * PAGE_BYTES);
        let (device, control) = FakeNvme::new(NvmeConfig::default());
        control.allow_dma(&region);
        let pool = PagePool::new(region, Box::leak(vec![0; POOL_PAGES].into_boxed_slice()));
        let mut arena = Arena::leak_for_host(1 << 19);
        let places = arena.slice(2, |_| None).unwrap();
        for place in places.iter_mut() {
            *place = Some(DriveMemory::take(&mut arena).unwrap());
        }
        let places = places.iter_mut().map(|memory| Place::new(memory.take().unwrap()));
        let mut drives = Drives::new(arena.collect(2, places).unwrap(), 1);
        assert_eq!(drives.add(1, device, |_| false).ok(), Some(0));
        let mut bay = Self { drives, control, pool, now: Instant::ZERO, ended: Vec::new() };
        bay.until_ready();
        bay
    }

    fn turn(&mut self) {
        self.drives.poll(self.now, &mut self.pool);
        self.ended.extend(core::iter::from_fn(|| self.drives.complete()));
        self.drives.flush();
        self.now = self.now + Duration::from_micros(100);
    }

    fn until_ready(&mut self) {
        for _ in 0..100_000 {
            if self.drives.iter().all(Drive::is_ready) {
                return;
            }
            self.turn();
        }
        panic!("the drive does not come up");
    }

    fn until_removed(&mut self) -> Removed<FakeNvme> {
        for _ in 0..100_000 {
            if let Some((place, removed)) = self.drives.take_removed(&mut self.pool) {
                assert_eq!(place, 1);
                return removed;
            }
            self.turn();
        }
        panic!("the drive is not removed");
    }

    fn submit(&mut self, number: u8, operation: Operation, pages: Pages) -> Result<(), Rejected> {
        let blocks = if operation == Operation::Flush { 0 } else { 8 };
        let namespace = BackendNamespace { drive: number, nsid: 1 };
        let request = IoRequest { namespace, ..request(operation, 0, blocks, pages) };
        self.drives.submit(request, &mut self.pool, self.now)
    }
}

#[test]
fn a_hundred_removals_in_order_leave_everything_as_it_was() {
    let mut bay = Bay::new();
    let free = bay.pool.free();
    for _ in 0..100 {
        assert!(bay.drives.begin_removal(0, true, bay.now, &mut bay.pool).is_none(), "nothing is there");
        let number = bay.drives.begin_removal(1, true, bay.now, &mut bay.pool).unwrap();
        let removed = bay.until_removed();
        assert!(removed.in_order && removed.number == number && bay.drives.is_empty());
        assert!(!bay.control.bus_master());
        assert_eq!(bay.control.configuration() >> 14 & 3, 1, "CC.SHN: normal shutdown");
        assert!(bay.pool.free() > free, "the drive's own pages are back");
        let next = bay.drives.add(1, removed.device, |taken| taken == number + 1).unwrap();
        assert_eq!(next, number.wrapping_add(2), "the next one that is not taken");
        bay.until_ready();
        assert_eq!(bay.pool.free(), free);
    }
}

#[test]
fn requests_end_before_a_drive_leaves_in_order() {
    let mut bay = Bay::new();
    bay.control.reconfigure(|config| config.latency_polls = (500, 500));
    let data = bay.pool.take(1).unwrap();
    bay.submit(0, Operation::Write, data).expect("room");
    bay.drives.begin_removal(1, true, bay.now, &mut bay.pool);
    let removed = bay.until_removed();
    assert!(removed.in_order);
    assert_eq!(bay.ended.len(), 1);
    assert_eq!(bay.ended[0].status, Status::SUCCESS);
}

#[test]
fn a_drive_that_is_being_reset_is_flushed_before_it_leaves_in_order() {
    let mut bay = Bay::new();
    let data = bay.pool.take(1).unwrap();
    bay.submit(0, Operation::Write, data).expect("room");
    bay.turn();
    bay.turn();
    assert_eq!(bay.ended.len(), 1);
    bay.control.set_fatal();
    bay.now = bay.now + Duration::from_secs(2);
    bay.turn();
    assert!(!bay.drives.iter().all(Drive::is_ready), "it is being reset");
    bay.drives.begin_removal(1, true, bay.now, &mut bay.pool);
    assert!(bay.until_removed().in_order);
    assert_eq!(bay.control.io_commands(nvme::opcode::io::FLUSH), 1);
}

#[test]
fn a_pulled_drive_ends_its_requests_and_its_number_is_away() {
    let mut bay = Bay::new();
    let free = bay.pool.free();
    bay.control.reconfigure(|config| config.latency_polls = (500, 500));
    let data = bay.pool.take(1).unwrap();
    bay.submit(0, Operation::Read, data).expect("room");
    bay.turn();
    bay.control.set_removed(true);
    bay.drives.begin_removal(1, false, bay.now, &mut bay.pool);
    let removed = bay.until_removed();
    assert!(!removed.in_order);
    assert_eq!(bay.ended[0].status, Status::COMMAND_INTERRUPTED);
    let ended = bay.ended.pop().unwrap();
    bay.pool.give_back(ended.pages.expect("no longer at the drive"));
    let rejected = bay.submit(0, Operation::Flush, Pages::NONE).unwrap_err();
    assert_eq!(rejected.reason, RejectReason::Failed(Status::NAMESPACE_NOT_READY));
    bay.control.set_removed(false);
    assert_eq!(bay.drives.add(1, removed.device, |_| false).ok(), Some(1));
    bay.until_ready();
    assert!(bay.submit(0, Operation::Flush, Pages::NONE).is_err(), "the old number is not the new drive's");
    assert!(bay.submit(1, Operation::Flush, Pages::NONE).is_ok());
    assert_eq!(bay.pool.free(), free);
}

#[test]
fn a_drive_pulled_while_it_leaves_in_order_is_out_at_once() {
    let mut bay = Bay::new();
    bay.control.inject(NvmeInjection {
        queue: Some(1),
        opcode: Some(0),
        skip: 0,
        count: 1,
        effect: NvmeEffect::Never,
    });
    bay.submit(0, Operation::Flush, Pages::NONE).expect("room");
    bay.drives.begin_removal(1, true, bay.now, &mut bay.pool);
    bay.turn();
    assert!(bay.drives.take_removed(&mut bay.pool).is_none(), "it waits for the request");
    bay.control.set_removed(true);
    bay.drives.begin_removal(1, false, bay.now, &mut bay.pool);
    assert!(!bay.until_removed().in_order);
    assert_eq!(bay.ended.len(), 1);
}

#[test]
fn a_place_takes_one_drive() {
    let mut bay = Bay::new();
    for place in [1, 2] {
        let (device, _) = FakeNvme::new(NvmeConfig::default());
        assert!(bay.drives.add(place, device, |_| false).is_err());
    }
    assert_eq!(bay.drives.len(), 1);
}
