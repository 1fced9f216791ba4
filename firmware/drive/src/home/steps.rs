//! From step to step with all queues: what is wanted of them, what is under way, and what its end means.

use hal_api::{Instant, NvmeDevice};
use heapless::{Deque, Vec};
use message::{Confirmed, CoreSet, Quiesces};

use super::{DriveHome, State, Then};
use crate::events::FailReason;
use crate::limits::NAMESPACES_PER_STEP;
use crate::messages::{Answer, FromQueue, NamespaceSet, Step, ToQueue};
use crate::queue::{Fault, IoNamespace, Share};

/// A step that is wanted or under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Stop {
        away: bool,
    },
    Stopped,
    Drained,
    CacheLost,
    WritesLost {
        namespaces: NamespaceSet,
        at: Instant,
    },
    /// It has none, whatever was told before: it is another drive now.
    NoNamespaces,
    /// Those from this place on.
    Namespaces {
        from: usize,
    },
    /// Those queues that have a pair of their own.
    Up,
    /// The others, of the pairs of the former.
    Borrow,
    Close {
        until: Instant,
    },
    /// The last of all.
    Over,
}

/// More than there are kinds: each is wanted once at a time, but for losses.
const MAX_WANTED: usize = 16;

/// The steps of all queues.
#[derive(Debug)]
pub(super) struct Steps {
    all: CoreSet,
    wanted: Deque<Wanted, MAX_WANTED>,
    pending: Quiesces<Wanted, 1>,
    /// The step under way, its number, and who has not been sent it.
    current: Option<(u32, Wanted)>,
    unsent: CoreSet,
    /// What the answers to the step under way have in common.
    dirty: NamespaceSet,
    prepared: bool,
}

impl Steps {
    pub fn new(core: u8, cores: u8) -> Self {
        let mut all = CoreSet::all_but(core, cores);
        all.insert(core);
        Self {
            all,
            wanted: Deque::new(),
            pending: Quiesces::new(),
            current: None,
            unsent: CoreSet::NONE,
            dirty: 0,
            prepared: true,
        }
    }

    /// All cores.
    pub fn all(&self) -> CoreSet {
        self.all
    }

    /// Whether some step is wanted that not all have confirmed.
    pub fn are_under_way(&self) -> bool {
        self.current.is_some() || !self.wanted.is_empty()
    }

    /// Confirmations that nobody has waited for.
    pub fn faults(&self) -> u64 {
        self.pending.ignored()
    }

    fn want(&mut self, wanted: Wanted) {
        if !self.wanted.iter().any(|other| *other == wanted) && self.wanted.push_back(wanted).is_err() {
            debug_assert!(false, "more steps than there are kinds");
        }
        self.begin();
    }

    /// Before all others. What it makes void is wanted no longer.
    fn want_stop(&mut self, away: bool) {
        let is_void = |wanted: &Wanted| {
            matches!(
                wanted,
                Wanted::Stop { .. }
                    | Wanted::Up
                    | Wanted::Borrow
                    | Wanted::Drained
                    | Wanted::Namespaces { .. }
            )
        };
        let mut others: Deque<Wanted, MAX_WANTED> = Deque::new();
        for wanted in self.wanted.iter().filter(|wanted| !is_void(wanted)) {
            let _ = others.push_back(*wanted);
        }
        self.wanted = others;
        self.first(Wanted::Stop { away });
    }

    fn first(&mut self, wanted: Wanted) {
        if self.wanted.push_front(wanted).is_err() {
            debug_assert!(false, "more steps than there are kinds");
        }
        self.begin();
    }

    fn begin(&mut self) {
        if self.current.is_some() {
            return;
        }
        let Some(wanted) = self.wanted.pop_front() else { return };
        // There is one at a time, and a place for it.
        let Ok(number) = self.pending.begin(wanted, self.all) else { return };
        self.current = Some((number, wanted));
        self.unsent = self.all;
        (self.dirty, self.prepared) = (0, true);
    }
}

impl<D: NvmeDevice> DriveHome<D> {
    /// Stops all queues, whatever else is under way. `away`: the drive has lost the bus.
    pub(super) fn stop_queues(&mut self, away: bool) {
        self.late = Default::default();
        self.abort_over = CoreSet::NONE;
        self.steps.want_stop(away);
    }

    pub(super) fn want(&mut self, wanted: Wanted) {
        self.steps.want(wanted);
    }

    /// Whether there is a message for some queue.
    pub fn has_messages(&self) -> bool {
        !self.steps.unsent.is_empty() || !self.abort_over.is_empty()
    }

    /// Steps that were confirmed without need: bugs, all of them.
    pub fn faults(&self) -> u64 {
        self.steps.faults()
    }

    /// The next message to the queue of one of these cores, and whose it is.
    pub fn take_message(&mut self, cores: CoreSet) -> Option<(u8, ToQueue<D::Queue>)> {
        if let Some(to) = self.abort_over.and(cores).first() {
            self.abort_over.remove(to);
            return Some((to, ToQueue::AbortOver));
        }
        let to = self.steps.unsent.and(cores).first()?;
        let (number, wanted) = self.steps.current?;
        self.steps.unsent.remove(to);
        let step = self.step_for(to, wanted)?;
        Some((to, ToQueue::Step { number, step }))
    }

    fn step_for(&mut self, to: u8, wanted: Wanted) -> Option<Step<D::Queue>> {
        Some(match wanted {
            Wanted::Stop { away } => Step::Stop { away },
            Wanted::Stopped => Step::Stopped,
            Wanted::Drained => Step::Drained,
            Wanted::CacheLost => Step::CacheLost,
            Wanted::WritesLost { namespaces, at } => Step::WritesLost { namespaces, at },
            Wanted::NoNamespaces => Step::Namespaces { first: true, last: true, some: Vec::new() },
            Wanted::Namespaces { from } => {
                let some: Vec<IoNamespace, NAMESPACES_PER_STEP> =
                    self.namespaces_from(from).take(NAMESPACES_PER_STEP).collect();
                Step::Namespaces { first: from == 0, last: self.are_told(from), some }
            }
            Wanted::Up if to < self.pairs_up => {
                let share = self.share(to);
                let pair = self.pairs.get_mut(usize::from(to)).and_then(Option::take);
                debug_assert!(pair.is_some(), "a queue comes up twice");
                Step::Up { pair: pair?, share, limits: self.limits }
            }
            Wanted::Borrow if to >= self.pairs_up => {
                Step::Borrow { share: self.share(to), limits: self.limits }
            }
            Wanted::Up | Wanted::Borrow => Step::Nothing,
            Wanted::Close { until } => Step::Close { until },
            Wanted::Over => Step::Over,
        })
    }

    /// What a core has of the pair that it uses: that of the core with its number mod pairs.
    fn share(&self, core: u8) -> Share {
        let pairs = self.pairs_up.max(1);
        let lender = core % pairs;
        let sharers = self.cores.saturating_sub(lender).div_ceil(pairs);
        Share {
            qid: self.qid(core),
            lender,
            stride: pairs,
            generation: self.generation,
            ..Share::of(u16::from(core / pairs), sharers.into(), self.depth)
        }
    }

    fn namespaces_from(&self, from: usize) -> impl Iterator<Item = IoNamespace> {
        self.namespaces.served().skip(from).map(|record| IoNamespace {
            nsid: record.nsid,
            blocks: record.blocks,
            block_shift: record.block_shift,
            zeroes_deallocate: record.deallocate_features & 1 << 3 != 0,
        })
    }

    /// Whether a step with the namespaces from this place on is the last of them.
    fn are_told(&self, from: usize) -> bool {
        self.namespaces_from(from).nth(NAMESPACES_PER_STEP).is_none()
    }

    /// Takes in what a queue says.
    pub fn hear(&mut self, from: u8, message: FromQueue<D::Queue>, now: Instant) {
        // What a queue says that has not been stopped yet is of no interest any more.
        let works = matches!(self.state, State::Opening | State::Ready | State::Closing);
        match message {
            FromQueue::Confirm { number, answer } => self.confirmed(from, number, answer, now),
            FromQueue::Late { cid } => {
                if let Some(late) = self.late.get_mut(usize::from(from)).filter(|_| works) {
                    *late = Some(cid);
                }
            }
            FromQueue::Fault(fault) if works => {
                let reason = match fault {
                    Fault::Timeout => FailReason::CommandTimeout,
                    Fault::UnknownCompletions => FailReason::UnknownCompletions,
                };
                self.reset(reason, now);
            }
            FromQueue::Fault(_) => {}
            FromQueue::Closed => {
                self.closed.insert(from);
                self.close(now);
            }
        }
    }

    fn confirmed(&mut self, from: u8, number: u32, answer: Answer<D::Queue>, now: Instant) {
        match answer {
            Answer::Done => {}
            Answer::Stopped(pair) => {
                if let (Some(place), Some(pair)) = (self.pairs.get_mut(usize::from(from)), pair) {
                    *place = Some(pair);
                }
            }
            Answer::Prepared(prepared) => self.steps.prepared &= prepared,
            Answer::Dirty(namespaces) => self.steps.dirty |= namespaces,
        }
        match self.steps.pending.confirm(number, from) {
            Confirmed::Complete(wanted) => {
                self.steps.current = None;
                self.is_made(wanted, now);
                self.steps.begin();
            }
            Confirmed::Waiting(_) => {}
            Confirmed::Ignored => {
                hal_log::warn!(
                    "drive {}: core {} confirms a step that nobody waits for",
                    self.name().as_str(),
                    from
                );
            }
        }
    }

    /// All queues have taken a step.
    fn is_made(&mut self, made: Wanted, now: Instant) {
        match (made, self.state) {
            (Wanted::Stop { away: false }, State::Stopping(then)) => {
                self.steps.first(Wanted::Stopped);
                match then {
                    Then::Reset => self.disable(now),
                    Then::ShutDown => self.tell(now),
                }
            }
            (Wanted::Drained, State::Draining) if self.steps.prepared => self.enable(now),
            (Wanted::Drained, State::Draining) => self.fail(FailReason::NoPages, now),
            (Wanted::CacheLost, _) => self.note_lost(now),
            (Wanted::Namespaces { from }, _) => {
                let begins_anew = Wanted::Namespaces { from: 0 };
                if !self.are_told(from) && !self.steps.wanted.iter().any(|wanted| *wanted == begins_anew) {
                    self.steps.first(Wanted::Namespaces { from: from + NAMESPACES_PER_STEP });
                }
            }
            (Wanted::Up, State::Opening) if self.pairs_up < self.cores => self.steps.first(Wanted::Borrow),
            (Wanted::Up | Wanted::Borrow, State::Opening) => self.ready(now),
            _ => {}
        }
    }

    /// All queues have said what the cache held of theirs.
    fn note_lost(&mut self, now: Instant) {
        let namespaces = self.steps.dirty;
        if namespaces == 0 {
            return;
        }
        self.counters.lost_caches += 1;
        hal_log::error!(
            "drive {}: unflushed writes in its cache are lost or may be; the next Flush of {} namespaces fails",
            self.name().as_str(),
            namespaces.count_ones()
        );
        self.steps.first(Wanted::WritesLost { namespaces, at: now });
    }
}
