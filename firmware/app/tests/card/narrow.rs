//! A drive that is what everybody waits for: it moves so many bytes a turn, one operation after another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hal_fakes::{Media, MediaEnd, MediaRequest, RamMedia};

/// Blocks in memory behind a bottleneck.
#[derive(Debug)]
pub struct Narrow {
    blocks: RamMedia,
    /// Tags and bytes of what is under way, in order.
    under_way: VecDeque<(u32, u64)>,
    /// Bytes that could have been moved since the start.
    granted: Arc<AtomicU64>,
    /// Those of them that were, or that passed while there was nothing to do.
    used: u64,
}

impl Narrow {
    /// So many bytes of blocks. Whoever keeps the time adds to `granted`.
    pub fn new(bytes: usize, granted: &Arc<AtomicU64>) -> Self {
        Self {
            blocks: RamMedia::new(bytes),
            under_way: VecDeque::new(),
            granted: Arc::clone(granted),
            used: 0,
        }
    }
}

impl Media for Narrow {
    fn bytes(&self) -> u64 {
        self.blocks.bytes()
    }

    fn start(&mut self, request: &MediaRequest<'_>) -> Option<u16> {
        if self.under_way.is_empty() {
            self.used = self.used.max(self.granted.load(Ordering::Relaxed));
        }
        assert_eq!(self.blocks.start(request), Some(0));
        self.under_way.push_back((request.tag, request.bytes));
        None
    }

    fn poll(&mut self) -> Option<MediaEnd> {
        let (tag, bytes) = *self.under_way.front()?;
        if self.used + bytes > self.granted.load(Ordering::Relaxed) {
            return None;
        }
        self.used += bytes;
        self.under_way.pop_front();
        Some(MediaEnd { tag, status: 0 })
    }

    fn abandon(&mut self) {
        self.under_way.clear();
    }

    fn peek(&mut self, offset_bytes: u64, into: &mut [u8]) {
        self.blocks.peek(offset_bytes, into);
    }

    fn poke(&mut self, offset_bytes: u64, from: &[u8]) {
        self.blocks.poke(offset_bytes, from);
    }
}
