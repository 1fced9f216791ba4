//! Fused Compare and Write under hammering writers: pairs of the project's own host on some queues, plain writes of the same
//! blocks on others, and nothing may come between a pair's two commands. `nvmeof_model::fused` judges; `cargo xtask test qemu fused` has the
//! same against the card in QEMU.
//!
//! `FUSED_ROUNDS` says how many pairs each run has (100,000 in the long form, as `docs/design/fused.md` says), `FUSED_SEED` with which
//! seed it begins, `FUSED_CORES` how many data cores there are (1, 2 and 4 otherwise).

use nvmeof::initiator::{Transfer, commands};
use nvmeof_model::fused::{Judge, Moment, Tally, contents, id_of};

use super::own_host::{OwnHost, OwnQueue};
use super::*;

const ROUNDS: u64 = 400;
/// The blocks that all of them fight for.
const START: u64 = 1000;
const BLOCKS: u32 = 4;
const BYTES: usize = BLOCKS as usize * 512;
/// The judge's name for these blocks.
const PLACE: u16 = 0;
/// Between two Keep Alives, in pairs.
const KEEP_ALIVE_ROUNDS: u64 = 5000;

/// A seeded lot.
struct Lot(u64);

impl Lot {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }

    /// With the command, or when the card asks.
    fn transfer(&mut self) -> Transfer {
        if self.below(4) == 0 { Transfer::Send(BYTES as u32) } else { Transfer::SendInCapsule(BYTES as u32) }
    }
}

/// Who has a queue, and what it is doing there.
enum Actor {
    /// Reads the blocks, then sends a pair that expects what it has read, over and over.
    Pairs(Stage),
    /// Writes the blocks, with as many turns between two writes as the lot says.
    Writes { next_turn: u64, under_way: usize },
}

enum Stage {
    Idle,
    Reads(Moment),
    /// The statuses of both commands, where they have come.
    Fused([Option<u16>; 2]),
}

/// Tokens of a read and of a pair's Compare; those of writes are their numbers.
const READ: u64 = 1 << 40;
const COMPARE: u64 = 1 << 41;

struct Player {
    queue: OwnQueue,
    nsid: u32,
    actor: Actor,
}

impl Player {
    fn play(&mut self, card: &mut Card, turn: u64, lot: &mut Lot, judge: &mut Judge) {
        for ended in self.queue.ended(card) {
            let (token, status) = (ended.completed.token, ended.completed.status.code());
            match &mut self.actor {
                Actor::Writes { under_way, .. } => {
                    assert_eq!(status, Status::SUCCESS);
                    *under_way -= 1;
                    judge.write_ended(token as u32).unwrap();
                }
                Actor::Pairs(stage) => match stage {
                    Stage::Reads(sent) => {
                        assert_eq!((token, status), (READ, Status::SUCCESS));
                        let (read, id) = (*sent, id_of(PLACE, &ended.data).expect("blocks of one write"));
                        judge.read_found(read, id).unwrap();
                        *stage = Stage::Fused([None; 2]);
                        self.pair(read, id, lot, judge);
                    }
                    Stage::Fused(statuses) => {
                        statuses[usize::from(token & COMPARE == 0)] = Some(status.to_field());
                        if let [Some(compare), Some(write)] = *statuses {
                            judge.pair_ended((token & !COMPARE) as u32, [compare, write]).unwrap();
                            *stage = Stage::Idle;
                        }
                    }
                    Stage::Idle => panic!("an answer to nothing"),
                },
            }
        }
        self.begin(turn, lot, judge);
    }

    fn pair(&mut self, read: Moment, expected: u32, lot: &mut Lot, judge: &mut Judge) {
        let id = judge.pair_begins(read, expected);
        let compare = commands::compare(self.nsid, START, BLOCKS);
        let write = commands::write(self.nsid, START, BLOCKS);
        let first = (u64::from(id) | COMPARE, compare, contents(PLACE, expected, BYTES));
        let second = (u64::from(id), write, contents(PLACE, id, BYTES));
        self.queue.start_fused(lot.transfer(), first, second).expect("room for a pair");
    }

    fn begin(&mut self, turn: u64, lot: &mut Lot, judge: &mut Judge) {
        match &mut self.actor {
            Actor::Pairs(stage @ Stage::Idle) => {
                *stage = Stage::Reads(judge.read_begins());
                let read = commands::read(self.nsid, START, BLOCKS);
                self.queue.start(READ, &read, Transfer::Receive(BYTES as u32), vec![0; BYTES]);
            }
            Actor::Writes { next_turn, under_way } if turn >= *next_turn && *under_way < 4 => {
                // In bursts, and with pauses in which pairs get a chance.
                *next_turn = turn + if lot.below(3) == 0 { 0 } else { lot.below(400) };
                *under_way += 1;
                let id = judge.write_begins();
                let write = commands::write(self.nsid, START, BLOCKS);
                self.queue.start(u64::from(id), &write, lot.transfer(), contents(PLACE, id, BYTES));
            }
            _ => {}
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self.actor, Actor::Pairs(Stage::Idle) | Actor::Writes { under_way: 0, .. })
    }
}

/// Two hosts with queues on all cores: pairs on four of the queues, writers on the other four.
fn hammer(seed: u64, rounds: u64, cores: usize, config: &NvmeConfig) -> Tally {
    println!("seed {seed}, {cores} cores, {rounds} pairs");
    let mut card = Card::boot_cores(MEMORY * cores, cores, seed, [config.clone()]);
    card.pass(Duration::from_millis(300));
    let mut lot = Lot(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut hosts: Vec<OwnHost> = (1..=2).map(|id| OwnHost::connect(&mut card, id, 4, cores)).collect();
    let nsid = hosts[0].info.namespaces[0].nsid;
    let mut judge = Judge::default();
    let first = judge.write_begins();
    let write = commands::write(nsid, START, BLOCKS);
    let end = hosts[0].io[0].execute(
        &mut card,
        &write,
        Transfer::Send(BYTES as u32),
        contents(PLACE, first, BYTES),
    );
    assert_eq!(end.completed.status, Status::SUCCESS);
    judge.write_ended(first).unwrap();
    let queues = hosts.iter_mut().flat_map(|host| core::mem::take(&mut host.io));
    let mut players: Vec<Player> = queues
        .enumerate()
        .map(|(index, queue)| {
            let pairs = Actor::Pairs(Stage::Idle);
            let writes = Actor::Writes { next_turn: 0, under_way: 0 };
            Player { queue, nsid, actor: if index % 2 == 0 { pairs } else { writes } }
        })
        .collect();
    let (mut turn, mut kept_alive) = (0, 0);
    while judge.tally().pairs() < rounds {
        turn += 1;
        card.turn();
        for player in &mut players {
            player.play(&mut card, turn, &mut lot, &mut judge);
        }
        let ended = judge.tally().pairs();
        if ended >= kept_alive + KEEP_ALIVE_ROUNDS {
            kept_alive = ended;
            for host in &mut hosts {
                let end = host.admin.execute(&mut card, &commands::keep_alive(), Transfer::None, Vec::new());
                assert_eq!(end.completed.status, Status::SUCCESS);
            }
        }
    }
    finish(&mut card, hosts, players);
    judge.tally()
}

/// All hosts go; nothing is left of them.
fn finish(card: &mut Card, hosts: Vec<OwnHost>, players: Vec<Player>) {
    assert!(players.iter().any(|player| !player.is_idle()), "the hammering goes on to the end");
    players.iter().for_each(|player| card.wire.reset(player.queue.socket));
    hosts.iter().for_each(|host| host.reset(card));
    card.run_until("all connections are gone", |card| {
        let counts = card.all_counts();
        counts.iter().all(|counts| counts.connections == 0 && counts.draining == 0)
    });
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Drives with a Compare of their own and without; commands begin there in any order.
fn drives() -> [NvmeConfig; 2] {
    let own = NvmeConfig { latency_polls: (0, 12), ..NvmeConfig::default() };
    [NvmeConfig { optional_commands: own.optional_commands & !1, ..own.clone() }, own]
}

#[test]
fn every_fused_pair_is_atomic_under_hammering_writers_on_other_queues() {
    let rounds = setting("FUSED_ROUNDS").unwrap_or(ROUNDS);
    let seed = setting("FUSED_SEED").unwrap_or(1);
    let cores = setting("FUSED_CORES").map_or(vec![1, 2, 4], |cores| vec![cores as usize]);
    let of_each = |cores| (seed..).zip(drives()).map(move |(seed, config)| (cores, seed, config));
    for (cores, seed, config) in cores.into_iter().flat_map(of_each) {
        let Tally { successes, failures, contested, .. } = hammer(seed, rounds, cores, &config);
        println!("{successes} pairs wrote, {failures} found something else, {contested} met other writes");
        // Both happen, and hardly any pair is left alone.
        assert!(successes > rounds / 20 && failures > rounds / 20 && contested > rounds / 2);
    }
}
