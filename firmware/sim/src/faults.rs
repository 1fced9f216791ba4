//! What may have gone wrong with each drive so far: which statuses a host may get for it.

use nvme::Status;

/// One drive.
#[derive(Debug, Clone, Copy, Default)]
struct Drive {
    /// It was reset, removed, cut off or late, or may have been.
    disturbed: bool,
    /// Its media fail operations.
    failing: bool,
    /// It has lost its cache.
    lossy: bool,
}

/// All drives.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    drives: Vec<Drive>,
}

/// What the card makes of a drive that is reset or away.
const DISTURBANCE: [Status; 4] = [
    Status::COMMAND_INTERRUPTED,
    Status::NAMESPACE_NOT_READY,
    Status::INTERNAL_ERROR,
    Status::INVALID_NAMESPACE,
];

/// What becomes of the statuses that the media give.
const FAILURES: [Status; 8] = [
    Status::INTERNAL_ERROR,
    Status::COMMAND_INTERRUPTED,
    Status::LBA_OUT_OF_RANGE,
    Status::NAMESPACE_NOT_READY,
    Status::WRITE_FAULT,
    Status::UNRECOVERED_READ_ERROR,
    Status::ACCESS_DENIED,
    Status::INTERNAL_PATH_ERROR,
];

impl Faults {
    /// Drives that have done nothing wrong.
    #[must_use]
    pub fn new(drives: usize) -> Self {
        Self { drives: vec![Drive::default(); drives] }
    }

    /// A drive is reset, removed, cut off or late, or may be.
    pub fn disturb(&mut self, drive: usize) {
        self.drives[drive].disturbed = true;
    }

    /// All of them are.
    pub fn disturb_all(&mut self) {
        self.drives.iter_mut().for_each(|drive| drive.disturbed = true);
    }

    /// A drive's media may fail any operation.
    pub fn fail(&mut self, drive: usize) {
        self.drives[drive].failing = true;
    }

    /// A drive has lost its volatile cache: a flush of each host fails.
    pub fn lose_cache(&mut self, drive: usize) {
        self.drives[drive].lossy = true;
    }

    /// Whether a host may get this status for a command that its drive carries out.
    #[must_use]
    pub fn allow(&self, drive: usize, status: Status, is_flush: bool) -> bool {
        let drive = self.drives[drive];
        let code = status.code();
        (is_flush && drive.lossy && code == Status::WRITE_FAULT)
            || (drive.disturbed && DISTURBANCE.contains(&code))
            || (drive.failing && FAILURES.contains(&code))
    }
}
