//! A card from end to end under a virtual clock: frames in, drives behind, hosts that speak NVMe/TCP by hand.
//!
//! What it proves is what hosts are promised: data comes back as it was written, every command ends, nothing is done
//! to one host's data by another's mishap, and pools are whole again afterwards.

mod calls;
mod card;
mod chaos;
mod configuration;
mod cost;
mod fused;
mod health;
mod host;
mod hostile;
mod limits;
mod many_cores;
mod meters;
mod narrow;
mod own_host;
mod plug;
mod ports;
mod shutdown;
mod wire;

use std::time::Duration;

use app::PoolCounts;
use hal_fakes::{NvmeConfig, NvmeEffect, NvmeInjection, NvmeNamespace};
use nvme::opcode::io;
use nvme::{Command, Status};

use card::Card;
use host::{Host, Payload, Queue, blocks, property_set};

const MEMORY: usize = 64 << 20;

fn pattern(bytes: usize, seed: u32) -> Vec<u8> {
    (0..bytes as u32).map(|i| (i.wrapping_add(seed).wrapping_mul(2_654_435_761) >> 23) as u8).collect()
}

fn hang(card: &Card, drive: usize, opcode: u8, count: u32) {
    let effect = NvmeEffect::Never;
    card.drives[drive].inject(NvmeInjection { queue: Some(1), opcode: Some(opcode), skip: 0, count, effect });
}

/// What the pools hold once all hosts have gone.
fn idle(card: &mut Card) -> PoolCounts {
    card.run_until("all connections are gone", |card| {
        let counts = card.counts();
        counts.connections == 0 && counts.draining == 0
    });
    card.counts()
}

/// The NSID of each drive, found by a mark on its first block.
fn by_drive(card: &mut Card, host: &mut Host) -> Vec<u32> {
    for (index, drive) in card.drives.iter().enumerate() {
        drive.write_disk(1, 0, &[index as u8 + 1]);
    }
    let mut found: Vec<(u8, u32)> = Vec::new();
    for nsid in host.namespaces(card) {
        let end = host.io.execute(card, blocks(io::READ, nsid, 0, 8), Payload::Read(4096));
        assert_eq!(end.status, Status::SUCCESS);
        found.push((end.data[0], nsid));
    }
    found.sort_unstable();
    found.into_iter().map(|(_, nsid)| nsid).collect()
}

#[test]
fn what_is_written_is_read_back_and_pools_are_whole_afterwards() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default(), NvmeConfig::default()]);
    let before = card.counts();
    let mut host = Host::connect(&mut card, 1);
    let namespaces = by_drive(&mut card, &mut host);
    assert_eq!(namespaces.len(), 2);
    for (index, &nsid) in namespaces.iter().enumerate() {
        for (count, start) in [(1, 5), (16, 100), (17, 200), (2048, 1001)] {
            let data = pattern(count as usize * 512, nsid + count);
            let payload =
                if count <= 16 { Payload::InCapsule(data.clone()) } else { Payload::Write(data.clone()) };
            let end = host.io.execute(&mut card, blocks(io::WRITE, nsid, start, count), payload);
            assert_eq!(end.status, Status::SUCCESS);
            let read = Payload::Read(count * 512);
            let end = host.io.execute(&mut card, blocks(io::READ, nsid, start, count), read);
            assert_eq!((end.status, end.data == data), (Status::SUCCESS, true), "{count} blocks");
            assert!(card.drives[index].read_disk(1, start as usize * 512, data.len()) == data);
        }
        let mut flush = Command { opcode: io::FLUSH, ..Default::default() };
        flush.nsid.set(nsid);
        assert_eq!(host.io.execute(&mut card, flush, Payload::None).status, Status::SUCCESS);
        assert_eq!(card.drives[index].io_commands(io::FLUSH), 1);
    }
    // An orderly shutdown: CC.SHN, then the host closes.
    let end = host.admin.execute(&mut card, property_set(0x14, 0x0046_4001), Payload::None);
    assert_eq!(end.status, Status::SUCCESS);
    host.reset(&mut card);
    assert_eq!(idle(&mut card), before);
}

#[test]
fn a_core_is_idle_only_when_pages_in_quarantine_are_back() {
    let mut card = Card::boot(MEMORY, [NvmeConfig { ready_polls: 40, ..NvmeConfig::default() }]);
    let before = card.counts();
    let mut host = Host::connect(&mut card, 1);
    let nsid = host.namespaces(&mut card)[0];
    hang(&card, 0, io::WRITE, 1);
    host.io.start(&mut card, blocks(io::WRITE, nsid, 0, 8), Payload::InCapsule(pattern(4096, 1)));
    card.run_until("the write is at the drive", |card| card.drive(0).outstanding() == 1);
    host.reset(&mut card);
    card.run_until("the reset has ended the request", |card| {
        let counts = card.counts();
        assert!(!card.is_idle());
        counts.connections == 0 && counts.draining == 0
    });
    assert_eq!((card.quarantined(), card.is_idle()), (1, false));
    card.run_until("the drive lets go", |card| card.quarantined() == 0);
    assert!(card.is_idle());
    assert_eq!(card.counts(), before);
}

#[test]
fn a_drive_that_hangs_is_answered_for_and_its_pages_come_back() {
    let mut card = Card::boot(MEMORY, [NvmeConfig { ready_polls: 40, ..NvmeConfig::default() }]);
    let before = card.counts();
    let mut host = Host::connect(&mut card, 1);
    let nsid = host.namespaces(&mut card)[0];
    let connected = card.counts();
    hang(&card, 0, io::WRITE, 3);
    hang(&card, 0, io::READ, 1);
    let began = card.now;
    // From the reservation, from the general class, and a read.
    host.io.start(&mut card, blocks(io::WRITE, nsid, 0, 16), Payload::InCapsule(pattern(8192, 1)));
    host.io.start(&mut card, blocks(io::WRITE, nsid, 64, 8), Payload::InCapsule(pattern(4096, 2)));
    host.io.start(&mut card, blocks(io::WRITE, nsid, 128, 64), Payload::Write(pattern(32768, 3)));
    host.io.start(&mut card, blocks(io::READ, nsid, 0, 8), Payload::Read(4096));
    let ended = host.io.wait(&mut card, 4);
    assert!(ended.iter().all(|end| end.status == Status::NAMESPACE_NOT_READY && end.data.is_empty()));
    assert!(card.now.since(began) < Duration::from_secs(22), "{:?}", card.now.since(began));
    assert_eq!(card.quarantined(), 4);
    assert_eq!(card.counts().pages_free, connected.pages_free - 2 - 1 - 8 - 1);
    card.run_until("the drive is back", |card| card.drive(0).is_ready());
    assert_eq!(card.quarantined(), 0);
    assert_eq!(card.counts(), connected);
    let data = pattern(8192, 9);
    let end = host.io.execute(&mut card, blocks(io::WRITE, nsid, 0, 16), Payload::InCapsule(data.clone()));
    assert_eq!(end.status, Status::SUCCESS);
    let end = host.io.execute(&mut card, blocks(io::READ, nsid, 0, 16), Payload::Read(8192));
    assert!(end.data == data);
    host.reset(&mut card);
    assert_eq!(idle(&mut card), before);
}

#[test]
fn a_drive_that_is_pulled_and_returns_keeps_its_names() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default(), NvmeConfig::default()]);
    let before = card.counts();
    let mut host = Host::connect(&mut card, 1);
    let namespaces = by_drive(&mut card, &mut host);
    card.drives[0].set_removed(true);
    host.io.start(&mut card, blocks(io::READ, namespaces[0], 0, 8), Payload::Read(4096));
    assert_eq!(host.io.wait(&mut card, 1)[0].status, Status::NAMESPACE_NOT_READY);
    // While it is away its namespace stays and refuses; its neighbour works.
    assert_eq!(host.namespaces(&mut card).len(), 2);
    let away = host.io.execute(&mut card, blocks(io::READ, namespaces[0], 0, 8), Payload::Read(4096));
    assert_eq!(away.status, Status::NAMESPACE_NOT_READY);
    let end = host.io.execute(&mut card, blocks(io::READ, namespaces[1], 0, 8), Payload::Read(4096));
    assert_eq!((end.status, end.data[0]), (Status::SUCCESS, 2));
    card.drives[0].set_removed(false);
    card.run_until("the drive is back", |card| card.drive(0).is_ready());
    let end = host.io.execute(&mut card, blocks(io::READ, namespaces[0], 0, 8), Payload::Read(4096));
    assert_eq!((end.status, end.data[0]), (Status::SUCCESS, 1));
    host.reset(&mut card);
    assert_eq!(idle(&mut card), before);
}

#[test]
fn data_that_comes_late_never_lands_on_another_drive_in_the_same_place() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default()]);
    let before = card.counts();
    let mut host = Host::connect(&mut card, 1);
    let old = host.namespaces(&mut card)[0];
    host.io.generous = false;
    let data = pattern(32768, 1);
    host.io.start(&mut card, blocks(io::WRITE, old, 0, 64), Payload::Write(data.clone()));
    // The R2T is held back while the drive makes way for another.
    let socket = host.io.socket;
    card.run_until("R2T comes", |card| card.wire.incoming(socket).len() >= 24);
    card.drives[0].set_removed(true);
    card.pass(Duration::from_secs(2));
    card.drives[0].reconfigure(|config| config.serial = "ANOTHER".into());
    card.drives[0].set_removed(false);
    card.run_until("the other drive is ready", |card| card.drive(0).is_ready());
    assert_ne!(host.namespaces(&mut card)[0], old);
    host.io.generous = true;
    let end = host.io.wait(&mut card, 1).remove(0);
    assert_eq!(end.status, Status::INVALID_NAMESPACE.do_not_retry());
    assert_eq!(card.drives[0].io_commands(io::WRITE), 0);
    host.reset(&mut card);
    assert_eq!(idle(&mut card), before);
}

#[test]
fn a_connection_reset_in_the_middle_of_writes_leaves_nothing_behind() {
    let config = NvmeConfig { latency_polls: (0, 300), ..NvmeConfig::default() };
    let mut card = Card::boot(MEMORY, [config]);
    let before = card.counts();
    for round in 0..30u32 {
        let mut host = Host::connect(&mut card, 1);
        let nsid = host.namespaces(&mut card)[0];
        for index in 0..16 {
            let data = pattern(65536, round + index);
            host.io.start(
                &mut card,
                blocks(io::WRITE, nsid, u64::from(index) * 128, 128),
                Payload::Write(data),
            );
            host.io.start(&mut card, blocks(io::READ, nsid, 0, 128), Payload::Read(65536));
        }
        for _ in 0..round * 8 {
            card.turn();
            host.io.ended(&mut card);
        }
        host.reset(&mut card);
        assert_eq!(idle(&mut card), before, "round {round}");
    }
}

#[test]
fn a_host_comes_back_only_after_its_old_writes_have_ended() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default()]);
    let before = card.counts();
    let mut host = Host::connect(&mut card, 1);
    let nsid = host.namespaces(&mut card)[0];
    hang(&card, 0, io::WRITE, 1);
    host.io.start(&mut card, blocks(io::WRITE, nsid, 0, 8), Payload::InCapsule(pattern(4096, 1)));
    card.run_until("the write is at the drive", |card| card.drives[0].io_commands(io::WRITE) == 1);
    host.reset(&mut card);
    let began = card.now;
    // Another host is not held up.
    let mut other = Host::connect(&mut card, 2);
    assert!(card.now.since(began) < Duration::from_secs(1));
    let mut again = Host::connect(&mut card, 1);
    let waited = card.now.since(began);
    assert!(waited > Duration::from_secs(15), "{waited:?}");
    let data = pattern(4096, 2);
    let end = again.io.execute(&mut card, blocks(io::WRITE, nsid, 0, 8), Payload::InCapsule(data.clone()));
    assert_eq!(end.status, Status::SUCCESS);
    let end = other.io.execute(&mut card, blocks(io::READ, nsid, 0, 8), Payload::Read(4096));
    assert!(end.data == data);
    again.reset(&mut card);
    other.reset(&mut card);
    assert_eq!(idle(&mut card), before);
}

#[test]
fn a_card_without_drives_serves_an_empty_subsystem() {
    let mut card = Card::boot(MEMORY, []);
    let before = card.counts();
    let mut host = Host::connect(&mut card, 1);
    assert_eq!(host.namespaces(&mut card), []);
    let end = host.io.execute(&mut card, blocks(io::READ, 1, 0, 8), Payload::Read(4096));
    assert_eq!(end.status, Status::INVALID_NAMESPACE.do_not_retry());
    host.reset(&mut card);
    assert_eq!(idle(&mut card), before);
}

#[test]
fn two_hosts_at_once_get_each_their_own_data() {
    let config = NvmeConfig { latency_polls: (0, 20), ..NvmeConfig::default() };
    let mut card = Card::boot(MEMORY, [config.clone(), config]);
    let before = card.counts();
    let mut hosts = [Host::connect(&mut card, 1), Host::connect(&mut card, 2)];
    let namespaces = by_drive(&mut card, &mut hosts[0]);
    for round in 0..4 {
        for (who, host) in hosts.iter_mut().enumerate() {
            for index in 0..16u32 {
                let data = pattern(16384, round * 100 + index * 3 + who as u32);
                let start = u64::from(index) * 64 + who as u64 * 4096;
                let nsid = namespaces[index as usize % 2];
                host.io.start(&mut card, blocks(io::WRITE, nsid, start, 32), Payload::Write(data));
            }
        }
        for host in &mut hosts {
            let ended = host.io.wait(&mut card, 16);
            assert!(ended.iter().all(|end| end.status == Status::SUCCESS));
        }
        for (who, host) in hosts.iter_mut().enumerate() {
            for index in 0..16u32 {
                let start = u64::from(index) * 64 + who as u64 * 4096;
                let nsid = namespaces[index as usize % 2];
                let end = host.io.execute(&mut card, blocks(io::READ, nsid, start, 32), Payload::Read(16384));
                assert!(end.data == pattern(16384, round * 100 + index * 3 + who as u32));
            }
        }
    }
    // One goes; the other does not notice.
    let [gone, mut left] = hosts;
    gone.reset(&mut card);
    let end = left.io.execute(&mut card, blocks(io::READ, namespaces[0], 0, 8), Payload::Read(4096));
    assert_eq!(end.status, Status::SUCCESS);
    left.reset(&mut card);
    assert_eq!(idle(&mut card), before);
}

#[test]
fn a_host_that_dies_silently_is_noticed() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default()]);
    let before = card.counts();
    let mut host = Host::connect(&mut card, 1);
    let nsid = host.namespaces(&mut card)[0];
    for index in 0..8 {
        host.io.start(&mut card, blocks(io::READ, nsid, index, 1024), Payload::Read(512 * 1024));
    }
    card.turn();
    card.wire.silence(host.io.socket);
    card.wire.silence(host.admin.socket);
    assert_eq!(idle(&mut card), before);
}

#[test]
fn a_queue_gets_no_more_than_its_share_of_a_turn() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default()]);
    let mut host = Host::connect(&mut card, 1);
    let nsid = host.namespaces(&mut card)[0];
    host.io.piece = 128;
    host.io.start(&mut card, blocks(io::WRITE, nsid, 0, 128), Payload::Write(pattern(65536, 1)));
    let mut most = 0;
    while host.io.ended(&mut card).is_empty() {
        most = most.max(card.turn());
    }
    // Frames in and out, PDUs in and out; all of the data would be 512 PDUs.
    assert!(most < 250, "{most} in one turn");
}

#[test]
fn a_drive_that_hangs_does_not_hold_up_commands_to_another() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default(), NvmeConfig::default()]);
    let mut hosts: Vec<Host> = (1..=10).map(|id| Host::connect(&mut card, id)).collect();
    let namespaces = by_drive(&mut card, &mut hosts[0]);
    hang(&card, 0, io::READ, u32::MAX);
    // More than the drive's table holds, so that the last ones wait for a place in it.
    for host in &mut hosts {
        for _ in 0..30 {
            host.io.start(&mut card, blocks(io::READ, namespaces[0], 0, 1), Payload::Read(512));
        }
    }
    card.pass(Duration::from_millis(100));
    assert!(card.drive(0).counters().busy > 0);
    let began = card.now;
    for host in &mut hosts {
        host.io.start(&mut card, blocks(io::READ, namespaces[1], 0, 1), Payload::Read(512));
        assert_eq!(host.io.wait(&mut card, 1)[0].status, Status::SUCCESS);
    }
    assert!(card.now.since(began) < Duration::from_secs(1));
}

#[test]
fn a_drive_that_dies_while_it_is_being_reset_keeps_nobody_waiting() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default()]);
    let mut host = Host::connect(&mut card, 1);
    let nsid = host.namespaces(&mut card)[0];
    let identify =
        NvmeInjection { queue: Some(0), opcode: Some(6), skip: 0, count: 1, effect: NvmeEffect::Never };
    card.drives[0].inject(identify);
    card.drives[0].set_fatal();
    card.run_until("the reset begins", |card| !card.drive(0).is_ready());
    host.io.start(&mut card, blocks(io::READ, nsid, 0, 1), Payload::Read(512));
    card.pass(Duration::from_millis(100));
    card.drives[0].set_fatal();
    let began = card.now;
    assert_eq!(host.io.wait(&mut card, 1)[0].status, Status::NAMESPACE_NOT_READY);
    assert!(card.now.since(began) < Duration::from_secs(2), "{:?}", card.now.since(began));
}

#[test]
fn an_idle_card_sleeps() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default(), NvmeConfig::default()]);
    card.pass(Duration::from_secs(1));
    let turns = card.sleep(Duration::from_secs(60));
    // Ten ticks a second for each of two timers, eleven turns for each.
    assert!(turns < 60 * 20 * 12, "{turns} turns");
    card.drives[1].set_removed(true);
    let turns = card.sleep(Duration::from_secs(60));
    assert!(turns < 60 * 20 * 12, "{turns} turns with a drive away");
}

#[test]
fn estimates_of_memory_hold_for_every_size_and_all_drives() {
    for mib in [24, 48, 100, 128, 512] {
        let many = NvmeNamespace::new(1, 64, 9);
        let config = NvmeConfig { namespaces: vec![many], ..NvmeConfig::default() };
        let mut card = Card::boot(mib << 20, vec![config; 16]);
        let mut host = Host::connect(&mut card, 1);
        assert_eq!(host.namespaces(&mut card).len(), 16, "{mib} MiB");
    }
}

#[test]
fn a_connection_that_says_nothing_is_ended() {
    let mut card = Card::boot(MEMORY, []);
    let before = card.counts();
    let queue = Queue::open(&mut card);
    card.run_until("the card ends it", |card| card.wire.has_ended(queue.socket));
    assert_eq!(idle(&mut card), before);
}
