//! All drives of a core: what the controller's block requests go to.
//!
//! A drive stands in a *place*, which has the memory of its tables and belongs to a slot of the bus. Requests name it by
//! its *number*, which it gets when it is added and which no other drive gets soon: namespaces of a drive that was pulled
//! stay attached under its number, and nothing that is meant for them reaches the next drive in the same place.

use controller::{Backend, IoCompletion, IoRequest, RejectReason, Rejected};
use hal_api::{Instant, NvmeDevice};
use hal_mem::PagePool;
use nvme::log_page::SmartLog;

use crate::drive::Drive;
use crate::events::DriveEvent;
use crate::removal::{Removal, Removed};
use crate::status::AWAY;
use crate::tables::DriveMemory;

/// Room for a drive.
pub struct Place<D: NvmeDevice> {
    pub(crate) occupant: Option<Occupant<D>>,
    /// Memory for the tables of a drive, while there is none.
    pub(crate) memory: Option<DriveMemory>,
}

/// The drive in a place.
pub(crate) struct Occupant<D: NvmeDevice> {
    pub drive: Drive<D>,
    pub number: u8,
    pub removal: Option<Removal>,
}

impl<D: NvmeDevice> Place<D> {
    /// A place without a drive.
    #[must_use]
    pub const fn new(memory: DriveMemory) -> Self {
        Self { occupant: None, memory: Some(memory) }
    }
}

/// The drives of a core.
pub struct Drives<D: NvmeDevice + 'static> {
    places: &'static mut [Place<D>],
    /// The queue pair of each drive that is this core's.
    io_queue: u16,
    next_number: u8,
    /// Whose completion is collected first next time.
    turn: usize,
}

impl<D: NvmeDevice> Drives<D> {
    /// No drives yet, with room for as many as there are places, at most 128. Each will use its queue pair
    /// `io_queue` (1 for the first data core).
    #[must_use]
    pub fn new(places: &'static mut [Place<D>], io_queue: u16) -> Self {
        debug_assert!(places.len() <= 128);
        Self { places, io_queue, next_number: 0, turn: 0 }
    }

    /// Puts a drive into a place; gives the number by which it is known. Numbers for which `is_taken` says so are not
    /// given out.
    ///
    /// # Errors
    /// Gives the device back where the place is not there or not empty.
    #[inline(never)] // A drive is large and passes through the stack: not in its caller's frame for ever.
    pub fn add(&mut self, place: usize, device: D, is_taken: impl Fn(u8) -> bool) -> Result<u8, D> {
        let number = self.free_number(is_taken);
        let Some(place) = self.places.get_mut(place) else { return Err(device) };
        let Some(memory) = place.memory.take() else { return Err(device) };
        place.occupant =
            Some(Occupant { drive: Drive::new(device, self.io_queue, memory), number, removal: None });
        self.next_number = number.wrapping_add(1);
        Ok(number)
    }

    /// Begins to take the drive out of a place: in order, or at once because it has been pulled. Gives its number; `None`
    /// where there is none. Its events are not reported any more. [`Self::take_removed`] ends it.
    pub fn begin_removal(
        &mut self,
        place: usize,
        in_order: bool,
        now: Instant,
        pool: &mut PagePool,
    ) -> Option<u8> {
        let occupant = self.places.get_mut(place)?.occupant.as_mut()?;
        occupant.begin_removal(in_order, now, pool);
        Some(occupant.number)
    }

    /// The next drive that is out, with its place, which is empty now.
    pub fn take_removed(&mut self, pool: &mut PagePool) -> Option<(usize, Removed<D>)> {
        let mut places = self.places.iter_mut().enumerate();
        places.find_map(|(index, place)| place.take_removed(pool).map(|removed| (index, removed)))
    }

    /// How many drives there are, whatever their state.
    #[must_use]
    pub fn len(&self) -> usize {
        self.occupants().count()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The drive with this number.
    #[must_use]
    pub fn get(&self, number: u8) -> Option<&Drive<D>> {
        self.occupants().find(|occupant| occupant.number == number).map(|occupant| &occupant.drive)
    }

    /// Whether the drive with this number is being taken out.
    #[must_use]
    pub fn is_leaving(&self, number: u8) -> bool {
        self.occupants().any(|occupant| occupant.number == number && occupant.removal.is_some())
    }

    /// The number of the drive in a place.
    #[must_use]
    pub fn number_in(&self, place: usize) -> Option<u8> {
        Some(self.places.get(place)?.occupant.as_ref()?.number)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Drive<D>> {
        self.occupants().map(|occupant| &occupant.drive)
    }

    /// All of them, with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u8, &Drive<D>)> {
        self.occupants().map(|occupant| (occupant.number, &occupant.drive))
    }

    /// All of them, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Drive<D>> {
        self.occupants_mut().map(|occupant| &mut occupant.drive)
    }

    /// Polls each; returns how much was done.
    pub fn poll(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        self.iter_mut().map(|drive| drive.poll(now, pool)).sum()
    }

    /// Collects the end of a request, from each drive in turn.
    pub fn complete(&mut self) -> Option<IoCompletion> {
        let count = self.places.len();
        for _ in 0..count {
            self.turn = if self.turn + 1 >= count { 0 } else { self.turn + 1 };
            let occupant = self.places.get_mut(self.turn).and_then(|place| place.occupant.as_mut());
            if let Some(completion) = occupant.and_then(|occupant| occupant.drive.complete()) {
                return Some(completion);
            }
        }
        None
    }

    /// Rings the doorbells. Once a turn.
    pub fn flush(&mut self) {
        self.iter_mut().for_each(Drive::flush);
    }

    /// The next change at a drive, with its number.
    pub fn take_event(&mut self) -> Option<(u8, DriveEvent)> {
        self.occupants_mut().find_map(Occupant::take_event)
    }

    /// Asks all for interrupts. True when something waits already.
    pub fn arm(&mut self) -> bool {
        self.iter_mut().fold(false, |waits, drive| drive.arm() | waits)
    }

    /// The core is awake and polls.
    pub fn disarm(&mut self) {
        self.iter_mut().for_each(Drive::disarm);
    }

    /// Whether one has something to do that no interrupt and no deadline tells of.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.iter().any(Drive::has_work)
    }

    /// When one wants to be polled at the latest.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let deadlines = self.iter().map(|drive| drive.next_deadline(now));
        deadlines.min().unwrap_or(Instant::FAR_FUTURE)
    }

    fn occupants(&self) -> impl Iterator<Item = &Occupant<D>> {
        self.places.iter().filter_map(|place| place.occupant.as_ref())
    }

    fn occupants_mut(&mut self) -> impl Iterator<Item = &mut Occupant<D>> {
        self.places.iter_mut().filter_map(|place| place.occupant.as_mut())
    }

    /// The next number that no drive has and that `is_taken` is false of.
    fn free_number(&self, is_taken: impl Fn(u8) -> bool) -> u8 {
        let in_use = |number| self.get(number).is_some() || is_taken(number);
        // There are fewer drives and namespaces than numbers.
        let mut numbers = (0..=u8::MAX).map(|step| self.next_number.wrapping_add(step));
        numbers.find(|&number| !in_use(number)).unwrap_or(self.next_number)
    }
}

impl<D: NvmeDevice> Occupant<D> {
    fn take_event(&mut self) -> Option<(u8, DriveEvent)> {
        let event = self.drive.take_event()?;
        if self.removal.is_some() {
            // Whoever asked for the removal knows better what to say of it; hosts have to hear of losses.
            let mut events = core::iter::once(event).chain(core::iter::from_fn(|| self.drive.take_event()));
            let loss = events.find(|event| matches!(event, DriveEvent::WritesLost { .. }))?;
            return Some((self.number, loss));
        }
        Some((self.number, event))
    }
}

impl<D: NvmeDevice> Backend for Drives<D> {
    fn submit(&mut self, request: IoRequest, pool: &mut PagePool, now: Instant) -> Result<(), Rejected> {
        let number = request.namespace.drive;
        match self.occupants_mut().find(|occupant| occupant.number == number) {
            Some(occupant) => occupant.drive.submit(request, pool, now),
            // It has been pulled, and may come back.
            None => Err(Rejected { request, reason: RejectReason::Failed(AWAY) }),
        }
    }

    fn smart(&self, drive: u8) -> Option<&SmartLog> {
        self.get(drive)?.smart()
    }
}
