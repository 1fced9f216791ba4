//! Inputs that broke other targets, each with the answer that the specification asks for.
//!
//! A case is written once and runs against a target in the test's own process and against a card over TCP. It is a host that
//! talks to a [`Bench`]. All cases leave the target as it was.

mod commands;
mod connects;
mod logs;
mod pdus;

use std::time::Duration;

use crate::wire::{self, Command, Connect, Digests, Reply};

/// A target and the way to it.
pub trait Bench {
    /// A new TCP connection, by its number.
    ///
    /// # Errors
    /// The target refuses it.
    fn open(&mut self) -> Result<usize, String>;
    /// Sends bytes. Whether they arrive shows later.
    fn send(&mut self, id: usize, bytes: &[u8]);
    /// The next whole PDU; none if the target has ended the connection.
    ///
    /// # Errors
    /// Neither comes.
    fn next(&mut self, id: usize) -> Result<Option<Vec<u8>>, String>;
    /// The host ends the connection.
    fn close(&mut self, id: usize);
    /// Lets time pass.
    fn pass(&mut self, time: Duration);
    /// NQN of the subsystem.
    fn nqn(&self) -> &'static str;
}

/// How a case ends.
pub type Outcome = Result<(), String>;

/// One input and its answer.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Talks to the target.
    run: fn(&mut Stand<'_>) -> Outcome,
}

/// Hands the names of all cases to a macro, which can make tests of them.
#[macro_export]
macro_rules! for_each_case {
    ($with:ident) => {
        $with! {
            pdus: icreq_with_a_wrong_plen, icreq_with_a_wrong_hlen, icreq_with_an_unknown_pfv,
                icreq_with_hpda_above_31, a_reset_during_set_up_with_digests, a_second_icreq,
                commands_before_icreq, data_before_icreq, host_data_with_a_wrong_plen,
                host_data_of_no_length, host_data_above_the_r2t, host_data_above_maxh2cdata,
                host_data_that_is_not_plen_less_header, host_data_for_other_ttags,host_data_for_reads_under_way,
                host_data_before_connect, host_data_with_a_wrong_cccid, host_data_twice,
                host_data_in_pieces_that_wrap, last_early_or_absent, a_wrong_data_digest_in_a_capsule,
                a_wrong_data_digest_in_host_data, a_wrong_header_digest, capsule_with_a_wrong_plen,
                capsule_with_a_wrong_pdo, host_term_with_any_fes, one_byte_a_second,
                a_thousand_silent_connections;
            logs: sgl_of_4_gib_for_a_log_page, log_pages_at_wrong_offsets, log_pages_of_16_gib,
                discovery_log_at_wrong_offsets, discovery_log_of_16_gib, discovery_log_of_an_nvm_controller;
            commands: sgl_of_4_gib_for_identify, sgl_of_4_gib_for_writes,
                sgls_of_other_types, in_capsule_data_that_does_not_fit, identify_of_every_cns,
                identify_of_odd_nsids, forty_event_requests_then_gone, duplicate_cids, two_hundred_commands_on_a_queue_of_32,
                responses_that_nobody_reads, reservation_commands, authentication_commands;
            connects: connect_data_too_short, connect_with_wrong_nqns, connect_with_wrong_queue_ids,
                connect_of_the_same_queue_twice, connect_for_anothers_controller,
                connect_with_wrong_sizes, keep_alive_of_any_length;
        }
    };
}

macro_rules! table {
    ($($module:ident: $($name:ident),+;)+) => {
        /// All cases.
        pub const CASES: &[Case] = &[$($(Case { name: stringify!($name), run: $module::$name }),+),+];
    };
}
for_each_case!(table);

impl Case {
    /// Runs it, and then shows that another host is served.
    ///
    /// # Errors
    /// What was answered instead.
    pub fn run(&self, bench: &mut dyn Bench) -> Outcome {
        let mut stand = Stand { bench, nsid: 0, open: Vec::new(), host: 1 };
        let outcome = stand.learn_nsid().and_then(|()| (self.run)(&mut stand));
        stand.close_all();
        outcome.and_then(|()| stand.serves_another()).map_err(|what| format!("{}: {what}", self.name))
    }
}

/// No digests.
pub(crate) const PLAIN: Digests = Digests { header: false, data: false };
/// Both digests.
pub(crate) const BOTH: Digests = Digests { header: true, data: true };
/// Entries of the cases' queues; one less may be outstanding.
pub(crate) const DEPTH: usize = 32;
/// A length that ends just below 4 GiB.
pub(crate) const HUGE: u32 = 0xffff_f000;
/// SUBNQN of every discovery service (Base 4.5).
const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// A case's hosts.
pub struct Stand<'a> {
    pub(crate) bench: &'a mut dyn Bench,
    /// A namespace that there is.
    pub(crate) nsid: u32,
    open: Vec<usize>,
    /// What tells the host from others: in its NQN and Host Identifier.
    pub(crate) host: u8,
}

/// One connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub id: usize,
    pub digests: Digests,
    pub cntlid: u16,
    next_cid: u16,
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    pub result: u64,
    pub data: Vec<u8>,
}

/// What a command moves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Data<'a> {
    None,
    /// In the capsule.
    Capsule(&'a [u8]),
    /// By R2T.
    Later(&'a [u8]),
}

impl Stand<'_> {
    pub(crate) fn connection(&mut self, digests: Digests) -> Result<Link, String> {
        let id = self.bench.open()?;
        self.open.push(id);
        Ok(Link { id, digests, cntlid: 0xffff, next_cid: 100 })
    }

    /// A connection with ICReq and ICResp behind it.
    pub(crate) fn initialized(&mut self, digests: Digests) -> Result<Link, String> {
        let link = self.connection(digests)?;
        self.bench.send(link.id, &wire::icreq(0, digests));
        match self.reply(&Link { digests: PLAIN, ..link })? {
            Reply::Initialized { .. } => Ok(link),
            other => Err(format!("{other:?} to an ICReq")),
        }
    }

    pub(crate) fn connect(&self, queue_id: u16, cntlid: u16) -> (Command, Vec<u8>) {
        self.connect_to(self.bench.nqn(), queue_id, cntlid)
    }

    fn connect_to(&self, subsystem: &str, queue_id: u16, cntlid: u16) -> (Command, Vec<u8>) {
        let host = format!("nqn.2014-08.org.nvmexpress:uuid:host-{}", self.host);
        Connect {
            queue_id,
            sq_size: DEPTH as u16 - 1,
            disable_flow_control: false,
            cntlid,
            host_id: [self.host; 16],
            keep_alive_ms: if queue_id == 0 { 120_000 } else { 0 },
            subsystem,
            host: &host,
        }
        .parts()
    }

    /// An admin queue with an enabled controller.
    pub(crate) fn admin(&mut self, digests: Digests) -> Result<Link, String> {
        self.enabled(digests, self.bench.nqn())
    }

    /// The same of the discovery subsystem.
    pub(crate) fn discovery(&mut self, digests: Digests) -> Result<Link, String> {
        self.enabled(digests, DISCOVERY_NQN)
    }

    fn enabled(&mut self, digests: Digests, subsystem: &str) -> Result<Link, String> {
        let mut link = self.initialized(digests)?;
        let (command, data) = self.connect_to(subsystem, 0, 0xffff);
        link.cntlid = self.success(&mut link, command, Data::Capsule(&data))?.result as u16;
        self.success(&mut link, Command::property_set(0x14, 0x0046_0001), Data::None)?;
        Ok(link)
    }

    /// An admin queue and I/O queue 1.
    pub(crate) fn pair(&mut self, digests: Digests) -> Result<(Link, Link), String> {
        let admin = self.admin(digests)?;
        let mut io = self.initialized(digests)?;
        let (command, data) = self.connect(1, admin.cntlid);
        self.success(&mut io, command, Data::Capsule(&data))?;
        Ok((admin, io))
    }

    /// The next reply; what is no PDU of a controller is an error.
    pub(crate) fn reply(&mut self, link: &Link) -> Result<Reply, String> {
        let pdu = self.bench.next(link.id)?.ok_or("the target has closed the connection")?;
        Reply::parse(&pdu, link.digests, 0)
    }

    /// Sends a capsule under the next CID, which it returns.
    pub(crate) fn start(&mut self, link: &mut Link, command: Command, data: &[u8]) -> u16 {
        link.next_cid += 1;
        let pdu = wire::capsule(&command.cid(link.next_cid), data, link.digests);
        self.bench.send(link.id, &pdu);
        link.next_cid
    }

    /// The end of a command, whose data goes when an R2T asks for it.
    pub(crate) fn end(&mut self, link: &Link, cid: u16, later: &[u8]) -> Result<Answer, String> {
        let mut data = Vec::new();
        loop {
            match self.reply(link)? {
                Reply::Response { cid: of, status, result, .. } if of == cid => {
                    return Ok(Answer { status, result, data });
                }
                Reply::Data { cid: of, data: piece, .. } if of == cid => data.extend(piece),
                Reply::ReadyToTransfer { cid: of, tag, offset: 0, length } if of == cid => {
                    let bytes = later.get(..length as usize).ok_or("an R2T for more than there is")?;
                    self.bench.send(link.id, &wire::host_data(cid, tag, 0, true, bytes, link.digests));
                }
                other => return Err(format!("{other:?}, and no end of command {cid:#x}")),
            }
        }
    }

    pub(crate) fn execute(
        &mut self,
        link: &mut Link,
        command: Command,
        data: Data<'_>,
    ) -> Result<Answer, String> {
        let (capsule, later) = match data {
            Data::None => (&[][..], &[][..]),
            Data::Capsule(bytes) => (bytes, &[][..]),
            Data::Later(bytes) => (&[][..], bytes),
        };
        let cid = self.start(link, command, capsule);
        self.end(link, cid, later)
    }

    pub(crate) fn success(
        &mut self,
        link: &mut Link,
        command: Command,
        data: Data<'_>,
    ) -> Result<Answer, String> {
        let answer = self.execute(link, command, data)?;
        if answer.status == 0 { Ok(answer) } else { Err(format!("status {:#x}", answer.status)) }
    }

    /// All of the commands end with one of these, each in its turn; as many go out at once as the queue takes.
    pub(crate) fn all_fail(&mut self, link: &mut Link, commands: &[Command], with: &[u16]) -> Outcome {
        for some in commands.chunks(DEPTH - 1) {
            let cids: Vec<u16> = some.iter().map(|command| self.start(link, *command, &[])).collect();
            for (cid, command) in cids.into_iter().zip(some) {
                let status = self.end(link, cid, &[])?.status;
                if !with.contains(&status) {
                    return Err(format!("{status:#x} instead of one of {with:x?} to {:02x?}", command.0));
                }
            }
        }
        Ok(())
    }

    /// The command ends with one of these.
    pub(crate) fn fails(
        &mut self,
        link: &mut Link,
        command: Command,
        data: Data<'_>,
        with: &[u16],
    ) -> Outcome {
        let answer = self.execute(link, command, data)?;
        if with.contains(&answer.status) {
            return Ok(());
        }
        Err(format!("status {:#x} instead of one of {with:x?} to {:02x?}", answer.status, command.0))
    }

    /// A write of `blocks` blocks whose R2T has come: CID, TTAG, and the bytes that it asks for.
    pub(crate) fn asked_for(&mut self, link: &mut Link, blocks: u32) -> Result<(u16, u16, u32), String> {
        let write = Command::blocks(1, self.nsid, 0, blocks).transport(blocks * 512);
        let cid = self.start(link, write, &[]);
        match self.reply(link)? {
            Reply::ReadyToTransfer { cid: of, tag, offset: 0, length } if of == cid => Ok((cid, tag, length)),
            other => Err(format!("{other:?} instead of an R2T")),
        }
    }

    /// Sends bytes that end in a C2HTermReq with this FES and, if it says something, FEI; then closes, as hosts do.
    pub(crate) fn ends_in(
        &mut self,
        link: &Link,
        bytes: &[u8],
        status: u16,
        information: Option<u32>,
    ) -> Outcome {
        self.bench.send(link.id, bytes);
        loop {
            match self.reply(&Link { digests: PLAIN, ..*link }) {
                Ok(Reply::Terminated { status: got, information: about, quote }) => {
                    self.bench.close(link.id);
                    let is_named = got == status && information.is_none_or(|wanted| wanted == about);
                    let is_quoted = (8..=128).contains(&quote.len());
                    return if is_named && is_quoted {
                        Ok(())
                    } else {
                        Err(format!("C2HTermReq {got} {about:#x} instead of {status} {information:x?}"))
                    };
                }
                // Answers to what came before.
                Ok(_) => {}
                Err(what) => return Err(format!("no C2HTermReq {status}: {what}")),
            }
        }
    }

    /// The target ends the connection without a word.
    pub(crate) fn is_closed(&mut self, link: &Link) -> Outcome {
        match self.bench.next(link.id)? {
            None => Ok(()),
            Some(pdu) => Err(format!("{:02x?} instead of the end", pdu.get(..24))),
        }
    }

    fn close_all(&mut self) {
        for id in std::mem::take(&mut self.open) {
            self.bench.close(id);
        }
    }

    /// The first active namespace (Identify CNS 02h).
    fn learn_nsid(&mut self) -> Outcome {
        let mut admin = self.admin(PLAIN)?;
        let list = Command::new(0x06).dword(10, 2).transport(4096);
        let answer = self.success(&mut admin, list, Data::None)?;
        self.nsid = wire::u32_at(&answer.data, 0);
        self.close_all();
        if self.nsid == 0 { Err("no namespace".into()) } else { Ok(()) }
    }

    /// Another host connects, writes and reads back.
    fn serves_another(&mut self) -> Outcome {
        self.host = 200;
        // The target may not yet know that all of the case's connections have ended.
        let mut pair = self.pair(BOTH);
        for _ in 0..50 {
            if pair.is_ok() {
                break;
            }
            self.close_all();
            self.bench.pass(Duration::from_millis(100));
            pair = self.pair(BOTH);
        }
        let (_, mut io) = pair?;
        let data: Vec<u8> = (0..16 * 512).map(|at| (at ^ at >> 8) as u8).collect();
        let write = Command::blocks(1, self.nsid, 500, 16).transport(16 * 512);
        let read = Command::blocks(2, self.nsid, 500, 16).transport(16 * 512);
        self.success(&mut io, write, Data::Later(&data))?;
        let answer = self.success(&mut io, read, Data::None)?;
        self.close_all();
        if answer.data == data { Ok(()) } else { Err("another host reads other data afterwards".into()) }
    }
}
