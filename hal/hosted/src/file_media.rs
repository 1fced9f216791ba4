//! A namespace's blocks in a file, moved by io_uring straight between the page cache and the card's memory.
//!
//! The page cache is the drive's volatile cache: Flush and FUA reach the disk (fdatasync(2), RWF_DSYNC). Where the
//! kernel refuses io_uring, as in many containers, each operation is a system call that ends at once.

mod calls;
mod ring;

use hal_fakes::{
    MEDIA_SUCCESS, MEDIA_UNRECOVERED_READ, MEDIA_WRITE_FAULT, Media, MediaEnd, MediaOperation, MediaRequest,
};
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use crate::DriveFile;
use ring::Ring;

/// The blocks of one namespace, in a file of their size.
pub struct FileMedia {
    /// Before the file: its operations end first.
    ring: Option<Ring>,
    file: DriveFile,
}

impl fmt::Debug for FileMedia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileMedia").field("file", &self.file).field("by_ring", &self.ring.is_some()).finish()
    }
}

impl FileMedia {
    /// Blocks in `file`, moved by io_uring where the kernel has it.
    #[must_use]
    pub fn new(file: DriveFile) -> Self {
        let ring =
            Ring::new().map_err(|error| hal_log::info!("no io_uring: {}", error.to_string().as_str())).ok();
        Self { file, ring }
    }

    /// Blocks in `file`, moved by system calls that wait.
    #[must_use]
    pub fn without_ring(file: DriveFile) -> Self {
        Self { file, ring: None }
    }

    /// Readable when an operation has ended; `None` where they end at once.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(Ring::as_fd)
    }
}

impl Media for FileMedia {
    fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    fn start(&mut self, request: &MediaRequest<'_>) -> Option<u16> {
        match &mut self.ring {
            Some(ring) => {
                ring.start(self.file.file(), request);
                None
            }
            None => Some(status(request.operation, calls::perform(self.file.file(), request))),
        }
    }

    fn commit(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.submit();
        }
    }

    fn poll(&mut self) -> Option<MediaEnd> {
        let (tag, operation, result) = self.ring.as_mut()?.poll(self.file.file())?;
        Some(MediaEnd { tag, status: status(operation, result) })
    }

    fn abandon(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.wait_for_all();
        }
    }

    fn peek(&mut self, offset_bytes: u64, into: &mut [u8]) {
        self.file.file().read_exact_at(into, offset_bytes).expect("blocks of the file");
    }

    fn poke(&mut self, offset_bytes: u64, from: &[u8]) {
        self.file.file().write_all_at(from, offset_bytes).expect("blocks of the file");
    }
}

/// The status of an operation that has come to `result`.
fn status(operation: MediaOperation, result: io::Result<()>) -> u16 {
    let Err(error) = result else { return MEDIA_SUCCESS };
    let (name, status) = match operation {
        MediaOperation::Read => ("read", MEDIA_UNRECOVERED_READ),
        MediaOperation::Write => ("write", MEDIA_WRITE_FAULT),
        MediaOperation::Flush => ("flush", MEDIA_WRITE_FAULT),
        MediaOperation::WriteZeroes { .. } => ("write zeroes", MEDIA_WRITE_FAULT),
        MediaOperation::Deallocate => ("deallocate", MEDIA_WRITE_FAULT),
    };
    hal_log::error!("drive file: {} fails: {}", name, error.to_string().as_str());
    status
}

#[cfg(test)]
mod tests;
