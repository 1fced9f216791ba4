//! The steering rule, as an invariant: a core's stack is given the segments of that core's connections, and no others.

use std::net::SocketAddr;

use app::CoreQueue;
use hal_api::{FrameQueue, FrameReceive, Moved, PortInfo};
use hal_fakes::FakeFrameQueue;

use crate::rss::Rss;

/// A data core's queue, and who looks at what it gives.
pub struct CheckedQueue {
    queue: CoreQueue<FakeFrameQueue>,
    check: Check,
}

#[derive(Clone, Copy)]
struct Check {
    core: usize,
    rss: Rss,
}

impl CheckedQueue {
    /// The queue of data core `core`. Connections belong to the cores that `rss` gives.
    pub fn new(queue: CoreQueue<FakeFrameQueue>, core: usize, rss: Rss) -> Self {
        Self { queue, check: Check { core, rss } }
    }
}

/// The receiving half of a [`CheckedQueue`].
pub struct CheckedReceive<R> {
    receive: R,
    check: Check,
}

impl<R: FrameReceive> FrameReceive for CheckedReceive<R> {
    fn receive<T>(&mut self, consume: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let Check { core, rss } = self.check;
        self.receive.receive(|frame| {
            let owner = rss.queue_of(frame).unwrap_or(core);
            assert_eq!(core, owner, "VIOLATION: data core {core} is given a segment of data core {owner}");
            consume(frame)
        })
    }

    fn has_frame(&mut self) -> bool {
        self.receive.has_frame()
    }
}

type Inner<'a> = CoreQueue<FakeFrameQueue>;

impl FrameQueue for CheckedQueue {
    type Receive<'a> = CheckedReceive<<Inner<'a> as FrameQueue>::Receive<'a>>;
    type Transmit<'a> = <Inner<'a> as FrameQueue>::Transmit<'a>;

    fn info(&self) -> PortInfo {
        self.queue.info()
    }

    fn halves(&mut self) -> (Self::Receive<'_>, Self::Transmit<'_>) {
        let (receive, transmit) = self.queue.halves();
        (CheckedReceive { receive, check: self.check }, transmit)
    }

    fn flush(&mut self) {
        self.queue.flush();
    }

    fn take_moved(&mut self) -> Moved {
        self.queue.take_moved()
    }

    fn answers_for_port(&self) -> bool {
        self.queue.answers_for_port()
    }

    fn is_given(&self, remote: SocketAddr, local: SocketAddr) -> bool {
        self.queue.is_given(remote, local)
    }

    fn link_is_up(&mut self) -> bool {
        self.queue.link_is_up()
    }

    fn arm(&mut self) -> bool {
        self.queue.arm()
    }

    fn disarm(&mut self) {
        self.queue.disarm();
    }
}
