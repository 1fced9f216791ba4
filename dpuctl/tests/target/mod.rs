//! An NVMe/TCP target that is as small as can be: one namespace in memory, data of writes in the capsule. It can be told to
//! give a wrong byte. Written by hand, so that `nvmeof` is not held against itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The namespace.
pub const NSID: u32 = 7;
pub const BLOCK_BYTES: usize = 512;
pub const BLOCKS: usize = 2048;
pub const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// What it does.
#[derive(Clone, Default)]
pub struct Plan {
    /// Its subsystems, which are one and the same.
    pub nqns: Vec<&'static str>,
    /// Reads of that block have a wrong byte.
    pub wrong_block: Option<usize>,
}

/// A target that serves until the test ends.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    plan: Plan,
    blocks: Arc<Mutex<Vec<u8>>>,
    pub writes: Arc<AtomicU64>,
}

impl Target {
    pub fn start(plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let blocks = Arc::new(Mutex::new(vec![0; BLOCKS * BLOCK_BYTES]));
        let address = listener.local_addr().unwrap();
        let target = Self { address, plan, blocks, writes: Arc::default() };
        let serves = target.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let target = serves.clone();
                // A host that has gone ends its thread.
                std::thread::spawn(move || target.serve(&mut stream.unwrap()));
            }
        });
        target
    }

    pub fn contents(&self, block: usize) -> Vec<u8> {
        self.blocks.lock().unwrap()[block * BLOCK_BYTES..][..BLOCK_BYTES].to_vec()
    }

    fn serve(&self, stream: &mut TcpStream) -> Option<()> {
        let mut initialize = [0; 128];
        stream.read_exact(&mut initialize).ok()?;
        // ICResp without digests; MAXH2CDATA of 128 KiB.
        let mut response = [0; 128];
        response[..8].copy_from_slice(&[1, 0, 128, 0, 128, 0, 0, 0]);
        response[12..16].copy_from_slice(&0x2_0000_u32.to_le_bytes());
        stream.write_all(&response).ok()?;
        loop {
            let mut header = [0; 72];
            stream.read_exact(&mut header).ok()?;
            let total = u32::from_le_bytes(header[4..8].try_into().unwrap()) as usize;
            let mut data = vec![0; total - 72];
            stream.read_exact(&mut data).ok()?;
            let command = Command(header[8..].try_into().unwrap());
            let (status, result, answer) = self.answer(&command, &data);
            stream.write_all(&pdus(command.cid(), status, result, &answer)).ok()?;
        }
    }

    /// Status, result and data.
    fn answer(&self, command: &Command, data: &[u8]) -> (u16, u64, Vec<u8>) {
        match (command.0[0], command.0[4]) {
            // Connect.
            (0x7f, 1) => {
                let nqn = &data[256..512];
                let nqn =
                    std::str::from_utf8(&nqn[..nqn.iter().position(|byte| *byte == 0).unwrap()]).unwrap();
                let known = nqn == DISCOVERY || self.plan.nqns.contains(&nqn);
                (if known { 0 } else { 0x182 }, 1, Vec::new())
            }
            // Property Get: CAP with MQES 127, CSTS ready; Property Set.
            (0x7f, 4) => (0, if command.dword(11) == 0 { 127 } else { 1 }, Vec::new()),
            (0x7f, 0) => (0, 0, Vec::new()),
            (command_set, _) => match command_set {
                // On an I/O queue: Flush, Write, Read. On an admin queue: Get Log Page, Identify, Set Features.
                0x00 | 0x18 => (0, 0, Vec::new()),
                0x01 => self.write(command, data),
                0x02 if command.dword(1) == NSID => self.read(command),
                0x02 => self.log_page(command),
                0x06 => self.identify(command),
                0x09 => (0, 0x000f_000f, Vec::new()),
                _ => (0x4001, 0, Vec::new()),
            },
        }
    }

    fn write(&self, command: &Command, data: &[u8]) -> (u16, u64, Vec<u8>) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let start = command.dword(10) as usize * BLOCK_BYTES;
        self.blocks.lock().unwrap()[start..][..data.len()].copy_from_slice(data);
        (0, 0, Vec::new())
    }

    fn read(&self, command: &Command) -> (u16, u64, Vec<u8>) {
        let (start, count) = (command.dword(10) as usize, (command.dword(12) & 0xffff) as usize + 1);
        if start + count > BLOCKS {
            return (0x4080, 0, Vec::new());
        }
        let blocks = self.blocks.lock().unwrap();
        let mut data = blocks[start * BLOCK_BYTES..][..count * BLOCK_BYTES].to_vec();
        if let Some(wrong) = self.plan.wrong_block.filter(|wrong| (start..start + count).contains(wrong)) {
            data[(wrong - start) * BLOCK_BYTES + 40] ^= 1;
        }
        (0, 0, data)
    }

    fn log_page(&self, command: &Command) -> (u16, u64, Vec<u8>) {
        let bytes = ((command.dword(10) >> 16) as usize + 1) * 4;
        let mut page = match command.dword(10) as u8 {
            0x70 => self.discovery(),
            0x02 => smart(),
            0x0c => ana(),
            _ => return (0x4109, 0, Vec::new()),
        };
        let offset = command.dword(12) as usize;
        page.resize(page.len().max(offset + bytes), 0);
        (0, 0, page[offset..][..bytes].to_vec())
    }

    fn discovery(&self) -> Vec<u8> {
        let mut page = vec![0; 1024 * (1 + self.plan.nqns.len())];
        page[0] = 3;
        page[8] = self.plan.nqns.len() as u8;
        for (entry, nqn) in page[1024..].chunks_mut(1024).zip(&self.plan.nqns) {
            entry[..6].copy_from_slice(&[3, 1, 2, 0, 1, 0]);
            entry[32..64].fill(b' ');
            entry[32..36].copy_from_slice(b"4420");
            entry[256..][..nqn.len()].copy_from_slice(nqn.as_bytes());
            entry[512..768].fill(b' ');
            entry[512..520].copy_from_slice(b"10.0.0.1");
        }
        page
    }

    fn identify(&self, command: &Command) -> (u16, u64, Vec<u8>) {
        let mut data = vec![0; 4096];
        match command.dword(10) as u8 {
            0 if command.dword(1) == NSID => {
                data[..8].copy_from_slice(&(BLOCKS as u64).to_le_bytes());
                data[92] = 1;
                data[104..120].fill(0xab);
                data[130] = 9;
            }
            0 => return (0x400b, 0, Vec::new()),
            1 => {
                data[4..24].copy_from_slice(b"SERIAL              ");
                data[24..29].copy_from_slice(b"MODEL");
                data[29..64].fill(b' ');
                // MDTS of 8 KiB, CNTLID 1, version 1.4, IOCCSZ of 64 bytes and 8 KiB of data.
                data[77..80].copy_from_slice(&[1, 1, 0]);
                data[80..84].copy_from_slice(&0x0001_0400_u32.to_le_bytes());
                data[344] = 4;
                data[348] = 1;
                data[1792..1796].copy_from_slice(&(8256_u32 / 16).to_le_bytes());
            }
            2 => data[..4].copy_from_slice(&NSID.to_le_bytes()),
            3 => {
                data[..4].copy_from_slice(&[3, 16, 0, 0]);
                data[4..20].fill(0xcd);
            }
            _ => return (0x4002, 0, Vec::new()),
        }
        (0, 0, data)
    }
}

/// 300 K, spare 100 % of at least 10 %, 42 reads by hosts.
fn smart() -> Vec<u8> {
    let mut page = vec![0; 512];
    page[1..3].copy_from_slice(&300_u16.to_le_bytes());
    (page[3], page[4], page[64]) = (100, 10, 42);
    page
}

/// One group, which is optimized and has the namespace.
fn ana() -> Vec<u8> {
    let mut page = vec![0; 16 + 32 + 4];
    (page[0], page[8], page[16], page[20], page[32]) = (5, 1, 1, 1, 1);
    page[48..].copy_from_slice(&NSID.to_le_bytes());
    page
}

/// A submission queue entry.
struct Command([u8; 64]);

impl Command {
    fn dword(&self, number: usize) -> u32 {
        u32::from_le_bytes(self.0[4 * number..][..4].try_into().unwrap())
    }

    fn cid(&self) -> [u8; 2] {
        [self.0[2], self.0[3]]
    }
}

/// C2HData where there is data, and the response.
fn pdus(cid: [u8; 2], status: u16, result: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !data.is_empty() {
        bytes.extend([7, 1 << 2, 24, 24]);
        bytes.extend((24 + data.len() as u32).to_le_bytes());
        bytes.extend([cid[0], cid[1], 0, 0, 0, 0, 0, 0]);
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(data);
    }
    bytes.extend([5, 0, 24, 0, 24, 0, 0, 0]);
    bytes.extend(result.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(cid);
    bytes.extend((status << 1).to_le_bytes());
    bytes
}
