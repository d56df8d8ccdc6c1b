//! Judges changes of peers, routes and static entries at run time.
//!
//! Enters: requests. Leaves: the edits that grant them, or a refusal. What the configuration has
//! is changed there alone: at the next start it would be back. A command that could have no effect
//! beside it is refused; what less trusted sources name is overruled.

use std::net::IpAddr;

use api::{ErrorKind, ErrorReply, Mac, PeerSpec, RouteSpec, RouteTarget};
use ipnet::IpNet;

use super::attachments::{check_bridge, is_host_address};
use super::{Edit, Model, Source, refuse};
use crate::config::{Config, check_route_prefix};

impl Model {
    /// Adds or replaces a peer.
    ///
    /// # Errors
    /// If it contradicts the node, another peer or the configuration.
    pub fn add_peer(&self, config: &Config, peer: PeerSpec) -> Result<Vec<Edit>, ErrorReply> {
        if config.uplink.is_none() {
            return Err(refuse(
                ErrorKind::Invalid,
                "this node has no uplink to reach a peer by; add [uplink] to its configuration",
            ));
        }
        if self.source_rib.peer(Source::Config, &peer.name).is_some() {
            return Err(configured(config, &format!("peer \"{}\"", peer.name)));
        }
        // What sources below name does not count: it is hidden by this one.
        let mut claims = self.claims_with_pods();
        let others = self
            .source_rib
            .peers_of(Source::Config)
            .chain(self.source_rib.peers_of(Source::Runtime));
        others.filter(|other| other.name != peer.name).for_each(|other| claims.take(other));
        if let Some((field, message)) = claims.judge(&peer).into_iter().next() {
            return Err(refuse(
                ErrorKind::Invalid,
                format!("peer \"{}\", {field}: {message}", peer.name.escape_debug()),
            ));
        }
        let has_route = |prefix: &&IpNet| {
            [Source::Config, Source::Runtime]
                .into_iter()
                .any(|source| self.source_rib.route(source, prefix).is_some())
        };
        if let Some(prefix) = peer.prefixes.iter().find(has_route) {
            return Err(refuse(
                ErrorKind::Conflict,
                format!("there is a route to {prefix} already; delete it first"),
            ));
        }
        Ok(vec![Edit::Peer { peer, source: Source::Runtime }])
    }

    /// Removes a peer that was added at run time, with the routes that lead to it alone.
    ///
    /// # Errors
    /// If it is not there, or another source's.
    pub fn delete_peer(&self, config: &Config, name: &str) -> Result<Vec<Edit>, ErrorReply> {
        if self.source_rib.peer(Source::Runtime, name).is_none() {
            return Err(match self.peers.get(name) {
                None => refuse(ErrorKind::Unknown, format!("there is no peer \"{name}\"")),
                Some((_, Source::Config)) => configured(config, &format!("peer \"{name}\"")),
                Some((_, source)) => told(*source, &format!("peer \"{name}\"")),
            });
        }
        let others = self.source_rib.peers.iter().filter(|(source, _)| **source != Source::Runtime);
        let is_told_elsewhere = others.into_iter().any(|(_, peers)| peers.contains_key(name));
        let leads_there = |target: &RouteTarget| {
            !is_told_elsewhere
                && matches!(target, RouteTarget::Peer { name: other } if other == name)
        };
        let routes = self.source_rib.routes.get(&Source::Runtime).into_iter().flatten();
        let mut edits: Vec<_> = routes
            .filter(|(_, target)| leads_there(target))
            .map(|(prefix, _)| Edit::NoRoute { prefix: *prefix })
            .collect();
        edits.push(Edit::NoPeer { name: name.to_owned(), source: Source::Runtime });
        Ok(edits)
    }

    /// Adds or replaces a route.
    ///
    /// # Errors
    /// If it contradicts what is there.
    pub fn add_route(&self, config: &Config, route: RouteSpec) -> Result<Vec<Edit>, ErrorReply> {
        let RouteSpec { prefix, target } = route;
        let pods: Vec<_> = self.pods.all().copied().collect();
        let peer_with = |prefix: &IpNet| {
            let mut above = self.peers.values().filter(|(_, source)| *source <= Source::Runtime);
            let peer = above.find(|(peer, _)| peer.prefixes.contains(prefix));
            peer.map(|(peer, _)| peer.name.clone())
        };
        check_route_prefix(&pods, peer_with, &prefix)
            .map_err(|message| refuse(ErrorKind::Invalid, message))?;
        if self.source_rib.route(Source::Config, &prefix).is_some() {
            return Err(configured(config, &format!("the route to {prefix}")));
        }
        if let RouteTarget::Peer { name } = &target
            && !self.peers.contains_key(name)
        {
            return Err(refuse(ErrorKind::Unknown, format!("there is no peer \"{name}\"")));
        }
        if target == RouteTarget::Host && config.host.is_none() {
            return Err(refuse(ErrorKind::Invalid, "this node has no host port"));
        }
        Ok(vec![Edit::Route { prefix, target }])
    }

    /// Removes a route that was added at run time.
    ///
    /// # Errors
    /// If it is not there, or another source's.
    pub fn delete_route(&self, config: &Config, prefix: IpNet) -> Result<Vec<Edit>, ErrorReply> {
        if self.source_rib.route(Source::Runtime, &prefix).is_some() {
            return Ok(vec![Edit::NoRoute { prefix }]);
        }
        Err(match self.routes.get(&prefix) {
            None => {
                refuse(ErrorKind::Unknown, format!("no route to {prefix} was added at run time"))
            }
            Some((_, Source::Config)) => configured(config, &format!("the route to {prefix}")),
            Some((_, source)) => told(*source, &format!("the route to {prefix}")),
        })
    }

    /// Adds a static FDB entry.
    ///
    /// # Errors
    /// If the domain has no such VTEP.
    pub fn add_fdb(
        &self,
        config: &Config,
        bridge: String,
        mac: Mac,
        vtep: IpAddr,
    ) -> Result<Vec<Edit>, ErrorReply> {
        check_bridge(config, &bridge)?;
        check_host_mac(mac)?;
        if !config.bridge.vteps.contains(&vtep) {
            return Err(refuse(
                ErrorKind::Unknown,
                format!(
                    "bridge domain \"{bridge}\" has no VTEP {vtep}; add it to bridge.vteps in {}",
                    config.origin.file()
                ),
            ));
        }
        if let Some(lease) = self.attachments.values().find(|lease| lease.mac == mac) {
            return Err(refuse(
                ErrorKind::Conflict,
                format!("{mac} is the MAC of a pod of this node, in {}", lease.netns),
            ));
        }
        Ok(vec![Edit::Fdb { bridge, mac, vtep }])
    }

    /// Removes a static FDB entry.
    ///
    /// # Errors
    /// If there is none.
    pub fn delete_fdb(&self, bridge: String, mac: Mac) -> Result<Vec<Edit>, ErrorReply> {
        if self.fdb.contains_key(&(bridge.clone(), mac)) {
            return Ok(vec![Edit::NoFdb { bridge, mac }]);
        }
        Err(refuse(
            ErrorKind::Unknown,
            format!("no static entry for {mac} was added to bridge domain \"{bridge}\""),
        ))
    }

    /// Adds a static neighbour.
    ///
    /// # Errors
    /// If the address is a pod's or the node's own.
    pub fn add_neighbor(
        &self,
        config: &Config,
        bridge: String,
        address: IpAddr,
        mac: Mac,
    ) -> Result<Vec<Edit>, ErrorReply> {
        check_bridge(config, &bridge)?;
        check_host_mac(mac)?;
        if !is_host_address(address) {
            return Err(refuse(ErrorKind::Invalid, format!("{address} is no host's address")));
        }
        if !self.neighbors.contains_key(&(bridge.clone(), address)) {
            self.ipam
                .admit(address)
                .map_err(|error| refuse(ErrorKind::Conflict, error.to_string()))?;
        }
        Ok(vec![Edit::Neighbor { bridge, address, mac }])
    }

    /// Removes a static neighbour.
    ///
    /// # Errors
    /// If there is none.
    pub fn delete_neighbor(
        &self,
        bridge: String,
        address: IpAddr,
    ) -> Result<Vec<Edit>, ErrorReply> {
        if self.neighbors.contains_key(&(bridge.clone(), address)) {
            return Ok(vec![Edit::NoNeighbor { bridge, address }]);
        }
        Err(refuse(
            ErrorKind::Unknown,
            format!("no static neighbour {address} was added to bridge domain \"{bridge}\""),
        ))
    }
}

fn configured(config: &Config, what: &str) -> ErrorReply {
    let file = config.origin.file();
    refuse(
        ErrorKind::Conflict,
        format!("{what} is configured in {file}; change it there and send the daemon SIGHUP"),
    )
}

fn told(source: Source, what: &str) -> ErrorReply {
    let source = source.label();
    refuse(ErrorKind::Conflict, format!("{what} comes from {source}; withdraw it there"))
}

fn check_host_mac(mac: Mac) -> Result<(), ErrorReply> {
    if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
        return Err(refuse(ErrorKind::Invalid, format!("{mac} is no host's MAC")));
    }
    Ok(())
}
