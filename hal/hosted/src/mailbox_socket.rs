//! The operator's line as a unix socket: one client at a time, the others wait until it goes.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use hal_api::ByteStream;

use crate::Watcher;
use crate::socket::{self, SocketError};

/// Responses that may wait for their client to read them, in bytes.
const OUTPUT_BYTES: usize = 16 << 10;

/// A socket that listens, and the client that is being talked to.
#[derive(Debug)]
pub struct MailboxSocket {
    listener: UnixListener,
    client: Option<UnixStream>,
    output: Vec<u8>,
    watcher: Watcher,
}

impl MailboxSocket {
    /// Listens at `path`; whoever comes there ends the sleep that `watcher` is of.
    ///
    /// # Errors
    /// [`SocketError`], a sentence.
    pub fn listen(path: &Path, watcher: Watcher) -> Result<Self, SocketError> {
        let listener = socket::listen(path)?;
        let system = |error: io::Error| SocketError::System(path.to_path_buf(), error);
        watcher.add(listener.as_fd(), false).map_err(system)?;
        Ok(Self { listener, client: None, output: Vec::with_capacity(OUTPUT_BYTES), watcher })
    }

    /// The client; the next one where there is none.
    fn client(&mut self) -> Option<&mut UnixStream> {
        if self.client.is_none() {
            let (client, _) = self.listener.accept().ok()?;
            client.set_nonblocking(true).ok()?;
            self.watcher.add(client.as_fd(), false).ok()?;
            self.output.clear();
            self.client = Some(client);
        }
        self.client.as_mut()
    }

    /// What came of a read or a write; a client that is gone is forgotten.
    fn note(&mut self, result: io::Result<usize>) -> usize {
        match result {
            Ok(bytes) if bytes > 0 => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            _ => {
                // Closing takes it out of what is watched.
                self.client = None;
                0
            }
        }
    }

    fn set_room(&self, wanted: bool) {
        if let Some(client) = &self.client {
            self.watcher.set_room(client.as_fd(), wanted);
        }
    }
}

impl ByteStream for MailboxSocket {
    fn read(&mut self, into: &mut [u8]) -> usize {
        if into.is_empty() {
            return 0;
        }
        let Some(client) = self.client() else { return 0 };
        let result = client.read(into);
        self.note(result)
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let room = OUTPUT_BYTES.saturating_sub(self.output.len());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        // What is for nobody goes nowhere.
        if self.client.is_some() {
            self.output.extend_from_slice(taken);
        }
        taken.len()
    }

    fn flush(&mut self) {
        while !self.output.is_empty() {
            let Some(client) = &mut self.client else { return self.output.clear() };
            let result = client.write(&self.output);
            match self.note(result) {
                0 => return,
                sent => drop(self.output.drain(..sent)),
            }
        }
    }

    fn arm(&mut self) -> bool {
        self.flush();
        self.set_room(!self.output.is_empty());
        // Readiness is a level: what is there ends the sleep at once.
        false
    }

    fn disarm(&mut self) {
        self.set_room(false);
    }
}

#[cfg(test)]
mod tests {
    use hal_api::{Instant, Wake};

    use super::*;
    use crate::{MonotonicClock, Sleeper};

    fn socket() -> (MailboxSocket, Sleeper, std::path::PathBuf) {
        let name = format!("penstock-mailbox-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        let sleeper = Sleeper::new(MonotonicClock::start()).unwrap();
        (MailboxSocket::listen(&path, sleeper.watcher()).unwrap(), sleeper, path)
    }

    /// Sleeps until something comes, and reads it.
    fn read(socket: &mut MailboxSocket, sleeper: &mut Sleeper) -> Vec<u8> {
        let mut into = [0; 64];
        loop {
            let bytes = socket.read(&mut into);
            if bytes > 0 {
                return into[..bytes].to_vec();
            }
            assert!(!socket.arm());
            sleeper.sleep_until(Instant::FAR_FUTURE);
            socket.disarm();
        }
    }

    #[test]
    fn clients_are_served_one_after_the_other() {
        let (mut socket, mut sleeper, path) = socket();
        let mut first = UnixStream::connect(&path).unwrap();
        let mut second = UnixStream::connect(&path).unwrap();
        second.write_all(b"second").unwrap();
        first.write_all(b"first").unwrap();
        assert_eq!(read(&mut socket, &mut sleeper), b"first");
        assert_eq!(socket.write(b"answer"), 6);
        socket.flush();
        let mut answer = [0; 6];
        first.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");
        drop(first);
        assert_eq!(read(&mut socket, &mut sleeper), b"second");
        let _ = std::fs::remove_file(path);
    }

    #[test]
    fn a_client_that_does_not_read_is_given_no_more_than_there_is_room_for() {
        let (mut socket, mut sleeper, path) = socket();
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"?").unwrap();
        assert_eq!(read(&mut socket, &mut sleeper), b"?");
        let mut written = 0;
        loop {
            let taken = socket.write(&[7; 1000]);
            socket.flush();
            written += taken;
            if taken < 1000 {
                break;
            }
        }
        assert!(written > OUTPUT_BYTES && socket.output.capacity() <= 2 * OUTPUT_BYTES);
        client.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let mut got = 0;
        while got < written {
            assert!(!socket.arm());
            got += client.read(&mut [0; 4096]).unwrap();
        }
        let _ = std::fs::remove_file(path);
    }
}
