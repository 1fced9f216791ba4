//! `nvme`: single commands to any NVMe/TCP target, under the names that nvme-cli has for them.

mod blocks;
mod identify;
mod logs;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use nvmeof_host::{Association, discover};

use crate::client::Failure;
use crate::output;
use crate::target::TargetArguments;

/// Ask any NVMe/TCP target as a host: what it has, how it is, its blocks; without a kernel's host and without a mailbox
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(subcommand)]
    verb: Verb,
}

/// What is asked.
#[derive(Subcommand, Clone, Debug)]
enum Verb {
    /// The subsystems that the target's discovery tells of
    Discover(TargetArguments),
    /// Identify Controller: who it is, and its limits
    IdCtrl(TargetArguments),
    /// Identify Namespace: size, format, identifiers
    IdNs(OfNamespace),
    /// The namespaces that this host can see
    ListNs(TargetArguments),
    /// SMART / Health Information
    SmartLog(TargetArguments),
    /// Error Information: the newest errors first
    ErrorLog(TargetArguments),
    /// Asymmetric Namespace Access: groups, their states, their namespaces
    AnaLog(TargetArguments),
    /// Any log page, as bytes
    GetLog(GetLog),
    /// Read blocks
    Read(Read),
    /// Write blocks: what is in them now is lost
    Write(Write),
    /// Flush the volatile write cache
    Flush(OfNamespace),
}

/// A namespace of a target.
#[derive(Args, Clone, Debug)]
struct OfNamespace {
    #[command(flatten)]
    target: TargetArguments,
    /// NSID [default: the smallest]
    #[arg(long)]
    nsid: Option<u32>,
}

/// Which page.
#[derive(Args, Clone, Debug)]
struct GetLog {
    #[command(flatten)]
    target: TargetArguments,
    /// Log page identifier, such as 0x02
    #[arg(long, value_parser = number)]
    page: u8,
    /// Bytes, a multiple of 4
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(4..=1 << 20))]
    bytes: u32,
    /// Where in the page, a multiple of 4
    #[arg(long, default_value_t = 0)]
    offset: u64,
    /// NSID, where the page is of one
    #[arg(long, default_value_t = 0)]
    nsid: u32,
    /// Write the bytes to this file, instead of printing them
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Which blocks, and where to.
#[derive(Args, Clone, Debug)]
struct Read {
    #[command(flatten)]
    of: OfNamespace,
    /// The first block
    #[arg(long, default_value_t = 0)]
    block: u64,
    /// How many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    blocks: u64,
    /// Write the bytes to this file, instead of printing them
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Which blocks, and where from.
#[derive(Args, Clone, Debug)]
struct Write {
    #[command(flatten)]
    of: OfNamespace,
    /// The first block
    #[arg(long)]
    block: u64,
    /// The file with what is written; the last block is filled with zeros
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The blocks may be overwritten
    #[arg(long)]
    overwrite: bool,
}

/// A number, decimal or with 0x.
fn number(text: &str) -> Result<u8, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "0 to 255, or 0x00 to 0xff".to_owned())
}

/// Asks; gives what is to be printed.
pub fn run(options: &Options, limit: Option<Duration>, json: bool) -> Result<String, Failure> {
    let open = |target: &TargetArguments, queues| -> Result<Association, Failure> {
        Ok(Association::open(&target.find(limit)?, queues)?)
    };
    match &options.verb {
        Verb::Discover(target) => Ok(identify::subsystems(&discover(&target.without_nqn(limit)?)?, json)),
        Verb::IdCtrl(target) => identify::controller(&mut open(target, 0)?, json),
        Verb::IdNs(OfNamespace { target, nsid }) => identify::namespace(&mut open(target, 0)?, *nsid, json),
        Verb::ListNs(target) => identify::namespaces(&mut open(target, 0)?, json),
        Verb::SmartLog(target) => logs::smart(&mut open(target, 0)?, json),
        Verb::ErrorLog(target) => logs::errors(&mut open(target, 0)?, json),
        Verb::AnaLog(target) => logs::ana(&mut open(target, 0)?, json),
        Verb::GetLog(page) => logs::any(&mut open(&page.target, 0)?, page, json),
        Verb::Read(read) => blocks::read(&open(&read.of.target, 1)?, read, json),
        Verb::Write(write) => {
            // Before anything is asked of the target.
            blocks::permitted(write)?;
            blocks::write(&open(&write.of.target, 1)?, write, json)
        }
        Verb::Flush(OfNamespace { target, nsid }) => blocks::flush(&open(target, 1)?, *nsid, json),
    }
}

/// Bytes for people, 16 in a line, or for programs; or into a file.
fn shown(bytes: &[u8], out: Option<&PathBuf>, json: bool) -> Result<String, Failure> {
    if let Some(path) = out {
        let failed = |error| Failure::Usage(format!("{} cannot be written: {error}", path.display()));
        std::fs::write(path, bytes).map_err(failed)?;
        return Ok(done(&format!("{} bytes are in {}", bytes.len(), path.display()), json));
    }
    if json {
        return Ok(output::json(&serde_json::json!({ "bytes": bytes })));
    }
    let line = |(number, line): (usize, &[u8])| {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            line.iter().map(|byte| if (0x20..0x7f).contains(byte) { *byte as char } else { '.' }).collect();
        format!("{:08x}  {:47}  {text}", 16 * number, hex.join(" "))
    };
    Ok(bytes.chunks(16).enumerate().map(line).collect::<Vec<_>>().join("\n"))
}

/// That it has been done.
fn done(what: &str, json: bool) -> String {
    if json { output::json(&serde_json::json!({ "done": what })) } else { what.to_owned() }
}

/// Text that ends at its NUL or before its blanks.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_lines_of_sixteen() {
        let lines = shown(b"0123456789abcdef\x00\xffz", None, false).unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines[0], "00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef");
        assert!(lines[1].starts_with("00000010  00 ff 7a ") && lines[1].ends_with("  ..z"), "{}", lines[1]);
    }

    #[test]
    fn pages_have_numbers_of_both_kinds() {
        assert_eq!((number("0x0c"), number("12")), (Ok(12), Ok(12)));
        assert!(number("256").is_err() && number("0xzz").is_err());
    }
}
