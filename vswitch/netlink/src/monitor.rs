//! What changes in the kernel, as it changes.
//!
//! Enters: notifications of rtnetlink. Leaves: [`KernelEvent`]s, to the control thread, which polls the
//! fd. When the kernel had no room for all of them it reports that, and the reader must look at
//! everything anew.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};

use crate::fib::{self, DELETE_ROUTE, NEW_ROUTE};
use crate::socket::{DATAGRAM_BYTES, Header, parts};
use crate::{Error, FibRoute, Link, Neighbor, Result, RoutePlacement, link, neighbor};

/// RTM_NEWNEXTHOP and RTM_DELNEXTHOP.
const NEW_NEXT_HOP: u16 = 104;
const DELETE_NEXT_HOP: u16 = 105;

// RTNLGRP_* of include/uapi/linux/rtnetlink.h.
const GROUPS: [u32; 7] = [
    1,  // LINK
    3,  // NEIGH
    5,  // IPV4_IFADDR
    7,  // IPV4_ROUTE
    9,  // IPV6_IFADDR
    11, // IPV6_ROUTE
    32, // NEXTHOP
];

/// Room for some thousand routes that come at once, each of which takes up to 1.3 KB of the
/// kernel's memory.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// A socket that receives changes in the namespace in which it was opened.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    datagram: Vec<u8>,
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelEvent {
    /// An interface is new or different.
    LinkChanged(Link),
    /// An interface is gone, or in another namespace.
    LinkGone(Link),
    /// A neighbour is new or different.
    NeighborChanged(Neighbor),
    /// A neighbour is gone.
    NeighborGone(Neighbor),
    /// A route is new or different.
    RouteChanged(FibRoute, RoutePlacement),
    /// A route is gone.
    RouteGone(FibRoute),
    /// A next-hop object changed, and with it any route that uses it.
    NextHopsChanged,
    /// An interface got or lost an address.
    AddressChanged {
        /// The interface.
        ifindex: u32,
        /// The address; `None` if the kernel named none.
        address: Option<IpAddr>,
    },
    /// Notifications were lost: anything may have changed.
    Overrun,
}

impl Monitor {
    /// A monitor in the namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses a socket.
    pub fn open() -> Result<Self> {
        let failed = |source| Error::Socket { action: "open", source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        make_room(&socket).map_err(failed)?;
        for group in GROUPS {
            socket.add_membership(group).map_err(failed)?;
        }
        Ok(Self { socket, datagram: Vec::with_capacity(DATAGRAM_BYTES) })
    }

    /// Returns all that has happened since the last call, in order, each with the number of the socket
    /// that asked for it: for most, that of its process; 0 for the kernel itself.
    ///
    /// # Errors
    /// If the socket fails otherwise than by an overrun, which is an event.
    pub fn drain(&mut self, mut each: impl FnMut(KernelEvent, u32)) -> Result<()> {
        loop {
            self.datagram.clear();
            let from = match self.socket.recv_from(&mut self.datagram, 0) {
                Ok((_, from)) => from,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    each(KernelEvent::Overrun, 0);
                    continue;
                }
                Err(source) => return Err(Error::Socket { action: "read from", source }),
            };
            // Only the kernel's messages count.
            if from.port_number() == 0 {
                events(&self.datagram, &mut each);
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// More than net.core.rmem_max, where we may (CAP_NET_ADMIN), or else as much as that.
fn make_room(socket: &Socket) -> io::Result<()> {
    match set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_BYTES) {
        Ok(()) => Ok(()),
        Err(_) => Ok(set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_BYTES)?),
    }
}

/// What a datagram of notifications announces, each with the number of the socket that asked for it.
pub(crate) fn events(datagram: &[u8], mut each: impl FnMut(KernelEvent, u32)) {
    for part in parts(datagram) {
        let writer = Header::of(part).map_or(0, |header| header.port);
        if let Some(event) = event(part) {
            each(event, writer);
        }
    }
}

fn event(part: &[u8]) -> Option<KernelEvent> {
    // Routes come in swarms, and next-hop objects are not what the crate knows.
    if let Some(header) = Header::of(part) {
        match header.kind {
            NEW_ROUTE => {
                let route = fib::read(header.payload)?;
                return Some(KernelEvent::RouteChanged(route, fib::placement(header.flags)));
            }
            DELETE_ROUTE => return fib::read(header.payload).map(KernelEvent::RouteGone),
            NEW_NEXT_HOP | DELETE_NEXT_HOP => return Some(KernelEvent::NextHopsChanged),
            _ => {}
        }
    }
    // A message that cannot be read is as good as lost.
    let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(part) else {
        return Some(KernelEvent::Overrun);
    };
    match message.payload {
        NetlinkPayload::Overrun(_) => Some(KernelEvent::Overrun),
        NetlinkPayload::InnerMessage(inner) => changed(&inner),
        _ => None,
    }
}

fn changed(message: &RouteNetlinkMessage) -> Option<KernelEvent> {
    use RouteNetlinkMessage as M;
    match message {
        M::NewLink(message) => Some(KernelEvent::LinkChanged(link::read(message))),
        M::DelLink(message) => Some(KernelEvent::LinkGone(link::read(message))),
        M::NewNeighbour(message) => neighbor::read(message).map(KernelEvent::NeighborChanged),
        M::DelNeighbour(message) => neighbor::read(message).map(KernelEvent::NeighborGone),
        M::NewAddress(message) | M::DelAddress(message) => Some(KernelEvent::AddressChanged {
            ifindex: message.header.index,
            address: crate::address::read(message).map(|(ip, _)| ip),
        }),
        _ => None,
    }
}
