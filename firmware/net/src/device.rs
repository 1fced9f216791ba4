//! A frame queue as smoltcp wants to see it.

use hal_api::{ChecksumRequest, FrameTransmit, PortInfo};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::frame::leave_checksum;
use crate::vlan::{self, TAG_BYTES, put_tag};

/// Ethernet header in bytes; smoltcp counts it into its transmission unit.
const ETHERNET_HEADER_BYTES: usize = 14;

/// Largest frame that goes out, in bytes.
pub(crate) const MAX_FRAME_BYTES: usize = 9000 + ETHERNET_HEADER_BYTES + TAG_BYTES;

/// What smoltcp may leave to the device, as it stays for the life of a stack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capabilities {
    mtu: usize,
    checksum: Checksum,
    leave_checksums: bool,
    /// All frames of the port carry its tag.
    pub(crate) vlan: Option<u16>,
}

impl Capabilities {
    /// The port's, with IP packets of at most `mtu_limit` bytes and frames of one VLAN.
    pub(crate) fn new(info: &PortInfo, mtu_limit: u16, vlan: Option<u16>) -> Self {
        let checksum = match (info.receive_checksums_verified, info.transmit_checksum_offload) {
            (false, false) => Checksum::Both,
            (false, true) => Checksum::Rx,
            (true, false) => Checksum::Tx,
            (true, true) => Checksum::None,
        };
        Self {
            mtu: usize::from(info.mtu.min(mtu_limit).clamp(68, 9000)),
            checksum,
            leave_checksums: info.transmit_checksum_offload,
            vlan: vlan.filter(|vlan| vlan::is_usable(*vlan)),
        }
    }

    fn to_smoltcp(self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER_BYTES;
        capabilities.checksum.tcp = self.checksum;
        capabilities.checksum.udp = self.checksum;
        capabilities
    }
}

/// The device for one call of smoltcp: at most one received frame, and the transmitting half.
pub(crate) struct FrameDevice<'a, T> {
    /// What smoltcp may leave out.
    pub(crate) capabilities: Capabilities,
    /// The frame to be received, once.
    pub(crate) frame: Option<&'a [u8]>,
    /// Where answers go.
    pub(crate) transmit: &'a mut T,
    /// Takes a frame for which the queue has no room after all.
    pub(crate) scratch: &'a mut [u8],
    /// Counts the frames sent.
    pub(crate) sent: &'a mut u64,
    /// Another core answers: what smoltcp would send goes nowhere.
    pub(crate) mute: bool,
}

impl<T: FrameTransmit> Device for FrameDevice<'_, T> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Sender<'b, T>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sender<'_, T>)> {
        let frame = self.frame.take()?;
        Some((Received { frame }, self.sender()))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sender<'_, T>> {
        self.transmit.has_room().then(|| self.sender())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.to_smoltcp()
    }
}

impl<T: FrameTransmit> FrameDevice<'_, T> {
    fn sender(&mut self) -> Sender<'_, T> {
        Sender {
            transmit: self.transmit,
            scratch: self.scratch,
            sent: self.sent,
            leave_checksums: self.capabilities.leave_checksums,
            vlan: self.capabilities.vlan,
            mute: self.mute,
        }
    }
}

/// A received frame.
pub(crate) struct Received<'a> {
    frame: &'a [u8],
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.frame)
    }
}

/// The right to send one frame.
pub(crate) struct Sender<'a, T> {
    transmit: &'a mut T,
    scratch: &'a mut [u8],
    sent: &'a mut u64,
    leave_checksums: bool,
    vlan: Option<u16>,
    mute: bool,
}

impl<T: FrameTransmit> TxToken for Sender<'_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, bytes: usize, fill: F) -> R {
        let Self { leave_checksums, vlan, .. } = self;
        if self.mute {
            return fill(self.scratch.get_mut(..bytes).unwrap_or_default());
        }
        let headroom = if vlan.is_some() { TAG_BYTES } else { 0 };
        let finish = |frame: &mut [u8]| {
            if let Some(vlan) = vlan {
                put_tag(frame, vlan);
            }
            let request = leave_checksum(frame.get_mut(headroom..).filter(|_| leave_checksums)?)?;
            Some(ChecksumRequest { start: request.start + headroom as u16, ..request })
        };
        match self.transmit.transmit_behind(headroom, bytes, fill, finish) {
            Ok(result) => {
                *self.sent += 1;
                result
            }
            // Refused after all. smoltcp needs the result of `fill`: the frame is lost, as on a wire.
            Err(fill) => fill(self.scratch.get_mut(..bytes).unwrap_or_default()),
        }
    }
}
