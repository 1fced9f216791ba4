//! The Error Information log of a controller (Base 5.16.1.2).

use nvme::log_page::ErrorEntry;
use nvme::{Command, Status, opcode};

use crate::config::ERROR_LOG_ENTRIES;
use crate::slot::QueueContext;
use crate::subsystem::Subsystem;

pub(crate) const TRANSPORT_TCP: u8 = 3;
pub(crate) const LOCATION_UNKNOWN: u16 = 0xffff;

/// The last errors of a controller, and how many there were.
#[derive(Debug)]
pub(crate) struct ErrorLog {
    entries: [ErrorEntry; ERROR_LOG_ENTRIES],
    count: u64,
}

impl ErrorLog {
    pub(crate) fn new() -> Self {
        Self { entries: core::array::from_fn(|_| ErrorEntry::default()), count: 0 }
    }

    /// Errors since the controller came to be.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// The entries, newest first; unused ones are zero.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &ErrorEntry> {
        let next = (self.count % ERROR_LOG_ENTRIES as u64) as usize;
        let (newer, older) = self.entries.split_at(next);
        newer.iter().rev().chain(older.iter().rev())
    }

    /// Counts errors of which nothing else is known.
    pub(crate) fn skip(&mut self, missed: u32) {
        self.count += u64::from(missed);
    }

    pub(crate) fn push(&mut self, mut entry: ErrorEntry) {
        let place = (self.count % ERROR_LOG_ENTRIES as u64) as usize;
        self.count += 1;
        entry.error_count.set(self.count);
        if let Some(slot) = self.entries.get_mut(place) {
            *slot = entry;
        }
    }
}

impl Subsystem {
    /// Enters a command that failed into the error log; call it once for each completion that is not success.
    /// Returns the status to complete with: the same with MORE set, which points the host to the entry. A
    /// status of success, or one of a controller that is gone, comes back unchanged.
    pub fn record_error(&mut self, queue: &QueueContext, command: &Command, status: Status) -> Status {
        if status.is_success() {
            return status;
        }
        let Some(controller) = self.controller_mut(queue.controller) else { return status };
        // Base, figure 94: only a host that has set ACRE is told of an interruption. To others it is the namespace that is not ready.
        let interrupted =
            status.code() == Status::COMMAND_INTERRUPTED && !controller.features.retries_commands();
        let status = if interrupted { Status::NAMESPACE_NOT_READY } else { status }.with_more();
        let mut entry = ErrorEntry::default();
        entry.sq_id.set(queue.queue_id);
        entry.cid = command.cid;
        entry.status.set(status.to_field() << 1);
        entry.location.set(LOCATION_UNKNOWN);
        entry.transport = TRANSPORT_TCP;
        if command.opcode != opcode::FABRICS {
            entry.nsid = command.nsid;
            if queue.queue_id != 0 {
                entry.start_block.set(command.start_block());
            }
        }
        controller.errors.push(entry);
        self.counters.errors += 1;
        self.report_error(queue.controller, false);
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, read};

    #[test]
    fn the_newest_error_comes_first_and_old_ones_fall_out() {
        let mut bench = Bench::ready();
        for cid in 1..=20u16 {
            let mut command = read(7, 5, 1);
            command.cid.set(cid);
            let status = bench.subsystem.record_error(&bench.io, &command, Status::LBA_OUT_OF_RANGE);
            assert_eq!(status, Status::LBA_OUT_OF_RANGE.with_more());
        }
        let log = &bench.controller().errors;
        assert_eq!(log.count(), 20);
        let cids: std::vec::Vec<_> = log.newest_first().map(|entry| entry.cid.get()).collect();
        assert_eq!(cids, (5..=20).rev().collect::<std::vec::Vec<_>>());
        let first = log.newest_first().next().unwrap();
        assert_eq!((first.error_count.get(), first.start_block.get(), first.nsid.get()), (20, 5, 7));
        assert_eq!(first.status.get() >> 1 & 0x7ff, 0x80);
    }

    #[test]
    fn only_a_host_that_has_set_acre_hears_of_an_interruption() {
        let mut bench = Bench::ready();
        let told = |bench: &mut Bench| {
            let status = Status::COMMAND_INTERRUPTED;
            bench.subsystem.record_error(&bench.io, &read(7, 5, 1), status).code()
        };
        assert_eq!(told(&mut bench), Status::NAMESPACE_NOT_READY);
        let mut behavior = [0; 512];
        behavior[0] = 1;
        let set = crate::testing::admin_command(nvme::opcode::admin::SET_FEATURES, 0, 0x16, 0);
        bench.result_of(&set, &behavior);
        assert_eq!(told(&mut bench), Status::COMMAND_INTERRUPTED);
    }

    #[test]
    fn success_leaves_no_entry() {
        let mut bench = Bench::ready();
        bench.subsystem.record_error(&bench.io, &Command::default(), Status::SUCCESS);
        assert_eq!(bench.controller().errors.count(), 0);
    }
}
