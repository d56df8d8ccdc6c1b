//! How a packet of another node's pod arrives by the NIC.
//!
//! Enters: the inner packet that `trace` describes, and the peer with the pod that sends it. Leaves: the
//! frame that the peer would send us, by its encapsulation. As in `packet`, etherparse writes it.

use std::net::IpAddr;

use api::{Encapsulation, PeerSpec};
use dataplane::tables::Tunnels;
use dataplane::wire::{MacAddr, ethernet};
use etherparse::{IpNumber, PacketBuilder};

use controlplane::compile::{self, UplinkPort};
use controlplane::config::Config;

/// Outer TTL; any will do, as the outer header ends here.
const TTL: u8 = 64;
/// Of the dynamic range; a real one is a hash of the inner flow.
const SOURCE_PORT: u16 = 49_152;

/// Source and destination of the Ethernet header next to the inner packet.
pub(super) fn macs(
    config: &Config,
    uplink: &UplinkPort,
    peer: &PeerSpec,
    by: Encapsulation,
) -> (MacAddr, MacAddr) {
    let theirs =
        peer.vtep_mac.map_or_else(|| Tunnels::derived_vtep_mac(peer.address), |mac| MacAddr(mac.0));
    match by {
        Encapsulation::Vxlan => {
            let own = uplink.addresses.towards(peer.address);
            (theirs, own.map_or(MacAddr::ZERO, |own| compile::vtep_mac(config, own)))
        }
        Encapsulation::Ipip | Encapsulation::Direct => (theirs, uplink.mac),
    }
}

/// The frame as it arrives, around an inner one.
///
/// # Errors
/// If the outer packet would be too long to be one.
pub(super) fn encapsulate(
    config: &Config,
    uplink: &UplinkPort,
    peer: &PeerSpec,
    by: Encapsulation,
    inner: Vec<u8>,
) -> Result<Vec<u8>, String> {
    let (theirs, _) = macs(config, uplink, peer, by);
    let ethernet = PacketBuilder::ethernet2(theirs.0, uplink.mac.0);
    let outer = match (peer.address, uplink.addresses.towards(peer.address)) {
        (IpAddr::V4(peer), Some(IpAddr::V4(own))) => {
            ethernet.ipv4(peer.octets(), own.octets(), TTL)
        }
        (IpAddr::V6(peer), Some(IpAddr::V6(own))) => {
            ethernet.ipv6(peer.octets(), own.octets(), TTL)
        }
        (address, _) => {
            return Err(format!("this node has no underlay address to hear {address} by"));
        }
    };
    let mut bytes = Vec::with_capacity(inner.len() + 64);
    let written = match by {
        Encapsulation::Direct => return Ok(inner),
        Encapsulation::Ipip => {
            let packet = inner.get(ethernet::HEADER_LEN..).unwrap_or_default();
            let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
            let protocol = if is_v6 { IpNumber::IPV6 } else { IpNumber::IPV4 };
            outer.write(&mut bytes, protocol, packet)
        }
        Encapsulation::Vxlan => {
            // RFC 7348 section 5: the flag I, three bytes reserved, the VNI, one byte reserved.
            let mut payload = vec![0x08, 0, 0, 0];
            payload.extend((config.overlay.vni << 8).to_be_bytes());
            payload.extend(inner);
            outer.udp(SOURCE_PORT, config.overlay.vxlan_port).write(&mut bytes, &payload)
        }
    };
    written.map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use api::{AttachmentId, Reserve, TracePacket};
    use dataplane::Millis;
    use dataplane::session::{Header, SessionTable};
    use dataplane::tables::{Epoch, Fdb, LocalAddresses, Offloads, PortId};
    use dataplane::wire::MacAddr;
    use frame::{Packet, Pool};
    use std::collections::BTreeMap;

    use super::{encapsulate, macs};
    use crate::requests::packet::build;
    use controlplane::compile::{Input, PodPort, UplinkPort, compile};
    use controlplane::config::Config;
    use controlplane::model::Model;
    use controlplane::path_mtu::PathMtus;

    #[test]
    fn what_is_built_is_what_the_walk_lets_in() {
        let over_v4 = ["vxlan", "ipip", "direct"].map(|by| (by, "198.51.100.12"));
        let over_v6 = ["vxlan", "direct"].map(|by| (by, "2001:db8::12"));
        for (by, peer) in over_v4.into_iter().chain(over_v6) {
            for (source, dst) in [("198.18.2.9", "198.18.1.2"), ("fd00:18:2::9", "fd00:18:1::2")] {
                let leaves = arrive(by, peer, source, dst);
                assert_eq!(leaves, [PortId(2)], "{by} {peer} {source} > {dst}");
            }
            let stranger = arrive(by, peer, "198.18.3.9", "198.18.1.2");
            assert_eq!(stranger.is_empty(), by != "direct", "{by} {peer}");
        }
    }

    /// The ports by which it leaves a node with one pod.
    fn arrive(encapsulation: &str, peer: &str, source: &str, dst: &str) -> Vec<PortId> {
        let text = format!(
            "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\", \"fd00:18:1::/64\"]\n\
             cluster_prefixes = [\"198.18.0.0/16\", \"fd00:18::/32\"]\n\
             [uplink]\ninterface = \"eth0\"\n[overlay]\nencapsulation = \"{encapsulation}\"\n\
             [[peers]]\nname = \"b\"\naddress = \"{peer}\"\n\
             prefixes = [\"198.18.2.0/24\", \"fd00:18:2::/64\"]\n"
        );
        let config = Config::parse("f", &text).expect("valid");
        let mut model = Model::new(&config);
        let attachment = AttachmentId { container_id: "p".into(), ifname: "eth0".into() };
        let reserve = Reserve {
            attachment: attachment.clone(),
            network: None,
            pod: None,
            container_name: None,
            netns: String::new(),
            mode: None,
            delegated: None,
            requested: Vec::new(),
            ranges: Vec::new(),
            mac: None,
            port_mappings: Vec::new(),
            bandwidth: api::Bandwidth::default(),
            queues: 1,
        };
        let (edits, _) = model.reserve(&config, &reserve, 1450, false).expect("free");
        model.apply_all(&edits);
        let port = PodPort { id: PortId(2), offloads: Offloads::default() };
        let uplink = UplinkPort {
            id: PortId(1),
            mac: MacAddr([2, 0, 0, 0, 0, 2]),
            addresses: LocalAddresses {
                v4: Some([198, 51, 100, 11].into()),
                v6: Some("2001:db8::11".parse().expect("an address")),
            },
            mtu: 1500,
            offloads: Offloads::default(),
        };
        let tables = compile(&Input {
            config: &config,
            model: &model,
            pods: &BTreeMap::from([(attachment, port)]),
            host: None,
            uplink: Some(&uplink),
            next_hops: &BTreeMap::new(),
            path_mtus: &PathMtus::default(),
            epoch: Epoch(1),
        });

        let packet = TracePacket {
            port: "eth0".into(),
            dst_mac: None,
            src_mac: None,
            src: None,
            dst: dst.parse().expect("an address"),
            protocol: "udp".into(),
            src_port: 1000,
            dst_port: 2000,
            len: 100,
            ttl: 64,
            df: true,
        };
        let peer = &config.peers[0];
        let by = controlplane::compile::encapsulation::tunnel(&config, peer);
        let (from, to) = macs(&config, &uplink, peer, by);
        let inner =
            build(&packet, from, to, source.parse().expect("an address")).expect("a packet");
        let bytes = encapsulate(&config, &uplink, peer, by, inner).expect("a packet");
        let pool = Pool::new(8);
        let mut frame = pool.alloc().expect("a frame is free");
        frame.extend_from_slice(&bytes).expect("room");
        let fdb = Fdb::new(1, 1000);
        let header = Header { boot_id: 1, seed: 2, buckets: 2 };
        let sessions = SessionTable::on_heap(&header).expect("two buckets at least");
        let trace = dataplane::trace(
            &tables,
            &fdb,
            &sessions,
            &pool,
            uplink.id,
            Packet::plain(frame),
            Millis(0),
        );
        trace.leaves.iter().map(|(port, _)| *port).collect()
    }
}
