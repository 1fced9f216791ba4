//! Messages through a stream that cuts anywhere and carries anything.

use proptest::prelude::*;

use super::*;
use crate::mailbox::{Answer, Call, Core, Cores, Edition, Request, Response, Role, Roles, Status};

fn request(sequence: u32) -> Request {
    Request { sequence, call: Call::Hello(Edition::HERE) }
}

fn encoded(message: &impl Serialize) -> Vec<u8> {
    let mut to = [0; MAX_FRAME_BYTES];
    encode(message, &mut to).unwrap().to_vec()
}

/// All that is read of some bytes that come in pieces of these lengths.
fn read(reader: &mut FrameReader, mut bytes: &[u8], pieces: &[usize]) -> Vec<Frame<Request>> {
    let mut frames = Vec::new();
    let mut pieces = pieces.iter().copied().cycle();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(pieces.next().unwrap_or(usize::MAX).clamp(1, bytes.len()));
        let mut piece = piece;
        while !piece.is_empty() {
            let (taken, frame) = reader.take(piece);
            frames.extend(frame);
            piece = &piece[taken..];
        }
        bytes = rest;
    }
    frames
}

#[test]
fn messages_are_read_however_they_are_cut() {
    let bytes: Vec<u8> = (0..20).flat_map(|number| encoded(&request(number))).collect();
    for piece in 1..30 {
        let frames = read(&mut FrameReader::new(), &bytes, &[piece]);
        assert!(
            frames
                .iter()
                .eq((0..20).map(|number| Frame::Message(request(number))).collect::<Vec<_>>().iter())
        );
    }
}

#[test]
fn what_is_no_message_is_said_once_and_the_next_is_read() {
    let good = encoded(&request(7));
    let mut with_more = postcard::to_stdvec(&request(7)).unwrap();
    with_more.push(1);
    let mut more = vec![0; 64];
    let length = cobs::encode(&with_more, &mut more).unwrap() - 1;
    more.truncate(length);
    let bad: [(&[u8], Error); 4] = [
        (&[1, 2, 3], Error::Malformed),
        (&[2, 0xff], Error::Malformed),
        (&more, Error::Malformed),
        (&[1; MAX_FRAME_BYTES + 1], Error::TooLong),
    ];
    for (bytes, error) in bad {
        let stream = [bytes, &[0, 0, 0], &good].concat();
        let frames = read(&mut FrameReader::new(), &stream, &[100]);
        assert_eq!(frames, [Frame::Bad(error), Frame::Message(request(7))], "{bytes:?}");
    }
}

#[test]
fn the_largest_answers_fit_into_a_message() {
    let core = Core {
        number: u8::MAX,
        roles: Roles::from_iter([Role::Offload; 5]),
        productive_turns: u64::MAX,
        empty_turns: u64::MAX,
        sleeps: u64::MAX,
        asleep_us: u64::MAX,
        longest_turn_us: u32::MAX,
    };
    let text = || "x".repeat(32).as_str().try_into().unwrap();
    let status = Status {
        version: text(),
        board: text(),
        plan: text(),
        uptime_us: u64::MAX,
        cores: u8::MAX,
        crashes: u32::MAX,
        crashes_in_a_row: u32::MAX,
        configuration_is_stored: true,
    };
    let cores = (0..super::super::MAX_CORES_OF_ANSWER).map(|_| core.clone()).collect();
    for answer in [Answer::Cores(Cores { cores }), Answer::Status(status)] {
        let response = Response { sequence: u32::MAX, result: Ok(answer) };
        assert!(postcard::to_stdvec(&response).unwrap().len() <= MESSAGE_BYTES);
    }
}

#[test]
fn the_greeting_looks_the_same_in_all_editions() {
    let hello = Request { sequence: 1, call: Call::Hello(Edition { version: 1, fingerprint: 2 }) };
    assert_eq!(postcard::to_stdvec(&hello).unwrap(), [1, 0, 1, 2]);
    let (card, client) = (Edition { version: 3, fingerprint: 4 }, Edition { version: 5, fingerprint: 6 });
    let refusal = Response { sequence: 1, result: Err(Error::Edition { card, client }) };
    assert_eq!(postcard::to_stdvec(&refusal).unwrap(), [1, 1, 0, 3, 4, 5, 6]);
}

proptest! {
    #[test]
    fn any_bytes_leave_the_reader_able_to_read(bytes in prop::collection::vec(any::<u8>(), 0..4000), pieces in prop::collection::vec(1usize..700, 1..20)) {
        let mut reader = FrameReader::new();
        read(&mut reader, &bytes, &pieces);
        // Whatever was left half said is ended by the zero.
        let stream = [&[0], &encoded(&request(9))[..]].concat();
        let frames = read(&mut reader, &stream, &pieces);
        prop_assert_eq!(frames.last(), Some(&Frame::Message(request(9))));
        prop_assert!(frames.len() <= 2);
    }
}
