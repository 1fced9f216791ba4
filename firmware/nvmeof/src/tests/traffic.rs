//! A host that keeps to the rules gets what it asked for.

use std::time::Duration;

use hal_api::Instant;
use nvme::opcode::{admin, io};
use nvme::{Command, Status};
use zerocopy::IntoBytes;

use super::card::*;
use super::host::*;
use crate::pdu::Digests;
use crate::{Limits, SETUP_TIMEOUT};

const ALL_DIGESTS: [Digests; 4] = [
    Digests { header: false, data: false },
    Digests { header: true, data: false },
    Digests { header: false, data: true },
    Digests { header: true, data: true },
];

fn write_and_read(card: &mut Card, host: &mut Host, start: u64, blocks: u32, seed: u32) {
    let data = pattern(blocks as usize * 512, seed);
    let write = block_command(io::WRITE, start, blocks);
    let payload =
        if data.len() <= 8192 { Payload::InCapsule(data.clone()) } else { Payload::Write(data.clone()) };
    assert_eq!(host.execute(card, write, payload).0, Status::SUCCESS);
    let read = block_command(io::READ, start, blocks);
    let (status, _, back) = host.execute(card, read, Payload::Read(blocks * 512));
    assert_eq!(status, Status::SUCCESS);
    assert!(back == data, "{blocks} blocks at {start} came back changed");
}

#[test]
fn a_host_brings_up_a_controller_as_linux_does() {
    for digests in ALL_DIGESTS {
        let mut card = Card::new();
        let (mut host, cntlid) = Host::admin(&mut card, digests);
        assert_ne!(cntlid, 0xffff);
        let identify = admin_command(admin::IDENTIFY, 0, 1);
        let (status, _, data) = host.execute(&mut card, identify, Payload::Read(4096));
        assert_eq!((status, data.len()), (Status::SUCCESS, 4096));
        assert_eq!(&data[768..768 + NQN.len()], NQN.as_bytes());
        let queues = Command { cdw11: (3 | 3 << 16).into(), ..admin_command(admin::SET_FEATURES, 0, 7) };
        assert_eq!(host.execute(&mut card, queues, Payload::None).0, Status::SUCCESS);
        let wrong = host.execute(&mut card, admin_command(0x7d, 0, 0), Payload::None).0;
        assert_eq!(wrong.code(), Status::INVALID_OPCODE);
        card.assert_clean();
    }
}

#[test]
fn what_is_written_is_read_with_all_digests_and_sizes() {
    for digests in ALL_DIGESTS {
        let mut card = Card::new();
        let (_, mut host) = Host::pair(&mut card, digests, |_| {});
        for (turn, blocks) in [1, 8, 16, 17, 100, 256, 2048].into_iter().enumerate() {
            write_and_read(&mut card, &mut host, turn as u64 * 100, blocks, turn as u32);
        }
        let small = Payload::Write(pattern(512, 3));
        assert_eq!(host.execute(&mut card, block_command(io::WRITE, 5, 1), small).0, Status::SUCCESS);
        let same = Payload::InCapsule(pattern(512, 3));
        assert_eq!(host.execute(&mut card, block_command(io::COMPARE, 5, 1), same).0, Status::SUCCESS);
        let other = Payload::InCapsule(pattern(512, 4));
        let compare = host.execute(&mut card, block_command(io::COMPARE, 5, 1), other).0;
        assert_eq!(compare.code(), Status::COMPARE_FAILURE);
        card.assert_clean();
    }
}

#[test]
fn fragments_of_any_size_change_nothing() {
    for (fragment, window) in [(1, 1 << 20), (3, 7), (7, 1), (100, 100), (1447, 4096)] {
        let mut card = Card::new();
        let digests = Digests { header: true, data: true };
        let (_, mut host) = Host::pair(&mut card, digests, |_| {});
        card.pipe(host.index).fragment = fragment;
        for (turn, blocks) in [1, 16, 40].into_iter().enumerate() {
            let data = pattern(blocks * 512, 9);
            let payload =
                if blocks > 16 { Payload::Write(data.clone()) } else { Payload::InCapsule(data.clone()) };
            let write = block_command(io::WRITE, turn as u64 * 64, blocks as u32);
            assert_eq!(host.execute(&mut card, write, payload).0, Status::SUCCESS);
            // A narrow window: the host takes what is there again and again.
            let read = block_command(io::READ, turn as u64 * 64, blocks as u32);
            host.start(&mut card, read, &Payload::Read(blocks as u32 * 512));
            card.pipe(host.index).window = window;
            let mut replies = Vec::new();
            while replies.len() < 2 {
                card.run();
                assert!(!card.pipe(host.index).to_host.is_empty(), "the target has stopped");
                replies.extend(host.replies(&mut card));
            }
            card.pipe(host.index).window = 1 << 22;
            match &replies[..] {
                [Reply::Data { bytes, success: false, .. }, Reply::Response { status, .. }] => {
                    assert!(*bytes == data && *status == Status::SUCCESS);
                }
                other => panic!("{other:?}"),
            }
        }
        card.assert_clean();
    }
}

#[test]
fn alignment_asked_for_by_the_host_is_kept() {
    for alignment in [0, 1, 7, 31] {
        let mut card = Card::new();
        let digests = Digests { header: true, data: true };
        let (_, mut host) = Host::pair(&mut card, digests, |host| host.alignment = alignment);
        write_and_read(&mut card, &mut host, 0, 8, 1);
        card.assert_clean();
    }
}

#[test]
fn the_state_of_a_port_is_that_of_the_hosts_that_have_come_by_it() {
    use controller::{AnaState, PortId};
    let mut card = Card::new();
    card.port = PortId(2);
    let (_admin, mut host) = Host::pair(&mut card, Digests::default(), |_| {});
    card.subsystem.set_ana_state(PortId::FIRST, AnaState::Inaccessible);
    write_and_read(&mut card, &mut host, 0, 8, 1);
    card.subsystem.set_ana_state(PortId(2), AnaState::Inaccessible);
    let read = block_command(io::READ, 0, 8);
    let status = host.execute(&mut card, read, Payload::Read(8 * 512)).0;
    assert_eq!(status.code(), Status::ANA_INACCESSIBLE.code());
}

#[test]
fn success_without_a_capsule_only_where_flow_control_is_off() {
    for off in [false, true] {
        let mut card = Card::new();
        let (_, mut host) = Host::pair(&mut card, Digests::default(), |host| host.disable_flow_control = off);
        host.start(&mut card, block_command(io::READ, 0, 8), &Payload::Read(4096));
        card.run();
        match &host.replies(&mut card)[..] {
            [Reply::Data { success: true, .. }] => assert!(off),
            [Reply::Data { success: false, .. }, Reply::Response { sq_head: 2, .. }] => assert!(!off),
            other => panic!("{other:?}"),
        }
        card.assert_clean();
    }
}

#[test]
fn submission_queue_head_goes_round() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, Digests::default(), |host| host.sq_size = 3);
    let mut heads = Vec::new();
    for _ in 0..6 {
        host.start(&mut card, block_command(io::FLUSH, 0, 1), &Payload::None);
        card.run();
        match host.replies(&mut card)[..] {
            [Reply::Response { sq_head, .. }] => heads.push(sq_head),
            ref other => panic!("{other:?}"),
        }
    }
    assert_eq!(heads, [2, 3, 0, 1, 2, 3]);
    card.assert_clean();
}

#[test]
fn many_commands_complete_out_of_order_and_wait_for_a_busy_drive() {
    for (places, budget_bytes) in [(1000, 1 << 17), (3, 1 << 17), (3, 300)] {
        let mut card = Card::new();
        let (_, mut host) = Host::pair(&mut card, Digests::default(), |_| {});
        card.reverse = true;
        card.ram.places = places;
        card.budget_bytes = budget_bytes;
        let expected = card.ram.bytes.clone();
        for n in 0..31u64 {
            host.start(&mut card, block_command(io::READ, n * 8, 8), &Payload::Read(4096));
        }
        card.run();
        let replies = host.replies(&mut card);
        let mut seen = 0;
        for reply in &replies {
            if let Reply::Data { cid, bytes, .. } = reply {
                let at = (usize::from(*cid) - 1) * 4096;
                assert!(*bytes == expected[at..at + 4096]);
                seen += 1;
            }
        }
        assert_eq!((seen, replies.len()), (31, 62));
        card.assert_clean();
    }
}

#[test]
fn commands_that_find_no_pages_wait_without_stopping_the_stream() {
    // Two queues of 32 entries with 64 in-capsule pages each, and room for one and a half large transfers.
    let limits = Limits { connections: 4, slots: 100, data_pages_per_connection: 300, ..UNLIMITED };
    let mut card = Card::with(limits, 64 * 2 + 380);
    let (_, mut host) = Host::pair(&mut card, Digests::default(), |_| {});
    let data = pattern(1 << 20, 1);
    for n in 0..3 {
        host.start(&mut card, block_command(io::WRITE, n * 2048, 2048), &Payload::Write(data.clone()));
    }
    host.start(&mut card, block_command(io::FLUSH, 0, 1), &Payload::None);
    let mut done = 0;
    for _ in 0..20 {
        card.run();
        for reply in host.replies(&mut card) {
            match reply {
                Reply::ReadyToTransfer { cid, tag, .. } => host.answer(&mut card, cid, tag, &data),
                Reply::Response { cid, status, .. } => {
                    assert_eq!(status, Status::SUCCESS);
                    // The flush behind the waiting writes is first.
                    assert_eq!(done == 0, cid == 3 + host.cid - 3);
                    done += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(done, 4);
    card.assert_clean();
}

#[test]
fn connect_is_refused_when_slots_or_pages_are_short_and_nothing_is_lost() {
    for (slots, pages) in [(40, 1000), (500, 64 + 256 + 63)] {
        let mut card =
            Card::with(Limits { connections: 8, slots, data_pages_per_connection: 64, ..UNLIMITED }, pages);
        let (_admin, cntlid) = Host::admin(&mut card, Digests::default());
        let mut second = Host::open(&mut card);
        second.initialize(&mut card);
        let (status, ..) = second.connect(&mut card, 1, cntlid);
        assert_eq!(status, Status::CONNECT_CONTROLLER_BUSY);
        card.assert_clean();
    }
}

#[test]
fn async_events_park_and_come_home() {
    let mut card = Card::new();
    let (mut host, _) = Host::admin(&mut card, Digests::default());
    for _ in 0..4 {
        host.start(&mut card, admin_command(admin::ASYNC_EVENT_REQUEST, 0, 0), &Payload::None);
    }
    card.run();
    assert_eq!(host.replies(&mut card), []);
    let enable = Command { cdw11: 0x100.into(), ..admin_command(admin::SET_FEATURES, 0, 0x0b) };
    assert_eq!(host.execute(&mut card, enable, Payload::None).0, Status::SUCCESS);
    card.subsystem.detach(1);
    let now = card.now;
    card.tick_at(now);
    let replies = host.replies(&mut card);
    assert!(matches!(replies[..], [Reply::Response { status: Status::SUCCESS, .. }]), "{replies:?}");
    card.assert_clean();
}

#[test]
fn a_reset_closes_the_io_queues_and_keeps_the_admin_queue() {
    let mut card = Card::new();
    let (mut admin, io) = Host::pair(&mut card, Digests::default(), |_| {});
    assert_eq!(admin.execute(&mut card, property_set(0x14, 0), Payload::None).0, Status::SUCCESS);
    card.run();
    assert!(card.pipe(io.index).closed);
    assert!(card.is_open(admin.index));
    card.assert_clean();
}

#[test]
fn the_end_of_the_admin_queue_ends_the_association() {
    let mut card = Card::new();
    let (admin, io) = Host::pair(&mut card, Digests::default(), |_| {});
    card.cut(admin.index);
    card.run();
    assert!(card.pipe(io.index).aborted);
    card.assert_clean();
}

#[test]
fn keep_alive_expiry_closes_everything() {
    let mut card = Card::new();
    let (admin, io) = Host::pair(&mut card, Digests::default(), |_| {});
    card.tick_at(card.now + Duration::from_secs(60));
    assert!(card.pipe(io.index).aborted && card.pipe(admin.index).aborted);
    card.assert_clean();
}

#[test]
fn a_new_association_waits_for_the_old_ones_writes() {
    let mut card = Card::new();
    let (admin, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    card.ram.hold = true;
    io.start(&mut card, block_command(io::WRITE, 0, 8), &Payload::InCapsule(pattern(4096, 1)));
    io.start(&mut card, block_command(io::READ, 0, 8), &Payload::Read(4096));
    card.run();
    assert_eq!(card.ram.pending.len(), 2);
    card.cut(io.index);
    card.cut(admin.index);
    assert_eq!(card.target.counts().draining, 1);

    let other = Host { host_id: [8; 16], ..Host::open(&mut card) };
    let same = Host::open(&mut card);
    for host in [&other, &same] {
        host.initialize(&mut card);
        let pdu = host.connect_pdu(0, 0xffff);
        card.send(host.index, &pdu);
    }
    card.run();
    assert!(matches!(other.replies(&mut card)[..], [Reply::Response { status: Status::SUCCESS, .. }]));
    assert_eq!(same.replies(&mut card), []);
    // Not even the time-out of set-up ends the wait.
    card.tick_at(card.now + SETUP_TIMEOUT);
    assert_eq!(same.replies(&mut card), []);
    card.complete(0);
    card.run();
    assert!(matches!(same.replies(&mut card)[..], [Reply::Response { status: Status::SUCCESS, .. }]));
    card.assert_clean();
}

/// The host closes a connection behind what it has sent.
fn close(card: &mut Card, host: &Host) {
    card.target.peer_closed(host.index, card.now);
}

#[test]
fn what_came_before_an_orderly_close_is_dropped_once_the_host_begins_anew() {
    for unread in [1, 100] {
        let mut card = Card::new();
        let (admin, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
        card.ram.hold = true;
        let write = |block| block_command(io::WRITE, block, 8);
        io.start(&mut card, write(0), &Payload::InCapsule(pattern(4096, 1)));
        card.run();
        for index in 1..=unread {
            io.start(&mut card, write(index * 8), &Payload::InCapsule(pattern(4096, 1)));
        }
        let (back, other) = (Host::open(&mut card), Host { host_id: [8; 16], ..Host::open(&mut card) });
        for host in [&back, &other] {
            let mut first = host.icreq();
            first.extend(host.connect_pdu(0, 0xffff));
            card.send(host.index, &first);
        }
        close(&mut card, &io);
        close(&mut card, &admin);
        // Another host is not concerned, and lets them be carried out.
        card.poll(other.index);
        card.poll(back.index);
        assert_eq!(card.ram.pending.len(), 1);
        card.run();
        assert_eq!(card.ram.pending.len(), 1, "an old write has begun");
        assert!(!card.is_open(io.index) && !card.is_open(admin.index));
        assert!(matches!(back.replies(&mut card)[..], [Reply::Initialize { .. }]), "a write is at a drive");
        card.complete(0);
        card.run();
        let replies = back.replies(&mut card);
        assert!(matches!(replies[..], [Reply::Response { status: Status::SUCCESS, .. }]), "{replies:?}");
        card.assert_clean();
    }
}

#[test]
fn what_came_before_an_orderly_close_is_carried_out_while_nobody_else_is_concerned() {
    let mut card = Card::new();
    let (_, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    io.start(&mut card, block_command(io::WRITE, 0, 8), &Payload::InCapsule(pattern(4096, 1)));
    close(&mut card, &io);
    let other = Host { host_id: [8; 16], ..Host::open(&mut card) };
    other.initialize(&mut card);
    let pdu = other.connect_pdu(0, 0xffff);
    card.send(other.index, &pdu);
    card.run();
    assert!(card.ram.submitted == 1 && card.is_open(io.index));
    card.assert_clean();
}

#[test]
fn a_connection_that_is_closed_before_its_connect_is_read_becomes_no_queue() {
    let mut card = Card::new();
    let host = Host::open(&mut card);
    host.initialize(&mut card);
    let pdu = host.connect_pdu(0, 0xffff);
    card.send(host.index, &pdu);
    close(&mut card, &host);
    card.run();
    assert!(!card.is_open(host.index) && host.replies(&mut card).is_empty());
    card.assert_clean();
}

#[test]
fn a_connect_that_waited_and_was_refused_does_not_keep_its_connection_for_ever() {
    let mut card = Card::new();
    let (admin, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    card.ram.hold = true;
    io.start(&mut card, block_command(io::WRITE, 0, 8), &Payload::InCapsule(pattern(4096, 1)));
    card.run();
    card.cut(io.index);
    card.cut(admin.index);
    let same = Host::open(&mut card);
    same.initialize(&mut card);
    // There is no such controller.
    let pdu = same.connect_pdu(0, 77);
    card.send(same.index, &pdu);
    card.run();
    card.tick_at(card.now + SETUP_TIMEOUT);
    assert_eq!(same.replies(&mut card), []);
    card.complete(0);
    card.run();
    let replies = same.replies(&mut card);
    assert!(
        matches!(replies[..], [Reply::Response { status, .. }] if status != Status::SUCCESS),
        "{replies:?}"
    );
    assert!(card.is_open(same.index));
    card.tick_at(card.now + SETUP_TIMEOUT);
    assert!(card.pipe(same.index).aborted);
    card.assert_clean();
}

#[test]
fn quarantined_pages_leave_the_counts_whole() {
    let mut card = Card::new();
    let (_, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    card.ram.hold = true;
    io.start(&mut card, block_command(io::WRITE, 0, 8), &Payload::InCapsule(pattern(4096, 1)));
    io.start(&mut card, block_command(io::READ, 0, 8), &Payload::Read(4096));
    card.run();
    let mut quarantine = Vec::new();
    for _ in 0..2 {
        let mut request = card.ram.pending.remove(0);
        request.pages.detach_from_reservation();
        quarantine.push(request.pages);
        let status = Status::INTERNAL_PATH_ERROR;
        card.complete_with(controller::IoCompletion { token: request.token, status, pages: None });
    }
    card.run();
    assert_eq!(io.replies(&mut card).len(), 2);
    for pages in quarantine {
        card.pool.give_back(pages);
    }
    card.assert_clean();
    assert_eq!(card.pool.free() as usize, POOL_PAGES);
}

#[test]
fn deadlines_end_slow_connections() {
    // Nothing after the connection: aborted after the time for set-up; a thousand of them do no harm.
    let mut card = Card::new();
    for _ in 0..1000 {
        if card.open().is_none() {
            break;
        }
    }
    assert_eq!(card.target.counts().connections, 16);
    assert_eq!(card.target.next_deadline(), Instant::from_millis(11_000));
    card.tick_at(Instant::from_millis(11_000));
    assert_eq!(card.target.counts().connections, 0);

    // ICReq and no Connect.
    let host = Host::open(&mut card);
    host.initialize(&mut card);
    card.tick_at(card.now + SETUP_TIMEOUT);
    assert!(card.pipe(host.index).aborted);
    card.assert_clean();
}

#[test]
fn stalled_data_and_unread_responses_end_the_connection() {
    let mut card = Card::new();
    let (mut admin, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    io.start(&mut card, block_command(io::WRITE, 0, 100), &Payload::Write(pattern(51_200, 1)));
    card.run();
    for _ in 0..(crate::DATA_TIMEOUT.as_secs()) {
        assert!(card.is_open(io.index));
        card.tick_at(card.now + Duration::from_secs(1));
        let keep_alive = admin_command(admin::KEEP_ALIVE, 0, 0);
        assert_eq!(admin.execute(&mut card, keep_alive, Payload::None).0, Status::SUCCESS);
    }
    assert!(card.pipe(io.index).aborted);
    card.assert_clean();

    let (mut admin, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    card.pipe(io.index).window = 100;
    io.start(&mut card, block_command(io::READ, 0, 100), &Payload::Read(51_200));
    card.run();
    for _ in 0..(crate::SEND_TIMEOUT.as_secs()) {
        assert!(card.is_open(io.index));
        card.tick_at(card.now + Duration::from_secs(1));
        let keep_alive = admin_command(admin::KEEP_ALIVE, 0, 0);
        assert_eq!(admin.execute(&mut card, keep_alive, Payload::None).0, Status::SUCCESS);
    }
    assert!(card.pipe(io.index).aborted);
    card.assert_clean();
}

#[test]
fn disconnect_is_answered_and_then_closes_its_queue_alone() {
    let mut card = Card::new();
    let (admin, mut io) = Host::pair(&mut card, Digests::default(), |_| {});
    let kind = nvme::fabrics::kind::DISCONNECT;
    let disconnect = Command { nsid: u32::from(kind).into(), ..property_set(0, 0) };
    io.start(&mut card, disconnect, &Payload::None);
    card.run();
    assert!(matches!(io.replies(&mut card)[..], [Reply::Response { status: Status::SUCCESS, .. }]));
    assert!(card.pipe(io.index).closed);
    assert!(card.is_open(admin.index));
    card.assert_clean();
}

#[test]
fn a_termination_comes_after_the_pdu_that_is_being_sent() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, Digests { header: true, data: true }, |_| {});
    card.pipe(host.index).window = 1000;
    host.start(&mut card, block_command(io::READ, 0, 2048), &Payload::Read(1 << 20));
    card.run();
    card.send(host.index, &[0xff; 8]);
    let mut replies = Vec::new();
    while replies.len() < 2 {
        card.run();
        assert!(!card.pipe(host.index).to_host.is_empty(), "the target has stopped");
        replies.extend(host.replies(&mut card));
    }
    assert!(matches!(replies[..], [Reply::Data { .. }, Reply::Terminate { status: 1, .. }]));
    card.assert_clean();
}

#[test]
fn a_copy_brings_its_ranges_either_way_and_bad_ones_are_refused() {
    let mut card = Card::new();
    let (_, mut host) = Host::pair(&mut card, Digests { header: true, data: true }, |_| {});
    let list = |ranges: [(u64, u16); 2]| {
        let mut bytes = Vec::new();
        for (start, zero_based) in ranges {
            let mut range = nvme::CopyRange::default();
            range.start_block.set(start);
            range.blocks.set(zero_based);
            bytes.extend(range.as_bytes());
        }
        bytes
    };
    let source = [card.ram.bytes[512..3 * 512].to_vec(), card.ram.bytes[9 * 512..10 * 512].to_vec()].concat();
    for (to, payload) in [(100, Payload::Write as fn(_) -> _), (200, Payload::InCapsule)] {
        let copy = block_command(io::COPY, to, 2);
        let (status, ..) = host.execute(&mut card, copy, payload(list([(1, 1), (9, 0)])));
        assert_eq!(status, Status::SUCCESS);
        assert!(card.ram.bytes[to as usize * 512..][..3 * 512] == source);
        let (status, ..) = host.execute(&mut card, copy, payload(list([(1, 1), (BLOCKS, 0)])));
        assert_eq!(status.code(), Status::LBA_OUT_OF_RANGE);
    }
    let (status, ..) =
        host.execute(&mut card, block_command(io::COPY, 0, 17), Payload::Write(vec![0; 17 * 32]));
    assert_eq!(status.code(), Status::COMMAND_SIZE_LIMIT_EXCEEDED);
    card.assert_clean();
}
