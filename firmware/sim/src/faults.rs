//! What may go wrong with each drive now: which statuses a host may get for it.

use std::time::Duration;

use hal_api::Instant;
use nvme::Status;

/// Something that a drive does, or did until lately.
#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    now: bool,
    until: Option<Instant>,
}

impl Trouble {
    /// Commands that are sent from now on do not meet it.
    fn end(&mut self, now: Instant) {
        if self.now {
            *self = Self { now: false, until: Some(now) };
        }
    }

    /// Whether a command that was sent then may have met it.
    fn may_meet(self, sent_at: Instant) -> bool {
        self.now || self.until.is_some_and(|until| sent_at <= until)
    }
}

/// One drive.
#[derive(Debug, Clone, Copy, Default)]
struct Drive {
    /// It is reset, removed, cut off or late, or may be.
    disturbed: Trouble,
    /// Its media fail operations.
    failing: Trouble,
    /// It has lost its cache.
    lossy: bool,
    /// When the card was last seen not to take it for ready.
    unready: Instant,
}

/// All drives.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    drives: Vec<Drive>,
    /// Drives stand in slots: one that is taken out takes its namespaces with it.
    has_slots: bool,
}

/// In this time after the card takes a drive for ready again it has found out what was lost.
const FOUND_OUT: Duration = Duration::from_millis(10);

/// DNR, in the status field without its phase tag (Base 4.2.3).
const DO_NOT_RETRY: u16 = 1 << 14;

/// What the card makes of a drive that is reset or away.
const DISTURBANCE: [Status; 2] = [Status::COMMAND_INTERRUPTED, Status::NAMESPACE_NOT_READY];

/// What becomes of the statuses that the media give.
const FAILURES: [Status; 7] = [
    Status::INTERNAL_ERROR,
    Status::COMMAND_INTERRUPTED,
    Status::LBA_OUT_OF_RANGE,
    Status::NAMESPACE_NOT_READY,
    Status::WRITE_FAULT,
    Status::UNRECOVERED_READ_ERROR,
    Status::ACCESS_DENIED,
];

impl Faults {
    /// Whether this is what a Flush of a host ends with that does not know yet that a volatile cache was lost: Write Fault
    /// with DNR. The media of the simulator fail with the same status, and never set DNR with it.
    #[must_use]
    pub fn tells_of_loss(status: Status) -> bool {
        status.code() == Status::WRITE_FAULT && status.to_field() & DO_NOT_RETRY != 0
    }

    /// Drives that have done nothing wrong.
    #[must_use]
    pub fn new(drives: usize, has_slots: bool) -> Self {
        Self { drives: vec![Drive::default(); drives], has_slots }
    }

    /// A drive is reset, removed, cut off or late, or may be.
    pub fn disturb(&mut self, drive: usize) {
        self.drives[drive].disturbed.now = true;
    }

    /// All of them are.
    pub fn disturb_all(&mut self) {
        self.drives.iter_mut().for_each(|drive| drive.disturbed.now = true);
    }

    /// A drive's media may fail any operation.
    pub fn fail(&mut self, drive: usize) {
        self.drives[drive].failing.now = true;
    }

    /// A drive has been well for a while.
    pub fn is_well(&mut self, drive: usize, now: Instant) {
        self.drives[drive].disturbed.end(now);
        self.drives[drive].failing.end(now);
    }

    /// Whether a drive is in trouble, as far as is known.
    #[must_use]
    pub fn in_trouble(&self, drive: usize) -> bool {
        self.drives[drive].disturbed.now || self.drives[drive].failing.now
    }

    /// A drive has lost its volatile cache: a flush of each host fails.
    pub fn lose_cache(&mut self, drive: usize) {
        self.drives[drive].lossy = true;
    }

    /// The card does not take the drive for ready: it may find out that the cache was lost.
    pub fn is_unready(&mut self, drive: usize, now: Instant) {
        self.drives[drive].unready = now;
    }

    /// Since when the card has found out of no loss.
    #[must_use]
    pub fn settled(&self, drive: usize) -> Instant {
        self.drives[drive].unready + FOUND_OUT
    }

    /// Whether a command that was sent then may have met trouble at this drive.
    #[must_use]
    pub fn may_have_met(&self, drive: usize, sent_at: Instant) -> bool {
        let drive = self.drives[drive];
        drive.disturbed.may_meet(sent_at) || drive.failing.may_meet(sent_at)
    }

    /// Whether a host may get this status for a command that was sent then and that its drive carries out.
    #[must_use]
    pub fn allow(&self, drive: usize, status: Status, is_flush: bool, sent_at: Instant) -> bool {
        let drive = self.drives[drive];
        let code = status.code();
        (is_flush && drive.lossy && Self::tells_of_loss(status))
            || (drive.disturbed.may_meet(sent_at)
                && (DISTURBANCE.contains(&code) || (self.has_slots && code == Status::INVALID_NAMESPACE)))
            || (drive.failing.may_meet(sent_at) && FAILURES.contains(&code))
    }
}
