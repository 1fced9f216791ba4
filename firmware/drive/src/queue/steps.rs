//! What the drive's home says, and what it is told.

use hal_api::CommandQueue;
use hal_mem::PagePool;

use super::flush::Closing;
use super::lane::{Borrowed, Lane};
use super::{Abort, DriveQueue, Mode};
use crate::limits::COMMANDS_PER_DRIVE;
use crate::messages::{Answer, FromQueue, Step, ToQueue};

impl<Q: CommandQueue> DriveQueue<Q> {
    /// Takes in what the home says.
    pub fn hear(&mut self, message: ToQueue<Q>, pool: &mut PagePool) {
        match message {
            ToQueue::Step { number, step } => {
                let answer = self.take_step(step, pool);
                debug_assert!(self.confirm.is_none(), "a step before the last was confirmed");
                self.confirm = Some((number, answer));
            }
            ToQueue::AbortOver => {
                self.commands.release_held();
                self.abort = Abort::None;
            }
        }
    }

    /// The next message to the home.
    pub fn take_message(&mut self) -> Option<FromQueue<Q>> {
        if let Some((number, answer)) = self.confirm.take() {
            return Some(FromQueue::Confirm { number, answer });
        }
        if let Some(fault) = self.fault.filter(|_| !self.fault_told) {
            self.fault_told = true;
            return Some(FromQueue::Fault(fault));
        }
        if let Abort::Wanted(cid) = self.abort {
            self.abort = Abort::Asked;
            return Some(FromQueue::Late { cid });
        }
        self.take_closed().then_some(FromQueue::Closed)
    }

    /// Whether [`Self::take_message`] has one.
    pub fn has_message(&self) -> bool {
        let wants = matches!(self.abort, Abort::Wanted(_)) || self.closing == Some(Closing::Over);
        self.confirm.is_some() || wants || (self.fault.is_some() && !self.fault_told)
    }

    /// Whether nothing is under way or waits here: nothing happens before the queue is told something.
    pub fn is_idle(&self) -> bool {
        let for_itself = match &self.pair {
            // Commands of others come and go without a trace in these tables.
            Some(Lane::Own(_, share)) => share.count == COMMANDS_PER_DRIVE as u16,
            Some(Lane::Borrowed(_)) => !self.has_lane_message(),
            None => false,
        };
        for_itself
            && self.mode == Mode::Running
            && self.requests.used() == 0
            && self.commands.outstanding() == 0
            && !self.has_young_writes
            && !self.rounds.are_open()
            && self.closing.is_none()
            && self.lost_writes.is_empty()
            && !self.has_message()
    }

    fn take_step(&mut self, step: Step<Q>, pool: &mut PagePool) -> Answer<Q> {
        match step {
            Step::Stop { away } => {
                let pair = match self.pair.take() {
                    Some(Lane::Own(pair, _)) => Some(pair),
                    Some(Lane::Borrowed(_)) | None => None,
                };
                self.mode = Mode::Held;
                self.interrupt_flush();
                (self.fault, self.abort) = (None, Abort::None);
                if away {
                    self.end_begun();
                    self.release(pool);
                    self.refuse();
                }
                return Answer::Stopped(pair);
            }
            Step::Stopped => self.end_begun(),
            Step::Drained => {
                self.release(pool);
                return Answer::Prepared(self.take_pages(pool));
            }
            Step::CacheLost => return Answer::Dirty(self.take_dirty()),
            Step::WritesLost { namespaces, at } => self.note_lost(namespaces, at),
            Step::Namespaces { first, last, some } => {
                if first {
                    self.incoming.clear();
                }
                for namespace in some.iter().copied() {
                    // The home tells no more than a drive may have.
                    let _ = self.incoming.push(namespace);
                }
                if last {
                    let namespaces = core::mem::take(&mut self.incoming);
                    self.set_namespaces(namespaces);
                }
            }
            Step::Up { pair, share, limits } => self.run(Lane::Own(pair, share), &share, limits),
            Step::Borrow { share, limits } => {
                self.run(Lane::Borrowed(Borrowed::new(share)), &share, limits);
            }
            Step::Nothing => {}
            Step::Over => self.over = true,
            Step::Close { until } => self.close(until),
        }
        Answer::Done
    }
}
