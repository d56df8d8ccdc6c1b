//! Interfaces.

use std::fmt;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, Nla};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecUnspec, InfoData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
    State, XdpAttached,
};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use crate::socket::NLM_F_REPLACE;
use crate::{Netlink, Result};

/// IFLA_TUN_NUM_QUEUES and IFLA_TUN_NUM_DISABLED_QUEUES of include/uapi/linux/if_link.h.
const TUN_NUM_QUEUES: u16 = 8;
const TUN_NUM_DISABLED_QUEUES: u16 = 9;

/// IFLA_INET_CONF of include/uapi/linux/if_link.h, with NLA_F_NESTED.
const INET_CONF: u16 = 1 | 0x8000;
/// IPV4_DEVCONF_ROUTE_LOCALNET of include/uapi/linux/ip.h.
const ROUTE_LOCALNET: u16 = 26;

/// An interface as the kernel has it now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Index of the interface in this namespace.
    pub index: u32,
    /// Name of the interface.
    pub name: String,
    /// Its MAC address, if it is an Ethernet.
    pub mac: Option<[u8; 6]>,
    /// MTU: bytes of an IP packet, at most.
    pub mtu: u32,
    /// Switched on (IFF_UP).
    pub up: bool,
    /// Can carry packets: operationally up, or of a kind that does not know.
    pub carrier: bool,
    /// Receive queues that it was made with; `rx_queues` shows how many are in use.
    pub rx_queues: u32,
    /// Transmit queues that it was made with.
    pub tx_queues: u32,
    /// Packets that wait to be sent at most (`ip link set … txqueuelen`).
    pub tx_queue_packets: u32,
    /// What kind of virtual device it is: `veth`, `tun`, `vxlan`; `None` for hardware.
    pub kind: Option<String>,
    /// Queues of a TAP that was made for several; `None` for everything else.
    pub tap_queues: Option<TapQueues>,
    /// An XDP program is attached.
    pub xdp: bool,
    /// The alias that it was given (`ip link set … alias`).
    pub alias: Option<String>,
    /// The group that it was put into (`ip link set … group`); 0 unless it was.
    pub group: u32,
    /// Packets from and to 127.0.0.0/8 may pass it (`net.ipv4.conf.*.route_localnet`).
    pub routes_localnet: bool,
}

/// Descriptors that a TAP for several queues has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TapQueues {
    /// Those that the kernel gives packets to.
    pub attached: u32,
    /// Others.
    pub detached: u32,
}

/// What [`Netlink::change_link`] changes of an interface; what is `None` stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkChange<'a> {
    /// Switched on or off; after everything else.
    pub up: Option<bool>,
    /// MTU: bytes of an IP packet, at most.
    pub mtu: Option<u32>,
    /// MAC address of the interface.
    pub mac: Option<[u8; 6]>,
    /// A text that `ip link` shows, 255 bytes at most.
    pub alias: Option<&'a str>,
    /// A number that `ip link` shows.
    pub group: Option<u32>,
}

impl fmt::Display for LinkChange<'_> {
    /// Written as `up, MTU 1400`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.up.map(|up| if up { "up".to_owned() } else { "down".to_owned() }));
        parts.extend(self.mtu.map(|mtu| format!("MTU {mtu}")));
        parts.extend(
            self.mac.map(|mac| format!("MAC {}", mac.map(|byte| format!("{byte:02x}")).join(":"))),
        );
        parts.extend(self.alias.map(|alias| format!("alias {alias:?}")));
        parts.extend(self.group.map(|group| format!("group {group}")));
        f.write_str(&parts.join(", "))
    }
}

impl Netlink {
    /// All interfaces of the namespace.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let all = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.dump(all, "list the interfaces")?;
        Ok(answers.iter().filter_map(link_of).collect())
    }

    /// The interface of that name, if there is one.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut wanted = LinkMessage::default();
        wanted.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.one_link(wanted, name)
    }

    /// The interface of that number, if there is one.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn link_by_index(&mut self, ifindex: u32) -> Result<Option<Link>> {
        self.one_link(of_index(ifindex), ifindex)
    }

    /// Switches an interface on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_up(&mut self, ifindex: u32) -> Result<()> {
        self.change_link(ifindex, &LinkChange { up: Some(true), ..LinkChange::default() })
    }

    /// Switches an interface off.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_down(&mut self, ifindex: u32) -> Result<()> {
        self.change_link(ifindex, &LinkChange { up: Some(false), ..LinkChange::default() })
    }

    /// Sets how long an IP packet may be.
    ///
    /// # Errors
    /// If the device cannot carry that.
    pub fn set_mtu(&mut self, ifindex: u32, mtu_bytes: u32) -> Result<()> {
        self.change_link(ifindex, &LinkChange { mtu: Some(mtu_bytes), ..LinkChange::default() })
    }

    /// Sets the MAC address.
    ///
    /// # Errors
    /// If the device refuses it, as it does a multicast one.
    pub fn set_mac(&mut self, ifindex: u32, mac: [u8; 6]) -> Result<()> {
        self.change_link(ifindex, &LinkChange { mac: Some(mac), ..LinkChange::default() })
    }

    /// Sets how many packets wait to be sent at most. Before an interface is up this is quick; later the
    /// kernel stops its sending for some milliseconds.
    ///
    /// # Errors
    /// If the kernel lacks the memory.
    pub fn set_tx_queue(&mut self, ifindex: u32, packets: u32) -> Result<()> {
        let mut link = of_index(ifindex);
        link.attributes.push(LinkAttribute::TxQueueLen(packets));
        self.set(link, format_args!("set the transmit queue of interface {ifindex} to {packets}"))
    }

    /// Gives an interface's packets to its driver at once, without a queue of the kernel's before it. For a TAP
    /// that loses nothing, as it never asks the kernel to wait; one for several queues would have such a queue
    /// for each of 256, with memory for as many packets as `set_tx_queue` names.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_no_queue(&mut self, ifindex: u32) -> Result<()> {
        let mut message = TcMessage::default();
        message.header.index = i32::try_from(ifindex).unwrap_or(i32::MAX);
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind("noqueue".to_owned()));
        self.change(
            RouteNetlinkMessage::NewQueueDiscipline(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            format_args!("take the queue of the kernel's away from interface {ifindex}"),
        )
    }

    /// Lets packets from and to 127.0.0.0/8 pass an interface, or not.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_route_localnet(&mut self, ifindex: u32, routes: bool) -> Result<()> {
        let mut value = 8u16.to_ne_bytes().to_vec();
        value.extend(ROUTE_LOCALNET.to_ne_bytes());
        value.extend(u32::from(routes).to_ne_bytes());
        let conf = AfSpecInet::Other(DefaultNla::new(INET_CONF, value));
        let mut link = of_index(ifindex);
        link.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![conf])]));
        let value = u8::from(routes);
        self.set(link, format_args!("set route_localnet of interface {ifindex} to {value}"))
    }

    /// Changes several things of an interface in one request.
    ///
    /// # Errors
    /// If the device refuses one of them; the others may have been made then.
    pub fn change_link(&mut self, ifindex: u32, change: &LinkChange<'_>) -> Result<()> {
        let mut link = of_index(ifindex);
        if let Some(up) = change.up {
            link.header.change_mask = LinkFlags::Up;
            link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        }
        link.attributes.extend(change.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        link.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        link.attributes.extend(change.alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned())));
        link.attributes.extend(change.group.map(LinkAttribute::Group));
        self.set(link, format_args!("set interface {ifindex} to {change}"))
    }

    /// Removes an interface; false if there is none.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete_link(&mut self, ifindex: u32) -> Result<bool> {
        let message = RouteNetlinkMessage::DelLink(of_index(ifindex));
        match self.ask(message, 0) {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error.on(format_args!("remove interface {ifindex}"))),
        }
    }

    fn set(&mut self, link: LinkMessage, action: impl fmt::Display) -> Result<()> {
        self.change(RouteNetlinkMessage::SetLink(link), 0, action)
    }

    fn one_link(&mut self, wanted: LinkMessage, name: impl fmt::Display) -> Result<Option<Link>> {
        match self.ask(RouteNetlinkMessage::GetLink(wanted), 0) {
            Ok(answers) => Ok(answers.iter().find_map(link_of)),
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error.on(format_args!("show interface {name}"))),
        }
    }
}

fn of_index(ifindex: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message
}

pub(crate) fn link_of(message: &RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(read(link)),
        _ => None,
    }
}

/// An interface from the kernel's message about it.
pub(crate) fn read(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::NumRxQueues(queues) => link.rx_queues = *queues,
            LinkAttribute::NumTxQueues(queues) => link.tx_queues = *queues,
            LinkAttribute::TxQueueLen(packets) => link.tx_queue_packets = *packets,
            LinkAttribute::OperState(state) => {
                link.carrier &= matches!(state, State::Up | State::Unknown);
            }
            LinkAttribute::AfSpecUnspec(families) => {
                link.routes_localnet = families.iter().any(routes_localnet);
            }
            LinkAttribute::LinkInfo(info) => {
                link.kind = info.iter().find_map(kind);
                link.tap_queues = info.iter().find_map(tap_queues);
            }
            LinkAttribute::Xdp(xdp) => {
                link.xdp = xdp.iter().any(|part| {
                    matches!(part, LinkXdp::Attached(attached) if *attached != XdpAttached::None)
                });
            }
            _ => {}
        }
    }
    link
}

fn routes_localnet(family: &AfSpecUnspec) -> bool {
    let AfSpecUnspec::Inet(parts) = family else { return false };
    parts.iter().any(|part| matches!(part, AfSpecInet::DevConf(conf) if conf.route_localnet != 0))
}

fn kind(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

fn tap_queues(info: &LinkInfo) -> Option<TapQueues> {
    let LinkInfo::Data(InfoData::Tun(parts)) = info else { return None };
    let value = |wanted: u16| {
        let part = parts.iter().find(|part| part.kind() == wanted && part.value_len() == 4)?;
        let mut bytes = [0; 4];
        part.emit_value(&mut bytes);
        Some(u32::from_ne_bytes(bytes))
    };
    // Of one queue the kernel names no number.
    let attached = value(TUN_NUM_QUEUES)?;
    Some(TapQueues { attached, detached: value(TUN_NUM_DISABLED_QUEUES).unwrap_or_default() })
}
