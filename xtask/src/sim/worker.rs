//! One worker process and what it says.

use crate::command::{Guarded, output, patient, tail};
use crate::{interrupt, paths};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A seed that takes longer hangs: most take less than a second.
const SEED_LIMIT: Duration = Duration::from_secs(300);

/// Seeds for one worker.
pub struct Batch {
    /// The first one.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// What became of a seed.
pub enum Outcome {
    /// It ended well.
    Done {
        /// Which one.
        seed: u64,
        /// How many events there were.
        events: u64,
        /// How often each kind happened.
        counts: Vec<u64>,
    },
    /// It did not.
    Failed {
        /// Which one.
        seed: u64,
        /// What was said about it.
        words: String,
    },
}

/// A line of a worker.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Start(u64),
    Done { seed: u64, events: u64, counts: Vec<u64> },
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        match words.next()? {
            "start" => Some(Self::Start(words.next()?.parse().ok()?)),
            "done" => {
                let seed = words.next()?.parse().ok()?;
                let events = words.nth(1)?.parse().ok()?;
                Some(Self::Done {
                    seed,
                    events,
                    counts: words.map(str::parse).collect::<Result<_, _>>().ok()?,
                })
            }
            _ => None,
        }
    }
}

impl Batch {
    /// Runs the seeds; where one fails those after it are left out.
    pub fn run(&self, program: &Path, mut note: impl FnMut(Outcome)) -> Result<()> {
        let log = paths::logs()?.join(format!("sim-worker-{}.log", self.first % 64));
        let errors =
            std::fs::File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut command = Command::new(program);
        command.args(["batch", &self.first.to_string(), &self.count.to_string()]);
        let mut command = patient(command);
        command.env("RUST_BACKTRACE", "1").env("PENSTOCK_LOG", "off");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut child = Guarded::spawn(&mut command)?;
        let pipe = child.child().stdout.take().context("standard output is not piped")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut running = None;
        let mut since = Instant::now();
        loop {
            match lines.recv_timeout(Duration::from_millis(200)) {
                Ok(line) => match Line::parse(&line) {
                    Some(Line::Start(seed)) => (running, since) = (Some(seed), Instant::now()),
                    Some(Line::Done { seed, events, counts }) => {
                        running = None;
                        note(Outcome::Done { seed, events, counts });
                    }
                    None => {}
                },
                Err(RecvTimeoutError::Timeout) if interrupt::pending() => return Ok(()),
                Err(RecvTimeoutError::Timeout) if since.elapsed() > SEED_LIMIT => {
                    let seed = running.unwrap_or(self.first);
                    let words = format!("it goes on for more than {} s", SEED_LIMIT.as_secs());
                    note(Outcome::Failed { seed, words });
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = child.wait(Duration::from_secs(10))?;
        if running.is_some() || !status.success() {
            let words = format!("{} ({status})", tail(&log, 25)?);
            note(Outcome::Failed { seed: running.unwrap_or(self.first), words });
        }
        Ok(())
    }
}

/// The names of the counters, in the order in which a worker gives them.
pub fn names(program: &Path) -> Result<Vec<String>> {
    let text = output(Command::new(program).arg("kinds"), 60)?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_lines_are_understood() {
        assert_eq!(Line::parse("start 7"), Some(Line::Start(7)));
        let done = Line::Done { seed: 7, events: 12, counts: vec![1, 0, 3] };
        assert_eq!(Line::parse("done 7 00ff 12 1 0 3"), Some(done));
        assert_eq!(Line::parse("done 7 00ff 12 1 x"), None);
        assert_eq!(Line::parse("warn something"), None);
    }
}
