//! Judges a Service: its virtual addresses and ports.
//!
//! Enters: a [`ServiceObject`], any field of which may be hostile. Leaves: a [`ClusterService`], slim and
//! parsed, to `translate`; or nothing, if others serve it.

use std::net::IpAddr;

use api::{ServiceProtocol, is_v4};
use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::object::{ServiceFields, ServiceObject, ServicePortFields, is_others};
use super::problem::{AddressKind, ServiceProblem};
use crate::fields::{check_name, shown};

/// Source ranges that are taken of a Service.
pub const MAX_SOURCES: usize = 1000;
/// How long an affinity lasts unless the Service says otherwise, and at most.
const AFFINITY_SECONDS: u32 = 10_800;
const LONGEST_AFFINITY_SECONDS: i64 = 86_400;

/// A Service that is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterService {
    /// Namespace and name, with a slash between.
    pub key: String,
    /// Its UID, for Events.
    pub uid: Option<String>,
    /// When it was created.
    pub created: Option<Time>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Addresses that the API server assigned; the first one's family is the Service's first.
    pub cluster_ips: Vec<IpAddr>,
    /// Addresses that its owner names.
    pub external_ips: Vec<IpAddr>,
    /// A load balancer's addresses that anyone may speak to.
    pub open_balancer_ips: Vec<IpAddr>,
    /// A load balancer's addresses that only `sources` may speak to.
    pub restricted_balancer_ips: Vec<IpAddr>,
    /// Who may speak to these.
    pub sources: Vec<IpNet>,
    /// Only endpoints of the client's node are for the ClusterIPs.
    pub is_internal_local: bool,
    /// For how many seconds of silence a client keeps its endpoint, if it does.
    pub affinity_seconds: Option<u32>,
    /// What is left out.
    pub problems: Vec<ServiceProblem>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, by which the ports of EndpointSlices are found; empty if it has none.
    pub name: String,
    /// Its protocol.
    pub protocol: ServiceProtocol,
    /// Its number at the virtual addresses.
    pub port: u16,
}

impl ServicePort {
    /// Its name, or else its number.
    #[must_use]
    pub fn label(&self) -> String {
        if self.name.is_empty() { self.port.to_string() } else { self.name.clone() }
    }
}

/// Namespace and name of an object, with a slash between.
#[must_use]
pub fn key_of(metadata: &ObjectMeta) -> String {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    format!("{namespace}/{}", metadata.name.as_deref().unwrap_or_default())
}

impl ClusterService {
    /// Judges a Service by its fields; none if it has no virtual address, or others serve it.
    #[must_use]
    pub fn judge(object: &ServiceObject) -> Option<Self> {
        let ServiceObject { metadata, spec, status } = object;
        if is_others(metadata) || spec.kind.as_deref() == Some("ExternalName") {
            return None;
        }
        let cluster_ips = cluster_ips(spec);
        if cluster_ips.iter().all(|ip| ip.is_empty() || *ip == "None") {
            return None;
        }
        let key = key_of(metadata);
        let uid = metadata.uid.clone();
        let mut problems = Vec::new();
        if let Err(problem) = check_names(metadata) {
            return Some(Self { problems: vec![problem], ..Self::unserved(key, uid) });
        }
        let ports = ports(spec.ports.as_deref().unwrap_or_default(), &mut problems);
        let cluster_ips = addresses(AddressKind::ClusterIp, cluster_ips.into_iter(), &mut problems);
        let external_ips = spec.external_ips.iter().flatten().map(String::as_str);
        let mut external_ips = addresses(AddressKind::External, external_ips, &mut problems);
        let ingress = status.load_balancer.iter().flat_map(|lb| lb.ingress.iter().flatten());
        // As kube-proxy has it: a mode that is unknown is none of a virtual address.
        let vips = ingress.filter(|at| at.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
        let vips = vips.filter_map(|at| at.ip.as_deref()).filter(|ip| !ip.is_empty());
        let vips = addresses(AddressKind::Ingress, vips, &mut problems);
        let sources = Sources::judge(spec, !vips.is_empty(), &mut problems);
        let (mut open_balancer_ips, mut restricted_balancer_ips) = (Vec::new(), Vec::new());
        for vip in vips {
            match sources.access_to(vip) {
                Access::Open => open_balancer_ips.push(vip),
                Access::Restricted => restricted_balancer_ips.push(vip),
                Access::None => {}
            }
        }
        // An address is served once; where it has two roles, the stricter one counts.
        restricted_balancer_ips.retain(|ip| !cluster_ips.contains(ip));
        let is_known =
            |ip: &IpAddr| cluster_ips.contains(ip) || restricted_balancer_ips.contains(ip);
        external_ips.retain(|ip| !is_known(ip));
        open_balancer_ips.retain(|ip| !is_known(ip) && !external_ips.contains(ip));
        Some(Self {
            created: metadata.creation_timestamp.clone(),
            ports,
            cluster_ips,
            external_ips,
            open_balancer_ips,
            restricted_balancer_ips,
            sources: sources.prefixes,
            is_internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            affinity_seconds: affinity_seconds(spec, &mut problems),
            problems,
            ..Self::unserved(key, uid)
        })
    }

    /// Addresses that its owner or a load balancer names.
    pub fn named_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let all = [&self.external_ips, &self.open_balancer_ips, &self.restricted_balancer_ips];
        all.into_iter().flatten().copied()
    }

    fn unserved(key: String, uid: Option<String>) -> Self {
        Self {
            key,
            uid,
            created: None,
            ports: Vec::new(),
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            open_balancer_ips: Vec::new(),
            restricted_balancer_ips: Vec::new(),
            sources: Vec::new(),
            is_internal_local: false,
            affinity_seconds: None,
            problems: Vec::new(),
        }
    }
}

/// `spec.clusterIPs`, or the older `spec.clusterIP` alone.
fn cluster_ips(spec: &ServiceFields) -> Vec<&str> {
    let several = spec.cluster_ips.as_deref().unwrap_or_default();
    let one = spec.cluster_ip.as_slice();
    (if several.is_empty() { one } else { several }).iter().map(String::as_str).collect()
}

/// The names are in those of the daemon's services, and in Events.
fn check_names(metadata: &ObjectMeta) -> Result<(), ServiceProblem> {
    for name in [&metadata.namespace, &metadata.name] {
        let name = name.as_deref().unwrap_or_default();
        check_name(name).map_err(|_| ServiceProblem::Name(shown(name)))?;
    }
    Ok(())
}

fn ports(fields: &[ServicePortFields], problems: &mut Vec<ServiceProblem>) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::with_capacity(fields.len());
    for field in fields {
        let name = field.name.clone().unwrap_or_default();
        let judged = protocol(field.protocol.as_deref())
            .and_then(|protocol| Ok((protocol, port_number(field.port)?)))
            .and_then(|of| {
                if name.is_empty() || check_name(&name).is_ok() {
                    Ok(of)
                } else {
                    Err(ServiceProblem::Port(shown(&name)))
                }
            });
        let (protocol, port) = match judged {
            Ok(judged) => judged,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let new = ServicePort { name, protocol, port };
        let is_same = |other: &ServicePort| {
            (other.protocol, other.port) == (protocol, port) || other.label() == new.label()
        };
        if ports.iter().any(is_same) {
            problems.push(ServiceProblem::SamePort { protocol, port: new.label() });
        } else {
            ports.push(new);
        }
    }
    ports
}

/// A protocol by its name; TCP if it has none.
///
/// # Errors
/// If it is unknown.
pub fn protocol(name: Option<&str>) -> Result<ServiceProtocol, ServiceProblem> {
    match name {
        None | Some("TCP") => Ok(ServiceProtocol::Tcp),
        Some("UDP") => Ok(ServiceProtocol::Udp),
        Some("SCTP") => Ok(ServiceProtocol::Sctp),
        Some(other) => Err(ServiceProblem::Protocol(shown(other))),
    }
}

/// A port's number.
///
/// # Errors
/// If it is none.
pub fn port_number(number: i64) -> Result<u16, ServiceProblem> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| ServiceProblem::Port(number.to_string()))
}

/// Each address once; others are problems.
fn addresses<'t>(
    kind: AddressKind,
    texts: impl Iterator<Item = &'t str>,
    problems: &mut Vec<ServiceProblem>,
) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for text in texts {
        match kind.parse(text) {
            Ok(address) if all.contains(&address) => {}
            Ok(address) => all.push(address),
            Err(problem) => problems.push(problem),
        }
    }
    all
}

/// Who may speak to a load balancer's addresses.
#[derive(Default)]
struct Sources {
    prefixes: Vec<IpNet>,
    /// A range cannot be read: a family without another must not be open for that.
    is_spoiled: bool,
}

enum Access {
    Open,
    Restricted,
    None,
}

impl Sources {
    fn judge(spec: &ServiceFields, is_needed: bool, problems: &mut Vec<ServiceProblem>) -> Self {
        let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
        if !is_needed {
            return Self::default();
        }
        if ranges.len() > MAX_SOURCES {
            problems.push(ServiceProblem::Sources(ranges.len()));
            return Self { prefixes: Vec::new(), is_spoiled: true };
        }
        let mut sources = Self::default();
        // The API server takes white space around a range.
        for range in ranges.iter().map(|range| range.trim()) {
            match range.parse::<IpNet>() {
                Ok(prefix) => sources.prefixes.push(prefix.trunc()),
                Err(_) => {
                    problems.push(ServiceProblem::Source(shown(range)));
                    sources.is_spoiled = true;
                }
            }
        }
        sources.prefixes.sort_unstable();
        sources.prefixes.dedup();
        sources
    }

    /// As kube-proxy has it, ranges of one family restrict that family alone.
    fn access_to(&self, address: IpAddr) -> Access {
        if self.prefixes.iter().any(|prefix| is_v4(prefix) == address.is_ipv4()) {
            Access::Restricted
        } else if self.is_spoiled {
            Access::None
        } else {
            Access::Open
        }
    }
}

fn affinity_seconds(spec: &ServiceFields, problems: &mut Vec<ServiceProblem>) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref();
    let timeout = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    let Some(timeout) = timeout else { return Some(AFFINITY_SECONDS) };
    if (1..=LONGEST_AFFINITY_SECONDS).contains(&timeout) {
        return u32::try_from(timeout).ok();
    }
    problems.push(ServiceProblem::Affinity(timeout));
    Some(AFFINITY_SECONDS)
}
