//! A data core: its Ethernet queue, its drive queues, its connections and buffers.
//!
//! The roles `net` and `drive` have a file each; here stands what they share and the order of a turn.

use core::time::Duration;

use controller::Subsystem;
use drive::Drives;
use hal_api::{FrameQueue, Instant, NvmeDevice};
use hal_mem::PagePool;
use net::Stack;
use nvmeof::{Environment, QueueIndex, Target};

use crate::core_loop::Role;
use crate::net_role::Connections;
use crate::readiness::Readiness;

/// How often keep-alive timers and pool counts are looked at.
const TICK: Duration = Duration::from_millis(100);

/// What a data core is made of.
pub struct Parts<F: FrameQueue, D: NvmeDevice + 'static> {
    /// The stack on this core's Ethernet queue; `None` where the card has no port.
    pub stack: Option<Stack<F>>,
    /// This core's queue of each drive.
    pub drives: Drives<D>,
    /// The subsystem and its controllers.
    pub subsystem: Subsystem,
    /// NVMe/TCP queues and command slots.
    pub target: Target,
    /// Data buffers.
    pub pool: PagePool,
    /// Where NVMe/TCP listens, for the discovery log.
    pub port: u16,
}

/// A data core.
pub struct DataCore<F: FrameQueue, D: NvmeDevice + 'static> {
    pub(crate) stack: Option<Stack<F>>,
    pub(crate) drives: Drives<D>,
    pub(crate) subsystem: Subsystem,
    pub(crate) target: Target,
    pub(crate) pool: PagePool,
    pub(crate) connections: Connections,
    pub(crate) readiness: Readiness,
    pub(crate) port: u16,
    next_tick: Instant,
}

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// A core that has not looked at anything yet.
    pub fn new(parts: Parts<F, D>) -> Self {
        Self {
            readiness: Readiness::new(parts.drives.len()),
            stack: parts.stack,
            drives: parts.drives,
            subsystem: parts.subsystem,
            target: parts.target,
            pool: parts.pool,
            connections: Connections::new(),
            port: parts.port,
            next_tick: Instant::ZERO,
        }
    }

    fn tick(&mut self, now: Instant) {
        self.report_address();
        let mut environment =
            Environment { subsystem: &mut self.subsystem, pool: &mut self.pool, backend: &mut self.drives };
        self.target.tick(now, &mut environment);
        self.readiness.report(now, &self.subsystem, self.stack.as_ref().and_then(Stack::address), self.port);
        self.report_idle_pools();
    }

    /// Says what the pools hold each time the last host has gone: a leak shows as a number that falls.
    fn report_idle_pools(&mut self) {
        let counts = self.target.counts();
        let idle = counts.connections == 0 && counts.draining == 0;
        if self.connections.note_idle(idle) {
            hal_log::info!(
                "no host connected: {} of {} slots free, {} of {} pages free, {} promised",
                counts.slots_free,
                counts.slots_total,
                self.pool.free(),
                self.pool.pages(),
                self.pool.promised(),
            );
        }
    }
}

impl<F: FrameQueue, D: NvmeDevice + 'static> Role for DataCore<F, D> {
    fn poll(&mut self, now: Instant, budget: u32) -> u32 {
        if now >= self.next_tick || now >= self.target.next_deadline() {
            self.next_tick = now + TICK;
            self.tick(now);
        }
        let mut work = self.receive_frames(now, budget);
        work += self.poll_drives(now);
        work += self.serve_queues(now, budget);
        work += self.collect_completions(now);
        self.transmit(now);
        work
    }

    fn arm(&mut self) -> bool {
        let frames = self.stack.as_mut().is_some_and(Stack::arm);
        let drives = self.drives.arm();
        frames || drives || self.target.next_ready(QueueIndex(0)).is_some()
    }

    fn disarm(&mut self) {
        if let Some(stack) = self.stack.as_mut() {
            stack.disarm();
        }
        self.drives.disarm();
    }

    fn next_deadline(&mut self, now: Instant) -> Instant {
        let stack = self.stack.as_mut().and_then(|stack| stack.next_deadline(now));
        let drives = self.drives.next_deadline(now);
        drives.min(stack.unwrap_or(Instant::FAR_FUTURE)).min(self.target.next_deadline()).min(self.next_tick)
    }
}
