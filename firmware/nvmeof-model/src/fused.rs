//! Judges whether fused pairs were atomic, from what hosts sent and heard.
//!
//! Base 3.4.2 (fused operations). Hosts write the same blocks over and over. Every write has a number, which
//! stands in all of its data, and each thing that a host sends or hears of is a moment: what was heard of before another was sent came before it.
//! Reads, writes and pairs of the blocks are told here in the order in which one observer saw them begin and end.
//!
//! - A write that was sent after a value had its place comes after that value; and, where the value is a pair's, also if it was sent
//!   after that value had its place which the pair's Compare has found. If it has ended, and the older value is found by what was sent later,
//!   then something came into the pair, or a write was undone.
//! - A value is replaced by one pair at most.
//! - A pair that failed is never seen, and one fails only if somebody wrote since what it expects was read.

use std::collections::{BTreeMap, BTreeSet};

use crate::command_rules::{ABORTED_FAILED_FUSED, COMPARE_FAILURE};

/// A place in the order of all that hosts sent and heard.
pub type Moment = u64;

/// After so many writes the judge looks which ones it may forget.
const WRITES_BETWEEN_LOOKS: u32 = 64;

/// The data of write `id` of `place`: no two writes or places agree in any eight bytes.
#[must_use]
pub fn contents(place: u16, id: u32, bytes: usize) -> Vec<u8> {
    (0..bytes as u64 / 8)
        .flat_map(|word| (u64::from(id) << 32 | u64::from(place) << 16 | word & 0xffff).to_le_bytes())
        .collect()
}

/// Which write of `place` the data is of; none where it is not all of one write.
#[must_use]
pub fn id_of(place: u16, data: &[u8]) -> Option<u32> {
    let id = u32::from_le_bytes(data.get(4..8)?.try_into().ok()?);
    (data == contents(place, id, data.len())).then_some(id)
}

/// What a pair asked for.
#[derive(Debug)]
struct Pair {
    /// The value that its Compare named.
    expects: u32,
    /// When the read was sent that had found this value.
    read: Moment,
    /// When that value was known to have its place, where it is forgotten meanwhile.
    expected_ended: Option<Moment>,
}

/// One write.
#[derive(Debug, Default)]
struct Value {
    sent: Moment,
    ended: Option<Moment>,
    pair: Option<Pair>,
    /// Of a pair that was answered: it wrote nothing.
    failed: bool,
    seen: bool,
    /// The pair whose Compare has found this value, and which has replaced it.
    replaced_by: Option<u32>,
}

/// What came of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Plain writes that have ended.
    pub writes: u64,
    /// Pairs that wrote.
    pub successes: u64,
    /// Pairs whose Compare found something else.
    pub failures: u64,
    /// Pairs that had other writes under way with them.
    pub contested: u64,
}

impl Tally {
    /// Pairs that have ended.
    #[must_use]
    pub fn pairs(&self) -> u64 {
        self.successes + self.failures
    }
}

impl core::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.writes += other.writes;
        self.successes += other.successes;
        self.failures += other.failures;
        self.contested += other.contested;
    }
}

/// Every write of the same blocks, and what is known of their order. An `Err` says in a sentence what cannot be.
#[derive(Debug, Default)]
pub struct Judge {
    now: Moment,
    last_id: u32,
    values: BTreeMap<u32, Value>,
    /// When each read was sent that is still of interest: it is under way, or a pair is that expects what it has found.
    open: BTreeSet<Moment>,
    tally: Tally,
}

impl Judge {
    /// What came of it so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// A write is about to be sent. Returns its number.
    pub fn write_begins(&mut self) -> u32 {
        self.begin(None)
    }

    /// A write has succeeded.
    pub fn write_ended(&mut self, id: u32) -> Result<(), String> {
        self.tally.writes += 1;
        self.end(id).map(drop)
    }

    /// A read is about to be sent. To be ended by [`Self::read_over`], or with the pair that it is for.
    pub fn read_begins(&mut self) -> Moment {
        let now = self.moment();
        self.open.insert(now);
        now
    }

    /// The read that was sent at `read` has found this value.
    pub fn read_found(&mut self, read: Moment, id: u32) -> Result<(), String> {
        self.moment();
        self.found(id, read)
    }

    /// Nothing will come of the read.
    pub fn read_over(&mut self, read: Moment) {
        self.open.remove(&read);
    }

    /// A pair is about to be sent, whose Compare expects what that read has found. Returns the number of its write.
    pub fn pair_begins(&mut self, read: Moment, expects: u32) -> u32 {
        self.begin(Some(Pair { expects, read, expected_ended: None }))
    }

    /// The Compare and the Write of a pair have ended with these statuses (Base 4.2.3; SCT and SC alone).
    pub fn pair_ended(&mut self, id: u32, statuses: [u16; 2]) -> Result<(), String> {
        let value = self.end(id)?;
        let sent = value.sent;
        let pair = value.pair.as_ref().ok_or_else(|| format!("write {id} is no pair"))?;
        let (expects, read) = (pair.expects, pair.read);
        let at_once = |value: &Value| value.ended.is_none_or(|ended| ended > sent);
        let contested = self.others(id).any(|(_, value)| at_once(value));
        self.tally.contested += u64::from(contested);
        let judged = match statuses {
            [0, 0] => self.pair_wrote(id, expects, sent),
            [COMPARE_FAILURE, ABORTED_FAILED_FUSED] => self.pair_failed(id, expects, read),
            [compare, write] => Err(format!("pair {id} ended with {compare:#x} and {write:#x}")),
        };
        self.open.remove(&read);
        judged
    }

    fn pair_wrote(&mut self, id: u32, expects: u32, sent: Moment) -> Result<(), String> {
        self.tally.successes += 1;
        self.found(expects, sent)?;
        match self.values.get_mut(&expects).and_then(|value| value.replaced_by.replace(id)) {
            None => Ok(()),
            Some(rival) => Err(format!("pairs {rival} and {id} have both found {expects}")),
        }
    }

    fn pair_failed(&mut self, id: u32, expects: u32, read: Moment) -> Result<(), String> {
        self.tally.failures += 1;
        let since = |value: &Value| value.ended.is_none_or(|ended| ended > read);
        if !self.others(id).any(|(other, value)| *other != expects && since(value)) {
            return Err(format!("pair {id} failed, and nobody wrote since {expects} was read"));
        }
        let Some(value) = self.values.get_mut(&id) else { return Ok(()) };
        value.failed = true;
        if value.seen { Err(format!("value {id} was seen, and its pair failed")) } else { Ok(()) }
    }

    /// The blocks held this value at some time after `since`, when whoever found it was sent.
    fn found(&mut self, id: u32, since: Moment) -> Result<(), String> {
        let Some(value) = self.values.get_mut(&id) else {
            let why =
                if id > self.last_id { "nobody wrote it" } else { "it was replaced, or failed, before" };
            return Err(format!("value {id} stands in the blocks: {why}"));
        };
        value.seen = true;
        if value.failed {
            return Err(format!("value {id} of a pair that failed stands in the blocks"));
        }
        let value = &self.values[&id];
        let expected = value.pair.as_ref().and_then(|pair| {
            pair.expected_ended.or_else(|| self.values.get(&pair.expects).and_then(|expected| expected.ended))
        });
        let Some(earliest) = [value.ended, expected].into_iter().flatten().min() else { return Ok(()) };
        let is_lost = |later: &Value| later.sent > earliest && later.ended.is_some_and(|ended| ended < since);
        match self.others(id).find(|(_, later)| is_lost(later)) {
            None => Ok(()),
            Some((other, later)) => Err(format!(
                "write {other} was lost: it came before or into the pair that wrote {id}, or a write was undone: \
                 {later:?}, {value:?}"
            )),
        }
    }

    /// Writes that may have had their place, but for one.
    fn others(&self, but: u32) -> impl Iterator<Item = (&u32, &Value)> {
        self.values.iter().filter(move |(id, value)| **id != but && !value.failed)
    }

    fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    fn begin(&mut self, pair: Option<Pair>) -> u32 {
        self.last_id += 1;
        if self.last_id.is_multiple_of(WRITES_BETWEEN_LOOKS) {
            self.forget();
        }
        let sent = self.moment();
        self.values.insert(self.last_id, Value { sent, pair, ..Value::default() });
        self.last_id
    }

    fn end(&mut self, id: u32) -> Result<&Value, String> {
        let now = self.moment();
        let value = self.values.get_mut(&id).filter(|value| value.ended.is_none());
        let value = value.ok_or_else(|| format!("an answer to write {id}, which is not under way"))?;
        value.ended = Some(now);
        Ok(value)
    }

    /// Forgets values that nobody can find any more: a later write has ended before all reads that are of interest were sent.
    fn forget(&mut self) {
        let horizon = self.open.first().copied().unwrap_or(self.now);
        let hides = |value: &&Value| !value.failed && value.ended.is_some_and(|ended| ended < horizon);
        let Some(last) = self.values.values().filter(hides).map(|value| value.sent).max() else { return };
        let is_hidden = |value: &Value| value.ended.is_some_and(|ended| ended < last);
        let hidden: BTreeMap<u32, Option<Moment>> = self
            .values
            .extract_if(.., |_, value| is_hidden(value))
            .map(|(id, value)| (id, value.ended))
            .collect();
        for pair in self.values.values_mut().filter_map(|value| value.pair.as_mut()) {
            if let Some(ended) = hidden.get(&pair.expects) {
                pair.expected_ended = *ended;
            }
        }
    }
}

#[cfg(test)]
mod tests;
