//! What a host asks for: a seeded mixture of all I/O commands, and some for the controller.

use std::time::Duration;

use nvme::{Command, CopyRange, DatasetRange, opcode};
use nvmeof::initiator::{Transfer, commands as make};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::association::{ADMIN_SLOTS, Association};
use super::commands::{Place, What, certain};
use super::{Common, Host, Target};
use crate::kinds::Kind;
use crate::oracle::Range;
use crate::pattern::{self, Version};

/// FUA, in command dword 12.
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
/// Deallocate, in command dword 11 of Dataset Management.
const DEALLOCATE: u32 = 1 << 2;
/// Commands that are started in one step at most.
const STARTS_PER_STEP: usize = 8;
/// Admin commands at a time: there is always room for a Keep Alive.
const ADMIN_COMMANDS: usize = ADMIN_SLOTS / 2;
/// Fused pairs among I/O commands.
const PAIR_ONE_IN: u32 = 16;
/// Bytes and source ranges of a Copy at most, as MCL and MSRC say.
const COPY_BYTES: u32 = 64 << 10;
const COPY_RANGES: u32 = 4;
/// Until a host looks again that has no namespace.
const NO_NAMESPACE: Duration = Duration::from_millis(1);

/// A command that is ready to go.
struct Prepared {
    what: What,
    place: Place,
    command: Command,
    data: Vec<u8>,
    transfer: Transfer,
    versions: Vec<(Range, Version)>,
}

impl Host {
    /// Starts what the settings ask for, where there is room.
    pub(super) fn start_commands(&mut self, association: &mut Association, common: &mut Common) {
        let now = common.time.now();
        for _ in 0..STARTS_PER_STEP {
            let full = self.commands.outstanding() >= self.settings.depth;
            if common.quiet || full || now < self.next_command || association.connections.len() < 2 {
                return;
            }
            self.next_command = now + Duration::from_micros(self.random.u64(0..=2 * self.settings.pause_us));
            if self.random.u32(0..40) == 0 {
                self.start_admin(association, common);
                continue;
            }
            let Some(target) = self.target(association, common) else {
                self.next_command = now + NO_NAMESPACE;
                return;
            };
            if self.random.u32(0..PAIR_ONE_IN) == 0 && association.fuses {
                self.start_pair(association, target, common);
                continue;
            }
            let prepared = self.prepare(association, target, common);
            self.submit(association, prepared, common);
        }
    }

    /// Reads blocks of a namespace on the first I/O queue, for the final look.
    pub fn read_all(&mut self, common: &mut Common, target: Target, lba: u64, blocks: u32) -> bool {
        let Some(mut association) = self.take_association() else { return false };
        let place = Place { target, range: Range { namespace: target.index, lba, blocks } };
        let prepared = self.read(association.nsid(target, common), place);
        let taken = association.connections.len() > 1 && self.submit(&mut association, prepared, common);
        self.state = super::State::Joined(association);
        taken
    }

    fn start_admin(&mut self, association: &mut Association, common: &Common) {
        const SMART_LOG: u32 = 2;
        const ERROR_LOG: u32 = 1;
        if association.connections[0].queue.outstanding() >= ADMIN_COMMANDS {
            return;
        }
        if self.random.u32(0..4) == 0 {
            return self.start_abort(association, common);
        }
        let now = common.time.now();
        let (command, bytes) = match self.random.u32(0..4) {
            0 => (make::identify(1, 0), 4096),
            1 => (make::identify(2, 0), 4096),
            2 => (log_page(ERROR_LOG, 64 * 4), 64 * 4),
            _ => (log_page(SMART_LOG, 512), 512),
        };
        let token = self.commands.add(What::Admin, None, vec![0; bytes as usize], 0, now);
        if association.connections[0].queue.submit(token, &command, Transfer::Receive(bytes)).is_err() {
            self.commands.forget(token);
        }
    }

    fn target(&mut self, association: &Association, common: &Common) -> Option<Target> {
        if association.namespaces.is_empty() {
            return None;
        }
        let nsid = association.namespaces[self.random.usize(0..association.namespaces.len())];
        common.targets.get(&nsid).copied()
    }

    /// A range where this host writes: its own part, or the last quarter, which all share. Reads go anywhere.
    pub(super) fn range(&mut self, target: Target, common: &Common, writes: bool) -> Range {
        let own = (target.blocks - target.blocks / 4) / common.hosts;
        let (from, blocks) = match self.random.u32(0..10) {
            0 | 1 if !writes => (0, target.blocks),
            0..=2 => (own * common.hosts, target.blocks - own * common.hosts),
            _ => (own * self.index as u64, own),
        };
        let most = u64::from(self.settings.most_blocks).min(blocks);
        let count = self.random.u64(1..=most);
        let lba = from + self.random.u64(0..=blocks - count);
        Range { namespace: target.index, lba, blocks: count as u32 }
    }

    fn prepare(&mut self, association: &Association, target: Target, common: &mut Common) -> Prepared {
        let nsid = association.nsid(target, common);
        if self.random.u32(0..100) < self.settings.reads {
            let range = self.range(target, common, false);
            return self.read(nsid, Place { target, range });
        }
        let range = self.range(target, common, true);
        let place = Place { target, range };
        let plain = |what, command| Prepared {
            what,
            place,
            command,
            data: Vec::new(),
            transfer: Transfer::None,
            versions: Vec::new(),
        };
        match self.random.u32(0..100) {
            0..50 => self.write(association, nsid, place, common),
            50..60 => match self.copy(association, nsid, place, common) {
                Some(copy) => copy,
                None => self.write(association, nsid, place, common),
            },
            60..72 => plain(What::Flush, make::flush(nsid)),
            72..80 => {
                let version = common.oracle.write_sent(range, true, self.index as u8);
                let forced = self.random.u32(0..4) == 0;
                let mut command = make::write_zeroes(nsid, range.lba, range.blocks);
                add_force(&mut command, forced);
                Prepared { versions: vec![(range, version)], ..plain(What::Zeroes { forced }, command) }
            }
            80..86 => self.deallocate(association, nsid, place, common),
            86..94 => self.compare(association, nsid, place, common),
            94..98 => {
                let mut command = make::read(nsid, range.lba, range.blocks);
                command.opcode = opcode::io::VERIFY;
                plain(What::Verify, command)
            }
            _ => {
                let beyond = Place { range: Range { lba: target.blocks, ..range }, ..place };
                let command = make::write_zeroes(nsid, target.blocks, range.blocks);
                Prepared { place: beyond, ..plain(What::OutOfRange, command) }
            }
        }
    }

    fn read(&mut self, nsid: u32, place: Place) -> Prepared {
        let bytes = place.range.blocks << place.target.block_shift;
        Prepared {
            what: What::Read,
            place,
            command: make::read(nsid, place.range.lba, place.range.blocks),
            data: vec![0; bytes as usize],
            transfer: Transfer::Receive(bytes),
            versions: Vec::new(),
        }
    }

    fn write(&mut self, association: &Association, nsid: u32, place: Place, common: &mut Common) -> Prepared {
        let range = place.range;
        let version = common.oracle.write_sent(range, false, self.index as u8);
        let data = contents(place, &vec![(version, false); range.blocks as usize]);
        let forced = self.random.u32(0..5) == 0;
        let mut command = make::write(nsid, range.lba, range.blocks);
        add_force(&mut command, forced);
        let transfer = self.transfer(association, data.len());
        let kind = match transfer {
            Transfer::SendInCapsule(_) => Kind::WriteInCapsule,
            _ => Kind::WriteByTransfer,
        };
        common.trace.event(
            kind,
            &[self.index as u64, range.lba, version.into()],
            format_args!("{range:?} {version}"),
        );
        if forced {
            common.trace.event(Kind::ForcedWrite, &[version.into()], format_args!("{version}"));
        }
        Prepared {
            what: What::Write { forced },
            place,
            command,
            data,
            transfer,
            versions: vec![(range, version)],
        }
    }

    fn deallocate(
        &mut self,
        association: &Association,
        nsid: u32,
        place: Place,
        common: &mut Common,
    ) -> Prepared {
        let ranges: Vec<Range> =
            (0..self.random.usize(1..=5)).map(|_| self.range(place.target, common, true)).collect();
        let mut data = Vec::new();
        let mut versions = Vec::new();
        for range in ranges {
            let entry = DatasetRange {
                attributes: U32::new(0),
                blocks: U32::new(range.blocks),
                start_block: U64::new(range.lba),
            };
            data.extend_from_slice(entry.as_bytes());
            versions.push((range, common.oracle.write_sent(range, true, self.index as u8)));
        }
        let mut command = make::flush(nsid);
        command.opcode = opcode::io::DATASET_MANAGEMENT;
        command.cdw10.set(versions.len() as u32 - 1);
        command.cdw11.set(DEALLOCATE);
        let transfer = self.transfer(association, data.len());
        Prepared { what: What::Deallocate, place, command, data, transfer, versions }
    }

    /// A Copy from anywhere, in several ranges; `None` where the oracle could not follow.
    fn copy(
        &mut self,
        association: &Association,
        nsid: u32,
        mut place: Place,
        common: &mut Common,
    ) -> Option<Prepared> {
        let target = place.target;
        place.range.blocks = place.range.blocks.min(COPY_BYTES >> target.block_shift);
        let mut left = place.range.blocks;
        let mut from = Vec::new();
        while left > 0 {
            let last = from.len() as u32 + 1 == COPY_RANGES;
            let blocks = if last { left } else { self.random.u32(1..=left) };
            let lba = self.random.u64(0..=target.blocks - u64::from(blocks));
            from.push(Range { lba, blocks, ..place.range });
            left -= blocks;
        }
        let version = common.oracle.copy_sent(place.range, &from, self.index as u8)?;
        let mut data = Vec::new();
        for range in &from {
            let mut entry = CopyRange::default();
            (entry.start_block, entry.blocks) = (U64::new(range.lba), U16::new(range.blocks as u16 - 1));
            data.extend_from_slice(entry.as_bytes());
        }
        let forced = self.random.u32(0..5) == 0;
        let mut command = make::copy(nsid, place.range.lba, from.len() as u32);
        add_force(&mut command, forced);
        let transfer = self.transfer(association, data.len());
        let versions = vec![(place.range, version)];
        Some(Prepared { what: What::Copy { forced }, place, command, data, transfer, versions })
    }

    fn compare(
        &mut self,
        association: &Association,
        nsid: u32,
        place: Place,
        common: &mut Common,
    ) -> Prepared {
        let stands = certain(place, &common.oracle);
        let same = self.random.bool();
        let count = place.range.blocks as usize;
        let wanted = match &stands {
            Some(versions) if same => versions.clone(),
            _ => vec![(Version::MAX, false); count],
        };
        let data = contents(place, &wanted);
        let command = make::compare(nsid, place.range.lba, place.range.blocks);
        let transfer = self.transfer(association, data.len());
        let what = What::Compare { same: same && stands.is_some(), certain: stands };
        Prepared { what, place, command, data, transfer, versions: Vec::new() }
    }

    /// In the capsule where it fits, sometimes.
    pub(super) fn transfer(&mut self, association: &Association, bytes: usize) -> Transfer {
        let bytes = bytes as u32;
        if self.random.u32(0..4) == 0 {
            return Transfer::Send(bytes);
        }
        make::send_transfer(bytes, association.in_capsule_bytes)
    }

    fn submit(&mut self, association: &mut Association, prepared: Prepared, common: &mut Common) -> bool {
        let Prepared { what, place, command, data, transfer, versions } = prepared;
        let (sent, now) = (common.oracle.moment(), common.time.now());
        let token = self.commands.add(what, Some(place), data, sent, now);
        self.commands.set_versions(token, versions);
        let queue = self.random.usize(1..association.connections.len());
        self.commands.set_queue(token, queue);
        if association.connections[queue].queue.submit(token, &command, transfer).is_ok() {
            return true;
        }
        // The queue is full: it was never sent.
        for (range, version) in self.commands.forget(token) {
            common.oracle.write_unsent(range, version);
        }
        false
    }
}

impl Association {
    pub(super) fn nsid(&self, target: Target, common: &Common) -> u32 {
        let mut known = common.targets.iter().filter(|(_, known)| known.index == target.index);
        known.next().map_or(0, |(nsid, _)| *nsid)
    }
}

pub(super) fn contents(place: Place, versions: &[(Version, bool)]) -> Vec<u8> {
    let bytes = 1usize << place.target.block_shift;
    let mut data = vec![0; versions.len() * bytes];
    for ((lba, block), (version, zeros)) in (place.range.lba..).zip(data.chunks_mut(bytes)).zip(versions) {
        if !zeros {
            pattern::fill(block, place.range.namespace, lba, *version);
        }
    }
    data
}

pub(super) fn add_force(command: &mut Command, forced: bool) {
    if forced {
        command.cdw12.set(command.cdw12.get() | FORCE_UNIT_ACCESS);
    }
}

/// Get Log Page (Base 5.16) of so many bytes from the start.
pub(super) fn log_page(page: u32, bytes: u32) -> Command {
    let mut command = make::keep_alive();
    command.opcode = opcode::admin::GET_LOG_PAGE;
    command.nsid.set(u32::MAX);
    command.cdw10.set((bytes / 4 - 1) << 16 | page);
    command
}
