//! Decodes what comes over the card's serial line: defmt frames of all cores between raw text.
//!
//! A frame is SOH (01h), 40h + core, rzcobs bytes, 00h (`hal/log_sink`); all other bytes are text. The
//! strings that the frames refer to stand in the image's ELF file.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, Result};
use defmt_decoder::{Location, Table};

const START_OF_FRAME: u8 = 0x01;
const CORE_BASE: u8 = 0x40;
/// A ring of the card holds no longer frame.
const MAX_FRAME_BYTES: usize = 16 * 1024;

/// How much a line matters, as the card's source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Each request.
    Trace,
    /// For developers.
    Debug,
    /// Rare events of normal operation.
    Info,
    /// Wrong, and dealt with.
    Warn,
    /// Broken until someone acts.
    Error,
}

impl Level {
    const ALL: [(Self, &'static str, &'static str); 5] = [
        (Self::Trace, "TRACE", "\x1b[90m"),
        (Self::Debug, "DEBUG", "\x1b[36m"),
        (Self::Info, "INFO", "\x1b[32m"),
        (Self::Warn, "WARN", "\x1b[33m"),
        (Self::Error, "ERROR", "\x1b[1;31m"),
    ];

    /// In capitals.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(level, ..)| *level == self).map_or("", |(_, name, _)| name)
    }

    fn colour(self) -> &'static str {
        Self::ALL.iter().find(|(level, ..)| *level == self).map_or("", |(.., colour)| colour)
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n, _)| n.eq_ignore_ascii_case(name)).map(|(level, ..)| *level)
    }
}

/// One line of the card's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// From the log.
    Log {
        /// Index of the core that logged.
        core: u8,
        /// `None` for a frame that says none.
        level: Option<Level>,
        /// Seconds since the start of the card, with six decimals.
        time: String,
        /// What it says.
        text: String,
        /// File and line of the log call, where the ELF file knows.
        place: Option<String>,
    },
    /// Text that stood in no frame, for example of a panic; without its line end.
    Raw(String),
}

impl Line {
    /// The line's text alone, without time, core and level.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Log { text, .. } | Self::Raw(text) => text,
        }
    }

    /// The line as it is shown, on a terminal in colour.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let Self::Log { core, level, time, text, .. } = self else { return self.text().to_owned() };
        let name = level.map_or("", Level::name);
        if !colour {
            return format!("{time:>12} {core} {name:5} {text}");
        }
        let paint = level.map_or("", Level::colour);
        format!("\x1b[90m{time:>12}\x1b[0m \x1b[35m{core}\x1b[0m {paint}{name:5}\x1b[0m {text}")
    }
}

/// Whether standard output wants colour: a terminal, and `NO_COLOR` not set.
#[must_use]
pub fn colour_wanted() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Where the decoder stands in the stream of bytes.
#[derive(Debug)]
enum State {
    Text(Vec<u8>),
    Core,
    Frame(u8, Vec<u8>),
}

/// Turns the bytes of the serial line into [`Line`]s.
pub struct Decoder {
    /// `None` for an image that logs nothing.
    table: Option<Table>,
    /// Lines of text are log lines: the card is a process, and its log has been text from the start.
    reads_text: bool,
    locations: std::collections::BTreeMap<u64, Location>,
    state: State,
}

impl Decoder {
    /// For the image whose ELF file is `elf`.
    ///
    /// # Errors
    /// When the file cannot be read, or its log strings are of another version of defmt.
    pub fn of_file(elf: &Path) -> Result<Self> {
        let bytes = std::fs::read(elf).with_context(|| format!("{} cannot be read", elf.display()))?;
        Self::of_elf(&bytes).with_context(|| format!("the log strings in {}", elf.display()))
    }

    /// For the image whose ELF file has these bytes.
    ///
    /// # Errors
    /// As [`Self::of_file`].
    pub fn of_elf(elf: &[u8]) -> Result<Self> {
        let table = Table::parse(elf)?;
        // Places are a convenience: an image without debug information has none.
        let locations = table.as_ref().and_then(|table| table.get_locations(elf).ok()).unwrap_or_default();
        Ok(Self { table, locations, reads_text: false, state: State::Text(Vec::new()) })
    }

    /// For a card that is a process.
    #[must_use]
    pub fn of_process() -> Self {
        let state = State::Text(Vec::new());
        Self { table: None, locations: Default::default(), reads_text: true, state }
    }

    /// Gives every line that `bytes` complete to `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut dyn FnMut(Line)) {
        for byte in bytes {
            self.byte(*byte, out);
        }
    }

    /// The lines of a piece of one core's log, as a crash record keeps it: frames, each behind a 00h, of which the first
    /// may be cut.
    pub fn piece(&self, core: u8, bytes: &[u8]) -> Vec<Line> {
        let frames = bytes.split(|byte| *byte == 0).skip(1).filter(|frame| !frame.is_empty());
        frames.map(|frame| self.line(core, frame.to_vec())).collect()
    }

    /// Gives what stands unfinished at the end of the stream to `out`.
    pub fn finish(&mut self, out: &mut dyn FnMut(Line)) {
        match std::mem::replace(&mut self.state, State::Text(Vec::new())) {
            State::Text(text) => flush_text(&text, out),
            State::Core => {}
            State::Frame(core, frame) => out(damaged(core, &frame)),
        }
    }

    fn byte(&mut self, byte: u8, out: &mut dyn FnMut(Line)) {
        self.state = match std::mem::replace(&mut self.state, State::Core) {
            State::Text(text) if byte == START_OF_FRAME => {
                flush_text(&text, out);
                State::Core
            }
            State::Text(text) if byte == b'\n' => {
                let text = to_text(&text);
                out(parsed(&text).filter(|_| self.reads_text).unwrap_or(Line::Raw(text)));
                State::Text(Vec::new())
            }
            State::Text(mut text) => {
                if byte != 0 {
                    text.push(byte);
                }
                State::Text(text)
            }
            State::Core if byte == 0 => State::Text(Vec::new()),
            State::Core => State::Frame(byte.wrapping_sub(CORE_BASE), Vec::new()),
            State::Frame(core, frame) if byte == 0 => {
                out(self.line(core, frame));
                State::Text(Vec::new())
            }
            State::Frame(core, frame) if frame.len() > MAX_FRAME_BYTES => {
                out(damaged(core, &frame));
                State::Text(Vec::new())
            }
            State::Frame(core, mut frame) => {
                frame.push(byte);
                State::Frame(core, frame)
            }
        };
    }

    fn line(&self, core: u8, mut bytes: Vec<u8>) -> Line {
        let Some(table) = &self.table else { return damaged(core, &bytes) };
        let mut stream = table.new_stream_decoder();
        bytes.push(0);
        stream.received(&bytes);
        let Ok(frame) = stream.decode() else { return damaged(core, &bytes) };
        let place = self.locations.get(&frame.index());
        Line::Log {
            core,
            level: frame.level().and_then(|level| Level::named(level.as_str())),
            time: frame.display_timestamp().map(|time| time.to_string()).unwrap_or_default(),
            text: frame.display_message().to_string(),
            place: place.map(|place| format!("{}:{}", place.file.display(), place.line)),
        }
    }
}

/// A line that a process has logged: time, core, level, text (`hal/log`).
fn parsed(line: &str) -> Option<Line> {
    let (time, rest) = line.trim_start().split_once(' ')?;
    let (core, rest) = rest.split_once(' ')?;
    let (level, text) = rest.split_at_checked(Level::ALL[0].1.len())?;
    let text = text.strip_prefix(' ')?.to_owned();
    let level = Some(Level::named(level.trim_end())?);
    time.parse::<f64>().ok()?;
    Some(Line::Log { core: core.parse().ok()?, level, time: time.to_owned(), text, place: None })
}

fn flush_text(text: &[u8], out: &mut dyn FnMut(Line)) {
    if !text.is_empty() {
        out(Line::Raw(to_text(text)));
    }
}

fn to_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned()
}

/// A frame that was cut off, or that is of another image.
fn damaged(core: u8, frame: &[u8]) -> Line {
    Line::Raw(format!("(a log frame of core {core} with {} bytes cannot be decoded)", frame.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<Line> {
        let mut decoder = Decoder { reads_text: false, ..Decoder::of_process() };
        let mut lines = Vec::new();
        for part in parts {
            decoder.feed(part, &mut |line| lines.push(line));
        }
        decoder.finish(&mut |line| lines.push(line));
        lines
    }

    #[test]
    fn text_and_frames_are_told_apart_however_they_are_cut() {
        let whole = b"boot\r\npan\x01A\x02\x01\n\x00ic\nend";
        let expected = lines(&[whole]);
        let texts: Vec<_> = expected.iter().map(Line::text).collect();
        assert_eq!(texts[0], "boot");
        assert_eq!(texts[1], "pan");
        assert!(texts[2].contains("core 1 with 3 bytes"));
        assert_eq!(texts[3..], ["ic", "end"]);
        for cut in 0..whole.len() {
            assert_eq!(lines(&[&whole[..cut], &whole[cut..]]), expected);
        }
    }

    #[test]
    fn a_process_lines_are_taken_apart_and_other_text_stays() {
        let mut texts = Vec::new();
        let log = b"    1.500042 1 INFO  link is up\nerror: no\n1.0 x INFO  no\n  1.5 0 WARN  \n";
        Decoder::of_process().feed(log, &mut |line| texts.push((line.text().to_owned(), line.render(false))));
        let shown: Vec<_> = texts.iter().map(|(_, shown)| shown.as_str()).collect();
        let expected =
            ["    1.500042 1 INFO  link is up", "error: no", "1.0 x INFO  no", "         1.5 0 WARN  "];
        assert_eq!(shown, expected);
        assert_eq!(texts[0].0, "link is up");
    }

    #[test]
    fn lines_are_shown_with_time_core_and_level() {
        let line = Line::Log {
            core: 2,
            level: Some(Level::Warn),
            time: "1.500000".into(),
            text: "link is down".into(),
            place: None,
        };
        assert_eq!(line.render(false), "    1.500000 2 WARN  link is down");
        assert!(line.render(true).contains("\x1b[33mWARN"));
        assert_eq!(Line::Raw("x".into()).render(true), "x");
    }
}
