//! The cores other than the first: started through PSCI at boot, parked asleep, given work once.

use core::cell::UnsafeCell;
use core::convert::Infallible;
use core::mem::{align_of, size_of};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use hal_api::{Clock, Instant};

use crate::MAX_CORES;
use crate::boot::{Shared, shared};
use crate::cpu::Cpu;
use crate::{interrupts, psci, watchdog};

/// A core that does not come up within this time is absent.
const START_LIMIT_MS: u64 = 2000;
/// Room for what a core is started with.
const JOB_BYTES: usize = 1024;

const ABSENT: u32 = 0;
const PARKED: u32 = 1;
const GIVEN: u32 = 2;
const RUNNING: u32 = 3;

/// Why a core was not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartError {
    /// The machine has no such core, or it did not come up.
    Absent,
    /// It runs already.
    Running,
}

/// What a core reads before its MMU is on; see `other_entry` in the entry code.
#[repr(C, align(128))]
struct StartRecord {
    table_root: AtomicU64,
    index: AtomicU64,
}

/// Runs the job that lies at an address, of the type that it was written as.
type RunJob = unsafe fn(*const u8, Cpu) -> !;

#[repr(C, align(128))]
struct Mailbox {
    state: AtomicU32,
    run: UnsafeCell<Option<RunJob>>,
    job: UnsafeCell<[u128; JOB_BYTES / 16]>,
}

// SAFETY: `run` and `job` are written by the holder of `OtherCores` in state PARKED alone, and read by the core
// itself in state GIVEN alone; the state's release and acquire hand them over.
unsafe impl Sync for Mailbox {}

static RECORDS: [StartRecord; MAX_CORES] =
    [const { StartRecord { table_root: AtomicU64::new(0), index: AtomicU64::new(0) } }; MAX_CORES];
static MAILBOXES: [Mailbox; MAX_CORES] = [const {
    Mailbox {
        state: AtomicU32::new(ABSENT),
        run: UnsafeCell::new(None),
        job: UnsafeCell::new([0; JOB_BYTES / 16]),
    }
}; MAX_CORES];

unsafe extern "C" {
    static other_entry: u8;
}

/// The parked cores. One value exists.
#[derive(Debug)]
pub struct OtherCores(());

impl OtherCores {
    /// Whether core `index` came up and waits for work.
    #[must_use]
    pub fn is_parked(&self, index: usize) -> bool {
        MAILBOXES.get(index).is_some_and(|mailbox| mailbox.state.load(Ordering::Acquire) == PARKED)
    }

    /// How many cores are parked.
    #[must_use]
    pub fn parked(&self) -> usize {
        (0..MAX_CORES).filter(|index| self.is_parked(*index)).count()
    }

    /// Runs `job` on core `index` (1 and up) with that core's [`Cpu`]. What it captures moves there; up to 1 KiB. The
    /// job never returns.
    ///
    /// # Errors
    /// [`StartError`]; the job is dropped then.
    pub fn start<F>(&mut self, index: usize, job: F) -> Result<(), StartError>
    where
        F: FnOnce(Cpu) -> Infallible + Send + 'static,
    {
        const { assert!(size_of::<F>() <= JOB_BYTES && align_of::<F>() <= 16) };
        let mailbox = MAILBOXES.get(index).ok_or(StartError::Absent)?;
        match mailbox.state.load(Ordering::Acquire) {
            PARKED => {}
            ABSENT => return Err(StartError::Absent),
            _ => return Err(StartError::Running),
        }
        // SAFETY: parked, so the core does not look; `&mut self` is the only writer; size and alignment fit.
        unsafe {
            mailbox.job.get().cast::<F>().write(job);
            *mailbox.run.get() = Some(run_job::<F>);
        }
        mailbox.state.store(GIVEN, Ordering::Release);
        interrupts::wake(index);
        Ok(())
    }
}

/// # Safety
/// `job` points to an `F` that nobody else will use.
unsafe fn run_job<F: FnOnce(Cpu) -> Infallible>(job: *const u8, cpu: Cpu) -> ! {
    // SAFETY: the caller's promise.
    let job = unsafe { job.cast::<F>().read() };
    match job(cpu) {}
}

/// Starts all cores of the machine but the first, and waits until they are parked or overdue.
pub(crate) fn start_all(shared: &Shared) -> OtherCores {
    for (index, mpidr) in shared.machine.cores.iter().enumerate().skip(1) {
        let Some(record) = RECORDS.get(index) else { break };
        record.table_root.store(shared.tables.root(), Ordering::Relaxed);
        record.index.store(index as u64, Ordering::Relaxed);
        let address = &raw const *record as u64;
        // SAFETY: writes the record's line back to memory, where a core without caches reads it.
        unsafe {
            core::arch::asm!("dc cvac, {}", "dsb sy", in(reg) address, options(nostack, preserves_flags))
        };
        // SAFETY: `other_entry` runs with the MMU off and takes the record's address.
        let started = unsafe { psci::cpu_on(*mpidr, &raw const other_entry as u64, address) };
        let deadline = shared.timer.now() + core::time::Duration::from_millis(START_LIMIT_MS);
        let parked =
            || MAILBOXES.get(index).is_some_and(|mailbox| mailbox.state.load(Ordering::Acquire) == PARKED);
        while started && !parked() && shared.timer.now() < deadline {
            core::hint::spin_loop();
        }
    }
    OtherCores(())
}

#[unsafe(no_mangle)]
extern "C" fn other_core(index: usize) -> ! {
    let shared = shared();
    interrupts::initialize_core(&shared.machine, index);
    watchdog::start_core(index);
    let mut cpu = Cpu::new(index, shared.timer);
    let mailbox = MAILBOXES.get(index).expect("started with an index in range");
    mailbox.state.store(PARKED, Ordering::Release);
    loop {
        if mailbox.state.load(Ordering::Acquire) == GIVEN {
            mailbox.state.store(RUNNING, Ordering::Relaxed);
            // SAFETY: given, so the writer is done, and RUNNING keeps it from writing again.
            let run = unsafe { *mailbox.run.get() };
            if let Some(run) = run {
                // SAFETY: `run` and `job` were written together for each other, and are used once.
                unsafe { run(mailbox.job.get().cast(), cpu) }
            }
        }
        cpu.sleep_until(Instant::FAR_FUTURE);
    }
}
