//! The card as an ordinary Linux process: the same `app`, with threads as cores, files as drives, and a TAP interface or
//! a unix socket as its port.

mod arguments;
mod cores;
mod drives;

use std::io::Write;
use std::process::ExitCode;
use std::sync::OnceLock;

use app::options::Options;
use app::plan::Plan;
use app::sizes::Sizes;
use app::{
    CardFacts, ConfigurationStore, CoreMeter, DataCore, Hardware, MAX_CONFIGURATION_BYTES, MailboxRole,
    Memory, call_ways,
};
use clap::Parser;
use hal_api::{Clock, FrameQueue};
use hal_fakes::FakeNvme;
use hal_hosted::{
    FlashFile, InterfaceSetup, MailboxSocket, MonotonicClock, Sleeper, TapError, TapQueue, WireQueue,
    WireSide,
};
use hal_mem::PAGE_BYTES;

use arguments::{Arguments, Place};
use cores::Cores;

/// What `board.toml` says.
mod board {
    use app::plan::{Plan, PlanEntry, Role};
    include!(concat!(env!("OUT_DIR"), "/board.rs"));
}

/// MTU of a wire where nothing else is said, as QEMU's port has it.
const WIRE_MTU: u16 = 1500;
/// Private memory of role `control`: its rings to the data core, and what is declared.
const CONTROL_BYTES: usize = app::DECLARED_BYTES + (64 << 10);
/// Name of the interface in a namespace of its own.
const OWN_INTERFACE: &str = "card0";
/// Exit code of bad input, as clap has it.
const BAD_INPUT: u8 = 2;
/// Exit code where this system offers no namespace, or no TAP interface in it: EX_UNAVAILABLE of sysexits(3).
const UNAVAILABLE: u8 = 69;

static CLOCK: OnceLock<MonotonicClock> = OnceLock::new();

fn clock() -> MonotonicClock {
    *CLOCK.get_or_init(MonotonicClock::start)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    hal_log::host::configure(hal_log::host::Level::Info, || clock().now().as_micros());
    match prepare(&arguments) {
        Ok(run) => run(),
        Err(refusal) => {
            let (code, why) = match refusal {
                Refusal::Input(why) => (BAD_INPUT, why),
                Refusal::System(why) => (UNAVAILABLE, why),
            };
            // The exit code counts, whether or not somebody reads why.
            let _ = writeln!(std::io::stderr().lock(), "error: {why}");
            ExitCode::from(code)
        }
    }
}

/// Why nothing starts, in a sentence.
enum Refusal {
    /// Something is wrong with what was asked for.
    Input(String),
    /// This system offers no namespace, or no TAP interface in one, whatever is asked for.
    System(String),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Input(why)
    }
}

/// What is left to do once nothing can be wrong with the input any more.
type Run = Box<dyn FnOnce() -> ExitCode>;

/// Opens everything that the arguments name, before anything starts.
fn prepare(arguments: &Arguments) -> Result<Run, Refusal> {
    let options = arguments.options()?;
    let host = arguments.namespace.then(|| arguments.host_address(&options)).transpose()?;
    let mut blocks = Vec::new();
    for spec in &arguments.drives {
        blocks.push(drives::open(spec)?);
    }
    // After the files' locks: they say better that a file is named twice.
    drives::check_serials(&arguments.drives)?;
    if let Some((address, prefix)) = host {
        enter_namespace(address, prefix).map_err(Refusal::System)?;
    }
    let system = |error: std::io::Error| error.to_string();
    let cpus = hal_hosted::allowed_cpus().map_err(system)?;
    for cpu in arguments.cpus.iter().flat_map(|list| &list.0) {
        hal_hosted::check_cpu(*cpu)
            .map_err(|error| format!("--cpus: no core can be kept on CPU {cpu}: {error}"))?;
    }
    let plan = Arguments::core_plan(&options, cpus.len())?;
    let sleeper = Sleeper::new(clock()).map_err(system)?;
    let watcher = sleeper.watcher();
    let sizes = Sizes::of(usize::try_from(arguments.memory).map_err(|_| "--memory: too large".to_owned())?);
    let pages = hal_hosted::map_memory(sizes.pages * PAGE_BYTES).map_err(system)?;
    let private = hal_hosted::map_memory(sizes.private_bytes).map_err(system)?;
    // SAFETY: freshly mapped for the rest of the program, and reached through the arena alone from here on.
    let arena = unsafe { hal_mem::Arena::new(private.as_ptr(), private.len()) };
    let memory = Memory { arena, pages };
    let control_sleeper = Sleeper::new(clock()).map_err(system)?;
    let mailbox = arguments.mailbox.as_deref().map(|path| {
        // Without a core for control, the data core does its work.
        let sleeper = if plan.cores > 1 { &control_sleeper } else { &sleeper };
        MailboxSocket::listen(path, sleeper.watcher())
    });
    let mailbox = mailbox.transpose().map_err(|error| format!("--mailbox {error}"))?;
    let flash = arguments.config.as_deref().map(FlashFile::open).transpose();
    let flash = flash.map_err(|error| format!("--config {error}"))?;
    let parts = Parts { plan, cpus, options, sizes, memory, sleeper, control_sleeper, mailbox, flash };
    let specs = arguments.drives.clone();
    let drives = drives::make(&specs, blocks, &parts.memory.pages, &watcher).map_err(system)?;
    if arguments.wires.is_empty() {
        let own = [OWN_INTERFACE.to_owned()];
        let names = if arguments.taps.is_empty() { &own[..] } else { &arguments.taps };
        let mtu = parts.options.mtu;
        let setup = host.map(|(address, prefix)| InterfaceSetup { address, prefix, mtu });
        let open = |(number, name): (usize, &String)| {
            TapQueue::open(name, setup.as_ref(), arguments.mac_of(number), watcher.clone())
        };
        let ports: Result<_, TapError> = names.iter().enumerate().map(open).collect();
        let ports = ports.map_err(|error| tap_refusal(arguments, &error))?;
        return start(arguments, parts, ports, drives, Vec::new());
    }
    let mtu = parts.options.mtu.unwrap_or(WIRE_MTU);
    let open = |(number, side)| WireQueue::open(side, arguments.mac_of(number), mtu, watcher.clone());
    let ports: Result<_, _> = arguments.wires.iter().enumerate().map(open).collect();
    let ports = ports.map_err(|error| format!("wire {error}"))?;
    let sockets = arguments.wires.iter().filter_map(|side| match side {
        WireSide::Listen(path) => Some(path.clone()),
        WireSide::Connect(_) => None,
    });
    start(arguments, parts, ports, drives, sockets.collect())
}

/// All of the card but its devices.
struct Parts {
    plan: &'static Plan,
    cpus: Vec<usize>,
    options: Options,
    sizes: Sizes,
    memory: Memory,
    /// Of the data core.
    sleeper: Sleeper,
    control_sleeper: Sleeper,
    mailbox: Option<MailboxSocket>,
    flash: Option<FlashFile>,
}

fn start<F: FrameQueue + Send + 'static>(
    arguments: &Arguments,
    parts: Parts,
    ports: heapless::Vec<F, { app::sizes::MAX_PORTS }>,
    drives: heapless::Vec<FakeNvme, { app::sizes::MAX_DRIVES }>,
    sockets: Vec<std::path::PathBuf>,
) -> Result<Run, Refusal>
where
    DataCore<F, FakeNvme>: Send,
{
    report(arguments, &parts);
    let Parts { plan, cpus, options, sizes, memory, sleeper, control_sleeper, mailbox, flash } = parts;
    let store = ConfigurationStore::open(flash, vec![0; MAX_CONFIGURATION_BYTES].leak());
    let seed = seed().map_err(|error| format!("no randomness: {error}"))?;
    let hardware = Hardware { ports, drives };
    let control = hal_hosted::map_memory(CONTROL_BYTES).map_err(|error| error.to_string())?;
    // SAFETY: freshly mapped for the rest of the program, and reached through the arena alone from here on.
    let mut control = unsafe { hal_mem::Arena::new(control.as_ptr(), control.len()) };
    let short = |_| "no memory for role control".to_owned();
    let (calls, desks) = call_ways(&mut control, 1, |_| cores::wake(), cores::wake).map_err(short)?;
    let configuration = app::nothing_declared(&mut control).map_err(short)?;
    let data = app::assemble(hardware, &options, &sizes, memory, seed, clock().now()).map_err(|short| {
        format!("--memory: {} bytes wanted, {} left", short.wanted_bytes, short.left_bytes)
    })?;
    desks.into_iter().for_each(|desk| data.answer_calls_of(desk));
    let mut data_cores = [data];
    let asking = app::declare(store, configuration, calls, &mut data_cores, clock().now());
    let [data] = data_cores;
    let cpus = arguments.cpus.clone().map_or(cpus, |list| list.0);
    let cores = Cores {
        plan,
        cpus,
        clock: clock(),
        sleeper,
        control_sleeper,
        mailbox: MailboxRole::new(mailbox, false, facts(plan), asking),
    };
    let sockets = sockets.into_iter().chain(arguments.mailbox.clone()).collect::<Vec<_>>();
    Ok(Box::new(move || {
        let ended = cores.run(data);
        // The data core is never dropped, and its sockets' files are nobody else's.
        for socket in sockets {
            let _ = std::fs::remove_file(socket);
        }
        ended
    }))
}

/// How each core's time is spent.
static METERS: [CoreMeter; board::MAX_CORES] = [const { CoreMeter::new() }; board::MAX_CORES];

/// The meter of a core.
fn meter(core: usize) -> &'static CoreMeter {
    &METERS[core.min(METERS.len() - 1)]
}

fn facts(plan: &'static Plan) -> CardFacts {
    let (version, board) = (env!("CARGO_PKG_VERSION"), board::NAME);
    // A crash ends the process, which knows nothing of those before it.
    CardFacts { version, board, plan, meters: &METERS, crashes: 0, crashes_in_a_row: 0, end: cores::end }
}

fn report(arguments: &Arguments, parts: &Parts) {
    hal_log::info!(
        "penstock {} on {}, process {}",
        env!("CARGO_PKG_VERSION"),
        board::NAME,
        std::process::id()
    );
    hal_log::info!("{} MiB of memory, core plan {}", arguments.memory >> 20, parts.plan.name);
    if parts.plan.cores > parts.cpus.len() && arguments.cpus.is_none() {
        hal_log::warn!("{} cores share {} CPUs", parts.plan.cores, parts.cpus.len());
    }
    if arguments.needs_dhcp_unasked(&parts.options) {
        hal_log::warn!("no --ip: the card serves nobody until a DHCP server gives it an address");
    }
    for spec in &arguments.drives {
        match &spec.place {
            Place::File(path) => {
                hal_log::info!(
                    "drive {}, blocks of {} bytes",
                    path.display().to_string().as_str(),
                    spec.block_bytes
                );
            }
            Place::Ram(bytes) => {
                hal_log::info!(
                    "drive of {} MiB of memory, blocks of {} bytes",
                    bytes >> 20,
                    spec.block_bytes
                );
            }
        }
    }
}

/// What randomness there is: initial sequence numbers and ports are derived from it.
fn seed() -> std::io::Result<u64> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn enter_namespace(host: std::net::Ipv4Addr, prefix: u8) -> Result<(), String> {
    hal_hosted::enter_own_namespace().map_err(|error| {
        format!("--namespace: this system gives no user and network namespace: {error}; use --tap with a tap of your own")
    })?;
    let process = std::process::id();
    hal_log::info!("a namespace of its own; the host is {}/{} there", host.to_string().as_str(), prefix);
    hal_log::info!("enter it: nsenter --preserve-credentials -U -n -t {}", process);
    Ok(())
}

fn tap_refusal(arguments: &Arguments, error: &TapError) -> Refusal {
    if !arguments.namespace {
        return Refusal::Input(format!("--tap: {error}; or use --namespace, which takes no rights"));
    }
    let why = format!("--namespace: {error}");
    match error {
        // In a namespace of its own the process has every right that the system does not withhold.
        TapError::NoTun(_) | TapError::NoDevice(_) | TapError::NotOwned(_) => Refusal::System(why),
        _ => Refusal::Input(why),
    }
}
