//! What is declared of drives' namespaces: in which subsystem each is, and by what names (docs/design/live-configuration.md).
//!
//! The registrar's core alone has this. It refers to a namespace by its identity, so that what is declared stays while the drive is away.

use controller::Namespace;
use controller::config::MAX_NAMESPACES;
use heapless::Vec;
use message::configuration::{ChangeError, DriveNamespace, SubsystemPlace};

/// Where hosts are to see a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) subsystem: SubsystemPlace,
    pub(crate) nsid: Option<u32>,
    pub(crate) uuid: Option<[u8; 16]>,
    pub(crate) nguid: Option<[u8; 16]>,
}

impl Placement {
    /// By the names that its drive gives it.
    pub(crate) const fn derived(subsystem: SubsystemPlace) -> Self {
        Self { subsystem, nsid: None, uuid: None, nguid: None }
    }

    /// The namespace as hosts see it there.
    pub(crate) fn apply(&self, of_drive: &Namespace) -> Namespace {
        // A drive's own EUI-64 beside names that are another's would make two of one for hosts.
        let is_renamed = self.uuid.is_some() || self.nguid.is_some();
        Namespace {
            subsystem: self.subsystem,
            nsid: self.nsid.unwrap_or(of_drive.key),
            uuid: self.uuid.unwrap_or(of_drive.uuid),
            nguid: self.nguid.unwrap_or(of_drive.nguid),
            eui64: if is_renamed { [0; 8] } else { of_drive.eui64 },
            ..*of_drive
        }
    }
}

/// What is declared of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Declaration {
    pub(crate) namespace: DriveNamespace,
    /// `None`: in no subsystem.
    pub(crate) placement: Option<Placement>,
}

/// All that is declared.
#[derive(Debug)]
pub(crate) struct Placements {
    declared: Vec<Declaration, MAX_NAMESPACES>,
    /// Namespaces of which nothing is declared are in the default subsystem.
    pub(crate) automatic: bool,
}

impl Default for Placements {
    fn default() -> Self {
        Self { declared: Vec::new(), automatic: true }
    }
}

impl Placements {
    pub(crate) fn find(&self, namespace: DriveNamespace) -> Option<&Declaration> {
        self.declared.iter().find(|declaration| declaration.namespace == namespace)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Declaration> + Clone {
        self.declared.iter()
    }

    /// Where a namespace is to be, if anywhere.
    pub(crate) fn wanted(&self, namespace: DriveNamespace) -> Option<Placement> {
        match self.find(namespace) {
            Some(declaration) => declaration.placement,
            None => self.automatic.then_some(Placement::derived(SubsystemPlace::DEFAULT)),
        }
    }

    pub(crate) fn declare(
        &mut self,
        namespace: DriveNamespace,
        placement: Option<Placement>,
    ) -> Result<(), ChangeError> {
        if let Some(known) = self.declared.iter_mut().find(|known| known.namespace == namespace) {
            known.placement = placement;
            return Ok(());
        }
        let declaration = Declaration { namespace, placement };
        self.declared.push(declaration).map_err(|_| ChangeError::TooManyNamespaces)
    }

    pub(crate) fn forget(&mut self, namespace: DriveNamespace) {
        self.declared.retain(|declaration| declaration.namespace != namespace);
    }

    /// All that was declared to be in a subsystem is in none.
    pub(crate) fn detach_all_of(&mut self, subsystem: SubsystemPlace) {
        for declaration in &mut self.declared {
            let is_there = declaration.placement.is_some_and(|placement| placement.subsystem == subsystem);
            if is_there {
                declaration.placement = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: SubsystemPlace = SubsystemPlace(3);

    #[test]
    fn what_nobody_has_declared_is_in_the_default_subsystem_unless_that_is_off() {
        let mut all = Placements::default();
        let derived = Placement::derived(SubsystemPlace::DEFAULT);
        assert_eq!(all.wanted([1; 16]), Some(derived));
        all.declare([1; 16], Some(Placement::derived(HERE))).unwrap();
        all.automatic = false;
        assert_eq!((all.wanted([1; 16]), all.wanted([2; 16])), (Some(Placement::derived(HERE)), None));
        all.automatic = true;
        all.detach_all_of(HERE);
        assert_eq!(all.wanted([1; 16]), None, "what was in a deleted subsystem shows nowhere by itself");
        all.forget([1; 16]);
        assert_eq!(all.wanted([1; 16]), Some(derived));
    }

    #[test]
    fn there_is_a_limit() {
        let mut all = Placements::default();
        for number in 0..MAX_NAMESPACES as u8 {
            assert_eq!(all.declare([number; 16], None), Ok(()));
        }
        assert_eq!(all.declare([200; 16], None), Err(ChangeError::TooManyNamespaces));
        assert_eq!(all.declare([0; 16], Some(Placement::derived(HERE))), Ok(()));
    }
}
