//! What the card's QEMU tells of its devices: its trace events, which a scenario asks for by `-trace EVENT` among its
//! `arguments`. So a flush is seen where it arrives, and not where the card says that it sent one.

use crate::paths;
use anyhow::Result;
use regex::Regex;
use std::path::{Path, PathBuf};

/// The file of one QEMU, read from where it was last looked at.
pub struct DeviceLog {
    file: PathBuf,
    seen: usize,
}

impl DeviceLog {
    /// That of the QEMU whose serial log this is.
    pub fn beside(serial: &Path) -> Self {
        Self { file: serial.with_extension("qemu"), seen: 0 }
    }

    /// What was told so far counts no more.
    pub fn forget(&mut self) -> Result<()> {
        self.seen = paths::read(&self.file)?.len();
        Ok(())
    }

    /// Whether a whole line like that came behind the one that was last found.
    pub fn tells(&mut self, pattern: &Regex) -> Result<bool> {
        let text = paths::read(&self.file)?;
        let mut end = self.seen;
        for line in text[self.seen..].split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            end += line.len();
            if pattern.is_match(line.trim_end()) {
                self.seen = end;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::TemporaryFolder;

    #[test]
    fn lines_are_found_once_in_order_and_from_where_it_was_told_to_forget() {
        let folder = TemporaryFolder::for_sockets().unwrap();
        let file = folder.join("card.qemu");
        std::fs::write(&file, "flush\nshutdown\nflu").unwrap();
        let mut log = DeviceLog::beside(&folder.join("card.serial"));
        let flush = Regex::new("^flu").unwrap();
        assert!(log.tells(&flush).unwrap());
        // The second is not whole yet.
        assert!(!log.tells(&flush).unwrap());
        std::fs::write(&file, "flush\nshutdown\nflush\n").unwrap();
        let mut late = DeviceLog::beside(&folder.join("card.serial"));
        assert!(log.tells(&flush).unwrap() && !log.tells(&flush).unwrap());
        late.forget().unwrap();
        assert!(!late.tells(&flush).unwrap());
    }
}
