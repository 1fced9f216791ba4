//! What the hosts of one address leave to others.

use super::*;

fn peer(last: u8) -> Option<IpAddr> {
    Some(core::net::Ipv4Addr::new(10, 0, 0, last).into())
}

#[test]
fn ends_that_wait_at_a_drive_keep_their_own_address_out_and_no_other() {
    let mut card = Card::new();
    let mut ended = 0;
    let refused = loop {
        let (admin, cntlid) = match card.controller_of(0, peer(1)) {
            Ok(controller) => controller,
            Err(failure) => break failure,
        };
        card.connect_io(1, cntlid, 1).unwrap();
        card.cores[0].disconnect_queue(admin.controller, 0);
        card.expect_change(1);
        // Its queue goes; a write is still at a drive.
        card.cores[1].settle(|subsystem, owed| {
            if let Change::End { cntlid, reason } = owed.change {
                subsystem.end_delegate(cntlid, reason);
            }
            false
        });
        ended += 1;
    };
    assert_eq!(refused, busy());
    assert!((20..100).contains(&ended), "{ended} ends");
    assert_eq!(card.controller_of(0, peer(1)), Err(busy()), "others do not help");
    assert!(card.controller_of(0, peer(2)).is_ok());
    card.settle(1);
    // More confirmations than a ring takes at once.
    while card.hear(0).is_some() {
        card.cores[1].send_messages();
    }
    assert!(card.controller_of(0, peer(1)).is_ok());
    card.assert_quiet();
}

#[test]
fn the_hosts_of_one_address_do_not_take_all_fences() {
    let mut card = Card::new();
    for id in 0..8 {
        assert!(matches!(card.cores[0].begin_fence([id; 16], peer(1)), FenceStart::Begun(_)));
    }
    assert_eq!(card.cores[0].begin_fence([9; 16], peer(1)), FenceStart::Busy);
    assert_eq!(card.cores[0].begin_arrivals([9; 16], peer(1)), FenceStart::Busy);
    assert!(matches!(card.cores[0].begin_fence([9; 16], peer(2)), FenceStart::Begun(_)));
}
