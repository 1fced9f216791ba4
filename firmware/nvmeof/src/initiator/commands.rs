//! The commands that a host needs, without CID and data pointer: [`super::HostQueue::submit`] adds them.

use nvme::fabrics::{ConnectCommand, kind};
use nvme::opcode::{self, admin, io};
use nvme::{Command, features};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::slots::Transfer;

/// Connect (Base 6.3) of a queue of `slots` commands; its data is 1024 bytes in the capsule. `keep_alive_ms` is for
/// the admin queue, zero for none.
#[must_use]
pub fn connect(queue_id: u16, slots: u16, keep_alive_ms: u32, flow_control: bool) -> Command {
    let mut connect = ConnectCommand::new_zeroed();
    connect.opcode = opcode::FABRICS;
    connect.fabrics_kind = kind::CONNECT;
    connect.queue_id.set(queue_id);
    connect.sq_size.set(slots);
    connect.attributes = u8::from(!flow_control) << 2;
    connect.keep_alive_ms.set(keep_alive_ms);
    Command::read_from_bytes(connect.as_bytes()).unwrap_or_default()
}

/// Property Get (Base 6.5) of a property of 4 bytes, or of 8.
#[must_use]
pub fn property_get(offset: u32, bytes: usize) -> Command {
    Command { cdw10: U32::new(u32::from(bytes == 8)), cdw11: U32::new(offset), ..fabrics(kind::PROPERTY_GET) }
}

/// Property Set (Base 6.6) of a property of 4 bytes.
#[must_use]
pub fn property_set(offset: u32, value: u32) -> Command {
    Command { cdw11: U32::new(offset), cdw12: U32::new(value), ..fabrics(kind::PROPERTY_SET) }
}

/// Identify (Base 5.17): 4096 bytes.
#[must_use]
pub fn identify(cns: u8, nsid: u32) -> Command {
    Command { cdw10: U32::new(u32::from(cns)), ..of_namespace(admin::IDENTIFY, nsid) }
}

/// Get Log Page (Base 5.16) of `bytes` from `offset` on, both multiples of 4.
#[must_use]
pub fn get_log_page(page: u8, nsid: u32, offset: u64, bytes: u32) -> Command {
    let dwords = (bytes / 4).saturating_sub(1);
    Command {
        cdw10: U32::new(dwords << 16 | u32::from(page)),
        cdw11: U32::new(dwords >> 16),
        cdw12: U32::new(offset as u32),
        cdw13: U32::new((offset >> 32) as u32),
        ..of_namespace(admin::GET_LOG_PAGE, nsid)
    }
}

/// Set Features, Number of Queues (Base 5.27.1.5): so many I/O queues, at least one.
#[must_use]
pub fn set_queue_count(queues: u16) -> Command {
    let last = u32::from(queues.max(1) - 1);
    Command {
        cdw10: U32::new(u32::from(features::NUMBER_OF_QUEUES)),
        cdw11: U32::new(last << 16 | last),
        ..of_namespace(admin::SET_FEATURES, 0)
    }
}

/// Keep Alive (Base 5.18). A host sends one whenever half of its KATO has passed.
#[must_use]
pub fn keep_alive() -> Command {
    of_namespace(admin::KEEP_ALIVE, 0)
}

/// Abort (Base 5.1) of a command of a queue, whose CID [`super::HostQueue::cid_of`] tells.
#[must_use]
pub fn abort(queue_id: u16, cid: u16) -> Command {
    let cdw10 = U32::new(u32::from(cid) << 16 | u32::from(queue_id));
    Command { cdw10, ..of_namespace(admin::ABORT, 0) }
}

/// Asynchronous Event Request (Base 5.2): stays at the target until there is something to tell.
#[must_use]
pub fn async_event_request() -> Command {
    of_namespace(admin::ASYNC_EVENT_REQUEST, 0)
}

/// Read (NVM 3.2.4) of 1 to 65536 blocks.
#[must_use]
pub fn read(nsid: u32, start_block: u64, blocks: u32) -> Command {
    block(io::READ, nsid, start_block, blocks)
}

/// Write (NVM 3.2.6) of 1 to 65536 blocks.
#[must_use]
pub fn write(nsid: u32, start_block: u64, blocks: u32) -> Command {
    block(io::WRITE, nsid, start_block, blocks)
}

/// Compare (NVM 3.2.1) of 1 to 65536 blocks with data that is sent.
#[must_use]
pub fn compare(nsid: u32, start_block: u64, blocks: u32) -> Command {
    block(io::COMPARE, nsid, start_block, blocks)
}

/// Copy (NVM 3.2.2) of 1 to 256 source ranges, which are its data (`nvme::CopyRange`), to `start_block` and what follows.
#[must_use]
pub fn copy(nsid: u32, start_block: u64, ranges: u32) -> Command {
    let mut command = of_namespace(io::COPY, nsid);
    command.set_start_block(start_block);
    command.cdw12 = U32::new(ranges.clamp(1, 1 << 8) - 1);
    command
}

/// Write Zeroes (NVM 3.2.8) of 1 to 65536 blocks.
#[must_use]
pub fn write_zeroes(nsid: u32, start_block: u64, blocks: u32) -> Command {
    block(io::WRITE_ZEROES, nsid, start_block, blocks)
}

/// Flush (NVM 3.2.3).
#[must_use]
pub fn flush(nsid: u32) -> Command {
    of_namespace(io::FLUSH, nsid)
}

/// How the data of a write goes: with its command where the controller's capsules hold it
/// ([`super::ControllerInfo::in_capsule_bytes`]), else when the target asks.
#[must_use]
pub const fn send_transfer(bytes: u32, in_capsule_bytes: u32) -> Transfer {
    if bytes == 0 {
        Transfer::None
    } else if bytes <= in_capsule_bytes && bytes <= crate::pdu::IN_CAPSULE_BYTES {
        Transfer::SendInCapsule(bytes)
    } else {
        Transfer::Send(bytes)
    }
}

fn fabrics(kind: u8) -> Command {
    of_namespace(opcode::FABRICS, u32::from(kind))
}

fn block(opcode: u8, nsid: u32, start_block: u64, blocks: u32) -> Command {
    let mut command = of_namespace(opcode, nsid);
    command.set_start_block(start_block);
    command.cdw12 = U32::new(blocks.clamp(1, 1 << 16) - 1);
    command
}

fn of_namespace(opcode: u8, nsid: u32) -> Command {
    Command { opcode, nsid: U32::new(nsid), ..Command::default() }
}
