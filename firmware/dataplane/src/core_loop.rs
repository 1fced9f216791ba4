//! The loop that a core runs for ever.
//!
//! Each turn reads the clock once and gives every role a bounded share of work. A core that finds nothing to
//! do for a while asks its devices for interrupts, looks once more, and sleeps; the interrupt only ends the
//! sleep, the next turn finds by polling what it was for.

use hal_api::{Clock, Instant, Wake};
use message::{CoreMeter, CoreReading};

/// Work that a role may do in a turn, in its own units (frames, completions, commands).
pub const TURN_BUDGET: u32 = 64;

/// The code that polls one kind of queue.
pub trait Role {
    /// Does what is waiting, at most about `budget` units of it, and returns how much that was. Never blocks.
    fn poll(&mut self, now: Instant, budget: u32) -> u32;

    /// Asks the role's devices for interrupts. True when something is already waiting.
    fn arm(&mut self) -> bool;

    /// The core polls again: no interrupts needed.
    fn disarm(&mut self);

    /// When the role wants to be polled even if no interrupt comes.
    fn next_deadline(&mut self, now: Instant) -> Instant;
}

/// A core and its roles.
pub struct CoreLoop<'a, 'b, C, W> {
    roles: &'a mut [&'b mut dyn Role],
    clock: C,
    wake: W,
    meter: &'a CoreMeter,
    /// When the turn before this one began, unless the core has slept since.
    last_turn: Option<Instant>,
    empty_turns: u32,
}

impl<'a, 'b, C: Clock, W: Wake> CoreLoop<'a, 'b, C, W> {
    /// A loop over `roles`, in that order, which notes in `meter` how the core's time is spent.
    pub fn new(roles: &'a mut [&'b mut dyn Role], clock: C, wake: W, meter: &'a CoreMeter) -> Self {
        Self { roles, clock, wake, meter, last_turn: None, empty_turns: 0 }
    }

    /// Runs for ever.
    pub fn run(&mut self) -> ! {
        loop {
            self.turn();
        }
    }

    /// One turn: polls each role, and sleeps where there has been nothing to do for a while.
    pub fn turn(&mut self) {
        let now = self.clock.now();
        // The clock is read once a turn: how long one took is known at the beginning of the next.
        if let Some(began) = self.last_turn.replace(now) {
            self.meter.note_length(now.since(began).as_micros() as u64);
        }
        let mut work = 0;
        for role in self.roles.iter_mut() {
            work += role.poll(now, TURN_BUDGET);
        }
        self.meter.note_turn(work > 0);
        if work > 0 {
            self.empty_turns = 0;
            return;
        }
        self.empty_turns += 1;
        if self.empty_turns >= W::EMPTY_TURNS {
            self.empty_turns = 0;
            self.sleep(now);
        }
    }

    /// How the core's time was spent so far.
    #[must_use]
    pub fn reading(&self) -> CoreReading {
        self.meter.read()
    }

    fn sleep(&mut self, now: Instant) {
        let mut waiting = false;
        let mut deadline = Instant::FAR_FUTURE;
        for role in self.roles.iter_mut() {
            waiting |= role.arm();
            deadline = deadline.min(role.next_deadline(now));
        }
        if !waiting && deadline > now {
            let began = self.clock.now();
            self.meter.note_length(began.since(now).as_micros() as u64);
            self.last_turn = None;
            self.wake.sleep_until(deadline);
            self.meter.note_sleep(self.clock.now().since(began).as_micros() as u64);
        }
        for role in self.roles.iter_mut() {
            role.disarm();
        }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;

    use super::*;

    struct Scripted<'a> {
        work: &'a [u32],
        turn: usize,
        waiting: bool,
        deadline: Instant,
        armed: bool,
    }

    impl Role for Scripted<'_> {
        fn poll(&mut self, _: Instant, _: u32) -> u32 {
            assert!(!self.armed, "polled while armed");
            self.turn += 1;
            self.work.get(self.turn - 1).copied().unwrap_or(0)
        }
        fn arm(&mut self) -> bool {
            self.armed = true;
            self.waiting
        }
        fn disarm(&mut self) {
            self.armed = false;
        }
        fn next_deadline(&mut self, _: Instant) -> Instant {
            self.deadline
        }
    }

    struct At(u64);
    impl Clock for At {
        fn now(&self) -> Instant {
            Instant::from_micros(self.0)
        }
    }

    struct Sleeps<'a>(&'a Cell<Option<Instant>>);
    impl Wake for Sleeps<'_> {
        const EMPTY_TURNS: u32 = 10;

        fn sleep_until(&mut self, deadline: Instant) {
            self.0.set(Some(deadline));
        }
    }

    fn run(work: &[u32], waiting: bool, deadline_us: u64, turns: u32) -> (CoreReading, Option<Instant>) {
        let slept = Cell::new(None);
        let deadline = Instant::from_micros(deadline_us);
        let mut first =
            Scripted { work, turn: 0, waiting: false, deadline: Instant::FAR_FUTURE, armed: false };
        let mut second = Scripted { work: &[], turn: 0, waiting, deadline, armed: false };
        let mut roles: [&mut dyn Role; 2] = [&mut first, &mut second];
        let meter = CoreMeter::new();
        let mut core = CoreLoop::new(&mut roles, At(1000), Sleeps(&slept), &meter);
        for _ in 0..turns {
            core.turn();
        }
        (meter.read(), slept.get())
    }

    #[test]
    fn sleeps_after_ten_empty_turns_until_the_earliest_deadline() {
        let (turns, slept) = run(&[1, 0, 5], false, 7000, 3 + 9);
        assert_eq!((turns.productive, turns.empty, turns.sleeps, slept), (2, 10, 0, None));
        let (turns, slept) = run(&[1, 0, 5], false, 7000, 3 + 10);
        assert_eq!((turns.sleeps, slept), (1, Some(Instant::from_micros(7000))));
    }

    #[test]
    fn does_not_sleep_when_something_came_while_arming_or_is_due() {
        assert_eq!(run(&[], true, 7000, 100).0.sleeps, 0);
        assert_eq!(run(&[], false, 1000, 100).0.sleeps, 0);
    }

    /// A clock that goes on by so much each time that it is read.
    struct Ticks(Cell<u64>);
    impl Clock for Ticks {
        fn now(&self) -> Instant {
            self.0.set(self.0.get() + 30);
            Instant::from_micros(self.0.get())
        }
    }

    #[test]
    fn the_meter_tells_turns_from_sleep() {
        let slept = Cell::new(None);
        let mut role =
            Scripted { work: &[3], turn: 0, waiting: false, deadline: Instant::FAR_FUTURE, armed: false };
        let meter = CoreMeter::new();
        let mut roles: [&mut dyn Role; 1] = [&mut role];
        let mut core = CoreLoop::new(&mut roles, Ticks(Cell::new(0)), Sleeps(&slept), &meter);
        (0..11).for_each(|_| core.turn());
        let expected =
            CoreReading { productive: 1, empty: 10, sleeps: 1, asleep_us: 30, longest_turn_us: 30 };
        assert_eq!(meter.read(), expected);
    }
}
