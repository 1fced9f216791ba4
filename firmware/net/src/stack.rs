//! One port's stack on one core.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use hal_api::{FrameQueue, FrameReceive, FrameTransmit, Instant, Moved};
use hal_mem::{Arena, CopyCount, OutOfMemory};
use smoltcp::iface::{Interface, PollResult};
use smoltcp::wire::{EthernetAddress, HardwareAddress};

use crate::address::{AddressState, PortAddresses};
use crate::config::Config;
use crate::connections::{ConnectError, ConnectionId, Connections, PeerInfo, Receiver};
use crate::device::{Capabilities, FrameDevice, MAX_FRAME_BYTES};
use crate::frame::{Segment, arp_target};
use crate::stream::Stream;
use crate::vlan::without_tag;

/// How often the link and the connections' own time limits are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Timers of TCP are not looked up more often than this while there is traffic.
const TIMER_GRAIN: Duration = Duration::from_millis(1);
/// One line on refused connections at most so often.
const REFUSAL_LOG_PERIOD: Duration = Duration::from_secs(10);

/// What a stack has seen since the start, for the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames received, whatever became of them.
    pub frames_received: u64,
    /// Frames sent.
    pub frames_sent: u64,
    /// Frames that this core's queue has received for other cores and passed on.
    pub frames_passed_on: u64,
    /// Those of them that were dropped.
    pub frames_dropped: u64,
    /// Frames sent for other cores.
    pub frames_carried: u64,
    /// Connections accepted.
    pub connections_accepted: u64,
    /// Requests refused because all sockets were in use.
    pub connections_refused: u64,
    /// Sockets that no connection uses now.
    pub sockets_free: usize,
    /// Bytes copied to take tags off.
    pub copied_bytes: u64,
}

/// The TCP/IP stack of one Ethernet queue pair.
pub struct Stack<F: FrameQueue> {
    queue: F,
    interface: Interface,
    connections: Connections,
    address: AddressState,
    capabilities: Capabilities,
    scratch: &'static mut [u8],
    /// A received frame without its VLAN tag.
    untagged: &'static mut [u8],
    copied: CopyCount,
    now: Instant,
    /// What is no connection may have something to send: DHCP.
    others_wanted: bool,
    /// When the next timer fires, as of `timers_seen`.
    deadline: Instant,
    timers_seen: Instant,
    timers_stale: bool,
    next_tick: Instant,
    counters: Counters,
    frames_taken: u64,
    refusals_logged: u64,
    next_refusal_log: Instant,
}

impl<F: FrameQueue> Stack<F> {
    /// A stack over `queue` with all its memory ([`Config::memory_bytes`]) from `arena`. `seed` is random: it
    /// makes sequence numbers and the ports of own connections hard to guess.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the arena is too small; what was taken from it by then is lost.
    pub fn new(
        mut queue: F,
        config: &Config<'_>,
        arena: &mut Arena,
        seed: u64,
        now: Instant,
    ) -> Result<Self, OutOfMemory> {
        let info = queue.info();
        let capabilities = Capabilities::new(&info, config.mtu_limit, config.vlan);
        let scratch = arena.slice(MAX_FRAME_BYTES, |_| 0u8)?;
        let untagged_bytes = if capabilities.vlan.is_some() { MAX_FRAME_BYTES } else { 0 };
        let untagged = arena.slice(untagged_bytes, |_| 0u8)?;
        let mut connections = Connections::new(config, arena, seed)?;
        let mac = station_address(info.mac);
        let mut smoltcp = smoltcp::iface::Config::new(HardwareAddress::Ethernet(station_address(info.mac)));
        smoltcp.random_seed = seed;
        let link_up = queue.link_is_up();
        let mut interface = {
            let (transmit, sent) = (&mut queue.halves().1, &mut 0);
            let mut device = FrameDevice { capabilities, frame: None, transmit, scratch, sent, mute: false };
            Interface::new(smoltcp, &mut device, to_smoltcp(now))
        };
        let address = AddressState::new(config, mac.0, link_up, &mut interface, &mut connections.others, now);
        Ok(Self {
            queue,
            interface,
            connections,
            address,
            capabilities,
            scratch,
            untagged,
            copied: CopyCount::new(),
            now,
            others_wanted: true,
            deadline: now,
            timers_seen: now,
            timers_stale: true,
            next_tick: now,
            counters: Counters::default(),
            frames_taken: 0,
            refusals_logged: 0,
            next_refusal_log: now,
        })
    }

    /// Sends what is left over and what timers make due, then takes in at most `budget` frames. Returns the
    /// number of frames, about twice `budget` at most, those moved for other cores, and one more where a timer fired; 0
    /// means that no connection has changed since the last call.
    ///
    /// Acknowledgements of what came in wait for [`Stack::transmit`], so that they travel with the answers.
    pub fn poll(&mut self, now: Instant, budget: usize) -> usize {
        self.now = now;
        let mut timers = false;
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            let link_up = self.queue.link_is_up();
            let (interface, others) = (&mut self.interface, &mut self.connections.others);
            if self.address.tick(link_up, interface, others, now) {
                self.want_all();
            }
            // DHCP has no time of its own that traffic would not put off.
            self.others_wanted = true;
            timers = true;
        }
        if self.timers_stale && now >= self.timers_seen + TIMER_GRAIN {
            self.read_timers();
        }
        if now >= self.deadline {
            self.others_wanted = true;
            self.connections.want_due(now);
            (self.deadline, self.timers_stale) = (Instant::FAR_FUTURE, true);
            timers = true;
        }
        let sent = self.egress(budget);
        let received = self.ingress(budget);
        if received > 0 || timers {
            self.review(timers);
        }
        let Moved { passed_on, carried, .. } = self.take_moved();
        self.frames_taken = self.frames_taken.wrapping_add((received + passed_on) as u64);
        sent + received + usize::from(timers) + passed_on + carried
    }

    /// Sends what the streams were given and acknowledges what they received, in at most about `budget`
    /// frames; the rest goes with the next poll. Returns the number of frames. Once a turn, after the
    /// streams' work.
    pub fn transmit(&mut self, now: Instant, budget: usize) -> usize {
        self.now = now;
        self.egress(budget)
    }

    /// Frames that were taken from the port's queue since the start, those of other cores included.
    #[must_use]
    pub fn frames_taken(&self) -> u64 {
        self.frames_taken
    }

    /// Whether a frame has come that was not taken yet.
    pub fn has_frame(&mut self) -> bool {
        self.queue.halves().0.has_frame()
    }

    /// Drops what has come, at most `limit` frames, as a wire does; frames of other cores go on to them. For a port whose
    /// sending queue stays full, so that nothing is taken in. Returns how many.
    pub fn drop_frames(&mut self, limit: usize) -> usize {
        let mut receive = self.queue.halves().0;
        let dropped = (0..limit).map_while(|_| receive.receive(|_| ())).count();
        drop(receive);
        let passed_on = self.take_moved().passed_on;
        self.frames_taken = self.frames_taken.wrapping_add((dropped + passed_on) as u64);
        dropped
    }

    /// Hands everything to the device. Once, at the end of a turn.
    pub fn flush(&mut self) {
        self.queue.flush();
    }

    /// When the stack wants to be polled at the latest though nothing arrives; `now` or earlier when it has
    /// something to do at once.
    pub fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        self.now = now;
        if self.others_wanted || !self.connections.wanted.is_empty() {
            return Some(now);
        }
        if self.timers_stale {
            self.read_timers();
        }
        Some(self.deadline.min(self.next_tick))
    }

    /// Asks for an interrupt at the next frame; true when one is waiting already ([`FrameQueue::arm`]).
    pub fn arm(&mut self) -> bool {
        self.queue.arm()
    }

    /// The core is awake ([`FrameQueue::disarm`]).
    pub fn disarm(&mut self) {
        self.queue.disarm();
    }

    /// A connection that a peer has opened; `None` when there is no new one.
    pub fn accept(&mut self) -> Option<(ConnectionId, PeerInfo)> {
        let accepted = self.connections.accept()?;
        self.counters.connections_accepted += 1;
        Some(accepted)
    }

    /// Begins a connection of our own from a port of its own. It is the caller's at once, as an accepted one is: it
    /// is [`StreamState::Connecting`](crate::StreamState) until the remote has answered, and closed if that does not
    /// happen within 30 s. Listening goes on with the sockets that are left.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing was sent then.
    pub fn connect(&mut self, remote: SocketAddr, now: Instant) -> Result<ConnectionId, ConnectError> {
        self.now = now;
        let address = remote.ip();
        let broadcast = address == IpAddr::V4(core::net::Ipv4Addr::BROADCAST);
        if remote.port() == 0 || address.is_unspecified() || address.is_multicast() || broadcast {
            return Err(ConnectError::InvalidRemote);
        }
        let local = self.address.towards(address).ok_or(ConnectError::NoAddress)?;
        // What comes back has to come to this core.
        let queue = &self.queue;
        let is_given = |port| queue.is_given(remote, SocketAddr::new(local, port));
        self.connections.connect(self.interface.context(), local, remote, is_given)
    }

    /// The bytes of a connection; `None` once it was released.
    pub fn stream(&mut self, id: ConnectionId) -> Option<Stream<'_>> {
        self.connections.stream(id)
    }

    /// Gives a connection up. What is still open is closed in good order within a few seconds, or reset where
    /// the stream was aborted. A stale id is ignored.
    pub fn release(&mut self, id: ConnectionId) {
        self.connections.release(id, self.now);
    }

    /// The port's main address; `None` while DHCP has not answered.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses().main.map(|own| own.address)
    }

    /// All that the other cores of the port have to be told when it changes.
    #[must_use]
    pub fn addresses(&self) -> PortAddresses {
        self.address.addresses()
    }

    /// Takes over what the port's first data core has told; only where the stack
    /// [follows](crate::Addressing::Follow).
    pub fn follow(&mut self, addresses: PortAddresses) {
        debug_assert!(self.address.follows(), "a stack that looks after the port itself");
        if self.address.follows() && addresses != self.addresses() {
            self.address.set(&mut self.interface, addresses);
            self.want_all();
        }
    }

    /// Whether the link was up at the last look.
    #[must_use]
    pub fn link_is_up(&self) -> bool {
        self.address.link_is_up()
    }

    /// What the stack has seen since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let (sockets_free, copied_bytes) = (self.connections.free(), self.copied.bytes());
        Counters { sockets_free, copied_bytes, ..self.counters }
    }

    /// The queue pair, for what only its owner may ask it.
    pub fn queue(&mut self) -> &mut F {
        &mut self.queue
    }

    /// What the queue has moved for other cores since the last call.
    fn take_moved(&mut self) -> Moved {
        let moved = self.queue.take_moved();
        self.counters.frames_passed_on += moved.passed_on as u64;
        self.counters.frames_dropped += moved.dropped as u64;
        self.counters.frames_carried += moved.carried as u64;
        moved
    }

    /// Everything may have something to send: the network is not what it was.
    fn want_all(&mut self) {
        self.others_wanted = true;
        self.connections.want_all();
    }

    fn ingress(&mut self, budget: usize) -> usize {
        let Self {
            queue,
            interface,
            connections,
            capabilities,
            scratch,
            untagged,
            copied,
            counters,
            now,
            ..
        } = self;
        let answers_for_port = queue.answers_for_port();
        let (mut receive, mut transmit) = queue.halves();
        let (mut received, mut others) = (0, false);
        // An answer needs room: without it the frame waits in the queue.
        while received < budget && transmit.has_room() {
            let frame_taken = receive.receive(|frame| {
                let frame = match capabilities.vlan {
                    None => frame,
                    Some(vlan) => match without_tag(frame, vlan, untagged, copied) {
                        Some(frame) => frame,
                        None => return,
                    },
                };
                let segment = Segment::of(frame);
                // A segment to many stations is dropped without a word (RFC 1122, section 4.2.3.10). smoltcp would give a
                // socket to it, and to a hidden one.
                let is_ours = |segment: &Segment| {
                    segment.ends().is_some_and(|ends| interface.has_ip_addr(ends.destination.ip()))
                };
                if !segment.as_ref().is_none_or(is_ours) {
                    return;
                }
                // Broadcasts on the wire are many, and most of no concern to anyone here.
                if arp_target(frame).is_some_and(|target| !interface.has_ip_addr(target)) {
                    return;
                }
                // From a question that another core answers this one learns where its sender is.
                let mute = segment.is_none() && !answers_for_port;
                others |= segment.is_none();
                let receiver = segment.map_or(Receiver::Nobody, |segment| connections.receiver(&segment));
                if receiver == Receiver::Full {
                    counters.connections_refused += 1;
                    // Where a socket gives way soon, or now, an honest peer that hears nothing asks again and gets in.
                    let gives_way = connections.gives_way_soon();
                    connections.listen(*now);
                    if gives_way {
                        return;
                    }
                }
                let mut device = FrameDevice {
                    capabilities: *capabilities,
                    frame: Some(frame),
                    transmit: &mut transmit,
                    scratch,
                    sent: &mut counters.frames_sent,
                    mute,
                };
                let index = match receiver {
                    Receiver::Socket(index) => Some(index),
                    Receiver::Nobody | Receiver::Full => None,
                };
                let set = index.and_then(|index| connections.set_of(index));
                match set {
                    Some(set) => interface.poll_ingress_single(to_smoltcp(*now), &mut device, set),
                    None => {
                        interface.poll_ingress_single(to_smoltcp(*now), &mut device, &mut connections.others)
                    }
                };
                if let Some(index) = index {
                    connections.want(index);
                    connections.review(index, *now);
                }
            });
            if frame_taken.is_none() {
                break;
            }
            received += 1;
        }
        drop((receive, transmit));
        self.counters.frames_received += received as u64;
        if others {
            // Where a station is may be known now.
            self.want_all();
        }
        received
    }

    fn egress(&mut self, budget: usize) -> usize {
        let before = self.counters.frames_sent;
        let mut sent = 0;
        while sent < budget && self.queue.halves().1.has_room() {
            if self.others_wanted {
                self.others_wanted = self.send_one(None);
            } else if let Some(index) = self.connections.wanted.take() {
                if self.send_one(Some(index)) {
                    self.connections.want(index);
                } else {
                    self.connections.review(index, self.now);
                }
            } else {
                break;
            }
            sent = (self.counters.frames_sent - before) as usize;
        }
        sent
    }

    /// Sends a frame of a socket, or of what is no connection. Whether there may be more.
    fn send_one(&mut self, index: Option<u16>) -> bool {
        self.timers_stale = true;
        let set = match index {
            None => &mut self.connections.others,
            Some(index) => match self.connections.set_of(index) {
                Some(set) => set,
                None => return false,
            },
        };
        let mut transmit = self.queue.halves().1;
        let mut device = FrameDevice {
            capabilities: self.capabilities,
            frame: None,
            transmit: &mut transmit,
            scratch: self.scratch,
            sent: &mut self.counters.frames_sent,
            mute: false,
        };
        self.interface.poll_egress(to_smoltcp(self.now), &mut device, set) != PollResult::None
    }

    fn review(&mut self, timers: bool) {
        if timers {
            self.connections.review_all(self.now);
        } else {
            self.connections.listen(self.now);
        }
        if self.address.review(&mut self.interface, &mut self.connections.others, self.now) {
            self.want_all();
        }
        self.log_refusals();
    }

    fn read_timers(&mut self) {
        self.timers_stale = false;
        self.timers_seen = self.now;
        // What is due now and was not sent in the pass before cannot be sent now; ask again soon.
        let soon = self.now + TIMER_GRAIN;
        let at = |at| from_smoltcp(at).max(soon);
        let Self { interface, connections, now, .. } = self;
        let now = to_smoltcp(*now);
        let of_connections = connections.next_deadline(interface, now, at);
        let of_others = interface.poll_at(now, &connections.others).map_or(Instant::FAR_FUTURE, at);
        self.deadline = of_connections.min(of_others);
    }

    fn log_refusals(&mut self) {
        let refused = self.counters.connections_refused;
        if refused != self.refusals_logged && self.now >= self.next_refusal_log {
            hal_log::warn!("too many connections: {} refused", refused - self.refusals_logged);
            self.refusals_logged = refused;
            self.next_refusal_log = self.now + REFUSAL_LOG_PERIOD;
        }
    }
}

/// smoltcp panics on a station address that is not unicast, as a broken device may report.
fn station_address(mut mac: [u8; 6]) -> EthernetAddress {
    if mac == [0; 6] || !EthernetAddress(mac).is_unicast() {
        hal_log::error!("the port has no valid station address; using a local one");
        mac = [2, 0, 0, 0, 0, 1];
    }
    EthernetAddress(mac)
}

fn to_smoltcp(instant: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(instant.as_micros()).unwrap_or(i64::MAX))
}

fn from_smoltcp(instant: smoltcp::time::Instant) -> Instant {
    Instant::from_micros(u64::try_from(instant.total_micros()).unwrap_or(0))
}
