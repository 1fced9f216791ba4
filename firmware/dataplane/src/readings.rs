//! What is declared and what is so, for an operator to read back, a page at a time.

use controller::{Namespace, SubsystemPlace};
use hal_api::{FrameQueue, NvmeDevice};
use message::configuration::{
    Declared, HostReadings, NamespaceReading, NamespaceReadings, NamespaceState, SubsystemReading,
    SubsystemReadings,
};

use crate::data_core::DataCore;
use crate::placements::{Declaration, Placement};

/// Numbers of namespaces whose drives are missing begin here.
const FIRST_MISSING: u8 = 64;

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// Subsystems from this place on, with the controllers that live on this core.
    #[must_use]
    pub fn subsystems(&self, first: SubsystemPlace) -> SubsystemReadings {
        let mut page = SubsystemReadings::new();
        for (place, setting, allowed_hosts) in self.subsystem.subsystems(first) {
            let namespaces = self.subsystem.namespaces().iter().filter(|of| of.subsystem == place).count();
            let controllers = self.subsystem.controllers_of(place) as u16;
            let namespaces = namespaces as u8;
            let reading = SubsystemReading { place, setting, allowed_hosts, namespaces, controllers };
            if page.push(reading).is_err() {
                break;
            }
        }
        page
    }

    /// Hosts that a subsystem allows by name, from this number on.
    #[must_use]
    pub fn allowed_hosts(&self, place: SubsystemPlace, first: u8) -> HostReadings {
        let mut page = HostReadings::new();
        let from = self.subsystem.allowed_hosts(place).filter(|(number, _)| *number >= first);
        for (number, host) in from {
            if page.push((number, host.clone())).is_err() {
                break;
            }
        }
        page
    }

    /// Namespaces of drives, and declared ones, from this number on. The registrar's core, the first, alone knows of them.
    #[must_use]
    pub fn namespaces(&self, first: u8) -> NamespaceReadings {
        let mut page = NamespaceReadings::new();
        let known = self.registry.known.iter().zip(0u8..);
        let known = known.filter(|(_, number)| *number >= first);
        let known = known.map(|(known, number)| self.read_known(known, number));
        let is_missing = |of: &&Declaration| self.registry.of_identity(of.namespace).is_none();
        let missing = self.registry.placements.iter().filter(is_missing).zip(FIRST_MISSING..);
        let missing = missing.filter(|(_, number)| *number >= first);
        for reading in known.chain(missing.map(|(declared, number)| read_missing(declared, number))) {
            if page.push(reading).is_err() {
                break;
            }
        }
        page
    }

    fn read_known(&self, known: &Namespace, number: u8) -> NamespaceReading {
        let attached = self.subsystem.attached(known.key);
        let declaration = self.registry.placements.find(known.uuid);
        let wanted = self.registry.placements.wanted(known.uuid);
        let state = match (attached, wanted) {
            (Some(attached), _) => NamespaceState::Attached(attached.subsystem),
            (None, Some(_)) => NamespaceState::Refused,
            (None, None) => NamespaceState::Detached,
        };
        let shown = match (attached, wanted) {
            (Some(attached), _) => *attached,
            (None, wanted) => wanted.map_or(*known, |placement: Placement| placement.apply(known)),
        };
        NamespaceReading {
            number,
            namespace: known.uuid,
            drive: Some((known.backend.drive, known.backend.nsid)),
            block_bytes: 1u32.checked_shl(u32::from(known.block_shift)).unwrap_or(0),
            blocks: known.blocks,
            declared: declaration.map_or(Declared::Nothing, declared),
            state,
            nsid: Some(shown.nsid),
            uuid: shown.uuid,
            nguid: shown.nguid,
        }
    }
}

fn declared(declaration: &Declaration) -> Declared {
    declaration.placement.map_or(Declared::Detached, |placement| Declared::Attached(placement.subsystem))
}

fn read_missing(declaration: &Declaration, number: u8) -> NamespaceReading {
    let placement = declaration.placement;
    NamespaceReading {
        number,
        namespace: declaration.namespace,
        drive: None,
        block_bytes: 0,
        blocks: 0,
        declared: declared(declaration),
        state: NamespaceState::Missing,
        nsid: placement.and_then(|placement| placement.nsid),
        uuid: placement.and_then(|placement| placement.uuid).unwrap_or(declaration.namespace),
        nguid: placement.and_then(|placement| placement.nguid).unwrap_or_default(),
    }
}
