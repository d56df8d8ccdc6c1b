//! What both ends of a connection are called.
//!
//! Enters: a name or an address as a person typed it. Leaves: addresses, and the port and protocol that
//! come with a service; for a name that is not known, those that are like it.

use std::net::{IpAddr, SocketAddr};

use api::{ErrorKind, ErrorReply, Mac, Mode, ServiceSpec};
use controlplane::model::{Lease, refuse};
use controlplane::ports::{HOST, UPLINK};
use dataplane::session::Endpoint;
use dataplane::tables::{Attachment, PortId};
use dataplane::wire::Protocol;
use ipnet::IpNet;

use super::{protocol, word};
use crate::daemon::Daemon;
use crate::requests::refused;

/// Names that an error offers instead of one that is not known.
const OFFERED: usize = 3;
/// Behind the name of a service, where a pod has the same.
const SERVICE_SUFFIX: &str = ".svc";

/// The end that opens a connection.
pub(super) struct Source {
    pub(super) addresses: Vec<IpAddr>,
}

/// The end that a connection leads to.
pub(super) struct Destination {
    pub(super) addresses: Vec<IpAddr>,
    /// None where the protocol has none.
    pub(super) port: Option<u16>,
    pub(super) protocol: Protocol,
}

impl Daemon {
    pub(super) fn source(&self, text: &str) -> Result<Source, ErrorReply> {
        if let Ok(address) = text.parse() {
            return Ok(Source { addresses: vec![address] });
        }
        let lease = self.pod_named(text).ok_or_else(|| {
            let pods = self.pods().map(|(name, _)| name).collect();
            unknown("pod", text, pods)
        })?;
        Ok(Source { addresses: addresses_of(lease) })
    }

    pub(super) fn destination(
        &self,
        text: &str,
        asked: Option<&str>,
    ) -> Result<Destination, ErrorReply> {
        let asked = asked.map(protocol).transpose()?;
        let (name, port) = split(text);
        let whole = (text, None);
        let (addresses, port) = if let Ok(address) = text.parse() {
            (vec![address], None)
        } else if let Some((address, port)) = address_and_port(text) {
            (vec![address], port)
        } else {
            // A name may have a colon of its own.
            for (name, port) in [whole, (name, port)] {
                if let Some(lease) = self.pod_named(name) {
                    return with_port(addresses_of(lease), port, asked, text);
                }
                if let Some(found) = self.service_named(name, port, asked)? {
                    return Ok(found);
                }
            }
            let pods = self.pods().map(|(name, _)| name);
            let services = self.plane.model().services.values();
            let known = pods.chain(services.map(|service| key_of(&service.name).to_owned()));
            return Err(unknown("pod or service", name, known.collect()));
        };
        with_port(addresses, port, asked, text)
    }

    /// A service by its name, with or without that of its port.
    fn service_named(
        &self,
        name: &str,
        port: Option<u16>,
        asked: Option<Protocol>,
    ) -> Result<Option<Destination>, ErrorReply> {
        let name = name.strip_suffix(SERVICE_SUFFIX).unwrap_or(name);
        let services = || self.plane.model().services.values().map(|service| &**service);
        let mut found: Vec<_> = services().filter(|service| service.name == name).collect();
        if found.is_empty() {
            let has_name = |service: &&ServiceSpec| {
                key_of(&service.name) == name || set_of(&service.name) == name
            };
            found = services().filter(has_name).collect();
        }
        if found.is_empty() {
            return Ok(None);
        }
        let is_ping = asked == Some(Protocol::ICMP);
        let fits = |service: &&ServiceSpec| {
            let is_asked = asked.is_none_or(|asked| is_ping || asked == number(service));
            is_asked && port.is_none_or(|port| service.port == port)
        };
        let fitting: Vec<_> = found.iter().copied().filter(fits).collect();
        let all = || {
            let words = found.iter().map(|service| {
                format!("{} ({} {})", set_of(&service.name), service.protocol.label(), service.port)
            });
            let mut words: Vec<_> = words.collect();
            words.dedup();
            words.join(", ")
        };
        let Some(first) = fitting.first() else {
            let message = format!("service {name} has no such port; it has {}", all());
            return refused(ErrorKind::Unknown, message);
        };
        let is_other = |service: &&ServiceSpec| {
            (service.port, service.protocol) != (first.port, first.protocol)
        };
        if !is_ping && fitting.iter().any(is_other) {
            let message = format!("service {name} has several ports; say one of {}", all());
            return refused(ErrorKind::Invalid, message);
        }
        Ok(Some(Destination {
            addresses: first.addresses.clone(),
            port: (!is_ping).then_some(first.port),
            protocol: if is_ping { Protocol::ICMP } else { number(first) },
        }))
    }

    /// The service with this virtual address and port.
    pub(super) fn service_at(&self, end: Endpoint, protocol: Protocol) -> Option<&ServiceSpec> {
        let mut services = self.plane.model().services.values().map(|service| &**service);
        services.find(|service| {
            let is_same = service.port == end.port && number(service) == protocol;
            is_same && service.addresses.contains(&end.address)
        })
    }

    fn pods(&self) -> impl Iterator<Item = (String, &Lease)> {
        let attachments = self.plane.model().attachments.iter();
        attachments.map(|(attachment, lease)| (self.plane.port_name(attachment), lease))
    }

    fn pod_named(&self, name: &str) -> Option<&Lease> {
        self.pods().find_map(|(known, lease)| (known == name).then_some(lease))
    }

    /// The port of the pod of this node with this address.
    pub(in crate::requests) fn port_with(&self, address: IpAddr) -> Option<PortId> {
        let has = |lease: &Lease| lease.addresses.iter().any(|net| net.addr() == address);
        let mut attachments = self.plane.model().attachments.iter();
        let (attachment, _) = attachments.find(|(_, lease)| has(lease))?;
        self.plane.ports().number_of(attachment)
    }

    /// Its name.
    pub(in crate::requests) fn pod_with(&self, address: IpAddr) -> Option<String> {
        self.port_with(address).map(|port| self.name_of(port))
    }

    /// The port by which packets of this source come.
    pub(super) fn comes_by(&self, source: IpAddr) -> PortId {
        let is_of_peer = self.plane.uplink().is_some() && self.peer_of(source).is_some();
        self.port_with(source).unwrap_or(if is_of_peer { UPLINK } else { HOST })
    }

    /// The MAC that a bridged pod's packets to a pod of its own segment have.
    pub(super) fn mac_on_segment(&self, from: PortId, destination: IpAddr) -> Option<Mac> {
        let tables = self.node.publisher.tables();
        let port = tables.port(from)?;
        if !matches!(port.attachment, Attachment::Bridged(_)) {
            return None;
        }
        let mut leases = self.plane.model().attachments.values();
        let has = |lease: &&Lease| lease.addresses.iter().any(|net| net.addr() == destination);
        let lease = leases.find(has)?;
        matches!(lease.mode, Mode::Bridged { .. }).then_some(lease.mac)
    }
}

fn addresses_of(lease: &Lease) -> Vec<IpAddr> {
    lease.addresses.iter().map(IpNet::addr).collect()
}

/// A destination that is no service's name.
fn with_port(
    addresses: Vec<IpAddr>,
    port: Option<u16>,
    asked: Option<Protocol>,
    text: &str,
) -> Result<Destination, ErrorReply> {
    let protocol = asked.unwrap_or(Protocol::TCP);
    if protocol == Protocol::ICMP {
        return Ok(Destination { addresses, port: None, protocol });
    }
    let port = port.ok_or_else(|| {
        let message = format!(
            "{} goes to a port: say {text}:PORT ([{text}]:PORT for an IPv6 address), or --protocol icmp",
            word(protocol)
        );
        refuse(ErrorKind::Invalid, message)
    })?;
    Ok(Destination { addresses, port: Some(port), protocol })
}

/// A name, and the port behind its last colon.
fn split(text: &str) -> (&str, Option<u16>) {
    let parts = text.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
    parts.map_or((text, None), |(name, port)| (name, Some(port)))
}

fn address_and_port(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(end) = text.parse::<SocketAddr>() {
        return Some((end.ip(), Some(end.port())));
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    Some((inner.parse().ok()?, None))
}

/// A service's name without that of the set of its addresses: `shop/db:sql`.
fn set_of(name: &str) -> &str {
    name.split(' ').next().unwrap_or(name)
}

/// Namespace and name of a service: `shop/db`.
fn key_of(name: &str) -> &str {
    let name = set_of(name);
    name.rsplit_once(':').map_or(name, |(key, _)| key)
}

fn number(service: &ServiceSpec) -> Protocol {
    Protocol(service.protocol.number())
}

/// There is nothing of this name, but there are others.
fn unknown(kind: &str, name: &str, mut known: Vec<String>) -> ErrorReply {
    known.sort_by_cached_key(|known| (std::cmp::Reverse(likeness(known, name)), known.clone()));
    known.dedup();
    known.truncate(OFFERED);
    let offered = if known.is_empty() {
        "it has none at all".to_owned()
    } else {
        format!("most like it: {}", known.join(", "))
    };
    let message = format!(
        "this node knows no {kind} \"{}\"; {offered}. A pod of another node is told by its address",
        name.escape_debug()
    );
    refuse(ErrorKind::Unknown, message)
}

/// How much of two names is the same at their beginning and at their end, bytes.
fn likeness(a: &str, b: &str) -> usize {
    let same =
        |pairs: &mut dyn Iterator<Item = (u8, u8)>| pairs.take_while(|(a, b)| a == b).count();
    same(&mut a.bytes().zip(b.bytes())) + same(&mut a.bytes().rev().zip(b.bytes().rev()))
}

#[cfg(test)]
mod tests {
    use super::{address_and_port, key_of, set_of, split, unknown};

    #[test]
    fn a_port_stands_behind_the_last_colon() {
        assert_eq!(split("shop/db:5432"), ("shop/db", Some(5432)));
        assert_eq!(split("shop/db:sql"), ("shop/db:sql", None));
        assert_eq!(split("shop/web:net1:80"), ("shop/web:net1", Some(80)));
        let v6 = "fd00::2".parse().expect("an address");
        assert_eq!(address_and_port("[fd00::2]:80"), Some((v6, Some(80))));
        assert_eq!(address_and_port("[fd00::2]"), Some((v6, None)));
        assert_eq!(address_and_port("shop/db:80"), None);
    }

    #[test]
    fn a_service_has_a_name_without_its_port_and_set() {
        assert_eq!(set_of("shop/db:sql external"), "shop/db:sql");
        assert_eq!(key_of("shop/db:sql external"), "shop/db");
        assert_eq!(key_of("plain"), "plain");
    }

    #[test]
    fn a_name_that_is_not_known_is_answered_by_those_most_like_it() {
        let known = ["shop/web-0", "shop/web-1", "shop/db-0", "other/x", "shop/web-0"];
        let refusal = unknown("pod", "shop/wbe-0", known.map(str::to_owned).into());
        let offered = "most like it: shop/web-0, shop/db-0, shop/web-1.";
        assert!(refusal.message.contains(offered), "{refusal}");
        let refusal = unknown("pod", "x", Vec::new());
        assert!(refusal.message.contains("it has none at all"), "{refusal}");
    }
}
