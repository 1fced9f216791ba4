//! The card as QEMU's `virt` machine, 64-bit Arm.
#![no_std]
#![no_main]

use core::panic::PanicInfo;
use core::time::Duration;

use app::options::Options;
use app::plan::{self, Plan, Role};
use app::sizes::Sizes;
use app::{
    CoreLoop, DataCore, DataEnds, DriveRings, Hardware, HotPlug, HotPlugRole, LineState, Memory, OrderlyEnd,
    Power, PowerRole, Watched,
};
use hal_api::{Clock, Instant, Wake};
use hal_arch_aarch64::{
    Boot, Cpu, LogHooks, Planned, crash_counts, entropy, entry, power_off, report_panic, selftest, serving,
    sign_of_life, wake,
};
use hal_devices::drive_slots::PciDriveSlots;
use hal_devices::inventory::{self, Inventory, PortOptions};
use hal_devices::nvme::NvmeController;
use hal_devices::virtio::VirtioNetQueue;
use hal_devices::{Pl011, PowerKey};

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

/// By which control has the data core end in order.
static END: OrderlyEnd = OrderlyEnd::new();

type Data = DataCore<VirtioNetQueue, NvmeController>;
type Slots = HotPlugRole<PciDriveSlots>;

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
    let data_core = plan.core_of(Role::Net, 0).unwrap_or(CONTROL_CORE);
    let Parts { data, slots, polled } = divide(&mut boot, &options, data_core);
    let timer = boot.timer;
    let power = boot.power_key.take().map(Button);
    let mut control = PowerRole::new(line(boot.uart.take()), power, &END);
    let on_core = |core| fault.and_then(|fault| fault.of_core(core, data_core));
    let mut data = Watched::new(data, alive(on_core(data_core)));
    if data_core == CONTROL_CORE {
        CoreLoop::new(&mut [&mut data, &mut control, slots], timer, Sleep { cpu: boot.cpu, polled }).run();
    }
    let started = boot
        .others
        .start(data_core, move |cpu| CoreLoop::new(&mut [&mut data], timer, Sleep { cpu, polled }).run());
    if started.is_err() {
        panic!("core {data_core} of plan {} does not start", plan.name);
    }
    let mut control = Watched::new(&mut control, alive(on_core(CONTROL_CORE)));
    CoreLoop::new(&mut [&mut control, slots], timer, Sleep { cpu: boot.cpu, polled: false }).run()
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

impl<P> Serves for PowerRole<P, Button> {
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
    plan
}

/// What the cores run.
struct Parts {
    data: &'static mut Data,
    slots: &'static mut Slots,
    /// The data core has to poll devices that cannot wake it.
    polled: bool,
}

/// Finds the devices and divides the memory between the data core, which will run on core `owner`, and control.
///
/// What is found is large and passes through the stack, as it does in what is called here: each in a frame of its own.
#[inline(never)]
fn divide(boot: &mut Boot, options: &Options, owner: usize) -> Parts {
    let Inventory { drives, slots, mut ports, polled } = find_devices(boot, options, owner);
    let Some((slots, rings)) = watch_slots(boot, slots) else {
        panic!("{} MiB of memory are not enough for role control", boot.memory.left_bytes() >> 20);
    };
    let ports = ports.iter_mut().filter_map(|port| port.take_queue(0)).collect();
    let sizes = Sizes::of(boot.memory.largest_bytes() as usize);
    let arena = boot.memory.arena(sizes.private_bytes);
    let pages = boot.memory.dma_as_found(sizes.pages * hal_mem::PAGE_BYTES, hal_mem::PAGE_BYTES);
    let (Some(arena), Some(pages)) = (arena, pages) else {
        panic!("{} MiB of memory are not enough", boot.memory.left_bytes() >> 20);
    };
    let hardware = Hardware { ports, drives };
    let data = app::assemble(hardware, options, &sizes, Memory { arena, pages }, entropy(), boot.timer.now())
        .unwrap_or_else(|short| {
            panic!("memory: {} bytes wanted, {} left", short.wanted_bytes, short.left_bytes)
        });
    data.obey(rings);
    data.end_when_asked(&END);
    Parts { data, slots, polled }
}

/// The role that watches the slots, and the data core's ends of its rings; `None` without memory for them.
#[inline(never)]
fn watch_slots(
    boot: &mut Boot,
    slots: PciDriveSlots,
) -> Option<(&'static mut Slots, DataEnds<'static, NvmeController>)> {
    let mut arena = boot.memory.arena(CONTROL_BYTES)?;
    let (control, data) = arena.value(DriveRings::new()).ok()?.split();
    let role = arena.value(HotPlugRole::new(HotPlug::new(slots, control))).ok()?;
    Some((role, data))
}

#[inline(never)]
fn find_devices(boot: &mut Boot, options: &Options, owner: usize) -> Inventory {
    let mtu_limit = options.mtu.unwrap_or(app::options::MAX_MTU);
    let Some(pcie) = &boot.machine.pcie else {
        hal_log::error!("no PCIe root complex in the device tree");
        return Inventory::default();
    };
    let ports = PortOptions { mtu_limit, pairs: 1, steering: None };
    let Some(mut dma) = boot.memory.dma(inventory::memory_bytes(&ports), hal_mem::PAGE_BYTES) else {
        panic!("not enough memory for the devices' rings");
    };
    let msi = &mut boot.msi;
    // SAFETY: boot has mapped all ranges of the node as device memory, and this is their one user.
    unsafe {
        inventory::take(pcie, &ports, &mut dma, |requester, _| {
            msi.as_mut()?.allocate(pcie.msi_device_id(requester)?, owner)
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

/// The power key, and PSCI behind it.
struct Button(PowerKey);

impl Power for Button {
    fn is_pressed(&mut self) -> bool {
        self.0.take_press()
    }

    fn off(&mut self) {
        power_off();
    }
}

/// Sleep of one core.
struct Sleep {
    cpu: Cpu,
    /// The core's devices cannot wake it.
    polled: bool,
}

impl Wake for Sleep {
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
