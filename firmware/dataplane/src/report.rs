//! What a data core says of itself: what its pools hold when nobody is connected, how many I/O queues it has, and
//! what frames went through it for other cores.

use hal_api::{FrameQueue, NvmeDevice};

use crate::data_core::{DataCore, PoolCounts};

/// What was said last.
#[derive(Debug)]
pub(crate) struct Reports {
    /// Whether the pools were reported since the last host went.
    idle: bool,
    /// I/O queues at the last tick, and those that were told of.
    io_queues: u16,
    io_queues_told: u16,
}

impl Reports {
    /// Nothing is to be said before a host has come or [`Reports::note_idle`] was told of one.
    pub(crate) const fn new() -> Self {
        Self { idle: true, io_queues: 0, io_queues_told: 0 }
    }

    /// True once each time that the core has become idle.
    pub(crate) fn note_idle(&mut self, idle: bool) -> bool {
        let report = idle && !self.idle;
        self.idle = idle;
        report
    }

    /// The number to tell of: one that is new and has lasted since the last call, since a host's queues come one by one.
    fn note_io_queues(&mut self, now: u16) -> Option<u16> {
        let lasts = self.io_queues == now;
        self.io_queues = now;
        let report = lasts && self.io_queues_told != now;
        report.then(|| {
            self.io_queues_told = now;
            now
        })
    }
}

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// At each tick.
    pub(crate) fn report(&mut self) {
        let queues = self.target.counts().io_queues;
        if let Some(queues) = self.reports.note_io_queues(queues) {
            hal_log::info!("{} I/O queues of hosts on this core", queues);
        }
        if self.reports.note_idle(self.is_idle()) {
            self.report_idle(&self.pool_counts());
        }
    }

    /// Whether no host is connected and drives have nothing of earlier ones any more, pages in quarantine included.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let counts = self.target.counts();
        let gone = counts.connections == 0 && counts.draining == 0;
        gone && self.drives.iter().all(|drive| drive.outstanding() == 0)
    }

    /// A leak shows as a number that falls.
    fn report_idle(&self, counts: &PoolCounts) {
        if self.subsystem.has_others() {
            for (number, stack) in (1u8..).zip(&self.stacks) {
                let frames = stack.counters();
                hal_log::info!(
                    "port {}: {} frames for this core; {} were passed on to other cores, {} of them dropped; {} sent for others",
                    number,
                    frames.frames_received,
                    frames.frames_passed_on,
                    frames.frames_dropped,
                    frames.frames_carried,
                );
            }
        }
        hal_log::info!(
            "no host connected: {} of {} slots free, {} of {} pages free, {} promised",
            counts.slots_free,
            counts.slots,
            counts.pages_free,
            counts.pages,
            counts.pages_promised,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn becoming_idle_is_told_once() {
        let mut reports = Reports::new();
        let told = [true, false, true, true, false, true].map(|idle| reports.note_idle(idle));
        assert_eq!(told, [false, false, true, false, false, true]);
    }

    #[test]
    fn a_number_of_queues_is_told_once_it_lasts() {
        let mut reports = Reports::new();
        let told = [0, 1, 3, 3, 3, 2, 3, 3, 0, 0, 0].map(|queues| reports.note_io_queues(queues));
        let expected = [(3, 3), (9, 0)];
        for (at, told) in told.into_iter().enumerate() {
            let wanted = expected.iter().find(|(place, _)| *place == at).map(|(_, queues)| *queues);
            assert_eq!(told, wanted, "tick {at}");
        }
    }
}
