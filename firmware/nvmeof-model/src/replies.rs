//! What the target says, held against the model.

use crate::command_rules::{COMPARE_FAILURE, Effect, Move, Statuses};
use crate::model::{Connection, Fate, Model, Outstanding, Phase, Step};
use crate::pdu_rules::OpenR2t;
use crate::wire::{Reply, SGL_TRANSPORT, u32_at};

type Verdict = Result<(), String>;

impl Model {
    /// The target sends this PDU.
    ///
    /// # Errors
    /// In words, what the model would not have sent.
    pub fn reply(&mut self, id: usize, pdu: &[u8]) -> Verdict {
        let Some(mut connection) = self.connections[id].take() else {
            return Err("a PDU after the end".into());
        };
        // ICResp and all before it have no digests.
        let digests = if connection.icresp_due { Default::default() } else { connection.digests };
        let result = Reply::parse(pdu, digests, connection.alignment)
            .and_then(|reply| self.judge_reply(&mut connection, reply));
        self.connections[id] = Some(connection);
        result
    }

    fn judge_reply(&mut self, connection: &mut Connection, reply: Reply) -> Verdict {
        if connection.terminated {
            return Err(format!("{reply:?} after a C2HTermReq"));
        }
        match reply {
            Reply::Initialized { digests, max_data } => {
                let wanted = u8::from(connection.digests.header) | u8::from(connection.digests.data) << 1;
                if !std::mem::take(&mut connection.icresp_due) || digests & !wanted != 0 || max_data < 4096 {
                    return Err(format!("ICResp with DGST {digests} and MAXH2CDATA {max_data}"));
                }
                Ok(())
            }
            Reply::Terminated { status, information, quote } => {
                terminated(connection, status, information, &quote)
            }
            Reply::ReadyToTransfer { cid, tag, offset, length } => ready_to_transfer(
                connection,
                OpenR2t { cid, tag, next: offset, end: offset.saturating_add(length) },
            ),
            Reply::Data { cid, offset, last, success, data } => {
                self.data(connection, cid, offset, last, success, &data)
            }
            Reply::Response { cid, status, result, sq_head } => {
                self.response(connection, cid, status, result, sq_head)
            }
        }
    }

    /// C2HData (TCP 3.6.2.9).
    fn data(
        &mut self,
        connection: &mut Connection,
        cid: u16,
        offset: u32,
        last: bool,
        success: bool,
        data: &[u8],
    ) -> Verdict {
        let wanted = |command: &&mut Outstanding| command.cid == cid && takes_data(command);
        let candidates: Vec<_> = connection.outstanding.iter_mut().filter(wanted).collect();
        let rooms: Vec<_> = candidates.iter().map(|command| room(command)).collect();
        let fits = |command: &&mut Outstanding| fits(command, offset, data.len(), last);
        let Some(command) = candidates.into_iter().find(fits) else {
            let bytes = data.len();
            return Err(format!(
                "{bytes} bytes at {offset} for {cid:#x}, last {last}, where there is {rooms:?}"
            ));
        };
        command.received.extend(data);
        command.received_all = last;
        if !success {
            return Ok(());
        }
        if connection.flow_control || !last {
            return Err("SUCCESS with flow control, or not in the last PDU (TCP 3.6.2.9)".into());
        }
        self.response(connection, cid, 0, 0, 0)
    }

    /// CapsuleResp (TCP 3.6.2.7).
    fn response(
        &mut self,
        connection: &mut Connection,
        cid: u16,
        status: u16,
        result: u64,
        sq_head: u16,
    ) -> Verdict {
        let candidates = || connection.outstanding.iter().enumerate().filter(|(_, other)| other.cid == cid);
        // One of which much is known before one that may end in any way, and what is due before what may wait.
        let rank = |command: &Outstanding| {
            (command.verdict.statuses == Statuses::Any, command.step == Step::Lingers)
        };
        let best =
            candidates().filter(|(_, other)| accepts(other, status)).min_by_key(|(_, other)| rank(other));
        let Some((at, _)) = best else {
            let expected: Vec<_> =
                candidates().map(|(_, other)| (&other.verdict.statuses, other.step)).collect();
            return Err(format!("status {status:#x} for command {cid:#x}, where {expected:?}"));
        };
        // Of two commands with one CID, either may be meant.
        let oldest = candidates().map(|(_, other)| other.ordinal).min().flatten();
        let command = connection.outstanding.remove(at);
        if let Some(ordinal) = oldest.filter(|_| connection.flow_control) {
            let entries = u32::from(connection.entries);
            let ahead = (u32::from(sq_head) + entries * 2 - ordinal % entries) % entries;
            if u32::from(sq_head) >= entries || ahead > connection.consumed - ordinal {
                let consumed = connection.consumed;
                return Err(format!("SQHD {sq_head}, entries {entries}, {ordinal} to {consumed} taken"));
            }
        }
        self.took_effect(connection, &command, status, result, sq_head)
    }

    fn took_effect(
        &mut self,
        connection: &Connection,
        command: &Outstanding,
        status: u16,
        result: u64,
        sq_head: u16,
    ) -> Verdict {
        match command.verdict.effect {
            Effect::Write(start, count) if status == 0 => {
                self.blocks.wrote(start, count, Some(&command.data));
            }
            Effect::Zero(start, count) if status == 0 => self.blocks.wrote(start, count, None),
            Effect::Read(start, _) if status == 0 => {
                let read = self.blocks.read(start, &command.received);
                read.map_err(|block| format!("block {block} is not what was written"))?;
            }
            Effect::Compare(start, _) => {
                let equal = self.blocks.compare(start, &command.data);
                if equal.is_some_and(|equal| (status == COMPARE_FAILURE) == equal) {
                    return Err(format!("Compare at {start}: {status:#x}, and equal is {equal:?}"));
                }
            }
            // NSQA and NCQA, zero-based (Base 5.27.1.5).
            Effect::Queues if status == 0 => {
                let least = (result as u16).min((result >> 16) as u16);
                if let Phase::Live { controller, .. } = connection.phase {
                    self.controllers[controller].granted = least.saturating_add(1);
                }
            }
            Effect::Connect if status == 0 => return self.connected(connection, result, sq_head),
            _ => {}
        }
        Ok(())
    }

    /// Base 6.3: dword 0 is the CNTLID; SQHD FFFFh agrees to do without flow control.
    fn connected(&mut self, connection: &Connection, result: u64, sq_head: u16) -> Verdict {
        let Phase::Live { controller, .. } = connection.phase else {
            return Err("connected without a queue".into());
        };
        let cntlid = result as u16;
        let used = self.controllers.iter().any(|other| other.alive && other.cntlid == Some(cntlid));
        let is_right = match &mut self.controllers[controller].cntlid {
            Some(known) => *known == cntlid,
            unknown => {
                *unknown = Some(cntlid);
                !used && (1..0xfff0).contains(&cntlid)
            }
        };
        if !is_right || (sq_head == 0xffff) == connection.flow_control {
            return Err(format!("Connect answered with CNTLID {cntlid:#x} and SQHD {sq_head:#x}"));
        }
        Ok(())
    }

    /// The target has come to rest, and the connection is open, or not.
    ///
    /// # Errors
    /// In words, what is still owed.
    pub fn rest(&self, id: usize, is_open: bool) -> Verdict {
        let Some(connection) = self.connections[id].as_ref() else { return Ok(()) };
        match &connection.fate {
            Fate::Lives | Fate::MayClose if connection.terminated => Err("terminated for nothing".into()),
            Fate::Lives if !is_open => Err("closed for nothing".into()),
            Fate::Terminates(_) if !connection.terminated => {
                let open: Vec<_> =
                    connection.outstanding.iter().map(|command| (command.cid, command.step)).collect();
                Err(format!("no C2HTermReq {:?}; {} entries, {open:x?}", connection.fate, connection.entries))
            }
            Fate::Closes if is_open => Err("not closed".into()),
            Fate::Lives => {
                let due = |command: &&Outstanding| matches!(command.step, Step::AwaitsR2t | Step::Answer);
                match connection.outstanding.iter().find(due) {
                    _ if connection.icresp_due => Err("no ICResp".into()),
                    Some(due) => Err(format!("no answer to {:#x} ({:?})", due.cid, due.step)),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// C2HTermReq (TCP 3.6.2.5).
fn terminated(connection: &mut Connection, status: u16, information: u32, quote: &[u8]) -> Verdict {
    connection.terminated = true;
    let Fate::Terminates(faults) = &connection.fate else {
        return Err(format!("C2HTermReq {status} {information:#x} for nothing"));
    };
    let named = |&(fes, fei): &(u16, Option<u32>)| fes == status && fei.is_none_or(|fei| fei == information);
    if !faults.iter().any(named) {
        return Err(format!("C2HTermReq {status} {information:#x}, where {faults:?}"));
    }
    if !(8..=128).contains(&quote.len()) || !connection.wrong.starts_with(quote) {
        return Err(format!("C2HTermReq quotes {quote:02x?} of {:02x?}", connection.wrong));
    }
    Ok(())
}

/// R2T (TCP 3.6.2.10).
fn ready_to_transfer(connection: &mut Connection, r2t: OpenR2t) -> Verdict {
    let same_tag = |command: &Outstanding| command.r2t.is_some_and(|open| open.tag == r2t.tag);
    if connection.outstanding.iter().any(same_tag) {
        return Err(format!("TTAG {:#x} twice", r2t.tag));
    }
    let wanted = |command: &&mut Outstanding| {
        let free = command.verdict.moves == Move::Free
            && command.command.0[39] == SGL_TRANSPORT
            && command.r2t.is_none()
            && command.data.is_empty();
        command.cid == r2t.cid && (command.step == Step::AwaitsR2t || free)
    };
    let command = connection.outstanding.iter_mut().find(wanted);
    let command = command.ok_or_else(|| format!("R2T for {:#x}, which has no data", r2t.cid))?;
    let room = u32_at(&command.command.0, 32);
    let total = match command.verdict.moves {
        Move::FromHost(bytes) => bytes,
        _ => room,
    };
    if r2t.next as usize != command.data.len() || r2t.end > total.min(room) || r2t.end <= r2t.next {
        return Err(format!("R2T for {} to {} of {total}", r2t.next, r2t.end));
    }
    command.r2t = Some(r2t);
    command.step = Step::Receives;
    Ok(())
}

/// Whether a response with this status may come now.
fn accepts(command: &Outstanding, status: u16) -> bool {
    let free = command.verdict.moves == Move::Free;
    let due = free || matches!(command.step, Step::Answer | Step::Lingers);
    let has_all = !matches!(command.verdict.moves, Move::ToHost(_)) || status != 0 || command.received_all;
    due && has_all && command.verdict.statuses.allow(status)
}

fn takes_data(command: &Outstanding) -> bool {
    let to_host = match command.verdict.moves {
        Move::ToHost(_) => true,
        Move::Free => command.command.0[39] == SGL_TRANSPORT,
        _ => false,
    };
    to_host && !command.received_all && command.verdict.statuses != Statuses::AnyError
}

/// Bytes that a command has received, wants exactly, and has room for.
fn room(command: &Outstanding) -> (usize, Option<u32>, u32) {
    let exact = match command.verdict.moves {
        Move::ToHost(bytes) => Some(bytes),
        _ => None,
    };
    (command.received.len(), exact, u32_at(&command.command.0, 32))
}

/// Whether so much data is what a command wants next. In order (TCP 3.3.2.2), no more than it asked for.
fn fits(command: &Outstanding, offset: u32, bytes: usize, last: bool) -> bool {
    let (received, exact, room) = room(command);
    let end = (received + bytes) as u32;
    let is_exact = exact.is_none_or(|exact| end < exact || (last && end == exact));
    offset as usize == received && end <= room && is_exact && (last || bytes > 0)
}
