//! Well-formed conversations with bytes changed, lost, repeated and cut: no panic, no byte out of place, and each
//! command ends at most once.

use nvme::Status;
use zerocopy::IntoBytes;

use super::{BYTES, World, data_header, icresp, response, with_data};
use crate::initiator::{Transfer, commands};
use crate::pdu::{Digests, kind};

const SEEDS: u64 = 4000;

/// Xorshift: enough to choose bytes.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}

/// Names the seed of the conversation that fails.
struct ShownOnFailure(u64);

impl Drop for ShownOnFailure {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}", self.0);
        }
    }
}

#[test]
fn whatever_arrives_each_command_ends_at_most_once() {
    for seed in 1..=SEEDS {
        let _shown = ShownOnFailure(seed);
        conversation(&mut Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
}

fn conversation(random: &mut Random) {
    let mut world = World::fresh(Digests::default());
    world.wire.fragment = 1 + random.below(200);
    let mut ended = [0; 4];
    let transfers =
        [Transfer::None, Transfer::Receive(BYTES), Transfer::Send(BYTES), Transfer::SendInCapsule(BYTES)];
    for (token, transfer) in transfers.into_iter().enumerate() {
        world.queue.submit(token as u64, &commands::read(1, 0, 8), transfer).unwrap();
    }
    let mut bytes = icresp(Digests::default()).as_bytes().to_vec();
    let cids: Vec<u16> = (0..4).map(|slot| slot | 1 << 12).collect();
    bytes.extend(response(cids[0], Status::SUCCESS, 0xffff).as_bytes());
    bytes.extend(data_header(kind::READY_TO_TRANSFER, cids[2], 0, BYTES).as_bytes());
    bytes.extend(with_data(&data_header(kind::CONTROLLER_DATA, cids[1], 0, 1024), 1024));
    bytes.extend(with_data(&data_header(kind::CONTROLLER_DATA, cids[1], 1024, BYTES - 1024), BYTES - 1024));
    for cid in [cids[1], cids[3], cids[2]] {
        bytes.extend(response(cid, Status::SUCCESS, 0).as_bytes());
    }
    for _ in 0..random.below(4) {
        mutate(&mut bytes, random);
    }
    let whole = bytes.len();
    let mut bytes = &bytes[..];
    while !bytes.is_empty() {
        let (now, rest) = bytes.split_at((1 + random.below(whole)).min(bytes.len()));
        let said = world.say(now);
        while let Some(completed) = world.queue.take_completed() {
            ended[completed.token as usize] += 1;
        }
        if said.is_err() {
            break;
        }
        bytes = rest;
    }
    while let Some(token) = world.queue.take_abandoned() {
        ended[token as usize] += 1;
    }
    assert_eq!(ended, [1; 4], "each command ends or is abandoned, once");
    assert_eq!(world.queue.outstanding(), 0);
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    // Headers are more worth a change than data.
    let at = match random.below(3) {
        0 => random.below(bytes.len()),
        1 => random.below(bytes.len().min(176)),
        _ => bytes.len() - 1 - random.below(bytes.len().min(72)),
    };
    match random.below(5) {
        0 => bytes[at] = random.below(256) as u8,
        1 => bytes[at] ^= 1 << random.below(8),
        2 => drop(bytes.remove(at)),
        3 => bytes.insert(at, random.below(256) as u8),
        _ => {
            let copy = bytes[at..(at + random.below(200)).min(bytes.len())].to_vec();
            bytes.splice(at..at, copy);
        }
    }
    if bytes.is_empty() {
        bytes.push(0);
    }
}
