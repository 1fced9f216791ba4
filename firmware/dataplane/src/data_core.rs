//! A data core: its queue of each Ethernet port, its drive queues, its connections and buffers.
//!
//! The roles `net` and `drive` have a file each; here stands what they share and the order of a turn.

use core::time::Duration;

use controller::Subsystem;
use drive::Drives;
use hal_api::{FrameQueue, Instant, NvmeDevice};
use hal_mem::PagePool;
use heapless::Vec;
use message::{CallDesk, OrderlyEnd};
use net::Stack;
use nvmeof::{Environment, Target};

use crate::configure::{ChangeTicket, Changes};
use crate::core_loop::Role;
use crate::mesh::MeshState;
use crate::net_role::Connections;
use crate::plug_role::Plug;
use crate::readiness::Readiness;
use crate::registrar::Registry;
use crate::report::Reports;
use crate::shutdown::{Ending, HostFlush};

/// How often what takes seconds is looked at: time-outs of connections and hosts, pool counts, the address.
const TICK: Duration = Duration::from_millis(100);

/// Ethernet ports of a card at most.
pub const MAX_PORTS: usize = 2;

/// What a data core is made of.
pub struct Parts<F: FrameQueue, D: NvmeDevice + 'static> {
    /// The stack on this core's queue of each Ethernet port, in the order of the ports; none where the card has no port.
    pub stacks: Vec<Stack<F>, MAX_PORTS>,
    /// This core's queue of each drive.
    pub drives: Drives<D>,
    /// Drives that the card is to wait for before it is ready, on whatever core their homes are.
    pub drives_at_boot: usize,
    /// The subsystem and its controllers.
    pub subsystem: Subsystem,
    /// NVMe/TCP queues and command slots.
    pub target: Target,
    /// Data buffers.
    pub pool: PagePool,
    /// The TCP port where NVMe/TCP listens, for the discovery log.
    pub tcp_port: u16,
}

/// What a data core's pools hold, counted from their free lists so that a leak shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolCounts {
    /// Connections with a peer.
    pub connections: u16,
    /// Connections without one, whose commands are still at drives.
    pub draining: u16,
    /// Command slots that no command uses.
    pub slots_free: u16,
    /// All command slots.
    pub slots: u16,
    /// Data pages on the free list.
    pub pages_free: u32,
    /// All data pages.
    pub pages: u32,
    /// Free pages that are promised to connections.
    pub pages_promised: u32,
}

/// A data core.
pub struct DataCore<F: FrameQueue, D: NvmeDevice + 'static> {
    pub(crate) stacks: Vec<Stack<F>, MAX_PORTS>,
    pub(crate) drives: Drives<D>,
    pub(crate) subsystem: Subsystem,
    pub(crate) target: Target,
    pub(crate) pool: PagePool,
    pub(crate) connections: Connections,
    pub(crate) readiness: Readiness,
    pub(crate) registry: Registry,
    pub(crate) changes: Changes,
    pub(crate) reports: Reports,
    pub(crate) tcp_port: u16,
    pub(crate) plug: Plug<D>,
    pub(crate) ending: Ending,
    pub(crate) asked_by: Option<&'static OrderlyEnd>,
    pub(crate) host_flush: HostFlush,
    pub(crate) mesh: MeshState,
    pub(crate) desk: Option<CallDesk>,
    /// The change that control waits for, by the ticket that it was asked under.
    pub(crate) owed_change: Option<(u32, ChangeTicket)>,
    next_tick: Instant,
}

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// A core that has not looked at anything yet.
    pub fn new(parts: Parts<F, D>) -> Self {
        Self {
            readiness: Readiness::new(parts.drives_at_boot),
            registry: Registry::default(),
            changes: Changes::default(),
            reports: Reports::new(),
            stacks: parts.stacks,
            drives: parts.drives,
            subsystem: parts.subsystem,
            target: parts.target,
            pool: parts.pool,
            connections: Connections::new(),
            tcp_port: parts.tcp_port,
            plug: Plug::new(),
            ending: Ending::No,
            asked_by: None,
            host_flush: HostFlush::default(),
            mesh: MeshState::default(),
            desk: None,
            owed_change: None,
            next_tick: Instant::ZERO,
        }
    }

    /// What the pools hold now.
    #[must_use]
    pub fn pool_counts(&self) -> PoolCounts {
        let counts = self.target.counts();
        PoolCounts {
            connections: counts.connections,
            draining: counts.draining,
            slots_free: counts.slots_free,
            slots: counts.slots_total,
            pages_free: self.pool.free(),
            pages: self.pool.pages(),
            pages_promised: self.pool.promised(),
        }
    }

    /// What the target has counted.
    #[must_use]
    pub const fn target_counters(&self) -> nvmeof::Counters {
        self.target.counters()
    }

    /// Whether the card serves: its drives have come up or failed, and it has an address.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.readiness.is_ready()
    }

    /// This core's drives.
    #[must_use]
    pub fn drives(&self) -> &Drives<D> {
        &self.drives
    }

    // Ten times a second: out of the way of the turns between.
    #[inline(never)]
    fn tick(&mut self, now: Instant) {
        self.report_addresses();
        self.plug_and_unplug(now);
        self.look_at_candidates(now);
        self.hear_of_end(now);
        let mut environment =
            Environment { subsystem: &mut self.subsystem, pool: &mut self.pool, backend: &mut self.drives };
        self.target.tick(now, &mut environment);
        self.look_thoroughly();
        // A drive without namespaces tells nothing when it comes up.
        for (number, _) in self.drives.numbered().filter(|(_, drive)| drive.is_home() && drive.is_ready()) {
            if self.readiness.settled(number) {
                self.subsystem.tell_settled(number);
            }
        }
        if self.readiness.report(now, &self.subsystem) {
            // What the pools hold before the first host is what later reports are compared with.
            self.reports.ask_for_pools();
        }
        self.report(now);
    }
}

impl<F: FrameQueue, D: NvmeDevice + 'static> Role for DataCore<F, D> {
    fn poll(&mut self, now: Instant, budget: u32) -> u32 {
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now);
        }
        let heard = self.hear_cores(now, budget);
        let frames = self.receive_frames(now, budget);
        self.note_frames(now);
        let mut work = heard + frames;
        work += self.poll_drives(now);
        let served = self.serve_queues(now, budget);
        if served > 0 {
            // Some requests end at once.
            work += served + self.collect_completions(now);
        }
        self.flush_for_hosts(now);
        self.advance_shutdown(now);
        self.transmit(now);
        // Behind the frames that were passed on: who is told that they are, finds them.
        self.answer_cores(now);
        work + self.answer_calls(now)
    }

    fn arm(&mut self) -> bool {
        // All of them: one that has a frame already does not excuse the others.
        let mut frames = false;
        for stack in &mut self.stacks {
            frames |= stack.arm();
        }
        let drives = self.drives.arm();
        let asked = self.desk.as_mut().is_some_and(CallDesk::arm);
        frames || drives || asked || self.subsystem.has_messages() || self.target.has_ready()
    }

    fn disarm(&mut self) {
        self.stacks.iter_mut().for_each(Stack::disarm);
        self.drives.disarm();
        if let Some(desk) = &mut self.desk {
            desk.disarm();
        }
    }

    fn next_deadline(&mut self, now: Instant) -> Instant {
        let stacks = self.stacks.iter_mut().filter_map(|stack| stack.next_deadline(now)).min();
        let drives = self.drives.next_deadline(now);
        drives.min(stacks.unwrap_or(Instant::FAR_FUTURE)).min(self.next_tick)
    }
}
