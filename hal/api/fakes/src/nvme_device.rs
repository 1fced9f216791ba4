//! An NVMe controller in the process: registers and queues behind [`hal_api::NvmeDevice`], blocks in a [`Media`].
//!
//! It executes commands against real memory, by the addresses that PRP entries name, and is stricter than
//! hardware: what a careful driver never does (a bad PRP entry, a queue used before it was created, a transfer
//! beyond MDTS, an optional command that was not claimed, a command identifier used twice) panics instead of failing
//! quietly. Its [`NvmeControl`] turns it into a bad drive: statuses, commands that never end, wrong completions,
//! a fatal state, removal. NVM Express Base 2.0, NVM Command Set 1.0; written from the specification alone, so that
//! it does not share a mistake with the firmware's own structures.
//!
//! Time is counted in polls: each look at a completion queue is one.

mod dma;
mod execute;
mod faults;
mod identify;
mod lies;
mod media;
mod model;
mod pace;
mod run;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hal_api::{
    COMMAND_BYTES, COMPLETION_BYTES, CommandQueue, DeviceAddress, NvmeDevice, QueueFull, QueueLocation,
};
use hal_mem::DmaRegion;

pub use faults::NvmeAbort;
use model::Model;
pub use pace::QueueNews;

pub use media::{
    CachedMedia, MEDIA_INTERNAL_ERROR, MEDIA_SUCCESS, MEDIA_UNRECOVERED_READ, MEDIA_WRITE_FAULT, Media,
    MediaEnd, MediaOperation, MediaRequest, RamMedia, Segment, gather, scatter, segments_of,
};

/// One namespace of the fake.
#[derive(Debug, Clone)]
pub struct NvmeNamespace {
    /// NSID.
    pub nsid: u32,
    /// Size in blocks.
    pub blocks: u64,
    /// Log2 of the block size.
    pub block_shift: u8,
    /// MS of its format.
    pub metadata_bytes: u16,
    /// DPS.
    pub protection: u8,
    /// CSI as the descriptor list tells it: 0 NVM, 1 key value, 2 zoned.
    pub command_set: u8,
    /// DLFEAT.
    pub deallocate_features: u8,
    /// NGUID; zero for none.
    pub nguid: [u8; 16],
    /// EUI-64; zero for none.
    pub eui64: [u8; 8],
    /// UUID; zero for none.
    pub uuid: [u8; 16],
}

impl NvmeNamespace {
    /// A plain namespace with an NGUID and a UUID made from its NSID.
    #[must_use]
    pub fn new(nsid: u32, blocks: u64, block_shift: u8) -> Self {
        let mut nguid = [0xa5; 16];
        nguid[12..].copy_from_slice(&nsid.to_be_bytes());
        let mut uuid = [0x5a; 16];
        uuid[12..].copy_from_slice(&nsid.to_be_bytes());
        Self {
            nsid,
            blocks,
            block_shift,
            metadata_bytes: 0,
            protection: 0,
            command_set: 0,
            deallocate_features: 0b1001,
            nguid,
            eui64: [0; 8],
            uuid,
        }
    }
}

/// What kind of drive the fake is.
#[derive(Debug, Clone)]
pub struct NvmeConfig {
    /// PCI address, packed.
    pub address: u16,
    /// VS.
    pub version: u32,
    /// CAP.MQES + 1.
    pub max_queue_entries: u32,
    /// Entries of the queues' memory; [`QueueLocation`] gives the smaller of this and the limit of CAP.
    pub queue_entries: u32,
    /// CAP.TO in 500 ms.
    pub ready_timeout: u8,
    /// CAP.CRMS and CRTO: `Some(crto)` sets CRMS.
    pub ready_timeouts: Option<u32>,
    /// CAP.MPSMIN.
    pub min_page: u8,
    /// Queue pairs with memory, the admin pair included.
    pub queue_pairs: u16,
    /// I/O queue pairs that Set Features grants.
    pub io_queues_granted: u16,
    /// SN, padded by the fake.
    pub serial: String,
    /// MN, padded by the fake.
    pub model: String,
    /// MDTS.
    pub mdts: u8,
    /// ONCS.
    pub optional_commands: u16,
    /// OAES.
    pub async_events: u32,
    /// RTD3E in microseconds.
    pub entry_latency_us: u32,
    /// VWC bit 0.
    pub volatile_write_cache: bool,
    /// Whether Identify with CNS 06h succeeds.
    pub nvm_controller_data: bool,
    /// VSL.
    pub verify_limit: u8,
    /// WZSL.
    pub write_zeroes_limit: u8,
    /// DMRL.
    pub dataset_ranges: u8,
    /// DMRSL.
    pub dataset_range_blocks: u32,
    /// DMSL.
    pub dataset_blocks: u64,
    /// The namespaces, by ascending NSID.
    pub namespaces: Vec<NvmeNamespace>,
    /// Polls that a command takes, least and most.
    pub latency_polls: (u32, u32),
    /// Reads of CSTS until RDY follows CC.EN.
    pub ready_polls: u32,
    /// Seed of latencies and of the order of completions.
    pub seed: u64,
}

impl Default for NvmeConfig {
    fn default() -> Self {
        Self {
            address: 0x0018,
            version: 0x0001_0400,
            max_queue_entries: 2048,
            queue_entries: 128,
            ready_timeout: 15,
            ready_timeouts: None,
            min_page: 0,
            queue_pairs: 2,
            io_queues_granted: 64,
            serial: "FAKE0001".into(),
            model: "Fake NVMe drive".into(),
            mdts: 7,
            optional_commands: 0x75d,
            async_events: 1 << 8 | 1 << 9,
            entry_latency_us: 0,
            volatile_write_cache: true,
            nvm_controller_data: true,
            verify_limit: 0,
            write_zeroes_limit: 0,
            dataset_ranges: 0,
            dataset_range_blocks: 0,
            dataset_blocks: 0,
            namespaces: vec![NvmeNamespace::new(1, 16384, 9)],
            latency_polls: (0, 0),
            ready_polls: 2,
            seed: 1,
        }
    }
}

/// What happens to a command instead of its normal end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NvmeEffect {
    /// It is not executed and ends with this status (the 15 bits above the phase tag).
    Status(u16),
    /// It never ends. A read of data that hangs writes garbage to its buffer at the moment of the next reset, as a
    /// drive may.
    Never,
    /// It is executed, and a command identifier that nobody used comes back first.
    WrongIdentifier,
    /// It is executed, and its completion comes twice.
    Duplicate,
    /// Before it is executed, the completion comes once more of an old command that had its place in the driver's table.
    Late,
    /// Before it is executed, a completion comes of a place that no command has.
    Stranger,
    /// It is executed, and its completion has the wrong phase tag: neither it nor what comes behind it is seen.
    WrongPhase,
    /// It is executed, and its completion has an SQ head beyond the queue.
    WrongHead,
}

/// Which commands an effect hits.
#[derive(Debug, Clone, Copy)]
pub struct NvmeInjection {
    /// Only of this queue.
    pub queue: Option<u16>,
    /// Only of this opcode.
    pub opcode: Option<u8>,
    /// Matching commands that pass first.
    pub skip: u32,
    /// Commands that are hit then.
    pub count: u32,
    /// What happens to them.
    pub effect: NvmeEffect,
}

/// The fake controller as a driver sees it.
#[derive(Debug)]
pub struct FakeNvme {
    model: Arc<Mutex<Model>>,
    taken: Vec<bool>,
}

/// A queue pair of a [`FakeNvme`].
#[derive(Debug)]
pub struct FakeNvmeQueue {
    model: Arc<Mutex<Model>>,
    qid: u16,
    depth: u16,
    /// Written to the ring; the doorbell was not rung for them.
    staged: Vec<[u8; COMMAND_BYTES]>,
}

/// The test's hand inside a [`FakeNvme`].
#[derive(Debug, Clone)]
pub struct NvmeControl {
    model: Arc<Mutex<Model>>,
}

fn lock(model: &Mutex<Model>) -> MutexGuard<'_, Model> {
    // A panic of the model is a verdict already; what is left may still be looked at.
    model.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeNvme {
    /// A controller, just powered up, and the handle that controls it. It refuses to touch memory until
    /// [`NvmeControl::allow_dma`] tells it where there is some.
    #[must_use]
    pub fn new(config: NvmeConfig) -> (Self, NvmeControl) {
        Self::with_media(config, Vec::new())
    }

    /// As [`FakeNvme::new`], with storage for the namespaces in their order; those for which there is none get RAM.
    #[must_use]
    pub fn with_media(config: NvmeConfig, media: Vec<Box<dyn Media>>) -> (Self, NvmeControl) {
        let pairs = usize::from(config.queue_pairs);
        let model = Arc::new(Mutex::new(Model::new(config, media)));
        let control = NvmeControl { model: Arc::clone(&model) };
        (Self { model, taken: vec![false; pairs] }, control)
    }
}

impl FakeNvme {
    pub(crate) fn may_use_bus(&self) -> bool {
        lock(&self.model).bus_master
    }
}

impl NvmeControl {
    /// Lets the device read and write `region`. Whoever reads or writes there at the same time sees a race, as
    /// with hardware, but never an invalid address.
    pub fn allow_dma(&self, region: &DmaRegion) {
        lock(&self.model).dma.allow(region);
    }

    /// Lets the device read and write what `other` may.
    pub fn reach_as(&self, other: &NvmeControl) {
        let windows = lock(&other.model).dma.windows();
        lock(&self.model).dma.set_windows(windows);
    }

    /// Adds an effect on commands to come.
    pub fn inject(&self, injection: NvmeInjection) {
        lock(&self.model).injections.push(injection);
    }

    /// Ends all effects on commands to come.
    pub fn clear_injections(&self) {
        lock(&self.model).injections.clear();
    }

    /// Sets CSTS.CFS until the next reset; nothing completes meanwhile.
    pub fn set_fatal(&self) {
        lock(&self.model).fatal = true;
    }

    /// Pulls the drive (all reads give ones, nothing is written or answered) or plugs it in again, as after a power cycle.
    /// Until the driver has noticed, doorbells go nowhere.
    pub fn set_removed(&self, removed: bool) {
        lock(&self.model).set_removed(removed);
    }

    /// While set, CSTS.RDY keeps its value whatever CC.EN says.
    pub fn set_ready_stuck(&self, stuck: bool) {
        lock(&self.model).ready_stuck = stuck;
    }

    /// Changes the drive's properties, visible from the next reset on at the latest. Blocks are kept by NSID where
    /// their size is the same; what is new gets RAM.
    pub fn reconfigure(&self, change: impl FnOnce(&mut NvmeConfig)) {
        lock(&self.model).reconfigure(change);
    }

    /// Copies out of a namespace's blocks, what a read would give now.
    #[must_use]
    pub fn read_disk(&self, nsid: u32, offset: usize, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        lock(&self.model).disk(nsid).peek(offset as u64, &mut data);
        data
    }

    /// Writes into a namespace's blocks behind the driver's back.
    pub fn write_disk(&self, nsid: u32, offset: usize, data: &[u8]) {
        lock(&self.model).disk(nsid).poke(offset as u64, data);
    }

    /// How many commands with `opcode` were fetched from I/O queues.
    #[must_use]
    pub fn io_commands(&self, opcode: u8) -> u64 {
        lock(&self.model).io_commands[usize::from(opcode)]
    }

    /// Whether the device may use the bus.
    #[must_use]
    pub fn bus_master(&self) -> bool {
        lock(&self.model).bus_master
    }

    /// CC as last written.
    #[must_use]
    pub fn configuration(&self) -> u32 {
        lock(&self.model).cc
    }
}

impl NvmeDevice for FakeNvme {
    type Queue = FakeNvmeQueue;

    fn capabilities(&self) -> u64 {
        lock(&self.model).capabilities()
    }

    fn version(&self) -> u32 {
        let model = lock(&self.model);
        if model.removed { u32::MAX } else { model.config.version }
    }

    fn status(&self) -> u32 {
        lock(&self.model).status()
    }

    fn ready_timeouts(&self) -> u32 {
        let model = lock(&self.model);
        if model.removed { u32::MAX } else { model.config.ready_timeouts.unwrap_or(0) }
    }

    fn set_configuration(&mut self, cc: u32) {
        lock(&self.model).set_configuration(cc);
    }

    fn configuration(&self) -> u32 {
        let model = lock(&self.model);
        if model.removed { u32::MAX } else { model.cc }
    }

    fn set_admin_queue(&mut self) {
        lock(&self.model).set_admin_queue();
    }

    fn set_bus_master(&mut self, on: bool) {
        lock(&self.model).set_bus_master(on);
    }

    fn queue_pairs(&self) -> u16 {
        lock(&self.model).config.queue_pairs
    }

    fn take_queue(&mut self, qid: u16) -> Option<FakeNvmeQueue> {
        let taken = self.taken.get_mut(usize::from(qid))?;
        if core::mem::replace(taken, true) {
            return None;
        }
        let depth = (self.queue_location(qid)?.entries - 1) as u16;
        Some(FakeNvmeQueue { model: Arc::clone(&self.model), qid, depth, staged: Vec::new() })
    }

    fn return_queue(&mut self, qid: u16, queue: FakeNvmeQueue) {
        assert_eq!(queue.qid, qid, "a queue comes back to its own place");
        assert!(!lock(&self.model).bus_master, "a queue comes back while the device may use the bus");
        assert!(core::mem::take(&mut self.taken[usize::from(qid)]), "a queue comes back that was not taken");
    }

    fn reset_queue(&mut self, queue: &mut FakeNvmeQueue) {
        queue.staged.clear();
        queue.depth = (self.queue_location(queue.qid).expect("a queue of this device").entries - 1) as u16;
        lock(&self.model).reset_queue(queue.qid);
    }

    fn queue_location(&self, qid: u16) -> Option<QueueLocation> {
        lock(&self.model).location(qid)
    }

    fn address(&self) -> u16 {
        lock(&self.model).config.address
    }
}

impl CommandQueue for FakeNvmeQueue {
    fn depth(&self) -> u16 {
        self.depth
    }

    fn submit(&mut self, command: &[u8; COMMAND_BYTES]) -> Result<(), QueueFull> {
        if lock(&self.model).waiting(self.qid) + self.staged.len() >= usize::from(self.depth) {
            return Err(QueueFull);
        }
        self.staged.push(*command);
        Ok(())
    }

    fn complete(&mut self) -> Option<[u8; COMPLETION_BYTES]> {
        lock(&self.model).complete(self.qid)
    }

    fn flush(&mut self) {
        let mut model = lock(&self.model);
        for command in self.staged.drain(..) {
            model.fetch(self.qid, command);
        }
    }

    fn arm(&mut self) -> bool {
        let mut model = lock(&self.model);
        // The device works on meanwhile: what it ends before it is asked raises no interrupt, only the look finds it.
        model.go_on(self.qid);
        model.set_armed(self.qid, true);
        model.look_once_more(self.qid)
    }

    fn disarm(&mut self) {
        lock(&self.model).set_armed(self.qid, false);
    }
}

/// Little-endian fields of a command.
fn dword(command: &[u8; COMMAND_BYTES], index: usize) -> u32 {
    u32::from_le_bytes(command[index * 4..index * 4 + 4].try_into().expect("4 bytes"))
}

/// The ring memory of queue pair `index` in `region`, which nothing but the addresses is used of.
fn ring_addresses(region: &DmaRegion, index: usize) -> (DeviceAddress, DeviceAddress) {
    let base = region.device_address().0 + index as u64 * 2 * 4096;
    (DeviceAddress(base), DeviceAddress(base + 4096))
}
