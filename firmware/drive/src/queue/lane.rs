//! A core's way to a drive: a queue pair of its own, or a share of another core's, where the drive gives fewer than there are
//! cores.
//!
//! Who borrows makes whole commands, with PRP entries for its own pages, and sends them to the *lender* under CIDs of its own
//! range; the lender puts them into its submission queue as they are and sends back what completes in that range. So no page leaves
//! its core, nothing is translated, and an Abort names the command that it means. The lender believes nothing of the drive: it
//! passes on the end of a command that is out, once.

use hal_api::{COMMAND_BYTES, COMPLETION_BYTES, CommandQueue, QueueFull};
use heapless::Deque;
use message::CoreSet;

use super::DriveQueue;
use crate::limits::{COMMANDS_PER_DRIVE, LENT_COMMANDS};

/// A core's part of a queue pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// The pair's number at the drive.
    pub qid: u16,
    /// The core that has the pair.
    pub lender: u8,
    /// The first index of the CIDs, and how many there are.
    pub first: u16,
    pub count: u16,
    /// Commands at a time.
    pub depth: u16,
    /// Between two cores that borrow of the same lender.
    pub stride: u8,
    /// Of this time that the drive is up.
    pub generation: u32,
}

impl Share {
    /// The share of the `place`th of `sharers` cores, 0 for the lender, in a pair that takes `depth` commands.
    pub fn of(place: u16, sharers: u16, depth: u16) -> Self {
        let borrowers = sharers.saturating_sub(1);
        let lent = (depth / sharers.max(1)).clamp(1, LENT_COMMANDS);
        let own = (COMMANDS_PER_DRIVE as u16).saturating_sub(borrowers * LENT_COMMANDS);
        let (first, count, depth) = match place {
            0 => (0, own, depth.saturating_sub(borrowers * lent).max(1)),
            _ => (own + (place - 1) * LENT_COMMANDS, LENT_COMMANDS, lent),
        };
        Self { qid: 0, lender: 0, first, count, depth, stride: 0, generation: 0 }
    }
}

/// How a core reaches the drive.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each drive, and there is no heap to box it in")]
pub(super) enum Lane<Q> {
    /// By a pair of its own, of which others may borrow.
    Own(Q, Share),
    /// By another core's.
    Borrowed(Borrowed),
}

/// What is on its way to the lender and from it.
#[derive(Debug)]
pub(super) struct Borrowed {
    share: Share,
    under_way: u16,
    out: Deque<[u8; COMMAND_BYTES], { LENT_COMMANDS as usize }>,
    home: Deque<[u8; COMPLETION_BYTES], { LENT_COMMANDS as usize }>,
}

impl Borrowed {
    pub const fn new(share: Share) -> Self {
        Self { share, under_way: 0, out: Deque::new(), home: Deque::new() }
    }
}

impl<Q: CommandQueue> CommandQueue for Lane<Q> {
    fn depth(&self) -> u16 {
        match self {
            Self::Own(pair, share) => pair.depth().min(share.depth),
            Self::Borrowed(borrowed) => borrowed.share.depth,
        }
    }

    fn submit(&mut self, command: &[u8; COMMAND_BYTES]) -> Result<(), QueueFull> {
        match self {
            Self::Own(pair, _) => pair.submit(command),
            Self::Borrowed(borrowed) if borrowed.under_way < borrowed.share.depth => {
                borrowed.out.push_back(*command).map_err(|_| QueueFull)?;
                borrowed.under_way += 1;
                Ok(())
            }
            Self::Borrowed(_) => Err(QueueFull),
        }
    }

    fn complete(&mut self) -> Option<[u8; COMPLETION_BYTES]> {
        match self {
            Self::Own(pair, _) => pair.complete(),
            Self::Borrowed(borrowed) => {
                let entry = borrowed.home.pop_front()?;
                borrowed.under_way = borrowed.under_way.saturating_sub(1);
                Some(entry)
            }
        }
    }

    fn flush(&mut self) {
        if let Self::Own(pair, _) = self {
            pair.flush();
        }
    }

    fn arm(&mut self) -> bool {
        match self {
            Self::Own(pair, _) => pair.arm(),
            Self::Borrowed(borrowed) => !borrowed.home.is_empty(),
        }
    }

    fn disarm(&mut self) {
        if let Self::Own(pair, _) = self {
            pair.disarm();
        }
    }
}

/// What a lender does for others.
#[derive(Debug, Default)]
pub(super) struct Lent {
    /// Commands that have found no room: one of each core, where the pair is small.
    waiting: Deque<[u8; COMMAND_BYTES], { LENT_COMMANDS as usize }>,
    /// Ends to be passed on.
    home: Deque<(u8, [u8; COMPLETION_BYTES]), { LENT_COMMANDS as usize }>,
    /// By index, the generation in the CID of the command that is out.
    out: Out,
}

/// Commands that are out, by the two halves of their CIDs.
#[derive(Debug)]
struct Out([Option<u8>; COMMANDS_PER_DRIVE]);

impl Default for Out {
    fn default() -> Self {
        Self([None; COMMANDS_PER_DRIVE])
    }
}

impl Out {
    fn begin(&mut self, [index, generation]: [u8; 2]) {
        if let Some(place) = self.0.get_mut(usize::from(index)) {
            *place = Some(generation);
        }
    }

    /// Whether the command was out; it is not any more.
    fn end(&mut self, [index, generation]: [u8; 2]) -> bool {
        let place = self.0.get_mut(usize::from(index));
        place.is_some_and(|place| place.take_if(|of| *of == generation).is_some())
    }
}

impl Lent {
    /// Whether the ends that were taken have to be passed on first.
    pub fn is_full(&self) -> bool {
        self.home.is_full()
    }
}

/// Between a lender and who borrows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LaneMessage {
    /// To the lender.
    Command([u8; COMMAND_BYTES]),
    /// From it.
    Completion([u8; COMPLETION_BYTES]),
}

impl<Q: CommandQueue> DriveQueue<Q> {
    /// The next command or end for another core that has `room`, which that is, and of which time.
    pub fn take_lane_message(&mut self, room: CoreSet) -> Option<(u8, u32, LaneMessage)> {
        match self.pair.as_mut()? {
            Lane::Own(_, share) => {
                self.lent.home.front().filter(|(to, _)| room.contains(*to))?;
                let (to, entry) = self.lent.home.pop_front()?;
                Some((to, share.generation, LaneMessage::Completion(entry)))
            }
            Lane::Borrowed(Borrowed { share, .. }) if !room.contains(share.lender) => None,
            Lane::Borrowed(Borrowed { share, out, .. }) => {
                Some((share.lender, share.generation, LaneMessage::Command(out.pop_front()?)))
            }
        }
    }

    /// Whether there is one.
    pub fn has_lane_message(&self) -> bool {
        match &self.pair {
            None => false,
            Some(Lane::Own(..)) => !self.lent.home.is_empty(),
            Some(Lane::Borrowed(borrowed)) => !borrowed.out.is_empty(),
        }
    }

    /// Takes in a command or an end. Those of an earlier time have found their end already.
    pub fn hear_lane(&mut self, generation: u32, message: LaneMessage) {
        match (message, &mut self.pair) {
            (LaneMessage::Command(command), Some(Lane::Own(_, share))) if share.generation == generation => {
                if self.lent.waiting.push_back(command).is_err() {
                    // It will be late, and the drive reset: something is very wrong with it.
                    debug_assert!(false, "more commands than were lent");
                }
                self.submit_lent();
            }
            (LaneMessage::Completion(entry), Some(Lane::Borrowed(borrowed)))
                if borrowed.share.generation == generation =>
            {
                // As much room as commands.
                let _ = borrowed.home.push_back(entry);
            }
            _ => {}
        }
    }

    /// Gives the drive what others have sent.
    pub(super) fn submit_lent(&mut self) {
        let Some(Lane::Own(pair, _)) = &mut self.pair else { return };
        while let Some(command) = self.lent.waiting.front() {
            let [_, _, index, generation, ..] = *command;
            if pair.submit(command).is_err() {
                return;
            }
            self.lent.out.begin([index, generation]);
            self.lent.waiting.pop_front();
        }
    }

    /// Keeps an end for the core that it belongs to. `None` where it is this core's, or nobody's.
    pub(super) fn pass_on(&mut self, cid: u16, entry: &[u8; COMPLETION_BYTES]) -> Option<()> {
        let Some(Lane::Own(_, share)) = &self.pair else { return None };
        let (index, lender, stride, own) = (cid & 0xff, share.lender, share.stride, share.count);
        if index < own || !self.lent.out.end(cid.to_le_bytes()) {
            return None;
        }
        let place = (index - own) / LENT_COMMANDS + 1;
        let to = u8::try_from(u16::from(lender) + place * u16::from(stride)).ok()?;
        // The caller has looked.
        self.lent.home.push_back((to, *entry)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_a_pair_do_not_meet() {
        for sharers in 1..=16 {
            for depth in [1, 2, 7, 31, 127, 254] {
                let shares: Vec<Share> = (0..sharers).map(|place| Share::of(place, sharers, depth)).collect();
                let mut next = 0;
                for share in &shares {
                    assert!(share.first == next && share.count >= 1 && share.depth >= 1);
                    next = share.first + share.count;
                }
                assert!(next <= COMMANDS_PER_DRIVE as u16);
                let all: u16 = shares.iter().map(|share| share.depth).sum();
                assert!(all <= depth.max(sharers), "{sharers} cores, depth {depth}");
            }
        }
    }
}
