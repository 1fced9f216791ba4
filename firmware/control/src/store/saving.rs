//! One configuration on its way into the flash: its blocks are erased, it is programmed and read again, then its header.

use super::*;

/// What a call of [`Saving::advance`] has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The flash is busy.
    Waits,
    /// Something was done, and more is to do.
    Done,
    /// It is stored.
    Stored(Current),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Blocks are erased, from the copy's first on.
    Erase,
    /// The configuration is programmed; the offset is into it.
    Program,
    /// It is read again.
    Verify,
    /// Its header is programmed, and makes it the one that counts.
    Mark,
    /// That is read again.
    VerifyMark,
}

/// What is being stored.
#[derive(Debug)]
pub struct Saving {
    new: Current,
    header: [u8; HEADER_BYTES],
    phase: Phase,
    /// How far the phase is: blocks while it erases, else bytes.
    at: u32,
    under_way: bool,
    since: Instant,
}

impl Saving {
    /// Nothing of it is done. An operation that the one before has left may be under way.
    pub fn new(new: Current, header: &Header, now: Instant) -> Self {
        Self { new, header: header.bytes(), phase: Phase::Erase, at: 0, under_way: true, since: now }
    }

    /// Ends or begins one operation of the flash, or reads a piece again.
    pub fn advance<F: NorFlash>(
        &mut self,
        flash: &mut F,
        area: &Area,
        memory: &[u8],
        now: Instant,
    ) -> Result<Step, StoreError> {
        if self.under_way {
            let is_own = (self.phase, self.at) != (Phase::Erase, 0);
            match flash.poll() {
                Poll::Pending if now.since(self.since) > FLASH_LIMIT => {
                    return Err(FlashError::NoAnswer.into());
                }
                Poll::Pending => return Ok(Step::Waits),
                Poll::Ready(Err(error)) if is_own => return Err(error.into()),
                Poll::Ready(_) => {}
            }
            self.under_way = false;
        }
        let start = area.start_of(self.new.copy);
        let header = self.header;
        let payload = memory.get(..self.new.bytes).unwrap_or_default();
        let payload_start = start.saturating_add(HEADER_BYTES as u32);
        let all_done = match self.phase {
            Phase::Erase => {
                let block = area.blocks_of(self.new.copy, self.new.bytes).nth(self.at as usize);
                if let Some(block) = block {
                    flash.begin_erase(block)?;
                    self.begun(now, 1);
                }
                block.is_none()
            }
            Phase::Program => self.program(flash, area, payload_start, payload, now)?,
            Phase::Mark => self.program(flash, area, start, &header, now)?,
            Phase::Verify => self.verify(flash, payload_start, payload)?,
            Phase::VerifyMark => self.verify(flash, start, &header)?,
        };
        if all_done {
            self.at = 0;
            self.phase = match self.phase {
                Phase::Erase => Phase::Program,
                Phase::Program => Phase::Verify,
                Phase::Verify => Phase::Mark,
                Phase::Mark => Phase::VerifyMark,
                Phase::VerifyMark => return Ok(Step::Stored(self.new)),
            };
        }
        Ok(Step::Done)
    }

    fn begun(&mut self, now: Instant, done: u32) {
        (self.under_way, self.since) = (true, now);
        self.at = self.at.saturating_add(done);
    }

    /// Programs the next piece of what belongs at `start`; true when nothing is left.
    fn program<F: NorFlash>(
        &mut self,
        flash: &mut F,
        area: &Area,
        start: u32,
        bytes: &[u8],
        now: Instant,
    ) -> Result<bool, StoreError> {
        let left = bytes.get(self.at as usize..).unwrap_or_default();
        let at = start.saturating_add(self.at);
        let of_block = area.block_bytes - at.checked_rem(area.block_bytes).unwrap_or(0);
        let most = of_block.min(area.program_bytes) as usize;
        let unit = area.unit_bytes as usize;
        let whole = left.len().min(most) / unit.max(1) * unit;
        if let Some(piece) = left.get(..whole).filter(|piece| !piece.is_empty()) {
            flash.begin_program(at, piece)?;
            self.begun(now, whole as u32);
        } else if !left.is_empty() {
            // The last unit is filled up with what an erased one has.
            let mut last = [0xff; HEADER_BYTES];
            for (place, byte) in last.iter_mut().zip(left) {
                *place = *byte;
            }
            flash.begin_program(at, last.get(..unit).unwrap_or(&last))?;
            self.begun(now, unit as u32);
        }
        Ok(left.is_empty())
    }

    /// Reads the next piece of what was programmed at `start`; true when nothing is left.
    fn verify<F: NorFlash>(&mut self, flash: &mut F, start: u32, bytes: &[u8]) -> Result<bool, StoreError> {
        let left = bytes.get(self.at as usize..).unwrap_or_default();
        let mut read = [0; READ_BYTES];
        let (Some(read), expected) =
            (read.get_mut(..left.len().min(READ_BYTES)), left.get(..READ_BYTES).unwrap_or(left))
        else {
            return Ok(true);
        };
        if !read.is_empty() {
            flash.read(start.saturating_add(self.at), read)?;
        }
        if *read != *expected {
            return Err(StoreError::ReadsOtherwise);
        }
        self.at = self.at.saturating_add(expected.len() as u32);
        Ok(left.is_empty())
    }
}
