//! What a data core has counted in its layers above drives and ports, and what its pools hold.

use postcard_schema::Schema;
use serde::{Deserialize, Serialize};

/// All of it. Counters are of events since the start and only rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct CoreCounters {
    /// NVMe/TCP connections.
    pub connections: ConnectionCounters,
    /// Controllers that live on the core.
    pub controllers: ControllerCounters,
    /// Pools: what there is and what is free, now.
    pub pools: PoolLevels,
    /// Messages between data cores; nothing where there is one.
    pub mesh: MessageCounters,
}

/// What happened to NVMe/TCP connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct ConnectionCounters {
    /// Connections opened.
    pub opened: u64,
    /// Connections refused for want of a place.
    pub refused: u64,
    /// Connections ended with a TermReq of the card's: wrong PDUs.
    pub terminated: u64,
    /// Connections aborted because the host was too slow.
    pub timed_out: u64,
    /// Wrong header and data digests.
    pub digest_errors: u64,
    /// Command capsules.
    pub commands: u64,
    /// Connects that waited until writes of their host's lost connections had ended.
    pub held_connects: u64,
}

/// What happened to controllers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct ControllerCounters {
    /// Controllers that there are now.
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
    pub command_errors: u64,
}

/// What pools hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct PoolLevels {
    /// Connections with a peer.
    pub connections: u16,
    /// Connections without one, whose commands are still at drives.
    pub draining_connections: u16,
    /// Places for connections.
    pub connections_max: u16,
    /// Command slots.
    pub slots: u16,
    /// Those that no command uses.
    pub free_slots: u16,
    /// Data pages of 4 KiB.
    pub pages: u32,
    /// Those that are free.
    pub free_pages: u32,
    /// Free pages that are promised to connections.
    pub promised_pages: u32,
    /// Fewest free pages without a promise that there ever were.
    pub least_available_pages: u32,
    /// Bytes copied into and out of pages.
    pub copied_bytes: u64,
}

/// What a core has said to the others and heard from them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Schema)]
pub struct MessageCounters {
    /// Messages sent.
    pub sent: u64,
    /// Messages received.
    pub received: u64,
    /// Messages that one before them has stood for.
    pub merged: u64,
    /// Most messages that ever waited for room towards one core.
    pub deepest_backlog: u32,
    /// Messages that made no sense: bugs.
    pub faults: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::MESSAGE_BYTES;

    #[test]
    fn the_largest_counters_are_well_within_a_message() {
        let most = u64::MAX;
        let connections = ConnectionCounters {
            opened: most,
            refused: most,
            terminated: most,
            timed_out: most,
            digest_errors: most,
            commands: most,
            held_connects: most,
        };
        let controllers = ControllerCounters {
            live: u32::MAX,
            connects: most,
            refused_connects: most,
            keep_alive_expired: most,
            resets: most,
            command_errors: most,
        };
        let pools = PoolLevels {
            connections: u16::MAX,
            draining_connections: u16::MAX,
            connections_max: u16::MAX,
            slots: u16::MAX,
            free_slots: u16::MAX,
            pages: u32::MAX,
            free_pages: u32::MAX,
            promised_pages: u32::MAX,
            least_available_pages: u32::MAX,
            copied_bytes: most,
        };
        let mesh = MessageCounters {
            sent: most,
            received: most,
            merged: most,
            deepest_backlog: u32::MAX,
            faults: most,
        };
        let all = CoreCounters { connections, controllers, pools, mesh };
        assert!(postcard::to_stdvec(&all).unwrap().len() < MESSAGE_BYTES - 64);
    }
}
