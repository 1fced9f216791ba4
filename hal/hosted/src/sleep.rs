//! How a core that is a thread sleeps: on its devices' file descriptors and its doorbell.
//!
//! Readiness is a level that the kernel remembers, so that what comes between a core's last look and its sleep ends the
//! sleep at once; to arm a device means only to look into its buffers in the process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use hal_api::{Clock, Instant, Wake};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use crate::MonotonicClock;

/// Sleep of one core.
#[derive(Debug)]
pub struct Sleeper {
    watched: Arc<Epoll>,
    bell: Arc<EventFd>,
    clock: MonotonicClock,
}

/// Adds a device's descriptors to those that end a core's sleep.
#[derive(Debug, Clone)]
pub struct Watcher(Arc<Epoll>);

/// Ends a core's sleep from another thread, or its next one before it begins.
#[derive(Debug, Clone)]
pub struct Doorbell(Arc<EventFd>);

impl Sleeper {
    /// A core's sleep, with nothing to end it but its doorbell.
    ///
    /// # Errors
    /// What the system says, for example that too many files are open.
    pub fn new(clock: MonotonicClock) -> io::Result<Self> {
        let watched = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        watched.add(&bell, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self { watched: Arc::new(watched), bell: Arc::new(bell), clock })
    }

    /// For the devices of this core.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.watched))
    }

    /// For other threads.
    #[must_use]
    pub fn doorbell(&self) -> Doorbell {
        Doorbell(Arc::clone(&self.bell))
    }
}

impl Wake for Sleeper {
    /// To sleep takes two system calls, and to be woken a switch of threads.
    const EMPTY_TURNS: u32 = 10;

    fn sleep_until(&mut self, deadline: Instant) {
        let limit = (deadline != Instant::FAR_FUTURE)
            .then(|| TimeSpec::from_duration(deadline.since(self.clock.now())));
        let mut watched = [PollFd::new(self.watched.0.as_fd(), PollFlags::POLLIN)];
        // A signal ends the sleep early, which is allowed.
        let _ = ppoll(&mut watched, limit, None);
        let _ = self.bell.read();
    }
}

impl Watcher {
    /// From now on `descriptor` ends the sleep when it can be read, and with `room` when it can be written.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&self, descriptor: BorrowedFd<'_>, room: bool) -> io::Result<()> {
        Ok(self.0.add(descriptor, EpollEvent::new(events(room), 0))?)
    }

    /// Changes whether room to write ends the sleep.
    pub fn set_room(&self, descriptor: BorrowedFd<'_>, room: bool) {
        let changed = self.0.modify(descriptor, &mut EpollEvent::new(events(room), 0));
        debug_assert!(changed.is_ok(), "a descriptor that was added");
    }
}

fn events(room: bool) -> EpollFlags {
    if room { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN }
}

impl Doorbell {
    /// Ends the sleep.
    pub fn ring(&self) {
        // Only a full counter refuses, and then the sleep ends anyhow.
        let _ = self.0.write(1);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_wake_up_before_the_sleep_is_not_lost() {
        let mut sleeper = Sleeper::new(MonotonicClock::start()).unwrap();
        sleeper.doorbell().ring();
        // Would hang here for ever.
        sleeper.sleep_until(Instant::FAR_FUTURE);

        let (mut far, near) = UnixStream::pair().unwrap();
        sleeper.watcher().add(near.as_fd(), false).unwrap();
        far.write_all(b"frame").unwrap();
        sleeper.sleep_until(Instant::FAR_FUTURE);
    }

    #[test]
    fn another_thread_and_the_deadline_end_a_sleep() {
        let clock = MonotonicClock::start();
        let mut sleeper = Sleeper::new(clock).unwrap();
        let bell = sleeper.doorbell();
        let ringer = std::thread::spawn(move || bell.ring());
        sleeper.sleep_until(Instant::FAR_FUTURE);
        ringer.join().unwrap();
        // The bell may have been read before or after; a past deadline never waits.
        sleeper.sleep_until(Instant::ZERO);
        let soon = clock.now() + core::time::Duration::from_millis(2);
        while clock.now() < soon {
            sleeper.sleep_until(soon);
        }
    }
}
