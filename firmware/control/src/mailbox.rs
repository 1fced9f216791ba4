//! The card's side of the mailbox, on one stream of bytes.
//!
//! One request is answered before the next is looked at, and nothing is read while the last response waits for room: a client
//! that does not read costs the card nothing. What takes the card longer than a turn is waited for. A stream does not tell when its client goes and another comes: who comes begins with
//! a zero, which ends what the other has left half said, and greets, which begins the talk anew.

use hal_api::{ByteStream, Instant};
use message::mailbox::{
    Answer, Call, Edition, Error, Frame, FrameReader, MAX_FRAME_BYTES, Request, Response, encode,
};

/// Bytes read from the stream at a time.
const READ_BYTES: usize = 256;

/// What the mailbox asks the card.
pub trait Card {
    /// Answers what was asked; `None` where [`Self::finish`] will. Not while that is awaited, and never [`Call::Hello`].
    fn begin(&mut self, call: Call, now: Instant) -> Option<Result<Answer, Error>>;

    /// Goes on with what was begun. Its answer, once; `None` while it is awaited, or nothing is.
    fn finish(&mut self, now: Instant) -> Option<Result<Answer, Error>>;
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
    /// The request that the card has begun to answer, by its number.
    pending: Option<u32>,
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
            pending: None,
        }
    }

    /// Answers requests, at most `budget` of them; returns how many that was.
    pub fn poll(&mut self, card: &mut impl Card, now: Instant, budget: u32) -> u32 {
        let mut answered = 0;
        while self.send() && answered < budget && self.answer_next(card, now) {
            answered += 1;
        }
        self.stream.flush();
        answered
    }

    /// True where a request was answered, or begun.
    fn answer_next(&mut self, card: &mut impl Card, now: Instant) -> bool {
        if let Some(sequence) = self.pending {
            let Some(result) = card.finish(now) else { return false };
            self.pending = None;
            self.respond(sequence, result);
            return true;
        }
        loop {
            if self.taken == self.filled {
                (self.taken, self.filled) = (0, self.stream.read(&mut self.read));
            }
            let bytes = self.read.get(self.taken..self.filled).unwrap_or_default();
            if bytes.is_empty() {
                return false;
            }
            let (taken, frame) = self.reader.take(bytes);
            self.taken += taken;
            match frame {
                Some(Frame::Message(Request { sequence, call })) => {
                    self.answer(sequence, call, card, now);
                    return true;
                }
                Some(Frame::Bad(error)) => {
                    self.respond(0, Err(error));
                    return true;
                }
                None => {}
            }
        }
    }

    /// Sends what is left of a response; true when there is nothing left.
    fn send(&mut self) -> bool {
        let rest = self.response.get(self.sent..self.ready).unwrap_or_default();
        if !rest.is_empty() {
            self.sent += self.stream.write(rest);
        }
        self.sent == self.ready
    }

    fn respond(&mut self, sequence: u32, result: Result<Answer, Error>) {
        let response = Response { sequence, result };
        // A test holds that the largest answers fit.
        self.sent = 0;
        self.ready = encode(&response, &mut self.response).map_or(0, <[u8]>::len);
        debug_assert!(self.ready > 0, "a response that is no message: {response:?}");
    }

    fn answer(&mut self, sequence: u32, call: Call, card: &mut impl Card, now: Instant) {
        let result = match call {
            Call::Hello(client) => {
                self.greeted = client == Edition::HERE;
                let refusal = Error::Edition { card: Edition::HERE, client };
                if self.greeted { Ok(Answer::Hello(Edition::HERE)) } else { Err(refusal) }
            }
            _ if !self.greeted => Err(Error::NoHello),
            _ => match card.begin(call, now) {
                Some(result) => result,
                None => {
                    self.pending = Some(sequence);
                    return;
                }
            },
        };
        self.respond(sequence, result);
    }

    /// Asks the stream for an interrupt; true when something is there already.
    pub fn arm(&mut self) -> bool {
        let has_bytes = self.taken < self.filled && self.sent == self.ready && self.pending.is_none();
        self.stream.arm() || has_bytes
    }

    /// The core polls again.
    pub fn disarm(&mut self) {
        self.stream.disarm();
    }
}

#[cfg(test)]
mod tests;
