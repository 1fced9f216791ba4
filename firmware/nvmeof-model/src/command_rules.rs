//! Tables: what a command moves, and which statuses it may end with.
//!
//! Base 4.2.3 (statuses), 5 (admin), 6 (fabrics), NVM 3.2 (I/O), TCP 3.4 and Base 4.1.2 (SGLs). Of several faults any may be told.

use crate::Card;
use crate::wire::{Command, SGL_IN_CAPSULE, SGL_TRANSPORT, u16_at, u32_at, u64_at};

/// Invalid Command Opcode.
pub const INVALID_OPCODE: u16 = 0x01;
/// Invalid Field in Command.
pub const INVALID_FIELD: u16 = 0x02;
/// Command ID Conflict.
pub const ID_CONFLICT: u16 = 0x03;
/// Command Abort Requested.
pub const ABORT_REQUESTED: u16 = 0x07;
/// Command Aborted due to SQ Deletion.
pub const SQ_DELETED: u16 = 0x08;
/// Command Aborted due to Failed Fused Command.
pub const ABORTED_FAILED_FUSED: u16 = 0x09;
/// Invalid Namespace or Format.
pub const INVALID_NAMESPACE: u16 = 0x0b;
/// Command Sequence Error.
pub const SEQUENCE_ERROR: u16 = 0x0c;
/// Data SGL Length Invalid.
pub const SGL_LENGTH: u16 = 0x0f;
/// SGL Descriptor Type Invalid.
pub const SGL_TYPE: u16 = 0x11;
/// SGL Offset Invalid.
pub const SGL_OFFSET: u16 = 0x16;
/// Transient Transport Error.
pub const TRANSPORT_ERROR: u16 = 0x22;
/// LBA Out of Range.
pub const LBA_RANGE: u16 = 0x80;
/// Asynchronous Event Request Limit Exceeded.
pub const EVENT_LIMIT: u16 = 0x105;
/// Connect Incompatible Format.
pub const CONNECT_FORMAT: u16 = 0x180;
/// Connect Invalid Parameters.
pub const CONNECT_PARAMETERS: u16 = 0x182;
/// Connect Invalid Host.
pub const CONNECT_HOST: u16 = 0x184;
/// Invalid Queue Type.
pub const QUEUE_TYPE: u16 = 0x185;
/// Compare Failure.
pub const COMPARE_FAILURE: u16 = 0x285;

/// Data of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// None.
    Nothing,
    /// So many bytes from the controller.
    ToHost(u32),
    /// So many bytes from the host.
    FromHost(u32),
    /// As the opcode's low bits say, no more than the SGL: the table has no line for it.
    Free,
}

/// What a command does once its data is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that anybody could see.
    None,
    /// Reads blocks.
    Read(u64, u64),
    /// Writes blocks.
    Write(u64, u64),
    /// Writes zeros.
    Zero(u64, u64),
    /// Compares blocks.
    Compare(u64, u64),
    /// May write these, in its own time.
    Doubt(u64, u64),
    /// Connect.
    Connect,
    /// Property Set of CC.
    Configure(u32),
    /// Set Features for the number of queues: the answer says how many there are.
    Queues,
    /// Disconnect of an I/O queue.
    Disconnect,
    /// Asynchronous Event Request: answered when there is something to tell.
    EventRequest,
}

/// Statuses that a command may end with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statuses {
    /// The table says nothing.
    Any,
    /// None but success.
    AnyError,
    /// One of these.
    OneOf(Vec<u16>),
}

impl Statuses {
    /// Whether this is one of them.
    #[must_use]
    pub fn allow(&self, status: u16) -> bool {
        match self {
            Self::Any => true,
            Self::AnyError => status != 0,
            Self::OneOf(list) => list.contains(&status),
        }
    }
}

/// What the controller has to answer.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Of which its status is one.
    pub statuses: Statuses,
    /// The data that moves if all is well.
    pub moves: Move,
    /// What happens if all is well.
    pub effect: Effect,
    /// It may wait for something else than its data.
    pub lingers: bool,
}

/// The queue that a command has come by.
#[derive(Debug, Clone, Copy)]
pub enum Queue {
    /// Not connected.
    None,
    /// The admin queue, with CSTS.RDY as far as it is known.
    Admin(Option<bool>),
    /// An I/O queue, the same.
    Io(Option<bool>),
}

/// A fault of a command, if it has it.
type Check = fn(&Command, &Card) -> Option<u16>;

/// One command.
struct Rule {
    opcode: u8,
    moves: fn(&Command, &Card) -> Move,
    checks: &'static [Check],
    effect: fn(&Command, &Card) -> Effect,
    /// Whether the table knows how it ends.
    is_exact: fn(&Command) -> bool,
}

fn start(command: &Command) -> u64 {
    u64_at(&command.0, 40)
}

fn count(command: &Command) -> u64 {
    u64::from(u16_at(&command.0, 48)) + 1
}

fn dword(command: &Command, number: usize) -> u32 {
    u32_at(&command.0, number * 4)
}

fn block_bytes(command: &Command) -> u32 {
    (count(command) * 512) as u32
}

fn namespace(command: &Command, card: &Card) -> Option<u16> {
    (dword(command, 1) != card.nsid).then_some(INVALID_NAMESPACE)
}

fn range(command: &Command, card: &Card) -> Option<u16> {
    let end = start(command).checked_add(count(command));
    end.is_none_or(|end| end > card.blocks).then_some(LBA_RANGE)
}

fn no_protection(command: &Command, _: &Card) -> Option<u16> {
    (dword(command, 12) >> 26 & 0xf != 0).then_some(INVALID_FIELD)
}

fn transfer_size(command: &Command, card: &Card) -> Option<u16> {
    (block_bytes(command) > card.max_transfer).then_some(INVALID_FIELD)
}

fn no_directive(command: &Command, _: &Card) -> Option<u16> {
    (dword(command, 12) >> 20 & 0xf != 0).then_some(INVALID_FIELD)
}

fn always(_: &Command) -> bool {
    true
}
fn never(_: &Command) -> bool {
    false
}
fn nothing(_: &Command, _: &Card) -> Move {
    Move::Nothing
}
fn free(_: &Command, _: &Card) -> Move {
    Move::Free
}
fn blocks_in(command: &Command, _: &Card) -> Move {
    Move::FromHost(block_bytes(command))
}
fn no_effect(_: &Command, _: &Card) -> Effect {
    Effect::None
}

/// NVM 3.2: I/O commands. What is not here is not supported.
const IO: &[Rule] = &[
    Rule { opcode: 0x00, moves: nothing, checks: &[namespace], effect: no_effect, is_exact: always },
    Rule {
        opcode: 0x01,
        moves: blocks_in,
        checks: &[namespace, range, no_protection, transfer_size, no_directive],
        effect: |command, _| Effect::Write(start(command), count(command)),
        is_exact: always,
    },
    Rule {
        opcode: 0x02,
        moves: |command, _| Move::ToHost(block_bytes(command)),
        checks: &[namespace, range, no_protection, transfer_size],
        effect: |command, _| Effect::Read(start(command), count(command)),
        is_exact: always,
    },
    Rule {
        opcode: 0x05,
        moves: blocks_in,
        checks: &[namespace, range, no_protection, transfer_size],
        effect: |command, _| Effect::Compare(start(command), count(command)),
        is_exact: always,
    },
    Rule {
        opcode: 0x08,
        moves: nothing,
        checks: &[namespace, range, no_protection],
        effect: |command, _| Effect::Zero(start(command), count(command)),
        is_exact: always,
    },
    Rule {
        opcode: 0x0c,
        moves: nothing,
        checks: &[namespace, range, no_protection, transfer_size],
        effect: no_effect,
        is_exact: always,
    },
    // Dataset Management and Copy: their ranges are not looked at here.
    Rule { opcode: 0x09, moves: free, checks: &[namespace], effect: no_effect, is_exact: never },
    Rule {
        opcode: 0x19,
        moves: free,
        checks: &[namespace],
        effect: |command, card| Effect::Doubt(start(command).min(card.blocks), 4096),
        is_exact: never,
    },
];

/// Base 5: admin commands. What is not here is not supported.
const ADMIN: &[Rule] = &[
    Rule {
        opcode: 0x02,
        moves: |command, _| {
            let dwords = u64::from(dword(command, 10) >> 16) | u64::from(dword(command, 11) & 0xffff) << 16;
            Move::ToHost(u32::try_from((dwords + 1) * 4).unwrap_or(u32::MAX))
        },
        checks: &[],
        effect: no_effect,
        is_exact: never,
    },
    Rule {
        opcode: 0x06,
        moves: |_, _| Move::ToHost(4096),
        checks: &[],
        effect: no_effect,
        // CNS 01h: the controller.
        is_exact: |command| dword(command, 10) == 1 && dword(command, 1) == 0 && dword(command, 11) == 0,
    },
    Rule { opcode: 0x08, moves: nothing, checks: &[], effect: no_effect, is_exact: never },
    Rule {
        opcode: 0x09,
        moves: free,
        checks: &[],
        effect: |command, _| if command.0[40] == 7 { Effect::Queues } else { Effect::None },
        is_exact: never,
    },
    Rule { opcode: 0x0a, moves: free, checks: &[], effect: no_effect, is_exact: never },
    Rule { opcode: 0x0c, moves: nothing, checks: &[], effect: |_, _| Effect::EventRequest, is_exact: always },
    Rule { opcode: 0x18, moves: nothing, checks: &[], effect: no_effect, is_exact: always },
];

/// Base 6.5 and 3.1.3: properties of fabrics controllers that can be read: offset and whether it has 8 bytes.
const READABLE: [(u32, bool); 4] = [(0x00, true), (0x08, false), (0x14, false), (0x1c, false)];
const CC: u32 = 0x14;

/// Judges a command with so many bytes of data in its capsule.
#[must_use]
pub fn judge(command: &Command, data: u32, queue: Queue, card: &Card) -> Verdict {
    let bytes = &command.0;
    let (opcode, fuse, psdt) = (bytes[0], bytes[1] & 3, bytes[1] >> 6);
    let mut faults = Vec::new();
    if psdt != 1 {
        faults.push(INVALID_FIELD);
    }
    let is_connect = opcode == 0x7f && bytes[4] == 1;
    let (ready, is_admin) = match queue {
        Queue::None if is_connect => {
            return end(command, data, faults, Move::FromHost(1024), Effect::Connect, true);
        }
        Queue::None => {
            faults.push(SEQUENCE_ERROR);
            return end(command, data, faults, Move::Nothing, Effect::None, true);
        }
        Queue::Admin(ready) => (ready, true),
        Queue::Io(ready) => (ready, false),
    };
    if fuse != 0 {
        let doubt = if is_admin {
            Effect::None
        } else {
            Effect::Doubt(start(command).min(card.blocks), count(command))
        };
        return Verdict { statuses: Statuses::Any, moves: Move::Free, effect: doubt, lingers: true };
    }
    if opcode == 0x7f {
        return fabrics(command, data, is_admin, faults);
    }
    if ready == Some(false) {
        faults.push(SEQUENCE_ERROR);
    }
    let table = if is_admin { ADMIN } else { IO };
    let Some(rule) = table.iter().find(|rule| rule.opcode == opcode) else {
        faults.push(INVALID_OPCODE);
        if ready.is_none() {
            faults.push(SEQUENCE_ERROR);
        }
        return end(command, data, faults, Move::Nothing, Effect::None, true);
    };
    faults.extend(rule.checks.iter().filter_map(|check| check(command, card)));
    let is_exact = (rule.is_exact)(command) && ready.is_some();
    let effect = (rule.effect)(command, card);
    // Whether it is carried out is not known while nobody knows whether the controller is ready.
    let effect = match (effect, ready) {
        (Effect::Write(start, count) | Effect::Zero(start, count), None) => Effect::Doubt(start, count),
        (effect, _) => effect,
    };
    end(command, data, faults, (rule.moves)(command, card), effect, is_exact)
}

/// Base 6: Property Set and Get, Disconnect, Connect on a queue that is connected.
fn fabrics(command: &Command, data: u32, is_admin: bool, mut faults: Vec<u16>) -> Verdict {
    let attribute = command.0[40] & 7;
    let property = (dword(command, 11), attribute == 1);
    let mut effect = Effect::None;
    let mut moves = Move::Nothing;
    match command.0[4] {
        0 | 4 if !is_admin => faults.extend([QUEUE_TYPE, INVALID_FIELD]),
        8 if is_admin => faults.extend([QUEUE_TYPE, INVALID_FIELD]),
        0 if attribute <= 1 && property == (CC, false) => effect = Effect::Configure(dword(command, 12)),
        4 if attribute <= 1 && READABLE.contains(&property) => {}
        0 | 4 => faults.push(INVALID_FIELD),
        8 if u16_at(&command.0, 40) != 0 => faults.push(CONNECT_FORMAT),
        8 => effect = Effect::Disconnect,
        1 => {
            faults.push(SEQUENCE_ERROR);
            moves = Move::Free;
        }
        _ => {
            faults.extend([INVALID_OPCODE, INVALID_FIELD]);
            moves = Move::Free;
        }
    }
    end(command, data, faults, moves, effect, true)
}

/// Puts the SGL's faults to the others; nothing moves and nothing happens if there is one.
fn end(
    command: &Command,
    data: u32,
    mut faults: Vec<u16>,
    moves: Move,
    effect: Effect,
    is_exact: bool,
) -> Verdict {
    faults.extend(sgl_faults(command, moves, data));
    if faults.is_empty() {
        let statuses = match effect {
            _ if !is_exact => Statuses::Any,
            Effect::EventRequest => Statuses::OneOf(vec![0, ABORT_REQUESTED, SQ_DELETED]),
            Effect::Compare(..) => Statuses::OneOf(vec![0, COMPARE_FAILURE]),
            _ => Statuses::OneOf(vec![0]),
        };
        return Verdict { statuses, moves, effect, lingers: false };
    }
    // Where the table does not know the command, it may have other faults.
    let statuses = if is_exact { Statuses::OneOf(faults) } else { Statuses::AnyError };
    Verdict { statuses, moves: Move::Nothing, effect: Effect::None, lingers: false }
}

/// TCP 3.4, Base 4.1.2: how SGL and data of the capsule fit what moves.
fn sgl_faults(command: &Command, moves: Move, data: u32) -> Vec<u16> {
    let (address, length, kind) = (u64_at(&command.0, 24), u32_at(&command.0, 32), command.0[39]);
    let mut faults = Vec::new();
    match (moves, kind) {
        (Move::Free, _) => {}
        (Move::Nothing, _) if data > 0 => faults.push(INVALID_FIELD),
        (Move::Nothing, _) => {}
        (Move::ToHost(bytes) | Move::FromHost(bytes), SGL_TRANSPORT) => {
            if data > 0 {
                faults.push(INVALID_FIELD);
            }
            if length < bytes {
                faults.push(SGL_LENGTH);
            }
        }
        (Move::FromHost(bytes), SGL_IN_CAPSULE) => {
            if address != 0 {
                faults.push(SGL_OFFSET);
            }
            if length != data || data < bytes {
                faults.push(SGL_LENGTH);
            }
        }
        (Move::ToHost(_) | Move::FromHost(_), _) => faults.push(SGL_TYPE),
    }
    faults
}
