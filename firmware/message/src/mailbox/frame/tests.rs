//! Messages through a stream that cuts anywhere and carries anything.

use proptest::prelude::*;

use super::*;
use crate::configuration::SubsystemPlace;
use crate::mailbox::{
    Answer, Call, Controller, Core, CoreAnswer, Cores, Drive, DriveCounters, DriveHealth, DriveHome,
    DriveState, Edition, Port, PortAddress, PortCounters, Queue, Request, Response, Role, Roles, Status,
};

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
        data_cores: 3,
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
fn the_largest_answers_of_data_cores_fit_into_a_message() {
    for answer in largest_of_cores() {
        let response = Response { sequence: u32::MAX, result: Ok(Answer::Core(answer.clone())) };
        let bytes = postcard::to_stdvec(&response).unwrap().len();
        assert!(bytes <= MESSAGE_BYTES, "{bytes}: {answer:?}");
    }
}

/// Answers with as many entries as they take, each as long as it can be.
fn largest_of_cores() -> [CoreAnswer; 4] {
    fn full<T: Clone, const N: usize>(entry: &T) -> heapless::Vec<T, N> {
        (0..N).map(|_| entry.clone()).collect()
    }
    fn text<const N: usize>() -> heapless::String<N> {
        "x".repeat(N).as_str().try_into().unwrap()
    }
    let address = std::net::IpAddr::from([u16::MAX; 8]);
    let of_drive = DriveCounters {
        commands: u64::MAX,
        media_errors: u64::MAX,
        other_errors: u64::MAX,
        command_timeouts: u64::MAX,
        aborted: u64::MAX,
        request_timeouts: u64::MAX,
        resets: u64::MAX,
        unknown_completions: u64::MAX,
        lost_caches: u64::MAX,
        failures: u64::MAX,
        busy: u64::MAX,
    };
    let health = DriveHealth {
        critical_warning: u8::MAX,
        temperature_k: u16::MAX,
        spare_percent: u8::MAX,
        used_percent: u8::MAX,
        power_on_hours: u64::MAX,
        unsafe_shutdowns: u64::MAX,
        media_errors: u64::MAX,
        read_bytes: u64::MAX,
        written_bytes: u64::MAX,
    };
    let home = DriveHome {
        address: u16::MAX,
        serial: text(),
        model: text(),
        firmware: text(),
        state: DriveState::Off,
        last_failure: text(),
        queues: u8::MAX,
        queue_depth: u16::MAX,
        health: Some(health),
    };
    let drive = Drive {
        number: u8::MAX,
        outstanding: u16::MAX,
        quarantined: u16::MAX,
        counters: of_drive,
        home: Some(home),
    };
    let own = PortAddress { address, prefix: u8::MAX, gateway: Some(address) };
    let of_port = PortCounters {
        received_frames: u64::MAX,
        sent_frames: u64::MAX,
        passed_on_frames: u64::MAX,
        dropped_frames: u64::MAX,
        carried_frames: u64::MAX,
        accepted_connections: u64::MAX,
        refused_connections: u64::MAX,
        free_sockets: u16::MAX,
    };
    let port = Port {
        number: u16::MAX,
        mac: [u8::MAX; 6],
        mtu: u16::MAX,
        link_is_up: true,
        verifies_checksums: true,
        fills_in_checksums: true,
        addresses: full(&own),
        ana_state: u8::MAX,
        counters: of_port,
    };
    let controller = Controller {
        cntlid: u16::MAX,
        host_nqn: text(),
        host_id: [u8::MAX; 16],
        address: Some(address),
        port: u16::MAX,
        subsystem: SubsystemPlace(u8::MAX),
        is_ready: true,
        keep_alive_ms: u32::MAX,
        idle_ms: u64::MAX,
        io_queues: u16::MAX,
        granted_io_queues: u16::MAX,
    };
    let queue = Queue {
        place: u16::MAX,
        cntlid: Some(u16::MAX),
        queue_id: u16::MAX,
        address: Some(address),
        port: u16::MAX,
        entries: u16::MAX,
        outstanding: u16::MAX,
        at_drives: u16::MAX,
        header_digest: true,
        data_digest: true,
        pages: u32::MAX,
    };
    [
        CoreAnswer::Drives(full(&drive)),
        CoreAnswer::Ports(full(&port)),
        CoreAnswer::Controllers(full(&controller)),
        CoreAnswer::Queues(full(&queue)),
    ]
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
