//! The network between the card and its hosts: a switch with cables that take time, lose, double, overtake, damage, and
//! can be cut.
//!
//! Damage is a burst of at most 15 bits in what an IP or TCP checksum covers, which such a checksum always finds. Forgery
//! is a burst of at most 31 bits in a TCP payload with the checksum made anew, as by a switch with a bad memory: only a
//! digest finds it. A frame lives for 100 ms at most: that is what hosts rely on when they come back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use hal_api::{FrameQueue, FrameReceive, Instant};
use hal_fakes::{FakeFrameQueue, FarEnd};

use crate::kinds::Kind;
use crate::media::Time;
use crate::rss::Rss;
use crate::settings::Weather;
use crate::trace::{Trace, digest};

/// How long a frame is held back at most so that others overtake it.
const HELD_BACK_US: u64 = 20_000;
/// Of a frame so much goes into the hash of a run: all headers, and where they differ all else would.
const HASHED_BYTES: usize = 80;
const ETHERNET_HEADER: usize = 14;
const IP_HEADER: usize = 20;
/// How the MAC addresses of hosts that keep to the rules begin.
const HOSTS: [u8; 5] = [2, 0, 0, 0, 1];
/// The last of the PDU types that come before digests are agreed upon: ICReq is 0, ICResp is 1.
const LAST_WITHOUT_DIGEST: u8 = 1;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: Instant,
    sequence: u64,
    port: usize,
    frame: Vec<u8>,
}

#[derive(Debug)]
struct Port {
    /// The network's end of each queue of the device.
    queues: Vec<FakeFrameQueue>,
    /// How the device chooses among them. What it has no rule for goes to the first.
    rss: Option<Rss>,
    mac: [u8; 6],
    /// Its device drops what is damaged.
    verifies: bool,
    /// Towards it and from it, until then.
    cut: [Instant; 2],
    /// When the last frame towards it arrives: others come after it.
    last: Instant,
}

/// The switch and its cables. Port 0 is the card's.
#[derive(Debug)]
pub struct Network {
    ports: Vec<Port>,
    flights: BinaryHeap<Reverse<Flight>>,
    sequence: u64,
    /// Frames that did not arrive as they were sent.
    missed: u64,
    latency_us: (u64, u64),
    weather: Weather,
    random: Rng,
    time: Time,
    trace: Trace,
}

impl Network {
    /// A network without ports.
    #[must_use]
    pub fn new(latency_us: (u64, u64), weather: Weather, random: Rng, time: &Time, trace: &Trace) -> Self {
        let (time, trace) = (time.clone(), trace.clone());
        Self {
            ports: Vec::new(),
            flights: BinaryHeap::new(),
            sequence: 0,
            missed: 0,
            latency_us,
            weather,
            random,
            time,
            trace,
        }
    }

    /// Plugs a cable in, or another device into the cable of `mac`; `far` is the network's end of it.
    pub fn plug(&mut self, far: FakeFrameQueue, mac: [u8; 6], verifies: bool) -> usize {
        self.plug_queues(vec![far], None, mac, verifies)
    }

    /// The same for a device with several queues, to which it steers by `rss`.
    pub fn plug_queues(
        &mut self,
        queues: Vec<FakeFrameQueue>,
        rss: Option<Rss>,
        mac: [u8; 6],
        verifies: bool,
    ) -> usize {
        let port = Port { queues, rss, mac, verifies, cut: [Instant::ZERO; 2], last: Instant::ZERO };
        if let Some(known) = self.ports.iter().position(|port| port.mac == mac) {
            self.ports[known] = port;
            return known;
        }
        self.ports.push(port);
        self.ports.len() - 1
    }

    /// A look at what waits in the first queue of a port's device.
    #[must_use]
    pub fn watch(&self, port: usize) -> FarEnd {
        self.ports[port].queues[0].far_end()
    }

    /// A look at what waits in each queue of a port's device.
    #[must_use]
    pub fn watch_queues(&self, port: usize) -> Vec<FarEnd> {
        self.ports[port].queues.iter().map(FakeFrameQueue::far_end).collect()
    }

    /// Good weather from now on, and no cuts.
    pub fn clear_up(&mut self) {
        self.weather = Weather::default();
        for port in &mut self.ports {
            port.cut = [Instant::ZERO; 2];
        }
    }

    /// Cuts a cable until then, in one direction or in both.
    pub fn cut(&mut self, port: usize, towards: bool, from: bool, until: Instant) {
        let cut = &mut self.ports[port].cut;
        for (place, wanted) in cut.iter_mut().zip([towards, from]) {
            if wanted {
                *place = until;
            }
        }
        let values = [port as u64, towards.into(), from.into(), until.as_micros()];
        self.trace.event(Kind::Cut, &values, format_args!("port {port} towards {towards} from {from}"));
    }

    /// How many frames did not arrive as they were sent: while this stays, what was sent is heard.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// When the next frame arrives somewhere.
    #[must_use]
    pub fn next_arrival(&self) -> Instant {
        self.flights.peek().map_or(Instant::FAR_FUTURE, |flight| flight.0.due)
    }

    /// Takes what the device of a port has sent.
    pub fn collect(&mut self, port: usize) {
        for queue in 0..self.ports[port].queues.len() {
            while let Some(frame) = self.ports[port].queues[queue].halves().0.receive(<[u8]>::to_vec) {
                self.trace.detail(
                    Kind::Frame,
                    &[port as u64, frame.len() as u64, digest(&frame[..frame.len().min(HASHED_BYTES)])],
                    format_args!("port {port}, {} bytes{}", frame.len(), summary(&frame)),
                );
                self.route(port, &frame);
            }
            self.ports[port].queues[queue].flush();
        }
    }

    /// Puts a frame on the wire that no device has made.
    pub fn route(&mut self, from: usize, frame: &[u8]) {
        let Some(destination) = frame.get(..6) else { return };
        for port in 0..self.ports.len() {
            if port != from && (destination[0] & 1 != 0 || destination == self.ports[port].mac) {
                self.carry(from, port, frame.to_vec());
            }
        }
    }

    /// Brings what has arrived; returns the port. Where `is_awake` says so of one of the card's queues, its core may be in the middle
    /// of a turn.
    pub fn deliver(&mut self, is_awake: impl Fn(usize) -> bool) -> Option<usize> {
        let now = self.time.now();
        if self.next_arrival() > now {
            return None;
        }
        let Reverse(Flight { port, frame, .. }) = self.flights.pop()?;
        let values = [port as u64];
        if now < self.ports[port].cut[0] {
            self.missed += 1;
            self.trace.detail(Kind::FrameCut, &values, format_args!("towards port {port}"));
            return Some(port);
        }
        let Port { queues, rss, .. } = &mut self.ports[port];
        let queue = rss.and_then(|rss| rss.queue_of(&frame)).unwrap_or(0);
        let end = &mut queues[queue];
        let lost = end.frames_lost();
        // In the middle of a turn, between the look at the queue and the request for an interrupt.
        if port == 0 && is_awake(queue) && self.random.u32(0..8) == 0 {
            end.inject_late(&frame);
        } else {
            end.inject(&frame);
        }
        if end.frames_lost() > lost {
            self.missed += 1;
            self.trace.detail(Kind::FrameOverrun, &values, format_args!("port {port}"));
        }
        Some(port)
    }

    fn carry(&mut self, from: usize, to: usize, mut frame: Vec<u8>) {
        let now = self.time.now();
        let values = [from as u64, to as u64];
        if now < self.ports[from].cut[1] {
            self.missed += 1;
            return self.trace.detail(Kind::FrameCut, &values, format_args!("from port {from}"));
        }
        let weather = self.weather;
        let mut strikes = |of_thousand: u32| of_thousand > 0 && self.random.u32(0..1000) < of_thousand;
        let (lost, doubled, late, damaged, forged) = (
            strikes(weather.lost),
            strikes(weather.doubled),
            strikes(weather.late),
            strikes(weather.damaged),
            strikes(weather.forged),
        );
        self.missed += u64::from(lost || damaged);
        if lost {
            return self.trace.detail(Kind::FrameLost, &values, format_args!("{from} to {to}"));
        }
        if damaged && damage(&mut frame, &mut self.random) {
            self.trace.detail(Kind::FrameDamaged, &values, format_args!("{from} to {to}"));
            if self.ports[to].verifies {
                return;
            }
        }
        if forged && forge(&mut frame, &mut self.random) {
            self.trace.detail(Kind::FrameForged, &values, format_args!("{from} to {to}"));
        }
        if doubled {
            self.trace.detail(Kind::FrameDoubled, &values, format_args!("{from} to {to}"));
            self.launch(to, frame.clone(), late);
        }
        if late {
            self.trace.detail(Kind::FrameLate, &values, format_args!("{from} to {to}"));
        }
        self.launch(to, frame, late);
    }

    fn launch(&mut self, port: usize, frame: Vec<u8>, late: bool) {
        let latency = self.random.u64(self.latency_us.0..=self.latency_us.1);
        let mut due = self.time.now() + Duration::from_micros(latency);
        if late {
            due = due + Duration::from_micros(self.random.u64(0..HELD_BACK_US));
        } else {
            due = due.max(self.ports[port].last);
            self.ports[port].last = due;
        }
        self.sequence += 1;
        self.flights.push(Reverse(Flight { due, sequence: self.sequence, port, frame }));
    }
}

/// Changes a burst of bits in an IPv4 packet; false where the frame is none.
fn damage(frame: &mut [u8], random: &mut Rng) -> bool {
    let is_ip = frame.get(12..14) == Some(&[8, 0]);
    if !is_ip || frame.len() < ETHERNET_HEADER + 40 {
        return false;
    }
    let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let end = (ETHERNET_HEADER + total).min(frame.len());
    let start_bit = random.usize(ETHERNET_HEADER * 8..end * 8);
    let length = random.usize(1..=15);
    for bit in start_bit..(start_bit + length).min(end * 8) {
        // The first bit changes in any case.
        if bit == start_bit || random.bool() {
            frame[bit / 8] ^= 0x80 >> (bit % 8);
        }
    }
    true
}

/// Changes a burst of bits in the payload of a host's TCP segment, and makes the checksum fit; false where the frame has
/// none, or one that no digest may cover.
fn forge(frame: &mut [u8], random: &mut Rng) -> bool {
    let of_host = frame.get(..5) == Some(&HOSTS[..]) || frame.get(6..11) == Some(&HOSTS[..]);
    let is_tcp = frame.get(12..15) == Some(&[8, 0, 0x45]) && frame.get(23) == Some(&6);
    let tcp = ETHERNET_HEADER + IP_HEADER;
    if !of_host || !is_tcp || frame.len() < tcp + 20 {
        return false;
    }
    let end = ETHERNET_HEADER + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let payload = tcp + usize::from(frame[tcp + 12] >> 4) * 4;
    if payload >= end || end > frame.len() || frame[payload] <= LAST_WITHOUT_DIGEST {
        return false;
    }
    let start_bit = random.usize(payload * 8..end * 8);
    let length = random.usize(1..=31);
    for bit in start_bit..(start_bit + length).min(end * 8) {
        if bit == start_bit || random.bool() {
            frame[bit / 8] ^= 0x80 >> (bit % 8);
        }
    }
    frame[tcp + 16..tcp + 18].fill(0);
    // The pseudo header: both addresses, the protocol, the length (RFC 9293, section 3.1).
    let pseudo = 6 + (end - tcp) as u32;
    let words = frame[ETHERNET_HEADER + 12..tcp].chunks(2).chain(frame[tcp..end].chunks(2));
    let mut sum = words.fold(pseudo, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[tcp + 16..tcp + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    true
}

/// What a reader of a trace wants to know of a frame.
fn summary(frame: &[u8]) -> String {
    if frame.get(12..14) != Some(&[8, 0]) || frame.len() < 54 || frame[23] != 6 {
        return String::new();
    }
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let number = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    let flags = frame[47];
    let letters: String = [(1, 'F'), (2, 'S'), (4, 'R'), (8, 'P'), (16, 'A')]
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, letter)| *letter)
        .collect();
    let bytes = usize::from(port(16)).saturating_sub(20 + usize::from(frame[46] >> 4) * 4);
    format!(" {}>{} {letters} {} ack {} +{bytes}", port(34), port(36), number(38), number(42))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(bytes: &[u8]) -> u16 {
        let mut sum: u32 =
            bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn damage_never_escapes_a_checksum() {
        let mut random = Rng::with_seed(7);
        for _ in 0..2000 {
            // One sum over all of the packet: weaker than the two that IP and TCP have.
            let mut frame: Vec<u8> = (0..134).map(|_| random.u8(..)).collect();
            frame[12..14].copy_from_slice(&[8, 0]);
            frame[16..18].copy_from_slice(&120u16.to_be_bytes());
            let before = checksum(&frame[14..]);
            let original = frame.clone();
            assert!(damage(&mut frame, &mut random));
            assert_ne!(frame, original);
            assert_ne!(checksum(&frame[14..]), before);
        }
    }
}
