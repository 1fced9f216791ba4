//! What control asks data cores on behalf of an operator, one thing at a time: what one of them has, or that all of them change.
//!
//! A change is made by one data core after the other, by the registrar's core last, because that one has the others take
//! namespaces and ports along (docs/design/live-configuration.md). Then it is stored. How long an operator waits has a limit, so that a
//! core that hangs costs a sentence; a change that was begun is seen through whether or not somebody still waits, because cores
//! that differ for good would serve hosts differently.

use core::time::Duration;

use hal_api::{Instant, NorFlash};
use message::Calls;
use message::configuration::{ChangeError, ConfigurationChange};
use message::mailbox::{Answer, CoreAnswer, CoreCall, Error, Kept, MAX_CHANGES_OF_ANSWER};

use crate::configuration::Configuration;
use crate::store::{ConfigurationStore, StoreState};

/// A data core answers within a turn; one that has not done so after this long is told of as silent.
pub const CORE_PATIENCE: Duration = Duration::from_secs(2);
/// A change ends what hosts have under way: how long that may take on a data core until the operator is told that it does.
pub const CHANGE_PATIENCE: Duration = Duration::from_secs(15);

/// While a core takes no requests, how often it is asked again to make a change.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// What an operator waits for.
#[derive(Debug)]
enum Wait {
    /// What one core says.
    Core { core: u8, ticket: u32, until: Instant },
    /// That all cores have made the change.
    Change { until: Instant },
    /// That it is stored.
    Store,
}

/// A change on its way through the cores.
#[derive(Debug)]
struct Making {
    change: ConfigurationChange,
    /// Who is to make it now; those before it are to make it then.
    core: u8,
    /// What that core was asked under; `None` while it takes no requests.
    ticket: Option<u32>,
}

/// The ways to the data cores, and what is declared.
#[derive(Debug)]
pub struct Asking<'a, F> {
    calls: Calls,
    configuration: Configuration<'a>,
    store: ConfigurationStore<'a, F>,
    making: Option<Making>,
    /// How the last change has ended, until somebody asks.
    made: Option<Result<(), Error>>,
    wait: Option<Wait>,
    /// What the core has said whose answer is waited for.
    answer: Option<Result<CoreAnswer, Error>>,
}

impl<'a, F: NorFlash> Asking<'a, F> {
    /// Asks by `calls`; `configuration` is what the data cores were given, and `store` keeps it.
    pub const fn new(
        calls: Calls,
        configuration: Configuration<'a>,
        store: ConfigurationStore<'a, F>,
    ) -> Self {
        Self { calls, configuration, store, making: None, made: None, wait: None, answer: None }
    }

    /// How many data cores there are.
    #[must_use]
    pub fn cores(&self) -> u8 {
        self.calls.cores()
    }

    /// Whether what is set is still so after the next reset.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.store.state() == StoreState::Idle
    }

    /// Asks a data core; `None` where [`Self::finish`] has its answer.
    pub fn ask(&mut self, core: u8, call: CoreCall, now: Instant) -> Option<Result<Answer, Error>> {
        if let CoreCall::Change(_) = call {
            // One core alone is never changed.
            return Some(Err(Error::Malformed));
        }
        match self.calls.ask(core, call) {
            Ok(ticket) => {
                self.answer = None;
                self.wait = Some(Wait::Core { core, ticket, until: now + CORE_PATIENCE });
            }
            Err(error) => return Some(Err(error)),
        }
        None
    }

    /// Makes a change; `None` where [`Self::finish`] tells of its end. One that is on its way already is waited for again.
    pub fn change(&mut self, change: ConfigurationChange, now: Instant) -> Option<Result<Answer, Error>> {
        match &self.making {
            Some(making) if making.change != change => return Some(Err(Error::Change(ChangeError::Busy))),
            Some(_) => {}
            None if self.configuration.draft(&change).is_err() => return Some(Err(Error::ConfigurationFull)),
            None => {
                let core = self.calls.cores().saturating_sub(1);
                self.made = None;
                self.making = Some(Making { change, core, ticket: None });
                self.push_on();
            }
        }
        self.wait = Some(Wait::Change { until: now + CHANGE_PATIENCE });
        None
    }

    /// Asks the core whose turn it is to make the change, if it has not been asked.
    fn push_on(&mut self) {
        let Some(making) = self.making.as_mut().filter(|making| making.ticket.is_none()) else { return };
        // A core that takes no requests has those of before to answer first.
        making.ticket = self.calls.ask(making.core, CoreCall::Change(making.change.clone())).ok();
    }

    /// The declared changes from `first` on, as many as an answer takes.
    #[must_use]
    pub fn configuration(&self, first: u16) -> Answer {
        let mut page = heapless::Vec::<_, MAX_CHANGES_OF_ANSWER>::new();
        for change in self.configuration.changes().skip(usize::from(first)) {
            if page.push(change).is_err() {
                break;
            }
        }
        Answer::Configuration(page)
    }

    /// Goes on with what was begun; its answer, once.
    pub fn finish(&mut self, now: Instant) -> Option<Result<Answer, Error>> {
        self.hear(now);
        match self.wait.take()? {
            Wait::Core { core, until, .. } if self.answer.is_none() && now >= until => {
                Some(Err(Error::CoreSilent { core }))
            }
            Wait::Core { core, ticket, until } => match self.answer.take() {
                Some(result) => Some(result.map(Answer::Core)),
                None => self.go_on(Wait::Core { core, ticket, until }),
            },
            Wait::Change { until } => match (self.made.take(), &self.making) {
                (Some(Ok(())), _) => self.finish_storing(),
                (Some(Err(error)), _) => Some(Err(error)),
                (None, Some(making)) if now >= until => {
                    Some(Err(Error::ChangeUnderWay { core: making.core }))
                }
                (None, _) => self.go_on(Wait::Change { until }),
            },
            Wait::Store => self.finish_storing(),
        }
    }

    fn finish_storing(&mut self) -> Option<Result<Answer, Error>> {
        let kept = match self.store.state() {
            StoreState::Saving => return self.go_on(Wait::Store),
            // What is stored is what is declared, unless it could not even be begun.
            StoreState::Idle if self.store.load() == Some(self.configuration.bytes()) => Kept::Stored,
            StoreState::Idle | StoreState::Failed(_) => Kept::StoreFailed,
            StoreState::Absent(_) => Kept::UntilReset,
        };
        Some(Ok(Answer::Changed(kept)))
    }

    fn go_on(&mut self, wait: Wait) -> Option<Result<Answer, Error>> {
        self.wait = Some(wait);
        None
    }

    /// Takes in what cores have answered.
    fn hear(&mut self, now: Instant) {
        while let Some(reply) = self.calls.hear() {
            let ticket = reply.ticket;
            if self.making.as_ref().is_some_and(|making| making.ticket == Some(ticket)) {
                self.made_on(reply.result, now);
            } else if matches!(self.wait, Some(Wait::Core { ticket: wanted, .. }) if wanted == ticket) {
                self.answer = Some(reply.result);
            }
            // Others came too late for who has asked.
        }
        self.push_on();
    }

    /// A core has made the change, or refused it: on to the next, or to the store.
    fn made_on(&mut self, result: Result<CoreAnswer, Error>, now: Instant) {
        let Some(making) = &mut self.making else { return };
        match (result, making.core.checked_sub(1)) {
            (Ok(_), Some(next)) => {
                (making.core, making.ticket) = (next, None);
                return;
            }
            (Ok(_), None) => {
                self.configuration.adopt();
                if let Err(error) = self.store.save(self.configuration.bytes(), now)
                    && !matches!(self.store.state(), StoreState::Absent(_))
                {
                    hal_log::error!("the configuration is not stored: {}", error.name());
                }
                self.made = Some(Ok(()));
            }
            (Err(error), _) => self.made = Some(Err(error)),
        }
        self.making = None;
    }

    /// Work that nobody waits for: a change that is on its way, what is being stored, and replies that came too late, for which the
    /// core would never sleep.
    pub fn poll(&mut self, now: Instant) -> u32 {
        self.hear(now);
        self.store.poll(now)
    }

    /// Asks to be woken by an answer. True when one may be there.
    pub fn arm(&mut self) -> bool {
        self.calls.arm()
    }

    /// Control looks by itself.
    pub fn disarm(&mut self) {
        self.calls.disarm();
    }

    /// When there is something to do although nobody says anything.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let until = match &self.wait {
            Some(Wait::Core { until, .. } | Wait::Change { until }) => *until,
            Some(Wait::Store) | None => Instant::FAR_FUTURE,
        };
        let waits_to_ask = self.making.as_ref().is_some_and(|making| making.ticket.is_none());
        let until = if waits_to_ask { until.min(now + RETRY_INTERVAL) } else { until };
        until.min(self.store.next_deadline(now))
    }
}

#[cfg(test)]
mod tests;
