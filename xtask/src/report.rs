//! Results of tests and checks, as a table with times.

use crate::command::note;
use crate::interrupt;
use anyhow::{Result, bail};
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
    part: String,
    verdict: Verdict,
    took: Duration,
}

/// Collects the results of parts that run one after the other.
#[derive(Default)]
pub struct Report(Vec<Row>);

impl Report {
    /// Runs a part and notes its end; an error is its failure, and the next part runs all the same.
    pub fn part(&mut self, name: &str, work: impl FnOnce() -> Result<Verdict>) {
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
        self.0.push(Row { part: name.to_owned(), verdict, took: started.elapsed() });
    }

    /// Runs a part that passes when it returns.
    pub fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        self.part(name, || work().map(|()| Verdict::Passed));
    }

    /// Prints the table; an error when a part failed or Ctrl-C came.
    pub fn finish(self) -> Result<()> {
        let width = self.0.iter().map(|row| row.part.len()).max().unwrap_or(0);
        println!();
        for row in &self.0 {
            let verdict = match &row.verdict {
                Verdict::Passed => "passed".to_owned(),
                Verdict::Skipped(why) => format!("skipped: {why}"),
                Verdict::Failed(how) => format!("FAILED: {}", how.lines().next().unwrap_or_default()),
            };
            println!("{:width$}  {:7.1} s  {verdict}", row.part, row.took.as_secs_f64());
        }
        let count = |wanted: fn(&Verdict) -> bool| self.0.iter().filter(|row| wanted(&row.verdict)).count();
        let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
        let skipped = count(|verdict| matches!(verdict, Verdict::Skipped(_)));
        let passed = self.0.len() - failed - skipped;
        let total: Duration = self.0.iter().map(|row| row.took).sum();
        println!("{passed} passed, {failed} failed, {skipped} skipped in {:.1} s", total.as_secs_f64());
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
        let mut report = Report::default();
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
        let mut report = Report::default();
        report.part("absent", || Ok(Verdict::Skipped("no apt".to_owned())));
        assert!(report.finish().is_ok());
    }
}
