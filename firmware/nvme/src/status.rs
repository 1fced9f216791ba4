//! Status codes (Base 4.2.3 to 4.2.4; NVM 2.4).

/// Status of a completed command: the 15 bits above the phase tag. SC in bits 7:0, SCT in 10:8, CRD in 12:11,
/// MORE (13), DNR (14).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $kind:literal, $code:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $name: Self = Self($kind << 8 | $code);)*

            /// The name of the status, for logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match Self(self.0 & 0x7ff) {
                    $(Self::$name => stringify!($name),)*
                    _ => "OTHER",
                }
            }
        }
    };
}

statuses! {
    /// Successful Completion.
    SUCCESS = 0, 0x00;
    /// Invalid Command Opcode.
    INVALID_OPCODE = 0, 0x01;
    /// Invalid Field in Command.
    INVALID_FIELD = 0, 0x02;
    /// Command ID Conflict.
    COMMAND_ID_CONFLICT = 0, 0x03;
    /// Data Transfer Error.
    DATA_TRANSFER_ERROR = 0, 0x04;
    /// Commands Aborted due to Power Loss Notification.
    ABORTED_POWER_LOSS = 0, 0x05;
    /// Internal Error.
    INTERNAL_ERROR = 0, 0x06;
    /// Command Abort Requested.
    ABORT_REQUESTED = 0, 0x07;
    /// Command Aborted due to SQ Deletion.
    ABORTED_SQ_DELETION = 0, 0x08;
    /// Command Aborted due to Failed Fused Command.
    ABORTED_FAILED_FUSED = 0, 0x09;
    /// Command Aborted due to Missing Fused Command.
    ABORTED_MISSING_FUSED = 0, 0x0a;
    /// Invalid Namespace or Format.
    INVALID_NAMESPACE = 0, 0x0b;
    /// Command Sequence Error.
    COMMAND_SEQUENCE_ERROR = 0, 0x0c;
    /// Invalid SGL Segment Descriptor.
    INVALID_SGL_SEGMENT = 0, 0x0d;
    /// Invalid Number of SGL Descriptors.
    INVALID_SGL_COUNT = 0, 0x0e;
    /// Data SGL Length Invalid.
    SGL_LENGTH_INVALID = 0, 0x0f;
    /// SGL Descriptor Type Invalid.
    SGL_TYPE_INVALID = 0, 0x11;
    /// PRP Offset Invalid.
    PRP_OFFSET_INVALID = 0, 0x13;
    /// SGL Offset Invalid.
    SGL_OFFSET_INVALID = 0, 0x16;
    /// Host Identifier Inconsistent Format.
    HOST_ID_INCONSISTENT = 0, 0x18;
    /// Keep Alive Timer Expired.
    KEEP_ALIVE_EXPIRED = 0, 0x19;
    /// Keep Alive Timeout Invalid.
    KEEP_ALIVE_INVALID = 0, 0x1a;
    /// Sanitize In Progress.
    SANITIZE_IN_PROGRESS = 0, 0x1d;
    /// Namespace is Write Protected.
    WRITE_PROTECTED = 0, 0x20;
    /// Command Interrupted: try again.
    COMMAND_INTERRUPTED = 0, 0x21;
    /// Transient Transport Error.
    TRANSIENT_TRANSPORT_ERROR = 0, 0x22;
    /// LBA Out of Range.
    LBA_OUT_OF_RANGE = 0, 0x80;
    /// Capacity Exceeded.
    CAPACITY_EXCEEDED = 0, 0x81;
    /// Namespace Not Ready.
    NAMESPACE_NOT_READY = 0, 0x82;
    /// Invalid Log Page.
    INVALID_LOG_PAGE = 1, 0x09;
    /// Invalid Queue Identifier.
    INVALID_QUEUE_ID = 1, 0x01;
    /// Invalid Queue Size.
    INVALID_QUEUE_SIZE = 1, 0x02;
    /// Abort Command Limit Exceeded.
    ABORT_LIMIT_EXCEEDED = 1, 0x03;
    /// Asynchronous Event Request Limit Exceeded.
    ASYNC_EVENT_LIMIT_EXCEEDED = 1, 0x05;
    /// Feature Identifier Not Saveable.
    FEATURE_NOT_SAVEABLE = 1, 0x0d;
    /// Feature Not Changeable.
    FEATURE_NOT_CHANGEABLE = 1, 0x0e;
    /// Feature Not Namespace Specific.
    FEATURE_NOT_NAMESPACE_SPECIFIC = 1, 0x0f;
    /// I/O Command Set Combination Rejected.
    COMMAND_SETS_REJECTED = 1, 0x2b;
    /// Connect Incompatible Format (fabrics commands).
    CONNECT_INCOMPATIBLE_FORMAT = 1, 0x80;
    /// Connect Controller Busy.
    CONNECT_CONTROLLER_BUSY = 1, 0x81;
    /// Connect Invalid Parameters.
    CONNECT_INVALID_PARAMETERS = 1, 0x82;
    /// Connect Restart Discovery.
    CONNECT_RESTART_DISCOVERY = 1, 0x83;
    /// Connect Invalid Host.
    CONNECT_INVALID_HOST = 1, 0x84;
    /// Invalid Queue Type: Disconnect on the admin queue, a property command on an I/O queue.
    INVALID_QUEUE_TYPE = 1, 0x85;
    /// Write Fault.
    WRITE_FAULT = 2, 0x80;
    /// Unrecovered Read Error.
    UNRECOVERED_READ_ERROR = 2, 0x81;
    /// Compare Failure.
    COMPARE_FAILURE = 2, 0x85;
    /// Access Denied.
    ACCESS_DENIED = 2, 0x86;
    /// Internal Path Error: the drive behind the path failed to answer.
    INTERNAL_PATH_ERROR = 3, 0x00;
    /// Asymmetric Access Persistent Loss: the namespace will not come back by this controller.
    ANA_PERSISTENT_LOSS = 3, 0x01;
    /// Asymmetric Access Inaccessible.
    ANA_INACCESSIBLE = 3, 0x02;
    /// Asymmetric Access Transition.
    ANA_TRANSITION = 3, 0x03;
    /// Command Aborted By Host.
    ABORTED_BY_HOST = 3, 0x71;
}

impl Status {
    /// Command Size Limit Exceeded (NVM 3.2.2): a Copy beyond MSSRL, MCL or MSRC. Fabrics commands have another meaning for the
    /// same code.
    pub const COMMAND_SIZE_LIMIT_EXCEEDED: Self = Self::CONNECT_RESTART_DISCOVERY;
}

const DO_NOT_RETRY: u16 = 1 << 14;
const MORE: u16 = 1 << 13;

impl Status {
    /// From the 15 bits of a completion without its phase tag.
    #[must_use]
    pub const fn from_field(field: u16) -> Self {
        Self(field & 0x7fff)
    }

    /// The 15 bits of a completion without its phase tag.
    #[must_use]
    pub const fn to_field(self) -> u16 {
        self.0
    }

    /// The same with DNR: the same command will fail again.
    #[must_use]
    pub const fn do_not_retry(self) -> Self {
        Self(self.0 | DO_NOT_RETRY)
    }

    /// The same with MORE: an entry in the error log tells more.
    #[must_use]
    pub const fn with_more(self) -> Self {
        Self(self.0 | MORE)
    }

    /// The status without CRD, MORE and DNR.
    #[must_use]
    pub const fn code(self) -> Self {
        Self(self.0 & 0x7ff)
    }

    /// Whether the command succeeded.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 & 0x7ff == 0
    }
}

impl core::fmt::Debug for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}({:#06x})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_flags_are_where_the_specification_puts_them() {
        assert_eq!(Status::LBA_OUT_OF_RANGE.to_field(), 0x0080);
        assert_eq!(Status::COMPARE_FAILURE.do_not_retry().to_field(), 0x4285);
        assert_eq!(Status::from_field(0x4285).code(), Status::COMPARE_FAILURE);
        assert!(Status::SUCCESS.is_success() && !Status::INVALID_FIELD.is_success());
        assert_eq!(format!("{:?}", Status::INVALID_FIELD.do_not_retry()), "INVALID_FIELD(0x4002)");
    }
}
