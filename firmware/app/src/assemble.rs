//! From found hardware, memory and boot arguments to a data core.

use controller::{ControllerSlot, Cores, DirectoryRoom, Message, Subsystem, SubsystemConfig};
use core::fmt::Write;
use dataplane::{DataCore, Parts};
use drive::{DRIVE_BACKLOG_ENTRIES, DriveMemory, DriveMessage, Drives, Place};
use hal_api::{FrameQueue, Instant, NvmeDevice, PortInfo};
use hal_mem::{Arena, DmaRegion, OutOfMemory, PagePool};
use heapless::{String, Vec};
use message::{MAX_DATA_CORES, Mesh, Roster};
use net::{Addressing, PortAddress, Stack};
use nvme::fabrics::MAX_NQN_BYTES;
use nvmeof::{Limits, Target};

use crate::options::{AddressSource, DISCOVERY_PORT, MAX_MTU, MAX_SERIAL_BYTES, Options, PortOptions};
use crate::sizes::{
    MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, MAX_CONTROLLERS, MAX_CONTROLLERS_PER_ADDRESS, MAX_DRIVES,
    MAX_NAMESPACE_METERS, MAX_PORTS, MAX_TRACES, Sizes,
};

/// The first I/O queue pair of each drive is the first data core's; those of the others follow.
const FIRST_IO_QUEUE: u16 = 1;

/// Between the seeds of two cores: any odd number.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Between those of two ports of a core: another one.
const PORT_SEED_STEP: u64 = 0xd1b5_4a32_d192_ed03;

/// A core's queue of each Ethernet port, in the order of their places on the bus.
pub type Ports<F> = Vec<F, MAX_PORTS>;

/// What the board has found.
pub struct Hardware<F, D> {
    /// This core's queue of each Ethernet port, in the order of their places on the bus.
    pub ports: Ports<F>,
    /// The drives, in the order of their places on the bus.
    pub drives: Vec<D, MAX_DRIVES>,
}

/// What the board gives of its memory, divided as [`Sizes`] says.
pub struct Memory {
    /// Private memory.
    pub arena: Arena,
    /// Memory for data pages.
    pub pages: DmaRegion,
}

/// Makes the data core that owns all of `hardware`. `seed` is what randomness there is: initial sequence numbers
/// and ports are derived from it.
///
/// # Errors
/// [`OutOfMemory`] where the board has given less than `sizes` asks for.
#[inline(never)] // As `Drives::add`.
pub fn assemble<F: FrameQueue + 'static, D: NvmeDevice + 'static>(
    hardware: Hardware<F, D>,
    options: &Options,
    sizes: &Sizes,
    memory: Memory,
    seed: u64,
    now: Instant,
) -> Result<&'static mut DataCore<F, D>, OutOfMemory> {
    let Hardware { ports, drives } = hardware;
    let name = Name::of(options, ports.first());
    let mut drives = in_places(drives);
    let parts = CoreParts { ports, memory, ways: None, seed };
    assemble_core(parts, &mut drives, options, &name, sizes, now)
}

/// Makes several data cores, which are one card: each has its own queue of each port and its own memory, which `sizes` divides, and a
/// queue at each of the drives, which are given in the order of their places; `between` is for the ways between them,
/// [`crate::sizes::mesh_bytes`] of it.
///
/// # Errors
/// [`OutOfMemory`] where the board has given less than that.
#[inline(never)] // As `Drives::add`.
pub fn assemble_cores<F: FrameQueue + 'static, D: NvmeDevice + 'static>(
    parts: impl ExactSizeIterator<Item = (Ports<F>, Memory)>,
    drives: Vec<D, MAX_DRIVES>,
    options: &Options,
    sizes: &Sizes,
    between: &mut Arena,
    seed: u64,
    now: Instant,
) -> Result<Vec<&'static mut DataCore<F, D>, MAX_DATA_CORES>, OutOfMemory> {
    let mut meshes = Mesh::<Message>::split(between, parts.len())?;
    let mut drive_meshes =
        Mesh::<DriveMessage<D::Queue>>::with_backlog(between, parts.len(), DRIVE_BACKLOG_ENTRIES)?;
    let mut rosters = Roster::split(between, parts.len(), MAX_CONTROLLERS)?;
    let mut drives = in_places(drives);
    let mut cores = Vec::new();
    let mut name = None;
    // Taken from their ends, the first core's last: a vector that is moved out of in a loop has a panic of its own where
    // the loop is left early.
    meshes.reverse();
    drive_meshes.reverse();
    rosters.reverse();
    for (ports, memory) in parts {
        let (Some(mesh), Some(drive_mesh), Some(roster)) = (meshes.pop(), drive_meshes.pop(), rosters.pop())
        else {
            break;
        };
        // All cores have the same port, or several of one card, whose first gives the name.
        let name = name.get_or_insert_with(|| Name::of(options, ports.first()));
        let seed = seed.wrapping_add(u64::from(mesh.core()).wrapping_mul(SEED_STEP));
        let ways = Some(Ways { mesh, drive_mesh, roster }).filter(|ways| ways.mesh.cores() > 1);
        let parts = CoreParts { ports, memory, ways, seed };
        let core = assemble_core(parts, &mut drives, options, name, sizes, now)?;
        let _ = cores.push(core);
    }
    Ok(cores)
}

/// What one core has for itself.
struct CoreParts<F, D: NvmeDevice + 'static> {
    ports: Ports<F>,
    memory: Memory,
    /// The ways to the other cores, where there are some.
    ways: Option<Ways<D>>,
    seed: u64,
}

struct Ways<D: NvmeDevice + 'static> {
    /// For what all has to do with controllers.
    mesh: Mesh<Message>,
    drive_mesh: Mesh<DriveMessage<D::Queue>>,
    roster: Roster,
}

/// The drives in their places, until their homes take them.
type Devices<D> = Vec<Option<D>, MAX_DRIVES>;

fn in_places<D>(mut drives: Vec<D, MAX_DRIVES>) -> Devices<D> {
    let mut devices = Vec::new();
    // Taken from the end, one by one.
    drives.reverse();
    while let Some(drive) = drives.pop() {
        // As many as there are places.
        let _ = devices.push(Some(drive));
    }
    devices
}

/// What hosts know the card by.
struct Name {
    nqn: String<MAX_NQN_BYTES>,
    serial: String<MAX_SERIAL_BYTES>,
}

impl Name {
    fn of(options: &Options, port: Option<&impl FrameQueue>) -> Self {
        let serial = serial(options, port.map(|port| port.info().mac));
        let nqn = options.nqn.clone().unwrap_or_else(|| derived_nqn(&serial));
        hal_log::info!("subsystem {} serial {}", nqn.as_str(), serial.as_str());
        Self { nqn, serial }
    }
}

#[inline(never)] // As `Drives::add`.
fn assemble_core<F: FrameQueue + 'static, D: NvmeDevice + 'static>(
    parts: CoreParts<F, D>,
    devices: &mut Devices<D>,
    options: &Options,
    name: &Name,
    sizes: &Sizes,
    now: Instant,
) -> Result<&'static mut DataCore<F, D>, OutOfMemory> {
    let CoreParts { ports, memory: Memory { mut arena, pages }, ways, seed } = parts;
    let links = arena.slice(sizes.pages, |_| 0)?;
    // With other cores, each connection may be a queue of another controller that lives there.
    let places = MAX_CONTROLLERS + if ways.is_some() { usize::from(MAX_CONNECTIONS) } else { 0 };
    let controllers = arena.slice(places, |_| ControllerSlot::default())?;
    let mut subsystem = Subsystem::new(SubsystemConfig::new(name.nqn.clone(), &name.serial), controllers);
    subsystem.make_room(DirectoryRoom::new(&mut arena)?);
    let drive_mesh = if let Some(Ways { mesh, drive_mesh, roster }) = ways {
        subsystem.join(Cores::new(mesh, roster, &mut arena)?);
        Some(drive_mesh)
    } else {
        None
    };
    let limits = Limits {
        connections: MAX_CONNECTIONS,
        slots: sizes.slots,
        data_pages_per_connection: sizes.pages_per_connection,
        connections_per_address: MAX_CONNECTIONS_PER_ADDRESS,
        controllers_per_address: MAX_CONTROLLERS_PER_ADDRESS,
        namespace_meters: MAX_NAMESPACE_METERS,
        traces: MAX_TRACES,
    };
    let target = Target::new(&mut arena, limits)?;
    let drives_at_boot = devices.len();
    let drives = make_drives(devices, drive_mesh, &mut arena)?;
    let follows = subsystem.core() > 0;
    let stacks = make_stacks(ports, follows, options, sizes, &mut arena, seed, now)?;
    let core = DataCore::new(Parts {
        stacks,
        drives,
        drives_at_boot,
        subsystem,
        target,
        pool: PagePool::new(pages, links),
        tcp_port: options.port,
    });
    arena.value(core)
}

/// Places for all drives that there may ever be, and those of boot in the first of them, as far as this core is their home.
#[inline(never)] // As `Drives::add`.
fn make_drives<D: NvmeDevice + 'static>(
    devices: &mut Devices<D>,
    mesh: Option<Mesh<DriveMessage<D::Queue>>>,
    arena: &mut Arena,
) -> Result<Drives<D>, OutOfMemory> {
    let mut memories: Vec<DriveMemory, MAX_DRIVES> = Vec::new();
    for _ in 0..MAX_DRIVES {
        let _ = memories.push(DriveMemory::take(arena)?);
    }
    let places = core::iter::from_fn(|| memories.pop().map(Place::new));
    let mut drives = Drives::new(arena.collect(MAX_DRIVES, places)?, FIRST_IO_QUEUE);
    let core = mesh.as_ref().map_or(0, Mesh::core);
    if let Some(mesh) = mesh {
        drives.join(mesh);
    }
    for (place, device) in devices.iter_mut().enumerate() {
        if drives.home_of(place) == core
            && let Some(device) = device.take()
        {
            // There are as many places as there can be devices.
            let _ = drives.add(place, device, |_| false);
        }
    }
    Ok(drives)
}

/// A stack for each port, which share the memory for sockets.
fn make_stacks<F: FrameQueue>(
    mut ports: Ports<F>,
    follows: bool,
    options: &Options,
    sizes: &Sizes,
    arena: &mut Arena,
    seed: u64,
    now: Instant,
) -> Result<Vec<Stack<F>, MAX_PORTS>, OutOfMemory> {
    if ports.is_empty() {
        hal_log::error!("no Ethernet port: nobody can reach the card");
    }
    let socket_bytes = sizes.socket_bytes / ports.len().max(1);
    let mut stacks = Vec::new();
    // Taken from the end, one by one.
    ports.reverse();
    for (of_port, number) in options.ports.iter().zip(1u16..) {
        let Some(port) = ports.pop() else { break };
        let seed = seed.wrapping_add(u64::from(number - 1).wrapping_mul(PORT_SEED_STEP));
        // There are as many options as ports at most.
        let addressing = if follows { Addressing::Follow } else { addressing(of_port) };
        let _ = stacks.push(make_stack(
            port,
            number,
            addressing,
            of_port,
            options,
            socket_bytes,
            arena,
            seed,
            now,
        )?);
    }
    Ok(stacks)
}

#[allow(clippy::too_many_arguments, reason = "what all stacks share, and what each has")]
fn make_stack<F: FrameQueue>(
    port: F,
    number: u16,
    addressing: Addressing,
    of_port: &PortOptions,
    options: &Options,
    socket_bytes: usize,
    arena: &mut Arena,
    seed: u64,
    now: Instant,
) -> Result<Stack<F>, OutOfMemory> {
    let ports = [options.port, DISCOVERY_PORT];
    let config = net::Config {
        number,
        addressing,
        ipv6: of_port.ipv6.filter(|_| !matches!(addressing, Addressing::Follow)).map(|(address, prefix)| {
            PortAddress { address: address.into(), prefix, gateway: of_port.gateway6.map(Into::into) }
        }),
        vlan: of_port.vlan,
        mtu_limit: options.mtu.unwrap_or(MAX_MTU),
        sockets: usize::from(MAX_CONNECTIONS),
        ports: &ports,
        ..net::Config::default()
    };
    if !matches!(config.addressing, Addressing::Follow) {
        log_port(number, &port.info());
    }
    Stack::new(port, &config.fit(socket_bytes), arena, seed, now)
}

fn addressing(of_port: &PortOptions) -> Addressing {
    match of_port.address {
        AddressSource::Dhcp => Addressing::Dhcp,
        AddressSource::Static(address, prefix) => {
            Addressing::Static { address, prefix, gateway: of_port.gateway }
        }
    }
}

/// Says what was agreed with the device.
fn log_port(number: u16, info: &PortInfo) {
    let [a, b, c, d, e, f] = info.mac;
    let yes_or_no = |agreed: bool| if agreed { "yes" } else { "no" };
    hal_log::info!(
        "port {}: {:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}, MTU {}, checksum offload: receive {}, transmit {}",
        number,
        a,
        b,
        c,
        d,
        e,
        f,
        info.mtu,
        yes_or_no(info.receive_checksums_verified),
        yes_or_no(info.transmit_checksum_offload),
    );
}

/// The operator's serial number, else one that the first port's station address makes unique.
fn serial(options: &Options, mac: Option<[u8; 6]>) -> String<MAX_SERIAL_BYTES> {
    options.serial.clone().unwrap_or_else(|| {
        let mut serial = String::new();
        let _ = serial.push_str("PS");
        for byte in mac.unwrap_or_default() {
            let _ = write!(serial, "{byte:02X}");
        }
        serial
    })
}

/// An NQN by UUID (Base 4.5), for a card that nobody has named: the same for as long as its serial number is.
fn derived_nqn(serial: &str) -> String<MAX_NQN_BYTES> {
    let model = SubsystemConfig::new(String::new(), serial);
    let uuid = controller::namespace_identity(&model.serial, &model.model, 0, [0; 16], [0; 8]).uuid;
    let mut nqn = String::new();
    let _ = nqn.push_str("nqn.2014-08.org.nvmexpress:uuid:");
    for (index, byte) in uuid.iter().enumerate() {
        let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
        let _ = write!(nqn, "{dash}{byte:02x}");
    }
    nqn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_without_a_name_derives_one_from_its_port() {
        let serial = serial(&Options::default(), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(serial, "PS525400123456");
        let nqn = derived_nqn(&serial);
        assert_eq!(nqn.len(), "nqn.2014-08.org.nvmexpress:uuid:".len() + 36);
        assert_eq!(nqn, derived_nqn("PS525400123456"));
        assert_ne!(nqn, derived_nqn("PS525400123457"));
    }
}
