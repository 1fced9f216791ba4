//! One socket of a stack, in a set of its own: smoltcp looks at every socket of the set that it is given.

use core::net::SocketAddr;
use core::time::Duration;

use hal_api::Instant;
use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::{Socket, tcp};
use smoltcp::wire::IpEndpoint;

use crate::frame::Ends;

/// A connection that sends nothing is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A peer that answers nothing for so long is gone.
const PEER_TIMEOUT: Duration = Duration::from_secs(30);
/// The three-way handshake has to be complete by then.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time to answer a repeated FIN. Far less than twice the life of a segment: sockets are few.
const TIME_WAIT: Duration = Duration::from_secs(1);

/// What a socket is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing: closed, and nobody looks at it.
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

impl Phase {
    /// What it becomes of the socket's state.
    pub(crate) fn next(self, socket: &tcp::Socket<'_>, now: Instant) -> Self {
        let state = socket.state();
        match self {
            Self::Listening(_) if state != tcp::State::Listen => Self::Handshake(now),
            Self::Handshake(since) => match state {
                tcp::State::Established | tcp::State::CloseWait => Self::Ready,
                tcp::State::SynReceived if now.since(since) < HANDSHAKE_TIMEOUT => self,
                _ => Self::Spare,
            },
            Self::Ready if state == tcp::State::Closed => Self::Spare,
            Self::Lingering(until) => match state {
                _ if now >= until => Self::Spare,
                // Without ends there is no reset left to send.
                tcp::State::Closed if socket.remote_endpoint().is_none() => Self::Spare,
                tcp::State::TimeWait => Self::Lingering(until.min(now + TIME_WAIT)),
                _ => self,
            },
            _ => self,
        }
    }
}

/// A socket and what is known of it.
pub(crate) struct Slot {
    pub(crate) phase: Phase,
    /// Has this socket and no other.
    pub(crate) set: SocketSet<'static>,
    handle: SocketHandle,
    pub(crate) generation: u16,
    /// When smoltcp wants to look at the socket though nothing comes; not known while `deadline_stale`.
    pub(crate) deadline: Instant,
    pub(crate) deadline_stale: bool,
}

impl Slot {
    /// A spare socket over these buffers.
    pub(crate) fn new(
        place: &'static mut [SocketStorage<'static>],
        receive: &'static mut [u8],
        transmit: &'static mut [u8],
    ) -> Self {
        let mut set = SocketSet::new(place);
        let handle = put(&mut set, new_socket(receive, transmit));
        let deadline = Instant::FAR_FUTURE;
        Self { phase: Phase::Spare, set, handle, generation: 0, deadline, deadline_stale: false }
    }

    /// In one place of the image, where smoltcp's checks count once; so the next.
    #[inline(never)]
    pub(crate) fn socket(&self) -> &tcp::Socket<'static> {
        self.set.get(self.handle)
    }

    #[inline(never)]
    pub(crate) fn socket_mut(&mut self) -> &mut tcp::Socket<'static> {
        self.set.get_mut(self.handle)
    }

    /// Ends what the socket is doing, without a word to its peer.
    pub(crate) fn clear(&mut self) {
        self.phase = Phase::Spare;
        self.deadline = Instant::FAR_FUTURE;
        self.deadline_stale = false;
        // Added anew, it does not wait for the station address of its last peer.
        if let Socket::Tcp(mut socket) = self.set.remove(self.handle) {
            socket.abort();
            self.handle = put(&mut self.set, socket);
        }
    }

    /// Whether the socket belongs to a connection between these ends.
    pub(crate) fn is_between(&self, ends: &Ends) -> bool {
        if matches!(self.phase, Phase::Spare | Phase::Listening(_)) {
            return false;
        }
        let socket = self.socket();
        let same = |end: Option<IpEndpoint>, address| end.is_some_and(|end| is_same(end, address));
        same(socket.remote_endpoint(), ends.source) && same(socket.local_endpoint(), ends.destination)
    }
}

/// In one place of the image, where smoltcp's checks count once.
#[inline(never)]
fn put(set: &mut SocketSet<'static>, socket: tcp::Socket<'static>) -> SocketHandle {
    set.add(socket)
}

/// Whether smoltcp and we mean the same end.
pub(crate) fn is_same(end: IpEndpoint, address: SocketAddr) -> bool {
    end.port == address.port() && core::net::IpAddr::from(end.addr) == address.ip()
}

fn new_socket(receive: &'static mut [u8], transmit: &'static mut [u8]) -> tcp::Socket<'static> {
    let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(receive), tcp::SocketBuffer::new(transmit));
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket.set_keep_alive(Some(KEEP_ALIVE.into()));
    socket.set_timeout(Some(PEER_TIMEOUT.into()));
    socket
}
