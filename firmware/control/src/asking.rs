//! What control asks data cores on behalf of an operator, one thing at a time: what one of them has, or that all of them change.
//!
//! A change is made by one data core after the other, by the registrar's core last, because that one has the others take
//! namespaces and ports along (docs/design/live-configuration.md). Then it is stored. Each step has a limit, so that a core that
//! hangs costs the operator a sentence.

use core::time::Duration;

use hal_api::{Instant, NorFlash};
use message::Calls;
use message::configuration::ConfigurationChange;
use message::mailbox::{Answer, CoreAnswer, CoreCall, Error, Kept, MAX_CHANGES_OF_ANSWER};

use crate::configuration::Configuration;
use crate::store::{ConfigurationStore, StoreState};

/// A data core answers within a turn; one that has not done so after this long is told of as silent.
pub const CORE_PATIENCE: Duration = Duration::from_secs(2);
/// A change ends what hosts have under way: how long that may take on a data core until the operator is told that it does.
pub const CHANGE_PATIENCE: Duration = Duration::from_secs(15);

/// What is waited for.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one exists, and there is no heap to box it in")]
enum Wait {
    /// What one core says.
    Core { core: u8, ticket: u32, until: Instant },
    /// That a core has made a change; those before it are to make it then.
    Change { change: ConfigurationChange, core: u8, ticket: u32, until: Instant },
    /// That the change, which all cores have made, is stored.
    Store,
}

/// The ways to the data cores, and what is declared.
#[derive(Debug)]
pub struct Asking<'a, F> {
    calls: Calls,
    configuration: Configuration<'a>,
    store: ConfigurationStore<'a, F>,
    wait: Option<Wait>,
}

impl<'a, F: NorFlash> Asking<'a, F> {
    /// Asks by `calls`; `configuration` is what the data cores were given, and `store` keeps it.
    pub const fn new(
        calls: Calls,
        configuration: Configuration<'a>,
        store: ConfigurationStore<'a, F>,
    ) -> Self {
        Self { calls, configuration, store, wait: None }
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
            Ok(ticket) => self.wait = Some(Wait::Core { core, ticket, until: now + CORE_PATIENCE }),
            Err(error) => return Some(Err(error)),
        }
        None
    }

    /// Makes a change; `None` where [`Self::finish`] tells of its end.
    pub fn change(&mut self, change: ConfigurationChange, now: Instant) -> Option<Result<Answer, Error>> {
        if self.configuration.draft(&change).is_err() {
            return Some(Err(Error::ConfigurationFull));
        }
        let last = self.calls.cores().saturating_sub(1);
        self.change_on(change, last, now).err().map(Err)
    }

    fn change_on(&mut self, change: ConfigurationChange, core: u8, now: Instant) -> Result<(), Error> {
        let ticket = self.calls.ask(core, CoreCall::Change(change.clone()))?;
        self.wait = Some(Wait::Change { change, core, ticket, until: now + CHANGE_PATIENCE });
        Ok(())
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
        let wait = self.wait.take()?;
        match wait {
            Wait::Core { core, ticket, until } => match self.reply(ticket) {
                Some(result) => Some(result.map(Answer::Core)),
                None if now >= until => Some(Err(Error::CoreSilent { core })),
                None => self.go_on(wait),
            },
            Wait::Change { change, core, ticket, until } => match self.reply(ticket) {
                Some(Ok(CoreAnswer::Changed)) => self.made_on(change, core, now),
                Some(Ok(_)) => Some(Err(Error::CoreSilent { core })),
                Some(Err(error)) => Some(Err(error)),
                None if now >= until => Some(Err(Error::ChangeUnderWay { core })),
                None => self.go_on(Wait::Change { change, core, ticket, until }),
            },
            Wait::Store => match self.store.state() {
                StoreState::Saving => self.go_on(wait),
                StoreState::Idle => Some(Ok(Answer::Changed(Kept::Stored))),
                StoreState::Failed(_) => Some(Ok(Answer::Changed(Kept::StoreFailed))),
                StoreState::Absent(_) => Some(Ok(Answer::Changed(Kept::UntilReset))),
            },
        }
    }

    fn go_on(&mut self, wait: Wait) -> Option<Result<Answer, Error>> {
        self.wait = Some(wait);
        None
    }

    /// The reply under this ticket, if it has come. Those of earlier ones came too late for who has asked.
    fn reply(&mut self, ticket: u32) -> Option<Result<CoreAnswer, Error>> {
        loop {
            let reply = self.calls.hear()?;
            if reply.ticket == ticket {
                return Some(reply.result);
            }
        }
    }

    /// A core has made a change: on to the next, or to the store.
    fn made_on(
        &mut self,
        change: ConfigurationChange,
        core: u8,
        now: Instant,
    ) -> Option<Result<Answer, Error>> {
        if let Some(next) = core.checked_sub(1) {
            return self.change_on(change, next, now).err().map(Err);
        }
        self.configuration.adopt();
        match self.store.save(self.configuration.bytes(), now) {
            Ok(()) => self.go_on(Wait::Store),
            Err(_) if matches!(self.store.state(), StoreState::Absent(_)) => {
                Some(Ok(Answer::Changed(Kept::UntilReset)))
            }
            Err(error) => {
                hal_log::error!("the configuration is not stored: {}", error.name());
                Some(Ok(Answer::Changed(Kept::StoreFailed)))
            }
        }
    }

    /// Work that nobody waits for: what is being stored, and replies that came too late, for which the core would never sleep.
    pub fn poll(&mut self, now: Instant) -> u32 {
        while self.wait.is_none() && self.calls.hear().is_some() {}
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
            Some(Wait::Core { until, .. } | Wait::Change { until, .. }) => *until,
            Some(Wait::Store) | None => Instant::FAR_FUTURE,
        };
        until.min(self.store.next_deadline(now))
    }
}

#[cfg(test)]
mod tests;
