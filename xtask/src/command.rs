//! Runs other programs: always with a time limit, in a process group of their own that ends with us.

use crate::{interrupt, paths};
use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::cell::RefCell;
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a waiting loop looks again.
const POLL: Duration = Duration::from_millis(25);

/// A child process that is killed, with its whole group, when the value goes away.
pub struct Guarded(Child);

impl Guarded {
    /// Starts the program in a process group of its own: a Ctrl-C at the terminal reaches us alone.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.process_group(0);
        let guarded = Self(command.spawn().with_context(|| format!("`{name}` cannot be started"))?);
        interrupt::guard(guarded.group());
        Ok(guarded)
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.0.id() as i32)
    }

    /// The child.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Waits for the end, at most as long as the limit; kills the group at the limit or at Ctrl-C.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
            let late = Instant::now() >= deadline;
            if late || interrupt::pending() {
                self.kill();
                interrupt::check()?;
                bail!("took longer than its limit of {} s and was stopped", limit.as_secs());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Asks politely, then kills, then reaps.
    pub fn kill(&mut self) {
        if matches!(self.0.try_wait(), Ok(Some(_))) {
            return;
        }
        let group = self.group();
        let _ = killpg(group, Signal::SIGTERM);
        for _ in 0..40 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
        interrupt::release(self.group());
    }
}

/// One step of work by another program, with its output in a log file and a line on the terminal.
pub struct Step {
    label: String,
    command: Command,
    limit: Duration,
    visible: bool,
}

impl Step {
    /// A step whose output goes to a log file.
    pub fn new(label: impl Into<String>, command: Command, limit_s: u64) -> Self {
        Self { label: label.into(), command, limit: Duration::from_secs(limit_s), visible: false }
    }

    /// Lets the program write to the terminal: compilers and test runners show their own progress.
    pub fn visible(mut self) -> Self {
        self.visible = true;
        self
    }

    /// Runs it to its end. The error holds the end of the log and the log's place.
    pub fn run(mut self) -> Result<()> {
        interrupt::check()?;
        self.command.stdin(Stdio::null());
        if self.visible {
            note(&self.label);
            // Standard output is for results (`image` prints a path there): all else goes to standard error.
            self.command.stdout(std::io::stderr());
            let status =
                Guarded::spawn(&mut self.command)?.wait(self.limit).with_context(|| self.label.clone())?;
            return if status.success() { Ok(()) } else { Err(anyhow!("{}: failed ({status})", self.label)) };
        }
        let log = paths::logs()?.join(format!("{}.log", file_name(&self.label)));
        let file = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        self.command.stdout(file.try_clone()?).stderr(file);
        let spinner = Spinner::start(&self.label);
        let outcome = Guarded::spawn(&mut self.command).and_then(|mut child| child.wait(self.limit));
        drop(spinner);
        match outcome {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.failure(&log, &format!("{status}"))),
            Err(error) => Err(self.failure(&log, &format!("{error:#}"))),
        }
    }

    fn failure(&self, log: &Path, what: &str) -> anyhow::Error {
        let end = tail(log, 15).unwrap_or_default();
        anyhow!("{}: {what}\n{end}\n(whole log: {})", self.label, log.display())
    }
}

/// The program's standard output, as text; an error when it fails or takes longer than the limit.
pub fn output(command: &mut Command, limit_s: u64) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Guarded::spawn(command)?;
    let mut pipe = child.child().stdout.take().context("standard output is not piped")?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut pipe, &mut text).map(|_| text)
    });
    let status = child.wait(Duration::from_secs(limit_s)).with_context(|| format!("`{name}`"))?;
    let text = reader.join().map_err(|_| anyhow!("`{name}`: its output could not be read"))??;
    if !status.success() {
        bail!("`{name}` failed ({status})");
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The last lines of a log file.
pub fn tail(log: &Path, lines: usize) -> Result<String> {
    let bytes = std::fs::read(log).with_context(|| format!("{} cannot be read", log.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}

thread_local! {
    /// What this thread has said, where it is held back because others run beside it.
    static HELD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs the work and returns what it has said meanwhile in this thread, which then stands together.
pub fn held_back<T>(work: impl FnOnce() -> T) -> (T, String) {
    HELD.set(Some(String::new()));
    let result = work();
    (result, HELD.take().unwrap_or_default())
}

/// Keeps the line if this thread's words are held back.
fn is_held(line: &str) -> bool {
    HELD.with_borrow_mut(|held| held.as_mut().map(|held| held.push_str(&format!("{line}\n"))).is_some())
}

/// A line of results, on standard output.
pub fn say(line: &str) {
    if !is_held(line) {
        println!("{line}");
    }
}

/// A line about what happens now, on standard error.
pub fn note(text: &str) {
    let line = format!("==> {text}");
    if !is_held(&line) {
        eprintln!("{line}");
    }
}

/// The same command, which leaves the processors to everything else that wants them: virtual machines have clocks.
pub fn patient(command: Command) -> Command {
    let Some(nice) = paths::find_program("nice") else { return command };
    let mut patient = Command::new(nice);
    patient.args(["-n", "10"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => patient.env(name, value),
            None => patient.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        patient.current_dir(folder);
    }
    patient
}

/// The command as one would type it.
pub fn typed(command: &Command) -> String {
    let quoted = |word: &std::ffi::OsStr| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=/.,:+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) { word.into_owned() } else { format!("'{word}'") }
    };
    let words: Vec<String> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(quoted).collect();
    words.join(" ")
}

/// Folder or file name made of a label: letters, digits and hyphens.
fn file_name(label: &str) -> String {
    let name: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    name.trim_matches('-').to_lowercase()
}

/// A spinner with elapsed time on a terminal; one plain line elsewhere.
struct Spinner(Option<ProgressBar>);

impl Spinner {
    fn start(label: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            note(label);
            return Self(None);
        }
        let bar = ProgressBar::new_spinner().with_message(label.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(Some(bar))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a process runs; one that waits to be reaped does not.
    fn runs(process: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    }

    #[test]
    fn a_step_that_hangs_is_stopped_at_its_limit_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]).stdout(Stdio::piped());
        let mut child = Guarded::spawn(&mut command).unwrap();
        let mut grandchild = String::new();
        let output = child.child().stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut grandchild).unwrap();
        assert!(runs(grandchild.trim()));
        let error = child.wait(Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().contains("limit"));
        while runs(grandchild.trim()) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_failure_is_not_taken_for_output() {
        assert!(output(Command::new("sh").args(["-c", "echo lost; exit 3"]), 5).is_err());
        assert_eq!(output(Command::new("sh").args(["-c", "echo kept"]), 5).unwrap(), "kept\n");
    }

    #[test]
    fn what_is_held_back_stands_together() {
        let (value, text) = held_back(|| {
            say("one");
            note("two");
            3
        });
        assert_eq!((value, text.as_str()), (3, "one\n==> two\n"));
    }

    #[test]
    fn a_patient_command_is_the_same_command() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $WORD; pwd"]).env("WORD", "kept").current_dir("/");
        assert_eq!(output(&mut patient(command), 5).unwrap(), "kept\n/\n");
    }

    #[test]
    fn a_typed_command_survives_a_shell() {
        assert_eq!(typed(Command::new("a").args(["-b", "c d"])), "a -b 'c d'");
    }
}
