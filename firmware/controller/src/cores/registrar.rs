//! Which namespaces are served: one core says so, so that all serve the same in whatever order drives come and go.
//!
//! The homes of drives report to it what they find and what has gone, and all cores, homes too, do as it says. Two drives with the same
//! identity would otherwise be served under one NSID by different cores.

use hal_log::error;
use message::{Change, CoreMessage as Message};

use crate::backend::BackendNamespace;
use crate::cores::Begun;
use crate::cores::changes::MAX_DETACHES;
use crate::namespace::{AttachError, Namespace};
use crate::subsystem::Subsystem;

/// The data core that says which namespaces there are.
const REGISTRAR: u8 = 0;

impl Subsystem {
    /// Whether this core says which namespaces there are.
    #[must_use]
    pub fn is_registrar(&self) -> bool {
        self.core() == REGISTRAR
    }

    /// Reports a namespace of a drive whose home is this core to the registrar, another core.
    pub fn report_found(&mut self, namespace: &Namespace) {
        if let Some(cores) = self.cores.as_mut() {
            cores.post(REGISTRAR, Message::Found(*namespace));
        }
    }

    /// Reports to the registrar, another core, that a drive has lost a namespace, or for good all of them ([`nvme::NSID_ALL`]).
    pub fn report_gone(&mut self, gone: BackendNamespace) {
        if let Some(cores) = self.cores.as_mut() {
            cores.post(REGISTRAR, Message::Gone { drive: gone.drive, nsid: gone.nsid });
        }
    }

    /// Serves a namespace as the registrar says, in place of another one of its key.
    ///
    /// # Errors
    /// [`AttachError`]: the registrar would have refused it too.
    pub fn replace(&mut self, namespace: Namespace) -> Result<(), AttachError> {
        if self.rebind(&namespace) {
            return Ok(());
        }
        self.detach(namespace.key);
        self.attach(namespace)
    }

    /// Takes a namespace away on all cores: here at once, as [`Self::detach`], whose answer it gives; there by [`Change::Detach`], which
    /// this core confirms too. For the registrar alone.
    pub fn detach_everywhere(&mut self, key: u32) -> bool {
        debug_assert!(self.is_registrar());
        let backend = self.namespaces.by_key(key).map(|namespace| namespace.backend);
        let detached = self.detach(key);
        if let Some(BackendNamespace { drive, nsid }) = backend
            && let Some(cores) = self.cores.as_mut()
        {
            let all = cores.all();
            let begun = Begun::of(Change::Detach { key, drive, nsid });
            let pending = cores.count(|begun| matches!(begun.change, Change::Detach { .. }));
            if pending >= MAX_DETACHES || cores.begin(begun, all).is_none() {
                error!("namespace {}: too many others are being detached, other cores go on serving it", key);
                cores.faults += 1;
            }
        }
        detached
    }

    /// Tells all other cores of a namespace to serve. For the registrar alone.
    pub fn tell_attached(&mut self, namespace: &Namespace) {
        debug_assert!(self.is_registrar());
        self.post_to_others(&Message::Attach(*namespace));
    }
}
