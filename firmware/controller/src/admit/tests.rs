//! Admission of I/O and fabrics commands, and whatever bytes come.

use super::*;
use crate::testing::{Bench, admin_command, block_command, command, identify, read};
use proptest::prelude::*;

fn block_work(bench: &Bench, command: &Command) -> (Transfer, BlockWork) {
    let admission = bench.subsystem.admit(&bench.io, command).unwrap();
    match admission.work {
        Work::Block(work) => (admission.transfer, work),
        Work::Card => panic!("not block work"),
    }
}

#[test]
fn each_block_command_becomes_its_operation() {
    let bench = Bench::ready();
    let (transfer, work) = block_work(&bench, &read(7, 990, 10));
    assert_eq!(transfer, Transfer::ToHost { bytes: 40960 });
    assert_eq!((work.operation, work.start_block, work.blocks), (Operation::Read, 990, 10));
    assert_eq!((work.namespace, work.block_shift), (BackendNamespace { drive: 1, nsid: 1 }, 12));
    let bytes = 2 * 512;
    for (opcode, operation, transfer) in [
        (io::WRITE, Operation::Write, Transfer::FromHost { bytes }),
        (io::COMPARE, Operation::Compare, Transfer::FromHost { bytes }),
        (io::VERIFY, Operation::Verify, Transfer::None),
        (io::WRITE_ZEROES, Operation::WriteZeroes { deallocate: false }, Transfer::None),
    ] {
        let (found, work) = block_work(&bench, &block_command(opcode, 3, 5, 2));
        assert_eq!((work.operation, found), (operation, transfer));
        assert_eq!((work.start_block, work.blocks, work.force_unit_access), (5, 2, false));
    }
    let (transfer, work) = block_work(&bench, &command(io::FLUSH, 3));
    assert_eq!((transfer, work.operation, work.blocks), (Transfer::None, Operation::Flush, 0));
}

#[test]
fn force_unit_access_and_deallocate_pass_through() {
    let bench = Bench::ready();
    let mut write = block_command(io::WRITE, 3, 0, 1);
    write.cdw12.set(1 << 30);
    assert!(block_work(&bench, &write).1.force_unit_access);
    let mut zeroes = block_command(io::WRITE_ZEROES, 3, 0, 1);
    zeroes.cdw12.set(1 << 25 | 1 << 30);
    let work = block_work(&bench, &zeroes).1;
    assert_eq!(work.operation, Operation::WriteZeroes { deallocate: true });
    assert!(work.force_unit_access);
    let request = work.into_request(9, 3, Pages::NONE);
    assert_eq!((request.token, request.blocks, request.operation), (9, 1, work.operation));
}

#[test]
fn bounds_hold_to_the_last_block_and_do_not_wrap() {
    let bench = Bench::ready();
    for opcode in [io::READ, io::WRITE, io::COMPARE, io::VERIFY, io::WRITE_ZEROES] {
        assert!(bench.subsystem.admit(&bench.io, &block_command(opcode, 7, 999, 1)).is_ok());
        for (start, blocks) in [(999, 2), (1000, 1), (u64::MAX, 1), (u64::MAX - 1, 65536)] {
            let refusal = bench.io_refusal(&block_command(opcode, 7, start, blocks));
            assert_eq!(refusal, Status::LBA_OUT_OF_RANGE, "{start} {blocks}");
        }
    }
}

#[test]
fn no_command_is_for_more_than_mdts() {
    let bench = Bench::ready();
    assert_eq!(block_work(&bench, &read(7, 0, 256)).0, Transfer::ToHost { bytes: 1 << 20 });
    for opcode in [io::READ, io::WRITE, io::COMPARE, io::VERIFY, io::WRITE_ZEROES] {
        assert_eq!(bench.io_refusal(&block_command(opcode, 7, 0, 257)), Status::INVALID_FIELD);
    }
    assert_eq!(block_work(&bench, &block_command(io::WRITE_ZEROES, 7, 0, 256)).1.blocks, 256);
}

#[test]
fn namespaces_that_are_not_there_are_invalid() {
    let mut bench = Bench::ready();
    for nsid in [0, 1, 4, 0xffff_fffe, 0xffff_ffff] {
        assert_eq!(bench.io_refusal(&read(nsid, 0, 1)), Status::INVALID_NAMESPACE);
        assert_eq!(bench.io_refusal(&command(io::FLUSH, nsid)), Status::INVALID_NAMESPACE);
    }
    bench.subsystem.detach(7);
    assert_eq!(bench.io_refusal(&read(7, 0, 1)), Status::INVALID_NAMESPACE);
}

#[test]
fn flags_that_are_not_supported_are_refused() {
    let bench = Bench::ready();
    for flags in [0x00, 0x41, 0x42, 0x80, 0xc0] {
        let command = Command { flags, ..read(7, 0, 1) };
        assert_eq!(bench.io_refusal(&command), Status::INVALID_FIELD, "{flags:#x}");
    }
    for bits in [1 << 29, 1 << 26] {
        let mut command = read(7, 0, 1);
        command.cdw12.set(bits);
        assert_eq!(bench.io_refusal(&command), Status::INVALID_FIELD);
    }
    let mut directive = block_command(io::WRITE, 7, 0, 1);
    directive.cdw12.set(1 << 20);
    assert_eq!(bench.io_refusal(&directive), Status::INVALID_FIELD);
}

#[test]
fn fused_commands_are_compare_then_write_of_few_blocks() {
    let mut bench = Bench::ready();
    let fused = |opcode, fuse, blocks| {
        let mut command = block_command(opcode, 7, 0, blocks);
        command.flags |= fuse;
        command
    };
    for (opcode, fuse) in [(io::COMPARE, 1), (io::WRITE, 2)] {
        assert!(bench.subsystem.admit(&bench.io, &fused(opcode, fuse, 32)).is_ok());
        assert_eq!(bench.io_refusal(&fused(opcode, fuse, 33)), Status::INVALID_FIELD, "ACWU");
        assert_eq!(bench.io_refusal(&fused(opcode, 3 - fuse, 1)), Status::INVALID_FIELD);
        assert_eq!(bench.io_refusal(&fused(opcode, 3, 1)), Status::INVALID_FIELD);
    }
    assert_eq!(bench.io_refusal(&fused(io::READ, 1, 1)), Status::INVALID_FIELD);
    let mut identify = identify(1, 0);
    identify.flags |= 1;
    assert_eq!(bench.refusal_of(&identify), Status::INVALID_FIELD);
}

#[test]
fn other_opcodes_are_invalid_on_either_queue() {
    let mut bench = Bench::ready();
    for opcode in (0..=255u8).filter(|&opcode| opcode != opcode::FABRICS) {
        let known = [io::FLUSH, io::WRITE, io::READ, io::COMPARE, io::WRITE_ZEROES, 9, io::VERIFY, io::COPY];
        if !known.contains(&opcode) {
            assert_eq!(bench.io_refusal(&command(opcode, 7)), Status::INVALID_OPCODE, "{opcode:#x}");
        }
        if ![2, 6, 8, 9, 10, 12, 0x18].contains(&opcode) {
            assert_eq!(bench.refusal_of(&command(opcode, 0)), Status::INVALID_OPCODE, "{opcode:#x}");
        }
    }
}

#[test]
fn dataset_ranges_are_checked_when_they_are_there() {
    let bench = Bench::ready();
    let dsm = admin_command(io::DATASET_MANAGEMENT, 7, 1, 0xffff_fff4);
    let (transfer, work) = block_work(&bench, &dsm);
    assert_eq!(transfer, Transfer::FromHost { bytes: 32 });
    assert_eq!(work.operation, Operation::DatasetManagement { ranges: 2, attributes: 4 });
    let ranges = |second: (u32, u64)| {
        let mut data = std::vec![0u8; 32];
        data[4..8].copy_from_slice(&1000u32.to_le_bytes());
        data[20..24].copy_from_slice(&second.0.to_le_bytes());
        data[24..32].copy_from_slice(&second.1.to_le_bytes());
        bench.subsystem.check_ranges(&work, &data).map_err(Status::code)
    };
    assert_eq!(ranges((1, 999)), Ok(()));
    assert_eq!(ranges((2, 999)), Err(Status::LBA_OUT_OF_RANGE));
    assert_eq!(ranges((1, u64::MAX)), Err(Status::LBA_OUT_OF_RANGE));
    let short = bench.subsystem.check_ranges(&work, &[0; 31]);
    assert_eq!(short, Err(Status::DATA_TRANSFER_ERROR));
    let elsewhere = BlockWork { attached: Attached { nsid: 3, ..work.attached }, ..work };
    let other = bench.subsystem.check_ranges(&elsewhere, &[0; 32]).unwrap_err();
    assert_eq!(other.code(), Status::INVALID_NAMESPACE);
    let most = block_work(&bench, &admin_command(io::DATASET_MANAGEMENT, 7, 0xff, 4)).0;
    assert_eq!(most, Transfer::FromHost { bytes: 4096 });
}

#[test]
fn commands_wait_for_the_controller_to_be_enabled() {
    let mut bench = Bench::connected();
    assert_eq!(bench.refusal_of(&identify(1, 0)), Status::COMMAND_SEQUENCE_ERROR);
    let io = QueueContext { queue_id: 1, ..bench.admin };
    let status = bench.subsystem.admit(&io, &read(7, 0, 1)).unwrap_err();
    assert_eq!(status.code(), Status::COMMAND_SEQUENCE_ERROR);
    bench.enable();
    assert!(bench.subsystem.admit(&bench.admin, &identify(1, 0)).is_ok());
    let status = bench.subsystem.admit(&io, &read(7, 0, 1)).unwrap_err();
    assert_eq!(status.code(), Status::COMMAND_SEQUENCE_ERROR, "queue 1 is not connected");
}

#[test]
fn fabrics_commands_go_to_their_queues() {
    let mut bench = Bench::ready();
    let fabrics = |kind: u8, cdw10| admin_command(opcode::FABRICS, u32::from(kind), cdw10, 0);
    assert_eq!(bench.refusal_of(&fabrics(kind::DISCONNECT, 0)), Status::INVALID_QUEUE_TYPE);
    assert_eq!(bench.refusal_of(&fabrics(kind::CONNECT, 0)), Status::COMMAND_SEQUENCE_ERROR);
    assert_eq!(bench.refusal_of(&fabrics(kind::AUTHENTICATION_SEND, 0)), Status::INVALID_OPCODE);
    assert_eq!(bench.refusal_of(&fabrics(0x77, 0)), Status::INVALID_OPCODE);
    assert_eq!(bench.io_refusal(&fabrics(kind::DISCONNECT, 1)), Status::CONNECT_INCOMPATIBLE_FORMAT);
    assert_eq!(bench.io_refusal(&fabrics(kind::PROPERTY_GET, 0)), Status::INVALID_QUEUE_TYPE);
    let disconnect = fabrics(kind::DISCONNECT, 0);
    let outcome = bench.subsystem.execute(&bench.io, bench.now, 0, &disconnect, &[]);
    assert_eq!(outcome, crate::Outcome::QueueDisconnect);
}

/// Source ranges of Copy as a host sends them.
fn copy_ranges(ranges: &[(u64, u16)]) -> std::vec::Vec<u8> {
    let mut data = std::vec::Vec::new();
    for (start, zero_based) in ranges {
        let mut range = [0u8; 32];
        range[8..16].copy_from_slice(&start.to_le_bytes());
        range[16..18].copy_from_slice(&zero_based.to_le_bytes());
        data.extend(range);
    }
    data
}

#[test]
fn copies_are_held_against_their_limits() {
    let bench = Bench::ready();
    let mut command = block_command(io::COPY, 7, 990, 2);
    command.cdw12.set(command.cdw12.get() | 1 << 30);
    let (transfer, work) = block_work(&bench, &command);
    assert_eq!(transfer, Transfer::FromHost { bytes: 64 });
    assert_eq!((work.operation, work.start_block, work.blocks), (Operation::Copy { ranges: 2 }, 990, 0));
    assert!(work.force_unit_access);
    let check = |ranges: &[(u64, u16)]| {
        bench.subsystem.check_ranges(&work, &copy_ranges(ranges)).map_err(Status::code)
    };
    // 64 KiB are 16 blocks of this namespace; there is room for 10 behind the first.
    assert_eq!(check(&[(0, 4), (995, 4)]), Ok(()));
    assert_eq!(
        check(&[(0, 5), (995, 4)]),
        Err(Status::LBA_OUT_OF_RANGE),
        "beyond the end of the destination"
    );
    assert_eq!(check(&[(0, 4), (996, 4)]), Err(Status::LBA_OUT_OF_RANGE));
    assert_eq!(check(&[(u64::MAX, 0), (0, 0)]), Err(Status::LBA_OUT_OF_RANGE));
    assert_eq!(check(&[(0, 16), (0, 0)]), Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED), "MSSRL");
    assert_eq!(check(&[(0, 7), (0, 8)]), Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED), "MCL");
    assert_eq!(check(&[(0, 0xffff), (0, 0xffff)]), Err(Status::COMMAND_SIZE_LIMIT_EXCEEDED));
    assert_eq!(check(&[(0, 0)]), Err(Status::DATA_TRANSFER_ERROR));
    let ranges = |count: u32| block_command(io::COPY, 7, 0, count);
    assert!(bench.subsystem.admit(&bench.io, &ranges(16)).is_ok());
    assert_eq!(bench.io_refusal(&ranges(17)), Status::COMMAND_SIZE_LIMIT_EXCEEDED, "MSRC");
    assert_eq!(bench.io_refusal(&block_command(io::COPY, 7, 1000, 1)), Status::LBA_OUT_OF_RANGE);
    for bits in [1 << 8, 1 << 12, 1 << 20, 1 << 26] {
        let mut command = ranges(1);
        command.cdw12.set(bits);
        assert_eq!(bench.io_refusal(&command), Status::INVALID_FIELD, "{bits:#x}");
    }
}

#[test]
fn write_uncorrectable_is_there_where_a_drive_has_it() {
    let mut bench = Bench::ready();
    let mark = |nsid| block_command(io::WRITE_UNCORRECTABLE, nsid, 744, 256);
    assert_eq!(bench.io_refusal(&mark(7)), Status::INVALID_OPCODE);
    let added = crate::Namespace { write_uncorrectable: true, ..crate::testing::namespace(9) };
    bench.subsystem.attach(added).unwrap();
    let (transfer, work) = block_work(&bench, &mark(9));
    assert_eq!((transfer, work.operation, work.blocks), (Transfer::None, Operation::WriteUncorrectable, 256));
    assert_eq!(bench.io_refusal(&mark(7)), Status::INVALID_OPCODE, "another drive");
    let beyond = block_command(io::WRITE_UNCORRECTABLE, 9, 745, 256);
    assert_eq!(bench.io_refusal(&beyond), Status::LBA_OUT_OF_RANGE);
    assert_eq!(bench.io_refusal(&block_command(io::WRITE_UNCORRECTABLE, 9, 0, 257)), Status::INVALID_FIELD);
}

/// A controller in one of its states.
fn bench_in(state: u8) -> Bench {
    match state % 6 {
        0 => Bench::empty(),
        1 => Bench::connected(),
        2 => Bench::discovery(),
        3 => {
            let mut bench = Bench::ready();
            let cc = nvme::registers::Configuration::ENABLED.with_shutdown().0;
            bench.execute_admin(&crate::testing::property_set(nvme::registers::offset::CC, 4, cc));
            bench
        }
        _ => Bench::ready(),
    }
}

/// One of `values`, by a random number.
fn pick<T: Copy>(values: &[T], random: u32) -> T {
    values[random as usize % values.len()]
}

/// A command that is well-formed as far as the first checks go, and whether it is meant for the admin queue.
fn shaped(r: [u32; 6]) -> (Command, bool) {
    use nvme::registers::{Configuration, offset};
    let opcodes = [
        (admin::IDENTIFY, true),
        (admin::GET_LOG_PAGE, true),
        (admin::GET_FEATURES, true),
        (admin::SET_FEATURES, true),
        (admin::ASYNC_EVENT_REQUEST, true),
        (admin::ABORT, true),
        (opcode::FABRICS, true),
        (io::READ, false),
        (io::WRITE_ZEROES, false),
        (io::VERIFY, false),
        (io::DATASET_MANAGEMENT, false),
        (io::COPY, false),
    ];
    let (opcode, is_admin) = pick(&opcodes, r[0]);
    let mut command = command(opcode, pick(&[0, 0, 3, 7, 8, 0xffff_fffe, 0xffff_ffff], r[1]));
    let features = [1u32, 2, 4, 5, 6, 7, 10, 11, 14, 15, 22, 0x19, 0x81];
    match (opcode, is_admin) {
        (admin::IDENTIFY, true) => {
            command
                .cdw10
                .set(pick(&[0, 1, 2, 3, 5, 6, 7, 8, 0x10, 0x11, 0x12, 0x13, 0x1a, 0x1b, 0xffff_001c], r[2]));
        }
        (admin::GET_LOG_PAGE, true) => {
            command.cdw10.set(pick(&[0, 1, 2, 3, 4, 5, 0x0c, 0x12, 0x13, 0x70], r[2]) | r[3] << 15);
            command.cdw11.set(pick(&[0, 0, 1, 3, 4, 0xffff], r[4]));
            command.cdw12.set(pick(&[0, 0, 4, 512, 1024, 4096, 6], r[5]));
        }
        (admin::GET_FEATURES, true) => {
            command.cdw10.set(pick(&features, r[2]) | (r[3] % 5) << 8);
            command.cdw11.set(pick(&[0, 1, 1 << 20, r[4]], r[5]));
        }
        (admin::SET_FEATURES, true) => {
            command.cdw10.set(pick(&features, r[2]) | u32::from(r[3].is_multiple_of(8)) << 31);
            command.cdw11.set(pick(&[0, 1, 1 << 8, 1 << 31, 5000, r[4]], r[5]));
        }
        (opcode::FABRICS, _) => {
            command.nsid.set(pick(&[0, 4, 8, 1, 5], r[1]));
            let register = pick(&[offset::CAP, offset::VS, offset::CC, offset::CC, offset::CSTS], r[2]);
            command.cdw10.set(u32::from(register == offset::CAP));
            command.cdw11.set(register);
            let enabled = Configuration::ENABLED;
            command.cdw12.set(pick(&[enabled.0, enabled.0, 0, enabled.with_shutdown().0, r[3]], r[4]));
        }
        (_, true) => command.cdw10.set((r[2] % 8) << 16),
        (_, false) => {
            command.set_start_block(pick(&[0, 990, 999, 1000, u64::MAX, u64::MAX - 5], r[2]));
            command.cdw12.set(pick(&[0, 9, 255, 256, 0xffff, r[3]], r[4]));
        }
    }
    command.cid.set((r[5] % 8) as u16);
    (command, is_admin)
}

/// A shaped command, three in eight of them with a byte changed; or, one in eight, any 64 bytes.
fn any_command() -> impl Strategy<Value = (Command, bool)> {
    (any::<[u32; 6]>(), any::<[u8; 32]>(), any::<[u8; 32]>(), any::<u8>()).prop_map(|(r, low, high, plan)| {
        let (command, is_admin) = shaped(r);
        let mut bytes: [u8; 64] = zerocopy::transmute!(command);
        match plan % 8 {
            0 => {
                bytes[..32].copy_from_slice(&low);
                bytes[32..].copy_from_slice(&high);
            }
            1..=3 => bytes[usize::from(high[0] % 64)] = high[1],
            _ => {}
        }
        let swapped = plan >= 240;
        (zerocopy::transmute!(bytes), is_admin != swapped)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever commands come, in whatever state: no panic, lengths within MDTS, block work within the
    /// namespace, and `fill` writes every byte it is given (the same whatever was there before).
    #[test]
    fn any_bytes_are_survived(
        state in any::<u8>(),
        commands in prop::collection::vec((any_command(), any::<u16>()), 1..40),
    ) {
        let mut bench = bench_in(state);
        for (step, ((command, on_admin), odd)) in commands.into_iter().enumerate() {
            let queue = if on_admin { bench.admin } else { bench.io };
            let mut from_host = std::vec![0u8; usize::from(odd % 4097)];
            if let Ok(admission) = bench.subsystem.admit(&queue, &command) {
                match admission.transfer {
                    Transfer::None => {}
                    Transfer::ToHost { bytes } => prop_assert!((1..=1 << 20).contains(&bytes)),
                    Transfer::FromHost { bytes } => {
                        prop_assert!((1..=1 << 20).contains(&bytes));
                        from_host = std::vec![odd as u8; bytes as usize];
                    }
                }
                if let Work::Block(work) = admission.work {
                    prop_assert!(work.start_block + u64::from(work.blocks) <= 1000);
                    let _ = bench.subsystem.check_ranges(&work, &from_host);
                    bench.subsystem.record_error(&queue, &command, Status::INTERNAL_ERROR);
                    continue;
                }
            }
            let length = usize::from(odd) % 4097;
            for offset in [0, 4096, !4095] {
                let (mut one, mut other) = (std::vec![0u8; length], std::vec![0xffu8; length]);
                bench.subsystem.fill(&queue, &command, offset, &mut one, &bench.backend);
                bench.subsystem.fill(&queue, &command, offset, &mut other, &bench.backend);
                prop_assert!(one == other, "fill left bytes of {length} at {offset} unwritten");
            }
            bench.now = bench.now + core::time::Duration::from_millis(u64::from(odd % 512));
            let token = step as u32;
            let outcome =
                bench.subsystem.execute(&queue, bench.now, token, &command, &from_host);
            if let crate::Outcome::Done { status, .. } = outcome {
                bench.subsystem.record_error(&queue, &command, status);
            }
            while bench.subsystem.take_event(queue.controller, bench.now).is_some() {}
            bench.subsystem.tick(bench.now);
        }
    }
}
