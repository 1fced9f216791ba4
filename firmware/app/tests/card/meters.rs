//! What a card knows about its I/O.

use message::mailbox::{CoreAnswer, CoreCall};
use message::{MeterPlace, NamespaceMeter, TraceLog, TraceSettings, Waits};
use nvmeof::initiator::{Transfer, commands};

use super::calls::ask;
use super::own_host::OwnHost;
use super::*;

const BLOCKS: u32 = 8;
const BYTES: u32 = BLOCKS * 512;

/// What a core has counted of commands to a namespace.
fn meter(card: &Card, core: usize, nsid: u32) -> NamespaceMeter {
    let (mut place, mut meter) = (MeterPlace::default(), NamespaceMeter::EMPTY);
    while let Some(page) = card.core(core).namespace_meters(place) {
        place = page.next;
        if page.nsid == nsid {
            meter.add(&page);
        }
    }
    meter
}

#[test]
fn each_core_counts_what_it_has_answered() {
    let mut card = Card::boot_cores(MEMORY, 2, 1, [NvmeConfig::default(), NvmeConfig::default()]);
    let mut host = OwnHost::connect(&mut card, 1, 2, 2);
    let [first, second] = [0, 1].map(|index| host.info.namespaces[index].nsid);
    let counts = |card: &Card, nsid| {
        [0, 1].map(|core| {
            let meter = meter(card, core, nsid);
            (meter.reads.count(), meter.writes.count(), meter.totals.read_bytes, meter.totals.written_bytes)
        })
    };
    // A host looks at its namespaces as it comes up.
    let before = [first, second].map(|nsid| counts(&card, nsid));
    for (queue, reads) in [(0, 3), (1, 2)] {
        for _ in 0..reads {
            let read = commands::read(first, 0, BLOCKS);
            let room = vec![0; BYTES as usize];
            host.io[queue].execute(&mut card, &read, Transfer::Receive(BYTES), room);
        }
    }
    let write = commands::write(second, 0, BLOCKS);
    host.io[1].execute(&mut card, &write, Transfer::SendInCapsule(BYTES), vec![1; BYTES as usize]);
    let after = [first, second].map(|nsid| counts(&card, nsid));
    let bytes = u64::from(BYTES);
    let mut gained: Vec<_> = (0..2)
        .flat_map(|namespace| {
            let (before, after) = (before[namespace], after[namespace]);
            (0..2).map(move |core| {
                let (now, then) = (after[core], before[core]);
                (now.0 - then.0, now.1 - then.1, now.2 - then.2, now.3 - then.3)
            })
        })
        .collect();
    gained.sort_unstable();
    assert_eq!(gained, [(0, 0, 0, 0), (0, 1, 0, bytes), (2, 0, 2 * bytes, 0), (3, 0, 3 * bytes, 0)]);
}

#[test]
fn the_time_that_a_drive_takes_is_that_between_submission_and_completion() {
    let slow = NvmeConfig { latency_polls: (60, 60), ..NvmeConfig::default() };
    let mut card = Card::boot_cores(MEMORY, 1, 1, [slow]);
    let mut host = OwnHost::connect(&mut card, 1, 1, 1);
    let nsid = host.info.namespaces[0].nsid;
    card.core_mut(0).set_trace_settings(TraceSettings { sample_one_in: 1, slow_us: 1000 });
    let read = commands::read(nsid, 8, BLOCKS);
    host.io[0].start(1, &read, Transfer::Receive(BYTES), vec![0; BYTES as usize]);
    let mut seen_at_drive_us = 0;
    while host.io[0].ended(&mut card).is_empty() {
        let before = card.now;
        card.turn();
        let is_at_drive = card.drive(0).outstanding() > 0;
        seen_at_drive_us += if is_at_drive { (card.now - before).as_micros() as u32 } else { 0 };
    }
    let page = card.core(0).traces(TraceLog::Slow, 0);
    let [trace] = page.traces[..] else { panic!("{page:?}") };
    let stages = trace.stages;
    let at_drive_us = stages.completed_us.unwrap() - stages.submitted_us.unwrap();
    assert_eq!(at_drive_us, seen_at_drive_us, "{trace:?}");
    assert!(at_drive_us > 1000 && stages.ended_us - at_drive_us < 300, "{trace:?}");
    assert_eq!((trace.nsid, trace.first_block, trace.blocks), (nsid, 8, BLOCKS));
    assert_eq!((trace.queue, trace.waits), (1, Waits::NONE));
    assert_eq!(card.core(0).traces(TraceLog::Sampled, 0).traces.len(), 1);
}

#[test]
fn control_is_told_of_meters_traces_and_counters() {
    let mut card = Card::boot_cores(MEMORY, 1, 1, [NvmeConfig::default()]);
    let mut calls = card.add_calls();
    let mut host = OwnHost::connect(&mut card, 1, 1, 1);
    let nsid = host.info.namespaces[0].nsid;
    let wanted = TraceSettings { sample_one_in: 1, slow_us: 7 };
    for set in [Some(wanted), None] {
        let answer = ask(&mut card, &mut calls, 0, CoreCall::TraceSettings { set });
        assert_eq!(answer, CoreAnswer::TraceSettings(wanted));
    }
    let read = commands::read(nsid, 8, BLOCKS);
    host.io[0].execute(&mut card, &read, Transfer::Receive(BYTES), vec![0; BYTES as usize]);
    let first = MeterPlace::default();
    let answer = ask(&mut card, &mut calls, 0, CoreCall::Meters { first });
    let CoreAnswer::Meters(Some(page)) = answer else { panic!("{answer:?}") };
    assert_eq!(page.nsid, nsid);
    let first = MeterPlace { meter: u8::MAX, range: 0 };
    assert_eq!(ask(&mut card, &mut calls, 0, CoreCall::Meters { first }), CoreAnswer::Meters(None));
    let answer = ask(&mut card, &mut calls, 0, CoreCall::Traces { log: TraceLog::Sampled, first: 0 });
    let CoreAnswer::Traces(page) = answer else { panic!("{answer:?}") };
    assert_eq!(page.traces.first().map(|trace| (trace.nsid, trace.first_block)), Some((nsid, 8)));
    let answer = ask(&mut card, &mut calls, 0, CoreCall::Counters);
    let CoreAnswer::Counters(counters) = answer else { panic!("{answer:?}") };
    let (connections, controllers, pools) = (counters.connections, counters.controllers, counters.pools);
    assert_eq!((connections.opened, controllers.live, controllers.connects), (2, 1, 1));
    assert!(connections.commands > 3 && pools.connections == 2);
    assert!(pools.least_available_pages < pools.free_pages - pools.promised_pages);
}
