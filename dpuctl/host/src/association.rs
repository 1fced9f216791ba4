//! A controller that is ready: its admin queue, the keep alive, and I/O queues as they are asked for.

use crate::error::Error;
use crate::queue::Queue;
use crate::target::Target;
use nvme::Command;
use nvme::fabrics::DISCOVERY_NQN;
use nvmeof::initiator::{BringUp, ControllerInfo, Identity, NamespaceInfo, Transfer, commands};
use std::time::{Duration, Instant};

/// Commands on the admin queue.
const ADMIN_SLOTS: usize = 8;
/// KATO: the target may forget a host that is silent for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A controller that is ready, with its admin queue.
pub struct Association {
    admin: Queue,
    /// What is known of it.
    pub info: ControllerInfo,
    target: Target,
    identity: Identity,
    last_keep_alive: Instant,
    keep_alive: Duration,
}

impl Association {
    /// Connects to the target and brings its controller up.
    ///
    /// # Errors
    /// Also where it grants fewer I/O queues.
    pub fn open(target: &Target, io_queues: u16) -> Result<Self, Error> {
        Self::open_for(target, io_queues, KEEP_ALIVE)
    }

    /// The same, with another keep alive time-out.
    ///
    /// # Errors
    /// As [`Association::open`].
    pub fn open_for(target: &Target, io_queues: u16, keep_alive: Duration) -> Result<Self, Error> {
        let host = &target.host;
        let identity = Identity::new(host.id, &host.nqn, &target.nqn);
        let identity = identity.ok_or_else(|| {
            let wrong = if (1..=223).contains(&host.nqn.len()) { &target.nqn } else { &host.nqn };
            Error::Nqn(wrong.clone())
        })?;
        // The admin queue is never in a hurry.
        let mut admin = Queue::open(&Target { sleep: true, ..target.clone() }, ADMIN_SLOTS)?;
        let steps = match target.nqn.as_str() {
            DISCOVERY_NQN => BringUp::discovery(identity),
            _ => BringUp::admin(identity, keep_alive.as_millis() as u32, io_queues),
        };
        let info = admin.bring_up(steps, target.limit)?.info().clone();
        if info.io_queues < io_queues {
            return Err(Error::Queues { granted: info.io_queues, wanted: io_queues });
        }
        let (target, last_keep_alive) = (target.clone(), Instant::now());
        Ok(Self { admin, info, target, identity, last_keep_alive, keep_alive })
    }

    /// The namespace with that NSID, or the first.
    ///
    /// # Errors
    /// [`Error::Namespace`].
    pub fn namespace(&self, nsid: Option<u32>) -> Result<NamespaceInfo, Error> {
        let mut there = self.info.namespaces.iter();
        let found = there.find(|namespace| nsid.is_none_or(|nsid| nsid == namespace.nsid));
        found.copied().ok_or_else(|| {
            Error::Namespace(nsid, self.info.namespaces.iter().map(|namespace| namespace.nsid).collect())
        })
    }

    /// Opens I/O queue `queue_id`, 1 or greater, for so many commands.
    ///
    /// # Errors
    /// Also where the controller's queues are shorter.
    pub fn io_queue(&self, queue_id: u16, slots: u16) -> Result<Queue, Error> {
        let most = self.info.max_queue_entries.saturating_sub(1);
        if u32::from(slots) > most {
            return Err(Error::Depth { most, wanted: slots });
        }
        let mut queue = Queue::open(&self.target, usize::from(slots))?;
        let steps = BringUp::io(self.identity, self.info.controller_id, queue_id);
        queue.bring_up(steps, self.target.limit)?;
        Ok(queue)
    }

    /// Runs an admin command that fills `data`, which may be empty, and gives its result.
    ///
    /// # Errors
    /// [`Error::Command`] says `what` it was.
    pub fn admin(&mut self, what: &str, command: &Command, data: &mut [u8]) -> Result<u64, Error> {
        let transfer = match data.len() {
            0 => Transfer::None,
            bytes => Transfer::Receive(bytes as u32),
        };
        self.admin.execute(what, command, transfer, data, self.target.limit)
    }

    /// Tells the target that we live, where it is time. To be called at least once a second.
    ///
    /// # Errors
    /// The association is over then.
    pub fn tick(&mut self) -> Result<(), Error> {
        if self.last_keep_alive.elapsed() < self.keep_alive / 2 {
            return Ok(());
        }
        self.last_keep_alive = Instant::now();
        self.admin("keep alive", &commands::keep_alive(), &mut []).map(drop)
    }
}
