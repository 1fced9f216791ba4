//! What the tool shows of a card's I/O, against a card that is played.

mod played;

use message::configuration::SubsystemPlace;
use message::mailbox::{Answer, Call, Core, CoreAnswer, CoreCall, Cores, Request, Roles};
use message::{
    CommandTrace, CoreCounters, MeterPlace, NamespaceMeter, Stages, TraceEnd, TraceLog, TracePage,
    TraceSettings, Waits,
};
use played::{dpuctl, path, serve, status, text};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

/// A card whose two data cores have the same.
fn answer(request: &Request) -> Answer {
    match &request.call {
        Call::Hello(edition) => Answer::Hello(*edition),
        Call::Cores { first } => Answer::Cores(cores(*first)),
        Call::Core { core, call } => Answer::Core(of_core(*core, call)),
        _ => Answer::Status(status()),
    }
}

fn cores(first: u8) -> Cores {
    let core = |number| Core {
        number,
        roles: Roles::new(),
        productive_turns: 10,
        empty_turns: 20,
        sleeps: 3,
        asleep_us: 2_500_000,
        longest_turn_us: 40,
    };
    Cores { cores: (first..3).map(core).collect() }
}

fn of_core(core: u8, call: &CoreCall) -> CoreAnswer {
    match *call {
        CoreCall::Meters { first } => {
            let mut meter = NamespaceMeter::EMPTY;
            (0..100).for_each(|_| meter.reads.note(300));
            meter.writes.note(90_000);
            meter.totals.read_bytes = 409_600;
            let place = MeterPlace { meter: 3, range: if first.meter == 3 { first.range } else { 0 } };
            CoreAnswer::Meters(if first.meter > 3 { None } else { meter.page((SubsystemPlace(1), 7), place) })
        }
        CoreCall::Traces { log, first } => {
            let trace = trace(first, core, if log == TraceLog::Slow { 250_000 } else { 900 });
            let traces = if first < 2 { vec![trace] } else { Vec::new() };
            let next = first + traces.len() as u64;
            CoreAnswer::Traces(TracePage { traces: traces.into_iter().collect(), missed: 0, next })
        }
        CoreCall::TraceSettings { set } => {
            CoreAnswer::TraceSettings(set.unwrap_or(TraceSettings { sample_one_in: 64, slow_us: 100_000 }))
        }
        CoreCall::Counters => {
            let mut counters = CoreCounters::default();
            counters.connections.commands = 1000 + u64::from(core);
            CoreAnswer::Counters(counters)
        }
        CoreCall::Queues { .. } => CoreAnswer::Queues(heapless::Vec::new()),
        CoreCall::Ports => CoreAnswer::Ports(heapless::Vec::new()),
        _ => CoreAnswer::Drives(heapless::Vec::new()),
    }
}

fn trace(sequence: u64, core: u8, ended_us: u32) -> CommandTrace {
    let mut waits = Waits::NONE;
    waits.add(Waits::PAGES);
    CommandTrace {
        sequence,
        controller: 1,
        queue: 2,
        cid: 5,
        opcode: 1,
        nsid: 7,
        first_block: 4096,
        blocks: 8,
        end: TraceEnd::Answered { status: 0 },
        stages: Stages {
            received_us: 2_000_000 - u64::from(core),
            asked_us: Some(600),
            ready_us: Some(650),
            submitted_us: Some(650),
            completed_us: Some(800),
            ended_us,
        },
        waits,
    }
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn meters_of_all_cores_are_added_up() {
    let output = dpuctl("counters", &["counters"], answer);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<_> = printed.lines().map(squeezed).collect();
    let namespace = "1 7 200 819200 300 us 320 us 320 us 320 us 2 0 90.0 ms 98.3 ms 98.3 ms 98.3 ms 0 0";
    assert!(lines.iter().any(|line| line == namespace), "{printed}");
    assert!(lines.iter().any(|line| line == "connections.commands 1000 1001"), "{printed}");
}

#[test]
fn traces_of_all_cores_stand_in_order_of_time_and_say_what_was_waited_for() {
    let output = dpuctl("trace", &["trace"], answer);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<_> = printed.lines().map(squeezed).collect();
    assert_eq!(lines[1], "1.999999 1 1 2 write 7 4096 8 600 650 650 800 900 success pages");
    assert!(lines[3].starts_with("2.000000 0 1 2 write"), "{printed}");
    assert!(printed.contains("one command in 64 is a sample; commands are slow from 100 ms on"), "{printed}");
    let output = dpuctl("slow", &["trace", "--slow", "--json"], answer);
    let value: serde_json::Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!((&value[0]["ended_us"], &value[0]["waited_for"][0]), (&250_000.into(), &"pages".into()));
}

#[test]
fn what_is_remembered_can_be_set() {
    let words = ["trace", "--sample-one-in", "0", "--slow-after", "2.5"];
    let output = dpuctl("settings", &words, answer);
    assert_eq!(text(&output.stdout).trim(), "no samples; commands are slow from 2.5 ms on");
    assert_eq!(dpuctl("bad", &["trace", "--slow-after", "-1"], answer).status.code(), Some(2));
}

#[test]
fn one_picture_is_printed_where_there_is_no_terminal() {
    let output = dpuctl("top", &["top", "--interval", "0.01"], answer);
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<_> = printed.lines().map(squeezed).collect();
    assert_eq!(lines[0], "up 61 s 0 controllers 0 queues 0 commands inside");
    // The played card has counted nothing between the two looks.
    assert!(lines.iter().any(|line| line == "1 7 0 0 B - - - 0 0 B - - -"), "{printed}");
}

/// What an exporter answers.
fn get(address: &str, path: &str) -> String {
    let mut line = TcpStream::connect(address).unwrap();
    write!(line, "GET {path} HTTP/1.1\r\nHost: card\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    line.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn each_scrape_asks_the_card_anew_and_a_card_that_is_gone_is_said_to_be_so() {
    let path = path("exporter");
    let listener = UnixListener::bind(&path).unwrap();
    let card = std::thread::spawn(move || (0..2).for_each(|_| serve(&listener, &answer)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpuctl"));
    command.arg("--card").arg(&path).args(["exporter", "--listen", "127.0.0.1:0"]).stderr(Stdio::piped());
    let mut exporter = command.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(exporter.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let address = said.trim().trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
    let pages = [0, 1].map(|_| get(&address, "/metrics"));
    card.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    let (elsewhere, gone) = (get(&address, "/"), get(&address, "/metrics"));
    exporter.kill().unwrap();
    exporter.wait().unwrap();
    for page in &pages {
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
        assert!(
            page.contains("\npenstock_namespace_read_bytes_total{subsystem=\"1\",nsid=\"7\"} 819200\n"),
            "{page}"
        );
        assert!(
            page.contains("\npenstock_namespace_read_seconds_count{subsystem=\"1\",nsid=\"7\"} 200\n"),
            "{page}"
        );
        assert!(page.contains("\npenstock_connections_commands_total{data_core=\"1\"} 1001\n"), "{page}");
    }
    assert!(elsewhere.starts_with("HTTP/1.1 404 "), "{elsewhere}");
    assert!(gone.starts_with("HTTP/1.1 503 ") && gone.contains("is the card running"), "{gone}");
    let page = pages[0].split_once("\r\n\r\n").unwrap().1;
    check(page);
    check_dashboard(page);
}

/// Has Debian's `promtool` look at the page, where it is installed.
fn check(page: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else { return };
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Each metric that the dashboard names is one of the page.
fn check_dashboard(page: &str) {
    let dashboard = include_str!("../../docs/grafana.json");
    let named = dashboard.split("penstock_").skip(1);
    for name in named.map(|rest| rest.split(|end: char| end != '_' && !end.is_alphanumeric()).next().unwrap())
    {
        let is_metric = |line: &str| {
            line.strip_prefix("# TYPE penstock_").is_some_and(|of| {
                let metric = of.split(' ').next().unwrap_or_default();
                name == metric
                    || name.strip_prefix(metric).is_some_and(|end| ["_bucket", "_count"].contains(&end))
            })
        };
        assert!(page.lines().any(is_metric), "penstock_{name}");
    }
}
