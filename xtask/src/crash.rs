//! `cargo xtask crash`: what the crash records in a serial log say, with symbols from the image's ELF file.

mod found;
pub mod symbols;

use crate::log_decoder::Decoder;
use crate::paths;
use anyhow::{Context, Result, bail};
use clap::Args;
use found::{Found, records};
use hal_crash::{CoreState, Counters, Item, Life, Record, RecordError, Registers, Tag};
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};
use symbols::Symbols;

/// Where the log is, and whose symbols to use.
#[derive(Args, Debug)]
pub struct Options {
    /// A serial log, as its bytes came or decoded; `-` for standard input
    #[arg(default_value = "-")]
    log: PathBuf,
    /// The ELF file of the image that crashed [default: the last release build of qemu-aarch64]
    #[arg(long)]
    elf: Option<PathBuf>,
}

/// Explains every record in the log.
pub fn run(options: &Options) -> Result<()> {
    let bytes = if options.log.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("standard input cannot be read")?;
        bytes
    } else {
        std::fs::read(&options.log).with_context(|| format!("{} cannot be read", options.log.display()))?
    };
    let elf = match &options.elf {
        Some(elf) => elf.clone(),
        None => paths::target()?.join("aarch64-unknown-none/release/qemu-aarch64"),
    };
    print!("{}", explain(&bytes, &elf)?);
    Ok(())
}

/// The text that explains every record in a log's bytes; an error where there is none.
pub fn explain(log: &[u8], elf: &Path) -> Result<String> {
    let found = records(log);
    if found.is_empty() {
        bail!("no crash record is in this log: a card prints it once, when it has restarted after a crash");
    }
    let elf = Elf::open(elf);
    let mut text = String::new();
    for (number, found) in found.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        match found {
            Found::Whole(bytes) => explain_one(&mut text, bytes, &elf)?,
            Found::Partial { have, count } => {
                writeln!(text, "a crash record of which only {have} of {count} lines are sound")?;
            }
        }
    }
    Ok(text)
}

/// The image's file, as far as it can be read.
struct Elf {
    path: PathBuf,
    build_id: Vec<u8>,
    symbols: Option<Symbols>,
    decoder: Option<Decoder>,
    obstacle: Option<String>,
}

impl Elf {
    fn open(path: &Path) -> Self {
        let path = path.to_path_buf();
        let opened = Symbols::open(&path)
            .and_then(|(build_id, symbols)| Ok((build_id, symbols, Decoder::of_file(&path)?)));
        match opened {
            Ok((build_id, symbols, decoder)) => {
                Self { path, build_id, symbols: Some(symbols), decoder: Some(decoder), obstacle: None }
            }
            Err(error) => {
                let obstacle = Some(format!("{error:#}"));
                Self { path, build_id: Vec::new(), symbols: None, decoder: None, obstacle }
            }
        }
    }
}

fn explain_one(text: &mut String, bytes: &[u8], elf: &Elf) -> Result<()> {
    let record = match Record::read(bytes) {
        Ok(record) => record,
        Err(RecordError::Damaged) => {
            writeln!(text, "a crash record that is damaged: its checksum does not match")?;
            return Ok(());
        }
        Err(RecordError::Absent) => {
            writeln!(text, "a crash record of another version")?;
            return Ok(());
        }
    };
    summary(text, &record, &Counters::read(bytes))?;
    let id = record.item(Tag::Image).map(|item| item.bytes).unwrap_or_default();
    let same = !id.is_empty() && id == elf.build_id;
    match &elf.obstacle {
        Some(obstacle) => writeln!(text, "    no symbols: {obstacle}")?,
        None if !same => writeln!(
            text,
            "    no symbols: {} is of another image, build id {}; name the right file by --elf",
            elf.path.display(),
            hexadecimal(&elf.build_id)
        )?,
        None => {}
    }
    let symbols = elf.symbols.as_ref().filter(|_| same);
    for item in record.items() {
        part(text, &item, &record, symbols)?;
    }
    for item in record.items().filter(|item| item.tag == Tag::Log) {
        log(text, &item, elf.decoder.as_ref().filter(|_| same))?;
    }
    Ok(())
}

fn summary(text: &mut String, record: &Record, counters: &Counters) -> Result<()> {
    let (kind, core) = record.kind().map_or(("unknown crash", 0), |(kind, core)| (kind.name(), core));
    let uptime = record.number(Tag::Uptime).unwrap_or(0);
    let (seconds, micros) = (uptime / 1_000_000, uptime % 1_000_000);
    writeln!(text, "{kind} on core {core}, {seconds}.{micros:06} s after the start")?;
    writeln!(text, "    {}", record.text(Tag::Reason).unwrap_or("no reason was written"))?;
    if let Some(word) = record.text(Tag::Fault) {
        writeln!(text, "    asked for by the boot argument {word}")?;
    }
    let Counters { crashes, in_a_row, .. } = counters;
    let boot = record.number(Tag::Boot).unwrap_or(0);
    writeln!(text, "    start {boot} since power-on; crashes: {crashes}, in a row: {in_a_row}")?;
    let id = record.item(Tag::Image).map(|item| item.bytes).unwrap_or_default();
    writeln!(text, "    image {}", hexadecimal(id))?;
    if let Some(nested) = record.text(Tag::Nested) {
        writeln!(text, "    while this was recorded: {nested}")?;
    }
    if !record.whole {
        writeln!(text, "    the record is not whole: its writing was cut short")?;
    }
    Ok(())
}

/// One item about a core.
fn part(text: &mut String, item: &Item, record: &Record, symbols: Option<&Symbols>) -> Result<()> {
    match item.tag {
        Tag::State => {
            let state = match item.bytes.first().and_then(|state| CoreState::of(*state)) {
                Some(CoreState::Failed) => "failed",
                Some(CoreState::Stopped) => "stopped for the record",
                Some(CoreState::Silent) => "did not answer",
                Some(CoreState::Unknown) => "not asked: this machine has no interrupt for it",
                None => "unknown",
            };
            writeln!(text, "core {}: {state}", item.core)?;
        }
        Tag::Life => {
            let Some(life) = Life::of(item.bytes) else { return Ok(()) };
            let sleep = match life.asleep_until {
                0 => "awake".to_owned(),
                u64::MAX => "parked".to_owned(),
                until => format!("asleep until {}.{:06} s", until / 1_000_000, until % 1_000_000),
            };
            writeln!(
                text,
                "    {sleep}; {} turns and sleeps, {} looks of its watchdog",
                life.turns, life.looks
            )?;
        }
        Tag::Registers => {
            let Some(registers) = Registers::of(item.bytes) else { return Ok(()) };
            registers_of(text, &registers)?;
        }
        Tag::Backtrace => {
            writeln!(text, "    backtrace:")?;
            for (depth, address) in item.addresses().enumerate() {
                backtrace_line(text, address, depth, symbols)?;
            }
        }
        Tag::Log
        | Tag::Kind
        | Tag::Reason
        | Tag::Uptime
        | Tag::Image
        | Tag::Fault
        | Tag::Boot
        | Tag::Nested => {
            let _ = record;
        }
    }
    Ok(())
}

fn registers_of(text: &mut String, registers: &Registers) -> Result<()> {
    let Registers { general, stack_pointer, return_address, saved_state, syndrome, fault_address } =
        registers;
    writeln!(text, "    ELR {return_address:#018x}  SPSR {saved_state:#018x}  SP {stack_pointer:#018x}")?;
    writeln!(text, "    ESR {syndrome:#018x}  FAR  {fault_address:#018x}")?;
    for (row, values) in general.chunks(4).enumerate() {
        let values: Vec<String> = values.iter().map(|value| format!("{value:#018x}")).collect();
        writeln!(text, "    x{:<2} {}", row * 4, values.join(" "))?;
    }
    Ok(())
}

fn backtrace_line(text: &mut String, address: u64, depth: usize, symbols: Option<&Symbols>) -> Result<()> {
    // All but the first are return addresses: the call is the instruction before.
    let looked_up = if depth == 0 { address } else { address.saturating_sub(4) };
    let frames = symbols.map(|symbols| symbols.at(looked_up)).unwrap_or_default();
    if frames.is_empty() {
        writeln!(text, "      {address:#x}")?;
    }
    for (index, frame) in frames.iter().enumerate() {
        let place = frame.place.as_deref().unwrap_or("no line known");
        let start = if index == 0 { format!("{address:#x}") } else { "inlined in".to_owned() };
        writeln!(text, "      {start:>12}  {}\n                    at {place}", frame.function)?;
    }
    Ok(())
}

fn log(text: &mut String, item: &Item, decoder: Option<&Decoder>) -> Result<()> {
    writeln!(text, "last log lines of core {}:", item.core)?;
    let Some(decoder) = decoder else {
        writeln!(text, "    {} bytes, which the image's ELF file would decode", item.bytes.len())?;
        return Ok(());
    };
    for line in decoder.piece(item.core, item.bytes) {
        writeln!(text, "    {}", line.render(false))?;
    }
    Ok(())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
