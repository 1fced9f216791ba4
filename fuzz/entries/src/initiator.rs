//! The PDU stream of a hostile target into the host side of NVMe/TCP.

use nvmeof::Stream;
use nvmeof::initiator::{HostQueue, Payload, QueueOptions, Slot, Transfer, commands};
use nvmeof::pdu::Digests;

use crate::memory::Input;

/// What each command moves, by its token.
const TRANSFERS: [Transfer; 5] = [
    Transfer::Receive(4096),
    Transfer::Send(16384),
    Transfer::SendInCapsule(512),
    Transfer::None,
    Transfer::Receive(100_000),
];

/// The target's end: what it sends, in pieces of one size; what it gets is thrown away.
struct Wire<'a> {
    from_target: &'a [u8],
    fragment: usize,
}

impl Stream for Wire<'_> {
    fn receive(&mut self, take: impl FnOnce(&[u8]) -> usize) -> usize {
        let shown = &self.from_target[..self.fragment.min(self.from_target.len())];
        let taken = take(shown);
        self.from_target = &self.from_target[taken..];
        taken
    }
    fn send_room(&self) -> usize {
        self.fragment
    }
    fn send(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) -> usize {
        let sent = fill(&mut vec![0; self.fragment]);
        assert!(sent <= self.fragment);
        sent
    }
    fn close(&mut self) {}
    fn abort(&mut self) {}
}

/// Pieces have to come in order, inside of what the command asked for, and for commands that are out.
#[derive(Default)]
struct Pieces {
    out: [bool; TRANSFERS.len()],
    stored: [u32; TRANSFERS.len()],
    loaded: [u32; TRANSFERS.len()],
}

impl Payload for Pieces {
    fn store(&mut self, token: u64, offset: u32, bytes: &[u8]) {
        let at = token as usize;
        let Transfer::Receive(limit) = TRANSFERS[at] else { panic!("data for a command that reads none") };
        assert!(self.out[at] && offset == self.stored[at], "out of order");
        self.stored[at] += bytes.len() as u32;
        assert!(self.stored[at] <= limit, "more than was asked for");
    }
    fn load(&mut self, token: u64, offset: u32, room: &mut [u8]) {
        let at = token as usize;
        let (Transfer::Send(limit) | Transfer::SendInCapsule(limit)) = TRANSFERS[at] else {
            panic!("data of a command that sends none")
        };
        assert!(self.out[at] && offset == self.loaded[at], "out of order");
        self.loaded[at] += room.len() as u32;
        assert!(self.loaded[at] <= limit, "more than there is");
        room.fill(0x5a);
    }
}

/// The first byte sets the size of fragments, the digests, and whether a sound ICResp comes first; the rest is what the
/// target sends while commands of each kind are out.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let setting = input.byte();
    let digests = Digests { header: setting & 8 != 0, data: setting & 16 != 0 };
    let mut bytes = Vec::new();
    if setting & 4 != 0 {
        bytes.extend(response(digests));
    }
    bytes.extend(input.0);
    let slots: [Slot; TRANSFERS.len()] = std::array::from_fn(|_| Slot::default());
    let mut queue = HostQueue::new(slots, QueueOptions { digests, alignment: 0 });
    let mut pieces = Pieces::default();
    for (token, transfer) in TRANSFERS.into_iter().enumerate() {
        queue.submit(token as u64, &commands::flush(1), transfer).expect("a free slot");
        pieces.out[token] = true;
    }
    let mut wire = Wire { from_target: &bytes, fragment: [1, 7, 64, 8192][usize::from(setting & 3)] };
    for _ in 0..8 {
        let result = queue.poll(&mut wire, &mut pieces);
        while let Some(completed) = queue.take_completed() {
            let out = &mut pieces.out[completed.token as usize];
            assert!(std::mem::replace(out, false), "a command that ends twice");
        }
        if result.is_err() {
            break;
        }
    }
    while let Some(token) = queue.take_abandoned() {
        assert!(std::mem::replace(&mut pieces.out[token as usize], false), "a command that ends twice");
    }
    assert_eq!(pieces.out, [false; TRANSFERS.len()], "a command that never ends");
}

/// ICResp (TCP 3.6.2.3).
fn response(digests: Digests) -> [u8; 128] {
    let mut pdu = [0; 128];
    (pdu[0], pdu[2], pdu[4]) = (1, 128, 128);
    pdu[11] = u8::from(digests.header) | u8::from(digests.data) << 1;
    pdu[12..16].copy_from_slice(&131_072u32.to_le_bytes());
    pdu
}
