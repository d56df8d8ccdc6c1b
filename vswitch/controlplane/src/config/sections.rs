//! Each section of the file, with its defaults.
//!
//! Enters: `Reader`. Leaves: a `Config` as written, still to be judged by `semantic`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use api::{Encapsulate, Encapsulation, Mode, PeerSpec, RouteSpec, RouteTarget};
use dataplane::tables::OuterDf;
use toml::de::DeTable;

use super::policies;
use super::read::{Problem, Reader, Section};
use super::values::nothing_to_encapsulate_by;
use super::{
    BridgeSettings, Config, ControlSettings, HandoffSetting, HostSettings, KernelRouteSettings,
    KubernetesSettings, MetricsSettings, NodeSettings, OverlaySettings, PortIoSetting,
    SandboxSettings, SeccompSetting, SendByChoice, UplinkChoice, UplinkSettings, WorkerSettings,
    Xdp,
};

pub(super) const PREFIX: &str = "a prefix such as \"198.18.1.0/24\" or \"fd00:18:1::/64\"";
const ADDRESS4: &str = "an IPv4 address such as \"198.51.100.11\"";
const ADDRESS6: &str = "an IPv6 address such as \"2001:db8::11\"";
const ADDRESS: &str = "an address such as \"198.51.100.11\" or \"2001:db8::11\"";
const METRICS_ADDRESS: &str =
    "\"unix:/run/vswitch/metrics.sock\" or an address with a port such as \"127.0.0.1:9750\"";
const MAC: &str = "a MAC address such as \"02:76:c6:33:64:0b\"";
const ENCAPSULATIONS: [(&str, Encapsulation); 3] = [
    ("vxlan", Encapsulation::Vxlan),
    ("ipip", Encapsulation::Ipip),
    ("direct", Encapsulation::Direct),
];
const HANDOFF: [(&str, HandoffSetting); 3] = [
    ("auto", HandoffSetting::Auto),
    ("always", HandoffSetting::Always),
    ("never", HandoffSetting::Never),
];
const PORT_IO: [(&str, PortIoSetting); 3] = [
    ("auto", PortIoSetting::Auto),
    ("io_uring", PortIoSetting::IoUring),
    ("read_write", PortIoSetting::ReadWrite),
];
const SECCOMP: [(&str, SeccompSetting); 3] =
    [("kill", SeccompSetting::Kill), ("log", SeccompSetting::Log), ("off", SeccompSetting::Off)];
const ENCAPSULATES: [(&str, Encapsulate); 3] = [
    ("always", Encapsulate::Always),
    ("cross-subnet", Encapsulate::CrossSubnet),
    ("never", Encapsulate::Never),
];
/// Protocols of routes in the kernel's table: RTPROT_* of include/uapi/linux/rtnetlink.h, by the
/// names of iproute2.
const ROUTE_PROTOCOLS: [(&str, u8); 21] = [
    ("redirect", 1),
    ("kernel", 2),
    ("boot", 3),
    ("static", 4),
    ("gated", 8),
    ("ra", 9),
    ("mrt", 10),
    ("zebra", 11),
    ("bird", 12),
    ("dnrouted", 13),
    ("xorp", 14),
    ("ntk", 15),
    ("dhcp", 16),
    ("keepalived", 18),
    ("babel", 42),
    ("openr", 99),
    ("bgp", 186),
    ("isis", 187),
    ("ospf", 188),
    ("rip", 189),
    ("eigrp", 192),
];
const ROUTE_PROTOCOL: &str = "a protocol such as \"bird\", \"static\" or 186";
const OUTER_DF: [(&str, OuterDf); 3] =
    [("set", OuterDf::Set), ("clear", OuterDf::Clear), ("inherit", OuterDf::Inherit)];

/// Bounds of settings; outside of them a value is certainly a mistake.
const VNI: std::ops::RangeInclusive<u64> = 1..=0xff_ffff;
pub(super) const PORT: std::ops::RangeInclusive<u64> = 1..=65_535;
/// RFC 791 section 3.2: every module forwards 68 bytes. The upper end is IPv4's length field.
const MTU: std::ops::RangeInclusive<u64> = 68..=65_535;
/// 64 KB each: from 4 MB to 4 GB a worker.
const FRAMES: std::ops::RangeInclusive<u64> = 64..=65_536;
const FDB_MAX: std::ops::RangeInclusive<u64> = 1..=1_048_576;
const DAY_SECONDS: u64 = 86_400;
const SECOND_US: u64 = 1_000_000;
/// A number of 32 bits; 0 is none.
const TABLES: std::ops::RangeInclusive<u64> = 1..=0xffff_ffff;
/// CPU_SETSIZE of glibc.
const CORES: std::ops::RangeInclusive<u64> = 0..=1023;

/// The settings of the file, unless something essential is missing, and what is wrong with it.
pub(super) fn read(file: &str, text: &str) -> (Option<Config>, Vec<Problem>) {
    let mut reader = Reader::new(file, text);
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let line = reader.line_of(error.span().map_or(0, |span| span.start));
            let message = error.message().trim().replace('\n', "; ");
            let file = file.to_owned();
            return (None, vec![Problem { file, line, key: String::new(), message }]);
        }
    };
    let mut root = reader.root(document.get_ref());
    let node = node(&mut reader, &mut root);
    let uplink = uplink(&mut reader, &mut root);
    let overlay = overlay(&mut reader, &mut root);
    let host = host(&mut reader, &mut root);
    let attachment = attachment(&mut reader, &mut root);
    let bridge = bridge(&mut reader, &mut root);
    let workers = workers(&mut reader, &mut root);
    let control = control(&mut reader, &mut root);
    let metrics = metrics(&mut reader, &mut root);
    let sandbox = sandbox(&mut reader, &mut root);
    let kubernetes = kubernetes(&mut reader, &mut root);
    let policies = policies::read(&mut reader, &mut root);
    let peers = peers(&mut reader, &mut root);
    let mut section = routes_section(&mut reader, &mut root);
    let routes = static_routes(&mut reader, &mut section);
    let kernel_routes = kernel_routes(&mut reader, &mut section, node.as_ref(), &overlay);
    reader.finish(section);
    reader.finish(root);
    let config = node.map(|node| Config {
        node,
        uplink,
        overlay,
        host,
        attachment,
        bridge,
        workers,
        control,
        metrics,
        sandbox,
        kubernetes,
        policies,
        peers,
        routes,
        kernel_routes,
        origin: reader.origin,
    });
    (config, reader.problems)
}

fn node<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> Option<NodeSettings> {
    let mut section = reader.section(root, "node");
    if !section.is_present() {
        reader.refuse(
            "node",
            "this section is missing; it needs name, cluster_prefixes and, unless the cluster tells them, pod_prefixes",
        );
        return None;
    }
    let name = required(reader, &mut section, "name", "a string such as \"node-a\"");
    let problems = reader.problems.len();
    let pod_prefixes = reader.list(&mut section, "pod_prefixes", PREFIX);
    let is_empty = pod_prefixes.is_empty() && reader.problems.len() == problems;
    if section.has("pod_prefixes") && is_empty {
        reader.refuse(
            "node.pod_prefixes",
            "at least one prefix is needed, such as \"198.18.1.0/24\"; or no such key, if vswitch-agent takes them from the cluster",
        );
    }
    let cluster_prefixes = reader.list(&mut section, "cluster_prefixes", PREFIX);
    reader.finish(section);
    Some(NodeSettings { name: name.unwrap_or_default(), pod_prefixes, cluster_prefixes })
}

fn uplink<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> Option<UplinkSettings> {
    let mut section = reader.section(root, "uplink");
    if !section.is_present() {
        return None;
    }
    let interface = required(reader, &mut section, "interface", "an interface such as \"eth0\"");
    let address = reader.parsed(&mut section, "address", ADDRESS4);
    let address6 = reader.parsed(&mut section, "address6", ADDRESS6);
    let proxy_neighbors = reader.boolean(&mut section, "proxy_neighbors").unwrap_or(false);
    let kinds = [
        ("af_xdp", UplinkChoice::AfXdp),
        ("offload", UplinkChoice::Offload),
        ("af_packet", UplinkChoice::AfPacket),
        ("auto", UplinkChoice::Auto),
    ];
    let kind = reader.one_of(&mut section, "kind", &kinds).unwrap_or(UplinkChoice::AfXdp);
    let of_af_xdp = ["xdp", "zero_copy", "send_by"].into_iter().filter(|key| section.has(key));
    let of_af_xdp: Vec<_> = of_af_xdp.collect();
    let words = [("auto", Xdp::Auto), ("native", Xdp::Native), ("generic", Xdp::Generic)];
    let xdp = reader.one_of(&mut section, "xdp", &words).unwrap_or(Xdp::Auto);
    let zero_copy = reader.boolean(&mut section, "zero_copy").unwrap_or(false);
    let words = [
        ("auto", SendByChoice::Auto),
        ("af_xdp", SendByChoice::AfXdp),
        ("af_packet", SendByChoice::AfPacket),
    ];
    let send_by = reader.one_of(&mut section, "send_by", &words).unwrap_or(SendByChoice::Auto);
    let other = match kind {
        UplinkChoice::Offload => Some("offload"),
        UplinkChoice::AfPacket => Some("af_packet"),
        UplinkChoice::AfXdp | UplinkChoice::Auto => None,
    };
    for (key, kind) in of_af_xdp.into_iter().zip(other.into_iter().cycle()) {
        reader.refuse(
            &format!("uplink.{key}"),
            format!(
                "the kind \"{kind}\" has no XDP program and no AF_XDP socket; remove this line"
            ),
        );
    }
    reader.finish(section);
    let interface = interface.unwrap_or_default();
    Some(UplinkSettings {
        interface,
        address,
        address6,
        proxy_neighbors,
        kind,
        xdp,
        zero_copy,
        send_by,
    })
}

fn overlay<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> OverlaySettings {
    let mut section = reader.section(root, "overlay");
    let encapsulation = reader
        .one_of(&mut section, "encapsulation", &ENCAPSULATIONS)
        .unwrap_or(Encapsulation::Vxlan);
    let encapsulate = reader.one_of(&mut section, "encapsulate", &ENCAPSULATES);
    if let Some(wanted) = encapsulate.filter(|wanted| *wanted != Encapsulate::Never)
        && encapsulation == Encapsulation::Direct
    {
        reader.refuse("overlay.encapsulate", nothing_to_encapsulate_by(wanted));
    }
    let accepts_all = !section.has("accept");
    let accept = reader.some_of(&mut section, "accept", &ENCAPSULATIONS);
    let all = || ENCAPSULATIONS.map(|(_, encapsulation)| encapsulation).to_vec();
    let mut numbers = |section: &mut Section<'t>, name, range| {
        reader.integers(section, name, range).unwrap_or_default()
    };
    let ports = numbers(&mut section, "accept_vxlan_ports", PORT);
    let vnis = numbers(&mut section, "accept_vnis", VNI);
    let overlay = OverlaySettings {
        encapsulation,
        encapsulate: encapsulate.unwrap_or(Encapsulate::Always),
        accept: if accepts_all { all() } else { accept },
        accept_vxlan_ports: ports.into_iter().map(|port| port as u16).collect(),
        accept_vnis: vnis.into_iter().map(|vni| vni as u32).collect(),
        vni: reader.integer(&mut section, "vni", VNI).unwrap_or(10) as u32,
        vxlan_port: reader.integer(&mut section, "vxlan_port", PORT).unwrap_or(4789) as u16,
        udp6_zero_checksum_rx: reader
            .boolean(&mut section, "udp6_zero_checksum_rx")
            .unwrap_or(true),
        vtep_mac: reader.parsed(&mut section, "vtep_mac", MAC),
        pod_mtu: reader.integer(&mut section, "pod_mtu", MTU).map(|mtu| mtu as u32),
        clamp_mss: reader.boolean(&mut section, "clamp_mss").unwrap_or(false),
        outer_df: reader.one_of(&mut section, "outer_df", &OUTER_DF).unwrap_or(OuterDf::Set),
    };
    reader.finish(section);
    overlay
}

/// A node has a host port unless the file turns it off, with or without an uplink. One that has neither is
/// for its own pods alone, and needs no privileges.
fn host<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> Option<HostSettings> {
    let mut section = reader.section(root, "host");
    let enabled = reader.boolean(&mut section, "enabled").unwrap_or(true);
    let interface = reader.string(&mut section, "interface", "an interface name such as \"vsw0\"");
    let masquerade = reader.boolean(&mut section, "masquerade").unwrap_or(true);
    let non_masquerade_prefixes = reader.list(&mut section, "non_masquerade_prefixes", PREFIX);
    reader.finish(section);
    let interface = interface.unwrap_or_else(|| "vsw0".into());
    enabled.then_some(HostSettings { interface, masquerade, non_masquerade_prefixes })
}

fn attachment<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> Mode {
    let mut section = reader.section(root, "attachment");
    let bridged = reader
        .one_of(&mut section, "mode", &[("routed", false), ("bridged", true)])
        .unwrap_or(false);
    reader.finish(section);
    if bridged { Mode::Bridged { bridge: None } } else { Mode::Routed }
}

fn bridge<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> BridgeSettings {
    let mut section = reader.section(root, "bridge");
    let bridge = BridgeSettings {
        name: reader
            .string(&mut section, "name", "a string such as \"default\"")
            .unwrap_or_else(|| "default".into()),
        fdb_max: reader.integer(&mut section, "fdb_max", FDB_MAX).unwrap_or(8192) as u32,
        ageing_seconds: reader
            .integer(&mut section, "ageing_seconds", 1..=DAY_SECONDS)
            .unwrap_or(300),
        vni: reader.integer(&mut section, "vni", VNI).map(|vni| vni as u32),
        vteps: reader.list::<IpAddr>(&mut section, "vteps", ADDRESS),
    };
    reader.finish(section);
    bridge
}

fn workers<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> WorkerSettings {
    let mut section = reader.section(root, "workers");
    let cores = reader
        .integers(&mut section, "cores", CORES)
        .map(|cores| cores.into_iter().map(|core| core as usize).collect());
    let idle_after_us =
        match reader.integer_or(&mut section, "idle_after_us", 0..=SECOND_US, "never") {
            None => Some(50),
            Some(number) => number.ok(),
        };
    let frames = reader.integer(&mut section, "frames", FRAMES).unwrap_or(512) as u32;
    let rebalance = reader.boolean(&mut section, "rebalance").unwrap_or(true);
    let handoff = reader.one_of(&mut section, "handoff", &HANDOFF).unwrap_or(HandoffSetting::Auto);
    let port_io = reader.one_of(&mut section, "port_io", &PORT_IO).unwrap_or(PortIoSetting::Auto);
    reader.finish(section);
    WorkerSettings { cores, idle_after_us, frames, rebalance, handoff, port_io }
}

fn control<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> ControlSettings {
    let mut section = reader.section(root, "control");
    let path = "a path such as \"/run/vswitch/vswitch.sock\"";
    let socket = reader.string(&mut section, "socket", path);
    let state_dir =
        reader.string(&mut section, "state_dir", "a directory such as \"/var/lib/vswitch\"");
    reader.finish(section);
    ControlSettings {
        socket: PathBuf::from(socket.unwrap_or_else(|| api::DEFAULT_SOCKET.into())),
        state_dir: PathBuf::from(state_dir.unwrap_or_else(|| api::DEFAULT_STATE_DIR.into())),
    }
}

fn sandbox<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> SandboxSettings {
    let mut section = reader.section(root, "sandbox");
    let seccomp = reader.one_of(&mut section, "seccomp", &SECCOMP).unwrap_or(SeccompSetting::Kill);
    reader.finish(section);
    SandboxSettings { seccomp }
}

fn metrics<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> MetricsSettings {
    let mut section = reader.section(root, "metrics");
    let listen = reader.parsed(&mut section, "listen", METRICS_ADDRESS);
    let services = reader.boolean(&mut section, "services").unwrap_or(false);
    reader.finish(section);
    MetricsSettings { listen, services }
}

fn kubernetes<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> KubernetesSettings {
    let mut section = reader.section(root, "kubernetes");
    let policies = reader.boolean(&mut section, "policies").unwrap_or(false);
    reader.finish(section);
    KubernetesSettings { policies }
}

fn peers<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> Vec<PeerSpec> {
    let mut peers = Vec::new();
    for mut section in reader.sections(root, "peers") {
        let name = required(reader, &mut section, "name", "a string such as \"node-b\"");
        let is_missing = !section.has("address");
        let address = reader.parsed::<IpAddr>(&mut section, "address", ADDRESS);
        if is_missing {
            reader.refuse(section.path(), format!("a peer needs address, {ADDRESS}"));
        }
        let prefixes = reader.list(&mut section, "prefixes", PREFIX);
        let encapsulation = reader.one_of(&mut section, "encapsulation", &ENCAPSULATIONS);
        let encapsulate = reader.one_of(&mut section, "encapsulate", &ENCAPSULATES);
        let vtep_mac = reader.parsed(&mut section, "vtep_mac", MAC);
        reader.finish(section);
        peers.push(PeerSpec {
            name: name.unwrap_or_default(),
            // Refused already; keeps the numbers of the others.
            address: address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            prefixes,
            encapsulation,
            encapsulate,
            vtep_mac,
        });
    }
    peers
}

/// `[routes]` has one section a source; a list in its place is taken for routes that are static.
fn routes_section<'t>(reader: &mut Reader<'t>, root: &mut Section<'t>) -> Section<'t> {
    if !root.has_list("routes") {
        return reader.section(root, "routes");
    }
    for section in reader.sections(root, "routes") {
        reader.refuse(section.path(), "write [[routes.static]] instead of [[routes]]");
    }
    Section::absent("routes")
}

fn kernel_routes<'t>(
    reader: &mut Reader<'t>,
    routes: &mut Section<'t>,
    node: Option<&NodeSettings>,
    overlay: &OverlaySettings,
) -> Option<KernelRouteSettings> {
    let mut section = reader.section(routes, "kernel");
    let is_present = section.is_present();
    let enabled = reader.boolean(&mut section, "enabled").unwrap_or(is_present);
    let has_prefixes = section.has("prefixes");
    let listed = reader.list(&mut section, "prefixes", PREFIX);
    let cluster = || node.map(|node| node.cluster_prefixes.clone()).unwrap_or_default();
    let prefixes = if has_prefixes { listed } else { cluster() };
    let table = reader.integer(&mut section, "table", TABLES).unwrap_or(254) as u32;
    let problems = reader.problems.len();
    let protocols =
        reader.names_or_numbers(&mut section, "protocols", &ROUTE_PROTOCOLS, ROUTE_PROTOCOL);
    if section.has("protocols") && protocols.is_empty() && reader.problems.len() == problems {
        reader.refuse(
            "routes.kernel.protocols",
            "at least one is needed; without this key routes of every protocol are taken",
        );
    }
    // A node of an overlay has a default route too, which does not concern pods.
    let covering = reader
        .boolean(&mut section, "covering")
        .unwrap_or(overlay.usual() == Encapsulation::Direct);
    reader.finish(section);
    enabled.then_some(KernelRouteSettings { prefixes, table, protocols, covering })
}

fn static_routes<'t>(reader: &mut Reader<'t>, routes: &mut Section<'t>) -> Vec<RouteSpec> {
    const TARGETS: [(&str, u8); 4] =
        [("peer", 0), ("host", 1), ("blackhole", 2), ("unreachable", 3)];
    let mut list = Vec::new();
    for mut section in reader.sections(routes, "static") {
        if !section.has("prefix") {
            reader.refuse(section.path(), format!("a route needs prefix, {PREFIX}"));
        }
        let prefix = reader.parsed(&mut section, "prefix", PREFIX);
        if !section.has("to") {
            reader.refuse(
                section.path(),
                "a route needs to: \"peer\" with name, \"host\", \"blackhole\" or \"unreachable\"",
            );
        }
        let to = reader.one_of(&mut section, "to", &TARGETS);
        let name = reader.string(&mut section, "name", "the name of a peer");
        let target = match (to, name) {
            (Some(0), Some(name)) => Some(RouteTarget::Peer { name }),
            (Some(0), None) => {
                reader.refuse(section.path(), "a route to \"peer\" needs name, that of the peer");
                None
            }
            (Some(_), Some(_)) => {
                let key = section.key("name");
                reader.refuse(&key, "only a route to \"peer\" has a name");
                None
            }
            (Some(1), None) => Some(RouteTarget::Host),
            (Some(2), None) => Some(RouteTarget::Blackhole),
            (Some(_), None) => Some(RouteTarget::Unreachable),
            (None, _) => None,
        };
        reader.finish(section);
        if let (Some(prefix), Some(target)) = (prefix, target) {
            list.push(RouteSpec { prefix, target });
        }
    }
    list
}

pub(super) fn required<'t>(
    reader: &mut Reader<'t>,
    section: &mut Section<'t>,
    name: &'static str,
    what: &str,
) -> Option<String> {
    if !section.has(name) {
        let message = format!("{name} is missing; expected {what}");
        reader.refuse(section.path(), message);
    }
    reader.string(section, name, what)
}
