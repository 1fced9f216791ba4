//! Which losses a host was told of in its association: it must hear of each only once.
//!
//! In the next association the card may tell of the same loss again, since it cannot know that the answer has arrived.

use std::collections::BTreeMap;

use hal_api::Instant;

use crate::oracle::Moment;

/// A Flush that has told of a loss.
#[derive(Debug, Clone, Copy)]
struct Telling {
    /// When it was sent.
    sent_at: Instant,
    /// When its answer came.
    answered: Moment,
}

/// The latest telling of each namespace.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<u16, Telling>);

impl Told {
    /// A Flush that was sent then has told of a loss and is answered now. `settled`: since then the card can have found
    /// out nothing new. False where the host knew already: the Flush was sent after the answer of another, and the card had
    /// nothing new to tell since that one was sent.
    pub fn hear(
        &mut self,
        namespace: u16,
        sent: (Moment, Instant),
        answered: Moment,
        settled: Instant,
    ) -> bool {
        let (sent, sent_at) = sent;
        let knew = |last: &Telling| sent > last.answered && last.sent_at > settled;
        let is_news = !self.0.get(&namespace).is_some_and(knew);
        self.0.insert(namespace, Telling { sent_at, answered });
        is_news
    }

    /// The association is over.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    #[test]
    fn a_host_hears_of_each_loss_once() {
        let mut told = Told::default();
        assert!(told.hear(3, (10, at(10)), 12, at(5)));
        // Another namespace, and a Flush that was under way with the first.
        assert!(told.hear(4, (13, at(13)), 14, at(5)));
        assert!(told.hear(3, (11, at(11)), 15, at(5)));
        assert!(!told.hear(3, (16, at(16)), 17, at(5)));
        // Something may have been lost since the last telling was sent.
        assert!(told.hear(3, (20, at(20)), 21, at(18)));
        told.forget();
        assert!(told.hear(3, (22, at(22)), 23, at(18)));
    }
}
