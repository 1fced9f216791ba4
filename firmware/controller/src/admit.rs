//! Admission: what a command is, how much data it moves and whether it may run, before any data moves.

use hal_mem::Pages;
use message::configuration::SubsystemPlace;
use nvme::fabrics::{fabrics_kind, kind};
use nvme::opcode::{self, admin, io};
use nvme::{Command, CopyRange, DatasetRange, Status};
use zerocopy::FromBytes;

use crate::backend::{BackendNamespace, IoRequest, Operation};
use crate::config::{MAX_COPY_RANGES, MAX_FUSED_BLOCKS};
use crate::identify::{self, IDENTIFY_TRANSFER};
use crate::namespace::Namespace;
use crate::slot::{Controller, QueueContext};
use crate::subsystem::Subsystem;

/// PSDT of every command over fabrics: an SGL, and no metadata of its own.
const PSDT_SGL: u8 = 1;
/// Bytes of one Dataset Management range.
const RANGE_BYTES: u32 = size_of::<DatasetRange>() as u32;
/// Bits of Dataset Management's dword 11 that mean something.
const DATASET_ATTRIBUTES: u32 = 0b111;
/// DESFMT and PRINFOR of Copy, in dword 12.
const COPY_FORMAT: u32 = 0xf << 8;
const COPY_READ_PROTECTION: u32 = 0xf << 12;
/// DTYPE of Write and Copy, in dword 12.
const DIRECTIVE_TYPE: u32 = 0xf << 20;

/// What an admitted command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The data that it moves.
    pub transfer: Transfer,
    /// Who carries it out.
    pub work: Work,
}

/// Data of a command: exactly what it moves, at most MDTS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// None.
    None,
    /// Card to host.
    ToHost {
        /// Not 0.
        bytes: u32,
    },
    /// Host to card.
    FromHost {
        /// Not 0.
        bytes: u32,
    },
}

/// Who carries a command out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// [`Subsystem::fill`] and [`Subsystem::execute`].
    Card,
    /// The backend.
    Block(BlockWork),
}

/// The attachment of a namespace that a command was admitted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// The subsystem.
    pub subsystem: SubsystemPlace,
    /// NSID in it.
    pub nsid: u32,
    /// Its number.
    pub number: u32,
}

/// A block command, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockWork {
    /// What it was admitted under.
    pub attached: Attached,
    /// Where.
    pub namespace: BackendNamespace,
    /// What.
    pub operation: Operation,
    /// First logical block.
    pub start_block: u64,
    /// How many logical blocks, 1 to 65536; 0 for Flush, Dataset Management and Copy.
    pub blocks: u32,
    /// Log2 of the block size in bytes.
    pub block_shift: u8,
    /// FUA.
    pub force_unit_access: bool,
}

impl BlockWork {
    /// The request to the backend for an owner, with room for the data where it moves any.
    #[must_use]
    pub fn into_request(self, token: u32, owner: u16, pages: Pages) -> IoRequest {
        IoRequest {
            token,
            owner,
            namespace: self.namespace,
            operation: self.operation,
            start_block: self.start_block,
            blocks: self.blocks,
            block_shift: self.block_shift,
            force_unit_access: self.force_unit_access,
            pages,
        }
    }
}

impl Subsystem {
    /// Checks a command that has arrived on a connected queue: opcode, flags, namespace, bounds, lengths, limits,
    /// and the controller's state. Connect is not among them ([`Subsystem::connect`]).
    ///
    /// # Errors
    /// The status to complete the command with.
    pub fn admit(&self, queue: &QueueContext, command: &Command) -> Result<Admission, Status> {
        let controller = self.controller(queue.controller).ok_or(Status::ABORTED_SQ_DELETION)?;
        if command.psdt() != PSDT_SGL || !is_fusable(queue, command) {
            return Err(Status::INVALID_FIELD.do_not_retry());
        }
        if command.opcode == opcode::FABRICS {
            return admit_fabrics(queue, command);
        }
        if !controller.is_ready() || !controller.has_queue(queue.queue_id) {
            return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
        }
        if queue.queue_id == 0 {
            let transfer = self.admit_admin(controller, command)?;
            return Ok(Admission { transfer, work: Work::Card });
        }
        self.admit_io(controller, command)
    }

    fn admit_admin(&self, controller: &Controller, command: &Command) -> Result<Transfer, Status> {
        match command.opcode {
            admin::IDENTIFY => {
                identify::check(self, controller, command)?;
                Ok(IDENTIFY_TRANSFER)
            }
            admin::GET_LOG_PAGE => self.admit_log_page(controller, command),
            admin::GET_FEATURES => self.admit_get_features(controller, command),
            admin::SET_FEATURES => self.admit_set_features(controller, command),
            admin::ABORT | admin::ASYNC_EVENT_REQUEST | admin::KEEP_ALIVE => Ok(Transfer::None),
            _ => Err(Status::INVALID_OPCODE.do_not_retry()),
        }
    }

    fn admit_io(&self, controller: &Controller, command: &Command) -> Result<Admission, Status> {
        let known = matches!(
            command.opcode,
            io::FLUSH
                | io::WRITE
                | io::READ
                | io::COMPARE
                | io::WRITE_ZEROES
                | io::DATASET_MANAGEMENT
                | io::VERIFY
                | io::COPY
        ) || (command.opcode == io::WRITE_UNCORRECTABLE
            && self.namespaces.any_write_uncorrectable(controller.subsystem));
        if !known {
            return Err(Status::INVALID_OPCODE.do_not_retry());
        }
        let invalid_namespace = Status::INVALID_NAMESPACE.do_not_retry();
        let nsid = command.nsid.get();
        let namespace = self.namespaces.find(controller.subsystem, nsid).ok_or(invalid_namespace)?;
        self.check_ana(controller)?;
        let mut work = BlockWork {
            attached: Attached { subsystem: controller.subsystem, nsid, number: namespace.attachment },
            namespace: namespace.backend,
            operation: Operation::Flush,
            start_block: 0,
            blocks: 0,
            block_shift: namespace.block_shift,
            force_unit_access: false,
        };
        let transfer = match command.opcode {
            io::FLUSH => Transfer::None,
            io::DATASET_MANAGEMENT => {
                let ranges = (command.cdw10.get() & 0xff) as u16 + 1;
                let attributes = (command.cdw11.get() & DATASET_ATTRIBUTES) as u8;
                work.operation = Operation::DatasetManagement { ranges, attributes };
                Transfer::FromHost { bytes: u32::from(ranges) * RANGE_BYTES }
            }
            io::COPY => admit_copy(namespace, command, &mut work)?,
            // Some other drive has it, this one has not.
            io::WRITE_UNCORRECTABLE if !namespace.write_uncorrectable => {
                return Err(Status::INVALID_OPCODE.do_not_retry());
            }
            _ => self.admit_blocks(namespace, command, &mut work)?,
        };
        Ok(Admission { transfer, work: Work::Block(work) })
    }

    /// Commands with a start block and a number of blocks.
    fn admit_blocks(
        &self,
        namespace: &Namespace,
        command: &Command,
        work: &mut BlockWork,
    ) -> Result<Transfer, Status> {
        let invalid_field = Status::INVALID_FIELD.do_not_retry();
        if command.protection_info() != 0 {
            return Err(invalid_field);
        }
        work.start_block = command.start_block();
        work.blocks = command.block_count();
        work.force_unit_access = command.force_unit_access();
        let end = work.start_block.checked_add(u64::from(work.blocks));
        if end.is_none_or(|end| end > namespace.blocks) {
            return Err(Status::LBA_OUT_OF_RANGE.do_not_retry());
        }
        if command.fuse() != 0 && work.blocks > MAX_FUSED_BLOCKS {
            return Err(invalid_field);
        }
        let bytes = u64::from(work.blocks) << namespace.block_shift;
        let limit = u64::from(self.config.max_transfer_bytes());
        if bytes > limit {
            return Err(invalid_field);
        }
        if command.opcode == io::WRITE_ZEROES {
            work.operation = Operation::WriteZeroes { deallocate: command.deallocate() };
            return Ok(Transfer::None);
        }
        if command.opcode == io::WRITE_UNCORRECTABLE {
            (work.operation, work.force_unit_access) = (Operation::WriteUncorrectable, false);
            return Ok(Transfer::None);
        }
        let bytes = bytes as u32;
        let (operation, transfer) = match command.opcode {
            io::READ => (Operation::Read, Transfer::ToHost { bytes }),
            io::WRITE if command.cdw12.get() & DIRECTIVE_TYPE != 0 => return Err(invalid_field),
            io::WRITE => (Operation::Write, Transfer::FromHost { bytes }),
            io::COMPARE => (Operation::Compare, Transfer::FromHost { bytes }),
            io::VERIFY => (Operation::Verify, Transfer::None),
            _ => return Err(Status::INVALID_OPCODE.do_not_retry()),
        };
        work.operation = operation;
        Ok(transfer)
    }

    /// Whether the namespace that `work` was admitted for is still attached as it was then: between a command's capsule and
    /// its data a drive may have made way for another, or the namespace been detached, and attached anew.
    #[must_use]
    pub fn still_serves(&self, work: &BlockWork) -> bool {
        self.namespace_of(work).is_some_and(|found| found.block_shift == work.block_shift)
    }

    /// The namespace that `work` was admitted for, if it is still attached.
    pub(crate) fn namespace_of(&self, work: &BlockWork) -> Option<&Namespace> {
        let Attached { subsystem, nsid, number } = work.attached;
        let found = self.namespaces.find(subsystem, nsid);
        found.filter(|found| found.attachment == number && found.backend == work.namespace)
    }

    /// Checks the ranges of an admitted Dataset Management or Copy once its data is there.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub fn check_ranges(&self, work: &BlockWork, data: &[u8]) -> Result<(), Status> {
        if !matches!(work.operation, Operation::DatasetManagement { .. } | Operation::Copy { .. }) {
            return Ok(());
        }
        let namespace = self.namespace_of(work).ok_or(Status::INVALID_NAMESPACE.do_not_retry())?;
        let ranges = match work.operation {
            Operation::DatasetManagement { ranges, .. } => ranges,
            Operation::Copy { ranges } => return check_copy(namespace, work.start_block, ranges, data),
            _ => 0,
        };
        let mut rest = data;
        for _ in 0..ranges {
            let Ok((range, after)) = DatasetRange::read_from_prefix(rest) else {
                return Err(Status::DATA_TRANSFER_ERROR);
            };
            rest = after;
            let end = range.start_block.get().checked_add(u64::from(range.blocks.get()));
            if end.is_none_or(|end| end > namespace.blocks) {
                return Err(Status::LBA_OUT_OF_RANGE.do_not_retry());
            }
        }
        Ok(())
    }
}

/// Whether the command may stand where FUSE says (Base 3.4.2): Compare and Write are the only pair. That both are there, and
/// are of the same blocks, is the transport's to see.
fn is_fusable(queue: &QueueContext, command: &Command) -> bool {
    match command.fuse() {
        0 => true,
        1 => queue.queue_id != 0 && command.opcode == io::COMPARE,
        2 => queue.queue_id != 0 && command.opcode == io::WRITE,
        _ => false,
    }
}

/// Copy (NVM 3.2.2). Its source ranges are checked when they are there.
fn admit_copy(namespace: &Namespace, command: &Command, work: &mut BlockWork) -> Result<Transfer, Status> {
    let cdw12 = command.cdw12.get();
    let ranges = (cdw12 & 0xff) as u16 + 1;
    if cdw12 & (COPY_FORMAT | COPY_READ_PROTECTION | DIRECTIVE_TYPE) != 0 || command.protection_info() != 0 {
        return Err(Status::INVALID_FIELD.do_not_retry());
    }
    if ranges > MAX_COPY_RANGES {
        return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.do_not_retry());
    }
    if command.start_block() >= namespace.blocks {
        return Err(Status::LBA_OUT_OF_RANGE.do_not_retry());
    }
    work.operation = Operation::Copy { ranges };
    work.start_block = command.start_block();
    work.force_unit_access = command.force_unit_access();
    Ok(Transfer::FromHost { bytes: u32::from(ranges) * size_of::<CopyRange>() as u32 })
}

/// Source and destination lie inside the namespace, and no limit is exceeded.
fn check_copy(namespace: &Namespace, to: u64, ranges: u16, data: &[u8]) -> Result<(), Status> {
    let out_of_range = Err(Status::LBA_OUT_OF_RANGE.do_not_retry());
    let is_inside = |start: u64, blocks: u32| {
        start.checked_add(u64::from(blocks)).is_some_and(|end| end <= namespace.blocks)
    };
    let mut rest = data;
    let mut total: u32 = 0;
    for _ in 0..ranges {
        let Ok((range, after)) = CopyRange::read_from_prefix(rest) else {
            return Err(Status::DATA_TRANSFER_ERROR);
        };
        rest = after;
        total = total.saturating_add(range.block_count());
        if total > namespace.max_copy_blocks() {
            return Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED.do_not_retry());
        }
        if !is_inside(range.start_block.get(), range.block_count()) {
            return out_of_range;
        }
    }
    if is_inside(to, total) { Ok(()) } else { out_of_range }
}

fn admit_fabrics(queue: &QueueContext, command: &Command) -> Result<Admission, Status> {
    let is_admin = queue.queue_id == 0;
    match fabrics_kind(command) {
        kind::PROPERTY_GET | kind::PROPERTY_SET if !is_admin => {
            Err(Status::INVALID_QUEUE_TYPE.do_not_retry())
        }
        kind::DISCONNECT if is_admin => Err(Status::INVALID_QUEUE_TYPE.do_not_retry()),
        kind::DISCONNECT if command.cdw10.get() & 0xffff != 0 => {
            Err(Status::CONNECT_INCOMPATIBLE_FORMAT.do_not_retry())
        }
        kind::PROPERTY_GET | kind::PROPERTY_SET | kind::DISCONNECT => {
            Ok(Admission { transfer: Transfer::None, work: Work::Card })
        }
        kind::CONNECT => Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry()),
        _ => Err(Status::INVALID_OPCODE.do_not_retry()),
    }
}

#[cfg(test)]
mod tests;
