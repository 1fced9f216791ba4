//! All drives of a core: what the controller's block requests go to.
//!
//! A drive stands in a *place*, which has the memory of its tables and belongs to a slot of the bus. Requests name it by
//! its *number*, which it gets when it is added and which no other drive gets soon: namespaces of a drive that was pulled
//! stay attached under its number, and nothing that is meant for them reaches the next drive in the same place.
//!
//! With several data cores the home of a drive is the core place mod cores, and its number mod cores is the home too; the others
//! learn from there what stands in the place.

use controller::{Backend, IoCompletion, IoRequest, RejectReason, Rejected};
use hal_api::{Instant, NvmeDevice};
use hal_mem::PagePool;
use message::{CoreSet, Mesh};
use nvme::log_page::SmartLog;

use crate::awake::Awake;
use crate::drive::Drive;
use crate::events::DriveEvent;
use crate::limits::MAX_DRIVES;
use crate::messages::{Body, DriveMessage};
use crate::removal::{Removal, Removed};
use crate::status::AWAY;
use crate::tables::DriveMemory;

/// Messages of other cores that are taken in at a time.
const MESSAGES_PER_POLL: usize = 64;

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
    /// Those that a turn has to look at.
    awake: Awake,
    /// The queue pair of each drive that is this core's.
    io_queue: u16,
    next_number: u8,
    /// Whose completion was collected last, and who was the first to speak.
    turn: usize,
    spoken: usize,
    mesh: Option<Mesh<DriveMessage<D::Queue>>>,
    /// Messages that made no sense, or found no room.
    faults: u64,
}

impl<D: NvmeDevice> Drives<D> {
    /// No drives yet, with room for as many as there are places, at most [`MAX_DRIVES`]. Each will use its queue pair
    /// `io_queue`; with several data cores that is the first core's, and those of the others follow.
    #[must_use]
    pub fn new(places: &'static mut [Place<D>], io_queue: u16) -> Self {
        debug_assert!(places.len() <= MAX_DRIVES);
        Self {
            places,
            awake: Awake::new(),
            io_queue,
            next_number: 0,
            turn: 0,
            spoken: 0,
            mesh: None,
            faults: 0,
        }
    }

    /// From now on this is one of several data cores.
    pub fn join(&mut self, mesh: Mesh<DriveMessage<D::Queue>>) {
        self.next_number = mesh.core();
        self.mesh = Some(mesh);
    }

    /// This core's number among the data cores, and how many there are.
    fn core(&self) -> (u8, u8) {
        self.mesh.as_ref().map_or((0, 1), |mesh| (mesh.core(), mesh.cores()))
    }

    /// The core that is the home of the drive in a place.
    #[must_use]
    pub fn home_of(&self, place: usize) -> u8 {
        place.checked_rem(usize::from(self.core().1)).unwrap_or(0) as u8
    }

    /// Puts a drive into a place; gives the number by which it is known. Numbers for which `is_taken` says so are not
    /// given out. Only on the core that is its home.
    ///
    /// # Errors
    /// Gives the device back where the place is not there or not empty, or another core's.
    #[inline(never)] // A drive is large and passes through the stack: not in its caller's frame for ever.
    pub fn add(&mut self, index: usize, device: D, is_taken: impl Fn(u8) -> bool) -> Result<u8, D> {
        let (number, here) = (self.free_number(is_taken), self.core());
        if self.home_of(index) != here.0 {
            return Err(device);
        }
        let Some(place) = self.places.get_mut(index) else { return Err(device) };
        let Some(memory) = place.memory.take() else { return Err(device) };
        let drive = Drive::at_home(device, here, self.io_queue, memory);
        place.occupant = Some(Occupant { drive, number, removal: None });
        self.awake.insert(index);
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
        self.awake.insert(place);
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

    /// All of them, to tell them something.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Drive<D>> {
        self.awake.all();
        self.occupants_mut().map(|occupant| &mut occupant.drive)
    }

    /// Polls each; returns how much was done.
    pub fn poll(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        self.awake.note_time(now);
        let heard = self.hear(now, pool);
        let mut done = 0;
        self.each_awake(|_, _, occupant| done += occupant.drive.poll(now, pool));
        self.speak(pool);
        heard + done
    }

    fn drive_in(&mut self, place: usize) -> Option<&mut Drive<D>> {
        Some(&mut self.places.get_mut(place)?.occupant.as_mut()?.drive)
    }

    /// Does something with each drive that is awake, in order of their places. Empty places are not looked at again.
    fn each_awake(&mut self, mut act: impl FnMut(&mut Awake, usize, &mut Occupant<D>)) {
        for index in self.awake.iter() {
            match self.places.get_mut(index).and_then(|place| place.occupant.as_mut()) {
                Some(occupant) => act(&mut self.awake, index, occupant),
                None => self.awake.remove(index),
            }
        }
    }

    /// Takes in what other cores say.
    fn hear(&mut self, now: Instant, pool: &mut PagePool) -> usize {
        if self.mesh.is_none() {
            return 0;
        }
        self.each_awake(|_, _, occupant| occupant.drive.note_time(now));
        let mut heard = 0;
        while heard < MESSAGES_PER_POLL
            && let Some((from, message)) = self.mesh.as_mut().and_then(Mesh::receive)
        {
            heard += 1;
            self.take_in(from, message, now, pool);
        }
        heard
    }

    #[inline(never)] // Only with several cores, as the next.
    fn take_in(&mut self, from: u8, message: DriveMessage<D::Queue>, now: Instant, pool: &mut PagePool) {
        let (here, io_queue) = (self.core(), self.io_queue);
        self.awake.insert(usize::from(message.place));
        let Some(place) = self.places.get_mut(usize::from(message.place)) else { return };
        match (message.body, &mut place.occupant) {
            (Body::Joined { number, address }, None) => {
                let Some(memory) = place.memory.take() else { return };
                let drive = Drive::elsewhere(from, address, here, io_queue, memory);
                place.occupant = Some(Occupant { drive, number, removal: None });
            }
            (Body::Leaving, Some(occupant)) => {
                occupant.removal.get_or_insert(Removal::Elsewhere);
            }
            (Body::Leave, Some(occupant)) => occupant.removal = Some(Removal::Gone),
            (body, Some(occupant)) => occupant.drive.hear(from, body, now, pool),
            // Flushes are told, and asked for, by whoever has not heard yet that the drive is gone.
            (Body::Flushed { .. }, None) => {}
            (Body::AskFlush { ticket, .. }, None) => {
                self.send(from, message.place, Body::FlushOver { ticket, complete: true });
            }
            (Body::FlushOver { .. } | Body::Lane { .. }, None) => {}
            (_, None) => self.faults += 1,
        }
    }

    /// Says what there is to be said.
    fn speak(&mut self, pool: &mut PagePool) {
        let Some(mesh) = &mut self.mesh else { return };
        mesh.flush();
        let mut places = self.awake.iter().filter_map(|place| self.places.get(place)?.occupant.as_ref());
        if places.any(|occupant| occupant.speaks()) {
            self.speak_of_all(pool);
        }
    }

    #[inline(never)] // Seldom, and large.
    fn speak_of_all(&mut self, pool: &mut PagePool) {
        let mut room = self.room();
        // Each has its turn to be first: rings are short.
        let order = self.awake.iter_after(self.spoken);
        self.spoken = self.awake.iter_after(self.spoken).next().unwrap_or(0);
        for index in order {
            while let Some((to, body)) = self.places.get_mut(index).and_then(|place| place.take_message(room))
            {
                self.send(to, index as u8, body);
                room = self.room();
            }
            room = self.speak_of_flushes(index, room);
            let home = self.home_of(index);
            if room.contains(home) && self.places.get_mut(index).is_some_and(|place| place.let_go(pool)) {
                self.send(home, index as u8, Body::Left);
                room = self.room();
            }
        }
    }

    /// The cores that can be sent a message now.
    fn room(&mut self) -> CoreSet {
        self.mesh.as_mut().map_or(CoreSet::NONE, Mesh::with_room)
    }

    /// Says what this core has flushed, once all others have room for it. Gives those that have some then.
    fn speak_of_flushes(&mut self, index: usize, mut room: CoreSet) -> CoreSet {
        let others = self.mesh.as_ref().map_or(CoreSet::NONE, Mesh::others);
        while room == others
            && let Some(occupant) = self.places.get_mut(index).and_then(|place| place.occupant.as_mut())
            && let Some((nsid, sent)) = occupant.drive.take_flushed()
        {
            others.iter().for_each(|core| self.send(core, index as u8, Body::Flushed { nsid, sent }));
            room = self.room();
        }
        room
    }

    fn send(&mut self, to: u8, place: u8, body: Body<D::Queue>) {
        let message = DriveMessage { place, body };
        if self.mesh.as_mut().is_some_and(|mesh| mesh.send(to, message).is_err()) {
            debug_assert!(false, "more messages than can be under way");
            self.faults += 1;
            hal_log::error!("a message to core {} about the drive in place {} found no room", to, place);
        }
    }

    /// The cores that have been sent something since this was last asked.
    pub fn take_news_for(&mut self) -> CoreSet {
        self.mesh.as_mut().map_or(CoreSet::NONE, Mesh::take_news_for)
    }

    /// Messages that made no sense, and confirmations that nobody has waited for: bugs, all of them.
    #[must_use]
    pub fn mesh_faults(&self) -> u64 {
        self.faults + self.iter().map(Drive::faults).sum::<u64>()
    }

    /// Collects the end of a request, from each drive in turn.
    pub fn complete(&mut self) -> Option<IoCompletion> {
        for place in self.awake.iter_after(self.turn) {
            if let Some(completion) = self.drive_in(place).and_then(Drive::complete) {
                self.turn = place;
                return Some(completion);
            }
        }
        None
    }

    /// Rings the doorbells. Once a turn, at its end.
    pub fn flush(&mut self) {
        self.each_awake(|awake, index, occupant| {
            let rests_until = occupant.drive.flush().filter(|_| occupant.removal.is_none());
            if let Some(until) = rests_until {
                awake.rest(index, until);
            }
        });
    }

    /// The next change at a drive, with its number.
    pub fn take_event(&mut self) -> Option<(u8, DriveEvent)> {
        self.occupants_mut().find_map(Occupant::take_event)
    }

    /// Asks all for interrupts. True when something waits already.
    pub fn arm(&mut self) -> bool {
        let has_messages = self.has_messages();
        self.occupants_mut().fold(has_messages, |waits, occupant| occupant.drive.arm() | waits)
    }

    /// Whether something waits that other cores have said, or that is to be said to them.
    pub fn has_messages(&mut self) -> bool {
        self.mesh.as_mut().is_some_and(Mesh::has_work)
    }

    /// The core is awake and polls.
    pub fn disarm(&mut self) {
        for (index, place) in self.places.iter_mut().enumerate() {
            let Some(occupant) = &mut place.occupant else { continue };
            occupant.drive.disarm();
            // What comes to a drive at rest are events alone.
            if occupant.drive.is_home() {
                self.awake.insert(index);
            }
        }
    }

    /// Whether one has something to do that no interrupt and no deadline tells of.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let mut places = self.awake.iter().filter_map(|place| self.places.get(place)?.occupant.as_ref());
        places.any(|occupant| occupant.drive.has_work())
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
        let (core, cores) = self.core();
        let is_ours = |number: u8| number.checked_rem(cores) == Some(core);
        let in_use = |number| !is_ours(number) || self.get(number).is_some() || is_taken(number);
        // There are fewer drives and namespaces than numbers.
        let mut numbers = (0..=u8::MAX).map(|step| self.next_number.wrapping_add(step));
        numbers.find(|&number| !in_use(number)).unwrap_or(self.next_number)
    }
}

impl<D: NvmeDevice> Place<D> {
    /// The next message to another core that has `room`.
    fn take_message(&mut self, room: CoreSet) -> Option<(u8, Body<D::Queue>)> {
        let occupant = self.occupant.as_mut()?;
        occupant.drive.take_message(occupant.number, room)
    }
}

impl<D: NvmeDevice> Occupant<D> {
    /// Whether other cores are to be told something, or may be: one that is taken out says so in several places.
    fn speaks(&self) -> bool {
        self.removal.is_some() || self.drive.has_messages()
    }

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
        let mut places = self.places.iter_mut().zip(0..);
        let found = places.find_map(|(place, index)| {
            let occupant = place.occupant.as_mut().filter(|occupant| occupant.number == number)?;
            Some((occupant, index))
        });
        match found {
            Some((occupant, index)) => {
                self.awake.insert(index);
                occupant.drive.submit(request, pool, now)
            }
            // It has been pulled, and may come back.
            None => Err(Rejected { request, reason: RejectReason::Failed(AWAY) }),
        }
    }

    fn smart(&self, drive: u8) -> Option<&SmartLog> {
        self.get(drive)?.smart()
    }
}
