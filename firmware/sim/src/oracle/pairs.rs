//! Fused pairs: nothing may come between what the Compare has found and what the Write puts in its place.

use super::{Entry, Mark, Moment, NEVER, Oracle, Range};
use crate::pattern::Version;

impl Oracle {
    /// What stands in a block as far as can be guessed: the last write that was answered.
    #[must_use]
    pub fn likely(&self, namespace: u16, lba: u64) -> (Version, bool) {
        let entries = self.namespaces[usize::from(namespace)].blocks.get(&lba).into_iter().flatten();
        let answered =
            |entry: &&Entry| entry.answered != NEVER && entry.hidden == NEVER && entry.copied.is_none();
        let last = entries.filter(answered).max_by_key(|entry| entry.sent);
        last.map_or((0, true), |entry| (entry.version, entry.zeros))
    }

    /// The Compare of a pair, sent at `sent`, has found these marks. `version` is the pair's own. For each block, when
    /// the write had ended that it found, where it is known which one that was.
    ///
    /// # Errors
    /// What it cannot have found.
    pub fn pair_found(
        &mut self,
        range: Range,
        version: Version,
        marks: &[Mark],
        sent: Moment,
    ) -> Result<Vec<Moment>, String> {
        let namespace = &mut self.namespaces[usize::from(range.namespace)];
        let mut follows = Vec::new();
        for (lba, &mark) in range.lbas().zip(marks) {
            let too_old = namespace.dropped.get(&lba).is_some_and(|&hidden| hidden > sent);
            let entries = namespace.block(lba);
            let may_be =
                |entry: &Entry| entry.version != version && entry.hidden > sent && entry.may_hold(lba, mark);
            if !too_old && !entries.iter().any(may_be) {
                return Err(format!("block {lba} cannot hold {mark:?}, but {entries:?}; sent at {sent}"));
            }
            let own = mark.own(lba);
            let writer = entries.iter().find(|entry| Some(entry.version) == own && entry.copied.is_none());
            follows.push(writer.map_or(NEVER, |entry| entry.ended));
        }
        Ok(follows)
    }

    /// A pair was answered with success: its Compare has found these marks, and nothing has come between it and the Write.
    ///
    /// # Errors
    /// What it cannot have found.
    pub fn pair_done(
        &mut self,
        range: Range,
        version: Version,
        forced: bool,
        marks: &[Mark],
        sent: Moment,
    ) -> Result<(), String> {
        let follows = self.pair_found(range, version, marks, sent)?;
        self.write_done(range, version, forced, true);
        let now = self.moment();
        let namespace = &mut self.namespaces[usize::from(range.namespace)];
        for (lba, follows) in range.lbas().zip(follows) {
            // Lost power may have brought back what was found.
            if follows == NEVER || namespace.power_lost >= follows {
                continue;
            }
            let for_good = !namespace.volatile;
            let entries = namespace.block(lba);
            // A write that was sent after what was found had its place would have been found instead, had it come before.
            let later =
                |entry: &Entry| entry.version != version && entry.answered != NEVER && entry.sent > follows;
            let is_replaced = entries.iter().any(later);
            let pair = entries.iter_mut().find(|entry| entry.version == version && entry.answered != NEVER);
            if let Some(pair) = pair {
                pair.follows = follows;
                if is_replaced {
                    pair.hide(now, for_good);
                }
            }
            namespace.settle(lba);
        }
        Ok(())
    }
}
