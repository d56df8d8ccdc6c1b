//! Judges changes of peers, routes and static entries at run time.
//!
//! Enters: requests. Leaves: the edits that grant them, or a refusal. What the configuration says
//! is changed in the configuration alone: at the next start it would be back.

use std::net::IpAddr;

use api::{ErrorKind, ErrorReply, Mac, PeerSpec, RouteSpec, RouteTarget};
use dataplane::tables::LocalAddresses;
use ipnet::IpNet;

use super::attachments::{check_bridge, is_host_address};
use super::{Edit, Model, Source, refuse};
use crate::config::{Config, check_peer, check_route_prefix};

impl Model {
    /// Adds or replaces a peer.
    ///
    /// # Errors
    /// If it contradicts the node, another peer or the configuration.
    pub fn add_peer(
        &self,
        config: &Config,
        own: LocalAddresses,
        peer: PeerSpec,
    ) -> Result<Vec<Edit>, ErrorReply> {
        if config.uplink.is_none() {
            return Err(refuse(
                ErrorKind::Invalid,
                "this node has no uplink to reach a peer by; add [uplink] to its configuration",
            ));
        }
        if matches!(self.peers.get(&peer.name), Some((_, Source::Config))) {
            return Err(configured(config, &format!("peer \"{}\"", peer.name)));
        }
        if peer.name.is_empty()
            || peer.name.chars().any(|char| char.is_whitespace() || char.is_control())
        {
            return Err(refuse(
                ErrorKind::Invalid,
                "a peer's name has at least one character and no spaces",
            ));
        }
        if own.has(peer.address) {
            return Err(refuse(
                ErrorKind::Invalid,
                format!("{} is this node itself", peer.address),
            ));
        }
        let others: Vec<_> =
            self.peer_specs().into_iter().filter(|other| other.name != peer.name).collect();
        if let Some((field, message)) = check_peer(config, &peer, &others).into_iter().next() {
            return Err(refuse(
                ErrorKind::Invalid,
                format!("peer \"{}\", {field}: {message}", peer.name),
            ));
        }
        if peer.address.is_unspecified() {
            return Err(refuse(ErrorKind::Invalid, "a peer needs an underlay address"));
        }
        for prefix in &peer.prefixes {
            let lease = self
                .attachments
                .values()
                .flat_map(|lease| &lease.addresses)
                .find(|net| prefix.contains(&net.addr()));
            if let Some(net) = lease {
                return Err(refuse(
                    ErrorKind::Conflict,
                    format!("{prefix} contains {}, which a pod of this node has", net.addr()),
                ));
            }
            if self.routes.contains_key(prefix) {
                return Err(refuse(
                    ErrorKind::Conflict,
                    format!("there is a route to {prefix} already; delete it first"),
                ));
            }
        }
        Ok(vec![Edit::Peer { peer }])
    }

    /// Removes a peer with the routes that lead to it.
    ///
    /// # Errors
    /// If it is not there, or the configuration's.
    pub fn delete_peer(&self, config: &Config, name: &str) -> Result<Vec<Edit>, ErrorReply> {
        match self.peers.get(name) {
            None => Err(refuse(ErrorKind::Unknown, format!("there is no peer \"{name}\""))),
            Some((_, Source::Config)) => Err(configured(config, &format!("peer \"{name}\""))),
            Some((_, source @ (Source::Kernel | Source::Kubernetes))) => {
                Err(told(*source, &format!("peer \"{name}\"")))
            }
            Some((_, Source::Runtime)) => {
                let routes = self.routes.iter().filter(|(_, (target, _))| {
                    matches!(target, RouteTarget::Peer { name: other } if other == name)
                });
                let mut edits: Vec<_> =
                    routes.map(|(prefix, _)| Edit::NoRoute { prefix: *prefix }).collect();
                edits.push(Edit::NoPeer { name: name.to_owned() });
                Ok(edits)
            }
        }
    }

    /// Adds or replaces a route.
    ///
    /// # Errors
    /// If it contradicts what is there.
    pub fn add_route(&self, config: &Config, route: RouteSpec) -> Result<Vec<Edit>, ErrorReply> {
        let RouteSpec { prefix, target } = route;
        check_route_prefix(config, &self.peer_specs(), &prefix)
            .map_err(|message| refuse(ErrorKind::Invalid, message))?;
        if matches!(self.routes.get(&prefix), Some((_, Source::Config))) {
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
    /// If it is not there, or the configuration's.
    pub fn delete_route(&self, config: &Config, prefix: IpNet) -> Result<Vec<Edit>, ErrorReply> {
        match self.routes.get(&prefix) {
            None => Err(refuse(
                ErrorKind::Unknown,
                format!("no route to {prefix} was added at run time"),
            )),
            Some((_, Source::Config)) => Err(configured(config, &format!("the route to {prefix}"))),
            Some((_, source @ (Source::Kernel | Source::Kubernetes))) => {
                Err(told(*source, &format!("the route to {prefix}")))
            }
            Some((_, Source::Runtime)) => Ok(vec![Edit::NoRoute { prefix }]),
        }
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
