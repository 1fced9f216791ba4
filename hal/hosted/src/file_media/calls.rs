//! Operations as system calls that wait for their end.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use hal_fakes::{MediaOperation, MediaRequest, Segment};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;

/// Zeros that are written where a file system cannot make them.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Performs a request from beginning to end.
pub(super) fn perform(file: &File, request: &MediaRequest<'_>) -> io::Result<()> {
    let (at, bytes) = (request.offset_bytes, request.bytes);
    match request.operation {
        MediaOperation::Read => each(request, |segment, at| read(file, segment, at)),
        MediaOperation::Write => each(request, |segment, at| write(file, segment, at)),
        MediaOperation::Flush => file.sync_data(),
        MediaOperation::WriteZeroes { .. } | MediaOperation::Deallocate => {
            zero(file, request.operation, at, bytes)
        }
    }?;
    if request.fua && request.operation != MediaOperation::Read { file.sync_data() } else { Ok(()) }
}

/// How the file system is asked to make blocks zeros.
pub(super) fn zeroing(operation: MediaOperation) -> FallocateFlags {
    match operation {
        MediaOperation::WriteZeroes { deallocate: false } => {
            FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE
        }
        _ => FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
    }
}

fn zero(file: &File, operation: MediaOperation, at: u64, bytes: u64) -> io::Result<()> {
    match fallocate(file, zeroing(operation), at as i64, bytes as i64) {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP) => write_zeros(file, at, bytes),
        Err(error) => Err(error.into()),
    }
}

/// Writes zeros, for file systems that cannot make them otherwise.
pub(super) fn write_zeros(file: &File, mut at: u64, mut bytes: u64) -> io::Result<()> {
    while bytes > 0 {
        let now = bytes.min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..now as usize], at)?;
        at += now;
        bytes -= now;
    }
    Ok(())
}

/// Calls `act` for each segment with its place in the file.
fn each(request: &MediaRequest<'_>, mut act: impl FnMut(&Segment, u64) -> io::Result<()>) -> io::Result<()> {
    let mut at = request.offset_bytes;
    for segment in request.memory {
        act(segment, at)?;
        at += segment.len() as u64;
    }
    Ok(())
}

fn read(file: &File, segment: &Segment, at: u64) -> io::Result<()> {
    whole(segment, at, |start, bytes, at| {
        // SAFETY: `start..start + bytes` lies in a segment, which is valid memory without references into it.
        unsafe { libc::pread(file.as_raw_fd(), start.cast(), bytes, at) }
    })
}

fn write(file: &File, segment: &Segment, at: u64) -> io::Result<()> {
    whole(segment, at, |start, bytes, at| {
        // SAFETY: as in `read`.
        unsafe { libc::pwrite(file.as_raw_fd(), start.cast_const().cast(), bytes, at) }
    })
}

/// Repeats a call that may move less than it was asked to.
fn whole(
    segment: &Segment,
    at: u64,
    mut call: impl FnMut(*mut u8, usize, libc::off_t) -> isize,
) -> io::Result<()> {
    let mut done = 0;
    while done < segment.len() {
        let moved = call(
            segment.as_ptr().wrapping_add(done),
            segment.len() - done,
            at as libc::off_t + done as libc::off_t,
        );
        match Errno::result(moved) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(moved) => done += moved as usize,
            Err(Errno::EINTR) => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
