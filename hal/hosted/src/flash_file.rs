//! The configuration store's flash as a file: two erase blocks, each operation on the disk before it has ended.
//!
//! A thread does what waits for the disk, so that the core loop never does.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::task::Poll;

use hal_api::{FlashError, FlashShape, NorFlash};
use nix::fcntl::{Flock, FlockArg};

const SHAPE: FlashShape = FlashShape { blocks: 2, block_bytes: 64 << 10, unit_bytes: 4, program_bytes: 4096 };
static ERASED: [u8; SHAPE.block_bytes as usize] = [0xff; SHAPE.block_bytes as usize];

/// Why a file cannot be the store. Each is a sentence with the file's name.
#[derive(Debug)]
pub enum FlashFileError {
    /// Something else is there: it has another size, or is no file.
    Other(PathBuf),
    /// Another process has locked it.
    Locked(PathBuf),
    /// What else the system says.
    System(PathBuf, io::Error),
}

impl fmt::Display for FlashFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(path) => {
                let (path, bytes) = (path.display(), SHAPE.bytes());
                write!(
                    f,
                    "{path}: it is no configuration store, which has {bytes} bytes; name a file that does not exist"
                )
            }
            Self::Locked(path) => write!(f, "{}: another card stores there", path.display()),
            Self::System(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for FlashFileError {}

/// What the thread does.
#[derive(Debug)]
struct Order {
    offset: u64,
    bytes: Vec<u8>,
    failure: FlashError,
}

/// A flash in a file, which is locked for as long as the value lives.
#[derive(Debug)]
pub struct FlashFile {
    file: Flock<File>,
    orders: Sender<Order>,
    results: Receiver<Result<(), FlashError>>,
    is_busy: bool,
}

impl FlashFile {
    /// Opens the file; makes it, erased, where there is none.
    ///
    /// # Errors
    /// [`FlashFileError`]; nothing is locked then.
    pub fn open(path: &Path) -> Result<Self, FlashFileError> {
        let system = |error| FlashFileError::System(path.to_path_buf(), error);
        if !path.try_exists().map_err(system)? {
            make(path).map_err(system)?;
        }
        let metadata = path.metadata().map_err(system)?;
        if !metadata.is_file() || metadata.len() != SHAPE.bytes() {
            return Err(FlashFileError::Other(path.to_path_buf()));
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(system)?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| FlashFileError::Locked(path.to_path_buf()))?;
        let of_thread = file.try_clone().map_err(system)?;
        let (orders, to_do) = channel::<Order>();
        let (done, results) = channel();
        let work = move || {
            for Order { offset, bytes, failure } in to_do {
                let written = of_thread.write_all_at(&bytes, offset).and_then(|()| of_thread.sync_data());
                if done.send(written.map_err(|_| failure)).is_err() {
                    break;
                }
            }
        };
        std::thread::Builder::new().name("store".to_owned()).spawn(work).map_err(system)?;
        Ok(Self { file, orders, results, is_busy: false })
    }

    fn begin(&mut self, offset: u64, bytes: &[u8], failure: FlashError) -> Result<(), FlashError> {
        if self.is_busy {
            return Err(FlashError::Busy);
        }
        if bytes.is_empty() || offset + bytes.len() as u64 > SHAPE.bytes() {
            return Err(FlashError::OutOfRange);
        }
        let order = Order { offset, bytes: bytes.to_vec(), failure };
        self.orders.send(order).map_err(|_| FlashError::NoAnswer)?;
        self.is_busy = true;
        Ok(())
    }
}

/// An erased flash, which has its name only once it is whole.
fn make(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let file = File::create(&name)?;
    for block in 0..u64::from(SHAPE.blocks) {
        file.write_all_at(&ERASED, block * ERASED.len() as u64)?;
    }
    file.sync_all()?;
    std::fs::rename(&name, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

impl NorFlash for FlashFile {
    fn shape(&self) -> FlashShape {
        SHAPE
    }

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<(), FlashError> {
        if self.is_busy {
            return Err(FlashError::Busy);
        }
        self.file.read_exact_at(into, offset.into()).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => FlashError::OutOfRange,
            _ => FlashError::NoAnswer,
        })
    }

    fn begin_erase(&mut self, block: u32) -> Result<(), FlashError> {
        let offset = u64::from(block) * ERASED.len() as u64;
        self.begin(offset, &ERASED, FlashError::EraseFailed)
    }

    fn begin_program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        self.begin(offset.into(), bytes, FlashError::ProgramFailed)
    }

    fn poll(&mut self) -> Poll<Result<(), FlashError>> {
        if !self.is_busy {
            return Poll::Ready(Ok(()));
        }
        let result = match self.results.try_recv() {
            Err(TryRecvError::Empty) => return Poll::Pending,
            Err(TryRecvError::Disconnected) => Err(FlashError::NoAnswer),
            Ok(result) => result,
        };
        self.is_busy = false;
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("penstock-flash-{}-{name}", std::process::id()))
    }

    fn finish(flash: &mut FlashFile) -> Result<(), FlashError> {
        loop {
            if let Poll::Ready(result) = flash.poll() {
                return result;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_was_programmed_is_there_when_the_file_is_opened_again() {
        let path = path("again");
        let mut flash = FlashFile::open(&path).unwrap();
        let mut read = [0; 8];
        flash.read(SHAPE.block_bytes - 4, &mut read).unwrap();
        assert_eq!(read, [0xff; 8], "a new file is erased");
        flash.begin_program(SHAPE.block_bytes, &[1, 2, 3, 4]).unwrap();
        assert_eq!(flash.begin_erase(0), Err(FlashError::Busy));
        finish(&mut flash).unwrap();
        assert!(matches!(FlashFile::open(&path), Err(FlashFileError::Locked(_))));
        drop(flash);
        // The thread has its own handle of the locked file until it has seen the end.
        let mut flash = loop {
            match FlashFile::open(&path) {
                Err(FlashFileError::Locked(_)) => std::thread::yield_now(),
                other => break other.unwrap(),
            }
        };
        flash.read(SHAPE.block_bytes - 4, &mut read).unwrap();
        assert_eq!(read, [0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
        flash.begin_erase(1).unwrap();
        finish(&mut flash).unwrap();
        flash.read(SHAPE.block_bytes, &mut read).unwrap();
        assert_eq!(read, [0xff; 8]);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn places_beyond_the_file_are_refused() {
        let path = path("beyond");
        let mut flash = FlashFile::open(&path).unwrap();
        let end = SHAPE.bytes() as u32;
        assert_eq!(flash.begin_erase(2), Err(FlashError::OutOfRange));
        assert_eq!(flash.begin_program(end - 4, &[0; 8]), Err(FlashError::OutOfRange));
        assert_eq!(flash.read(end - 4, &mut [0; 8]), Err(FlashError::OutOfRange));
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone() {
        let path = path("other");
        std::fs::write(&path, b"somebody's notes").unwrap();
        let refusal = FlashFile::open(&path).unwrap_err();
        assert!(refusal.to_string().contains("no configuration store"));
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody's notes");
        std::fs::remove_file(path).unwrap();
        assert!(matches!(FlashFile::open(Path::new("/no/such/folder/x")), Err(FlashFileError::System(..))));
    }
}
