//! Completions that belong to no command under way: old ones that come again, and some that never were.
//!
//! Drivers keep a table of commands and put the place there into the low byte of the identifier; what a lie has to look
//! like follows from that.

use std::collections::VecDeque;

use super::NvmeEffect;
use super::model::{Model, Queue};

/// Completions that a queue remembers: more than there may be commands under way.
const REMEMBERED: usize = 256;

/// A completion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) cid: u16,
    pub(super) status: u16,
    pub(super) result: u32,
}

/// The latest completions of a queue.
#[derive(Debug, Default)]
pub(super) struct Memory(VecDeque<Ended>);

impl Memory {
    pub(super) fn note(&mut self, ended: Ended) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(ended);
    }

    /// The latest of another command that had the place of this one.
    fn of_place(&self, cid: u16) -> Option<Ended> {
        let same = |ended: &&Ended| ended.cid != cid && place_of(ended.cid) == place_of(cid);
        self.0.iter().rev().find(same).copied()
    }
}

fn place_of(cid: u16) -> u8 {
    cid as u8
}

impl Queue {
    /// An identifier of which not even the place is in use.
    fn stranger(&self, first: u16) -> Option<u16> {
        let in_use =
            |place| (0..=u8::MAX).any(|high| self.identifiers.has(u16::from_le_bytes([place, high])));
        let mut candidates = (0..=u16::from(u8::MAX)).map(|step| first.wrapping_add(step));
        // FFFFh is not for use.
        candidates.find(|&cid| cid != u16::MAX && !in_use(place_of(cid)))
    }
}

impl Model {
    /// A command with an effect begins: what the drive says before it has done anything.
    pub(super) fn lie_first(&mut self, qid: u16, cid: u16, effect: Option<NvmeEffect>) {
        let random = self.random() as u16;
        let queue = &self.queues[usize::from(qid)];
        let lie = match effect {
            Some(NvmeEffect::Late) => queue.memory.of_place(cid),
            Some(NvmeEffect::Stranger) => {
                queue.stranger(random).map(|cid| Ended { cid, status: 0, result: 0 })
            }
            _ => None,
        };
        if let Some(Ended { cid, status, result }) = lie {
            self.post(qid, cid, status, result);
        }
    }
}
