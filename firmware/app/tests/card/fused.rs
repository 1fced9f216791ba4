//! Fused Compare and Write under hammering writers: pairs of the project's own host on some queues, plain writes of the same
//! blocks on others, and nothing may come between a pair's two commands.
//!
//! `FUSED_ROUNDS` says how many pairs each run has (100,000 in the long form, as `docs/design/fused.md` says), `FUSED_SEED` with which
//! seed it begins, `FUSED_CORES` how many data cores there are (1, 2 and 4 otherwise).

use std::collections::BTreeMap;

use nvmeof::initiator::{Transfer, commands};

use super::own_host::{OwnHost, OwnQueue};
use super::*;

const ROUNDS: u64 = 400;
/// The blocks that all of them fight for.
const START: u64 = 1000;
const BLOCKS: u32 = 4;
const BYTES: usize = BLOCKS as usize * 512;
/// What a write may still have to do with: later ones have long hidden it.
const RECENT: u32 = 256;
/// Between two Keep Alives, in pairs.
const KEEP_ALIVE_ROUNDS: u64 = 5000;

type Moment = u64;

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

/// One write, whose number stands in every word of its blocks.
#[derive(Debug, Default)]
struct Value {
    sent: Moment,
    ended: Option<Moment>,
    /// Of a pair: the value that its Compare named.
    expects: Option<u32>,
    /// Of a pair that was answered: it wrote nothing.
    failed: bool,
    seen: bool,
    /// The pair whose Compare has found this value, and which has replaced it.
    replaced_by: Option<u32>,
}

/// Every write, and what is known of their order: each thing that a host does or hears of is a moment.
#[derive(Debug, Default)]
struct Judge {
    now: Moment,
    values: BTreeMap<u32, Value>,
    successes: u64,
    failures: u64,
    /// Pairs that had other writes under way with them.
    contested: u64,
}

impl Judge {
    fn moment(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// A write is about to be sent; its number.
    fn begin(&mut self, expects: Option<u32>) -> u32 {
        let (sent, id) = (self.moment(), self.values.last_key_value().map_or(1, |(id, _)| id + 1));
        self.values.insert(id, Value { sent, expects, ..Value::default() });
        let old = id.saturating_sub(4 * RECENT);
        self.values.remove(&old);
        id
    }

    fn end(&mut self, id: u32) {
        let now = self.moment();
        self.values.get_mut(&id).expect("a write of late").ended = Some(now);
    }

    /// Writes that may have been under way at `since`, but for one.
    fn others(&self, but: u32) -> impl Iterator<Item = (&u32, &Value)> {
        self.values
            .range(but.saturating_sub(RECENT)..)
            .filter(move |(id, value)| **id != but && !value.failed)
    }

    /// The blocks held this value at some time after `since`, when whoever found it was sent.
    fn found(&mut self, id: u32, since: Moment) {
        let value = self.values.get_mut(&id).unwrap_or_else(|| panic!("value {id} was replaced long ago"));
        value.seen = true;
        assert!(!value.failed, "value {id} of a pair that failed stands in the blocks");
        let value = &self.values[&id];
        // What was sent after this value had its place, or after the value that its Compare has found, comes after it.
        let expected = value.expects.and_then(|expected| self.values.get(&expected)?.ended);
        let earliest = [value.ended, expected].into_iter().flatten().min();
        for (other, later) in self.others(id) {
            let over = later.ended.is_some_and(|ended| ended < since);
            let is_later = earliest.is_some_and(|earliest| later.sent > earliest);
            assert!(
                !(over && is_later),
                "write {other} was lost: it came before or into the pair that wrote {id}, or a write was undone: {later:?}, {value:?}"
            );
        }
    }

    /// A pair has ended that compared with what a read, sent at `read`, had found.
    fn pair_ended(&mut self, id: u32, read: Moment, statuses: [Status; 2]) {
        let (sent, expected) = (self.values[&id].sent, self.values[&id].expects.expect("a pair"));
        let at_once = |value: &Value| value.ended.is_none_or(|ended| ended > sent);
        let contested = self.others(id).any(|(_, value)| at_once(value));
        self.contested += u64::from(contested);
        self.end(id);
        match statuses {
            [Status::SUCCESS, Status::SUCCESS] => {
                self.successes += 1;
                self.found(expected, sent);
                let rival = self.values.get_mut(&expected).and_then(|value| value.replaced_by.replace(id));
                assert_eq!(rival, None, "pair {id} has found {expected} as well");
            }
            [Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED] => {
                self.failures += 1;
                let excused = self
                    .others(id)
                    .any(|(other, value)| *other != expected && value.ended.is_none_or(|ended| ended > read));
                assert!(excused, "pair {id} failed, and nobody wrote since {expected} was read");
                let value = self.values.get_mut(&id).expect("a write of late");
                assert!(!value.seen, "value {id} was seen, and its pair failed");
                value.failed = true;
            }
            other => panic!("pair {id} ended with {other:?}"),
        }
    }
}

fn contents(id: u32) -> Vec<u8> {
    (0..BYTES as u32 / 8).flat_map(|word| (u64::from(id) << 32 | u64::from(word)).to_le_bytes()).collect()
}

fn id_of(data: &[u8]) -> u32 {
    let id = u32::from_le_bytes(data[4..8].try_into().expect("4 bytes"));
    assert!(data == contents(id), "blocks of several writes");
    id
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
    Fused { read: Moment, statuses: [Option<Status>; 2] },
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
                    judge.end(token as u32);
                }
                Actor::Pairs(stage) => match stage {
                    Stage::Reads(sent) => {
                        assert_eq!((token, status), (READ, Status::SUCCESS));
                        let (sent, id) = (*sent, id_of(&ended.data));
                        judge.found(id, sent);
                        let read = judge.moment();
                        *stage = Stage::Fused { read: sent.min(read), statuses: [None; 2] };
                        self.pair(id, lot, judge);
                    }
                    Stage::Fused { read, statuses } => {
                        statuses[usize::from(token & COMPARE == 0)] = Some(status);
                        if let [Some(compare), Some(write)] = *statuses {
                            judge.pair_ended((token & !COMPARE) as u32, *read, [compare, write]);
                            *stage = Stage::Idle;
                        }
                    }
                    Stage::Idle => panic!("an answer to nothing"),
                },
            }
        }
        self.begin(turn, lot, judge);
    }

    fn pair(&mut self, expected: u32, lot: &mut Lot, judge: &mut Judge) {
        let id = judge.begin(Some(expected));
        let compare = commands::compare(self.nsid, START, BLOCKS);
        let write = commands::write(self.nsid, START, BLOCKS);
        let first = (u64::from(id) | COMPARE, compare, contents(expected));
        let second = (u64::from(id), write, contents(id));
        self.queue.start_fused(lot.transfer(), first, second).expect("room for a pair");
    }

    fn begin(&mut self, turn: u64, lot: &mut Lot, judge: &mut Judge) {
        match &mut self.actor {
            Actor::Pairs(stage @ Stage::Idle) => {
                *stage = Stage::Reads(judge.moment());
                let read = commands::read(self.nsid, START, BLOCKS);
                self.queue.start(READ, &read, Transfer::Receive(BYTES as u32), vec![0; BYTES]);
            }
            Actor::Writes { next_turn, under_way } if turn >= *next_turn && *under_way < 4 => {
                // In bursts, and with pauses in which pairs get a chance.
                *next_turn = turn + if lot.below(3) == 0 { 0 } else { lot.below(400) };
                *under_way += 1;
                let id = judge.begin(None);
                let write = commands::write(self.nsid, START, BLOCKS);
                self.queue.start(u64::from(id), &write, lot.transfer(), contents(id));
            }
            _ => {}
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self.actor, Actor::Pairs(Stage::Idle) | Actor::Writes { under_way: 0, .. })
    }
}

/// Two hosts with queues on all cores: pairs on four of the queues, writers on the other four.
fn hammer(seed: u64, rounds: u64, cores: usize, config: &NvmeConfig) -> Judge {
    println!("seed {seed}, {cores} cores, {rounds} pairs");
    let mut card = Card::boot_cores(MEMORY * cores, cores, seed, [config.clone()]);
    card.pass(Duration::from_millis(300));
    let mut lot = Lot(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut hosts: Vec<OwnHost> = (1..=2).map(|id| OwnHost::connect(&mut card, id, 4, cores)).collect();
    let nsid = hosts[0].info.namespaces[0].nsid;
    let mut judge = Judge::default();
    let first = judge.begin(None);
    let write = commands::write(nsid, START, BLOCKS);
    let end = hosts[0].io[0].execute(&mut card, &write, Transfer::Send(BYTES as u32), contents(first));
    assert_eq!(end.completed.status, Status::SUCCESS);
    judge.end(first);
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
    while judge.successes + judge.failures < rounds {
        turn += 1;
        card.turn();
        for player in &mut players {
            player.play(&mut card, turn, &mut lot, &mut judge);
        }
        let ended = judge.successes + judge.failures;
        if ended >= kept_alive + KEEP_ALIVE_ROUNDS {
            kept_alive = ended;
            for host in &mut hosts {
                let end = host.admin.execute(&mut card, &commands::keep_alive(), Transfer::None, Vec::new());
                assert_eq!(end.completed.status, Status::SUCCESS);
            }
        }
    }
    finish(&mut card, hosts, players);
    judge
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
        let judge = hammer(seed, rounds, cores, &config);
        let Judge { successes, failures, contested, .. } = judge;
        println!("{successes} pairs wrote, {failures} found something else, {contested} met other writes");
        // Both happen, and hardly any pair is left alone.
        assert!(successes > rounds / 20 && failures > rounds / 20 && contested > rounds / 2);
    }
}
