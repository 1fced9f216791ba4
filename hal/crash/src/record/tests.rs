//! What is written is read, also where it is cut, damaged or from somewhere else.

use super::*;

fn written(region: &mut [u8]) -> Writer<'_> {
    let mut writer = Writer::begin(region);
    writer.item(Tag::Kind, 1, &[Kind::Stuck as u8]);
    writer.text(Tag::Reason, 1, 300, format_args!("core {} made no progress", 1));
    writer.item(Tag::Uptime, 0, &12_345_678u64.to_le_bytes());
    writer.registers(1, &Registers { return_address: 0x4020_0000, syndrome: 7, ..Registers::default() });
    writer.backtrace(1, [1, 2, 3].into_iter());
    writer.life(2, Life { turns: 5, looks: 6, asleep_until: 7 });
    writer
}

#[test]
fn what_is_written_is_read() {
    let mut region = vec![0xee; 4096];
    written(&mut region).seal();
    let record = Record::read(&region).unwrap();
    assert!(record.whole && !record.shown);
    assert_eq!(record.kind(), Some((Kind::Stuck, 1)));
    assert_eq!(record.text(Tag::Reason), Some("core 1 made no progress"));
    assert_eq!(record.number(Tag::Uptime), Some(12_345_678));
    let registers = Registers::of(record.item(Tag::Registers).unwrap().bytes).unwrap();
    assert_eq!((registers.return_address, registers.syndrome), (0x4020_0000, 7));
    assert_eq!(record.item(Tag::Backtrace).unwrap().addresses().collect::<Vec<_>>(), [1, 2, 3]);
    let life = record.item(Tag::Life).unwrap();
    assert_eq!((life.core, Life::of(life.bytes)), (2, Some(Life { turns: 5, looks: 6, asleep_until: 7 })));
    // What goes over the line is enough to read it.
    assert_eq!(Record::read(record.bytes()).unwrap().items().count(), record.items().count());
    Record::mark_shown(&mut region);
    assert!(Record::read(&region).unwrap().shown);
}

#[test]
fn a_half_written_record_is_known_as_such_and_goes_on_where_it_was() {
    let mut region = vec![0; 4096];
    let _ = written(&mut region);
    let record = Record::read(&region).unwrap();
    assert!(!record.whole);
    assert_eq!(record.kind(), Some((Kind::Stuck, 1)));
    let mut writer = Writer::resume(&mut region).unwrap();
    writer.text(Tag::Nested, 1, 100, format_args!("and then this"));
    writer.seal();
    let record = Record::read(&region).unwrap();
    assert_eq!((record.whole, record.text(Tag::Nested)), (true, Some("and then this")));
    assert!(Writer::resume(&mut region).is_none(), "a sealed record is not reopened");
}

#[test]
fn damage_is_noticed_and_nothing_is_read_beyond_the_region() {
    let mut region = vec![0; 4096];
    written(&mut region).seal();
    let end = Record::read(&region).unwrap().bytes().len();
    for at in ITEMS..end {
        let mut damaged = region.clone();
        damaged[at] ^= 0x10;
        assert_eq!(Record::read(&damaged), Err(RecordError::Damaged), "byte {at}");
    }
    for length in 0..end {
        assert_eq!(Record::read(&region[..length]), Err(RecordError::Absent), "cut to {length}");
    }
    assert_eq!(Record::read(&[0; 4096]), Err(RecordError::Absent));
}

#[test]
fn a_full_region_cuts_and_stays_readable() {
    for bytes in ITEMS..ITEMS + 400 {
        let mut region = vec![0; bytes];
        written(&mut region).seal();
        let record = Record::read(&region).unwrap();
        assert!(record.whole && record.bytes().len() <= bytes);
        record.items().for_each(drop);
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_can_be_read(mut region in proptest::collection::vec(proptest::num::u8::ANY, 0..600), open: bool) {
        if let Some(head) = region.get_mut(COUNTERS_BYTES..COUNTERS_BYTES + 12) {
            head[..8].copy_from_slice(&MAGIC);
            if open {
                head[8..].copy_from_slice(b"OPEN");
            }
        }
        if let Ok(record) = Record::read(&region) {
            record.items().for_each(drop);
            let _ = (record.kind(), record.text(Tag::Reason), record.number(Tag::Uptime));
        }
    }
}
