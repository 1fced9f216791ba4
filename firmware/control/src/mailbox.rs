//! The card's side of the mailbox, on one stream of bytes.
//!
//! One request is answered before the next is looked at, and nothing is read while the last response waits for room: a client
//! that does not read costs the card nothing. What a data core has to say is asked of it, and waited for with a limit. A stream does not tell when its client goes and another comes: who comes begins with
//! a zero, which ends what the other has left half said, and greets, which begins the talk anew.

use core::time::Duration;

use hal_api::{ByteStream, Instant};
use message::mailbox::{
    Answer, Call, CoreCall, Cores, Edition, Error, Frame, FrameReader, MAX_FRAME_BYTES, Request, Response,
    Status, encode,
};
use message::{Reply, Then};

/// Bytes read from the stream at a time.
const READ_BYTES: usize = 256;

/// A data core answers within a turn; one that has not done so after this long is told of as silent.
pub const CORE_PATIENCE: Duration = Duration::from_secs(2);

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

    /// Asks a data core; [`Self::hear`] has its reply under the ticket that this gives.
    ///
    /// # Errors
    /// [`Error::NoSuchCore`]; [`Error::CoreSilent`] where it has not taken what it was asked before.
    fn ask(&mut self, core: u8, call: CoreCall) -> Result<u32, Error>;

    /// The next reply of any data core.
    fn hear(&mut self) -> Option<Reply>;
}

/// What a data core was asked, for the request whose response comes next.
#[derive(Debug, Clone, Copy)]
struct Pending {
    sequence: u32,
    core: u8,
    ticket: u32,
    until: Instant,
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
    pending: Option<Pending>,
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
        // What comes when nobody waits for it any more is not left lying: the core would never sleep.
        while self.pending.is_none() && card.hear().is_some() {}
        let mut answered = 0;
        while self.send() && answered < budget && self.answer_next(card, now) {
            answered += 1;
        }
        self.stream.flush();
        answered
    }

    /// True where a request was answered, or is answered once a data core has been heard.
    fn answer_next(&mut self, card: &mut impl Card, now: Instant) -> bool {
        if let Some(pending) = self.pending {
            return self.await_core(pending, card, now);
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

    /// Answers for a data core that has, or lets it have more time.
    fn await_core(&mut self, pending: Pending, card: &mut impl Card, now: Instant) -> bool {
        let Pending { sequence, core, ticket, until } = pending;
        let result = loop {
            match card.hear() {
                Some(reply) if reply.ticket == ticket => break reply.result.map(Answer::Core),
                // Too late: somebody was told that the core is silent.
                Some(_) => {}
                None if now >= until => break Err(Error::CoreSilent { core }),
                None => return false,
            }
        };
        self.pending = None;
        self.respond(sequence, result);
        true
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
            Call::Status => Ok(Answer::Status(card.status(now))),
            Call::Cores { first } => Ok(Answer::Cores(card.cores(first))),
            Call::End { then } => card.end(then).map(|then| Answer::Ending { then }),
            Call::Core { core, call } => match card.ask(core, call) {
                Ok(ticket) => {
                    self.pending = Some(Pending { sequence, core, ticket, until: now + CORE_PATIENCE });
                    return;
                }
                Err(error) => Err(error),
            },
        };
        self.respond(sequence, result);
    }

    /// When the mailbox has something to do although its line brings nothing.
    pub fn next_deadline(&self) -> Instant {
        self.pending.map_or(Instant::FAR_FUTURE, |pending| pending.until)
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
