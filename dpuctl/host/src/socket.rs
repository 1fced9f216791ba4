//! A TCP connection as a [`Stream`]: a buffer in each direction, nothing blocks but [`Socket::wait`].

use crate::error::Error;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nvmeof::Stream;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

/// Of each buffer.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes between two positions of a buffer.
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; BUFFER_BYTES], start: 0, end: 0 }
    }

    fn take(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }
}

/// A connection.
pub struct Socket {
    stream: TcpStream,
    incoming: Buffer,
    outgoing: Buffer,
    closed: bool,
}

impl Socket {
    /// A connection that is there within the limit.
    pub fn connect(address: SocketAddr, limit: Duration) -> Result<Self, Error> {
        let stream = TcpStream::connect_timeout(&address, limit)
            .map_err(|error| Error::Unreachable(address, error))?;
        stream.set_nodelay(true).map_err(Error::Broken)?;
        stream.set_nonblocking(true).map_err(Error::Broken)?;
        Ok(Self { stream, incoming: Buffer::new(), outgoing: Buffer::new(), closed: false })
    }

    /// Takes from the kernel what has arrived; false when there was nothing.
    pub fn read(&mut self) -> Result<bool, Error> {
        let buffer = &mut self.incoming;
        if buffer.end == buffer.bytes.len() {
            return Ok(false);
        }
        match self.stream.read(&mut buffer.bytes[buffer.end..]) {
            Ok(0) => {
                self.closed = true;
                Ok(false)
            }
            Ok(count) => {
                buffer.end += count;
                Ok(true)
            }
            Err(error) if is_temporary(error.kind()) => Ok(false),
            Err(error) => Err(Error::Broken(error)),
        }
    }

    /// Gives the kernel what it takes.
    pub fn write(&mut self) -> Result<(), Error> {
        let buffer = &mut self.outgoing;
        while buffer.start < buffer.end {
            match self.stream.write(&buffer.bytes[buffer.start..buffer.end]) {
                Ok(count) => buffer.take(count),
                Err(error) if is_temporary(error.kind()) => break,
                Err(error) => return Err(Error::Broken(error)),
            }
        }
        Ok(())
    }

    /// Sleeps until something comes or, where something waits to go, goes; at most so long.
    pub fn wait(&self, limit: Duration) -> Result<(), Error> {
        Self::wait_any([self], limit)
    }

    /// Sleeps until one of them has something to do, at most so long.
    pub fn wait_any<'a>(sockets: impl IntoIterator<Item = &'a Self>, limit: Duration) -> Result<(), Error> {
        let mut waits: Vec<PollFd> = sockets.into_iter().map(Self::awaited).collect();
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(&mut waits, limit) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(Error::Broken(error.into())),
        }
    }

    fn awaited(&self) -> PollFd<'_> {
        let mut flags = PollFlags::POLLIN;
        flags.set(PollFlags::POLLOUT, self.outgoing.start < self.outgoing.end);
        PollFd::new(self.stream.as_fd(), flags)
    }

    /// Whether the target sends no more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}

fn is_temporary(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Stream for Socket {
    fn receive(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let buffer = &mut self.incoming;
        if buffer.start == buffer.end {
            return 0;
        }
        let taken = take(&buffer.bytes[buffer.start..buffer.end]);
        buffer.take(taken);
        taken
    }

    fn send_room(&self) -> usize {
        self.outgoing.bytes.len() - self.outgoing.end
    }

    fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let buffer = &mut self.outgoing;
        if buffer.end == buffer.bytes.len() {
            return 0;
        }
        let sent = fill(&mut buffer.bytes[buffer.end..]);
        buffer.end += sent;
        sent
    }

    fn close(&mut self) {
        // Whoever closes has nothing to hear about it.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn abort(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
