//! `docs/configuration.md` against the parser: every key, its default, and what changes it.
//!
//! A section of the page is a heading "## `[name]`"; a key is a row of its table, of five cells: key,
//! type, default, "reload" or "restart", and what it means. A default in backquotes is a value of TOML.

use std::collections::{BTreeMap, BTreeSet};

use controlplane::config::Config;
use controlplane::plane::needs_restart;

const PAGE: &str = include_str!("../../../docs/configuration.md");

/// A valid file that has every section, and of each no more than its other keys need.
const SECTIONS: [(&str, &str); 15] = [
    (
        "[node]",
        "name = \"node-a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n",
    ),
    ("[uplink]", "interface = \"eth0\"\n"),
    ("[overlay]", ""),
    ("[host]", ""),
    ("[attachment]", ""),
    ("[bridge]", "vni = 20\n"),
    ("[workers]", ""),
    ("[control]", ""),
    ("[metrics]", ""),
    ("[sandbox]", ""),
    ("[kubernetes]", ""),
    ("[[policies]]", "name = \"p\"\npods = [\"demo/db\"]\ningress = []\negress = []\n"),
    ("[routes.kernel]", ""),
    (
        "[[peers]]",
        "name = \"node-b\"\naddress = \"203.0.113.12\"\nprefixes = [\"198.18.2.0/24\"]\n",
    ),
    ("[[routes.static]]", "prefix = \"198.18.99.0/24\"\nto = \"blackhole\"\n"),
];

/// Another value of each key than the file above has.
const CHANGES: &[(&str, &str, &str)] = &[
    ("[node]", "name", "name = \"node-x\""),
    ("[node]", "pod_prefixes", "pod_prefixes = [\"198.18.7.0/24\"]"),
    ("[node]", "cluster_prefixes", "cluster_prefixes = [\"198.18.0.0/15\"]"),
    ("[uplink]", "interface", "interface = \"eth1\""),
    ("[uplink]", "address", "address = \"198.51.100.11\""),
    ("[uplink]", "address6", "address6 = \"2001:db8::11\""),
    ("[uplink]", "proxy_neighbors", "proxy_neighbors = true"),
    ("[uplink]", "kind", "kind = \"auto\""),
    ("[uplink]", "xdp", "xdp = \"generic\""),
    ("[uplink]", "zero_copy", "zero_copy = true"),
    ("[uplink]", "send_by", "send_by = \"af_packet\""),
    ("[overlay]", "encapsulation", "encapsulation = \"ipip\""),
    ("[overlay]", "encapsulate", "encapsulate = \"cross-subnet\""),
    ("[overlay]", "vni", "vni = 11"),
    ("[overlay]", "vxlan_port", "vxlan_port = 8472"),
    ("[overlay]", "accept", "accept = []"),
    ("[overlay]", "accept_vxlan_ports", "accept_vxlan_ports = [8472]"),
    ("[overlay]", "accept_vnis", "accept_vnis = [1]"),
    ("[overlay]", "udp6_zero_checksum_rx", "udp6_zero_checksum_rx = false"),
    ("[overlay]", "vtep_mac", "vtep_mac = \"02:76:c6:33:64:0b\""),
    ("[overlay]", "pod_mtu", "pod_mtu = 1400"),
    ("[overlay]", "clamp_mss", "clamp_mss = true"),
    ("[overlay]", "outer_df", "outer_df = \"clear\""),
    ("[host]", "enabled", "enabled = false"),
    ("[host]", "interface", "interface = \"vsw1\""),
    ("[host]", "masquerade", "masquerade = false"),
    ("[host]", "non_masquerade_prefixes", "non_masquerade_prefixes = [\"192.0.2.0/24\"]"),
    ("[attachment]", "mode", "mode = \"bridged\""),
    ("[bridge]", "name", "name = \"other\""),
    ("[bridge]", "fdb_max", "fdb_max = 100"),
    ("[bridge]", "ageing_seconds", "ageing_seconds = 30"),
    ("[bridge]", "vni", "vni = 21"),
    ("[bridge]", "vteps", "vteps = [\"203.0.113.12\"]"),
    ("[workers]", "cores", "cores = [0]"),
    ("[workers]", "idle_after_us", "idle_after_us = \"never\""),
    ("[workers]", "frames", "frames = 1024"),
    ("[workers]", "rebalance", "rebalance = false"),
    ("[workers]", "handoff", "handoff = \"always\""),
    ("[workers]", "port_io", "port_io = \"read_write\""),
    ("[control]", "socket", "socket = \"/run/other.sock\""),
    ("[control]", "state_dir", "state_dir = \"/var/lib/other\""),
    ("[metrics]", "listen", "listen = \"127.0.0.1:9750\""),
    ("[metrics]", "services", "services = true"),
    ("[sandbox]", "seccomp", "seccomp = \"log\""),
    ("[kubernetes]", "policies", "policies = true"),
    ("[[policies]]", "name", "name = \"q\""),
    ("[[policies]]", "pods", "pods = [\"*\"]"),
    ("[[policies]]", "ingress", "ingress = [{}]"),
    ("[[policies]]", "egress", "egress = [{ to = [{ pods = [\"*\"] }] }]"),
    ("[routes.kernel]", "enabled", "enabled = false"),
    ("[routes.kernel]", "prefixes", "prefixes = [\"198.18.2.0/24\"]"),
    ("[routes.kernel]", "table", "table = 100"),
    ("[routes.kernel]", "protocols", "protocols = [\"bird\"]"),
    ("[routes.kernel]", "covering", "covering = true"),
    ("[[peers]]", "name", "name = \"node-x\""),
    ("[[peers]]", "address", "address = \"203.0.113.13\""),
    ("[[peers]]", "prefixes", "prefixes = [\"198.18.3.0/24\"]"),
    ("[[peers]]", "encapsulation", "encapsulation = \"ipip\""),
    ("[[peers]]", "encapsulate", "encapsulate = \"cross-subnet\""),
    ("[[peers]]", "vtep_mac", "vtep_mac = \"02:76:cb:00:71:0c\""),
    ("[[routes.static]]", "prefix", "prefix = \"198.18.98.0/24\""),
    ("[[routes.static]]", "to", "to = \"unreachable\""),
    ("[[routes.static]]", "name", "to = \"peer\"\nname = \"node-b\""),
];

/// A row of the page.
#[derive(Debug, Clone)]
struct Documented {
    section: String,
    key: String,
    default: String,
    changed_by: String,
}

fn documented() -> Vec<Documented> {
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.trim_matches('`').to_owned();
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let cells: Vec<_> = row.trim_end_matches('|').split(" | ").map(str::trim).collect();
        let [key, _, default, changed_by, _] = cells[..] else { panic!("{line}: five cells") };
        rows.push(Documented {
            section: section.clone(),
            key: key.trim_end_matches('`').to_owned(),
            default: default.to_owned(),
            changed_by: changed_by.to_owned(),
        });
    }
    rows
}

/// The keys that the parser expects where this text has the unknown one `zzz`.
fn known(text: &str) -> BTreeSet<String> {
    let problems = Config::parse("f", text).expect_err("zzz is no key");
    let unknown = problems.iter().find(|problem| problem.message.starts_with("unknown key"));
    let list = &unknown.expect("it is named").message;
    let list = list.split_once("expected one of ").expect("the others are listed").1;
    list.split(", ").map(str::to_owned).collect()
}

/// The file of `SECTIONS`, one section of which has these lines in place of its own for those keys.
fn file_with(section: &str, lines: &str) -> String {
    let key_of = |line: &str| line.split(" = ").next().map(str::to_owned);
    let replaced: BTreeSet<_> = lines.lines().filter_map(key_of).collect();
    let mut text = String::new();
    for (header, own) in SECTIONS {
        text.push_str(header);
        text.push('\n');
        let is_it = header == section;
        for line in own.lines() {
            if !(is_it && key_of(line).is_some_and(|key| replaced.contains(&key))) {
                text.push_str(line);
                text.push('\n');
            }
        }
        if is_it {
            text.push_str(lines);
            text.push('\n');
        }
    }
    text
}

fn parsed(text: &str) -> Config {
    match Config::parse("f", text) {
        Ok(config) => config,
        Err(problems) => panic!("{text}\n{problems:?}"),
    }
}

#[test]
fn the_page_has_every_section_and_no_other() {
    let mut sections: BTreeSet<_> = known("zzz = 1\n[node]\n");
    sections.remove("routes");
    sections.extend(known("[routes]\nzzz = 1\n").iter().map(|name| format!("routes.{name}")));
    let bare = |section: &str| section.trim_matches(['[', ']']).to_owned();
    let on_page: BTreeSet<_> = documented().iter().map(|row| bare(&row.section)).collect();
    assert_eq!(on_page, sections);
    let judged: BTreeSet<_> = SECTIONS.iter().map(|(section, _)| bare(section)).collect();
    assert_eq!(judged, sections, "every section is judged below");
}

#[test]
fn the_page_has_every_key_and_no_other() {
    let mut on_page: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in documented() {
        let is_new = on_page.entry(row.section.clone()).or_default().insert(row.key.clone());
        assert!(is_new, "{} {} stands there twice", row.section, row.key);
    }
    for (section, _) in SECTIONS {
        let read = known(&file_with(section, "zzz = 1"));
        assert_eq!(on_page.get(section), Some(&read), "{section}");
    }
}

#[test]
fn a_key_with_the_default_on_the_page_changes_nothing() {
    let without = parsed(&file_with("", ""));
    let mut spelled = 0;
    for row in documented() {
        let Some(default) = row.default.strip_prefix('`').and_then(|text| text.split_once('`'))
        else {
            continue;
        };
        let line = format!("{} = {}", row.key, default.0);
        let mut with = parsed(&file_with(&row.section, &line));
        with.origin = without.origin.clone();
        assert_eq!(with, without, "{} {line}", row.section);
        spelled += 1;
    }
    assert!(spelled >= 25, "only {spelled} defaults are values");
}

#[test]
fn the_page_says_of_every_key_whether_a_reload_takes_it_over() {
    let old = parsed(&file_with("", ""));
    for row in documented() {
        let change = CHANGES
            .iter()
            .find(|(section, key, _)| (*section, *key) == (row.section.as_str(), row.key.as_str()));
        let Some((section, key, lines)) = change else {
            panic!("{} {}: another value is missing above", row.section, row.key)
        };
        let new = parsed(&file_with(section, lines));
        let as_before = Config { origin: new.origin.clone(), ..old.clone() };
        assert_ne!(as_before, new, "{section} {key}: the other value is the same");
        let restart = old.node != new.node || !needs_restart(&old, &new).is_empty();
        let expected = if restart { "restart" } else { "reload" };
        assert_eq!(row.changed_by, expected, "{section} {key}");
    }
}
