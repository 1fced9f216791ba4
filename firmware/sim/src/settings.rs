//! What a seed decides before the run begins: the card, its drives, its hosts, and which faults there are how often.
//!
//! Each kind of fault is on in some seeds and off in others, so that a rare combination is not drowned by the rest.

use fastrand::Rng;

/// Memory of each data core in bytes: the least that `app::sizes` makes something of, so that pools are tight.
pub const CARD_MEMORY_BYTES: usize = 24 << 20;
/// Data cores at most.
pub const MOST_DATA_CORES: usize = 4;

/// A namespace of a drive.
#[derive(Debug, Clone, Copy)]
pub struct NamespaceSettings {
    /// Blocks.
    pub blocks: u64,
    /// Log2 of the block size.
    pub block_shift: u8,
}

/// A drive.
#[derive(Debug, Clone)]
pub struct DriveSettings {
    /// Its namespaces.
    pub namespaces: Vec<NamespaceSettings>,
    /// VWC.
    pub volatile: bool,
    /// MDTS.
    pub mdts: u8,
    /// ONCS.
    pub optional_commands: u16,
    /// Time of most operations in microseconds, least and most.
    pub latency_us: (u64, u64),
    /// Operations of a thousand that fail, while faults are on.
    pub failing: u32,
    /// Operations of ten thousand that hang, while faults are on.
    pub hanging: u32,
    /// What it makes of an Abort, of ten: 0 to 5 most hanging commands end, 6 and 7 they go on, else it refuses.
    pub aborts: u32,
    /// It is not there when the card starts, and comes later.
    pub absent: bool,
    /// Queue pairs for I/O: one for each data core, or fewer, which they share.
    pub io_queues: u16,
}

/// A host.
#[derive(Debug, Clone, Copy)]
pub struct HostSettings {
    /// I/O queues.
    pub io_queues: u16,
    /// Slots of each I/O queue.
    pub slots: u16,
    /// Commands under way at most.
    pub depth: usize,
    /// Digests of headers and of data.
    pub digests: (bool, bool),
    /// HPDA.
    pub alignment: u8,
    /// KATO in milliseconds.
    pub keep_alive_ms: u32,
    /// Largest command in blocks.
    pub most_blocks: u32,
    /// Reads of a hundred commands.
    pub reads: u32,
    /// Mean pause between commands in microseconds.
    pub pause_us: u64,
}

/// What the network does to frames, in frames of a thousand, while faults are on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Lost.
    pub lost: u32,
    /// Carried twice.
    pub doubled: u32,
    /// Held back, so that later ones overtake.
    pub late: u32,
    /// Bits changed.
    pub damaged: u32,
    /// Bits changed with a checksum that fits, where all hosts have digests.
    pub forged: u32,
}

/// How often chaos strikes: mean time between events in milliseconds; 0 for never.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chaos {
    /// A host goes away, in some way, and comes back.
    pub host_ms: u64,
    /// A cable is cut for a while.
    pub cut_ms: u64,
    /// A drive is pulled, and comes back.
    pub removal_ms: u64,
    /// Somebody is at a slot: the button is pressed, a drive is pulled, a slot loses its power.
    pub slot_ms: u64,
    /// Somebody presses the card's power button.
    pub end_ms: u64,
    /// A drive is deaf, unreachable or stuck for a while, or floods the card with events.
    pub wrong_ms: u64,
    /// A drive turns fatal.
    pub fatal_ms: u64,
    /// A drive lies in its completions.
    pub lie_ms: u64,
    /// A drive becomes slow for a while.
    pub slow_ms: u64,
    /// The whole card loses its power.
    pub power_ms: u64,
    /// A core pauses.
    pub pause_ms: u64,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Data cores.
    pub data_cores: usize,
    /// Queues of the port: one for each data core, or fewer.
    pub port_queues: usize,
    /// The port steers by the card's key; otherwise by one of its own, so that most frames have to be passed on.
    pub port_steers: bool,
    /// Whether control and the one data core share one loop.
    pub one_core: bool,
    /// The port checks TCP checksums of what it receives.
    pub receive_checksums_verified: bool,
    /// The port fills in TCP checksums of what it sends.
    pub transmit_checksum_offload: bool,
    /// Drives stand in slots, and come and go.
    pub slots: bool,
    /// Bytes of an IP packet.
    pub mtu: u16,
    /// One-way time of a frame in microseconds, least and most.
    pub latency_us: (u64, u64),
    /// The network.
    pub weather: Weather,
    /// The drives.
    pub drives: Vec<DriveSettings>,
    /// The hosts that keep to the rules.
    pub hosts: Vec<HostSettings>,
    /// Hosts that do not.
    pub hostile: u32,
    /// Faults of everything.
    pub chaos: Chaos,
    /// How long faults go on, in milliseconds of virtual time.
    pub faulty_ms: u64,
    /// Nothing at all goes wrong and little is asked: every answer has to be prompt.
    pub prompt: bool,
    /// Once all has mended, the card ends in order and starts again.
    pub ends: bool,
    /// All hosts set CC.SHN when all has mended; then the card and its drives lose their power, and nothing may be gone.
    pub farewell: bool,
}

impl Settings {
    /// What `seed` decides.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let settings = Self::drawn(seed);
        let mut random = Rng::with_seed(seed ^ 0x9107);
        let settings = match random.u32(0..120) {
            0..10 => settings.made_prompt(),
            10..20 => settings.made_long(&mut random),
            20..23 => settings.made_to_outlast_keep_alives(&mut random),
            // A removed drive is tried again after 5 s only.
            23..77 if settings.chaos.removal_ms > 0 => settings.made_to_outlast_keep_alives(&mut random),
            77..87 => settings.made_to_forge(&mut random),
            _ => settings,
        };
        let ends = random.u32(0..3) == 0 && !settings.prompt;
        let farewell = random.u32(0..3) == 0 && !settings.prompt && !ends;
        Self { ends, farewell, ..settings }.with_cores(seed)
    }

    /// Half of the seeds have several data cores. Of drives some have fewer queues than that.
    fn with_cores(mut self, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed ^ 0xc04e5);
        if random.bool() {
            return self;
        }
        self.data_cores = random.usize(2..=MOST_DATA_CORES);
        self.one_core = false;
        // Half of the ports have one queue.
        self.port_queues = if random.bool() { 1 } else { random.usize(2..=self.data_cores) };
        // Where most frames cross between cores, their short rings lose some of a burst, as a wire does, and that takes time.
        self.port_steers = random.u32(0..3) > 0 || self.prompt;
        for drive in &mut self.drives {
            let most = self.data_cores as u16;
            drive.io_queues = if random.u32(0..3) == 0 { random.u16(1..=most) } else { most };
        }
        self
    }

    /// The worst network that there is, for hosts that come and go.
    #[must_use]
    pub fn worst_network(seed: u64) -> Self {
        let mut settings = Self::drawn(seed);
        settings.weather = Weather { lost: 60, doubled: 60, late: 80, damaged: 40, forged: 0 };
        settings.chaos = Chaos { cut_ms: 3000, ..Chaos::default() };
        let mut random = Rng::with_seed(seed ^ 0x4057);
        settings.hosts.resize_with(4, || host(&mut random));
        settings.with_cores(seed)
    }

    /// The same card and drives with few commands and without faults.
    fn made_prompt(mut self) -> Self {
        self.chaos = Chaos::default();
        self.weather = Weather::default();
        self.hostile = 0;
        self.hosts.truncate(2);
        for host in &mut self.hosts {
            host.depth = host.depth.min(2);
            host.most_blocks = host.most_blocks.min(8);
        }
        for drive in &mut self.drives {
            (drive.failing, drive.hanging, drive.absent) = (0, 0, false);
            drive.latency_us.1 = drive.latency_us.1.min(800).max(drive.latency_us.0);
        }
        self.prompt = true;
        self
    }

    /// The same for a minute, with few commands: the card's own limits of 15 to 25 s pass while hosts send.
    fn made_long(mut self, random: &mut Rng) -> Self {
        self.faulty_ms = 60_000;
        self.hostile = 0;
        self.hosts.truncate(2);
        for host in &mut self.hosts {
            host.pause_us = random.u64(20_000..=80_000);
        }
        for drive in &mut self.drives {
            drive.hanging = if random.bool() { random.u32(20..=200) } else { 0 };
        }
        let chaos = &mut self.chaos;
        for rare in [
            &mut chaos.host_ms,
            &mut chaos.cut_ms,
            &mut chaos.removal_ms,
            &mut chaos.slot_ms,
            &mut chaos.end_ms,
            &mut chaos.wrong_ms,
            &mut chaos.fatal_ms,
            &mut chaos.lie_ms,
            &mut chaos.slow_ms,
            &mut chaos.power_ms,
            &mut chaos.pause_ms,
        ] {
            *rare *= 12;
        }
        self
    }

    /// The same for so long that hosts which died come back after their keep alive has run out, and go on.
    fn made_to_outlast_keep_alives(mut self, random: &mut Rng) -> Self {
        self.faulty_ms = random.u64(10_000..=20_000);
        self.chaos.host_ms = random.u64(500..=2000);
        for host in &mut self.hosts {
            host.keep_alive_ms = 1000;
            host.pause_us = host.pause_us.max(2000) * 4;
        }
        self
    }

    /// The same with a network that changes data behind the checksums' back; digests find it.
    fn made_to_forge(mut self, random: &mut Rng) -> Self {
        self.weather.forged = random.u32(1..=10);
        self.hosts.iter_mut().for_each(|host| host.digests = (true, true));
        self
    }

    fn drawn(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed ^ 0x5e77_1465);
        let random = &mut random;
        // Of a kind of fault: in one seed of `one_in` there is some.
        let some = |random: &mut Rng, one_in: u32, range: core::ops::RangeInclusive<u64>| {
            if random.u32(0..one_in) == 0 { random.u64(range) } else { 0 }
        };
        let calm = random.u32(0..5) == 0;
        let chaos = if calm {
            Chaos { host_ms: some(random, 2, 100..=1000), ..Chaos::default() }
        } else {
            Chaos {
                host_ms: some(random, 2, 100..=1500),
                cut_ms: some(random, 4, 300..=2500),
                removal_ms: some(random, 5, 400..=4000),
                fatal_ms: some(random, 5, 400..=4000),
                lie_ms: some(random, 4, 200..=2000),
                slow_ms: some(random, 5, 400..=3000),
                power_ms: some(random, 8, 700..=5000),
                pause_ms: some(random, 5, 300..=3000),
                ..Chaos::default()
            }
        };
        let weather = if calm || random.u32(0..3) > 0 {
            Weather::default()
        } else {
            Weather {
                lost: some(random, 2, 1..=60) as u32,
                doubled: some(random, 2, 1..=60) as u32,
                late: some(random, 2, 1..=80) as u32,
                damaged: some(random, 2, 1..=40) as u32,
                forged: 0,
            }
        };
        let drives = (0..random.u32(1..=3)).map(|_| drive(random, calm)).collect();
        let hosts = (0..random.u32(1..=4)).map(|_| host(random)).collect();
        let base = random.u64(5..=400);
        Self {
            data_cores: 1,
            port_queues: 1,
            port_steers: true,
            one_core: random.u32(0..3) == 0,
            receive_checksums_verified: random.bool(),
            transmit_checksum_offload: random.bool(),
            mtu: [1500, 1500, 9000, 576][random.usize(0..4)],
            latency_us: (base, base + random.u64(0..=300)),
            weather,
            drives,
            hosts,
            hostile: if calm { 0 } else { random.u32(0..5).saturating_sub(2) },
            chaos,
            prompt: false,
            ends: false,
            farewell: false,
            faulty_ms: random.u64(600..=3500),
            slots: random.bool(),
        }
        .with_card_faults(random, calm)
    }

    /// What the card and its slots suffer.
    fn with_card_faults(mut self, random: &mut Rng, calm: bool) -> Self {
        let mut some = |one_in: u32, range: core::ops::RangeInclusive<u64>| {
            let mean = random.u64(range);
            if random.u32(0..one_in) == 0 && !calm { mean } else { 0 }
        };
        let (slot_ms, end_ms, wrong_ms) = (some(2, 500..=5000), some(8, 1000..=8000), some(4, 500..=5000));
        let slot_ms = if self.slots { slot_ms } else { 0 };
        self.chaos = Chaos { slot_ms, end_ms, wrong_ms, ..self.chaos };
        self
    }
}

fn drive(random: &mut Rng, calm: bool) -> DriveSettings {
    let namespace = |random: &mut Rng| {
        let block_shift = if random.u32(0..3) == 0 { 12 } else { 9 };
        NamespaceSettings { blocks: random.u64(64..=400), block_shift }
    };
    let namespaces = (0..random.u32(1..=2)).map(|_| namespace(random)).collect();
    let least = random.u64(5..=200);
    let faulty = |random: &mut Rng, most: u32| {
        if calm || random.u32(0..5) > 0 { 0 } else { random.u32(1..=most) }
    };
    DriveSettings {
        namespaces,
        volatile: random.u32(0..3) > 0,
        mdts: random.u8(0..=6),
        optional_commands: [0x75d, 0x75d, 0x000, 0x00c, 0x081][random.usize(0..5)],
        latency_us: (least, least + random.u64(0..=2000)),
        failing: faulty(random, 80),
        hanging: faulty(random, 40),
        aborts: random.u32(0..10),
        absent: !calm && random.u32(0..10) == 0,
        io_queues: 1,
    }
}

fn host(random: &mut Rng) -> HostSettings {
    HostSettings {
        io_queues: random.u16(1..=3),
        slots: random.u16(2..=32),
        depth: random.usize(1..=40),
        digests: (random.bool(), random.bool()),
        alignment: if random.u32(0..4) == 0 { random.u8(0..=31) } else { 0 },
        keep_alive_ms: random.u32(1..=4) * 1000,
        most_blocks: [1, 8, 32, 64][random.usize(0..4)],
        reads: random.u32(20..=80),
        pause_us: random.u64(100..=6000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_the_worst_network_differ() {
        for seed in 0..20 {
            let hosts = Settings::worst_network(seed).hosts;
            let kinds: std::collections::BTreeSet<String> =
                hosts.iter().map(|host| format!("{host:?}")).collect();
            assert_eq!(kinds.len(), 4, "seed {seed}");
        }
    }
}
