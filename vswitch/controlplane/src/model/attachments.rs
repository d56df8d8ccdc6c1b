//! Judges what a CNI call asks for.
//!
//! Enters: `Reserve`, `Recover`, `Attach`, `Detach`, `Collect`, `Check`. Leaves: the edits that grant it, or a refusal
//! that names what stands against it. Nothing is changed here.
//!
//! | file | judges |
//! |---|---|
//! | `admit` | names, MACs and addresses that a call gives |
//! | `check` | whether a pod is as its runtime believes |

mod admit;
mod check;

use std::net::IpAddr;

use api::{
    AttachmentId, Collect, Delegated, ErrorKind, ErrorReply, MAX_QUEUES, Mac, Mode, Recover,
    Reserve, Reserved, one_queue,
};
use dataplane::tables::Gateway;
use ipnet::IpNet;

use super::{Edit, Lease, Model, ipam, refuse};
use crate::config::Config;
pub(super) use admit::{check_bridge, is_host_address};
use admit::{check_id, check_network, ipam_refusal};

impl Model {
    /// Judges a reservation. An attachment with a lease but no port gets the same again: its runtime
    /// tries anew.
    ///
    /// # Errors
    /// If an address or the MAC cannot be had.
    pub fn reserve(
        &self,
        config: &Config,
        request: &Reserve,
        pod_mtu: u32,
        has_port: bool,
    ) -> Result<(Vec<Edit>, Reserved), ErrorReply> {
        check_id(&request.attachment)?;
        request.network.as_deref().map_or(Ok(()), check_network)?;
        if let Some(problem) = request.bandwidth.problem() {
            return Err(refuse(ErrorKind::Invalid, problem));
        }
        if !(1..=MAX_QUEUES).contains(&request.queues) {
            let message = format!("queues is {}; expected 1 to {MAX_QUEUES}", request.queues);
            return Err(refuse(ErrorKind::Invalid, message));
        }
        if has_port {
            return Err(refuse(
                ErrorKind::Conflict,
                format!(
                    "{} is attached already; delete it before adding it anew",
                    name(&request.attachment)
                ),
            ));
        }
        if let Some(lease) = self.attachments.get(&request.attachment)
            && satisfies(lease, request)
        {
            let mut renewed =
                Lease { bandwidth: request.bandwidth, queues: request.queues, ..lease.clone() };
            if request.network.is_some() {
                renewed.network.clone_from(&request.network);
            }
            if request.pod.is_some() {
                renewed.pod.clone_from(&request.pod);
                renewed.name_is_lost = false;
            }
            if request.container_name.is_some() {
                renewed.container_name.clone_from(&request.container_name);
                renewed.name_is_lost = false;
            }
            let answer = reserved(&renewed);
            let mut edits = Vec::new();
            if renewed != *lease {
                let attachment = request.attachment.clone();
                edits.push(Edit::Lease { attachment, lease: renewed });
            }
            return Ok((edits, answer));
        }
        if self.pods.current().is_empty() {
            return Err(refuse(
                ErrorKind::NotReady,
                "this node has no pod prefixes yet: its configuration names none (node.pod_prefixes), and the cluster has told none; is vswitch-agent running?",
            ));
        }
        // A lease without port that does not suit is replaced: judge as if it were not there.
        let mut without = None;
        if self.attachments.contains_key(&request.attachment) {
            let mut model = self.clone();
            model.apply_all(&[Edit::NoLease { attachment: request.attachment.clone() }]);
            without = Some(model);
        }
        let lease = without.as_ref().unwrap_or(self).new_lease(config, request, pod_mtu)?;
        let answer = reserved(&lease);
        Ok((vec![Edit::Lease { attachment: request.attachment.clone(), lease }], answer))
    }

    /// Judges a pod that the journal lost, by its interface: it holds what that has. The name of the pod
    /// and of its network are lost, and its ports of the node.
    ///
    /// # Errors
    /// If the attachment is known as it was made, or an address or the MAC cannot be its own.
    pub fn recover(
        &self,
        config: &Config,
        request: &Recover,
    ) -> Result<(Vec<Edit>, Reserved), ErrorReply> {
        let Recover { attachment, netns, addresses, gateways: given, mac, mtu } = request;
        check_id(attachment)?;
        let known = self.attachments.get(attachment);
        if known.is_some_and(|lease| lease.attached) {
            return Err(refuse(ErrorKind::Conflict, format!("{} is known", name(attachment))));
        }
        // One that was reserved is replaced: judge as if it were not there.
        let mut others = self.clone();
        if known.is_some() {
            others.apply_all(&[Edit::NoLease { attachment: attachment.clone() }]);
        }
        others.admit_given("its interface has", addresses)?;
        let is_ours = |net: &IpNet| {
            let mut prefixes = self.pods.all().chain(&self.cluster_prefixes);
            prefixes.any(|prefix| prefix.contains(&net.addr()))
        };
        if let Some(foreign) = addresses.iter().find(|net| !is_ours(net)) {
            let message = format!(
                "its interface has {}, which is no address of this cluster's pods",
                foreign.addr()
            );
            return Err(refuse(ErrorKind::Invalid, message));
        }
        let mac = others.admit_mac(*mac)?;
        let is_routed = addresses.iter().all(|net| net.prefix_len() == net.max_prefix_len());
        let mode = if is_routed {
            Mode::Routed
        } else {
            Mode::Bridged { bridge: Some(config.bridge.name.clone()) }
        };
        let is_delegated =
            !addresses.iter().all(|net| self.pods.all().any(|pods| pods.contains(&net.addr())));
        let delegated = Delegated { addresses: addresses.clone(), gateways: given.clone() };
        let lease = Lease {
            network: known.and_then(|lease| lease.network.clone()),
            pod: known.and_then(|lease| lease.pod.clone()),
            container_name: known.and_then(|lease| lease.container_name.clone()),
            name_is_lost: known.is_none_or(|lease| lease.name_is_lost),
            netns: netns.clone(),
            gateways: gateways(self.pods.current(), addresses, Some(&delegated)),
            mode,
            addresses: addresses.clone(),
            mac,
            mtu: *mtu,
            // Its interface does not show them.
            bandwidth: known.map(|lease| lease.bandwidth).unwrap_or_default(),
            queues: known.map_or_else(one_queue, |lease| lease.queues),
            delegated: is_delegated,
            attached: false,
            port: None,
            port_mappings: known.map(|lease| lease.port_mappings.clone()).unwrap_or_default(),
        };
        let answer = reserved(&lease);
        Ok((vec![Edit::Lease { attachment: attachment.clone(), lease }], answer))
    }

    fn new_lease(
        &self,
        config: &Config,
        request: &Reserve,
        pod_mtu: u32,
    ) -> Result<Lease, ErrorReply> {
        let mode = match request.mode.as_ref().unwrap_or(&config.attachment) {
            Mode::Routed => Mode::Routed,
            Mode::Bridged { bridge: None } => {
                Mode::Bridged { bridge: Some(config.bridge.name.clone()) }
            }
            Mode::Bridged { bridge: Some(bridge) } => {
                check_bridge(config, bridge)?;
                Mode::Bridged { bridge: Some(bridge.clone()) }
            }
        };
        let allocated = match &request.delegated {
            Some(delegated) => {
                self.admit_given("the IPAM plugin gave", &delegated.addresses)?;
                delegated.addresses.iter().map(|net| (net.addr(), *net)).collect()
            }
            None => {
                let allocated = self.ipam.allocate(&request.requested, &request.ranges);
                allocated.map_err(|error| ipam_refusal(&error))?
            }
        };
        let addresses: Vec<IpNet> = allocated
            .iter()
            .map(|(address, net)| {
                let len = match mode {
                    Mode::Routed => net.max_prefix_len(),
                    Mode::Bridged { .. } => net.prefix_len(),
                };
                IpNet::new(*address, len).expect("a length of the address's own family")
            })
            .collect();
        let mac = match request.mac {
            Some(mac) => self.admit_mac(mac)?,
            None => {
                addresses.first().map_or(Mac([2, 0, 0, 0, 0, 0]), |net| derived_mac(net.addr()))
            }
        };
        self.admit_port_mappings(config, request, &addresses)?;
        let delegated = request.delegated.as_deref();
        Ok(Lease {
            network: request.network.clone(),
            pod: request.pod.clone(),
            container_name: request.container_name.clone(),
            name_is_lost: false,
            netns: request.netns.clone(),
            gateways: gateways(self.pods.current(), &addresses, delegated),
            mode,
            addresses,
            mac,
            mtu: pod_mtu,
            bandwidth: request.bandwidth,
            queues: request.queues,
            delegated: delegated.is_some(),
            attached: false,
            port: None,
            port_mappings: request.port_mappings.clone(),
        })
    }

    /// The lease that a port is handed over for, as edits that note the handing over; none if it is noted.
    ///
    /// # Errors
    /// If nothing was reserved.
    pub fn attach(&self, attachment: &AttachmentId, mac: Mac) -> Result<Vec<Edit>, ErrorReply> {
        let lease = self.attachments.get(attachment).ok_or_else(|| unknown(attachment))?;
        let mut lease = lease.clone();
        if lease.mac != mac {
            let others = self.attachments.iter().filter(|(other, _)| *other != attachment);
            let model = Self {
                attachments: others.map(|(id, lease)| (id.clone(), lease.clone())).collect(),
                ..Self::default()
            };
            lease.mac = model.admit_mac(mac)?;
        }
        lease.attached = true;
        // An interface that is opened again is in the journal already, which may take no line now.
        if self.attachments.get(attachment) == Some(&lease) {
            return Ok(Vec::new());
        }
        Ok(vec![Edit::Lease { attachment: attachment.clone(), lease }])
    }

    /// Frees what an attachment holds; nothing if it holds nothing.
    #[must_use]
    pub fn detach(&self, attachment: &AttachmentId) -> Vec<Edit> {
        let Some(lease) = self.attachments.get(attachment) else { return Vec::new() };
        let mut edits = vec![Edit::NoLease { attachment: attachment.clone() }];
        edits.extend(self.retire_without(attachment, lease));
        edits
    }

    /// What GC of a network comes to: the attachments that go, and the edits that give the network's
    /// name to those that are listed and have none.
    ///
    /// # Errors
    /// If the network's name can be none.
    pub fn collect(&self, collect: &Collect) -> Result<(Vec<AttachmentId>, Vec<Edit>), ErrorReply> {
        let Collect { network, valid } = collect;
        check_network(network)?;
        let (mut stale, mut named) = (Vec::new(), Vec::new());
        for (attachment, lease) in &self.attachments {
            match (&lease.network, valid.contains(attachment)) {
                (Some(of), false) if of == network => stale.push(attachment.clone()),
                (None, true) => {
                    let lease = Lease { network: Some(network.clone()), ..lease.clone() };
                    named.push(Edit::Lease { attachment: attachment.clone(), lease });
                }
                // Another network's, or of one that is not known: nobody but its DEL may free it.
                _ => {}
            }
        }
        Ok((stale, named))
    }
}

/// Name of an attachment in messages.
pub fn name(attachment: &AttachmentId) -> String {
    format!("{} of container {}", attachment.ifname, attachment.container_id)
}

/// Name of a pod, as people and policies of the file name it: all of its interfaces have the same.
pub(crate) fn pod_name(attachment: &AttachmentId, lease: Option<&Lease>) -> String {
    let of_container = lease.and_then(|lease| lease.container_name.as_ref());
    match lease.and_then(|lease| lease.pod.as_ref()) {
        Some(pod) => format!("{}/{}", pod.namespace, pod.name),
        None => of_container.unwrap_or(&attachment.container_id).clone(),
    }
}

fn unknown(attachment: &AttachmentId) -> ErrorReply {
    refuse(ErrorKind::Unknown, format!("nothing is reserved for {}", name(attachment)))
}

/// A lease answers a repeated request unless that insists on something else.
fn satisfies(lease: &Lease, request: &Reserve) -> bool {
    let holds = |address: &IpAddr| lease.addresses.iter().any(|net| net.addr() == *address);
    let delegated = match &request.delegated {
        None => !lease.delegated,
        Some(delegated) => {
            lease.delegated
                && delegated.addresses.len() == lease.addresses.len()
                && delegated.addresses.iter().all(|net| holds(&net.addr()))
        }
    };
    let mode = match (&request.mode, &lease.mode) {
        (None, _)
        | (Some(Mode::Routed), Mode::Routed)
        | (Some(Mode::Bridged { bridge: None }), Mode::Bridged { .. }) => true,
        (Some(wanted), held) => wanted == held,
    };
    let is_within = |net: &IpNet| ipam::is_within(&request.ranges, net.addr());
    delegated
        && mode
        && request.requested.iter().all(holds)
        && (lease.delegated || lease.addresses.iter().all(is_within))
        && request.mac.is_none_or(|mac| mac == lease.mac)
        && request.port_mappings == lease.port_mappings
}

fn reserved(lease: &Lease) -> Reserved {
    Reserved {
        addresses: lease.addresses.clone(),
        gateways: lease.gateways.clone(),
        gateway_mac: Mac(Gateway::MAC.0),
        mac: lease.mac,
        mtu: lease.mtu,
        mode: lease.mode.clone(),
        port_mappings: lease.port_mappings.clone(),
        bandwidth: lease.bandwidth,
        queues: lease.queues,
    }
}

/// One gateway a family that the pod has: the IPAM plugin's, else the node's.
fn gateways(pods: &[IpNet], addresses: &[IpNet], delegated: Option<&Delegated>) -> Vec<IpAddr> {
    let mut gateways: Vec<IpAddr> = Vec::new();
    let named = delegated.into_iter().flat_map(|delegated| delegated.gateways.iter().copied());
    let own = pods.iter().map(Config::gateway_of);
    for gateway in named.chain(own) {
        let is_new = !gateways.iter().any(|other| other.is_ipv4() == gateway.is_ipv4());
        if is_new && addresses.iter().any(|net| net.addr().is_ipv4() == gateway.is_ipv4()) {
            gateways.push(gateway);
        }
    }
    gateways
}

/// 02:70 and the IPv4 address, 02:71 and the end of the IPv6 address: the next pod with the address
/// gets the MAC with it, so that a neighbour entry somewhere that outlived the old pod is right.
fn derived_mac(address: IpAddr) -> Mac {
    let (kind, [a, b, c, d]) = match address {
        IpAddr::V4(v4) => (0x70, v4.octets()),
        IpAddr::V6(v6) => (0x71, (v6.to_bits() as u32).to_be_bytes()),
    };
    Mac([0x02, kind, a, b, c, d])
}

pub(super) fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}
