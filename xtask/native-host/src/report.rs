//! What a run measured, for people and for programs.

use crate::arguments::Load;
use crate::load::Stats;
use serde::Serialize;

/// One run. Latencies are in microseconds.
#[derive(Serialize)]
pub struct Run {
    pub queues: u16,
    pub depth: u16,
    pub bytes: u32,
    pub reads: u8,
    pub digests: bool,
    pub verify: bool,
    pub iops: f64,
    pub mib_per_s: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p999_us: f64,
    pub max_us: f64,
}

impl Run {
    pub fn new(options: &Load, digests: bool, stats: &Stats) -> Self {
        let us = |quantile| stats.latency.value_at_quantile(quantile) as f64 / 1000.0;
        let iops = stats.commands as f64 / options.seconds.max(f64::MIN_POSITIVE);
        Self {
            queues: options.queues,
            depth: options.depth,
            bytes: options.bytes,
            reads: options.reads,
            digests,
            verify: options.verify,
            iops,
            mib_per_s: iops * f64::from(options.bytes) / f64::from(1 << 20),
            mean_us: stats.latency.mean() / 1000.0,
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: stats.latency.max() as f64 / 1000.0,
        }
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { iops, mib_per_s, mean_us, p50_us, p90_us, p99_us, p999_us, max_us, .. } = self;
        write!(
            to,
            "{iops:9.0} IOPS {mib_per_s:8.1} MiB/s   mean {mean_us:.1} us   p50 {p50_us:.1}   p90 {p90_us:.1}   \
             p99 {p99_us:.1}   p99.9 {p999_us:.1}   max {max_us:.1}"
        )
    }
}
