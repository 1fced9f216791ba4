//! The last steps of a drive that leaves its place.

use hal_api::NvmeDevice;
use hal_mem::PagePool;

use super::{Drive, State};
use crate::tables::DriveMemory;

impl<D: NvmeDevice> Drive<D> {
    /// The device with its queues, and the memory of the tables; the drive's own pages go back to the pool. After
    /// [`Self::abandon`], with nothing outstanding.
    pub(crate) fn take_apart(mut self, pool: &mut PagePool) -> (D, Option<DriveMemory>) {
        debug_assert!(self.state == State::ShutDown && self.outstanding() == 0);
        let Some(parts) = self.parts.take() else { return (self.device, self.idle_memory) };
        let (admin, (io, memory)) = (parts.admin.take_apart(pool), parts.io.take_apart(pool));
        self.device.return_queue(0, admin);
        self.device.return_queue(self.qid, io);
        (self.device, Some(memory))
    }
}
