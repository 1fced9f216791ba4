//! Which memory drives are using: a page that one of them may write belongs to one operation alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hal_fakes::Segment;
use hal_mem::PAGE_BYTES;

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
