//! What the fake's commands do. Statuses are the 15 bits above the phase tag.

use super::dword;
use super::media::MediaOperation;
use super::model::Model;
use super::run::Home;

const SUCCESS: u16 = 0;
const INVALID_FIELD: u16 = 0x4002;
const INVALID_NAMESPACE: u16 = 0x400b;
const LBA_OUT_OF_RANGE: u16 = 0x4080;
const UNRECOVERED_READ: u16 = 0x0281;

impl Model {
    /// Status and dword 0 of an admin command.
    pub(super) fn execute_admin(&mut self, command: &[u8; 64]) -> (u16, u32) {
        let cdw10 = dword(command, 10);
        match command[0] {
            0x01 => (self.create_submission_queue(command), 0),
            0x02 => (self.get_log_page(command), 0),
            0x05 => (self.create_completion_queue(command), 0),
            0x06 => match self.identify(dword(command, 1), cdw10 as u8, cdw10 >> 16) {
                Some(data) => {
                    self.dma.scatter(command, &data);
                    (SUCCESS, 0)
                }
                None => (INVALID_FIELD, 0),
            },
            0x08 => self.abort(command),
            0x09 if cdw10 & 0xff == 0x07 => {
                let cdw11 = dword(command, 11);
                assert!(cdw11 & 0xffff != 0xffff && cdw11 >> 16 != 0xffff, "Number of Queues FFFFh");
                assert!(
                    self.queues.iter().skip(1).all(|queue| !queue.completion_created),
                    "Number of Queues after a queue was created"
                );
                let granted = self.config.io_queues_granted.max(1);
                self.queues_granted = Some(granted);
                (SUCCESS, u32::from(granted - 1) << 16 | u32::from(granted - 1))
            }
            // Asynchronous Event Configuration.
            0x09 if cdw10 & 0xff == 0x0b => (SUCCESS, 0),
            0x09 | 0x0a => (INVALID_FIELD, 0),
            other => panic!("admin opcode {other:#04x} is not for drives"),
        }
    }

    fn create_completion_queue(&mut self, command: &[u8; 64]) -> u16 {
        let (cdw10, cdw11) = (dword(command, 10), dword(command, 11));
        let qid = cdw10 as u16;
        assert!(qid > 0 && Some(qid) <= self.queues_granted, "completion queue {qid} was not granted");
        let location = self.location(qid).expect("memory for the queue");
        let prp1 = u64::from(dword(command, 7)) << 32 | u64::from(dword(command, 6));
        assert_eq!(prp1, location.completion.0, "completion ring");
        assert_eq!((cdw10 >> 16) + 1, location.entries, "QSIZE");
        assert!(location.entries >= 2 && location.entries <= self.config.max_queue_entries, "QSIZE and MQES");
        assert_eq!(cdw11 & 1, 1, "PC");
        let vector = location.vector.map_or(0, |vector| u32::from(vector) << 16 | 0b10);
        assert_eq!(cdw11 & !1, vector, "IV and IEN");
        assert!(!self.queues[usize::from(qid)].completion_created, "created twice");
        self.queues[usize::from(qid)].completion_created = true;
        SUCCESS
    }

    fn create_submission_queue(&mut self, command: &[u8; 64]) -> u16 {
        let (cdw10, cdw11) = (dword(command, 10), dword(command, 11));
        let qid = cdw10 as u16;
        let location = self.location(qid).expect("memory for the queue");
        let prp1 = u64::from(dword(command, 7)) << 32 | u64::from(dword(command, 6));
        assert_eq!(prp1, location.submission.0, "submission ring");
        assert_eq!((cdw10 >> 16) + 1, location.entries, "QSIZE");
        assert_eq!(cdw11 & 1, 1, "PC");
        let cqid = (cdw11 >> 16) as usize;
        assert!(self.queues.get(cqid).is_some_and(|q| q.completion_created), "no completion queue {cqid}");
        assert!(!self.queues[usize::from(qid)].submission_created, "created twice");
        self.queues[usize::from(qid)].submission_created = true;
        SUCCESS
    }

    fn get_log_page(&mut self, command: &[u8; 64]) -> u16 {
        let (cdw10, cdw11) = (dword(command, 10), dword(command, 11));
        let bytes = ((u64::from(cdw11 & 0xffff) << 16 | u64::from(cdw10 >> 16)) + 1) as usize * 4;
        match cdw10 & 0xff {
            0x02 => assert_eq!(bytes, 512, "length of the SMART log"),
            // Nothing in them matters to the driver; reading them is what counts.
            0x01 | 0x03 | 0x04 => {
                self.dma.scatter(command, &vec![0; bytes]);
                return SUCCESS;
            }
            _ => return INVALID_FIELD,
        }
        let mut log = [0; 512];
        log[1..3].copy_from_slice(&310u16.to_le_bytes());
        log[3] = 100;
        self.put_health(&mut log);
        let reads = self.io_commands[0x02];
        log[64..72].copy_from_slice(&reads.to_le_bytes());
        self.dma.scatter(command, &log);
        SUCCESS
    }

    /// Status of an I/O command, unless the media still works on it.
    pub(super) fn execute_io(&mut self, home: Home, command: &[u8; 64]) -> Option<u16> {
        let nsid = dword(command, 1);
        let Some(namespace) = self.config.namespaces.iter().find(|n| n.nsid == nsid).cloned() else {
            return Some(INVALID_NAMESPACE);
        };
        assert_eq!(command[1] & 0b11, 0, "FUSE");
        let claimed = |bit: u16| {
            assert!(self.config.optional_commands & bit != 0, "opcode {:#04x} was not claimed", command[0]);
        };
        match command[0] {
            0x00 => return self.start_one(home, command, MediaOperation::Flush, 0, 0),
            0x01 | 0x02 => (),
            0x04 => claimed(1 << 1),
            0x05 => claimed(1 << 0),
            0x08 => claimed(1 << 3),
            0x09 => {
                claimed(1 << 2);
                return self.deallocate(home, command, &namespace);
            }
            0x0c => claimed(1 << 7),
            other => panic!("I/O opcode {other:#04x} is not for drives"),
        }
        let start = u64::from(dword(command, 11)) << 32 | u64::from(dword(command, 10));
        let blocks = u64::from(dword(command, 12) & 0xffff) + 1;
        if start.checked_add(blocks).is_none_or(|end| end > namespace.blocks) {
            return Some(LBA_OUT_OF_RANGE);
        }
        if let Some(status) = self.apply_uncorrectable(command[0], nsid, start..start + blocks) {
            return Some(status);
        }
        let (at, bytes) = (start << namespace.block_shift, blocks << namespace.block_shift);
        self.check_size(command[0], bytes as usize);
        let operation = match command[0] {
            0x01 => MediaOperation::Write,
            0x02 => MediaOperation::Read,
            0x05 => return self.start_compare(home, command, at, bytes as usize),
            0x08 => {
                let deallocate = dword(command, 12) & 1 << 25 != 0;
                assert!(!deallocate || namespace.deallocate_features & 0b1000 != 0, "DEAC was not claimed");
                MediaOperation::WriteZeroes { deallocate }
            }
            _ => return Some(SUCCESS),
        };
        self.start_one(home, command, operation, at, bytes)
    }

    /// Write Uncorrectable marks blocks, writing them takes the mark away, and what reads them fails.
    fn apply_uncorrectable(&mut self, opcode: u8, nsid: u32, blocks: core::ops::Range<u64>) -> Option<u16> {
        let is_hit = |(of, marked): &(u32, core::ops::Range<u64>)| {
            *of == nsid && marked.start < blocks.end && blocks.start < marked.end
        };
        match opcode {
            0x04 => {
                self.uncorrectable.push((nsid, blocks));
                Some(SUCCESS)
            }
            0x02 | 0x05 | 0x0c => self.uncorrectable.iter().any(is_hit).then_some(UNRECOVERED_READ),
            _ => {
                let (hit, mut kept): (Vec<_>, Vec<_>) =
                    core::mem::take(&mut self.uncorrectable).into_iter().partition(is_hit);
                for (of, marked) in hit {
                    kept.extend([(of, marked.start..blocks.start), (of, blocks.end..marked.end)]);
                }
                kept.retain(|(_, marked)| !marked.is_empty());
                self.uncorrectable = kept;
                None
            }
        }
    }

    /// MDTS, WZSL and VSL, in units of the smallest page.
    fn check_size(&self, opcode: u8, bytes: usize) {
        let limit = match opcode {
            0x08 => self.config.write_zeroes_limit,
            0x0c => self.config.verify_limit,
            _ => self.config.mdts,
        };
        let unit = 4096usize << self.config.min_page;
        assert!(
            limit == 0 || bytes <= unit << limit,
            "opcode {opcode:#04x} with {bytes} bytes: beyond its limit"
        );
    }

    fn deallocate(
        &mut self,
        home: Home,
        command: &[u8; 64],
        namespace: &super::NvmeNamespace,
    ) -> Option<u16> {
        let ranges = (dword(command, 10) & 0xff) as usize + 1;
        let limits =
            (self.config.dataset_ranges, self.config.dataset_range_blocks, self.config.dataset_blocks);
        assert!(limits.0 == 0 || ranges <= usize::from(limits.0), "DMRL");
        let list = self.dma.gather(command, ranges * 16);
        let mut total = 0;
        let mut given_up = Vec::with_capacity(ranges);
        for range in list.chunks_exact(16) {
            let blocks = u64::from(u32::from_le_bytes(range[4..8].try_into().expect("4 bytes")));
            let start = u64::from_le_bytes(range[8..16].try_into().expect("8 bytes"));
            assert!(limits.1 == 0 || blocks <= u64::from(limits.1), "DMRSL");
            total += blocks;
            if start.checked_add(blocks).is_none_or(|end| end > namespace.blocks) {
                return Some(LBA_OUT_OF_RANGE);
            }
            if blocks > 0 {
                given_up.push((start << namespace.block_shift, blocks << namespace.block_shift));
            }
        }
        assert!(limits.2 == 0 || total <= limits.2, "DMSL");
        if dword(command, 11) & 0b100 == 0 {
            return Some(SUCCESS);
        }
        self.start_deallocate(home, namespace.nsid, &given_up)
    }
}
