//! Copies: what they bring into a block is what stood in another one at some time while they were under way.
//!
//! A block that holds what a Copy may have brought is no source of another one, so that no chain has to be followed.

use super::{Entry, Mark, NEVER, Namespace, Oracle, Range};
use crate::pattern::Version;

/// A Copy under way.
#[derive(Debug)]
pub(super) struct Copying {
    version: Version,
    /// From where, and to where.
    blocks: Vec<(u64, u64)>,
}

impl Oracle {
    /// A Copy is about to be sent; the version that stands for it. `None` where it would be one of a copied block, would write
    /// what another Copy may be reading, or copy a block upon itself.
    pub fn copy_sent(&mut self, to: Range, from: &[Range], writer: u8) -> Option<Version> {
        let namespace = &mut self.namespaces[usize::from(to.namespace)];
        let sources = from.iter().flat_map(|range| range.lbas());
        let blocks: Vec<(u64, u64)> = sources.zip(to.lbas()).collect();
        let chained = |&(from, to): &(u64, u64)| {
            from == to || namespace.may_hold_copy(from) || namespace.is_being_copied(to)
        };
        if blocks.iter().any(chained) {
            return None;
        }
        let seen = |entry: &&Entry| entry.hidden == NEVER;
        let mut marks_of = |from: u64| -> Vec<Mark> {
            namespace.block(from).iter().filter(seen).map(|entry| entry.own_mark(from)).collect()
        };
        let marks: Vec<Vec<Mark>> = blocks.iter().map(|&(from, _)| marks_of(from)).collect();
        self.versions += 1;
        let (version, sent) = (self.versions, self.moment());
        let namespace = &mut self.namespaces[usize::from(to.namespace)];
        for (&(_, to), marks) in blocks.iter().zip(marks) {
            let entry = Entry { copied: Some(marks), ..Entry::new(version, false, writer, sent) };
            namespace.block(to).push(entry);
            namespace.open.insert(to);
        }
        namespace.copies.push(Copying { version, blocks });
        Some(version)
    }
}

impl Namespace {
    fn may_hold_copy(&self, lba: u64) -> bool {
        let mut entries = self.blocks.get(&lba).into_iter().flatten();
        entries.any(|entry| entry.copied.is_some() && !entry.gone)
    }

    fn is_being_copied(&self, lba: u64) -> bool {
        self.copies.iter().any(|copy| copy.blocks.iter().any(|&(from, _)| from == lba))
    }

    /// A Copy is over, if it is one.
    pub(super) fn copy_ended(&mut self, version: Version) {
        self.copies.retain(|copy| copy.version != version);
    }

    /// A write to a block begins: Copies that read it may find this.
    pub(super) fn feed_copies(&mut self, lba: u64, mark: Mark) {
        for copy in &self.copies {
            for &(_, to) in copy.blocks.iter().filter(|(from, _)| *from == lba) {
                let entries = self.blocks.get_mut(&to).into_iter().flatten();
                let marks =
                    entries.filter(|entry| entry.version == copy.version).filter_map(|e| e.copied.as_mut());
                marks.for_each(|marks| marks.push(mark));
            }
        }
    }

    /// The power is lost: Copies under way may find what was replaced.
    pub(super) fn feed_copies_anew(&mut self) {
        let sources: Vec<u64> =
            self.copies.iter().flat_map(|copy| copy.blocks.iter().map(|&(from, _)| from)).collect();
        for from in sources {
            let entries = self.blocks.get(&from).into_iter().flatten();
            let back = entries.filter(|entry| !entry.gone && entry.copied.is_none());
            let marks: Vec<Mark> = back.map(|entry| entry.own_mark(from)).collect();
            marks.into_iter().for_each(|mark| self.feed_copies(from, mark));
        }
    }
}
