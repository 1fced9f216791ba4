//! What data cores tell an operator, while they serve hosts.

use app::Calls;
use hal_fakes::NvmeConfig;
use message::mailbox::{Controller, CoreAnswer, CoreCall, Drive, DriveState, Namespace, Queue};
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

fn namespaces(card: &mut Card, calls: &mut Calls, core: u8) -> Vec<Namespace> {
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
        assert_eq!(namespaces(&mut card, &mut calls, core).len(), 5);
    }
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
    assert!(controller.is_ready && !controller.discovery && controller.io_queues == 1);
    let mut ids: Vec<_> = connections.iter().map(|queue| (queue.cntlid, queue.queue_id)).collect();
    ids.sort_unstable();
    assert_eq!(ids, [(Some(controller.cntlid), 0), (Some(controller.cntlid), 1)]);
}
