//! Watches the slots, and moves drives between them and the data core.
//!
//! The slots are polled: an interrupt of a slot would carry logic, and a person with a drive in the hand does not see
//! a quarter of a second.

use hal_api::{DriveSlots, Instant, SlotStart};
use heapless::Vec;
use message::{ControlEnds, DriveReply, DriveRequest, MAX_DATA_CORES};

use crate::limits::{BUSY_LOOK_INTERVAL, LOOK_INTERVAL, MAX_SLOTS};
use crate::slot::{Slot, State, Step};

/// All slots of a card and the ways to its data cores.
#[derive(Debug)]
pub struct HotPlug<'a, S: DriveSlots> {
    slots: S,
    states: Vec<Slot, MAX_SLOTS>,
    /// The data cores: a drive's home is its place mod cores.
    data_cores: Vec<ControlEnds<'a, S::Device>, MAX_DATA_CORES>,
    next_look: Instant,
}

impl<'a, S: DriveSlots> HotPlug<'a, S> {
    /// Watches `slots`, the first [`MAX_SLOTS`] of them.
    pub fn new(slots: S, data_core: ControlEnds<'a, S::Device>) -> Self {
        Self::with_cores(slots, [data_core])
    }

    /// The same on a card with several data cores, whose ends come in their order.
    pub fn with_cores(slots: S, cores: impl IntoIterator<Item = ControlEnds<'a, S::Device>>) -> Self {
        let mut data_cores = Vec::new();
        for ends in cores {
            let _ = data_cores.push(ends);
        }
        let states = (0..slots.count().min(MAX_SLOTS)).map(|index| {
            let SlotStart { place, serving } = slots.start(index);
            let state = if serving { State::Serving } else { State::Empty };
            Slot { index, place, state, faulty: false }
        });
        Self { states: states.collect(), slots, data_cores, next_look: Instant::ZERO }
    }

    /// Looks at the slots where it is time; returns how many have moved on.
    pub fn poll(&mut self, now: Instant) -> u32 {
        if now < self.next_look {
            return 0;
        }
        let mut work = 0;
        for core in 0..self.data_cores.len() {
            while let Some(reply) = self.data_cores.get_mut(core).and_then(|core| core.replies.pop()) {
                self.take_reply(reply, now);
                work += 1;
            }
        }
        for slot in &mut self.states {
            let before = slot.state;
            let place = slot.place;
            let home = usize::from(place).checked_rem(self.data_cores.len()).unwrap_or(0);
            let mut home = self.data_cores.get_mut(home);
            let has_room = home.as_mut().is_some_and(|home| home.requests.has_room());
            let request = match slot.step(&mut self.slots, has_room, now) {
                Step::None => None,
                Step::Add(device) => Some(DriveRequest::Add { place, device }),
                Step::Remove { in_order } => Some(DriveRequest::Remove { place, in_order }),
            };
            if let Some(request) = request {
                // A step that gives something was told that there is room.
                let sent = home.is_some_and(|home| home.requests.push(request).is_ok());
                debug_assert!(sent);
            }
            work += u32::from(slot.state != before);
        }
        // A slot that has moved on has a command for its port, which goes out at the next look.
        let busy = work > 0 || self.states.iter().any(Slot::is_busy);
        self.next_look = now + if busy { BUSY_LOOK_INTERVAL } else { LOOK_INTERVAL };
        work
    }

    /// When it wants to be polled.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        if self.states.is_empty() { Instant::FAR_FUTURE } else { self.next_look }
    }

    fn take_reply(&mut self, reply: DriveReply<S::Device>, now: Instant) {
        let DriveReply::Removed { place, device, in_order } = reply;
        let Some(slot) = self.states.iter_mut().find(|slot| slot.place == place) else {
            debug_assert!(false, "a drive comes back that belongs to no slot");
            return;
        };
        slot.removed(&mut self.slots, device, in_order, now);
    }
}

#[cfg(test)]
mod tests;
