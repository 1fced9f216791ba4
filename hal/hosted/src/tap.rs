//! An Ethernet port over a TAP interface of Linux, with the virtio header: the kernel verifies and fills in checksums and
//! gives segments of one connection joined (Documentation/networking/tuntap; Virtio 1.2, 5.1.6).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use hal_api::{ChecksumRequest, FrameQueue, FrameReceive, FrameTransmit, PortInfo};
use hal_devices::virtio::checksum_is_acceptable;
use nix::errno::Errno;
use nix::libc;

use crate::Watcher;
use crate::interface::{self, InterfaceError, InterfaceSetup, MAX_NAME_BYTES};

/// `struct virtio_net_hdr`, in the machine's byte order: flags, segmentation type, header length, segment size, start
/// and offset of the checksum.
const HEADER_BYTES: usize = 10;
const FLAG_NEEDS_CHECKSUM: u8 = 1;
const FLAG_CHECKSUM_VALID: u8 = 2;
/// Largest frame that the kernel gives: 64 KiB of IP, joined from segments, and its Ethernet header.
const MAX_RECEIVED_BYTES: usize = (1 << 16) + 14;
/// An Ethernet header with a VLAN tag.
const ETHERNET_BYTES: usize = 18;

/// Why a TAP interface cannot be used. Each is a sentence that says what to do.
#[derive(Debug)]
pub enum TapError {
    /// The kernel has no TAP interfaces.
    NoTun(io::Error),
    /// `/dev/net/tun` is not for this user.
    NoDevice(io::Error),
    /// The name is empty or too long.
    BadName(String),
    /// There is no such interface.
    Missing(String),
    /// It belongs to another user.
    NotOwned(String),
    /// Another process uses it.
    Busy(String),
    /// It is no TAP interface, or one for several queues.
    NotTap(String),
    /// It was made, and cannot be set up.
    Setup(InterfaceError),
    /// What else the system says.
    System(String, io::Error),
}

impl fmt::Display for TapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTun(error) => write!(f, "this system has no TAP interfaces: /dev/net/tun: {error}"),
            Self::NoDevice(error) => {
                write!(f, "/dev/net/tun: {error}; it takes read and write rights on that file, or root")
            }
            Self::BadName(name) => {
                write!(
                    f,
                    "\"{name}\" is no name of an interface: 1 to {MAX_NAME_BYTES} bytes, no blank or slash"
                )
            }
            Self::Missing(name) => write!(
                f,
                "there is no interface {name}; make it: sudo ip tuntap add {name} mode tap user $USER && sudo ip link \
                 set {name} up"
            ),
            Self::NotOwned(name) => write!(
                f,
                "interface {name} is not this user's: that takes the right CAP_NET_ADMIN or a tap of one's own: sudo ip \
                 tuntap add {name} mode tap user $USER"
            ),
            Self::Busy(name) => write!(f, "another process uses interface {name}"),
            Self::NotTap(name) => write!(f, "interface {name} is no tap, or one of several queues"),
            Self::Setup(error) => write!(f, "{error}"),
            Self::System(name, error) => write!(f, "interface {name}: {error}"),
        }
    }
}

impl std::error::Error for TapError {}

/// An Ethernet port over a TAP interface. The interface is the host's end of the wire, the port the card's.
#[derive(Debug)]
pub struct TapQueue {
    receive: TapReceive,
    transmit: TapTransmit,
    watcher: Watcher,
    info: PortInfo,
}

/// The receiving half.
#[derive(Debug)]
pub struct TapReceive {
    tap: Arc<File>,
    /// Header and frame.
    buffer: Box<[u8]>,
    /// Length of the frame that waits in the buffer.
    waiting: Option<usize>,
}

/// The transmitting half.
#[derive(Debug)]
pub struct TapTransmit {
    tap: Arc<File>,
    /// Header and frame.
    buffer: Box<[u8]>,
    /// Bytes in the buffer that the kernel had no room for.
    left_over: usize,
}

impl TapQueue {
    /// A port with the station address `mac` over the interface `name`, which exists, or is made and set up as
    /// `create` says. The port's MTU is the interface's.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn open(
        name: &str,
        create: Option<&InterfaceSetup>,
        mac: [u8; 6],
        watcher: Watcher,
    ) -> Result<Self, TapError> {
        let named = || name.to_owned();
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains([' ', '/', '%', '\0']) {
            return Err(TapError::BadName(named()));
        }
        if create.is_none() && !interface::exists(name) {
            return Err(TapError::Missing(named()));
        }
        let tap = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        let tap = tap.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => TapError::NoDevice(error),
            _ => TapError::NoTun(error),
        })?;
        attach(&tap, name)?;
        if let Some(setup) = create {
            interface::configure(name, setup).map_err(TapError::Setup)?;
        }
        let system = |error| TapError::System(named(), error);
        set_non_blocking(&tap).map_err(system)?;
        watcher.add(tap.as_fd(), false).map_err(system)?;
        let mtu = interface::mtu(name).map_err(system)?;
        let tap = Arc::new(tap);
        let buffer = |bytes: usize| vec![0; HEADER_BYTES + bytes].into_boxed_slice();
        Ok(Self {
            receive: TapReceive { tap: Arc::clone(&tap), buffer: buffer(MAX_RECEIVED_BYTES), waiting: None },
            transmit: TapTransmit { tap, buffer: buffer(usize::from(mtu) + ETHERNET_BYTES), left_over: 0 },
            watcher,
            info: PortInfo {
                mac,
                mtu: mtu.min(9000),
                receive_checksums_verified: true,
                transmit_checksum_offload: true,
            },
        })
    }
}

/// Makes `tap` the other end of the interface, with checksums left to the kernel and segments joined by it.
fn attach(tap: &File, name: &str) -> Result<(), TapError> {
    let mut request = interface::request_for(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which is borrowed for the call.
    let attached =
        unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, std::ptr::from_mut(&mut request)) };
    Errno::result(attached).map_err(|error| match error {
        Errno::EPERM | Errno::EACCES => TapError::NotOwned(name.to_owned()),
        Errno::EBUSY => TapError::Busy(name.to_owned()),
        Errno::EINVAL => TapError::NotTap(name.to_owned()),
        _ => TapError::System(name.to_owned(), error.into()),
    })?;
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    let (header, little_endian) = (HEADER_BYTES as libc::c_int, 0);
    for result in [
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(offloads)) },
        // SAFETY: TUNSETVNETHDRSZ reads one int, which is borrowed for the call.
        unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, std::ptr::from_ref(&header)) },
        // SAFETY: TUNSETVNETLE reads one int, which is borrowed for the call.
        unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETLE as _, std::ptr::from_ref(&little_endian)) },
    ] {
        Errno::result(result).map_err(|error| TapError::System(name.to_owned(), error.into()))?;
    }
    Ok(())
}

fn set_non_blocking(file: &File) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    fcntl(file, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl TapReceive {
    /// Looks for the next frame that may be handed up.
    fn advance(&mut self) -> bool {
        while self.waiting.is_none() {
            // An interface that is down or gone has no frames; nor has it when the kernel says anything else.
            let Ok(bytes) = (&*self.tap).read(&mut self.buffer) else { return false };
            let Some(frame) = self.buffer.get(HEADER_BYTES..bytes) else { return false };
            let vouched = self.buffer[0] & (FLAG_NEEDS_CHECKSUM | FLAG_CHECKSUM_VALID) != 0;
            if vouched || checksum_is_acceptable(frame) {
                self.waiting = Some(frame.len());
            }
        }
        true
    }
}

impl FrameReceive for TapReceive {
    fn receive<R>(&mut self, consume: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if !self.advance() {
            return None;
        }
        let bytes = self.waiting.take()?;
        Some(consume(self.buffer.get(HEADER_BYTES..HEADER_BYTES + bytes)?))
    }

    fn has_frame(&mut self) -> bool {
        self.advance()
    }
}

impl TapTransmit {
    /// Gives the kernel `bytes` of the buffer; keeps them where it has no room. Frames that it refuses, as while the
    /// interface is down, are lost, as on a wire that is unplugged.
    fn send(&mut self, bytes: usize) {
        self.left_over = 0;
        match (&*self.tap).write(&self.buffer[..bytes]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.left_over = bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.left_over = bytes,
            _ => (),
        }
    }
}

impl FrameTransmit for TapTransmit {
    fn has_room(&mut self) -> bool {
        if self.left_over > 0 {
            self.send(self.left_over);
        }
        self.left_over == 0
    }

    fn transmit_behind<R, F: FnOnce(&mut [u8]) -> R>(
        &mut self,
        headroom: usize,
        bytes: usize,
        fill: F,
        finish: impl FnOnce(&mut [u8]) -> Option<ChecksumRequest>,
    ) -> Result<R, F> {
        if !self.has_room() {
            return Err(fill);
        }
        let (header, rest) = self.buffer.split_at_mut(HEADER_BYTES);
        let Some(frame) = rest.get_mut(..headroom + bytes) else { return Err(fill) };
        let result = fill(&mut frame[headroom..]);
        header.fill(0);
        if let Some(request) = finish(frame) {
            header[0] = FLAG_NEEDS_CHECKSUM;
            header[6..8].copy_from_slice(&request.start.to_ne_bytes());
            header[8..10].copy_from_slice(&request.offset.to_ne_bytes());
        }
        self.send(HEADER_BYTES + headroom + bytes);
        Ok(result)
    }
}

impl FrameQueue for TapQueue {
    type Receive<'a> = &'a mut TapReceive;
    type Transmit<'a> = &'a mut TapTransmit;

    fn info(&self) -> PortInfo {
        self.info
    }

    fn halves(&mut self) -> (&mut TapReceive, &mut TapTransmit) {
        (&mut self.receive, &mut self.transmit)
    }

    fn flush(&mut self) {
        let _ = self.transmit.has_room();
    }

    fn link_is_up(&mut self) -> bool {
        true
    }

    fn arm(&mut self) -> bool {
        if self.transmit.left_over > 0 {
            self.watcher.set_room(self.receive.tap.as_fd(), true);
        }
        self.receive.waiting.is_some()
    }

    fn disarm(&mut self) {
        if self.transmit.left_over > 0 {
            self.watcher.set_room(self.receive.tap.as_fd(), false);
        }
    }
}
