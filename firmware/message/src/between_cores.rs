//! What data cores say to each other (docs/design/many-cores.md).
//!
//! All of it is by value and of bounded size, so that a message is a few cache lines in a ring. Of each kind a bounded number
//! is under way between two cores at any time; [`crate::BACKLOG_ENTRIES`] is their sum.

use core::fmt::Debug;
use core::net::IpAddr;

use hal_api::Instant;

use crate::configuration::SubsystemPlace;
use crate::mesh::Merge;

/// Data cores at most.
pub const MAX_DATA_CORES: usize = 16;
/// Connect requests of one core that one other core has not answered yet.
pub const MAX_CONNECT_REQUESTS: usize = 16;
/// Changes that one core has begun and that are not complete.
pub const MAX_CHANGES: usize = 228;
/// Locks on blocks that the home of drives has begun to give out and that it has not taken back. Each begins as a change.
pub const MAX_RANGE_LOCKS: usize = 16;
/// Requests of one core for blocks that the home of their drive has not done with.
pub const MAX_LOCK_REQUESTS: usize = 16;
/// Connections of a core, and so queues that it may have to give back.
pub const MAX_QUEUES: usize = 128;
/// Namespaces of the card, of each of which a core may have to tell.
pub const MAX_NAMESPACES: usize = 64;
/// Drives of which is told, once for each, that they have come up or failed.
pub const MAX_DRIVES_TOLD: usize = 32;
/// Namespaces that a [`LostList`] names.
const LOST_LIST_ENTRIES: usize = 4;

/// Some of the data cores: bit n stands for core n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CoreSet(u16);

impl CoreSet {
    /// No core.
    pub const NONE: Self = Self(0);

    /// The cores from 0 to `cores` - 1 but for `core`.
    #[must_use]
    pub fn all_but(core: u8, cores: u8) -> Self {
        let all = 1u32.checked_shl(u32::from(cores)).unwrap_or(0).wrapping_sub(1) as u16;
        let mut set = Self(all);
        set.remove(core);
        set
    }

    /// Whether no core is in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `core` is in it.
    #[must_use]
    pub fn contains(self, core: u8) -> bool {
        self.0 & bit(core) != 0
    }

    /// Puts `core` in.
    pub fn insert(&mut self, core: u8) {
        self.0 |= bit(core);
    }

    /// Takes `core` out; false where it was not in it.
    pub fn remove(&mut self, core: u8) -> bool {
        let was = self.contains(core);
        self.0 &= !bit(core);
        was
    }

    /// The cores that are in one or in both.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The cores that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The lowest core in it.
    #[must_use]
    pub fn first(self) -> Option<u8> {
        (self.0 != 0).then(|| self.0.trailing_zeros() as u8)
    }

    /// The cores in it, lowest first.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let core = left.trailing_zeros() as u8;
            left &= left.checked_sub(1)?;
            Some(core)
        })
    }
}

fn bit(core: u8) -> u16 {
    1u16.checked_shl(u32::from(core)).unwrap_or(0)
}

/// A Connect for an I/O queue of a controller that lives on another core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRequest {
    /// The asking core's name for the request, returned in the answer.
    pub ticket: u32,
    /// The controller.
    pub cntlid: u16,
    /// The queue, not 0.
    pub queue_id: u16,
    /// The host identifier in the Connect.
    pub host_id: [u8; 16],
    /// Digest of the host's NQN and the subsystem's.
    pub names: u64,
    /// The subsystem that its NQN names.
    pub subsystem: SubsystemPlace,
    /// PORTID of the port that it has come by.
    pub port: u16,
}

/// The queue is the asking core's, until it says [`CoreMessage::QueueGone`] or the controller ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueGrant {
    /// As in the request.
    pub ticket: u32,
    /// The controller.
    pub cntlid: u16,
    /// The queue.
    pub queue_id: u16,
    /// Lost writes that the host has not heard of.
    pub lost: LostList,
}

/// A few namespaces whose writes were lost, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LostList {
    nsids: [u32; LOST_LIST_ENTRIES],
    /// There are more than it has room for: a loss is told of every namespace rather than of too few.
    pub all: bool,
}

impl LostList {
    /// Nothing was lost.
    pub const EMPTY: Self = Self { nsids: [0; LOST_LIST_ENTRIES], all: false };

    /// Adds a namespace.
    pub fn note(&mut self, nsid: u32) {
        if nsid == 0 || self.nsids.contains(&nsid) {
            return;
        }
        match self.nsids.iter_mut().find(|place| **place == 0) {
            Some(place) => *place = nsid,
            None => self.all = true,
        }
    }

    /// Adds what another list has.
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|nsid| self.note(nsid));
        self.all |= other.all;
    }

    /// The namespaces that it names.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.nsids.iter().copied().filter(|&nsid| nsid != 0)
    }
}

/// A command that has failed on a queue of a controller that lives elsewhere: an entry of its error log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorReport {
    /// The controller.
    pub cntlid: u16,
    /// The queue.
    pub queue_id: u16,
    /// The command.
    pub cid: u16,
    /// Its status, as a completion has it.
    pub status: u16,
    /// Its namespace; 0 where it has none.
    pub nsid: u32,
    /// Its first block.
    pub start_block: u64,
    /// Errors before this one of which only the number is left.
    pub missed: u32,
}

/// Why a controller ends on the other cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// CC.EN = 0 or CC.SHN: what is answered goes out, then the I/O queues' connections are closed. Confirmed when none is open.
    Reset,
    /// It is gone: its connections are cut. Confirmed when none is open and their last write at a drive has ended.
    Removed,
}

/// Blocks that a fused pair wants for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockedBlocks {
    /// The drive's number.
    pub drive: u8,
    /// NSID on that drive.
    pub nsid: u32,
    /// First logical block.
    pub start_block: u64,
    /// How many.
    pub blocks: u32,
}

/// Names a request for blocks, and the lock that comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockName {
    /// The core that has asked.
    pub core: u8,
    /// Its name for the request.
    pub ticket: u32,
}

/// A change that all of some cores have to make; each confirms it by its number ([`crate::Quiesces`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A controller has no I/O queues any more.
    End {
        /// Which.
        cntlid: u16,
        /// Why.
        reason: EndReason,
    },
    /// A host begins an association or a queue: confirmed when all frames that had come before are taken in, or passed on.
    Arrivals {
        /// Its identifier.
        host_id: [u8; 16],
    },
    /// The same, afterwards: confirmed when no write of its lost connections is at a drive.
    Fence {
        /// Its identifier.
        host_id: [u8; 16],
    },
    /// Namespaces are reached otherwise by a port: confirmed when no I/O that the new state would refuse is under way by it.
    Ana {
        /// PORTID of the port.
        port: u16,
        /// The state, as the ANA log page has it.
        state: u8,
    },
    /// A namespace is taken away: confirmed when no command for it is at a drive.
    Detach {
        /// Which: its key on the card.
        key: u32,
        /// The drive that it led to: the same on another drive may follow.
        drive: u8,
        /// NSID on that drive.
        nsid: u32,
    },
    /// Blocks belong to a fused pair: confirmed when no command to them is at a drive. New ones wait.
    Lock {
        /// Whose.
        name: LockName,
        /// Which.
        blocks: LockedBlocks,
    },
}

/// An address of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The port's own.
    pub address: IpAddr,
    /// Bits that name the network.
    pub prefix: u8,
    /// Where packets for other networks go.
    pub gateway: Option<IpAddr>,
}

/// A message from a data core to another. `N` is what a namespace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CoreMessage<N> {
    /// To the controller's home.
    Connect(QueueRequest),
    /// From it.
    Granted(QueueGrant),
    /// From it.
    Refused {
        /// As in the request.
        ticket: u32,
        /// Status, as a completion has it.
        status: u16,
        /// Dword 0 of the completion.
        result: u64,
    },
    /// To the controller's home: the queue's connection is gone, its place may be used again.
    QueueGone {
        /// The controller.
        cntlid: u16,
        /// The queue.
        queue_id: u16,
    },
    /// To the controller's home: its host is alive (TBKAS).
    Activity {
        /// The controller.
        cntlid: u16,
    },
    /// To the controller's home.
    Error(ErrorReport),
    /// Make this change, and confirm it.
    Change {
        /// The sender's name for it.
        number: u32,
        /// What.
        change: Change,
    },
    /// The change is made.
    Confirm {
        /// As in the change.
        number: u32,
        /// For a fence: lost writes that the host has not heard of from this core.
        lost: LostList,
    },
    /// From the registrar: serve this namespace; one of the same NSID leads there now.
    Attach(N),
    /// From a drive's home to the registrar: it has this namespace.
    Found(N),
    /// From a drive's home to the registrar: it has this namespace no more.
    Gone {
        /// The drive.
        drive: u8,
        /// The namespace, as the drive knows it; FFFFFFFFh for all of them.
        nsid: u32,
    },
    /// From a drive's home: it has come up or failed for the first time, and the registrar was told of its namespaces before.
    DriveSettled {
        /// Which.
        drive: u8,
    },
    /// From the first data core: a port has these addresses now.
    Addresses {
        /// The place of the port.
        port: u8,
        /// The main one, then one of IPv6 besides.
        addresses: [Option<Address>; 2],
    },
    /// From the first data core, behind these: the discovery log with them has this generation.
    Listening {
        /// GENCTR.
        generation: u64,
    },
    /// To the home of the blocks' drive: a fused pair wants them for itself.
    Lock {
        /// The asking core's name for the request.
        ticket: u32,
        /// Which.
        blocks: LockedBlocks,
    },
    /// From it: the pair has them.
    LockGranted {
        /// As in the request.
        ticket: u32,
    },
    /// To it: the pair has ended, or is no more, be the request granted or not. Said once for each.
    Unlock {
        /// As in the request.
        ticket: u32,
    },
    /// From it, to all cores, after that: nobody has these blocks for himself any more.
    Unlocked(LockName),
    /// A host was told of a loss, and is not told again.
    LossTold {
        /// The controller whose Flush has failed.
        cntlid: u16,
        /// Its host.
        host_id: [u8; 16],
        /// The namespace, by its key.
        key: u32,
        /// The latest loss that it was told of.
        at: Instant,
    },
}

impl<N> Merge for CoreMessage<N> {
    /// Only what stays true wherever it stands among the others.
    fn absorbs(&self, later: &Self) -> bool {
        matches!((self, later), (Self::Activity { cntlid: a }, Self::Activity { cntlid: b }) if a == b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_cores_has_those_that_were_put_in() {
        let mut set = CoreSet::all_but(1, 4);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 2, 3]);
        assert!(set.remove(2) && !set.remove(2) && !set.remove(200));
        set.insert(1);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 1, 3]);
        assert_eq!(CoreSet::all_but(0, 16).iter().count(), 15);
        assert!(CoreSet::all_but(0, 1).is_empty());
    }

    #[test]
    fn a_list_that_is_full_stands_for_all() {
        let mut list = LostList::default();
        (1..=4).chain([2, 4]).for_each(|nsid| list.note(nsid));
        assert_eq!((list.iter().count(), list.all), (4, false));
        let mut other = LostList::default();
        other.note(9);
        list.merge(&other);
        assert!(list.all);
    }

    #[test]
    fn messages_are_small() {
        assert!(size_of::<CoreMessage<[u64; 12]>>() <= 128);
    }
}
