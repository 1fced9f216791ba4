//! Role `net`: this core's queue of each Ethernet port, and the connections on them.

use core::time::Duration;

use controller::{Listener, PortId};
use drive::SharedLately;
use hal_api::{FrameQueue, Instant, NvmeDevice};
use heapless::Vec;
use message::Address;
use net::{ConnectionId, PortAddress, PortAddresses, Stack, Stream, StreamState};
use nvmeof::{ConnectionState, QueueIndex, Refusal};

use crate::core_loop::TURN_BUDGET;
use crate::data_core::{DataCore, MAX_PORTS};
use crate::shutdown::Ending;

/// Connections on one core; only those that there are cost turns anything.
pub const MAX_CONNECTIONS: u16 = 128;
// Each may have a queue of another core's controller to give back.
const _: () = assert!(MAX_CONNECTIONS as usize <= message::MAX_QUEUES);

/// A unit of a turn's budget, for a connection: so much each way.
const UNIT_BYTES: u32 = 4096;
/// A connection's share of a turn, each way, while others are served as well. Small enough that a host with 16 reads of
/// 4 KiB under way always has some left over from the turn before, and so gets all of its share; large enough that a turn does
/// much more than what it costs itself (docs/design/slow-hosts.md).
const SHARED_TURN_BYTES: u32 = 24 * 1024;

const OPEN_WORDS: usize = (MAX_CONNECTIONS as usize).div_ceil(u64::BITS as usize);

/// Between two lines about connections that are refused.
const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(1);

/// The TCP connection that an NVMe queue is.
#[derive(Debug, Clone, Copy)]
struct Connection {
    /// The place of its port's stack.
    port: u8,
    stream: ConnectionId,
    /// Send room after the queue was last served, in bytes: more of it is news to the queue.
    send_room: usize,
}

/// This core's connections, by the index of their queue.
pub(crate) struct Connections {
    of_queue: [Option<Connection>; MAX_CONNECTIONS as usize],
    /// A bit for each queue that has a connection.
    open: [u64; OPEN_WORDS],
    /// The addresses of each port that the other cores know, and the generation of the discovery log.
    told: [PortAddresses; MAX_PORTS],
    told_generation: u64,
    /// The queue that the next turn begins with, so that a low index is no advantage.
    first: u16,
    /// When the next refusal may be told of.
    next_refusal_log: Instant,
    /// Whether turns are shared: by the queues that were served.
    served: SharedLately<QueueIndex>,
}

impl Connections {
    pub(crate) const fn new() -> Self {
        Self {
            of_queue: [None; MAX_CONNECTIONS as usize],
            open: [0; OPEN_WORDS],
            told: [PortAddresses { main: None, ipv6: None }; MAX_PORTS],
            told_generation: 0,
            first: 0,
            next_refusal_log: Instant::ZERO,
            served: SharedLately::new(),
        }
    }

    fn get(&self, queue: QueueIndex) -> Option<Connection> {
        self.of_queue.get(usize::from(queue.0)).copied().flatten()
    }

    fn set(&mut self, queue: QueueIndex, connection: Option<Connection>) {
        if let Some(place) = self.of_queue.get_mut(usize::from(queue.0)) {
            *place = connection;
        }
        let bit = 1u64 << (queue.0 % 64);
        if let Some(word) = self.open.get_mut(usize::from(queue.0 / 64)) {
            *word = if connection.is_some() { *word | bit } else { *word & !bit };
        }
    }

    /// What a queue may have of this turn.
    fn share_bytes(&self, budget: u32, now: Instant) -> u32 {
        let bytes = budget.saturating_mul(UNIT_BYTES);
        if self.served.is_shared(now) { bytes.min(SHARED_TURN_BYTES) } else { bytes }
    }

    /// The queues that have a connection now.
    fn open(&self) -> impl Iterator<Item = QueueIndex> + use<> {
        (0u16..).step_by(64).zip(self.open).flat_map(|(first, word)| {
            let mut left = word;
            core::iter::from_fn(move || {
                let bit = left.trailing_zeros() as u16;
                left &= left.checked_sub(1)?;
                Some(QueueIndex(first + bit))
            })
        })
    }
}

/// The stack's stream as a queue of NVMe/TCP sees it, on either side.
#[derive(Debug)]
pub struct QueueStream<'a>(pub Stream<'a>);

impl nvmeof::Stream for QueueStream<'_> {
    fn receive(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        self.0.receive(take)
    }
    fn send_room(&self) -> usize {
        self.0.send_room()
    }
    fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        self.0.send(fill)
    }
    fn close(&mut self) {
        self.0.close();
    }
    fn abort(&mut self) {
        self.0.abort();
    }
}

/// Whether nothing more can come of a connection: it is gone, or the host has ended its side and all that it had
/// sent is taken.
fn is_over(stream: &Stream) -> bool {
    match stream.state() {
        StreamState::Connecting | StreamState::Open => false,
        StreamState::PeerClosed => stream.received_bytes() == 0,
        StreamState::Closed => true,
    }
}

impl<F: FrameQueue, D: NvmeDevice + 'static> DataCore<F, D> {
    /// Takes frames in, opens a queue for each new connection, and wakes the queues that have news.
    pub(crate) fn receive_frames(&mut self, now: Instant, budget: u32) -> u32 {
        let mut frames = 0;
        for port in 0..self.stacks.len() as u8 {
            let Some(stack) = self.stack(port) else { continue };
            let came = stack.poll(now, budget as usize) as u32;
            if came > 0 {
                self.accept(port, now);
            }
            frames += came;
        }
        if frames > 0 {
            self.wake_queues(now);
        }
        frames
    }

    fn stack(&mut self, port: u8) -> Option<&mut Stack<F>> {
        self.stacks.get_mut(usize::from(port))
    }

    fn accept(&mut self, port: u8, now: Instant) {
        let Some(stack) = self.stacks.get_mut(usize::from(port)) else { return };
        while let Some((stream, peer)) = stack.accept() {
            if self.ending != Ending::No || !self.changes.is_open(port) {
                if let Some(mut stream) = stack.stream(stream) {
                    stream.abort();
                }
                stack.release(stream);
                continue;
            }
            match self.target.open(now, port_id(port), Some(peer.address)) {
                Ok(queue) => {
                    self.connections.set(queue, Some(Connection { port, stream, send_room: 0 }));
                    continue;
                }
                // One line a second at most: whoever is refused may ask again at once.
                Err(refusal) if now >= self.connections.next_refusal_log => {
                    self.connections.next_refusal_log = now + REFUSAL_LOG_PERIOD;
                    let why = match refusal {
                        Refusal::Full => "all places are taken",
                        Refusal::AddressLimit => "its address has enough of them",
                    };
                    hal_log::warn!("connection from {} refused: {}", peer.address, why);
                }
                Err(_) => {}
            }
            if let Some(mut stream) = stack.stream(stream) {
                stream.abort();
            }
            stack.release(stream);
        }
    }

    fn wake_queues(&mut self, now: Instant) {
        for queue in self.connections.open() {
            let Some(connection) = self.connections.get(queue) else { continue };
            match self
                .stacks
                .get_mut(usize::from(connection.port))
                .and_then(|stack| stack.stream(connection.stream))
            {
                Some(stream) if !is_over(&stream) => {
                    if stream.state() == StreamState::PeerClosed {
                        self.target.peer_closed(queue, now);
                    }
                    if stream.received_bytes() > 0 || stream.send_room() > connection.send_room {
                        self.target.wake(queue);
                    }
                }
                _ => self.forget(queue, now),
            }
        }
    }

    /// Gives each queue that has something to do its share of the turn, once: what is left then waits for the next.
    pub(crate) fn serve_queues(&mut self, now: Instant, budget: u32) -> u32 {
        if !self.target.has_ready() {
            return 0;
        }
        let first = self.connections.first;
        let work =
            self.serve_range(first, MAX_CONNECTIONS, now, budget) + self.serve_range(0, first, now, budget);
        if work > 0 {
            self.connections.first = (first + 1) % MAX_CONNECTIONS;
        }
        work
    }

    fn serve_range(&mut self, mut from: u16, end: u16, now: Instant, budget: u32) -> u32 {
        let mut work = 0;
        // Behind the last ready queue the target begins again with the first.
        while let Some(queue) = self.target.next_ready(QueueIndex(from))
            && (from..end).contains(&queue.0)
        {
            work += self.serve(queue, now, budget);
            from = queue.0 + 1;
        }
        work
    }

    // Out of the way of turns in which no queue has anything to do.
    #[inline(never)]
    fn serve(&mut self, queue: QueueIndex, now: Instant, budget: u32) -> u32 {
        let Some(connection) = self.connections.get(queue) else { return 0 };
        let stack = self.stacks.get_mut(usize::from(connection.port));
        let stream = stack.and_then(|stack| stack.stream(connection.stream));
        let Some(mut stream) = stream.map(QueueStream) else {
            self.forget(queue, now);
            return 1;
        };
        let mut environment = nvmeof::Environment {
            subsystem: &mut self.subsystem,
            pool: &mut self.pool,
            backend: &mut self.drives,
        };
        let budget_bytes = self.connections.share_bytes(budget, now);
        let progress = self.target.poll(queue, now, &mut stream, &mut environment, budget_bytes);
        if progress.work > 0 {
            self.connections.served.note(queue, now);
        }
        let over = is_over(&stream.0);
        let send_room = stream.0.send_room();
        if progress.state == ConnectionState::Closed {
            self.release(queue, connection);
        } else if over {
            self.forget(queue, now);
        } else {
            self.connections.set(queue, Some(Connection { send_room, ..connection }));
        }
        progress.work.div_ceil(UNIT_BYTES)
    }

    /// The connection is gone: its queue ends too.
    fn forget(&mut self, queue: QueueIndex, now: Instant) {
        self.target.closed(
            queue,
            now,
            &mut nvmeof::Environment {
                subsystem: &mut self.subsystem,
                pool: &mut self.pool,
                backend: &mut self.drives,
            },
        );
        if let Some(connection) = self.connections.get(queue) {
            self.release(queue, connection);
        }
    }

    /// Ends every connection that is left of those by some ports.
    pub(crate) fn cut_off(&mut self, now: Instant, is_it: impl Fn(u8) -> bool) {
        for queue in self.connections.open() {
            let connection = self.connections.get(queue);
            if !connection.is_some_and(|connection| is_it(connection.port)) {
                continue;
            }
            if let Some(connection) = connection
                && let Some(stack) = self.stack(connection.port)
                && let Some(mut stream) = stack.stream(connection.stream)
            {
                stream.abort();
            }
            self.forget(queue, now);
        }
    }

    fn release(&mut self, queue: QueueIndex, connection: Connection) {
        self.connections.set(queue, None);
        if let Some(stack) = self.stack(connection.port) {
            stack.release(connection.stream);
        }
    }

    /// Sends what the turn has produced and rings all doorbells.
    pub(crate) fn transmit(&mut self, now: Instant) {
        for stack in &mut self.stacks {
            stack.transmit(now, TURN_BUDGET as usize);
            stack.flush();
        }
        self.drives.flush();
    }

    /// Tells the discovery service where the card can be reached now. The first core does, for all.
    pub(crate) fn report_addresses(&mut self) {
        if self.subsystem.core() == 0 {
            let listeners = self.listeners();
            self.subsystem.set_listeners(&listeners);
            if self.subsystem.has_others() {
                self.tell_addresses();
            }
        }
    }

    /// The first core has told the addresses of all ports.
    pub(crate) fn follow_listeners(&mut self, generation: u64) {
        let listeners = self.listeners();
        self.subsystem.follow_listeners(&listeners, generation);
    }

    fn listeners(&self) -> Vec<Listener, { 2 * MAX_PORTS }> {
        let mut listeners = Vec::<Listener, { 2 * MAX_PORTS }>::new();
        let open = self.stacks.iter().zip(0..).filter(|(_, place)| self.changes.is_open(*place));
        for (stack, place) in open {
            for own in stack.addresses().iter() {
                // A port has two addresses at most.
                let listener =
                    Listener { port_id: port_id(place), address: own.address, port: self.tcp_port };
                let _ = listeners.push(listener);
            }
        }
        listeners
    }

    /// The other cores' stacks have the addresses of this one's.
    fn tell_addresses(&mut self) {
        for ((stack, told), port) in self.stacks.iter().zip(&mut self.connections.told).zip(0..) {
            let now = stack.addresses();
            // Whoever could not be told now is told in the next tick.
            if *told != now
                && self.subsystem.tell_addresses(port, [now.main, now.ipv6].map(|own| own.map(as_message)))
            {
                *told = now;
            }
        }
        let generation = self.subsystem.discovery_generation();
        let all_told =
            self.stacks.iter().zip(&self.connections.told).all(|(stack, told)| stack.addresses() == *told);
        if all_told && self.connections.told_generation != generation && self.subsystem.tell_listening() {
            self.connections.told_generation = generation;
        }
    }

    /// The first core has said what addresses a port has.
    pub(crate) fn follow(&mut self, port: u8, addresses: [Option<Address>; 2]) {
        let [main, ipv6] = addresses.map(|own| {
            own.map(|Address { address, prefix, gateway }| PortAddress { address, prefix, gateway })
        });
        if let Some(stack) = self.stack(port) {
            stack.follow(PortAddresses { main, ipv6 });
        }
    }
}

const fn as_message(own: PortAddress) -> Address {
    let PortAddress { address, prefix, gateway } = own;
    Address { address, prefix, gateway }
}

/// Ports are counted from 1 where hosts see them.
pub(crate) const fn port_id(place: u8) -> PortId {
    PortId(place as u16 + 1)
}
