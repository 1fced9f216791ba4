//! Two Ethernet ports of one card: two paths to the same namespaces.

use hal_fakes::NvmeConfig;
use nvme::opcode::{admin, io};
use nvme::{Command, Status};

use super::{MEMORY, idle, pattern};
use crate::card::Card;
use crate::host::{Host, Payload, blocks};

/// A host's association by a port.
fn connect_by(card: &mut Card, port: usize) -> Host {
    card.wire.next = port;
    Host::connect(card, 9)
}

#[test]
fn a_host_reads_by_one_port_what_it_has_written_by_the_other() {
    let mut card = Card::boot_ports(MEMORY, [NvmeConfig::default()]);
    let before = card.counts();
    let mut paths = [0, 1].map(|port| connect_by(&mut card, port));
    let nsid = paths[0].namespaces(&mut card)[0];
    assert_eq!(paths[1].namespaces(&mut card), [nsid], "the same namespace");
    for turn in 0..4 {
        let data = pattern(16 * 512, turn as u32);
        let write = blocks(io::WRITE, nsid, turn * 16, 16);
        let end = paths[turn as usize % 2].io.execute(&mut card, write, Payload::Write(data.clone()));
        assert_eq!(end.status, Status::SUCCESS);
        let read = blocks(io::READ, nsid, turn * 16, 16);
        let end = paths[(turn as usize + 1) % 2].io.execute(&mut card, read, Payload::Read(16 * 512));
        assert_eq!((end.status, end.data), (Status::SUCCESS, data));
    }
    // One path goes: the other does not notice.
    paths[0].reset(&mut card);
    let read = blocks(io::READ, nsid, 0, 16);
    let end = paths[1].io.execute(&mut card, read, Payload::Read(16 * 512));
    assert_eq!((end.status, end.data), (Status::SUCCESS, pattern(16 * 512, 0)));
    paths[1].reset(&mut card);
    assert_eq!(idle(&mut card), before);
}

#[test]
fn both_ports_lead_to_one_subsystem() {
    let mut card = Card::boot_ports(MEMORY, [NvmeConfig::default()]);
    let pages = [0, 1].map(|port| {
        let mut host = connect_by(&mut card, port);
        let mut identify = Command { opcode: admin::IDENTIFY, ..Default::default() };
        identify.cdw10.set(1);
        let page = host.admin.execute(&mut card, identify, Payload::Read(4096)).data;
        assert_eq!(page[76] & 1, 1, "CMIC: several ports");
        page
    });
    let (nqn, cntlid) = (768..1024, 78..80);
    assert_eq!(pages[0][nqn.clone()], pages[1][nqn]);
    assert_ne!(pages[0][cntlid.clone()], pages[1][cntlid]);
}
