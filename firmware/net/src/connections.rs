//! The sockets of a stack: a fixed number, each of them spare, listening, or a connection.
//!
//! smoltcp's cost is linear in the sockets of its set, so that spare ones stay outside of it (`sockets.rs`). Each port
//! has one listening socket, which is replaced as soon as a request has taken it.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use hal_api::Instant;
use hal_mem::{Arena, OutOfMemory};
use smoltcp::iface::{Context, SocketHandle};
use smoltcp::socket::tcp;
use smoltcp::wire::IpEndpoint;

use crate::config::{Config, Home, MAX_PORTS};
use crate::frame::ConnectionRequest;
use crate::sockets::Sockets;

/// A connection that sends nothing is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A peer that answers nothing for so long is gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);
/// The three-way handshake has to be complete by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A handshake of this age gives way when a socket is wanted: many round trips of a network in a machine room, so that
/// a flood of requests has to be dense to keep others out.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(50);
/// A released connection has so long to deliver what it was given and to close.
const LINGER: Duration = Duration::from_secs(5);
/// Time to answer a repeated FIN. Far less than twice the life of a segment: sockets are few.
const TIME_WAIT: Duration = Duration::from_secs(1);

/// First of the ports that own connections use (RFC 6335, section 6); they end with the last port there is.
const FIRST_OWN_PORT: u16 = 49_152;

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

/// What a socket is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not in the set.
    Spare,
    /// Waits for a request to this port.
    Listening(u16),
    /// Between request and third segment, since then.
    Handshake(Instant),
    /// Open and not yet accepted.
    Ready,
    /// Belongs to the caller.
    Accepted,
    /// Released; gone by then.
    Lingering(Instant),
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    phase: Phase,
    /// In the set unless spare.
    handle: SocketHandle,
    generation: u16,
}

/// All sockets of a stack.
pub(crate) struct Connections {
    pub(crate) sockets: Sockets,
    spare: &'static mut [Option<tcp::Socket<'static>>],
    slots: &'static mut [Slot],
    /// Slots from here on are spare.
    top: usize,
    ports: heapless::Vec<u16, MAX_PORTS>,
    ready: usize,
    /// Where the search for the port of the next own connection begins.
    next_own_port: u16,
    /// The core to which replies have to come.
    home: Option<Home>,
}

impl Connections {
    /// Takes `config.sockets` sockets with their buffers from the arena, and listens. `seed` decides the port of
    /// the first own connection.
    pub(crate) fn new(config: &Config<'_>, arena: &mut Arena, seed: u64) -> Result<Self, OutOfMemory> {
        let count = config.sockets.clamp(1, usize::from(u16::MAX));
        let sockets = Sockets::new(count, arena)?;
        let slot = Slot { phase: Phase::Spare, handle: SocketHandle::default(), generation: 0 };
        let slots = arena.slice(count, |_| slot)?;
        let spare = arena.slice(count, |_| None)?;
        for place in spare.iter_mut() {
            let receive = arena.slice(config.receive_bytes, |_| 0u8)?;
            let transmit = arena.slice(config.transmit_bytes, |_| 0u8)?;
            *place = Some(new_socket(receive, transmit));
        }
        let ports = config.ports.iter().copied().filter(|port| *port != 0).take(MAX_PORTS).collect();
        let next_own_port = (seed >> 32) as u16 | FIRST_OWN_PORT;
        let home = config.home;
        let mut connections = Self { sockets, spare, slots, top: 0, ports, ready: 0, next_own_port, home };
        connections.listen(Instant::ZERO);
        Ok(connections)
    }

    /// Sockets that no connection uses; those that listen are not in use.
    pub(crate) fn free(&self) -> usize {
        let unused = |slot: &&Slot| matches!(slot.phase, Phase::Spare | Phase::Listening(_));
        self.slots.iter().filter(unused).count()
    }

    /// The oldest-indexed connection that is open and was not yet accepted.
    pub(crate) fn accept(&mut self) -> Option<(ConnectionId, PeerInfo)> {
        if self.ready == 0 {
            return None;
        }
        let (index, slot) =
            self.slots.iter_mut().take(self.top).enumerate().find(|(_, slot)| slot.phase == Phase::Ready)?;
        self.ready = self.ready.saturating_sub(1);
        slot.phase = Phase::Accepted;
        let id = ConnectionId { index: u16::try_from(index).ok()?, generation: slot.generation };
        let socket = self.sockets.get(slot.handle);
        // A connection that was reset meanwhile has no ends any more; the caller learns it from its state.
        let unknown = IpEndpoint::new(core::net::Ipv4Addr::UNSPECIFIED.into(), 0);
        let remote = socket.remote_endpoint().unwrap_or(unknown);
        let local_port = socket.local_endpoint().unwrap_or(unknown).port;
        Some((id, PeerInfo { address: remote.addr.into(), port: remote.port, local_port }))
    }

    /// Starts a connection of our own, from `local` to `remote`. It takes a spare socket and drives nobody out.
    pub(crate) fn connect(
        &mut self,
        context: &mut Context,
        local: IpAddr,
        remote: SocketAddr,
    ) -> Result<ConnectionId, ConnectError> {
        let port = self.own_port(local, remote).ok_or(ConnectError::NoSocket)?;
        let position = self.slots.iter().position(|slot| slot.phase == Phase::Spare);
        let index = position.and_then(|index| u16::try_from(index).ok()).ok_or(ConnectError::NoSocket)?;
        let place = self.spare.iter_mut().find(|place| place.is_some()).ok_or(ConnectError::NoSocket)?;
        let socket = place.as_mut().ok_or(ConnectError::NoSocket)?;
        socket.set_congestion_control(tcp::CongestionControl::Reno);
        let (local, remote) = (IpEndpoint::new(local.into(), port), IpEndpoint::from(remote));
        socket.connect(context, remote, local).map_err(|_| ConnectError::InvalidRemote)?;
        let socket = place.take().ok_or(ConnectError::NoSocket)?;
        let slot = self.slots.get_mut(usize::from(index)).ok_or(ConnectError::NoSocket)?;
        slot.phase = Phase::Accepted;
        let generation = slot.generation;
        self.put_in(usize::from(index), socket);
        Ok(ConnectionId { index, generation })
    }

    /// A port of ours that no connection to `remote` has and whose replies come to this core; those of one remote differ
    /// as long as they can.
    fn own_port(&mut self, local: IpAddr, remote: SocketAddr) -> Option<u16> {
        for _ in FIRST_OWN_PORT..=u16::MAX {
            let port = self.next_own_port;
            self.next_own_port = port.wrapping_add(1) | FIRST_OWN_PORT;
            let comes_home = self.home.is_none_or(|Home { steering, core }| {
                steering.core_of(remote, SocketAddr::new(local, port)) == core
            });
            if !comes_home || self.ports.contains(&port) {
                continue;
            }
            let taken = self.used().filter(|slot| slot.phase != Phase::Spare).any(|slot| {
                let socket = self.sockets.get(slot.handle);
                socket.local_endpoint().is_some_and(|end| end.port == port)
                    && socket.remote_endpoint().is_some_and(|end| is_same(end, remote))
            });
            if !taken {
                return Some(port);
            }
        }
        None
    }

    /// The socket of an accepted connection; `None` for an id that was released.
    pub(crate) fn get(&mut self, id: ConnectionId) -> Option<&mut tcp::Socket<'static>> {
        let slot = self.slots.get(id.index())?;
        if slot.phase != Phase::Accepted || slot.generation != id.generation {
            return None;
        }
        Some(self.sockets.set.get_mut(slot.handle))
    }

    /// Takes a connection back from the caller; what is still open is closed in good order. Ignored for an id
    /// that was released before.
    pub(crate) fn release(&mut self, id: ConnectionId, now: Instant) {
        let Some(socket) = self.get(id) else { return };
        socket.close();
        if let Some(slot) = self.slots.get_mut(id.index()) {
            slot.phase = Phase::Lingering(now + LINGER);
            slot.generation = slot.generation.wrapping_add(1);
        }
    }

    /// Before smoltcp sees a request: makes sure that it goes to the right socket. True when there is one
    /// for it; false when there is none.
    pub(crate) fn before_request(&mut self, request: &ConnectionRequest) -> bool {
        let Some(index) = self.index_of(request) else {
            let port = request.destination.port();
            return !self.ports.contains(&port) || self.has_listener(port);
        };
        // A repeated request belongs to the socket that has the first one; a listening socket that stands
        // before it in the set would take it for a new one.
        let over = self.slots.get(index).is_some_and(|slot| {
            matches!(self.sockets.get(slot.handle).state(), tcp::State::TimeWait | tcp::State::Closed)
        });
        if over && self.slots.get(index).is_some_and(|slot| matches!(slot.phase, Phase::Lingering(_))) {
            self.make_spare(index);
        } else {
            self.stop_listening(request.destination.port());
        }
        true
    }

    /// Whether a socket gives way soon: one in its handshake, or released.
    pub(crate) fn gives_way_soon(&self) -> bool {
        self.used().any(|slot| matches!(slot.phase, Phase::Handshake(_) | Phase::Lingering(_)))
    }

    /// After smoltcp saw a request: a socket that took it is replaced.
    pub(crate) fn after_request(&mut self, now: Instant) {
        let used = self.slots.iter_mut().take(self.top);
        for slot in used.filter(|slot| matches!(slot.phase, Phase::Listening(_))) {
            if self.sockets.get(slot.handle).state() != tcp::State::Listen {
                slot.phase = Phase::Handshake(now);
            }
        }
        self.listen(now);
    }

    /// Looks at every socket in use and moves on what has changed.
    pub(crate) fn review(&mut self, now: Instant) {
        let mut changed = false;
        for index in 0..self.top {
            let Some(slot) = self.slots.get_mut(index) else { break };
            if slot.phase == Phase::Spare {
                continue;
            }
            let socket = self.sockets.get(slot.handle);
            let next = next_phase(slot.phase, socket, now);
            if next == slot.phase {
                continue;
            }
            changed = true;
            if next == Phase::Ready {
                self.ready += 1;
            } else if slot.phase == Phase::Ready {
                self.ready = self.ready.saturating_sub(1);
            }
            if next == Phase::Spare {
                self.make_spare(index);
            } else {
                slot.phase = next;
            }
        }
        if changed || self.ports.iter().any(|port| !self.has_listener(*port)) {
            self.listen(now);
        }
    }

    /// Makes every port without a listening socket listen, as far as there are sockets.
    fn listen(&mut self, now: Instant) {
        for position in 0..self.ports.len() {
            let Some(port) = self.ports.get(position).copied() else { break };
            if self.has_listener(port) {
                continue;
            }
            if !self.slots.iter().any(|slot| slot.phase == Phase::Spare) {
                self.evict(now);
            }
            let Some(index) = self.slots.iter().position(|slot| slot.phase == Phase::Spare) else { return };
            let Some(mut socket) = self.spare.iter_mut().find_map(Option::take) else { return };
            socket.set_congestion_control(tcp::CongestionControl::Reno);
            if socket.listen(port).is_err() {
                debug_assert!(false, "a spare socket is closed and the port is not zero");
            }
            if let Some(slot) = self.slots.get_mut(index) {
                slot.phase = Phase::Listening(port);
            }
            self.put_in(index, socket);
        }
    }

    /// Gives up what matters least for a socket: a connection that is over, or else the oldest handshake, or else the connection that
    /// was released first. A peer that closes and then answers nothing would keep its sockets for [`LINGER`] each, and
    /// nobody counts them any more.
    fn evict(&mut self, now: Instant) {
        let over = self.used().position(|slot| {
            matches!(slot.phase, Phase::Lingering(_))
                && self.sockets.get(slot.handle).state() == tcp::State::TimeWait
        });
        let oldest = |since: fn(Phase, Instant) -> Option<Instant>| {
            let of_slot = |(index, slot): (usize, &Slot)| since(slot.phase, now).map(|since| (since, index));
            self.used().enumerate().filter_map(of_slot).min().map(|(_, index)| index)
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

    fn has_listener(&self, port: u16) -> bool {
        self.used().any(|slot| slot.phase == Phase::Listening(port))
    }

    fn stop_listening(&mut self, port: u16) {
        let listener = self.used().position(|slot| slot.phase == Phase::Listening(port));
        if let Some(index) = listener {
            self.make_spare(index);
        }
    }

    /// The slot whose connection has the same two ends as the request.
    fn index_of(&self, request: &ConnectionRequest) -> Option<usize> {
        let same = |end: Option<IpEndpoint>, address| end.is_some_and(|end| is_same(end, address));
        self.used().position(|slot| {
            if matches!(slot.phase, Phase::Spare | Phase::Listening(_)) {
                return false;
            }
            let socket = self.sockets.get(slot.handle);
            same(socket.remote_endpoint(), request.source)
                && same(socket.local_endpoint(), request.destination)
        })
    }

    /// The slots in use, and spare ones between them.
    fn used(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().take(self.top)
    }

    /// Puts a socket into the set, for a slot that was spare. Kept out of what takes frames.
    #[inline(never)]
    fn put_in(&mut self, index: usize, socket: tcp::Socket<'static>) {
        let others = handles(self.slots, self.top, index);
        let handle = self.sockets.add(socket, others);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.handle = handle;
            self.top = self.top.max(index + 1);
        }
    }

    /// Takes a socket out of the set, whatever it is doing. In one place of the image, where smoltcp's checks count once.
    #[inline(never)]
    fn make_spare(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.phase == Phase::Spare {
            return;
        }
        slot.phase = Phase::Spare;
        let handle = slot.handle;
        if let Some(mut socket) = self.sockets.remove(handle, handles(self.slots, self.top, index)) {
            socket.abort();
            if let Some(place) = self.spare.iter_mut().find(|place| place.is_none()) {
                *place = Some(socket);
            }
        }
        let used = |slot: &Slot| slot.phase != Phase::Spare;
        self.top = self.slots.iter().take(self.top).rposition(used).map_or(0, |last| last + 1);
    }
}

/// The handles of all slots in use but for `index`.
fn handles(slots: &mut [Slot], top: usize, index: usize) -> impl Iterator<Item = &mut SocketHandle> {
    let used = slots.iter_mut().take(top).enumerate();
    let others = used.filter(move |(place, slot)| *place != index && slot.phase != Phase::Spare);
    others.map(|(_, slot)| &mut slot.handle)
}

fn is_same(end: IpEndpoint, address: SocketAddr) -> bool {
    end.port == address.port() && IpAddr::from(end.addr) == address.ip()
}

fn next_phase(phase: Phase, socket: &tcp::Socket<'_>, now: Instant) -> Phase {
    let state = socket.state();
    match phase {
        Phase::Listening(_) if state != tcp::State::Listen => Phase::Handshake(now),
        Phase::Handshake(since) => match state {
            tcp::State::Established | tcp::State::CloseWait => Phase::Ready,
            tcp::State::SynReceived if now.since(since) < HANDSHAKE_TIMEOUT => phase,
            _ => Phase::Spare,
        },
        Phase::Ready if state == tcp::State::Closed => Phase::Spare,
        Phase::Lingering(until) => match state {
            _ if now >= until => Phase::Spare,
            // Without ends there is no reset left to send.
            tcp::State::Closed if socket.remote_endpoint().is_none() => Phase::Spare,
            tcp::State::TimeWait => Phase::Lingering(until.min(now + TIME_WAIT)),
            _ => phase,
        },
        _ => phase,
    }
}

fn new_socket(receive: &'static mut [u8], transmit: &'static mut [u8]) -> tcp::Socket<'static> {
    let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(receive), tcp::SocketBuffer::new(transmit));
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket.set_keep_alive(Some(KEEP_ALIVE.into()));
    socket.set_timeout(Some(PEER_TIMEOUT.into()));
    socket
}
