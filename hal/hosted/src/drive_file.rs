//! A drive's file: opened, checked and locked before anything starts.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::libc;

/// A file, or a block device, that holds the blocks of a drive, locked for as long as the value lives: flock(2), and
/// the whole of it by an open file description lock (fcntl(2)), the kind that QEMU puts on single bytes of its images.
#[derive(Debug)]
pub struct DriveFile {
    file: Flock<File>,
    bytes: u64,
}

/// Why a file cannot be a drive. Each is a sentence with the file's name.
#[derive(Debug)]
pub enum DriveFileError {
    /// There is no such file.
    Missing(PathBuf),
    /// It is a directory, a socket or the like.
    NotAFile(PathBuf),
    /// It has no byte.
    Empty(PathBuf),
    /// Its size is not whole blocks: file, its size, size of a block.
    NotWholeBlocks(PathBuf, u64, u32),
    /// Another process has locked it: file, and the process where it is known.
    Locked(PathBuf, Option<String>),
    /// What else the system says.
    System(PathBuf, io::Error),
}

impl fmt::Display for DriveFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => {
                let path = path.display();
                write!(f, "drive {path}: there is no such file; make one: truncate -s 1G {path}")
            }
            Self::NotAFile(path) => {
                write!(f, "drive {}: it is neither a file nor a block device", path.display())
            }
            Self::Empty(path) => {
                let path = path.display();
                write!(f, "drive {path}: the file is empty; give it a size: truncate -s 1G {path}")
            }
            Self::NotWholeBlocks(path, bytes, block) => {
                write!(
                    f,
                    "drive {}: its {bytes} bytes are not a multiple of the block size, {block}",
                    path.display()
                )
            }
            Self::Locked(path, holder) => {
                let holder = holder.as_deref().unwrap_or("another process");
                write!(f, "drive {}: it is locked by {holder}", path.display())
            }
            Self::System(path, error) => write!(f, "drive {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for DriveFileError {}

impl DriveFile {
    /// Opens and locks a file of whole blocks of `block_bytes`.
    ///
    /// # Errors
    /// [`DriveFileError`]; nothing is locked then.
    pub fn open(path: &Path, block_bytes: u32) -> Result<Self, DriveFileError> {
        let named = || path.to_path_buf();
        let system = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => DriveFileError::Missing(named()),
            _ => DriveFileError::System(named(), error),
        };
        let kind = path.metadata().map_err(system)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(DriveFileError::NotAFile(named()));
        }
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(system)?;
        // A block device tells its size by where it ends.
        let bytes = file.seek(SeekFrom::End(0)).map_err(system)?;
        if bytes == 0 {
            return Err(DriveFileError::Empty(named()));
        }
        if !bytes.is_multiple_of(u64::from(block_bytes)) {
            return Err(DriveFileError::NotWholeBlocks(named(), bytes, block_bytes));
        }
        let file =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, error)| match error {
                Errno::EWOULDBLOCK => DriveFileError::Locked(named(), holder(&file, "FLOCK")),
                _ => DriveFileError::System(named(), error.into()),
            })?;
        lock_bytes(&file).map_err(|error| match error {
            Errno::EAGAIN | Errno::EACCES => DriveFileError::Locked(named(), holder(&file, "POSIX")),
            _ => DriveFileError::System(named(), error.into()),
        })?;
        Ok(Self { file, bytes })
    }

    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Locks every byte of the file against writers and readers. The lock belongs to the open file, and ends with it.
fn lock_bytes(file: &File) -> nix::Result<()> {
    // A length of 0 reaches past any end; the process is 0 in locks of open files.
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole)).map(|_| ())
}

/// The process that holds a lock of this kind on the file, as `/proc/locks` has it (proc_locks(5)). It names none for
/// locks of open files.
fn holder(file: &File, kind: &str) -> Option<String> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let line = locks.lines().find(|line| {
        let place = line.split_whitespace().nth(5).unwrap_or_default();
        line.split_whitespace().nth(1) == Some(kind) && place.rsplit(':').next() == Some(&inode)
    })?;
    let process = line.split_whitespace().nth(4)?;
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).ok();
    Some(match name {
        Some(name) => format!("process {process} ({})", name.trim()),
        None => format!("process {process}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TemporaryFile;

    fn text(result: Result<DriveFile, DriveFileError>) -> String {
        result.expect_err("refused").to_string()
    }

    #[test]
    fn what_cannot_be_a_drive_is_said_in_one_sentence() {
        let file = TemporaryFile::new(4096 + 512);
        let missing = file.path().with_extension("none");
        assert!(text(DriveFile::open(&missing, 512)).contains("there is no such file; make one: truncate"));
        assert!(text(DriveFile::open(Path::new("/"), 512)).contains("neither a file nor"));
        let odd = text(DriveFile::open(file.path(), 4096));
        assert!(odd.ends_with("its 4608 bytes are not a multiple of the block size, 4096"), "{odd}");
        assert_eq!(DriveFile::open(file.path(), 512).unwrap().bytes(), 4608);
        let empty = TemporaryFile::new(0);
        assert!(text(DriveFile::open(empty.path(), 512)).contains("is empty"));
    }

    #[test]
    fn a_locked_file_is_refused_and_its_holder_named() {
        let file = TemporaryFile::new(4096);
        let first = DriveFile::open(file.path(), 512).unwrap();
        let refused = text(DriveFile::open(file.path(), 512));
        assert!(refused.contains("it is locked by"), "{refused}");
        // Containers may hide /proc/locks.
        let own = format!("process {} (", std::process::id());
        assert!(refused.contains(&own) || refused.contains("another process"), "{refused}");
        drop(first);
        assert!(DriveFile::open(file.path(), 512).is_ok());
    }

    #[test]
    fn an_image_that_qemu_uses_is_refused_and_ours_is_refused_to_qemu() {
        let file = TemporaryFile::new(4096);
        let other = || OpenOptions::new().read(true).write(true).open(file.path()).unwrap();
        // As QEMU shares its images: a read lock on a byte from 100 on for each thing that it does with them, and on
        // one from 200 on for each that it lets nobody else do.
        let lock = |other: &File, start| {
            let byte = libc::flock {
                l_type: libc::F_RDLCK as libc::c_short,
                l_whence: libc::SEEK_SET as libc::c_short,
                l_start: start,
                l_len: 1,
                l_pid: 0,
            };
            fcntl(other, FcntlArg::F_OFD_SETLK(&byte))
        };
        let qemu = other();
        lock(&qemu, 201).unwrap();
        let refused = text(DriveFile::open(file.path(), 512));
        assert!(refused.ends_with("it is locked by another process"), "{refused}");
        drop(qemu);
        let ours = DriveFile::open(file.path(), 512).unwrap();
        let qemu = other();
        assert_eq!(lock(&qemu, 101), Err(Errno::EAGAIN));
        drop(ours);
        lock(&qemu, 101).unwrap();
    }
}
