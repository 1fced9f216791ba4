//! Records in logs that are whole, mixed, incomplete or of another image.

use super::*;
use hal_crash::{Kind, Writer, lines_of};

/// A log with text, a frame, and the record of a crash of core 1.
fn log() -> (Vec<u8>, Vec<String>) {
    let mut region = vec![0; 4096];
    Counters { boots: 1, crashes: 1, in_a_row: 1 }.write(&mut region);
    let mut writer = Writer::begin(&mut region);
    writer.item(Tag::Kind, 1, &[Kind::Panic as u8]);
    writer.text(Tag::Reason, 1, 100, format_args!("what cannot be, at here.rs:7"));
    writer.item(Tag::Uptime, 1, &1_500_000u64.to_le_bytes());
    writer.item(Tag::Image, 1, &[0xab; 20]);
    writer.item(Tag::State, 1, &[CoreState::Failed as u8]);
    writer.registers(1, &Registers { syndrome: 0x1234, ..Registers::default() });
    writer.backtrace(1, [0x4020_0000].into_iter());
    writer.item(Tag::Log, 1, &[1, 2, 0, 3]);
    writer.seal();
    let record = Record::read(&region).unwrap();
    let lines: Vec<String> = lines_of(record.bytes()).map(|line| line.to_string()).collect();
    let mut log = b"U-Boot\n\x01A\x02\n\x03\x00 ".to_vec();
    for line in &lines {
        log.extend_from_slice(line.as_bytes());
        log.extend_from_slice(b"\r\nsomething else\n");
    }
    (log, lines)
}

#[test]
fn a_record_in_a_mixed_log_is_explained_without_its_elf_file() {
    let (log, _) = log();
    let text = explain(&log, Path::new("/nonexistent")).unwrap();
    for part in [
        "panic on core 1, 1.500000 s after the start",
        "what cannot be, at here.rs:7",
        "no symbols: /nonexistent cannot be read",
        "ESR 0x0000000000001234",
        "0x40200000",
        "last log lines of core 1",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn another_images_file_gives_no_symbols_and_says_so() {
    let (log, _) = log();
    let text = explain(&log, &std::env::current_exe().unwrap()).unwrap();
    assert!(text.contains("is of another image") && text.contains("--elf"), "{text}");
}

#[test]
fn a_log_without_a_record_is_an_error_and_missing_lines_are_told_of() {
    let error = explain(b"ready: 1 namespaces\n", Path::new("/nonexistent")).unwrap_err();
    assert!(error.to_string().contains("no crash record"));
    let (whole, lines) = log();
    let text = String::from_utf8_lossy(&whole).replace(&lines[1], "(noise)");
    let text = explain(text.as_bytes(), Path::new("/nonexistent")).unwrap();
    assert!(text.contains(&format!("only {} of {} lines", lines.len() - 1, lines.len())), "{text}");
    let twice = [whole.clone(), whole].concat();
    let text = explain(&twice, Path::new("/nonexistent")).unwrap();
    assert_eq!(text.matches("panic on core 1").count(), 2);
}
