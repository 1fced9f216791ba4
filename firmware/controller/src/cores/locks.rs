//! What cores say of blocks that fused pairs have for themselves (docs/design/fused.md). Who gets which is the transport's to decide.

use message::{Change, LockName, LockedBlocks};

use super::{Begun, Message};
use crate::subsystem::Subsystem;

/// What has been heard of blocks that fused pairs have for themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockNews {
    /// To the home of their drive: a core wants some.
    Asked(LockName, LockedBlocks),
    /// To it: the pair that has asked, or got them, is no more.
    GivenBack(LockName),
    /// To it: no core has a command to these blocks at a drive.
    Clear(LockName),
    /// From it: this core's pair has them.
    Granted {
        /// As it was asked.
        ticket: u32,
    },
    /// From it: nobody has these blocks for himself any more.
    Over(LockName),
}

impl Subsystem {
    /// The core that says whose blocks of a drive are: the drive's home.
    #[must_use]
    pub fn lock_home(&self, drive: u8) -> u8 {
        u16::from(drive).checked_rem(self.place().1).unwrap_or(0) as u8
    }

    /// Asks `home` for blocks: wait for [`LockNews::Granted`].
    pub fn ask_for_blocks(&mut self, home: u8, ticket: u32, blocks: LockedBlocks) {
        self.post_to(home, Message::Lock { ticket, blocks });
    }

    /// Tells `home` that the pair that has asked, or got its blocks, is no more. [`LockNews::Over`] follows.
    pub fn give_blocks_back(&mut self, home: u8, ticket: u32) {
        self.post_to(home, Message::Unlock { ticket });
    }

    /// Begins to lock blocks on all cores, this one too: wait for [`LockNews::Clear`]. False where too many changes are
    /// under way.
    pub fn begin_lock(&mut self, name: LockName, blocks: LockedBlocks) -> bool {
        let Some(cores) = self.cores.as_mut() else { return false };
        let begun = Begun::of(Change::Lock { name, blocks });
        cores.begin(begun, cores.all()).is_some()
    }

    /// Tells another core that its pair has its blocks.
    pub fn grant_blocks(&mut self, name: LockName) {
        self.post_to(name.core, Message::LockGranted { ticket: name.ticket });
    }

    /// Tells all other cores that a lock is over.
    pub fn tell_unlocked(&mut self, name: LockName) {
        self.post_to_others(&Message::Unlocked(name));
    }

    /// Tells the core that has asked that its request, which nobody else knows of, is over.
    pub fn tell_withdrawn(&mut self, name: LockName) {
        self.post_to(name.core, Message::Unlocked(name));
    }

    /// A message about locks that makes no sense.
    pub fn note_lock_fault(&mut self) {
        if let Some(cores) = self.cores.as_mut() {
            cores.faults += 1;
        }
    }

    fn post_to(&mut self, core: u8, message: Message) {
        if let Some(cores) = self.cores.as_mut() {
            cores.post(core, message);
        }
    }
}
