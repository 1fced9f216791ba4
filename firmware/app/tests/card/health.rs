//! Critical warnings and temperatures of drives, as hosts of controllers on all cores hear of them.

use nvme::opcode::admin;

use super::many_cores::{Spread, all_idle};
use super::*;

const ASYNC_EVENTS: u32 = 0x0b;
const TEMPERATURE_THRESHOLD: u32 = 0x04;
const SMART: u32 = 0x02;
/// Event type 1 (SMART / health), its information, and the log page (Base 5.2, figures 145 and 147).
const RELIABILITY: u32 = 0x02_0001;
const TEMPERATURE: u32 = 0x02_0101;
/// What the fake drives report.
const DRIVES_TEMPERATURE_K: u32 = 310;

fn set_feature(card: &mut Card, host: &mut Spread, feature: u32, value: u32) {
    let mut set = Command { opcode: admin::SET_FEATURES, ..Default::default() };
    set.cdw10.set(feature);
    set.cdw11.set(value);
    assert_eq!(host.admin.execute(card, set, Payload::None).status, Status::SUCCESS);
}

fn park(card: &mut Card, host: &mut Spread) {
    let request = Command { opcode: admin::ASYNC_EVENT_REQUEST, ..Default::default() };
    host.admin.start(card, request, Payload::None);
}

/// Reads the SMART log of all drives, or of one namespace's: warnings and temperature. An event that comes meanwhile is none.
fn smart(card: &mut Card, host: &mut Spread, nsid: u32) -> (u8, u32) {
    let mut read = Command { opcode: admin::GET_LOG_PAGE, ..Default::default() };
    read.nsid.set(nsid);
    read.cdw10.set(SMART | 127 << 16);
    let cid = host.admin.start(card, read, Payload::Read(512));
    let end = host.admin.wait(card, 1).remove(0);
    assert_eq!((end.cid, end.status), (cid, Status::SUCCESS));
    (end.data[0], u32::from(u16::from_le_bytes([end.data[1], end.data[2]])))
}

#[test]
fn a_warning_of_any_drive_reaches_hosts_of_controllers_on_all_cores() {
    for seed in 0..3 {
        println!("seed {seed}");
        let (mut card, cores) = many_cores::boot(seed);
        let before = card.all_counts();
        let mut hosts: Vec<Spread> =
            (0..cores).map(|core| Spread::admin(&mut card, core as u8 + 1, core, 600_000)).collect();
        for host in &mut hosts {
            set_feature(&mut card, host, ASYNC_EVENTS, 0xff);
            assert_eq!(smart(&mut card, host, nvme::NSID_ALL), (0, DRIVES_TEMPERATURE_K));
            park(&mut card, host);
        }
        // The drives' homes are different cores.
        for drive in 0..2 {
            card.drives[drive].set_critical_warning(0x04);
            for host in &mut hosts {
                let event = host.admin.wait(&mut card, 1).remove(0);
                assert_eq!((event.status, event.result), (Status::SUCCESS, RELIABILITY));
                assert_eq!(smart(&mut card, host, nvme::NSID_ALL), (0x04, DRIVES_TEMPERATURE_K));
            }
            card.drives[drive].set_critical_warning(0);
            // That it is over is no event, and is seen at the drive's next look at its health.
            card.pass(Duration::from_secs(15));
            for host in &mut hosts {
                assert_eq!(smart(&mut card, host, nvme::NSID_ALL), (0, DRIVES_TEMPERATURE_K));
                park(&mut card, host);
            }
        }
        // A threshold is that of the host that has set it.
        let warm = seed as usize % cores;
        set_feature(&mut card, &mut hosts[warm], TEMPERATURE_THRESHOLD, DRIVES_TEMPERATURE_K);
        assert_eq!(hosts[warm].admin.wait(&mut card, 1)[0].result, TEMPERATURE);
        card.pass(Duration::from_secs(1));
        for (index, host) in hosts.iter_mut().enumerate() {
            let warning = if index == warm { 0x02 } else { 0 };
            assert_eq!(smart(&mut card, host, nvme::NSID_ALL), (warning, DRIVES_TEMPERATURE_K));
        }
        hosts.iter().flat_map(Spread::sockets).for_each(|socket| card.wire.reset(socket));
        assert_eq!(all_idle(&mut card), before);
    }
}
