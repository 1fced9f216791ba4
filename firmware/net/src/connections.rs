//! The sockets of a stack: a fixed number, each of them spare, listening, or a connection.
//!
//! smoltcp looks at every socket of the set that it is given. So each stands in a set of its own ([`Slot`]): a frame is shown
//! to the one that it is for, and only those are asked for frames that may have some ([`Wanted`]). Each port
//! has one listening socket, which is replaced as soon as a request has taken it.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use hal_api::Instant;
use hal_mem::{Arena, OutOfMemory};
use smoltcp::iface::{Context, Interface, SocketSet, SocketStorage};
use smoltcp::socket::tcp;
use smoltcp::wire::IpEndpoint;

use crate::config::{Config, MAX_PORTS};
use crate::frame::{Ends, Segment};
use crate::slot::{Phase, Slot, is_same};
use crate::stream::Stream;
use crate::wanted::Wanted;

/// A handshake of this age gives way when a socket is wanted: many round trips of a network in a machine room, so that
/// a flood of requests has to be dense to keep others out.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(50);
/// A released connection has so long to deliver what it was given and to close.
const LINGER: Duration = Duration::from_secs(5);

/// First of the ports that own connections use (RFC 6335, section 6); they end with the last port there is.
const FIRST_OWN_PORT: u16 = 49_152;

/// Places of [`Connections::recent`].
const RECENT: usize = 256;

/// A connection, from [`crate::Stack::accept`] or [`crate::Stack::connect`] to [`crate::Stack::release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    index: u16,
    generation: u16,
}

impl ConnectionId {
    /// A small number, unique among the connections that exist, below [`crate::Config::sockets`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

/// Who connected, and to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerInfo {
    /// The peer's address.
    pub address: IpAddr,
    /// The peer's port.
    pub port: u16,
    /// The port of ours that it connected to.
    pub local_port: u16,
}

/// Why a connection was not even tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectError {
    /// All sockets are in use.
    NoSocket,
    /// The port has no address, or none of the remote's family.
    NoAddress,
    /// The remote's address or port is none that one can connect to.
    InvalidRemote,
}

/// Who is to see a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// This socket.
    Socket(u16),
    /// None: it is answered by a reset.
    Nobody,
    /// None, because it is a request for which there is no socket now.
    Full,
}

/// All sockets of a stack.
pub(crate) struct Connections {
    slots: &'static mut [Slot],
    /// From here on all slots are spare.
    used: usize,
    /// Those that may have something to send.
    pub(crate) wanted: Wanted,
    /// For DHCP; segments that are for no socket are shown to it as well.
    pub(crate) others: SocketSet<'static>,
    /// Whose segments came last, by some bits of their ends. A guess, which has to be checked.
    recent: &'static mut [u16],
    ports: heapless::Vec<u16, MAX_PORTS>,
    /// Some port has no listening socket.
    lacks_listener: bool,
    ready: usize,
    /// Where the search for the port of the next own connection begins.
    next_own_port: u16,
}

impl Connections {
    /// Takes `config.sockets` sockets with their buffers from the arena, and listens. `seed` decides the port of
    /// the first own connection.
    pub(crate) fn new(config: &Config<'_>, arena: &mut Arena, seed: u64) -> Result<Self, OutOfMemory> {
        let count = config.sockets.clamp(1, usize::from(u16::MAX));
        let places = arena.slice(count, |_| SocketStorage::EMPTY)?.chunks_mut(1);
        let (receive_bytes, transmit_bytes) = (config.receive_bytes.max(1), config.transmit_bytes.max(1));
        let receive = arena.slice(count.saturating_mul(receive_bytes), |_| 0)?.chunks_mut(receive_bytes);
        let transmit = arena.slice(count.saturating_mul(transmit_bytes), |_| 0)?.chunks_mut(transmit_bytes);
        let buffers = receive.zip(transmit);
        let slots =
            places.zip(buffers).map(|(place, (receive, transmit))| Slot::new(place, receive, transmit));
        let mut connections = Self {
            slots: arena.collect(count, slots)?,
            used: 0,
            wanted: Wanted::new(count, arena)?,
            others: SocketSet::new(arena.slice(1, |_| SocketStorage::EMPTY)?),
            recent: arena.slice(RECENT, |_| 0)?,
            ports: heapless::Vec::new(),
            lacks_listener: true,
            ready: 0,
            next_own_port: (seed >> 32) as u16 | FIRST_OWN_PORT,
        };
        for port in config.ports.iter().copied().filter(|port| *port != 0) {
            // Those beyond the last place are ignored.
            let _ = connections.ports.push(port);
        }
        connections.listen(Instant::ZERO);
        Ok(connections)
    }

    /// Sockets that no connection uses; those that listen are not in use.
    pub(crate) fn free(&self) -> usize {
        let listening = self.in_use().filter(|slot| matches!(slot.phase, Phase::Spare | Phase::Listening(_)));
        self.slots.len() - self.used + listening.count()
    }

    /// The slots up to the last that is not spare.
    fn in_use(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().take(self.used)
    }

    /// The oldest-indexed connection that is open and was not yet accepted.
    pub(crate) fn accept(&mut self) -> Option<(ConnectionId, PeerInfo)> {
        if self.ready == 0 {
            return None;
        }
        let (index, slot) = self.slots.iter_mut().enumerate().find(|(_, slot)| slot.phase == Phase::Ready)?;
        self.ready = self.ready.saturating_sub(1);
        slot.phase = Phase::Accepted;
        let id = ConnectionId { index: u16::try_from(index).ok()?, generation: slot.generation };
        let socket = slot.socket();
        // A connection that was reset meanwhile has no ends any more; the caller learns it from its state.
        let unknown = IpEndpoint::new(core::net::Ipv4Addr::UNSPECIFIED.into(), 0);
        let remote = socket.remote_endpoint().unwrap_or(unknown);
        let local_port = socket.local_endpoint().unwrap_or(unknown).port;
        Some((id, PeerInfo { address: remote.addr.into(), port: remote.port, local_port }))
    }

    /// Starts a connection of our own, from `local` and a port whose replies this queue is given, to `remote`. It takes a spare
    /// socket and drives nobody out.
    pub(crate) fn connect(
        &mut self,
        context: &mut Context,
        local: IpAddr,
        remote: SocketAddr,
        is_given: impl Fn(u16) -> bool,
    ) -> Result<ConnectionId, ConnectError> {
        let port = self.own_port(remote, is_given).ok_or(ConnectError::NoSocket)?;
        let index = self.first_spare().ok_or(ConnectError::NoSocket)?;
        let slot = self.slots.get_mut(usize::from(index)).ok_or(ConnectError::NoSocket)?;
        let socket = slot.socket_mut();
        socket.set_congestion_control(tcp::CongestionControl::Reno);
        let (local, remote) = (IpEndpoint::new(local.into(), port), IpEndpoint::from(remote));
        socket.connect(context, remote, local).map_err(|_| ConnectError::InvalidRemote)?;
        slot.phase = Phase::Accepted;
        let generation = slot.generation;
        self.take_into_use(index);
        self.want(index);
        Ok(ConnectionId { index, generation })
    }

    fn first_spare(&self) -> Option<u16> {
        let position = self.slots.iter().position(|slot| slot.phase == Phase::Spare)?;
        u16::try_from(position).ok()
    }

    fn take_into_use(&mut self, index: u16) {
        self.used = self.used.max(usize::from(index) + 1);
    }

    /// A port of ours that no connection to `remote` has and whose replies come to this core; those of one remote differ
    /// as long as they can.
    fn own_port(&mut self, remote: SocketAddr, is_given: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in FIRST_OWN_PORT..=u16::MAX {
            let port = self.next_own_port;
            self.next_own_port = port.wrapping_add(1) | FIRST_OWN_PORT;
            if self.ports.contains(&port) || !is_given(port) {
                continue;
            }
            let taken = self.in_use().filter(|slot| slot.phase != Phase::Spare).any(|slot| {
                let socket = slot.socket();
                socket.local_endpoint().is_some_and(|end| end.port == port)
                    && socket.remote_endpoint().is_some_and(|end| is_same(end, remote))
            });
            if !taken {
                return Some(port);
            }
        }
        None
    }

    /// The bytes of an accepted connection; `None` for an id that was released.
    pub(crate) fn stream(&mut self, id: ConnectionId) -> Option<Stream<'_>> {
        let slot = self.slots.get_mut(id.index())?;
        if slot.phase != Phase::Accepted || slot.generation != id.generation {
            return None;
        }
        Some(Stream { socket: slot.socket_mut(), wanted: &mut self.wanted, index: id.index })
    }

    /// Takes a connection back from the caller; what is still open is closed in good order. Ignored for an id
    /// that was released before.
    pub(crate) fn release(&mut self, id: ConnectionId, now: Instant) {
        let Some(mut stream) = self.stream(id) else { return };
        stream.close();
        if let Some(slot) = self.slots.get_mut(id.index()) {
            slot.phase = Phase::Lingering(now + LINGER);
            slot.generation = slot.generation.wrapping_add(1);
        }
    }

    /// Whose a segment is.
    pub(crate) fn receiver(&mut self, segment: &Segment) -> Receiver {
        let (ends, is_request) = match segment {
            Segment::Request(ends) => (ends, true),
            Segment::Other(ends) => (ends, false),
            Segment::Hidden => return Receiver::Nobody,
        };
        if let Some(index) = self.index_of(ends) {
            let is_over = is_request
                && self.slots.get(usize::from(index)).is_some_and(|slot| {
                    matches!(slot.phase, Phase::Lingering(_))
                        && matches!(slot.socket().state(), tcp::State::TimeWait | tcp::State::Closed)
                });
            if !is_over {
                return Receiver::Socket(index);
            }
            self.make_spare(usize::from(index));
        }
        let port = ends.destination.port();
        match self.listener(port) {
            Some(index) => Receiver::Socket(index),
            None if is_request && self.ports.contains(&port) => Receiver::Full,
            None => Receiver::Nobody,
        }
    }

    /// Whether a socket gives way soon: one in its handshake, or released.
    pub(crate) fn gives_way_soon(&self) -> bool {
        self.in_use().any(|slot| matches!(slot.phase, Phase::Handshake(_) | Phase::Lingering(_)))
    }

    /// The socket and nothing else, for smoltcp.
    pub(crate) fn set_of(&mut self, index: u16) -> Option<&mut SocketSet<'static>> {
        let slot = self.slots.get_mut(usize::from(index)).filter(|slot| slot.phase != Phase::Spare)?;
        slot.deadline_stale = true;
        Some(&mut slot.set)
    }

    /// A socket may have something to send.
    pub(crate) fn want(&mut self, index: u16) {
        self.wanted.add(index);
    }

    /// Any socket may have something to send.
    pub(crate) fn want_all(&mut self) {
        for (index, slot) in (0..).zip(self.slots.iter().take(self.used)) {
            if slot.phase != Phase::Spare {
                self.wanted.add(index);
            }
        }
    }

    /// Those sockets may have something to send whose time has come.
    pub(crate) fn want_due(&mut self, now: Instant) {
        for (index, slot) in (0..).zip(self.slots.iter().take(self.used)) {
            if now >= slot.deadline {
                self.wanted.add(index);
            }
        }
    }

    /// When the first socket wants to be looked at though nothing comes; what is due already, not before `earliest`.
    pub(crate) fn next_deadline(
        &mut self,
        interface: &mut Interface,
        now: smoltcp::time::Instant,
        at: impl Fn(smoltcp::time::Instant) -> Instant,
    ) -> Instant {
        let mut next = Instant::FAR_FUTURE;
        for slot in self.slots.iter_mut().take(self.used).filter(|slot| slot.phase != Phase::Spare) {
            if core::mem::take(&mut slot.deadline_stale) {
                slot.deadline = interface.poll_at(now, &slot.set).map_or(Instant::FAR_FUTURE, &at);
            }
            next = next.min(slot.deadline);
        }
        next
    }

    /// Moves a socket on whose state has changed.
    pub(crate) fn review(&mut self, index: u16, now: Instant) {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
        if matches!(slot.phase, Phase::Spare | Phase::Accepted) {
            return;
        }
        let next = slot.phase.next(slot.socket(), now);
        if next == slot.phase {
            return;
        }
        if next == Phase::Ready {
            self.ready += 1;
        } else if slot.phase == Phase::Ready {
            self.ready = self.ready.saturating_sub(1);
        }
        let listened = matches!(slot.phase, Phase::Listening(_));
        if next == Phase::Spare {
            self.make_spare(usize::from(index));
        } else {
            slot.phase = next;
        }
        self.lacks_listener |= listened;
        self.listen(now);
    }

    /// Looks at every socket in use and moves on what has changed.
    pub(crate) fn review_all(&mut self, now: Instant) {
        for index in 0..self.used {
            self.review(index as u16, now);
        }
        self.listen(now);
    }

    /// Makes every port without a listening socket listen, as far as there are sockets.
    pub(crate) fn listen(&mut self, now: Instant) {
        if !self.lacks_listener {
            return;
        }
        for position in 0..self.ports.len() {
            let Some(port) = self.ports.get(position).copied() else { break };
            if self.listener(port).is_some() {
                continue;
            }
            if self.first_spare().is_none() {
                self.evict(now);
            }
            let Some(index) = self.first_spare() else { return };
            let Some(slot) = self.slots.get_mut(usize::from(index)) else { return };
            let socket = slot.socket_mut();
            socket.set_congestion_control(tcp::CongestionControl::Reno);
            if socket.listen(port).is_err() {
                debug_assert!(false, "a spare socket is closed and the port is not zero");
            }
            slot.phase = Phase::Listening(port);
            self.take_into_use(index);
        }
        self.lacks_listener = false;
    }

    /// Gives up what matters least for a socket: a connection that is over, or else the oldest handshake, or else the connection that
    /// was released first. A peer that closes and then answers nothing would keep its sockets for [`LINGER`] each, and
    /// nobody counts them any more.
    fn evict(&mut self, now: Instant) {
        let over = self.in_use().position(|slot| {
            matches!(slot.phase, Phase::Lingering(_)) && slot.socket().state() == tcp::State::TimeWait
        });
        let oldest = |since: fn(Phase, Instant) -> Option<Instant>| {
            let of_slot = |(index, slot): (usize, &Slot)| since(slot.phase, now).map(|since| (since, index));
            self.in_use().enumerate().filter_map(of_slot).min().map(|(_, index)| index)
        };
        let handshake = |phase, now: Instant| match phase {
            Phase::Handshake(since) if now.since(since) >= HANDSHAKE_GRACE => Some(since),
            _ => None,
        };
        let released = |phase, now: Instant| match phase {
            // It has had as long to close as a handshake to be completed.
            Phase::Lingering(until) if until <= now + (LINGER - HANDSHAKE_GRACE) => Some(until),
            _ => None,
        };
        if let Some(index) = over.or_else(|| oldest(handshake)).or_else(|| oldest(released)) {
            self.make_spare(index);
        }
    }

    /// The socket that listens on a port.
    fn listener(&self, port: u16) -> Option<u16> {
        let position = self.in_use().position(|slot| slot.phase == Phase::Listening(port))?;
        u16::try_from(position).ok()
    }

    /// The slot whose connection has these ends.
    fn index_of(&mut self, ends: &Ends) -> Option<u16> {
        let guess = self.recent.get_mut(place_of(ends))?;
        let is_right =
            |index: &u16| self.slots.get(usize::from(*index)).is_some_and(|slot| slot.is_between(ends));
        if is_right(guess) {
            return Some(*guess);
        }
        let position = self.slots.iter().take(self.used).position(|slot| slot.is_between(ends))?;
        *guess = u16::try_from(position).ok()?;
        Some(*guess)
    }

    /// Ends what a socket is doing. In one place of the image, where smoltcp's checks count once.
    #[inline(never)]
    fn make_spare(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.phase == Phase::Spare {
            return;
        }
        self.lacks_listener |= matches!(slot.phase, Phase::Listening(_));
        slot.clear();
        let is_spare = |index: usize| self.slots.get(index).is_some_and(|slot| slot.phase == Phase::Spare);
        while let Some(last) = self.used.checked_sub(1).filter(|last| is_spare(*last)) {
            self.used = last;
        }
    }
}

/// Where it is kept whose segments with these ends are: connections of one host differ in its port.
fn place_of(ends: &Ends) -> usize {
    let last = match ends.source.ip() {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    };
    usize::from(ends.source.port() ^ u16::from(last)) % RECENT
}
