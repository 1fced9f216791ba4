//! Role `drive`: this core's queue of each drive.

use controller::{BackendNamespace, Namespace, SubsystemPlace, namespace_identity};
use drive::{Drive, DriveEvent, NamespaceInfo};
use hal_api::{FrameQueue, Instant, NvmeDevice};

use crate::data_core::DataCore;

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// Brings drives up or on, and takes what they have completed.
    pub(crate) fn poll_drives(&mut self, now: Instant) -> u32 {
        let work = self.drives.poll(now, &mut self.pool) as u32;
        // Requests that have waited too long end without any work at the drive.
        if work == 0 && !self.drives.has_work() {
            return 0;
        }
        let completed = self.collect_completions(now);
        while let Some((drive, event)) = self.drives.take_event() {
            self.drive_event(drive, event, now);
        }
        work + completed
    }

    /// Gives each finished block request back to the queue that it came from.
    pub(crate) fn collect_completions(&mut self, now: Instant) -> u32 {
        let mut completed = 0;
        while let Some(completion) = self.drives.complete() {
            let mut environment = nvmeof::Environment {
                subsystem: &mut self.subsystem,
                pool: &mut self.pool,
                backend: &mut self.drives,
            };
            self.target.complete(completion, now, &mut environment);
            completed += 1;
        }
        completed
    }

    fn drive_event(&mut self, drive: u8, event: DriveEvent, now: Instant) {
        match event {
            // The drive's home alone hears this from it.
            DriveEvent::NamespaceFound(info) => self.found(served(drive, &info), now),
            DriveEvent::NamespaceGone { nsid } => {
                hal_log::warn!("drive {} namespace {} is gone", drive, nsid);
                self.gone(BackendNamespace { drive, nsid }, now);
            }
            DriveEvent::WritesLost { nsid } => {
                // Each core hears it from the drive: no Flush is sent before all have.
                let found_at = self.drives.get(drive).map_or(now, Drive::loss_found_at);
                if let Some(key) = self.key_of(drive, nsid) {
                    self.subsystem.note_lost_writes(key, found_at);
                }
            }
            // The drive says by itself, and in words, what it refuses and why it fails. While it is away its
            // namespaces stay attached: hosts retry, and find the same namespace when it comes back.
            DriveEvent::NamespaceRefused { .. } | DriveEvent::Lost | DriveEvent::Back => {}
            DriveEvent::Failed { .. } => {
                if self.readiness.settled(drive) {
                    self.subsystem.tell_settled(drive);
                }
            }
        }
    }

    /// The key of a drive's namespace that hosts see, or have seen until its drive began to leave or it was detached.
    fn key_of(&self, drive: u8, nsid: u32) -> Option<u32> {
        let backend = BackendNamespace { drive, nsid };
        let found = self.subsystem.namespaces().iter().find(|namespace| namespace.backend == backend);
        found.map(|namespace| namespace.key).or_else(|| self.plug.leaving(backend))
    }
}

/// A drive's namespace as hosts see it where nothing is declared: the same blocks, under names that belong to the drive and not
/// to its slot.
fn served(drive: u8, info: &NamespaceInfo) -> Namespace {
    let owner = &info.drive;
    let identity = namespace_identity(&owner.serial, &owner.model, info.nsid, info.nguid, info.eui64);
    Namespace {
        key: identity.nsid,
        subsystem: SubsystemPlace::DEFAULT,
        stamp: 0,
        nsid: identity.nsid,
        attachment: 0,
        backend: BackendNamespace { drive, nsid: info.nsid },
        block_shift: info.block_shift,
        blocks: info.blocks,
        nguid: identity.nguid,
        eui64: identity.eui64,
        // Not the drive's own, which need not outlive a power cycle (QEMU's does not).
        uuid: identity.uuid,
        volatile_write_cache: info.volatile_write_cache,
        optimal: info.optimal,
        deallocate_features: info.deallocate_features,
        write_uncorrectable: info.write_uncorrectable,
    }
}
