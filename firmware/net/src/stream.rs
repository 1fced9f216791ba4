//! The bytes of one connection.

use smoltcp::socket::tcp;

use crate::wanted::Wanted;

/// How much of a connection is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamState {
    /// The remote of a connection of ours has not answered yet: nothing comes or goes.
    Connecting,
    /// Bytes may come and, unless [`Stream::close`] was called, go.
    Open,
    /// The peer sends no more than what [`Stream::receive`] still gives; it may still be sent to.
    PeerClosed,
    /// Nothing goes either way: closed by both, reset, or silent for too long. What had arrived
    /// can still be received.
    Closed,
}

/// One connection's bytes in both directions, for the time of a call.
#[derive(Debug)]
pub struct Stream<'a> {
    pub(crate) socket: &'a mut tcp::Socket<'static>,
    /// Where the socket stands while there is something to send.
    pub(crate) wanted: &'a mut Wanted,
    pub(crate) index: u16,
}

impl Stream<'_> {
    /// Shows `take` the contiguous first part of what has arrived; it returns how many bytes it took, and so
    /// does this. `take` is not called when nothing has arrived. The buffer is a ring: after its end the
    /// rest comes with the next call.
    pub fn receive(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        if !self.socket.can_recv() {
            return 0;
        }
        // The window may have opened.
        self.wanted.add(self.index);
        self.socket
            .recv(|bytes| {
                let taken = take(bytes).min(bytes.len());
                (taken, taken)
            })
            .unwrap_or(0)
    }

    /// How many bytes have arrived and were not taken.
    #[must_use]
    pub fn received_bytes(&self) -> usize {
        self.socket.recv_queue()
    }

    /// How many bytes [`Stream::send`] takes now, in at most two calls; 0 once the connection or this side
    /// of it is closed.
    #[must_use]
    pub fn send_room(&self) -> usize {
        if !self.socket.may_send() {
            return 0;
        }
        self.socket.send_capacity().saturating_sub(self.socket.send_queue())
    }

    /// Lets `fill` write into the contiguous first part of the free space; it returns how many bytes it
    /// wrote, and so does this. `fill` is not called when there is no room.
    pub fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        if !self.socket.can_send() {
            return 0;
        }
        self.wanted.add(self.index);
        self.socket
            .send(|bytes| {
                let written = fill(bytes).min(bytes.len());
                (written, written)
            })
            .unwrap_or(0)
    }

    /// What is left of the connection.
    #[must_use]
    pub fn state(&self) -> StreamState {
        match self.socket.state() {
            tcp::State::Closed | tcp::State::Listen | tcp::State::TimeWait => StreamState::Closed,
            tcp::State::CloseWait | tcp::State::Closing | tcp::State::LastAck => StreamState::PeerClosed,
            tcp::State::SynSent | tcp::State::SynReceived => StreamState::Connecting,
            tcp::State::Established | tcp::State::FinWait1 | tcp::State::FinWait2 => StreamState::Open,
        }
    }

    /// Sends no more after what was sent so far (FIN).
    pub fn close(&mut self) {
        self.wanted.add(self.index);
        self.socket.close();
    }

    /// Ends the connection at once (RST); what was not acknowledged may be lost.
    pub fn abort(&mut self) {
        self.wanted.add(self.index);
        self.socket.abort();
    }
}
