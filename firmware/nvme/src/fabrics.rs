//! Fabrics commands and the data of Connect (Base 6).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Command;

/// NQN of the well-known discovery subsystem (Base 4.5.1).
pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";
/// TCP port of discovery services, by which hosts look for one that they are told no port of (IANA: nvme-disc; NVMe/TCP 1.0,
/// section 3.1.1).
pub const DISCOVERY_TCP_PORT: u16 = 8009;
/// Longest NQN in bytes, without the NUL (Base 4.5).
pub const MAX_NQN_BYTES: usize = 223;
/// CNTLID in Connect that asks for any controller (dynamic controller model).
pub const ANY_CONTROLLER: u16 = 0xffff;

/// FCTYPE: kinds of fabrics commands.
pub mod kind {
    /// Property Set.
    pub const PROPERTY_SET: u8 = 0x00;
    /// Connect.
    pub const CONNECT: u8 = 0x01;
    /// Property Get.
    pub const PROPERTY_GET: u8 = 0x04;
    /// Authentication Send.
    pub const AUTHENTICATION_SEND: u8 = 0x05;
    /// Authentication Receive.
    pub const AUTHENTICATION_RECEIVE: u8 = 0x06;
    /// Disconnect.
    pub const DISCONNECT: u8 = 0x08;
}

/// FCTYPE of a fabrics command.
#[must_use]
pub const fn fabrics_kind(command: &Command) -> u8 {
    command.nsid.get() as u8
}

/// The Connect command (Base 6.3) over the same 64 bytes as [`Command`].
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectCommand {
    /// OPC: 7Fh.
    pub opcode: u8,
    /// PSDT in bits 7:6.
    pub flags: u8,
    /// CID.
    pub cid: U16,
    /// FCTYPE: 01h.
    pub fabrics_kind: u8,
    reserved_5: [u8; 19],
    /// SGL1.
    pub sgl: [u8; 16],
    /// RECFMT: 0.
    pub format: U16,
    /// QID: 0 the admin queue.
    pub queue_id: U16,
    /// SQSIZE, zero-based.
    pub sq_size: U16,
    /// CATTR: bits 1:0 priority, bit 2 disable SQ flow control, bit 3 individual I/O queue deletion.
    pub attributes: u8,
    reserved_47: u8,
    /// KATO in milliseconds; 0 off.
    pub keep_alive_ms: U32,
    reserved_52: [u8; 12],
}

const _: () = assert!(size_of::<ConnectCommand>() == 64);

impl ConnectCommand {
    /// CATTR bit 2: the host asks to do without SQ flow control.
    #[must_use]
    pub const fn disables_flow_control(&self) -> bool {
        self.attributes & 1 << 2 != 0
    }
}

/// Data of Connect (Base 6.3).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnectData {
    /// HOSTID.
    pub host_id: [u8; 16],
    /// CNTLID: FFFFh for an admin queue; the controller's for an I/O queue.
    pub controller_id: U16,
    reserved_18: [u8; 238],
    /// SUBNQN, ended by NUL.
    pub subsystem_nqn: [u8; 256],
    /// HOSTNQN, ended by NUL.
    pub host_nqn: [u8; 256],
    reserved_768: [u8; 256],
}

const _: () = assert!(size_of::<ConnectData>() == 1024);

/// The text of an NQN field: what stands before the first NUL; `None` where there is no NUL, nothing before
/// it, more than 223 bytes, bytes that are not UTF-8, or control characters: a name goes into logs, where a line of its own
/// would be taken for the card's.
#[must_use]
pub fn nqn_text(field: &[u8; 256]) -> Option<&str> {
    let length = field.iter().position(|&byte| byte == 0)?;
    if length == 0 || length > MAX_NQN_BYTES {
        return None;
    }
    let text = core::str::from_utf8(field.get(..length)?).ok()?;
    (!text.chars().any(char::is_control)).then_some(text)
}

/// Dword 0 of the completion of a Connect that failed with Connect Invalid Parameters (Base 6.3): IPO, the
/// offset of the wrong parameter, and IATTR, whether it lies in the data rather than in the command.
#[must_use]
pub const fn invalid_parameter(offset: u16, in_data: bool) -> u64 {
    offset as u64 | (in_data as u64) << 16
}

/// Property Get and Property Set (Base 6.5, 6.6): (offset, size in bytes 4 or 8, value of Set).
#[must_use]
pub fn property(command: &Command) -> (u32, usize, u64) {
    let bytes = if command.cdw10.get() & 0b111 == 1 { 8 } else { 4 };
    let value = u64::from(command.cdw13.get()) << 32 | u64::from(command.cdw12.get());
    (command.cdw11.get(), bytes, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nqn_needs_an_end_and_contents() {
        let mut field = [b'a'; 256];
        assert_eq!(nqn_text(&field), None);
        field[223] = 0;
        assert_eq!(nqn_text(&field).map(str::len), Some(223));
        field[0] = 0;
        assert_eq!(nqn_text(&field), None);
        field[0] = 0xff;
        field[1] = 0;
        assert_eq!(nqn_text(&field), None);
    }

    #[test]
    fn an_nqn_cannot_write_lines_of_its_own_into_a_log() {
        for wrong in ["nqn\ncontroller 1: reset", "nqn\x1b[2J", "nqn\u{9b}2J"] {
            let mut field = [0; 256];
            field[..wrong.len()].copy_from_slice(wrong.as_bytes());
            assert_eq!(nqn_text(&field), None, "{wrong:?}");
        }
    }
}
