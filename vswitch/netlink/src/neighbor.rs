//! Neighbours: the MAC address of each on a link, as the kernel found out.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Netlink, Result};

/// An entry of the kernel's neighbour table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbor {
    /// The link.
    pub ifindex: u32,
    /// The address of the neighbour.
    pub ip: IpAddr,
    /// Its MAC address, unless that is still looked for.
    pub mac: Option<[u8; 6]>,
    /// How sure the kernel is.
    pub state: NudState,
}

/// How sure the kernel is of a neighbour: the NUD states of include/uapi/linux/neighbour.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NudState {
    /// Not looked for yet.
    None,
    /// Asked for, no answer yet.
    Incomplete,
    /// Confirmed a moment ago.
    Reachable,
    /// Known, and not confirmed for a while.
    Stale,
    /// Stale, used, about to be probed.
    Delay,
    /// Being probed.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no resolution.
    Noarp,
    /// Set by hand.
    Permanent,
    /// A state that this program does not know.
    Other(u16),
}

impl NudState {
    /// Packets may be sent to the MAC address: NUD_VALID.
    #[must_use]
    pub fn is_usable(self) -> bool {
        matches!(
            self,
            Self::Reachable
                | Self::Stale
                | Self::Delay
                | Self::Probe
                | Self::Noarp
                | Self::Permanent
        )
    }
}

impl Netlink {
    /// The neighbours on a link, of both families.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn neighbors(&mut self, ifindex: u32) -> Result<Vec<Neighbor>> {
        let mut wanted = NeighbourMessage::default();
        wanted.attributes.push(NeighbourAttribute::IfIndex(ifindex));
        let answers = self.dump(
            RouteNetlinkMessage::GetNeighbour(wanted),
            format_args!("list the neighbours on interface {ifindex}"),
        )?;
        let found = answers.iter().filter_map(neighbor_of);
        Ok(found.filter(|neighbor| neighbor.ifindex == ifindex).collect())
    }

    /// One neighbour, if the kernel has an entry for it.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn neighbor(&mut self, ifindex: u32, ip: IpAddr) -> Result<Option<Neighbor>> {
        match self.ask(RouteNetlinkMessage::GetNeighbour(message(ifindex, ip)), 0) {
            Ok(answers) => Ok(answers.iter().find_map(neighbor_of)),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error.on(format_args!("show neighbour {ip}"))),
        }
    }

    /// Sets a neighbour for good; an entry that there was is replaced.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn replace_neighbor(&mut self, ifindex: u32, ip: IpAddr, mac: [u8; 6]) -> Result<()> {
        let mut message = message(ifindex, ip);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            format_args!("set neighbour {ip} on interface {ifindex}"),
        )
    }

    /// Removes a neighbour; false if there was none.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete_neighbor(&mut self, ifindex: u32, ip: IpAddr) -> Result<bool> {
        self.remove(
            RouteNetlinkMessage::DelNeighbour(message(ifindex, ip)),
            format_args!("remove neighbour {ip} from interface {ifindex}"),
        )
    }

    /// Has the kernel find out a neighbour, or make sure of one that it knows: as if it had a
    /// packet for it. The answer comes by `Monitor`; after three requests without one it is
    /// `Failed`, and the kernel does not try again until it is asked anew.
    ///
    /// # Errors
    /// If the kernel refuses: the interface is down, most likely.
    pub fn resolve(&mut self, ifindex: u32, ip: IpAddr) -> Result<()> {
        let mut message = message(ifindex, ip);
        message.header.flags = NeighbourFlags::Use;
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_CREATE,
            format_args!("resolve neighbour {ip} on interface {ifindex}"),
        )
    }
}

impl Netlink {
    /// Has the kernel ask a neighbour that it knows whether it is still there, by its known MAC
    /// address and at once. One that does not answer is `Failed` within seconds.
    ///
    /// # Errors
    /// If the kernel has no MAC address for it, or refuses.
    pub fn probe(&mut self, neighbor: &Neighbor) -> Result<()> {
        let mut message = message(neighbor.ifindex, neighbor.ip);
        message.header.state = NeighbourState::Probe;
        message
            .attributes
            .extend(neighbor.mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.to_vec())));
        self.change(
            RouteNetlinkMessage::NewNeighbour(message),
            NLM_F_REPLACE,
            format_args!("confirm neighbour {} on interface {}", neighbor.ip, neighbor.ifindex),
        )
    }
}

fn message(ifindex: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    let (family, address) = match ip {
        IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(address));
    message
}

pub(crate) fn neighbor_of(message: &RouteNetlinkMessage) -> Option<Neighbor> {
    match message {
        RouteNetlinkMessage::NewNeighbour(neighbor) => read(neighbor),
        _ => None,
    }
}

/// A neighbour from the kernel's message; `None` if it is one of a bridge, which has no address.
pub(crate) fn read(message: &NeighbourMessage) -> Option<Neighbor> {
    if !matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return None;
    }
    let mut ip = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                ip = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                ip = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(address) => {
                mac = address.as_slice().try_into().ok()
            }
            _ => {}
        }
    }
    let state = match message.header.state {
        NeighbourState::None => NudState::None,
        NeighbourState::Incomplete => NudState::Incomplete,
        NeighbourState::Reachable => NudState::Reachable,
        NeighbourState::Stale => NudState::Stale,
        NeighbourState::Delay => NudState::Delay,
        NeighbourState::Probe => NudState::Probe,
        NeighbourState::Failed => NudState::Failed,
        NeighbourState::Noarp => NudState::Noarp,
        NeighbourState::Permanent => NudState::Permanent,
        other => NudState::Other(other.into()),
    };
    Some(Neighbor { ifindex: message.header.ifindex, ip: ip?, mac, state })
}
