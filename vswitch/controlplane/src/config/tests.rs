//! Snippets and the exact words that answer them.

use api::{Encapsulation, Mode};

use super::Config;
use super::values::check_far_end;

const NODE: &str = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n";
const UPLINK: &str = "[uplink]\ninterface = \"eth0\"\n";

/// Everything that is wrong with `[node]`, `[uplink]` (lines 1 to 6) and the text that follows.
fn problems(text: &str) -> Vec<String> {
    whole(&format!("{NODE}{UPLINK}{text}"))
}

fn whole(text: &str) -> Vec<String> {
    match Config::parse("f", text) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_shipped_file_is_valid_and_shows_the_defaults() {
    let text = include_str!("../../../../config/vswitch.toml");
    let config = Config::parse("vswitch.toml", text).expect("the file we ship");
    assert_eq!(config.peers.len(), 1);
    assert_eq!(config.overlay.encapsulation, Encapsulation::Vxlan);
    // A comment of the form `# key = value` is a default: with all of them in force nothing changes,
    // but for the keys that have none.
    let mut with_defaults = String::new();
    for line in text.lines() {
        let default = line.strip_prefix("# ").filter(|line| {
            let has_none = [
                "address",
                "listen",
                "vtep_mac",
                "pod_mtu",
                "vni = 20",
                "vteps",
                "cores",
                "[[",
                "prefix",
                "to =",
                "name = \"node-b\"",
                "encapsulation = ",
                "encapsulate = \"cross-subnet\"",
                "name = \"closed\"",
                "name = \"db\"",
                "pods",
                "ingress",
                "egress",
                "from",
                "ports",
            ];
            line.split(' ').nth(1) == Some("=") && !has_none.iter().any(|key| line.starts_with(key))
        });
        with_defaults.push_str(default.unwrap_or(line));
        with_defaults.push('\n');
    }
    assert!(with_defaults.contains("\nframes = 512"), "comments were uncovered");
    let mut spelled = Config::parse("vswitch.toml", &with_defaults).expect("valid");
    assert_ne!(spelled.origin, config.origin);
    spelled.origin = config.origin.clone();
    assert_eq!(spelled, config);
}

#[test]
fn the_shipped_file_names_every_key_that_is_read() {
    let shipped = include_str!("../../../../config/vswitch.toml");
    // What stands below the last header so far, commented out or not.
    let mut named = std::collections::BTreeSet::new();
    let mut section = String::new();
    for line in shipped.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with('[') {
            section = line.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ") {
            named.insert((section.clone(), key.to_owned()));
        }
    }
    let headers = [
        "[node]",
        "[uplink]",
        "[overlay]",
        "[host]",
        "[attachment]",
        "[bridge]",
        "[workers]",
        "[control]",
        "[metrics]",
        "[sandbox]",
        "[kubernetes]",
        "[[policies]]",
        "[[peers]]",
        "[[routes.static]]",
        "[routes.kernel]",
    ];
    // The refusal of an unknown key lists those that are read.
    let known = |text: &str| -> Vec<String> {
        let problems = whole(text);
        let list = problems.iter().find_map(|problem| problem.split_once("expected one of "));
        list.expect("unknown").1.split(", ").map(str::to_owned).collect()
    };
    let top = |header: &str| {
        let name = header.trim_matches(['[', ']']);
        name.split('.').next().unwrap_or(name).to_owned()
    };
    let mut sections: Vec<_> = headers.iter().map(|header| top(header)).collect();
    sections.dedup();
    let mut read = known("zzz = 1\n[node]\n");
    read.sort_by_key(|section| sections.iter().position(|name| name == section));
    assert_eq!(read, sections, "every section is judged below");
    for header in headers {
        for key in known(&format!("{header}\nzzz = 1\n")) {
            assert!(named.contains(&(header.to_owned(), key.clone())), "{header} {key}");
        }
    }
}

#[test]
fn protocols_have_names_and_numbers() {
    let protocols = |line: &str| {
        let text = format!("{NODE}[uplink]\ninterface = \"eth0\"\n[routes.kernel]\n{line}\n");
        let config = Config::parse("f", &text).expect("valid");
        config.kernel_routes.expect("present").protocols
    };
    assert_eq!(protocols("protocols = [\"bird\", 186, \"boot\"]"), [12, 186, 3]);
    assert_eq!(protocols(""), [0; 0]);
}

#[test]
fn a_node_has_a_host_port_with_or_without_an_uplink_unless_it_says_no() {
    for uplink in ["", UPLINK] {
        for section in ["", "[host]\n"] {
            let config = Config::parse("f", &format!("{NODE}{uplink}{section}")).expect("valid");
            assert_eq!(config.uplink.is_some(), !uplink.is_empty());
            assert_eq!(config.attachment, Mode::Routed);
            let host = config.host.expect("a host port");
            assert!(host.masquerade && host.interface == "vsw0");
        }
        let text = format!("{NODE}{uplink}[host]\nenabled = false\n");
        assert_eq!(Config::parse("f", &text).expect("valid").host, None);
    }
}

#[test]
fn a_problem_names_line_key_and_expectation() {
    for (text, expected) in [
        (
            "[overlay]\nvnii = 3\n",
            "f:8: overlay.vnii: unknown key; expected one of accept, accept_vnis, accept_vxlan_ports, clamp_mss, encapsulate, encapsulation, outer_df, pod_mtu, udp6_zero_checksum_rx, vni, vtep_mac, vxlan_port",
        ),
        (
            "[overlay]\nvni = \"3\"\n",
            "f:8: overlay.vni: expected a whole number from 1 to 16777215, found a value of type string",
        ),
        (
            "[overlay]\nvni = 16777216\n",
            "f:8: overlay.vni: expected a whole number from 1 to 16777215, found 16777216",
        ),
        (
            "[overlay]\nvni = -1\n",
            "f:8: overlay.vni: expected a whole number from 1 to 16777215, found -1",
        ),
        (
            "[overlay]\nvxlan_port = 0\n",
            "f:8: overlay.vxlan_port: expected a whole number from 1 to 65535, found 0",
        ),
        (
            "[overlay]\nencapsulation = \"gre\"\n",
            "f:8: overlay.encapsulation: expected \"vxlan\" or \"ipip\" or \"direct\", found \"gre\"",
        ),
        (
            "[overlay]\nencapsulation = \"direct\"\nencapsulate = \"cross-subnet\"\n",
            "f:9: overlay.encapsulate: \"cross-subnet\" needs an encapsulation, and that is \"direct\" here; choose \"vxlan\" or \"ipip\"",
        ),
        (
            "[overlay]\nencapsulation = \"direct\"\n[[peers]]\nname = \"b\"\naddress = \"203.0.113.12\"\nprefixes = [\"198.18.2.0/24\"]\nencapsulate = \"always\"\n",
            "f:13: peers[0].encapsulate: \"always\" needs an encapsulation, and that is \"direct\" here; choose \"vxlan\" or \"ipip\"",
        ),
        (
            "[overlay]\nencapsulate = \"sometimes\"\n",
            "f:8: overlay.encapsulate: expected \"always\" or \"cross-subnet\" or \"never\", found \"sometimes\"",
        ),
        (
            "[overlay]\naccept = [\"ipip\",\n\"gre\"]\n",
            "f:9: overlay.accept[1]: expected \"vxlan\" or \"ipip\" or \"direct\", found \"gre\"",
        ),
        (
            "[overlay]\nouter_df = true\n",
            "f:8: overlay.outer_df: expected \"set\" or \"clear\" or \"inherit\", found a value of type boolean",
        ),
        (
            "[overlay]\naccept = [1]\n",
            "f:8: overlay.accept[0]: expected \"vxlan\" or \"ipip\" or \"direct\", found a value of type integer",
        ),
        (
            "[overlay]\naccept_vnis = [7, 20]\n[bridge]\nvni = 20\n",
            "f:8: overlay.accept_vnis[1]: bridge.vni is the same; a stretched bridge needs its own",
        ),
        (
            "[overlay]\naccept_vxlan_ports = [65536]\n",
            "f:8: overlay.accept_vxlan_ports[0]: expected a whole number from 1 to 65535, found 65536",
        ),
        (
            "[overlay]\nvtep_mac = \"02:76\"\n",
            "f:8: overlay.vtep_mac: expected a MAC address such as \"02:76:c6:33:64:0b\", found \"02:76\"",
        ),
        (
            "[overlay]\nvtep_mac = \"03:00:00:00:00:01\"\n",
            "f:8: overlay.vtep_mac: a group or zero address cannot be a VTEP's MAC",
        ),
        (
            "[overlay]\npod_mtu = 70000\n",
            "f:8: overlay.pod_mtu: expected a whole number from 68 to 65535, found 70000",
        ),
        (
            "[host]\ninterface = \"eth0\"\n",
            "f:8: host.interface: the uplink has this name; the host port is a TAP that the daemon makes",
        ),
        (
            "[host]\ninterface = \"a/b\"\n",
            "f:8: host.interface: \"a/b\" cannot be an interface: 1 to 15 characters, no space, no slash, no colon",
        ),
        (
            "[host]\nmasquerade = 1\n",
            "f:8: host.masquerade: expected true or false, found a value of type integer",
        ),
        (
            "[host]\nnon_masquerade_prefixes = [\"203.0.113.1/24\"]\n",
            "f:8: host.non_masquerade_prefixes[0]: 203.0.113.1/24 has bits beyond its length; did you mean 203.0.113.0/24?",
        ),
        (
            "[host]\nnon_masquerade_prefixes = [\"2001:db8::/32\", \"::/0\"]\n",
            "f:8: host.non_masquerade_prefixes[1]: ::/0 is everything; set host.masquerade = false instead",
        ),
        (
            "[workers]\nidle_after_us = \"sometimes\"\n",
            "f:8: workers.idle_after_us: expected 0 to 1000000 or \"never\", found \"sometimes\"",
        ),
        (
            "[workers]\nport_io = \"mmap\"\n",
            "f:8: workers.port_io: expected \"auto\" or \"io_uring\" or \"read_write\", found \"mmap\"",
        ),
        (
            "[sandbox]\nseccomp = \"trap\"\n",
            "f:8: sandbox.seccomp: expected \"kill\" or \"log\" or \"off\", found \"trap\"",
        ),
        (
            "[workers]\ncores = [1,\n1]\n",
            "f:9: workers.cores[1]: core 1 is listed twice; a worker needs its own",
        ),
        (
            "[workers]\ncores = []\n",
            "f:8: workers.cores: at least one core is needed, or no such key",
        ),
        (
            "[workers]\ncores = 1\n",
            "f:8: workers.cores: expected a list of whole numbers, found a value of type integer",
        ),
        (
            "[control]\nsocket = \"run/s\"\n",
            "f:8: control.socket: expected an absolute path, found \"run/s\"",
        ),
        (
            "[bridge]\nvni = 10\n",
            "f:8: bridge.vni: overlay.vni is the same; a stretched bridge needs its own",
        ),
        (
            "[bridge]\nvteps = [\"198.51.100.9\"]\n",
            "f:8: bridge.vteps: VTEPs without bridge.vni; set it to the segment's identifier",
        ),
        (
            "[bridge]\nvni = 20\nvteps = [\"198.51.100.9\", \"198.51.100.9\"]\n",
            "f:9: bridge.vteps[1]: 198.51.100.9 is listed twice",
        ),
        (
            "[attachment]\nmode = \"bridge\"\n",
            "f:8: attachment.mode: expected \"routed\" or \"bridged\", found \"bridge\"",
        ),
        (
            "attachment = 3\n",
            "f:7: uplink.attachment: unknown key; expected one of address, address6, interface, kind, proxy_neighbors, send_by, xdp, zero_copy",
        ),
        (
            "kind = \"dpdk\"\n",
            "f:7: uplink.kind: expected \"af_xdp\" or \"offload\" or \"af_packet\" or \"auto\", found \"dpdk\"",
        ),
        (
            "kind = \"offload\"\nxdp = \"native\"\n",
            "f:8: uplink.xdp: the kind \"offload\" has no XDP program and no AF_XDP socket; remove this line",
        ),
        (
            "kind = \"af_packet\"\nzero_copy = true\n",
            "f:8: uplink.zero_copy: the kind \"af_packet\" has no XDP program and no AF_XDP socket; remove this line",
        ),
        (
            "[[peers]]\nname = \"b\"\nprefixes = [\"198.18.2.0/24\"]\n",
            "f:7: peers[0]: a peer needs address, an address such as \"198.51.100.11\" or \"2001:db8::11\"",
        ),
        (
            "[[peers]]\nname = \"b\"\naddress = \"198.18.2.1\"\nprefixes = [\"198.18.2.0/24\"]\n",
            "f:9: peers[0].address: 198.18.2.1 lies in the cluster prefix 198.18.0.0/16: tunnels would run through themselves",
        ),
        (
            "[[peers]]\nname = \"b\"\naddress = \"fe80::1\"\nprefixes = [\"198.18.2.0/24\"]\n",
            "f:9: peers[0].address: fe80::1 cannot be a node's underlay address",
        ),
        (
            "[[peers]]\nname = \"b\"\naddress = \"::ffff:203.0.113.12\"\nprefixes = [\"198.18.2.0/24\"]\n",
            "f:9: peers[0].address: ::ffff:203.0.113.12 cannot be a node's underlay address",
        ),
        (
            "[[peers]]\nname = \"b\"\naddress = \"2001:db8::12\"\nprefixes = [\"198.18.2.0/24\"]\nencapsulation = \"ipip\"\n",
            "f:9: peers[0].address: IPIP runs over IPv4 alone; reach this peer by \"vxlan\" or \"direct\", or by an IPv4 address",
        ),
        (
            "address6 = \"198.51.100.11\"\n",
            "f:7: uplink.address6: expected an IPv6 address such as \"2001:db8::11\", found \"198.51.100.11\"",
        ),
        (
            "[[peers]]\nname = \"b\"\naddress = \"203.0.113.12\"\n",
            "f:7: peers[0].prefixes: a peer needs at least one prefix, that of its pods",
        ),
        (
            "[[peers]]\nname = \"b\"\naddress = \"203.0.113.12\"\nprefixes = [\"198.18.1.128/25\"]\n",
            "f:10: peers[0].prefixes: 198.18.1.128/25 overlaps 198.18.1.0/24 of this node",
        ),
        (
            "[[peers]]\nname = \"b\"\naddress = \"203.0.113.12\"\nprefixes = [\"10.1.0.0/24\"]\n",
            "f:10: peers[0].prefixes: 10.1.0.0/24 is not within any of node.cluster_prefixes; add it or one that contains it there",
        ),
        (
            "[[routes]]\nprefix = \"198.18.9.0/24\"\nto = \"host\"\n",
            "f:7: routes[0]: write [[routes.static]] instead of [[routes]]",
        ),
        (
            "[routes.kernel]\nprefixes = [\"198.20.0.0/16\"]\n",
            "f:8: routes.kernel.prefixes[0]: 198.20.0.0/16 is not within any of node.cluster_prefixes; add it or one that contains it there",
        ),
        (
            "[routes.kernel]\nprotocols = [\"brid\"]\n",
            "f:8: routes.kernel.protocols[0]: expected a protocol such as \"bird\", \"static\" or 186, found \"brid\"",
        ),
        (
            "[routes.kernel]\nprotocols = [\"bird\", 256]\n",
            "f:8: routes.kernel.protocols[1]: expected a whole number from 1 to 255, found 256",
        ),
        (
            "[routes.kernel]\nprotocols = []\n",
            "f:8: routes.kernel.protocols: at least one is needed; without this key routes of every protocol are taken",
        ),
        (
            "[routes.kernel]\nprotocols = [86]\n",
            "f:8: routes.kernel.protocols[0]: 86 is that of vswitchd's own routes, which say nothing of other nodes",
        ),
        (
            "[routes.kernel]\nprefixes = [\"0.0.0.0/0\"]\n",
            "f:8: routes.kernel.prefixes[0]: 0.0.0.0/0 is everything; pods need a prefix of their own",
        ),
        (
            "[[routes.static]]\nprefix = \"198.18.9.0/24\"\nto = \"peer\"\n",
            "f:7: routes.static[0]: a route to \"peer\" needs name, that of the peer",
        ),
        (
            "[[routes.static]]\nprefix = \"198.18.9.0/24\"\nto = \"peer\"\nname = \"x\"\n",
            "f:10: routes.static[0].name: no peer has the name \"x\"",
        ),
        (
            "[[routes.static]]\nprefix = \"198.18.9.1/24\"\nto = \"host\"\n",
            "f:8: routes.static[0].prefix: 198.18.9.1/24 has bits beyond its length; did you mean 198.18.9.0/24?",
        ),
        (
            "[[routes.static]]\nprefix = \"198.18.1.0/24\"\nto = \"host\"\n",
            "f:8: routes.static[0].prefix: 198.18.1.0/24 is this node's own pod prefix; it cannot be routed away",
        ),
    ] {
        assert_eq!(problems(text), [expected], "{text}");
    }
}

#[test]
fn prefixes_must_be_usable_and_distinct() {
    let node = |pods: &str, cluster: &str| {
        whole(&format!(
            "[node]\nname = \"a\"\npod_prefixes = [{pods}]\ncluster_prefixes = [{cluster}]\n"
        ))
    };
    for (pods, cluster, expected) in [
        (
            "",
            "\"198.18.0.0/16\"",
            "f:3: node.pod_prefixes: at least one prefix is needed, such as \"198.18.1.0/24\"; or no such key, if vswitch-agent takes them from the cluster",
        ),
        (
            "\"198.18.1.0/31\"",
            "\"198.18.0.0/16\"",
            "f:3: node.pod_prefixes[0]: 198.18.1.0/31 has no room for a gateway and a pod; /30 or shorter is needed",
        ),
        (
            "\"198.18.1.0/24\"",
            "\"198.19.0.0/16\"",
            "f:3: node.pod_prefixes[0]: 198.18.1.0/24 is not within any of node.cluster_prefixes; add it or one that contains it there",
        ),
        (
            "\"198.18.1.0/24\", \"198.18.2.0/24\"",
            "\"198.18.0.0/16\"",
            "f:3: node.pod_prefixes[1]: a second prefix of 198.18.1.0/24's family; one a family is allowed",
        ),
        (
            "\"198.18.1.0/24\"",
            "\"198.18.0.0/16\", \"198.18.0.0/15\"",
            "f:4: node.cluster_prefixes[1]: 198.18.0.0/15 overlaps 198.18.0.0/16; remove one",
        ),
        (
            "\"pods\"",
            "\"198.18.0.0/16\"",
            "f:3: node.pod_prefixes[0]: expected a prefix such as \"198.18.1.0/24\" or \"fd00:18:1::/64\", found \"pods\"",
        ),
    ] {
        let found = node(pods, cluster);
        assert!(found.contains(&expected.to_owned()), "{found:#?}");
    }
}

#[test]
fn every_problem_is_shown_at_once() {
    let peer =
        "[[peers]]\nname = \"b\"\naddress = \"203.0.113.12\"\nprefixes = [\"198.18.2.0/24\"]\n";
    let found = problems(&format!("{peer}{peer}[overlay]\nvni = 0\n[typo]\n"));
    assert_eq!(
        found,
        [
            "f:12: peers[1].name: another peer has the name \"b\" already",
            "f:13: peers[1].address: peer \"b\" has 203.0.113.12 already",
            "f:14: peers[1].prefixes: 198.18.2.0/24 overlaps 198.18.2.0/24 of b",
            "f:16: overlay.vni: expected a whole number from 1 to 16777215, found 0",
            "f:17: typo: unknown key; expected one of attachment, bridge, control, host, kubernetes, metrics, node, overlay, peers, policies, routes, sandbox, uplink, workers",
        ]
    );
}

#[test]
fn what_is_no_toml_is_named_by_its_line() {
    let found = whole("[node]\nname = \n");
    assert!(found.len() == 1 && found[0].starts_with("f:2: "), "{found:?}");
    assert_eq!(
        whole("")[0],
        "f:1: node: this section is missing; it needs name, cluster_prefixes and, unless the cluster tells them, pod_prefixes"
    );
}

#[test]
fn without_an_uplink_peers_are_refused() {
    let peer =
        "[[peers]]\nname = \"b\"\naddress = \"203.0.113.12\"\nprefixes = [\"198.18.2.0/24\"]\n";
    assert_eq!(
        whole(&format!("{NODE}{peer}")),
        ["f:5: peers[0]: a peer needs an uplink to be reached by; add [uplink] with interface"]
    );
}

#[test]
fn a_far_end_is_another_node_of_a_family_that_we_have() {
    let own = std::net::IpAddr::from([198, 51, 100, 11]).into();
    let check = |text: &str| check_far_end(own, text.parse().expect("an address"));
    assert_eq!(check("203.0.113.1"), Ok(()));
    assert_eq!(check("198.51.100.11"), Err("198.51.100.11 is this node itself".into()));
    assert_eq!(
        check("2001:db8::9"),
        Err("this node's uplink has no IPv6 address to reach 2001:db8::9 from".into())
    );
}
