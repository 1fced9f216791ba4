//! What runs measured, for people and for programs.

use hdrhistogram::Histogram;
use nvmeof_host::{Stats, Target};
use serde::Serialize;

use super::Options;
use crate::output;

/// All runs, and what was asked for.
#[derive(Serialize)]
pub struct Report {
    target: String,
    nqn: String,
    nsid: u32,
    connections: u16,
    depth: u16,
    size_bytes: u32,
    read_percent: u8,
    sequential: bool,
    header_digest: bool,
    data_digest: bool,
    /// All that was read was compared with what was written.
    verified: bool,
    pub runs: Vec<Run>,
}

/// One run; reads or writes are missing where there were none.
#[derive(Serialize)]
pub struct Run {
    seconds: f64,
    all: Figures,
    read: Option<Figures>,
    write: Option<Figures>,
}

/// Of some commands. Latencies are in microseconds.
#[derive(Serialize)]
struct Figures {
    commands: u64,
    iops: f64,
    mib_per_s: f64,
    mean_us: f64,
    p50_us: f64,
    p90_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

impl Figures {
    fn new(latency: &Histogram<u64>, seconds: f64, command_bytes: u32) -> Self {
        let us = |quantile| latency.value_at_quantile(quantile) as f64 / 1000.0;
        let iops = latency.len() as f64 / seconds.max(f64::MIN_POSITIVE);
        Self {
            commands: latency.len(),
            iops,
            mib_per_s: iops * f64::from(command_bytes) / f64::from(1 << 20),
            mean_us: latency.mean() / 1000.0,
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: latency.max() as f64 / 1000.0,
        }
    }

    fn row(&self, run: String, what: &str) -> Vec<String> {
        let Self { iops, mib_per_s, .. } = self;
        let latencies = [self.mean_us, self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.max_us];
        let mut row = vec![run, what.to_owned(), format!("{iops:.0}"), format!("{mib_per_s:.1}")];
        row.extend(latencies.map(|us| format!("{us:.1}")));
        row
    }
}

impl Run {
    pub fn new(stats: &Stats, command_bytes: u32) -> Self {
        let seconds = stats.measured.as_secs_f64();
        let figures = |latency: &Histogram<u64>| Figures::new(latency, seconds, command_bytes);
        let some = |latency: &Histogram<u64>| (!latency.is_empty()).then(|| figures(latency));
        Self { seconds, all: figures(&stats.all()), read: some(&stats.reads), write: some(&stats.writes) }
    }
}

impl Report {
    pub fn new(options: &Options, target: &Target, nsid: u32) -> Self {
        Self {
            target: target.address.to_string(),
            nqn: target.nqn.clone(),
            nsid,
            connections: options.connections,
            depth: options.depth,
            size_bytes: options.size,
            read_percent: options.read_percent,
            sequential: options.sequential,
            header_digest: target.digests.header,
            data_digest: target.digests.data,
            verified: options.verify,
            runs: Vec::new(),
        }
    }

    pub fn show(&self, json: bool) -> String {
        if json {
            return output::json(self);
        }
        let heads =
            ["RUN", "", "IOPS", "MiB/s", "MEAN us", "p50 us", "p90 us", "p99 us", "p99.9 us", "MAX us"];
        let mut table = output::table(&heads, 2);
        for (number, run) in self.runs.iter().enumerate() {
            let number = (number + 1).to_string();
            let parts = [("read", &run.read), ("write", &run.write)];
            for (what, figures) in parts {
                table.add_rows(figures.as_ref().map(|figures| figures.row(number.clone(), what)));
            }
            if run.read.is_some() == run.write.is_some() {
                table.add_row(run.all.row(number, "all"));
            }
        }
        let Self { nsid, nqn, target, connections, depth, size_bytes, .. } = self;
        let order = if self.sequential { "sequential" } else { "random" };
        let verified = if self.verified { "\nall that was read is what was written" } else { "" };
        format!(
            "namespace {nsid} of {nqn} at {target}: {order}, {size_bytes} bytes, depth {depth} on each of {connections} \
             connections\n\n{table}{verified}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_max(100_000_000_000, 3).unwrap();
        values.iter().for_each(|value| histogram.saturating_record(*value));
        histogram
    }

    #[test]
    fn figures_are_of_the_time_that_was_measured() {
        let figures = Figures::new(&histogram(&[1_000_000, 3_000_000]), 0.5, 1 << 20);
        assert_eq!((figures.commands, figures.iops, figures.mib_per_s), (2, 4.0, 4.0));
        assert!((figures.mean_us - 2000.0).abs() < 2.0, "{}", figures.mean_us);
        assert!((figures.max_us - 3000.0).abs() < 3.0, "{}", figures.max_us);
    }

    #[test]
    fn nothing_measured_is_no_division_by_zero() {
        let figures = Figures::new(&histogram(&[]), 0.0, 4096);
        assert_eq!((figures.iops, figures.mean_us), (0.0, 0.0));
    }
}
