//! A wire that we hold in the middle: frames between two machines pass through this process, which may lose,
//! repeat, swap and damage some of them, pass none, reset connections, or add its own.

use super::segment::{ETHERNET_BYTES, Segment};
use crate::paths::TemporaryFolder;
use crate::qemu;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddrV4;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a frame that was kept back waits for another to overtake it.
const OVERTAKING_LIMIT: Duration = Duration::from_millis(20);
/// Bytes before each frame on QEMU's stream: its length.
const LENGTH_BYTES: usize = 4;
/// More than any frame: what announces more is no stream of frames.
const MAX_FRAME_BYTES: usize = 1 << 17;
/// A connection carries data when so much came in segments of at least [`FULL_SEGMENT_BYTES`], one behind the other: more
/// than identify data and log pages, so that it is the data of a command, and more of it is to follow.
const DATA_RUN_BYTES: u32 = 10_000;
/// Data of a segment that is followed by more of the same.
const FULL_SEGMENT_BYTES: u32 = 1000;

/// What happens to frames, in percent of them, each way. Nothing unless said.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Weather {
    /// Frames that do not arrive.
    #[serde(default)]
    pub loss: f64,
    /// Frames that arrive twice.
    #[serde(default)]
    pub repeat: f64,
    /// Frames that the next one overtakes.
    #[serde(default)]
    pub swap: f64,
    /// IPv4 packets with one bit changed.
    #[serde(default)]
    pub damage: f64,
    /// Nothing passes at all, while both ends see their link up.
    #[serde(default)]
    pub cut: bool,
}

impl Weather {
    /// What it does, in words.
    pub fn text(&self) -> String {
        if self.cut {
            return "nothing passes".to_owned();
        }
        let parts = [
            (self.loss, "lost"),
            (self.repeat, "repeated"),
            (self.swap, "swapped"),
            (self.damage, "damaged"),
        ];
        let bad: Vec<String> = parts
            .iter()
            .filter(|(percent, _)| *percent > 0.0)
            .map(|(percent, what)| format!("{percent} % {what}"))
            .collect();
        if bad.is_empty() { "all passes".to_owned() } else { bad.join(", ") }
    }
}

/// One of the two machines.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The card's.
    Card,
    /// The host's.
    Host,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Card => Self::Host,
            Self::Host => Self::Card,
        }
    }
}

/// What became of the frames so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Handed on, repeated ones counted twice.
    pub frames: u64,
    /// Lost, or held off by a cut.
    pub lost: u64,
    /// Repeated, swapped or damaged.
    pub disturbed: u64,
}

/// The connection that is next to carry data towards one side is reset there, in the middle of the data.
struct AwaitedReset {
    towards: Side,
    /// The run of full segments that was seen last: whose, the byte that comes next, and bytes so far.
    run: Option<(SocketAddrV4, SocketAddrV4, u32, u32)>,
}

impl AwaitedReset {
    /// The frame with the reset, once the segment in `frame` is long enough in the middle of data.
    fn behind(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let segment = Segment::read(frame)?;
        if segment.data_bytes < FULL_SEGMENT_BYTES {
            return None;
        }
        let before = match self.run {
            Some((from, to, next, bytes))
                if (from, to, next) == (segment.from, segment.to, segment.sequence) =>
            {
                bytes
            }
            _ => 0,
        };
        let bytes = before + segment.data_bytes;
        self.run = Some((segment.from, segment.to, segment.end(), bytes));
        (bytes >= DATA_RUN_BYTES).then(|| segment.reset_behind().frame())
    }
}

struct State {
    weather: Weather,
    random: Random,
    passed: Passed,
    /// A connection is to be reset.
    reset: Option<AwaitedReset>,
    /// Where frames for each side go, once its machine is there.
    ends: [Option<UnixStream>; 2],
}

/// The wire.
pub struct Relay {
    folder: TemporaryFolder,
    state: Arc<Mutex<State>>,
}

impl Relay {
    /// Waits for the machines in the background. The seed decides which frames the weather hits.
    pub fn new(seed: u64) -> Result<Self> {
        let folder = TemporaryFolder::for_sockets()?;
        let state = State {
            weather: Weather::default(),
            random: Random(seed | 1),
            passed: Passed::default(),
            reset: None,
            ends: [None, None],
        };
        let state = Arc::new(Mutex::new(state));
        for side in [Side::Card, Side::Host] {
            let listener = UnixListener::bind(folder.join(name(side))).context("the wire's socket")?;
            let state = Arc::clone(&state);
            // A machine that is started again connects again. The threads end with the process.
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if let Ok(end) = stream.try_clone() {
                        locked(&state).ends[side as usize] = Some(end);
                    }
                    pass_on(side, stream, &state);
                }
            });
        }
        Ok(Self { folder, state })
    }

    /// Value of that side's `-netdev`, without an id.
    pub fn netdev(&self, side: Side) -> String {
        let path = self.folder.join(name(side));
        format!("stream,server=off,addr.type=unix,addr.path={}", qemu::escaped(&path))
    }

    /// From now on frames fare so.
    pub fn set_weather(&self, weather: Weather) {
        locked(&self.state).weather = weather;
    }

    /// Resets the connection that is next to carry data towards that side, there and in the middle of the data; the other
    /// side learns it from the answer to what it sends then.
    pub fn reset_towards(&self, side: Side) {
        locked(&self.state).reset = Some(AwaitedReset { towards: side, run: None });
    }

    /// Whether that has happened.
    pub fn has_reset(&self) -> bool {
        locked(&self.state).reset.is_none()
    }

    /// What became of the frames so far.
    pub fn passed(&self) -> Passed {
        locked(&self.state).passed
    }

    /// Adds a frame of our own, whatever the weather.
    pub fn send(&self, side: Side, frame: &[u8]) {
        deliver(&mut locked(&self.state), side, frame);
    }
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Card => "card",
        Side::Host => "host",
    }
}

/// A thread that panicked has left nothing half done that matters here.
fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands on what comes from `side` until its machine has gone.
fn pass_on(side: Side, mut stream: UnixStream, state: &Mutex<State>) {
    let mut frames = Frames::default();
    let mut overtaken: Option<Vec<u8>> = None;
    let _ = stream.set_read_timeout(Some(OVERTAKING_LIMIT));
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => frames.feed(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        let mut state = locked(state);
        let mut any = false;
        while let Some(mut frame) = frames.next() {
            any = true;
            let fate = state.fate(&mut frame);
            if fate == Fate::Swapped && overtaken.is_none() {
                overtaken = Some(frame);
                continue;
            }
            for _ in 0..fate.copies() {
                deliver(&mut state, side.other(), &frame);
            }
            if let Some(reset) = state.reset_behind(side.other(), &frame) {
                deliver(&mut state, side.other(), &reset);
            }
            if let Some(late) = overtaken.take() {
                deliver(&mut state, side.other(), &late);
            }
        }
        if !any && let Some(late) = overtaken.take() {
            deliver(&mut state, side.other(), &late);
        }
    }
}

fn deliver(state: &mut State, side: Side, frame: &[u8]) {
    let length = (frame.len() as u32).to_be_bytes();
    let Some(end) = &mut state.ends[side as usize] else { return };
    // A machine that has gone takes nothing; another one may come in its place.
    if end.write_all(&length).and_then(|()| end.write_all(frame)).is_err() {
        state.ends[side as usize] = None;
    } else {
        state.passed.frames += 1;
    }
}

/// What the weather does to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Lost,
    Passed,
    Repeated,
    Swapped,
}

impl Fate {
    fn copies(self) -> u32 {
        match self {
            Self::Lost => 0,
            Self::Passed | Self::Swapped => 1,
            Self::Repeated => 2,
        }
    }
}

impl State {
    /// The frame that resets a connection behind this frame to `side`, where it is time for one.
    fn reset_behind(&mut self, side: Side, frame: &[u8]) -> Option<Vec<u8>> {
        let awaited = self.reset.as_mut().filter(|awaited| awaited.towards == side)?;
        let reset = awaited.behind(frame)?;
        self.reset = None;
        Some(reset)
    }

    fn fate(&mut self, frame: &mut [u8]) -> Fate {
        let Weather { loss, repeat, swap, damage, cut } = self.weather;
        if cut || self.random.hits(loss) {
            self.passed.lost += 1;
            return Fate::Lost;
        }
        // Only what has a checksum: a damaged ARP packet is a false one, which is another fault.
        let is_ipv4 = frame.get(12..ETHERNET_BYTES) == Some(&[8, 0]);
        if is_ipv4 && self.random.hits(damage) {
            let bit = self.random.below((frame.len() - ETHERNET_BYTES) as u64 * 8) as usize;
            frame[ETHERNET_BYTES + bit / 8] ^= 1 << (bit % 8);
            self.passed.disturbed += 1;
        }
        let fate = match () {
            () if self.random.hits(repeat) => Fate::Repeated,
            () if self.random.hits(swap) => Fate::Swapped,
            () => return Fate::Passed,
        };
        self.passed.disturbed += 1;
        fate
    }
}

/// Cuts QEMU's stream into frames.
#[derive(Default)]
struct Frames(Vec<u8>);

impl Frames {
    fn feed(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let length = u32::from_be_bytes(*self.0.first_chunk::<LENGTH_BYTES>()?) as usize;
        if length > MAX_FRAME_BYTES {
            self.0.clear();
            return None;
        }
        let end = LENGTH_BYTES + length;
        let frame = self.0.get(LENGTH_BYTES..end)?.to_vec();
        self.0.drain(..end);
        Some(frame)
    }
}

/// xorshift64: enough to choose frames, and the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn hits(&mut self, percent: f64) -> bool {
        percent > 0.0 && (self.below(1_000_000) as f64) < percent * 10_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(weather: Weather) -> State {
        State { weather, random: Random(7), passed: Passed::default(), reset: None, ends: [None, None] }
    }

    #[test]
    fn frames_are_found_in_pieces_of_a_stream() {
        let mut frames = Frames::default();
        frames.feed(&[0, 0, 0, 3, 1, 2]);
        assert_eq!(frames.next(), None);
        frames.feed(&[3, 0, 0, 0, 1, 9]);
        assert_eq!(frames.next(), Some(vec![1, 2, 3]));
        assert_eq!(frames.next(), Some(vec![9]));
        assert_eq!(frames.next(), None);
    }

    /// A frame with a segment of `data_bytes`, as far as its headers say.
    fn frame(from: &str, sequence: u32, data_bytes: u16) -> Vec<u8> {
        let segment = Segment {
            stations: [[2; 6]; 2],
            from: from.parse().unwrap(),
            to: "10.0.0.1:4420".parse().unwrap(),
            sequence,
            acknowledged: 0,
            flags: 0x10,
            data_bytes: 0,
        };
        let mut frame = segment.frame();
        frame.truncate(ETHERNET_BYTES + 40);
        frame[16..18].copy_from_slice(&(40 + data_bytes).to_be_bytes());
        frame.resize(ETHERNET_BYTES + 40 + usize::from(data_bytes), 0);
        frame
    }

    #[test]
    fn a_connection_is_reset_once_and_in_the_middle_of_data_towards_that_side() {
        let mut state = state(Weather::default());
        state.reset = Some(AwaitedReset { towards: Side::Card, run: None });
        let (one, other) = ("10.0.0.2:1000", "10.0.0.2:1001");
        let step = |number: u32| number * 1448;
        for number in 0..5 {
            assert_eq!(state.reset_behind(Side::Card, &frame(one, step(number), 1448)), None);
            assert_eq!(state.reset_behind(Side::Host, &frame(one, step(number), 1448)), None);
        }
        // Another connection's data, and a gap, begin anew.
        assert_eq!(state.reset_behind(Side::Card, &frame(other, 0, 1448)), None);
        for number in 5..11 {
            assert_eq!(state.reset_behind(Side::Card, &frame(one, step(number), 1448)), None);
            assert_eq!(state.reset_behind(Side::Card, &frame(other, 9, 80)), None);
        }
        let reset = state.reset_behind(Side::Card, &frame(one, step(11), 1448)).unwrap();
        assert_eq!(Segment::read(&reset).unwrap().sequence, step(12));
        assert!(state.reset.is_none());
        assert_eq!(state.reset_behind(Side::Card, &frame(one, step(12), 1448)), None);
    }

    #[test]
    fn weather_hits_about_as_often_as_it_says_and_nothing_without_it() {
        let mut calm = state(Weather::default());
        let mut wild = state(Weather { loss: 10.0, ..Weather::default() });
        for _ in 0..10_000 {
            assert_eq!(calm.fate(&mut [0; 60]), Fate::Passed);
            wild.fate(&mut [0; 60]);
        }
        assert!((800..1200).contains(&wild.passed.lost), "{}", wild.passed.lost);
    }

    #[test]
    fn damage_is_one_bit_behind_the_ethernet_header_of_an_ipv4_packet() {
        let mut state = state(Weather { damage: 100.0, ..Weather::default() });
        let mut arp = [0; 60];
        state.fate(&mut arp);
        assert_eq!(arp, [0; 60]);
        let mut packet = [0; 60];
        packet[12] = 8;
        let before = packet;
        state.fate(&mut packet);
        assert_eq!(packet[..ETHERNET_BYTES], before[..ETHERNET_BYTES]);
        let changed: u32 = packet.iter().zip(before).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(changed, 1);
    }
}
