//! `dpuctl trace`: what became of single commands, and when they were where.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use message::mailbox::{CoreAnswer, CoreCall};
use message::{CommandTrace, Stages, TraceEnd, TraceLog, TraceSettings};
use nvme::Status;
use nvme::opcode::{self, admin, io};
use serde::Serialize;

use crate::client::{Client, Failure};
use crate::output::{json, table};
use crate::survey::{data_cores, of_core};

/// Between two looks of `--follow`.
const PERIOD: Duration = Duration::from_millis(500);

/// Commands that the card remembers: when they were where, and what they waited for
///
/// All times are in microseconds since the command's capsule was there, by the clock of the data core's turns.
#[derive(Args, Debug)]
pub struct Options {
    /// Show slow commands instead of samples
    #[arg(long)]
    slow: bool,
    /// Go on with those that come, until interrupted; with --json a line for each
    #[arg(long)]
    follow: bool,
    /// From now on remember one command in so many as a sample; 0 for none
    #[arg(long, value_name = "COMMANDS")]
    sample_one_in: Option<u32>,
    /// From now on remember commands as slow that take longer, in milliseconds
    #[arg(long, value_name = "MS", value_parser = microseconds)]
    slow_after: Option<u32>,
}

fn microseconds(text: &str) -> Result<u32, String> {
    let millis: f64 = text.parse().map_err(|_| "not a number of milliseconds".to_owned())?;
    let micros = millis * 1000.0;
    if (0.0..=f64::from(u32::MAX)).contains(&micros) {
        Ok(micros as u32)
    } else {
        Err("out of range".to_owned())
    }
}

/// A command, and the core that it was on.
#[derive(Debug, Serialize)]
pub struct Trace {
    data_core: u8,
    sequence: u64,
    cntlid: u16,
    queue_id: u16,
    cid: u16,
    opcode: u8,
    command: &'static str,
    nsid: u32,
    first_block: u64,
    blocks: u32,
    #[serde(flatten)]
    stages: Stages,
    /// None where its connection had gone.
    status: Option<String>,
    waited_for: Vec<&'static str>,
}

impl Trace {
    fn of(trace: &CommandTrace, data_core: u8) -> Self {
        Self {
            data_core,
            sequence: trace.sequence,
            cntlid: trace.controller,
            queue_id: trace.queue,
            cid: trace.cid,
            opcode: trace.opcode,
            command: command(trace.queue, trace.opcode),
            nsid: trace.nsid,
            first_block: trace.first_block,
            blocks: trace.blocks,
            stages: trace.stages,
            status: match trace.end {
                TraceEnd::Answered { status } => Some(Status::from_field(status).name().to_lowercase()),
                TraceEnd::ConnectionLost => None,
            },
            waited_for: trace.waits.names().collect(),
        }
    }
}

fn command(queue: u16, code: u8) -> &'static str {
    match (queue, code) {
        (_, opcode::FABRICS) => "fabrics",
        (0, admin::GET_LOG_PAGE) => "get log page",
        (0, admin::IDENTIFY) => "identify",
        (0, admin::ABORT) => "abort",
        (0, admin::SET_FEATURES) => "set features",
        (0, admin::GET_FEATURES) => "get features",
        (0, admin::KEEP_ALIVE) => "keep alive",
        (0, _) => "other",
        (_, io::FLUSH) => "flush",
        (_, io::WRITE) => "write",
        (_, io::READ) => "read",
        (_, io::WRITE_UNCORRECTABLE) => "write uncorrectable",
        (_, io::COMPARE) => "compare",
        (_, io::WRITE_ZEROES) => "write zeroes",
        (_, io::DATASET_MANAGEMENT) => "dataset management",
        (_, io::VERIFY) => "verify",
        (_, io::COPY) => "copy",
        _ => "other",
    }
}

/// Carries out the command; gives what is to be printed.
pub fn run(options: &Options, client: &mut Client, as_json: bool) -> Result<String, Failure> {
    if options.sample_one_in.is_some() || options.slow_after.is_some() {
        let settings = set(options, client)?;
        return Ok(if as_json { json(&settings) } else { sentence(&settings) });
    }
    let log = if options.slow { TraceLog::Slow } else { TraceLog::Sampled };
    let cores = data_cores(client)?;
    let mut reader = Reader { log, next: vec![0; cores.len()], missed: 0 };
    if options.follow {
        return follow(&mut reader, client, as_json);
    }
    let traces = reader.read(client)?;
    if as_json {
        return Ok(json(&traces));
    }
    let settings = settings(client, 0, None)?;
    Ok(format!("{}\n{}", rows(&traces, true), sentence(&settings)))
}

fn set(options: &Options, client: &mut Client) -> Result<TraceSettings, Failure> {
    let mut wanted = settings(client, 0, None)?;
    wanted.sample_one_in = options.sample_one_in.unwrap_or(wanted.sample_one_in);
    wanted.slow_us = options.slow_after.unwrap_or(wanted.slow_us);
    for core in data_cores(client)? {
        settings(client, core, Some(wanted))?;
    }
    Ok(wanted)
}

fn settings(client: &mut Client, core: u8, set: Option<TraceSettings>) -> Result<TraceSettings, Failure> {
    match of_core(client, core, CoreCall::TraceSettings { set })? {
        CoreAnswer::TraceSettings(settings) => Ok(settings),
        _ => Err(Failure::Nonsense),
    }
}

fn sentence(settings: &TraceSettings) -> String {
    let slow = f64::from(settings.slow_us) / 1e3;
    match settings.sample_one_in {
        0 => format!("no samples; commands are slow from {slow} ms on"),
        one_in => format!("one command in {one_in} is a sample; commands are slow from {slow} ms on"),
    }
}

/// What was read of a log of each core.
struct Reader {
    log: TraceLog,
    next: Vec<u64>,
    missed: u64,
}

impl Reader {
    /// What has come since the last call, in order of time.
    fn read(&mut self, client: &mut Client) -> Result<Vec<Trace>, Failure> {
        let mut traces = Vec::new();
        let log = self.log;
        for (core, next) in (0u8..).zip(&mut self.next) {
            loop {
                let CoreAnswer::Traces(page) = of_core(client, core, CoreCall::Traces { log, first: *next })?
                else {
                    return Err(Failure::Nonsense);
                };
                self.missed += if *next == 0 { 0 } else { page.missed };
                *next = page.next;
                if page.traces.is_empty() {
                    break;
                }
                traces.extend(page.traces.iter().map(|trace| Trace::of(trace, core)));
            }
        }
        traces.sort_by_key(|trace| trace.stages.received_us + u64::from(trace.stages.ended_us));
        Ok(traces)
    }
}

/// Prints what comes until the card, or the reader, goes.
fn follow(reader: &mut Reader, client: &mut Client, as_json: bool) -> Result<String, Failure> {
    let mut heads = true;
    loop {
        let missed = reader.missed;
        let traces = reader.read(client)?;
        let mut out = std::io::stdout().lock();
        let written = if as_json {
            let line = |trace: &Trace| serde_json::to_string(trace).unwrap_or_default() + "\n";
            out.write_all(traces.iter().map(line).collect::<String>().as_bytes())
        } else if traces.is_empty() && !heads {
            Ok(())
        } else {
            writeln!(out, "{}", rows(&traces, core::mem::take(&mut heads)))
        };
        if written.and_then(|()| out.flush()).is_err() {
            return Ok(String::new());
        }
        if reader.missed > missed {
            eprintln!("{} commands came and went between two looks", reader.missed - missed);
        }
        std::thread::sleep(PERIOD);
    }
}

fn rows(traces: &[Trace], heads: bool) -> String {
    let heads: &[&str] = if heads {
        &[
            "AT",
            "DATA CORE",
            "CNTLID",
            "QUEUE",
            "COMMAND",
            "NSID",
            "BLOCK",
            "BLOCKS",
            "R2T",
            "READY",
            "AT DRIVE",
            "FROM DRIVE",
            "ANSWERED",
            "STATUS",
            "WAITED FOR",
        ]
    } else {
        &[]
    };
    let mut table = table(heads, 5);
    let moment = |us: Option<u32>| us.map_or_else(|| "-".to_owned(), |us| us.to_string());
    for trace in traces {
        let stages = &trace.stages;
        table.add_row([
            format!("{:.6}", stages.received_us as f64 / 1e6),
            trace.data_core.to_string(),
            trace.cntlid.to_string(),
            trace.queue_id.to_string(),
            trace.command.to_owned(),
            trace.nsid.to_string(),
            trace.first_block.to_string(),
            trace.blocks.to_string(),
            moment(stages.asked_us),
            moment(stages.ready_us),
            moment(stages.submitted_us),
            moment(stages.completed_us),
            stages.ended_us.to_string(),
            trace.status.clone().unwrap_or_else(|| "connection lost".to_owned()),
            if trace.waited_for.is_empty() { "-".to_owned() } else { trace.waited_for.join(", ") },
        ]);
    }
    table.to_string()
}
