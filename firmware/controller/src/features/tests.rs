//! Features: values, selectors, scopes, refusals.

use super::*;
use crate::testing::{Bench, HOST, NQN, admin_command};
use core::time::Duration;
use nvme::opcode::admin;

fn get(feature: u8, select: u32, cdw11: u32) -> Command {
    admin_command(admin::GET_FEATURES, 0, u32::from(feature) | select << 8, cdw11)
}

fn set(feature: u8, cdw11: u32) -> Command {
    admin_command(admin::SET_FEATURES, 0, u32::from(feature), cdw11)
}

#[test]
fn queues_are_granted_up_to_the_limit_and_only_before_they_are_connected() {
    let mut bench = Bench::connected();
    bench.enable();
    assert_eq!(bench.result_of(&set(id::NUMBER_OF_QUEUES, 0x0003_0001), &[]), 0x0001_0001);
    assert_eq!(bench.subsystem.granted_queues(bench.admin.controller), 2);
    assert_eq!(bench.result_of(&set(id::NUMBER_OF_QUEUES, 0x01ff_01ff), &[]), 0x000f_000f);
    assert_eq!(bench.result_of(&get(id::NUMBER_OF_QUEUES, 0, 0), &[]), 0x000f_000f);
    for wrong in [0x0000_ffff, 0xffff_0000] {
        assert_eq!(bench.refusal_of(&set(id::NUMBER_OF_QUEUES, wrong)), Status::INVALID_FIELD);
    }
    assert_eq!(bench.result_of(&set(id::NUMBER_OF_QUEUES, 0), &[]), 0);
    let cntlid = bench.controller().id;
    assert!(bench.connect(NQN, HOST, 2, cntlid).is_err(), "one queue is granted");
    assert!(bench.connect(NQN, HOST, 1, cntlid).is_ok());
    assert_eq!(bench.refusal_of(&set(id::NUMBER_OF_QUEUES, 1)), Status::COMMAND_SEQUENCE_ERROR);
}

#[test]
fn values_that_were_set_read_back_and_defaults_stay() {
    let mut bench = Bench::ready();
    for (feature, value, default) in [
        (id::ARBITRATION, 0x0102_0304, 0),
        (id::WRITE_ATOMICITY, 1, 0),
        (id::ERROR_RECOVERY, 0x1234, 0),
        (id::TEMPERATURE_THRESHOLD, 350, 343),
        (id::TEMPERATURE_THRESHOLD, 270 | 1 << 20, 0),
        (id::ASYNC_EVENT_CONFIGURATION, 0x9ff, 0),
        (id::KEEP_ALIVE_TIMER, 8000, 0),
        (id::POWER_MANAGEMENT, 0b10 << 5, 0),
    ] {
        assert_eq!(bench.result_of(&set(feature, value), &[]), 0);
        let selectors = value & 1 << 20;
        let current = bench.result_of(&get(feature, 0, selectors), &[]);
        assert_eq!(current, u64::from(value & !(1 << 20)), "feature {feature:#x}");
        for select in [1, 2] {
            assert_eq!(
                bench.result_of(&get(feature, select, selectors), &[]),
                default,
                "feature {feature:#x}"
            );
        }
        assert_ne!(bench.result_of(&get(feature, 3, selectors), &[]) & CHANGEABLE, 0);
    }
}

#[test]
fn the_keep_alive_time_is_rounded_up() {
    let mut bench = Bench::ready();
    assert_eq!(bench.result_of(&get(id::KEEP_ALIVE_TIMER, 0, 0), &[]), 5000);
    assert_eq!(bench.result_of(&set(id::KEEP_ALIVE_TIMER, 1), &[]), 0);
    assert_eq!(bench.result_of(&get(id::KEEP_ALIVE_TIMER, 0, 0), &[]), 1000);
}

#[test]
fn nothing_is_saveable() {
    let mut bench = Bench::ready();
    for feature in [id::ARBITRATION, id::KEEP_ALIVE_TIMER, id::TIMESTAMP, id::HOST_IDENTIFIER] {
        let mut command = set(feature, 0);
        command.cdw10.set(command.cdw10.get() | 1 << 31);
        assert_eq!(bench.refusal_of(&command), Status::FEATURE_NOT_SAVEABLE);
    }
}

#[test]
fn features_that_are_not_there_are_invalid_fields() {
    let mut bench = Bench::ready();
    for feature in [0, 3, 8, 9, 0x0c, 0x10, 0x82, 0xff] {
        assert_eq!(bench.refusal_of(&get(feature, 0, 0)), Status::INVALID_FIELD, "{feature:#x}");
        assert_eq!(bench.refusal_of(&set(feature, 0)), Status::INVALID_FIELD, "{feature:#x}");
    }
    assert_eq!(bench.refusal_of(&get(id::ARBITRATION, 4, 0)), Status::INVALID_FIELD);
    assert_eq!(bench.refusal_of(&set(id::POWER_MANAGEMENT, 1)), Status::INVALID_FIELD);
    assert_eq!(bench.refusal_of(&set(id::ERROR_RECOVERY, 1 << 16)), Status::INVALID_FIELD);
    assert_eq!(bench.refusal_of(&set(id::ASYNC_EVENT_CONFIGURATION, 1 << 31)), Status::INVALID_FIELD);
    assert_eq!(bench.refusal_of(&set(id::TEMPERATURE_THRESHOLD, 1 << 16)), Status::INVALID_FIELD);
    assert_eq!(bench.refusal_of(&get(id::TEMPERATURE_THRESHOLD, 0, 2 << 20)), Status::INVALID_FIELD);
}

#[test]
fn scopes_are_kept() {
    let mut bench = Bench::ready();
    let mut command = set(id::ARBITRATION, 0);
    command.nsid.set(7);
    assert_eq!(bench.refusal_of(&command), Status::FEATURE_NOT_NAMESPACE_SPECIFIC);
    let mut command = set(id::ERROR_RECOVERY, 0);
    command.nsid.set(7);
    assert_eq!(bench.result_of(&command, &[]), 0);
    command.nsid.set(8);
    assert_eq!(bench.refusal_of(&command), Status::INVALID_NAMESPACE);
}

#[test]
fn each_namespace_has_an_error_recovery_time_of_its_own() {
    let mut bench = Bench::ready();
    let of = |opcode, nsid, value| admin_command(opcode, nsid, u32::from(id::ERROR_RECOVERY), value);
    let times =
        |bench: &mut Bench| [3, 7].map(|nsid| bench.result_of(&of(admin::GET_FEATURES, nsid, 0), &[]));
    bench.result_of(&of(admin::SET_FEATURES, 7, 50), &[]);
    assert_eq!(times(&mut bench), [0, 50]);
    bench.result_of(&of(admin::SET_FEATURES, 7, 60), &[]);
    assert_eq!(times(&mut bench), [0, 60]);
    bench.result_of(&of(admin::SET_FEATURES, NSID_ALL, 9), &[]);
    assert_eq!(times(&mut bench), [9, 9]);
    assert_eq!(bench.refusal_of(&of(admin::GET_FEATURES, 4, 0)), Status::INVALID_NAMESPACE);
}

#[test]
fn there_is_one_combination_of_command_sets() {
    let mut bench = Bench::ready();
    assert_eq!(bench.result_of(&get(id::COMMAND_SET_PROFILE, 0, 0), &[]), 0);
    assert_eq!(bench.result_of(&set(id::COMMAND_SET_PROFILE, 0), &[]), 0);
    assert_eq!(bench.refusal_of(&set(id::COMMAND_SET_PROFILE, 1)), Status::COMMAND_SETS_REJECTED);
}

#[test]
fn what_is_of_pcie_or_not_there_is_refused() {
    let mut bench = Bench::ready();
    for feature in
        [id::INTERRUPT_COALESCING, id::INTERRUPT_VECTOR, 0x0c, 0x0d, 0x10, 0x11, 0x17, 0x80, 0x82, 0x84]
    {
        assert_eq!(bench.refusal_of(&get(feature, 0, 0)), Status::INVALID_FIELD, "{feature:#x}");
        assert_eq!(bench.refusal_of(&get(feature, 3, 0)), Status::INVALID_FIELD, "{feature:#x}");
        assert_eq!(bench.refusal_of(&set(feature, 0)), Status::INVALID_FIELD, "{feature:#x}");
    }
}

#[test]
fn the_write_cache_is_there_while_a_drive_has_one_and_stays_on() {
    let mut bench = Bench::ready();
    assert_eq!(bench.result_of(&get(id::VOLATILE_WRITE_CACHE, 0, 0), &[]), 1);
    assert_eq!(bench.result_of(&get(id::VOLATILE_WRITE_CACHE, 3, 0), &[]), 0);
    assert_eq!(bench.result_of(&set(id::VOLATILE_WRITE_CACHE, 1), &[]), 0);
    assert_eq!(bench.refusal_of(&set(id::VOLATILE_WRITE_CACHE, 0)), Status::FEATURE_NOT_CHANGEABLE);
    bench.subsystem.detach(7);
    assert_eq!(bench.refusal_of(&get(id::VOLATILE_WRITE_CACHE, 0, 0)), Status::INVALID_FIELD);
}

#[test]
fn the_host_identifier_is_that_of_connect() {
    let mut bench = Bench::ready();
    assert_eq!(bench.data_of(&get(id::HOST_IDENTIFIER, 0, 1)), [9; 16]);
    assert_eq!(bench.refusal_of(&get(id::HOST_IDENTIFIER, 0, 0)), Status::HOST_ID_INCONSISTENT);
    assert_eq!(bench.refusal_of(&set(id::HOST_IDENTIFIER, 1)), Status::COMMAND_SEQUENCE_ERROR);
}

#[test]
fn the_timestamp_runs_on_from_what_was_set() {
    let mut bench = Bench::ready();
    let timestamp = |bench: &mut Bench| {
        let now = bench.now;
        bench.subsystem.tick(now);
        u64::from_le_bytes(bench.data_of(&get(id::TIMESTAMP, 0, 0)).try_into().unwrap())
    };
    assert_eq!(timestamp(&mut bench), 1000, "since the start of the card");
    let host_time: u64 = 0xa5_1234_5678;
    bench.result_of(&set(id::TIMESTAMP, 0), &(host_time | 0xffff << 48).to_le_bytes());
    bench.now = bench.now + Duration::from_millis(2500);
    assert_eq!(timestamp(&mut bench), (host_time + 2500) | 1 << 49);
    assert_eq!(bench.data_of(&get(id::TIMESTAMP, 1, 0)), [0; 8]);
}

#[test]
fn host_behavior_reads_back() {
    let mut bench = Bench::ready();
    let mut data = [0u8; 512];
    data[0] = 1;
    bench.result_of(&set(id::HOST_BEHAVIOR, 0), &data);
    assert_eq!(bench.data_of(&get(id::HOST_BEHAVIOR, 0, 0)), data);
    data[1] = 2;
    let (outcome, _) = bench.run(&set(id::HOST_BEHAVIOR, 0), &data);
    assert_eq!(outcome, crate::Outcome::failed(Status::INVALID_FIELD.do_not_retry()));
}

#[test]
fn discovery_controllers_have_two_features() {
    let mut bench = Bench::discovery();
    assert_eq!(bench.result_of(&get(id::KEEP_ALIVE_TIMER, 0, 0), &[]), 5000);
    assert_eq!(bench.result_of(&set(id::ASYNC_EVENT_CONFIGURATION, 1 << 31), &[]), 0);
    assert_eq!(bench.refusal_of(&set(id::ASYNC_EVENT_CONFIGURATION, 1 << 8)), Status::INVALID_FIELD);
    assert_eq!(bench.refusal_of(&set(id::NUMBER_OF_QUEUES, 0)), Status::INVALID_FIELD);
}

#[test]
fn a_reset_brings_the_defaults_back_and_keeps_the_keep_alive_time() {
    let mut bench = Bench::ready();
    bench.result_of(&set(id::ARBITRATION, 7), &[]);
    let reset = crate::testing::property_set(nvme::registers::offset::CC, 4, 0);
    assert_eq!(bench.execute_admin(&reset), crate::Outcome::ControllerReset);
    bench.enable();
    assert_eq!(bench.result_of(&get(id::ARBITRATION, 0, 0), &[]), 0);
    assert_eq!(bench.result_of(&get(id::KEEP_ALIVE_TIMER, 0, 0), &[]), 5000);
}
