//! What is left at this core of what is declared otherwise by now (docs/design/live-configuration.md): connections of
//! controllers that have been ended, and commands under way that nobody would admit any more.

use controller::{PortId, Subsystem, SubsystemPlace};

use crate::queue::Queue;
use crate::slots::{Doer, Slot, SlotState};
use crate::target::Target;

impl Target {
    /// Controllers have been ended: their connections are cut when they are served next, and are lost from now on.
    pub fn cut_orphans(&mut self, subsystem: &Subsystem) {
        for index in 0..self.queues.len() as u16 {
            let queue = self.queues.get(usize::from(index));
            if queue.is_some_and(|queue| queue.is_open() && is_orphan(queue, subsystem)) {
                self.note_lost(index);
                self.set_ready(index, true);
            }
        }
        self.wake_waiting();
    }

    /// Whether a connection of a controller that has ended is open or has writes at a drive, of those in subsystem `of`; or a
    /// command of an attachment that is no more is at a drive; or I/O is under way by a port that lets none through.
    #[must_use]
    pub fn has_leftovers(&self, subsystem: &Subsystem, of: SubsystemPlace) -> bool {
        let is_left = |queue: &Queue| {
            let holds = queue.is_open() || queue.writes_at_backend > 0;
            queue.subsystem == of && holds && is_orphan(queue, subsystem)
        };
        self.queues.iter().any(is_left)
            || self.slots.taken().any(|(_, slot)| self.is_left_over(slot, subsystem))
    }

    fn is_left_over(&self, slot: &Slot, subsystem: &Subsystem) -> bool {
        let Doer::Block(work) = &slot.doer else { return false };
        if slot.state == SlotState::AtBackend && !subsystem.still_serves(work) {
            return true;
        }
        let port = self.queues.get(usize::from(slot.queue)).map_or(PortId::FIRST, |queue| queue.port);
        slot.is_io_under_way() && !subsystem.ana_state(port).lets_io_through()
    }
}

fn is_orphan(queue: &Queue, subsystem: &Subsystem) -> bool {
    queue.context.is_some_and(|context| !subsystem.is_live(context.controller))
}
