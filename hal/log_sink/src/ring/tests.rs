//! The ring on ordinary threads.

use super::*;

fn write<const N: usize>(ring: &Ring<N>, frame: &[u8]) {
    let mut writer = FrameWriter::new();
    writer.begin(ring);
    writer.push(ring, frame);
    writer.end(ring);
}

fn read<const N: usize>(ring: &Ring<N>) -> Vec<u8> {
    let mut position = ring.taken();
    let mut bytes = Vec::new();
    while let Some(byte) = ring.byte_at(position) {
        bytes.push(byte);
        position = position.wrapping_add(1);
    }
    ring.take_until(position);
    bytes
}

#[test]
fn frames_wrap_around() {
    let ring = Ring::<16>::new();
    for round in 0..100u8 {
        write(&ring, &[round; 7]);
        write(&ring, &[round; 5]);
        assert_eq!(read(&ring), [round; 12]);
    }
    assert_eq!(ring.dropped(), 0);
}

#[test]
fn a_frame_that_does_not_fit_is_dropped_whole_and_counted() {
    let ring = Ring::<16>::new();
    write(&ring, &[1; 10]);
    write(&ring, &[2; 7]);
    assert_eq!(ring.dropped(), 1);
    write(&ring, &[3; 6]);
    assert_eq!(read(&ring), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 3, 3, 3, 3]);
    write(&ring, &[4; 17]);
    assert_eq!((ring.dropped(), read(&ring).len()), (2, 0));
}

#[test]
fn what_was_read_can_still_be_looked_back_at() {
    let ring = Ring::<16>::new();
    assert_eq!(ring.last(3).collect::<Vec<_>>(), [0; 3]);
    write(&ring, &[1, 2, 3]);
    assert_eq!(read(&ring), [1, 2, 3]);
    assert_eq!(ring.last(2).collect::<Vec<_>>(), [2, 3]);
    write(&ring, &[4; 15]);
    let mut expected = vec![3];
    expected.extend([4; 15]);
    assert_eq!(ring.last(100).collect::<Vec<_>>(), expected);
}

#[test]
fn an_unfinished_frame_is_not_seen() {
    let ring = Ring::<16>::new();
    let mut writer = FrameWriter::new();
    writer.begin(&ring);
    writer.push(&ring, &[1, 2, 3]);
    assert_eq!(ring.byte_at(ring.taken()), None);
    writer.end(&ring);
    assert_eq!(read(&ring), [1, 2, 3]);
}

#[test]
fn two_threads_pass_every_frame_in_order() {
    let ring = Ring::<64>::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20_000u32 {
                let before = ring.dropped();
                loop {
                    write(&ring, &round.to_le_bytes());
                    if ring.dropped() == before {
                        break;
                    }
                    ring.dropped.store(before, Ordering::Relaxed);
                    std::thread::yield_now();
                }
            }
        });
        let mut seen = Vec::new();
        while seen.len() < 80_000 {
            seen.extend(read(&ring));
            std::thread::yield_now();
        }
        for (round, frame) in seen.chunks(4).enumerate() {
            assert_eq!(frame, (round as u32).to_le_bytes());
        }
    });
}
