//! What an operator is told of connections.

use heapless::Vec;
use message::mailbox;

use crate::queue::Queue;
use crate::target::Target;

impl Target {
    /// The open connections from place `first` on, as many as there is room for.
    #[must_use]
    pub fn tell_queues<const N: usize>(&self, first: u16) -> Vec<mailbox::Queue, N> {
        let places = (0u16..).zip(self.queues.iter()).skip(usize::from(first));
        let open = places.filter(|(_, queue)| queue.is_open());
        open.map(|(place, queue)| queue.tell(place)).take(N).collect()
    }
}

impl Queue {
    fn tell(&self, place: u16) -> mailbox::Queue {
        mailbox::Queue {
            place,
            cntlid: self.context.map(|_| self.cntlid),
            queue_id: self.queue_id().unwrap_or(0),
            address: self.peer,
            port: self.port.0,
            entries: self.entries,
            outstanding: self.outstanding,
            at_drives: self.at_backend,
            header_digest: self.digests.header,
            data_digest: self.digests.data,
            pages: self.general_pages + self.reserved_pages,
        }
    }
}
