//! Identify: what each page says, and NSID rules.

use super::*;
use crate::testing::{Bench, NQN, admin_command, identify, namespace};
use crate::{Namespace, OptimalSizes};
use nvme::opcode::admin;

fn controller_page(bench: &mut Bench) -> IdentifyController {
    IdentifyController::read_from_bytes(&bench.data_of(&identify(cns::CONTROLLER, 0))).unwrap()
}

#[test]
fn the_controller_tells_what_it_has() {
    let mut bench = Bench::ready();
    let page = controller_page(&mut bench);
    assert_eq!(&page.serial, b"PEN0001             ");
    assert_eq!((page.mdts, page.controller_id.get(), page.version.get()), (8, 1, 0x10400));
    assert_eq!((page.controller_type, page.multipath, page.async_event_limit), (1, 0b1010, 3));
    assert_eq!((page.ana_capabilities, page.ana_transition_s, page.async_events.get()), (0x1f, 10, 0x900));
    assert_eq!((page.max_ana_group.get(), page.ana_groups.get()), (1, 1));
    assert_eq!((page.io_command_capsule.get(), page.io_response_capsule.get()), (516, 1));
    assert_eq!((page.in_capsule_offset.get(), page.max_sgl_descriptors), (0, 1));
    assert_eq!((page.sgl_support.get(), page.optional_fabrics.get()), (0x10_0001, 1));
    assert_eq!((page.max_commands.get(), page.keep_alive_granularity.get()), (128, 10));
    assert_eq!((page.namespaces.get(), page.max_allowed_namespaces.get()), (0x000f_ffff, 64));
    assert_eq!((page.admin_commands.get(), page.fused.get()), (0, 1));
    assert_eq!(page.atomic_compare_and_write.get(), 31);
    assert_eq!((page.optional_commands.get(), page.copy_formats.get()), (0b1_1101_1101, 1));
    assert_eq!(page.attributes.get() & (1 << 6), 1 << 6);
    assert_eq!(nvme::fabrics::nqn_text(&page.subsystem_nqn), Some(NQN));
}

#[test]
fn the_write_cache_shows_while_a_drive_has_one() {
    let mut bench = Bench::ready();
    assert_eq!(controller_page(&mut bench).volatile_write_cache, 0b101);
    bench.subsystem.detach(7);
    assert_eq!(controller_page(&mut bench).volatile_write_cache, 0b100);
}

#[test]
fn a_discovery_controller_says_so_and_has_no_other_page() {
    let mut bench = Bench::discovery();
    let page = controller_page(&mut bench);
    assert_eq!((page.controller_type, page.namespaces.get(), page.io_command_capsule.get()), (2, 0, 0));
    assert_eq!(page.async_events.get(), 1 << 31);
    assert_eq!(nvme::fabrics::nqn_text(&page.subsystem_nqn), Some(nvme::fabrics::DISCOVERY_NQN));
    for other in (0..=255).filter(|&other| other != cns::CONTROLLER) {
        assert_eq!(bench.refusal_of(&identify(other, 3)), Status::INVALID_FIELD);
    }
}

#[test]
fn a_namespace_has_size_format_and_names() {
    let mut bench = Bench::ready();
    let optimal =
        OptimalSizes { valid: true, boundary_blocks: 8, write_granularity: 7, ..OptimalSizes::default() };
    let eui64 = [2; 8];
    let added = Namespace { optimal, nguid: [1; 16], eui64, deallocate_features: 9, ..namespace(50) };
    bench.subsystem.attach(added).unwrap();
    let page = bench.data_of(&identify(cns::NAMESPACE, 50));
    let page = IdentifyNamespace::read_from_bytes(&page).unwrap();
    assert_eq!((page.size_blocks.get(), page.capacity_blocks.get()), (1000, 1000));
    assert_eq!((page.current_format().block_shift, page.formats, page.multipath), (12, 0, 1));
    assert_eq!((page.features, page.optimal_boundary_blocks.get()), (1 << 4, 8));
    assert_eq!((page.preferred_write_granularity.get(), page.deallocate_features), (7, 9));
    assert_eq!((page.nguid, page.eui64), ([1; 16], [2; 8]));
    let copy = (page.max_source_range_blocks.get(), page.max_copy_blocks.get(), page.max_source_ranges);
    assert_eq!(copy, (16, 16, 15));
    let list = bench.data_of(&identify(cns::NAMESPACE_DESCRIPTORS, 50));
    assert_eq!(list[..4], [3, 16, 0, 0]);
    assert_eq!(list[20..24], [2, 16, 0, 0]);
    assert_eq!(list[40..44], [1, 8, 0, 0]);
    assert_eq!(list[52..57], [4, 1, 0, 0, 0]);
    assert!(list[57..].iter().all(|&byte| byte == 0));
}

#[test]
fn descriptors_leave_out_what_is_not_there() {
    let mut bench = Bench::ready();
    let list = bench.data_of(&identify(cns::NAMESPACE_DESCRIPTORS, 3));
    assert_eq!(list[..4], [3, 16, 0, 0]);
    assert_eq!(list[4..20], [0x55; 16]);
    assert_eq!(list[20..25], [4, 1, 0, 0, 0]);
}

#[test]
fn inactive_namespaces_are_zeros_and_impossible_ones_are_errors() {
    let mut bench = Bench::ready();
    for selector in [
        cns::NAMESPACE,
        cns::COMMAND_SET_NAMESPACE,
        cns::INDEPENDENT_NAMESPACE,
        cns::ALLOCATED_NAMESPACE,
        cns::COMMAND_SET_ALLOCATED_NAMESPACE,
    ] {
        for inactive in [1, 0x000f_ffff] {
            assert_eq!(bench.data_of(&identify(selector, inactive)), [0; 4096]);
        }
        for impossible in [0, 0x0100_0000, 0xffff_fffe, 0xffff_ffff] {
            assert_eq!(bench.refusal_of(&identify(selector, impossible)), Status::INVALID_NAMESPACE);
        }
    }
    for nsid in [0, 1, 0xffff_ffff] {
        let command = identify(cns::NAMESPACE_DESCRIPTORS, nsid);
        assert_eq!(bench.refusal_of(&command), Status::INVALID_NAMESPACE);
    }
}

#[test]
fn active_lists_begin_above_the_nsid_given() {
    let mut bench = Bench::ready();
    for selector in [
        cns::ACTIVE_NAMESPACES,
        cns::COMMAND_SET_ACTIVE_NAMESPACES,
        cns::ALLOCATED_NAMESPACES,
        cns::COMMAND_SET_ALLOCATED_NAMESPACES,
    ] {
        assert_eq!(bench.data_of(&identify(selector, 0))[..12], [3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bench.data_of(&identify(selector, 3))[..8], [7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bench.data_of(&identify(selector, 0xffff_fffd)), [0; 4096]);
        for nsid in [0xffff_fffe, 0xffff_ffff] {
            assert_eq!(bench.refusal_of(&identify(selector, nsid)), Status::INVALID_NAMESPACE);
        }
    }
}

#[test]
fn command_sets_are_nvm_alone() {
    let mut bench = Bench::ready();
    for (controller, good) in [(0xffff, true), (1, true), (2, false), (0, false)] {
        let selector = u32::from(cns::COMMAND_SETS) | controller << 16;
        let command = admin_command(admin::IDENTIFY, 0, selector, 0);
        if good {
            let page = bench.data_of(&command);
            assert_eq!(page[0], 1);
            assert!(page[1..].iter().all(|&byte| byte == 0));
        } else {
            assert_eq!(bench.refusal_of(&command), Status::INVALID_FIELD);
        }
    }
    assert_eq!(bench.data_of(&identify(cns::COMMAND_SET_CONTROLLER, 0))[..4], [8, 8, 8, 0]);
    let independent = bench.data_of(&identify(cns::INDEPENDENT_NAMESPACE, 7));
    assert_eq!((independent[1], independent[14]), (1, 1));
    for selector in [5, 6, 7, 0x1a, 0x1b] {
        let zoned = admin_command(admin::IDENTIFY, 3, selector, 2 << 24);
        assert_eq!(bench.refusal_of(&zoned), Status::INVALID_FIELD);
    }
}

#[test]
fn other_pages_are_invalid_fields() {
    let mut bench = Bench::ready();
    let known = [5, 6, 7, 8, 0x10, 0x11, 0x12, 0x13, 0x1a, 0x1b, 0x1c];
    for selector in (4u8..=255).filter(|selector| !known.contains(selector)) {
        assert_eq!(bench.refusal_of(&identify(selector, 3)), Status::INVALID_FIELD, "{selector:#x}");
    }
}

#[test]
fn a_namespace_looks_the_same_whether_asked_for_as_active_or_as_allocated() {
    let mut bench = Bench::ready();
    for (active, allocated) in [(cns::NAMESPACE, cns::ALLOCATED_NAMESPACE), (5, 0x1b)] {
        assert_eq!(bench.data_of(&identify(active, 7)), bench.data_of(&identify(allocated, 7)));
    }
    let page = bench.data_of(&identify(cns::COMMAND_SET_NAMESPACE, 7));
    assert_eq!(page, [0; 4096], "no storage tags, no extended formats");
}

#[test]
fn controllers_are_listed_in_order_from_the_one_asked_for() {
    let mut bench = Bench::ready();
    bench.connect(nvme::fabrics::DISCOVERY_NQN, "nqn.b", 0, 0xffff).unwrap();
    bench.connect(NQN, "nqn.c", 0, 0xffff).unwrap();
    // The IDs wrap: the next one in the table is not the next one in order.
    bench.subsystem.slots[0].controller.as_mut().unwrap().id = 40;
    bench.admin.controller = crate::ControllerHandle { index: 0, generation: 0 };
    for selector in [cns::CONTROLLERS, cns::ATTACHED_CONTROLLERS] {
        for (from, found) in [(0, &[3u16, 40][..]), (3, &[3, 40]), (4, &[40]), (40, &[40]), (0xffff, &[])] {
            let cdw10 = u32::from(selector) | from << 16;
            let page = bench.data_of(&admin_command(admin::IDENTIFY, 7, cdw10, 0));
            let list = ControllerList::read_from_bytes(&page).unwrap();
            let ids: std::vec::Vec<_> = list.identifiers.iter().map(|id| id.get()).collect();
            assert_eq!((usize::from(list.count.get()), &ids[..found.len()]), (found.len(), found));
            assert!(ids[found.len()..].iter().all(|&id| id == 0));
        }
    }
}

#[test]
fn controllers_of_a_namespace_need_one_that_is_there() {
    let mut bench = Bench::ready();
    for (nsid, status) in [
        (0, Status::INVALID_NAMESPACE),
        (8, Status::INVALID_FIELD),
        (0x0010_0000, Status::INVALID_NAMESPACE),
        (NSID_LAST, Status::INVALID_NAMESPACE),
        (NSID_ALL, Status::INVALID_FIELD),
    ] {
        assert_eq!(bench.refusal_of(&identify(cns::ATTACHED_CONTROLLERS, nsid)), status, "{nsid:#x}");
        bench.data_of(&identify(cns::CONTROLLERS, nsid));
    }
}

#[test]
fn a_uuid_index_is_of_no_concern() {
    let mut bench = Bench::ready();
    let mut command = identify(cns::CONTROLLER, 0);
    command.cdw14.set(0x7f);
    bench.data_of(&command);
}

#[test]
fn listeners_of_several_ports_make_the_subsystem_one_with_several() {
    let mut bench = Bench::ready();
    let address = core::net::IpAddr::V4(core::net::Ipv4Addr::LOCALHOST);
    let on = |port, address| crate::Listener { port_id: crate::PortId(port), address, port: 4420 };
    let v6 = core::net::IpAddr::V6(core::net::Ipv6Addr::LOCALHOST);
    bench.subsystem.set_listeners(&[on(1, address), on(1, v6)]);
    assert_eq!(controller_page(&mut bench).multipath, 0b1010, "two addresses of one port");
    bench.subsystem.set_listeners(&[on(1, address), on(2, address)]);
    assert_eq!(controller_page(&mut bench).multipath, 0b1011);
}
