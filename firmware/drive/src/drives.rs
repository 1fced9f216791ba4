//! All drives of a core, by index: what the controller's block requests go to.

use controller::{Backend, IoCompletion, IoRequest, RejectReason, Rejected};
use hal_api::{Instant, NvmeDevice};
use hal_mem::PagePool;
use nvme::Status;
use nvme::log_page::SmartLog;

use crate::drive::Drive;
use crate::events::DriveEvent;

/// The drives of a core; `BackendNamespace::drive` is an index into them.
pub struct Drives<D: NvmeDevice + 'static> {
    drives: &'static mut [Drive<D>],
    /// Whose completion is collected first next time.
    turn: usize,
}

impl<D: NvmeDevice> Drives<D> {
    /// At most 256 drives.
    #[must_use]
    pub fn new(drives: &'static mut [Drive<D>]) -> Self {
        debug_assert!(drives.len() <= 256);
        Self { drives, turn: 0 }
    }

    /// How many drives there are, whatever their state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.drives.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.drives.is_empty()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, drive: u8) -> Option<&Drive<D>> {
        self.drives.get(usize::from(drive))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Drive<D>> {
        self.drives.iter()
    }

    /// All of them, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Drive<D>> {
        self.drives.iter_mut()
    }

    /// Polls each; returns how much was done.
    pub fn poll(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        self.drives.iter_mut().map(|drive| drive.poll(now, pool)).sum()
    }

    /// Collects the end of a request, from each drive in turn.
    pub fn complete(&mut self) -> Option<IoCompletion> {
        let count = self.drives.len();
        for _ in 0..count {
            self.turn = if self.turn + 1 >= count { 0 } else { self.turn + 1 };
            if let Some(completion) = self.drives.get_mut(self.turn).and_then(Drive::complete) {
                return Some(completion);
            }
        }
        None
    }

    /// Rings the doorbells. Once a turn.
    pub fn flush(&mut self) {
        self.drives.iter_mut().for_each(Drive::flush);
    }

    /// The next change at a drive, with its index.
    pub fn take_event(&mut self) -> Option<(u8, DriveEvent)> {
        let mut all = self.drives.iter_mut().enumerate();
        all.find_map(|(index, drive)| drive.take_event().map(|event| (index as u8, event)))
    }

    /// Asks all for interrupts. True when something waits already.
    pub fn arm(&mut self) -> bool {
        self.drives.iter_mut().fold(false, |waits, drive| drive.arm() | waits)
    }

    /// The core is awake and polls.
    pub fn disarm(&mut self) {
        self.drives.iter_mut().for_each(Drive::disarm);
    }

    /// Whether one has something to do that no interrupt and no deadline tells of.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.drives.iter().any(Drive::has_work)
    }

    /// When one wants to be polled at the latest.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let deadlines = self.drives.iter().map(|drive| drive.next_deadline(now));
        deadlines.min().unwrap_or(Instant::FAR_FUTURE)
    }
}

impl<D: NvmeDevice> Backend for Drives<D> {
    fn submit(&mut self, request: IoRequest, pool: &mut PagePool, now: Instant) -> Result<(), Rejected> {
        match self.drives.get_mut(usize::from(request.namespace.drive)) {
            Some(drive) => drive.submit(request, pool, now),
            None => {
                let reason = RejectReason::Failed(Status::INVALID_NAMESPACE.do_not_retry());
                Err(Rejected { request, reason })
            }
        }
    }

    fn smart(&self, drive: u8) -> Option<&SmartLog> {
        self.get(drive)?.smart()
    }
}
