//! What data cores tell an operator, while they serve hosts.

use app::Calls;
use hal_fakes::NvmeConfig;
use message::configuration::{ConfigurationChange, NamespaceReading, NamespaceState, SubsystemPlace};
use message::mailbox::{Controller, CoreAnswer, CoreCall, Drive, DriveState, Queue};
use nvme::opcode::io;

use crate::card::Card;
use crate::host::{Host, Payload, blocks};

const MEMORY: usize = 256 << 20;

pub fn ask(card: &mut Card, calls: &mut Calls, core: u8, call: CoreCall) -> CoreAnswer {
    let ticket = calls.ask(core, call).unwrap();
    let mut heard = None;
    card.run_until("the core answers", |_| {
        heard = heard.take().or_else(|| calls.hear());
        heard.is_some()
    });
    let reply = heard.unwrap();
    assert_eq!(reply.ticket, ticket);
    reply.result.unwrap()
}

fn drives(card: &mut Card, calls: &mut Calls, core: u8, first: u8) -> Vec<Drive> {
    match ask(card, calls, core, CoreCall::Drives { first }) {
        CoreAnswer::Drives(drives) => drives.into_iter().collect(),
        other => panic!("{other:?}"),
    }
}

fn namespaces(card: &mut Card, calls: &mut Calls, core: u8) -> Vec<NamespaceReading> {
    match ask(card, calls, core, CoreCall::Namespaces { first: 0 }) {
        CoreAnswer::Namespaces(namespaces) => namespaces.into_iter().collect(),
        other => panic!("{other:?}"),
    }
}

fn controllers(card: &mut Card, calls: &mut Calls, core: u8) -> Vec<Controller> {
    match ask(card, calls, core, CoreCall::Controllers { first: 0 }) {
        CoreAnswer::Controllers(controllers) => controllers.into_iter().collect(),
        other => panic!("{other:?}"),
    }
}

fn queues(card: &mut Card, calls: &mut Calls, core: u8) -> Vec<Queue> {
    match ask(card, calls, core, CoreCall::Queues { first: 0 }) {
        CoreAnswer::Queues(queues) => queues.into_iter().collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_core_tells_of_its_part_and_together_they_tell_of_the_card() {
    let mut card = Card::boot_cores(MEMORY, 3, 7, (0..5).map(|_| NvmeConfig::default()));
    let mut calls = card.add_calls();
    let mut host = Host::connect(&mut card, 1);
    let nsid = host.namespaces(&mut card)[0];
    let end = host.io.execute(&mut card, blocks(io::READ, nsid, 0, 8), Payload::Read(4096));
    assert_eq!(end.status, nvme::Status::SUCCESS);
    let (mut homes, mut commands, mut here, mut connections) = (Vec::new(), 0, Vec::new(), Vec::new());
    for core in 0..3 {
        let mut of_core = drives(&mut card, &mut calls, core, 0);
        assert!(of_core.len() < 5, "a page is not the whole list");
        of_core.extend(drives(&mut card, &mut calls, core, 3));
        assert!(of_core.iter().map(|drive| drive.number).eq(0..5));
        assert!(drives(&mut card, &mut calls, core, 5).is_empty());
        commands += of_core.iter().map(|drive| drive.counters.commands).sum::<u64>();
        homes.extend(of_core.into_iter().filter_map(|drive| Some((drive.number, drive.home?))));
        here.extend(controllers(&mut card, &mut calls, core));
        connections.extend(queues(&mut card, &mut calls, core));
    }
    assert_eq!(namespaces(&mut card, &mut calls, 0).len(), 5);
    homes.sort_by_key(|(number, _)| *number);
    assert!(homes.iter().map(|(number, _)| *number).eq(0..5), "each drive has one home");
    for (number, home) in &homes {
        assert_eq!(
            (home.serial.as_str(), home.state),
            (format!("DRIVE{number}").as_str(), DriveState::Ready)
        );
        assert!(home.queues == 3 && home.health.is_some_and(|health| health.temperature_k == 310));
    }
    assert!(commands >= 1, "the host's read");
    let [controller] = &here[..] else { panic!("{here:?}") };
    assert!(
        controller.is_ready && controller.subsystem == SubsystemPlace::DEFAULT && controller.io_queues == 1
    );
    let mut ids: Vec<_> = connections.iter().map(|queue| (queue.cntlid, queue.queue_id)).collect();
    ids.sort_unstable();
    assert_eq!(ids, [(Some(controller.cntlid), 0), (Some(controller.cntlid), 1)]);
}

fn at_drives(card: &Card) -> usize {
    (0..2).flat_map(|core| card.core(core).drives().iter()).map(drive::Drive::outstanding).sum()
}

#[test]
fn a_change_is_answered_when_nothing_is_left_of_how_it_was_before() {
    let mut card = Card::boot_cores(MEMORY, 2, 3, [NvmeConfig::default()]);
    let mut calls = card.add_calls();
    let mut host = Host::connect(&mut card, 1);
    let nsid = host.namespaces(&mut card)[0];
    let namespace = namespaces(&mut card, &mut calls, 0)[0].namespace;
    card.drives[0].reconfigure(|config| config.latency_polls = (3000, 3000));
    host.io.start(&mut card, blocks(io::WRITE, nsid, 0, 8), Payload::InCapsule(vec![1; 4096]));
    card.run_until("the write is at the drive", |card| at_drives(card) > 0);
    let detach = || CoreCall::Change(ConfigurationChange::DetachNamespace { namespace });
    assert_eq!(ask(&mut card, &mut calls, 1, detach()), CoreAnswer::Changed);
    calls.ask(0, detach()).unwrap();
    card.run_until("the write has ended", |card| {
        let is_there = at_drives(card) > 0;
        assert!(!is_there || calls.hear().is_none(), "answered while a write is at the drive");
        !is_there
    });
    card.run_until("the change is complete", |_| calls.hear().is_some());
    let state = namespaces(&mut card, &mut calls, 0)[0].state;
    assert_eq!(state, NamespaceState::Detached);
}
