//! The memory that the device may reach, and the ways PRP entries name it (Base 4.1.1).

use hal_mem::{DmaRegion, PAGE_BYTES};

use super::dword;

/// Memory that the device may reach.
#[derive(Debug, Default)]
pub(super) struct Dma {
    windows: Vec<(u64, u64)>,
}

impl Dma {
    pub(super) fn allow(&mut self, region: &DmaRegion) {
        let start = region.device_address().0;
        assert_eq!(start, region.as_ptr().as_ptr() as u64, "the fake reaches memory at its own address only");
        self.windows.push((start, start + region.len() as u64));
    }

    fn check(&self, address: u64, bytes: usize) {
        let end = address.checked_add(bytes as u64).expect("DMA wraps around");
        assert!(
            self.windows.iter().any(|&(from, to)| from <= address && end <= to),
            "DMA to {address:#x} ({bytes} bytes) outside of all memory"
        );
    }

    /// The device reads memory.
    pub(super) fn read(&self, address: u64, into: &mut [u8]) {
        self.check(address, into.len());
        // SAFETY: inside a `DmaRegion` (just checked), which is valid for the rest of the program and into which
        // nobody holds references; `into` is the fake's own.
        unsafe { core::ptr::copy_nonoverlapping(address as *const u8, into.as_mut_ptr(), into.len()) }
    }

    /// The device writes memory.
    pub(super) fn write(&self, address: u64, from: &[u8]) {
        self.check(address, from.len());
        // SAFETY: as in `read`.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), address as *mut u8, from.len()) }
    }

    /// The pieces of memory that a command's PRP entries name for `bytes` bytes.
    pub(super) fn pieces(&self, command: &[u8; 64], bytes: usize) -> Vec<(u64, usize)> {
        assert_eq!(command[1] >> 6, 0, "PSDT: only PRP is used towards drives");
        let entry =
            |index: usize| u64::from(dword(command, index + 1)) << 32 | u64::from(dword(command, index));
        let (prp1, prp2) = (entry(6), entry(8));
        if bytes == 0 {
            return Vec::new();
        }
        assert!(prp1.is_multiple_of(4), "PRP1 {prp1:#x} is not dword aligned");
        let offset = prp1 as usize % PAGE_BYTES;
        let first = bytes.min(PAGE_BYTES - offset);
        let mut pieces = vec![(prp1, first)];
        let mut left = bytes - first;
        let pages = left.div_ceil(PAGE_BYTES);
        let mut add = |address: u64| {
            assert!(address.is_multiple_of(PAGE_BYTES as u64), "PRP entry {address:#x} has an offset");
            let now = left.min(PAGE_BYTES);
            pieces.push((address, now));
            left -= now;
        };
        match pages {
            0 => assert_eq!(prp2, 0, "PRP2 is reserved for one page"),
            1 => add(prp2),
            _ => {
                assert!(prp2.is_multiple_of(8), "PRP list pointer {prp2:#x} is not qword aligned");
                let room = (PAGE_BYTES - prp2 as usize % PAGE_BYTES) / 8;
                assert!(pages <= room, "the PRP list would need a second page, which the driver never makes");
                for index in 0..pages {
                    let mut raw = [0; 8];
                    self.read(prp2 + index as u64 * 8, &mut raw);
                    add(u64::from_le_bytes(raw));
                }
            }
        }
        pieces
    }

    /// Moves data to where a command's PRP entries say.
    pub(super) fn scatter(&self, command: &[u8; 64], data: &[u8]) {
        let pieces = self.pieces(command, data.len());
        let mut pages: Vec<u64> = pieces.iter().map(|&(address, _)| address).collect();
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(pages.len(), pieces.len(), "a page is named twice for data that comes in");
        let mut at = 0;
        for (address, bytes) in pieces {
            self.write(address, &data[at..at + bytes]);
            at += bytes;
        }
    }

    /// Takes data from where a command's PRP entries say.
    pub(super) fn gather(&self, command: &[u8; 64], bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        let mut at = 0;
        for (address, bytes) in self.pieces(command, bytes) {
            self.read(address, &mut data[at..at + bytes]);
            at += bytes;
        }
        data
    }
}
