//! What a data core knows about its I/O, for control to ask.

use hal_api::{FrameQueue, NvmeDevice};
use message::{
    ConnectionCounters, ControllerCounters, CoreCounters, MessageCounters, MeterPage, MeterPlace, PoolLevels,
    TraceLog, TracePage, TraceSettings,
};

use crate::data_core::DataCore;

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// A piece of what this core has counted of commands to namespaces: the one at a place, or the first behind it; `None` where there is no
    /// more.
    #[must_use]
    pub fn namespace_meters(&self, from: MeterPlace) -> Option<MeterPage> {
        self.target.meter_page(from)
    }

    /// What this core has counted in its layers above drives and ports, which tell of themselves, and what its pools hold.
    #[must_use]
    pub fn counters(&self) -> CoreCounters {
        let (counts, target) = (self.target.counts(), self.target.counters());
        let controllers = self.subsystem.counters();
        let mesh = self.subsystem.mesh_counters().unwrap_or_default();
        CoreCounters {
            connections: ConnectionCounters {
                opened: target.opened,
                refused: target.refused,
                terminated: target.terminated,
                timed_out: target.timed_out,
                digest_errors: target.digest_errors,
                commands: target.commands,
                held_connects: target.held_connects,
            },
            controllers: ControllerCounters {
                live: controllers.live,
                connects: controllers.connects,
                refused_connects: controllers.refused_connects,
                keep_alive_expired: controllers.keep_alive_expired,
                resets: controllers.resets,
                command_errors: controllers.errors,
            },
            pools: PoolLevels {
                connections: counts.connections,
                draining_connections: counts.draining,
                connections_max: counts.connections_total,
                slots: counts.slots_total,
                free_slots: counts.slots_free,
                pages: self.pool.pages(),
                free_pages: self.pool.free(),
                promised_pages: self.pool.promised(),
                least_available_pages: self.pool.least_available(),
                copied_bytes: self.pool.copied_bytes(),
            },
            mesh: MessageCounters {
                sent: mesh.sent,
                received: mesh.received,
                merged: mesh.merged,
                deepest_backlog: mesh.deepest_backlog as u32,
                faults: self.mesh_faults(),
            },
        }
    }

    /// Commands that this core remembers, from a number on.
    #[must_use]
    pub fn traces(&self, log: TraceLog, from: u64) -> TracePage {
        self.target.traces(log, from)
    }

    /// Which commands this core remembers.
    #[must_use]
    pub const fn trace_settings(&self) -> TraceSettings {
        self.target.trace_settings()
    }

    /// Says which commands this core is to remember from now on.
    pub const fn set_trace_settings(&mut self, settings: TraceSettings) {
        self.target.set_trace_settings(settings);
    }
}
