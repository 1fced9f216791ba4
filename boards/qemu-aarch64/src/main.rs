//! The card as QEMU's `virt` machine, 64-bit Arm.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU8, Ordering};
use core::time::Duration;

use app::options::Options;
use app::plan::{self, Plan, Role};
use app::sizes::{Sizes, mesh_bytes};
use app::{
    Asking, CallDesk, Calls, CardFacts, Configuration, ConfigurationStore, ControlEnds, CoreLoop, CoreMeter,
    CoreQueue, DECLARED_BYTES, DataCore, DataEnds, HotPlug, HotPlugRole, LineState, MAX_CONFIGURATION_BYTES,
    MAX_DATA_CORES, MailboxRole, Memory, OrderlyEnd, Power, PowerRole, Steering, Watched, call_ways, declare,
    nothing_declared, steered_port_bytes, steered_ports,
};
use hal_api::{Clock, Instant, Wake};
use hal_arch_aarch64::{
    Boot, Cpu, LogHooks, Planned, crash_counts, entropy, entry, power_off, report_panic, reset, selftest,
    serving, sign_of_life, wake,
};
use hal_devices::drive_slots::PciDriveSlots;
use hal_devices::inventory::{self, DeviceOptions, Inventory, Owner};
use hal_devices::nvme::NvmeController;
use hal_devices::virtio::{DeviceSteering, VirtioConsole, VirtioNetPort, VirtioNetQueue};
use hal_devices::{CfiFlash, Pl011, PowerKey};
use heapless::Vec;

/// What `board.toml` says.
mod board {
    use app::plan::{Plan, PlanEntry, Role};
    include!(concat!(env!("OUT_DIR"), "/board.rs"));
}

/// Where control runs, and who is told that there is something to log.
const CONTROL_CORE: usize = 0;
/// How long a core whose devices cannot interrupt sleeps at most.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Private memory of role `control`: its slots, and the rings to the data core.
const CONTROL_BYTES: usize = 256 << 10;
/// Private memory of the ways by which all data cores reach the ports, beside what [`steered_port_bytes`] says.
const STEERING_BYTES: usize = 16 << 10;

/// By which control has the data cores end in order.
static END: OrderlyEnd = OrderlyEnd::new();
/// The core that each data core is.
static DATA_CORES: [AtomicU8; MAX_DATA_CORES] = [const { AtomicU8::new(0) }; MAX_DATA_CORES];

/// How each core's time is spent.
static METERS: [CoreMeter; board::MAX_CORES] = [const { CoreMeter::new() }; board::MAX_CORES];

type Data = DataCore<CoreQueue<VirtioNetQueue>, NvmeController>;
/// Something for each data core.
type PerCore<T> = Vec<T, MAX_DATA_CORES>;
type Slots = HotPlugRole<PciDriveSlots>;
type Store = ConfigurationStore<'static, CfiFlash>;

entry!(main);

fn main(mut boot: Boot) -> ! {
    hal_arch_aarch64::on_crash(&LogHooks {
        flush: hal_log_sink::flush_for_panic,
        history: hal_log_sink::history,
    });
    hal_log_sink::install(&hal_log_sink::Hooks {
        core_index: hal_arch_aarch64::core_index,
        micros: hal_arch_aarch64::micros,
    });
    let machine = boot.machine;
    let fault = selftest(&mut boot);
    let (options, warnings) = Options::parse(&machine.boot_arguments);
    report(&boot);
    for warning in &warnings {
        hal_log::warn!("boot argument \"{}\" is not used: expected {}", warning.word, warning.expected);
    }
    let plan = choose_plan(&options, 1 + boot.others.parked());
    let cores: PerCore<usize> = plan.data_cores().take(MAX_DATA_CORES).collect();
    for (place, core) in DATA_CORES.iter().zip(&cores) {
        place.store(*core as u8, Ordering::Relaxed);
    }
    END.set_cores(cores.len() as u8);
    let store = open_store(&mut boot);
    let Parts { mut data, slots, calls, configuration, console, polled } =
        divide(&mut boot, &options, &cores);
    let asking = declare(store, configuration, calls, &mut data, boot.timer.now());
    let mailbox = &mut mailbox(console, plan, asking);
    let timer = boot.timer;
    let power = Switch(boot.power_key.take());
    let mut control = PowerRole::new(line(boot.uart.take()), Some(power), &END);
    let first = cores.first().copied().unwrap_or(CONTROL_CORE);
    let on_core = |core| fault.and_then(|fault| fault.of_core(core, first));
    if first == CONTROL_CORE {
        let Some(data) = data.pop() else { panic!("plan {} has no data core", plan.name) };
        let mut data = Watched::new(data, alive(on_core(CONTROL_CORE)));
        let roles: &mut [&mut dyn app::Role] = &mut [&mut data, &mut control, slots, mailbox];
        CoreLoop::new(roles, timer, Sleep { cpu: boot.cpu, polled }, meter(CONTROL_CORE)).run();
    }
    // Taken from the end, one by one.
    for core in cores.iter().rev() {
        let Some(data) = data.pop() else { break };
        let mut data = Watched::new(data, alive(on_core(*core)));
        let meter = meter(*core);
        let started = boot.others.start(*core, move |cpu| {
            CoreLoop::new(&mut [&mut data], timer, Sleep { cpu, polled }, meter).run()
        });
        if started.is_err() {
            panic!("core {core} of plan {} does not start", plan.name);
        }
    }
    let mut control = Watched::new(&mut control, alive(on_core(CONTROL_CORE)));
    let roles: &mut [&mut dyn app::Role] = &mut [&mut control, slots, mailbox];
    CoreLoop::new(roles, timer, Sleep { cpu: boot.cpu, polled: false }, meter(CONTROL_CORE)).run()
}

/// The meter of a core; those that no plan can have share the last.
fn meter(core: usize) -> &'static CoreMeter {
    let [.., last] = &METERS;
    METERS.get(core).unwrap_or(last)
}

/// Reads what is stored in the machine's flash, where it has one.
fn open_store(boot: &mut Boot) -> Store {
    let flash = boot.flash.take().and_then(|found| {
        found.inspect_err(|error| hal_log::warn!("the flash is not used: {}", error.name())).ok()
    });
    let arena = boot.memory.arena(MAX_CONFIGURATION_BYTES);
    let memory = arena.and_then(|mut arena| arena.slice(MAX_CONFIGURATION_BYTES, |_| 0).ok());
    // Without memory no configuration is short enough, and the rest of the start fails for lack of it anyway.
    let memory = memory.unwrap_or_default();
    ConfigurationStore::open(flash, memory)
}

/// The mailbox on the operator's line, where the machine has one.
fn mailbox(
    console: Option<VirtioConsole>,
    plan: &'static Plan,
    asking: Asking<'static, CfiFlash>,
) -> MailboxRole<VirtioConsole, CfiFlash> {
    let counts = crash_counts();
    let polled = console.as_ref().is_some_and(|console| !console.has_interrupt());
    if console.is_some() {
        hal_log::info!("mailbox: {}", if polled { "virtio console, polled" } else { "virtio console" });
    }
    let facts = CardFacts {
        version: env!("CARGO_PKG_VERSION"),
        board: board::NAME,
        plan,
        meters: &METERS,
        crashes: counts.crashes,
        crashes_in_a_row: counts.in_a_row,
        end: |then| {
            END.ask(then);
            END.asked_for()
        },
    };
    MailboxRole::new(console, polled, facts, asking)
}

/// What a core does in each turn beside its roles: it tells the watchdog that it lives and the crash record that the
/// card serves, and it fails where the boot arguments ask for that.
fn alive<R: Serves + ?Sized>(fault: Option<Planned>) -> impl FnMut(&R, Instant) + Send {
    move |role, now| {
        sign_of_life();
        if role.serves() {
            serving();
        }
        if let Some(fault) = &fault {
            fault.happen(now);
        }
    }
}

/// Whether a role has the card serve hosts.
trait Serves {
    fn serves(&self) -> bool;
}

impl Serves for Data {
    fn serves(&self) -> bool {
        self.is_ready()
    }
}

impl<P> Serves for PowerRole<P, Switch> {
    fn serves(&self) -> bool {
        false
    }
}

fn report(boot: &Boot) {
    let machine = boot.machine;
    hal_log::info!("penstock {} on {}", env!("CARGO_PKG_VERSION"), board::NAME);
    hal_log::info!(
        "{} cores, {} MiB of memory free, GICv{}, messages through {}",
        1 + boot.others.parked(),
        boot.memory.left_bytes() >> 20,
        boot.gic_version,
        boot.msi.as_ref().map_or("none: devices are polled", |msi| msi.name()),
    );
    if !boot.watched_by_interrupt {
        hal_log::warn!("the watchdog has no interrupt of its own: cores watch each other only");
    }
    let counts = crash_counts();
    if counts.crashes > 0 {
        hal_log::warn!("crashes since power-on: {}, in a row: {}", counts.crashes, counts.in_a_row);
    }
    if boot.others.parked() + 1 < machine.cores.len() {
        hal_log::warn!("{} cores did not start", machine.cores.len() - boot.others.parked() - 1);
    }
    hal_log::info!("boot arguments \"{}\"", machine.boot_arguments.as_str());
}

fn choose_plan(options: &Options, cores: usize) -> &'static Plan {
    let name = options.plan.as_deref();
    let Some(plan) = plan::choose(board::PLANS, name, cores) else {
        panic!("no core plan for {cores} cores")
    };
    if let Some(name) = name.filter(|name| *name != plan.name) {
        hal_log::warn!("no core plan {} for {} cores", name, cores);
    }
    hal_log::info!("core plan {}", plan.name);
    for core in plan.cores_of(Role::Offload) {
        hal_log::info!("core {} is kept for accelerators; nothing runs there yet, and it stays asleep", core);
    }
    plan
}

/// What the cores run.
struct Parts {
    data: PerCore<&'static mut Data>,
    slots: &'static mut Slots,
    calls: Calls,
    configuration: Configuration<'static>,
    console: Option<VirtioConsole>,
    /// The data cores have to poll devices that cannot wake them.
    polled: bool,
}

/// Finds the devices and divides them and the memory between the data cores, which will be these cores, and control.
///
/// What is found is large and passes through the stack, as it does in what is called here: each in a frame of its own.
#[inline(never)]
fn divide(boot: &mut Boot, options: &Options, cores: &[usize]) -> Parts {
    let steering = make_steering(boot, cores.len());
    let Inventory { drives, slots, mut ports, console, polled } =
        find_devices(boot, options, cores, steering);
    let Some(Control { slots, rings, calls, desks, configuration }) = control_parts(boot, slots, cores.len())
    else {
        panic!("{} MiB of memory are not enough for role control", boot.memory.left_bytes() >> 20);
    };
    let of_port = |port: &VirtioNetPort| steered_port_bytes(cores.len(), port.pairs(), port.info().mtu);
    let ways = ports.iter().map(of_port).sum::<usize>() + mesh_bytes(cores.len());
    let pairs = ports.iter_mut().map(|port| (0..cores.len()).map_while(|pair| port.take_queue(pair)));
    let Some(mut between) = boot.memory.arena(ways) else {
        panic!("{} MiB of memory are not enough", ways >> 20)
    };
    let Ok(queues) = steered_ports(pairs, steering, &mut between, wake_data_core) else {
        panic!("memory for the ways between cores")
    };
    // With some left, because each core's part is rounded up to pages.
    let free_bytes = (boot.memory.largest_bytes() as usize).saturating_sub(cores.len() << 14);
    let sizes = Sizes::of_each(free_bytes, cores.len());
    let memory = &mut boot.memory;
    let parts = queues.into_iter().map(|queues| {
        let arena = memory.arena(sizes.private_bytes);
        let pages = memory.dma_as_found(sizes.pages * hal_mem::PAGE_BYTES, hal_mem::PAGE_BYTES);
        let (Some(arena), Some(pages)) = (arena, pages) else {
            panic!("{} MiB of memory are not enough", memory.left_bytes() >> 20);
        };
        (queues, Memory { arena, pages })
    });
    let now = boot.timer.now();
    let mut data = app::assemble_cores(parts, drives, options, &sizes, &mut between, entropy(), now)
        .unwrap_or_else(|short| {
            panic!("memory: {} bytes wanted, {} left", short.wanted_bytes, short.left_bytes)
        });
    for ((core, rings), desk) in data.iter_mut().zip(rings).zip(desks) {
        core.obey(rings);
        core.answer_calls_of(desk);
        core.end_when_asked(&END);
        core.wake_others_by(|core| wake_data_core(usize::from(core)));
    }
    Parts { data, slots, calls, configuration, console, polled }
}

/// Wakes the data core of this number.
fn wake_data_core(number: usize) {
    if let Some(core) = DATA_CORES.get(number) {
        wake(usize::from(core.load(Ordering::Relaxed)));
    }
}

/// Which data core a frame belongs to, decided by a key that nobody knows.
#[inline(never)]
fn make_steering(boot: &mut Boot, cores: usize) -> &'static Steering {
    let mut arena = boot.memory.arena(STEERING_BYTES);
    let steering = arena
        .as_mut()
        .and_then(|arena| arena.value(Steering::new(&Steering::key_from(entropy()), cores)).ok());
    let Some(steering) = steering else { panic!("no memory for the rule by which frames find their cores") };
    steering
}

/// What control runs, and the data cores' ends of its rings.
struct Control {
    slots: &'static mut Slots,
    rings: PerCore<DataEnds<'static, NvmeController>>,
    calls: Calls,
    desks: PerCore<CallDesk>,
    configuration: Configuration<'static>,
}

/// The role that watches the slots, and the ways between control and the data cores; `None` without memory for them.
#[inline(never)]
fn control_parts(boot: &mut Boot, slots: PciDriveSlots, cores: usize) -> Option<Control> {
    let mut arena = boot.memory.arena(DECLARED_BYTES + CONTROL_BYTES * cores)?;
    let mut ends = PerCore::<ControlEnds<'static, NvmeController>>::new();
    let mut rings = PerCore::new();
    for _ in 0..cores {
        let (of_control, of_data) = app::drive_ends(&mut arena).ok()?;
        // As many as there may be data cores.
        let _ = ends.push(of_control);
        let _ = rings.push(of_data);
    }
    let slots = arena.value(HotPlugRole::new(HotPlug::with_cores(slots, ends))).ok()?;
    let wake_data = |core| wake_data_core(usize::from(core));
    let (calls, desks) = call_ways(&mut arena, cores, wake_data, || wake(CONTROL_CORE)).ok()?;
    let configuration = nothing_declared(&mut arena).ok()?;
    Some(Control { slots, rings, calls, desks, configuration })
}

#[inline(never)]
fn find_devices(
    boot: &mut Boot,
    options: &Options,
    cores: &[usize],
    steering: &'static Steering,
) -> Inventory {
    let mtu_limit = options.mtu.unwrap_or(app::options::MAX_MTU);
    let Some(pcie) = &boot.machine.pcie else {
        hal_log::error!("no PCIe root complex in the device tree");
        return Inventory::default();
    };
    let wanted = DeviceOptions {
        data_cores: cores.len() as u16,
        mtu_limit,
        steering: Some(DeviceSteering { key: steering.key(), table: steering.indirection() }),
    };
    let Some(mut dma) = boot.memory.dma(inventory::memory_bytes(&wanted), hal_mem::PAGE_BYTES) else {
        panic!("not enough memory for the devices' rings");
    };
    let msi = &mut boot.msi;
    // SAFETY: boot has mapped all ranges of the node as device memory, and this is their one user.
    unsafe {
        inventory::take(pcie, &wanted, &mut dma, |requester, owner| {
            let core = match owner {
                Owner::DataCore(number) => *cores.get(number)?,
                Owner::Control => CONTROL_CORE,
            };
            msi.as_mut()?.allocate(pcie.msi_device_id(requester)?, core)
        })
    }
}

/// Moves log bytes to the UART as far as it takes them.
fn line(uart: Option<Pl011>) -> impl FnMut() -> LineState {
    let mut reader = hal_log_sink::take_reader();
    let mut buffer = [0u8; 256];
    let (mut sent, mut filled) = (0, 0);
    let mut uart = uart;
    move || {
        let (Some(reader), Some(uart)) = (reader.as_mut(), uart.as_mut()) else { return LineState::Idle };
        loop {
            if sent == filled {
                (sent, filled) = (0, reader.fill(&mut buffer));
                if filled == 0 {
                    return LineState::Idle;
                }
            }
            match uart.write(buffer.get(sent..filled).unwrap_or_default()) {
                0 => return LineState::Full,
                written => sent += written,
            }
        }
    }
}

/// The power key, where there is one, and PSCI behind it.
struct Switch(Option<PowerKey>);

impl Power for Switch {
    fn is_pressed(&mut self) -> bool {
        self.0.as_mut().is_some_and(PowerKey::take_press)
    }

    fn off(&mut self) {
        power_off();
    }

    fn restart(&mut self) {
        reset();
    }
}

/// Sleep of one core.
struct Sleep {
    cpu: Cpu,
    /// The core's devices cannot wake it.
    polled: bool,
}

impl Wake for Sleep {
    /// It finds what came while the last turn ran; WFI itself costs nothing, and wakes at once.
    const EMPTY_TURNS: u32 = 1;

    fn sleep_until(&mut self, deadline: Instant) {
        if self.cpu.index() != CONTROL_CORE && hal_log_sink::has_unread(self.cpu.index()) {
            wake(CONTROL_CORE);
        }
        let limit = if self.polled { self.cpu.now() + POLL_INTERVAL } else { Instant::FAR_FUTURE };
        self.cpu.sleep_until(deadline.min(limit));
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    report_panic(info)
}
