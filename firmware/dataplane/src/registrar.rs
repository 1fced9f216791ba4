//! Which namespaces the card serves: what the homes of drives find and lose, and what the registrar's core makes of it.
//!
//! One core decides, so that all serve the same. See docs/design/many-cores.md.

use core::time::Duration;

use controller::config::MAX_NAMESPACES;
use controller::{AttachError, BackendNamespace, Namespace, SubsystemPlace};
use hal_api::{FrameQueue, Instant, NvmeDevice};
use message::configuration::DriveNamespace;
use nvme::NSID_ALL;

use crate::data_core::DataCore;
use crate::placements::Placements;

/// A drive that has been moved to another slot is missed in its old one within this time.
const MISSED_WITHIN: Duration = Duration::from_secs(10);

/// A namespace whose key another drive has. If that drive turns out to have been taken out, this one is it.
struct Candidate {
    namespace: Namespace,
    until: Instant,
}

/// What a core remembers of namespaces besides those that are attached.
#[derive(Default)]
pub(crate) struct Registry {
    /// At the registrar: all that drives have, by the names that the drives give them, attached or not.
    pub(crate) known: heapless::Vec<Namespace, MAX_NAMESPACES>,
    /// There too: where they are to be.
    pub(crate) placements: Placements,
    /// There too: the number of the last attachment.
    attachments: u32,
    /// There too: those whose key is taken.
    candidates: heapless::Vec<Candidate, MAX_NAMESPACES>,
    /// At a home: those reported, so that no more are under way than the card could serve.
    reported: heapless::Vec<BackendNamespace, MAX_NAMESPACES>,
}

impl Registry {
    fn known(&self, key: u32) -> Option<&Namespace> {
        self.known.iter().find(|known| known.key == key)
    }

    /// The known namespace of this identity.
    pub(crate) fn of_identity(&self, namespace: DriveNamespace) -> Option<&Namespace> {
        self.known.iter().find(|known| known.uuid == namespace)
    }

    fn forget(&mut self, key: u32) {
        self.known.retain(|known| known.key != key);
    }

    /// A known namespace as hosts are to see it, if anywhere, by a new attachment.
    fn placed(&mut self, key: u32) -> Option<Namespace> {
        let known = *self.known(key)?;
        let placement = self.placements.wanted(known.uuid)?;
        self.attachments = self.attachments.wrapping_add(1);
        Some(Namespace { attachment: self.attachments, ..placement.apply(&known) })
    }

    /// Whether one more may be reported.
    fn report(&mut self, namespace: &Namespace, is_in: impl Fn(u8) -> bool) -> bool {
        if self.reported.contains(&namespace.backend) {
            return true;
        }
        if self.reported.is_full() {
            self.reported.retain(|reported| is_in(reported.drive));
        }
        self.reported.push(namespace.backend).is_ok()
    }
}

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// A drive whose home is this core has a namespace.
    pub(crate) fn found(&mut self, namespace: Namespace, now: Instant) {
        if self.subsystem.is_registrar() {
            self.register(namespace, now);
        } else {
            let drives = &self.drives;
            if self.registry.report(&namespace, |drive| drives.get(drive).is_some()) {
                self.subsystem.report_found(&namespace);
            } else {
                refused(&namespace, AttachError::Full);
            }
        }
    }

    /// A drive whose home is this core has a namespace no more; [`NSID_ALL`] stands for all of the drive's.
    pub(crate) fn gone(&mut self, gone: BackendNamespace, now: Instant) {
        if self.subsystem.is_registrar() {
            self.unregister(gone, now);
        } else {
            self.registry.reported.retain(|reported| !stands_for(gone, *reported));
            self.subsystem.report_gone(gone);
        }
    }

    /// Takes a namespace up, and serves it on all cores where it is to be, unless another drive has its key.
    pub(crate) fn register(&mut self, namespace: Namespace, now: Instant) {
        let candidates = &mut self.registry.candidates;
        candidates.retain(|candidate| candidate.namespace.backend != namespace.backend);
        let Err(error) = self.try_register(&namespace, now) else { return };
        refused(&namespace, error);
        if error == AttachError::NsidTaken {
            let until = now + MISSED_WITHIN;
            // As many as there may be namespaces.
            let _ = self.registry.candidates.push(Candidate { namespace, until });
        }
    }

    fn try_register(&mut self, namespace: &Namespace, now: Instant) -> Result<(), AttachError> {
        let key = namespace.key;
        if let Some(BackendNamespace { drive, .. }) = self.registry.known(key).map(|known| known.backend) {
            // One that is on its way out was pulled, and may be in another slot before its old place is empty.
            if self.drives.get(drive).is_some() && !self.drives.is_leaving(drive) {
                return Err(AttachError::NsidTaken);
            }
            if self.take_up_again(namespace, now) {
                return Ok(());
            }
            self.registry.forget(key);
        }
        self.registry.known.push(*namespace).map_err(|_| AttachError::Full)?;
        match self.place(key) {
            // Another one has its NSID in the subsystem where it is to be: it waits, and is known all the same.
            Err(AttachError::NsidTaken) => refused(namespace, AttachError::NsidTaken),
            Err(error) => {
                self.registry.forget(key);
                return Err(error);
            }
            Ok(()) => {}
        }
        Ok(())
    }

    /// Gives a namespace whose drive was pulled back to that drive, which is in again. False where it is another one by now,
    /// or is not attached.
    fn take_up_again(&mut self, namespace: &Namespace, now: Instant) -> bool {
        let key = namespace.key;
        // What the one on its way out has lost, it may say only now.
        self.note_detached(key, now);
        let Some(attached) = self.subsystem.attached(key).copied() else { return false };
        let names = Namespace { nguid: attached.nguid, eui64: attached.eui64, ..*namespace };
        let Namespace { subsystem, stamp, nsid, attachment, uuid, .. } = attached;
        let back = Namespace { subsystem, stamp, nsid, attachment, uuid, ..names };
        if !self.subsystem.rebind(&back) {
            self.subsystem.detach_everywhere(key);
            return false;
        }
        let BackendNamespace { drive, nsid } = namespace.backend;
        hal_log::info!("drive {} namespace {} is back as namespace {}", drive, nsid, back.nsid);
        if let Some(known) = self.registry.known.iter_mut().find(|known| known.key == key) {
            *known = *namespace;
        }
        self.subsystem.tell_attached(&back);
        true
    }

    /// Attaches a known namespace where it is to be, on all cores.
    pub(crate) fn place(&mut self, key: u32) -> Result<(), AttachError> {
        if self.subsystem.attached(key).is_some() {
            return Ok(());
        }
        let Some(mut namespace) = self.registry.placed(key) else { return Ok(()) };
        namespace.stamp = self.subsystem.stamp_of(namespace.subsystem);
        self.subsystem.attach(namespace)?;
        let (blocks, bytes) = (namespace.blocks, 1u32 << namespace.block_shift);
        let BackendNamespace { drive, nsid } = namespace.backend;
        hal_log::info!(
            "drive {} namespace {}: {} blocks of {} bytes, served as namespace {}",
            drive,
            nsid,
            blocks,
            bytes,
            namespace.nsid,
        );
        if namespace.subsystem != SubsystemPlace::DEFAULT {
            hal_log::info!("namespace {} is in subsystem {}", namespace.nsid, namespace.subsystem.0);
        }
        self.subsystem.tell_attached(&namespace);
        Ok(())
    }

    /// Attaches those that are to be and are not: what they have waited for may have come.
    pub(crate) fn place_all(&mut self) {
        for index in 0..MAX_NAMESPACES {
            let Some(key) = self.registry.known.get(index).map(|known| known.key) else { return };
            // It goes on waiting.
            let _ = self.place(key);
        }
    }

    /// Takes a namespace out of its subsystem on all cores; it stays known.
    pub(crate) fn take_away(&mut self, key: u32, now: Instant) {
        let Some(Namespace { nsid, backend, .. }) = self.subsystem.attached(key).copied() else { return };
        self.note_detached(key, now);
        self.subsystem.detach_everywhere(key);
        let BackendNamespace { drive, nsid: of_drive } = backend;
        hal_log::info!("drive {} namespace {} is detached, it was namespace {}", drive, of_drive, nsid);
    }

    /// Takes what is gone away from all cores.
    pub(crate) fn unregister(&mut self, gone: BackendNamespace, now: Instant) {
        self.registry.candidates.retain(|candidate| !stands_for(gone, candidate.namespace.backend));
        while let Some(key) =
            self.registry.known.iter().find(|known| stands_for(gone, known.backend)).map(|known| known.key)
        {
            self.take_away(key, now);
            self.registry.forget(key);
        }
        self.look_at_candidates(now);
        self.place_all();
    }

    /// Serves those whose keys have become free, or whose drives are seen to have been moved.
    pub(crate) fn look_at_candidates(&mut self, now: Instant) {
        if self.registry.candidates.is_empty() {
            return;
        }
        let mut candidates = core::mem::take(&mut self.registry.candidates);
        while let Some(Candidate { namespace, until }) = candidates.pop() {
            if self.try_register(&namespace, now) == Err(AttachError::NsidTaken) && now < until {
                let _ = self.registry.candidates.push(Candidate { namespace, until });
            }
        }
    }
}

/// Whether it is said of this namespace as well: [`NSID_ALL`] stands for all of a drive's.
fn stands_for(gone: BackendNamespace, backend: BackendNamespace) -> bool {
    backend.drive == gone.drive && (gone.nsid == NSID_ALL || backend.nsid == gone.nsid)
}

fn refused(namespace: &Namespace, error: AttachError) {
    let BackendNamespace { drive, nsid } = namespace.backend;
    hal_log::warn!("drive {} namespace {} is not served: {}", drive, nsid, error.name());
}
