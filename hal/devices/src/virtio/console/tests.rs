//! The console against a device that keeps to the rules, and one that does not.

use std::collections::VecDeque;

use super::super::model::{ModelTransport, Random};
use super::super::{FEATURE_VERSION_1, VirtioError};
use super::*;

/// VIRTIO_CONSOLE_F_SIZE, F_MULTIPORT and F_EMERG_WRITE: offered by QEMU and not wanted.
const OTHERS: u64 = 0b111;
const OFFERED: u64 = FEATURE_VERSION_1 | FEATURE_EVENT_INDEX | OTHERS;

fn console(features: u64) -> (VirtioConsole, ModelTransport) {
    let mut transport = ModelTransport::new(features, 64, &[0; 12]);
    let mut dma = DmaRegion::leak_for_host(VirtioConsole::MEMORY_BYTES.next_multiple_of(4096));
    let console = VirtioConsole::over(&mut transport, &mut dma, 1).unwrap();
    (console, transport)
}

#[test]
fn one_port_is_agreed_on_and_buffers_are_posted() {
    for features in [OFFERED, FEATURE_VERSION_1] {
        let (_, transport) = console(features);
        let mut state = transport.state.borrow_mut();
        assert_eq!(state.accepted, features & !OTHERS);
        assert!(state.take_kick(0) && !state.take_kick(1));
        assert_eq!(state.queue(0).fetch_all().len(), usize::from(ENTRIES));
        assert_eq!(state.queue(1).fetch_all().len(), 0);
    }
}

#[test]
fn a_device_without_a_modern_interface_or_a_queue_is_refused() {
    let mut dma = DmaRegion::leak_for_host(1 << 16);
    let mut old = ModelTransport::new(OTHERS, 64, &[0; 12]);
    assert_eq!(VirtioConsole::over(&mut old, &mut dma, 1).err(), Some(VirtioError::NotVersion1));
    let mut none = ModelTransport::new(OFFERED, 0, &[0; 12]);
    assert_eq!(VirtioConsole::over(&mut none, &mut dma, 1).err(), Some(VirtioError::BadQueue));
    assert_ne!(none.state.borrow().status & status::FAILED, 0);
    let mut good = ModelTransport::new(OFFERED, 64, &[0; 12]);
    let error = VirtioConsole::over(&mut good, &mut DmaRegion::leak_for_host(4096), 1).err();
    assert_eq!(error, Some(VirtioError::OutOfMemory));
}

#[test]
fn bytes_come_out_in_order_however_they_are_cut() {
    for features in [OFFERED, FEATURE_VERSION_1] {
        let (mut console, transport) = console(features);
        let mut random = Random(7);
        let (mut next_in, mut next_out, mut waiting) = (0u8, 0u8, VecDeque::new());
        for _ in 0..5000 {
            // Towards the card.
            if waiting.len() < 8 && random.below(2) == 0 {
                let bytes: Vec<u8> =
                    (0..random.below(BUFFER_BYTES + 1)).map(|at| next_in.wrapping_add(at as u8)).collect();
                next_in = next_in.wrapping_add(bytes.len() as u8);
                transport.state.borrow_mut().queue(0).deliver(&bytes);
                waiting.push_back(bytes.len());
            }
            let mut into = vec![0; random.below(900)];
            let read = console.read(&mut into);
            for byte in &into[..read] {
                assert_eq!(*byte, next_out);
                next_out = next_out.wrapping_add(1);
            }
            console.flush();
            if read < into.len() {
                assert!(next_in == next_out, "more was there");
                waiting.clear();
            }
        }
    }
}

#[test]
fn what_is_written_reaches_the_device_and_room_is_what_it_has_given_back() {
    let (mut console, transport) = console(OFFERED);
    let bytes: Vec<u8> = (0..10_000).map(|at| at as u8).collect();
    let (mut written, mut got) = (0, Vec::new());
    assert_eq!(console.write(&bytes), usize::from(ENTRIES) * BUFFER_BYTES);
    assert_eq!(console.write(&bytes), 0);
    assert!(!console.arm());
    written += usize::from(ENTRIES) * BUFFER_BYTES;
    console.disarm();
    while got.len() < bytes.len() {
        console.flush();
        let mut state = transport.state.borrow_mut();
        while let Some((id, frame)) = state.queue(1).fetch_frame() {
            got.extend(frame);
            state.queue(1).complete(id, 0);
        }
        drop(state);
        written += console.write(&bytes[written..]);
    }
    assert_eq!(got, bytes);
    assert!(console.fault().is_none());
}

#[test]
fn a_core_is_woken_for_bytes_and_for_room_that_it_waits_for() {
    let (mut console, transport) = console(OFFERED);
    assert!(!console.arm());
    assert!(transport.state.borrow_mut().queue(0).deliver(&[1, 2, 3]), "an interrupt is asked for");
    assert!(console.arm());
    console.disarm();
    let mut one = [0];
    assert_eq!(console.read(&mut one), 1);
    assert!(console.arm(), "two bytes are left");
    console.disarm();
    while console.write(&[0; BUFFER_BYTES]) > 0 {}
    let mut rest = [0; 8];
    assert_eq!(console.read(&mut rest), 2);
    assert!(!console.arm());
    let mut state = transport.state.borrow_mut();
    let (id, _) = state.queue(1).fetch_frame().unwrap();
    assert!(state.queue(1).complete(id, 0), "an interrupt is asked for");
}

#[test]
fn a_device_that_breaks_its_queue_is_read_no_more() {
    let (mut console, transport) = console(OFFERED);
    transport.state.borrow_mut().queue(0).fetch_all();
    transport.state.borrow_mut().queue(0).put_used(0, BUFFER_BYTES as u32 + 1);
    assert_eq!(console.read(&mut [0; 64]), 0);
    assert_eq!(console.fault(), Some(QueueFault::TooLong));
    assert!(!console.arm());
}
