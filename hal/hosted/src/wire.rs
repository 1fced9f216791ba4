//! An Ethernet port over a unix socket, the other end of QEMU's `-netdev stream`: each frame after its length in four
//! bytes, most significant first.
//!
//! No offloads. The peer may go and come back: the link is down meanwhile.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use hal_api::{ChecksumRequest, FrameQueue, FrameReceive, FrameTransmit, PortInfo};

use crate::Watcher;
use crate::socket::{SocketError, check_path, listen};

const LENGTH_BYTES: usize = 4;
/// Longest frame that QEMU sends, and the longest that is taken.
const MAX_RECEIVED_BYTES: usize = (1 << 16) + 4096;
/// What is read at once: several frames.
const INPUT_BYTES: usize = 4 * MAX_RECEIVED_BYTES;
/// What may wait for the peer to read it.
const OUTPUT_BYTES: usize = 1 << 20;
/// An Ethernet header with a VLAN tag.
const ETHERNET_BYTES: usize = 18;
/// Which end of the socket waits for the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireSide {
    /// We listen at this path.
    Listen(PathBuf),
    /// We connect to who listens there.
    Connect(PathBuf),
}

/// How a peer is found.
#[derive(Debug)]
enum Source {
    Listener(UnixListener, PathBuf),
    Address(PathBuf),
    /// None but the first.
    Nowhere,
}

/// An Ethernet port over a unix socket.
#[derive(Debug)]
pub struct WireQueue {
    source: Source,
    receive: WireReceive,
    transmit: WireTransmit,
    watcher: Watcher,
    info: PortInfo,
}

/// The receiving half.
#[derive(Debug)]
pub struct WireReceive {
    peer: Option<UnixStream>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// The transmitting half.
#[derive(Debug)]
pub struct WireTransmit {
    peer: Option<UnixStream>,
    /// Frames with their lengths; the bytes before `sent` are gone.
    buffer: Vec<u8>,
    sent: usize,
    frame_bytes: usize,
}

impl WireQueue {
    /// A port with the station address `mac`, whose peer may come later.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn open(side: &WireSide, mac: [u8; 6], mtu: u16, watcher: Watcher) -> Result<Self, SocketError> {
        let source = match side {
            WireSide::Listen(path) => Source::Listener(listen(path)?, path.clone()),
            WireSide::Connect(path) => {
                check_path(path)?;
                Source::Address(path.clone())
            }
        };
        let mut queue = Self::with(source, mac, mtu, watcher);
        queue.find_peer();
        Ok(queue)
    }

    /// A port whose peer holds the other end of `socket`.
    ///
    /// # Errors
    /// What the system says.
    pub fn over(socket: UnixStream, mac: [u8; 6], mtu: u16, watcher: Watcher) -> io::Result<Self> {
        let mut queue = Self::with(Source::Nowhere, mac, mtu, watcher);
        queue.join(socket)?;
        Ok(queue)
    }

    fn with(source: Source, mac: [u8; 6], mtu: u16, watcher: Watcher) -> Self {
        let buffer = vec![0; INPUT_BYTES].into_boxed_slice();
        let frame_bytes = usize::from(mtu) + ETHERNET_BYTES;
        Self {
            source,
            receive: WireReceive { peer: None, buffer, start: 0, end: 0 },
            transmit: WireTransmit { peer: None, buffer: Vec::new(), sent: 0, frame_bytes },
            watcher,
            info: PortInfo { mac, mtu, receive_checksums_verified: false, transmit_checksum_offload: false },
        }
    }

    fn join(&mut self, peer: UnixStream) -> io::Result<()> {
        peer.set_nonblocking(true)?;
        self.watcher.add(peer.as_fd(), false)?;
        self.transmit.peer = Some(peer.try_clone()?);
        self.receive.peer = Some(peer);
        (self.receive.start, self.receive.end) = (0, 0);
        self.transmit.buffer.clear();
        self.transmit.sent = 0;
        Ok(())
    }

    fn find_peer(&mut self) {
        let found = match &self.source {
            Source::Listener(listener, _) => listener.accept().map(|(peer, _)| peer),
            Source::Address(path) => UnixStream::connect(path),
            Source::Nowhere => return,
        };
        let Ok(peer) = found else { return };
        match self.join(peer) {
            Ok(()) => hal_log::info!("wire: a peer is there"),
            Err(error) => hal_log::warn!("wire: {}", error.to_string().as_str()),
        }
    }

    /// Forgets a peer that one of the halves has found gone.
    fn drop_lost_peer(&mut self) {
        if self.receive.peer.is_some() != self.transmit.peer.is_some() {
            hal_log::info!("wire: the peer is gone");
            (self.receive.peer, self.transmit.peer) = (None, None);
        }
    }
}

impl Drop for WireQueue {
    fn drop(&mut self) {
        if let Source::Listener(_, path) = &self.source {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl WireReceive {
    /// Where the next whole frame stands in the buffer, after reading more where needed.
    fn next_frame(&mut self) -> Option<(usize, usize)> {
        let mut read = false;
        loop {
            let waiting = &self.buffer[self.start..self.end];
            if let Some((length, rest)) = waiting.split_first_chunk::<LENGTH_BYTES>() {
                let bytes = u32::from_be_bytes(*length) as usize;
                if bytes > MAX_RECEIVED_BYTES {
                    hal_log::warn!("wire: the peer announces a frame of {} bytes", bytes);
                    self.peer = None;
                    return None;
                }
                if rest.len() >= bytes {
                    return Some((self.start + LENGTH_BYTES, bytes));
                }
            }
            // One read for a call, so that a talkative peer cannot keep the core here.
            if read || !self.read_more() {
                return None;
            }
            read = true;
        }
    }

    fn read_more(&mut self) -> bool {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let Some(peer) = &mut self.peer else { return false };
        match peer.read(&mut self.buffer[self.end..]) {
            Ok(0) => self.peer = None,
            Ok(bytes) => {
                self.end += bytes;
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(_) => self.peer = None,
        }
        false
    }
}

impl FrameReceive for WireReceive {
    fn receive<R>(&mut self, consume: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let (at, bytes) = self.next_frame()?;
        let result = consume(&self.buffer[at..at + bytes]);
        self.start = at + bytes;
        Some(result)
    }

    fn has_frame(&mut self) -> bool {
        self.next_frame().is_some()
    }
}

impl WireTransmit {
    fn send(&mut self) {
        while self.sent < self.buffer.len() {
            let Some(peer) = &mut self.peer else { break };
            match peer.write(&self.buffer[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(_) => self.peer = None,
            }
        }
        self.buffer.clear();
        self.sent = 0;
    }
}

impl FrameTransmit for WireTransmit {
    fn has_room(&mut self) -> bool {
        if self.buffer.len() >= OUTPUT_BYTES {
            self.send();
        }
        self.buffer.len() < OUTPUT_BYTES
    }

    fn transmit_behind<R, F: FnOnce(&mut [u8]) -> R>(
        &mut self,
        headroom: usize,
        bytes: usize,
        fill: F,
        finish: impl FnOnce(&mut [u8]) -> Option<ChecksumRequest>,
    ) -> Result<R, F> {
        let frame_bytes = headroom + bytes;
        if frame_bytes > self.frame_bytes || !self.has_room() {
            return Err(fill);
        }
        self.buffer.extend_from_slice(&(frame_bytes as u32).to_be_bytes());
        let start = self.buffer.len();
        self.buffer.resize(start + frame_bytes, 0);
        let frame = &mut self.buffer[start..];
        let result = fill(&mut frame[headroom..]);
        // The wire adds no checksums, and says so.
        finish(frame);
        Ok(result)
    }
}

impl FrameQueue for WireQueue {
    type Receive<'a> = &'a mut WireReceive;
    type Transmit<'a> = &'a mut WireTransmit;

    fn info(&self) -> PortInfo {
        self.info
    }

    fn halves(&mut self) -> (&mut WireReceive, &mut WireTransmit) {
        (&mut self.receive, &mut self.transmit)
    }

    fn flush(&mut self) {
        self.transmit.send();
    }

    fn link_is_up(&mut self) -> bool {
        self.drop_lost_peer();
        if self.receive.peer.is_none() {
            self.find_peer();
        }
        self.receive.peer.is_some()
    }

    fn arm(&mut self) -> bool {
        if let Some(peer) = self.receive.peer.as_ref().filter(|_| !self.transmit.buffer.is_empty()) {
            self.watcher.set_room(peer.as_fd(), true);
        }
        // What stands in the buffer is not seen by the kernel; what stands in the socket is.
        self.receive.end > self.receive.start && self.receive.has_frame()
    }

    fn disarm(&mut self) {
        if let Some(peer) = self.receive.peer.as_ref().filter(|_| !self.transmit.buffer.is_empty()) {
            self.watcher.set_room(peer.as_fd(), false);
        }
    }
}

#[cfg(test)]
mod tests;
