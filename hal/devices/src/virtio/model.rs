//! The device's side of virtqueues and of a network device, for tests: stricter than hardware. It panics
//! where the driver breaks a rule, and breaks rules itself where a test says so.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::rc::Rc;

use hal_mem::{DmaRegion, MmioRegion};

use super::queue::{Notifier, QueueAddresses, SplitQueue};
use super::{Transport, VirtioError, status};

/// A buffer that the device holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub id: u16,
    pub address: u64,
    pub bytes: u32,
    pub writable: bool,
    /// What stood in a readable buffer when it was fetched.
    contents: Vec<u8>,
}

/// The device's side of one queue. Device addresses are host addresses.
#[derive(Debug)]
pub struct ModelQueue {
    addresses: QueueAddresses,
    entries: u16,
    event_index: bool,
    available_seen: u16,
    used: u16,
    held: BTreeMap<u16, Held>,
}

impl ModelQueue {
    pub fn new(queue: &SplitQueue, event_index: bool, index: u16) -> Self {
        Self {
            addresses: queue.addresses(),
            entries: queue.entries(),
            event_index,
            available_seen: index,
            used: index,
            held: BTreeMap::new(),
        }
    }

    fn read<T: Copy>(&self, address: u64) -> T {
        // SAFETY: addresses of rings and of held buffers, which are leaked memory of the test.
        unsafe { (address as *const T).read_volatile() }
    }

    fn write<T>(&self, address: u64, value: T) {
        // SAFETY: as above.
        unsafe { (address as *mut T).write_volatile(value) }
    }

    /// Takes the next buffer that the driver has published.
    pub fn fetch(&mut self) -> Option<Held> {
        let index: u16 = self.read(self.addresses.available.0 + 2);
        let waiting = index.wrapping_sub(self.available_seen);
        assert!(waiting as usize + self.held.len() <= self.entries as usize, "more buffers than entries");
        if waiting == 0 {
            return None;
        }
        let slot = u64::from(self.available_seen % self.entries);
        let id: u16 = self.read(self.addresses.available.0 + 4 + 2 * slot);
        assert!(id < self.entries, "descriptor out of range");
        let descriptor = self.addresses.descriptors.0 + 16 * u64::from(id);
        let flags: u16 = self.read(descriptor + 12);
        assert_eq!(flags & !2, 0, "only single buffers");
        assert_ne!(self.read::<u32>(descriptor + 8), 0, "empty buffer");
        let mut held = Held {
            id,
            address: self.read(descriptor),
            bytes: self.read(descriptor + 8),
            writable: flags & 2 != 0,
            contents: Vec::new(),
        };
        for other in self.held.values() {
            let apart = other.address + u64::from(other.bytes) <= held.address
                || held.address + u64::from(held.bytes) <= other.address;
            assert!(apart, "buffers overlap");
        }
        if !held.writable {
            held.contents = self.contents(&held);
        }
        assert!(self.held.insert(id, held.clone()).is_none(), "buffer published while the device has it");
        self.available_seen = self.available_seen.wrapping_add(1);
        Some(held)
    }

    fn contents(&self, held: &Held) -> Vec<u8> {
        (0..u64::from(held.bytes)).map(|at| self.read(held.address + at)).collect()
    }

    /// Returns a buffer. True when the driver asked for an interrupt at it.
    pub fn complete(&mut self, id: u16, bytes: u32) -> bool {
        let held = self.held.remove(&id).expect("the model returns only what it has");
        if !held.writable {
            assert_eq!(self.contents(&held), held.contents, "changed while the device had it");
        }
        self.put_used(u32::from(id), bytes)
    }

    /// Writes a used entry, whatever it says, and advances the index.
    pub fn put_used(&mut self, id: u32, bytes: u32) -> bool {
        let entry = self.addresses.used.0 + 4 + 8 * u64::from(self.used % self.entries);
        self.write(entry, id);
        self.write(entry + 4, bytes);
        let at = self.used;
        self.used = at.wrapping_add(1);
        self.write(self.addresses.used.0 + 2, self.used);
        if self.event_index {
            at == self.read::<u16>(self.addresses.available.0 + 4 + 2 * u64::from(self.entries))
        } else {
            self.read::<u16>(self.addresses.available.0) & 1 == 0
        }
    }

    /// Writes the used index alone.
    pub fn set_used_index(&mut self, index: u16) {
        self.write(self.addresses.used.0 + 2, index);
    }

    /// The available index up to which buffers were fetched.
    pub fn available_seen(&self) -> u16 {
        self.available_seen
    }

    /// Asks to be notified when the buffer with available index `event` is published.
    pub fn set_available_event(&mut self, event: u16) {
        self.write(self.addresses.used.0 + 4 + 8 * u64::from(self.entries), event);
    }

    /// Asks for no notifications, without event index.
    pub fn set_no_notify(&mut self, none: bool) {
        self.write(self.addresses.used.0, u16::from(none));
    }

    /// Takes a command of two descriptors, the second for the answer: its bytes, and where the answer goes.
    pub fn fetch_command(&mut self) -> Option<(Vec<u8>, u64)> {
        let index: u16 = self.read(self.addresses.available.0 + 2);
        if index == self.available_seen {
            return None;
        }
        let slot = u64::from(self.available_seen % self.entries);
        assert_eq!(
            self.read::<u16>(self.addresses.available.0 + 4 + 2 * slot),
            0,
            "the chain's first descriptor"
        );
        self.available_seen = self.available_seen.wrapping_add(1);
        let field = |id: u64| self.addresses.descriptors.0 + 16 * id;
        assert_eq!(self.read::<u32>(field(0) + 12), 1 | 1 << 16, "goes on with descriptor 1");
        assert_eq!(self.read::<u16>(field(1) + 12), 2, "ends with a writable one");
        assert_eq!(self.read::<u32>(field(1) + 8), 1, "room for the answer");
        let bytes = u64::from(self.read::<u32>(field(0) + 8));
        let address: u64 = self.read(field(0));
        Some(((0..bytes).map(|at| self.read(address + at)).collect(), self.read(field(1))))
    }

    /// Answers a command.
    pub fn answer(&mut self, place: u64, answer: u8) {
        self.write(place, answer);
        self.put_used(0, 1);
    }

    /// Fetches all that is published.
    pub fn fetch_all(&mut self) -> Vec<Held> {
        std::iter::from_fn(|| self.fetch()).collect()
    }

    /// Writes `bytes` into a fetched receive buffer and returns it.
    pub fn deliver(&mut self, bytes: &[u8]) -> bool {
        while self.fetch().is_some() {}
        let held = self.held.values().find(|held| held.writable).expect("a receive buffer").clone();
        self.fill(&held, bytes);
        self.complete(held.id, bytes.len() as u32)
    }

    /// Writes `bytes` into a receive buffer that the device has.
    pub fn fill(&mut self, held: &Held, bytes: &[u8]) {
        assert_eq!(self.held.get(&held.id), Some(held), "a buffer that the device has");
        assert!(held.writable && bytes.len() <= held.bytes as usize);
        for (at, byte) in (0u64..).zip(bytes) {
            self.write(held.address + at, *byte);
        }
    }

    /// Fetches the next transmitted frame with its header, leaving it with the device.
    pub fn fetch_frame(&mut self) -> Option<(u16, Vec<u8>)> {
        self.fetch().map(|held| {
            assert!(!held.writable);
            (held.id, held.contents)
        })
    }
}

/// Plain memory as registers, reached by the test as well.
#[derive(Debug)]
pub struct Registers {
    base: NonNull<u8>,
    bytes: usize,
}

impl Registers {
    pub fn new(bytes: usize) -> Self {
        Self { base: DmaRegion::leak_for_host(bytes).as_ptr(), bytes }
    }

    pub fn region(&self) -> MmioRegion {
        // SAFETY: leaked memory, aligned to 4096, accessed by volatile accesses only.
        unsafe { MmioRegion::new(self.base, self.bytes) }
    }
}

/// What the model device offers, and what became of it.
#[derive(Debug)]
pub struct ModelState {
    pub features: u64,
    pub accepted: u64,
    pub status: u8,
    pub statuses: Vec<u8>,
    pub entries: u16,
    pub refuses_features: bool,
    pub queues: BTreeMap<u16, ModelQueue>,
    pub vectors: Vec<Option<u16>>,
    pub kicks: Registers,
    /// Queue pairs that the device has.
    pub pairs: u16,
    /// Commands of the control queue, and what each is answered; commands beyond that are accepted.
    pub commands: Vec<Vec<u8>>,
    pub answers: Vec<u8>,
    /// Commands are neither taken nor answered.
    pub deaf: bool,
}

/// A device behind [`Transport`]; the test shares its state.
#[derive(Debug)]
pub struct ModelTransport {
    pub state: Rc<RefCell<ModelState>>,
    configuration: MmioRegion,
}

impl ModelTransport {
    pub fn new(features: u64, entries: u16, configuration: &[u8]) -> Self {
        let fields = Registers::new(configuration.len());
        for (at, byte) in configuration.iter().enumerate() {
            fields.region().write8(at, *byte);
        }
        let kicks = Registers::new(64);
        for at in 0..16 {
            kicks.region().write32(at * 4, u32::MAX);
        }
        let state = ModelState {
            features,
            accepted: 0,
            status: 0xff,
            statuses: Vec::new(),
            entries,
            refuses_features: false,
            queues: BTreeMap::new(),
            vectors: Vec::new(),
            kicks,
            pairs: 1,
            commands: Vec::new(),
            answers: Vec::new(),
            deaf: false,
        };
        Self { state: Rc::new(RefCell::new(state)), configuration: fields.region() }
    }
}

impl Transport for ModelTransport {
    fn reset(&mut self) -> Result<(), VirtioError> {
        self.state.borrow_mut().status = 0;
        Ok(())
    }

    fn status(&self) -> u8 {
        // The device does not wait for the driver to look, but it has to get its turn somewhere.
        let mut state = self.state.borrow_mut();
        state.serve_commands();
        state.status
    }

    fn set_status(&mut self, value: u8) {
        let mut state = self.state.borrow_mut();
        assert_eq!(value & state.status, state.status, "status bits are only added");
        let refused = if state.refuses_features { status::FEATURES_OK } else { 0 };
        state.status = value & !refused;
        state.statuses.push(value);
    }

    fn device_features(&mut self) -> u64 {
        assert_ne!(self.status() & status::DRIVER, 0, "features are read by a driver");
        self.state.borrow().features
    }

    fn set_driver_features(&mut self, features: u64) {
        let mut state = self.state.borrow_mut();
        assert_eq!(features & !state.features, 0, "accepted what was not offered");
        assert_eq!(state.status & status::FEATURES_OK, 0, "too late for features");
        state.accepted = features;
    }

    fn queue_entries(&mut self, index: u16) -> u16 {
        let state = self.state.borrow();
        if index <= 2 * state.pairs { state.entries } else { 0 }
    }

    fn enable_queue(
        &mut self,
        index: u16,
        queue: &SplitQueue,
        vector: Option<u16>,
    ) -> Result<Notifier, VirtioError> {
        let mut state = self.state.borrow_mut();
        assert_eq!(state.status & (status::FEATURES_OK | status::DRIVER_OK), status::FEATURES_OK);
        let model = ModelQueue::new(queue, state.accepted & super::FEATURE_EVENT_INDEX != 0, 0);
        assert!(state.queues.insert(index, model).is_none(), "queue enabled twice");
        state.vectors.push(vector);
        let window = state.kicks.region();
        Notifier::new(window, usize::from(index) * 4, index).ok_or(VirtioError::BadQueue)
    }

    fn set_configuration_vector(&mut self, vector: Option<u16>) -> Result<(), VirtioError> {
        self.state.borrow_mut().vectors.push(vector);
        Ok(())
    }

    fn configuration_generation(&self) -> u8 {
        7
    }

    fn configuration(&self) -> &MmioRegion {
        &self.configuration
    }
}

impl ModelState {
    /// Whether queue `index` was notified since the last call.
    pub fn take_kick(&mut self, index: u16) -> bool {
        let registers = self.kicks.region();
        let value = registers.read16(usize::from(index) * 4);
        registers.write16(usize::from(index) * 4, u16::MAX);
        assert!(value == u16::MAX || value == index, "notification names another queue");
        let kicked = value != u16::MAX;
        assert!(!kicked || self.status & status::DRIVER_OK != 0, "notified before DRIVER_OK");
        kicked
    }

    fn serve_commands(&mut self) {
        let index = 2 * self.pairs;
        if self.deaf || self.status & status::DRIVER_OK == 0 {
            return;
        }
        let Some(queue) = self.queues.get_mut(&index) else { return };
        if let Some((command, place)) = queue.fetch_command() {
            let answer = self.answers.get(self.commands.len()).copied().unwrap_or(0);
            queue.answer(place, answer);
            self.commands.push(command);
            assert!(self.take_kick(index), "a command without a notification");
        }
    }

    pub fn queue(&mut self, index: u16) -> &mut ModelQueue {
        self.queues.get_mut(&index).expect("an enabled queue")
    }
}

/// A small generator for tests (xorshift64*); the seed is printed by who uses it.
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}
