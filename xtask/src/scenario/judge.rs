//! Follows the card's log line by line.

use super::file::{Pattern, Scenario};
use crate::card_log::Line;
use crate::vm::Vm;
use anyhow::{Result, bail};
use regex::Regex;

/// Lines that no scenario allows, but one whose card may restart.
const BREAKDOWN: &str = r"^\*\*\* (panic|exception|watchdog)";

/// What has come, and what is still to come.
pub struct Judge<'a> {
    scenario: &'a Scenario,
    breakdown: Option<Regex>,
    /// All lines so far.
    pub lines: Vec<Line>,
    met: usize,
    /// Text as it came, for answers to prompts that end without a line's end.
    raw: String,
    answered: usize,
}

impl<'a> Judge<'a> {
    /// Nothing has come yet.
    pub fn new(scenario: &'a Scenario) -> Result<Self> {
        let breakdown = if scenario.restarts { None } else { Some(Regex::new(BREAKDOWN)?) };
        Ok(Self { scenario, breakdown, lines: Vec::new(), met: 0, raw: String::new(), answered: 0 })
    }

    /// The first expected line that has not come.
    pub fn missing(&self) -> Option<&'a Pattern> {
        self.scenario.expect.get(self.met)
    }

    /// Takes the next line; an error when it is a forbidden one.
    pub fn take(&mut self, line: Line) -> Result<()> {
        let text = line.text.clone();
        self.lines.push(line);
        let forbidden = self.scenario.forbid.iter().map(|pattern| &pattern.0).chain(&self.breakdown);
        if let Some(pattern) = forbidden.into_iter().find(|pattern| pattern.is_match(&text)) {
            bail!("a line like `{pattern}` must not come: {text}");
        }
        if self.missing().is_some_and(|pattern| pattern.0.is_match(&text)) {
            self.met += 1;
        }
        Ok(())
    }

    /// Types what the scenario says after these bytes of the serial port.
    pub fn answer(&mut self, bytes: &[u8], vm: &mut Vm) -> Result<()> {
        self.raw.push_str(&String::from_utf8_lossy(bytes));
        while let Some(answer) = self.scenario.answer.get(self.answered) {
            let Some(place) = self.raw.find(&answer.after) else { break };
            self.raw.drain(..place + answer.after.len());
            vm.write(&answer.send)?;
            self.answered += 1;
        }
        if self.answered == self.scenario.answer.len() {
            self.raw.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::file::parse;

    fn scenario(more: &str) -> Scenario {
        parse(&format!("proves = \"\"\n{more}")).unwrap()
    }

    fn line(text: &str) -> Line {
        Line { text: text.to_owned(), plain: text.to_owned(), shown: text.to_owned() }
    }

    #[test]
    fn expected_lines_come_in_order_with_others_between() {
        let scenario = scenario(r#"expect = ["one", "two"]"#);
        let mut judge = Judge::new(&scenario).unwrap();
        for text in ["two", "one", "other"] {
            judge.take(line(text)).unwrap();
            assert!(judge.missing().is_some());
        }
        judge.take(line("two")).unwrap();
        assert!(judge.missing().is_none());
    }

    #[test]
    fn a_panic_fails_unless_the_card_may_restart() {
        let panic = || line("*** panic on core 1: index out of bounds");
        let strict = scenario("expect = [\"ready\"]\nforbid = [\"oops\"]");
        assert!(Judge::new(&strict).unwrap().take(panic()).is_err());
        assert!(Judge::new(&strict).unwrap().take(line("oops")).is_err());
        let lenient = scenario("expect = [\"ready\"]\nrestarts = true");
        assert!(Judge::new(&lenient).unwrap().take(panic()).is_ok());
    }
}
