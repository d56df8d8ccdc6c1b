//! What is attached here.
//!
//! Enters: the ports that are live, and the model's pods. Leaves: ports by number.

use api::{Mode, RateLimit};
use dataplane::rate::Limit;
use dataplane::tables::{Attachment, Offloads, Port, PortId, PortRole};
use dataplane::wire::MacAddr;
use ipnet::IpNet;

use super::{DEFAULT_BRIDGE, Input, clamp};

/// Ports by number.
pub(super) fn ports(input: &Input<'_>) -> Vec<Option<Port>> {
    let mut ports = Vec::new();
    let mut put = |id: PortId, port: Port| {
        let at = usize::from(id.0);
        if ports.len() <= at {
            ports.resize(at + 1, None);
        }
        ports[at] = Some(port);
    };
    if let Some(host) = input.host {
        put(
            host.id,
            Port {
                kind: PortRole::Host,
                attachment: Attachment::Routed,
                mac: host.mac,
                mtu: clamp(host.mtu),
                offloads: host.offloads,
                addresses: Vec::new(),
                rx_limit: None,
                tx_limit: None,
            },
        );
    }
    if let Some(uplink) = input.uplink {
        put(
            uplink.id,
            Port {
                kind: PortRole::Uplink,
                attachment: Attachment::Routed,
                mac: uplink.mac,
                mtu: clamp(uplink.mtu),
                offloads: uplink.offloads,
                addresses: Vec::new(),
                rx_limit: None,
                tx_limit: None,
            },
        );
    }
    for (attachment, pod) in input.pods {
        let Some(lease) = input.model.attachments.get(attachment) else { continue };
        let attachment = match lease.mode {
            Mode::Routed => Attachment::Routed,
            Mode::Bridged { .. } => Attachment::Bridged(DEFAULT_BRIDGE),
        };
        let tx_limit = limit(lease.bandwidth.ingress);
        put(
            pod.id,
            Port {
                kind: PortRole::Pod,
                attachment,
                mac: MacAddr(lease.mac.0),
                mtu: clamp(lease.mtu),
                offloads: offloads(pod.offloads, tx_limit.as_ref()),
                addresses: lease.addresses.iter().map(IpNet::addr).collect(),
                rx_limit: limit(lease.bandwidth.egress),
                tx_limit,
            },
        );
    }
    ports
}

fn limit(limit: Option<RateLimit>) -> Option<Limit> {
    limit.map(|limit| Limit::new(limit.bits_per_second, limit.burst_bits))
}

/// A port whose rate is low gets no superframes: one would take up much more than 10 ms of it at once.
fn offloads(device: Offloads, limit: Option<&Limit>) -> Offloads {
    match limit {
        Some(limit) if !limit.takes_superframes() => Offloads { tso: false, uso: false, ..device },
        _ => device,
    }
}
