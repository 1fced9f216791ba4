//! The states of one slot, from empty to serving and back (PCI Express Base 5.0, 6.7).

use hal_api::{DriveSlots, Indicator, Instant, SlotError, SlotView};

use crate::limits::{CANCEL_TIME, LINK_LIMIT, LINK_SETTLE_TIME, POWER_OFF_TIME, READY_LIMIT, SETTLE_TIME};

/// Where a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing is in it.
    Empty,
    /// Something was put in and must stay until then.
    Settling { until: Instant },
    /// Power is on, the link is awaited.
    PoweringOn { deadline: Instant },
    /// The link is up, the drive is to answer.
    Starting { not_before: Instant, deadline: Instant },
    /// A data core has the drive.
    Serving,
    /// The button was pressed; a second press before then takes it back.
    Leaving { at: Instant },
    /// The data core is to be asked for the drive.
    Asking { in_order: bool },
    /// It was asked.
    Removing { in_order: bool },
    /// Power is off and has to stay so until then.
    PoweringOff { until: Instant, start_again: bool },
    /// What stands in it is left alone, until it is taken out or the button is pressed.
    Idle,
}

/// What a step of a slot comes to for its owner.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<D> {
    /// Nothing.
    None,
    /// A drive for the data core.
    Add(D),
    /// The data core is to let go of the drive.
    Remove { in_order: bool },
}

/// One slot.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Index of the slot.
    pub index: usize,
    /// Where its drive stands at the data core.
    pub place: u8,
    pub state: State,
    /// It has lost its power since something was put in.
    pub faulty: bool,
}

/// Says something about a slot, by its address, which the first three fields of the text are for.
macro_rules! say {
    ($level:ident, $slots:expr, $index:expr, $text:tt $(, $more:expr)*) => {{
        let (bus, device, function) = hal_api::bus_device_function($slots.address($index));
        hal_log::$level!($text, bus, device, function $(, $more)*);
    }};
}

impl Slot {
    /// Whether it is between two states that last.
    pub fn is_busy(&self) -> bool {
        !matches!(self.state, State::Empty | State::Serving | State::Idle)
    }

    /// Looks at the slot and goes on. `has_room` says that the data core can be given a message.
    pub fn step<S: DriveSlots>(&mut self, slots: &mut S, has_room: bool, now: Instant) -> Step<S::Device> {
        let view = slots.look(self.index);
        if !self.is_undisturbed(&view, slots, now) {
            return Step::None;
        }
        match self.state {
            State::Empty if view.occupied => self.state = State::Settling { until: now + SETTLE_TIME },
            State::Settling { until } if now >= until => {
                say!(info, slots, self.index, "slot {:02x}:{:02x}.{}: occupied, power on");
                slots.set_power(self.index, true);
                slots.set_indicators(self.index, Indicator::Blink, Indicator::Off);
                self.state = State::PoweringOn { deadline: now + LINK_LIMIT };
            }
            State::PoweringOn { .. } if view.link_up => {
                let not_before = now + LINK_SETTLE_TIME;
                self.state = State::Starting { not_before, deadline: not_before + READY_LIMIT };
            }
            State::PoweringOn { deadline } if now >= deadline => {
                say!(warn, slots, self.index, "slot {:02x}:{:02x}.{}: its link does not come up");
                self.give_up(slots, now);
            }
            State::Starting { not_before, deadline } if now >= not_before && has_room => {
                return self.start(slots, now >= deadline, now);
            }
            State::Leaving { at } if now >= at => self.state = State::Asking { in_order: true },
            State::Asking { in_order } if has_room => {
                self.state = State::Removing { in_order };
                return Step::Remove { in_order };
            }
            State::PoweringOff { until, start_again } if now >= until => {
                // What was asked to leave and still stands there is left alone; what has come since is not.
                self.state = if view.occupied && !start_again { State::Idle } else { State::Empty };
            }
            _ => {}
        }
        Step::None
    }

    /// Whether nobody has touched the slot; else it is in another state now.
    fn is_undisturbed<S: DriveSlots>(&mut self, view: &SlotView, slots: &mut S, now: Instant) -> bool {
        let gone = !view.occupied || view.changed || view.power_fault;
        self.faulty |= view.power_fault;
        match self.state {
            State::Empty => return true,
            State::PoweringOff { until, start_again } => {
                // Taken out, and perhaps another put in already.
                self.state = State::PoweringOff { until, start_again: start_again || view.changed };
                return true;
            }
            State::Settling { .. } if gone => self.state = State::Empty,
            State::PoweringOn { .. } | State::Starting { .. } if !view.occupied || view.power_fault => {
                say!(
                    warn,
                    slots,
                    self.index,
                    "slot {:02x}:{:02x}.{}: pulled, or without power, before its drive was up"
                );
                self.power_off(slots, Indicator::Off, !self.faulty, now);
            }
            State::Serving
            | State::Leaving { .. }
            | State::Asking { in_order: true }
            | State::Removing { in_order: true }
                if gone || !view.link_up =>
            {
                say!(warn, slots, self.index, "slot {:02x}:{:02x}.{}: its drive was pulled without warning");
                self.state = State::Asking { in_order: false };
            }
            State::Serving if view.button_pressed => {
                say!(
                    info,
                    slots,
                    self.index,
                    "slot {:02x}:{:02x}.{}: button pressed: its drive leaves in 5 s"
                );
                slots.set_indicators(self.index, Indicator::Blink, Indicator::Off);
                self.state = State::Leaving { at: now + CANCEL_TIME };
            }
            State::Leaving { .. } if view.button_pressed => {
                say!(info, slots, self.index, "slot {:02x}:{:02x}.{}: button pressed again: its drive stays");
                slots.set_indicators(self.index, Indicator::On, Indicator::Off);
                self.state = State::Serving;
            }
            State::Idle if !view.occupied || view.changed => {
                self.faulty = false;
                slots.set_indicators(self.index, Indicator::Off, Indicator::Off);
                self.state = State::Empty;
            }
            State::Idle if view.button_pressed => {
                self.faulty = false;
                self.state = State::Settling { until: now };
            }
            _ => return true,
        }
        false
    }

    fn start<S: DriveSlots>(&mut self, slots: &mut S, late: bool, now: Instant) -> Step<S::Device> {
        match slots.take_device(self.index) {
            Ok(device) => {
                say!(info, slots, self.index, "slot {:02x}:{:02x}.{}: drive found");
                slots.set_indicators(self.index, Indicator::On, Indicator::Off);
                self.state = State::Serving;
                Step::Add(device)
            }
            Err(SlotError::NotReady) if !late => Step::None,
            Err(error) => {
                say!(warn, slots, self.index, "slot {:02x}:{:02x}.{}: not used: {}", error.name());
                self.give_up(slots, now);
                Step::None
            }
        }
    }

    /// The data core has let go of the drive.
    pub fn removed<S: DriveSlots>(&mut self, slots: &mut S, device: S::Device, in_order: bool, now: Instant) {
        slots.return_device(self.index, device);
        if in_order {
            say!(info, slots, self.index, "slot {:02x}:{:02x}.{}: off, its drive may be taken out");
        } else {
            say!(warn, slots, self.index, "slot {:02x}:{:02x}.{}: off, its drive was not shut down");
        }
        let attention = if self.faulty { Indicator::On } else { Indicator::Off };
        self.power_off(slots, attention, !in_order && !self.faulty, now);
    }

    fn give_up<S: DriveSlots>(&mut self, slots: &mut S, now: Instant) {
        self.power_off(slots, Indicator::On, false, now);
    }

    fn power_off<S: DriveSlots>(
        &mut self,
        slots: &mut S,
        attention: Indicator,
        start_again: bool,
        now: Instant,
    ) {
        slots.set_power(self.index, false);
        slots.set_indicators(self.index, Indicator::Off, attention);
        self.state = State::PoweringOff { until: now + POWER_OFF_TIME, start_again };
    }
}
