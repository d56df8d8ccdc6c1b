//! Ports, peers and routes of one node, made into `Tables` by hand.
//!
//! One line each; what it refers to stands above it.
//!
//! ```text
//! underlay 198.51.100.11 2001:db8::11 [mtu 1500] [offload]   the NIC, port `uplink`; next hop
//!                                               `router`; `vtep` and `vtep6` are its VTEP's MACs
//! vxlan 10 [port 4789] [summed]                 VNI of the routed overlay; `summed`: over IPv6 no
//!                                               packet without a UDP checksum is taken
//! ipip | direct [proxy]                         what else is taken from the NIC; `proxy`: we answer
//!                                               the underlay's link for our pods
//! clamp-mss                                     of connections with other nodes
//! outer-df clear|inherit                        of the tunnels below
//! gateway 198.18.1.1 fd00:18:1::1               addresses of the gateway; the last of each family
//!                                               speaks in ICMP errors
//! host [plain]                                  port `host` and the default routes to it
//! bridge red [vni 100]                          an L2 segment
//! pod a 198.18.1.2 ... [in red] [mtu 1450] [plain] [rate 1000000 [burst 0]]
//!                                               port `pod-a`; `rate` and `burst` limit what is sent
//!                                               to it, in bits
//! neighbor 198.18.1.99 at pod-a in red          a further address on a segment, by its MAC
//! peer b 203.0.113.12 vxlan|ipip|direct [unresolved] 198.18.2.0/24 ...
//! multipath 198.18.9.0/24 b c 3                 flows shared by peers, the second's weight being 3
//! stretch red to b [unresolved] [mtu 1400]      a VTEP of the segment
//! route 198.18.0.0/15 blackhole|unreachable|gone|pod-a
//! service, no-service                           virtual addresses and their backends: see `services`
//! group, policy, no-policy, policies             of the pods: see `policies`
//! masquerade 198.18.1.250                       what the kernel masquerades others as
//! fdb 4 [ageing 300]                            learned entries at most, seconds
//! sessions 64 [lost]                            buckets of the session table; `lost`: a former one was
//! frames 64 | capacity of the packet pool
//! ```
//! `plain` is a port without offloads.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::Millis;
use dataplane::rate::Limit;
use dataplane::session::{Header, SessionMemory, SessionTable};
use dataplane::tables::adjacency::{Ends, Outer};
use dataplane::tables::{
    Adjacency, AdjacencyId, Attachment, Bridge, BridgeId, Domain, FdbTarget, Gateway, Member,
    Multipath, Offloads, OuterDf, Peer, PeerId, Port, PortId, PortRole, RemoteVtep, Tables,
    Template, Tunnels, VirtualPort,
};
use dataplane::wire::{MacAddr, Vni};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Words;
use super::policies::Declared;

pub(crate) const UPLINK_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xaa]);
const HOST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xbb]);
pub(crate) const ROUTER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xcc]);
const ALL: Offloads = Offloads { checksum: true, tso: true, uso: true, vxlan: false };

/// When time begins for a case.
pub(crate) const START: Millis = Millis(1_000_000);

pub(crate) struct Node {
    pub(crate) tables: Tables,
    /// Names by port number.
    pub(crate) ports: Vec<String>,
    pub(crate) fdb_entries: u32,
    pub(crate) ageing_ms: u64,
    pub(crate) frames: u32,
    pub(crate) session_buckets: u32,
    /// When the session table was made anew.
    pub(crate) sessions_lost: bool,
    policies: Declared,
    macs: HashMap<String, MacAddr>,
    bridges: Vec<String>,
    peers: HashMap<String, IpAddr>,
    /// The first prefix of each peer, by its address.
    firsts: HashMap<IpAddr, IpNet>,
    routes: Vec<(IpNet, AdjacencyId)>,
    underlay_mtu: u16,
    vni: Option<Vni>,
    pub(super) virtual_ports: Vec<VirtualPort>,
    /// Of the services.
    pub(super) generation: u32,
    outer_df: OuterDf,
}

impl Node {
    pub(crate) fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut node = Self {
            tables: Tables::default(),
            ports: Vec::new(),
            fdb_entries: 64,
            ageing_ms: 300_000,
            frames: 64,
            session_buckets: 64,
            sessions_lost: false,
            policies: Declared::default(),
            macs: HashMap::new(),
            bridges: Vec::new(),
            peers: HashMap::new(),
            firsts: HashMap::new(),
            routes: Vec::new(),
            underlay_mtu: 1500,
            vni: None,
            virtual_ports: Vec::new(),
            generation: 0,
            outer_df: OuterDf::Set,
        };
        node.tables.gateway.mac = Gateway::MAC;
        node.macs.insert("gateway".into(), Gateway::MAC);
        node.macs.insert("router".into(), ROUTER_MAC);
        node.macs.insert("broadcast".into(), MacAddr([0xff; 6]));
        for line in lines.into_iter().map(str::trim).filter(|line| !line.is_empty()) {
            node.line(line)?;
        }
        Ok(node)
    }

    pub(crate) fn port(&self, name: &str) -> Result<PortId, String> {
        let at = self.ports.iter().position(|port| port == name);
        at.map(|at| PortId(at as u16)).ok_or(format!("no port `{name}`"))
    }

    /// By name, or spelled out.
    pub(crate) fn mac(&self, name: &str) -> Result<MacAddr, String> {
        let spelled = || name.parse().map_err(|error| format!("`{name}` is no MAC: {error}"));
        self.macs.get(name).copied().map_or_else(spelled, Ok)
    }

    /// A table of sessions for one worker.
    pub(crate) fn sessions(&self) -> Arc<SessionTable> {
        let header = Header { boot_id: 1, seed: 2, buckets: self.session_buckets };
        let memory = SessionMemory::on_heap(header.buckets);
        if self.sessions_lost {
            // Something else than a table.
            let first = memory.v4.iter().next().expect("a header");
            first.store(1, core::sync::atomic::Ordering::Relaxed);
        }
        let table = SessionTable::adopt(memory, &header, START.tick());
        Arc::new(table.expect("two buckets at least").0)
    }

    pub(crate) fn line(&mut self, line: &str) -> Result<(), String> {
        let mut words = Words::new(line);
        match words.next("declaration")? {
            "underlay" => self.underlay(&mut words)?,
            "vxlan" => {
                let vni = vni(words.parse("VNI")?)?;
                self.vni = Some(vni);
                self.tunnels().vxlan_port = Some(words.value("port")?.unwrap_or(4789));
                self.tunnels().vnis.insert(vni, Domain::Routed);
                self.tunnels().zero_checksum6 = !words.flag("summed");
            }
            "vxlan-also" => {
                self.tunnels().more_vxlan_ports.push(words.parse("port")?);
                self.tunnels().vnis.insert(vni(words.parse("VNI")?)?, Domain::Routed);
            }
            "ipip" => self.tunnels().ipip = true,
            "outer-df" => {
                self.outer_df = match words.next("policy")? {
                    "clear" => OuterDf::Clear,
                    "inherit" => OuterDf::Inherit,
                    other => return Err(format!("unknown policy `{other}`")),
                };
            }
            "clamp-mss" => self.tunnels().clamp_mss = true,
            "direct-from-tunnelled" => self.tunnels().direct_from_tunnelled = true,
            "direct" => {
                self.tunnels().direct = true;
                self.tunnels().proxy_neighbors = words.flag("proxy");
            }
            "gateway" => self.gateway(&mut words)?,
            "host" => self.host(&mut words),
            "bridge" => {
                self.bridges.push(words.next("name")?.to_owned());
                let vni = words.value("vni")?.map(vni).transpose()?;
                let id = BridgeId(self.tables.bridges.len() as u16);
                self.tables.bridges.push(Bridge { vni, ..Bridge::default() });
                if let Some(vni) = vni {
                    self.tunnels().vxlan_port.get_or_insert(4789);
                    self.tunnels().vnis.insert(vni, Domain::Bridged(id));
                }
            }
            "pod" => self.pod(&mut words)?,
            "neighbor" => {
                let address: IpAddr = words.parse("address")?;
                words.expect("at")?;
                let mac = self.mac(words.next("MAC")?)?;
                words.expect("in")?;
                let bridge = self.bridge(words.next("bridge")?)?;
                let template = Template::ethernet(mac, Gateway::MAC);
                self.to(address.into(), Adjacency::Bridged { bridge, template, mtu: 1450 });
            }
            "peer" => self.peer(&mut words)?,
            "multipath" => self.multipath(&mut words)?,
            "stretch" => self.stretch(&mut words)?,
            "route" => self.route(&mut words)?,
            "fdb" => {
                self.fdb_entries = words.parse("entries")?;
                self.ageing_ms = words.value("ageing")?.unwrap_or(300) * 1000;
            }
            "frames" => self.frames = words.parse("frames")?,
            "service" => self.service(&mut words)?,
            "no-service" => self.no_service(&mut words)?,
            "sessions" => {
                self.session_buckets = words.parse("buckets")?;
                self.sessions_lost = words.flag("lost");
            }
            "masquerade" => match words.parse("address")? {
                IpAddr::V4(v4) => self.tables.gateway.masquerade_v4 = Some(v4),
                IpAddr::V6(v6) => self.tables.gateway.masquerade_v6 = Some(v6),
            },
            "group" | "policy" | "no-policy" | "policies" => self.policy(line, &mut words)?,
            other => return Err(format!("`{line}`: unknown declaration `{other}`")),
        }
        words.finish()
    }

    fn underlay(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        self.underlay_mtu = words.value("mtu")?.unwrap_or(1500);
        let offloads = if words.flag("offload") {
            Offloads { vxlan: true, ..ALL }
        } else {
            Offloads::default()
        };
        let mtu = self.underlay_mtu;
        let port = self.attach("uplink", PortRole::Uplink, UPLINK_MAC, mtu, offloads);
        let tunnels = Arc::make_mut(&mut self.tables.tunnels);
        tunnels.uplink = Some(port);
        for address in words.all::<IpAddr>()? {
            let mac = Tunnels::derived_vtep_mac(address);
            match address {
                IpAddr::V4(v4) => (tunnels.local.v4, tunnels.vtep_mac) = (Some(v4), mac),
                IpAddr::V6(v6) => (tunnels.local.v6, tunnels.vtep_mac6) = (Some(v6), mac),
            }
            let name = if address.is_ipv4() { "vtep" } else { "vtep6" };
            self.macs.insert(name.into(), mac);
        }
        Ok(())
    }

    fn gateway(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let host = self.port("host").ok();
        let template = Template::ethernet(HOST_MAC, Gateway::MAC);
        for address in words.all::<IpAddr>()? {
            match address {
                IpAddr::V4(v4) => self.tables.gateway.v4 = Some(v4),
                IpAddr::V6(v6) => self.tables.gateway.v6 = Some(v6),
            }
            let adjacency = Adjacency::Gateway { host, template, mtu: 1500 };
            self.to(address.into(), adjacency);
        }
        Ok(())
    }

    fn host(&mut self, words: &mut Words<'_>) {
        let offloads = if words.flag("plain") { Offloads::default() } else { ALL };
        let port = self.attach("host", PortRole::Host, HOST_MAC, 1500, offloads);
        let template = Template::ethernet(HOST_MAC, Gateway::MAC);
        let adjacency = Adjacency::Port { port, template, mtu: 1500 };
        for default in [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())] {
            self.to(default, adjacency.clone());
        }
    }

    fn pod(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let name = format!("pod-{}", words.next("name")?);
        let mtu = words.value("mtu")?.unwrap_or(1450);
        let offloads = if words.flag("plain") { Offloads::default() } else { ALL };
        let bridge = match words.value::<String>("in")? {
            Some(bridge) => Some(self.bridge(&bridge)?),
            None => None,
        };
        let (rate, burst) = (words.value("rate")?, words.value("burst")?);
        let addresses = words.all::<IpAddr>()?;

        let mac = MacAddr([0x0a, 0, 0, 0, 0, self.ports.len() as u8]);
        let id = self.attach(&name, PortRole::Pod, mac, mtu, offloads);
        let template = Template::ethernet(mac, Gateway::MAC);
        for address in &addresses {
            self.to((*address).into(), Adjacency::Port { port: id, template, mtu });
        }
        let port = self.tables.ports[usize::from(id.0)].as_mut().expect("attached above");
        port.addresses = addresses;
        port.tx_limit = rate.map(|rate| Limit::new(rate, burst));
        if let Some(bridge) = bridge {
            port.attachment = Attachment::Bridged(bridge);
            let bridge = &mut self.tables.bridges[usize::from(bridge.0)];
            bridge.members.push(id);
            bridge.fdb.insert(mac, FdbTarget::Port(id));
        }
        Ok(())
    }

    fn peer(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let name = words.next("name")?;
        let address: IpAddr = words.parse("underlay address")?;
        let vtep = Tunnels::derived_vtep_mac(address);
        self.macs.insert(format!("vtep-{name}"), vtep);
        self.peers.insert(name.to_owned(), address);
        let outer = self.outer(address)?;
        let own_vtep = self.tunnels().vtep_mac_for(address);
        let (template, overhead) = match words.next("encapsulation")? {
            "vxlan" => {
                let vni = self.vni.ok_or("`vxlan` stands above a peer that speaks it")?;
                let port = self.tunnels().vxlan_port.unwrap_or(4789);
                let template = Template::vxlan_routed(outer, vni, port, vtep, own_vtep);
                (template, vxlan_overhead(address))
            }
            "ipip" => {
                (Template::ipip(outer).ok_or("IPIP runs over IPv4")?, Template::IPIP_OVERHEAD)
            }
            "direct" => (Template::ethernet(ROUTER_MAC, UPLINK_MAC), 0),
            other => return Err(format!("unknown encapsulation `{other}`")),
        };
        let template = template.with_outer_df(self.outer_df);
        let template = (!words.flag("unresolved")).then_some(template);
        let prefixes = words.all::<IpNet>()?;
        let mtu = self.underlay_mtu - overhead;
        for prefix in &prefixes {
            self.to(*prefix, Adjacency::Remote { port: self.port("uplink")?, template, mtu });
        }
        let tunnels = Arc::make_mut(&mut self.tables.tunnels);
        tunnels.by_address.insert(address, PeerId(tunnels.peers.len() as u32));
        self.firsts.extend(prefixes.first().map(|prefix| (address, *prefix)));
        tunnels.peers.push(Peer::new(address, prefixes));
        Ok(())
    }

    fn multipath(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let prefix = words.parse("prefix")?;
        let mut members: Vec<Member> = Vec::new();
        for word in words.all::<String>()? {
            match (word.parse(), members.last_mut()) {
                (Ok(weight), Some(last)) => last.weight = weight,
                _ => members.push(self.member(&word)?),
            }
        }
        let group = Multipath::of(&members, &self.tables.adjacencies).ok_or("no member")?;
        self.to(prefix, Adjacency::Multipath(group));
        Ok(())
    }

    fn tunnels(&mut self) -> &mut Tunnels {
        Arc::make_mut(&mut self.tables.tunnels)
    }

    /// By the route to the peer's first prefix.
    fn member(&self, peer: &str) -> Result<Member, String> {
        let address = *self.peers.get(peer).ok_or(format!("no peer `{peer}`"))?;
        let prefix = self.firsts.get(&address).ok_or(format!("`{peer}` has no prefix"))?;
        let adjacency = self.tables.route(prefix.addr()).ok_or("a peer's prefix is routed")?;
        Ok(Member { identity: address, adjacency, weight: 1 })
    }

    fn stretch(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let bridge = self.bridge(words.next("bridge")?)?;
        words.expect("to")?;
        let peer = words.next("peer")?;
        let address = *self.peers.get(peer).ok_or(format!("no peer `{peer}`"))?;
        let (outer, port) = (self.outer(address)?, self.port("uplink")?);
        let mtu = self.underlay_mtu - vxlan_overhead(address);
        let mtu = words.value("mtu")?.unwrap_or(mtu);
        let udp_port = self.tunnels().vxlan_port.unwrap_or(4789);
        let bridge = &mut self.tables.bridges[usize::from(bridge.0)];
        let vni = bridge.vni.ok_or("a stretched bridge has a VNI")?;
        let template = Template::vxlan_bridged(outer, vni, udp_port).with_outer_df(self.outer_df);
        let template = (!words.flag("unresolved")).then_some(template);
        bridge.vteps.push(RemoteVtep { address, port, template, mtu });
        Ok(())
    }

    fn route(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let prefix = words.parse("prefix")?;
        let adjacency = match words.next("target")? {
            "blackhole" => Adjacency::Blackhole,
            "unreachable" => Adjacency::Unreachable,
            // A port that went away while the route still stands.
            "gone" => {
                let template = Template::ethernet(HOST_MAC, Gateway::MAC);
                Adjacency::Port { port: PortId(999), template, mtu: 1500 }
            }
            port => {
                let port = self.port(port)?;
                let mac = self.tables.port(port).expect("named ports are attached").mac;
                let template = Template::ethernet(mac, Gateway::MAC);
                Adjacency::Port { port, template, mtu: 1500 }
            }
        };
        self.to(prefix, adjacency);
        Ok(())
    }

    fn policy(&mut self, line: &str, words: &mut Words<'_>) -> Result<(), String> {
        let ports = &self.ports;
        let port = |name: &str| {
            let at = ports.iter().position(|port| port == name);
            at.map(|at| PortId(at as u16)).ok_or(format!("no port `{name}`"))
        };
        let declared = &mut self.policies;
        let outcome = match line.split(' ').next() {
            Some("group") => declared.group(words),
            Some("policy") => declared.policy(words, port),
            Some("no-policy") => declared.no_policy(words),
            _ => declared.unknown(words, port),
        };
        outcome.map_err(|error| format!("`{line}`: {error}"))?;
        self.tables.policies = declared.policies();
        Ok(())
    }

    fn attach(
        &mut self,
        name: &str,
        kind: PortRole,
        mac: MacAddr,
        mtu: u16,
        offloads: Offloads,
    ) -> PortId {
        let id = PortId(self.ports.len() as u16);
        let attachment = Attachment::Routed;
        let port = Port {
            kind,
            attachment,
            mac,
            mtu,
            offloads,
            addresses: Vec::new(),
            rx_limit: None,
            tx_limit: None,
        };
        self.tables.ports.push(Some(port));
        self.ports.push(name.to_owned());
        self.macs.insert(name.to_owned(), mac);
        id
    }

    fn add(&mut self, adjacency: Adjacency) -> AdjacencyId {
        self.tables.adjacencies.push(adjacency);
        AdjacencyId(self.tables.adjacencies.len() as u32 - 1)
    }

    pub(super) fn to(&mut self, prefix: IpNet, adjacency: Adjacency) {
        let id = self.add(adjacency);
        match prefix {
            IpNet::V4(net) => self.tables.fib4.insert(net.addr(), net.prefix_len(), id),
            IpNet::V6(net) => self.tables.fib6.insert(net.addr(), net.prefix_len(), id),
        }
        self.routes.retain(|(known, _)| *known != prefix);
        self.routes.push((prefix, id));
    }

    pub(super) fn no_route(&mut self, prefix: IpNet) {
        self.routes.retain(|(known, _)| *known != prefix);
        let covers = self.routes.iter().filter(|(known, _)| known.contains(&prefix));
        let cover = covers.max_by_key(|(known, _)| known.prefix_len());
        let cover = cover.map(|(known, id)| (known.prefix_len(), *id));
        match prefix {
            IpNet::V4(net) => self.tables.fib4.remove(net.addr(), net.prefix_len(), cover),
            IpNet::V6(net) => self.tables.fib6.remove(net.addr(), net.prefix_len(), cover),
        }
    }

    fn bridge(&self, name: &str) -> Result<BridgeId, String> {
        let at = self.bridges.iter().position(|bridge| bridge == name);
        at.map(|at| BridgeId(at as u16)).ok_or(format!("no bridge `{name}`"))
    }

    fn outer(&self, destination: IpAddr) -> Result<Outer, String> {
        let source = self.tables.tunnels.local.towards(destination);
        let ends = source.and_then(|source| Ends::between(source, destination));
        let ends = ends.ok_or(format!("no underlay address to reach {destination} by"))?;
        Ok(Outer { source_mac: UPLINK_MAC, next_hop_mac: ROUTER_MAC, ends })
    }
}

fn vxlan_overhead(peer: IpAddr) -> u16 {
    if peer.is_ipv4() { Template::VXLAN_OVERHEAD } else { Template::VXLAN_V6_OVERHEAD }
}

fn vni(number: u32) -> Result<Vni, String> {
    Vni::new(number).ok_or(format!("VNI {number} is beyond 24 bits"))
}
