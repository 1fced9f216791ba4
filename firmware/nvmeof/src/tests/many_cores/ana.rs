//! ANA states of a port on several data cores.

use controller::{AnaStart, AnaState, PortId};
use nvme::log_page::{AnaGroup, AnaHeader, id};
use nvme::opcode::admin;
use zerocopy::FromBytes;

use super::super::host::admin_command;
use super::*;

const ANA_EVENTS: u32 = 1 << 11;
/// Notice, ANA change, log page 0Ch.
const ANA_EVENT: u64 = 0x000c_0302;

/// The state of the group and the change count, as this controller's log page has them.
fn log(many: &mut Many, admin: &mut Queue) -> (u8, u64) {
    let read = admin_command(admin::GET_LOG_PAGE, 0, u32::from(id::ANA) | 11 << 16);
    let card = &mut many.cores[admin.core];
    let (status, _, data) = admin.host.execute(card, read, Payload::Read(48));
    assert_eq!(status, Status::SUCCESS);
    let (_, rest) = AnaHeader::read_from_prefix(&data).unwrap();
    let (group, _) = AnaGroup::read_from_prefix(rest).unwrap();
    (group.state, group.change_count.get())
}

/// A controller on each core, whose host has asked for the event.
fn controllers(many: &mut Many) -> Vec<(Queue, u16)> {
    let mut all = Vec::new();
    for core in 0..many.cores.len() {
        let (mut admin, cntlid) = many.admin(core);
        let mut ask = admin_command(admin::SET_FEATURES, 0, 0x0b);
        ask.cdw11.set(ANA_EVENTS);
        let card = &mut many.cores[core];
        assert_eq!(admin.host.execute(card, ask, Payload::None).0, Status::SUCCESS);
        all.push((admin, cntlid));
    }
    all
}

fn park(many: &mut Many, admin: &mut Queue) {
    let card = &mut many.cores[admin.core];
    let request = admin_command(admin::ASYNC_EVENT_REQUEST, 0, 0);
    admin.host.start(card, request, &Payload::None);
    card.run();
    assert!(many.replies(admin).is_empty());
}

fn set(many: &mut Many, state: AnaState) -> AnaStart {
    let start = many.cores[0].subsystem.set_ana_state_everywhere(PortId::FIRST, state);
    many.run();
    start
}

fn read_status(many: &mut Many, queue: &mut Queue) -> Status {
    let card = &mut many.cores[queue.core];
    queue.host.execute(card, block_command(io::READ, 0, 1), Payload::Read(512)).0
}

#[test]
fn a_state_holds_on_all_cores_and_hosts_of_all_controllers_hear_of_it() {
    let mut many = Many::new(3);
    let mut all = controllers(&mut many);
    // Each controller has a queue on another core than its own.
    let mut queues: Vec<Queue> = (0..3).map(|core| many.io((core + 1) % 3, 1, all[core].1)).collect();
    for state in [AnaState::Inaccessible, AnaState::Change, AnaState::NonOptimized, AnaState::Optimized] {
        let before: Vec<_> = all.iter_mut().map(|(admin, _)| log(&mut many, admin)).collect();
        all.iter_mut().for_each(|(admin, _)| park(&mut many, admin));
        assert_eq!(set(&mut many, state), AnaStart::Begun);
        assert_eq!(set(&mut many, state), AnaStart::Unchanged);
        many.tick_at(later(&many, Duration::from_millis(100)));
        for ((admin, _), (_, count)) in all.iter_mut().zip(before) {
            assert_eq!(many.response(admin), (Status::SUCCESS, ANA_EVENT));
            assert_eq!(log(&mut many, admin), (state as u8, count + 1));
        }
        for queue in &mut queues {
            let status = read_status(&mut many, queue);
            match state {
                AnaState::Inaccessible => assert_eq!(status.code(), Status::ANA_INACCESSIBLE.code()),
                AnaState::Change => assert_eq!(status.code(), Status::ANA_TRANSITION.code()),
                _ => assert_eq!(status, Status::SUCCESS),
            }
        }
        assert!(many.cores.iter().all(|card| card.subsystem.pending_changes() == (0, 0)));
    }
    many.assert_clean();
}

#[test]
fn a_change_waits_for_io_that_came_before_it_on_any_core_and_for_no_other() {
    let mut many = Many::new(3);
    let (_admin, cntlid) = many.admin(1);
    let (mut one, mut two) = (many.io(2, 1, cntlid), many.io(0, 2, cntlid));
    many.hold_write(&mut one);
    assert_eq!(set(&mut many, AnaState::Inaccessible), AnaStart::Begun);
    assert_eq!(read_status(&mut many, &mut two).code(), Status::ANA_INACCESSIBLE.code());
    // One core owes its confirmation, and until then there is no other change.
    assert_eq!(many.cores[0].subsystem.pending_changes().0, 1);
    assert_eq!(many.cores[2].subsystem.pending_changes().1, 1);
    assert_eq!(set(&mut many, AnaState::Optimized), AnaStart::Busy);
    many.cores[2].complete(0);
    many.run();
    assert_eq!(many.response(&one).0, Status::SUCCESS, "it was admitted before");
    assert_eq!(many.cores[0].subsystem.pending_changes(), (0, 0));
    // What does not stop I/O waits for none.
    many.cores[2].ram.hold = false;
    assert_eq!(set(&mut many, AnaState::NonOptimized), AnaStart::Begun);
    many.hold_write(&mut one);
    assert_eq!(set(&mut many, AnaState::Optimized), AnaStart::Begun);
    assert_eq!(many.cores[0].subsystem.pending_changes(), (0, 0));
    many.cores[2].complete(0);
    many.assert_clean();
}
