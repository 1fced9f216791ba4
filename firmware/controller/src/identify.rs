//! Identify (Base 5.17, NVM 4.1.5).

use message::configuration::SubsystemPlace;
use nvme::identify::{
    ControllerList, IDENTIFY_BYTES, IdentifyController, IdentifyNamespace, IdentifyNvmController,
    IndependentNamespace, cns, descriptor,
};
use nvme::{Command, NSID_ALL, NSID_LAST, Status};
use zerocopy::FromBytes;

use crate::admit::Transfer;
use crate::ana;
use crate::config::{
    CRITICAL_TEMPERATURE_K, ERROR_LOG_ENTRIES, KEEP_ALIVE_UNITS, MAX_ABORTS, MAX_ASYNC_EVENT_REQUESTS,
    MAX_COPY_RANGES, MAX_FUSED_BLOCKS, MAX_NAMESPACES, SHUTDOWN_LATENCY_US, WARNING_TEMPERATURE_K,
};
use crate::events::Event;
use crate::features::IO_NOTICES;
use crate::identity::LAST_NSID;
use crate::namespace::Namespace;
use crate::properties::VERSION;
use crate::slot::Controller;
use crate::subsystem::Subsystem;

/// What every Identify moves.
pub(crate) const IDENTIFY_TRANSFER: Transfer = Transfer::ToHost { bytes: IDENTIFY_BYTES as u32 };

/// CSI of the NVM command set.
pub(crate) const NVM_COMMAND_SET: u8 = 0;
/// CNTID in Identify that means the controller itself.
const THIS_CONTROLLER: u16 = 0xffff;

/// Values of fields of Identify Controller.
mod field {
    /// CMIC: the subsystem has several ports, several controllers, and reports ANA.
    pub(super) const SEVERAL_PORTS: u8 = 1 << 0;
    pub(super) const SEVERAL_CONTROLLERS: u8 = 1 << 1;
    pub(super) const REPORTS_ANA: u8 = 1 << 3;
    /// CTRATT: 128-bit host identifiers, traffic based keep alive.
    pub(super) const ATTRIBUTES: u32 = 1 | 1 << 6;
    /// CNTRLTYPE.
    pub(super) const IO_CONTROLLER: u8 = 1;
    pub(super) const DISCOVERY_CONTROLLER: u8 = 2;
    /// FRMW: one slot, read only.
    pub(super) const ONE_FIRMWARE_SLOT: u8 = 1 << 1 | 1;
    /// LPA: SMART by namespace, effects log, extended data, and bit 5: the pages of what there is (00h, 12h, 13h) and scopes of
    /// commands; of a discovery controller extended data alone.
    pub(super) const LOG_ATTRIBUTES: u8 = 0b10_0111;
    pub(super) const DISCOVERY_LOG_ATTRIBUTES: u8 = 0b100;
    /// SQES and CQES: 64 and 16 bytes, required and largest.
    pub(super) const SQ_ENTRY_SIZE: u8 = 0x66;
    pub(super) const CQ_ENTRY_SIZE: u8 = 0x44;
    /// ONCS: Compare, Dataset Management, Write Zeroes, Save and Select, Timestamp, Verify, Copy; and where a drive has it
    /// Write Uncorrectable.
    pub(super) const OPTIONAL_COMMANDS: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8;
    pub(super) const WRITE_UNCORRECTABLE: u16 = 1 << 1;
    /// FUSES: fused Compare and Write.
    pub(super) const COMPARE_AND_WRITE: u16 = 1 << 0;
    /// CDFS: Copy takes descriptor format 0h.
    pub(super) const COPY_FORMATS: u16 = 1 << 0;
    /// VWC: Flush does not take NSID FFFFFFFFh (10b), and whether there is a cache.
    pub(super) const FLUSH_ALL_UNSUPPORTED: u8 = 0b10 << 1;
    pub(super) const CACHE_PRESENT: u8 = 1;
    /// SGLS: SGLs without alignment rules, and offsets in them (in-capsule data).
    pub(super) const SGL_SUPPORT: u32 = 1 | 1 << 20;
    /// OFCS: Disconnect.
    pub(super) const DISCONNECT: u16 = 1;
    /// NMIC, NSFEAT bit 4, NSTAT of namespaces.
    pub(super) const SHARED: u8 = 1;
    pub(super) const OPTIMAL_SIZES: u8 = 1 << 4;
    pub(super) const NAMESPACE_READY: u8 = 1;
}

fn cns_of(command: &Command) -> u8 {
    command.cdw10.get() as u8
}

/// CNTID: of which controller, or from which CNTLID on.
fn controller_id_of(command: &Command) -> u16 {
    (command.cdw10.get() >> 16) as u16
}

/// Checks CNS, CSI, CNTID and NSID. All namespaces there are count as allocated and are attached to every I/O controller.
pub(crate) fn check(subsystem: &Subsystem, controller: &Controller, command: &Command) -> Result<(), Status> {
    let invalid_field = Err(Status::INVALID_FIELD.do_not_retry());
    let selector = cns_of(command);
    if controller.is_discovery() && selector != cns::CONTROLLER {
        return invalid_field;
    }
    let command_set = (command.cdw11.get() >> 24) as u8;
    if is_of_command_set(selector) && command_set != NVM_COMMAND_SET {
        return invalid_field;
    }
    let controller_id = controller_id_of(command);
    match selector {
        cns::CONTROLLER | cns::COMMAND_SET_CONTROLLER | cns::CONTROLLERS => Ok(()),
        cns::COMMAND_SETS if controller_id == THIS_CONTROLLER || controller_id == controller.id => Ok(()),
        cns::COMMAND_SETS => invalid_field,
        _ => check_namespace(subsystem, controller, selector, command.nsid.get()),
    }
}

/// Whether the structure depends on CSI.
fn is_of_command_set(selector: u8) -> bool {
    matches!(
        selector,
        cns::COMMAND_SET_NAMESPACE
            | cns::COMMAND_SET_CONTROLLER
            | cns::COMMAND_SET_ACTIVE_NAMESPACES
            | cns::COMMAND_SET_ALLOCATED_NAMESPACES
            | cns::COMMAND_SET_ALLOCATED_NAMESPACE
    )
}

/// Which NSIDs a structure takes; FFFFFFFFh stands for what all namespaces have in common, which takes Namespace
/// Management to be of use and is refused.
fn check_namespace(
    subsystem: &Subsystem,
    controller: &Controller,
    selector: u8,
    nsid: u32,
) -> Result<(), Status> {
    let is_attached = subsystem.namespaces.find(controller.subsystem, nsid).is_some();
    let invalid_field = Err(Status::INVALID_FIELD.do_not_retry());
    let invalid_namespace = Err(Status::INVALID_NAMESPACE.do_not_retry());
    match selector {
        cns::NAMESPACE
        | cns::COMMAND_SET_NAMESPACE
        | cns::INDEPENDENT_NAMESPACE
        | cns::ALLOCATED_NAMESPACE
        | cns::COMMAND_SET_ALLOCATED_NAMESPACE => match nsid {
            1..=LAST_NSID => Ok(()),
            _ => invalid_namespace,
        },
        cns::ACTIVE_NAMESPACES
        | cns::COMMAND_SET_ACTIVE_NAMESPACES
        | cns::ALLOCATED_NAMESPACES
        | cns::COMMAND_SET_ALLOCATED_NAMESPACES => match nsid {
            NSID_LAST.. => invalid_namespace,
            _ => Ok(()),
        },
        cns::NAMESPACE_DESCRIPTORS if !is_attached => invalid_namespace,
        cns::NAMESPACE_DESCRIPTORS => Ok(()),
        cns::ATTACHED_CONTROLLERS if is_attached => Ok(()),
        cns::ATTACHED_CONTROLLERS if matches!(nsid, 1..=LAST_NSID | NSID_ALL) => invalid_field,
        cns::ATTACHED_CONTROLLERS => invalid_namespace,
        _ => invalid_field,
    }
}

/// Writes the page of a checked command over `into`, which is zero.
pub(crate) fn fill(subsystem: &Subsystem, controller: &Controller, command: &Command, into: &mut [u8]) {
    let of = controller.subsystem;
    let namespace = subsystem.namespaces.find(of, command.nsid.get());
    match (cns_of(command), namespace) {
        (cns::CONTROLLER, _) => {
            if let Ok((page, _)) = IdentifyController::mut_from_prefix(into) {
                fill_common(subsystem, controller, page);
                if controller.is_discovery() {
                    page.controller_type = field::DISCOVERY_CONTROLLER;
                    page.log_attributes = field::DISCOVERY_LOG_ATTRIBUTES;
                    page.async_events.set(Event::Discovery.configuration_bits());
                    put(&mut page.subsystem_nqn, nvme::fabrics::DISCOVERY_NQN.as_bytes());
                } else {
                    fill_io_controller(subsystem, controller, page);
                }
            }
        }
        (cns::NAMESPACE | cns::ALLOCATED_NAMESPACE, Some(namespace)) => {
            if let Ok((page, _)) = IdentifyNamespace::mut_from_prefix(into) {
                fill_namespace(namespace, page);
                // The host cannot know better what is in use than the path lets it see (Base 8.1.3).
                if subsystem.check_ana(controller).is_err() {
                    page.used_blocks.set(0);
                }
            }
        }
        (
            cns::ACTIVE_NAMESPACES
            | cns::COMMAND_SET_ACTIVE_NAMESPACES
            | cns::ALLOCATED_NAMESPACES
            | cns::COMMAND_SET_ALLOCATED_NAMESPACES,
            _,
        ) => {
            let above = subsystem.namespaces.after(of, command.nsid.get());
            for (place, namespace) in into.chunks_exact_mut(4).zip(above) {
                put(place, &namespace.nsid.to_le_bytes());
            }
        }
        (cns::NAMESPACE_DESCRIPTORS, Some(namespace)) => fill_descriptors(namespace, into),
        (cns::COMMAND_SET_CONTROLLER, _) if !controller.is_discovery() => {
            if let Ok((page, _)) = IdentifyNvmController::mut_from_prefix(into) {
                // As for transfers, so that no command keeps a drive from others for long.
                let limit = subsystem.config.max_transfer_shift;
                (page.verify_limit, page.write_zeroes_limit, page.write_uncorrectable_limit) =
                    (limit, limit, limit);
            }
        }
        (cns::INDEPENDENT_NAMESPACE, Some(_)) => {
            if let Ok((page, _)) = IndependentNamespace::mut_from_prefix(into) {
                page.multipath = field::SHARED;
                page.ana_group.set(ana::GROUP);
                page.status = field::NAMESPACE_READY;
            }
        }
        (cns::CONTROLLERS | cns::ATTACHED_CONTROLLERS, _) => {
            if let Ok((list, _)) = ControllerList::mut_from_prefix(into) {
                fill_controllers(subsystem, of, controller_id_of(command), list);
            }
        }
        // One combination of command sets: NVM alone.
        (cns::COMMAND_SETS, _) => put(into, &(1u64 << NVM_COMMAND_SET).to_le_bytes()),
        _ => {}
    }
}

/// What I/O and discovery controllers have in common.
fn fill_common(subsystem: &Subsystem, controller: &Controller, page: &mut IdentifyController) {
    let config = &subsystem.config;
    let names = subsystem.nvm_subsystem(controller);
    page.serial = names.serial;
    page.model = names.model;
    page.firmware = config.firmware;
    page.mdts = config.max_transfer_shift;
    page.controller_id.set(controller.id);
    page.version.set(VERSION);
    page.entry_latency_us.set(SHUTDOWN_LATENCY_US);
    page.attributes.set(field::ATTRIBUTES);
    page.async_event_limit = MAX_ASYNC_EVENT_REQUESTS as u8 - 1;
    page.abort_limit = MAX_ABORTS - 1;
    page.error_log_entries = ERROR_LOG_ENTRIES as u8 - 1;
    page.firmware_updates = field::ONE_FIRMWARE_SLOT;
    page.keep_alive_granularity.set(KEEP_ALIVE_UNITS);
    page.max_commands.set(config.max_queue_entries);
    page.sgl_support.set(field::SGL_SUPPORT);
}

fn fill_io_controller(subsystem: &Subsystem, controller: &Controller, page: &mut IdentifyController) {
    let config = &subsystem.config;
    page.controller_type = field::IO_CONTROLLER;
    let first = subsystem.listeners.first().map(|listener| listener.port_id);
    let several = subsystem.listeners.iter().any(|listener| Some(listener.port_id) != first);
    let ports = if several { field::SEVERAL_PORTS } else { 0 };
    page.multipath = field::SEVERAL_CONTROLLERS | field::REPORTS_ANA | ports;
    page.ana_transition_s = ana::TRANSITION_S;
    page.ana_capabilities = ana::CAPABILITIES;
    page.max_ana_group.set(ana::GROUPS);
    page.ana_groups.set(ana::GROUPS);
    page.async_events.set(IO_NOTICES);
    page.log_attributes = field::LOG_ATTRIBUTES;
    page.warning_temperature_k.set(WARNING_TEMPERATURE_K);
    page.critical_temperature_k.set(CRITICAL_TEMPERATURE_K);
    page.sq_entry_size = field::SQ_ENTRY_SIZE;
    page.cq_entry_size = field::CQ_ENTRY_SIZE;
    page.namespaces.set(LAST_NSID);
    page.max_allowed_namespaces.set(MAX_NAMESPACES as u32);
    let has_uncorrectable = subsystem.namespaces.any_write_uncorrectable(controller.subsystem);
    let of_drives = if has_uncorrectable { field::WRITE_UNCORRECTABLE } else { 0 };
    page.optional_commands.set(field::OPTIONAL_COMMANDS | of_drives);
    page.copy_formats.set(field::COPY_FORMATS);
    page.fused.set(field::COMPARE_AND_WRITE);
    page.atomic_compare_and_write.set(MAX_FUSED_BLOCKS as u16 - 1);
    let cache =
        if subsystem.namespaces.any_volatile_cache(controller.subsystem) { field::CACHE_PRESENT } else { 0 };
    page.volatile_write_cache = field::FLUSH_ALL_UNSUPPORTED | cache;
    put(&mut page.subsystem_nqn, subsystem.nvm_subsystem(controller).nqn.as_bytes());
    page.io_command_capsule.set((size_of::<Command>() as u32 + config.in_capsule_bytes) / 16);
    page.io_response_capsule.set(1);
    page.max_sgl_descriptors = 1;
    page.optional_fabrics.set(field::DISCONNECT);
}

fn fill_namespace(namespace: &Namespace, page: &mut IdentifyNamespace) {
    page.size_blocks.set(namespace.blocks);
    page.capacity_blocks.set(namespace.blocks);
    page.used_blocks.set(namespace.blocks);
    page.multipath = field::SHARED;
    page.ana_group.set(ana::GROUP);
    page.deallocate_features = namespace.deallocate_features;
    page.max_source_range_blocks.set(u16::try_from(namespace.max_copy_blocks()).unwrap_or(u16::MAX));
    page.max_copy_blocks.set(namespace.max_copy_blocks());
    page.max_source_ranges = MAX_COPY_RANGES as u8 - 1;
    let optimal = &namespace.optimal;
    page.optimal_boundary_blocks.set(optimal.boundary_blocks);
    if optimal.valid {
        page.features |= field::OPTIMAL_SIZES;
        page.preferred_write_granularity.set(optimal.write_granularity);
        page.preferred_write_alignment.set(optimal.write_alignment);
        page.preferred_deallocate_granularity.set(optimal.deallocate_granularity);
        page.preferred_deallocate_alignment.set(optimal.deallocate_alignment);
        page.optimal_write_size.set(optimal.write_size);
    }
    page.nguid = namespace.nguid;
    page.eui64 = namespace.eui64;
    if let Some(format) = page.lba_formats.first_mut() {
        format.block_shift = namespace.block_shift;
    }
}

/// The I/O controllers of a subsystem on all cores from `first` on, in order of CNTLID.
fn fill_controllers(subsystem: &Subsystem, of: SubsystemPlace, first: u16, list: &mut ControllerList) {
    let mut next = first;
    let mut count = 0;
    for place in &mut list.identifiers {
        let next_of = |ids: &mut dyn Iterator<Item = u16>| ids.filter(|&id| id >= next).min();
        let found = match &subsystem.cores {
            Some(cores) => next_of(&mut cores.roster.ids(of)),
            None => {
                next_of(&mut subsystem.io_controllers_here().filter(|(at, _)| *at == of).map(|(_, id)| id))
            }
        };
        let Some(id) = found else { break };
        place.set(id);
        next = id.saturating_add(1);
        count += 1;
    }
    list.count.set(count);
}

/// Namespace Identification Descriptor list: what there is of UUID, NGUID and EUI-64, and the command set.
fn fill_descriptors(namespace: &Namespace, into: &mut [u8]) {
    let command_set = [NVM_COMMAND_SET];
    let all: [(u8, &[u8]); 4] = [
        (descriptor::UUID, &namespace.uuid),
        (descriptor::NGUID, &namespace.nguid),
        (descriptor::EUI64, &namespace.eui64),
        (descriptor::COMMAND_SET, &command_set),
    ];
    let mut rest = into;
    for (kind, value) in all {
        let is_present = kind == descriptor::COMMAND_SET || value.iter().any(|&byte| byte != 0);
        if !is_present || rest.len() < 4 + value.len() {
            continue;
        }
        let (place, after) = rest.split_at_mut(4 + value.len());
        put(place, &[kind, value.len() as u8]);
        if let Some(place) = place.get_mut(4..) {
            put(place, value);
        }
        rest = after;
    }
}

fn put(place: &mut [u8], data: &[u8]) {
    for (to, from) in place.iter_mut().zip(data) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests;
