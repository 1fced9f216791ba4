//! Who has a queue, and what it does there.

use super::{Place, Table, judged, patience};
use crate::arguments::Fused;
use anyhow::{Context, Result, anyhow, ensure};
use nvme::Command;
use nvmeof::initiator::{Completed, Payload, Transfer, commands};
use nvmeof_host::{Queue, Random};
use nvmeof_model::fused::{Moment, contents, id_of};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Tokens of a read and of a pair's Compare; those of writes are their numbers.
const READ: u64 = 1 << 40;
const COMPARE: u64 = 1 << 41;

/// The data of commands, by token.
#[derive(Default)]
struct Memory(BTreeMap<u64, Vec<u8>>);

impl Payload for Memory {
    fn store(&mut self, token: u64, offset: u32, bytes: &[u8]) {
        if let Some(data) = self.0.get_mut(&token) {
            data[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    fn load(&mut self, token: u64, offset: u32, room: &mut [u8]) {
        if let Some(data) = self.0.get(&token) {
            room.copy_from_slice(&data[offset as usize..][..room.len()]);
        }
    }
}

enum Actor {
    /// Reads a place, then sends a pair that expects what it has read, over and over.
    Pairs(Stage),
    /// Writes places: the next one when so many commands have ended, of all queues. Pauses are no times, lest a slow machine
    /// has another game.
    Writes { next: u64, depth: usize, pause: u64 },
}

enum Stage {
    Idle,
    /// A read is under way, which was sent then.
    Reads(Moment),
    /// A pair is under way; the statuses of both commands, where they have come.
    Fused([Option<u16>; 2]),
}

/// A queue with its commands.
pub struct Player {
    pub queue: Queue,
    in_capsule_bytes: u32,
    actor: Actor,
    memory: Memory,
    /// Place of each command under way, by token, and when it was sent. A number may be under way at several places: they are parts of
    /// the token.
    under_way: BTreeMap<u64, (usize, Instant)>,
}

/// The token of a command at a place.
fn token(place: usize, kind_and_id: u64) -> u64 {
    (place as u64) << 44 | kind_and_id
}

impl Player {
    /// One that sends pairs.
    pub fn of_pairs(queue: Queue, in_capsule_bytes: u32) -> Self {
        Self::new(queue, in_capsule_bytes, Actor::Pairs(Stage::Idle))
    }

    /// One that writes.
    pub fn of_writes(queue: Queue, in_capsule_bytes: u32, options: &Fused) -> Self {
        let actor = Actor::Writes { next: 0, depth: usize::from(options.depth), pause: options.pause };
        Self::new(queue, in_capsule_bytes, actor)
    }

    fn new(queue: Queue, in_capsule_bytes: u32, actor: Actor) -> Self {
        Self { queue, in_capsule_bytes, actor, memory: Memory::default(), under_way: BTreeMap::new() }
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Takes what has come, and begins something where it `begins` anything at all; false when nothing has come.
    pub fn turn(&mut self, table: &mut Table, begins: bool) -> Result<bool> {
        let came = self.queue.exchange(&mut self.memory)?;
        while let Some(completed) = self.queue.host.take_completed() {
            let (at, _) = self.under_way.remove(&completed.token).context("an answer to nothing")?;
            let data = self.memory.0.remove(&completed.token).unwrap_or_default();
            table.ended += 1;
            let place = table.places.get_mut(at).context("a place")?;
            self.ended(place, &completed, &data, &mut table.random)?;
        }
        self.under_way.values().try_for_each(|(_, since)| patience(*since))?;
        if begins {
            self.begin(table)?;
        }
        if self.queue.host.has_output() {
            self.queue.exchange(&mut self.memory)?;
        }
        Ok(came)
    }

    fn ended(
        &mut self,
        place: &mut Place,
        completed: &Completed,
        data: &[u8],
        random: &mut Random,
    ) -> Result<()> {
        let (status, kind_and_id) = (completed.status.code(), completed.token & ((1 << 44) - 1));
        match &mut self.actor {
            Actor::Writes { .. } => {
                ensure!(status.is_success(), "a write ended with {status:?}");
                let ended = place.judge.write_ended(kind_and_id as u32);
                judged(place, ended)
            }
            Actor::Pairs(Stage::Reads(read)) => {
                let read = *read;
                ensure!(status.is_success(), "a read ended with {status:?}");
                let id = found(place, read, data)?;
                self.actor = Actor::Pairs(Stage::Fused([None; 2]));
                self.pair(place, read, id, random)
            }
            Actor::Pairs(Stage::Fused(statuses)) => {
                statuses[usize::from(kind_and_id & COMPARE == 0)] = Some(status.to_field());
                if let [Some(compare), Some(write)] = *statuses {
                    self.actor = Actor::Pairs(Stage::Idle);
                    let ended = place.judge.pair_ended((kind_and_id & !COMPARE) as u32, [compare, write]);
                    return judged(place, ended);
                }
                Ok(())
            }
            Actor::Pairs(Stage::Idle) => Err(anyhow!("an answer to nothing")),
        }
    }

    fn begin(&mut self, table: &mut Table) -> Result<()> {
        let Table { places, random, ended } = table;
        let at = random.below(places.len() as u64) as usize;
        let place = places.get_mut(at).context("a place")?;
        match &mut self.actor {
            Actor::Pairs(stage @ Stage::Idle) => {
                *stage = Stage::Reads(place.judge.read_begins());
                self.read(place)
            }
            Actor::Writes { next, depth, pause } if *ended >= *next && self.under_way.len() < *depth => {
                let after = if random.below(3) == 0 { 0 } else { random.below(*pause) };
                *next = *ended + after;
                let transfer = self.transfer(place, random);
                self.write(place, transfer)
            }
            _ => Ok(()),
        }
    }

    fn read(&mut self, place: &Place) -> Result<()> {
        let command = commands::read(place.namespace.nsid, place.start_block, place.blocks);
        self.submit(place, READ, command, Transfer::Receive(place.bytes() as u32), vec![0; place.bytes()])
    }

    fn write(&mut self, place: &mut Place, transfer: Transfer) -> Result<()> {
        let id = place.judge.write_begins();
        let data = contents(place.number, id, place.bytes());
        let command = commands::write(place.namespace.nsid, place.start_block, place.blocks);
        self.submit(place, u64::from(id), command, transfer, data)
    }

    fn pair(&mut self, place: &mut Place, read: Moment, expected: u32, random: &mut Random) -> Result<()> {
        let id = place.judge.pair_begins(read, expected);
        let transfer = self.transfer(place, random);
        let compare = commands::compare(place.namespace.nsid, place.start_block, place.blocks);
        let write = commands::write(place.namespace.nsid, place.start_block, place.blocks);
        let at = usize::from(place.number);
        let tokens = [u64::from(id) | COMPARE, u64::from(id)].map(|kind_and_id| token(at, kind_and_id));
        for (token, id) in tokens.into_iter().zip([expected, id]) {
            self.memory.0.insert(token, contents(place.number, id, place.bytes()));
            self.under_way.insert(token, (at, Instant::now()));
        }
        let pair =
            self.queue.host.submit_fused((tokens[0], &compare, transfer), (tokens[1], &write, transfer));
        pair.map_err(|error| anyhow!("{error:?}"))
    }

    /// With the command where that is possible, most of the time; else when the target asks.
    fn transfer(&self, place: &Place, random: &mut Random) -> Transfer {
        let bytes = place.bytes() as u32;
        if random.below(4) == 0 {
            Transfer::Send(bytes)
        } else {
            commands::send_transfer(bytes, self.in_capsule_bytes)
        }
    }

    fn submit(
        &mut self,
        place: &Place,
        kind_and_id: u64,
        command: Command,
        transfer: Transfer,
        data: Vec<u8>,
    ) -> Result<()> {
        let at = usize::from(place.number);
        let token = token(at, kind_and_id);
        self.memory.0.insert(token, data);
        self.under_way.insert(token, (at, Instant::now()));
        self.queue.host.submit(token, &command, transfer).map_err(|error| anyhow!("{error:?}"))
    }

    /// Writes the place once, while nothing else is under way.
    pub fn write_once(&mut self, place: &mut Place) -> Result<()> {
        self.write(place, Transfer::Send(place.bytes() as u32))?;
        let (completed, _) = self.wait()?;
        ensure!(completed.status.is_success(), "the first write ended with {:?}", completed.status);
        let ended = place.judge.write_ended((completed.token & u64::from(u32::MAX)) as u32);
        judged(place, ended)
    }

    /// Reads the place once, while nothing else is under way.
    pub fn read_once(&mut self, place: &mut Place) -> Result<()> {
        let read = place.judge.read_begins();
        self.read(place)?;
        let (completed, data) = self.wait()?;
        ensure!(completed.status.is_success(), "the last read ended with {:?}", completed.status);
        found(place, read, &data)?;
        place.judge.read_over(read);
        Ok(())
    }

    /// The end of the only command, and its data.
    fn wait(&mut self) -> Result<(Completed, Vec<u8>)> {
        let began = Instant::now();
        loop {
            self.queue.poll(&mut self.memory, Duration::from_millis(10))?;
            if let Some(completed) = self.queue.host.take_completed() {
                self.under_way.remove(&completed.token);
                return Ok((completed, self.memory.0.remove(&completed.token).unwrap_or_default()));
            }
            patience(began)?;
        }
    }
}

/// What a read has found, which the judge has to believe.
fn found(place: &mut Place, read: Moment, data: &[u8]) -> Result<u32> {
    let id = id_of(place.number, data).ok_or_else(|| "blocks of several writes, or of none".to_owned());
    let id = judged(place, id)?;
    let found = place.judge.read_found(read, id);
    judged(place, found)?;
    Ok(id)
}
