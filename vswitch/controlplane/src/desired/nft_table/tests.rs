use api::{AttachmentId, ErrorReply, PortMapping, Reserve, TransportProtocol};

use super::NftTable;
use crate::config::Config;
use crate::desired::translation::difference;
use crate::model::{Edit, Model};

const NODE: &str = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\", \"fd00:18:1::/64\"]\ncluster_prefixes = [\"198.18.0.0/16\", \"198.19.0.0/16\", \"fd00:18::/32\"]\n";

/// Everything before the elements, of a node that masquerades as it does by default.
const FRAME: &str = "table inet vswitch
delete table inet vswitch
table inet vswitch {
  map host_ports4 {
    type inet_proto . inet_service : ipv4_addr . inet_service
  }
  map host_ports4_at {
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
  }
  map host_ports6 {
    type inet_proto . inet_service : ipv6_addr . inet_service
  }
  map host_ports6_at {
    type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
  }
  set direct4 {
    type ipv4_addr
  }
  set direct6 {
    type ipv6_addr
  }
  chain owner {
    return comment \"vswitchd, host port vsw0\"
  }
  chain host_ports {
    dnat ip to ip daddr . meta l4proto . th dport map @host_ports4_at
    dnat ip to meta l4proto . th dport map @host_ports4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @host_ports6_at
    dnat ip6 to meta l4proto . th dport map @host_ports6
  }
  chain prerouting {
    type nat hook prerouting priority -90; policy accept;
    meta l4proto { tcp, udp, sctp } fib daddr type local jump host_ports
  }
  chain output {
    type nat hook output priority -90; policy accept;
    ip6 daddr ::1 return
    meta l4proto { tcp, udp, sctp } fib daddr type local jump host_ports
  }
  chain services {
    type nat hook postrouting priority 100; policy accept;
    iifname \"vsw0\" oifname \"vsw0\" ct status dnat counter masquerade
    ip saddr { 198.18.0.0/16, 198.19.0.0/16 } oifname \"vsw0\" ct status dnat counter masquerade
    ip6 saddr { fd00:18::/32 } oifname \"vsw0\" ct status dnat counter masquerade
    ip saddr @direct4 oifname \"vsw0\" ct status dnat counter masquerade
    ip6 saddr @direct6 oifname \"vsw0\" ct status dnat counter masquerade
    ip saddr 127.0.0.0/8 oifname \"vsw0\" ct status dnat counter masquerade
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr 198.18.1.0/24 ip daddr != { 198.18.0.0/16, 198.19.0.0/16 } oifname != \"vsw0\" counter masquerade
    ip6 saddr fd00:18:1::/64 ip6 daddr != { fd00:18::/32 } oifname != \"vsw0\" counter masquerade
  }
}
";

fn config(more: &str) -> Config {
    Config::parse("f", &format!("{NODE}{more}")).expect("valid")
}

fn table(config: &Config, model: &Model) -> NftTable {
    NftTable::of(config, model).expect("masquerading")
}

fn rules_of(host: &str) -> String {
    let config = config(&format!("[host]\n{host}\n"));
    table(&config, &Model::new(&config)).script()
}

fn mapping(protocol: TransportProtocol, host_ip: &str, host_port: u16) -> PortMapping {
    let host_ip = (!host_ip.is_empty()).then(|| host_ip.parse().expect("an address"));
    PortMapping { protocol, host_ip, host_port, container_port: 80 }
}

/// Adds a pod; what it asks for is in force once it is attached.
fn plug(
    config: &Config,
    model: &mut Model,
    name: &str,
    mappings: &[PortMapping],
) -> Result<AttachmentId, ErrorReply> {
    let attachment = AttachmentId { container_id: name.into(), ifname: "eth0".into() };
    let request = Reserve {
        bandwidth: api::Bandwidth::default(),
        queues: 1,
        attachment: attachment.clone(),
        network: None,
        pod: None,
        container_name: None,
        netns: "/run/netns/x".into(),
        mode: None,
        delegated: None,
        requested: Vec::new(),
        ranges: Vec::new(),
        mac: None,
        port_mappings: mappings.to_vec(),
    };
    let (edits, reserved) = model.reserve(config, &request, 1450, false)?;
    model.apply_all(&edits);
    let before = table(config, model);
    let edits = model.attach(&attachment, reserved.mac)?;
    assert!(
        before
            .translations()
            .values()
            .all(|pod| { !reserved.addresses.iter().any(|net| net.addr() == pod.ip()) })
    );
    model.apply_all(&edits);
    Ok(attachment)
}

#[test]
fn a_node_that_masquerades_nothing_has_no_table() {
    let config = config("[host]\nmasquerade = false\n");
    assert_eq!(NftTable::of(&config, &Model::new(&config)), None);
}

#[test]
fn each_family_is_masqueraded_to_outside_of_its_own_cluster_prefixes() {
    assert_eq!(rules_of(""), FRAME);
}

#[test]
fn further_destinations_see_pods_addresses_and_none_is_named_twice() {
    let text = rules_of(
        "non_masquerade_prefixes = [\"198.18.7.0/24\", \"203.0.113.128/25\", \"203.0.113.0/24\", \"2001:db8::/32\"]",
    );
    assert!(
        text.contains("ip daddr != { 198.18.0.0/16, 198.19.0.0/16, 203.0.113.0/24 } oifname"),
        "{text}"
    );
    assert!(text.contains("ip6 daddr != { fd00:18::/32, 2001:db8::/32 } oifname"), "{text}");
}

#[test]
fn a_pods_host_ports_are_elements_of_maps_one_a_family() {
    use TransportProtocol::{Sctp, Tcp, Udp};
    let config = config("");
    let mut model = Model::new(&config);
    let mappings = [
        mapping(Tcp, "", 8080),
        mapping(Udp, "0.0.0.0", 53),
        mapping(Sctp, "::", 9),
        mapping(Tcp, "198.51.100.11", 443),
        mapping(Tcp, "2001:db8::11", 443),
    ];
    plug(&config, &mut model, "c1", &mappings).expect("free");
    let elements = "\
add element inet vswitch host_ports4 { tcp . 8080 : 198.18.1.2 . 80, udp . 53 : 198.18.1.2 . 80 }
add element inet vswitch host_ports4_at { 198.51.100.11 . tcp . 443 : 198.18.1.2 . 80 }
add element inet vswitch host_ports6 { sctp . 9 : fd00:18:1::2 . 80, tcp . 8080 : fd00:18:1::2 . 80 }
add element inet vswitch host_ports6_at { 2001:db8::11 . tcp . 443 : fd00:18:1::2 . 80 }
";
    assert_eq!(table(&config, &model).script(), format!("{FRAME}{elements}"));
}

#[test]
fn pods_that_come_and_go_change_elements_alone() {
    let config = config("");
    let mut model = Model::new(&config);
    let udp = [mapping(TransportProtocol::Udp, "198.51.100.11", 53)];
    let former = plug(&config, &mut model, "c1", &udp).expect("free");
    let before = table(&config, &model);
    assert_eq!(before.script_from(&before).as_deref(), Some(""));
    model.apply_all(&[Edit::NoLease { attachment: former }]);
    let without = table(&config, &model);
    plug(&config, &mut model, "c2", &udp).expect("free again");
    let after = table(&config, &model);
    assert_eq!(
        after.script_from(&before).as_deref(),
        Some(
            "delete element inet vswitch host_ports4_at { 198.51.100.11 . udp . 53 }
add element inet vswitch host_ports4_at { 198.51.100.11 . udp . 53 : 198.18.1.3 . 80 }
"
        )
    );
    assert_eq!(
        without.script_from(&before).as_deref(),
        Some("delete element inet vswitch host_ports4_at { 198.51.100.11 . udp . 53 }\n")
    );
    // While a change is under way the new pod has the port, and who is gone keeps the others.
    assert_eq!(after.widened(&before), after);
    assert_eq!(without.widened(&before), before);
    let began = difference(after.translations(), before.translations());
    let words: Vec<_> = began.iter().map(ToString::to_string).collect();
    assert_eq!(words, ["udp 198.51.100.11:53 -> 198.18.1.3:80"]);
}

#[test]
fn another_prefix_or_exception_is_another_table() {
    let plain = config("");
    let other = config("[host]\nnon_masquerade_prefixes = [\"203.0.113.0/24\"]\n");
    let (one, another) = (table(&plain, &Model::new(&plain)), table(&other, &Model::new(&other)));
    assert_eq!(another.script_from(&one), None);
}

#[test]
fn interfaces_of_one_container_share_a_mapping_and_the_first_has_it() {
    let config = config("");
    let mut model = Model::new(&config);
    let tcp = [mapping(TransportProtocol::Tcp, "198.51.100.11", 80)];
    let first = plug(&config, &mut model, "c1", &tcp).expect("free");
    let lease = model.attachments[&first].clone();
    let mut second = lease;
    second.addresses = vec!["198.18.1.9/32".parse().expect("a prefix")];
    let attachment = AttachmentId { ifname: "net1".into(), ..first.clone() };
    model.apply_all(&[Edit::Lease { attachment, lease: second }]);
    let to = |model: &Model| {
        let all = table(&config, model);
        all.translations().values().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(to(&model), ["198.18.1.2:80"]);
    model.apply_all(&[Edit::NoLease { attachment: first }]);
    assert_eq!(to(&model), ["198.18.1.9:80"]);
}

#[test]
fn who_is_answered_past_the_kernel_is_masqueraded_when_translated() {
    let peer = |number: u8, address: &str, more: &str| {
        let prefix = format!("198.18.{number}.0/24");
        format!(
            "[[peers]]\nname = \"node-{number}\"\naddress = \"{address}\"\nprefixes = [\"{prefix}\"]\n{more}\n"
        )
    };
    let peers = [
        peer(2, "198.51.100.12", ""),
        peer(3, "198.51.100.13", "encapsulate = \"never\""),
        peer(4, "198.51.100.14", "encapsulate = \"cross-subnet\""),
        peer(5, "2001:db8::15", "encapsulation = \"direct\""),
    ];
    let with_uplink = config(&format!("[uplink]\ninterface = \"eth0\"\n{}", peers.concat()));
    let script = table(&with_uplink, &Model::new(&with_uplink)).script();
    let elements = script.strip_prefix(FRAME).expect("the same frame");
    assert_eq!(
        elements,
        "add element inet vswitch direct4 { 198.51.100.13, 198.51.100.14 }
add element inet vswitch direct6 { 2001:db8::15 }
"
    );
}
