//! What data cores have counted, put together: commands to namespaces, and the layers above drives and ports.

use std::collections::BTreeMap;

use message::mailbox::{CoreAnswer, CoreCall};
use message::{CoreCounters, Histogram, MeterPlace, NamespaceMeter};
use serde::Serialize;

use crate::client::{Client, Failure};
use crate::output::{json, table};
use crate::survey::{data_cores, of_core};
use crate::views::{Drive, Port};

/// Meters of all cores, by subsystem and NSID.
pub type Meters = BTreeMap<(u8, u32), NamespaceMeter>;

/// Reads the meters of all cores.
pub fn meters(client: &mut Client) -> Result<Meters, Failure> {
    let mut meters = Meters::new();
    for core in data_cores(client)? {
        let mut first = MeterPlace::default();
        loop {
            let CoreAnswer::Meters(page) = of_core(client, core, CoreCall::Meters { first })? else {
                return Err(Failure::Nonsense);
            };
            let Some(page) = page else { break };
            // Places rise, or this would not end.
            if page.next <= first {
                return Err(Failure::Nonsense);
            }
            first = page.next;
            meters.entry((page.subsystem.0, page.nsid)).or_insert(NamespaceMeter::EMPTY).add(&page);
        }
    }
    Ok(meters)
}

/// The counters of each core, in the order of their numbers.
pub fn counters(client: &mut Client) -> Result<Vec<CoreCounters>, Failure> {
    let cores = data_cores(client)?;
    let of = |core| match of_core(client, core, CoreCall::Counters)? {
        CoreAnswer::Counters(counters) => Ok(counters),
        _ => Err(Failure::Nonsense),
    };
    cores.map(of).collect()
}

/// All that the card has counted.
#[derive(Serialize)]
pub struct Counters {
    pub namespaces: Vec<NamespaceView>,
    /// In the order of the data cores.
    pub data_cores: Vec<CoreCounters>,
    pub drives: Vec<Drive>,
    pub ports: Vec<Port>,
}

/// A namespace's meter as it is shown. Latencies are from the capsule to the response.
#[derive(Debug, Serialize)]
pub struct NamespaceView {
    /// Place of its subsystem.
    pub subsystem: u8,
    pub nsid: u32,
    pub reads: u64,
    pub writes: u64,
    pub other_commands: u64,
    pub errors: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub read_latency: Latency,
    pub write_latency: Latency,
}

/// Percentiles of a histogram in microseconds; `None` where nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    pub mean_us: Option<u64>,
    pub p50_us: Option<u64>,
    pub p99_us: Option<u64>,
    pub p999_us: Option<u64>,
}

impl Latency {
    pub fn of(histogram: &Histogram) -> Self {
        Self {
            mean_us: histogram.mean_us(),
            p50_us: histogram.percentile(500),
            p99_us: histogram.percentile(990),
            p999_us: histogram.percentile(999),
        }
    }
}

impl NamespaceView {
    pub fn of((subsystem, nsid): (u8, u32), meter: &NamespaceMeter) -> Self {
        Self {
            subsystem,
            nsid,
            reads: meter.reads.count(),
            writes: meter.writes.count(),
            other_commands: meter.totals.others,
            errors: meter.totals.errors,
            read_bytes: meter.totals.read_bytes,
            written_bytes: meter.totals.written_bytes,
            read_latency: Latency::of(&meter.reads),
            write_latency: Latency::of(&meter.writes),
        }
    }
}

/// Two tables: namespaces, and what each data core has counted, a line for each counter.
pub fn show(counters: &Counters, as_json: bool) -> String {
    if as_json {
        return json(counters);
    }
    let heads = [
        "SUBSYSTEM",
        "NSID",
        "READS",
        "READ BYTES",
        "MEAN",
        "P50",
        "P99",
        "P99.9",
        "WRITES",
        "WRITTEN BYTES",
        "MEAN",
        "P50",
        "P99",
        "P99.9",
        "OTHERS",
        "ERRORS",
    ];
    let mut namespaces = table(&heads, 0);
    for view in &counters.namespaces {
        let mut row = vec![view.subsystem.to_string(), view.nsid.to_string()];
        let halves = [
            (view.reads, view.read_bytes, view.read_latency),
            (view.writes, view.written_bytes, view.write_latency),
        ];
        for (count, bytes, latency) in halves {
            row.extend([count.to_string(), bytes.to_string()]);
            let Latency { mean_us, p50_us, p99_us, p999_us } = latency;
            row.extend([mean_us, p50_us, p99_us, p999_us].map(duration));
        }
        row.extend([view.other_commands.to_string(), view.errors.to_string()]);
        namespaces.add_row(row);
    }
    let cores: Vec<_> = counters.data_cores.iter().map(fields).collect();
    let names = (0..cores.len()).map(|core| format!("DATA CORE {core}"));
    let heads: Vec<String> = std::iter::once("COUNTER".to_owned()).chain(names).collect();
    let mut layers = table(&heads.iter().map(String::as_str).collect::<Vec<_>>(), 1);
    for (place, (name, _)) in cores.first().into_iter().flatten().enumerate() {
        let values = cores.iter().map(|fields| fields.get(place).map_or(0, |(_, value)| *value).to_string());
        layers.add_row(std::iter::once(name.clone()).chain(values));
    }
    format!("{namespaces}\n\n{layers}\n\nof drives and ports: `dpuctl drives`, `dpuctl ports`")
}

/// Each counter with its name, layer first.
pub fn fields(counters: &CoreCounters) -> Vec<(String, u64)> {
    let mut fields = Vec::new();
    let value = serde_json::to_value(counters).unwrap_or_default();
    for (layer, of_layer) in value.as_object().into_iter().flatten() {
        for (name, value) in of_layer.as_object().into_iter().flatten() {
            fields.push((format!("{layer}.{name}"), value.as_u64().unwrap_or(0)));
        }
    }
    fields
}

/// In a unit that keeps it short.
pub fn duration(us: Option<u64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(us @ 0..10_000) => format!("{us} us"),
        Some(us @ 10_000..10_000_000) => format!("{:.1} ms", us as f64 / 1e3),
        Some(us) => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_lines_and_objects() {
        let mut meter = NamespaceMeter::EMPTY;
        meter.reads.note(100);
        meter.totals.read_bytes = 4096;
        let mut core = CoreCounters::default();
        core.connections.commands = 17;
        let all = Counters {
            namespaces: vec![NamespaceView::of((1, 9), &meter)],
            data_cores: vec![CoreCounters::default(), core],
            drives: Vec::new(),
            ports: Vec::new(),
        };
        let text = show(&all, false);
        let line = |with: &str| {
            let line = text.lines().find(|line| line.contains(with)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(line(" 4096 "), "1 9 1 4096 100 us 112 us 112 us 112 us 0 0 - - - - 0 0");
        assert_eq!(line("connections.commands"), "connections.commands 0 17");
        let value: serde_json::Value = serde_json::from_str(&show(&all, true)).unwrap();
        assert_eq!(value["namespaces"][0]["read_latency"]["p99_us"], 112);
        assert_eq!(value["data_cores"][1]["connections"]["commands"], 17);
    }

    #[test]
    fn durations_are_short() {
        let told = [None, Some(9_999), Some(10_000), Some(9_999_999), Some(28_000_000)].map(duration);
        assert_eq!(told, ["-", "9999 us", "10.0 ms", "10000.0 ms", "28.0 s"]);
    }
}
