//! The loop that a core runs for ever.
//!
//! Each turn reads the clock once and gives every role a bounded share of work. A core that finds nothing to
//! do for a while asks its devices for interrupts, looks once more, and sleeps; the interrupt only ends the
//! sleep, the next turn finds by polling what it was for.

use hal_api::{Clock, Instant, Wake};

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

/// How the turns of a core were spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turns {
    /// Turns in which some role had work.
    pub productive: u64,
    /// Turns in which none had.
    pub empty: u64,
    /// How often the core slept.
    pub sleeps: u64,
}

/// A core and its roles.
pub struct CoreLoop<'a, 'b, C, W> {
    roles: &'a mut [&'b mut dyn Role],
    clock: C,
    wake: W,
    empty_turns: u32,
    turns: Turns,
}

impl<'a, 'b, C: Clock, W: Wake> CoreLoop<'a, 'b, C, W> {
    /// A loop over `roles`, in that order.
    pub fn new(roles: &'a mut [&'b mut dyn Role], clock: C, wake: W) -> Self {
        Self { roles, clock, wake, empty_turns: 0, turns: Turns::default() }
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
        let mut work = 0;
        for role in self.roles.iter_mut() {
            work += role.poll(now, TURN_BUDGET);
        }
        if work > 0 {
            self.turns.productive += 1;
            self.empty_turns = 0;
            return;
        }
        self.turns.empty += 1;
        self.empty_turns += 1;
        if self.empty_turns >= W::EMPTY_TURNS {
            self.empty_turns = 0;
            self.sleep(now);
        }
    }

    /// How the turns were spent so far.
    pub fn turns(&self) -> Turns {
        self.turns
    }

    fn sleep(&mut self, now: Instant) {
        let mut waiting = false;
        let mut deadline = Instant::FAR_FUTURE;
        for role in self.roles.iter_mut() {
            waiting |= role.arm();
            deadline = deadline.min(role.next_deadline(now));
        }
        if !waiting && deadline > now {
            self.turns.sleeps += 1;
            self.wake.sleep_until(deadline);
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

    fn run(work: &[u32], waiting: bool, deadline_us: u64, turns: u32) -> (Turns, Option<Instant>) {
        let slept = Cell::new(None);
        let deadline = Instant::from_micros(deadline_us);
        let mut first =
            Scripted { work, turn: 0, waiting: false, deadline: Instant::FAR_FUTURE, armed: false };
        let mut second = Scripted { work: &[], turn: 0, waiting, deadline, armed: false };
        let mut roles: [&mut dyn Role; 2] = [&mut first, &mut second];
        let mut core = CoreLoop::new(&mut roles, At(1000), Sleeps(&slept));
        for _ in 0..turns {
            core.turn();
        }
        (core.turns(), slept.get())
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
}
