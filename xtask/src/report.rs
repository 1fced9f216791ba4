//! Results of tests and checks, as a table with times; parts that run beside each other.

use crate::command::{held_back, note};
use crate::interrupt;
use anyhow::{Result, bail};
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How a part ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Passed,
    /// Not run, and why.
    Skipped(String),
    /// Wrong, and how.
    Failed(String),
}

struct Row {
    /// Parts stand in the table as they began.
    number: usize,
    part: String,
    verdict: Verdict,
    took: Duration,
}

/// A part that may run beside others, on a thread of its own.
pub struct Job<'a> {
    /// The part's name.
    pub name: String,
    /// What is said when it begins.
    pub about: String,
    /// What it does.
    pub work: Box<dyn FnOnce() -> Result<Verdict> + Send + 'a>,
}

/// Collects the results of parts, from several threads.
pub struct Report {
    rows: Mutex<Vec<Row>>,
    begun: AtomicUsize,
    started: Instant,
}

impl Default for Report {
    fn default() -> Self {
        Self { rows: Mutex::default(), begun: AtomicUsize::new(0), started: Instant::now() }
    }
}

/// How many virtual machines' tests run at once: they wait more than they work.
pub fn machines_at_once() -> usize {
    std::thread::available_parallelism().map_or(2, NonZero::get).clamp(2, 8)
}

impl Report {
    /// Runs a part and notes its end; an error is its failure, and the next part runs all the same.
    pub fn part(&self, name: &str, work: impl FnOnce() -> Result<Verdict>) {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let started = Instant::now();
        let verdict = if interrupt::pending() {
            Verdict::Skipped("stopped by Ctrl-C".to_owned())
        } else {
            work().unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")))
        };
        match &verdict {
            Verdict::Passed => note(&format!("{name}: passed")),
            Verdict::Skipped(why) => note(&format!("{name}: skipped: {why}")),
            Verdict::Failed(how) => note(&format!("{name}: FAILED: {how}")),
        }
        if let Ok(mut rows) = self.rows.lock() {
            rows.push(Row { number, part: name.to_owned(), verdict, took: started.elapsed() });
        }
    }

    /// Runs a part that passes when it returns.
    pub fn check(&self, name: &str, work: impl FnOnce() -> Result<()>) {
        self.part(name, || work().map(|()| Verdict::Passed));
    }

    /// Runs the jobs, so many at once. What each of them says is shown when it has ended; a single one is shown as it goes.
    pub fn together(&self, at_once: usize, jobs: Vec<Job>) {
        let alone = at_once <= 1 || jobs.len() <= 1;
        let jobs = Mutex::new(jobs.into_iter());
        let work = || {
            while let Some(job) = jobs.lock().ok().and_then(|mut jobs| jobs.next()) {
                if alone {
                    note(&job.about);
                    self.part(&job.name, job.work);
                    continue;
                }
                if !interrupt::pending() {
                    note(&format!("begins: {}", job.about));
                }
                let ((), said) = held_back(|| self.part(&job.name, job.work));
                print!("{said}");
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..if alone { 1 } else { at_once } {
                scope.spawn(work);
            }
        });
    }

    /// Prints the table; an error when a part failed or Ctrl-C came.
    pub fn finish(self) -> Result<()> {
        let mut rows = self.rows.into_inner().unwrap_or_default();
        rows.sort_by_key(|row| row.number);
        let width = rows.iter().map(|row| row.part.len()).max().unwrap_or(0);
        println!();
        for row in &rows {
            let verdict = match &row.verdict {
                Verdict::Passed => "passed".to_owned(),
                Verdict::Skipped(why) => format!("skipped: {why}"),
                Verdict::Failed(how) => format!("FAILED: {}", how.lines().next().unwrap_or_default()),
            };
            println!("{:width$}  {:7.1} s  {verdict}", row.part, row.took.as_secs_f64());
        }
        let count = |wanted: fn(&Verdict) -> bool| rows.iter().filter(|row| wanted(&row.verdict)).count();
        let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
        let skipped = count(|verdict| matches!(verdict, Verdict::Skipped(_)));
        let passed = rows.len() - failed - skipped;
        let total = self.started.elapsed().as_secs_f64();
        println!("{passed} passed, {failed} failed, {skipped} skipped in {total:.1} s");
        interrupt::check()?;
        if failed > 0 {
            bail!("{failed} failed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_fails_the_whole_and_stops_nothing() {
        let report = Report::default();
        let mut ran = false;
        report.check("bad", || bail!("broken"));
        report.check("good", || {
            ran = true;
            Ok(())
        });
        assert!(ran);
        assert!(report.finish().is_err());
    }

    #[test]
    fn a_skipped_part_is_no_failure() {
        let report = Report::default();
        report.part("absent", || Ok(Verdict::Skipped("no apt".to_owned())));
        assert!(report.finish().is_ok());
    }

    #[test]
    fn jobs_run_beside_each_other_and_each_is_noted() {
        let report = Report::default();
        // Neither ends before the other has begun.
        let both = std::sync::Barrier::new(2);
        let job = |name: &str, result: Result<Verdict>| Job {
            name: name.to_owned(),
            about: name.to_owned(),
            work: Box::new(|| {
                both.wait();
                result
            }),
        };
        report
            .together(2, vec![job("good", Ok(Verdict::Passed)), job("bad", Err(anyhow::anyhow!("broken")))]);
        let rows = report.rows.lock().unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows.iter().filter(|row| row.verdict == Verdict::Passed).count(), 1);
    }
}
