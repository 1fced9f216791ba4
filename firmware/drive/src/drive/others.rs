//! A drive among several data cores: what this core says about it to the others, and hears from them.

use hal_api::{Instant, NvmeDevice};
use hal_mem::PagePool;
use message::CoreSet;
use nvme::log_page::SmartLog;
use zerocopy::{FromZeros, IntoBytes};

use super::Drive;
use crate::messages::Body;

/// What there is to be said.
#[derive(Debug)]
pub(super) struct Others {
    all: CoreSet,
    home: u8,
    /// Cores that do not know that the drive is there; that it leaves; that it has left.
    joined: CoreSet,
    leaving: CoreSet,
    leave: CoreSet,
    /// Cores that have something of it; told when it has left.
    present: CoreSet,
    leave_told: bool,
    end_wanted: bool,
    /// Cores that are to be told of its health; what its home has told.
    health_unsent: CoreSet,
    health: Option<SmartLog>,
}

impl Others {
    pub const fn new(all: CoreSet, home: u8, is_home: bool) -> Self {
        let told = if is_home { all } else { CoreSet::NONE };
        Self {
            all,
            home,
            joined: told,
            leaving: CoreSet::NONE,
            leave: CoreSet::NONE,
            present: told,
            leave_told: false,
            end_wanted: false,
            health_unsent: CoreSet::NONE,
            health: None,
        }
    }

    pub const fn health(&self) -> Option<&SmartLog> {
        self.health.as_ref()
    }

    pub fn want_end(&mut self) {
        self.end_wanted = true;
    }

    pub fn tell_leaving(&mut self) {
        if !self.leave_told {
            self.leaving = self.present;
        }
    }
}

fn take_first(set: &mut CoreSet, room: CoreSet) -> Option<u8> {
    let core = set.and(room).first()?;
    set.remove(core);
    Some(core)
}

impl<D: NvmeDevice> Drive<D> {
    /// The next message to another core that has `room`, and which. `number` is the drive's.
    pub(crate) fn take_message(&mut self, number: u8, room: CoreSet) -> Option<(u8, Body<D::Queue>)> {
        let others = &mut self.others;
        if others.all.is_empty() {
            return None;
        }
        if let Some(to) = take_first(&mut others.joined, room) {
            return Some((to, Body::Joined { number, address: self.home.as_ref()?.address() }));
        }
        if let Some(to) = take_first(&mut others.leaving, room) {
            return Some((to, Body::Leaving));
        }
        if let Some((to, message)) = self.home.as_mut().and_then(|home| home.take_message(room)) {
            return Some((to, Body::ToQueue(message)));
        }
        if let Some(to) = take_first(&mut others.leave, room) {
            return Some((to, Body::Leave));
        }
        let has_room = room.contains(others.home);
        if self.home.is_none()
            && has_room
            && let Some(message) = self.queue.take_message()
        {
            return Some((others.home, Body::FromQueue(message)));
        }
        if let Some(home) = &mut self.home {
            if home.take_health_news() {
                others.health_unsent = others.present;
            }
            if let Some(health) = home.smart()
                && let Some(to) = take_first(&mut others.health_unsent, room)
            {
                let (bytes, _) = health.as_bytes().split_first_chunk()?;
                return Some((to, Body::Health(*bytes)));
            }
        }
        if let Some((to, generation, message)) = self.queue.take_lane_message(room) {
            return Some((to, Body::Lane { generation, message }));
        }
        if has_room && core::mem::take(&mut others.end_wanted) {
            return Some((others.home, Body::EndWanted));
        }
        self.flushes.take_message(room)
    }

    /// Whether [`Self::take_message`] has one, or [`Self::take_flushed`]. Asked in every turn.
    pub(crate) fn has_messages(&self) -> bool {
        let others = &self.others;
        if others.all.is_empty() {
            return false;
        }
        let untold = others.joined.or(others.leaving).or(others.leave).or(others.health_unsent);
        let of_home_or_to_it = match &self.home {
            Some(home) => home.has_messages() || home.has_health_news(),
            None => others.end_wanted || self.queue.has_message(),
        };
        !untold.is_empty()
            || of_home_or_to_it
            || self.queue.has_lane_message()
            || self.queue.has_flushed()
            || self.flushes.has_messages()
    }

    /// Takes in what another core says.
    pub(crate) fn hear(&mut self, from: u8, body: Body<D::Queue>, now: Instant, pool: &mut PagePool) {
        match (body, &mut self.home) {
            (Body::ToQueue(message), None) => self.queue.hear(message, pool),
            (Body::FromQueue(message), Some(home)) => {
                home.hear(from, message, now);
                self.exchange(now, pool);
            }
            (Body::Lane { generation, message }, _) => self.queue.hear_lane(generation, message),
            (Body::EndWanted, Some(home)) => home.want_end(from, now),
            (Body::Left, Some(_)) => {
                self.others.present.remove(from);
            }
            (Body::Health(bytes), None) => {
                let health = self.others.health.get_or_insert_with(SmartLog::new_zeroed);
                if let Some(into) = health.as_mut_bytes().first_chunk_mut() {
                    *into = bytes;
                }
            }
            (Body::Flushed { nsid, sent }, _) => self.queue.others_flushed(nsid, sent),
            (Body::AskFlush { ticket, until }, _) => self.hear_ask_flush(from, ticket, until),
            (Body::FlushOver { ticket, complete }, _) => self.flushes.hear_over(from, ticket, complete),
            // Those that come and go are the business of who has all drives; others make no sense.
            _ => hal_log::warn!("drive {}: core {} says what makes no sense", self.name.as_str(), from),
        }
    }

    /// The next namespace that a Flush of this core has made safe, which all others may be told.
    pub(crate) fn take_flushed(&mut self) -> Option<(u32, Instant)> {
        self.queue.take_flushed()
    }

    /// What has been acknowledged until now was acknowledged before this.
    pub(crate) fn note_time(&mut self, now: Instant) {
        self.queue.note_time(now);
    }

    /// The drive is off the bus for good: the other cores let go of it. True when all have.
    pub(crate) fn has_left(&mut self) -> bool {
        if !self.others.leave_told {
            self.others.leave_told = true;
            self.others.leave = self.others.present;
        }
        self.others.present.is_empty()
    }
}
