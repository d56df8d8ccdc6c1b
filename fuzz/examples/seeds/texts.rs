//! Seeds of what is read as text, or as messages of the kernel.
//!
//! Enters: nothing. Leaves: names and files of seeds, to `main`.

use serde_json::json;

/// Names of seeds and their bytes.
pub type Seeds = Vec<(&'static str, Vec<u8>)>;

/// The shipped file, and files of what it has not.
pub fn configurations() -> Seeds {
    let shipped = include_str!("../../../config/vswitch.toml");
    // Nothing but what is in force: comments would be most of what is mutated.
    let bare: String = shipped
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .flat_map(|line| [line, "\n"])
        .collect();
    let node = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\", \"fd00:18:1::/64\"]\n\
        cluster_prefixes = [\"198.18.0.0/16\", \"fd00:18::/32\"]\n";
    let with = |text: &str| format!("{node}{text}").into_bytes();
    let uplink = "[uplink]\ninterface = \"eth0\"\naddress = \"198.51.100.11\"\n";
    vec![
        ("shipped", bare.into_bytes()),
        ("alone", with("")),
        (
            "peers",
            with(&format!(
                "{uplink}[overlay]\nencapsulation = \"ipip\"\naccept = [\"vxlan\"]\npod_mtu = 1400\n\
                 [[peers]]\nname = \"b\"\naddress = \"203.0.113.12\"\n\
                 prefixes = [\"198.18.2.0/24\", \"fd00:18:2::/64\"]\nencapsulation = \"vxlan\"\n\
                 [[peers]]\nname = \"c\"\naddress = \"203.0.113.13\"\nprefixes = [\"198.18.3.0/24\"]\n\
                 [[routes.static]]\nprefix = \"198.18.50.0/24\"\nto = \"peer\"\nname = \"c\"\n\
                 [[routes.static]]\nprefix = \"203.0.113.192/26\"\nto = \"blackhole\"\n\
                 [routes.kernel]\nprefixes = [\"198.18.0.0/16\"]\nprotocols = [\"bird\", 186]\n"
            )),
        ),
        (
            "bridged",
            with(&format!(
                "{uplink}[attachment]\nmode = \"bridged\"\n[bridge]\nvni = 20\n\
                 vteps = [\"198.51.100.12\"]\nfdb_max = 100\n[workers]\ncores = [0, 1]\nframes = 512\n\
                 [metrics]\nlisten = \"127.0.0.1:9750\"\n[host]\ninterface = \"vsw0\"\n"
            )),
        ),
        (
            "policies",
            with(
                "[[policies]]\nname = \"db\"\npods = [\"shop/db\"]\n[[policies.ingress]]\n\
                 from = [\"shop/web\", \"198.18.9.0/24\"]\nports = [\"tcp/5432\"]\n",
            ),
        ),
        ("wrong", with("[uplink]\ninterface = 7\n[nothing]\n[[peers]]\nname = \"\"\n")),
        ("no-toml", b"[node\nname".to_vec()),
    ]
}

/// Transactions of every kind, and files that are damaged.
pub fn journals() -> Seeds {
    let lease = json!({ "edit": "lease",
        "attachment": { "container_id": "c1", "ifname": "eth0" },
        "lease": { "netns": "/run/netns/p", "mode": "routed", "addresses": ["198.18.1.2/32"],
            "gateways": ["198.18.1.1"], "mac": "02:00:00:00:00:01", "mtu": 1450, "attached": true } });
    let free =
        json!({ "edit": "no-lease", "attachment": { "container_id": "c1", "ifname": "eth0" } });
    let peer = json!({ "edit": "peer", "source": "kubernetes", "peer": { "name": "b",
        "address": "203.0.113.12", "prefixes": ["198.18.2.0/24"] } });
    let entries = json!([
        { "edit": "fdb", "bridge": "default", "mac": "02:00:00:00:00:02", "vtep": "198.51.100.12" },
        { "edit": "no-fdb", "bridge": "default", "mac": "02:00:00:00:00:02" },
        { "edit": "neighbor", "bridge": "default", "address": "198.18.1.9", "mac": "02:00:00:00:00:02" },
        { "edit": "path-mtu", "address": "203.0.113.12", "mtu": 1400 },
        { "edit": "own-addresses", "v4": "198.51.100.11" },
        { "edit": "boot", "id": "1" },
        { "edit": "cursor", "address": "198.18.1.2" },
        { "edit": "policies-are", "sum": 1 },
    ]);
    let lines = |texts: &[String]| texts.join("\n").into_bytes();
    let damaged = |place: u16, how: u8, with: u8, texts: &[String]| {
        let [a, b] = place.to_le_bytes();
        [&[1, a, b, how, with][..], &lines(texts)].concat()
    };
    let one = |edit: &serde_json::Value| json!([edit]).to_string();
    let leases = [one(&lease), one(&free), one(&lease)];
    vec![
        ("leases", damaged(100, 0, 1, &leases)),
        ("leases-cut", damaged(300, 1, 0, &leases)),
        ("peer", damaged(20, 0, 0x20, &[one(&peer), one(&free)])),
        ("entries", damaged(0, 0, 0, &[entries.to_string(), "[]".into()])),
        ("no-line-end", damaged(39, 0, 0x55, &[one(&lease)])),
        ("version-1", b"\0vswitch-journal 1\n0000000000000000 []\n".to_vec()),
        ("newer", b"\0vswitch-journal 3\nwhatever\n".to_vec()),
        ("zeros", vec![0; 64]),
    ]
}

/// Results of other plugins.
pub fn previous_results() -> Seeds {
    let of = |version: u8, result: serde_json::Value| {
        [&[version], result.to_string().as_bytes()].concat()
    };
    let sandbox = "/run/netns/pod";
    vec![
        ("nothing", of(0, json!({}))),
        ("no-object", of(3, json!([]))),
        (
            "loopback",
            of(
                2,
                json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "lo", "sandbox": sandbox }],
                "ips": [{ "address": "127.0.0.1/8", "interface": 0 }],
                "dns": { "nameservers": ["198.18.0.10"] }, "later": { "kept": true } }),
            ),
        ),
        (
            "ours",
            of(
                3,
                json!({ "interfaces": [{ "name": "eth0", "mac": "02:00:00:00:00:09", "sandbox": sandbox,
                "mtu": 1450 }], "ips": [{ "address": "198.18.0.9/32", "gateway": "198.18.0.1", "interface": 0 }],
                "routes": [{ "dst": "0.0.0.0/0", "gw": "198.18.0.1", "mtu": 1400, "advmss": 1360,
                    "priority": 5, "table": 100 }] }),
            ),
        ),
        ("of-other-types", of(1, json!({ "interfaces": 7, "ips": {}, "routes": "x", "dns": [] }))),
    ]
}

/// Datagrams of the kernel: a length of zero is made right by the target.
pub fn datagrams() -> Seeds {
    let message = |kind: u16, payload: &[u8]| {
        let len = (16 + payload.len()) as u32;
        let mut bytes = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[2, 0]].concat();
        bytes.extend([1_u32.to_ne_bytes(), [0; 4]].concat());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let attribute = |kind: u16, value: &[u8]| {
        let len = (4 + value.len()) as u16;
        let mut bytes = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let number = |value: u32| value.to_ne_bytes();
    let done = message(3, &[0; 4]);
    // struct ifinfomsg, ifaddrmsg, ndmsg and rtmsg, each with attributes that are read.
    let link = message(
        16,
        &[
            &[0, 0, 1, 0, 2, 0, 0, 0, 0x43, 0x10, 1, 0, 0, 0, 0, 0][..],
            &attribute(3, b"eth0\0"),
            &attribute(1, &[2, 0, 0, 0, 0, 1]),
            &attribute(4, &number(1500)),
            &attribute(16, &[6]),
            &attribute(18, &attribute(1, b"tun\0")),
        ]
        .concat(),
    );
    let address =
        message(20, &[&[2, 24, 0, 0, 2, 0, 0, 0][..], &attribute(2, &[198, 51, 100, 11])].concat());
    let neighbor = message(
        28,
        &[
            &[2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 1][..],
            &attribute(1, &[198, 51, 100, 1]),
            &attribute(2, &[2, 0, 0, 0, 0, 2]),
        ]
        .concat(),
    );
    let hop = [&[16, 0, 0, 0][..], &number(2), &attribute(5, &[198, 51, 100, 1])].concat();
    let route = message(
        24,
        &[
            &[2, 24, 0, 0, 254, 12, 0, 1, 0, 0, 0, 0][..],
            &attribute(1, &[198, 18, 2, 0]),
            &attribute(6, &number(20)),
            &attribute(15, &number(1000)),
            &attribute(9, &hop),
        ]
        .concat(),
    );
    let side = |source: [u8; 4], destination: [u8; 4]| {
        let ip = [attribute(1, &source), attribute(2, &destination)].concat();
        let ports = [attribute(1, &[17]), attribute(2, &[0, 9]), attribute(3, &[0, 53])].concat();
        [attribute(0x8001, &ip), attribute(0x8002, &ports)].concat()
    };
    let flow = message(
        1 << 8,
        &[
            &[2, 0, 0, 0][..],
            &attribute(0x8001, &side([198, 51, 100, 9], [198, 51, 100, 11])),
            &attribute(0x8002, &side([198, 18, 1, 2], [198, 51, 100, 9])),
            &attribute(12, &[1, 2, 3, 4]),
        ]
        .concat(),
    );
    let table = message(10 << 8 | 2, &[&[1, 0, 0, 0][..], &attribute(1, b"vswitch\0")].concat());
    let generation = message(
        10 << 8 | 15,
        &[&[1, 0, 0, 0][..], &attribute(2, &[0, 0, 1, 2]), &attribute(3, b"nft\0")].concat(),
    );
    let refused = message(2, &[(-2_i32).to_ne_bytes(), [0; 4]].concat());
    let seed = |choice: u8, parts: &[&[u8]]| [&[choice], &parts.concat()[..]].concat();
    vec![
        ("announced", seed(0, &[&link, &address, &neighbor, &route])),
        ("listed", seed(1, &[&link, &address, &neighbor, &route, &done])),
        ("routes", seed(2, &[&route, &route, &done])),
        ("flows", seed(3, &[&flow, &done])),
        ("ruleset", seed(4, &[&table, &generation])),
        ("refused", seed(1, &[&refused])),
        ("raw-refused", seed(2, &[&refused])),
    ]
}
