//! Three data cores whose messages are carried by hand.

use message::Roster;
use nvme::registers::{Configuration, offset as register};
use nvme::{Command, opcode::io};
use std::boxed::Box;
use std::vec::Vec;

mod per_address;

use super::*;
use crate::association::{Connected, Origin, offset};
use crate::testing::{FakeBackend, HOST, NQN, connect_parts, namespace, property_get, property_set, read};
use crate::{ControllerSlot, HomeAnswer, Outcome, PortId, QueueContext, SubsystemConfig};

const CORES: usize = 3;
const READY: u64 = 1;

struct Card {
    cores: Vec<Subsystem>,
    now: Instant,
}

/// What the transport of an asking core keeps.
type Asked = (nvme::fabrics::ConnectCommand, nvme::fabrics::ConnectData);

impl Card {
    fn new() -> Self {
        let mut arena = Arena::leak_for_host(4 << 20);
        let meshes = Mesh::split(&mut arena, CORES).unwrap();
        let mut rosters = Roster::split(&mut arena, CORES, 4).unwrap().into_iter();
        let core = |mesh| {
            let config = SubsystemConfig::new(NQN.try_into().unwrap(), "PEN0001");
            let slots = Box::leak(Box::new([const { ControllerSlot::EMPTY }; 8]));
            let mut subsystem = Subsystem::new(config, slots);
            subsystem.join(Cores::new(mesh, rosters.next().unwrap(), &mut arena).unwrap());
            subsystem.attach(namespace(3)).unwrap();
            subsystem
        };
        Self { cores: meshes.into_iter().map(core).collect(), now: Instant::from_millis(1000) }
    }

    /// A controller at `core`, enabled; its admin queue and CNTLID.
    fn controller(&mut self, core: usize) -> (QueueContext, u16) {
        self.controller_of(core, None).unwrap()
    }

    /// One of a host of this address.
    fn controller_of(&mut self, core: usize, peer: Option<IpAddr>) -> Result<(QueueContext, u16), Failure> {
        let (command, data) = connect_parts(NQN, HOST, 0, 0xffff);
        let origin = Origin { port: PortId::FIRST, peer };
        let connected = self.cores[core].connect(self.now, origin, &command, &data)?;
        let admin = QueueContext { controller: connected.controller, queue_id: 0 };
        assert_eq!(self.set_cc(core, admin, Configuration::ENABLED), Outcome::done(0));
        Ok((admin, connected.cntlid))
    }

    fn set_cc(&mut self, core: usize, admin: QueueContext, cc: Configuration) -> Outcome {
        self.execute(core, admin, &property_set(register::CC, 4, cc.0))
    }

    fn status(&mut self, core: usize, admin: QueueContext) -> u64 {
        match self.execute(core, admin, &property_get(register::CSTS, 4)) {
            Outcome::Done { status, result } if status.is_success() => result,
            other => panic!("{other:?}"),
        }
    }

    fn execute(&mut self, core: usize, admin: QueueContext, command: &Command) -> Outcome {
        self.cores[core].execute(&admin, self.now, 0, command, &[])
    }

    fn hear(&mut self, core: usize) -> Option<Heard> {
        let now = self.now;
        let subsystem = &mut self.cores[core];
        let (from, message) = subsystem.take_message()?;
        Some(subsystem.heed(from, message, now))
    }

    /// Asks from `core` for a queue; home is not told yet.
    fn ask(&mut self, core: usize, cntlid: u16, queue_id: u16) -> (u32, Asked) {
        let (command, data) = connect_parts(NQN, HOST, queue_id, cntlid);
        match self.cores[core].ask_home(PortId::FIRST, &command, &data) {
            HomeAnswer::Asked(ticket) => (ticket, (command, data)),
            other => panic!("{other:?}"),
        }
    }

    fn connect_io(&mut self, core: usize, cntlid: u16, queue_id: u16) -> Result<Connected, Failure> {
        let (asked, (command, data)) = self.ask(core, cntlid, queue_id);
        let home = usize::from(self.cores[core].home_of(cntlid));
        while self.hear(home).is_some() {}
        match self.hear(core) {
            Some(Heard::Granted { home, grant }) => {
                assert_eq!(grant.ticket, asked);
                self.cores[core].adopt(home, &grant, self.now, PortId::FIRST, &command, &data)
            }
            Some(Heard::Refused { ticket, failure }) => {
                assert_eq!(ticket, asked);
                Err(failure)
            }
            other => panic!("{other:?}"),
        }
    }

    /// Takes up and confirms what `core` owes, as a transport without connections.
    fn settle(&mut self, core: usize) {
        self.cores[core].settle(|subsystem, owed| {
            if let Change::End { cntlid, reason } = owed.change {
                subsystem.end_delegate(cntlid, reason);
                subsystem.drop_delegate(cntlid);
            }
            true
        });
    }

    fn expect_change(&mut self, core: usize) {
        assert!(matches!(self.hear(core), Some(Heard::Change(_))));
    }

    fn queue(connected: &Connected) -> QueueContext {
        QueueContext { controller: connected.controller, queue_id: connected.queue_id }
    }

    fn assert_quiet(&mut self) {
        for core in &mut self.cores {
            assert!(!core.has_messages());
            assert_eq!((core.pending_changes(), core.mesh_faults()), ((0, 0), 0));
        }
    }
}

fn busy() -> Failure {
    Failure::of(Status::CONNECT_CONTROLLER_BUSY)
}

#[test]
fn an_id_tells_the_home_and_no_two_cores_give_the_same() {
    let mut card = Card::new();
    let mut seen = Vec::new();
    for _ in 0..4 {
        for core in 0..CORES {
            let (_, cntlid) = card.controller(core);
            assert_eq!(usize::from(card.cores[(core + 1) % CORES].home_of(cntlid)), core);
            assert!(!seen.contains(&cntlid));
            seen.push(cntlid);
        }
    }
    let (command, data) = connect_parts(NQN, HOST, 0, 0xffff);
    let full = card.cores[0].connect(card.now, Origin::by(PortId::FIRST), &command, &data);
    assert_eq!(full, Err(busy()), "the other places are for delegates");
}

#[test]
fn a_queue_is_granted_once_and_serves_io_where_it_was_adopted() {
    let mut card = Card::new();
    let (admin, cntlid) = card.controller(1);
    let first = card.connect_io(2, cntlid, 1).unwrap();
    assert_eq!((first.cntlid, first.queue_id, first.entries), (cntlid, 1, 32));
    let second = card.connect_io(2, cntlid, 2).unwrap();
    assert_eq!(second.controller, first.controller, "one delegate for all queues here");
    assert!(card.cores[2].admit(&Card::queue(&first), &read(3, 0, 1)).is_ok());
    assert!(card.cores[1].has_queues_elsewhere(admin.controller));
    let taken = Failure::of(Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
    assert_eq!(card.connect_io(0, cntlid, 1), Err(taken));
    card.cores[2].disconnect_queue(first.controller, 1);
    assert!(card.cores[2].admit(&Card::queue(&first), &read(3, 0, 1)).is_err());
    card.hear(1);
    assert!(card.connect_io(0, cntlid, 1).is_ok(), "its place may be used again");
    assert_eq!(card.cores[1].counters().live, 1);
    card.assert_quiet();
}

#[test]
fn a_core_keeps_nothing_of_controllers_whose_last_queue_has_gone() {
    let mut card = Card::new();
    for (turn, home) in (0..4).flat_map(|turn| [(turn, 0), (turn, 1)]) {
        let (_, cntlid) = card.controller(home);
        for queue_id in [1, 2] {
            let queue = card.connect_io(2, cntlid, queue_id).unwrap();
            card.cores[2].disconnect_queue(queue.controller, queue_id);
            assert!(!card.cores[2].is_live(queue.controller), "{turn}");
        }
        while card.hear(home).is_some() {}
    }
    // Four at home, and as many besides.
    let ids: Vec<u16> = (0..4).map(|_| card.controller(2).1).collect();
    assert_eq!(ids.len(), 4);
    card.assert_quiet();
}

#[test]
fn each_core_lists_the_controllers_of_all() {
    let mut card = Card::new();
    let mut ids: Vec<u16> = (0..CORES).map(|core| card.controller(core).1).collect();
    let (admin, first) = card.controller(1);
    card.connect_io(2, first, 1).unwrap();
    ids.push(first);
    ids.sort_unstable();
    let list = |card: &Card, core: usize, queue: QueueContext, from: u16| -> Vec<u16> {
        let cdw10 = u32::from(from) << 16 | u32::from(nvme::identify::cns::CONTROLLERS);
        let identify = crate::testing::admin_command(nvme::opcode::admin::IDENTIFY, 0, cdw10, 0);
        let mut page = [0; 4096];
        card.cores[core].fill(&queue, &identify, 0, &mut page, &FakeBackend::default());
        let numbers: Vec<u16> = page.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        numbers[1..=usize::from(numbers[0])].to_vec()
    };
    let (other, last) = card.controller(0);
    ids.push(last);
    ids.sort_unstable();
    assert_eq!(list(&card, 0, other, 0), ids);
    assert_eq!(list(&card, 1, admin, 0), ids);
    assert_eq!(list(&card, 1, admin, ids[2]), ids[2..]);
    card.cores[0].disconnect_queue(other.controller, 0);
    ids.retain(|id| *id != last);
    assert_eq!(list(&card, 1, admin, 0), ids);
}

#[test]
fn all_cores_give_the_discovery_log_the_generation_of_the_first() {
    let mut card = Card::new();
    let on = |last| crate::Listener {
        port_id: PortId::FIRST,
        address: core::net::Ipv4Addr::new(10, 0, 0, last).into(),
        port: 4420,
    };
    card.cores[0].set_listeners(&[on(1)]);
    card.cores[0].set_listeners(&[on(2)]);
    assert!(card.cores[0].tell_listening());
    for core in [1, 2] {
        let Some(Heard::Listening { generation }) = card.hear(core) else { panic!("not told") };
        card.cores[core].follow_listeners(&[on(2)], generation);
        assert_eq!(card.cores[core].discovery_generation(), card.cores[0].discovery_generation());
        assert_eq!(card.cores[core].listeners(), [on(2)]);
    }
}

#[test]
fn home_refuses_what_it_would_refuse_on_its_own_core() {
    let mut card = Card::new();
    let (admin, cntlid) = card.controller(1);
    assert_eq!(card.connect_io(0, cntlid + 3, 1), Err(Failure::in_data(offset::CONTROLLER_ID)));
    assert_eq!(card.connect_io(0, cntlid, 17), Err(Failure::in_command(offset::QUEUE_ID)));
    let wrong = |change: &dyn Fn(&mut Asked)| {
        let mut card = Card::new();
        let (_, cntlid) = card.controller(1);
        let (command, data) = connect_parts(NQN, HOST, 1, cntlid);
        let mut asked = (command, data);
        change(&mut asked);
        assert!(matches!(card.cores[0].ask_home(PortId::FIRST, &asked.0, &asked.1), HomeAnswer::Asked(_)));
        card.hear(1);
        match card.hear(0) {
            Some(Heard::Refused { failure, .. }) => failure,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(wrong(&|(_, data)| data.host_id[3] ^= 1), Failure::in_data(offset::HOST_ID));
    assert_eq!(wrong(&|(_, data)| data.host_nqn[HOST.len() - 1] ^= 1), Failure::in_data(offset::HOST_NQN));
    let (mut command, data) = connect_parts(NQN, HOST, 1, cntlid);
    command.sq_size.set(0);
    let refused = HomeAnswer::Refused(Failure::in_command(offset::SQ_SIZE));
    assert_eq!(card.cores[0].ask_home(PortId::FIRST, &command, &data), refused);
    card.set_cc(1, admin, Configuration::default());
    let not_ready = Failure::of(Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
    assert_eq!(card.connect_io(0, cntlid, 1), Err(not_ready));
    card.assert_quiet();
}

#[test]
fn a_core_asks_no_more_than_home_can_keep() {
    let mut card = Card::new();
    let (_, cntlid) = card.controller(1);
    for _ in 0..message::MAX_CONNECT_REQUESTS {
        card.ask(0, cntlid, 1);
    }
    let (command, data) = connect_parts(NQN, HOST, 1, cntlid);
    assert_eq!(card.cores[0].ask_home(PortId::FIRST, &command, &data), HomeAnswer::Busy);
    while card.hear(1).is_some() {}
    card.hear(0);
    assert!(matches!(card.cores[0].ask_home(PortId::FIRST, &command, &data), HomeAnswer::Asked(_)));
}

#[test]
fn a_reset_is_complete_when_all_cores_have_ended_the_queues() {
    let mut card = Card::new();
    let (admin, cntlid) = card.controller(0);
    let one = card.connect_io(1, cntlid, 1).unwrap();
    card.connect_io(2, cntlid, 2).unwrap();
    assert_eq!(card.set_cc(0, admin, Configuration::default()), Outcome::ControllerReset);
    assert_eq!(card.status(0, admin), READY, "not before the others have confirmed");
    card.expect_change(1);
    card.expect_change(2);
    assert_eq!(card.connect_io(2, cntlid, 3), Err(busy()));
    card.cores[1].end_delegate(cntlid, EndReason::Reset);
    assert!(card.cores[1].is_live(one.controller), "what is answered may still go out");
    assert!(card.cores[1].admit(&Card::queue(&one), &read(3, 0, 1)).is_err());
    card.settle(1);
    assert!(!card.cores[1].is_live(one.controller));
    assert_eq!(card.hear(0), Some(Heard::Nothing), "one core of two");
    assert_eq!(card.status(0, admin), READY);
    // The host does not wait: what it has enabled is ready only when the old queues have ended.
    card.set_cc(0, admin, Configuration::ENABLED);
    assert_eq!(card.connect_io(1, cntlid, 1), Err(busy()));
    card.settle(2);
    assert_eq!(card.hear(0), Some(Heard::Ended));
    assert_eq!(card.status(0, admin), READY);
    assert!(card.connect_io(1, cntlid, 2).is_ok());
    assert_eq!(card.set_cc(0, admin, Configuration::default()), Outcome::ControllerReset);
    card.expect_change(1);
    card.settle(1);
    assert_eq!((card.hear(0), card.status(0, admin)), (Some(Heard::Ended), 0));
    card.assert_quiet();
}

#[test]
fn a_shutdown_flushes_when_no_core_takes_writes_any_more() {
    let mut card = Card::new();
    let (admin, cntlid) = card.controller(0);
    card.connect_io(1, cntlid, 1).unwrap();
    card.set_cc(0, admin, Configuration::ENABLED.with_shutdown());
    let flush = crate::ShutdownFlush { ticket: 1, until: Instant::FAR_FUTURE };
    assert!(!card.cores[0].begin_shutdowns(flush));
    card.expect_change(1);
    card.settle(1);
    card.hear(0);
    assert!(card.cores[0].begin_shutdowns(flush));
    card.cores[0].complete_shutdowns(|_, given| given == flush);
    assert_eq!(card.status(0, admin), 0b1001);
}

#[test]
fn a_removed_controller_keeps_its_id_until_it_has_ended_everywhere() {
    let mut card = Card::new();
    let (admin, cntlid) = card.controller(0);
    let queue = card.connect_io(1, cntlid, 1).unwrap();
    card.cores[0].last_id = 0xffef;
    card.cores[0].disconnect_queue(admin.controller, 0);
    assert!(card.cores[0].has_pending_end([9; 16]) && !card.cores[0].is_live(admin.controller));
    let (_, next) = card.controller(0);
    assert_ne!(next, cntlid, "the same ID would be next");
    assert_eq!(card.connect_io(2, cntlid, 1), Err(busy()));
    card.expect_change(1);
    card.settle(1);
    assert!(!card.cores[1].is_live(queue.controller));
    assert_eq!(card.hear(0), Some(Heard::Ended));
    assert!(!card.cores[0].has_pending_end([9; 16]));
    assert_eq!(card.connect_io(2, cntlid, 1), Err(Failure::in_data(offset::CONTROLLER_ID)));
    card.assert_quiet();
}

#[test]
fn a_host_that_is_busy_elsewhere_is_alive_and_one_that_is_silent_ends_everywhere() {
    let mut card = Card::new();
    let (admin, cntlid) = card.controller(0);
    let queue = card.connect_io(1, cntlid, 1).unwrap();
    for _ in 0..10 {
        card.now = card.now + core::time::Duration::from_secs(4);
        for _ in 0..3 {
            card.cores[1].note_activity(queue.controller, card.now);
            card.cores[1].tick(card.now);
        }
        while card.hear(0).is_some() {}
        card.cores[0].tick(card.now);
        assert!(card.cores[0].is_live(admin.controller));
    }
    card.now = card.now + core::time::Duration::from_secs(6);
    card.cores[1].tick(card.now);
    card.cores[0].tick(card.now);
    assert!(!card.cores[0].is_live(admin.controller));
    card.expect_change(1);
    card.settle(1);
    assert_eq!(card.hear(0), Some(Heard::Ended));
    card.assert_quiet();
}

#[test]
fn errors_of_all_cores_stand_in_the_log_of_home() {
    let mut card = Card::new();
    let (admin, cntlid) = card.controller(0);
    let queue = card.connect_io(1, cntlid, 5).unwrap();
    for cid in 1..=100u16 {
        let mut command = read(3, 7, 1);
        command.cid.set(cid);
        card.cores[1].record_error(&Card::queue(&queue), &command, Status::LBA_OUT_OF_RANGE);
    }
    card.cores[1].send_messages();
    while card.hear(0).is_some() {
        card.cores[1].send_messages();
    }
    card.cores[1].tick(card.now);
    while card.hear(0).is_some() {}
    let log = &card.cores[0].controller(admin.controller).unwrap().errors;
    let newest = log.newest_first().next().unwrap();
    assert_eq!((log.count(), newest.cid.get(), newest.sq_id.get(), newest.nsid.get()), (100, 100, 5, 3));
    assert_eq!((newest.start_block.get(), newest.status.get() >> 1 & 0x7ff), (7, 0x80));
}

#[test]
fn a_loss_is_told_once_whichever_core_the_flush_comes_to() {
    let mut card = Card::new();
    let (admin, cntlid) = card.controller(0);
    let one = card.connect_io(1, cntlid, 1).unwrap();
    // Each core hears of it from the drive.
    card.cores.iter_mut().for_each(|core| core.note_lost_writes(3, card.now));
    // A queue that comes later hears of it too.
    let two = card.connect_io(2, cntlid, 2).unwrap();
    assert!(card.cores[1].take_lost_writes(one.controller, 3));
    assert!(!card.cores[1].take_lost_writes(one.controller, 3));
    card.hear(0);
    card.hear(2);
    assert!(!card.cores[0].take_lost_writes(admin.controller, 3));
    assert!(!card.cores[2].take_lost_writes(two.controller, 3));
    // A later loss is another one, even where the news of the first telling comes after it.
    card.cores[1].note_lost_writes(3, card.now);
    card.cores[2].note_lost_writes(3, card.now + core::time::Duration::from_millis(1));
    assert!(card.cores[1].take_lost_writes(one.controller, 3));
    card.hear(2);
    assert!(card.cores[2].take_lost_writes(two.controller, 3));
}

#[test]
fn a_core_that_hears_of_a_loss_after_a_host_was_told_of_it_does_not_tell_it_again() {
    let mut card = Card::new();
    let (_, cntlid) = card.controller(0);
    let one = card.connect_io(1, cntlid, 1).unwrap();
    let two = card.connect_io(2, cntlid, 2).unwrap();
    let (other, _) = card.controller(2);
    let found = card.now;
    card.cores[1].note_lost_writes(3, found);
    assert!(card.cores[1].take_lost_writes(one.controller, 3));
    card.hear(2);
    // What the drive says goes by other rings.
    card.cores[2].note_lost_writes(3, found);
    assert!(!card.cores[2].take_lost_writes(two.controller, 3));
    assert!(card.cores[2].take_lost_writes(other.controller, 3), "another controller");
    card.cores[2].note_lost_writes(3, card.now + core::time::Duration::from_millis(1));
    assert!(card.cores[2].take_lost_writes(two.controller, 3), "the next loss");
}

#[test]
fn a_fence_needs_each_core_and_brings_what_the_host_has_not_heard() {
    let mut card = Card::new();
    let host = [9; 16];
    let (gone, cntlid) = card.controller(1);
    // It has had an I/O queue, and may have written.
    let (command, data) = connect_parts(NQN, HOST, 1, cntlid);
    card.cores[1].connect(card.now, Origin::by(PortId::FIRST), &command, &data).unwrap();
    card.cores[1].disconnect_queue(gone.controller, 0);
    card.cores[1].note_lost_writes(3, card.now);
    let FenceStart::Begun(fence) = card.cores[0].begin_fence(host, None) else { panic!("no fence") };
    assert_eq!(card.cores[0].begin_fence(host, None), FenceStart::Busy, "one at a time for a host");
    assert!(matches!(card.cores[0].begin_fence([8; 16], None), FenceStart::Begun(_)));
    for core in [1, 2] {
        card.expect_change(core);
        card.expect_change(core);
    }
    card.settle(1);
    let mut inherited = LostList::default();
    for _ in 0..2 {
        let Some(Heard::Confirmed { number, lost, complete: false }) = card.hear(0) else { panic!("early") };
        if number == fence {
            inherited.merge(&lost);
        }
    }
    card.settle(2);
    for _ in 0..2 {
        assert!(matches!(card.hear(0), Some(Heard::Confirmed { complete: false, .. })));
    }
    // The core that fences has a look of its own to take.
    card.settle(0);
    assert!(matches!(card.hear(0), Some(Heard::Confirmed { number, complete: true, .. }) if number == fence));
    let (admin, _) = card.controller(0);
    card.cores[0].inherit_losses(admin.controller, &inherited, card.now);
    assert!(card.cores[0].take_lost_writes(admin.controller, 3));
    card.hear(1);
    assert!(card.cores[1].departed.of(host).list().iter().next().is_none(), "it has heard");
}

#[test]
fn a_namespace_goes_and_comes_on_all_cores() {
    let mut card = Card::new();
    assert!(card.cores[0].detach_everywhere(3));
    assert!(card.cores[0].namespaces().is_empty());
    for core in [1, 2] {
        card.expect_change(core);
        card.cores[core].settle(|subsystem, owed| match owed.change {
            Change::Detach { key, .. } => subsystem.detach(key),
            _ => false,
        });
        assert!(card.cores[core].namespaces().is_empty());
    }
    // The registrar's core takes part: what it has at a drive counts as well.
    card.cores[0].settle(|_, _| true);
    card.hear(0);
    card.hear(0);
    assert_eq!(card.hear(0), Some(Heard::Detached { key: 3 }));
    card.cores[0].tell_attached(&namespace(7));
    assert_eq!(card.hear(1), Some(Heard::Attach(namespace(7))));
}

#[test]
fn homes_of_drives_report_to_one_core_and_do_as_it_says() {
    let mut card = Card::new();
    assert!(card.cores[0].is_registrar() && !card.cores[2].is_registrar());
    card.cores[2].report_found(&namespace(7));
    let gone = BackendNamespace { drive: 5, nsid: nvme::NSID_ALL };
    card.cores[2].report_gone(gone);
    assert_eq!(card.hear(0), Some(Heard::Found(namespace(7))));
    assert_eq!(card.hear(0), Some(Heard::Gone(gone)));
    // The registrar's word goes above what a core has heard of drives.
    let moved = Namespace { backend: gone, blocks: 9, uuid: [9; 16], ..namespace(3) };
    assert_eq!(card.cores[2].replace(moved), Ok(()));
    let served = card.cores[2].namespaces().iter().find(|namespace| namespace.nsid == 3).unwrap();
    assert_eq!((served.backend, served.blocks), (gone, 9));
}

#[test]
fn confirmations_that_nobody_waits_for_complete_nothing() {
    let mut card = Card::new();
    let FenceStart::Begun(number) = card.cores[0].begin_fence([1; 16], None) else { panic!("no fence") };
    let confirm = Message::Confirm { number, lost: LostList::default() };
    let now = card.now;
    let mut hear = |from, message: &Message| card.cores[0].heed(from, message.clone(), now);
    assert!(matches!(hear(1, &confirm), Heard::Confirmed { complete: false, .. }));
    // Said twice, said by nobody, and said of a change that is still to come.
    assert_eq!(hear(1, &confirm), Heard::Nothing);
    assert_eq!(hear(7, &confirm), Heard::Nothing);
    let early = Message::Confirm { number: number + 1, lost: LostList::default() };
    assert_eq!(hear(2, &early), Heard::Nothing);
    assert!(matches!(hear(2, &confirm), Heard::Confirmed { complete: false, .. }));
    assert!(matches!(hear(0, &confirm), Heard::Confirmed { complete: true, .. }));
    assert_eq!(card.cores[0].mesh_faults(), 3);
}

#[test]
fn fused_pairs_are_claimed_and_taken_on_all_cores() {
    let mut card = Card::new();
    let (admin, cntlid) = card.controller(0);
    let mut identify = crate::testing::command(nvme::opcode::admin::IDENTIFY, 0);
    identify.cdw10.set(1);
    let mut page = [0; 4096];
    card.cores[0].fill(&admin, &identify, 0, &mut page, &FakeBackend::default());
    let field = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    // FUSES and ACWU.
    assert_eq!((field(522), field(532)), (1, 31));
    for core in [1, 2] {
        let queue = card.connect_io(core, cntlid, core as u16 + 1).unwrap();
        for (opcode, fuse) in [(io::COMPARE, 1), (io::WRITE, 2)] {
            let mut half = crate::testing::command(opcode, 3);
            half.flags |= fuse;
            assert!(card.cores[core].admit(&Card::queue(&queue), &half).is_ok());
        }
    }
}

#[test]
fn a_delegate_knows_flush() {
    let mut card = Card::new();
    let (_, cntlid) = card.controller(0);
    let queue = card.connect_io(1, cntlid, 1).unwrap();
    let mut flush = crate::testing::command(io::FLUSH, 3);
    assert!(card.cores[1].admit(&Card::queue(&queue), &flush).is_ok());
    flush.nsid.set(4);
    assert!(card.cores[1].admit(&Card::queue(&queue), &flush).is_err());
}
