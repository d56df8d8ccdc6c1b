//! One Service, with its EndpointSlices, to the services of the daemon.
//!
//! Enters: a [`ClusterService`] and its slices. Leaves: for each port and family one [`ServiceSpec`] for
//! each set of addresses that have the same backends and clients, to `index`; and what is left out.

use std::net::IpAddr;

use api::{BackendUse, ServiceSpec, is_v4};

use super::backends::{Backends, PortEndpoints};
use super::owners::Owners;
use super::problem::ServiceProblem;
use super::slice::EndpointSlice;
use super::virtuals::{ClusterService, ServicePort};

/// Addresses of one set.
pub const MAX_ADDRESSES: usize = 100;
/// Backends of one set, some 80 bytes each in a message to the daemon.
pub const MAX_BACKENDS: usize = 10_000;
/// Sets of one Service.
pub const MAX_SETS: usize = 1000;
/// Backends of all sets of one Service.
const MAX_ALL_BACKENDS: usize = 6 * MAX_BACKENDS;

/// What a Service comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// The daemon's services.
    pub specs: Vec<ServiceSpec>,
    /// What is left out.
    pub problems: Vec<ServiceProblem>,
}

/// Addresses of a Service that have the same backends and clients.
struct Set {
    /// What tells it from the others of its port.
    suffix: &'static str,
    is_local: bool,
    is_restricted: bool,
    addresses: Vec<IpAddr>,
}

/// Namespace and name of the Service that one of the daemon's services was made of.
#[must_use]
pub fn service_of(name: &str) -> &str {
    // No name of Kubernetes has a colon.
    name.split_once(':').map_or(name, |(service, _)| service)
}

/// What a node in this zone serves of a Service. `owners` knows the addresses that are another's.
#[must_use]
pub fn translate<'s>(
    service: &ClusterService,
    slices: impl Iterator<Item = &'s EndpointSlice> + Clone,
    zone: Option<&str>,
    owners: &Owners,
) -> Translated {
    let mut problems = service.problems.clone();
    problems.extend(slices.clone().flat_map(|slice| slice.problems.iter().cloned()));
    let mut specs = Vec::new();
    let mut left = MAX_ALL_BACKENDS;
    let first_is_v4 = service.cluster_ips.first().is_none_or(IpAddr::is_ipv4);
    for is_v4 in [first_is_v4, !first_is_v4] {
        let sets = sets(service, is_v4, &mut problems);
        if sets.is_empty() {
            continue;
        }
        let family = match (is_v4 == first_is_v4, is_v4) {
            (true, _) => "",
            (false, true) => " ipv4",
            (false, false) => " ipv6",
        };
        for port in &service.ports {
            let endpoints = PortEndpoints::of(port, is_v4, slices.clone());
            for set in &sets {
                if specs.len() == MAX_SETS {
                    problems.push(ServiceProblem::Sets);
                    return Translated { specs, problems };
                }
                let addresses = admitted(service, port, set, owners, &mut problems);
                if addresses.is_empty() {
                    continue;
                }
                let mut backends =
                    if set.is_local { endpoints.local() } else { endpoints.cluster(zone) };
                let count = backends.all.len();
                if bound(&mut backends, left.min(MAX_BACKENDS)) {
                    problems.push(ServiceProblem::Backends { port: port.label(), count });
                }
                left -= backends.all.len();
                let set = Set { addresses, ..*set };
                specs.push(spec(service, port, set, family, is_v4, backends));
            }
        }
    }
    Translated { specs, problems }
}

fn spec(
    service: &ClusterService,
    port: &ServicePort,
    set: Set,
    family: &str,
    v4: bool,
    backends: Backends,
) -> ServiceSpec {
    let sources = service.sources.iter().filter(|prefix| is_v4(prefix) == v4);
    ServiceSpec {
        name: format!("{}:{}{}{family}", service.key, port.label(), set.suffix),
        protocol: port.protocol,
        port: port.port,
        addresses: set.addresses,
        sources: if set.is_restricted { sources.copied().collect() } else { Vec::new() },
        backends: backends.all,
        without_backend: backends.without,
        affinity_seconds: service.affinity_seconds,
    }
}

/// The sets of addresses of a family that have something in them.
fn sets(service: &ClusterService, is_v4: bool, problems: &mut Vec<ServiceProblem>) -> Vec<Set> {
    let of_family = |addresses: &[&Vec<IpAddr>]| -> Vec<IpAddr> {
        addresses.iter().copied().flatten().filter(|ip| ip.is_ipv4() == is_v4).copied().collect()
    };
    let cluster = of_family(&[&service.cluster_ips]);
    let open = of_family(&[&service.external_ips, &service.open_balancer_ips]);
    let restricted = of_family(&[&service.restricted_balancer_ips]);
    let is_local = service.is_internal_local;
    let set = |suffix, is_local, is_restricted, addresses| Set {
        suffix,
        is_local,
        is_restricted,
        addresses,
    };
    let mut sets = if is_local {
        vec![set("", true, false, cluster), set(" external", false, false, open)]
    } else {
        vec![set("", false, false, [cluster, open].concat())]
    };
    sets.push(set(" load-balancer", false, true, restricted));
    sets.retain(|set| !set.addresses.is_empty());
    for set in &mut sets {
        if set.addresses.len() > MAX_ADDRESSES {
            problems.push(ServiceProblem::Addresses(set.addresses.len()));
            set.addresses.truncate(MAX_ADDRESSES);
        }
    }
    sets
}

/// The addresses of a set that are the Service's at this port.
fn admitted(
    service: &ClusterService,
    port: &ServicePort,
    set: &Set,
    owners: &Owners,
    problems: &mut Vec<ServiceProblem>,
) -> Vec<IpAddr> {
    let mut admitted = Vec::with_capacity(set.addresses.len());
    for address in set.addresses.iter().copied() {
        match owners.owner_of(service, address, port) {
            None => admitted.push(address),
            Some(owner) => {
                let problem = ServiceProblem::Taken { address, owner };
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
    }
    admitted
}

/// Keeps so many backends, those for new flows first; true if that is not all.
fn bound(backends: &mut Backends, most: usize) -> bool {
    let all = &mut backends.all;
    if all.len() <= most {
        return false;
    }
    all.sort_by_key(|backend| backend.flows != BackendUse::All);
    all.truncate(most);
    all.sort_unstable();
    true
}
