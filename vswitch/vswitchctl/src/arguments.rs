//! The command line, and the request that it means.

mod drops;
mod explain;
mod latency;

use std::net::IpAddr;
use std::path::PathBuf;

use api::{
    Encapsulate, Encapsulation, Mac, PeerSpec, Reply, Request, RouteSpec, RouteTarget, TracePacket,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use drops::Drops;
pub(crate) use drops::Limits;
use explain::Explain;
pub(crate) use latency::Intervals;
use latency::Latency;

/// Shows and changes what vswitchd forwards.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 done, 1 the daemon refused or cannot be reached, \
    2 the command line is wrong. Of `explain`: 0 the connection is allowed, 1 it is denied, 2 the command \
    line is wrong or the daemon gave no answer."
)]
pub(crate) struct Arguments {
    /// The daemon's control socket.
    #[arg(long, global = true, value_name = "PATH", default_value = api::DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// What runs, why it was chosen so, and what needs attention.
    Status,
    /// Ports, tables and drops.
    #[command(subcommand)]
    Show(Show),
    /// Walk a described packet through the live tables, without side effect.
    Trace(Trace),
    /// Tell what decides about a connection, stage by stage, without side effect.
    Explain(Explain),
    /// Dropped packets by port and reason, or with --follow each as it is dropped, with its cause.
    Drops(Drops),
    /// How long packets take through the switch, by path and by port.
    Latency(Latency),
    /// Routes.
    #[command(subcommand)]
    Route(Route),
    /// Other nodes.
    #[command(subcommand)]
    Peer(Peer),
    /// Policies that a source told.
    #[command(subcommand)]
    Policies(Policies),
    /// Static entries of a bridge domain's forwarding database.
    #[command(subcommand)]
    Fdb(Fdb),
    /// Static neighbours in a bridge domain.
    #[command(subcommand)]
    Neighbor(Neighbor),
}

#[derive(Subcommand)]
pub(crate) enum Show {
    /// Ports with their counters; rx and tx as seen from the switch.
    Ports,
    /// MACs of the bridge domains, static and learned.
    Fdb,
    /// Routes, and where each comes from.
    Fib {
        /// Also those that another source hides, and why.
        #[arg(long)]
        all: bool,
    },
    /// IP addresses and their MACs.
    Neighbors,
    /// The other nodes, who tells of them, and whether they can be reached; also those that are
    /// hidden or refused, and why.
    Peers,
    /// Dropped packets by port and reason.
    Drops,
    /// Services by name: their virtual addresses, and the backends that flows are given to.
    Services,
    /// The policies of each pod, in their order, and why a pod is denied everything.
    Policies,
    /// Sessions: how many there are, and some of them.
    Sessions {
        /// Sessions at most.
        #[arg(long, value_name = "COUNT", default_value_t = 100)]
        most: u32,
    },
}

#[derive(Args)]
pub(crate) struct Trace {
    /// The port it enters by: name, container id (or its beginning), or number.
    #[arg(long, value_name = "PORT")]
    from: String,
    /// Destination address.
    #[arg(long, value_name = "ADDR")]
    to: IpAddr,
    /// Source address; the port's own if absent. From the NIC: of a pod on another node.
    #[arg(long, value_name = "ADDR")]
    src: Option<IpAddr>,
    /// icmp, tcp, udp, sctp or a number.
    #[arg(long, default_value = "icmp")]
    proto: String,
    /// Source port.
    #[arg(long, default_value_t = 49152)]
    sport: u16,
    /// Destination port.
    #[arg(long, default_value_t = 80)]
    dport: u16,
    /// Bytes of the IP packet.
    #[arg(long, default_value_t = 84)]
    size: u32,
    /// TTL or hop limit.
    #[arg(long, default_value_t = 64)]
    ttl: u8,
    /// Set "don't fragment".
    #[arg(long)]
    df: bool,
    /// Destination MAC; the gateway's if absent.
    #[arg(long, value_name = "MAC")]
    dst_mac: Option<Mac>,
    /// Source MAC; the port's own if absent.
    #[arg(long, value_name = "MAC")]
    src_mac: Option<Mac>,
}

#[derive(Subcommand)]
pub(crate) enum Route {
    /// Add or replace a route; it hides what the kernel and the cluster say of the same prefix.
    Add {
        /// Destination.
        prefix: IpNet,
        /// Where it leads.
        #[arg(value_enum)]
        to: To,
        /// The peer's name.
        #[arg(required_if_eq("to", "peer"))]
        name: Option<String>,
    },
    /// Remove a route that was added at run time; what it hid returns.
    Del {
        /// Destination.
        prefix: IpNet,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum To {
    /// To the peer of this name.
    Peer,
    /// To the node's kernel.
    Host,
    /// Nowhere, silently.
    Blackhole,
    /// Nowhere, and the sender is told.
    Unreachable,
}

#[derive(Subcommand)]
pub(crate) enum Peer {
    /// Add or replace a node; it hides what the cluster says of its name, address and prefixes.
    Add {
        /// Its name.
        name: String,
        /// Its underlay address.
        address: IpAddr,
        /// A prefix of its pods; may be repeated.
        #[arg(long = "prefix", required = true, value_name = "PREFIX")]
        prefixes: Vec<IpNet>,
        /// How packets reach it; this node's default if absent.
        #[arg(long, value_enum, value_name = "HOW")]
        encapsulation: Option<Encap>,
        /// Whether it is encapsulated; this node's default if absent.
        #[arg(long, value_enum, value_name = "WHEN")]
        encapsulate: Option<When>,
        /// MAC of its VXLAN device; derived from its address if absent.
        #[arg(long, value_name = "MAC")]
        vtep_mac: Option<Mac>,
    },
    /// Remove a node that was added at run time, with the routes to it; what it hid returns.
    Del {
        /// Its name.
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Policies {
    /// Forget all of them: no pod is isolated until a source tells some again, unless kubernetes.policies
    /// is true.
    Forget,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Encap {
    /// RFC 7348.
    Vxlan,
    /// RFC 2003, RFC 4213.
    Ipip,
    /// None: the underlay routes the pods' addresses.
    Direct,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum When {
    /// Always.
    Always,
    /// Unless the kernel reaches the node without a router.
    CrossSubnet,
    /// Never: the underlay routes the pods' addresses.
    Never,
}

#[derive(Subcommand)]
pub(crate) enum Fdb {
    /// Add an entry.
    Add {
        /// Destination.
        mac: Mac,
        /// The VTEP behind which it is.
        vtep: IpAddr,
        /// Bridge domain.
        #[arg(long, default_value = "default")]
        bridge: String,
    },
    /// Remove an entry that was added at run time.
    Del {
        /// Destination.
        mac: Mac,
        /// Bridge domain.
        #[arg(long, default_value = "default")]
        bridge: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum Neighbor {
    /// Add a neighbour.
    Add {
        /// Its address.
        address: IpAddr,
        /// Its MAC.
        mac: Mac,
        /// Bridge domain.
        #[arg(long, default_value = "default")]
        bridge: String,
    },
    /// Remove a neighbour that was added at run time.
    Del {
        /// Its address.
        address: IpAddr,
        /// Bridge domain.
        #[arg(long, default_value = "default")]
        bridge: String,
    },
}

impl Command {
    /// What of the answer was asked for.
    pub(crate) fn select(&self, reply: Reply) -> Reply {
        match (self, reply) {
            (Self::Show(Show::Fib { all: false }), Reply::Fib(mut entries)) => {
                entries.retain(|entry| entry.hidden.is_none());
                Reply::Fib(entries)
            }
            (_, reply) => reply,
        }
    }

    /// What the daemon is asked.
    pub(crate) fn request(&self) -> Request {
        match self {
            Self::Status => Request::Status,
            Self::Show(show) => match show {
                Show::Ports => Request::ShowPorts,
                Show::Fdb => Request::ShowFdb,
                Show::Fib { .. } => Request::ShowFib,
                Show::Neighbors => Request::ShowNeighbors,
                Show::Peers => Request::ShowPeers,
                Show::Drops => Request::ShowDrops,
                Show::Services => Request::ShowServices,
                Show::Policies => Request::ShowPolicies,
                Show::Sessions { most } => Request::ShowSessions { most: *most },
            },
            Self::Trace(trace) => Request::Trace(TracePacket {
                port: trace.from.clone(),
                dst_mac: trace.dst_mac,
                src_mac: trace.src_mac,
                src: trace.src,
                dst: trace.to,
                protocol: trace.proto.clone(),
                src_port: trace.sport,
                dst_port: trace.dport,
                len: trace.size,
                ttl: trace.ttl,
                df: trace.df,
            }),
            Self::Explain(explain) => explain.request(),
            Self::Drops(drops) => drops.request(),
            Self::Latency(latency) => latency.request(),
            Self::Route(Route::Add { prefix, to, name }) => {
                let target = match to {
                    To::Peer => RouteTarget::Peer { name: name.clone().unwrap_or_default() },
                    To::Host => RouteTarget::Host,
                    To::Blackhole => RouteTarget::Blackhole,
                    To::Unreachable => RouteTarget::Unreachable,
                };
                Request::AddRoute(RouteSpec { prefix: *prefix, target })
            }
            Self::Route(Route::Del { prefix }) => Request::DeleteRoute(*prefix),
            Self::Peer(Peer::Add {
                name,
                address,
                prefixes,
                encapsulation,
                encapsulate,
                vtep_mac,
            }) => Request::AddPeer(PeerSpec {
                name: name.clone(),
                address: *address,
                prefixes: prefixes.clone(),
                encapsulation: encapsulation.map(|encap| match encap {
                    Encap::Vxlan => Encapsulation::Vxlan,
                    Encap::Ipip => Encapsulation::Ipip,
                    Encap::Direct => Encapsulation::Direct,
                }),
                encapsulate: encapsulate.map(|when| match when {
                    When::Always => Encapsulate::Always,
                    When::CrossSubnet => Encapsulate::CrossSubnet,
                    When::Never => Encapsulate::Never,
                }),
                vtep_mac: *vtep_mac,
            }),
            Self::Peer(Peer::Del { name }) => Request::DeletePeer(name.clone()),
            Self::Policies(Policies::Forget) => Request::ForgetPolicies,
            Self::Fdb(Fdb::Add { mac, vtep, bridge }) => {
                Request::AddFdb { bridge: bridge.clone(), mac: *mac, vtep: *vtep }
            }
            Self::Fdb(Fdb::Del { mac, bridge }) => {
                Request::DeleteFdb { bridge: bridge.clone(), mac: *mac }
            }
            Self::Neighbor(Neighbor::Add { address, mac, bridge }) => {
                Request::AddNeighbor { bridge: bridge.clone(), address: *address, mac: *mac }
            }
            Self::Neighbor(Neighbor::Del { address, bridge }) => {
                Request::DeleteNeighbor { bridge: bridge.clone(), address: *address }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::{Request, RouteTarget};
    use clap::{CommandFactory, Parser};

    use super::{Arguments, Command};

    fn request(line: &str) -> Result<Request, clap::Error> {
        let words = std::iter::once("vswitchctl").chain(line.split(' '));
        Arguments::try_parse_from(words).map(|arguments| arguments.command.request())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn latencies_are_of_all_time_of_an_interval_or_of_one_after_the_other() {
        let intervals = |line: &str| {
            let words = std::iter::once("vswitchctl").chain(line.split(' '));
            match Arguments::try_parse_from(words).map(|arguments| arguments.command) {
                Ok(Command::Latency(latency)) => latency
                    .intervals()
                    .map(|intervals| (intervals.length.as_secs(), intervals.go_on)),
                _ => panic!("{line}"),
            }
        };
        assert_eq!(intervals("latency"), None);
        assert_eq!(intervals("latency --interval 3"), Some((3, false)));
        assert_eq!(intervals("latency --watch"), Some((10, true)));
        assert_eq!(intervals("latency --watch --interval 2 --ports"), Some((2, true)));
    }

    #[test]
    fn lines_mean_requests() {
        assert!(matches!(request("show fib --all --json"), Ok(Request::ShowFib)));
        assert!(matches!(request("show policies"), Ok(Request::ShowPolicies)));
        assert!(matches!(request("policies forget"), Ok(Request::ForgetPolicies)));
        match request("trace --from web --to 198.18.2.2 --proto tcp --dport 443 --df") {
            Ok(Request::Trace(packet)) => {
                assert_eq!((packet.port.as_str(), packet.dst_port, packet.df), ("web", 443, true));
            }
            other => panic!("{other:?}"),
        }
        match request("explain shop/web shop/db:5432 --protocol udp") {
            Ok(Request::Explain(asked)) => {
                assert_eq!(
                    (asked.source.as_str(), asked.destination.as_str()),
                    ("shop/web", "shop/db:5432")
                );
                assert_eq!(asked.protocol.as_deref(), Some("udp"));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(request("drops"), Ok(Request::ShowDrops)));
        assert!(matches!(request("latency"), Ok(Request::ShowLatency { by_port: false })));
        let line = "latency --ports --interval 3 --json";
        assert!(matches!(request(line), Ok(Request::ShowLatency { by_port: true })));
        match request("drops --follow --pod shop/db-0 --reason no-route --count 3 --for 9") {
            Ok(Request::FollowDrops(asked)) => {
                assert_eq!(asked.pod.as_deref(), Some("shop/db-0"));
                assert_eq!(asked.reason.as_deref(), Some("no-route"));
            }
            other => panic!("{other:?}"),
        }
        match request("route add 198.18.9.0/24 peer node-b") {
            Ok(Request::AddRoute(route)) => {
                assert_eq!(route.target, RouteTarget::Peer { name: "node-b".into() });
            }
            other => panic!("{other:?}"),
        }
        let line = "peer add b 203.0.113.12 --prefix 198.18.2.0/24 --encapsulate cross-subnet";
        match request(line) {
            Ok(Request::AddPeer(peer)) => {
                assert_eq!(peer.encapsulate, Some(api::Encapsulate::CrossSubnet));
            }
            other => panic!("{other:?}"),
        }
        for wrong in [
            "route add 198.18.9.0/24 peer",
            "explain shop/web",
            "explain a b --protocol gre",
            "drops --pod shop/db-0",
            "drops --follow --count 0",
            "latency --interval 0",
            "peer add b 203.0.113.12",
            "fdb add xx 198.51.100.1",
        ] {
            assert!(request(wrong).is_err(), "{wrong}");
        }
    }
}
