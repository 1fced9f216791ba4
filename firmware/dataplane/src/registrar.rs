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

/// Those who wait.
#[derive(Default)]
pub(crate) struct Candidates(heapless::Vec<Candidate, MAX_NAMESPACES>);

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// A drive whose home is this core has a namespace.
    pub(crate) fn found(&mut self, namespace: Namespace, now: Instant) {
        if self.subsystem.is_registrar() {
            self.register(namespace, now);
        } else {
            self.subsystem.report_found(&namespace);
        }
    }

    /// A drive whose home is this core has a namespace no more; [`NSID_ALL`] stands for all of the drive's.
    pub(crate) fn gone(&mut self, gone: BackendNamespace, now: Instant) {
        if self.subsystem.is_registrar() {
            self.unregister(gone, now);
        } else {
            self.subsystem.report_gone(gone);
        }
    }

    /// Serves a namespace on all cores, unless another drive has its NSID.
    pub(crate) fn register(&mut self, namespace: Namespace, now: Instant) {
        let BackendNamespace { drive, nsid } = namespace.backend;
        self.candidates.0.retain(|candidate| candidate.namespace.backend != namespace.backend);
        let Err(error) = self.try_register(&namespace) else { return };
        hal_log::warn!("drive {} namespace {} is not served: {}", drive, nsid, error.name());
        if error == AttachError::NsidTaken {
            let until = now + MISSED_WITHIN;
            // As many as there may be namespaces.
            let _ = self.candidates.0.push(Candidate { namespace, until });
        }
    }

    fn try_register(&mut self, namespace: &Namespace) -> Result<(), AttachError> {
        let BackendNamespace { drive, nsid } = namespace.backend;
        if self.take_up_again(namespace) {
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
        let is_gone = |backend: BackendNamespace| {
            backend.drive == gone.drive && (gone.nsid == NSID_ALL || backend.nsid == gone.nsid)
        };
        self.candidates.0.retain(|candidate| !is_gone(candidate.namespace.backend));
        while let Some(namespace) =
            self.subsystem.namespaces().iter().find(|namespace| is_gone(namespace.backend))
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
        if self.candidates.0.is_empty() {
            return;
        }
        let mut candidates = core::mem::take(&mut self.candidates.0);
        while let Some(Candidate { namespace, until }) = candidates.pop() {
            if self.try_register(&namespace) == Err(AttachError::NsidTaken) && now < until {
                let _ = self.candidates.0.push(Candidate { namespace, until });
            }
        }
    }
}
