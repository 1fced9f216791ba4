//! `dpuctl top`: what a card does now, as the difference between two looks at its counters.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use clap::Args;
use message::mailbox::{Core, Role};
use message::{Histogram, NamespaceMeter};
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Stylize;
use ratatui::text::Line;
use ratatui::widgets::{Row, Table};
use ratatui::{Frame, Terminal};

use crate::client::{Client, Failure};
use crate::meters::{self, Meters, duration};
use crate::output::size;
use crate::survey;
use crate::views::Queue;

/// Size of a picture that goes to no terminal.
const COLUMNS: u16 = 110;

/// Live: cores, queues, and each namespace's commands, bandwidth and latencies; `q` ends it
#[derive(Args, Debug)]
pub struct Options {
    /// Between two looks, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = crate::seconds)]
    interval: Duration,
    /// Print one picture as text and end; so it is where the output is no terminal
    #[arg(long)]
    once: bool,
}

/// One look at the counters.
struct Look {
    at: Instant,
    uptime_us: u64,
    cores: Vec<Core>,
    meters: Meters,
    queues: Vec<Queue>,
}

impl Look {
    fn take(client: &mut Client) -> Result<Self, Failure> {
        Ok(Self {
            at: Instant::now(),
            uptime_us: survey::status(client)?.uptime_us,
            cores: survey::cores(client)?,
            meters: meters::meters(client)?,
            queues: survey::queues(client)?,
        })
    }
}

/// Shows the card until somebody has seen enough.
pub fn run(options: &Options, client: &mut Client) -> Result<String, Failure> {
    let mut before = Look::take(client)?;
    if options.once || !std::io::stdout().is_terminal() {
        std::thread::sleep(options.interval);
        let now = Look::take(client)?;
        return Ok(picture(&before, &now));
    }
    let mut terminal = ratatui::init();
    let result = loop {
        match ends_within(options.interval) {
            Ok(false) => {}
            Ok(true) => break Ok(String::new()),
            Err(error) => break Err(Failure::Line(error)),
        }
        let now = match Look::take(client) {
            Ok(now) => now,
            Err(failure) => break Err(failure),
        };
        if let Err(error) = terminal.draw(|frame| draw(frame, &before, &now)) {
            break Err(Failure::Line(error));
        }
        before = now;
    };
    ratatui::restore();
    result
}

/// Waits for the next look; true where somebody has asked for the end.
fn ends_within(interval: Duration) -> std::io::Result<bool> {
    let until = Instant::now() + interval;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if !event::poll(left)? {
            return Ok(false);
        }
        if let Event::Key(key) = event::read()? {
            let interrupts = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if interrupts || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                return Ok(true);
            }
        }
    }
}

/// A picture as text.
fn picture(before: &Look, now: &Look) -> String {
    let lines = 6 + now.cores.len() + now.meters.len();
    // A picture in memory does not fail.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(COLUMNS, lines as u16)) else {
        return String::new();
    };
    let drawn = terminal.draw(|frame| draw(frame, before, now));
    drawn.map_or_else(|_| String::new(), |frame| text(frame.buffer))
}

fn text(buffer: &Buffer) -> String {
    let line = |y| (0..buffer.area.width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..buffer.area.height).map(|y| line(y).trim_end().to_owned() + "\n").collect()
}

fn draw(frame: &mut Frame<'_>, before: &Look, now: &Look) {
    let cores = now.cores.len() as u16 + 2;
    let [head, of_cores, of_namespaces] =
        Layout::vertical([Constraint::Length(2), Constraint::Length(cores), Constraint::Fill(1)])
            .areas(frame.area());
    let hosts: std::collections::BTreeSet<_> = now.queues.iter().filter_map(|queue| queue.cntlid).collect();
    let inside: u32 = now.queues.iter().map(|queue| u32::from(queue.outstanding)).sum();
    let title = format!(
        "up {} s   {} controllers   {} queues   {inside} commands inside",
        now.uptime_us / 1_000_000,
        hosts.len(),
        now.queues.len(),
    );
    frame.render_widget(Line::from(title).bold(), head);
    frame.render_widget(core_table(before, now), of_cores);
    frame.render_widget(namespace_table(before, now), of_namespaces);
}

fn core_table(before: &Look, now: &Look) -> Table<'static> {
    let passed_us = now.uptime_us.saturating_sub(before.uptime_us).max(1);
    // They are counted in the order of the cores.
    let of_hosts = now.cores.iter().filter(|core| core.roles.contains(&Role::Net));
    let data_cores: Vec<u8> = of_hosts.map(|core| core.number).collect();
    let rows = now.cores.iter().map(|core| {
        let then = before.cores.iter().find(|then| then.number == core.number).unwrap_or(core);
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 * 1e6 / passed_us as f64;
        let asleep = core.asleep_us.saturating_sub(then.asleep_us) as f64 / passed_us as f64;
        let roles: Vec<_> = core.roles.iter().map(|role| role.name()).collect();
        let data_core = data_cores.iter().position(|number| *number == core.number);
        let queues = now.queues.iter().filter(|queue| Some(usize::from(queue.data_core)) == data_core);
        Row::new([
            core.number.to_string(),
            roles.join(" "),
            format!("{:.0} %", (asleep * 100.0).clamp(0.0, 100.0)),
            format!("{:.0}", per_second(core.productive_turns, then.productive_turns)),
            format!("{:.0}", per_second(core.empty_turns, then.empty_turns)),
            duration(Some(u64::from(core.longest_turn_us))),
            queues.count().to_string(),
        ])
    });
    let heads = ["CORE", "ROLES", "IDLE", "PRODUCTIVE/s", "EMPTY/s", "LONGEST TURN", "QUEUES"];
    Table::new(rows, [5, 14, 6, 14, 12, 14, 6].map(Constraint::Length)).header(Row::new(heads).bold())
}

fn namespace_table(before: &Look, now: &Look) -> Table<'static> {
    let seconds = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
    let rows = now.meters.iter().map(|((subsystem, nsid), meter)| {
        let nothing = NamespaceMeter::EMPTY;
        let gained = meter.since(before.meters.get(&(*subsystem, *nsid)).unwrap_or(&nothing));
        let mut row = vec![subsystem.to_string(), nsid.to_string()];
        row.extend(half(&gained.reads, gained.totals.read_bytes, seconds));
        row.extend(half(&gained.writes, gained.totals.written_bytes, seconds));
        Row::new(row)
    });
    let heads = [
        "SUBSYS",
        "NSID",
        "READS/s",
        "READ/s",
        "P50",
        "P99",
        "P99.9",
        "WRITES/s",
        "WRITTEN/s",
        "P50",
        "P99",
        "P99.9",
    ];
    let widths = [6, 8, 8, 10, 8, 8, 8, 8, 10, 8, 8, 8].map(Constraint::Length);
    Table::new(rows, widths).header(Row::new(heads).bold())
}

/// Rate, bandwidth and latencies of reads or of writes.
fn half(gained: &Histogram, bytes: u64, seconds: f64) -> [String; 5] {
    let [p50, p99, p999] = [500, 990, 999].map(|per_mille| duration(gained.percentile(per_mille)));
    let rate = format!("{:.0}", gained.count() as f64 / seconds);
    [rate, size((bytes as f64 / seconds) as u64), p50, p99, p999]
}

#[cfg(test)]
mod tests {
    use message::mailbox::Roles;

    use super::*;

    #[test]
    fn the_picture_shows_what_has_happened_between_two_looks() {
        let core = |productive_turns, asleep_us| Core {
            number: 1,
            roles: Roles::from_iter([Role::Net, Role::Drive]),
            productive_turns,
            empty_turns: 7,
            sleeps: 3,
            asleep_us,
            longest_turn_us: 40,
        };
        let at = Instant::now();
        let mut meter = NamespaceMeter::EMPTY;
        // What was before does not count.
        (0..500).for_each(|_| meter.reads.note(9_000_000));
        let look = |at, uptime_us, core, meter: &NamespaceMeter| Look {
            at,
            uptime_us,
            cores: vec![core],
            meters: Meters::from([((1, 42), meter.clone())]),
            queues: Vec::new(),
        };
        let before = look(at, 60_000_000, core(1000, 0), &meter);
        (0..200).for_each(|_| meter.reads.note(100));
        meter.writes.note(20_000);
        meter.totals.read_bytes += 200 * 4096;
        let now = look(at + Duration::from_secs(2), 62_000_000, core(3000, 500_000), &meter);
        let picture = picture(&before, &now);
        let expected = "\
up 62 s   0 controllers   0 queues   0 commands inside

CORE  ROLES          IDLE   PRODUCTIVE/s   EMPTY/s      LONGEST TURN   QUEUES
1     net drive      25 %   1000           0            40 us          0

SUBSYS NSID     READS/s  READ/s     P50      P99      P99.9    WRITES/s WRITTEN/s  P50      P99      P99.9
1      42       100      400 KiB    112 us   112 us   112 us   0        0 B        20.5 ms  20.5 ms  20.5 ms

";
        assert_eq!(picture, expected, "\n{picture}");
    }
}
