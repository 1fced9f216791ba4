//! What Connects of a host wait for: writes of its lost connections that are still at drives (docs/design/many-cores.md,
//! "Fencing"). Here is which connections count as lost, and since when.

use controller::Subsystem;
use hal_api::Instant;

use crate::queue::{Phase, Queue};
use crate::target::{QueueIndex, Target};
use crate::waiting::leave_lines;

impl Target {
    /// The host has closed its side of the connection; bytes that had come before may be unread. They are carried out while
    /// nobody else is concerned, and dropped when the host begins anew (docs/design/many-cores.md).
    pub fn peer_closed(&mut self, index: QueueIndex, now: Instant) {
        let place = usize::from(index.0);
        let (Some(queue), Some(fence)) = (self.queues.get_mut(place), self.fences.get_mut(place)) else {
            return;
        };
        if queue.carries_out() {
            (fence.host_id, fence.peer_closed) = (queue.host_id, true);
        } else if matches!(queue.phase, Phase::AwaitingInitialize | Phase::AwaitingConnect) {
            // Whose queue it would become is not known yet, and nobody waits for it.
            queue.start_closing(now);
            self.set_ready(index.0, true);
        }
    }

    /// A host begins anew: its connections that it has closed are lost from now on, whatever of them is unread.
    pub(crate) fn lose_closed(&mut self, now: Instant, subsystem: &mut Subsystem, host_id: [u8; 16]) {
        for index in 0..self.queues.len() as u16 {
            let place = usize::from(index);
            if !self.fences.get(place).is_some_and(|fence| fence.peer_closed && fence.host_id == host_id) {
                continue;
            }
            if let Some(queue) = self.queues.get_mut(place).filter(|queue| queue.carries_out()) {
                queue.start_closing(now);
                leave_lines(queue, &mut self.slots, self.locks, subsystem);
            }
            self.note_lost(index);
            self.set_ready(index, true);
        }
        self.wake_waiting();
    }

    /// Brings what Connects of the same host have to wait for up to date.
    pub(crate) fn fence(&mut self, index: u16) {
        let place = usize::from(index);
        let is_ending = self.queues.get(place).is_some_and(Queue::is_ending);
        if is_ending || self.fences.get(place).is_some_and(|fence| fence.writes > 0) {
            self.note_lost(index);
        }
    }

    /// A connection is lost, or its controller is gone: until its writes at drives have ended its host does not begin anew. So from now
    /// on, even where it is closed only when it is served. A fence that is lifted wakes those who wait.
    pub(crate) fn note_lost(&mut self, index: u16) {
        let place = usize::from(index);
        let (Some(queue), Some(fence)) = (self.queues.get(place), self.fences.get_mut(place)) else { return };
        let writes = queue.writes_at_backend;
        let lifted = fence.writes > 0 && writes == 0;
        if fence.writes == 0 && writes > 0 {
            self.lost_connections = self.lost_connections.wrapping_add(1);
            fence.serial = self.lost_connections;
        }
        (fence.host_id, fence.writes, fence.peer_closed) = (queue.host_id, writes, false);
        if lifted {
            self.wake_waiting();
        }
    }
}
