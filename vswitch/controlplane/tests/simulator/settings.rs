//! The configurations that an operator may write: several kinds of node, and variants of each.
//!
//! Enters: nothing. Leaves: configurations, read once. A variant of the same kind is taken over while
//! the daemon runs; another kind needs a restart, and is refused or ignored until then.

use std::sync::LazyLock;

use controlplane::config::Config;

/// A configuration by its place in [`all`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) kind: usize,
    pub(crate) variant: usize,
}

const CLUSTER: &str = "cluster_prefixes = [\"198.18.0.0/16\", \"fd00:18::/32\"]\n";
const CONFIGURED: &str = "pod_prefixes = [\"198.18.1.0/29\", \"fd00:18:1::/125\"]\n";

/// What each kind begins with; sections that a variant goes on with are missing.
const KINDS: [Kind; 7] = [
    Kind { pods: CONFIGURED, uplink: "[uplink]\ninterface = \"eth0\"\n", ..Kind::PLAIN },
    Kind { uplink: "[uplink]\ninterface = \"eth0\"\n", ..Kind::PLAIN },
    Kind {
        pods: CONFIGURED,
        uplink: "[uplink]\ninterface = \"eth0\"\nproxy_neighbors = true\n",
        more: "[routes.kernel]\n[kubernetes]\npolicies = true\n",
        ..Kind::PLAIN
    },
    Kind {
        pods: CONFIGURED,
        uplink: "[uplink]\ninterface = \"eth0\"\naddress = \"198.51.100.11\"\n",
        bridge: "[bridge]\nvni = 30\n",
        more: "[attachment]\nmode = \"bridged\"\n",
        ..Kind::PLAIN
    },
    // From here on a node lacks something.
    Kind { pods: CONFIGURED, ..Kind::PLAIN },
    Kind { uplink: "[uplink]\ninterface = \"eth0\"\n", is_host: false, ..Kind::PLAIN },
    Kind { pods: CONFIGURED, is_host: false, ..Kind::PLAIN },
];

/// Kinds with NIC and host port: an operator may make one of another.
pub(crate) const WHOLE_KINDS: usize = 4;

struct Kind {
    pods: &'static str,
    uplink: &'static str,
    bridge: &'static str,
    more: &'static str,
    is_host: bool,
}

impl Kind {
    const PLAIN: Self = Self { pods: "", uplink: "", bridge: "", more: "", is_host: true };
}

const OVERLAYS: [&str; 10] = [
    "",
    "vxlan_port = 8472\n",
    "vni = 20\naccept = [\"vxlan\"]\n",
    "encapsulation = \"ipip\"\n",
    "encapsulation = \"ipip\"\naccept = []\npod_mtu = 1300\n",
    "encapsulation = \"direct\"\n",
    "encapsulation = \"direct\"\naccept = []\n",
    "encapsulate = \"cross-subnet\"\naccept = []\n",
    "encapsulation = \"ipip\"\nencapsulate = \"never\"\naccept = [\"ipip\"]\n",
    "accept = []\nclamp_mss = true\nouter_df = \"clear\"\n",
];

const HOSTS: [&str; 3] =
    ["", "masquerade = false\n", "non_masquerade_prefixes = [\"203.0.113.0/24\"]\n"];

/// Peers, static routes and policies.
const PEERS: [&str; 4] = [
    "",
    "[[peers]]\nname = \"n2\"\naddress = \"198.51.100.12\"\nprefixes = [\"198.18.2.0/24\"]\n[[policies]]\nname = \"some\"\npods = [\"lab/c1\", \"c*\"]\negress = []\n[[policies.ingress]]\nfrom = [{ pods = [\"lab/c2\", \"c3\"] }, { cidr = \"198.18.2.0/24\" }]\nports = [{ port = 80 }]\n",
    "[[peers]]\nname = \"n3\"\naddress = \"198.51.100.13\"\nprefixes = [\"198.18.3.0/24\", \"fd00:18:3::/64\"]\nencapsulation = \"ipip\"\n[[routes.static]]\nprefix = \"198.18.77.0/24\"\nto = \"peer\"\nname = \"n3\"\n",
    "[[routes.static]]\nprefix = \"198.18.78.0/24\"\nto = \"host\"\n[[policies]]\nname = \"some\"\npods = [\"lab/*\"]\n[[policies.ingress]]\nfrom = [{ pods = [\"*\"] }]\n[[policies]]\nname = \"one\"\npods = [\"lab/c0\"]\n[[policies.egress]]\nto = [{ cidr = \"198.18.0.0/16\", except = [\"198.18.2.0/24\"] }]\n",
];

const BRIDGES: [&str; 3] =
    ["", "vteps = [\"203.0.113.41\"]\n", "vteps = [\"203.0.113.42\", \"203.0.113.41\"]\n"];

static ALL: LazyLock<Vec<Vec<Config>>> =
    LazyLock::new(|| KINDS.iter().map(|kind| kind.variants()).collect());

/// Every configuration that is valid, by kind.
pub(crate) fn all() -> &'static [Vec<Config>] {
    &ALL
}

/// What an operator wrote.
pub(crate) fn config(setting: Setting) -> &'static Config {
    &all()[setting.kind][setting.variant]
}

impl Kind {
    fn variants(&self) -> Vec<Config> {
        let mut valid = Vec::new();
        let bridges = if self.bridge.is_empty() { &BRIDGES[..1] } else { &BRIDGES };
        let hosts = if self.is_host { &HOSTS[..] } else { &HOSTS[..1] };
        let peers = if self.uplink.is_empty() { &PEERS[..1] } else { &PEERS };
        for overlay in OVERLAYS {
            for host in hosts {
                for (peer, bridge) in
                    peers.iter().flat_map(|peer| bridges.iter().map(move |bridge| (peer, bridge)))
                {
                    let enabled = if self.is_host { "" } else { "enabled = false\n" };
                    let text = format!(
                        "[node]\nname = \"a\"\n{}{CLUSTER}{}[overlay]\n{overlay}[host]\n{enabled}{host}{}{bridge}{}{peer}",
                        self.pods, self.uplink, self.bridge, self.more
                    );
                    valid.extend(Config::parse("vswitch.toml", &text).ok());
                }
            }
        }
        valid
    }
}

#[test]
fn most_of_the_configurations_are_valid() {
    let counts: Vec<_> = all().iter().map(Vec::len).collect();
    assert_eq!(counts, [120, 120, 120, 360, 30, 40, 10]);
}
