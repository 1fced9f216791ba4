//! Which namespaces the card serves: what the homes of drives find and lose, and what the registrar's core makes of it.
//!
//! One core decides, so that all serve the same. See docs/design/many-cores.md.

use core::time::Duration;

use controller::config::MAX_NAMESPACES;
use controller::{AttachError, BackendNamespace, Namespace};
use hal_api::{FrameQueue, Instant, NvmeDevice};
use nvme::NSID_ALL;

use crate::data_core::DataCore;

/// A drive that has been moved to another slot is missed in its old one within this time.
const MISSED_WITHIN: Duration = Duration::from_secs(10);

/// A namespace whose NSID another drive has. If that drive turns out to have been taken out, this one is it.
struct Candidate {
    namespace: Namespace,
    until: Instant,
}

/// What a core remembers of namespaces that are not, or not yet, served.
#[derive(Default)]
pub(crate) struct Registry {
    /// At the registrar: those who wait.
    candidates: heapless::Vec<Candidate, MAX_NAMESPACES>,
    /// At a home: those reported, so that no more are under way than the card could serve.
    reported: heapless::Vec<BackendNamespace, MAX_NAMESPACES>,
}

impl Registry {
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

    /// Serves a namespace on all cores, unless another drive has its NSID.
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
        let BackendNamespace { drive, nsid } = namespace.backend;
        if self.take_up_again(namespace, now) {
            hal_log::info!("drive {} namespace {} is back as namespace {}", drive, nsid, namespace.nsid);
        } else {
            self.subsystem.attach(*namespace)?;
            let (blocks, bytes) = (namespace.blocks, 1u32 << namespace.block_shift);
            hal_log::info!(
                "drive {} namespace {}: {} blocks of {} bytes, served as namespace {}",
                drive,
                nsid,
                blocks,
                bytes,
                namespace.nsid,
            );
        }
        self.subsystem.tell_attached(namespace);
        Ok(())
    }

    /// Takes what is gone away from all cores.
    pub(crate) fn unregister(&mut self, gone: BackendNamespace, now: Instant) {
        self.registry.candidates.retain(|candidate| !stands_for(gone, candidate.namespace.backend));
        while let Some(namespace) =
            self.subsystem.namespaces().iter().find(|namespace| stands_for(gone, namespace.backend))
        {
            let (nsid, backend) = (namespace.nsid, namespace.backend);
            self.note_detached(nsid, now);
            self.subsystem.detach_everywhere(nsid);
            hal_log::info!(
                "drive {} namespace {} is detached, it was namespace {}",
                backend.drive,
                backend.nsid,
                nsid
            );
        }
        self.look_at_candidates(now);
    }

    /// Serves those whose NSIDs have become free, or whose drives are seen to have been moved.
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
