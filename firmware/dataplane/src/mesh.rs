//! This data core among the others: messages in at the beginning of a turn, out at its end.
//!
//! A core without others has nothing to do here. See docs/design/many-cores.md.

use controller::{Heard, Namespace};
use hal_api::{FrameQueue, Instant, NvmeDevice};
use message::Change;
use nvmeof::{Environment, Settling};

use crate::core_loop::TURN_BUDGET;
use crate::data_core::DataCore;

/// Turns with a full share of frames after which all that had come before is in: a receive ring's worth of frames, twice.
const FULL_TURNS: u32 = 32;

/// How a core wakes another data core, by its number among them.
pub type WakeCore = fn(u8);

/// What is kept of the other cores from turn to turn.
#[derive(Debug, Default)]
pub(crate) struct MeshState {
    wake: Option<WakeCore>,
    /// Turns with a full share of frames since the last change was heard of.
    full_turns: u32,
    /// Changes are to be looked at thoroughly.
    thoroughly: bool,
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

    /// Takes in what other cores say.
    pub(crate) fn hear_cores(&mut self, now: Instant) -> u32 {
        if !self.subsystem.has_others() {
            return 0;
        }
        let mut heard = 0;
        while heard < TURN_BUDGET
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
                    if let Change::Detach { nsid } = change {
                        self.note_detached(nsid, now);
                    }
                    self.mesh.full_turns = 0;
                    let settling = Settling { frames_are_in: false, thoroughly: false };
                    self.target.settle(now, &mut self.subsystem, settling);
                }
                Heard::Attach(namespace) => self.attach_as_told(namespace),
                Heard::Detached { nsid } => hal_log::info!("namespace {} is detached on all cores", nsid),
                _ => {}
            }
        }
        heard
    }

    /// Notes how many frames have come since messages were heard.
    pub(crate) fn note_frames(&mut self, frames: u32, budget: u32) {
        self.mesh.full_turns =
            if frames < budget { FULL_TURNS } else { self.mesh.full_turns.saturating_add(1) };
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
        let frames_are_in = self.mesh.full_turns >= FULL_TURNS;
        let thoroughly = core::mem::take(&mut self.mesh.thoroughly);
        self.target.settle(now, &mut self.subsystem, Settling { frames_are_in, thoroughly });
        let news_for = [self.subsystem.send_messages(), self.drives.take_news_for()];
        if let Some(wake) = self.mesh.wake {
            news_for.iter().flat_map(|cores| cores.iter()).for_each(wake);
        }
    }

    /// The home of its drive serves a namespace: so does this core, by its own queue.
    fn attach_as_told(&mut self, namespace: Namespace) {
        let nsid = namespace.nsid;
        if self.take_up_again(&namespace) {
            return;
        }
        if let Err(error) = self.subsystem.attach(namespace) {
            hal_log::warn!("namespace {} is not served on this core: {}", nsid, error.name());
        }
    }
}
