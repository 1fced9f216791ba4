//! The NVM subsystems of a card, and the discovery subsystem beside them: namespaces, listeners, controllers.

use core::net::IpAddr;

use hal_api::Instant;
use heapless::Vec;

use crate::ana::{PortId, Ports};
use crate::config::{MAX_LISTENERS, SubsystemConfig};
use crate::cores::Cores;
use crate::directory::Directory;
use crate::lines::Lines;
use crate::lost_writes::{DepartedHosts, RecentlyTold};
use crate::namespace::{AttachError, Namespace, Namespaces};
use crate::slot::{Controller, ControllerHandle, ControllerSlot};

/// An address that hosts connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// PORTID.
    pub port_id: PortId,
    /// TRADDR.
    pub address: IpAddr,
    /// TRSVCID: the TCP port.
    pub port: u16,
}

/// What happened to controllers since the start of the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ControllerCounters {
    /// Controllers that exist now.
    pub live: u32,
    /// Admin queues connected.
    pub connects: u64,
    /// Connect commands refused.
    pub refused_connects: u64,
    /// Controllers removed because their host fell silent.
    pub keep_alive_expired: u64,
    /// Controller resets and shutdowns by hosts.
    pub resets: u64,
    /// Commands that failed.
    pub errors: u64,
}

/// The subsystems of a card, and the controllers that live on this core or have queues on it. One per data core.
#[derive(Debug)]
pub struct Subsystem {
    pub(crate) config: SubsystemConfig,
    pub(crate) directory: Directory,
    pub(crate) namespaces: Namespaces,
    pub(crate) ports: Ports,
    pub(crate) listeners: Vec<Listener, MAX_LISTENERS>,
    /// GENCTR of the discovery log page.
    pub(crate) discovery_generation: u64,
    pub(crate) slots: &'static mut [ControllerSlot],
    pub(crate) last_id: u16,
    pub(crate) counters: ControllerCounters,
    pub(crate) departed: DepartedHosts,
    pub(crate) recently_told: RecentlyTold,
    pub(crate) lines: Lines,
    /// Some host has asked for a shutdown.
    pub(crate) shutdown_asked: bool,
    /// The other data cores; `None` where there are none.
    pub(crate) cores: Option<&'static mut Cores>,
    /// The latest moment that any call has told of.
    pub(crate) now: Instant,
}

impl Subsystem {
    /// The default subsystem without namespaces, for any host, that can have as many controllers as `controllers` has places. Numbers in
    /// `config` that are out of range are brought into it.
    #[must_use]
    pub fn new(config: SubsystemConfig, controllers: &'static mut [ControllerSlot]) -> Self {
        Self {
            directory: Directory::new(&config),
            config: config.clamped(),
            namespaces: Namespaces::new(),
            ports: Ports::new(),
            listeners: Vec::new(),
            discovery_generation: 1,
            slots: controllers,
            last_id: 0,
            counters: ControllerCounters::default(),
            departed: DepartedHosts::new(),
            recently_told: RecentlyTold::new(),
            lines: Lines::new(),
            shutdown_asked: false,
            cores: None,
            now: Instant::ZERO,
        }
    }

    /// The attached namespace of this key.
    #[must_use]
    pub fn attached(&self, key: u32) -> Option<&Namespace> {
        self.namespaces.by_key(key)
    }

    /// What is fixed about the default subsystem, as clamped.
    #[must_use]
    pub fn config(&self) -> &SubsystemConfig {
        &self.config
    }

    /// Adds a namespace; hosts that asked for it are told. An NGUID or EUI-64 that another namespace has already
    /// is left out, as hosts refuse namespaces that share one; NSID and UUID tell them apart.
    ///
    /// # Errors
    /// [`AttachError`]; nothing has changed then.
    pub fn attach(&mut self, mut namespace: Namespace) -> Result<(), AttachError> {
        if self.namespaces.as_slice().iter().any(|other| other.nguid == namespace.nguid) {
            namespace.nguid = [0; 16];
        }
        if self.namespaces.as_slice().iter().any(|other| other.eui64 == namespace.eui64) {
            namespace.eui64 = [0; 8];
        }
        self.namespaces.insert(namespace)?;
        self.raise_namespace_change(namespace.subsystem, namespace.nsid);
        Ok(())
    }

    /// Removes a namespace: commands admitted before are not touched, later ones are refused. False when there is
    /// none with this key.
    pub fn detach(&mut self, key: u32) -> bool {
        let removed = self.namespaces.remove(key);
        if let Some(namespace) = &removed {
            self.raise_namespace_change(namespace.subsystem, namespace.nsid);
        }
        removed.is_some()
    }

    /// Lets an attached namespace lead to where `namespace` of the same key does; hosts see no change. False, and
    /// nothing is done, where none is attached or its blocks or names are others.
    pub fn rebind(&mut self, namespace: &Namespace) -> bool {
        self.namespaces.rebind(namespace)
    }

    /// The attached namespaces in order of subsystem and NSID.
    #[must_use]
    pub fn namespaces(&self) -> &[Namespace] {
        self.namespaces.as_slice()
    }

    /// Says where the NVM subsystem can be reached now, replacing what was said before; at most
    /// [`MAX_LISTENERS`] are kept.
    pub fn set_listeners(&mut self, listeners: &[Listener]) {
        let kept = listeners.get(..MAX_LISTENERS).unwrap_or(listeners);
        if self.listeners.as_slice() != kept {
            self.follow_listeners(kept, self.discovery_generation + 1);
        }
    }

    /// The same as the first data core says, under the generation that it has given them: a host may read the log on any core.
    pub fn follow_listeners(&mut self, listeners: &[Listener], generation: u64) {
        if self.discovery_generation == generation {
            return;
        }
        self.listeners.clear();
        self.listeners.extend(listeners.iter().copied().take(MAX_LISTENERS));
        self.discovery_generation = generation;
        self.raise_discovery_change();
    }

    /// Subsystems or the hosts that they allow are others now, on all cores: the discovery log is a new one. The first core says so.
    pub fn note_directory_change(&mut self) {
        self.discovery_generation += 1;
        self.raise_discovery_change();
    }

    /// Controllers of a subsystem that live on this core.
    #[must_use]
    pub fn controllers_of(&self, subsystem: message::configuration::SubsystemPlace) -> usize {
        let of = |controller: &&Controller| controller.subsystem == subsystem && !controller.is_delegate();
        self.controllers().filter(of).count()
    }

    /// GENCTR of the discovery log page.
    #[must_use]
    pub fn discovery_generation(&self) -> u64 {
        self.discovery_generation
    }

    /// Where the NVM subsystem can be reached, as last said.
    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Whether the controller still exists.
    #[must_use]
    pub fn is_live(&self, handle: ControllerHandle) -> bool {
        self.controller(handle).is_some()
    }

    /// I/O queues that the controller may have connected; 0 when it is gone.
    #[must_use]
    pub fn granted_queues(&self, handle: ControllerHandle) -> u16 {
        self.controller(handle).map_or(0, |controller| controller.granted_queues)
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> ControllerCounters {
        self.counters
    }

    pub(crate) fn controller(&self, handle: ControllerHandle) -> Option<&Controller> {
        let slot = self.slots.get(usize::from(handle.index))?;
        if slot.generation == handle.generation { slot.controller.as_ref() } else { None }
    }

    pub(crate) fn controller_mut(&mut self, handle: ControllerHandle) -> Option<&mut Controller> {
        let slot = self.slots.get_mut(usize::from(handle.index))?;
        if slot.generation == handle.generation { slot.controller.as_mut() } else { None }
    }

    pub(crate) fn controllers(&self) -> impl Iterator<Item = &Controller> {
        self.slots.iter().filter_map(|slot| slot.controller.as_ref())
    }

    pub(crate) fn controllers_mut(&mut self) -> impl Iterator<Item = &mut Controller> {
        self.slots.iter_mut().filter_map(|slot| slot.controller.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, namespace};
    use core::net::Ipv4Addr;
    use message::configuration::SubsystemPlace;

    #[test]
    fn a_second_drive_with_the_same_nsid_is_refused_and_changes_nothing() {
        let mut bench = Bench::empty();
        let before = *bench.subsystem.namespaces().first().unwrap();
        assert_eq!(bench.subsystem.attach(namespace(3)), Err(AttachError::NsidTaken));
        assert_eq!(bench.subsystem.namespaces().first(), Some(&before));
        assert!(bench.subsystem.detach(3) && !bench.subsystem.detach(3));
        assert_eq!(bench.subsystem.attach(namespace(3)), Ok(()));
    }

    #[test]
    fn drives_that_share_an_identifier_do_not_show_it_twice() {
        let mut bench = Bench::empty();
        for nsid in [20, 21] {
            let twin = Namespace { nguid: [1; 16], eui64: [2; 8], ..namespace(nsid) };
            bench.subsystem.attach(twin).unwrap();
        }
        let of = |nsid| *bench.subsystem.namespaces.find(SubsystemPlace::DEFAULT, nsid).unwrap();
        assert_eq!((of(20).nguid, of(20).eui64), ([1; 16], [2; 8]));
        assert_eq!((of(21).nguid, of(21).eui64), ([0; 16], [0; 8]));
    }

    #[test]
    fn the_generation_moves_only_when_the_listeners_change() {
        let mut bench = Bench::empty();
        let (port_id, address) = (PortId::FIRST, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let listener = Listener { port_id, address, port: 4420 };
        let before = bench.subsystem.discovery_generation;
        bench.subsystem.set_listeners(&[listener]);
        bench.subsystem.set_listeners(&[listener]);
        assert_eq!(bench.subsystem.discovery_generation, before + 1);
        bench.subsystem.set_listeners(&[listener; 20]);
        assert_eq!(bench.subsystem.listeners.len(), MAX_LISTENERS);
    }
}
