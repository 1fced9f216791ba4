//! The memory that the device may reach, and the ways PRP entries name it (Base 4.1.1).

use hal_mem::{DmaRegion, PAGE_BYTES};

use super::dword;
use super::media::{self, Segment};

/// Memory that the device may reach.
#[derive(Debug, Default)]
pub(super) struct Dma {
    windows: Vec<(u64, u64)>,
    /// Of the command that is looked at; kept so that a command needs no allocation.
    segments: Vec<Segment>,
    addresses: Vec<u64>,
    /// Memory of the model's own, given back by those who took it.
    spare: Vec<DmaRegion>,
}

impl Dma {
    pub(super) fn allow(&mut self, region: &DmaRegion) {
        let start = region.device_address().0;
        assert_eq!(start, region.as_ptr().as_ptr() as u64, "the fake reaches memory at its own address only");
        self.windows.push((start, start + region.len() as u64));
    }

    pub(super) fn windows(&self) -> Vec<(u64, u64)> {
        self.windows.clone()
    }

    pub(super) fn set_windows(&mut self, windows: Vec<(u64, u64)>) {
        self.windows = windows;
    }

    /// A segment of allowed memory.
    fn segment(&self, address: u64, bytes: usize) -> Segment {
        let end = address.checked_add(bytes as u64).expect("DMA wraps around");
        assert!(
            self.windows.iter().any(|&(from, to)| from <= address && end <= to),
            "DMA to {address:#x} ({bytes} bytes) outside of all memory"
        );
        Segment::new(address, bytes)
    }

    /// The pieces of memory that a command's PRP entries name for `bytes` bytes.
    pub(super) fn segments(&mut self, command: &[u8; 64], bytes: usize) -> &[Segment] {
        assert_eq!(command[1] >> 6, 0, "PSDT: only PRP is used towards drives");
        let entry =
            |index: usize| u64::from(dword(command, index + 1)) << 32 | u64::from(dword(command, index));
        let (prp1, prp2) = (entry(6), entry(8));
        self.segments.clear();
        if bytes == 0 {
            return &self.segments;
        }
        assert!(prp1.is_multiple_of(4), "PRP1 {prp1:#x} is not dword aligned");
        let offset = prp1 as usize % PAGE_BYTES;
        let first = bytes.min(PAGE_BYTES - offset);
        self.segments.push(self.segment(prp1, first));
        let mut left = bytes - first;
        let pages = left.div_ceil(PAGE_BYTES);
        match pages {
            0 => assert_eq!(prp2, 0, "PRP2 is reserved for one page"),
            1 => self.add_page(prp2, &mut left),
            _ => {
                assert!(prp2.is_multiple_of(8), "PRP list pointer {prp2:#x} is not qword aligned");
                let room = (PAGE_BYTES - prp2 as usize % PAGE_BYTES) / 8;
                assert!(pages <= room, "the PRP list would need a second page, which the driver never makes");
                for index in 0..pages {
                    let mut raw = [0; 8];
                    self.segment(prp2 + index as u64 * 8, 8).read(&mut raw);
                    self.add_page(u64::from_le_bytes(raw), &mut left);
                }
            }
        }
        &self.segments
    }

    /// A check of the page that PRP2 names, 0 where it names none.
    pub(super) fn list_check(&self, command: &[u8; 64]) -> u64 {
        let prp2 = u64::from(dword(command, 9)) << 32 | u64::from(dword(command, 8));
        if prp2 == 0 {
            return 0;
        }
        let mut bytes = [0; PAGE_BYTES];
        let room = PAGE_BYTES - prp2 as usize % PAGE_BYTES;
        self.segment(prp2, room).read(&mut bytes[..room]);
        let words =
            bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
        words.fold(0xcbf2_9ce4_8422_2325, |check: u64, word| (check ^ word).wrapping_mul(0x100_0000_01b3))
    }

    fn add_page(&mut self, address: u64, left: &mut usize) {
        assert!(address.is_multiple_of(PAGE_BYTES as u64), "PRP entry {address:#x} has an offset");
        let now = PAGE_BYTES.min(*left);
        self.segments.push(self.segment(address, now));
        *left -= now;
    }

    /// As [`Dma::segments`], for data that comes in: no page may be named twice.
    pub(super) fn segments_for_input(&mut self, command: &[u8; 64], bytes: usize) -> &[Segment] {
        self.segments(command, bytes);
        self.addresses.clear();
        self.addresses.extend(self.segments.iter().map(|segment| segment.as_ptr() as u64));
        self.addresses.sort_unstable();
        self.addresses.dedup();
        assert_eq!(self.addresses.len(), self.segments.len(), "a page is named twice for data that comes in");
        &self.segments
    }

    /// Moves data to where a command's PRP entries say.
    pub(super) fn scatter(&mut self, command: &[u8; 64], data: &[u8]) {
        media::scatter(self.segments_for_input(command, data.len()), data);
    }

    /// Takes data from where a command's PRP entries say.
    pub(super) fn gather(&mut self, command: &[u8; 64], bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        media::gather(self.segments(command, bytes), &mut data);
        data
    }

    /// Memory of at least `bytes` that no driver knows.
    pub(super) fn take_spare(&mut self, bytes: usize) -> DmaRegion {
        match self.spare.iter().position(|region| region.len() >= bytes) {
            Some(index) => self.spare.swap_remove(index),
            None => DmaRegion::leak_for_host(bytes),
        }
    }

    pub(super) fn give_back_spare(&mut self, region: DmaRegion) {
        self.spare.push(region);
    }
}
