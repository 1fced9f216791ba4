//! `check`: what was written reads back, with commands of many sizes, several queues, and others under way.

use crate::arguments::{Check, Load, Target};
use crate::association::{Association, Queue};
use crate::load::{Limit, Pattern, Worker, phase, queues, workers};
use anyhow::{Context, Result};

/// Bytes of the commands: in the capsule, just beyond it, several pages and data PDUs, the largest.
const SIZES: [u32; 6] = [4096, 8192, 12_288, 65_536, 262_144, 1 << 20];

/// Runs all sizes.
pub fn run(target: &Target, options: &Check) -> Result<()> {
    let mut association = Association::open(target, options.queues)?;
    let block_bytes = 1 << association.namespace()?.block_shift;
    let most = association.info.max_transfer_bytes;
    let mut sizes: Vec<u32> = SIZES.into_iter().filter(|bytes| *bytes <= most).collect();
    if block_bytes < SIZES[0] {
        sizes.insert(0, block_bytes);
    }
    let mut queues = queues(&association, options.queues, options.depth)?;
    for bytes in sizes {
        queues = one_size(&mut association, queues, options, bytes)
            .with_context(|| format!("commands of {bytes} bytes"))?;
    }
    Ok(())
}

fn one_size(
    association: &mut Association,
    queues: Vec<Queue>,
    options: &Check,
    bytes: u32,
) -> Result<Vec<Queue>> {
    // Small commands need no large area; all that are under way need two places each.
    let under_way_bytes = u64::from(bytes) * u64::from(options.depth) * u64::from(options.queues);
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let load = Load {
        queues: options.queues,
        depth: options.depth,
        bytes,
        reads: 50,
        sequential: false,
        verify: true,
        area_mib: mib(4 * under_way_bytes).min(options.area_mib).max(mib(2 * under_way_bytes)),
        seconds: 0.0,
        warm_up: 0.0,
        runs: 1,
        // A seed of its own for each size: what the one before has left does not pass for this one's.
        seed: options.seed ^ u64::from(bytes) << 32,
        json: false,
    };
    let mut workers = workers(association, queues, &load)?;
    let phases = [
        (Pattern::WriteEach, u64::MAX, "writing"),
        (Pattern::Mix { reads: 50, sequential: false }, options.commands, "reading and writing"),
        (Pattern::ReadEach, u64::MAX, "reading all"),
    ];
    let mut commands = 0;
    for (pattern, limit, label) in phases {
        commands += phase(association, &mut workers, pattern, Limit::Commands(limit), label)?.commands;
    }
    println!("{bytes:8} bytes: {commands} commands, data as expected");
    Ok(workers.into_iter().map(Worker::into_queue).collect())
}
