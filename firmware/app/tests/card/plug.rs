//! Drives that are plugged in, taken out in order, and pulled, under hosts that use them.

use std::time::Duration;

use hal_fakes::{FakeNvme, NvmeConfig, NvmeControl, NvmeEffect, NvmeInjection, SlotsControl};
use nvme::opcode::io;
use nvme::{Command, Status, opcode};

use crate::card::Card;
use crate::host::{Host, Payload, blocks};
use crate::{MEMORY, idle, pattern};

/// Events of namespaces and of the rest, as Set Features writes them (Base 5.27.1.8: bit 8).
const NAMESPACE_ATTRIBUTE_NOTICES: u32 = 1 << 8;
/// Completion dword 0: log page 04h, notice, namespace attribute changed.
const NAMESPACE_ATTRIBUTE_CHANGED: u32 = 0x04_00_02;

/// A card with slots and a drive of boot, a host of it, and the NSID under which it knows the drive.
fn served() -> (Card, SlotsControl, Host, u32) {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default()]);
    let hands = card.add_slots();
    let mut host = Host::connect(&mut card, 1);
    let nsid = host.namespaces(&mut card)[0];
    (card, hands, host, nsid)
}

fn read(card: &mut Card, host: &mut Host, nsid: u32) -> (Status, Option<u8>) {
    let end = host.io.execute(card, blocks(io::READ, nsid, 0, 8), Payload::Read(4096));
    (end.status, end.data.first().copied())
}

fn await_namespaces(card: &mut Card, host: &mut Host, count: usize) -> Vec<u32> {
    for _ in 0..100 {
        let found = host.namespaces(card);
        if found.len() == count {
            return found;
        }
        card.pass(Duration::from_millis(500));
    }
    panic!("not {count} namespaces");
}

/// Presses the button and takes the drive into the hand once its slot is off.
fn take_out(card: &mut Card, hands: &SlotsControl, slot: usize) -> FakeNvme {
    hands.press_button(slot);
    let mut drive = None;
    card.run_until("the slot is off", |_| {
        if !hands.has_power(slot) {
            drive = hands.take_out(slot);
        }
        drive.is_some()
    });
    drive.expect("a drive")
}

fn spare(card: &mut Card) -> (FakeNvme, NvmeControl) {
    let (drive, control) = card.spares.pop().expect("a spare");
    control.write_disk(1, 0, &[7]);
    (drive, control)
}

#[test]
fn a_drive_that_is_plugged_in_is_served_and_hosts_are_told() {
    let (mut card, hands, mut host, first) = served();
    let mut notices = Command { opcode: opcode::admin::SET_FEATURES, ..Default::default() };
    notices.cdw10.set(0x0b);
    notices.cdw11.set(NAMESPACE_ATTRIBUTE_NOTICES);
    assert_eq!(host.admin.execute(&mut card, notices, Payload::None).status, Status::SUCCESS);
    let request = Command { opcode: opcode::admin::ASYNC_EVENT_REQUEST, ..Default::default() };
    host.admin.start(&mut card, request, Payload::None);
    let (drive, _control) = spare(&mut card);
    hands.insert(1, drive);
    let event = host.admin.wait(&mut card, 1).remove(0);
    assert_eq!((event.status, event.result), (Status::SUCCESS, NAMESPACE_ATTRIBUTE_CHANGED));
    let all = await_namespaces(&mut card, &mut host, 2);
    let second = all.into_iter().find(|&nsid| nsid != first).unwrap();
    assert_eq!(read(&mut card, &mut host, second), (Status::SUCCESS, Some(7)));
}

#[test]
fn a_drive_of_boot_leaves_in_order_and_comes_back_elsewhere_under_its_name() {
    let (mut card, hands, mut host, nsid) = served();
    let data = pattern(4096, 3);
    let end = host.io.execute(&mut card, blocks(io::WRITE, nsid, 0, 8), Payload::InCapsule(data.clone()));
    assert_eq!(end.status, Status::SUCCESS);
    let drive = take_out(&mut card, &hands, 0);
    assert_eq!(card.drives[0].configuration() >> 14 & 3, 1, "CC.SHN");
    assert_eq!(host.namespaces(&mut card), [0u32; 0]);
    assert_eq!(read(&mut card, &mut host, nsid).0.do_not_retry(), Status::INVALID_NAMESPACE.do_not_retry());
    hands.insert(1, drive);
    assert_eq!(await_namespaces(&mut card, &mut host, 1), [nsid]);
    assert_eq!(read(&mut card, &mut host, nsid), (Status::SUCCESS, Some(data[0])));
}

#[test]
fn hosts_hear_of_what_a_drive_could_not_flush_when_it_left_once_it_is_back() {
    let (mut card, hands, mut host, nsid) = served();
    let write = Payload::InCapsule(pattern(4096, 3));
    assert_eq!(host.io.execute(&mut card, blocks(io::WRITE, nsid, 0, 8), write).status, Status::SUCCESS);
    let effect = NvmeEffect::Status(Status::INTERNAL_ERROR.to_field());
    card.drives[0].inject(NvmeInjection {
        queue: Some(1),
        opcode: Some(io::FLUSH),
        skip: 0,
        count: 9,
        effect,
    });
    let drive = take_out(&mut card, &hands, 0);
    card.drives[0].clear_injections();
    hands.insert(1, drive);
    assert_eq!(await_namespaces(&mut card, &mut host, 1), [nsid]);
    let mut flush = || host.io.execute(&mut card, blocks(io::FLUSH, nsid, 0, 1), Payload::None).status;
    assert_eq!(flush().code(), Status::WRITE_FAULT);
    assert_eq!(flush(), Status::SUCCESS);
}

#[test]
fn a_pulled_drive_is_waited_for_and_found_in_any_slot() {
    let (mut card, hands, mut host, nsid) = served();
    card.drives[0].write_disk(1, 0, &[5]);
    card.drives[0].set_removed(true);
    hands.pull(0);
    card.pass(Duration::from_secs(3));
    assert_eq!(host.namespaces(&mut card), [nsid]);
    assert_eq!(read(&mut card, &mut host, nsid).0, Status::NAMESPACE_NOT_READY);
    let drive = hands.take_out(0).expect("the drive");
    card.drives[0].set_removed(false);
    hands.insert(1, drive);
    card.pass(Duration::from_secs(3));
    assert_eq!(read(&mut card, &mut host, nsid), (Status::SUCCESS, Some(5)));
    assert_eq!(host.namespaces(&mut card), [nsid]);
}

#[test]
fn a_pulled_drive_that_is_in_again_before_its_old_place_is_empty_is_served() {
    let (mut card, hands, mut host, nsid) = served();
    // What the loss of this write has to be told of keeps the old drive in its place for a while.
    let write = Payload::InCapsule(pattern(4096, 3));
    assert_eq!(host.io.execute(&mut card, blocks(io::WRITE, nsid, 0, 8), write).status, Status::SUCCESS);
    let config = NvmeConfig { serial: "DRIVE0".into(), ..NvmeConfig::default() };
    let (drive, control) = FakeNvme::new(config);
    control.reach_as(&card.drives[0]);
    card.drives[0].set_removed(true);
    hands.pull(0);
    hands.insert(1, drive);
    card.pass_in_control(Duration::from_secs(2));
    card.pass(Duration::from_secs(3));
    assert_eq!(host.namespaces(&mut card), [nsid]);
    assert_eq!(read(&mut card, &mut host, nsid).0, Status::SUCCESS);
}

#[test]
fn another_drive_in_the_place_of_a_pulled_one_gets_nothing_of_its() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default()]);
    let hands = card.add_slots();
    let before = card.counts();
    let mut host = Host::connect(&mut card, 1);
    let old = host.namespaces(&mut card)[0];
    // Data that is to come meanwhile.
    host.io.generous = false;
    host.io.start(&mut card, blocks(io::WRITE, old, 0, 64), Payload::Write(pattern(32768, 1)));
    let socket = host.io.socket;
    card.run_until("R2T comes", |card| card.wire.incoming(socket).len() >= 24);
    card.drives[0].set_removed(true);
    hands.pull(0);
    card.pass(Duration::from_secs(3));
    let (drive, control) = spare(&mut card);
    hands.insert(0, drive);
    card.pass(Duration::from_secs(3));
    let all = host.namespaces(&mut card);
    assert!(all.len() == 1 && all[0] != old, "{all:?}");
    host.io.generous = true;
    let end = host.io.wait(&mut card, 1).remove(0);
    assert_ne!(end.status, Status::SUCCESS);
    assert_eq!(control.io_commands(io::WRITE), 0);
    assert_eq!(read(&mut card, &mut host, all[0]), (Status::SUCCESS, Some(7)));
    host.reset(&mut card);
    assert_eq!(idle(&mut card), before);
}

#[test]
fn a_hundred_drives_come_and_go_and_pools_are_whole() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default()]);
    let hands = card.add_slots();
    let mut host = Host::connect(&mut card, 1);
    let connected = card.counts();
    let mut shelf = std::mem::take(&mut card.spares);
    for round in 0..100u32 {
        let (drive, control) = shelf.remove(0);
        hands.insert(1, drive);
        // The namespace of a drive that was pulled goes when this one is up.
        card.pass(Duration::from_secs(2));
        let all = await_namespaces(&mut card, &mut host, 2);
        for nsid in all {
            let data = pattern(4096, round + nsid);
            let write = Payload::InCapsule(data.clone());
            assert_eq!(
                host.io.execute(&mut card, blocks(io::WRITE, nsid, 8, 8), write).status,
                Status::SUCCESS
            );
            host.io.start(&mut card, blocks(io::READ, nsid, 8, 8), Payload::Read(4096));
            assert!(host.io.wait(&mut card, 1)[0].data == data);
        }
        let drive = if round % 3 == 2 {
            // Without warning: another drive comes next, so the namespace goes then.
            control.set_removed(true);
            hands.pull(1);
            card.pass(Duration::from_secs(3));
            let drive = hands.take_out(1).expect("the drive");
            control.set_removed(false);
            drive
        } else {
            let drive = take_out(&mut card, &hands, 1);
            await_namespaces(&mut card, &mut host, 1);
            drive
        };
        assert_eq!(card.counts(), connected, "round {round}");
        shelf.push((drive, control));
    }
}
