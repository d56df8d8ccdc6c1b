//! Requests to the kernel about links, addresses, neighbours and routes, one at a time, in the
//! network namespace of the thread that opened the socket. Called by `pod`, and by `add` for the
//! move into the pod's namespace.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use api::Mac;
use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::result::Route;

/// A socket to the kernel's rtnetlink.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// A link, as far as the plugin looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) is_up: bool,
    pub(crate) is_tun: bool,
    pub(crate) mac: Option<Mac>,
    pub(crate) alias: Option<String>,
}

/// A neighbour of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Neighbor {
    pub(crate) address: IpAddr,
    pub(crate) is_permanent: bool,
}

/// A route in the kernel's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelRoute {
    pub(crate) dst: IpNet,
    pub(crate) gw: Option<IpAddr>,
    pub(crate) link: Option<u32>,
}

impl Netlink {
    /// Opens the socket.
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The link of this name; `None` if there is none.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_ACK) {
            Ok(replies) => Ok(replies.into_iter().find_map(|reply| match reply {
                RouteNetlinkMessage::NewLink(message) => Some(link(message)),
                _ => None,
            })),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Moves a link into another namespace and gives it the name `name` there.
    pub(crate) fn move_link(
        &mut self,
        index: u32,
        to: BorrowedFd<'_>,
        name: &str,
    ) -> io::Result<()> {
        let attributes =
            vec![LinkAttribute::NetNsFd(to.as_raw_fd()), LinkAttribute::IfName(name.to_owned())];
        self.set_link(index, attributes, false)
    }

    /// Sets attributes of a link and, if `up`, brings it up after that.
    pub(crate) fn set_link(
        &mut self,
        index: u32,
        attributes: Vec<LinkAttribute>,
        up: bool,
    ) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        if up {
            message.header.flags = LinkFlags::Up;
            message.header.change_mask = LinkFlags::Up;
        }
        message.attributes = attributes;
        self.order(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Removes a link.
    pub(crate) fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.order(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Adds an address, usable at once: the daemon handed it out once only, so that there is no
    /// duplicate to detect.
    pub(crate) fn add_address(&mut self, index: u32, address: &IpNet) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family(address.addr());
        message.header.prefix_len = address.prefix_len();
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(address.addr()),
            AddressAttribute::Address(address.addr()),
        ];
        match address {
            IpNet::V4(net) if net.prefix_len() < 31 => {
                message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
            }
            IpNet::V4(_) => {}
            IpNet::V6(_) => {
                message.header.flags = AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
        }
        self.order(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Adds a permanent neighbour.
    pub(crate) fn add_neighbor(&mut self, index: u32, address: IpAddr, mac: Mac) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(address);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::from(address)),
            NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
        ];
        self.order(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// Adds a route out of the link. A gateway need not be in any prefix of the link's: a pod's /32
    /// contains none.
    pub(crate) fn add_route(&mut self, index: u32, route: &Route) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(route.dst.addr());
        message.header.destination_prefix_length = route.dst.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope =
            if route.gw.is_some() { RouteScope::Universe } else { RouteScope::Link };
        message.header.kind = RouteType::Unicast;
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Oif(index));
        if route.dst.prefix_len() > 0 {
            attributes.push(RouteAttribute::Destination(RouteAddress::from(route.dst.network())));
        }
        if let Some(gw) = route.gw {
            message.header.flags = RouteFlags::Onlink;
            attributes.push(RouteAttribute::Gateway(RouteAddress::from(gw)));
        }
        if let Some(priority) = route.priority {
            attributes.push(RouteAttribute::Priority(priority));
        }
        if let Some(table) = route.table {
            message.header.table = RouteHeader::RT_TABLE_UNSPEC;
            attributes.push(RouteAttribute::Table(table));
        }
        let metrics: Vec<_> =
            [route.mtu.map(RouteMetric::Mtu), route.advmss.map(RouteMetric::Advmss)]
                .into_iter()
                .flatten()
                .collect();
        if !metrics.is_empty() {
            attributes.push(RouteAttribute::Metrics(metrics));
        }
        self.order(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Addresses of a link.
    pub(crate) fn addresses(&mut self, index: u32) -> io::Result<Vec<IpNet>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let replies = self.ask(request, NLM_F_DUMP)?;
        Ok(replies.into_iter().filter_map(|reply| address(reply, index)).collect())
    }

    /// Neighbours of a link.
    pub(crate) fn neighbors(&mut self, index: u32) -> io::Result<Vec<Neighbor>> {
        let request = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        let replies = self.ask(request, NLM_F_DUMP)?;
        Ok(replies.into_iter().filter_map(|reply| neighbor(reply, index)).collect())
    }

    /// Every route of the namespace.
    pub(crate) fn routes(&mut self) -> io::Result<Vec<KernelRoute>> {
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let replies = self.ask(request, NLM_F_DUMP)?;
        Ok(replies.into_iter().filter_map(route).collect())
    }

    fn order(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | flags).map(drop)
    }

    /// Sends one request and reads until its acknowledgement, or the end of its dump.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut replies = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                let reply =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(|error| {
                        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
                    })?;
                // Each message of a datagram begins at a multiple of four (NLMSG_ALIGN).
                let len = (reply.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[len..];
                if reply.header.sequence_number != self.sequence {
                    continue;
                }
                match reply.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(replies),
                    NetlinkPayload::InnerMessage(message) => replies.push(message),
                    _ => {}
                }
            }
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        is_up: message.header.flags.contains(LinkFlags::Up),
        is_tun: false,
        mac: None,
        alias: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok().map(Mac),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::LinkInfo(infos) => {
                link.is_tun = infos.contains(&LinkInfo::Kind(InfoKind::Tun));
            }
            _ => {}
        }
    }
    link
}

fn address(reply: RouteNetlinkMessage, index: u32) -> Option<IpNet> {
    let RouteNetlinkMessage::NewAddress(message) = reply else { return None };
    if message.header.index != index {
        return None;
    }
    // IPv4 shows its own address as local and the peer's as address; IPv6 has only the latter.
    let of = |local| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if local => Some(*address),
            AddressAttribute::Address(address) if !local => Some(*address),
            _ => None,
        })
    };
    IpNet::new(of(true).or_else(|| of(false))?, message.header.prefix_len).ok()
}

fn neighbor(reply: RouteNetlinkMessage, index: u32) -> Option<Neighbor> {
    let RouteNetlinkMessage::NewNeighbour(message) = reply else { return None };
    if message.header.ifindex != index {
        return None;
    }
    let is_permanent = message.header.state == NeighbourState::Permanent;
    message.attributes.into_iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
            Some(Neighbor { address: address.into(), is_permanent })
        }
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            Some(Neighbor { address: address.into(), is_permanent })
        }
        _ => None,
    })
}

fn route(reply: RouteNetlinkMessage) -> Option<KernelRoute> {
    let RouteNetlinkMessage::NewRoute(message) = reply else { return None };
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let any: IpAddr = match message.header.address_family {
        AddressFamily::Inet => [0; 4].into(),
        AddressFamily::Inet6 => [0; 16].into(),
        _ => return None,
    };
    let (mut dst, mut gw, mut link) = (any, None, None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => dst = ip(&address)?,
            RouteAttribute::Gateway(address) => gw = ip(&address),
            RouteAttribute::Oif(index) => link = Some(index),
            _ => {}
        }
    }
    let dst = IpNet::new(dst, message.header.destination_prefix_length).ok()?;
    Some(KernelRoute { dst, gw, link })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
