//! The mailbox on the control core: the operator's line, what is told there, and where what is set there is stored.

use core::time::Duration;

use control::{Card, ConfigurationStore, Mailbox, StoreState};
use dataplane::Role;
use hal_api::{ByteStream, Instant, NorFlash};
use message::mailbox::{self, Core, CoreCall, Cores, Error, Status};
use message::{Calls, CoreMeter, Reply, Then};

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

/// Serves the mailbox on one line, where there is one.
pub struct MailboxRole<S, F> {
    mailbox: Option<Mailbox<S>>,
    card: CardSide<F>,
    polled: bool,
}

/// What the mailbox asks: control itself, and the data cores.
struct CardSide<F> {
    facts: CardFacts,
    calls: Calls,
    store: ConfigurationStore<'static, F>,
}

impl<S: ByteStream, F: NorFlash> MailboxRole<S, F> {
    /// The mailbox on `line`. With `polled` that cannot wake the core. `calls` are the ways to the data cores, `store` is
    /// where the configuration is kept.
    pub fn new(
        line: Option<S>,
        polled: bool,
        facts: CardFacts,
        calls: Calls,
        store: ConfigurationStore<'static, F>,
    ) -> Self {
        Self { mailbox: line.map(Mailbox::new), card: CardSide { facts, calls, store }, polled }
    }
}

impl<S: ByteStream, F: NorFlash> Role for MailboxRole<S, F> {
    fn poll(&mut self, now: Instant, budget: u32) -> u32 {
        let stored = self.card.store.poll(now);
        let Some(mailbox) = &mut self.mailbox else { return stored };
        stored + mailbox.poll(&mut self.card, now, budget)
    }

    fn arm(&mut self) -> bool {
        let heard = self.card.calls.arm();
        self.mailbox.as_mut().is_some_and(Mailbox::arm) || heard
    }

    fn disarm(&mut self) {
        self.card.calls.disarm();
        if let Some(mailbox) = &mut self.mailbox {
            mailbox.disarm();
        }
    }

    fn next_deadline(&mut self, now: Instant) -> Instant {
        let stored = self.card.store.next_deadline(now);
        let Some(mailbox) = &self.mailbox else { return stored };
        let look = if self.polled { now + POLL_INTERVAL } else { Instant::FAR_FUTURE };
        mailbox.next_deadline().min(look).min(stored)
    }
}

impl<F: NorFlash> Card for CardSide<F> {
    fn status(&self, now: Instant) -> Status {
        let configuration_is_stored = self.store.state() == StoreState::Idle;
        Status { data_cores: self.calls.cores(), configuration_is_stored, ..self.facts.status(now) }
    }

    fn cores(&self, first: u8) -> Cores {
        self.facts.cores(first)
    }

    fn end(&self, then: Then) -> Result<Then, Error> {
        let comes = (self.facts.end)(then).ok_or(Error::NotHere)?;
        hal_log::info!("an operator asks for the orderly end");
        Ok(comes)
    }

    fn ask(&mut self, core: u8, call: CoreCall) -> Result<u32, Error> {
        self.calls.ask(core, call)
    }

    fn hear(&mut self) -> Option<Reply> {
        self.calls.hear()
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
            configuration_is_stored: false,
        }
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
    use hal_api::{FlashError, FlashShape};
    use hal_fakes::FakeFlash;
    use hal_mem::Arena;
    use message::call_ways;

    use super::*;
    use crate::plan::PlanEntry;

    struct NoLine;

    impl ByteStream for NoLine {
        fn read(&mut self, _into: &mut [u8]) -> usize {
            0
        }

        fn write(&mut self, _bytes: &[u8]) -> usize {
            0
        }

        fn flush(&mut self) {}

        fn arm(&mut self) -> bool {
            false
        }

        fn disarm(&mut self) {}
    }

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
    fn the_status_tells_whether_what_is_set_survives_a_reset() {
        let shape = FlashShape { blocks: 2, block_bytes: 4096, unit_bytes: 4, program_bytes: 64 };
        for has_flash in [false, true] {
            let (flash, hands) = FakeFlash::new(shape);
            let store = ConfigurationStore::open(Some(flash).filter(|_| has_flash), vec![0; 4096].leak());
            let (calls, _) = call_ways(&mut Arena::leak_for_host(1 << 20), 0, |_| {}, || {}).unwrap();
            let mut role: MailboxRole<NoLine, _> = MailboxRole::new(None, false, facts(), calls, store);
            let is_stored =
                |role: &MailboxRole<_, _>| role.card.status(Instant::ZERO).configuration_is_stored;
            assert_eq!(is_stored(&role), has_flash);
            if !has_flash {
                continue;
            }
            role.card.store.save(b"set", Instant::ZERO).unwrap();
            assert!(!is_stored(&role), "it is on its way");
            assert!(role.next_deadline(Instant::ZERO) < Instant::from_millis(10));
            while !is_stored(&role) {
                role.poll(Instant::ZERO, 64);
            }
            assert_eq!(role.next_deadline(Instant::ZERO), Instant::FAR_FUTURE);
            hands.fail_at(0, FlashError::EraseFailed);
            role.card.store.save(b"more", Instant::ZERO).unwrap();
            while role.next_deadline(Instant::ZERO) != Instant::FAR_FUTURE {
                role.poll(Instant::ZERO, 64);
            }
            assert!(!is_stored(&role), "it has failed");
        }
    }

    #[test]
    fn long_names_are_cut() {
        let status = facts().status(Instant::from_micros(9));
        assert_eq!(status.plan, "a plan whose name is longer than");
        assert_eq!((status.uptime_us, status.cores, status.crashes), (9, 12, 3));
    }
}
