//! Role `control` on a card that has power to switch: a press of its button, or an operator's request, ends the data cores in order,
//! lets the log out, and switches the card off or starts it anew.

use core::time::Duration;

use dataplane::{Role, SHUTDOWN_LIMIT};
use hal_api::Instant;
use message::{OrderlyEnd, Then};

use crate::control_role::{ControlRole, LineState};

/// How often the button is looked at, and, after a press, how far the data core is.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How much longer than its own limit the data core is waited for: it looks every 100 ms.
const GRACE: Duration = Duration::from_secs(5);
/// How long the log may take to get out.
const LOG_LIMIT: Duration = Duration::from_secs(5);

/// What a board has: a power button, perhaps, and ways to switch itself off and to start anew.
pub trait Power {
    /// Whether the button was pressed since it was asked last.
    fn is_pressed(&mut self) -> bool;
    /// Switches the card off. Returns where it cannot.
    fn off(&mut self);
    /// Starts the card anew. Returns where it cannot.
    fn restart(&mut self);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody has pressed the button.
    On,
    /// The data core ends.
    Ending { until: Instant },
    /// The log has to get out. `quiet`: the line was idle at the last look, so that its FIFO had time to send.
    Closing { until: Instant, quiet: bool },
    /// The card cannot switch itself off.
    Waiting,
}

/// The control role, with the button.
pub struct PowerRole<P, S> {
    control: ControlRole<P>,
    power: Option<S>,
    end: &'static OrderlyEnd,
    state: State,
    next_look: Instant,
}

impl<P: FnMut() -> LineState, S: Power> PowerRole<P, S> {
    /// `pump` is [`ControlRole::new`]'s; `end` is the way to the data cores. Without `power` nothing is looked at.
    pub fn new(pump: P, power: Option<S>, end: &'static OrderlyEnd) -> Self {
        Self { control: ControlRole::new(pump), power, end, state: State::On, next_look: Instant::ZERO }
    }

    fn look(&mut self, now: Instant) {
        let Some(power) = &mut self.power else { return };
        match self.state {
            State::On if !self.end.is_asked_for() && power.is_pressed() => {
                hal_log::info!("power button pressed");
                self.end.ask(Then::Off);
                self.state = State::Ending { until: now + SHUTDOWN_LIMIT + GRACE };
            }
            State::On if self.end.is_asked_for() => {
                self.state = State::Ending { until: now + SHUTDOWN_LIMIT + GRACE };
            }
            State::Ending { until } if self.end.is_over() || now >= until => {
                let what = match self.end.asked_for() {
                    Some(Then::Restart) => "starts anew",
                    _ => "switches itself off",
                };
                if self.end.is_over() {
                    hal_log::info!("the card {}", what);
                } else {
                    hal_log::error!("not all data cores end: the card {} all the same", what);
                }
                self.state = State::Closing { until: now + LOG_LIMIT, quiet: false };
            }
            State::Closing { until, quiet } => {
                let idle = self.control.is_idle();
                if (idle && quiet) || now >= until {
                    match self.end.asked_for() {
                        Some(Then::Restart) => power.restart(),
                        _ => power.off(),
                    }
                    hal_log::error!("the card cannot switch itself off: its power may be cut now");
                    self.state = State::Waiting;
                } else {
                    self.state = State::Closing { until, quiet: idle };
                }
            }
            _ => {}
        }
    }
}

impl<P: FnMut() -> LineState, S: Power> Role for PowerRole<P, S> {
    fn poll(&mut self, now: Instant, budget: u32) -> u32 {
        let work = self.control.poll(now, budget);
        // An operator's request came in this loop: it need not wait.
        let asked = self.state == State::On && self.end.is_asked_for();
        if asked || now >= self.next_look {
            self.look(now);
            self.next_look = now + LOOK_INTERVAL;
        }
        work
    }

    fn arm(&mut self) -> bool {
        self.control.arm()
    }

    fn disarm(&mut self) {
        self.control.disarm();
    }

    fn next_deadline(&mut self, now: Instant) -> Instant {
        let next_look = if self.power.is_some() { self.next_look } else { Instant::FAR_FUTURE };
        self.control.next_deadline(now).min(next_look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    struct Fake<'a> {
        pressed: &'a Cell<bool>,
        offs: &'a Cell<u32>,
        restarts: &'a Cell<u32>,
    }

    impl Power for Fake<'_> {
        fn is_pressed(&mut self) -> bool {
            self.pressed.take()
        }

        fn off(&mut self) {
            self.offs.set(self.offs.get() + 1);
        }

        fn restart(&mut self) {
            self.restarts.set(self.restarts.get() + 1);
        }
    }

    /// Polls for so long, and returns when the card was switched off first.
    fn run<P: FnMut() -> LineState>(
        role: &mut PowerRole<P, Fake>,
        offs: &Cell<u32>,
        from_s: u64,
        seconds: u64,
    ) -> Option<u64> {
        let start = Instant::ZERO + Duration::from_secs(from_s);
        (0..seconds * 10).find_map(|tenth| {
            role.poll(start + Duration::from_millis(tenth * 100), 64);
            (offs.get() > 0).then_some(from_s + tenth / 10)
        })
    }

    #[test]
    fn a_press_ends_the_data_core_then_the_log_goes_out_then_the_card_is_off() {
        let (pressed, offs, line) = (Cell::new(false), Cell::new(0), Cell::new(LineState::Idle));
        let end = Box::leak(Box::new(OrderlyEnd::new()));
        let restarts = Cell::new(0);
        let power = Fake { pressed: &pressed, offs: &offs, restarts: &restarts };
        let mut role = PowerRole::new(|| line.get(), Some(power), end);
        assert_eq!(run(&mut role, &offs, 0, 60), None);
        assert!(!end.is_asked_for());
        pressed.set(true);
        assert_eq!(run(&mut role, &offs, 60, 5), None);
        assert!(end.is_asked_for());
        line.set(LineState::Full);
        end.tell_over(0);
        assert_eq!(run(&mut role, &offs, 65, 3), None, "the log is not out");
        line.set(LineState::Idle);
        assert!(run(&mut role, &offs, 68, 2).is_some());
        assert_eq!(run(&mut role, &Cell::new(0), 70, 60), None);
        assert_eq!(offs.get(), 1);
    }

    #[test]
    fn an_operator_may_have_it_start_anew_and_the_button_does_not_change_that() {
        let (pressed, offs, restarts) = (Cell::new(false), Cell::new(0), Cell::new(0));
        let end = Box::leak(Box::new(OrderlyEnd::new()));
        let power = Fake { pressed: &pressed, offs: &offs, restarts: &restarts };
        let mut role = PowerRole::new(|| LineState::Idle, Some(power), end);
        assert_eq!(run(&mut role, &offs, 0, 5), None);
        end.ask(Then::Restart);
        assert_eq!(run(&mut role, &restarts, 5, 5), None);
        pressed.set(true);
        end.tell_over(0);
        assert!(run(&mut role, &restarts, 10, 2).is_some());
        assert_eq!(offs.get(), 0);
    }

    #[test]
    fn neither_a_data_core_that_does_not_end_nor_a_stuck_line_keeps_the_card_on() {
        let (pressed, offs) = (Cell::new(true), Cell::new(0));
        let end = Box::leak(Box::new(OrderlyEnd::new()));
        let restarts = Cell::new(0);
        let power = Fake { pressed: &pressed, offs: &offs, restarts: &restarts };
        let mut role = PowerRole::new(|| LineState::Full, Some(power), end);
        let limit = (SHUTDOWN_LIMIT + GRACE + LOG_LIMIT).as_secs();
        let off = run(&mut role, &offs, 0, limit + 5).expect("off");
        assert!(off >= limit, "{off}");
    }

    #[test]
    fn without_a_button_there_is_nothing_to_look_at() {
        let end = Box::leak(Box::new(OrderlyEnd::new()));
        let mut role = PowerRole::<_, Fake>::new(|| LineState::Idle, None, end);
        role.poll(Instant::ZERO, 64);
        assert_eq!(role.next_deadline(Instant::ZERO), role.control.next_deadline(Instant::ZERO));
    }
}
