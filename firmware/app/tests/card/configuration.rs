//! What an operator changes while hosts are connected: subsystems, who may connect, and where namespaces are. On one core and on
//! several, whose turns come in any order.

use message::configuration::{
    ChangeError, ConfigurationChange, Declared, DriveNamespace, NamespaceSetting, NamespaceState, PortAccess,
    SubsystemPlace, SubsystemSetting,
};
use nvme::opcode::admin;

use super::host::{NQN, host_nqn};
use super::many_cores::{Spread, all_idle};
use super::*;

mod races;

const OTHER: &str = "nqn.2014-08.org.example:other";
const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";
const UUID: [u8; 16] = *b"\x11\x22\x33\x44\x55\x66\x47\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x01";
/// Bits of Asynchronous Event Configuration, and what the events say.
const NAMESPACE_NOTICES: u32 = 1 << 8;
const ANA_NOTICES: u32 = 1 << 11;
const DISCOVERY_NOTICES: u32 = 1 << 31;
const NAMESPACES_CHANGED: u32 = 0x04_00_02;
const ANA_CHANGED: u32 = 0x0c_03_02;
const DISCOVERY_CHANGED: u32 = 0x70_f0_02;

fn create(nqn: &str) -> ConfigurationChange {
    let text = |text: &str| text.try_into().unwrap();
    ConfigurationChange::CreateSubsystem(SubsystemSetting {
        nqn: nqn.try_into().unwrap(),
        serial: text("SER1"),
        model: "A model".try_into().unwrap(),
        any_host: false,
    })
}

fn delete(nqn: &str) -> ConfigurationChange {
    ConfigurationChange::DeleteSubsystem { subsystem: nqn.try_into().unwrap() }
}

fn allow(nqn: &str, host: u8) -> ConfigurationChange {
    let host = host_nqn(host).as_str().try_into().unwrap();
    ConfigurationChange::AllowHost { subsystem: nqn.try_into().unwrap(), host }
}

fn disallow(nqn: &str, host: u8) -> ConfigurationChange {
    let host = host_nqn(host).as_str().try_into().unwrap();
    ConfigurationChange::DisallowHost { subsystem: nqn.try_into().unwrap(), host }
}

fn attach(namespace: DriveNamespace, nqn: &str, nsid: u32) -> ConfigurationChange {
    ConfigurationChange::AttachNamespace(NamespaceSetting {
        namespace,
        subsystem: nqn.try_into().unwrap(),
        nsid: Some(nsid),
        uuid: Some(UUID),
        nguid: None,
    })
}

fn detach(namespace: DriveNamespace) -> ConfigurationChange {
    ConfigurationChange::DetachNamespace { namespace }
}

fn boot(cores: usize) -> Card {
    let config = NvmeConfig { latency_polls: (0, 10), ..NvmeConfig::default() };
    let mut card = Card::boot_cores(96 << 20, cores, cores as u64, [config.clone(), config]);
    card.pass(Duration::from_millis(300));
    card
}

/// The namespace of each drive.
fn of_drives(card: &Card) -> Vec<DriveNamespace> {
    let mut all: Vec<_> = card.core(0).namespaces(0).into_iter().collect();
    all.sort_by_key(|reading| reading.drive);
    all.into_iter().map(|reading| reading.namespace).collect()
}

/// A card whose other subsystem has the namespace of drive 1 as NSID 1, for host 1.
fn with_other(cores: usize) -> (Card, DriveNamespace) {
    let mut card = boot(cores);
    let namespace = of_drives(&card)[1];
    for change in [create(OTHER), allow(OTHER, 1), detach(namespace), attach(namespace, OTHER, 1)] {
        assert_eq!(card.change(&change), Ok(()));
    }
    (card, namespace)
}

fn connect_status(card: &mut Card, id: u8, nqn: &str) -> (Status, u32) {
    let mut queue = Queue::open_to(card, nqn);
    queue.start_connect(card, id, 0, 0xffff);
    let end = queue.wait(card, 1).remove(0);
    card.wire.reset(queue.socket);
    (end.status, end.result)
}

fn identify(card: &mut Card, queue: &mut Queue, cns: u32, nsid: u32) -> (Status, Vec<u8>) {
    let mut identify = Command { opcode: admin::IDENTIFY, ..Default::default() };
    identify.cdw10.set(cns);
    identify.nsid.set(nsid);
    let end = queue.execute(card, identify, Payload::Read(4096));
    (end.status, end.data)
}

fn log_page(card: &mut Card, queue: &mut Queue, page: u32, bytes: u32) -> Vec<u8> {
    let mut get = Command { opcode: admin::GET_LOG_PAGE, ..Default::default() };
    get.cdw10.set(page | (bytes / 4 - 1) << 16);
    let end = queue.execute(card, get, Payload::Read(bytes));
    assert_eq!(end.status, Status::SUCCESS);
    end.data
}

/// Asks for events; the next command that ends may be one.
fn ask_for_events(card: &mut Card, queue: &mut Queue, notices: u32) {
    let mut set = Command { opcode: admin::SET_FEATURES, ..Default::default() };
    set.cdw10.set(0x0b);
    set.cdw11.set(notices);
    assert_eq!(queue.execute(card, set, Payload::None).status, Status::SUCCESS);
    let request = Command { opcode: admin::ASYNC_EVENT_REQUEST, ..Default::default() };
    queue.start(card, request, Payload::None);
}

fn write(card: &mut Card, queue: &mut Queue, nsid: u32, seed: u32) -> Status {
    let data = pattern(8 * 512, seed);
    queue.execute(card, blocks(io::WRITE, nsid, 0, 8), Payload::InCapsule(data)).status
}

fn first_bytes(card: &mut Card, queue: &mut Queue, nsid: u32) -> (Status, Vec<u8>) {
    let end = queue.execute(card, blocks(io::READ, nsid, 0, 8), Payload::Read(4096));
    (end.status, end.data)
}

#[test]
fn each_subsystem_has_its_names_and_its_namespaces() {
    let (mut card, _) = with_other(1);
    let mut one = Host::connect(&mut card, 1);
    let mut other = Host::connect_to(&mut card, 1, OTHER);
    let default = one.namespaces(&mut card);
    assert_eq!((default.len(), other.namespaces(&mut card)), (1, vec![1]));
    let page = identify(&mut card, &mut other.admin, 1, 0).1;
    assert_eq!((&page[4..24], &page[24..31]), (&b"SER1                "[..], &b"A model"[..]));
    assert_eq!(&page[768..768 + OTHER.len()], OTHER.as_bytes());
    let descriptors = identify(&mut card, &mut other.admin, 3, 1).1;
    assert_eq!((&descriptors[..2], &descriptors[4..20]), (&[3, 16][..], &UUID[..]));
    // What is one's is not the other's.
    assert_eq!(identify(&mut card, &mut one.admin, 3, 1).0, Status::INVALID_NAMESPACE.do_not_retry());
    assert_eq!(write(&mut card, &mut one.io, 1, 1), Status::INVALID_NAMESPACE.do_not_retry());
    assert_eq!(write(&mut card, &mut other.io, default[0], 1), Status::INVALID_NAMESPACE.do_not_retry());
    assert_eq!(write(&mut card, &mut other.io, 1, 5), Status::SUCCESS);
    assert_eq!(write(&mut card, &mut one.io, default[0], 6), Status::SUCCESS);
    assert!(card.drives[1].read_disk(1, 0, 4096) == pattern(4096, 5));
    assert!(card.drives[0].read_disk(1, 0, 4096) == pattern(4096, 6));
    let ana = log_page(&mut card, &mut other.admin, 0x0c, 56);
    assert_eq!((ana[20], &ana[48..52]), (1, &[1, 0, 0, 0][..]), "one namespace, NSID 1");
    // Controllers of a subsystem are those of that subsystem.
    let ids = identify(&mut card, &mut one.admin, 0x13, 0).1;
    let of_other = identify(&mut card, &mut other.admin, 0x13, 0).1;
    assert_eq!((ids[0], of_other[0]), (1, 1));
    assert_ne!(ids[2..4], of_other[2..4]);
}

#[test]
fn hosts_connect_where_they_may_and_nowhere_else() {
    let (mut card, _) = with_other(1);
    let (invalid_host, invalid_parameters) =
        (Status::CONNECT_INVALID_HOST.do_not_retry(), Status::CONNECT_INVALID_PARAMETERS.do_not_retry());
    assert_eq!(connect_status(&mut card, 2, OTHER), (invalid_host, 0));
    assert_eq!(connect_status(&mut card, 1, OTHER).0, Status::SUCCESS);
    // IATTR: in the data; IPO: 256, SUBNQN.
    let unknown = connect_status(&mut card, 1, "nqn.2014-08.org.example:unknown");
    assert_eq!(unknown, (invalid_parameters, 1 << 16 | 256));
    let closed = ConfigurationChange::SetAnyHost { subsystem: NQN.try_into().unwrap(), any_host: false };
    assert_eq!(card.change(&closed), Ok(()));
    assert_eq!(connect_status(&mut card, 1, NQN), (invalid_host, 0));
    assert_eq!(card.change(&allow(NQN, 2)), Ok(()));
    assert_eq!(connect_status(&mut card, 2, NQN).0, Status::SUCCESS);
    assert_eq!(card.change(&delete(OTHER)), Ok(()));
    assert_eq!(connect_status(&mut card, 1, OTHER), (invalid_parameters, 1 << 16 | 256));
}

/// NQNs of the discovery log of a host.
fn discovered(card: &mut Card, queue: &mut Queue) -> Vec<String> {
    let log = log_page(card, queue, 0x70, 16 << 10);
    let records = log[8] as usize;
    let nqn = |entry: &[u8]| String::from_utf8_lossy(&entry[256..512]).trim_end_matches('\0').to_string();
    log[1024..].chunks(1024).take(records).map(nqn).collect()
}

#[test]
fn discovery_lists_what_the_host_may_connect_to_and_tells_of_changes() {
    for cores in [1, 3] {
        let mut card = boot(cores);
        card.wire.next = cores - 1;
        let mut queues: Vec<_> = [1, 2]
            .into_iter()
            .map(|id| {
                let queue = Queue::open_to(&mut card, DISCOVERY);
                Spread::by(&mut card, id, queue).admin
            })
            .collect();
        for queue in &mut queues {
            assert_eq!(discovered(&mut card, queue), [NQN, DISCOVERY]);
            ask_for_events(&mut card, queue, DISCOVERY_NOTICES);
        }
        assert_eq!(card.change(&create(OTHER)), Ok(()));
        assert_eq!(card.change(&allow(OTHER, 1)), Ok(()));
        let [mut first, mut second] = <[Queue; 2]>::try_from(queues).ok().unwrap();
        assert_eq!(first.wait(&mut card, 1)[0].result, DISCOVERY_CHANGED);
        assert_eq!(discovered(&mut card, &mut first), [NQN, OTHER, DISCOVERY], "{cores} cores");
        assert_eq!(second.wait(&mut card, 1)[0].result, DISCOVERY_CHANGED);
        assert_eq!(discovered(&mut card, &mut second), [NQN, DISCOVERY]);
    }
}

#[test]
fn a_host_that_may_not_stay_is_cut_off_and_others_are_not() {
    for cores in [1, 3] {
        let (mut card, _) = with_other(cores);
        assert_eq!(card.change(&allow(OTHER, 2)), Ok(()));
        let before = card.all_counts();
        let hosts = [1, 2].map(|id| {
            let admin = Queue::open_to(&mut card, OTHER);
            let mut host = Spread::by(&mut card, id, admin);
            host.connect_io_by(&mut card, |queue| queue % cores);
            host
        });
        assert_eq!(card.change(&disallow(OTHER, 1)), Ok(()));
        let [gone, mut stays] = hosts;
        card.run_until("its connections end", |card| {
            gone.sockets().iter().all(|socket| card.wire.has_ended(*socket))
        });
        stays.write_and_read(&mut card, 1, 3);
        assert_eq!(card.change(&disallow(OTHER, 2)), Ok(()));
        assert_eq!(all_idle(&mut card), before, "{cores} cores");
    }
}

/// What issue 5 asks for: 100 times, while a host does I/O.
#[test]
fn a_subsystem_comes_and_goes_100_times_under_a_host_and_leaves_nothing() {
    for cores in [1, 3] {
        let mut card = boot(cores);
        let namespace = of_drives(&card)[1];
        assert_eq!(card.change(&detach(namespace)), Ok(()));
        let before = card.all_counts();
        for round in 0..100u32 {
            for change in [create(OTHER), allow(OTHER, 1), attach(namespace, OTHER, 1)] {
                assert_eq!(card.change(&change), Ok(()), "round {round}");
            }
            let readings = card.core(0).subsystems(SubsystemPlace::DEFAULT);
            assert_eq!(
                (readings.len(), readings[1].place, readings[1].allowed_hosts),
                (2, SubsystemPlace(1), 1)
            );
            card.wire.next = round as usize % cores;
            let admin = Queue::open_to(&mut card, OTHER);
            let mut host = Spread::by(&mut card, 1, admin);
            assert_eq!(host.namespaces(&mut card), [1], "round {round}");
            if round > 0 {
                host.connect_io_by(&mut card, |queue| queue % cores);
                // What was acknowledged before is there; nothing else ever comes to be there.
                let (status, data) = first_bytes(&mut card, &mut host.io[0], 1);
                assert!((status, data) == (Status::SUCCESS, pattern(4096, round - 1)), "round {round}");
            } else {
                host.connect_io_by(&mut card, |queue| queue % cores);
            }
            assert_eq!(write(&mut card, &mut host.io[1], 1, round), Status::SUCCESS);
            for (index, queue) in (1u64..).zip(&mut host.io) {
                let data = pattern(40 * 512, round);
                queue.start(&mut card, blocks(io::WRITE, 1, index * 64, 40), Payload::Write(data));
                queue.start(&mut card, blocks(io::READ, 1, index * 64, 40), Payload::Read(40 * 512));
            }
            (0..round % 40).for_each(|_| _ = card.turn());
            for queue in &mut host.io {
                let ended = queue.ended(&mut card);
                assert!(ended.iter().all(|end| end.status == Status::SUCCESS), "{ended:?}");
            }
            assert_eq!(card.change(&delete(OTHER)), Ok(()), "round {round}");
            card.run_until("its connections end", |card| {
                host.sockets().iter().all(|socket| card.wire.has_ended(*socket))
            });
        }
        assert_eq!(all_idle(&mut card), before, "{cores} cores");
        assert_eq!(card.core(0).subsystems(SubsystemPlace::DEFAULT).len(), 1);
        assert!(card.core(0).allowed_hosts(SubsystemPlace(1), 0).is_empty());
    }
}

#[test]
fn a_deletion_waits_for_writes_at_a_slow_drive_and_none_lands_later() {
    for cores in [1, 2] {
        let (mut card, namespace) = with_other(cores);
        let before = card.all_counts();
        card.wire.next = 0;
        let admin = Queue::open_to(&mut card, OTHER);
        let mut host = Spread::by(&mut card, 1, admin);
        host.connect_io_by(&mut card, |queue| queue % cores);
        card.drives[1].reconfigure(|config| config.latency_polls = (3000, 3000));
        for queue in &mut host.io {
            queue.start(&mut card, blocks(io::WRITE, 1, 0, 8), Payload::InCapsule(pattern(4096, 9)));
        }
        let at_drive = |card: &Card| {
            let of_core = |core| card.core(core).drives().get(1).map_or(0, drive::Drive::outstanding);
            (0..cores).map(of_core).sum::<usize>()
        };
        card.run_until("they are at the drive", |card| at_drive(card) == 8);
        let tickets: Vec<_> =
            (0..cores).rev().map(|core| (core, card.begin_change(core, &delete(OTHER)).unwrap())).collect();
        // The controller lives on the first core, which waits for the others too.
        assert!(!card.change_done(0, tickets[cores - 1].1), "writes are at the drive");
        assert_eq!(card.begin_change(0, &create(OTHER)), Err(ChangeError::Busy));
        card.run_until("it is deleted", |card| {
            tickets.iter().all(|&(core, ticket)| card.change_done(core, ticket))
        });
        // From here on nothing of the old one lands.
        assert_eq!(at_drive(&card), 0);
        card.drives[1].reconfigure(|config| config.latency_polls = (0, 10));
        card.drives[1].write_disk(1, 0, &[0x77; 4096]);
        for change in [create(OTHER), allow(OTHER, 1), attach(namespace, OTHER, 1)] {
            assert_eq!(card.change(&change), Ok(()));
        }
        let mut host = Host::connect_to(&mut card, 1, OTHER);
        card.pass(Duration::from_secs(2));
        assert_eq!(first_bytes(&mut card, &mut host.io, 1), (Status::SUCCESS, vec![0x77; 4096]));
        host.reset(&mut card);
        assert_eq!(all_idle(&mut card), before, "{cores} cores");
    }
}

#[test]
fn a_namespace_that_is_detached_ends_its_commands_and_one_that_waits_is_not_carried_out_later() {
    for cores in [1, 2] {
        let (mut card, namespace) = with_other(cores);
        let mut host = Host::connect_to(&mut card, 1, OTHER);
        ask_for_events(&mut card, &mut host.admin, NAMESPACE_NOTICES);
        card.drives[1].write_disk(1, 0, &[0x55; 4096]);
        // Its data comes only after the namespace has gone and come again.
        host.io.generous = false;
        host.io.start(&mut card, blocks(io::WRITE, 1, 0, 64), Payload::Write(pattern(64 * 512, 1)));
        card.run_until("the card asks for its data", |card| card.wire.incoming(host.io.socket).len() >= 24);
        assert_eq!(card.change(&detach(namespace)), Ok(()));
        assert_eq!(host.admin.wait(&mut card, 1)[0].result, NAMESPACES_CHANGED);
        let changed = log_page(&mut card, &mut host.admin, 4, 4096);
        assert_eq!(changed[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(card.change(&attach(namespace, OTHER, 1)), Ok(()));
        host.io.generous = true;
        let end = host.io.wait(&mut card, 1).remove(0);
        assert_eq!(end.status, Status::INVALID_NAMESPACE.do_not_retry());
        assert_eq!(first_bytes(&mut card, &mut host.io, 1), (Status::SUCCESS, vec![0x55; 4096]));
        assert_eq!(host.namespaces(&mut card), [1]);
    }
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let (mut card, namespace) = with_other(1);
    let first = of_drives(&card)[0];
    let readings = |card: &Card| (card.core(0).subsystems(SubsystemPlace(0)), card.core(0).namespaces(0));
    let before = readings(&card);
    let mut zero = attach(first, OTHER, 0);
    assert_eq!(card.change(&zero), Err(ChangeError::InvalidNamespace));
    if let ConfigurationChange::AttachNamespace(setting) = &mut zero {
        (setting.nsid, setting.uuid) = (Some(1 << 20), None);
    }
    assert_eq!(card.change(&zero), Err(ChangeError::InvalidNamespace));
    assert_eq!(card.change(&attach(first, OTHER, 2)), Err(ChangeError::AttachedOtherwise));
    assert_eq!(card.change(&attach(namespace, OTHER, 2)), Err(ChangeError::AttachedOtherwise));
    assert_eq!(card.change(&attach([9; 16], OTHER, 1)), Err(ChangeError::NsidTaken));
    assert_eq!(card.change(&attach([9; 16], OTHER, 2)), Err(ChangeError::NameTaken));
    assert_eq!(card.change(&attach(first, "nqn.none", 2)), Err(ChangeError::NoSuchSubsystem));
    assert_eq!(card.change(&allow("nqn.none", 2)), Err(ChangeError::NoSuchSubsystem));
    let release = ConfigurationChange::ReleaseNamespace { namespace };
    assert_eq!(card.change(&release), Err(ChangeError::IsAttached));
    assert_eq!(card.change(&delete(NQN)), Err(ChangeError::IsDefault));
    let mut otherwise = create(OTHER);
    if let ConfigurationChange::CreateSubsystem(setting) = &mut otherwise {
        setting.any_host = true;
    }
    assert_eq!(card.change(&otherwise), Err(ChangeError::SubsystemExists));
    let port = ConfigurationChange::SetPortAccess { port: 2, access: PortAccess::Inaccessible };
    assert_eq!(card.change(&port), Err(ChangeError::NoSuchPort));
    assert_eq!(readings(&card), before);
    // What is so already is no error.
    for change in [create(OTHER), allow(OTHER, 1), attach(namespace, OTHER, 1), delete("nqn.none")] {
        assert_eq!(card.change(&change), Ok(()));
    }
    assert_eq!(readings(&card), before);
}

#[test]
fn what_is_declared_of_a_namespace_waits_for_its_drive() {
    let mut card = boot(1);
    let absent = [0xab; 16];
    let automatic = |automatic| ConfigurationChange::SetAutomatic { automatic };
    for change in [create(OTHER), attach(absent, OTHER, 7), automatic(false)] {
        assert_eq!(card.change(&change), Ok(()));
    }
    let all = card.core(0).namespaces(0);
    let states: Vec<_> = all.iter().map(|reading| (reading.state, reading.declared)).collect();
    let there = Declared::Attached(SubsystemPlace(1));
    let detached = (NamespaceState::Detached, Declared::Nothing);
    assert_eq!(states, [detached, detached, (NamespaceState::Missing, there)]);
    assert_eq!(all[2].nsid, Some(7));
    assert!(Host::connect(&mut card, 1).namespaces(&mut card).is_empty());
    assert_eq!(card.change(&automatic(true)), Ok(()));
    assert_eq!(Host::connect(&mut card, 2).namespaces(&mut card).len(), 2);
}

#[test]
fn a_drive_that_comes_late_is_where_it_was_declared_to_be() {
    let mut card = boot(1);
    let hands = card.add_slots();
    // What the spare will be called is known from what a drive of the same kind was called.
    let (drive, _control) = card.spares.pop().unwrap();
    hands.insert(2, drive);
    card.run_until("it is known", |card| card.core(0).namespaces(0).len() == 3);
    let namespace = card.core(0).namespaces(2)[0].namespace;
    hands.press_button(2);
    let mut drive = None;
    card.run_until("its slot is off", |_| {
        if !hands.has_power(2) {
            drive = hands.take_out(2);
        }
        drive.is_some()
    });
    for change in [create(OTHER), allow(OTHER, 1), attach(namespace, OTHER, 3)] {
        assert_eq!(card.change(&change), Ok(()));
    }
    let mut host = Host::connect_to(&mut card, 1, OTHER);
    assert!(host.namespaces(&mut card).is_empty());
    ask_for_events(&mut card, &mut host.admin, NAMESPACE_NOTICES);
    hands.insert(2, drive.unwrap());
    assert_eq!(host.admin.wait(&mut card, 1)[0].result, NAMESPACES_CHANGED);
    assert_eq!(host.namespaces(&mut card), [3]);
    assert_eq!(write(&mut card, &mut host.io, 3, 1), Status::SUCCESS);
}

#[test]
fn a_ports_ana_state_changes_on_all_cores() {
    for cores in [1, 3] {
        let mut card = Card::boot_ports_and_cores(96 << 20, cores, 5, [NvmeConfig::default()]);
        card.pass(Duration::from_millis(300));
        card.wire.next = 0;
        let mut host = Host::connect(&mut card, 1);
        let nsid = host.namespaces(&mut card)[0];
        ask_for_events(&mut card, &mut host.admin, ANA_NOTICES);
        let set = |access| ConfigurationChange::SetPortAccess { port: 1, access };
        assert_eq!(card.change(&set(PortAccess::Inaccessible)), Ok(()));
        assert_eq!(host.admin.wait(&mut card, 1)[0].result, ANA_CHANGED);
        assert_eq!(write(&mut card, &mut host.io, nsid, 1), Status::ANA_INACCESSIBLE);
        card.wire.next = 1;
        let mut by_other_port = Host::connect(&mut card, 2);
        assert_eq!(write(&mut card, &mut by_other_port.io, nsid, 1), Status::SUCCESS);
        assert_eq!(card.change(&set(PortAccess::Optimized)), Ok(()));
        assert_eq!(write(&mut card, &mut host.io, nsid, 1), Status::SUCCESS);
    }
}

#[test]
fn a_port_that_hosts_cannot_connect_by_has_no_connections_and_is_not_listed() {
    let mut card = Card::boot_ports(MEMORY, [NvmeConfig::default()]);
    card.pass(Duration::from_millis(300));
    let [first, mut second] = [0, 1].map(|port| {
        card.wire.next = port;
        Host::connect(&mut card, 1 + port as u8)
    });
    let set = |enabled| ConfigurationChange::SetListener { port: 1, enabled };
    assert_eq!(card.change(&set(false)), Ok(()));
    card.run_until("its connections end", |card| {
        [first.admin.socket, first.io.socket].iter().all(|socket| card.wire.has_ended(*socket))
    });
    let nsid = second.namespaces(&mut card)[0];
    assert_eq!(write(&mut card, &mut second.io, nsid, 1), Status::SUCCESS);
    card.wire.next = 0;
    let refused = card.wire.connect();
    card.run_until("it is refused", |card| card.wire.has_ended(refused));
    card.wire.next = 1;
    let discovery = Queue::open_to(&mut card, DISCOVERY);
    let mut discovery = Spread::by(&mut card, 3, discovery).admin;
    assert_eq!(discovered(&mut card, &mut discovery), [NQN, DISCOVERY]);
    assert_eq!(card.change(&set(true)), Ok(()));
    card.wire.next = 0;
    Host::connect(&mut card, 4);
    assert_eq!(discovered(&mut card, &mut discovery).len(), 4);
}
