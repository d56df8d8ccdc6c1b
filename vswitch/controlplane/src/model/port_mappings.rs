//! Judges the ports of the node that a pod asks for.
//!
//! Enters: the mappings of a reservation, and the addresses that the pod gets. Leaves: nothing, or a
//! refusal that names the mapping and what stands against it. Whether a process of the node listens on
//! such a port is not looked at: the mapping is in force before it, as with other plugins.

use std::net::{IpAddr, Ipv6Addr};

use api::{ErrorKind, ErrorReply, MAX_PORT_MAPPINGS, PortMapping, Reserve};
use ipnet::IpNet;

use super::{Lease, Model, attachments, refuse};
use crate::config::Config;

impl Model {
    /// Refuses mappings that cannot be served, or that another pod has.
    pub(super) fn admit_port_mappings(
        &self,
        config: &Config,
        request: &Reserve,
        addresses: &[IpNet],
    ) -> Result<(), ErrorReply> {
        let mappings = &request.port_mappings;
        if mappings.is_empty() {
            return Ok(());
        }
        let invalid = |message: String| Err(refuse(ErrorKind::Invalid, message));
        if let Some(why) = unserved(config) {
            return invalid(format!(
                "the pod asks for hostPorts, which this node does not serve: {why}"
            ));
        }
        if mappings.len() > MAX_PORT_MAPPINGS {
            return invalid(format!(
                "{} port mappings are asked for; a pod can have {MAX_PORT_MAPPINGS}",
                mappings.len()
            ));
        }
        for (at, mapping) in mappings.iter().enumerate() {
            if mapping.host_port == 0 || mapping.container_port == 0 {
                return invalid(format!("port mapping {mapping}: there is no port 0"));
            }
            if let Some(why) = mapping.host_ip.and_then(|ip| unsuitable(ip, addresses)) {
                return invalid(format!("port mapping {mapping}: {why}"));
            }
            let former = mappings.get(..at).unwrap_or_default();
            if let Some(twice) = former.iter().find(|other| other.overlaps(mapping)) {
                return invalid(format!(
                    "port mapping {mapping}: the pod asks for {twice} as well"
                ));
            }
            self.admit_port(request, mapping)?;
        }
        Ok(())
    }

    /// A runtime gives a pod's mappings to each of its networks: interfaces of one container share
    /// them, and the first has them.
    fn admit_port(&self, request: &Reserve, mapping: &PortMapping) -> Result<(), ErrorReply> {
        for (other, lease) in &self.attachments {
            if other.container_id == request.attachment.container_id {
                continue;
            }
            if let Some(taken) = lease.port_mappings.iter().find(|taken| taken.overlaps(mapping)) {
                return Err(refuse(
                    ErrorKind::Conflict,
                    format!(
                        "port mapping {mapping}: {} has {taken}",
                        holder(lease, &attachments::name(other))
                    ),
                ));
            }
        }
        Ok(())
    }

    /// What an operator should know: pods whose hostPorts nothing serves.
    #[must_use]
    pub(crate) fn unserved_port_mappings(&self, config: &Config) -> Option<String> {
        let why = unserved(config)?;
        let mapped = self.attachments.values().filter(|lease| !lease.port_mappings.is_empty());
        match mapped.count() {
            0 => None,
            count => Some(format!("{count} pod(s) have hostPorts, which nothing serves: {why}")),
        }
    }
}

/// Why this node serves no hostPorts.
fn unserved(config: &Config) -> Option<&'static str> {
    match &config.host {
        None => Some("[host] is not configured, by which the kernel reaches pods"),
        Some(host) if !host.masquerade => {
            Some("host.masquerade is false; set it, or leave hostPorts to the plugin portmap")
        }
        Some(_) => None,
    }
}

/// Why a node's address cannot lead to a pod with these.
fn unsuitable(host_ip: IpAddr, addresses: &[IpNet]) -> Option<String> {
    let family = if host_ip.is_ipv4() { "IPv4" } else { "IPv6" };
    if host_ip.is_multicast() {
        return Some(format!("{host_ip} is no node's address"));
    }
    if host_ip == IpAddr::V6(Ipv6Addr::LOCALHOST) {
        return Some(
            "what comes from ::1 reaches no pod, whatever the node's kernel translates".into(),
        );
    }
    if !addresses.iter().any(|net| net.addr().is_ipv4() == host_ip.is_ipv4()) {
        return Some(format!(
            "the pod has no {family} address, to which hostIP {host_ip} could lead"
        ));
    }
    None
}

/// The pod that holds a lease, by its name if its runtime gave one.
fn holder(lease: &Lease, attachment: &str) -> String {
    match &lease.pod {
        Some(pod) => format!("pod {}/{} ({attachment})", pod.namespace, pod.name),
        None => attachment.to_owned(),
    }
}
