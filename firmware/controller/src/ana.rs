//! Asymmetric Namespace Access (Base 8.1): how well a host reaches the namespaces by the port that it has come by.
//!
//! All namespaces are in one group. Each port has a state for it; a host hears of a change by an event, and by the status
//! of I/O where the state lets none through.

use hal_log::info;
use nvme::log_page::{AnaGroup, AnaHeader};
use nvme::{Command, Status};
use zerocopy::IntoBytes;

use crate::config::MAX_LISTENERS;
use crate::slot::Controller;
use crate::subsystem::Subsystem;
use crate::window::Window;

/// ANAGRPID of the group of all namespaces.
pub(crate) const GROUP: u32 = 1;
/// ANAGRPMAX and NANAGRPID.
pub(crate) const GROUPS: u32 = 1;
/// ANATT in seconds: how long [`AnaState::Change`] may last.
pub(crate) const TRANSITION_S: u8 = 10;
/// ANACAP: each of the states may be reported (bits 4:0). A namespace never changes its group, but bit 6 does not say so: where it
/// does, hosts make no room for NSIDs in the log page and ask for them all the same (nvme-cli shows what lies behind its buffer).
pub(crate) const CAPABILITIES: u8 = 0b1_1111;
/// RGO in dword 10 of Get Log Page: groups without their NSIDs.
const GROUPS_ONLY: u32 = 1 << 8;
const HEADER_BYTES: u64 = size_of::<AnaHeader>() as u64;
const GROUP_BYTES: u64 = size_of::<AnaGroup>() as u64;

/// PORTID: a port of the subsystem, from 1 on. The n-th Ethernet port is port n, whatever addresses it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortId(pub u16);

impl PortId {
    /// The first Ethernet port.
    pub const FIRST: Self = Self(1);

    const fn place(self) -> usize {
        self.0.saturating_sub(1) as usize
    }
}

/// State of the group by one port (Base 8.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AnaState {
    /// The best way.
    Optimized = 0x1,
    /// It works, another way may be better.
    NonOptimized = 0x2,
    /// No I/O now.
    Inaccessible = 0x3,
    /// No I/O any more by this port.
    PersistentLoss = 0x4,
    /// About to become another state.
    Change = 0xf,
}

impl AnaState {
    /// The state that the ANA log page has as this code.
    #[must_use]
    pub const fn of_code(code: u8) -> Option<Self> {
        match code {
            0x1 => Some(Self::Optimized),
            0x2 => Some(Self::NonOptimized),
            0x3 => Some(Self::Inaccessible),
            0x4 => Some(Self::PersistentLoss),
            0xf => Some(Self::Change),
            _ => None,
        }
    }

    /// Whether there may be I/O.
    #[must_use]
    pub const fn lets_io_through(self) -> bool {
        self.check().is_ok()
    }

    /// Whether I/O may go on, or with what status it ends. Without DNR: a host with another path goes that way.
    const fn check(self) -> Result<(), Status> {
        match self {
            Self::Optimized | Self::NonOptimized => Ok(()),
            Self::Inaccessible => Err(Status::ANA_INACCESSIBLE),
            Self::PersistentLoss => Err(Status::ANA_PERSISTENT_LOSS),
            Self::Change => Err(Status::ANA_TRANSITION),
        }
    }
}

/// What the log of each port says.
#[derive(Debug)]
pub(crate) struct Ports([Port; MAX_LISTENERS]);

#[derive(Debug, Clone, Copy)]
struct Port {
    state: AnaState,
    change_count: u64,
}

impl Ports {
    pub(crate) const fn new() -> Self {
        Self([Port { state: AnaState::Optimized, change_count: 0 }; MAX_LISTENERS])
    }

    /// The log of each port has changed, as namespaces have. That is told by an event of its own.
    pub(crate) fn namespaces_changed(&mut self) {
        for port in &mut self.0 {
            port.change_count += 1;
        }
    }

    pub(crate) fn has(&self, port: PortId) -> bool {
        port.0 > 0 && port.place() < self.0.len()
    }

    pub(crate) fn state(&self, port: PortId) -> AnaState {
        self.get(port).state
    }

    fn get(&self, port: PortId) -> Port {
        let unknown = Port { state: AnaState::Inaccessible, change_count: 0 };
        self.0.get(port.place()).copied().unwrap_or(unknown)
    }
}

impl Subsystem {
    /// How hosts reach the namespaces by a port.
    #[must_use]
    pub fn ana_state(&self, port: PortId) -> AnaState {
        self.ports.get(port).state
    }

    /// Changes how hosts reach the namespaces by a port on this core ([`Self::set_ana_state_everywhere`]), and tells those that have asked. Commands that arrive from
    /// now on are judged by the new state; those admitted before are not touched, so that whoever changes it has to let
    /// them end before the change counts as done. False where the port has that state, or is none.
    pub fn set_ana_state(&mut self, port: PortId, state: AnaState) -> bool {
        let Some(found) = self.ports.0.get_mut(port.place()) else { return false };
        if found.state == state || port.0 == 0 {
            return false;
        }
        *found = Port { state, change_count: found.change_count + 1 };
        info!("port {}: namespaces are now in ANA state {:#x}", port.0, state as u8);
        self.raise_ana_change(port);
        true
    }

    /// Whether I/O of this controller may go on.
    pub(crate) fn check_ana(&self, controller: &Controller) -> Result<(), Status> {
        self.ana_state(controller.port).check()
    }

    /// Size of the log page that the command asks for.
    pub(crate) fn ana_log_bytes(&self, controller: &Controller, command: &Command) -> u64 {
        let all = self.namespaces.of(controller.subsystem);
        let namespaces = if is_groups_only(command) { 0 } else { all.len() };
        HEADER_BYTES + GROUP_BYTES + namespaces as u64 * 4
    }

    pub(crate) fn put_ana_log(&self, controller: &Controller, command: &Command, window: &mut Window<'_>) {
        let port = self.ports.get(controller.port);
        let namespaces = if is_groups_only(command) { &[] } else { self.namespaces.of(controller.subsystem) };
        let mut header = AnaHeader::default();
        header.change_count.set(port.change_count);
        header.groups.set(GROUPS as u16);
        window.put(0, header.as_bytes());
        let mut group = AnaGroup::default();
        group.group.set(GROUP);
        group.namespaces.set(namespaces.len() as u32);
        group.change_count.set(port.change_count);
        group.state = port.state as u8;
        window.put(HEADER_BYTES, group.as_bytes());
        for (index, namespace) in namespaces.iter().enumerate() {
            let at = HEADER_BYTES + GROUP_BYTES + index as u64 * 4;
            window.put(at, &namespace.nsid.to_le_bytes());
        }
    }
}

fn is_groups_only(command: &Command) -> bool {
    command.cdw10.get() & GROUPS_ONLY != 0
}

#[cfg(test)]
mod tests;
