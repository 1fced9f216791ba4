//! `dpuctl exporter`: the card's counters for Prometheus, in its text format 0.0.4.
//!
//! Each scrape asks the card anew and lets go of its line afterwards, so that other tools have their turn between two scrapes.

use std::fmt::{Display, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use message::Histogram;
use message::mailbox::{Core, Status};
use tiny_http::{Header, Method, Response, Server};

use crate::client::{Client, Failure};
use crate::meters::{self, Meters};
use crate::survey;
use crate::views::{Drive, Port};

/// Serve the card's counters to Prometheus at /metrics, until interrupted
#[derive(Args, Debug)]
pub struct Options {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9437")]
    listen: SocketAddr,
}

/// Serves scrapes for ever.
pub fn run(options: &Options, card: &Path, timeout: Duration) -> Result<String, Failure> {
    let listen = options.listen;
    let server = Server::http(listen).map_err(|error| {
        Failure::Usage(format!("cannot listen at {listen}: {error}; choose another with --listen"))
    })?;
    eprintln!("http://{}/metrics", server.server_addr());
    for request in server.incoming_requests() {
        let path = request.url().split('?').next().unwrap_or_default();
        let (code, text) = match (request.method(), path) {
            (Method::Get, "/metrics") => match scrape(card, timeout) {
                Ok(text) => (200, text),
                Err(failure) => (503, format!("{failure}\n")),
            },
            (Method::Get, _) => (404, "the metrics are at /metrics\n".to_owned()),
            _ => (405, "only GET\n".to_owned()),
        };
        let kind = Header::from_bytes("Content-Type", "text/plain; version=0.0.4; charset=utf-8");
        let response = Response::from_string(text).with_status_code(code);
        // Who asked may have gone.
        let _ = request.respond(kind.into_iter().fold(response, Response::with_header));
    }
    Ok(String::new())
}

fn scrape(card: &Path, timeout: Duration) -> Result<String, Failure> {
    let mut client = Client::connect(card, timeout)?;
    let mut page = Page(String::new());
    page.card(&survey::status(&mut client)?, &survey::cores(&mut client)?);
    page.namespaces(&meters::meters(&mut client)?);
    page.drives(&survey::drives(&mut client)?);
    page.ports(&survey::ports(&mut client)?);
    let data_cores = meters::counters(&mut client)?;
    let fields: Vec<_> = data_cores.iter().map(meters::fields).collect();
    page.layers(&fields);
    Ok(page.0)
}

/// A page of metrics.
struct Page(String);

impl Page {
    /// A metric with a value for each label; counters end in `_total`.
    fn metric<V: Display>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (String, V)>) {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        self.head(name, help, kind);
        for (labels, value) in values {
            let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
            let _ = writeln!(self.0, "penstock_{name}{labels} {value}");
        }
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP penstock_{name} {help}\n# TYPE penstock_{name} {kind}");
    }

    fn card(&mut self, status: &Status, cores: &[Core]) {
        let labels = format!("version=\"{}\",board=\"{}\"", escaped(&status.version), escaped(&status.board));
        self.metric("info", "The card's firmware.", [(labels, 1)]);
        self.metric(
            "uptime_seconds",
            "Time since the card started.",
            [(String::new(), seconds(status.uptime_us))],
        );
        self.metric("crashes", "Crashes since power-on.", [(String::new(), status.crashes)]);
        let of = |value: fn(&Core) -> u64| {
            cores.iter().map(move |core| (format!("core=\"{}\"", core.number), value(core)))
        };
        self.metric("core_productive_turns_total", "Turns with work.", of(|core| core.productive_turns));
        self.metric("core_empty_turns_total", "Turns without work.", of(|core| core.empty_turns));
        self.metric("core_sleeps_total", "How often a core slept.", of(|core| core.sleeps));
        let in_seconds = |value: fn(&Core) -> u64| of(value).map(|(labels, us)| (labels, seconds(us)));
        self.metric("core_asleep_seconds_total", "Time asleep.", in_seconds(|core| core.asleep_us));
        let longest = in_seconds(|core| u64::from(core.longest_turn_us));
        self.metric("core_longest_turn_seconds", "The longest turn.", longest);
    }

    fn namespaces(&mut self, meters: &Meters) {
        let labels = |(subsystem, nsid): &(u8, u32)| format!("subsystem=\"{subsystem}\",nsid=\"{nsid}\"");
        let totals = |value: fn(&message::NamespaceTotals) -> u64| {
            meters.iter().map(move |(name, meter)| (labels(name), value(&meter.totals)))
        };
        self.metric("namespace_read_bytes_total", "Bytes read.", totals(|of| of.read_bytes));
        self.metric("namespace_written_bytes_total", "Bytes written.", totals(|of| of.written_bytes));
        self.metric("namespace_other_commands_total", "Neither reads nor writes.", totals(|of| of.others));
        self.metric("namespace_errors_total", "Commands that failed.", totals(|of| of.errors));
        let all = || meters.iter().map(|(name, meter)| (labels(name), meter));
        self.histogram(
            "namespace_read_seconds",
            "Reads, from capsule to response.",
            all().map(|(of, meter)| (of, &meter.reads)),
        );
        self.histogram(
            "namespace_write_seconds",
            "Writes, from capsule to response.",
            all().map(|(of, meter)| (of, &meter.writes)),
        );
    }

    /// Histograms by powers of two: Prometheus keeps a series for each bucket.
    fn histogram<'a>(&mut self, name: &str, help: &str, all: impl Iterator<Item = (String, &'a Histogram)>) {
        self.head(name, help, "histogram");
        for (labels, histogram) in all {
            let mut below = 0;
            for (bound_us, count) in histogram.buckets() {
                below += count;
                if let Some(bound_us) = bound_us.filter(|bound_us| bound_us.is_power_of_two()) {
                    let _ = writeln!(
                        self.0,
                        "penstock_{name}_bucket{{{labels},le=\"{}\"}} {below}",
                        seconds(bound_us)
                    );
                }
            }
            let _ = writeln!(self.0, "penstock_{name}_bucket{{{labels},le=\"+Inf\"}} {below}");
            let _ = writeln!(self.0, "penstock_{name}_sum{{{labels}}} {}", seconds(histogram.sum_us()));
            let _ = writeln!(self.0, "penstock_{name}_count{{{labels}}} {below}");
        }
    }

    fn drives(&mut self, drives: &[Drive]) {
        let labels =
            |drive: &Drive| format!("drive=\"{}\",serial=\"{}\"", drive.number, escaped(&drive.serial));
        let of = |value: fn(&Drive) -> u64| drives.iter().map(move |drive| (labels(drive), value(drive)));
        self.metric(
            "drive_ready",
            "Whether it carries out commands.",
            of(|drive| u64::from(drive.state == "ready")),
        );
        self.metric(
            "drive_outstanding_requests",
            "Requests of hosts at the drive.",
            of(|drive| u64::from(drive.outstanding)),
        );
        let known = drives.iter().filter_map(|drive| Some((labels(drive), drive.health?.temperature_k)));
        let known =
            known.filter(|(_, kelvin)| *kelvin > 0).map(|(labels, kelvin)| (labels, i32::from(kelvin) - 273));
        self.metric("drive_temperature_celsius", "From its SMART log.", known);
        self.metric("drive_commands_total", "I/O commands.", of(|drive| drive.counters.commands));
        self.metric("drive_errors_total", "I/O commands and requests that failed.", of(Drive::errors));
        self.metric(
            "drive_command_timeouts_total",
            "Commands that were late.",
            of(|drive| drive.counters.command_timeouts),
        );
        self.metric(
            "drive_aborted_commands_total",
            "Late commands that an Abort ended.",
            of(|drive| drive.counters.aborted),
        );
        self.metric("drive_resets_total", "Controller resets.", of(|drive| drive.counters.resets));
        self.metric(
            "drive_failures_total",
            "Times that it became unusable.",
            of(|drive| drive.counters.failures),
        );
    }

    fn ports(&mut self, ports: &[Port]) {
        let of = |value: fn(&Port) -> u64| {
            ports.iter().map(move |port| (format!("port=\"{}\"", port.number), value(port)))
        };
        self.metric("port_link_up", "Whether the link is up.", of(|port| u64::from(port.link == "up")));
        self.metric(
            "port_received_frames_total",
            "Frames received.",
            of(|port| port.counters.received_frames),
        );
        self.metric("port_sent_frames_total", "Frames sent.", of(|port| port.counters.sent_frames));
        self.metric(
            "port_dropped_frames_total",
            "Frames for other cores that were dropped.",
            of(|port| port.counters.dropped_frames),
        );
        self.metric(
            "port_accepted_connections_total",
            "TCP connections.",
            of(|port| port.counters.accepted_connections),
        );
        self.metric(
            "port_refused_connections_total",
            "Those refused for want of a socket.",
            of(|port| port.counters.refused_connections),
        );
    }

    /// What each data core has counted, by layer; names come from the mailbox.
    fn layers(&mut self, cores: &[Vec<(String, u64)>]) {
        for (place, (field, _)) in cores.first().into_iter().flatten().enumerate() {
            let is_level = field == "controllers.live"
                || field == "mesh.deepest_backlog"
                || (field.starts_with("pools.") && field != "pools.copied_bytes");
            let name = format!("{}{}", field.replace('.', "_"), if is_level { "" } else { "_total" });
            let values = (0..)
                .zip(cores)
                .filter_map(|(core, fields)| Some((format!("data_core=\"{core}\""), fields.get(place)?.1)));
            self.metric(&name, &format!("{field} of a data core."), values.collect::<Vec<(String, u64)>>());
        }
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// As a label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use message::NamespaceMeter;

    use super::*;

    #[test]
    fn a_histogram_counts_up_to_each_bound_and_ends_with_all() {
        let mut meter = NamespaceMeter::EMPTY;
        [3, 100, 100, 5_000_000, u64::from(u32::MAX)].iter().for_each(|us| meter.reads.note(*us));
        let mut page = Page(String::new());
        page.namespaces(&Meters::from([((1, 7), meter)]));
        let line = |line: &str| assert!(page.0.lines().any(|other| other == line), "{line}: {}", page.0);
        line("# TYPE penstock_namespace_read_seconds histogram");
        line("penstock_namespace_read_seconds_bucket{subsystem=\"1\",nsid=\"7\",le=\"0.000004\"} 1");
        line("penstock_namespace_read_seconds_bucket{subsystem=\"1\",nsid=\"7\",le=\"0.000128\"} 3");
        line("penstock_namespace_read_seconds_bucket{subsystem=\"1\",nsid=\"7\",le=\"+Inf\"} 5");
        line("penstock_namespace_read_seconds_count{subsystem=\"1\",nsid=\"7\"} 5");
    }

    #[test]
    fn levels_are_gauges_and_events_counters() {
        let fields =
            |value| [("connections.opened".to_owned(), value), ("pools.free_pages".to_owned(), 9)].to_vec();
        let mut page = Page(String::new());
        page.layers(&[fields(3), fields(4)]);
        assert!(page.0.contains("# TYPE penstock_connections_opened_total counter\n"), "{}", page.0);
        assert!(page.0.contains("penstock_connections_opened_total{data_core=\"1\"} 4\n"), "{}", page.0);
        assert!(page.0.contains("# TYPE penstock_pools_free_pages gauge\n"), "{}", page.0);
        assert_eq!(escaped("a\"b\\"), "a\\\"b\\\\");
    }
}
