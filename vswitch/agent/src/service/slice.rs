//! Judges an EndpointSlice: its endpoints, and how ready each is.
//!
//! Enters: a [`SliceObject`], any field of which may be hostile. Leaves: an [`EndpointSlice`], slim and
//! parsed, to `backends`; or nothing, if it belongs to no Service or has no addresses.

use std::net::IpAddr;

use api::ServiceProtocol;

use super::object::{
    EndpointFields, HOSTNAME, Hint, SERVICE_NAME, SliceObject, SlicePortFields, is_others,
};
use super::problem::{AddressKind, ServiceProblem};
use super::virtuals::{port_number, protocol};
use crate::fields::shown;

/// So many problems of a slice are kept.
const KEPT: usize = 8;

/// Part of a Service's endpoints, of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of its Service, with a slash between.
    pub service: String,
    /// Ports on which all of them listen.
    pub ports: Box<[SlicePort]>,
    /// The endpoints.
    pub endpoints: Box<[Endpoint]>,
    /// What is left out.
    pub problems: Vec<ServiceProblem>,
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port; empty if that has none.
    pub name: Box<str>,
    /// Its protocol.
    pub protocol: ServiceProtocol,
    /// The number on which the endpoints listen.
    pub port: u16,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Whether it is on this node.
    pub is_local: bool,
    /// How ready it is.
    pub readiness: Readiness,
    /// Whether it is meant for this node.
    pub node_hint: NodeHint,
    /// Zones that it is meant for; any if it is empty.
    pub zones: Box<[Box<str>]>,
}

/// How ready an endpoint is, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// It takes new flows.
    Ready,
    /// It is terminating, and takes new flows where no endpoint is ready.
    Draining,
    /// It answers, but takes no new flows.
    Serving,
    /// It does not answer, as far as is known.
    NotServing,
}

/// Whether an endpoint is meant for this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeHint {
    /// It is meant for no node in particular.
    None,
    /// For this one, among others maybe.
    Ours,
    /// For others.
    Others,
}

impl EndpointSlice {
    /// Judges a slice for the node of that name; none if it is not of a Service that is served by
    /// addresses.
    #[must_use]
    pub fn judge(object: &SliceObject, node_name: &str) -> Option<Self> {
        let service = object.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
        let is_v4 = match object.address_type.as_str() {
            "IPv4" => true,
            "IPv6" => false,
            _ => return None,
        };
        if service.is_empty() || is_others(&object.metadata) {
            return None;
        }
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let mut problems = Vec::new();
        let mut note = |problem| {
            if problems.len() < KEPT {
                problems.push(problem);
            }
        };
        let mut ports = Vec::new();
        for field in object.ports.iter().flatten() {
            match port(field) {
                Ok(port) => ports.push(port),
                Err(problem) => note(problem),
            }
        }
        let is_v1beta1 = object.api_version.as_deref().is_some_and(|v| v.ends_with("/v1beta1"));
        let mut endpoints = Vec::new();
        for field in object.endpoints.iter().flatten() {
            match address(field, is_v4) {
                Ok(address) => endpoints.push(endpoint(field, address, node_name, is_v1beta1)),
                Err(problem) => note(problem),
            }
        }
        Some(Self {
            service: format!("{namespace}/{service}"),
            ports: ports.into(),
            endpoints: endpoints.into(),
            problems,
        })
    }
}

fn port(field: &SlicePortFields) -> Result<SlicePort, ServiceProblem> {
    Ok(SlicePort {
        name: field.name.as_deref().unwrap_or_default().into(),
        protocol: protocol(field.protocol.as_deref())?,
        port: port_number(field.port.unwrap_or_default())?,
    })
}

fn address(field: &EndpointFields, is_v4: bool) -> Result<IpAddr, ServiceProblem> {
    let text = field.addresses.iter().flatten().next().map_or("", String::as_str);
    let address = AddressKind::Endpoint.parse(text)?;
    if address.is_ipv4() == is_v4 {
        return Ok(address);
    }
    let why = "is not of its slice's family";
    Err(ServiceProblem::Address { kind: AddressKind::Endpoint, address: shown(text), why })
}

fn endpoint(
    field: &EndpointFields,
    address: IpAddr,
    node_name: &str,
    is_v1beta1: bool,
) -> Endpoint {
    let conditions = field.conditions;
    let is_ready = conditions.ready.unwrap_or(true);
    // The two versions of the API differ in what it means that this is missing.
    let is_serving = conditions.serving.unwrap_or(!is_v1beta1 || is_ready);
    let is_terminating = conditions.terminating.unwrap_or(false);
    let hostname = || field.topology.as_ref()?.get(HOSTNAME).map(String::as_str);
    let node = field.node_name.as_deref().or_else(hostname);
    let hints = field.hints.as_ref();
    let nodes: &[Hint] = hints.and_then(|hints| hints.for_nodes.as_deref()).unwrap_or_default();
    let zones = hints.and_then(|hints| hints.for_zones.as_deref()).unwrap_or_default();
    Endpoint {
        address,
        is_local: node == Some(node_name),
        readiness: match (is_ready, is_serving, is_terminating) {
            (true, _, _) => Readiness::Ready,
            (false, true, true) => Readiness::Draining,
            (false, true, false) => Readiness::Serving,
            (false, false, _) => Readiness::NotServing,
        },
        node_hint: if nodes.is_empty() {
            NodeHint::None
        } else if nodes.iter().any(|node| node.name == node_name) {
            NodeHint::Ours
        } else {
            NodeHint::Others
        },
        zones: zones.iter().map(|zone| zone.name.as_str().into()).collect(),
    }
}
