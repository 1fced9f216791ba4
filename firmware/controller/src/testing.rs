//! For tests: a subsystem with a fake backend and a connected host, and commands as hosts send them.

use hal_api::Instant;
use hal_mem::PagePool;
use heapless::String;
use message::configuration::SubsystemPlace;
use nvme::fabrics::{ConnectCommand, ConnectData, kind};
use nvme::log_page::SmartLog;
use nvme::opcode::{self, admin, io};
use nvme::registers::{Configuration, offset};
use nvme::{Command, Status};
use std::boxed::Box;
use std::vec::Vec;
use zerocopy::FromZeros;

use crate::slot::Controller;
use crate::*;

pub(crate) const NQN: &str = "nqn.2026-01.example:card";
pub(crate) const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:host";

/// Gives SMART data and refuses all I/O.
#[derive(Default)]
pub(crate) struct FakeBackend {
    pub(crate) smart: Vec<(u8, SmartLog)>,
}

impl Backend for FakeBackend {
    fn submit(&mut self, request: IoRequest, _pool: &mut PagePool, _now: Instant) -> Result<(), Rejected> {
        Err(Rejected { request, reason: RejectReason::Failed(Status::INTERNAL_ERROR) })
    }

    fn smart(&self, drive: u8) -> Option<&SmartLog> {
        self.smart.iter().find(|(of, _)| *of == drive).map(|(_, log)| log)
    }
}

/// A subsystem with one host. The data of the last command to the host is kept.
pub(crate) struct Bench {
    pub(crate) subsystem: Subsystem,
    pub(crate) backend: FakeBackend,
    pub(crate) admin: QueueContext,
    pub(crate) io: QueueContext,
    pub(crate) now: Instant,
}

impl Bench {
    /// No host yet; namespaces 3 (512-byte blocks, drive 0) and 7 (4096-byte blocks, drive 1).
    pub(crate) fn empty() -> Self {
        let mut subsystem = Subsystem::new(
            SubsystemConfig::new(String::try_from(NQN).unwrap(), "PEN0001"),
            Box::leak(Box::new([const { ControllerSlot::EMPTY }; 4])),
        );
        subsystem.attach(Namespace { block_shift: 9, ..namespace(3) }).unwrap();
        let backend = BackendNamespace { drive: 1, nsid: 1 };
        subsystem.attach(Namespace { backend, volatile_write_cache: true, ..namespace(7) }).unwrap();
        let nobody = QueueContext { controller: ControllerHandle { index: 0, generation: 999 }, queue_id: 0 };
        let now = Instant::from_millis(1000);
        Self { subsystem, backend: FakeBackend::default(), admin: nobody, io: nobody, now }
    }

    /// The admin queue is connected, the controller not enabled. Keep alive is 5 s.
    pub(crate) fn connected() -> Self {
        let mut bench = Self::empty();
        let connected = bench.connect(NQN, HOST, 0, 0xffff).unwrap();
        bench.admin = QueueContext { controller: connected.controller, queue_id: 0 };
        bench
    }

    /// Enabled, with I/O queue 1.
    pub(crate) fn ready() -> Self {
        let mut bench = Self::connected();
        bench.enable();
        let cntlid = bench.controller().id;
        bench.connect(NQN, HOST, 1, cntlid).unwrap();
        bench.io = QueueContext { queue_id: 1, ..bench.admin };
        bench
    }

    /// An enabled discovery controller.
    pub(crate) fn discovery() -> Self {
        let mut bench = Self::empty();
        let connected = bench.connect(nvme::fabrics::DISCOVERY_NQN, HOST, 0, 0xffff).unwrap();
        assert!(connected.subsystem.is_discovery());
        bench.admin = QueueContext { controller: connected.controller, queue_id: 0 };
        bench.enable();
        bench
    }

    pub(crate) fn enable(&mut self) {
        let outcome = self.execute_admin(&property_set(offset::CC, 4, Configuration::ENABLED.0));
        assert_eq!(outcome, Outcome::done(0));
    }

    pub(crate) fn connect(
        &mut self,
        nqn: &str,
        host: &str,
        queue_id: u16,
        cntlid: u16,
    ) -> Result<Connected, Failure> {
        let (command, data) = connect_parts(nqn, host, queue_id, cntlid);
        self.subsystem.connect(self.now, Origin::by(PortId::FIRST), &command, &data)
    }

    pub(crate) fn controller(&self) -> &Controller {
        self.subsystem.controller(self.admin.controller).unwrap()
    }

    /// Admission, fill in pieces of a page, then execution; an error of admission becomes the outcome.
    pub(crate) fn run(&mut self, command: &Command, from_host: &[u8]) -> (Outcome, Vec<u8>) {
        let admission = match self.subsystem.admit(&self.admin, command) {
            Ok(admission) => admission,
            Err(status) => return (Outcome::failed(status), Vec::new()),
        };
        let bytes = if let Transfer::ToHost { bytes } = admission.transfer { bytes as usize } else { 0 };
        let mut data = std::vec![0xa5; bytes];
        for (index, piece) in data.chunks_mut(config::PIECE_BYTES).enumerate() {
            let offset = (index * config::PIECE_BYTES) as u32;
            self.subsystem.fill(&self.admin, command, offset, piece, &self.backend);
        }
        let token = 1000 + u32::from(command.cid.get());
        let outcome = self.subsystem.execute(&self.admin, self.now, token, command, from_host);
        (outcome, data)
    }

    pub(crate) fn execute_admin(&mut self, command: &Command) -> Outcome {
        self.run(command, &[]).0
    }

    /// Data of a command that has to succeed.
    pub(crate) fn data_of(&mut self, command: &Command) -> Vec<u8> {
        let (outcome, data) = self.run(command, &[]);
        assert_eq!(outcome, Outcome::done(0));
        data
    }

    /// Result of a command that has to succeed.
    pub(crate) fn result_of(&mut self, command: &Command, from_host: &[u8]) -> u64 {
        match self.run(command, from_host).0 {
            Outcome::Done { status, result } if status.is_success() => result,
            other => panic!("{other:?}"),
        }
    }

    /// Status code of a command that has to fail for good.
    pub(crate) fn refusal_of(&mut self, command: &Command) -> Status {
        match self.run(command, &[]).0 {
            Outcome::Done { status, .. } if !status.is_success() => {
                assert_eq!(status, status.code().do_not_retry(), "DNR is missing");
                status.code()
            }
            other => panic!("{other:?}"),
        }
    }

    /// Status code with which an I/O command is refused.
    pub(crate) fn io_refusal(&self, command: &Command) -> Status {
        let status = self.subsystem.admit(&self.io, command).unwrap_err();
        assert_eq!(status, status.code().do_not_retry(), "DNR is missing");
        status.code()
    }
}

/// 1000 blocks of 4096 bytes on drive 0.
pub(crate) fn namespace(nsid: u32) -> Namespace {
    Namespace {
        key: nsid,
        subsystem: SubsystemPlace::DEFAULT,
        stamp: 0,
        nsid,
        attachment: 0,
        backend: BackendNamespace { drive: 0, nsid: 1 },
        block_shift: 12,
        blocks: 1000,
        nguid: [0; 16],
        eui64: [0; 8],
        uuid: [0x55; 16],
        volatile_write_cache: false,
        optimal: OptimalSizes::default(),
        deallocate_features: 0,
        write_uncorrectable: false,
    }
}

pub(crate) fn connect_parts(
    nqn: &str,
    host: &str,
    queue_id: u16,
    cntlid: u16,
) -> (ConnectCommand, ConnectData) {
    let mut command = ConnectCommand::new_zeroed();
    command.opcode = opcode::FABRICS;
    command.flags = 0x40;
    command.fabrics_kind = kind::CONNECT;
    command.queue_id.set(queue_id);
    command.sq_size.set(31);
    command.keep_alive_ms.set(5000);
    let mut data = ConnectData::new_zeroed();
    data.host_id = [9; 16];
    data.controller_id.set(cntlid);
    data.subsystem_nqn[..nqn.len()].copy_from_slice(nqn.as_bytes());
    data.host_nqn[..host.len()].copy_from_slice(host.as_bytes());
    (command, data)
}

/// A command as fabrics hosts send it: PSDT says SGL.
pub(crate) fn command(opcode: u8, nsid: u32) -> Command {
    let mut command = Command { opcode, flags: 0x40, ..Command::default() };
    command.nsid.set(nsid);
    command
}

pub(crate) fn admin_command(opcode: u8, nsid: u32, cdw10: u32, cdw11: u32) -> Command {
    let mut command = command(opcode, nsid);
    command.cdw10.set(cdw10);
    command.cdw11.set(cdw11);
    command
}

pub(crate) fn property_get(offset: u32, bytes: u32) -> Command {
    admin_command(opcode::FABRICS, u32::from(kind::PROPERTY_GET), u32::from(bytes == 8), offset)
}

pub(crate) fn property_set(offset: u32, bytes: u32, value: u32) -> Command {
    let kind = u32::from(kind::PROPERTY_SET);
    let mut command = admin_command(opcode::FABRICS, kind, u32::from(bytes == 8), offset);
    command.cdw12.set(value);
    command
}

pub(crate) fn identify(cns: u8, nsid: u32) -> Command {
    admin_command(admin::IDENTIFY, nsid, u32::from(cns), 0)
}

/// Get Log Page of `bytes` bytes from `offset` on, with RAE clear.
pub(crate) fn get_log(page: u8, bytes: u32, offset: u64) -> Command {
    let dwords = bytes / 4 - 1;
    let mut command = admin_command(admin::GET_LOG_PAGE, 0, u32::from(page) | dwords << 16, dwords >> 16);
    command.cdw12.set(offset as u32);
    command.cdw13.set((offset >> 32) as u32);
    command
}

/// An I/O command on blocks.
pub(crate) fn block_command(opcode: u8, nsid: u32, start_block: u64, blocks: u32) -> Command {
    let mut command = command(opcode, nsid);
    command.set_start_block(start_block);
    command.cdw12.set(blocks - 1);
    command
}

pub(crate) fn read(nsid: u32, start_block: u64, blocks: u32) -> Command {
    block_command(io::READ, nsid, start_block, blocks)
}
