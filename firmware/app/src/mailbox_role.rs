//! The mailbox on the control core: the operator's line, what is told there, and what is declared there and stored.

use core::time::Duration;

use control::{Asking, Card, Mailbox};
use dataplane::Role;
use hal_api::{ByteStream, Instant, NorFlash};
use message::mailbox::{self, Answer, Call, Core, Cores, Error, Status};
use message::{CoreMeter, Then};

use crate::plan::{self, Plan};

/// How often a line is looked at that cannot wake the core.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// What control knows of the card by itself.
#[derive(Debug, Clone, Copy)]
pub struct CardFacts {
    /// The firmware's version.
    pub version: &'static str,
    /// The board that it was built for.
    pub board: &'static str,
    /// Which core runs what.
    pub plan: &'static Plan,
    /// How each core's time is spent, by its number.
    pub meters: &'static [CoreMeter],
    /// Crashes since power-on.
    pub crashes: u32,
    /// Those of them since the card last served.
    pub crashes_in_a_row: u32,
    /// Begins the orderly end, and gives what comes after it; `None` where that cannot come after it.
    pub end: fn(Then) -> Option<Then>,
}

/// Serves the mailbox on one line, where there is one, and keeps what is declared.
pub struct MailboxRole<S, F> {
    mailbox: Option<Mailbox<S>>,
    card: CardSide<F>,
    polled: bool,
}

/// What the mailbox asks: control itself, and the data cores.
struct CardSide<F> {
    facts: CardFacts,
    asking: Asking<'static, F>,
}

impl<S: ByteStream, F: NorFlash> MailboxRole<S, F> {
    /// The mailbox on `line`. With `polled` that cannot wake the core. `asking` is the way to the data cores, and has what is declared.
    pub fn new(line: Option<S>, polled: bool, facts: CardFacts, asking: Asking<'static, F>) -> Self {
        Self { mailbox: line.map(Mailbox::new), card: CardSide { facts, asking }, polled }
    }
}

impl<S: ByteStream, F: NorFlash> Role for MailboxRole<S, F> {
    fn poll(&mut self, now: Instant, budget: u32) -> u32 {
        let work = self.card.asking.poll(now);
        let Some(mailbox) = &mut self.mailbox else { return work };
        work + mailbox.poll(&mut self.card, now, budget)
    }

    fn arm(&mut self) -> bool {
        let heard = self.card.asking.arm();
        self.mailbox.as_mut().is_some_and(Mailbox::arm) || heard
    }

    fn disarm(&mut self) {
        self.card.asking.disarm();
        if let Some(mailbox) = &mut self.mailbox {
            mailbox.disarm();
        }
    }

    fn next_deadline(&mut self, now: Instant) -> Instant {
        let looks = self.polled && self.mailbox.is_some();
        let look = if looks { now + POLL_INTERVAL } else { Instant::FAR_FUTURE };
        self.card.asking.next_deadline(now).min(look)
    }
}

impl<F: NorFlash> Card for CardSide<F> {
    fn begin(&mut self, call: Call, now: Instant) -> Option<Result<Answer, Error>> {
        Some(match call {
            Call::Status => Ok(Answer::Status(self.status(now))),
            Call::Cores { first } => Ok(Answer::Cores(self.facts.cores(first))),
            Call::End { then } => self.facts.end(then).map(|then| Answer::Ending { then }),
            Call::Core { core, call } => return self.asking.ask(core, call, now),
            Call::Change(change) => return self.asking.change(change, now),
            Call::Configuration { first } => Ok(self.asking.configuration(first)),
            // The mailbox answers it.
            Call::Hello(_) => Err(Error::Malformed),
        })
    }

    fn finish(&mut self, now: Instant) -> Option<Result<Answer, Error>> {
        self.asking.finish(now)
    }
}

impl<F: NorFlash> CardSide<F> {
    fn status(&self, now: Instant) -> Status {
        let (data_cores, configuration_is_stored) = (self.asking.cores(), self.asking.is_stored());
        Status { data_cores, configuration_is_stored, ..self.facts.status(now) }
    }
}

impl CardFacts {
    fn status(&self, now: Instant) -> Status {
        Status {
            version: shortened(self.version),
            board: shortened(self.board),
            plan: shortened(self.plan.name),
            uptime_us: now.as_micros(),
            cores: self.plan.cores as u8,
            data_cores: 0,
            crashes: self.crashes,
            crashes_in_a_row: self.crashes_in_a_row,
            // As `CardSide` knows.
            configuration_is_stored: false,
        }
    }

    fn end(&self, then: Then) -> Result<Then, Error> {
        let comes = (self.end)(then).ok_or(Error::NotHere)?;
        hal_log::info!("an operator asks for the orderly end");
        Ok(comes)
    }

    fn cores(&self, first: u8) -> Cores {
        let mut some = Cores { cores: heapless::Vec::new() };
        let cores = self.meters.iter().zip(0u8..).take(self.plan.cores).skip(usize::from(first));
        for (meter, number) in cores {
            let reading = meter.read();
            let mut roles = mailbox::Roles::new();
            for role in self.plan.roles_of(usize::from(number)) {
                // There is room for one of each.
                let _ = roles.push(as_message(role));
            }
            let core = Core {
                number,
                roles,
                productive_turns: reading.productive,
                empty_turns: reading.empty,
                sleeps: reading.sleeps,
                asleep_us: reading.asleep_us,
                longest_turn_us: reading.longest_turn_us,
            };
            if some.cores.push(core).is_err() {
                break;
            }
        }
        some
    }
}

const fn as_message(role: plan::Role) -> mailbox::Role {
    match role {
        plan::Role::Control => mailbox::Role::Control,
        plan::Role::Net => mailbox::Role::Net,
        plan::Role::Drive => mailbox::Role::Drive,
        plan::Role::Host => mailbox::Role::Host,
        plan::Role::Offload => mailbox::Role::Offload,
    }
}

/// As much of a name as there is room for.
fn shortened<const N: usize>(name: &str) -> heapless::String<N> {
    let mut text = heapless::String::new();
    for letter in name.chars() {
        if text.push(letter).is_err() {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlanEntry;

    static METERS: [CoreMeter; 16] = [const { CoreMeter::new() }; 16];
    static PLAN: Plan = Plan {
        name: "a plan whose name is longer than there is room for in an answer",
        cores: 12,
        automatic: true,
        entries: &[
            PlanEntry { core: 0, role: plan::Role::Control, queue: 0 },
            PlanEntry { core: 11, role: plan::Role::Net, queue: 0 },
            PlanEntry { core: 11, role: plan::Role::Drive, queue: 0 },
        ],
    };

    fn facts() -> CardFacts {
        let (version, board) = ("1.2.3", "test");
        CardFacts { version, board, plan: &PLAN, meters: &METERS, crashes: 3, crashes_in_a_row: 1, end: Some }
    }

    #[test]
    fn cores_are_told_of_page_by_page() {
        let card = facts();
        METERS[11].note_sleep(5);
        let numbers = |first| card.cores(first).cores.iter().map(|core| core.number).collect::<Vec<_>>();
        assert_eq!((numbers(0), numbers(8)), ((0..8).collect(), (8..12).collect()));
        assert!(numbers(12).is_empty() && numbers(255).is_empty());
        let last = &card.cores(11).cores[0];
        assert_eq!(last.roles, [mailbox::Role::Net, mailbox::Role::Drive]);
        assert_eq!((last.sleeps, last.asleep_us), (1, 5));
    }

    #[test]
    fn long_names_are_cut() {
        let status = facts().status(Instant::from_micros(9));
        assert_eq!(status.plan, "a plan whose name is longer than");
        assert_eq!((status.uptime_us, status.cores, status.crashes), (9, 12, 3));
    }
}
