//! The mailbox at the end of a line: what clients say, and what they must not achieve.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use proptest::prelude::*;

use message::Then;
use message::mailbox::{CoreCall, Cores, Status};

use super::*;

/// A line with so much room towards the client.
#[derive(Default)]
struct Line {
    to_card: VecDeque<u8>,
    from_card: VecDeque<u8>,
    room: usize,
}

#[derive(Clone, Default)]
struct Stream(Rc<RefCell<Line>>);

impl ByteStream for Stream {
    fn read(&mut self, into: &mut [u8]) -> usize {
        let mut line = self.0.borrow_mut();
        let bytes = line.to_card.len().min(into.len());
        into.iter_mut().zip(line.to_card.drain(..bytes)).for_each(|(place, byte)| *place = byte);
        bytes
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut line = self.0.borrow_mut();
        let taken = bytes.len().min(line.room);
        line.room -= taken;
        line.from_card.extend(&bytes[..taken]);
        taken
    }

    fn flush(&mut self) {}

    fn arm(&mut self) -> bool {
        !self.0.borrow().to_card.is_empty()
    }

    fn disarm(&mut self) {}
}

/// A card that says what it does at once, and what it does with data cores when it is told to.
#[derive(Default)]
struct FakeCard {
    begun: Option<Call>,
    finishes: bool,
}

impl Card for FakeCard {
    fn begin(&mut self, call: Call, now: Instant) -> Option<Result<Answer, Error>> {
        assert_eq!(self.begun, None, "one thing at a time");
        let text = |text: &str| text.try_into().unwrap();
        match call {
            Call::Status => Some(Ok(Answer::Status(Status {
                version: text("1.2.3"),
                board: text("test"),
                plan: text("single"),
                uptime_us: now.as_micros(),
                cores: 1,
                data_cores: 1,
                crashes: 0,
                crashes_in_a_row: 0,
                configuration_is_stored: false,
            }))),
            Call::Cores { .. } => Some(Ok(Answer::Cores(Cores { cores: heapless::Vec::new() }))),
            Call::End { then: Then::Off } => Some(Ok(Answer::Ending { then: Then::Off })),
            Call::Core { .. } => {
                self.begun = Some(call);
                None
            }
            _ => Some(Err(Error::NotHere)),
        }
    }

    fn finish(&mut self, _: Instant) -> Option<Result<Answer, Error>> {
        if !self.finishes {
            return None;
        }
        self.begun.take().map(|_| Err(Error::CoreSilent { core: 0 }))
    }
}

struct Bench {
    mailbox: Mailbox<Stream>,
    card: FakeCard,
    line: Stream,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let line = Stream::default();
        line.0.borrow_mut().room = usize::MAX;
        let (mailbox, now) = (Mailbox::new(line.clone()), Instant::from_micros(77));
        Self { mailbox, card: FakeCard::default(), line, now }
    }

    fn say(&self, bytes: &[u8]) {
        self.line.0.borrow_mut().to_card.extend(bytes);
    }

    fn ask(&self, sequence: u32, call: Call) {
        let mut to = [0; MAX_FRAME_BYTES];
        self.say(encode(&Request { sequence, call }, &mut to).unwrap());
    }

    fn poll(&mut self) -> u32 {
        self.mailbox.poll(&mut self.card, self.now, 64)
    }

    fn responses(&self) -> Vec<Response> {
        let bytes: Vec<u8> = self.line.0.borrow_mut().from_card.drain(..).collect();
        let (mut reader, mut rest, mut responses) = (FrameReader::new(), &bytes[..], Vec::new());
        while !rest.is_empty() {
            let (taken, frame) = reader.take(rest);
            rest = &rest[taken..];
            match frame {
                Some(Frame::Message(response)) => responses.push(response),
                Some(bad) => panic!("{bad:?}"),
                None => {}
            }
        }
        responses
    }
}

#[test]
fn who_has_greeted_is_answered_in_order() {
    let mut bench = Bench::new();
    bench.ask(1, Call::Hello(Edition::HERE));
    bench.ask(2, Call::Status);
    bench.ask(9, Call::Cores { first: 0 });
    assert_eq!(bench.poll(), 3);
    let responses = bench.responses();
    assert!(responses.iter().map(|response| response.sequence).eq([1, 2, 9]));
    assert_eq!(responses[0].result, Ok(Answer::Hello(Edition::HERE)));
    let Ok(Answer::Status(status)) = &responses[1].result else { panic!("{:?}", responses[1]) };
    assert_eq!((status.uptime_us, status.version.as_str()), (77, "1.2.3"));
}

#[test]
fn nothing_is_told_before_the_greeting_or_to_another_edition() {
    let mut bench = Bench::new();
    bench.ask(1, Call::Status);
    let client = Edition { fingerprint: !Edition::HERE.fingerprint, ..Edition::HERE };
    bench.ask(2, Call::Hello(Edition::HERE));
    bench.ask(3, Call::Hello(client));
    bench.ask(4, Call::Status);
    assert_eq!(bench.poll(), 4);
    let results: Vec<_> = bench.responses().into_iter().map(|response| response.result).collect();
    let refusal = Error::Edition { card: Edition::HERE, client };
    let hello = Ok(Answer::Hello(Edition::HERE));
    assert_eq!(results, [Err(Error::NoHello), hello, Err(refusal), Err(Error::NoHello)]);
    let sentence = refusal.to_string();
    assert!(
        sentence.contains(&client.to_string()) && sentence.contains(&Edition::HERE.to_string()),
        "{sentence}"
    );
}

#[test]
fn what_the_card_cannot_do_is_refused() {
    let mut bench = Bench::new();
    bench.ask(1, Call::Hello(Edition::HERE));
    bench.ask(2, Call::End { then: Then::Restart });
    bench.ask(3, Call::End { then: Then::Off });
    assert_eq!(bench.poll(), 3);
    let results: Vec<_> = bench.responses().into_iter().skip(1).map(|response| response.result).collect();
    assert_eq!(results, [Err(Error::NotHere), Ok(Answer::Ending { then: Then::Off })]);
}

#[test]
fn what_takes_the_card_longer_is_waited_for_and_what_comes_behind_it_waits_too() {
    let mut bench = Bench::new();
    bench.ask(1, Call::Hello(Edition::HERE));
    bench.ask(2, Call::Core { core: 0, call: CoreCall::Ports });
    bench.ask(3, Call::Status);
    while bench.poll() > 0 {}
    assert_eq!(bench.responses().len(), 1);
    assert!(!bench.mailbox.arm(), "there is nothing to do until the card has finished");
    // The client goes, and another comes.
    bench.say(&[7, 0]);
    bench.ask(4, Call::Hello(Edition::HERE));
    assert_eq!(bench.poll(), 0);
    bench.card.finishes = true;
    while bench.poll() > 0 {}
    let responses = bench.responses();
    assert!(responses.iter().map(|response| response.sequence).eq([2, 3, 0, 4]));
    assert_eq!(responses[0].result, Err(Error::CoreSilent { core: 0 }));
    assert!(responses[1].result.is_ok() && responses[3].result.is_ok());
}

#[test]
fn a_client_that_does_not_read_is_not_read_either() {
    let mut bench = Bench::new();
    bench.line.0.borrow_mut().room = 5;
    (0..50).for_each(|number| bench.ask(number, Call::Hello(Edition::HERE)));
    assert_eq!(bench.poll(), 1);
    assert_eq!((bench.poll(), bench.poll()), (0, 0));
    assert!(!bench.line.0.borrow().to_card.is_empty(), "what it has read is bounded");
    bench.line.0.borrow_mut().room = usize::MAX;
    assert_eq!(bench.poll(), 49);
    assert_eq!(bench.responses().len(), 50);
}

#[test]
fn a_turn_answers_no_more_than_its_budget_and_does_not_sleep_on_the_rest() {
    let mut bench = Bench::new();
    (0..3).for_each(|number| bench.ask(number, Call::Hello(Edition::HERE)));
    assert_eq!(bench.mailbox.poll(&mut bench.card, Instant::ZERO, 2), 2);
    assert!(bench.mailbox.arm(), "a request is in the buffer");
    assert_eq!((bench.poll(), bench.mailbox.arm()), (1, false));
}

proptest! {
    /// Whatever a client has said, the next is greeted and answered; each end of a message has one response.
    #[test]
    fn no_bytes_keep_the_next_client_from_being_answered(bytes in prop::collection::vec(prop_oneof![Just(0u8), 0u8..8, any::<u8>()], 0..3000)) {
        let mut bench = Bench::new();
        bench.say(&bytes);
        while bench.poll() > 0 {}
        let ends = bytes.iter().filter(|byte| **byte == 0).count();
        prop_assert!(bench.responses().len() <= ends);
        bench.say(&[0]);
        bench.ask(1, Call::Hello(Edition::HERE));
        bench.ask(2, Call::Status);
        while bench.poll() > 0 {}
        let responses = bench.responses();
        let [.., hello, status] = &responses[..] else { panic!("{responses:?}") };
        prop_assert_eq!((hello.sequence, hello.result.is_ok()), (1, true));
        prop_assert_eq!((status.sequence, status.result.is_ok()), (2, true));
    }
}
