//! Unix sockets by their paths, and what is wrong with a path in a sentence.

use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path of a socket (unix(7)).
const MAX_PATH_BYTES: usize = 107;

/// Why there is no socket at a path. Each is a sentence.
#[derive(Debug)]
pub enum SocketError {
    /// The path is too long for a socket.
    TooLong(PathBuf),
    /// The path's folder does not exist.
    NoFolder(PathBuf),
    /// Something that is no socket is there.
    NotASocket(PathBuf),
    /// Another process listens there.
    Busy(PathBuf),
    /// What else the system says.
    System(PathBuf, io::Error),
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(path) => {
                write!(f, "{}: a socket's path has at most {MAX_PATH_BYTES} bytes", path.display())
            }
            Self::NoFolder(path) => write!(f, "{}: its folder does not exist", path.display()),
            Self::NotASocket(path) => write!(f, "{}: what is there is not a socket", path.display()),
            Self::Busy(path) => write!(f, "{}: another process listens there", path.display()),
            Self::System(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for SocketError {}

/// Whether a socket may be at a path.
pub fn check_path(path: &Path) -> Result<(), SocketError> {
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(SocketError::TooLong(path.to_path_buf()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(SocketError::NoFolder(path.to_path_buf()));
    }
    if path.symlink_metadata().is_ok_and(|found| !found.file_type().is_socket()) {
        return Err(SocketError::NotASocket(path.to_path_buf()));
    }
    Ok(())
}

/// Listens at a path. A socket that nobody listens at any more is what a killed process has left, and is replaced.
pub fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    check_path(path)?;
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            return Err(SocketError::Busy(path.to_path_buf()));
        }
        let _ = std::fs::remove_file(path);
    }
    let listener = UnixListener::bind(path).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| SocketError::System(path.to_path_buf(), error))
}
