//! The configuration store: two copies of what the operator has set, in a flash.
//!
//! The newest whole copy counts, and the other one is overwritten; its header is programmed last, so power that goes
//! at any moment leaves the old configuration or the new one. What the bytes mean is not its business.
//! Nothing in the flash is trusted: a copy counts if its checksums say so.

use core::ops::Range;
use core::task::Poll;

use hal_api::{FlashError, FlashShape, Instant, NorFlash};

use crate::limits::{FLASH_LIMIT, FLASH_LOOK_INTERVAL, MAX_CONFIGURATION_BYTES};

mod header;
mod saving;

use header::{HEADER_BYTES, Header, Read};
use saving::{Saving, Step};

/// Bytes that are read at a time.
const READ_BYTES: usize = 256;

/// Why something is not stored, or cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreError {
    /// The card has no flash or file to store in.
    NoStore,
    /// The flash has no room for two copies, or cannot take their headers.
    Unsuitable,
    /// The flash is all zeros, which no erased flash is: nothing keeps what is written there, as in a QEMU without a file.
    Unprepared,
    /// A newer firmware has stored there, in a format of this number; it is left as it is.
    NewerFormat(u32),
    /// The configuration is longer than the store's copies.
    TooLong,
    /// The one before is still being stored.
    Busy,
    /// What was programmed reads otherwise.
    ReadsOtherwise,
    /// The flash has failed.
    Flash(FlashError),
}

impl StoreError {
    /// For logs and operators.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoStore => "there is no store",
            Self::Unsuitable => "the flash has no room for two copies",
            Self::Unprepared => "the flash is all zeros, not erased: nothing seems to keep it",
            Self::NewerFormat(_) => "a newer firmware has stored there, and it is left as it is",
            Self::TooLong => "the configuration is too long",
            Self::Busy => "the one before is still being stored",
            Self::ReadsOtherwise => "what was programmed reads otherwise",
            Self::Flash(error) => error.name(),
        }
    }
}

impl From<FlashError> for StoreError {
    fn from(error: FlashError) -> Self {
        Self::Flash(error)
    }
}

/// What the card knows of its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreState {
    /// What was stored last is there.
    Idle,
    /// Something is being stored.
    Saving,
    /// What was to be stored last is not; the one before it is.
    Failed(StoreError),
    /// Nothing can be stored.
    Absent(StoreError),
}

/// Which copy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current {
    /// Its number: 0 or 1.
    pub copy: u8,
    /// How many configurations were stored before it, wrapping.
    pub sequence: u32,
    /// Its length.
    pub bytes: usize,
}

/// Where configurations are stored, or the knowledge that they cannot be.
#[derive(Debug)]
pub struct ConfigurationStore<'a, F> {
    flash: Option<F>,
    area: Area,
    /// What was loaded, or was to be stored last.
    bytes: &'a mut [u8],
    current: Option<Current>,
    /// Something stands there that is no whole copy, and there is no other.
    damaged: bool,
    saving: Option<Saving>,
    state: StoreState,
}

impl<'a, F: NorFlash> ConfigurationStore<'a, F> {
    /// Reads what is stored in the last blocks of `flash`, whose first ones are where loaders keep their own. `memory` takes
    /// a configuration, [`MAX_CONFIGURATION_BYTES`] at most.
    pub fn open(flash: Option<F>, memory: &'a mut [u8]) -> Self {
        let mut store = Self {
            flash,
            area: Area::default(),
            bytes: memory,
            current: None,
            damaged: false,
            saving: None,
            state: StoreState::Absent(StoreError::NoStore),
        };
        store.state = match store.mount() {
            Ok(()) => StoreState::Idle,
            Err(error) => StoreState::Absent(error),
        };
        store.report();
        store
    }

    /// The configuration that was loaded, or stored since; `None` where there is none.
    #[must_use]
    pub fn load(&self) -> Option<&[u8]> {
        self.current.filter(|_| self.state == StoreState::Idle).and_then(|now| self.bytes.get(..now.bytes))
    }

    /// Which copy counts, where there is one.
    #[must_use]
    pub fn current(&self) -> Option<Current> {
        self.current
    }

    /// Whether there were copies at the start of which none was whole.
    #[must_use]
    pub fn was_damaged(&self) -> bool {
        self.damaged
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> StoreState {
        self.state
    }

    /// Begins to store a configuration; [`Self::state`] tells how that goes. One that is stored already is not written
    /// again, because a block survives only so many erases.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has begun then.
    pub fn save(&mut self, configuration: &[u8], now: Instant) -> Result<(), StoreError> {
        match self.state {
            StoreState::Absent(error) => return Err(error),
            StoreState::Saving => return Err(StoreError::Busy),
            StoreState::Idle | StoreState::Failed(_) => {}
        }
        if self.load().is_some_and(|stored| stored == configuration) {
            return Ok(());
        }
        let room = self.area.copy_bytes.saturating_sub(HEADER_BYTES as u32) as usize;
        let place = self.bytes.get_mut(..configuration.len()).filter(|place| place.len() <= room);
        place.ok_or(StoreError::TooLong)?.copy_from_slice(configuration);
        let copy = self.current.map_or(0, |current| 1 - current.copy.min(1));
        let sequence = self.current.map_or(1, |current| current.sequence.wrapping_add(1));
        let new = Current { copy, sequence, bytes: configuration.len() };
        self.saving = Some(Saving::new(new, &Header::of(sequence, configuration), now));
        self.state = StoreState::Saving;
        Ok(())
    }

    /// Goes on with what is being stored, by one operation of the flash: an emulated one takes milliseconds for 64 bytes.
    /// Returns how much was done.
    pub fn poll(&mut self, now: Instant) -> u32 {
        let (Some(flash), Some(saving)) = (&mut self.flash, &mut self.saving) else { return 0 };
        match saving.advance(flash, &self.area, self.bytes, now) {
            Ok(Step::Waits) => return 0,
            Ok(Step::Done) => {}
            Ok(Step::Stored(new)) => {
                self.current = Some(new);
                self.end(StoreState::Idle);
                let Current { copy, sequence, bytes } = new;
                hal_log::info!("configuration stored: {} bytes, copy {}, number {}", bytes, copy, sequence);
            }
            Err(error) => {
                self.end(StoreState::Failed(error));
                hal_log::error!("the configuration is not stored: {}; the one before it stays", error.name());
            }
        }
        1
    }

    /// When [`Self::poll`] has something to do.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        if self.saving.is_some() { now + FLASH_LOOK_INTERVAL } else { Instant::FAR_FUTURE }
    }

    fn end(&mut self, state: StoreState) {
        self.saving = None;
        self.state = state;
    }

    /// Finds the newest whole copy and loads it.
    fn mount(&mut self) -> Result<(), StoreError> {
        let flash = self.flash.as_mut().ok_or(StoreError::NoStore)?;
        self.area = Area::of(&flash.shape()).ok_or(StoreError::Unsuitable)?;
        let mut found = [Read::Blank; 2];
        for (copy, found) in (0u8..).zip(&mut found) {
            let mut bytes = [0; HEADER_BYTES];
            flash.read(self.area.start_of(copy), &mut bytes)?;
            *found = Header::read(&bytes);
        }
        if let Some(format) = found.iter().filter_map(Read::newer_format).max() {
            return Err(StoreError::NewerFormat(format));
        }
        if found == [Read::Zeros; 2] {
            return Err(StoreError::Unprepared);
        }
        let [first, second] = [found[0].header(), found[1].header()];
        let second_is_newer = match (&first, &second) {
            (Some(first), Some(second)) => second.is_newer_than(first),
            (first, _) => first.is_none(),
        };
        let order = if second_is_newer { [(1, second), (0, first)] } else { [(0, first), (1, second)] };
        for (copy, header) in order {
            let Some(header) = header else { continue };
            if let Some(bytes) = load_copy(flash, &self.area, copy, &header, self.bytes)? {
                self.current = Some(Current { copy, sequence: header.sequence, bytes });
                break;
            }
            hal_log::warn!("copy {} of the configuration is not what its checksum says", copy);
        }
        self.damaged = self.current.is_none() && found.iter().any(|found| *found != Read::Blank);
        Ok(())
    }

    fn report(&self) {
        match (self.state, self.current) {
            (StoreState::Absent(StoreError::NewerFormat(format)), _) => hal_log::error!(
                "the configuration store has format {}, of a newer firmware, and is left as it is: what is set lasts until the next reset",
                format
            ),
            (StoreState::Absent(error), _) => hal_log::warn!(
                "no configuration store ({}): what is set lasts until the next reset",
                error.name()
            ),
            (_, Some(current)) => hal_log::info!(
                "configuration store: {} bytes, copy {}, number {}",
                current.bytes,
                current.copy,
                current.sequence
            ),
            (_, None) if self.damaged => {
                hal_log::error!("configuration store: no copy is whole; the defaults count");
            }
            (_, None) => hal_log::info!("configuration store: nothing is stored yet"),
        }
    }
}

/// Where the two copies stand: in the last erase blocks, each in blocks of its own.
#[derive(Debug, Clone, Copy, Default)]
struct Area {
    first_block: u32,
    blocks_per_copy: u32,
    block_bytes: u32,
    copy_bytes: u32,
    unit_bytes: u32,
    program_bytes: u32,
}

impl Area {
    fn of(shape: &FlashShape) -> Option<Self> {
        let FlashShape { blocks, block_bytes, unit_bytes, program_bytes } = *shape;
        let header_bytes = HEADER_BYTES as u32;
        let suits = unit_bytes.is_power_of_two()
            && unit_bytes <= header_bytes
            && block_bytes.is_multiple_of(header_bytes)
            && block_bytes > 0
            && program_bytes >= unit_bytes
            && shape.bytes() <= u64::from(u32::MAX);
        let wanted = (MAX_CONFIGURATION_BYTES as u32 + header_bytes).div_ceil(block_bytes.max(1));
        let blocks_per_copy = wanted.min(blocks / 2);
        let copy_bytes = blocks_per_copy.checked_mul(block_bytes)?;
        let program_bytes = program_bytes.checked_div(unit_bytes)?.checked_mul(unit_bytes)?;
        (suits && blocks_per_copy > 0).then_some(Self {
            first_block: blocks - 2 * blocks_per_copy,
            blocks_per_copy,
            block_bytes,
            copy_bytes,
            unit_bytes,
            program_bytes,
        })
    }

    fn first_block_of(&self, copy: u8) -> u32 {
        self.first_block + u32::from(copy.min(1)) * self.blocks_per_copy
    }

    fn start_of(&self, copy: u8) -> u32 {
        self.first_block_of(copy).saturating_mul(self.block_bytes)
    }

    /// The blocks of a copy that a payload of this length takes.
    fn blocks_of(&self, copy: u8, payload_bytes: usize) -> Range<u32> {
        let first = self.first_block_of(copy);
        let bytes = (HEADER_BYTES + payload_bytes) as u32;
        first..first + bytes.div_ceil(self.block_bytes.max(1)).min(self.blocks_per_copy)
    }
}

/// Loads a copy whose header is whole; `None` where its bytes are not what the header says.
fn load_copy<F: NorFlash>(
    flash: &mut F,
    area: &Area,
    copy: u8,
    header: &Header,
    memory: &mut [u8],
) -> Result<Option<usize>, StoreError> {
    let length = header.length as usize;
    let room = area.copy_bytes.saturating_sub(HEADER_BYTES as u32) as usize;
    let Some(into) = memory.get_mut(..length).filter(|_| length <= room) else { return Ok(None) };
    let start = area.start_of(copy).saturating_add(HEADER_BYTES as u32);
    flash.read(start, into)?;
    Ok((header.describes(into)).then_some(length))
}

#[cfg(test)]
mod tests;
