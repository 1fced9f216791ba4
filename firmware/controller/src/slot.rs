//! Controllers: what one host's association holds, the storage for it, and the handles that name it.

use core::net::IpAddr;

use hal_api::Instant;
use heapless::String;
use message::CoreSet;
use message::configuration::SubsystemPlace;
use nvme::registers::{Configuration, ControllerStatus};

use crate::ana::PortId;
use crate::errors::ErrorLog;
use crate::events::Events;
use crate::features::FeatureValues;
use crate::lost_writes::LostWrites;

/// Names a controller for as long as it lives: a later controller in the same place has another generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ControllerHandle {
    pub(crate) index: u16,
    pub(crate) generation: u32,
}

/// The queue that a command came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueContext {
    /// The controller that the queue belongs to.
    pub controller: ControllerHandle,
    /// 0 is the admin queue.
    pub queue_id: u16,
}

/// Storage for one controller.
#[derive(Debug)]
pub struct ControllerSlot {
    pub(crate) generation: u32,
    pub(crate) controller: Option<Controller>,
}

impl ControllerSlot {
    /// An unused place.
    pub const EMPTY: Self = Self { generation: 0, controller: None };
}

impl Default for ControllerSlot {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// Where the shutdown that a host has asked for stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// It has not, or it is complete.
    No,
    /// CC.SHN was set; the drives' caches are to be flushed.
    Asked,
    /// They are being flushed.
    Flushing(ShutdownFlush),
}

/// What a shutdown waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownFlush {
    /// The number under which drives were asked to flush.
    pub ticket: u64,
    /// When the host is told that its shutdown is complete, whatever the drives do.
    pub until: Instant,
}

/// What of a controller a core has.
#[derive(Debug)]
pub(crate) enum Part {
    /// It lives here, where its admin queue is.
    Home {
        /// The cores that have I/O queues of it, or have had some since the last reset.
        delegates: CoreSet,
        /// Bit n: queue n is on one of them.
        queues_elsewhere: u128,
        /// A reset or shutdown waits until they have ended them.
        ending: bool,
    },
    /// A delegate: what I/O commands need, on a core that has I/O queues of it.
    Delegate {
        home: u8,
        /// Its host has shown that it is alive since home was last told.
        active: bool,
        /// Errors that home was not told of.
        untold_errors: u32,
    },
}

impl Part {
    pub(crate) const HERE: Self = Self::Home { delegates: CoreSet::NONE, queues_elsewhere: 0, ending: false };
}

/// A dynamic controller (Base 3.1.2): it comes with the Connect of its admin queue and goes with that queue.
#[derive(Debug)]
pub(crate) struct Controller {
    pub(crate) id: u16,
    /// The subsystem that it is a controller of.
    pub(crate) subsystem: SubsystemPlace,
    /// The port that its admin queue was connected by.
    pub(crate) port: PortId,
    /// The address that it came from; a delegate has none.
    pub(crate) peer: Option<IpAddr>,
    pub(crate) host_nqn: String<223>,
    pub(crate) host_id: [u8; 16],
    pub(crate) configuration: Configuration,
    pub(crate) status: ControllerStatus,
    pub(crate) shutdown: Shutdown,
    /// Bit n: queue n is connected.
    pub(crate) queues: u128,
    /// Those of them that a reset or shutdown has ended and whose connections here are not gone yet.
    pub(crate) closing_queues: u128,
    /// It has, or had, an I/O queue: its host may have written.
    pub(crate) had_io: bool,
    /// I/O queues granted by Number of Queues.
    pub(crate) granted_queues: u16,
    /// As rounded up; 0 off.
    pub(crate) keep_alive_ms: u32,
    pub(crate) last_activity: Instant,
    pub(crate) features: FeatureValues,
    pub(crate) events: Events,
    pub(crate) errors: ErrorLog,
    pub(crate) lost_writes: LostWrites,
    pub(crate) part: Part,
}

impl Controller {
    /// It tells where subsystems are, and serves none itself.
    pub(crate) const fn is_discovery(&self) -> bool {
        self.subsystem.is_discovery()
    }

    pub(crate) const fn is_delegate(&self) -> bool {
        matches!(self.part, Part::Delegate { .. })
    }

    /// A reset or shutdown waits for other cores.
    pub(crate) const fn is_ending(&self) -> bool {
        matches!(self.part, Part::Home { ending: true, .. })
    }

    /// The other cores that have, or lately had, I/O queues of it.
    pub(crate) const fn delegates(&self) -> CoreSet {
        match self.part {
            Part::Home { delegates, .. } => delegates,
            Part::Delegate { .. } => CoreSet::NONE,
        }
    }

    /// Takes admin and I/O commands: enabled, ready, not shut down.
    pub(crate) fn is_ready(&self) -> bool {
        self.configuration.enabled()
            && !self.is_ending()
            && self.status.contains(ControllerStatus::READY)
            && !self.status.intersects(
                ControllerStatus::SHUTDOWN_OCCURRING
                    | ControllerStatus::SHUTDOWN_COMPLETE
                    | ControllerStatus::FATAL,
            )
    }

    /// Whether queue `queue_id` is connected.
    pub(crate) fn has_queue(&self, queue_id: u16) -> bool {
        queue_id <= crate::config::MAX_IO_QUEUES && self.queues & 1 << queue_id != 0
    }
}
