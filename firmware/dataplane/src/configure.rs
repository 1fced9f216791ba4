//! Changes of what is declared, one at a time: subsystems, allowed hosts, namespaces and ports, live
//! (docs/design/live-configuration.md).
//!
//! Control gives each change to every data core, to the registrar's core last, and each tells when nothing is left there of how
//! it was before. Subsystems and hosts every core has for itself. Namespaces and ANA states the registrar's core changes on all
//! cores by its own messages, so that none is told of a namespace before all serve it.

use controller::identity::LAST_NSID;
use controller::{AnaStart, AnaState, Namespace, PortId, SubsystemPlace};
use hal_api::{FrameQueue, Instant, NvmeDevice};
use message::configuration::{
    ChangeError, ConfigurationChange, DriveNamespace, NamespaceSetting, PortAccess,
};

use crate::data_core::DataCore;
use crate::placements::Placement;

/// Names a change that this core has been given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeTicket(u32);

/// The changes of this core.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    last: u32,
    /// The last is not complete; it concerns this subsystem.
    pending: Option<SubsystemPlace>,
    /// Bit n: nobody can connect by the port in place n.
    closed_ports: u8,
}

impl Changes {
    /// Whether hosts can connect by the port in this place.
    pub(crate) fn is_open(&self, place: u8) -> bool {
        self.closed_ports & 1u8.checked_shl(u32::from(place)).unwrap_or(0) == 0
    }
}

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// Whether namespaces of which nothing is declared are in the default subsystem: for a card that knows before it serves. Else
    /// it is [`ConfigurationChange::SetAutomatic`].
    pub fn attach_automatically(&mut self, automatic: bool) {
        self.registry.placements.automatic = automatic;
    }

    /// Makes a change on this core. It is complete when [`Self::change_done`] says so; there is one at a time.
    ///
    /// # Errors
    /// [`ChangeError`]: nothing has changed.
    pub fn change(
        &mut self,
        change: &ConfigurationChange,
        now: Instant,
    ) -> Result<ChangeTicket, ChangeError> {
        if !self.is_last_change_done() {
            return Err(ChangeError::Busy);
        }
        let concerned = match change {
            ConfigurationChange::AttachNamespace(setting) => self.attach_namespace(setting)?,
            ConfigurationChange::DetachNamespace { namespace } => self.detach_namespace(*namespace, now)?,
            ConfigurationChange::ReleaseNamespace { namespace } => self.release_namespace(*namespace)?,
            ConfigurationChange::SetAutomatic { automatic } => self.set_automatic(*automatic, now),
            ConfigurationChange::SetPortAccess { port, access } => self.set_port_access(*port, *access)?,
            ConfigurationChange::SetListener { port, enabled } => self.set_listener(*port, *enabled, now)?,
            of_directory => self.change_directory(of_directory, now)?,
        };
        self.changes.last = self.changes.last.wrapping_add(1);
        self.changes.pending = Some(concerned);
        Ok(ChangeTicket(self.changes.last))
    }

    /// Makes a change that was declared before the card started: all cores are given it before any of them runs, and it is complete at
    /// once.
    ///
    /// # Errors
    /// [`ChangeError`]: nothing has changed.
    pub fn restore(&mut self, change: &ConfigurationChange, now: Instant) -> Result<(), ChangeError> {
        if let ConfigurationChange::SetPortAccess { port, access } = *change {
            self.port_place(port)?;
            // There is no I/O to wait for, and the others are told as this one is.
            self.subsystem.set_ana_state(PortId(port), ana_state(access));
            return Ok(());
        }
        let ticket = self.change(change, now)?;
        let is_done = self.change_done(ticket);
        debug_assert!(is_done, "there is nothing to wait for before the card serves");
        Ok(())
    }

    /// Whether a change is complete here: what it has ended, it has ended. On the registrar's core also on the others, as far as
    /// namespaces and ANA states are concerned.
    pub fn change_done(&mut self, ticket: ChangeTicket) -> bool {
        ticket.0 != self.changes.last || self.is_last_change_done()
    }

    fn is_last_change_done(&mut self) -> bool {
        let Some(concerned) = self.changes.pending else { return true };
        if self.subsystem.has_unconfirmed(concerned) || self.target.has_leftovers(&self.subsystem, concerned)
        {
            return false;
        }
        self.subsystem.forget_deleted();
        self.changes.pending = None;
        true
    }

    /// Subsystems and hosts. Answers which subsystem is concerned.
    fn change_directory(
        &mut self,
        change: &ConfigurationChange,
        now: Instant,
    ) -> Result<SubsystemPlace, ChangeError> {
        let is_new = match change {
            ConfigurationChange::CreateSubsystem(setting) => self.subsystem.create_subsystem(setting)?,
            ConfigurationChange::SetAnyHost { subsystem, any_host } => {
                self.subsystem.set_any_host(subsystem, *any_host)?
            }
            ConfigurationChange::AllowHost { subsystem, host } => {
                self.subsystem.allow_host(subsystem, host)?
            }
            ConfigurationChange::DisallowHost { subsystem, host } => {
                self.subsystem.disallow_host(subsystem, host)?
            }
            ConfigurationChange::DeleteSubsystem { subsystem } => {
                let Some(place) = self.subsystem.delete_subsystem(subsystem)? else {
                    return Ok(SubsystemPlace::DISCOVERY);
                };
                self.take_away_all_of(place, now);
                self.follow_directory();
                return Ok(place);
            }
            _ => false,
        };
        let (ConfigurationChange::SetAnyHost { subsystem, .. }
        | ConfigurationChange::AllowHost { subsystem, .. }
        | ConfigurationChange::DisallowHost { subsystem, .. }
        | ConfigurationChange::CreateSubsystem(message::configuration::SubsystemSetting {
            nqn: subsystem,
            ..
        })) = change
        else {
            return Ok(SubsystemPlace::DISCOVERY);
        };
        if is_new {
            self.follow_directory();
        }
        Ok(self.subsystem.find_subsystem(subsystem).unwrap_or(SubsystemPlace::DISCOVERY))
    }

    /// Controllers that may not stay end, and the discovery log is a new one, once all cores have it.
    fn follow_directory(&mut self) {
        if self.subsystem.end_unwelcome() > 0 {
            self.target.cut_orphans(&self.subsystem);
        }
        if self.subsystem.is_registrar() {
            self.subsystem.note_directory_change();
            self.report_addresses();
        }
    }

    fn take_away_all_of(&mut self, place: SubsystemPlace, now: Instant) {
        if !self.subsystem.is_registrar() {
            return;
        }
        self.registry.placements.detach_all_of(place);
        while let Some(key) =
            self.subsystem.namespaces().iter().find(|namespace| namespace.subsystem == place).map(|of| of.key)
        {
            self.take_away(key, now);
        }
    }

    fn attach_namespace(&mut self, setting: &NamespaceSetting) -> Result<SubsystemPlace, ChangeError> {
        let subsystem = self.subsystem.find_subsystem(&setting.subsystem);
        let subsystem = subsystem.ok_or(ChangeError::NoSuchSubsystem)?;
        let NamespaceSetting { namespace, nsid, uuid, nguid, .. } = *setting;
        let is_nsid = nsid.is_none_or(|nsid| (1..=LAST_NSID).contains(&nsid));
        if !is_nsid || uuid == Some([0; 16]) || nguid == Some([0; 16]) {
            return Err(ChangeError::InvalidNamespace);
        }
        if !self.subsystem.is_registrar() {
            return Ok(subsystem);
        }
        let placement = Placement { subsystem, nsid, uuid, nguid };
        let known = self.registry.of_identity(namespace).copied();
        self.check_placement(namespace, &placement, known.as_ref())?;
        self.registry.placements.declare(namespace, Some(placement))?;
        if let Some(known) = known {
            // Nothing is in its way: else it would have been found, and it goes on waiting.
            let _ = self.place(known.key);
        }
        Ok(subsystem)
    }

    /// Whether a namespace may be declared to be there.
    fn check_placement(
        &self,
        namespace: DriveNamespace,
        placement: &Placement,
        known: Option<&Namespace>,
    ) -> Result<(), ChangeError> {
        let placements = &self.registry.placements;
        match placements.find(namespace).map(|declared| declared.placement) {
            Some(Some(other)) if other == *placement => return Ok(()),
            Some(Some(_)) => return Err(ChangeError::AttachedOtherwise),
            Some(None) | None => {}
        }
        let attached = known.and_then(|known| self.subsystem.attached(known.key));
        if let (Some(attached), Some(known)) = (attached, known) {
            let wanted = placement.apply(known);
            let names = |of: &Namespace| (of.subsystem, of.nsid, of.uuid, of.nguid);
            return if names(attached) == names(&wanted) {
                Ok(())
            } else {
                Err(ChangeError::AttachedOtherwise)
            };
        }
        let own_key = known.map(|known| known.key);
        let nsid = placement.nsid.or(own_key);
        let others = || self.subsystem.namespaces().iter().filter(|other| Some(other.key) != own_key);
        let is_there = |other: &Namespace| other.subsystem == placement.subsystem;
        let mut declared = placements
            .iter()
            .filter(|other| other.namespace != namespace)
            .filter_map(|other| other.placement);
        let mut of_subsystem = declared.clone().filter(|other| other.subsystem == placement.subsystem);
        if others().any(|other| is_there(other) && Some(other.nsid) == nsid)
            || of_subsystem.any(|other| other.nsid.is_some() && other.nsid == nsid)
        {
            return Err(ChangeError::NsidTaken);
        }
        let has_uuid = |uuid| placement.uuid.is_some_and(|wanted| wanted == uuid);
        let has_nguid = |nguid| placement.nguid.is_some_and(|wanted| wanted == nguid);
        let mut other_drives = self.registry.known.iter().filter(|other| Some(other.key) != own_key);
        if others().any(|other| has_uuid(other.uuid) || has_nguid(other.nguid))
            || other_drives.any(|other| has_uuid(other.uuid) || has_nguid(other.nguid))
            || declared.any(|other| other.uuid.is_some_and(has_uuid) || other.nguid.is_some_and(has_nguid))
        {
            return Err(ChangeError::NameTaken);
        }
        Ok(())
    }

    fn detach_namespace(
        &mut self,
        namespace: DriveNamespace,
        now: Instant,
    ) -> Result<SubsystemPlace, ChangeError> {
        if self.subsystem.is_registrar() {
            self.registry.placements.declare(namespace, None)?;
            if let Some(key) = self.registry.of_identity(namespace).map(|known| known.key) {
                self.take_away(key, now);
            }
            // Its NSID is free for another one.
            self.place_all();
        }
        Ok(SubsystemPlace::DISCOVERY)
    }

    fn release_namespace(&mut self, namespace: DriveNamespace) -> Result<SubsystemPlace, ChangeError> {
        if self.subsystem.is_registrar() {
            let declared = self.registry.placements.find(namespace);
            if declared.is_some_and(|declared| declared.placement.is_some()) {
                return Err(ChangeError::IsAttached);
            }
            self.registry.placements.forget(namespace);
            self.place_all();
        }
        Ok(SubsystemPlace::DISCOVERY)
    }

    fn set_automatic(&mut self, automatic: bool, now: Instant) -> SubsystemPlace {
        self.registry.placements.automatic = automatic;
        for index in 0..self.registry.known.len() {
            let Some(known) = self.registry.known.get(index) else { break };
            let key = known.key;
            if self.registry.placements.wanted(known.uuid).is_none() {
                self.take_away(key, now);
            }
        }
        self.place_all();
        SubsystemPlace::DISCOVERY
    }

    fn port_place(&self, port: u16) -> Result<u8, ChangeError> {
        let place = port.checked_sub(1).and_then(|place| u8::try_from(place).ok());
        place.filter(|place| usize::from(*place) < self.stacks.len()).ok_or(ChangeError::NoSuchPort)
    }

    fn set_port_access(&mut self, port: u16, access: PortAccess) -> Result<SubsystemPlace, ChangeError> {
        self.port_place(port)?;
        if self.subsystem.is_registrar()
            && self.subsystem.set_ana_state_everywhere(PortId(port), ana_state(access)) == AnaStart::Busy
        {
            return Err(ChangeError::Busy);
        }
        Ok(SubsystemPlace::DISCOVERY)
    }

    fn set_listener(
        &mut self,
        port: u16,
        enabled: bool,
        now: Instant,
    ) -> Result<SubsystemPlace, ChangeError> {
        let place = self.port_place(port)?;
        let bit = 1u8.checked_shl(u32::from(place)).unwrap_or(0);
        if enabled {
            self.changes.closed_ports &= !bit;
        } else {
            self.changes.closed_ports |= bit;
            self.cut_off(now, |of| of == place);
        }
        if self.subsystem.is_registrar() {
            self.report_addresses();
        }
        Ok(SubsystemPlace::DISCOVERY)
    }
}

const fn ana_state(access: PortAccess) -> AnaState {
    match access {
        PortAccess::Optimized => AnaState::Optimized,
        PortAccess::NonOptimized => AnaState::NonOptimized,
        PortAccess::Inaccessible => AnaState::Inaccessible,
        PortAccess::PersistentLoss => AnaState::PersistentLoss,
    }
}
