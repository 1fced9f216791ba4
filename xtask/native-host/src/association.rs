//! Connections to a controller: queues that are up, and the keep alive of the admin queue.

use crate::arguments::Target;
use crate::socket::Socket;
use anyhow::{Result, anyhow, bail, ensure};
use nvme::Command;
use nvmeof::initiator::{
    BringUp, Completed, ControllerInfo, HostQueue, Identity, NamespaceInfo, Payload, QueueOptions, Slot,
    Transfer, commands,
};
use std::time::{Duration, Instant};

const HOST_NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:70656e73-746f-636b-0000-6e6174697665";
const HOST_ID: [u8; 16] = *b"penstock-native\0";
/// Commands on the admin queue.
const ADMIN_SLOTS: usize = 8;
/// KATO: the target may forget a host that is silent for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long each connection may take to come up.
const BRING_UP_LIMIT: Duration = Duration::from_secs(20);
/// How long a command may take.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// One queue over one socket.
pub struct Queue {
    pub host: HostQueue<Vec<Slot>>,
    socket: Socket,
    sleep: bool,
}

impl Queue {
    fn open(target: &Target, slots: usize) -> Result<Self> {
        let options = QueueOptions { digests: target.digests(), alignment: 0 };
        let host = HostQueue::new(vec![Slot::default(); slots], options);
        Ok(Self { host, socket: Socket::connect(target.address)?, sleep: target.sleep })
    }

    /// Lets bytes go both ways. Where nothing has come and sleep is wanted, it waits for a while.
    pub fn poll(&mut self, payload: &mut impl Payload, wait: Duration) -> Result<()> {
        if !self.exchange(payload)? && self.sleep && !wait.is_zero() {
            self.socket.wait(wait)?;
        }
        Ok(())
    }

    /// Lets bytes go both ways; false when nothing has come.
    pub fn exchange(&mut self, payload: &mut impl Payload) -> Result<bool> {
        let came = self.socket.read()?;
        self.host.poll(&mut self.socket, payload).map_err(|fault| anyhow!("the target: {fault:?}"))?;
        self.socket.write()?;
        ensure!(came || !self.socket.is_closed(), "the target closed the connection");
        Ok(came)
    }

    /// Sleeps until one of them has something to do, at most so long, where sleep is wanted.
    pub fn wait_any<'a>(queues: impl Iterator<Item = &'a Self>, limit: Duration) -> Result<()> {
        Socket::wait_any(queues.filter(|queue| queue.sleep).map(|queue| &queue.socket), limit)
    }

    fn bring_up(&mut self, mut steps: BringUp) -> Result<BringUp> {
        let began = Instant::now();
        let deadline = began + BRING_UP_LIMIT;
        loop {
            self.poll(&mut steps, Duration::from_millis(5))?;
            let now = hal_api::Instant::ZERO + began.elapsed();
            if steps.advance(&mut self.host, now).map_err(|error| anyhow!("no controller: {error:?}"))? {
                return Ok(steps);
            }
            ensure!(Instant::now() < deadline, "the connection does not come up ({:?})", steps.step());
        }
    }

    /// Runs one command without data of its own to its end.
    fn execute(&mut self, command: &Command) -> Result<Completed> {
        self.host.submit(0, command, Transfer::None).map_err(|error| anyhow!("{error:?}"))?;
        let deadline = Instant::now() + COMMAND_LIMIT;
        loop {
            self.poll(&mut NoPayload, Duration::from_millis(10))?;
            if let Some(completed) = self.host.take_completed() {
                return Ok(completed);
            }
            ensure!(Instant::now() < deadline, "a command takes longer than {COMMAND_LIMIT:?}");
        }
    }
}

/// For commands that move no data.
struct NoPayload;

impl Payload for NoPayload {
    fn store(&mut self, _: u64, _: u32, _: &[u8]) {}

    fn load(&mut self, _: u64, _: u32, _: &mut [u8]) {}
}

/// A controller that is ready, with its admin queue.
pub struct Association {
    admin: Queue,
    pub info: ControllerInfo,
    target: Target,
    identity: Identity,
    last_keep_alive: Instant,
    keep_alive: Duration,
}

impl Association {
    /// Connects to the target and brings its controller up.
    pub fn open(target: &Target, io_queues: u16) -> Result<Self> {
        Self::open_as(target, io_queues, 0, KEEP_ALIVE)
    }

    /// As host number `number` of this program.
    pub fn open_as(target: &Target, io_queues: u16, number: u32, keep_alive: Duration) -> Result<Self> {
        let host_id = (u128::from_be_bytes(HOST_ID) ^ u128::from(number)).to_be_bytes();
        let suffix = if number == 0 { String::new() } else { format!("-{number}") };
        let identity = Identity::new(host_id, &format!("{HOST_NQN}{suffix}"), &target.nqn);
        let identity = identity.ok_or_else(|| anyhow!("an NQN has 1 to 223 bytes"))?;
        // The admin queue is never in a hurry.
        let mut admin = Queue::open(&Target { sleep: true, ..target.clone() }, ADMIN_SLOTS)?;
        let steps = BringUp::admin(identity, keep_alive.as_millis() as u32, io_queues);
        let info = admin.bring_up(steps)?.info().clone();
        if info.io_queues < io_queues {
            bail!("the controller grants {} I/O queues, not {io_queues}", info.io_queues);
        }
        let (target, last_keep_alive) = (target.clone(), Instant::now());
        Ok(Self { admin, info, target, identity, last_keep_alive, keep_alive })
    }

    /// The namespace that the command line names, or the first.
    pub fn namespace(&self) -> Result<NamespaceInfo> {
        let wanted = |namespace: &&NamespaceInfo| self.target.nsid.is_none_or(|nsid| nsid == namespace.nsid);
        let found = self.info.namespaces.iter().find(wanted);
        found.copied().ok_or_else(|| anyhow!("the subsystem has no such namespace"))
    }

    /// Opens I/O queue `queue_id`, 1 or greater, for so many commands.
    pub fn io_queue(&self, queue_id: u16, slots: u16) -> Result<Queue> {
        let most = self.info.max_queue_entries.saturating_sub(1);
        ensure!(u32::from(slots) <= most, "the controller's queues hold {most} commands, not {slots}");
        let mut queue = Queue::open(&self.target, usize::from(slots))?;
        queue.bring_up(BringUp::io(self.identity, self.info.controller_id, queue_id))?;
        Ok(queue)
    }

    /// Tells the target that we live, where it is time. To be called at least once a second.
    pub fn tick(&mut self) -> Result<()> {
        if self.last_keep_alive.elapsed() < self.keep_alive / 2 {
            return Ok(());
        }
        self.last_keep_alive = Instant::now();
        let completed = self.admin.execute(&commands::keep_alive())?;
        ensure!(completed.status.is_success(), "keep alive: {:?}", completed.status);
        Ok(())
    }
}
