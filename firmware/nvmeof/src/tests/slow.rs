//! Hosts that are slow on purpose, and hosts that want more than one address may have.

use core::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use nvme::Status;
use nvme::opcode::{admin, io};

use super::card::*;
use super::host::*;
use crate::pdu::Digests;
use crate::{DATA_TIMEOUT, Limits, PDU_TIMEOUT, SEND_TIMEOUT};

/// Lets a second pass, in which the admin queue shows that its host lives.
fn second(card: &mut Card, admin: &mut Host) {
    card.tick_at(card.now + Duration::from_secs(1));
    let keep_alive = admin_command(admin::KEEP_ALIVE, 0, 0);
    assert_eq!(admin.execute(card, keep_alive, Payload::None).0, Status::SUCCESS);
}

/// How many seconds the connection lives while `each_second` does what its host does; at most 1000.
fn lives(
    card: &mut Card,
    admin: &mut Host,
    io: &Host,
    mut each_second: impl FnMut(&mut Card, u64),
) -> Duration {
    for number in 0..1000 {
        if !card.is_open(io.index) {
            assert_eq!(card.target.counters().timed_out, 1);
            return Duration::from_secs(number);
        }
        each_second(card, number);
        second(card, admin);
    }
    Duration::from_secs(1000)
}

#[test]
fn a_byte_a_second_of_a_command_is_no_progress() {
    let mut card = Card::new();
    let (mut admin, io) = Host::pair(&mut card, Digests::default(), |_| {});
    // A PDU that was whole leaves no trace: the time begins with the next one.
    for _ in 0..100 {
        second(&mut card, &mut admin);
    }
    let capsule = io.capsule(&block_command(io::READ, 0, 1), &[]);
    let lived = lives(&mut card, &mut admin, &io, |card, number| {
        card.send(io.index, &capsule[number as usize..][..1]);
        card.run();
    });
    assert_eq!(lived, PDU_TIMEOUT);
    card.assert_clean();
}

#[test]
fn a_byte_a_second_of_data_is_no_progress() {
    let mut card = Card::new();
    let (mut admin, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    let (cid, tag) = asked_for(&mut card, &mut io, 100);
    let pdu = io.host_data(cid, tag, 0, true, &pattern(51_200, 1));
    card.send(io.index, &pdu[..24]);
    let lived = lives(&mut card, &mut admin, &io, |card, number| {
        card.send(io.index, &pdu[24 + number as usize..][..1]);
        card.run();
    });
    assert_eq!(lived, PDU_TIMEOUT);
    card.assert_clean();
}

#[test]
fn data_in_small_pdus_does_not_buy_more_time_than_the_transfer_has() {
    let mut card = Card::new();
    let (mut admin, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    let (cid, tag) = asked_for(&mut card, &mut io, 100);
    let host = io.clone();
    let lived = lives(&mut card, &mut admin, &io, |card, number| {
        card.send(host.index, &host.host_data(cid, tag, number as u32 * 4, false, &[1; 4]));
        card.run();
    });
    assert_eq!(lived, DATA_TIMEOUT);
    card.assert_clean();
}

#[test]
fn transfers_that_end_in_time_buy_nothing_for_one_that_does_not() {
    let mut card = Card::new();
    let (mut admin, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    let _stalled = asked_for(&mut card, &mut io, 100);
    let mut host = io.clone();
    let lived = lives(&mut card, &mut admin, &io, |card, _| {
        let (cid, tag) = asked_for(card, &mut host, 100);
        host.answer(card, cid, tag, &pattern(51_200, 1));
        card.run();
        host.replies(card);
    });
    assert_eq!(lived, DATA_TIMEOUT);
    card.assert_clean();
}

#[test]
fn a_window_that_is_shut_for_a_minute_is_endured_and_for_good_it_is_not() {
    let mut card = Card::new();
    let (mut admin, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    card.pipe(io.index).window = 100;
    io.start(&mut card, block_command(io::READ, 0, 100), &Payload::Read(51_200));
    card.run();
    for _ in 0..61 {
        second(&mut card, &mut admin);
    }
    assert!(card.is_open(io.index));
    card.pipe(io.index).window = 1 << 20;
    card.target.wake(io.index);
    card.run();
    assert_eq!(io.replies(&mut card).len(), 2);

    card.pipe(io.index).window = 100;
    io.start(&mut card, block_command(io::READ, 0, 100), &Payload::Read(51_200));
    card.run();
    assert_eq!(lives(&mut card, &mut admin, &io, |_, _| {}), SEND_TIMEOUT);
    card.assert_clean();
}

#[test]
fn taking_a_byte_a_second_is_no_progress() {
    let mut card = Card::new();
    let (mut admin, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    card.pipe(io.index).window = 100;
    io.start(&mut card, block_command(io::READ, 0, 100), &Payload::Read(51_200));
    card.run();
    let lived = lives(&mut card, &mut admin, &io, |card, _| {
        card.pipe(io.index).window += 1;
        card.target.wake(io.index);
        card.run();
    });
    assert_eq!(lived, SEND_TIMEOUT);
    card.assert_clean();
}

#[test]
fn one_address_has_so_many_connections_and_others_find_room() {
    let limits = Limits {
        connections: 16,
        slots: 600,
        data_pages_per_connection: 512,
        connections_per_address: 12,
        controllers_per_address: 12,
        ..UNLIMITED
    };
    let mut card = Card::with(limits, POOL_PAGES);
    card.peer = Some(address(1));
    let crowd: Vec<_> = (0..20).map_while(|_| card.open()).collect();
    assert_eq!((crowd.len(), card.target.counters().refused), (12, 1));
    card.peer = Some(address(2));
    Host::pair(&mut card, Digests::default(), |_| {});
    // Places that become free count no more.
    card.cut(crowd[0]);
    card.peer = Some(address(1));
    assert!(card.open().is_some());
    card.assert_clean();
}

#[test]
fn one_address_has_so_many_controllers_and_others_find_room() {
    let limits = Limits {
        connections: 16,
        slots: 600,
        data_pages_per_connection: 512,
        connections_per_address: 16,
        controllers_per_address: 3,
        ..UNLIMITED
    };
    let mut card = Card::with(limits, POOL_PAGES);
    card.peer = Some(address(1));
    let crowd: Vec<_> = (0..3).map(|_| Host::admin(&mut card, Digests::default())).collect();
    let mut late = Host::open(&mut card);
    late.initialize(&mut card);
    assert_eq!(late.connect(&mut card, 0, 0xffff).0, Status::CONNECT_CONTROLLER_BUSY);
    // Its I/O queues are not controllers.
    let mut io = Host::open(&mut card);
    io.initialize(&mut card);
    assert_eq!(io.connect(&mut card, 1, crowd[0].1).0, Status::SUCCESS);
    card.peer = Some(address(2));
    Host::admin(&mut card, Digests::default());
    card.peer = Some(address(1));
    card.cut(crowd[1].0.index);
    assert_eq!(late.connect(&mut card, 0, 0xffff).0, Status::SUCCESS);
    card.assert_clean();
}

/// Starts a write of so many blocks at block 0; its CID and TTAG once the R2T has come.
fn asked_for(card: &mut Card, io: &mut Host, blocks: u32) -> (u16, u16) {
    let data = pattern(blocks as usize * 512, 1);
    io.start(card, block_command(io::WRITE, 0, blocks), &Payload::Write(data));
    card.run();
    match io.replies(card)[..] {
        [Reply::ReadyToTransfer { cid, tag, .. }] => (cid, tag),
        ref other => panic!("{other:?}"),
    }
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}
