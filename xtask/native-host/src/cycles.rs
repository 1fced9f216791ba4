//! `cycles`: many controllers at once connect, have commands under way, and are gone without a word, again and again.

use crate::arguments::Cycles;
use anyhow::{Context, Result, anyhow};
use nvmeof::initiator::{NamespaceInfo, Payload, Transfer, commands};
use nvmeof_host::{Association, Queue, Random, Target, queues};
use std::thread::{ScopedJoinHandle, scope};
use std::time::{Duration, Instant};

/// Longer than a cycle takes: nobody is to be forgotten while it waits for the others.
const KEEP_ALIVE: Duration = Duration::from_secs(300);
/// Bytes of the commands: in the capsule, and by R2T.
const SIZES: [u32; 2] = [4096, 65_536];
/// For how long commands go on before their host is gone, at most.
const WORK_MS: u64 = 40;

/// Data that nobody looks at.
struct Whatever;

impl Payload for Whatever {
    fn store(&mut self, _: u64, _: u32, _: &[u8]) {}

    fn load(&mut self, token: u64, _: u32, room: &mut [u8]) {
        room.fill(token as u8);
    }
}

/// A controller with its I/O queues.
struct Visit {
    association: Association,
    queues: Vec<Queue>,
    random: Random,
}

/// Runs all cycles. In each, every controller is there before the first is gone.
pub fn run(target: &Target, options: &Cycles) -> Result<()> {
    let began = Instant::now();
    let (mut connections, mut broken_off) = (0, 0);
    for cycle in 0..options.cycles {
        // One after the other: QEMU's own network keeps hardly more than one that waits to be let in.
        let visits = (0..options.controllers).map(|number| {
            let seed = options.seed ^ (u64::from(cycle) << 32) ^ u64::from(number);
            Visit::begin(target, options, number, Random(seed))
        });
        let visits = visits.collect::<Result<Vec<_>>>().with_context(|| format!("cycle {cycle}"))?;
        connections += visits.iter().map(|visit| 1 + visit.queues.len()).sum::<usize>();
        let left = together(visits, |visit| visit.break_off(options.depth));
        broken_off += left.with_context(|| format!("cycle {cycle}"))?.iter().sum::<usize>();
    }
    println!(
        "{} controllers, {} times: {connections} connections, {broken_off} commands broken off, {:.1} s",
        options.controllers,
        options.cycles,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Does it for each of `items`, all at once.
fn together<I: Send, O: Send>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> Result<O> + Sync,
) -> Result<Vec<O>> {
    let work = &work;
    scope(|scope| {
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        let join = |thread: ScopedJoinHandle<'_, Result<O>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
        };
        threads.into_iter().map(join).collect()
    })
}

impl Visit {
    fn begin(target: &Target, options: &Cycles, number: u32, random: Random) -> Result<Self> {
        let target = Target { host: target.host.numbered(number), ..target.clone() };
        let association = Association::open_for(&target, options.queues, KEEP_ALIVE)
            .with_context(|| format!("controller of host {number}"))?;
        let queues = queues(&association, options.queues, options.depth);
        let queues = queues.with_context(|| format!("queues of host {number}"))?;
        Ok(Self { association, queues, random })
    }

    /// Fills the queues, goes on for a moment, and closes all connections. Returns how many commands were under way.
    fn break_off(mut self, depth: u16) -> Result<usize> {
        let namespaces = self.association.info.namespaces.clone();
        for queue in &mut self.queues {
            for token in 0..u64::from(depth) {
                let at = self.random.next_number() as usize % namespaces.len().max(1);
                let namespace = namespaces.get(at).context("the subsystem has no namespace")?;
                let in_capsule_bytes = self.association.info.in_capsule_bytes;
                submit(queue, namespace, in_capsule_bytes, token, self.random.next_number())?;
            }
        }
        let until = Instant::now() + Duration::from_millis(self.random.next_number() % WORK_MS);
        let mut under_way = self.queues.len() * usize::from(depth);
        while Instant::now() < until && under_way > 0 {
            for queue in &mut self.queues {
                queue.poll(&mut Whatever, Duration::from_millis(1))?;
                while queue.host.take_completed().is_some() {
                    under_way -= 1;
                }
            }
        }
        Ok(under_way)
    }
}

fn submit(
    queue: &mut Queue,
    namespace: &NamespaceInfo,
    in_capsule_bytes: u32,
    token: u64,
    random: u64,
) -> Result<()> {
    let bytes = SIZES[random as usize % SIZES.len()];
    let blocks = bytes >> namespace.block_shift;
    let places = namespace.blocks / u64::from(blocks);
    let start_block = (random >> 8) % places.max(1) * u64::from(blocks);
    let (command, transfer) = if random & 2 == 0 {
        (commands::read(namespace.nsid, start_block, blocks), Transfer::Receive(bytes))
    } else {
        let transfer = commands::send_transfer(bytes, in_capsule_bytes);
        (commands::write(namespace.nsid, start_block, blocks), transfer)
    };
    queue.host.submit(token, &command, transfer).map_err(|error| anyhow!("{error:?}"))
}
