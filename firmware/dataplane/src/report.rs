//! What a data core says of itself: what its pools hold when nobody is connected, how many I/O queues it has, and
//! what frames went through it for other cores.

use core::time::Duration;

use hal_api::{FrameQueue, Instant, NvmeDevice};

use crate::data_core::{DataCore, PoolCounts};

/// Between two reports of the pools: hosts may come and go as fast as they like.
const POOLS_PERIOD: Duration = Duration::from_secs(1);

/// What was said last.
#[derive(Debug)]
pub(crate) struct Reports {
    /// Whether a host has come since the pools were reported.
    has_come: bool,
    /// Connections that had come at the last tick, so that one is noticed that has gone again.
    opened: u64,
    next_pools: Instant,
    /// I/O queues at the last tick, and those that were told of.
    io_queues: u16,
    io_queues_told: u16,
}

impl Reports {
    /// Nothing is to be said before a host has come or [`Reports::ask_for_pools`] was called.
    pub(crate) const fn new() -> Self {
        Self { has_come: false, opened: 0, next_pools: Instant::ZERO, io_queues: 0, io_queues_told: 0 }
    }

    /// The pools are to be reported as if a host had come.
    pub(crate) fn ask_for_pools(&mut self) {
        self.has_come = true;
    }

    /// True where the pools are to be reported: the core has become idle, though hosts may have come and gone since the last
    /// call. `opened` counts their connections.
    fn note_idle(&mut self, now: Instant, idle: bool, opened: u64) -> bool {
        self.has_come |= !idle || opened != self.opened;
        self.opened = opened;
        let report = idle && self.has_come && now >= self.next_pools;
        if report {
            self.has_come = false;
            self.next_pools = now + POOLS_PERIOD;
        }
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
    pub(crate) fn report(&mut self, now: Instant) {
        let counts = self.target.counts();
        if let Some(queues) = self.reports.note_io_queues(counts.io_queues) {
            hal_log::info!("{} I/O queues of hosts on this core", queues);
        }
        let opened = self.target.counters().opened;
        if self.reports.note_idle(now, self.is_idle_at(&counts), opened) {
            self.report_idle(&self.pool_counts());
        }
    }

    /// Whether no host is connected and drives have nothing of earlier ones any more, pages in quarantine included.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.is_idle_at(&self.target.counts())
    }

    fn is_idle_at(&self, counts: &nvmeof::Counts) -> bool {
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
        let ticks = [(true, 0), (false, 1), (true, 1), (true, 1), (false, 2), (true, 2)];
        let told = (0..).zip(ticks).map(|(second, (idle, opened))| {
            reports.note_idle(Instant::from_millis(second * 1000), idle, opened)
        });
        assert!(told.eq([false, false, true, false, false, true]));
    }

    #[test]
    fn hosts_that_come_and_go_between_two_ticks_are_told_of_once_a_second() {
        let mut reports = Reports::new();
        let told =
            (0..25).filter(|tick| reports.note_idle(Instant::from_millis(tick * 100), true, (*tick).min(13)));
        // The first comes before the second tick, the last before the fourteenth.
        assert!(told.eq([1, 11, 21]));
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
