//! What is declared of a card, made of the changes that lead there, or read from a file; and the changes from one to the other.

use std::collections::{BTreeMap, BTreeSet};

use message::configuration::{
    ConfigurationChange as Change, DriveNamespace, NamespaceSetting, Nqn, PortAccess, SubsystemSetting,
};

/// What is declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// By NQN. The default subsystem is among them if something is declared of it.
    pub subsystems: BTreeMap<Nqn, Subsystem>,
    /// What is declared to be attached, or, with `None`, to be in no subsystem.
    pub namespaces: BTreeMap<DriveNamespace, Option<NamespaceSetting>>,
    /// Whether namespaces of which nothing is declared are in the default subsystem; `None` where nothing is said.
    pub automatic: Option<bool>,
    /// By PORTID.
    pub access: BTreeMap<u16, PortAccess>,
    /// By PORTID: whether hosts can connect.
    pub listeners: BTreeMap<u16, bool>,
}

/// A subsystem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subsystem {
    /// Serial number and model; the default subsystem has its own.
    pub names: Option<(heapless::String<20>, heapless::String<40>)>,
    /// `None` where nothing is said of the default subsystem.
    pub any_host: Option<bool>,
    /// Hosts that are allowed by name.
    pub hosts: BTreeSet<Nqn>,
}

impl Declared {
    /// What changes lead to, as a card takes them.
    pub fn of(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut declared = Self::default();
        for change in changes {
            declared.make(change);
        }
        declared
    }

    fn make(&mut self, change: Change) {
        let of = |subsystems: &mut BTreeMap<Nqn, Subsystem>, nqn: &Nqn, make: &dyn Fn(&mut Subsystem)| {
            make(subsystems.entry(nqn.clone()).or_default());
        };
        match change {
            Change::CreateSubsystem(SubsystemSetting { nqn, serial, model, any_host }) => {
                of(&mut self.subsystems, &nqn, &|of| {
                    (of.names, of.any_host) = (Some((serial.clone(), model.clone())), Some(any_host));
                });
            }
            Change::DeleteSubsystem { subsystem } => {
                self.subsystems.remove(&subsystem);
                let of_it = |of: &&mut Option<NamespaceSetting>| {
                    of.as_ref().is_some_and(|of| of.subsystem == subsystem)
                };
                self.namespaces.values_mut().filter(of_it).for_each(|of| *of = None);
            }
            Change::SetAnyHost { subsystem, any_host } => {
                of(&mut self.subsystems, &subsystem, &|of| of.any_host = Some(any_host));
            }
            Change::AllowHost { subsystem, host } => {
                of(&mut self.subsystems, &subsystem, &|of| _ = of.hosts.insert(host.clone()));
            }
            Change::DisallowHost { subsystem, host } => {
                of(&mut self.subsystems, &subsystem, &|of| _ = of.hosts.remove(&host));
            }
            Change::AttachNamespace(setting) => _ = self.namespaces.insert(setting.namespace, Some(setting)),
            Change::DetachNamespace { namespace } => _ = self.namespaces.insert(namespace, None),
            Change::ReleaseNamespace { namespace } => _ = self.namespaces.remove(&namespace),
            Change::SetAutomatic { automatic } => self.automatic = Some(automatic),
            Change::SetPortAccess { port, access } => _ = self.access.insert(port, access),
            Change::SetListener { port, enabled } => _ = self.listeners.insert(port, enabled),
        }
    }

    /// The changes that lead from here to `wanted`, in an order in which a card can make them. Of what `wanted` says nothing, nothing is
    /// changed, but subsystems and namespaces that it does not name are none.
    pub fn changes_to(&self, wanted: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let is_gone = |nqn: &Nqn, of: &Subsystem| {
            // One that is to have other names is another one.
            of.names.is_some() && wanted.subsystems.get(nqn).is_none_or(|wanted| wanted.names != of.names)
        };
        let gone: BTreeSet<&Nqn> =
            self.subsystems.iter().filter(|(nqn, of)| is_gone(nqn, of)).map(|(nqn, _)| nqn).collect();
        changes.extend(gone.iter().map(|&nqn| Change::DeleteSubsystem { subsystem: nqn.clone() }));
        for (namespace, of) in &self.namespaces {
            let stays = wanted.namespaces.get(namespace);
            let is_detached = of.as_ref().is_none_or(|of| gone.contains(&of.subsystem));
            if stays != Some(of) && !is_detached {
                changes.push(Change::DetachNamespace { namespace: *namespace });
            }
            if stays.is_none() {
                changes.push(Change::ReleaseNamespace { namespace: *namespace });
            }
        }
        // Before namespaces are attached that were in the default subsystem by themselves.
        if let Some(automatic) = wanted.automatic.filter(|_| self.automatic != wanted.automatic) {
            changes.push(Change::SetAutomatic { automatic });
        }
        for (nqn, of) in &wanted.subsystems {
            let known = self.subsystems.get(nqn).filter(|_| !gone.contains(nqn));
            self.subsystem_changes(nqn, known, of, &mut changes);
        }
        for (namespace, of) in &wanted.namespaces {
            let known = self.namespaces.get(namespace);
            let is_there = known == Some(of) && of.as_ref().is_none_or(|of| !gone.contains(&of.subsystem));
            if is_there {
                continue;
            }
            match of {
                Some(of) => {
                    if known.is_none() {
                        // It may be in the default subsystem by itself.
                        changes.push(Change::DetachNamespace { namespace: *namespace });
                    }
                    changes.push(Change::AttachNamespace(of.clone()));
                }
                None if known.is_none() => changes.push(Change::DetachNamespace { namespace: *namespace }),
                None => {}
            }
        }
        let access = wanted.access.iter().filter(|(port, access)| self.access.get(port) != Some(access));
        changes.extend(access.map(|(&port, &access)| Change::SetPortAccess { port, access }));
        let listeners = wanted.listeners.iter().filter(|(port, on)| self.listeners.get(port) != Some(on));
        changes.extend(listeners.map(|(&port, &enabled)| Change::SetListener { port, enabled }));
        changes
    }

    fn subsystem_changes(
        &self,
        nqn: &Nqn,
        known: Option<&Subsystem>,
        wanted: &Subsystem,
        changes: &mut Vec<Change>,
    ) {
        let none = Subsystem::default();
        if let (None, Some((serial, model))) = (known, &wanted.names) {
            changes.push(Change::CreateSubsystem(SubsystemSetting {
                nqn: nqn.clone(),
                serial: serial.clone(),
                model: model.clone(),
                any_host: wanted.any_host.unwrap_or(false),
            }));
        }
        let is_new = known.is_none() && wanted.names.is_some();
        let known = known.unwrap_or(&none);
        let allowed = wanted.hosts.difference(&known.hosts);
        changes.extend(allowed.map(|host| Change::AllowHost { subsystem: nqn.clone(), host: host.clone() }));
        // Behind those that are allowed: who may stay is not cut off.
        if let Some(any_host) = wanted.any_host.filter(|_| !is_new && known.any_host != wanted.any_host) {
            changes.push(Change::SetAnyHost { subsystem: nqn.clone(), any_host });
        }
        let disallowed = known.hosts.difference(&wanted.hosts);
        changes.extend(
            disallowed.map(|host| Change::DisallowHost { subsystem: nqn.clone(), host: host.clone() }),
        );
    }
}

#[cfg(test)]
mod tests;
