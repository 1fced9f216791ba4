//! What a peer writes on the hosted card's wire: frames behind their lengths, or anything else.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use hal_api::{FrameQueue, FrameReceive};
use hal_hosted::{MonotonicClock, Sleeper, WireQueue};

/// Bytes that a socket takes at once, whatever the system's settings.
const PIECE_BYTES: usize = 1024;

/// Sends all but the first byte, which says in what pieces; what arrives has to be what the lengths say.
pub fn run(bytes: &[u8]) {
    let Some((&first, sent)) = bytes.split_first() else { return };
    let pieces = (usize::from(first) * 4).clamp(1, PIECE_BYTES);
    let (near, mut far) = UnixStream::pair().expect("a socket pair");
    let sleeper = Sleeper::new(MonotonicClock::start()).expect("a sleeper");
    let mut port = WireQueue::over(near, [2; 6], 1500, sleeper.watcher()).expect("a port");
    let mut received = Vec::new();
    for piece in sent.chunks(pieces) {
        // The port may have closed its end for good reason.
        if far.write_all(piece).is_err() {
            break;
        }
        while let Some(frame) = port.halves().0.receive(<[u8]>::to_vec) {
            received.push(frame);
        }
    }
    let _ = far.shutdown(Shutdown::Both);
    while let Some(frame) = port.halves().0.receive(<[u8]>::to_vec) {
        received.push(frame);
    }
    let mut rest = sent;
    for frame in received {
        let (length, after) = rest.split_first_chunk::<4>().expect("a length for each frame");
        assert_eq!(u32::from_be_bytes(*length) as usize, frame.len());
        assert_eq!(after.get(..frame.len()), Some(frame.as_slice()));
        rest = &after[frame.len()..];
    }
}
