//! Which memory drives are using: a page that one of them may write belongs to one operation alone. And which writes are
//! over: nothing of them may reach a drive any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hal_fakes::Segment;
use hal_mem::PAGE_BYTES;

use crate::pattern::{Version, place_of, version_of};

/// Pages in use by any drive of a world, by address. The addresses are never hashed: they differ from run to run.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<BTreeMap<usize, Users>>>);

#[derive(Debug, Clone, Copy, Default)]
struct Users {
    /// Operations that read the page.
    readers: u32,
    /// Operations that write it.
    writers: u32,
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Users>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A drive begins to use `memory`.
    pub fn claim(&self, memory: &[Segment], writes: bool) {
        let mut pages = self.lock();
        for page in pages_of(memory) {
            let users = pages.entry(page).or_default();
            let taken = users.writers > 0 || (writes && users.readers > 0);
            assert!(!taken, "VIOLATION: a page that one drive operation writes was given to another");
            if writes {
                users.writers += 1;
            } else {
                users.readers += 1;
            }
        }
    }

    /// A drive has done with `memory`.
    pub fn release(&self, memory: &[Segment], writes: bool) {
        let mut pages = self.lock();
        for page in pages_of(memory) {
            let Some(users) = pages.get_mut(&page) else { continue };
            if writes {
                users.writers -= 1;
            } else {
                users.readers -= 1;
            }
            if users.readers + users.writers == 0 {
                pages.remove(&page);
            }
        }
    }
}

fn pages_of(memory: &[Segment]) -> impl Iterator<Item = usize> {
    memory.iter().map(|segment| segment.as_ptr() as usize / PAGE_BYTES)
}

/// Writes that are over, as their hosts see it: answered, or of a lost association that a newer one of the same host was fenced from.
///
/// A drive that is being reset may still carry such a write out: what comes after waits for the end of the reset. Once it has begun
/// anything else, the write would be a stale one. Commands that write zeros name no write in the blocks and are not seen here.
#[derive(Debug, Clone, Default)]
pub struct Over(Arc<Mutex<Ends>>);

#[derive(Debug, Default)]
struct Ends {
    /// Counts ends and beginnings.
    now: u64,
    ended: BTreeMap<Version, u64>,
}

impl Over {
    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present moment, and the next one begins.
    pub fn moment(&self) -> u64 {
        let mut ends = self.lock();
        ends.now += 1;
        ends.now
    }

    /// A write is over.
    pub fn add(&self, version: Version) {
        let now = self.moment();
        self.lock().ended.entry(version).or_insert(now);
    }

    /// Block `lba` reaches a drive, which has begun something last at the moment `begun`. What a Copy brings from another
    /// place may be of an old write.
    pub fn check(&self, block: &[u8], lba: u64, begun: u64) {
        if place_of(block) != lba {
            return;
        }
        let version = version_of(block);
        let stale = self.lock().ended.get(&version).is_some_and(|&ended| ended < begun);
        assert!(
            !stale,
            "VIOLATION: write {version} reaches a drive after its end, and after the beginning of another"
        );
    }
}
