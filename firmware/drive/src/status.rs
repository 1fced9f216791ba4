//! Which status a host gets. The only place that says so.
//!
//! A Linux host (`nvme_decide_disposition`) repeats a command whose status has DNR clear up to five times, at once
//! and without a delay (CRD stays 0: the card reports no CRDT); with multipath it moves commands with a path status
//! (SCT 3) to another path without counting, for ever if the same path is the only one. So:
//!
//! - A command that the card gave up, because it or its neighbour hung and the drive is being reset, ends with
//!   Command Interrupted: the host repeats it, and the repetition waits in the card until the drive is back.
//! - A drive that is away refuses with Namespace Not Ready: five quick attempts, then the host's file system gets
//!   its error. Internal Path Error would send a host with one path around in circles.

use nvme::Status;

/// The drive is being reset while the command was out, or the command took too long. DNR is clear.
pub const INTERRUPTED: Status = Status::COMMAND_INTERRUPTED;
/// The drive is gone or failed, and is tried again from time to time. DNR is clear.
pub const AWAY: Status = Status::NAMESPACE_NOT_READY;

const GENERIC: u16 = 0;
const COMMAND_SPECIFIC: u16 = 1;
const MEDIA_ERRORS: u16 = 2;
const DO_NOT_RETRY: u16 = 1 << 14;

/// The status for the host of a command that a drive ended with `status`, by its class (SCT, Base 4.2.3).
///
/// What concerns the host's blocks passes through with its DNR; what concerns the card's own use of the drive
/// (queues, PRP entries, opcodes, paths) becomes Internal Error, and what a drive ended because the card asked for it
/// becomes Command Interrupted. CRD and MORE refer to the drive's own tables and log and are
/// cleared; DNR stays as the drive has set it.
#[must_use]
pub fn host_status(status: Status) -> Status {
    let code = status.code();
    let answer = match (code.to_field() >> 8, code) {
        (GENERIC, Status::ABORT_REQUESTED) => return INTERRUPTED,
        (
            GENERIC,
            Status::SUCCESS
            | Status::ABORTED_POWER_LOSS
            | Status::SANITIZE_IN_PROGRESS
            | Status::WRITE_PROTECTED
            | Status::COMMAND_INTERRUPTED
            | Status::LBA_OUT_OF_RANGE
            | Status::CAPACITY_EXCEEDED
            | Status::NAMESPACE_NOT_READY,
        ) => code,
        // Sanitize Failed, Operation Denied; Reservation Conflict, Format In Progress.
        (GENERIC, _) if matches!(code.to_field(), 0x01c | 0x015 | 0x083 | 0x084) => code,
        // Attempted Write to Read Only Range.
        (COMMAND_SPECIFIC, _) if code.to_field() == 0x182 => code,
        (MEDIA_ERRORS, _) => code,
        // Other errors of commands that the card has made, paths between the card and its drives, vendors' own.
        _ => Status::INTERNAL_ERROR,
    };
    if status.to_field() & DO_NOT_RETRY != 0 { answer.do_not_retry() } else { answer }
}

/// Whether the status is one of Media and Data Integrity Errors (SCT 2).
#[must_use]
pub fn is_media_error(status: Status) -> bool {
    status.to_field() >> 8 & 0b111 == MEDIA_ERRORS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_see_their_own_errors_and_nothing_of_the_cards() {
        let dnr = |status: Status| status.do_not_retry();
        assert_eq!(host_status(dnr(Status::UNRECOVERED_READ_ERROR)), dnr(Status::UNRECOVERED_READ_ERROR));
        assert_eq!(host_status(Status::COMPARE_FAILURE.with_more()), Status::COMPARE_FAILURE);
        assert_eq!(host_status(dnr(Status::LBA_OUT_OF_RANGE)), dnr(Status::LBA_OUT_OF_RANGE));
        assert_eq!(host_status(Status::ABORTED_SQ_DELETION), Status::INTERNAL_ERROR);
        assert_eq!(host_status(dnr(Status::ABORT_REQUESTED)), INTERRUPTED);
        assert_eq!(host_status(dnr(Status::INTERNAL_PATH_ERROR)), dnr(Status::INTERNAL_ERROR));
        assert_eq!(host_status(dnr(Status::PRP_OFFSET_INVALID)), dnr(Status::INTERNAL_ERROR));
        assert_eq!(host_status(Status::from_field(0x7777)), Status::INTERNAL_ERROR.do_not_retry());
    }
}
