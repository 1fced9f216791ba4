//! Slots by hand, with the test as data core.

use core::time::Duration;

use hal_api::{Indicator, NvmeDevice};
use hal_fakes::{FakeNvme, FakeSlots, NvmeConfig, NvmeControl, SlotsControl};
use hal_mem::Arena;
use message::{DataEnds, drive_ends};

use super::*;

/// Memory for the two rings between control and a data core, above what they take.
const RING_BYTES: usize = 1 << 20;

/// Two slots, places 7 and 8, and a data core that does what the test says.
struct Bay {
    hot_plug: HotPlug<'static, FakeSlots>,
    hands: SlotsControl,
    data_core: DataEnds<'static, FakeNvme>,
    now: Instant,
}

impl Bay {
    fn new(serving: bool) -> Self {
        let (slots, hands) = FakeSlots::new(2, 7);
        if serving {
            hands.lent_at_boot(0);
        }
        let (ends, data_core) =
            drive_ends(&mut Arena::leak_for_host(RING_BYTES)).expect("room for two rings");
        Self { hot_plug: HotPlug::new(slots, ends), hands, data_core, now: Instant::ZERO }
    }

    fn insert(&self, slot: usize) -> NvmeControl {
        let (drive, control) = FakeNvme::new(NvmeConfig::default());
        self.hands.insert(slot, drive);
        control
    }

    fn pass(&mut self, time: Duration) -> Option<DriveRequest<FakeNvme>> {
        let end = self.now + time;
        while self.now < end {
            self.now = self.hot_plug.next_deadline().max(self.now + Duration::from_millis(1)).min(end);
            self.hot_plug.poll(self.now);
            if let Some(request) = self.data_core.requests.pop() {
                return Some(request);
            }
        }
        None
    }

    fn expect_add(&mut self) -> (u8, FakeNvme) {
        match self.pass(Duration::from_secs(5)) {
            Some(DriveRequest::Add { place, device }) => (place, device),
            other => panic!("{other:?} instead of a drive"),
        }
    }

    fn expect_remove(&mut self, time: Duration) -> bool {
        match self.pass(time) {
            Some(DriveRequest::Remove { place: 7, in_order }) => in_order,
            other => panic!("{other:?} instead of a removal"),
        }
    }

    fn answer(&mut self, mut device: FakeNvme, in_order: bool) {
        device.set_bus_master(false);
        assert!(self.data_core.replies.push(DriveReply::Removed { place: 7, device, in_order }).is_ok());
        assert!(self.pass(SHORT).is_none());
    }
}

const SHORT: Duration = Duration::from_millis(600);

#[test]
fn a_drive_comes_leaves_by_the_button_and_comes_again_a_hundred_times() {
    let mut bay = Bay::new(false);
    assert!(bay.pass(Duration::from_secs(10)).is_none() && !bay.hands.has_power(0));
    let _control = bay.insert(0);
    for _ in 0..100 {
        let (place, device) = bay.expect_add();
        assert_eq!(place, 7);
        assert!(bay.hands.has_power(0));
        assert_eq!(bay.hands.indicators(0), (Some(Indicator::On), Some(Indicator::Off)));
        bay.hands.press_button(0);
        assert!(bay.pass(Duration::from_secs(4)).is_none());
        assert_eq!(bay.hands.indicators(0).0, Some(Indicator::Blink));
        assert!(bay.expect_remove(Duration::from_secs(2)));
        bay.answer(device, true);
        assert!(!bay.hands.has_power(0));
        assert_eq!(bay.hands.indicators(0).0, Some(Indicator::Off));
        assert!(bay.pass(Duration::from_secs(10)).is_none(), "it stays off though it stands there");
        let drive = bay.hands.take_out(0).expect("the drive");
        assert!(bay.pass(SHORT).is_none());
        bay.hands.insert(0, drive);
    }
}

#[test]
fn a_second_press_takes_the_first_back_and_one_turns_a_drive_on_again() {
    let mut bay = Bay::new(false);
    let _control = bay.insert(0);
    let (_, device) = bay.expect_add();
    bay.hands.press_button(0);
    assert!(bay.pass(SHORT).is_none());
    bay.hands.press_button(0);
    assert!(bay.pass(Duration::from_secs(20)).is_none());
    assert_eq!(bay.hands.indicators(0).0, Some(Indicator::On));
    bay.hands.press_button(0);
    assert!(bay.expect_remove(Duration::from_secs(7)));
    bay.answer(device, true);
    assert!(bay.pass(SHORT).is_none());
    bay.hands.press_button(0);
    bay.expect_add();
}

#[test]
fn a_drive_put_in_before_the_power_may_come_back_is_found() {
    let mut bay = Bay::new(true);
    bay.hands.press_button(0);
    assert!(bay.expect_remove(Duration::from_secs(7)));
    bay.answer(FakeNvme::new(NvmeConfig::default()).0, true);
    bay.hands.take_out(0).expect("the drive");
    let _control = bay.insert(0);
    bay.expect_add();
}

#[test]
fn a_drive_of_boot_that_is_pulled_is_asked_back_at_once() {
    let mut bay = Bay::new(true);
    assert!(bay.pass(Duration::from_secs(10)).is_none());
    bay.hands.pull(0);
    assert!(!bay.expect_remove(SHORT));
    bay.answer(FakeNvme::new(NvmeConfig::default()).0, false);
    assert!(!bay.hands.has_power(0));
    let _control = bay.insert(0);
    bay.expect_add();
}

#[test]
fn a_drive_swapped_between_two_looks_is_seen_as_another() {
    let mut bay = Bay::new(false);
    let _first = bay.insert(0);
    let (_, device) = bay.expect_add();
    bay.hands.pull(0);
    let _second = bay.insert(0);
    assert!(!bay.expect_remove(SHORT));
    bay.answer(device, false);
    bay.expect_add();
}

#[test]
fn a_slot_that_loses_its_power_is_left_alone() {
    let mut bay = Bay::new(false);
    let _control = bay.insert(0);
    let (_, device) = bay.expect_add();
    bay.hands.break_power(0);
    assert!(!bay.expect_remove(SHORT));
    bay.answer(device, false);
    assert!(bay.pass(Duration::from_secs(10)).is_none());
    assert_eq!(bay.hands.indicators(0), (Some(Indicator::Off), Some(Indicator::On)));
    bay.hands.press_button(0);
    bay.expect_add();
}

#[test]
fn a_drive_pulled_while_it_leaves_is_asked_for_once_more() {
    let mut bay = Bay::new(false);
    let _control = bay.insert(0);
    let (_, device) = bay.expect_add();
    bay.hands.press_button(0);
    assert!(bay.expect_remove(Duration::from_secs(7)));
    bay.hands.pull(0);
    assert!(!bay.expect_remove(SHORT));
    bay.answer(device, false);
    let _control = bay.insert(0);
    bay.expect_add();
}

#[test]
fn what_does_not_come_up_is_left_alone_with_its_lamp_on() {
    let mut bay = Bay::new(false);
    bay.hands.insert_other(0);
    assert!(bay.pass(Duration::from_secs(10)).is_none());
    assert_eq!(bay.hands.indicators(0), (Some(Indicator::Off), Some(Indicator::On)));
    assert!(!bay.hands.has_power(0));
    bay.hands.pull(0);
    assert!(bay.pass(SHORT).is_none());
    assert_eq!(bay.hands.indicators(0).1, Some(Indicator::Off));
    bay.hands.set_link(0, None);
    let _control = bay.insert(0);
    assert!(bay.pass(Duration::from_secs(10)).is_none());
    assert_eq!(bay.hands.indicators(0).1, Some(Indicator::On));
    bay.hands.set_link(0, Some(1));
    bay.hands.set_not_ready(0, 3);
    bay.hands.press_button(0);
    bay.expect_add();
}

#[test]
fn drives_wait_while_the_data_core_is_busy() {
    let mut bay = Bay::new(false);
    let (_zero, _one) = (bay.insert(0), bay.insert(1));
    for _ in 0..message::RING_ENTRIES {
        let filler = DriveRequest::Remove { place: 99, in_order: true };
        bay.hot_plug.data_cores[0].requests.push(filler).expect("room");
    }
    let mut passed = 0;
    for _ in 0..message::RING_ENTRIES {
        passed += usize::from(matches!(bay.pass(SHORT), Some(DriveRequest::Remove { place: 99, .. })));
    }
    assert_eq!(passed, message::RING_ENTRIES);
    let (first, second) = (bay.expect_add(), bay.expect_add());
    assert_eq!((first.0, second.0), (7, 8));
}

#[test]
fn a_card_without_slots_is_never_woken() {
    let (slots, _) = FakeSlots::new(0, 0);
    let (ends, _) =
        drive_ends::<FakeNvme>(&mut Arena::leak_for_host(RING_BYTES)).expect("room for two rings");
    let hot_plug = HotPlug::new(slots, ends);
    assert_eq!(hot_plug.next_deadline(), Instant::FAR_FUTURE);
}
