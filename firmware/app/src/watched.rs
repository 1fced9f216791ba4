//! A role with something beside it that happens in each turn: a sign of life for the board's watchdog.

use dataplane::Role;
use hal_api::Instant;

/// Calls `each_turn` before each poll of `role`, and is that role in all else.
pub struct Watched<'a, R: ?Sized, F> {
    role: &'a mut R,
    each_turn: F,
}

impl<'a, R: Role + ?Sized, F: FnMut(&R, Instant)> Watched<'a, R, F> {
    /// `each_turn` gets the role as it is before the turn.
    pub fn new(role: &'a mut R, each_turn: F) -> Self {
        Self { role, each_turn }
    }
}

impl<R: Role + ?Sized, F: FnMut(&R, Instant)> Role for Watched<'_, R, F> {
    fn poll(&mut self, now: Instant, budget: u32) -> u32 {
        (self.each_turn)(self.role, now);
        self.role.poll(now, budget)
    }

    fn arm(&mut self) -> bool {
        self.role.arm()
    }

    fn disarm(&mut self) {
        self.role.disarm();
    }

    fn next_deadline(&mut self, now: Instant) -> Instant {
        self.role.next_deadline(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ControlRole, LineState};

    #[test]
    fn each_turn_gives_a_sign_and_the_role_stays_what_it_is() {
        let mut control = ControlRole::new(|| LineState::Full);
        let mut turns = 0;
        let mut watched = Watched::new(&mut control, |_: &ControlRole<_>, _| turns += 1);
        for _ in 0..3 {
            assert_eq!(watched.poll(Instant::ZERO, 64), 0);
        }
        assert!(!watched.arm() && watched.next_deadline(Instant::ZERO) > Instant::ZERO);
        watched.disarm();
        assert_eq!(turns, 3);
    }
}
