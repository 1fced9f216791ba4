//! What the tool shows of a card's I/O, against a card that is played.

mod played;

use message::configuration::SubsystemPlace;
use message::mailbox::{Answer, Call, CoreAnswer, CoreCall, Request};
use message::{
    CommandTrace, CoreCounters, MeterPlace, NamespaceMeter, Stages, TraceEnd, TraceLog, TracePage,
    TraceSettings, Waits,
};
use played::{dpuctl, status, text};

/// A card whose two data cores have the same.
fn answer(request: &Request) -> Answer {
    match &request.call {
        Call::Hello(edition) => Answer::Hello(*edition),
        Call::Core { core, call } => Answer::Core(of_core(*core, call)),
        _ => Answer::Status(status()),
    }
}

fn of_core(core: u8, call: &CoreCall) -> CoreAnswer {
    match *call {
        CoreCall::Meters { first } => {
            let mut meter = NamespaceMeter::EMPTY;
            (0..100).for_each(|_| meter.reads.note(300));
            meter.writes.note(90_000);
            meter.totals.read_bytes = 409_600;
            let place = MeterPlace { meter: 3, range: if first.meter == 3 { first.range } else { 0 } };
            CoreAnswer::Meters(if first.meter > 3 { None } else { meter.page((SubsystemPlace(1), 7), place) })
        }
        CoreCall::Traces { log, first } => {
            let trace = trace(first, core, if log == TraceLog::Slow { 250_000 } else { 900 });
            let traces = if first < 2 { vec![trace] } else { Vec::new() };
            let next = first + traces.len() as u64;
            CoreAnswer::Traces(TracePage { traces: traces.into_iter().collect(), missed: 0, next })
        }
        CoreCall::TraceSettings { set } => {
            CoreAnswer::TraceSettings(set.unwrap_or(TraceSettings { sample_one_in: 64, slow_us: 100_000 }))
        }
        CoreCall::Counters => {
            let mut counters = CoreCounters::default();
            counters.connections.commands = 1000 + u64::from(core);
            CoreAnswer::Counters(counters)
        }
        CoreCall::Ports => CoreAnswer::Ports(heapless::Vec::new()),
        _ => CoreAnswer::Drives(heapless::Vec::new()),
    }
}

fn trace(sequence: u64, core: u8, ended_us: u32) -> CommandTrace {
    let mut waits = Waits::NONE;
    waits.add(Waits::PAGES);
    CommandTrace {
        sequence,
        controller: 1,
        queue: 2,
        cid: 5,
        opcode: 1,
        nsid: 7,
        first_block: 4096,
        blocks: 8,
        end: TraceEnd::Answered { status: 0 },
        stages: Stages {
            received_us: 2_000_000 - u64::from(core),
            asked_us: Some(600),
            ready_us: Some(650),
            submitted_us: Some(650),
            completed_us: Some(800),
            ended_us,
        },
        waits,
    }
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn meters_of_all_cores_are_added_up() {
    let output = dpuctl("counters", &["counters"], answer);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<_> = printed.lines().map(squeezed).collect();
    let namespace = "1 7 200 819200 300 us 320 us 320 us 320 us 2 0 90.0 ms 98.3 ms 98.3 ms 98.3 ms 0 0";
    assert!(lines.iter().any(|line| line == namespace), "{printed}");
    assert!(lines.iter().any(|line| line == "connections.commands 1000 1001"), "{printed}");
}

#[test]
fn traces_of_all_cores_stand_in_order_of_time_and_say_what_was_waited_for() {
    let output = dpuctl("trace", &["trace"], answer);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<_> = printed.lines().map(squeezed).collect();
    assert_eq!(lines[1], "1.999999 1 1 2 write 7 4096 8 600 650 650 800 900 success pages");
    assert!(lines[3].starts_with("2.000000 0 1 2 write"), "{printed}");
    assert!(printed.contains("one command in 64 is a sample; commands are slow from 100 ms on"), "{printed}");
    let output = dpuctl("slow", &["trace", "--slow", "--json"], answer);
    let value: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!((&value[0]["ended_us"], &value[0]["waited_for"][0]), (&250_000.into(), &"pages".into()));
}

#[test]
fn what_is_remembered_can_be_set() {
    let words = ["trace", "--sample-one-in", "0", "--slow-after", "2.5"];
    let output = dpuctl("settings", &words, answer);
    assert_eq!(text(&output.stdout).trim(), "no samples; commands are slow from 2.5 ms on");
    assert_eq!(dpuctl("bad", &["trace", "--slow-after", "-1"], answer).status.code(), Some(2));
}
