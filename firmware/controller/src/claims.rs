//! One walk over all that the controller claims: what Identify and the log pages say is there works, and what they
//! do not say is there is refused. For tests alone.

use nvme::identify::{IdentifyController, IdentifyNamespace, cns};
use nvme::log_page::{effect, id};
use nvme::opcode::{self, admin, io};
use nvme::registers::{Capabilities, offset};
use nvme::{Command, Status, features};
use zerocopy::FromBytes;

use crate::Outcome;
use crate::testing::{Bench, admin_command, block_command, command, get_log, identify, property_get};

fn controller(bench: &mut Bench) -> IdentifyController {
    IdentifyController::read_from_bytes(&bench.data_of(&identify(cns::CONTROLLER, 0))).unwrap()
}

/// Status code of an admin command that is not carried out.
fn admitted(bench: &Bench, command: &Command) -> Result<(), Status> {
    bench.subsystem.admit(&bench.admin, command).map(|_| ()).map_err(Status::code)
}

/// A table of dwords, one for each opcode, page or feature.
fn table(bench: &mut Bench, page: u8) -> std::vec::Vec<u32> {
    let data = bench.data_of(&get_log(page, if page == id::COMMAND_EFFECTS { 4096 } else { 1024 }, 0));
    data.chunks(4).map(|entry| u32::from_le_bytes(entry.try_into().unwrap())).collect()
}

#[test]
fn optional_io_commands_are_those_that_are_claimed() {
    walk_io_commands(Bench::ready());
    let mut bench = Bench::ready();
    bench.subsystem.detach(7);
    let namespace = crate::Namespace { write_uncorrectable: true, ..crate::testing::namespace(7) };
    bench.subsystem.attach(namespace).unwrap();
    assert_ne!(controller(&mut bench).optional_commands.get() & 1 << 1, 0);
    walk_io_commands(bench);
}

fn walk_io_commands(mut bench: Bench) {
    let claimed = controller(&mut bench).optional_commands.get();
    let effects = table(&mut bench, id::COMMAND_EFFECTS);
    let mut walked = 1 << 4 | 1 << 6;
    for (bit, opcodes) in [
        (0, &[io::COMPARE][..]),
        (1, &[io::WRITE_UNCORRECTABLE]),
        (2, &[io::DATASET_MANAGEMENT]),
        (3, &[io::WRITE_ZEROES]),
        (5, &[io::RESERVATION_REGISTER, 0x0e, 0x11, 0x15]),
        (7, &[io::VERIFY]),
        (8, &[io::COPY]),
    ] {
        walked |= 1 << bit;
        for &opcode in opcodes {
            let is_claimed = claimed & 1 << bit != 0;
            let found =
                bench.subsystem.admit(&bench.io, &block_command(opcode, 7, 0, 1)).map_err(Status::code);
            assert_eq!(found != Err(Status::INVALID_OPCODE), is_claimed, "opcode {opcode:#x}");
            assert_eq!(effects[256 + usize::from(opcode)] & 1 != 0, is_claimed, "opcode {opcode:#x}");
        }
    }
    assert_eq!(claimed & !walked, 0, "bits that this test does not know");
    // Save and Select: SEL works. Timestamp.
    assert!(claimed & 1 << 4 != 0 && claimed & 1 << 6 != 0);
    bench.data_of(&admin_command(admin::GET_FEATURES, 0, u32::from(features::TIMESTAMP) | 1 << 8, 0));
}

#[test]
fn optional_admin_commands_are_those_that_are_claimed() {
    let mut bench = Bench::ready();
    let claimed = controller(&mut bench).admin_commands.get();
    let effects = table(&mut bench, id::COMMAND_EFFECTS);
    for (bit, opcodes) in [
        (0, &[0x81, 0x82][..]),
        (1, &[0x80]),
        (2, &[0x10, 0x11]),
        (3, &[0x0d, 0x15]),
        (4, &[0x14]),
        (5, &[0x19, 0x1a]),
        (6, &[0x1d, 0x1e]),
        (7, &[0x1c]),
        (8, &[0x7c]),
        (9, &[0x86]),
        (10, &[0x24]),
    ] {
        for &opcode in opcodes {
            let is_claimed = claimed & 1 << bit != 0;
            let found = admitted(&bench, &command(opcode, 0));
            assert_eq!(found != Err(Status::INVALID_OPCODE), is_claimed, "opcode {opcode:#x}");
        }
    }
    // SANICAP.
    assert_eq!(controller(&mut bench).sanitize.get(), 0);
    assert_eq!(admitted(&bench, &command(0x84, 0)), Err(Status::INVALID_OPCODE));
    for code in (0..=255u8).filter(|&code| code != opcode::FABRICS) {
        let found = admitted(&bench, &command(code, 0));
        assert_eq!(found != Err(Status::INVALID_OPCODE), effects[usize::from(code)] & 1 != 0, "{code:#x}");
    }
}

#[test]
fn log_pages_are_those_that_are_claimed() {
    let mut bench = Bench::ready();
    let supported = table(&mut bench, id::SUPPORTED);
    for page in 0..=255u8 {
        let found = admitted(&bench, &get_log(page, 64, 0));
        let expected =
            if supported[usize::from(page)] & 1 != 0 { Ok(()) } else { Err(Status::INVALID_LOG_PAGE) };
        assert_eq!(found, expected, "{page:#x}");
    }
    let attributes = controller(&mut bench).log_attributes;
    let has = |page: u8| supported[usize::from(page)] & 1 != 0;
    let mut of_namespace = get_log(id::SMART, 512, 0);
    of_namespace.nsid.set(7);
    assert_eq!(attributes & 1 != 0, admitted(&bench, &of_namespace).is_ok());
    assert_eq!(attributes & 1 << 1 != 0, has(id::COMMAND_EFFECTS));
    assert_eq!(attributes & 1 << 2 != 0, admitted(&bench, &get_log(id::ERROR, 1 << 19, 4)).is_ok());
    assert_eq!(attributes & 1 << 3 != 0, has(0x07) && has(0x08));
    assert_eq!(attributes & 1 << 4 != 0, has(0x0d));
    let has_tables = has(id::SUPPORTED) && has(id::FEATURE_EFFECTS) && has(id::MANAGEMENT_EFFECTS);
    assert_eq!(attributes & 1 << 5 != 0, has_tables);
    let scopes = table(&mut bench, id::COMMAND_EFFECTS);
    assert!(
        scopes.iter().all(|entry| (entry & 1 != 0) == (entry >> 20 != 0)),
        "each command tells its scope"
    );
    assert_eq!(attributes & 1 << 6, 0);
    let entries = u32::from(controller(&mut bench).error_log_entries) + 1;
    assert!(admitted(&bench, &get_log(id::ERROR, 64, u64::from(entries) * 64)).is_ok());
    assert!(admitted(&bench, &get_log(id::ERROR, 64, u64::from(entries) * 64 + 4)).is_err());
}

#[test]
fn features_are_those_that_are_claimed_and_change_where_they_say_so() {
    let mut bench = Bench::connected();
    bench.enable();
    let effects = table(&mut bench, id::FEATURE_EFFECTS);
    for feature in 0..=255u8 {
        let entry = effects[usize::from(feature)];
        let number = u32::from(feature);
        // Dword 11 is EXHID for the host identifier; the others that look at it take it too.
        let get = |select: u32| admin_command(admin::GET_FEATURES, 0, number | select << 8, 1);
        if entry & effect::SUPPORTED == 0 {
            for select in 0..4 {
                assert_eq!(admitted(&bench, &get(select)), Err(Status::INVALID_FIELD), "{feature:#x}");
            }
            let set = admin_command(admin::SET_FEATURES, 0, number, 0);
            assert_eq!(bench.refusal_of(&set), Status::INVALID_FIELD, "{feature:#x}");
            continue;
        }
        let capabilities = bench.result_of(&get(3), &[]);
        assert_eq!(capabilities & 1, 0, "feature {feature:#x} is saveable");
        assert_eq!(capabilities & 2 != 0, entry & effect::NAMESPACE_SCOPE != 0, "feature {feature:#x}");
        assert_eq!(capabilities & 2 == 0, entry & effect::CONTROLLER_SCOPE != 0, "feature {feature:#x}");
        for select in 0..3 {
            assert_eq!(admitted(&bench, &get(select)), Ok(()), "feature {feature:#x}");
        }
        let (outcome, data) = bench.run(&get(0), &[]);
        let Outcome::Done { status: Status::SUCCESS, result } = outcome else { panic!("{outcome:?}") };
        let save = admin_command(admin::SET_FEATURES, 0, number | 1 << 31, result as u32);
        assert_eq!(bench.refusal_of(&save), Status::FEATURE_NOT_SAVEABLE, "feature {feature:#x}");
        // The value that it has can always be set where it can be changed at all.
        let set = admin_command(admin::SET_FEATURES, 0, number, result as u32);
        if capabilities & 4 != 0 {
            assert_eq!(
                bench.run(&set, &data).0,
                Outcome::done(if feature == 7 { result } else { 0 }),
                "{feature:#x}"
            );
        }
        let mut of_namespace = set;
        of_namespace.nsid.set(7);
        if capabilities & 2 == 0 {
            assert_eq!(
                bench.refusal_of(&of_namespace),
                Status::FEATURE_NOT_NAMESPACE_SPECIFIC,
                "{feature:#x}"
            );
        } else {
            bench.result_of(&of_namespace, &data);
        }
    }
}

#[test]
fn what_other_fields_promise_is_kept() {
    let mut bench = Bench::ready();
    let page = controller(&mut bench);
    let has = |bench: &Bench, feature: u8| {
        admitted(bench, &admin_command(admin::GET_FEATURES, 0, u32::from(feature), 1)).is_ok()
    };
    assert_eq!(page.volatile_write_cache & 1 != 0, has(&bench, features::VOLATILE_WRITE_CACHE));
    assert_eq!(page.power_transitions != 0, has(&bench, 0x0c));
    assert_eq!(page.thermal_management.get() != 0, has(&bench, 0x10));
    assert_eq!(page.keep_alive_granularity.get() != 0, has(&bench, features::KEEP_ALIVE_TIMER));
    assert_eq!(page.attributes.get() & 1 != 0, has(&bench, features::HOST_IDENTIFIER));
    assert_eq!(
        page.attributes.get() & 1 << 9 != 0,
        admitted(&bench, &identify(0x17, 0)).is_ok(),
        "UUID list"
    );
    assert_eq!(page.power_states, 0);
    let state = admin_command(admin::SET_FEATURES, 0, u32::from(features::POWER_MANAGEMENT), 1);
    assert_eq!(bench.refusal_of(&state), Status::INVALID_FIELD, "there is one power state");
    let cap = Capabilities(bench.result_of(&property_get(offset::CAP, 8), &[]));
    let sets = admin_command(admin::IDENTIFY, 0, u32::from(cns::COMMAND_SETS) | 0xffff << 16, 0);
    assert_eq!(cap.supports_io_command_sets(), admitted(&bench, &sets).is_ok());
    assert_eq!(cap.supports_io_command_sets(), has(&bench, features::COMMAND_SET_PROFILE));
    let mut fused = block_command(io::COMPARE, 7, 0, 1);
    fused.flags |= 1;
    assert_eq!(page.fused.get() & 1 != 0, bench.subsystem.admit(&bench.io, &fused).is_ok());
    assert!(page.max_allowed_namespaces.get() <= page.namespaces.get());
    for cid in 0..=u16::from(page.async_event_limit) {
        let mut request = command(admin::ASYNC_EVENT_REQUEST, 0);
        request.cid.set(cid);
        assert_eq!(bench.execute_admin(&request), Outcome::Parked);
    }
    let mut request = command(admin::ASYNC_EVENT_REQUEST, 0);
    request.cid.set(99);
    assert_eq!(bench.refusal_of(&request), Status::ASYNC_EVENT_LIMIT_EXCEEDED);
}

#[test]
fn notices_are_those_that_are_claimed() {
    for mut bench in [Bench::ready(), Bench::discovery()] {
        let claimed = controller(&mut bench).async_events.get();
        for bit in 8..32 {
            let feature = u32::from(features::ASYNC_EVENT_CONFIGURATION);
            let set = admin_command(admin::SET_FEATURES, 0, feature, 1 << bit);
            assert_eq!(admitted(&bench, &set).is_ok(), claimed & 1 << bit != 0, "bit {bit}");
        }
    }
}

#[test]
fn ana_is_told_the_same_everywhere() {
    let mut bench = Bench::ready();
    let page = controller(&mut bench);
    assert_ne!(page.multipath & 1 << 3, 0);
    assert!(
        page.ana_capabilities != 0 && page.ana_transition_s != 0 && page.async_events.get() & 1 << 11 != 0
    );
    assert!(page.max_ana_group.get() >= page.ana_groups.get() && page.max_allowed_namespaces.get() != 0);
    let log = bench.data_of(&get_log(id::ANA, 56, 0));
    let group = u32::from_le_bytes(log[16..20].try_into().unwrap());
    let state = log[32];
    assert!((1..=page.max_ana_group.get()).contains(&group));
    assert!((1..=4).contains(&state) && page.ana_capabilities & 1 << (state - 1) != 0);
    for nsid in [3, 7] {
        let namespace = bench.data_of(&identify(cns::NAMESPACE, nsid));
        let namespace = IdentifyNamespace::read_from_bytes(&namespace).unwrap();
        assert_eq!(namespace.ana_group.get(), group);
    }
}
