//! A target whose controller does not become ready.

use core::time::Duration;

use hal_api::Instant;
use nvme::{Completion, Status};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;

use super::{World, response};
use crate::initiator::{BringUp, BringUpError, Identity, Step};
use crate::pdu::Digests;

#[test]
fn readiness_is_asked_for_at_a_pace_and_not_for_ever() {
    let mut world = World::live(Digests::default());
    let mut steps = BringUp::admin(Identity::new([7; 16], "host", "subsystem").unwrap(), 0, 1);
    let began = Instant::from_millis(1000);
    let (mut now, mut looks, mut answers) = (began, 0, 0);
    loop {
        match steps.advance(&mut world.queue, now) {
            Ok(done) => assert!(!done),
            Err(error) => {
                assert_eq!(error, BringUpError::NotReady);
                break;
            }
        }
        world.queue.poll(&mut world.wire, &mut steps).unwrap();
        if world.wire.to_target.is_empty() {
            assert!(steps.next_deadline() > now);
            now = steps.next_deadline();
            continue;
        }
        looks += u128::from(steps.step() == Step::Ready);
        let cid = u16::from_le_bytes([world.wire.to_target[10], world.wire.to_target[11]]);
        world.wire.to_target.clear();
        answers += 1;
        // CAP.TO is 1 s; everything else is 0, CSTS too.
        let result = if steps.step() == Step::Capabilities { 2 << 24 | 127 } else { 0 };
        let mut answer = response(cid, Status::SUCCESS, 0);
        answer.completion = Completion::new(cid, Status::SUCCESS, result);
        answer.completion.sq_head = U16::new(answers % 32);
        world.wire.from_target.extend(answer.as_bytes());
        world.queue.poll(&mut world.wire, &mut steps).unwrap();
    }
    let waited = now.since(began);
    assert!((Duration::from_secs(1)..Duration::from_secs(3)).contains(&waited), "{waited:?}");
    assert!((2..=waited.as_millis() / 5 + 2).contains(&looks), "{looks} looks in {waited:?}");
}
