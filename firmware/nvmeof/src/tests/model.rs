//! The target against a second model of what NVMe/TCP asks of it: valid and mutated PDUs, each answer compared.
//!
//! `PENSTOCK_MODEL_PDUS` sets how many mutated PDUs there are (1,000,000 in the long run: `docs/design/target-model.md`),
//! `PENSTOCK_MODEL_SEED` where they start. A divergence prints the seed of its conversation: run that one alone with
//! `PENSTOCK_MODEL_PDUS=1`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use nvmeof_model::conversation::{Peer, Tally, converse};
use nvmeof_model::{Card as Facts, Random};

use super::card::*;
use crate::{Limits, QueueIndex};

/// Steps of a conversation.
const STEPS: usize = 60;

fn facts() -> Facts {
    Facts {
        nqn: NQN,
        nsid: 1,
        blocks: BLOCKS,
        max_transfer: 1 << 20,
        in_capsule: 8192,
        max_host_data: 128 * 1024,
        max_entries: 128,
        max_io_queues: 16,
        max_event_requests: 4,
    }
}

/// A card, and the places of a conversation's connections in it.
struct Wires<'a> {
    card: &'a mut Card,
    random: Random,
    places: Vec<usize>,
}

impl Wires<'_> {
    fn index(&self, id: usize) -> QueueIndex {
        self.card.pipes[self.places[id]].0
    }
}

impl Peer for Wires<'_> {
    fn open(&mut self) {
        let index = self.card.open().expect("a free connection");
        self.places.push(self.card.pipes.len() - 1);
        let (fragment, window) =
            (self.random.pick(&[1, 7, 64, 1460, 65536, 65536]), self.random.pick(&[100, 5000, 1 << 22]));
        let pipe = self.card.pipe(index);
        (pipe.fragment, pipe.window) = (fragment, window);
    }

    fn exchange(&mut self, id: usize, bytes: &[u8]) {
        let index = self.index(id);
        self.card.send(index, bytes);
        self.card.run();
    }

    fn received(&mut self, id: usize) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let pipe = &mut self.card.pipes[self.places[id]].1;
            if pipe.to_host.is_empty() {
                return all;
            }
            all.append(&mut pipe.to_host);
            self.card.run();
        }
    }

    fn is_open(&mut self, id: usize) -> bool {
        let pipe = &self.card.pipes[self.places[id]].1;
        !pipe.closed && !pipe.aborted
    }

    fn cut(&mut self, id: usize) {
        if self.is_open(id) {
            let index = self.index(id);
            self.card.cut(index);
        }
        self.card.run();
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn conversation(card: &mut Card, seed: u64) -> Tally {
    let mut random = Random(seed);
    card.budget_bytes = random.pick(&[300, 5000, 128 * 1024]);
    card.reverse = random.one_in(2);
    card.ram.places = random.pick(&[1, 4, 1000]);
    let mut wires = Wires { card, random, places: Vec::new() };
    let tally = converse(&mut wires, &facts(), seed, STEPS).unwrap_or_else(|what| panic!("{what}"));
    card.assert_clean();
    tally
}

#[test]
fn the_target_answers_as_the_model_says() {
    let wanted = setting("PENSTOCK_MODEL_PDUS", 4000);
    let first = setting("PENSTOCK_MODEL_SEED", 1);
    let limits = Limits { connections: 16, slots: 2000, data_pages_per_connection: u32::MAX, ..UNLIMITED };
    let mut card = Card::with(limits, 4 * POOL_PAGES);
    let mut total = Tally::default();
    let mut seed = first;
    while total.mutated < wanted {
        let tally =
            catch_unwind(AssertUnwindSafe(|| conversation(&mut card, seed))).unwrap_or_else(|panic| {
                println!("PENSTOCK_MODEL_SEED={seed}");
                resume_unwind(panic)
            });
        total.pdus += tally.pdus;
        total.mutated += tally.mutated;
        total.terminated += tally.terminated;
        total.answers += tally.answers;
        total.unsure += tally.unsure;
        seed += 1;
    }
    println!("seeds {first}..{seed}: {total:?}");
    if wanted >= 1000 {
        assert!(total.unsure * 2 < seed - first, "the model gives up too often");
        assert!(total.terminated * 20 > total.mutated, "too few mutations end a connection");
        assert!(total.answers > total.pdus / 2, "too few PDUs are answered");
    }
}
