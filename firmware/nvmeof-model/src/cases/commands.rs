//! Commands: SGLs (TCP 3.4, Base 4.1.2), Identify, and more of them than a queue takes.

use super::{DEPTH, Data, HUGE, Outcome, PLAIN, Stand};
use crate::wire::{Command, Reply};

const INVALID_OPCODE: u16 = 0x01;
const INVALID_FIELD: u16 = 0x02;
const ID_CONFLICT: u16 = 0x03;
const INVALID_NAMESPACE: u16 = 0x0b;
const SEQUENCE_ERROR: u16 = 0x0c;
const SGL_LENGTH: u16 = 0x0f;
const SGL_TYPE: u16 = 0x11;
const SGL_OFFSET: u16 = 0x16;
const EVENT_LIMIT: u16 = 0x105;

fn identify(cns: u32, nsid: u32, bytes: u32) -> Command {
    Command::new(0x06).nsid(nsid).dword(10, cns).transport(bytes)
}

pub(super) fn sgl_of_4_gib_for_identify(stand: &mut Stand<'_>) -> Outcome {
    let mut admin = stand.admin(PLAIN)?;
    let cids: Vec<u16> = (1..DEPTH).map(|_| stand.start(&mut admin, identify(1, 0, HUGE), &[])).collect();
    for cid in cids {
        let answer = stand.end(&admin, cid, &[])?;
        if (answer.status, answer.data.len()) != (0, 4096) {
            return Err(format!("{:#x} with {} bytes", answer.status, answer.data.len()));
        }
    }
    for bytes in [0, 1, 4092] {
        stand.fails(&mut admin, identify(1, 0, bytes), Data::None, &[SGL_LENGTH])?;
    }
    Ok(())
}

pub(super) fn sgl_of_4_gib_for_writes(stand: &mut Stand<'_>) -> Outcome {
    let (_, mut io) = stand.pair(PLAIN)?;
    let write = Command::blocks(1, stand.nsid, 0, 8).transport(HUGE);
    let cids: Vec<u16> = (1..DEPTH).map(|_| stand.start(&mut io, write, &[])).collect();
    let mut asked = Vec::new();
    for cid in cids {
        match stand.reply(&io)? {
            Reply::ReadyToTransfer { cid: of, offset: 0, length: 4096, .. } if of == cid => asked.push(of),
            other => return Err(format!("{other:?} instead of an R2T for 4096 bytes")),
        }
    }
    Ok(())
}

pub(super) fn sgls_of_other_types(stand: &mut Stand<'_>) -> Outcome {
    let (_, mut io) = stand.pair(PLAIN)?;
    let (read, write) = (Command::blocks(2, stand.nsid, 0, 8), Command::blocks(1, stand.nsid, 0, 8));
    let others = (0..=255).filter(|identifier| ![0x01, 0x5a].contains(identifier));
    let commands: Vec<_> =
        others.flat_map(|identifier| [read.sgl(identifier, 4096), write.sgl(identifier, 4096)]).collect();
    stand.all_fail(&mut io, &commands, &[SGL_TYPE])?;
    // PRPs.
    stand.fails(&mut io, read.transport(4096).with(1, &[0]), Data::None, &[INVALID_FIELD])
}

pub(super) fn in_capsule_data_that_does_not_fit(stand: &mut Stand<'_>) -> Outcome {
    let (_, mut io) = stand.pair(PLAIN)?;
    let write = Command::blocks(1, stand.nsid, 0, 8);
    let data = [3; 8192];
    for (command, bytes, status) in [
        (write.in_capsule(0), 0, SGL_LENGTH),
        (write.in_capsule(4096), 0, SGL_LENGTH),
        (write.in_capsule(4096), 512, SGL_LENGTH),
        (write.in_capsule(512), 4096, SGL_LENGTH),
        (write.in_capsule(512), 512, SGL_LENGTH),
        (write.in_capsule(HUGE), 4096, SGL_LENGTH),
        (write.in_capsule(4096).with(24, &[8]), 4096, SGL_OFFSET),
        (write.transport(4096), 4096, INVALID_FIELD),
        (Command::blocks(0, stand.nsid, 0, 1), 4096, INVALID_FIELD),
    ] {
        stand.fails(&mut io, command, Data::Capsule(&data[..bytes]), &[status])?;
    }
    stand.success(&mut io, Command::blocks(1, stand.nsid, 0, 16).in_capsule(8192), Data::Capsule(&data))?;
    // Larger than IOCCSZ.
    let large = crate::wire::capsule(&write.in_capsule(8196), &[0; 8196], PLAIN);
    stand.ends_in(&io, &large, 1, Some(4))
}

pub(super) fn identify_of_every_cns(stand: &mut Stand<'_>) -> Outcome {
    let mut admin = stand.admin(PLAIN)?;
    for cns in 0..=255 {
        let nsids = [0, stand.nsid, 0xffff_fffe, u32::MAX];
        let cids = nsids.map(|nsid| stand.start(&mut admin, identify(cns, nsid, 4096), &[]));
        for (nsid, cid) in nsids.into_iter().zip(cids) {
            let answer = stand.end(&admin, cid, &[])?;
            let is_right = match answer.status {
                0 => answer.data.len() == 4096,
                INVALID_FIELD | INVALID_NAMESPACE => answer.data.is_empty(),
                _ => false,
            };
            if !is_right {
                return Err(format!("CNS {cns:#x}, NSID {nsid:#x}: status {:#x}", answer.status));
            }
        }
    }
    Ok(())
}

pub(super) fn identify_of_odd_nsids(stand: &mut Stand<'_>) -> Outcome {
    let mut admin = stand.admin(PLAIN)?;
    for nsid in [0, 0xffff_fffe] {
        stand.fails(&mut admin, identify(0, nsid, 4096), Data::None, &[INVALID_NAMESPACE, INVALID_FIELD])?;
    }
    // Active namespaces above one that cannot be (Base 5.15.2.2).
    for nsid in [0xffff_fffe, u32::MAX] {
        stand.fails(&mut admin, identify(2, nsid, 4096), Data::None, &[INVALID_NAMESPACE])?;
    }
    for bytes in [4100, 8192, u32::MAX] {
        let answer = stand.success(&mut admin, identify(1, 0, bytes), Data::None)?;
        if answer.data.len() != 4096 {
            return Err(format!("{} bytes for an SGL of {bytes}", answer.data.len()));
        }
    }
    Ok(())
}

pub(super) fn forty_event_requests_then_gone(stand: &mut Stand<'_>) -> Outcome {
    let mut admin = stand.admin(PLAIN)?;
    let mut refused = 0;
    for _ in 0..40 {
        let cid = stand.start(&mut admin, Command::new(0x0c), &[]);
        // Tells whether the request was refused: its answer would come first.
        let after = stand.start(&mut admin, Command::new(0x18), &[]);
        loop {
            match stand.reply(&admin)? {
                Reply::Response { cid: of, status: EVENT_LIMIT, .. } if of == cid => refused += 1,
                Reply::Response { cid: of, status: 0, .. } if of == after => break,
                other => return Err(format!("{other:?}")),
            }
        }
    }
    if (20..40).contains(&refused) { Ok(()) } else { Err(format!("{refused} of 40 were refused")) }
}

pub(super) fn duplicate_cids(stand: &mut Stand<'_>) -> Outcome {
    let (_, mut io) = stand.pair(PLAIN)?;
    let (cid, tag, length) = stand.asked_for(&mut io, 17)?;
    let again = Command::blocks(2, stand.nsid, 0, 1).transport(512).cid(cid);
    stand.bench.send(io.id, &crate::wire::capsule(&again, &[], PLAIN));
    match stand.reply(&io)? {
        Reply::Response { cid: of, status: ID_CONFLICT, .. } if of == cid => {}
        other => return Err(format!("{other:?} to a CID that is in use")),
    }
    // The first one goes on as if nothing had been.
    let data = vec![1; length as usize];
    stand.bench.send(io.id, &crate::wire::host_data(cid, tag, 0, true, &data, PLAIN));
    match stand.end(&io, cid, &[])?.status {
        0 => Ok(()),
        status => Err(format!("{status:#x} for the first")),
    }
}

pub(super) fn two_hundred_commands_on_a_queue_of_32(stand: &mut Stand<'_>) -> Outcome {
    let (_, mut io) = stand.pair(PLAIN)?;
    // None of them can end: the host sends no data.
    let write = Command::blocks(1, stand.nsid, 0, 17).transport(17 * 512);
    let bytes: Vec<u8> =
        (0..200u16).flat_map(|cid| crate::wire::capsule(&write.cid(cid), &[], PLAIN)).collect();
    stand.ends_in(&io, &bytes, 2, None)?;
    (_, io) = stand.pair(PLAIN)?;
    stand.success(&mut io, Command::blocks(0, stand.nsid, 0, 1), Data::None).map(drop)
}

pub(super) fn responses_that_nobody_reads(stand: &mut Stand<'_>) -> Outcome {
    for digests in [PLAIN, super::BOTH] {
        let (_, mut io) = stand.pair(digests)?;
        let read = Command::blocks(2, stand.nsid, 0, 512).transport(512 * 512);
        for _ in 1..DEPTH {
            stand.start(&mut io, read, &[]);
        }
        // Another host has its share meanwhile.
        stand.host = 3;
        let (_, mut other) = stand.pair(digests)?;
        for _ in 0..8 {
            stand.success(&mut other, read, Data::None)?;
        }
        stand.host = 1;
    }
    Ok(())
}

pub(super) fn reservation_commands(stand: &mut Stand<'_>) -> Outcome {
    // Not supported (ONCS, RESCAP 0): the same answer in every state, with a holder or without.
    let (_, mut io) = stand.pair(PLAIN)?;
    for opcode in [0x0d, 0x11, 0x15] {
        for action in 0..8 {
            for kind in [0, 1, 6, 0xff] {
                let command = Command::new(opcode).nsid(stand.nsid).dword(10, action | kind << 8);
                let data = Data::Capsule(&[0x5a; 16]);
                stand.fails(&mut io, command.in_capsule(16), data, &[INVALID_OPCODE, INVALID_FIELD])?;
            }
        }
    }
    let report = Command::new(0x0e).nsid(stand.nsid).dword(10, u32::MAX).transport(4096);
    stand.fails(&mut io, report, Data::None, &[INVALID_OPCODE])?;
    stand.success(&mut io, Command::blocks(0, stand.nsid, 0, 1), Data::None).map(drop)
}

pub(super) fn authentication_commands(stand: &mut Stand<'_>) -> Outcome {
    // Not supported: Connect asks for none. Whatever is said is refused, and the queue goes on.
    let not_here = [INVALID_OPCODE, INVALID_FIELD, SEQUENCE_ERROR];
    let mut link = stand.initialized(PLAIN)?;
    let messages: [&[u8]; 6] =
        [&[], &[0], &[0x01, 0xff, 0, 0, 0xff, 0xff], &[2; 16], &[0xff; 256], &[3; 8192]];
    for (round, message) in messages.iter().chain(&messages).enumerate() {
        if round == messages.len() {
            let (command, data) = stand.connect(0, 0xffff);
            stand.success(&mut link, command, Data::Capsule(&data))?;
        }
        for length in [0, message.len() as u32, HUGE] {
            // Send says TL, Receive AL; both come with any SECP and in any order.
            let send = Command::new(0x7f).nsid(5).dword(10, 0xe9 << 24 | 0x0001_0100).dword(11, length);
            let receive = Command::new(0x7f).nsid(6).dword(10, 0xe9 << 24).dword(11, length);
            stand.fails(&mut link, receive.transport(length), Data::None, &not_here)?;
            let send = send.in_capsule(message.len() as u32);
            stand.fails(&mut link, send, Data::Capsule(message), &not_here)?;
            stand.fails(&mut link, receive.transport(8), Data::None, &not_here)?;
        }
    }
    stand.success(&mut link, Command::property_get(0x1c), Data::None).map(drop)
}
