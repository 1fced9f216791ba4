//! People at the slots: they put drives in, press the attention button, pull drives with and without warning, and see to
//! those that stand in a slot without power.

use std::time::Duration;

use hal_api::Instant;
use hal_fakes::{FakeSlots, SlotsControl};

use super::Drives;
use crate::card::{Card, Plugged};
use crate::kinds::Kind;

/// How often somebody looks at the slots.
const LOOK: Duration = Duration::from_millis(100);
/// A drive that stands in a slot without power for less is left alone.
const PATIENCE: Duration = Duration::from_millis(1500);
/// After the button was pressed, this long passes at most until the drive is seen to leave.
const CANCEL_TIME: Duration = Duration::from_secs(6);
/// A drive that has had its power for longer, and whose button nobody has pressed for as long, leaves when it is pressed.
const SERVES_AFTER: Duration = Duration::from_secs(10);
/// In this time it has left: the time to take it back, that of its orderly end, and pauses of cores.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);
/// Of the looks at a drive that has stood without power for longer, one in so many leads to something.
const ACTS_ONE_IN: u32 = 10;

/// The slots, as those see them who stand before them.
#[derive(Debug)]
pub(super) struct Hands {
    slots: SlotsControl,
    count: usize,
    next_look: Instant,
    /// Until then a drive may begin to leave.
    undecided_until: Instant,
}

/// Where a drive stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    slot: usize,
    /// Since when the slot has had its power, or none, as last seen.
    powered: bool,
    since: Instant,
    /// When the button was pressed for it to leave, unless it was pressed again since.
    asked: Option<Instant>,
    /// When the button was pressed last.
    pressed: Instant,
}

impl Standing {
    fn new(slot: usize, powered: bool, since: Instant) -> Self {
        Self { slot, powered, since, asked: None, pressed: Instant::ZERO }
    }
}

impl Drives {
    /// Drives for a card that starts: those that are there stand in the first slots.
    pub(super) fn power_on_in_slots(&mut self, now: Instant) -> Plugged {
        let most = self.all.len();
        let (slots, control) = FakeSlots::new(most + 1, 0);
        self.hands = Some(Hands {
            slots: control.clone(),
            count: most + 1,
            next_look: now + LOOK,
            undecided_until: now,
        });
        let mut drives = Vec::new();
        for (place, drive) in self.all.iter_mut().enumerate() {
            drive.standing = None;
            if drive.away_until.is_some() {
                continue;
            }
            let (device, handle) = drive.controller();
            let slot = drives.len();
            control.lent_at_boot(slot);
            drive.standing = Some(Standing::new(slot, true, now));
            drives.push((place, device, handle));
        }
        Plugged { drives, slots: Some(slots), most }
    }

    /// When somebody looks at the slots next.
    #[must_use]
    pub fn next_look(&self) -> Instant {
        self.hands.as_ref().map_or(Instant::FAR_FUTURE, |hands| hands.next_look)
    }

    /// Whether no drive is about to leave, or has to, by a button that was pressed.
    #[must_use]
    pub fn nobody_leaves(&self) -> bool {
        let asked = self.all.iter().filter_map(|drive| drive.standing).any(|at| at.asked.is_some());
        self.hands.as_ref().is_none_or(|hands| self.now() >= hands.undecided_until && !asked)
    }

    /// Puts a drive into one of the empty slots. The drive is as new: only its blocks are what they were.
    pub(super) fn insert(&mut self, index: usize, card: &Card, quiet: bool) {
        let now = self.now();
        let Some(hands) = &self.hands else { return };
        let taken = |slot| self.all.iter().filter_map(|drive| drive.standing).any(|at| at.slot == slot);
        let empty: Vec<usize> = (0..hands.count).filter(|&slot| !taken(slot)).collect();
        let slot = empty[self.random.usize(0..empty.len())];
        // What the card has given back since is nobody's any more.
        while hands.slots.take_out(slot).is_some() {}
        let (looks, attempts) = match self.random.u32(0..12) {
            0 if !quiet => (None, 0),
            1 if !quiet => (Some(2), 1000),
            _ => (Some(self.random.u32(0..6)), self.random.u32(0..4)),
        };
        hands.slots.set_link(slot, looks);
        hands.slots.set_not_ready(slot, attempts);
        let (device, control) = self.all[index].controller();
        card.admit(index, slot, &control);
        hands.slots.insert(slot, device);
        self.all[index].standing = Some(Standing::new(slot, hands.slots.has_power(slot), now));
        let values = [index as u64, slot as u64];
        self.trace.event(Kind::DriveInserted, &values, format_args!("drive {index} into slot {slot}"));
    }

    /// Somebody is at the slot of a drive that works: presses the button, pulls the drive, or trips over a plug. Returns
    /// false where there is no such drive.
    pub fn touch(&mut self, index: usize) -> bool {
        let (Some(hands), Some(at)) = (&mut self.hands, self.all[index].standing) else { return false };
        if !at.powered {
            return false;
        }
        let values = [index as u64, at.slot as u64];
        let now = self.time.now();
        match self.random.u32(0..8) {
            0..=4 => {
                hands.slots.press_button(at.slot);
                hands.undecided_until = now + CANCEL_TIME;
                if let Some(at) = &mut self.all[index].standing {
                    let clear = at.asked.is_none() && now > at.since.max(at.pressed) + SERVES_AFTER;
                    at.asked = clear.then_some(now);
                    at.pressed = now;
                }
                let text = format_args!("drive {index}, slot {}", at.slot);
                self.trace.event(Kind::ButtonPressed, &values, text);
            }
            5 | 6 => {
                let away = Duration::from_millis(self.random.u64(1..5000));
                self.pull(index, now + away);
            }
            _ => {
                hands.slots.break_power(at.slot);
                self.all[index].awaits_end = None;
                if let Some(control) = &self.all[index].control {
                    control.set_removed(true);
                }
                let text = format_args!("drive {index}, slot {}", at.slot);
                self.trace.event(Kind::SlotPowerLost, &values, text);
            }
        }
        true
    }

    /// A drive is gone from its slot.
    pub(super) fn leave_slot(&mut self, index: usize) {
        if let (Some(hands), Some(at)) = (&self.hands, self.all[index].standing.take()) {
            hands.slots.pull(at.slot);
        }
    }

    /// The card may have switched slots on or off: a drive without power loses its cache. One that was shut down in order
    /// has nothing in it that anybody relies on; what is lost there all the same, the oracle is not told of.
    pub fn follow_power(&mut self) {
        let now = self.now();
        let Some(hands) = &self.hands else { return };
        for (index, drive) in self.all.iter_mut().enumerate() {
            let (Some(at), Some(control)) = (&mut drive.standing, &drive.control) else { continue };
            let powered = hands.slots.has_power(at.slot);
            if powered == at.powered {
                continue;
            }
            (at.powered, at.since, at.asked) = (powered, now, None);
            drive.awaits_end = None;
            if powered {
                control.set_removed(false);
                continue;
            }
            let in_order = drive.is_shut_down_in_order();
            let Some(control) = &drive.control else { continue };
            control.set_removed(true);
            if in_order && drive.blocks.take_power_losses() > 0 {
                let text = format_args!("drive {index}");
                self.trace.event(Kind::DriveOffInOrder, &[index as u64], text);
            }
        }
    }

    /// Somebody sees to drives that stand without power: they are taken out for a while, or asked for again.
    pub fn see_to_slots(&mut self, quiet: bool) {
        let now = self.now();
        let Some(hands) = &mut self.hands else { return };
        hands.next_look = now + LOOK;
        for (index, drive) in self.all.iter_mut().enumerate() {
            let Some(at) = drive.standing else { continue };
            let ignored = at.asked.is_some_and(|asked| now > asked + LEAVES_WITHIN);
            assert!(
                !ignored,
                "VIOLATION: the button of slot {} was pressed, and drive {index} is still on",
                at.slot
            );
            if at.powered || now < at.since + PATIENCE || self.random.u32(0..ACTS_ONE_IN) > 0 {
                continue;
            }
            if !quiet && self.random.bool() {
                drop(hands.slots.take_out(at.slot));
                drive.standing = None;
                drive.control = None;
                drive.away_until = Some(now + Duration::from_millis(self.random.u64(1..3000)));
                self.trace.event(Kind::DriveTakenOut, &[index as u64], format_args!("drive {index}"));
                continue;
            }
            hands.slots.set_link(at.slot, Some(2));
            hands.slots.set_not_ready(at.slot, 0);
            hands.slots.press_button(at.slot);
        }
    }
}
