//! What a read costs the card: a fixed load whose instructions `cargo xtask measure path` counts.
//!
//! Turns are dense and drives answer at once, so that the figures are the same in every run and on every machine. The one
//! test here is run by that command alone; `PATH_COST` gives it data cores, drives, commands under way, and reads (0: so many idle
//! turns as [`IDLE_TURNS`]).

use app::Role;
use hal_api::Instant;
use nvmeof::initiator::{Transfer, commands};

use super::own_host::OwnHost;
use super::*;

const BLOCKS: u32 = 8;
const BYTES: u32 = BLOCKS * 512;
const IDLE_TURNS: u64 = 1000;
/// Between two turns.
const TURN: Duration = Duration::from_micros(10);

/// All that is counted: one turn of one core.
#[inline(never)]
fn counted_turn(core: &mut dyn Role, now: Instant) -> u32 {
    core.poll(now, 64)
}

#[derive(Debug, Default)]
struct Turns {
    productive: u64,
    empty: u64,
}

impl Turns {
    fn take(&mut self, card: &mut Card) {
        card.each_core(|core, now| match counted_turn(core, now) {
            0 => self.empty += 1,
            _ => self.productive += 1,
        });
        card.wire.poll();
        card.now = card.now + TURN;
    }
}

#[test]
#[ignore = "counted by `cargo xtask measure path`"]
fn reads() {
    let setting = std::env::var("PATH_COST").expect("cores,drives,depth,reads");
    let numbers: Vec<usize> = setting.split(',').map(|number| number.parse().expect("a number")).collect();
    let [cores, drives, depth, reads] = numbers[..] else { panic!("four numbers") };
    let mut card = Card::boot_cores(128 << 20, cores, 1, vec![NvmeConfig::default(); drives]);
    card.pass(Duration::from_millis(300));
    let mut host = OwnHost::connect(&mut card, 1, cores as u16, cores);
    let nsid = host.info.namespaces[0].nsid;
    card.pass(Duration::from_millis(300));
    let mut turns = Turns::default();
    if reads == 0 {
        (0..IDLE_TURNS).for_each(|_| turns.take(&mut card));
    }
    let (mut begun, mut ended) = (0, 0);
    let mut under_way = vec![0; cores];
    while ended < reads {
        for (queue, under_way) in host.io.iter_mut().zip(&mut under_way) {
            let done = queue.ended(&mut card);
            assert!(done.iter().all(|end| end.completed.status == Status::SUCCESS));
            (ended, *under_way) = (ended + done.len(), *under_way - done.len());
            while begun < reads && *under_way < depth / cores {
                let read = commands::read(nsid, begun as u64 % 1000 * u64::from(BLOCKS), BLOCKS);
                queue.start(begun as u64, &read, Transfer::Receive(BYTES), vec![0; BYTES as usize]);
                (begun, *under_way) = (begun + 1, *under_way + 1);
            }
            queue.ended(&mut card);
        }
        card.wire.poll();
        turns.take(&mut card);
    }
    println!("path-cost productive={} empty={} reads={ended}", turns.productive, turns.empty);
}
