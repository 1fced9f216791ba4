//! What is counted of commands, and what is remembered of them.

use core::time::Duration;

use message::{CommandTrace, MeterPlace, NamespaceMeter, Stages, TraceEnd, TraceLog, TraceSettings, Waits};
use nvme::opcode::io;
use nvme::{Command, Status};
use zerocopy::little_endian::U32;

use super::card::{Card, UNLIMITED};
use super::host::{Host, Payload, Reply, admin_command, block_command, pattern};
use crate::Limits;
use crate::pdu::Digests;

const ALL: TraceSettings = TraceSettings { sample_one_in: 1, slow_us: 100_000 };

/// A trace of some command that took so long.
pub(crate) fn trace_of(ended_us: u32) -> CommandTrace {
    CommandTrace {
        sequence: 0,
        controller: 1,
        queue: 1,
        cid: 1,
        opcode: io::READ,
        nsid: 1,
        first_block: 0,
        blocks: 1,
        end: TraceEnd::ConnectionLost,
        stages: Stages {
            received_us: 0,
            asked_us: None,
            ready_us: None,
            submitted_us: None,
            completed_us: None,
            ended_us,
        },
        waits: Waits::NONE,
    }
}

/// A card whose drive keeps what it gets, and an I/O queue of it; the next command is the first that is traced.
fn card(limits: Limits) -> (Card, Host, Host) {
    let mut card = Card::with(limits, 1024);
    let (admin, io) = Host::pair(&mut card, Digests::default(), |_| {});
    card.target.set_trace_settings(ALL);
    card.ram.hold = true;
    (card, admin, io)
}

fn traces(card: &Card, log: TraceLog) -> Vec<CommandTrace> {
    let (mut from, mut traces) = (0, Vec::new());
    loop {
        let page = card.target.traces(log, from);
        if page.traces.is_empty() {
            return traces;
        }
        from = page.next;
        traces.extend(page.traces.iter().copied());
    }
}

/// The last sample since there was another number of them.
fn last(card: &Card) -> CommandTrace {
    *traces(card, TraceLog::Sampled).last().expect("a trace")
}

fn meter(card: &Card, wanted: u32) -> NamespaceMeter {
    let (mut place, mut meter) = (MeterPlace::default(), NamespaceMeter::EMPTY);
    while let Some(page) = card.target.meter_page(place) {
        place = page.next;
        if page.nsid == wanted {
            meter.add(&page);
        }
    }
    meter
}

fn pass(card: &mut Card, time_us: u64) {
    card.run();
    card.now = card.now + Duration::from_micros(time_us);
}

/// The drive ends all that it has.
fn complete(card: &mut Card) {
    while !card.ram.pending.is_empty() {
        card.complete(0);
    }
    card.run();
}

fn limits() -> Limits {
    Limits { connections: 8, slots: 200, data_pages_per_connection: 512, ..UNLIMITED }
}

fn relative(trace: &CommandTrace) -> [Option<u32>; 4] {
    let Stages { asked_us, ready_us, submitted_us, completed_us, .. } = trace.stages;
    [asked_us, ready_us, submitted_us, completed_us]
}

#[test]
fn a_drive_that_takes_3_ms_shows_3_ms_between_submission_and_completion() {
    let (mut card, _admin, mut io) = card(limits());
    let received_us = card.now.as_micros();
    let cid = io.start(&mut card, block_command(io::READ, 16, 8), &Payload::Read(4096));
    pass(&mut card, 3000);
    complete(&mut card);
    let trace = last(&card);
    assert_eq!((trace.queue, trace.cid, trace.opcode, trace.nsid), (1, cid, io::READ, 1));
    assert_eq!((trace.first_block, trace.blocks, trace.waits), (16, 8, Waits::NONE));
    assert_eq!((trace.stages.received_us, trace.stages.ended_us), (received_us, 3000));
    assert_eq!(relative(&trace), [None, Some(0), Some(0), Some(3000)]);
    assert_eq!(trace.end, TraceEnd::Answered { status: 0 });
    assert!(traces(&card, TraceLog::Slow).is_empty());
    let reads = meter(&card, 1).reads;
    assert_eq!((reads.count(), reads.sum_us()), (1, 3000));
    assert!((3000..3750).contains(&reads.percentile(500).unwrap()));
}

#[test]
fn a_write_shows_when_its_data_was_asked_for_and_when_it_was_there() {
    let (mut card, _admin, mut io) = card(limits());
    let data = pattern(64 * 1024, 3);
    let cid = io.start(&mut card, block_command(io::WRITE, 0, 128), &Payload::Write(data.clone()));
    pass(&mut card, 200);
    let [Reply::ReadyToTransfer { tag, .. }] = io.replies(&mut card)[..] else { panic!("no R2T") };
    io.answer(&mut card, cid, tag, &data);
    pass(&mut card, 30);
    complete(&mut card);
    let trace = last(&card);
    assert_eq!(relative(&trace), [Some(0), Some(200), Some(200), Some(230)]);
    assert_eq!(trace.waits, Waits::HOST_DATA);
    let meter = meter(&card, 1);
    assert_eq!((meter.totals.written_bytes, meter.totals.read_bytes), (64 * 1024, 0));
    assert_eq!((meter.writes.count(), meter.writes.sum_us(), meter.reads.count()), (1, 230, 0));
}

#[test]
fn a_write_that_waits_for_pages_says_so() {
    let (mut card, _admin, mut io) = card(Limits { data_pages_per_connection: 16, ..limits() });
    let read = io.start(&mut card, block_command(io::READ, 0, 128), &Payload::Read(64 * 1024));
    pass(&mut card, 0);
    let data = pattern(4096, 3);
    let write = io.start(&mut card, block_command(io::WRITE, 0, 8), &Payload::Write(data.clone()));
    pass(&mut card, 700);
    complete(&mut card);
    let replies = io.replies(&mut card);
    let tag = replies.iter().find_map(|reply| match reply {
        Reply::ReadyToTransfer { cid, tag, .. } if *cid == write => Some(*tag),
        _ => None,
    });
    io.answer(&mut card, write, tag.expect("an R2T"), &data);
    pass(&mut card, 50);
    complete(&mut card);
    let (first, second) = (traces(&card, TraceLog::Sampled)[0], last(&card));
    assert_eq!((first.cid, first.waits, second.cid), (read, Waits::NONE, write));
    assert!(second.waits.has(Waits::PAGES) && second.waits.has(Waits::HOST_DATA));
    assert_eq!(relative(&second), [Some(700), Some(700), Some(700), Some(750)]);
}

#[test]
fn what_finds_no_place_at_the_drive_says_so() {
    let (mut card, _admin, mut io) = card(limits());
    card.ram.places = 1;
    for start in [0, 8] {
        io.start(&mut card, block_command(io::READ, start, 8), &Payload::Read(4096));
    }
    for _ in 0..2 {
        pass(&mut card, 400);
        complete(&mut card);
    }
    let trace = last(&card);
    assert_eq!((trace.first_block, trace.waits), (8, Waits::DRIVE));
    assert_eq!(relative(&trace), [None, Some(0), Some(400), Some(800)]);
}

#[test]
fn slow_commands_have_a_log_of_their_own_also_where_nobody_waits_for_them_any_more() {
    let (mut card, _admin, mut io) = card(limits());
    card.target.set_trace_settings(TraceSettings { sample_one_in: 0, slow_us: 2000 });
    for time_us in [2000, 2001] {
        io.start(&mut card, block_command(io::READ, time_us, 8), &Payload::Read(4096));
        pass(&mut card, time_us);
        complete(&mut card);
    }
    io.start(&mut card, block_command(io::READ, 7, 8), &Payload::Read(4096));
    pass(&mut card, 5000);
    card.cut(io.index);
    complete(&mut card);
    let slow = traces(&card, TraceLog::Slow);
    let told: Vec<_> = slow.iter().map(|trace| (trace.first_block, trace.end)).collect();
    assert_eq!(told, [(2001, TraceEnd::Answered { status: 0 }), (7, TraceEnd::ConnectionLost)]);
    assert!(traces(&card, TraceLog::Sampled).is_empty());
    assert_eq!(meter(&card, 1).reads.count(), 2, "who got no answer is not counted");
    card.assert_clean();
}

#[test]
fn each_kind_of_command_is_counted_where_it_belongs() {
    let (mut card, mut admin, mut io) = card(limits());
    card.ram.hold = false;
    let write = Payload::InCapsule(pattern(4096, 1));
    assert_eq!(io.execute(&mut card, block_command(io::WRITE, 0, 8), write).0, Status::SUCCESS);
    for _ in 0..3 {
        let read = block_command(io::READ, 0, 8);
        assert_eq!(io.execute(&mut card, read, Payload::Read(4096)).0, Status::SUCCESS);
    }
    let flush = Command { opcode: io::FLUSH, nsid: U32::new(1), ..Default::default() };
    assert_eq!(io.execute(&mut card, flush, Payload::None).0, Status::SUCCESS);
    let beyond = block_command(io::READ, super::card::BLOCKS, 8);
    assert!(!io.execute(&mut card, beyond, Payload::Read(4096)).0.is_success());
    // What was refused, and admin commands, are of no namespace.
    let nowhere = Command { nsid: U32::new(77), ..block_command(io::READ, 0, 8) };
    assert!(!io.execute(&mut card, nowhere, Payload::Read(4096)).0.is_success());
    let identify = admin_command(nvme::opcode::admin::IDENTIFY, 1, 0);
    assert_eq!(admin.execute(&mut card, identify, Payload::Read(4096)).0, Status::SUCCESS);
    let meter = meter(&card, 1);
    assert_eq!((meter.reads.count(), meter.writes.count()), (3, 1));
    let totals = meter.totals;
    assert_eq!((totals.others, totals.errors), (1, 0));
    assert_eq!((totals.read_bytes, totals.written_bytes), (3 * 4096, 4096));
    assert_eq!(self::meter(&card, 77), NamespaceMeter::EMPTY);
}

#[test]
fn an_event_request_that_waits_for_news_is_not_slow() {
    let (mut card, mut admin, _io) = card(limits());
    let request = admin_command(nvme::opcode::admin::ASYNC_EVENT_REQUEST, 0, 0);
    let enable = Command { cdw11: 0x100.into(), ..admin_command(nvme::opcode::admin::SET_FEATURES, 0, 0x0b) };
    assert_eq!(admin.execute(&mut card, enable, Payload::None).0, Status::SUCCESS);
    admin.start(&mut card, request, &Payload::None);
    pass(&mut card, 3000);
    let samples = traces(&card, TraceLog::Sampled).len();
    card.target.set_trace_settings(TraceSettings { sample_one_in: 1, slow_us: 1 });
    card.subsystem.detach(1);
    let now = card.now;
    card.tick_at(now);
    assert!(matches!(admin.replies(&mut card)[..], [Reply::Response { .. }]));
    assert_eq!(traces(&card, TraceLog::Sampled).len(), samples);
    assert!(traces(&card, TraceLog::Slow).is_empty());
}
