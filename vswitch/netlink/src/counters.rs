//! Counters of interfaces, also of those in other network namespaces, which nobody has to enter for it.
//!
//! Enters: an interface; its namespace as a descriptor, if it is another. Leaves: what the kernel counts
//! there. The kernel answers about another namespace by a number that it gives to it for that: the number
//! belongs to both namespaces, is shown by `ip netns` (`id: 3`), changes nothing, and goes with either.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::DefaultNla;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use crate::{Netlink, Result};

/// IFLA_TARGET_NETNSID of include/uapi/linux/if_link.h.
const TARGET_NAMESPACE: u16 = 46;

/// The number of a namespace that has none, and the request for one that the kernel chooses.
const NO_NUMBER: i32 = -1;

impl Netlink {
    /// Packets that the kernel had for an interface and dropped, since the interface was made: those of a
    /// TAP found its queue full. `None` if there is no such interface.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn tx_dropped(&mut self, ifindex: u32) -> Result<Option<u64>> {
        let mut wanted = LinkMessage::default();
        wanted.header.index = ifindex;
        self.dropped(wanted, &ifindex.to_string())
    }

    /// As `tx_dropped`, of the interface of that name in another namespace.
    ///
    /// # Errors
    /// If the kernel does not answer, or refuses: it wants CAP_NET_ADMIN over both namespaces.
    pub fn tx_dropped_in(&mut self, namespace: BorrowedFd<'_>, name: &str) -> Result<Option<u64>> {
        let number = match self.number_of(namespace)? {
            Some(number) => number,
            None => {
                self.give_number(namespace)?;
                match self.number_of(namespace)? {
                    Some(number) => number,
                    None => return Ok(None),
                }
            }
        };
        let mut wanted = LinkMessage::default();
        let number = DefaultNla::new(TARGET_NAMESPACE, number.to_ne_bytes().to_vec());
        wanted.attributes.push(LinkAttribute::Other(number));
        wanted.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.dropped(wanted, name)
    }

    fn dropped(&mut self, wanted: LinkMessage, name: &str) -> Result<Option<u64>> {
        let answers = match self.ask(RouteNetlinkMessage::GetLink(wanted), 0) {
            Ok(answers) => answers,
            Err(error) if error.errno() == Some(libc::ENODEV) => return Ok(None),
            Err(error) => return Err(error.on(format_args!("count drops of interface {name}"))),
        };
        Ok(answers.iter().find_map(|answer| {
            let RouteNetlinkMessage::NewLink(link) = answer else { return None };
            link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::Stats64(counters) => Some(counters.tx_dropped),
                _ => None,
            })
        }))
    }

    /// The number of a namespace as seen from ours, if it has one.
    fn number_of(&mut self, namespace: BorrowedFd<'_>) -> Result<Option<i32>> {
        let request = RouteNetlinkMessage::GetNsId(of(namespace));
        let answers = self.ask(request, 0).map_err(|error| error.on("number a namespace"))?;
        let number = answers.iter().find_map(|answer| {
            let RouteNetlinkMessage::NewNsId(message) = answer else { return None };
            message.attributes.iter().find_map(|attribute| match attribute {
                NsidAttribute::Id(number) => Some(*number),
                _ => None,
            })
        });
        Ok(number.filter(|number| *number != NO_NUMBER))
    }

    fn give_number(&mut self, namespace: BorrowedFd<'_>) -> Result<()> {
        let mut message = of(namespace);
        message.attributes.push(NsidAttribute::Id(NO_NUMBER));
        match self.ask(RouteNetlinkMessage::NewNsId(message), 0) {
            Ok(_) => Ok(()),
            // Another process was faster.
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            Err(error) => Err(error.on("number a namespace")),
        }
    }
}

fn of(namespace: BorrowedFd<'_>) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(namespace.as_raw_fd().cast_unsigned()));
    message
}
