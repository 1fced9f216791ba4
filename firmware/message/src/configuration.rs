//! What an operator declares of subsystems, allowed hosts, namespaces and ports, and the changes that lead there
//! (docs/design/live-configuration.md). Every data core is given every change.

use heapless::{String, Vec};
use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

/// NVM subsystems of the card, the default one among them.
pub const MAX_SUBSYSTEMS: usize = 16;
/// Host NQNs of the card that some subsystem allows: as many as a set of 64 bits can name.
pub const MAX_ALLOWED_HOSTS: usize = 64;
/// Largest NSID that is given out (NN): 20 bits, because Linux walks from each active NSID to the next at every scan, one by one
/// (docs/design/nsid.md).
pub const LAST_NSID: u32 = 0xf_ffff;
/// Subsystems that one answer tells of.
pub const MAX_SUBSYSTEMS_OF_ANSWER: usize = 2;
/// Hosts that one answer tells of.
pub const MAX_HOSTS_OF_ANSWER: usize = 4;
/// Namespaces that one answer tells of.
pub const MAX_NAMESPACES_OF_ANSWER: usize = 6;

/// An NQN (Base 4.5).
pub type Nqn = String<223>;

/// The UUID that the card derives from the identity of a drive's namespace (docs/design/nsid.md): it names that
/// namespace in whichever slot the drive is, also while it is away.
pub type DriveNamespace = [u8; 16];

/// The place of an NVM subsystem in the card's table, the same on all data cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Schema)]
pub struct SubsystemPlace(pub u8);

impl SubsystemPlace {
    /// The subsystem that is always there.
    pub const DEFAULT: Self = Self(0);
    /// No NVM subsystem: discovery.
    pub const DISCOVERY: Self = Self(u8::MAX);

    /// Whether it stands for discovery.
    #[must_use]
    pub const fn is_discovery(self) -> bool {
        self.0 == Self::DISCOVERY.0
    }
}

/// An NVM subsystem as it is declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct SubsystemSetting {
    /// SUBNQN.
    pub nqn: Nqn,
    /// SN; printable ASCII.
    pub serial: String<20>,
    /// MN; printable ASCII.
    pub model: String<40>,
    /// Any host may connect, not only those that are allowed by name.
    pub any_host: bool,
}

/// A namespace of a drive as it is declared to be attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct NamespaceSetting {
    /// Which.
    pub namespace: DriveNamespace,
    /// NQN of the subsystem.
    pub subsystem: Nqn,
    /// NSID in that subsystem; the derived one where none is given.
    pub nsid: Option<u32>,
    /// UUID that hosts see; the derived one where none is given.
    pub uuid: Option<[u8; 16]>,
    /// NGUID that hosts see; the drive's own, if any, where none is given.
    pub nguid: Option<[u8; 16]>,
}

/// How hosts reach namespaces by a port (Base 8.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum PortAccess {
    /// The best way.
    Optimized,
    /// It works, another way may be better.
    NonOptimized,
    /// No I/O now.
    Inaccessible,
    /// No I/O any more by this port.
    PersistentLoss,
}

/// A change of what is declared. A change that says what is so already succeeds and changes nothing.
#[allow(clippy::large_enum_variant, reason = "one exists at a time, and there is no heap to box it in")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum ConfigurationChange {
    /// There is this subsystem, with no allowed hosts and no namespaces at first.
    CreateSubsystem(SubsystemSetting),
    /// There is no such subsystem: its controllers end, its namespaces are detached and stay so.
    DeleteSubsystem {
        /// Which.
        subsystem: Nqn,
    },
    /// Whether any host may connect. Controllers of hosts that may not any more end.
    SetAnyHost {
        /// Of which subsystem.
        subsystem: Nqn,
        /// Any may.
        any_host: bool,
    },
    /// This host may connect.
    AllowHost {
        /// To which subsystem.
        subsystem: Nqn,
        /// Its NQN.
        host: Nqn,
    },
    /// It may not any more; unless any host may, its controllers end.
    DisallowHost {
        /// To which subsystem.
        subsystem: Nqn,
        /// Its NQN.
        host: Nqn,
    },
    /// A namespace is in a subsystem, as soon as its drive is there.
    AttachNamespace(NamespaceSetting),
    /// A namespace is in no subsystem.
    DetachNamespace {
        /// Which.
        namespace: DriveNamespace,
    },
    /// Nothing is declared of a detached namespace any more.
    ReleaseNamespace {
        /// Which.
        namespace: DriveNamespace,
    },
    /// Whether namespaces of which nothing is declared are in the default subsystem.
    SetAutomatic {
        /// They are.
        automatic: bool,
    },
    /// How hosts reach namespaces by a port.
    SetPortAccess {
        /// PORTID: 1 is the first port.
        port: u16,
        /// How.
        access: PortAccess,
    },
    /// Whether hosts can connect by a port. Connections by one where they cannot end.
    SetListener {
        /// PORTID.
        port: u16,
        /// They can.
        enabled: bool,
    },
}

/// Why a change was refused: nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum ChangeError {
    /// An earlier change is not complete.
    Busy,
    /// There is no such subsystem.
    NoSuchSubsystem,
    /// There is one of this NQN with other properties.
    SubsystemExists,
    /// The default subsystem cannot be deleted.
    IsDefault,
    /// The NQN, or a text, is not as the specification has it.
    InvalidName,
    /// There are as many subsystems as there can be.
    TooManySubsystems,
    /// There are as many different allowed hosts as there can be.
    TooManyHosts,
    /// There are as many namespaces with a declaration as there can be.
    TooManyNamespaces,
    /// The namespace is in another subsystem, or in this one by other names.
    AttachedOtherwise,
    /// Another namespace of the subsystem has this NSID, or is declared to have it.
    NsidTaken,
    /// Another namespace has this UUID or NGUID.
    NameTaken,
    /// The NSID, UUID or NGUID is none that a namespace can have.
    InvalidNamespace,
    /// The namespace is attached.
    IsAttached,
    /// There is no such port.
    NoSuchPort,
    /// This data core has no room for what is declared.
    NotHere,
}

impl ChangeError {
    /// What is wrong, and what to do.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Busy => "an earlier change is not complete yet: try again when it is",
            Self::NoSuchSubsystem => "there is no such subsystem: create it first",
            Self::SubsystemExists => {
                "there is a subsystem of this NQN with another serial number, model or host rule: delete it first"
            }
            Self::IsDefault => {
                "the default subsystem is always there: let it attach nothing and allow nobody"
            }
            Self::InvalidName => {
                "the NQN is empty, too long or not text, or a serial number or model is not printable ASCII"
            }
            Self::TooManySubsystems => "the card has as many subsystems as it can have: delete one first",
            Self::TooManyHosts => {
                "the card knows as many allowed hosts as it can: disallow one everywhere first"
            }
            Self::TooManyNamespaces => {
                "as many namespaces are declared as the card can have: release one that is detached first"
            }
            Self::AttachedOtherwise => {
                "the namespace is attached to another subsystem, or by other names: detach it first"
            }
            Self::NsidTaken => "another namespace of the subsystem has this NSID: choose another one",
            Self::NameTaken => "another namespace has this UUID or NGUID: choose another one",
            Self::InvalidNamespace => {
                "an NSID is from 1 to 1048575, and a UUID or NGUID is not all zeros: choose another one"
            }
            Self::IsAttached => "the namespace is attached: detach it first",
            Self::NoSuchPort => "the card has no such port: ports count from 1",
            Self::NotHere => "this card has no room for a configuration",
        }
    }
}

impl core::fmt::Display for ChangeError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.sentence())
    }
}

impl core::error::Error for ChangeError {}

/// A subsystem as a data core has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct SubsystemReading {
    /// Its place: ask for the next from the one after it on.
    pub place: SubsystemPlace,
    /// What is declared.
    pub setting: SubsystemSetting,
    /// Hosts that are allowed by name.
    pub allowed_hosts: u8,
    /// Namespaces that are attached.
    pub namespaces: u8,
    /// Controllers that live on this data core.
    pub controllers: u16,
}

/// Some of the subsystems, in the order of their places; none where there are no more.
pub type SubsystemReadings = Vec<SubsystemReading, MAX_SUBSYSTEMS_OF_ANSWER>;

/// Some of the hosts that a subsystem allows by name, each with its number: ask for the next from the one after it on.
pub type HostReadings = Vec<(u8, Nqn), MAX_HOSTS_OF_ANSWER>;

/// What is declared of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum Declared {
    /// Nothing.
    Nothing,
    /// It is in no subsystem.
    Detached,
    /// It is in this subsystem.
    Attached(SubsystemPlace),
}

/// What is so of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub enum NamespaceState {
    /// Its drive is not there.
    Missing,
    /// Its drive is there; it is in no subsystem.
    Detached,
    /// Hosts of this subsystem see it.
    Attached(SubsystemPlace),
    /// It is declared to be in a subsystem where another one has its NSID.
    Refused,
}

/// A namespace as the card knows it: of a drive that is there, or declared, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct NamespaceReading {
    /// Its number in the list: ask for the next from the one after it on.
    pub number: u8,
    /// Which.
    pub namespace: DriveNamespace,
    /// The number of its drive, and its NSID there; none while it is missing.
    pub drive: Option<(u8, u32)>,
    /// Bytes of a block; 0 while it is missing.
    pub block_bytes: u32,
    /// Its size in blocks; 0 while it is missing.
    pub blocks: u64,
    /// What is declared.
    pub declared: Declared,
    /// What is so.
    pub state: NamespaceState,
    /// NSID that hosts see, or would see.
    pub nsid: Option<u32>,
    /// UUID that hosts see, or would see.
    pub uuid: [u8; 16],
    /// NGUID that hosts see, or would see; zeros where there is none.
    pub nguid: [u8; 16],
}

/// Some of the namespaces; none where there are no more.
pub type NamespaceReadings = Vec<NamespaceReading, MAX_NAMESPACES_OF_ANSWER>;

#[cfg(test)]
mod tests {
    use super::*;

    fn longest<const N: usize>() -> String<N> {
        core::iter::repeat_n('x', N).collect()
    }

    #[test]
    fn every_change_and_every_answer_fits_a_mailbox_message() {
        let setting =
            SubsystemSetting { nqn: longest(), serial: longest(), model: longest(), any_host: true };
        let reading = SubsystemReading {
            place: SubsystemPlace(15),
            setting: setting.clone(),
            allowed_hosts: 64,
            namespaces: 64,
            controllers: u16::MAX,
        };
        let namespace = NamespaceReading {
            number: 127,
            namespace: [1; 16],
            drive: Some((u8::MAX, u32::MAX)),
            block_bytes: u32::MAX,
            blocks: u64::MAX,
            declared: Declared::Attached(SubsystemPlace(15)),
            state: NamespaceState::Attached(SubsystemPlace(15)),
            nsid: Some(u32::MAX),
            uuid: [1; 16],
            nguid: [1; 16],
        };
        let attach = NamespaceSetting {
            namespace: [1; 16],
            subsystem: longest(),
            nsid: Some(u32::MAX),
            uuid: Some([1; 16]),
            nguid: Some([1; 16]),
        };
        let sizes = [
            postcard::to_stdvec(&ConfigurationChange::CreateSubsystem(setting)).unwrap().len(),
            postcard::to_stdvec(&ConfigurationChange::AttachNamespace(attach)).unwrap().len(),
            postcard::to_stdvec(&ConfigurationChange::AllowHost { subsystem: longest(), host: longest() })
                .unwrap()
                .len(),
            postcard::to_stdvec(&std::vec![reading; MAX_SUBSYSTEMS_OF_ANSWER]).unwrap().len(),
            postcard::to_stdvec(&std::vec![namespace; MAX_NAMESPACES_OF_ANSWER]).unwrap().len(),
            postcard::to_stdvec(&std::vec![(63u8, longest::<223>()); MAX_HOSTS_OF_ANSWER]).unwrap().len(),
        ];
        assert!(sizes.iter().all(|&bytes| bytes <= 920), "{sizes:?}");
    }
}
