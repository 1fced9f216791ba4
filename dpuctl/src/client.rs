//! A talk with a card over its mailbox: greeting, then one request after the other.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use message::mailbox::{
    Answer, Call, Edition, Error, Frame, FrameReader, MAX_FRAME_BYTES, Request, Response, encode,
};
use nvmeof_host::Kind;

use crate::exit;

/// Why there is no answer. Each is a sentence that says what to do.
#[derive(Debug)]
pub enum Failure {
    /// No card was named.
    NoCard,
    /// Nothing listens at the path.
    NotThere(PathBuf, io::Error),
    /// The card did not answer in time.
    Silent(Duration),
    /// The card hung up.
    Gone,
    /// The line broke.
    Line(io::Error),
    /// What came is no answer to what was asked.
    Nonsense,
    /// The card refused.
    Refused(Error),
    /// An NVMe/TCP target, as a host sees it.
    Target(nvmeof_host::Error),
    /// The command line, or a file that it names, asks for what cannot be done.
    Usage(String),
    /// A file declares what this card cannot have.
    Unfit(String),
    /// Of several changes some were made, as the sentence says; why the next was not.
    Partly(String, Box<Failure>),
}

impl From<nvmeof_host::Error> for Failure {
    fn from(error: nvmeof_host::Error) -> Self {
        Self::Target(error)
    }
}

impl Failure {
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Unfit(_) => exit::REFUSED,
            Self::Partly(..) => exit::PARTLY,
            Self::Nonsense => exit::PROTOCOL,
            Self::Usage(_) => exit::USAGE,
            Self::Target(error) => match error.kind() {
                Kind::Unavailable => exit::UNAVAILABLE,
                Kind::Refused => exit::REFUSED,
                Kind::Protocol => exit::PROTOCOL,
                Kind::Data => exit::DATA,
                Kind::Usage => exit::USAGE,
            },
            _ => exit::UNAVAILABLE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCard => formatter.write_str("no card: name its mailbox with --card PATH, or in DPUCTL_CARD"),
            Self::NotThere(path, error) => write!(
                formatter,
                "no mailbox at {}: {error}; is the card running, and was it started with a mailbox there?",
                path.display()
            ),
            Self::Silent(limit) => write!(
                formatter,
                "the card did not answer within {limit:?}: it may be starting, or another tool may hold its line; try again, or with a longer --timeout"
            ),
            Self::Gone => formatter.write_str("the card hung up: it may have been restarted; try again"),
            Self::Line(error) => write!(formatter, "the line to the card broke: {error}"),
            Self::Nonsense => formatter.write_str(
                "what the card says makes no sense: is it a Penstock card's mailbox, and does no other tool use it?",
            ),
            Self::Unfit(why) => formatter.write_str(why),
            Self::Partly(made, why) => write!(formatter, "{made}: {why}"),
            Self::Refused(error) => error.fmt(formatter),
            Self::Target(error) => error.fmt(formatter),
            Self::Usage(what) => formatter.write_str(what),
        }
    }
}

/// A change is answered when what it ends has ended, on each data core: the card says by itself when that takes too long.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);

/// A card that has been greeted.
pub struct Client {
    line: UnixStream,
    reader: FrameReader,
    /// Bytes that were read and not looked at.
    unread: Vec<u8>,
    sequence: u32,
    timeout: Duration,
}

impl Client {
    /// Connects and greets.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, Failure> {
        let line = UnixStream::connect(path).map_err(|error| Failure::NotThere(path.to_path_buf(), error))?;
        line.set_write_timeout(Some(timeout)).map_err(Failure::Line)?;
        // A tool before this one may have read no answer: its numbers are not these.
        let sequence = std::process::id().wrapping_mul(0x9e37_79b9);
        let mut client = Self { line, reader: FrameReader::new(), unread: Vec::new(), sequence, timeout };
        // Ends what another tool may have left half said.
        client.line.write_all(&[0]).map_err(Failure::Line)?;
        match client.call(Call::Hello(Edition::HERE))? {
            Answer::Hello(Edition::HERE) => Ok(client),
            _ => Err(Failure::Nonsense),
        }
    }

    /// Asks one thing.
    pub fn call(&mut self, call: Call) -> Result<Answer, Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let limit =
            if matches!(call, Call::Change(_)) { self.timeout.max(CHANGE_LIMIT) } else { self.timeout };
        let request = Request { sequence: self.sequence, call };
        let mut to = [0; MAX_FRAME_BYTES];
        let bytes = encode(&request, &mut to).ok_or(Failure::Refused(Error::TooLong))?;
        self.line.write_all(bytes).map_err(Failure::Line)?;
        let deadline = Instant::now() + limit;
        loop {
            let Response { sequence, result } = self.response(deadline)?;
            // Those of another number were meant for a tool before this one.
            if sequence == self.sequence {
                return result.map_err(Failure::Refused);
            }
        }
    }

    fn response(&mut self, deadline: Instant) -> Result<Response, Failure> {
        let mut bad = false;
        loop {
            while !self.unread.is_empty() {
                let (taken, frame) = self.reader.take(&self.unread);
                self.unread.drain(..taken);
                match frame {
                    Some(Frame::Message(response)) => return Ok(response),
                    // The end of what was sent to a tool before this one; the answer comes behind it.
                    Some(Frame::Bad(_)) if !bad => bad = true,
                    Some(Frame::Bad(_)) => return Err(Failure::Nonsense),
                    None => {}
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(if bad { Failure::Nonsense } else { Failure::Silent(self.timeout) });
            }
            self.line.set_read_timeout(Some(left)).map_err(Failure::Line)?;
            let mut bytes = [0; 4096];
            match self.line.read(&mut bytes) {
                Ok(0) => return Err(Failure::Gone),
                Ok(count) => self.unread.extend(&bytes[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset => return Err(Failure::Gone),
                    _ => return Err(Failure::Line(error)),
                },
            }
        }
    }
}
