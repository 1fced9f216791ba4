//! A crash record in memory that a reset has left as it is, and one that comes over the serial line as text.

use hal_crash::{Counters, Fault, LINE_BYTES, Line, REGION_BYTES, Record, Tag, Writer, lines_of};

/// Reads the bytes as a region, whole and cut off, and as text.
pub fn run(bytes: &[u8]) {
    let mut region = bytes.get(..REGION_BYTES).unwrap_or(bytes).to_vec();
    read(&region);
    region.resize(REGION_BYTES, 0);
    read(&region);
    go_on_writing(&mut region);
    let counters = Counters::read(&region);
    counters.after_crash(true).write(&mut region);
    assert_eq!(Counters::read(&region), counters.after_crash(true));
    for text in String::from_utf8_lossy(bytes).lines() {
        read_line(text);
        let _ = Fault::parse(text);
    }
}

fn read(region: &[u8]) {
    let Ok(record) = Record::read(region) else { return };
    let items: usize = record.items().map(|item| item.bytes.len() + item.addresses().count()).sum();
    assert!(items <= 2 * region.len());
    let _ = (record.kind(), record.text(Tag::Kind), record.number(Tag::Kind));
    assert_eq!(Record::read(record.bytes()).map(|again| again.bytes()), Ok(record.bytes()));
    // What goes over the serial line comes back.
    let text: String = lines_of(record.bytes()).map(|line| format!("{line}\n")).collect();
    let mut back: Vec<u8> = Vec::new();
    for line in text.lines() {
        let mut room = [0; LINE_BYTES];
        back.extend(Line::parse(line, &mut room).expect("a line of our own").bytes());
    }
    assert_eq!(back, record.bytes());
}

/// A crash within a crash writes behind what there is.
fn go_on_writing(region: &mut [u8]) {
    let Some(mut writer) = Writer::resume(region) else { return };
    writer.item(Tag::Kind, 1, &[1, 2, 3]);
    writer.text(Tag::Kind, 2, 100, format_args!("{:0200}", 7));
    writer.seal();
    let record = Record::read(region).expect("a sealed record");
    assert!(record.whole);
    read(region);
}

fn read_line(text: &str) {
    let mut room = [0; LINE_BYTES];
    let Some(line) = Line::parse(text, &mut room) else { return };
    let mut again = [0; LINE_BYTES];
    assert_eq!(Line::parse(&line.to_string(), &mut again), Some(line));
}
