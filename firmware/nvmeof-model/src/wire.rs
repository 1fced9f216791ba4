//! The bytes of NVMe/TCP, once more: what a host sends, built, and what a controller sends, taken apart.
//!
//! NVMe/TCP Transport 1.0 section 3.6.2, NVM Express Base 2.0 sections 3.3.3 and 6.3. Nothing here comes from the target:
//! a mistake in its wire formats must not be repeated by who judges it.

/// ICReq.
pub const ICREQ: u8 = 0x00;
/// ICResp.
pub const ICRESP: u8 = 0x01;
/// H2CTermReq.
pub const HOST_TERM: u8 = 0x02;
/// C2HTermReq.
pub const CONTROLLER_TERM: u8 = 0x03;
/// CapsuleCmd.
pub const CAPSULE: u8 = 0x04;
/// CapsuleResp.
pub const RESPONSE: u8 = 0x05;
/// H2CData.
pub const HOST_DATA: u8 = 0x06;
/// C2HData.
pub const CONTROLLER_DATA: u8 = 0x07;
/// R2T.
pub const R2T: u8 = 0x09;

/// HDGSTF of FLAGS.
pub const HEADER_DIGEST: u8 = 1;
/// DDGSTF of FLAGS.
pub const DATA_DIGEST: u8 = 2;
/// LAST_PDU of FLAGS.
pub const LAST: u8 = 4;
/// SUCCESS of FLAGS.
pub const SUCCESS: u8 = 8;

/// SGL identifier of data in the capsule: Data Block, offset.
pub const SGL_IN_CAPSULE: u8 = 0x01;
/// SGL identifier of data that the transport moves: Transport SGL Data Block.
pub const SGL_TRANSPORT: u8 = 0x5a;

/// Which digests a connection uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digests {
    /// Of headers.
    pub header: bool,
    /// Of data.
    pub data: bool,
}

impl Digests {
    /// From the bits of DGST.
    #[must_use]
    pub const fn of(field: u8) -> Self {
        Self { header: field & 1 != 0, data: field & 2 != 0 }
    }
}

/// A little-endian number of 16 bits; bytes that are not there are 0.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([byte(bytes, at), byte(bytes, at + 1)])
}

/// A little-endian number of 32 bits.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

/// A little-endian number of 64 bits.
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut value, mut bit) = (index as u32, 0);
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

/// CRC32C (3.3.1.3).
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| crc >> 8 ^ CRC_TABLE[usize::from(crc as u8 ^ byte)])
}

/// Any PDU: common header, `specific` part of the header, data behind it.
#[must_use]
pub fn pdu(kind: u8, flags: u8, specific: &[u8], data: &[u8], digests: Digests) -> Vec<u8> {
    let header = 8 + specific.len();
    let data_at = header + if digests.header { 4 } else { 0 };
    let tail = if digests.data && !data.is_empty() { 4 } else { 0 };
    let header_digest = if digests.header { HEADER_DIGEST } else { 0 };
    let flags = flags | header_digest | if tail > 0 { DATA_DIGEST } else { 0 };
    let mut bytes = vec![kind, flags, header as u8, if data.is_empty() { 0 } else { data_at as u8 }];
    bytes.extend(((data_at + data.len() + tail) as u32).to_le_bytes());
    bytes.extend(specific);
    if digests.header {
        bytes.extend(crc32c(&bytes).to_le_bytes());
    }
    bytes.extend(data);
    if tail > 0 {
        bytes.extend(crc32c(data).to_le_bytes());
    }
    bytes
}

/// ICReq that asks for this alignment (HPDA) and these digests (DGST).
#[must_use]
pub fn icreq(alignment: u8, digests: Digests) -> Vec<u8> {
    let mut specific = [0; 120];
    specific[2] = alignment;
    specific[3] = u8::from(digests.header) | u8::from(digests.data) << 1;
    pdu(ICREQ, 0, &specific, &[], Digests::default())
}

/// H2CTermReq.
#[must_use]
pub fn host_term(status: u16, information: u32, quote: &[u8]) -> Vec<u8> {
    let mut specific = [0; 16];
    specific[..2].copy_from_slice(&status.to_le_bytes());
    specific[2..6].copy_from_slice(&information.to_le_bytes());
    let mut bytes = pdu(HOST_TERM, 0, &specific, quote, Digests::default());
    bytes[3] = 0;
    bytes
}

/// CapsuleCmd.
#[must_use]
pub fn capsule(command: &Command, data: &[u8], digests: Digests) -> Vec<u8> {
    pdu(CAPSULE, 0, &command.0, data, digests)
}

/// H2CData.
#[must_use]
pub fn host_data(cid: u16, tag: u16, offset: u32, last: bool, data: &[u8], digests: Digests) -> Vec<u8> {
    let mut specific = [0; 16];
    specific[..2].copy_from_slice(&cid.to_le_bytes());
    specific[2..4].copy_from_slice(&tag.to_le_bytes());
    specific[4..8].copy_from_slice(&offset.to_le_bytes());
    specific[8..12].copy_from_slice(&(data.len() as u32).to_le_bytes());
    pdu(HOST_DATA, if last { LAST } else { 0 }, &specific, data, digests)
}

/// The 64 bytes of a submission queue entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command(pub [u8; 64]);

impl Command {
    /// With PSDT as fabrics ask for it, and an SGL of the transport of no length.
    #[must_use]
    pub fn new(opcode: u8) -> Self {
        let mut bytes = [0; 64];
        (bytes[0], bytes[1], bytes[39]) = (opcode, 0x40, SGL_TRANSPORT);
        Self(bytes)
    }

    /// With other bytes from `at` on.
    #[must_use]
    pub fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// With this CID.
    #[must_use]
    pub fn cid(self, cid: u16) -> Self {
        self.with(2, &cid.to_le_bytes())
    }

    /// With this NSID.
    #[must_use]
    pub fn nsid(self, nsid: u32) -> Self {
        self.with(4, &nsid.to_le_bytes())
    }

    /// With command dword `number`, 10 to 15.
    #[must_use]
    pub fn dword(self, number: usize, value: u32) -> Self {
        self.with(number * 4, &value.to_le_bytes())
    }

    /// With an SGL of so many bytes of the transport.
    #[must_use]
    pub fn transport(self, bytes: u32) -> Self {
        self.sgl(SGL_TRANSPORT, bytes)
    }

    /// With an SGL of so many bytes in the capsule.
    #[must_use]
    pub fn in_capsule(self, bytes: u32) -> Self {
        self.sgl(SGL_IN_CAPSULE, bytes)
    }

    /// With any SGL at address 0.
    #[must_use]
    pub fn sgl(self, identifier: u8, bytes: u32) -> Self {
        self.with(24, &[0; 16]).with(32, &bytes.to_le_bytes()).with(39, &[identifier])
    }

    /// Of blocks of a namespace: SLBA and NLB, which is zero-based on the wire and not here.
    #[must_use]
    pub fn blocks(opcode: u8, nsid: u32, start: u64, blocks: u32) -> Self {
        Self::new(opcode).nsid(nsid).with(40, &start.to_le_bytes()).dword(12, blocks.wrapping_sub(1))
    }

    /// Property Set.
    #[must_use]
    pub fn property_set(offset: u32, value: u32) -> Self {
        Self::new(0x7f).dword(11, offset).dword(12, value)
    }

    /// Property Get of a property of 4 bytes.
    #[must_use]
    pub fn property_get(offset: u32) -> Self {
        Self::new(0x7f).nsid(4).dword(11, offset)
    }
}

/// What a Connect says.
#[derive(Debug, Clone)]
pub struct Connect<'a> {
    /// QID.
    pub queue_id: u16,
    /// SQSIZE, zero-based.
    pub sq_size: u16,
    /// CATTR bit 2.
    pub disable_flow_control: bool,
    /// CNTLID: FFFFh for an admin queue.
    pub cntlid: u16,
    /// HOSTID.
    pub host_id: [u8; 16],
    /// KATO.
    pub keep_alive_ms: u32,
    /// SUBNQN.
    pub subsystem: &'a str,
    /// HOSTNQN.
    pub host: &'a str,
}

impl Connect<'_> {
    /// Command and data; the SGL says that the data is in the capsule.
    #[must_use]
    pub fn parts(&self) -> (Command, Vec<u8>) {
        let command = Command::new(0x7f)
            .nsid(1)
            .dword(10, u32::from(self.queue_id) << 16)
            .with(44, &self.sq_size.to_le_bytes())
            .with(46, &[u8::from(self.disable_flow_control) << 2])
            .dword(12, self.keep_alive_ms)
            .in_capsule(1024);
        let mut data = vec![0; 1024];
        data[..16].copy_from_slice(&self.host_id);
        data[16..18].copy_from_slice(&self.cntlid.to_le_bytes());
        data[256..256 + self.subsystem.len()].copy_from_slice(self.subsystem.as_bytes());
        data[512..512 + self.host.len()].copy_from_slice(self.host.as_bytes());
        (command, data)
    }
}

/// A PDU of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are named as in the specification")]
pub enum Reply {
    /// ICResp.
    Initialized { digests: u8, max_data: u32 },
    /// C2HTermReq.
    Terminated { status: u16, information: u32, quote: Vec<u8> },
    /// CapsuleResp; the status without phase tag, DNR, MORE and CRD.
    Response { cid: u16, status: u16, result: u64, sq_head: u16 },
    /// C2HData.
    Data { cid: u16, offset: u32, last: bool, success: bool, data: Vec<u8> },
    /// R2T.
    ReadyToTransfer { cid: u16, tag: u16, offset: u32, length: u32 },
}

impl Reply {
    /// Takes one whole PDU apart.
    ///
    /// # Errors
    /// What no controller may send, in words.
    pub fn parse(pdu: &[u8], digests: Digests, alignment: u8) -> Result<Self, String> {
        let (kind, flags, header, data_at) =
            (byte(pdu, 0), byte(pdu, 1), usize::from(byte(pdu, 2)), usize::from(byte(pdu, 3)));
        let expected = match kind {
            ICRESP => 128,
            CONTROLLER_TERM | RESPONSE | CONTROLLER_DATA | R2T => 24,
            _ => return Err(format!("PDU type {kind:#x} from a controller")),
        };
        let digested = digests.header && !matches!(kind, ICRESP | CONTROLLER_TERM);
        if header != expected || (flags & HEADER_DIGEST != 0) != digested || pdu.len() < header {
            return Err(format!("HLEN or HDGSTF of {:02x?}", pdu.get(..8)));
        }
        let end = header + if digested { 4 } else { 0 };
        if digested && u32_at(pdu, header) != crc32c(pdu.get(..header).unwrap_or_default()) {
            return Err("a wrong header digest".into());
        }
        let plain = !matches!(kind, CONTROLLER_TERM | CONTROLLER_DATA);
        if plain && pdu.len() != end {
            return Err(format!("PLEN {} of type {kind:#x}", pdu.len()));
        }
        Ok(match kind {
            ICRESP => {
                if u16_at(pdu, 8) != 0 || byte(pdu, 10) > 31 {
                    return Err("PFV or CPDA".into());
                }
                Self::Initialized { digests: byte(pdu, 11), max_data: u32_at(pdu, 12) }
            }
            CONTROLLER_TERM => {
                let quote = pdu.get(24..).unwrap_or_default().to_vec();
                Self::Terminated { status: u16_at(pdu, 8), information: u32_at(pdu, 10), quote }
            }
            RESPONSE => Self::Response {
                result: u64_at(pdu, 8),
                sq_head: u16_at(pdu, 16),
                cid: u16_at(pdu, 20),
                status: u16_at(pdu, 22) >> 1 & 0x7ff,
            },
            CONTROLLER_DATA => {
                let length = u32_at(pdu, 16) as usize;
                let data = pdu.get(data_at..data_at + length).ok_or("DATAL beyond PLEN")?.to_vec();
                let tail = pdu.get(data_at + length..).unwrap_or_default();
                let digest = crc32c(&data).to_le_bytes();
                let right = if digests.data { tail == digest } else { tail.is_empty() };
                if data_at < end || !data_at.is_multiple_of(usize::from(alignment) * 4 + 4) || !right {
                    return Err(format!("PDO {data_at} or what follows the data"));
                }
                if (flags & DATA_DIGEST != 0) != digests.data {
                    return Err("DDGSTF".into());
                }
                let (last, success) = (flags & LAST != 0, flags & SUCCESS != 0);
                Self::Data { cid: u16_at(pdu, 8), offset: u32_at(pdu, 12), last, success, data }
            }
            _ => Self::ReadyToTransfer {
                cid: u16_at(pdu, 8),
                tag: u16_at(pdu, 10),
                offset: u32_at(pdu, 12),
                length: u32_at(pdu, 16),
            },
        })
    }
}

/// The length of the PDU that `bytes` begin with, if it is all there.
#[must_use]
pub fn whole_pdu(bytes: &[u8]) -> Option<usize> {
    let total = u32_at(bytes, 4) as usize;
    (bytes.len() >= 8 && total >= 8 && bytes.len() >= total).then_some(total)
}
