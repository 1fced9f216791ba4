//! The commands with which a connection begins: Connect, and on an admin queue everything until the controller is
//! ready and its namespaces are known (Base 3.5.1).

use core::borrow::BorrowMut;
use core::time::Duration;

use hal_api::Instant;
use nvme::Status;
use nvme::fabrics::{ANY_CONTROLLER, ConnectData, MAX_NQN_BYTES};
use nvme::identify::{IDENTIFY_BYTES, IdentifyController, IdentifyNamespace, cns};
use nvme::registers::{Capabilities, Configuration, ControllerStatus, offset};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::commands;
use super::queue::{Completed, HostQueue, Payload};
use super::slots::{Slot, Transfer};

/// Most namespaces that a [`BringUp`] looks at; those with the smallest NSIDs.
pub const MAX_NAMESPACES: usize = 32;

/// Between two looks at CSTS while RDY is awaited.
const READY_POLL: Duration = Duration::from_millis(5);
/// Added to CAP.TO, which counts half seconds and may be 0.
const READY_MARGIN: Duration = Duration::from_secs(1);

/// Who connects, and to what.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    data: ConnectData,
}

impl Identity {
    /// `None` where an NQN is empty or longer than 223 bytes.
    #[must_use]
    pub fn new(host_id: [u8; 16], host_nqn: &str, subsystem_nqn: &str) -> Option<Self> {
        let mut data = ConnectData::new_zeroed();
        data.host_id = host_id;
        let fields = [(&mut data.host_nqn, host_nqn), (&mut data.subsystem_nqn, subsystem_nqn)];
        for (field, nqn) in fields {
            if nqn.is_empty() || nqn.len() > MAX_NQN_BYTES {
                return None;
            }
            field.get_mut(..nqn.len())?.copy_from_slice(nqn.as_bytes());
        }
        Some(Self { data })
    }
}

/// A namespace of the NVM command set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// NSID.
    pub nsid: u32,
    /// Size of a block as a power of two.
    pub block_shift: u8,
    /// How many blocks there are.
    pub blocks: u64,
}

/// What a [`BringUp`] learns about a controller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControllerInfo {
    /// CNTLID.
    pub controller_id: u16,
    /// MQES + 1: entries that a queue may have.
    pub max_queue_entries: u32,
    /// I/O queues that the controller grants, of those asked for.
    pub io_queues: u16,
    /// Most data of a command in bytes, by MDTS; `u32::MAX` where there is no limit.
    pub max_transfer_bytes: u32,
    /// Most data in the capsule of an I/O command in bytes, by IOCCSZ.
    pub in_capsule_bytes: u32,
    /// VWC: there is a volatile write cache.
    pub volatile_write_cache: bool,
    /// FUSES: it takes fused pairs of Compare and Write.
    pub fuses: bool,
    /// The active namespaces.
    pub namespaces: heapless::Vec<NamespaceInfo, MAX_NAMESPACES>,
}

/// The steps, in their order on an admin queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Connect.
    Connect,
    /// Property Get of CAP.
    Capabilities,
    /// Property Set of CC.
    Enable,
    /// Property Get of CSTS, until RDY.
    Ready,
    /// Identify Controller.
    Controller,
    /// Set Features, Number of Queues.
    QueueCount,
    /// Identify, active namespaces.
    NamespaceList,
    /// Identify Namespace, for each.
    Namespace,
    /// Nothing is left to do.
    Done,
}

/// Why a connection did not come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BringUpError {
    /// The controller refused a command.
    Refused {
        /// Where.
        step: Step,
        /// Its status.
        status: Status,
        /// Its result; for Connect what is wrong.
        result: u64,
    },
    /// CSTS.CFS: the controller has failed.
    FatalStatus,
    /// CSTS.RDY did not become 1 within CAP.TO (Base 3.1.3.1).
    NotReady,
    /// The controller says something that cannot be.
    Invalid {
        /// Where.
        step: Step,
    },
    /// The queue took no command.
    NotTaken,
}

/// Brings one connection up. In turn with [`HostQueue::poll`], to which it is the [`Payload`], [`BringUp::advance`] is
/// called until it says that all is done. The queue must have no other commands meanwhile. How long all of it may take
/// is the caller's to say.
#[derive(Debug)]
pub struct BringUp {
    identity: Identity,
    queue_id: u16,
    keep_alive_ms: u32,
    flow_control: bool,
    wanted_queues: u16,
    /// A discovery controller has neither I/O queues nor namespaces.
    discovery: bool,
    step: Step,
    under_way: bool,
    /// No command goes out before.
    next_at: Instant,
    ready_limit: Duration,
    /// Until when CSTS.RDY has to be 1.
    ready_by: Instant,
    namespace: usize,
    info: ControllerInfo,
    buffer: [u8; IDENTIFY_BYTES],
}

const TOKEN: u64 = 0;
/// Smallest SQSIZE of an admin queue (Base 6.3), zero-based.
const MIN_ADMIN_SQ_SIZE: u16 = 31;

impl BringUp {
    /// For an admin queue. `keep_alive_ms` is KATO, zero for none; `io_queues` are asked for.
    #[must_use]
    pub fn admin(identity: Identity, keep_alive_ms: u32, io_queues: u16) -> Self {
        Self {
            identity,
            queue_id: 0,
            keep_alive_ms,
            flow_control: true,
            wanted_queues: io_queues,
            discovery: false,
            step: Step::Connect,
            under_way: false,
            next_at: Instant::ZERO,
            ready_limit: READY_MARGIN,
            ready_by: Instant::FAR_FUTURE,
            namespace: 0,
            info: ControllerInfo::default(),
            buffer: [0; _],
        }
    }

    /// For the admin queue of a discovery controller, without keep alive: it ends once the controller is known.
    #[must_use]
    pub fn discovery(identity: Identity) -> Self {
        Self { discovery: true, ..Self::admin(identity, 0, 0) }
    }

    /// For I/O queue `queue_id`, 1 or greater, of a controller that is ready; it asks to do without SQ flow control.
    #[must_use]
    pub fn io(identity: Identity, controller_id: u16, queue_id: u16) -> Self {
        let info = ControllerInfo { controller_id, ..ControllerInfo::default() };
        Self { queue_id, flow_control: false, info, ..Self::admin(identity, 0, 0) }
    }

    /// Takes the answer to the last command and submits the next one. True when nothing is left to do.
    ///
    /// # Errors
    /// [`BringUpError`]; the connection is of no use then.
    pub fn advance<S: BorrowMut<[Slot]>>(
        &mut self,
        queue: &mut HostQueue<S>,
        now: Instant,
    ) -> Result<bool, BringUpError> {
        if self.under_way {
            let Some(completed) = queue.take_completed() else { return Ok(false) };
            self.under_way = false;
            self.step = self.answered(&completed, now)?;
        }
        if self.step == Step::Done {
            return Ok(true);
        }
        if now < self.next_at {
            return Ok(false);
        }
        let slots = queue.capacity() as u16;
        let (command, transfer) = self.command(slots);
        queue.submit(TOKEN, &command, transfer).map_err(|_| BringUpError::NotTaken)?;
        self.under_way = true;
        Ok(false)
    }

    /// When [`BringUp::advance`] has something to do although nothing has come.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        if self.under_way || self.step == Step::Done { Instant::FAR_FUTURE } else { self.next_at }
    }

    /// What is known so far; on an I/O queue nothing but the CNTLID.
    #[must_use]
    pub const fn info(&self) -> &ControllerInfo {
        &self.info
    }

    /// Where it is.
    #[must_use]
    pub const fn step(&self) -> Step {
        self.step
    }

    fn command(&mut self, slots: u16) -> (nvme::Command, Transfer) {
        let page = Transfer::Receive(IDENTIFY_BYTES as u32);
        match self.step {
            Step::Connect => {
                let mut data = self.identity.data;
                data.controller_id.set(if self.queue_id == 0 {
                    ANY_CONTROLLER
                } else {
                    self.info.controller_id
                });
                let bytes = data.as_bytes();
                if let Some(place) = self.buffer.get_mut(..bytes.len()) {
                    place.copy_from_slice(bytes);
                }
                let entries = if self.queue_id == 0 { slots.max(MIN_ADMIN_SQ_SIZE) } else { slots };
                let command =
                    commands::connect(self.queue_id, entries, self.keep_alive_ms, self.flow_control);
                (command, Transfer::SendInCapsule(size_of::<ConnectData>() as u32))
            }
            Step::Capabilities => (commands::property_get(offset::CAP, 8), Transfer::None),
            Step::Enable => (commands::property_set(offset::CC, Configuration::ENABLED.0), Transfer::None),
            Step::Ready | Step::Done => (commands::property_get(offset::CSTS, 4), Transfer::None),
            Step::Controller => (commands::identify(cns::CONTROLLER, 0), page),
            Step::QueueCount => (commands::set_queue_count(self.wanted_queues), Transfer::None),
            Step::NamespaceList => (commands::identify(cns::ACTIVE_NAMESPACES, 0), page),
            Step::Namespace => {
                let nsid = self.info.namespaces.get(self.namespace).map_or(0, |namespace| namespace.nsid);
                (commands::identify(cns::NAMESPACE, nsid), page)
            }
        }
    }

    /// Judges an answer; returns what comes next.
    fn answered(&mut self, completed: &Completed, now: Instant) -> Result<Step, BringUpError> {
        let (step, result) = (self.step, completed.result);
        if !completed.status.is_success() {
            return Err(BringUpError::Refused { step, status: completed.status, result });
        }
        let invalid = BringUpError::Invalid { step };
        Ok(match step {
            Step::Connect if self.queue_id != 0 => Step::Done,
            Step::Connect => {
                self.info.controller_id = result as u16;
                Step::Capabilities
            }
            Step::Capabilities => {
                let capabilities = Capabilities(result);
                self.info.max_queue_entries = capabilities.max_queue_entries();
                self.ready_limit =
                    READY_MARGIN + Duration::from_millis(u64::from(capabilities.ready_timeout_ms()));
                Step::Enable
            }
            Step::Enable => {
                self.ready_by = now + self.ready_limit;
                Step::Ready
            }
            Step::Ready => {
                let status = ControllerStatus::from_bits_retain(result as u32);
                if status.contains(ControllerStatus::FATAL) {
                    return Err(BringUpError::FatalStatus);
                }
                if !status.contains(ControllerStatus::READY) {
                    self.next_at = now + READY_POLL;
                    return if now < self.ready_by { Ok(Step::Ready) } else { Err(BringUpError::NotReady) };
                }
                Step::Controller
            }
            Step::Controller => {
                self.controller().ok_or(invalid)?;
                match self.wanted_queues {
                    _ if self.discovery => Step::Done,
                    0 => Step::NamespaceList,
                    _ => Step::QueueCount,
                }
            }
            Step::QueueCount => {
                let granted = (result as u16).min((result >> 16) as u16).saturating_add(1);
                self.info.io_queues = granted.min(self.wanted_queues);
                Step::NamespaceList
            }
            Step::NamespaceList => {
                self.namespace_list().ok_or(invalid)?;
                if self.info.namespaces.is_empty() { Step::Done } else { Step::Namespace }
            }
            Step::Namespace => {
                self.namespace().ok_or(invalid)?;
                self.namespace += 1;
                if self.namespace < self.info.namespaces.len() { Step::Namespace } else { Step::Done }
            }
            Step::Done => Step::Done,
        })
    }

    fn controller(&mut self) -> Option<()> {
        let (data, _) = IdentifyController::ref_from_prefix(&self.buffer).ok()?;
        if data.controller_id.get() != self.info.controller_id {
            return None;
        }
        // MPSMIN is 0 on every fabrics controller: pages of 4 KiB.
        self.info.max_transfer_bytes = match data.mdts {
            0 => u32::MAX,
            shift => {
                let pages = 1u32.checked_shl(u32::from(shift));
                pages.and_then(|pages| pages.checked_mul(4096)).unwrap_or(u32::MAX)
            }
        };
        let capsule_bytes = data.io_command_capsule.get().saturating_mul(16);
        let in_capsule_bytes = capsule_bytes.checked_sub(size_of::<nvme::Command>() as u32);
        // IOCCSZ of a discovery controller, which has no I/O commands, is reserved (Base 5.17.2.1).
        self.info.in_capsule_bytes = if self.discovery { 0 } else { in_capsule_bytes? };
        self.info.volatile_write_cache = data.volatile_write_cache & 1 != 0;
        self.info.fuses = data.fused.get() & 1 != 0;
        Some(())
    }

    fn namespace_list(&mut self) -> Option<()> {
        let (nsids, _) = self.buffer.as_chunks::<4>();
        let mut last = 0;
        for nsid in nsids.iter().map(|bytes| u32::from_le_bytes(*bytes)).take_while(|&nsid| nsid != 0) {
            if nsid <= last || nsid > nvme::NSID_LAST {
                return None;
            }
            last = nsid;
            // Those that there is no room for are left out.
            let _ = self.info.namespaces.push(NamespaceInfo { nsid, block_shift: 0, blocks: 0 });
        }
        Some(())
    }

    fn namespace(&mut self) -> Option<()> {
        let (data, _) = IdentifyNamespace::ref_from_prefix(&self.buffer).ok()?;
        let place = self.info.namespaces.get_mut(self.namespace)?;
        place.block_shift = data.current_format().block_shift;
        place.blocks = data.size_blocks.get();
        (9..=24).contains(&place.block_shift).then_some(())
    }
}

impl Payload for BringUp {
    fn store(&mut self, _: u64, offset: u32, bytes: &[u8]) {
        let start = offset as usize;
        if let Some(place) = self.buffer.get_mut(start..start.saturating_add(bytes.len())) {
            place.copy_from_slice(bytes);
        }
    }

    fn load(&mut self, _: u64, offset: u32, room: &mut [u8]) {
        let start = offset as usize;
        if let Some(bytes) = self.buffer.get(start..start.saturating_add(room.len())) {
            room.copy_from_slice(bytes);
        }
    }
}
