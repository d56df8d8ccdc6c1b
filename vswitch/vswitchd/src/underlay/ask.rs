//! What the kernel is asked.
//!
//! Enters: addresses in doubt. Leaves: the neighbour that each is reached by, what the kernel has of
//! that, and requests to resolve it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::known::Known;
use controlplane::next_hop::Reach;

use super::{Underlay, Way, can_carry};

/// From so many neighbours on, all are listed instead of asked for one by one.
const LIST_FROM: usize = 32;

impl Underlay {
    /// The addresses that our interface has.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn own_addresses(&mut self) -> netlink::Result<Vec<IpAddr>> {
        let all = self.netlink.addresses(self.ifindex)?;
        Ok(all.into_iter().map(|(address, _)| address).collect())
    }

    /// The addresses by which others may know this node.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn lasting_addresses(&mut self) -> netlink::Result<Vec<IpAddr>> {
        self.netlink.lasting_addresses(self.ifindex)
    }

    /// Looks at the link, as its events may have been lost.
    pub(super) fn look_at_link(&mut self) {
        match self.netlink.link_by_index(self.ifindex) {
            Ok(link) => self.is_up = link.as_ref().is_some_and(can_carry),
            Err(error) => tracing::error!("{}", crate::error::chain(&error)),
        }
    }

    pub(super) fn look_up(&mut self, address: IpAddr, reach: Reach) -> Way {
        let found = match reach {
            Reach::OnLink => Ok((address, None)),
            Reach::Routed => self.ask(address),
        };
        match found {
            Ok((via, mtu)) => Way { reach, via: Ok(via), mtu },
            Err(problem) => Way { reach, via: Err(problem), mtu: None },
        }
    }

    /// The neighbour by which the kernel routes, and the route's MTU.
    fn ask(&mut self, address: IpAddr) -> Result<(IpAddr, Option<u32>), String> {
        let silent = |error| format!("the kernel did not answer: {}", crate::error::chain(&error));
        let Some(route) = self.netlink.route_to(address).map_err(silent)? else {
            return Err(format!("the kernel has no route to {address}"));
        };
        if route.local {
            return Err(format!("{address} is this node itself"));
        }
        if route.oif != self.ifindex {
            let other = self.netlink.link_by_index(route.oif).map_err(silent)?;
            let other = other.map_or_else(|| format!("interface {}", route.oif), |link| link.name);
            return Err(format!(
                "the kernel routes {address} by {other}, not by the uplink {}",
                self.interface
            ));
        }
        // An IPv6 router may lead to an IPv4 address (RFC 5549): a next hop is its MAC alone.
        Ok((route.gateway.unwrap_or(address), route.mtu))
    }

    /// Reads neighbours, and has the kernel resolve what it does not know or is not sure of.
    pub(super) fn read(&mut self, wanted: &[IpAddr]) {
        let mut found = BTreeMap::new();
        let answer: netlink::Result<()> = if wanted.len() < LIST_FROM {
            wanted.iter().try_for_each(|ip| {
                found.extend(self.netlink.neighbor(self.ifindex, *ip)?.map(|n| (n.ip, n)));
                Ok(())
            })
        } else {
            self.netlink.neighbors(self.ifindex).map(|all| {
                found.extend(all.into_iter().map(|neighbor| (neighbor.ip, neighbor)));
            })
        };
        if let Err(error) = answer {
            // A neighbour that got no answer is asked for again when its turn comes.
            tracing::error!("{}", crate::error::chain(&error));
            self.doubts.neighbors.extend(wanted);
        }
        for ip in wanted {
            let known = found.get(ip).map(Known::of).unwrap_or_default();
            self.neighbors.insert(*ip, known);
            if !known.is_settled() {
                self.resolve(*ip);
            }
        }
    }

    /// A link that is down swallows the request, and the kernel repeats it a second later at the
    /// earliest, though the link may be up again by then. Once it is up everything is asked for.
    pub(super) fn resolve(&mut self, ip: IpAddr) {
        if !self.is_up {
            return;
        }
        // The interface is down, most likely, and that is reported elsewhere.
        if let Err(error) = self.netlink.resolve(self.ifindex, ip) {
            tracing::debug!("{}", crate::error::chain(&error));
        }
    }
}
