//! The card's side of the mailbox, on one stream of bytes.
//!
//! One request is answered before the next is looked at, and nothing is read while the last response waits for room: a client
//! that does not read costs the card nothing. A stream does not tell when its client goes and another comes: who comes begins with
//! a zero, which ends what the other has left half said, and greets, which begins the talk anew.

use hal_api::{ByteStream, Instant};
use message::Then;
use message::mailbox::{
    Answer, Call, Cores, Edition, Error, Frame, FrameReader, MAX_FRAME_BYTES, Request, Response, Status,
    encode,
};

/// Bytes read from the stream at a time.
const READ_BYTES: usize = 256;

/// What the mailbox asks the card.
pub trait Card {
    /// Who the card is, and how it is.
    fn status(&self, now: Instant) -> Status;

    /// Its cores, from number `first` on, as many as the answer takes.
    fn cores(&self, first: u8) -> Cores;

    /// Begins the orderly end, unless it has begun. Gives what comes after it.
    ///
    /// # Errors
    /// [`Error::NotHere`] where that cannot come after it.
    fn end(&self, then: Then) -> Result<Then, Error>;
}

/// The mailbox of a card, on one stream.
#[derive(Debug)]
pub struct Mailbox<S> {
    stream: S,
    reader: FrameReader,
    /// Bytes that were read; those from `taken` on are not looked at yet.
    read: [u8; READ_BYTES],
    filled: usize,
    taken: usize,
    /// A response; the bytes from `sent` to `ready` have still to go.
    response: [u8; MAX_FRAME_BYTES],
    ready: usize,
    sent: usize,
    /// The client speaks this edition.
    greeted: bool,
}

impl<S: ByteStream> Mailbox<S> {
    /// A mailbox that nobody has greeted.
    pub const fn new(stream: S) -> Self {
        Self {
            stream,
            reader: FrameReader::new(),
            read: [0; READ_BYTES],
            filled: 0,
            taken: 0,
            response: [0; MAX_FRAME_BYTES],
            ready: 0,
            sent: 0,
            greeted: false,
        }
    }

    /// Answers requests, at most `budget` of them; returns how many that was.
    pub fn poll(&mut self, card: &impl Card, now: Instant, budget: u32) -> u32 {
        let mut answered = 0;
        while self.send() && answered < budget {
            if self.taken == self.filled {
                (self.taken, self.filled) = (0, self.stream.read(&mut self.read));
            }
            let bytes = self.read.get(self.taken..self.filled).unwrap_or_default();
            if bytes.is_empty() {
                break;
            }
            let (taken, frame) = self.reader.take(bytes);
            self.taken += taken;
            if let Some(frame) = frame {
                self.respond(frame, card, now);
                answered += 1;
            }
        }
        self.stream.flush();
        answered
    }

    /// Sends what is left of a response; true when there is nothing left.
    fn send(&mut self) -> bool {
        let rest = self.response.get(self.sent..self.ready).unwrap_or_default();
        if !rest.is_empty() {
            self.sent += self.stream.write(rest);
        }
        self.sent == self.ready
    }

    fn respond(&mut self, frame: Frame<Request>, card: &impl Card, now: Instant) {
        let response = match frame {
            Frame::Message(Request { sequence, call }) => {
                Response { sequence, result: self.answer(&call, card, now) }
            }
            Frame::Bad(error) => Response { sequence: 0, result: Err(error) },
        };
        // A test holds that the largest answers fit.
        self.sent = 0;
        self.ready = encode(&response, &mut self.response).map_or(0, <[u8]>::len);
        debug_assert!(self.ready > 0, "a response that is no message: {response:?}");
    }

    fn answer(&mut self, call: &Call, card: &impl Card, now: Instant) -> Result<Answer, Error> {
        if let Call::Hello(client) = *call {
            self.greeted = client == Edition::HERE;
            let refusal = Error::Edition { card: Edition::HERE, client };
            return if self.greeted { Ok(Answer::Hello(Edition::HERE)) } else { Err(refusal) };
        }
        if !self.greeted {
            return Err(Error::NoHello);
        }
        Ok(match *call {
            Call::Hello(_) => Answer::Hello(Edition::HERE),
            Call::Status => Answer::Status(card.status(now)),
            Call::Cores { first } => Answer::Cores(card.cores(first)),
            Call::End { then } => Answer::Ending { then: card.end(then)? },
        })
    }

    /// Asks the stream for an interrupt; true when something is there already.
    pub fn arm(&mut self) -> bool {
        let has_bytes = self.taken < self.filled && self.sent == self.ready;
        self.stream.arm() || has_bytes
    }

    /// The core polls again.
    pub fn disarm(&mut self) {
        self.stream.disarm();
    }
}

#[cfg(test)]
mod tests;
