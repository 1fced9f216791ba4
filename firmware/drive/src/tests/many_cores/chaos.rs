//! Everything at once: whatever happens, all requests end, all pages come back, and no loss is kept from anybody.

use hal_fakes::CachedMedia;

use super::*;

/// Blocks that are written.
const USED: u64 = 64;

/// A block: what may be there, and what was acknowledged and flushed.
#[derive(Clone, Default)]
struct Block {
    /// Written last and acknowledged.
    acknowledged: u8,
    /// Not known: a write to it has not succeeded, or several were under way.
    unknown: bool,
}

struct Chaos {
    rig: Rig,
    blocks: Vec<Block>,
    /// By core, the block of each request under way; tokens are indices.
    under_way: Vec<Vec<Option<(u64, u8)>>>,
    losses_told: Vec<usize>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let media: Box<dyn Media> = Box::new(CachedMedia::new(BLOCKS << 9));
        // The cores share its queues, or each has its own.
        let io_queues_granted = [1, 2, 3, 64][(seed / 3 % 4) as usize];
        let config =
            NvmeConfig { latency_polls: (0, 60), ready_polls: 5, io_queues_granted, ..Default::default() };
        let rig = Rig::ready(seed, cores_of(seed), config, vec![media]);
        let cores = rig.cores.len();
        Self {
            rig,
            blocks: vec![Block::default(); USED as usize],
            under_way: vec![vec![None; 32]; cores],
            losses_told: vec![0; cores],
        }
    }

    fn write(&mut self, core: usize) {
        let block = self.rig.random.below(USED);
        let is_busy = |other: &Option<(u64, u8)>| other.is_some_and(|(of, _)| of == block);
        let token = self.under_way[core].iter().position(Option::is_none);
        let Some(token) = token.filter(|_| !self.under_way.iter().flatten().any(is_busy)) else { return };
        let byte = self.rig.random.below(255) as u8 + 1;
        let pages = self.rig.pages_with(core, byte);
        let request = IoRequest {
            token: WRITE + token as u32,
            owner: token as u16,
            ..request(Operation::Write, block, 1, pages)
        };
        match self.rig.submit(core, request) {
            Ok(()) => self.under_way[core][token] = Some((block, byte)),
            Err(rejected) => self.rig.cores[core].pool.give_back(rejected.request.pages),
        }
    }

    /// The write with this token, which has ended.
    fn take_write(&mut self, core: usize, token: u32) -> Option<(u64, u8)> {
        let place = token.checked_sub(WRITE)?;
        self.under_way[core].get_mut(place as usize)?.take()
    }

    fn collect(&mut self) {
        for core in 0..self.rig.cores.len() {
            for ended in std::mem::take(&mut self.rig.cores[core].ended) {
                if let Some((block, byte)) = self.take_write(core, ended.token) {
                    let block = &mut self.blocks[block as usize];
                    match ended.status.is_success() {
                        true => *block = Block { acknowledged: byte, unknown: false },
                        false => block.unknown = true,
                    }
                }
                if let Some(pages) = ended.pages {
                    self.rig.cores[core].pool.give_back(pages);
                }
            }
        }
    }

    fn mishap(&mut self) {
        let core = self.rig.random.below(self.rig.cores.len() as u64) as usize;
        match self.rig.random.below(10) {
            0 => self.rig.control.set_fatal(),
            1 => self.rig.control.lose_power(),
            2 | 3 => self.rig.inject(core, io::WRITE, 2, NvmeEffect::Never),
            4 => self.rig.inject(core, io::WRITE, 9, NvmeEffect::WrongIdentifier),
            5 => {
                self.rig.control.set_removed(true);
                self.rig.pass(Duration::from_secs(2));
                self.rig.control.set_removed(false);
            }
            6 => self.rig.control.set_abort(NvmeAbort::Works),
            7 => self.rig.control.set_abort(NvmeAbort::TooLate),
            _ => {}
        }
        let seconds = self.rig.random.below(9);
        self.rig.pass(Duration::from_secs(seconds));
        self.collect();
    }

    /// Until the drive works and nothing is under way.
    fn calm(&mut self) {
        self.rig.control.clear_injections();
        for _ in 0..100 {
            self.rig.pass(Duration::from_secs(5));
            self.rig.run(3000);
            self.collect();
            if self.rig.is_ready() && self.rig.outstanding() == 0 {
                break;
            }
        }
        self.rig.run(2000);
        self.collect();
        assert!(self.rig.is_ready() && self.rig.outstanding() == 0, "it does not come back");
        self.rig.check_quiet();
    }

    /// What was acknowledged is there, or its loss was told, on every core alike.
    fn check_blocks(&mut self) {
        let losses = self.rig.losses();
        assert!(losses.iter().all(|count| *count == losses[0]), "{losses:?}");
        let told = losses != self.losses_told;
        self.losses_told = losses;
        for (number, block) in self.blocks.iter_mut().enumerate() {
            let there = self.rig.control.read_disk(1, number * 512, 1)[0];
            if there != block.acknowledged && !block.unknown {
                assert!(told, "block {number} is lost, and nobody was told");
            }
            *block = Block { acknowledged: there, unknown: false };
        }
    }
}

#[test]
fn whatever_happens_requests_end_and_losses_are_told() {
    let (mut told, mut resets) = (0, 0);
    for seed in 0..180 {
        let mut chaos = Chaos::new(seed);
        let cores = chaos.rig.cores.len();
        for _ in 0..4 {
            for _ in 0..300 {
                let core = chaos.rig.random.below(cores as u64) as usize;
                match chaos.rig.random.below(40) {
                    0 if chaos.rig.cores[core].drive.is_ready() => {
                        chaos.rig.begin(core, Operation::Flush, 0, 0);
                    }
                    1 if chaos.rig.random.below(10) == 0 => chaos.mishap(),
                    _ => chaos.write(core),
                }
                chaos.rig.run(10);
                chaos.collect();
            }
            chaos.calm();
            chaos.check_blocks();
        }
        told += chaos.losses_told[0];
        resets += chaos.rig.resets();
    }
    println!("{told} losses, {resets} resets");
    assert!(told > 50 && resets > 150, "{told} losses, {resets} resets: this proves little");
}
