//! `check`: what was written reads back, with commands of many sizes, several queues, and others under way.

use crate::arguments::Check;
use anyhow::{Context, Result};
use nvmeof::initiator::NamespaceInfo;
use nvmeof_host::{Area, Association, Limit, Pattern, Queue, Target, Worker, phase, queues, workers};

/// Bytes of the commands: in the capsule, just beyond it, several pages and data PDUs, the largest.
const SIZES: [u32; 6] = [4096, 8192, 12_288, 65_536, 262_144, 1 << 20];

/// Runs all sizes.
pub fn run(target: &Target, nsid: Option<u32>, options: &Check) -> Result<()> {
    let mut association = Association::open(target, options.queues)?;
    let namespace = association.namespace(nsid)?;
    let block_bytes = 1 << namespace.block_shift;
    let most = association.info.max_transfer_bytes;
    let mut sizes: Vec<u32> = SIZES.into_iter().filter(|bytes| *bytes <= most).collect();
    if block_bytes < SIZES[0] {
        sizes.insert(0, block_bytes);
    }
    let mut queues = queues(&association, options.queues, options.depth)?;
    for bytes in sizes {
        queues = one_size(&mut association, &namespace, queues, options, bytes)
            .with_context(|| format!("commands of {bytes} bytes"))?;
    }
    Ok(())
}

fn one_size(
    association: &mut Association,
    namespace: &NamespaceInfo,
    queues: Vec<Queue>,
    options: &Check,
    bytes: u32,
) -> Result<Vec<Queue>> {
    // Small commands need no large area; all that are under way need two places each.
    let under_way_bytes = u64::from(bytes) * u64::from(options.depth) * u64::from(options.queues);
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let area = Area {
        bytes: mib(4 * under_way_bytes).min(options.area_mib).max(mib(2 * under_way_bytes)) << 20,
        command_bytes: bytes,
        depth: options.depth,
        verify: true,
        // A seed of its own for each size: what the one before has left does not pass for this one's.
        seed: options.seed ^ u64::from(bytes) << 32,
    };
    let mut workers = workers(association, namespace, queues, &area)?;
    let phases = [
        (Pattern::WriteEach, u64::MAX, "writing"),
        (Pattern::Mix { reads: 50, sequential: false }, options.commands, "reading and writing"),
        (Pattern::ReadEach, u64::MAX, "reading all"),
    ];
    let mut commands = 0;
    for (pattern, limit, label) in phases {
        commands += phase(association, &mut workers, pattern, Limit::Commands(limit), label)?.all().len();
    }
    println!("{bytes:8} bytes: {commands} commands, data as expected");
    Ok(workers.into_iter().map(Worker::into_queue).collect())
}
