//! What a drive does wrong beside its media: fatal states, lies, doorbells that go nowhere, links that fail, and floods of
//! events.

use std::time::Duration;

use hal_api::Instant;
use hal_fakes::{NvmeEffect, NvmeInjection};

use super::{Drive, Drives};
use crate::kinds::Kind;

/// Between two events of a flood at most, in microseconds.
const FLOOD_US: u64 = 20_000;
/// Asynchronous events (Base 5.2.1) as dword 0 of a completion: errors, health, notices, and what no standard has.
const EVENTS: [u32; 6] = [0x01_0000, 0x02_0001, 0x04_0002, 0x01_0300, 0x02_0201, 0xc0_0007];

/// Something is wrong with a drive for a while.
#[derive(Debug, Clone, Copy)]
pub(super) struct Knob {
    wrong: Wrong,
    until: Instant,
    /// When it does something next.
    next: Instant,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// Doorbells go nowhere.
    Deaf,
    /// The link is down; the drive keeps its power.
    LinkDown,
    /// CSTS.RDY does not move, while the card resets the drive.
    ReadyStuck,
    /// It tells of one event after another.
    Events,
}

impl Drive {
    /// When its knob has to be turned.
    #[must_use]
    pub fn next_turn(&self) -> Instant {
        self.knob.map_or(Instant::FAR_FUTURE, |knob| knob.next)
    }

    fn become_odd(&mut self) {
        (self.odd, self.awaits_end) = (true, None);
    }

    fn set_wrong(&self, wrong: Wrong, on: bool) {
        let Some(control) = &self.control else { return };
        match wrong {
            Wrong::Deaf => control.set_deaf(on),
            Wrong::LinkDown => control.set_link_down(on),
            Wrong::ReadyStuck => control.set_ready_stuck(on),
            Wrong::Events => (),
        }
    }

    /// What was wrong is over.
    pub(super) fn end_knob(&mut self) {
        if let Some(knob) = self.knob.take() {
            self.set_wrong(knob.wrong, false);
        }
    }
}

impl Drives {
    /// A drive turns fatal.
    pub fn turn_fatal(&mut self, index: usize) {
        let drive = &mut self.all[index];
        if let Some(control) = &drive.control {
            control.set_fatal();
            drive.become_odd();
            self.trace.event(Kind::DriveFatal, &[index as u64], format_args!("drive {index}"));
        }
    }

    /// A drive's next completions are lies.
    pub fn lie(&mut self, index: usize) {
        let status = [0x0281, 0x4281, 0x0280, 0x0006, 0x0021][self.random.usize(0..5)];
        let (effect, kind) = match self.random.u32(0..10) {
            0 => (NvmeEffect::Duplicate, Kind::DoubledCompletion),
            1 | 2 => (NvmeEffect::Late, Kind::LateCompletion),
            3 => (NvmeEffect::Stranger, Kind::StrangeCompletion),
            4 => (NvmeEffect::WrongIdentifier, Kind::WrongIdentifier),
            5 | 6 => (NvmeEffect::WrongHead, Kind::WrongHead),
            7 => (NvmeEffect::WrongPhase, Kind::WrongPhase),
            _ => (NvmeEffect::Status(status), Kind::InjectedStatus),
        };
        let count = self.random.u32(1..=12);
        let drive = &mut self.all[index];
        let Some(control) = &drive.control else { return };
        control.inject(NvmeInjection { queue: Some(1), opcode: None, skip: 0, count, effect });
        drive.become_odd();
        self.trace.event(kind, &[index as u64, count.into()], format_args!("drive {index}, {count} times"));
    }

    /// Something is wrong with a drive for a while.
    pub fn go_wrong(&mut self, index: usize) {
        let now = self.now();
        let time = Duration::from_millis(self.random.u64(1..2500));
        let lot = self.random.u32(0..8);
        let drive = &mut self.all[index];
        if drive.knob.is_some() || drive.away_until.is_some() || drive.control.is_none() {
            return;
        }
        let (wrong, kind) = match lot {
            0 | 1 => (Wrong::Deaf, Kind::DriveDeaf),
            // The slot would take it for pulled.
            2 | 3 if drive.standing.is_none() => (Wrong::LinkDown, Kind::LinkDown),
            4 | 5 => (Wrong::ReadyStuck, Kind::ReadyStuck),
            _ => (Wrong::Events, Kind::EventFlood),
        };
        let until = now + time;
        let next = if wrong == Wrong::Events { now } else { until };
        drive.knob = Some(Knob { wrong, until, next });
        if wrong != Wrong::Events {
            drive.become_odd();
        }
        drive.set_wrong(wrong, true);
        if wrong == Wrong::ReadyStuck
            && let Some(control) = &drive.control
        {
            control.set_fatal();
        }
        self.trace.event(kind, &[index as u64], format_args!("drive {index} for {time:?}"));
    }

    /// A knob of a drive is due.
    pub fn turn_knob(&mut self, index: usize) {
        let now = self.now();
        let pause = Duration::from_micros(self.random.u64(100..=FLOOD_US));
        let event = EVENTS[self.random.usize(0..EVENTS.len())];
        let drive = &mut self.all[index];
        let Some(knob) = &mut drive.knob else { return };
        if now >= knob.until {
            return drive.end_knob();
        }
        knob.next = (now + pause).min(knob.until);
        if let Some(control) = &drive.control {
            control.raise_event(event);
            self.trace.event(Kind::DriveEvent, &[index as u64, event.into()], format_args!("drive {index}"));
        }
    }
}
