//! What one host may take from the others.

use nvme::Status;
use nvme::opcode::io;

use super::card::*;
use super::host::*;
use crate::Limits;
use crate::pdu::Digests;

const LARGEST_BLOCKS: u32 = 2048;
const LARGEST_BYTES: usize = 1 << 20;

/// A host whose I/O queues are full of the largest commands, none of which it lets end.
fn stalled_host(card: &mut Card, queues: u16, opcode: u8) {
    let (_, cntlid) = Host::admin(card, Digests::default());
    let mut hosts: Vec<Host> = (0..queues).map(|_| Host::open(card)).collect();
    for (host, queue_id) in hosts.iter_mut().zip(1..) {
        host.initialize(card);
        assert_eq!(host.connect(card, queue_id, cntlid).0, Status::SUCCESS);
        card.pipe(host.index).window = 100;
    }
    let payload = match opcode {
        io::READ => Payload::Read(LARGEST_BYTES as u32),
        _ => Payload::Write(vec![0; LARGEST_BYTES]),
    };
    for host in &mut hosts {
        for _ in 0..host.sq_size {
            host.start(card, block_command(opcode, 0, LARGEST_BLOCKS), &payload);
        }
        card.run();
    }
}

#[test]
fn stalled_transfers_of_one_host_leave_pages_for_others() {
    for opcode in [io::READ, io::WRITE] {
        let limits = Limits {
            connections: 16,
            slots: 600,
            data_pages_per_connection: POOL_PAGES as u32 / 4,
            ..UNLIMITED
        };
        let mut card = Card::with(limits, POOL_PAGES);
        stalled_host(&mut card, 4, opcode);
        let (_admin, mut host) = Host::pair(&mut card, Digests::default(), |_| {});
        let read = block_command(io::READ, 0, LARGEST_BLOCKS);
        let (status, _, data) = host.execute(&mut card, read, Payload::Read(LARGEST_BYTES as u32));
        assert_eq!((status, data.len()), (Status::SUCCESS, LARGEST_BYTES));
        card.assert_clean();
    }
}
