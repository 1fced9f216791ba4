//! A fake that works by itself, as a device does: for whoever keeps the time, instead of a driver's polls.

use super::model::Model;
use super::{NvmeControl, lock};

/// What a queue pair has to tell a sleeping core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueNews {
    /// The driver has asked for an interrupt at the next completion.
    pub armed: bool,
    /// Completions posted since the start.
    pub posted: u64,
    /// The same, when the driver asked for an interrupt last: what comes later raises one.
    pub posted_before_arming: u64,
    /// How often a driver that asked for an interrupt found a completion at its second look.
    pub found_by_arming: u64,
    /// A completion waits to be taken.
    pub waiting: bool,
}

impl NvmeControl {
    /// Begins what was fetched and takes in what the media has ended, although no driver polls.
    pub fn work(&self) {
        lock(&self.model).work();
    }

    /// What a queue pair has to tell; nothing for one that does not exist.
    #[must_use]
    pub fn news(&self, qid: u16) -> QueueNews {
        let model = lock(&self.model);
        model.queues.get(usize::from(qid)).map_or(QueueNews::default(), |queue| queue.news())
    }
}

impl Model {
    fn work(&mut self) {
        self.now += 1;
        if self.is_at_work() {
            for qid in 0..self.queues.len() {
                self.run(qid as u16);
            }
        }
    }
}
