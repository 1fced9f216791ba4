//! The NVM subsystems of the card, and which hosts may connect to them (docs/design/live-configuration.md).
//!
//! Each data core has the whole table. A host NQN stands in it once, whatever subsystems allow it: those have a bit for each.

use hal_mem::{Arena, OutOfMemory};
use heapless::String;
use message::configuration::{
    ChangeError, MAX_ALLOWED_HOSTS, MAX_SUBSYSTEMS, Nqn, SubsystemPlace, SubsystemSetting,
};
use nvme::fabrics::DISCOVERY_NQN;

use crate::config::{SubsystemConfig, padded};
use crate::delegate::digest;
use crate::slot::Controller;
use crate::subsystem::Subsystem;

/// An NVM subsystem.
#[derive(Debug)]
pub(crate) struct NvmSubsystem {
    pub(crate) nqn: Nqn,
    /// SN, and as it was given.
    pub(crate) serial: [u8; 20],
    /// MN.
    pub(crate) model: [u8; 40],
    any_host: bool,
    /// Bit n: host n may connect.
    hosts: u64,
    /// It is deleted; its place is not free before all that was in it has ended.
    ending: bool,
}

impl NvmSubsystem {
    fn of(setting: &SubsystemSetting) -> Self {
        Self {
            nqn: setting.nqn.clone(),
            serial: padded(&setting.serial),
            model: padded(&setting.model),
            any_host: setting.any_host,
            hosts: 0,
            ending: false,
        }
    }

    fn is_as(&self, setting: &SubsystemSetting) -> bool {
        let same_names = self.serial == padded(&setting.serial) && self.model == padded(&setting.model);
        same_names && self.any_host == setting.any_host
    }

    /// What is declared of it.
    fn setting(&self) -> SubsystemSetting {
        SubsystemSetting {
            nqn: self.nqn.clone(),
            serial: unpadded(&self.serial),
            model: unpadded(&self.model),
            any_host: self.any_host,
        }
    }
}

/// Room for subsystems besides the default one, and for the hosts that any of them allows.
#[derive(Debug)]
pub struct DirectoryRoom {
    subsystems: &'static mut [Option<NvmSubsystem>],
    hosts: &'static mut [Option<Nqn>],
}

impl DirectoryRoom {
    /// Room for as many as there can be.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the arena is too small.
    pub fn new(arena: &mut Arena) -> Result<Self, OutOfMemory> {
        Ok(Self {
            subsystems: arena.slice(MAX_SUBSYSTEMS - 1, |_| None)?,
            hosts: arena.slice(MAX_ALLOWED_HOSTS, |_| None)?,
        })
    }
}

/// All subsystems, and the hosts that they allow.
#[derive(Debug)]
pub(crate) struct Directory {
    default: NvmSubsystem,
    room: Option<DirectoryRoom>,
}

impl Directory {
    /// The default subsystem alone, for any host.
    pub(crate) fn new(config: &SubsystemConfig) -> Self {
        let default = NvmSubsystem {
            nqn: config.nqn.clone(),
            serial: config.serial,
            model: config.model,
            any_host: true,
            hosts: 0,
            ending: false,
        };
        Self { default, room: None }
    }

    fn get(&self, place: SubsystemPlace) -> Option<&NvmSubsystem> {
        match place {
            SubsystemPlace::DEFAULT => Some(&self.default),
            SubsystemPlace(other) => {
                let others = self.room.as_ref()?;
                others.subsystems.get(usize::from(other) - 1)?.as_ref()
            }
        }
    }

    fn get_mut(&mut self, place: SubsystemPlace) -> Option<&mut NvmSubsystem> {
        match place {
            SubsystemPlace::DEFAULT => Some(&mut self.default),
            SubsystemPlace(other) => {
                let others = self.room.as_mut()?;
                others.subsystems.get_mut(usize::from(other) - 1)?.as_mut()
            }
        }
    }

    /// Those that are not deleted, in the order of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SubsystemPlace, &NvmSubsystem)> {
        let others = self.room.as_ref().map_or(&[][..], |room| &*room.subsystems);
        let others = others.iter().zip(1u8..).filter_map(|(entry, place)| Some((place, entry.as_ref()?)));
        core::iter::once((0, &self.default))
            .chain(others)
            .filter(|(_, subsystem)| !subsystem.ending)
            .map(|(place, subsystem)| (SubsystemPlace(place), subsystem))
    }

    pub(crate) fn nqn_of(&self, place: SubsystemPlace) -> &str {
        self.get(place).map_or("", |subsystem| &subsystem.nqn)
    }

    pub(crate) fn find(&self, nqn: &str) -> Option<SubsystemPlace> {
        self.iter().find(|(_, subsystem)| subsystem.nqn == nqn).map(|(place, _)| place)
    }

    fn host_bit(&self, host: &str) -> u64 {
        let hosts = self.room.as_ref().map_or(&[][..], |room| &*room.hosts);
        let found = hosts.iter().position(|entry| entry.as_ref().is_some_and(|known| known == host));
        found.map_or(0, bit)
    }

    /// Whether this host may connect to the subsystem in this place.
    pub(crate) fn lets_in(&self, place: SubsystemPlace, host: &str) -> bool {
        let Some(subsystem) = self.get(place).filter(|subsystem| !subsystem.ending) else { return false };
        subsystem.any_host || subsystem.hosts != 0 && subsystem.hosts & self.host_bit(host) != 0
    }

    /// The bit of a host, which gets one where it has none.
    fn enter_host(&mut self, host: &Nqn) -> Result<u64, ChangeError> {
        let known = self.host_bit(host);
        if known != 0 {
            return Ok(known);
        }
        let room = self.room.as_mut().ok_or(ChangeError::NotHere)?;
        let free = room.hosts.iter_mut().zip(0..).find(|(entry, _)| entry.is_none());
        let (entry, number) = free.ok_or(ChangeError::TooManyHosts)?;
        *entry = Some(host.clone());
        Ok(bit(number))
    }

    /// Hosts that nobody allows have no bit any more.
    fn drop_unused_hosts(&mut self) {
        let Some(room) = &mut self.room else { return };
        let others = room.subsystems.iter().flatten().fold(0, |hosts, subsystem| hosts | subsystem.hosts);
        let used = others | self.default.hosts;
        for (entry, number) in room.hosts.iter_mut().zip(0..).filter(|(_, number)| used & bit(*number) == 0) {
            let _ = number;
            *entry = None;
        }
    }
}

fn bit(number: usize) -> u64 {
    1u64.checked_shl(number as u32).unwrap_or(0)
}

/// A padded field without its blanks.
fn unpadded<const N: usize>(field: &[u8; N]) -> String<N> {
    let text = core::str::from_utf8(field).unwrap_or_default();
    // A field has room for itself.
    String::try_from(text.trim_end_matches(' ')).unwrap_or_default()
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && !text.ends_with(' ')
}

/// Whether hosts can name something so (Base 4.5): discovery's name is not free.
fn is_name(nqn: &str) -> bool {
    !nqn.is_empty() && !nqn.contains('\0') && nqn != DISCOVERY_NQN
}

impl Subsystem {
    /// From now on there can be other subsystems than the default one, and hosts that are allowed by name.
    pub fn make_room(&mut self, room: DirectoryRoom) {
        self.directory.room = Some(room);
    }

    /// Makes a subsystem that nobody may connect to by name yet. True where it is new; false where there is one just like it.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub fn create_subsystem(&mut self, setting: &SubsystemSetting) -> Result<bool, ChangeError> {
        if !is_name(&setting.nqn) || !is_printable(&setting.serial) || !is_printable(&setting.model) {
            return Err(ChangeError::InvalidName);
        }
        if let Some(found) = self.directory.find(&setting.nqn).and_then(|place| self.directory.get(place)) {
            return if found.is_as(setting) { Ok(false) } else { Err(ChangeError::SubsystemExists) };
        }
        let room = self.directory.room.as_mut().ok_or(ChangeError::NotHere)?;
        let free = room.subsystems.iter_mut().zip(1u8..).find(|(entry, _)| entry.is_none());
        let (entry, place) = free.ok_or(ChangeError::TooManySubsystems)?;
        let place = SubsystemPlace(place);
        // The first core has not made an earlier deletion: what is left of that one would be this one's.
        let has_controllers = self.slots.iter().filter_map(|slot| slot.controller.as_ref());
        if !self.namespaces.of(place).is_empty()
            || has_controllers.into_iter().any(|of| of.subsystem == place)
        {
            return Err(ChangeError::Busy);
        }
        *entry = Some(NvmSubsystem::of(setting));
        Ok(true)
    }

    /// Deletes a subsystem: nobody can connect to it any more. Its place is free after [`Self::forget_deleted`]. `None` where
    /// there is none.
    ///
    /// # Errors
    /// [`ChangeError::IsDefault`].
    pub fn delete_subsystem(&mut self, nqn: &str) -> Result<Option<SubsystemPlace>, ChangeError> {
        let Some(place) = self.directory.find(nqn) else { return Ok(None) };
        if place == SubsystemPlace::DEFAULT {
            return Err(ChangeError::IsDefault);
        }
        if let Some(subsystem) = self.directory.get_mut(place) {
            (subsystem.ending, subsystem.hosts) = (true, 0);
        }
        self.directory.drop_unused_hosts();
        Ok(Some(place))
    }

    /// All that was in deleted subsystems has ended: their places are free.
    pub fn forget_deleted(&mut self) {
        let Some(room) = &mut self.directory.room else { return };
        for entry in room.subsystems.iter_mut() {
            if entry.as_ref().is_some_and(|subsystem| subsystem.ending) {
                *entry = None;
            }
        }
    }

    /// Says whether any host may connect to a subsystem. True where that is new. Controllers that may not stay are left:
    /// [`Self::end_unwelcome`].
    ///
    /// # Errors
    /// [`ChangeError::NoSuchSubsystem`].
    pub fn set_any_host(&mut self, nqn: &str, any_host: bool) -> Result<bool, ChangeError> {
        let place = self.directory.find(nqn).ok_or(ChangeError::NoSuchSubsystem)?;
        let subsystem = self.directory.get_mut(place).ok_or(ChangeError::NoSuchSubsystem)?;
        Ok(core::mem::replace(&mut subsystem.any_host, any_host) != any_host)
    }

    /// Lets a host connect to a subsystem. True where that is new.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing has changed then.
    pub fn allow_host(&mut self, nqn: &str, host: &Nqn) -> Result<bool, ChangeError> {
        let place = self.directory.find(nqn).ok_or(ChangeError::NoSuchSubsystem)?;
        if !is_name(host) {
            return Err(ChangeError::InvalidName);
        }
        let bit = self.directory.enter_host(host)?;
        let subsystem = self.directory.get_mut(place).ok_or(ChangeError::NoSuchSubsystem)?;
        let is_new = subsystem.hosts & bit == 0;
        subsystem.hosts |= bit;
        Ok(is_new)
    }

    /// Lets a host connect to a subsystem no more by its name. True where it might before.
    ///
    /// # Errors
    /// [`ChangeError::NoSuchSubsystem`].
    pub fn disallow_host(&mut self, nqn: &str, host: &str) -> Result<bool, ChangeError> {
        let place = self.directory.find(nqn).ok_or(ChangeError::NoSuchSubsystem)?;
        let bit = self.directory.host_bit(host);
        let subsystem = self.directory.get_mut(place).ok_or(ChangeError::NoSuchSubsystem)?;
        let was_allowed = subsystem.hosts & bit != 0;
        subsystem.hosts &= !bit;
        self.directory.drop_unused_hosts();
        Ok(was_allowed)
    }

    /// A digest of the NQN of the subsystem in this place; 0 where there is none. Should a change have been made on some cores and
    /// not on others, it keeps one subsystem's namespaces out of another's.
    #[must_use]
    pub fn stamp_of(&self, place: SubsystemPlace) -> u32 {
        let found = self.directory.get(place).filter(|subsystem| !subsystem.ending);
        found.map_or(0, |subsystem| digest(&[&subsystem.nqn]) as u32)
    }

    /// The place of the subsystem of this NQN.
    #[must_use]
    pub fn find_subsystem(&self, nqn: &str) -> Option<SubsystemPlace> {
        self.directory.find(nqn)
    }

    /// All subsystems with what is declared of them and the number of hosts that are allowed by name, from this place on.
    pub fn subsystems(
        &self,
        first: SubsystemPlace,
    ) -> impl Iterator<Item = (SubsystemPlace, SubsystemSetting, u8)> {
        let from = self.directory.iter().filter(move |(place, _)| *place >= first);
        from.map(|(place, subsystem)| (place, subsystem.setting(), subsystem.hosts.count_ones() as u8))
    }

    /// The hosts that a subsystem allows by name, each with its number.
    pub fn allowed_hosts(&self, place: SubsystemPlace) -> impl Iterator<Item = (u8, &Nqn)> {
        let hosts = self.directory.get(place).map_or(0, |subsystem| subsystem.hosts);
        let known = self.directory.room.as_ref().map_or(&[][..], |room| &*room.hosts);
        let named = known.iter().zip(0u8..).filter_map(|(entry, number)| Some((number, entry.as_ref()?)));
        named.filter(move |(number, _)| hosts & bit(usize::from(*number)) != 0)
    }

    /// Ends the controllers that live here and whose host may not, or not any more, connect to their subsystem. Returns
    /// how many.
    pub fn end_unwelcome(&mut self) -> u32 {
        self.end_controllers(|subsystem, controller| {
            let place = controller.subsystem;
            place.is_discovery() || subsystem.directory.lets_in(place, &controller.host_nqn)
        })
    }

    /// The controller's own subsystem; the default one stands for discovery, which has no names of its own.
    pub(crate) fn nvm_subsystem(&self, controller: &Controller) -> &NvmSubsystem {
        self.directory.get(controller.subsystem).unwrap_or(&self.directory.default)
    }
}

#[cfg(test)]
mod tests;
