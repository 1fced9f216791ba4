//! The ring under the model checker: every order in which the two cores' accesses can be seen. `cargo xtask test loom`.
//!
//! Bytes are relaxed atomics, so that a missing fence shows as a byte of another frame, or as a frame in two pieces.

use loom::sync::Arc;
use loom::thread;

use super::*;

/// A frame of `value`, twice; whether it was taken.
fn write<const N: usize>(ring: &Ring<N>, value: u8) -> bool {
    let before = ring.dropped();
    let mut writer = FrameWriter::new();
    writer.begin(ring);
    writer.push(ring, &[value; 2]);
    writer.end(ring);
    ring.dropped() == before
}

/// What is published now; all of it is given back.
fn read<const N: usize>(ring: &Ring<N>, bytes: &mut Vec<u8>) {
    let mut position = ring.taken();
    while let Some(byte) = ring.byte_at(position) {
        bytes.push(byte);
        position = position.wrapping_add(1);
    }
    ring.take_until(position);
}

fn frames_arrive_whole<const N: usize, const FRAMES: u8>() {
    loom::model(|| {
        let ring = Arc::new(Ring::<N>::new());
        let shared = ring.clone();
        let writer =
            thread::spawn(move || (1..=FRAMES).filter(|value| write(&shared, *value)).collect::<Vec<_>>());
        let mut bytes = Vec::new();
        read(&ring, &mut bytes);
        read(&ring, &mut bytes);
        let sent = writer.join().unwrap();
        read(&ring, &mut bytes);
        let expected: Vec<u8> = sent.iter().flat_map(|value| [*value; 2]).collect();
        assert_eq!(bytes, expected);
        assert_eq!(ring.dropped() as usize, usize::from(FRAMES) - sent.len());
    });
}

#[test]
fn a_published_frame_has_its_bytes() {
    frames_arrive_whole::<4, 2>();
}

#[test]
fn a_place_is_written_again_only_when_it_was_read() {
    frames_arrive_whole::<2, 2>();
}
