//! The orderly end of a whole card, with hosts that have work under way.

use super::*;

#[test]
fn an_orderly_end_finishes_commands_and_leaves_nothing_in_caches() {
    let config = NvmeConfig { latency_polls: (0, 300), ..NvmeConfig::default() };
    let mut card = Card::boot(MEMORY, [config.clone(), config]);
    let mut host = Host::connect(&mut card, 1);
    let namespaces = by_drive(&mut card, &mut host);
    for index in 0..16u32 {
        let nsid = namespaces[index as usize % 2];
        let data = pattern(16384, index);
        host.io.start(&mut card, blocks(io::WRITE, nsid, u64::from(index) * 32, 32), Payload::Write(data));
    }
    let mut ended = Vec::new();
    card.run_until("writes are at the drives", |card| {
        ended.extend(host.io.ended(card));
        card.drives[0].io_commands(io::WRITE) == 8 && card.drives[1].io_commands(io::WRITE) == 8
    });
    card.begin_shutdown();
    // What comes now stays without an answer, and newcomers are refused.
    host.io.start(&mut card, blocks(io::READ, namespaces[0], 0, 8), Payload::Read(4096));
    let late = card.wire.connect();
    card.run_until("the card has ended", Card::is_shut_down);
    ended.extend(host.io.ended(&mut card));
    assert_eq!(ended.len(), 16);
    assert!(ended.iter().all(|end| end.status == Status::SUCCESS));
    assert!(card.wire.has_ended(host.io.socket) && card.wire.has_ended(host.admin.socket));
    assert!(!card.wire.is_open(late));
    for drive in &card.drives {
        assert_eq!(drive.io_commands(io::FLUSH), 1);
        assert_eq!(drive.configuration() >> 14 & 0b11, 1, "CC.SHN");
        assert!(!drive.bus_master());
    }
    let counts = card.counts();
    assert_eq!((counts.slots_free, counts.pages_promised, card.quarantined()), (counts.slots, 0, 0));
}

#[test]
fn an_orderly_end_does_not_wait_for_ever() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default(), NvmeConfig::default()]);
    let mut host = Host::connect(&mut card, 1);
    let namespaces = by_drive(&mut card, &mut host);
    hang(&card, 0, io::READ, 1);
    host.io.start(&mut card, blocks(io::READ, namespaces[0], 0, 8), Payload::Read(4096));
    card.run_until("it is at the drive", |card| card.drives[0].io_commands(io::READ) == 2);
    // A host that never sends its data.
    host.io.generous = false;
    host.io.start(&mut card, blocks(io::WRITE, namespaces[1], 0, 64), Payload::Write(pattern(32768, 1)));
    card.drives[0].set_shutdown_stuck(true);
    card.begin_shutdown();
    let began = card.now;
    card.run_until("the card has ended", Card::is_shut_down);
    assert!(card.now.since(began) <= app::SHUTDOWN_LIMIT, "{:?}", card.now.since(began));
    assert!(card.drives.iter().all(|drive| !drive.bus_master()));
    let counts = card.counts();
    assert_eq!((counts.connections, counts.draining, counts.slots_free), (0, 0, counts.slots));
}

fn flush(card: &mut Card, host: &mut Host, nsid: u32) -> Status {
    let mut flush = Command { opcode: io::FLUSH, ..Default::default() };
    flush.nsid.set(nsid);
    host.io.execute(card, flush, Payload::None).status
}

#[test]
fn a_drive_that_lost_its_cache_fails_the_next_flush_of_each_host_and_of_no_other_drive() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default(), NvmeConfig::default()]);
    let mut hosts = [Host::connect(&mut card, 1), Host::connect(&mut card, 2)];
    let gone = Host::connect(&mut card, 3);
    let namespaces = by_drive(&mut card, &mut hosts[0]);
    for &nsid in &namespaces {
        let data = Payload::InCapsule(pattern(4096, 1));
        let end = hosts[0].io.execute(&mut card, blocks(io::WRITE, nsid, 0, 8), data);
        assert_eq!(end.status, Status::SUCCESS);
    }
    gone.reset(&mut card);
    card.pass(Duration::from_millis(200));
    card.drives[0].lose_power();
    card.run_until("the drive has noticed", |card| !card.drive(0).is_ready());
    card.run_until("the drive is back", |card| card.drive(0).is_ready());
    let lost = Status::WRITE_FAULT.do_not_retry();
    let mut back = Host::connect(&mut card, 3);
    let mut new = Host::connect(&mut card, 4);
    for host in hosts.iter_mut().chain([&mut back]) {
        assert_eq!(flush(&mut card, host, namespaces[1]), Status::SUCCESS);
        assert_eq!(flush(&mut card, host, namespaces[0]), lost);
        assert_eq!(flush(&mut card, host, namespaces[0]), Status::SUCCESS);
    }
    assert_eq!(flush(&mut card, &mut new, namespaces[0]), Status::SUCCESS);
}

#[test]
fn a_hosts_own_shutdown_is_complete_when_caches_are_flushed() {
    let config = NvmeConfig { latency_polls: (500, 500), ..NvmeConfig::default() };
    let mut card = Card::boot(MEMORY, [config.clone(), config]);
    let mut host = Host::connect(&mut card, 1);
    let namespaces = by_drive(&mut card, &mut host);
    let write = blocks(io::WRITE, namespaces[1], 0, 8);
    let end = host.io.execute(&mut card, write, Payload::InCapsule(pattern(4096, 1)));
    assert_eq!(end.status, Status::SUCCESS);
    let shutdown = host.admin.execute(&mut card, property_set(0x14, 0x0046_4001), Payload::None);
    assert_eq!(shutdown.status, Status::SUCCESS);
    let mut states = Vec::new();
    while states.last() != Some(&0b10) {
        let end = host.admin.execute(&mut card, host::property_get(0x1c), Payload::None);
        assert_eq!(end.status, Status::SUCCESS);
        states.push(end.result >> 2 & 0b11);
    }
    assert_eq!(states[0], 0b01, "it takes the time of a flush");
    assert_eq!((card.drives[0].io_commands(io::FLUSH), card.drives[1].io_commands(io::FLUSH)), (0, 1));
    // A drive that is away holds up no shutdown.
    let mut other = Host::connect(&mut card, 2);
    card.drives[1].set_removed(true);
    card.pass(Duration::from_secs(2));
    other.admin.execute(&mut card, property_set(0x14, 0x0046_4001), Payload::None);
    card.pass(Duration::from_millis(100));
    let end = other.admin.execute(&mut card, host::property_get(0x1c), Payload::None);
    assert_eq!(end.result >> 2 & 0b11, 0b10);
}

#[test]
fn a_hosts_own_shutdown_waits_for_a_drive_that_is_being_reset() {
    let mut card = Card::boot(MEMORY, [NvmeConfig::default()]);
    let mut host = Host::connect(&mut card, 1);
    let nsid = by_drive(&mut card, &mut host)[0];
    let write = blocks(io::WRITE, nsid, 0, 8);
    let end = host.io.execute(&mut card, write, Payload::InCapsule(pattern(4096, 1)));
    assert_eq!(end.status, Status::SUCCESS);
    // It keeps its power, and so its cache.
    card.drives[0].set_link_down(true);
    card.pass(Duration::from_secs(2));
    host.admin.execute(&mut card, property_set(0x14, 0x0046_4001), Payload::None);
    card.pass(Duration::from_millis(500));
    let end = host.admin.execute(&mut card, host::property_get(0x1c), Payload::None);
    assert_eq!(end.result >> 2 & 0b11, 0b01, "writes may be in its cache");
    card.drives[0].set_link_down(false);
    card.pass(Duration::from_secs(6));
    let end = host.admin.execute(&mut card, host::property_get(0x1c), Payload::None);
    assert_eq!((end.result >> 2 & 0b11, card.drives[0].io_commands(io::FLUSH)), (0b10, 1));
}

#[test]
fn each_hosts_own_shutdown_has_the_time_that_it_was_promised() {
    // RTD3E says 12 s; a flush that hangs is given up after 10 s.
    let mut card = Card::boot(MEMORY, [NvmeConfig::default()]);
    let mut hosts = [Host::connect(&mut card, 1), Host::connect(&mut card, 2)];
    let nsid = by_drive(&mut card, &mut hosts[0])[0];
    for host in &mut hosts {
        let write = blocks(io::WRITE, nsid, 0, 8);
        let end = host.io.execute(&mut card, write, Payload::InCapsule(pattern(4096, 1)));
        assert_eq!(end.status, Status::SUCCESS);
    }
    hang(&card, 0, io::FLUSH, 1);
    let began = card.now;
    for host in &mut hosts {
        host.admin.execute(&mut card, property_set(0x14, 0x0046_4001), Payload::None);
        card.pass(Duration::from_secs(1));
    }
    let mut ended = [None; 2];
    while ended.contains(&None) && card.now.since(began) < Duration::from_secs(30) {
        card.pass(Duration::from_millis(200));
        for (host, ended) in hosts.iter_mut().zip(&mut ended) {
            let end = host.admin.execute(&mut card, host::property_get(0x1c), Payload::None);
            let is_complete = end.result >> 2 & 0b11 == 0b10;
            *ended = ended.or(is_complete.then_some(card.now.since(began)));
        }
    }
    let [first, second] = ended.map(|ended| ended.expect("complete"));
    assert!((Duration::from_secs(10)..Duration::from_secs(12)).contains(&first), "{first:?}");
    assert!((Duration::from_secs(11)..Duration::from_secs(13)).contains(&second), "{second:?}");
}
