//! Connect, loss of queues, keep alive.

use super::*;
use crate::testing::{Bench, HOST, NQN, admin_command, connect_parts, property_set};
use crate::{Outcome, QueueContext};
use nvme::fabrics::invalid_parameter;
use nvme::features;
use nvme::opcode::admin;
use nvme::registers::offset as register;

fn refusal(
    bench: &mut Bench,
    queue_id: u16,
    cntlid: u16,
    change: impl FnOnce(&mut ConnectCommand, &mut ConnectData),
) -> Failure {
    let (mut command, mut data) = connect_parts(NQN, HOST, queue_id, cntlid);
    change(&mut command, &mut data);
    bench.subsystem.connect(bench.now, Origin::by(PortId::FIRST), &command, &data).unwrap_err()
}

fn in_data(offset: u16) -> Failure {
    let status = Status::CONNECT_INVALID_PARAMETERS.do_not_retry();
    Failure { status, result: invalid_parameter(offset, true) }
}

fn in_command(offset: u16) -> Failure {
    let status = Status::CONNECT_INVALID_PARAMETERS.do_not_retry();
    Failure { status, result: invalid_parameter(offset, false) }
}

#[test]
fn an_admin_queue_brings_a_controller_of_its_own() {
    let mut bench = Bench::empty();
    let first = bench.connect(NQN, HOST, 0, 0xffff).unwrap();
    let second = bench.connect(NQN, HOST, 0, 0xffff).unwrap();
    assert_eq!((first.cntlid, second.cntlid, first.entries, first.queue_id), (1, 2, 32, 0));
    assert!(!first.subsystem.is_discovery() && !first.flow_control_disabled);
    assert_ne!(first.controller, second.controller);
    let (mut command, data) = connect_parts(NQN, HOST, 0, 0xffff);
    command.attributes = 1 << 2;
    let third = bench.subsystem.connect(bench.now, Origin::by(PortId::FIRST), &command, &data).unwrap();
    assert!(third.flow_control_disabled);
    assert_eq!(bench.subsystem.counters().live, 3);
}

#[test]
fn wrong_parameters_are_named() {
    let mut bench = Bench::empty();
    assert_eq!(refusal(&mut bench, 0, 0xffff, |_, d| d.subsystem_nqn[0] = b'x'), in_data(256));
    assert_eq!(refusal(&mut bench, 0, 0xffff, |_, d| d.subsystem_nqn = [b'n'; 256]), in_data(256));
    assert_eq!(refusal(&mut bench, 0, 0xffff, |_, d| d.host_nqn = [0; 256]), in_data(512));
    assert_eq!(refusal(&mut bench, 0, 0xffff, |_, d| d.host_nqn[0] = 0xff), in_data(512));
    assert_eq!(refusal(&mut bench, 0, 1, |_, _| {}), in_data(16));
    assert_eq!(refusal(&mut bench, 0, 0xffff, |c, _| c.sq_size.set(0)), in_command(44));
    assert_eq!(refusal(&mut bench, 0, 0xffff, |c, _| c.sq_size.set(128)), in_command(44));
    let format = refusal(&mut bench, 0, 0xffff, |c, _| c.format.set(1));
    assert_eq!(format.status.code(), Status::CONNECT_INCOMPATIBLE_FORMAT);
    assert_eq!(bench.subsystem.counters().refused_connects, 8);
    assert_eq!(bench.subsystem.counters().live, 0);
}

#[test]
fn an_io_queue_belongs_to_the_host_of_its_admin_queue() {
    let mut bench = Bench::connected();
    let id = bench.controller().id;
    let too_early = refusal(&mut bench, 1, id, |_, _| {});
    assert_eq!(too_early.status.code(), Status::COMMAND_SEQUENCE_ERROR);
    bench.enable();
    assert_eq!(refusal(&mut bench, 1, id + 1, |_, _| {}), in_data(16));
    assert_eq!(refusal(&mut bench, 1, id, |_, d| d.host_nqn[0] = b'm'), in_data(512));
    assert_eq!(refusal(&mut bench, 1, id, |_, d| d.host_id[3] = 1), in_data(0));
    assert_eq!(refusal(&mut bench, 17, id, |_, _| {}), in_command(42));
    assert_eq!(refusal(&mut bench, 0xffff, id, |_, _| {}), in_command(42));
    let connected = bench.connect(NQN, HOST, 16, id).unwrap();
    assert_eq!((connected.controller, connected.queue_id), (bench.admin.controller, 16));
    let twice = refusal(&mut bench, 16, id, |_, _| {});
    assert_eq!(twice.status.code(), Status::COMMAND_SEQUENCE_ERROR);
    bench.subsystem.disconnect_queue(bench.admin.controller, 16);
    assert!(bench.connect(NQN, HOST, 16, id).is_ok());
}

#[test]
fn a_queue_that_a_reset_has_ended_may_be_tried_again_until_its_connection_is_gone() {
    let mut bench = Bench::ready();
    let id = bench.controller().id;
    let outcome = bench.execute_admin(&property_set(register::CC, 4, 0));
    assert_eq!(outcome, crate::Outcome::ControllerReset);
    bench.enable();
    let early = bench.connect(NQN, HOST, 1, id).unwrap_err();
    assert_eq!(early, Failure::of(Status::CONNECT_CONTROLLER_BUSY));
    bench.connect(NQN, HOST, 2, id).unwrap();
    bench.subsystem.disconnect_queue(bench.admin.controller, 1);
    bench.connect(NQN, HOST, 1, id).unwrap();
    // From then on it is as taken as any.
    let twice = bench.connect(NQN, HOST, 1, id).unwrap_err();
    assert_eq!(twice.status.code(), Status::COMMAND_SEQUENCE_ERROR);
}

#[test]
fn an_io_queue_comes_by_the_port_of_its_admin_queue() {
    let mut bench = Bench::connected();
    bench.enable();
    let (command, data) = connect_parts(NQN, HOST, 1, bench.controller().id);
    assert_eq!(bench.subsystem.connect(bench.now, Origin::by(PortId(2)), &command, &data), Err(in_data(16)));
    assert!(bench.subsystem.connect(bench.now, Origin::by(PortId::FIRST), &command, &data).is_ok());
}

#[test]
fn discovery_controllers_have_no_io_queues() {
    let mut bench = Bench::discovery();
    let id = bench.controller().id;
    let nqn = DISCOVERY_NQN;
    assert_eq!(bench.connect(nqn, HOST, 1, id).unwrap_err(), in_command(42));
    assert_eq!(bench.connect(NQN, HOST, 1, id).unwrap_err(), in_data(256));
}

#[test]
fn the_controller_goes_with_its_admin_queue_and_its_handle_stays_dead() {
    let mut bench = Bench::ready();
    let old = bench.admin.controller;
    bench.subsystem.disconnect_queue(old, 0);
    assert!(!bench.subsystem.is_live(old));
    let new = bench.connect(NQN, HOST, 0, 0xffff).unwrap();
    assert_eq!(new.controller.index, old.index);
    assert_ne!(new.cntlid, 1, "an ID is not given out again at once");
    assert!(!bench.subsystem.is_live(old) && bench.subsystem.is_live(new.controller));
    bench.subsystem.disconnect_queue(old, 0);
    assert!(bench.subsystem.is_live(new.controller));
    let stale = bench.subsystem.admit(&bench.io, &crate::testing::read(7, 0, 1));
    assert_eq!(stale.unwrap_err(), Status::ABORTED_SQ_DELETION);
}

#[test]
fn no_more_controllers_than_places_and_ids_wrap() {
    let mut bench = Bench::empty();
    bench.subsystem.last_id = MAX_CONTROLLER_ID - 1;
    let ids: std::vec::Vec<_> = (0..4).map(|_| bench.connect(NQN, HOST, 0, 0xffff).unwrap().cntlid).collect();
    assert_eq!(ids, [MAX_CONTROLLER_ID, 1, 2, 3]);
    let busy = bench.connect(NQN, HOST, 0, 0xffff).unwrap_err();
    assert_eq!(busy.status, Status::CONNECT_CONTROLLER_BUSY);
    bench.subsystem.last_id = MAX_CONTROLLER_ID - 1;
    let generation = bench.subsystem.slots[3].generation;
    bench.subsystem.disconnect_queue(ControllerHandle { index: 3, generation }, 0);
    assert_eq!(bench.connect(NQN, HOST, 0, 0xffff).unwrap().cntlid, 3, "live IDs are passed over");
}

#[test]
fn a_silent_host_loses_its_controller() {
    let mut bench = Bench::ready();
    let handle = bench.admin.controller;
    bench.subsystem.tick(bench.now + Duration::from_millis(5000));
    assert!(bench.subsystem.is_live(handle));
    bench.subsystem.note_activity(handle, bench.now + Duration::from_millis(4000));
    bench.subsystem.tick(bench.now + Duration::from_millis(9000));
    assert!(bench.subsystem.is_live(handle));
    bench.subsystem.tick(bench.now + Duration::from_millis(9001));
    assert!(!bench.subsystem.is_live(handle));
    let counters = bench.subsystem.counters();
    assert_eq!((counters.keep_alive_expired, counters.live), (1, 0));
}

#[test]
fn the_keep_alive_command_restarts_the_timer() {
    let mut bench = Bench::ready();
    bench.now = bench.now + Duration::from_millis(4999);
    assert_eq!(bench.execute_admin(&admin_command(admin::KEEP_ALIVE, 0, 0, 0)), Outcome::done(0));
    bench.subsystem.tick(bench.now + Duration::from_millis(4999));
    assert!(bench.subsystem.is_live(bench.admin.controller));
}

#[test]
fn time_outs_are_rounded_up_and_zero_is_off() {
    assert_eq!((rounded_keep_alive(0), rounded_keep_alive(1), rounded_keep_alive(1000)), (0, 1000, 1000));
    assert_eq!((rounded_keep_alive(1001), rounded_keep_alive(u32::MAX)), (2000, u32::MAX));
    let mut bench = Bench::ready();
    let set = admin_command(admin::SET_FEATURES, 0, u32::from(features::KEEP_ALIVE_TIMER), 0);
    assert_eq!(bench.execute_admin(&set), Outcome::done(0));
    bench.subsystem.tick(bench.now + Duration::from_secs(1_000_000));
    assert!(bench.subsystem.is_live(bench.admin.controller));
}

#[test]
fn controllers_that_are_not_enabled_and_idle_discovery_controllers_end_after_two_minutes() {
    let mut bench = Bench::ready();
    bench.execute_admin(&property_set(register::CC, 4, 0));
    let mut discovery = Bench::discovery();
    let set = admin_command(admin::SET_FEATURES, 0, u32::from(features::KEEP_ALIVE_TIMER), 0);
    assert_eq!(discovery.execute_admin(&set), Outcome::done(0));
    for bench in [&mut bench, &mut discovery] {
        bench.subsystem.tick(bench.now + Duration::from_secs(120));
        assert!(bench.subsystem.is_live(bench.admin.controller));
        bench.subsystem.tick(bench.now + Duration::from_millis(120_001));
        assert!(!bench.subsystem.is_live(bench.admin.controller));
    }
}

#[test]
fn queues_of_a_stale_handle_touch_nothing() {
    let mut bench = Bench::ready();
    let stale = ControllerHandle { generation: 77, ..bench.admin.controller };
    bench.subsystem.disconnect_queue(stale, 0);
    bench.subsystem.note_activity(stale, Instant::FAR_FUTURE);
    bench.subsystem.forget_parked(stale);
    bench.subsystem.disconnect_queue(bench.admin.controller, 0xffff);
    assert!(bench.subsystem.is_live(bench.admin.controller));
    let nobody = QueueContext { controller: stale, queue_id: 0 };
    assert!(bench.subsystem.take_event(nobody.controller, bench.now).is_none());
}
