//! What a namespace holds, as far as its hosts can know.
//!
//! Commands of one exchange may take effect in any order (Base 3.3.3): a block that one of them writes is not compared in it.

use std::collections::{HashMap, HashSet};

/// Bytes of a block.
pub const BLOCK: usize = 512;

/// Contents that were seen or written.
#[derive(Debug, Default)]
pub struct Blocks {
    known: HashMap<u64, Vec<u8>>,
    /// Written in this exchange, by how many commands.
    written: HashMap<u64, u32>,
    /// Written by commands whose effect is not modelled.
    doubtful: HashSet<u64>,
}

impl Blocks {
    /// What was sent before has taken effect.
    pub fn begin_exchange(&mut self) {
        self.written.clear();
    }

    /// Some command may write these in this exchange.
    pub fn may_write(&mut self, start: u64, count: u64) {
        for block in start..start.saturating_add(count) {
            *self.written.entry(block).or_default() += 1;
        }
    }

    /// Nothing is known of these any more, for good.
    pub fn doubt(&mut self, start: u64, count: u64) {
        self.doubtful.extend(start..start.saturating_add(count));
    }

    /// A command has written these. Without data it is zeros. Of two commands of one exchange either may be the later.
    pub fn wrote(&mut self, start: u64, count: u64, data: Option<&[u8]>) {
        for block in 0..count {
            let at = block as usize * BLOCK;
            if self.written.get(&(start + block)).is_some_and(|&times| times > 1) {
                self.known.remove(&(start + block));
            } else {
                let bytes = data.map_or(vec![0; BLOCK], |data| data[at..at + BLOCK].to_vec());
                self.known.insert(start + block, bytes);
            }
        }
    }

    /// Nobody knows whether a command wrote these: its answer was lost.
    pub fn forget(&mut self, start: u64, count: u64) {
        for block in start..start.saturating_add(count) {
            self.known.remove(&block);
        }
    }

    /// Whether `data` can be what stands there; what was not known is learnt.
    ///
    /// # Errors
    /// The block that differs.
    pub fn read(&mut self, start: u64, data: &[u8]) -> Result<(), u64> {
        for (block, bytes) in (start..).zip(data.chunks(BLOCK)) {
            if self.written.contains_key(&block) || self.doubtful.contains(&block) {
                continue;
            }
            match self.known.get(&block) {
                Some(known) if known != bytes => return Err(block),
                Some(_) => {}
                None => {
                    self.known.insert(block, bytes.to_vec());
                }
            }
        }
        Ok(())
    }

    /// Whether `data` is what stands there, if that is known of all blocks.
    #[must_use]
    pub fn compare(&self, start: u64, data: &[u8]) -> Option<bool> {
        let mut equal = true;
        for (block, bytes) in (start..).zip(data.chunks(BLOCK)) {
            if self.written.contains_key(&block) || self.doubtful.contains(&block) {
                return None;
            }
            equal &= self.known.get(&block)? == bytes;
        }
        Some(equal)
    }
}
