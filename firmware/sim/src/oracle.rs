//! What a reader may see: the truth about each block, as far as the hosts' commands and their answers tell it.
//!
//! A block has a list of writes that may stand in it. A write joins the list when it is sent. It hides those that had
//! ended before it was sent, once it was answered with success; they are gone for good once it must be durable:
//! after FUA, after a flush, or on a drive without a volatile cache. A drive that loses its power shows hidden writes
//! again. What a read returned hides the others that had ended by then. Time here is a count of the oracle's calls, so
//! that "before" is exact.
//!
//! A host that was answered with success, before a loss of power or for a write that it had sent before, and was not told
//! of the loss by a Flush that failed, may believe its next Flush that succeeds: that one vouches for the write.

mod copies;
mod pairs;

use std::collections::{BTreeMap, BTreeSet};

use crate::pattern::{Contents, Mark, Version, inspect};
use crate::watch::Over;

/// A moment: a number that grows with each thing that is told.
pub type Moment = u64;

const NEVER: Moment = Moment::MAX;

/// No host: a flush in its name vouches for nothing that lost power has taken.
pub const NOBODY: u8 = u8::MAX;

/// One write that may stand in a block.
#[derive(Debug, Clone)]
struct Entry {
    version: Version,
    zeros: bool,
    /// The host that wrote it.
    writer: u8,
    sent: Moment,
    /// No longer on its way.
    ended: Moment,
    /// Answered with success, so that it replaces what was there, unless the power went since.
    answered: Moment,
    /// Later reads do not see it.
    hidden: Moment,
    /// Not even lost power brings it back.
    gone: bool,
    /// Of a Copy: what it may have brought here.
    copied: Option<Vec<Mark>>,
    /// Of a fused pair that has written: when the write that its Compare has found had ended. What was sent later comes
    /// after the pair.
    follows: Moment,
}

impl Entry {
    fn new(version: Version, zeros: bool, writer: u8, sent: Moment) -> Self {
        Self {
            version,
            zeros,
            writer,
            sent,
            ended: NEVER,
            answered: NEVER,
            hidden: NEVER,
            gone: false,
            copied: None,
            follows: NEVER,
        }
    }

    /// What a write that brings its own blocks makes of this one.
    fn own_mark(&self, lba: u64) -> Mark {
        Mark::of(lba, self.version, self.zeros)
    }

    fn may_hold(&self, lba: u64, mark: Mark) -> bool {
        match &self.copied {
            Some(marks) => marks.contains(&mark),
            None => self.own_mark(lba) == mark,
        }
    }

    /// Whether it has done its work for certain before what was sent then, on a drive that has lost its power last at `lost`.
    fn is_before(&self, sent: Moment, lost: Moment) -> bool {
        let as_pair = self.answered != NEVER && self.follows <= sent && lost < self.follows;
        self.ended <= sent || as_pair
    }

    /// Reads that are sent after `now` do not see it any more.
    fn hide(&mut self, now: Moment, for_good: bool) {
        self.hidden = self.hidden.min(now);
        self.gone |= for_good;
    }
}

/// Entries that are gone, of a block: a read that was sent before may still return one. One that was sent before others were
/// dropped, because it hung for half a minute, is not judged.
const MOST_GONE: usize = 64;

/// A namespace, by its place in the world.
#[derive(Debug)]
struct Namespace {
    blocks: BTreeMap<u64, Vec<Entry>>,
    /// Blocks with more than one entry.
    open: BTreeSet<u64>,
    /// Of blocks whose oldest entries were dropped: when the last of these was hidden.
    dropped: BTreeMap<u64, Moment>,
    volatile: bool,
    /// When the drive has lost its power last.
    power_lost: Moment,
    /// When each host was told last that writes are lost.
    told: BTreeMap<u8, Moment>,
    /// When all hosts were told at once.
    all_told: Moment,
    /// Copies under way.
    copies: Vec<copies::Copying>,
}

/// Some blocks of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The namespace's place in the world.
    pub namespace: u16,
    /// First block.
    pub lba: u64,
    /// How many.
    pub blocks: u32,
}

impl Range {
    /// The blocks' numbers.
    pub fn lbas(self) -> impl Iterator<Item = u64> {
        self.lba..self.lba + u64::from(self.blocks)
    }
}

/// The truth about all blocks.
#[derive(Debug)]
pub struct Oracle {
    now: Moment,
    versions: Version,
    namespaces: Vec<Namespace>,
    over: Over,
}

impl Oracle {
    /// Namespaces full of zeros; each with or without a volatile cache before it.
    #[must_use]
    pub fn new(volatile: &[bool], over: Over) -> Self {
        let namespace = |&volatile: &bool| Namespace {
            blocks: BTreeMap::new(),
            open: BTreeSet::new(),
            dropped: BTreeMap::new(),
            volatile,
            power_lost: 0,
            told: BTreeMap::new(),
            all_told: 0,
            copies: Vec::new(),
        };
        Self { now: 1, versions: 0, namespaces: volatile.iter().map(namespace).collect(), over }
    }

    /// The present moment, and the next one begins.
    pub fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// A write is about to be sent; the version that marks its blocks.
    pub fn write_sent(&mut self, range: Range, zeros: bool, writer: u8) -> Version {
        self.versions += 1;
        let (version, sent) = (self.versions, self.moment());
        let namespace = &mut self.namespaces[usize::from(range.namespace)];
        for lba in range.lbas() {
            namespace.block(lba).push(Entry::new(version, zeros, writer, sent));
            namespace.open.insert(lba);
            namespace.feed_copies(lba, Mark::of(lba, version, zeros));
        }
        version
    }

    /// A write was answered with success. `replaces` is false for a hint that a drive may ignore.
    pub fn write_done(&mut self, range: Range, version: Version, forced: bool, replaces: bool) {
        self.over.add(version);
        let now = self.moment();
        let namespace = &mut self.namespaces[usize::from(range.namespace)];
        namespace.copy_ended(version);
        let durable = forced || !namespace.volatile;
        for lba in range.lbas() {
            let lost = namespace.power_lost;
            let writer = namespace.block(lba).iter().find(|entry| entry.version == version);
            let Some(writer) = writer.map(|entry| entry.writer) else { continue };
            let told = namespace.was_told(writer);
            let entries = namespace.block(lba);
            let Some(entry) = entries.iter_mut().find(|entry| entry.version == version) else { continue };
            entry.ended = now;
            if !replaces {
                continue;
            }
            // What was in the cache when the power went may be gone, though the answer comes only now: it is as if it
            // had come just before.
            if !durable && lost > entry.sent {
                entry.answered = if told { NEVER } else { lost };
                continue;
            }
            entry.answered = now;
            let sent = entry.sent;
            let replaced = |other: &Entry| other.version != version && other.is_before(sent, lost);
            let others = entries.iter_mut().filter(|other| replaced(other));
            others.for_each(|other| other.hide(now, durable));
            namespace.settle(lba);
        }
    }

    /// A write was answered with an error, or its connection's writes have ended: it changes nothing from now on, and
    /// nobody knows whether it has.
    pub fn write_ended(&mut self, range: Range, version: Version) {
        self.over.add(version);
        let now = self.moment();
        let namespace = &mut self.namespaces[usize::from(range.namespace)];
        namespace.copy_ended(version);
        for lba in range.lbas() {
            let entry = namespace.block(lba).iter_mut().find(|entry| entry.version == version);
            if let Some(entry) = entry {
                entry.ended = entry.ended.min(now);
            }
        }
    }

    /// A write was not sent after all.
    pub fn write_unsent(&mut self, range: Range, version: Version) {
        self.over.add(version);
        let namespace = &mut self.namespaces[usize::from(range.namespace)];
        namespace.copy_ended(version);
        for lba in range.lbas() {
            namespace.block(lba).retain(|entry| entry.version != version);
            namespace.settle(lba);
        }
    }

    /// A host's flush that was sent at `sent` was answered with success: what was answered before is durable. For its
    /// own writes that holds although the power went in between: the flush would have had to fail.
    pub fn flushed(&mut self, namespace: u16, sent: Moment, host: u8) {
        let now = self.moment();
        let namespace = &mut self.namespaces[usize::from(namespace)];
        let lost = namespace.power_lost;
        for lba in namespace.open.clone() {
            let entries = namespace.block(lba);
            let vouched = |entry: &&Entry| entry.writer == host || entry.answered > lost;
            let answered = entries.iter().filter(|entry| entry.answered < sent).filter(vouched);
            if let Some(newest) = answered.map(|entry| entry.sent).max() {
                let older = entries.iter_mut().filter(|other| other.ended <= newest && other.sent != newest);
                older.for_each(|other| other.hide(now, true));
            }
            namespace.settle(lba);
        }
    }

    /// The drive of a namespace has lost its power, and its volatile cache with it.
    pub fn power_lost(&mut self, namespace: u16) {
        let now = self.moment();
        let namespace = &mut self.namespaces[usize::from(namespace)];
        if namespace.volatile {
            namespace.power_lost = now;
            for lba in &namespace.open {
                let entries = namespace.blocks.get_mut(lba).into_iter().flatten();
                entries.filter(|entry| !entry.gone).for_each(|entry| entry.hidden = NEVER);
            }
            namespace.feed_copies_anew();
        }
    }

    /// A host, or each of them, knows that its unflushed writes may be gone: a flush no longer vouches for those before.
    pub fn loss_is_known(&mut self, namespace: u16, host: Option<u8>) {
        let now = self.moment();
        let namespace = &mut self.namespaces[usize::from(namespace)];
        match host {
            Some(host) => _ = namespace.told.insert(host, now),
            None => namespace.all_told = now,
        }
        for lba in &namespace.open {
            for entry in namespace.blocks.get_mut(lba).into_iter().flatten() {
                if entry.answered <= namespace.power_lost && host.is_none_or(|host| host == entry.writer) {
                    entry.answered = NEVER;
                }
            }
        }
    }

    /// Judges a block that a read returned; the read was sent at `sent` and is answered now.
    ///
    /// # Errors
    /// What is wrong with the block.
    pub fn judge(&mut self, range: Range, lba: u64, sent: Moment, block: &[u8]) -> Result<bool, String> {
        let now = self.moment();
        let contents = inspect(block, range.namespace, lba);
        let namespace = &mut self.namespaces[usize::from(range.namespace)];
        let calm = namespace.power_lost < sent;
        let volatile = namespace.volatile;
        let too_old = namespace.dropped.get(&lba).is_some_and(|&hidden| hidden > sent);
        let entries = namespace.block(lba);
        let mark = Mark::found(contents, range.namespace, lba);
        let is_seen = |entry: &Entry| mark.is_some_and(|mark| entry.may_hold(lba, mark));
        if !entries.iter().any(|entry| is_seen(entry) && entry.hidden > sent) {
            // What is still remembered is judged.
            let may_be = match contents {
                Contents::Zeros => true,
                Contents::Of(version) => !entries.iter().any(|entry| entry.version == version),
                _ => mark.is_some() && !entries.iter().any(is_seen),
            };
            if too_old && may_be {
                return Ok(true);
            }
            return Err(format!(
                "block {lba} holds {contents:?}; it may hold {entries:?}; read sent at {sent}"
            ));
        }
        let several = entries.iter().filter(|entry| entry.hidden > sent).count() > 1;
        if calm {
            let others = entries.iter_mut().filter(|entry| !is_seen(entry) && entry.ended <= sent);
            others.for_each(|entry| entry.hide(now, !volatile));
            namespace.settle(lba);
        }
        Ok(several)
    }

    /// The one version that a block must hold now, if nothing is on its way there and nothing is in doubt.
    #[must_use]
    pub fn certain(&self, namespace: u16, lba: u64) -> Option<(Version, bool)> {
        let entries = match self.namespaces[usize::from(namespace)].blocks.get(&lba) {
            Some(entries) => entries,
            None => return Some((0, true)),
        };
        let mut visible = entries.iter().filter(|entry| entry.hidden == NEVER);
        let first = visible.next()?;
        let alone = visible.next().is_none() && first.ended != NEVER && first.copied.is_none();
        alone.then_some((first.version, first.zeros))
    }
}

impl Namespace {
    /// Whether a host knows of the last loss of power.
    fn was_told(&self, host: u8) -> bool {
        let told = self.told.get(&host).copied().unwrap_or(0).max(self.all_told);
        told > self.power_lost
    }

    fn block(&mut self, lba: u64) -> &mut Vec<Entry> {
        let first = Entry { ended: 0, answered: 0, ..Entry::new(0, true, 0, 0) };
        self.blocks.entry(lba).or_insert_with(|| vec![first])
    }

    /// Keeps the list short.
    fn settle(&mut self, lba: u64) {
        let Some(entries) = self.blocks.get_mut(&lba) else { return };
        if entries.iter().filter(|entry| !entry.gone).count() < 2 {
            self.open.remove(&lba);
        }
        let mut gone = entries.iter().filter(|entry| entry.gone).count();
        entries.retain(|entry| {
            let old = entry.gone && gone > MOST_GONE;
            gone -= usize::from(old);
            if old {
                let dropped = self.dropped.entry(lba).or_insert(0);
                *dropped = entry.hidden.max(*dropped);
            }
            !old
        });
    }
}

#[cfg(test)]
mod tests;
