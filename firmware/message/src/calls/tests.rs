//! Ways between control and data cores, without cores.

use std::cell::Cell;

use super::*;

thread_local! {
    static WOKEN: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

fn wake(core: u8) {
    WOKEN.with(|woken| woken.set((woken.get().0 + 1 + u32::from(core) * 100, woken.get().1)));
}

fn wake_control() {
    WOKEN.with(|woken| woken.set((woken.get().0, woken.get().1 + 1)));
}

fn ways(cores: usize) -> (Calls, Vec<CallDesk, MAX_DATA_CORES>) {
    WOKEN.with(|woken| woken.set((0, 0)));
    call_ways(&mut Arena::leak_for_host(1 << 20), cores, wake, wake_control).unwrap()
}

fn answer(ticket: u32) -> Reply {
    Reply { ticket, result: Err(Error::NotHere) }
}

#[test]
fn each_core_is_asked_by_its_own_way_and_answers_under_the_ticket() {
    let (mut calls, mut desks) = ways(3);
    let tickets: std::vec::Vec<u32> =
        (0..3).map(|core| calls.ask(core, CoreCall::Drives { first: core }).unwrap()).collect();
    assert!(calls.hear().is_none());
    for (core, desk) in (0u8..3).zip(&mut desks).rev() {
        let request = desk.take().unwrap();
        assert_eq!(request.call, CoreCall::Drives { first: core });
        assert!(desk.take().is_none());
        desk.reply(answer(request.ticket));
    }
    let mut heard: std::vec::Vec<u32> =
        std::iter::from_fn(|| calls.hear()).map(|reply| reply.ticket).collect();
    heard.sort_unstable();
    assert_eq!(heard, tickets);
    let refused = calls.ask(3, CoreCall::Ports);
    assert_eq!(refused, Err(Error::NoSuchCore { core: 3, cores: 3 }));
}

#[test]
fn a_core_that_does_not_answer_takes_no_more_than_there_is_room_for() {
    let (mut calls, mut desks) = ways(1);
    let asked = (0..5).filter(|_| calls.ask(0, CoreCall::Ports).is_ok()).count();
    assert_eq!(asked, CALL_RING_ENTRIES);
    assert_eq!(calls.ask(0, CoreCall::Ports), Err(Error::CoreSilent { core: 0 }));
    // It comes back, while nobody hears it.
    let mut answered = 0;
    for _ in 0..5 {
        while let Some(request) = desks[0].take() {
            desks[0].reply(answer(request.ticket));
            answered += 1;
        }
        let _ = calls.ask(0, CoreCall::Ports);
    }
    assert_eq!(answered, CALL_RING_ENTRIES);
    assert!(!desks[0].arm(), "what waits for room is no reason to stay awake");
    assert_eq!(std::iter::from_fn(|| calls.hear()).count(), CALL_RING_ENTRIES);
    assert!(desks[0].arm(), "now there is room");
}

#[test]
fn who_sleeps_is_woken_and_who_does_not_is_left_alone() {
    let (mut calls, mut desks) = ways(2);
    let ticket = calls.ask(1, CoreCall::Ports).unwrap();
    assert_eq!(WOKEN.get(), (0, 0));
    assert!(desks[1].arm(), "a request is there");
    desks[1].disarm();
    let _ = desks[1].take().unwrap();
    assert!(!calls.arm());
    desks[1].reply(answer(ticket));
    assert_eq!(WOKEN.get(), (0, 1));
    assert!(calls.arm(), "a reply is there");
    calls.disarm();
    assert!(calls.hear().is_some());
    let _ = desks[1].take();
    assert!(!desks[1].arm() && !calls.arm());
    calls.ask(1, CoreCall::Ports).unwrap();
    assert_eq!(WOKEN.get(), (101, 1));
}
