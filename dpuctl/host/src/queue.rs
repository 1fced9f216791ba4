//! One queue over one socket.

use crate::error::Error;
use crate::socket::Socket;
use crate::target::Target;
use nvme::Command;
use nvmeof::initiator::{BringUp, Completed, HostQueue, Payload, QueueOptions, Slot, Transfer};
use std::time::{Duration, Instant};

/// How long a command may take where nothing else is said.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// One queue over one socket.
pub struct Queue {
    /// The protocol's side of it.
    pub host: HostQueue<Vec<Slot>>,
    socket: Socket,
    sleep: bool,
}

impl Queue {
    pub(crate) fn open(target: &Target, slots: usize) -> Result<Self, Error> {
        let options = QueueOptions { digests: target.digests, alignment: 0 };
        let host = HostQueue::new(vec![Slot::default(); slots], options);
        Ok(Self { host, socket: Socket::connect(target.address, target.limit)?, sleep: target.sleep })
    }

    /// Lets bytes go both ways. Where nothing has come and sleep is wanted, it waits for a while.
    ///
    /// # Errors
    /// The connection is of no use then.
    pub fn poll(&mut self, payload: &mut impl Payload, wait: Duration) -> Result<(), Error> {
        if !self.exchange(payload)? && self.sleep && !wait.is_zero() {
            self.socket.wait(wait)?;
        }
        Ok(())
    }

    /// Lets bytes go both ways; false when nothing has come.
    ///
    /// # Errors
    /// The connection is of no use then.
    pub fn exchange(&mut self, payload: &mut impl Payload) -> Result<bool, Error> {
        let came = self.socket.read()?;
        self.host.poll(&mut self.socket, payload).map_err(Error::Fault)?;
        self.socket.write()?;
        if !came && self.socket.is_closed() { Err(Error::Closed) } else { Ok(came) }
    }

    /// Sleeps until one of them has something to do, at most so long, where sleep is wanted.
    ///
    /// # Errors
    /// Where the system cannot wait.
    pub fn wait_any<'a>(queues: impl Iterator<Item = &'a Self>, limit: Duration) -> Result<(), Error> {
        Socket::wait_any(queues.filter(|queue| queue.sleep).map(|queue| &queue.socket), limit)
    }

    pub(crate) fn bring_up(&mut self, mut steps: BringUp, limit: Duration) -> Result<BringUp, Error> {
        let began = Instant::now();
        loop {
            self.poll(&mut steps, Duration::from_millis(5))?;
            let now = hal_api::Instant::ZERO + began.elapsed();
            if steps.advance(&mut self.host, now).map_err(Error::NoController)? {
                return Ok(steps);
            }
            if began.elapsed() > limit {
                return Err(Error::Slow(format!("the set-up of a connection ({:?})", steps.step()), limit));
            }
        }
    }

    /// Runs one command on a queue that has no other to its end, and gives its result. `data` goes with it, or comes.
    ///
    /// # Errors
    /// [`Error::Command`] says `what` it was.
    pub fn execute(
        &mut self,
        what: &str,
        command: &Command,
        transfer: Transfer,
        data: &mut [u8],
        limit: Duration,
    ) -> Result<u64, Error> {
        self.host.submit(0, command, transfer).map_err(Error::NotTaken)?;
        let (mut data, began) = (OneBuffer(data), Instant::now());
        loop {
            self.poll(&mut data, Duration::from_millis(10))?;
            if let Some(Completed { status, result, .. }) = self.host.take_completed() {
                let ended = || Error::Command(what.to_owned(), status);
                return status.is_success().then_some(result).ok_or_else(ended);
            }
            if began.elapsed() > limit {
                return Err(Error::Slow(what.to_owned(), limit));
            }
        }
    }
}

/// The data of the only command.
struct OneBuffer<'a>(&'a mut [u8]);

impl Payload for OneBuffer<'_> {
    fn store(&mut self, _: u64, offset: u32, bytes: &[u8]) {
        self.0[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn load(&mut self, _: u64, offset: u32, room: &mut [u8]) {
        room.copy_from_slice(&self.0[offset as usize..][..room.len()]);
    }
}
