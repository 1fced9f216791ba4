//! The store over a flash whose power goes at every operation, that rots, fails, and holds anything.

use core::time::Duration;

use hal_fakes::{Cut, FakeFlash, FlashControl};
use proptest::prelude::*;

use super::header::FORMAT;
use super::*;

type Store = ConfigurationStore<'static, FakeFlash>;

/// One large block for each copy, as in QEMU's flash; several small ones; the least that works.
const SHAPES: [FlashShape; 3] = [
    FlashShape { blocks: 5, block_bytes: 64 << 10, unit_bytes: 4, program_bytes: 64 },
    FlashShape { blocks: 64, block_bytes: 4096, unit_bytes: 1, program_bytes: 256 },
    FlashShape { blocks: 6, block_bytes: 96, unit_bytes: 32, program_bytes: 40 },
];

fn open(flash: FakeFlash) -> Store {
    ConfigurationStore::open(Some(flash), vec![0; MAX_CONFIGURATION_BYTES].leak())
}

/// Bytes that no two configurations share.
fn configuration(number: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31) ^ number.wrapping_mul(85)).collect()
}

/// Stores until that is over or the power goes.
fn save(store: &mut Store, control: &FlashControl, bytes: &[u8]) -> Result<StoreState, StoreError> {
    store.save(bytes, Instant::ZERO)?;
    while store.state() == StoreState::Saving && !control.is_off() {
        store.poll(Instant::ZERO);
    }
    Ok(store.state())
}

fn lengths(shape: &FlashShape) -> Vec<usize> {
    let area = Area::of(shape).unwrap();
    let room = MAX_CONFIGURATION_BYTES.min(area.copy_bytes as usize - HEADER_BYTES);
    [0, 1, 31, 32, 33, 63, 64, 65, 150, 4063, 4064, 4065, room].into_iter().filter(|l| *l <= room).collect()
}

#[test]
fn what_was_stored_last_is_loaded_after_a_reset() {
    for shape in SHAPES {
        let (flash, control) = FakeFlash::new(shape);
        let mut store = open(flash);
        assert_eq!((store.load(), store.state()), (None, StoreState::Idle));
        for (number, length) in (0u8..).zip(lengths(&shape)) {
            let bytes = configuration(number, length);
            assert_eq!(save(&mut store, &control, &bytes), Ok(StoreState::Idle), "{shape:?} {length}");
            assert_eq!(store.load(), Some(&bytes[..]));
            store = open(control.power_on());
            assert_eq!(store.load(), Some(&bytes[..]), "{shape:?} {length}");
            assert_eq!(store.current().unwrap().sequence, u32::from(number) + 1);
        }
    }
}

/// What stands there after a cut, and that the store goes on from there.
fn check_after_cut(control: &FlashControl, old: Option<&[u8]>, new: &[u8], place: &str) -> bool {
    let mut store = open(control.power_on());
    let loaded = store.load();
    assert!(loaded == old || loaded == Some(new), "{place}: neither old nor new");
    let is_new = loaded == Some(new);
    let next = configuration(200, 70.min(new.len() + 1));
    assert_eq!(save(&mut store, control, &next), Ok(StoreState::Idle), "{place}: then");
    assert_eq!(open(control.power_on()).load(), Some(&next[..]), "{place}: then");
    is_new
}

#[test]
fn power_that_goes_at_any_operation_leaves_the_old_or_the_new_configuration() {
    let cuts = [Cut::Before, Cut::After].into_iter().chain((0..12).map(Cut::Within));
    for shape in SHAPES {
        let lengths = if shape.block_bytes == 4096 { [5000, 100, 8200, 0] } else { [60, 1, 64, 33] };
        for saves in 0..lengths.len() {
            let configurations: Vec<_> =
                (0u8..).zip(&lengths[..=saves]).map(|(n, l)| configuration(n + 1, *l)).collect();
            let (new, before) = configurations.split_last().unwrap();
            for operation in 0.. {
                let (mut outcomes, mut whole) = (Vec::new(), false);
                for cut in cuts.clone() {
                    let (flash, control) = FakeFlash::new(shape);
                    let mut store = open(flash);
                    for bytes in before {
                        save(&mut store, &control, bytes).unwrap();
                    }
                    control.cut_at(operation, cut);
                    save(&mut store, &control, new).unwrap();
                    whole |= !control.is_off();
                    let place = format!("{shape:?}, save {saves}, operation {operation}, {cut:?}");
                    let old = before.last().map(Vec::as_slice);
                    outcomes.push(check_after_cut(&control, old, new, &place));
                }
                if whole {
                    assert!(operation > 1 && outcomes.iter().all(|is_new| *is_new));
                    break;
                }
                assert!(operation > 0 || outcomes.iter().all(|is_new| !is_new), "the erase makes it new");
            }
        }
    }
}

#[test]
fn cuts_that_follow_each_other_leave_what_was_stored_last_or_the_new_one() {
    let (mut flash, control) = FakeFlash::new(SHAPES[2]);
    let mut known: Option<Vec<u8>> = None;
    let mut cut_saves = 0;
    for round in 0..4000u64 {
        let mut store = open(flash);
        let new = configuration(round as u8, (round % 60) as usize + 1);
        control.cut_at(round * 7 % 9, Cut::Within(round));
        save(&mut store, &control, &new).unwrap();
        cut_saves += u32::from(control.is_off());
        flash = control.power_on();
        let loaded = open(flash).load().map(<[u8]>::to_vec);
        assert!(loaded == known || loaded.as_ref() == Some(&new), "round {round}");
        known = loaded;
        flash = control.power_on();
    }
    assert!(cut_saves > 1000 && known.is_some());
}

#[test]
fn a_copy_that_rots_gives_way_to_the_one_before_it() {
    let shape = SHAPES[2];
    let (flash, control) = FakeFlash::new(shape);
    let mut store = open(flash);
    let [old, new] = [configuration(1, 40), configuration(2, 50)];
    save(&mut store, &control, &old).unwrap();
    save(&mut store, &control, &new).unwrap();
    let area = Area::of(&shape).unwrap();
    let copy = store.current().unwrap().copy;
    for at in 0..HEADER_BYTES + new.len() {
        for bit in 0..8 {
            let place = area.start_of(copy) as usize + at;
            control.rot(place, bit);
            let store = open(control.power_on());
            assert_eq!(store.load(), Some(&old[..]), "byte {at}, bit {bit}");
            control.rot(place, bit);
        }
    }
    assert_eq!(open(control.power_on()).load(), Some(&new[..]));
}

#[test]
fn with_both_copies_damaged_the_defaults_count_and_saving_works() {
    for header in [false, true] {
        let (flash, control) = FakeFlash::new(SHAPES[0]);
        let mut store = open(flash);
        save(&mut store, &control, &configuration(1, 40)).unwrap();
        save(&mut store, &control, &configuration(2, 40)).unwrap();
        let area = Area::of(&SHAPES[0]).unwrap();
        for copy in 0..2 {
            control.rot(area.start_of(copy) as usize + if header { 13 } else { HEADER_BYTES }, 3);
        }
        let mut store = open(control.power_on());
        assert_eq!((store.load(), store.was_damaged(), store.state()), (None, true, StoreState::Idle));
        save(&mut store, &control, b"anew").unwrap();
        assert_eq!(open(control.power_on()).load(), Some(&b"anew"[..]));
    }
}

#[test]
fn what_is_stored_already_is_not_written_again() {
    let (flash, control) = FakeFlash::new(SHAPES[0]);
    let mut store = open(flash);
    save(&mut store, &control, b"same").unwrap();
    let operations = control.operations();
    let mut store = open(control.power_on());
    assert_eq!(save(&mut store, &control, b"same"), Ok(StoreState::Idle));
    assert_eq!(control.operations(), operations);
    save(&mut store, &control, b"sane").unwrap();
    assert!(control.operations() > operations);
}

#[test]
fn copies_take_turns_in_the_last_blocks_and_the_others_are_left_alone() {
    let (flash, control) = FakeFlash::new(SHAPES[0]);
    control.set_contents(0, b"a loader's");
    let mut store = open(flash);
    for number in 0..10 {
        save(&mut store, &control, &configuration(number, 100)).unwrap();
    }
    assert_eq!(control.erases(), [0, 0, 0, 5, 5]);
    assert!(control.contents().starts_with(b"a loader's"));
}

/// A header of another format, as a newer firmware would write it.
fn newer_header(sequence: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = Header::of(sequence, b"").bytes();
    bytes[8] = FORMAT as u8 + 1;
    let own = hal_simd::crc32c(0, &bytes[..28]);
    bytes[28..].copy_from_slice(&own.to_le_bytes());
    bytes
}

#[test]
fn a_newer_format_is_left_as_it_is() {
    for (copy, sequence) in [(0, 1), (0, 9), (1, 9)] {
        let (flash, control) = FakeFlash::new(SHAPES[1]);
        let mut store = open(flash);
        save(&mut store, &control, b"of this format").unwrap();
        let area = Area::of(&SHAPES[1]).unwrap();
        control.set_contents(area.start_of(copy) as usize, &newer_header(sequence));
        let before = control.contents();
        let mut store = open(control.power_on());
        let refusal = StoreError::NewerFormat(FORMAT + 1);
        assert_eq!((store.load(), store.state()), (None, StoreState::Absent(refusal)));
        assert_eq!(save(&mut store, &control, b"over it"), Err(refusal));
        assert_eq!(control.contents(), before);
    }
}

#[test]
fn no_flash_zeros_and_a_flash_that_is_too_small_are_no_store() {
    let zeros = {
        let (flash, control) = FakeFlash::new(SHAPES[0]);
        control.set_contents(0, &vec![0; SHAPES[0].bytes() as usize]);
        Some(flash)
    };
    let one_block = FakeFlash::new(FlashShape { blocks: 1, ..SHAPES[0] }).0;
    let large_units = FakeFlash::new(FlashShape { unit_bytes: 64, ..SHAPES[0] }).0;
    for (flash, why) in [
        (None, StoreError::NoStore),
        (zeros, StoreError::Unprepared),
        (Some(one_block), StoreError::Unsuitable),
        (Some(large_units), StoreError::Unsuitable),
    ] {
        let mut store: Store = ConfigurationStore::open(flash, vec![0; 64].leak());
        assert_eq!((store.load(), store.state()), (None, StoreState::Absent(why)));
        assert_eq!(store.save(b"any", Instant::ZERO), Err(why));
        assert_eq!(store.next_deadline(Instant::ZERO), Instant::FAR_FUTURE);
    }
}

#[test]
fn a_configuration_that_is_too_long_or_comes_too_early_changes_nothing() {
    let (flash, control) = FakeFlash::new(SHAPES[0]);
    let mut store = open(flash);
    save(&mut store, &control, b"first").unwrap();
    let long = vec![1; MAX_CONFIGURATION_BYTES + 1];
    assert_eq!(store.save(&long, Instant::ZERO), Err(StoreError::TooLong));
    assert_eq!(store.load(), Some(&b"first"[..]));
    store.save(b"second", Instant::ZERO).unwrap();
    assert_eq!((store.save(b"third", Instant::ZERO), store.load()), (Err(StoreError::Busy), None));
    while store.state() == StoreState::Saving {
        store.poll(Instant::ZERO);
    }
    assert_eq!(open(control.power_on()).load(), Some(&b"second"[..]));
}

#[test]
fn an_operation_that_fails_leaves_the_one_before_and_the_next_save_works() {
    for operation in 0.. {
        let (flash, control) = FakeFlash::new(SHAPES[2]);
        let mut store = open(flash);
        save(&mut store, &control, b"old").unwrap();
        control.fail_at(operation, FlashError::ProgramFailed);
        let state = save(&mut store, &control, b"new").unwrap();
        if state == StoreState::Idle {
            assert!(operation > 2);
            break;
        }
        assert_eq!(state, StoreState::Failed(StoreError::Flash(FlashError::ProgramFailed)));
        assert_eq!(open(control.power_on()).load(), Some(&b"old"[..]));
        assert_eq!(save(&mut store, &control, b"new"), Ok(StoreState::Idle));
        assert_eq!(open(control.power_on()).load(), Some(&b"new"[..]));
    }
}

#[test]
fn what_reads_otherwise_than_it_was_programmed_is_not_stored() {
    let (flash, control) = FakeFlash::new(SHAPES[0]);
    let mut store = open(flash);
    save(&mut store, &control, b"old").unwrap();
    // An erase, then what is programmed: the configuration's unit and the header's.
    for operation in [1, 2] {
        control.weaken(operation);
        let state = save(&mut store, &control, b"new");
        assert_eq!(state, Ok(StoreState::Failed(StoreError::ReadsOtherwise)));
        assert_eq!(open(control.power_on()).load(), Some(&b"old"[..]));
    }
}

#[test]
fn a_flash_that_does_not_answer_is_given_up_and_asked_again_by_the_next_save() {
    let (flash, control) = FakeFlash::new(SHAPES[0]);
    let mut store = open(flash);
    let mut now = Instant::ZERO;
    control.hang();
    for _ in 0..2 {
        store.save(b"any", now).unwrap();
        let end = now + FLASH_LIMIT + Duration::from_millis(100);
        while store.state() == StoreState::Saving && now < end {
            store.poll(now);
            now = store.next_deadline(now);
        }
        assert_eq!(store.state(), StoreState::Failed(StoreError::Flash(FlashError::NoAnswer)));
        now = end;
    }
}

#[test]
fn numbers_wrap() {
    let (flash, control) = FakeFlash::new(SHAPES[0]);
    let area = Area::of(&SHAPES[0]).unwrap();
    control.set_contents(area.start_of(1) as usize, &Header::of(u32::MAX, b"").bytes());
    let mut store = open(flash);
    save(&mut store, &control, b"next").unwrap();
    let store = open(control.power_on());
    assert_eq!((store.load(), store.current().unwrap().sequence), (Some(&b"next"[..]), 0));
}

/// A copy's bytes: anything, or a header that is whole and says anything.
fn any_copy() -> impl Strategy<Value = Vec<u8>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..96);
    let lengths = prop_oneof![0..100u32, any::<u32>()];
    let header =
        (any::<u32>(), lengths, any::<u32>(), 0..3u32).prop_map(|(sequence, length, sum, format)| {
            let mut bytes = Header::of(sequence, b"").bytes();
            bytes[8..12].copy_from_slice(&format.to_le_bytes());
            bytes[16..20].copy_from_slice(&length.to_le_bytes());
            bytes[20..24].copy_from_slice(&sum.to_le_bytes());
            let own = hal_simd::crc32c(0, &bytes[..28]);
            bytes[28..].copy_from_slice(&own.to_le_bytes());
            bytes.to_vec()
        });
    let whole = (any::<u32>(), proptest::collection::vec(any::<u8>(), 0..64))
        .prop_map(|(sequence, payload)| [&Header::of(sequence, &payload).bytes()[..], &payload].concat());
    prop_oneof![bytes, header, whole]
}

proptest! {
    #[test]
    fn whatever_stands_in_the_flash_is_read_and_written_over_or_left_alone(copies in [any_copy(), any_copy()]) {
        let shape = SHAPES[2];
        let (flash, control) = FakeFlash::new(shape);
        let area = Area::of(&shape).unwrap();
        for (copy, bytes) in (0u8..).zip(&copies) {
            control.set_contents(area.start_of(copy) as usize, bytes);
        }
        let mut store = open(flash);
        let (loaded, current) = (store.load().map(<[u8]>::to_vec), store.current());
        if let (Some(loaded), Some(current)) = (loaded, current) {
            let copy = &copies[usize::from(current.copy)];
            prop_assert_eq!(copy.get(HEADER_BYTES..HEADER_BYTES + loaded.len()), Some(&loaded[..]));
        }
        let before = control.contents();
        match save(&mut store, &control, b"new") {
            Ok(state) => {
                prop_assert_eq!(state, StoreState::Idle);
                let store = open(control.power_on());
                prop_assert_eq!(store.load(), Some(&b"new"[..]));
            }
            Err(error) => {
                prop_assert!(matches!(error, StoreError::NewerFormat(_) | StoreError::Unprepared));
                prop_assert_eq!(control.contents(), before);
            }
        }
    }
}
