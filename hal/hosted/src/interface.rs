//! Network interfaces of the system: their existence, MTU, and, in a namespace of our own, their set-up (netdevice(7)).

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Longest name of an interface in bytes, without the closing zero.
pub(crate) const MAX_NAME_BYTES: usize = libc::IFNAMSIZ - 1;

/// An interface could not be set up: what was tried, and what the system says.
#[derive(Debug)]
pub struct InterfaceError {
    what: String,
    error: io::Error,
}

impl fmt::Display for InterfaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl std::error::Error for InterfaceError {}

/// A request about the interface of that name; the name was checked to fit.
pub(crate) fn request_for(name: &str) -> libc::ifreq {
    // SAFETY: all zeros is a valid `ifreq`: integers and a union of plain data.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes().take(MAX_NAME_BYTES)) {
        *place = byte as libc::c_char;
    }
    request
}

/// Whether there is an interface of that name here.
pub(crate) fn exists(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

fn any_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

/// An interface's MTU in bytes.
pub(crate) fn mtu(name: &str) -> io::Result<u16> {
    let socket = any_socket()?;
    let mut request = request_for(name);
    control(&socket, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: SIOCGIFMTU has filled this member in.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// What an interface in a namespace of our own is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceSetup {
    /// Its address, which is the host's.
    pub address: Ipv4Addr,
    /// Length of the network's prefix in bits.
    pub prefix: u8,
    /// Its MTU in bytes; `None` leaves the system's.
    pub mtu: Option<u16>,
}

/// Gives an interface its address, its MTU where one is named, and brings it up, the loopback interface with it.
///
/// # Errors
/// [`InterfaceError`], which names the step.
pub(crate) fn configure(name: &str, setup: &InterfaceSetup) -> Result<(), InterfaceError> {
    let InterfaceSetup { address, prefix, mtu } = *setup;
    let failed = |what: &str| {
        let what = format!("{what} of {name}");
        move |error: io::Error| InterfaceError { what, error }
    };
    let socket = any_socket().map_err(failed("the set-up"))?;
    let mut request = request_for(name);
    if let Some(mtu) = mtu {
        request.ifr_ifru.ifru_mtu = libc::c_int::from(mtu);
        control(&socket, libc::SIOCSIFMTU, &mut request).map_err(failed("the MTU"))?;
    }
    request.ifr_ifru.ifru_addr = socket_address(address);
    control(&socket, libc::SIOCSIFADDR, &mut request).map_err(failed("the address"))?;
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    request.ifr_ifru.ifru_netmask = socket_address(Ipv4Addr::from(mask));
    control(&socket, libc::SIOCSIFNETMASK, &mut request).map_err(failed("the network mask"))?;
    bring_up(&socket, name).map_err(failed("the start"))?;
    bring_up(&socket, "lo").map_err(failed("the start of lo for the sake"))
}

fn bring_up(socket: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = request_for(name);
    control(socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: SIOCGIFFLAGS has filled this member in.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    control(socket, libc::SIOCSIFFLAGS, &mut request)
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    // SAFETY: all zeros is a valid `sockaddr`.
    let mut generic: libc::sockaddr = unsafe { std::mem::zeroed() };
    generic.sa_family = libc::AF_INET as libc::sa_family_t;
    // `sockaddr_in`: two bytes of port, then the address in network order.
    for (place, byte) in generic.sa_data[2..6].iter_mut().zip(address.octets()) {
        *place = byte as libc::c_char;
    }
    generic
}

fn control(socket: &OwnedFd, number: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the requests used here read and write one `ifreq`, which is borrowed for the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), number as _, std::ptr::from_mut(request)) };
    Errno::result(result)?;
    Ok(())
}
