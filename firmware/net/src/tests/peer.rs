//! The other end: a client made of smoltcp alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hal_api::{FrameQueue, FrameReceive, Instant};
use hal_fakes::FakeFrameQueue;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use crate::device::{Capabilities, FrameDevice};

pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(super) const ADDRESS_6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const BUFFER_BYTES: usize = 128 * 1024;

pub(super) struct Peer {
    pub(super) queue: FakeFrameQueue,
    interface: Interface,
    set: SocketSet<'static>,
    next_port: u16,
    /// What the last poll sent.
    pub(super) sent: Vec<Vec<u8>>,
}

impl Peer {
    pub(super) fn new(mut queue: FakeFrameQueue) -> Self {
        let info = queue.info();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(info.mac)));
        config.random_seed = 7;
        let mut interface = with_device(&mut queue, None, |device| {
            Interface::new(config, device, smoltcp::time::Instant::ZERO)
        });
        interface.update_ip_addrs(|list| {
            list.push(IpCidr::new(ADDRESS.into(), 24)).unwrap();
            list.push(IpCidr::new(ADDRESS_6.into(), 64)).unwrap();
            list.push(IpCidr::new(LINK_LOCAL.into(), 64)).unwrap();
        });
        let storage = Vec::leak((0..128).map(|_| SocketStorage::EMPTY).collect());
        Self { queue, interface, set: SocketSet::new(storage), next_port: 40_000, sent: Vec::new() }
    }

    /// Its addresses are at another station from now on, and it has to ask anew where others are.
    pub(super) fn move_to(&mut self, station: EthernetAddress) {
        self.interface.set_hardware_addr(HardwareAddress::Ethernet(station));
        // This forgets all neighbours.
        self.interface.update_ip_addrs(|_| ());
    }

    pub(super) fn connect(&mut self, address: IpAddr, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_BYTES].leak());
        let mut socket = tcp::Socket::new(buffer(), buffer());
        self.next_port += 1;
        socket.connect(self.interface.context(), (address, port), self.next_port).unwrap();
        self.set.add(socket)
    }

    /// A socket that waits for a connection.
    pub(super) fn listen(&mut self, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_BYTES].leak());
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen(port).unwrap();
        self.set.add(socket)
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.set.get_mut(handle)
    }

    /// Loses a socket without a word.
    pub(super) fn forget(&mut self, handle: SocketHandle) {
        self.set.remove(handle);
    }

    pub(super) fn poll(&mut self, now: Instant) {
        let now = smoltcp::time::Instant::from_micros(now.as_micros() as i64);
        while let Some(frame) = self.queue.halves().0.receive(<[u8]>::to_vec) {
            with_device(&mut self.queue, Some(&frame), |device| {
                self.interface.poll_ingress_single(now, device, &mut self.set);
            });
        }
        while with_device(&mut self.queue, None, |device| {
            self.interface.poll_egress(now, device, &mut self.set)
        }) != PollResult::None
        {}
        self.sent = self.queue.queued_frames();
        self.queue.flush();
    }
}

fn with_device<R>(
    queue: &mut FakeFrameQueue,
    frame: Option<&[u8]>,
    work: impl FnOnce(&mut FrameDevice<'_, hal_fakes::FakeTransmit>) -> R,
) -> R {
    let capabilities = Capabilities::new(&queue.info(), 9000, None);
    let (mut scratch, mut sent) = ([0; 9014], 0);
    let transmit = queue.halves().1;
    let scratch = &mut scratch;
    work(&mut FrameDevice { capabilities, frame, transmit, scratch, sent: &mut sent, mute: false })
}
