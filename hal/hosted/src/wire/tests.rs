//! Two ports on a socket pair, and a peer that is QEMU.

use hal_api::Wake;

use super::*;
use crate::{MonotonicClock, Sleeper};

fn watcher() -> (Sleeper, Watcher) {
    let sleeper = Sleeper::new(MonotonicClock::start()).unwrap();
    let watcher = sleeper.watcher();
    (sleeper, watcher)
}

fn send(queue: &mut WireQueue, frame: &[u8]) -> bool {
    let transmit = queue.halves().1;
    transmit.transmit(frame.len(), |into| into.copy_from_slice(frame), |_| None).is_ok()
}

fn receive(queue: &mut WireQueue) -> Option<Vec<u8>> {
    queue.halves().0.receive(<[u8]>::to_vec)
}

fn frame(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + number) as u8).collect()
}

#[test]
fn frames_of_all_sizes_arrive_whole_and_in_order() {
    let (near, far) = UnixStream::pair().unwrap();
    let (_sleeper, watch) = watcher();
    let mut near = WireQueue::over(near, [2; 6], 9000, watch.clone()).unwrap();
    let mut far = WireQueue::over(far, [4; 6], 9000, watch).unwrap();
    assert!(!send(&mut near, &frame(0, 9019)), "longer than the MTU allows");
    let sizes = [14, 60, 1514, 9018, 61, 9000];
    let (mut sent, mut received) = (0, 0);
    while received < 2000 {
        // Far more than the socket holds: what finds no room waits.
        while sent < 2000 && near.halves().1.has_room() {
            assert!(send(&mut near, &frame(sent, sizes[sent % sizes.len()])));
            sent += 1;
        }
        near.flush();
        while let Some(got) = receive(&mut far) {
            assert!(got == frame(received, sizes[received % sizes.len()]), "frame {received}");
            received += 1;
        }
    }
    assert_eq!(sent, 2000);
}

#[test]
fn a_sleep_ends_with_a_frame_and_with_room_and_none_is_lost_between() {
    let (near, far) = UnixStream::pair().unwrap();
    let (mut sleeper, watch) = watcher();
    let mut near = WireQueue::over(near, [2; 6], 1500, watch).unwrap();
    let mut far = WireQueue::over(far, [4; 6], 1500, watcher().1).unwrap();
    assert!(!near.arm());
    send(&mut far, &frame(1, 60));
    send(&mut far, &frame(2, 60));
    far.flush();
    sleeper.sleep_until(hal_api::Instant::FAR_FUTURE);
    near.disarm();
    assert_eq!(receive(&mut near), Some(frame(1, 60)));
    // The second was read together with the first: the kernel would not tell of it again.
    assert!(near.arm());
    near.disarm();
    assert_eq!(receive(&mut near), Some(frame(2, 60)));
    assert!(!near.arm());
    near.disarm();

    // Fills the socket until something is left over; then the peer reads it all.
    while near.transmit.buffer.is_empty() {
        send(&mut near, &frame(3, 1500));
        near.flush();
    }
    assert!(!near.arm());
    while receive(&mut far).is_some() {}
    sleeper.sleep_until(hal_api::Instant::FAR_FUTURE);
    near.disarm();
    near.flush();
    assert!(near.transmit.buffer.is_empty());
}

#[test]
fn a_peer_goes_and_another_comes() {
    let path = std::env::temp_dir().join(format!("penstock-wire-{}", std::process::id()));
    let side = WireSide::Listen(path.clone());
    let mut port = WireQueue::open(&side, [2; 6], 1500, watcher().1).unwrap();
    assert!(!port.link_is_up());
    let busy = WireQueue::open(&side, [2; 6], 1500, watcher().1).unwrap_err();
    assert!(busy.to_string().contains("another process listens"), "{busy}");
    // That look was a peer, which is gone again.
    assert!(port.link_is_up());
    assert_eq!(receive(&mut port), None);
    for _ in 0..2 {
        let mut peer = WireQueue::open(&WireSide::Connect(path.clone()), [4; 6], 1500, watcher().1).unwrap();
        assert!(port.link_is_up() && peer.link_is_up());
        send(&mut peer, &frame(5, 100));
        peer.flush();
        assert_eq!(receive(&mut port), Some(frame(5, 100)));
        drop(peer);
        assert_eq!(receive(&mut port), None);
        assert!(!port.link_is_up());
    }
    // Half a frame of a peer that is gone is not joined to the next one's first.
    let mut peer = UnixStream::connect(&path).unwrap();
    assert!(port.link_is_up());
    peer.write_all(&[0, 0, 0, 60, 1, 2, 3]).unwrap();
    assert_eq!(receive(&mut port), None);
    drop(peer);
    assert_eq!(receive(&mut port), None);
    assert!(!port.link_is_up());
    let mut peer = UnixStream::connect(&path).unwrap();
    assert!(port.link_is_up());
    peer.write_all(&[0, 0, 0, 2, 8, 9]).unwrap();
    assert_eq!(receive(&mut port), Some(vec![8, 9]));
    // Nonsense for a length ends the peer.
    peer.write_all(&[0xff; 8]).unwrap();
    assert_eq!(receive(&mut port), None);
    assert!(!port.link_is_up());
    drop(port);
    assert!(!path.exists());
}

#[test]
fn a_path_that_cannot_be_a_socket_is_refused() {
    let text = |side: WireSide| WireQueue::open(&side, [2; 6], 1500, watcher().1).unwrap_err().to_string();
    assert!(text(WireSide::Listen("/nonexistent/wire".into())).contains("folder does not exist"));
    assert!(text(WireSide::Listen("/".into())).contains("not a socket"));
    assert!(text(WireSide::Connect(format!("/tmp/{}", "a".repeat(120)).into())).contains("107"));
}
