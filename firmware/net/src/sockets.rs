//! The set of sockets that smoltcp goes through.
//!
//! A pass of smoltcp looks at each place of its set, empty or not, and makes several passes in a turn. So there are sets of
//! three sizes, of which the smallest is in use that holds the sockets there are: idle places cost memory, and no time.

use hal_mem::{Arena, OutOfMemory};
use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::{Socket, dhcpv4, tcp};

/// Places of the sets but the largest.
const SMALL: usize = 8;
const MIDDLE: usize = 32;
const SIZES: usize = 3;

/// All sockets that are in use.
pub(crate) struct Sockets {
    /// The set that has them.
    pub(crate) set: SocketSet<'static>,
    /// The sets by size. One without places stands for the set in use.
    others: [SocketSet<'static>; SIZES],
    places: [usize; SIZES],
    size: usize,
    used: usize,
    dhcp: Option<SocketHandle>,
}

impl Sockets {
    /// Bytes of the sets for `count` sockets and one of DHCP.
    pub(crate) const fn memory_bytes(count: usize) -> usize {
        count.saturating_add(1 + SMALL + MIDDLE).saturating_mul(size_of::<SocketStorage<'static>>())
    }

    /// Room for `count` sockets and one of DHCP.
    pub(crate) fn new(count: usize, arena: &mut Arena) -> Result<Self, OutOfMemory> {
        let all = count + 1;
        let places = [SMALL.min(all), MIDDLE.min(all), all];
        let mut of_size = |places| Ok(SocketSet::new(arena.slice(places, |_| SocketStorage::EMPTY)?));
        let [small, middle, large] = places;
        let (set, middle, large) = (of_size(small)?, of_size(middle)?, of_size(large)?);
        let none = SocketSet::new(&mut [][..]);
        Ok(Self { set, others: [none, middle, large], places, size: 0, used: 0, dhcp: None })
    }

    /// Adds a connection's socket. Those of the others, `handles`, may move to another set.
    pub(crate) fn add<'a>(
        &mut self,
        socket: tcp::Socket<'static>,
        handles: impl Iterator<Item = &'a mut SocketHandle>,
    ) -> SocketHandle {
        if self.places.get(self.size).is_some_and(|places| self.used >= *places) {
            self.change_size(self.size + 1, handles);
        }
        self.used += 1;
        put(&mut self.set, Socket::Tcp(socket))
    }

    /// Takes a connection's socket out. Those of the others, `handles`, may move to another set.
    pub(crate) fn remove<'a>(
        &mut self,
        handle: SocketHandle,
        handles: impl Iterator<Item = &'a mut SocketHandle>,
    ) -> Option<tcp::Socket<'static>> {
        let socket = take(&mut self.set, handle);
        self.used = self.used.saturating_sub(1);
        // Half of what the smaller set holds, so that a connection more or less does not move all.
        let smaller = self.size.checked_sub(1).and_then(|size| Some((size, *self.places.get(size)?)));
        if let Some((size, places)) = smaller
            && self.used <= places / 2
        {
            self.change_size(size, handles);
        }
        match socket {
            Socket::Tcp(socket) => Some(socket),
            Socket::Dhcpv4(_) => None,
        }
    }

    /// A connection's socket. As [`take`].
    #[inline(never)]
    pub(crate) fn get(&self, handle: SocketHandle) -> &tcp::Socket<'static> {
        self.set.get(handle)
    }

    /// Adds the socket of DHCP, once.
    pub(crate) fn add_dhcp(&mut self) {
        debug_assert!(self.dhcp.is_none() && self.used < SMALL, "the first sockets are few");
        self.used += 1;
        self.dhcp = Some(put(&mut self.set, Socket::Dhcpv4(dhcpv4::Socket::new())));
    }

    /// The socket of DHCP, where there is one. Called in one place of the image, as [`take`].
    #[inline(never)]
    pub(crate) fn dhcp(&mut self) -> Option<&mut dhcpv4::Socket<'static>> {
        Some(self.set.get_mut(self.dhcp?))
    }

    /// Moves all sockets to the set of that size. Rare, and so kept out of what takes frames.
    #[inline(never)]
    fn change_size<'a>(&mut self, size: usize, handles: impl Iterator<Item = &'a mut SocketHandle>) {
        let from = self.size;
        let Ok([old, new]) = self.others.get_disjoint_mut([from, size]) else {
            debug_assert!(false, "more sockets than there are");
            return;
        };
        core::mem::swap(&mut self.set, old);
        core::mem::swap(&mut self.set, new);
        let mut move_over = |handle: &mut SocketHandle| *handle = put(&mut self.set, take(old, *handle));
        self.dhcp.iter_mut().for_each(&mut move_over);
        handles.for_each(move_over);
        self.size = size;
    }

    /// Places of the set in use.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.places[self.size]
    }
}

/// In one place of the image, where smoltcp's checks count once.
#[inline(never)]
fn take(set: &mut SocketSet<'static>, handle: SocketHandle) -> Socket<'static> {
    set.remove(handle)
}

/// As [`take`].
#[inline(never)]
fn put(set: &mut SocketSet<'static>, socket: Socket<'static>) -> SocketHandle {
    set.add(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(port: u16) -> tcp::Socket<'static> {
        let buffer = || tcp::SocketBuffer::new(vec![0; 16].leak());
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen(port).unwrap();
        socket
    }

    #[test]
    fn the_set_is_as_large_as_what_it_holds_and_every_socket_is_found_where_its_handle_says() {
        let mut sockets = Sockets::new(100, &mut Arena::leak_for_host(1 << 20)).unwrap();
        sockets.add_dhcp();
        let mut handles: Vec<(u16, SocketHandle)> = Vec::new();
        let mut places = Vec::new();
        for port in 1..=100 {
            let handle = sockets.add(listening(port), handles.iter_mut().map(|(_, handle)| handle));
            handles.push((port, handle));
            places.push(sockets.places());
        }
        assert_eq!([places[6], places[7], places[30], places[31], places[99]], [8, 32, 32, 101, 101]);
        while !handles.is_empty() {
            // From the middle, so that holes stay.
            let (port, handle) = handles.remove(handles.len() / 2);
            let others = handles.iter_mut().map(|(_, handle)| handle);
            assert_eq!(sockets.remove(handle, others).unwrap().listen_endpoint().port, port);
            for (port, handle) in &handles {
                assert_eq!(sockets.set.get::<tcp::Socket<'_>>(*handle).listen_endpoint().port, *port);
            }
            assert!(sockets.dhcp().is_some());
            let used = handles.len() + 1;
            assert_eq!(
                sockets.places(),
                if used > 16 {
                    101
                } else if used > 4 {
                    32
                } else {
                    8
                }
            );
        }
    }
}
