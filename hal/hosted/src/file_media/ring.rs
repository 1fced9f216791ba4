//! Operations through io_uring: many at once, none of which keeps the core waiting.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use hal_fakes::{MediaOperation, MediaRequest};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use nix::libc;

use super::calls;

/// Entries of the submission ring. More operations than that may run at once.
const ENTRIES: u32 = 256;

/// One operation, from its start to its end.
struct Running {
    tag: u32,
    operation: MediaOperation,
    fua: bool,
    offset_bytes: u64,
    bytes: u64,
    /// What is still to be moved. The kernel reads it while the operation runs.
    vectors: Vec<libc::iovec>,
    /// The data is where it belongs; what runs is the sync of a FUA.
    syncing: bool,
}

// SAFETY: the vectors point into `DmaRegion`s, which are never freed and have no thread affinity.
unsafe impl Send for Running {}

/// A ring and the operations in it. The place of an operation is its `user_data`.
pub(super) struct Ring {
    uring: IoUring,
    places: Vec<Running>,
    free: Vec<u32>,
    running: usize,
    /// Ends that were taken to make room, before anyone asked for them.
    ended: VecDeque<cqueue::Entry>,
}

impl Ring {
    pub(super) fn new() -> io::Result<Self> {
        let uring = IoUring::new(ENTRIES)?;
        Ok(Self { uring, places: Vec::new(), free: Vec::new(), running: 0, ended: VecDeque::new() })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor stays open as long as the ring, which is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.uring.as_raw_fd()) }
    }

    pub(super) fn start(&mut self, file: &File, request: &MediaRequest<'_>) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Running {
                tag: 0,
                operation: MediaOperation::Flush,
                fua: false,
                offset_bytes: 0,
                bytes: 0,
                vectors: Vec::new(),
                syncing: false,
            });
            self.places.len() as u32 - 1
        });
        let running = &mut self.places[place as usize];
        running.tag = request.tag;
        running.operation = request.operation;
        running.fua = request.fua;
        running.offset_bytes = request.offset_bytes;
        running.bytes = request.bytes;
        running.syncing = false;
        running.vectors.clear();
        running.vectors.extend(
            request
                .memory
                .iter()
                .map(|segment| libc::iovec { iov_base: segment.as_ptr().cast(), iov_len: segment.len() }),
        );
        self.running += 1;
        self.push(file, place);
    }

    /// Shows the kernel what was started.
    pub(super) fn submit(&mut self) {
        // An interrupted or busy kernel takes the entries with the next call.
        let _ = self.uring.submit();
    }

    /// An operation that has ended: its tag, what it was, and how.
    pub(super) fn poll(&mut self, file: &File) -> Option<(u32, MediaOperation, io::Result<()>)> {
        if self.running == 0 {
            return None;
        }
        loop {
            let Some(entry) = self.next_end() else {
                // Entries that found the ring full are only flushed by a system call.
                if !self.uring.submission().is_empty() || self.uring.submission().cq_overflow() {
                    self.submit();
                    if !self.uring.completion().is_empty() {
                        continue;
                    }
                }
                return None;
            };
            let place = entry.user_data() as u32;
            if let Some(result) = self.advance(file, place, &entry) {
                let running = &self.places[place as usize];
                let (tag, operation) = (running.tag, running.operation);
                self.retire(place);
                return Some((tag, operation, result));
            }
        }
    }

    /// Whether the kernel has ends for which the ring had no room.
    #[cfg(test)]
    pub(super) fn has_overflowed(&mut self) -> bool {
        self.uring.submission().cq_overflow()
    }

    /// Waits until nothing runs. What ended is forgotten.
    pub(super) fn wait_for_all(&mut self) {
        while self.running > 0 {
            if self.ended.is_empty() {
                let _ = self.uring.submit_and_wait(1);
            }
            while let Some(entry) = self.next_end() {
                self.retire(entry.user_data() as u32);
            }
        }
    }

    fn next_end(&mut self) -> Option<cqueue::Entry> {
        self.ended.pop_front().or_else(|| self.uring.completion().next())
    }

    fn retire(&mut self, place: u32) {
        self.running -= 1;
        self.free.push(place);
    }

    /// Looks at what the kernel has done. The operation's result, unless it goes on.
    fn advance(&mut self, file: &File, place: u32, entry: &cqueue::Entry) -> Option<io::Result<()>> {
        let running = &mut self.places[place as usize];
        let zeroing =
            matches!(running.operation, MediaOperation::WriteZeroes { .. } | MediaOperation::Deallocate);
        let moved = match entry.result() {
            code if code >= 0 => code as usize,
            code if code == -libc::EINTR || code == -libc::EAGAIN => {
                self.push(file, place);
                self.submit();
                return None;
            }
            code if code == -libc::EOPNOTSUPP && zeroing && !running.syncing => {
                if let Err(error) = calls::write_zeros(file, running.offset_bytes, running.bytes) {
                    return Some(Err(error));
                }
                0
            }
            code => return Some(Err(io::Error::from_raw_os_error(-code))),
        };
        let moves = matches!(running.operation, MediaOperation::Read | MediaOperation::Write);
        if moves && !drop_moved(running, moved) {
            if moved == 0 {
                return Some(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.push(file, place);
            self.submit();
            return None;
        }
        if zeroing && running.fua && !running.syncing {
            running.syncing = true;
            self.push(file, place);
            self.submit();
            return None;
        }
        Some(Ok(()))
    }

    fn push(&mut self, file: &File, place: u32) {
        let entry = entry(file, &self.places[place as usize]).user_data(u64::from(place));
        loop {
            // SAFETY: the vectors stand in `places` unchanged, and the memory that they name stays valid, until the
            // operation's end is seen: nothing is retired before, and dropping the ring waits for all.
            match unsafe { self.uring.submission().push(&entry) } {
                Ok(()) => return,
                Err(_) => {
                    // A kernel with no room for ends takes no entries.
                    self.submit();
                    self.ended.extend(self.uring.completion());
                }
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.wait_for_all();
    }
}

/// Takes `moved` bytes off the front of what is to be moved. True when nothing is left.
fn drop_moved(running: &mut Running, mut moved: usize) -> bool {
    running.offset_bytes += moved as u64;
    let mut gone = 0;
    for vector in &mut running.vectors {
        if moved < vector.iov_len {
            vector.iov_base = vector.iov_base.wrapping_byte_add(moved);
            vector.iov_len -= moved;
            break;
        }
        moved -= vector.iov_len;
        gone += 1;
    }
    running.vectors.drain(..gone);
    running.vectors.is_empty()
}

fn entry(file: &File, running: &Running) -> squeue::Entry {
    let file = types::Fd(file.as_raw_fd());
    let (vectors, count) = (running.vectors.as_ptr(), running.vectors.len() as u32);
    if running.syncing {
        return opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build();
    }
    match running.operation {
        MediaOperation::Read => opcode::Readv::new(file, vectors, count).offset(running.offset_bytes).build(),
        MediaOperation::Write => {
            let flags = if running.fua { libc::RWF_DSYNC } else { 0 };
            opcode::Writev::new(file, vectors, count)
                .offset(running.offset_bytes)
                .rw_flags(flags as _)
                .build()
        }
        MediaOperation::Flush => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
        MediaOperation::WriteZeroes { .. } | MediaOperation::Deallocate => {
            let mode = calls::zeroing(running.operation).bits();
            opcode::Fallocate::new(file, running.bytes).offset(running.offset_bytes).mode(mode).build()
        }
    }
}
