//! `fused`: Compare and Write pairs of several hosts among writes of the same blocks, and whether each pair was atomic.
//!
//! One thread has all queues, so that it knows the order in which it sent commands and heard of their ends;
//! `nvmeof_model::fused` judges by that order.

mod player;

use crate::arguments::Fused;
use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use nvmeof::initiator::NamespaceInfo;
use nvmeof_host::{Association, COMMAND_LIMIT, Queue, Random, Target};
use nvmeof_model::fused::{Judge, Tally};
use player::Player;
use std::time::{Duration, Instant};

/// The first block of the first place.
const START_BLOCK: u64 = 1000;
/// Of the admin queues.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// A line of progress where nobody looks on.
const TOLD_EVERY: Duration = Duration::from_secs(30);
/// How long the thread sleeps at most while nothing comes: writers have pauses.
const SLEEP: Duration = Duration::from_millis(1);

/// Blocks that all queues fight for.
struct Place {
    number: u16,
    namespace: NamespaceInfo,
    start_block: u64,
    blocks: u32,
    judge: Judge,
}

impl Place {
    fn bytes(&self) -> usize {
        (self.blocks as usize) << self.namespace.block_shift
    }
}

/// Runs all rounds. A failure says how to begin again.
pub fn run(target: &Target, nsid: Option<u32>, options: &Fused) -> Result<()> {
    let mut game = Game::begin(target, nsid, options)?;
    let played = game.play(options.rounds);
    let told = game.tell(options.rounds);
    played.with_context(|| format!("{told}; again with `{}`", again(options)))?;
    println!("{told}");
    let Tally { successes, failures, contested, .. } = game.tally();
    // Else it has shown little: both ends happen, and most pairs meet others.
    let few = options.rounds / 50;
    ensure!(successes > few && failures > few && contested > options.rounds / 4, "hardly any contest");
    Ok(())
}

/// The words that do the same once more. The target's own timing is not in the seed.
fn again(options: &Fused) -> String {
    let Fused { rounds, controllers, queues, depth, pause, places, blocks, seed } = options;
    format!(
        "fused --rounds {rounds} --controllers {controllers} --queues {queues} --depth {depth} --pause {pause} \
         --places {places} --blocks {blocks} --seed {seed}"
    )
}

/// All that takes part.
struct Game {
    associations: Vec<Association>,
    players: Vec<Player>,
    table: Table,
    began: Instant,
}

/// What the players have before them.
struct Table {
    places: Vec<Place>,
    random: Random,
    /// Commands that have ended.
    ended: u64,
}

impl Game {
    /// Connects everybody, and writes each place once.
    fn begin(target: &Target, nsid: Option<u32>, options: &Fused) -> Result<Self> {
        let open = |number| {
            let target = Target { host: target.host.numbered(number), ..target.clone() };
            Association::open_for(&target, options.queues, KEEP_ALIVE)
                .with_context(|| format!("controller of host {number}"))
        };
        let associations = (0..options.controllers).map(open).collect::<Result<Vec<_>>>()?;
        let mut places = places(nsid, options, &associations)?;
        let in_capsule_bytes = associations.iter().map(|association| association.info.in_capsule_bytes).min();
        let mut players = Vec::new();
        for association in &associations {
            for queue_id in 1..=options.queues {
                let queue = association.io_queue(queue_id, options.depth.max(2))?;
                let in_capsule_bytes = in_capsule_bytes.unwrap_or(0);
                players.push(match players.len() % 2 {
                    0 => Player::of_pairs(queue, in_capsule_bytes),
                    _ => Player::of_writes(queue, in_capsule_bytes, options),
                });
            }
        }
        let first = players.first_mut().context("no queue")?;
        places.iter_mut().try_for_each(|place| first.write_once(place))?;
        let table = Table { places, random: Random(options.seed), ended: 0 };
        Ok(Self { associations, players, table, began: Instant::now() })
    }

    /// Lets all play until so many pairs have ended, then brings what is under way to its end and reads each place.
    fn play(&mut self, rounds: u64) -> Result<()> {
        let bar = ProgressBar::new(rounds)
            .with_style(ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len}, {elapsed}")?);
        let mut told = Instant::now();
        while self.tally().pairs() < rounds {
            self.turn(true)?;
            bar.set_position(self.tally().pairs());
            if bar.is_hidden() && told.elapsed() > TOLD_EVERY {
                told = Instant::now();
                eprintln!("  {}", self.tell(rounds));
            }
        }
        bar.finish_and_clear();
        while !self.players.iter().all(Player::is_idle) {
            self.turn(false)?;
        }
        let (places, first) = (&mut self.table.places, self.players.first_mut().context("no queue")?);
        places.iter_mut().try_for_each(|place| first.read_once(place))
    }

    /// Everybody takes what has come, and begins what it likes.
    fn turn(&mut self, begins: bool) -> Result<()> {
        let mut came = false;
        for (number, player) in self.players.iter_mut().enumerate() {
            let turn = player.turn(&mut self.table, begins);
            came |= turn.with_context(|| format!("queue {number}"))?;
        }
        if !came {
            Queue::wait_any(self.players.iter().map(|player| &player.queue), SLEEP)?;
        }
        Ok(self.associations.iter_mut().try_for_each(Association::tick)?)
    }

    fn tally(&self) -> Tally {
        let mut all = Tally::default();
        self.table.places.iter().for_each(|place| all += place.judge.tally());
        all
    }

    fn tell(&self, rounds: u64) -> String {
        let Tally { writes, successes, failures, contested } = self.tally();
        format!(
            "{} of {rounds} pairs on {} queues at {} places: {successes} wrote, {failures} found something else, \
             {contested} met other writes; {writes} writes, {:.1} s",
            successes + failures,
            self.players.len(),
            self.table.places.len(),
            self.began.elapsed().as_secs_f64()
        )
    }
}

/// Places in each namespace, or in that of the command line.
fn places(nsid: Option<u32>, options: &Fused, associations: &[Association]) -> Result<Vec<Place>> {
    let first = associations.first().context("no controller")?;
    let namespaces = match nsid {
        Some(_) => vec![first.namespace(nsid)?],
        None => first.info.namespaces.iter().copied().collect(),
    };
    let blocks = options.blocks;
    let of_each = |namespace: NamespaceInfo| {
        (0..u64::from(options.places)).map(move |index| {
            // Next to each other: a place's neighbour is nobody's business.
            let start_block = START_BLOCK + index * u64::from(blocks);
            Place { number: 0, namespace, start_block, blocks, judge: Judge::default() }
        })
    };
    let mut places: Vec<Place> = namespaces.into_iter().flat_map(of_each).collect();
    for (number, place) in places.iter_mut().enumerate() {
        place.number = u16::try_from(number)?;
        let end_block = place.start_block + u64::from(blocks);
        ensure!(end_block <= place.namespace.blocks, "namespace {} is too small", place.namespace.nsid);
    }
    if places.is_empty() {
        bail!("the subsystem has no namespace");
    }
    Ok(places)
}

/// A sentence of the judge's, with its place.
fn judged<T>(place: &Place, judged: Result<T, String>) -> Result<T> {
    let Place { namespace, start_block, .. } = place;
    judged.map_err(|why| anyhow!("namespace {}, block {start_block}: {why}", namespace.nsid))
}

/// Whether a command has taken too long.
fn patience(since: Instant) -> Result<()> {
    ensure!(since.elapsed() < COMMAND_LIMIT, "a command takes longer than {COMMAND_LIMIT:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Verb};
    use clap::Parser;

    #[test]
    fn the_words_of_a_failure_give_the_same_run() {
        let parsed = |words: &str| {
            let words = ["native-host", "--nqn", "nqn"].into_iter().chain(words.split(' '));
            match Arguments::try_parse_from(words).unwrap().verb {
                Verb::Fused(options) => options,
                _ => panic!("another verb"),
            }
        };
        let words =
            "fused --rounds 7 --controllers 2 --queues 3 --depth 5 --pause 9 --places 1 --blocks 8 --seed 4";
        assert_eq!(again(&parsed(words)), words);
    }
}
