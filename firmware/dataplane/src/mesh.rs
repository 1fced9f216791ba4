//! This data core among the others: messages in at the beginning of a turn, out at its end.
//!
//! A core without others has nothing to do here. See docs/design/many-cores.md.

use core::time::Duration;

use controller::{Heard, Namespace};
use hal_api::{FrameQueue, Instant, NvmeDevice};
use message::Change;
use nvmeof::{Environment, Settling};

use crate::data_core::{DataCore, MAX_PORTS};
use crate::net_role::port_id;

/// After so many frames all that had come before them is in, although more of them wait: as many as a device and the rings
/// of fifteen other cores hold. Sources are asked in turn, so that none keeps its frames longer.
const FRAMES_THAT_WAIT: u64 = 16 * 256;

/// A port whose frames wait for so long although its core has its turns cannot send, and so takes nothing in.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// How a core wakes another data core, by its number among them.
pub type WakeCore = fn(u8);

/// What is kept of the other cores from turn to turn.
#[derive(Debug, Default)]
pub(crate) struct MeshState {
    wake: Option<WakeCore>,
    /// Turns since the start.
    turn: u64,
    /// All frames that had come when this turn began are in.
    frames_in_until: u64,
    /// Of each port.
    sweeps: [Sweep; MAX_PORTS],
    /// Changes are to be looked at thoroughly.
    thoroughly: bool,
}

/// How far a port's frames are in.
#[derive(Debug, Clone, Copy, Default)]
struct Sweep {
    /// All frames that had come when this turn began are in.
    in_until: u64,
    /// A turn, and how many frames had been taken when it had taken its own: after [`FRAMES_THAT_WAIT`] more, all that had
    /// come by then are in.
    began: u64,
    taken: u64,
    /// While others wait: how many had been taken when that last rose, and when that was first seen.
    stuck: Option<(u64, Instant)>,
}

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// From now on a core that has been sent something is woken. Without it the other cores look when they wake by themselves.
    pub fn wake_others_by(&mut self, wake: WakeCore) {
        self.mesh.wake = Some(wake);
    }

    /// Messages that made no sense, and confirmations that nobody has waited for: bugs, all of them.
    #[must_use]
    pub fn mesh_faults(&self) -> u64 {
        self.subsystem.mesh_faults() + self.drives.mesh_faults()
    }

    /// Changes that cross cores: those that this core has begun, and those that it has still to confirm.
    #[must_use]
    pub fn pending_changes(&self) -> (usize, usize) {
        self.subsystem.pending_changes()
    }

    /// The I/O queues that are open here, by CNTLID and number.
    pub fn io_queues(&self) -> impl Iterator<Item = (u16, u16)> {
        self.target.io_queues()
    }

    /// Where a controller lives, by its CNTLID.
    #[must_use]
    pub fn home_of(&self, cntlid: u16) -> u8 {
        self.subsystem.home_of(cntlid)
    }

    /// Whether this core knows of an I/O queue that another core has of a controller that lives here: else none may be open.
    #[must_use]
    pub fn accounts_for(&self, cntlid: u16, queue_id: u16) -> bool {
        self.subsystem.accounts_for(cntlid, queue_id)
    }

    /// Whether frames or messages wait for this core, from its ports or from other cores.
    pub fn has_waiting(&mut self) -> bool {
        let frames = self.stacks.iter_mut().any(|stack| stack.has_frame());
        frames || self.subsystem.has_messages() || self.drives.has_messages()
    }

    /// Takes in what other cores say, `budget` messages at most.
    pub(crate) fn hear_cores(&mut self, now: Instant, budget: u32) -> u32 {
        if !self.subsystem.has_others() {
            return 0;
        }
        self.mesh.turn += 1;
        let mut heard = 0;
        while heard < budget
            && let Some((from, message)) = self.subsystem.take_message()
        {
            heard += 1;
            let mut environment = Environment {
                subsystem: &mut self.subsystem,
                pool: &mut self.pool,
                backend: &mut self.drives,
            };
            match self.target.hear(from, message, now, &mut environment) {
                // At once: what comes behind it builds on it.
                Heard::Change(change) => {
                    if let Change::Detach { key, .. } = change {
                        self.note_detached(key, now);
                    }
                    let settling = self.settling(false);
                    self.target.settle(now, &mut self.subsystem, settling);
                }
                Heard::Attach(namespace) => self.attach_as_told(namespace, now),
                Heard::Found(namespace) => self.register(namespace, now),
                Heard::Gone(gone) => self.unregister(gone, now),
                Heard::Addresses { port, addresses } => self.follow(port, addresses),
                Heard::Listening { generation } => self.follow_listeners(generation),
                Heard::DriveSettled { drive } => _ = self.readiness.settled(drive),
                Heard::AnaChanged { port, state } => {
                    hal_log::info!("port {}: ANA state {:#x} holds on all cores", port.0, state);
                }
                Heard::Detached { key } => hal_log::info!("namespace {} is detached on all cores", key),
                _ => {}
            }
        }
        heard
    }

    /// Notes which frames are in, after frames were taken and before queues are served.
    pub(crate) fn note_frames(&mut self, now: Instant) {
        if !self.subsystem.has_others() {
            return;
        }
        let mesh = &mut self.mesh;
        // A stack also stops when it has taken its share, or has no room for answers.
        let mut in_until = mesh.turn;
        for (place, (stack, sweep)) in (0..).zip(self.stacks.iter_mut().zip(&mut mesh.sweeps)) {
            let taken = stack.frames_taken();
            if !stack.has_frame() {
                sweep.in_until = mesh.turn;
            } else if taken.wrapping_sub(sweep.taken) >= FRAMES_THAT_WAIT {
                sweep.in_until = sweep.in_until.max(sweep.began);
            } else {
                let since = match sweep.stuck {
                    Some((at, since)) if at == taken => since,
                    _ => now,
                };
                sweep.stuck = Some((taken, since));
                if now.since(since) >= STUCK_AFTER {
                    // Else no core would ever confirm what is to come behind these frames: no host could connect any more.
                    let dropped = stack.drop_frames(FRAMES_THAT_WAIT as usize);
                    hal_log::warn!(
                        "port {} sends nothing: {} frames were dropped unread",
                        port_id(place).0,
                        dropped
                    );
                }
                in_until = in_until.min(sweep.in_until);
                continue;
            }
            sweep.stuck = None;
            (sweep.began, sweep.taken) = (mesh.turn, taken);
            in_until = in_until.min(sweep.in_until);
        }
        mesh.frames_in_until = in_until;
    }

    fn settling(&self, thoroughly: bool) -> Settling {
        Settling { turn: self.mesh.turn, frames_in_until: self.mesh.frames_in_until, thoroughly }
    }

    /// Changes are looked at thoroughly at the end of this turn.
    pub(crate) fn look_thoroughly(&mut self) {
        self.mesh.thoroughly = true;
    }

    /// Confirms what is made of other cores' changes, and sends what the turn has left to be said.
    pub(crate) fn answer_cores(&mut self, now: Instant) {
        if !self.subsystem.has_others() {
            return;
        }
        let thoroughly = core::mem::take(&mut self.mesh.thoroughly);
        let settling = self.settling(thoroughly);
        self.target.settle(now, &mut self.subsystem, settling);
        let news_for = [self.subsystem.send_messages(), self.drives.take_news_for()];
        if let Some(wake) = self.mesh.wake {
            news_for.iter().flat_map(|cores| cores.iter()).for_each(wake);
        }
    }

    /// The registrar serves a namespace: so does this core, by its own queue.
    fn attach_as_told(&mut self, namespace: Namespace, now: Instant) {
        let key = namespace.key;
        let attached = self.subsystem.attached(key);
        if attached.is_some_and(|other| other.backend != namespace.backend) {
            // What the drive has lost that it led to until now, it may say later.
            self.note_detached(key, now);
        }
        if self.subsystem.stamp_of(namespace.subsystem) != namespace.stamp {
            // This core has made a change that the registrar's has not, or the other way round.
            hal_log::warn!("namespace {} is not served on this core: its subsystem is another one here", key);
            self.subsystem.detach(key);
            return;
        }
        if let Err(error) = self.subsystem.replace(namespace) {
            hal_log::warn!("namespace {} is not served on this core: {}", key, error.name());
        }
    }
}
