"""The rules of one benchmark, for the daemon and for its peers.

Usage: rules.py policies KIND COUNT CLIENT SERVER    on standard output
       rules.py services KIND COUNT SERVER
       rules.py moved KIND COUNT SERVER              the middle one of these services has another backend

KIND is `vswitchd` (the content of a request), `nft-linear`, `nft-stateless`, `nft-sets`, or for services
`kube-nft`, `kube-iptables`. The first of a number of policies match other addresses; only the last allows
CLIENT to send to SERVER. Every service has two backends, which are ports of SERVER. What kube-proxy writes
for its modes is written here in its structure: maps of verdicts and a chain for each service and endpoint,
and in iptables one list of all services.
"""

import json
import sys

# Ports of SERVER that CLIENT may speak to: flows of datagrams, and a server of connections.
FLOWS = (20000, 20999)
CONNECTIONS = 4900
# A hundred: the connections of a client to one backend are no more than it has ports.
BACKENDS = range(4901, 5001)
SERVICE_PORT = 80
# Of the network that ports of services' and other pods' addresses are taken from.
FIRST = (198 << 24) + (19 << 16)
TCP, UDP = 6, 17


def main():
    what, kind, count, *rest = sys.argv[1:]
    makers = {
        ("policies", "vswitchd"): policies_vswitchd,
        ("policies", "nft-linear"): lambda *all: policies_nft(*all, stateful=True),
        ("policies", "nft-stateless"): lambda *all: policies_nft(*all, stateful=False),
        ("policies", "nft-sets"): policies_nft_sets,
        ("services", "vswitchd"): services_vswitchd,
        ("services", "kube-nft"): services_nft,
        ("services", "kube-iptables"): services_iptables,
        ("moved", "vswitchd"): moved_vswitchd,
        ("moved", "kube-nft"): moved_nft,
        ("moved", "kube-iptables"): moved_iptables,
    }
    print(makers[what, kind](int(count), *rest))


def address(index):
    return ".".join(str(byte) for byte in (FIRST + index).to_bytes(4, "big"))


def others(count):
    """Source, protocol and port of what the first rules allow."""
    for index in range(count):
        yield address(index), (TCP, UDP)[index % 2], 1024 + index * 7 % 40000


def policies_vswitchd(count, client, _server):
    def rule(index, source, ports):
        ports = [{"protocol": protocol, "ports": [first, last]} for protocol, first, last in ports]
        peers = {"of": {"blocks": [{"cidr": f"{source}/32"}]}}
        return {"index": index, "action": "allow", "peers": peers, "ports": ports}

    rules = [
        rule(index, source, [(protocol, port, port)])
        for index, (source, protocol, port) in enumerate(others(count - 1))
    ]
    rules.append(rule(count - 1, client, [(UDP, *FLOWS), (TCP, CONNECTIONS, CONNECTIONS)]))
    return json.dumps(
        {
            "part": 0,
            "commit": True,
            "rule_sets": [{"id": "many", "policy": "bench/many", "tier": "network-policy", "rules": rules}],
            "subjects": [
                {"pod": pod("p1")},
                {"pod": pod("p2"), "ingress": ["many"]},
            ],
        }
    )


def pod(name):
    return {"namespace": "demo", "name": name, "uid": f"uid-of-{name}"}


def policies_nft(count, client, server, stateful):
    word = {TCP: "tcp", UDP: "udp"}
    lines = [
        f"ip saddr {source} {word[protocol]} dport {port} accept"
        for source, protocol, port in others(count - 1)
    ]
    lines += [
        f"ip saddr {client} udp dport {FLOWS[0]}-{FLOWS[1]} accept",
        f"ip saddr {client} tcp dport {CONNECTIONS} accept",
    ]
    return filter_table("", lines, server, stateful)


def policies_nft_sets(count, client, server):
    word = {TCP: "tcp", UDP: "udp"}
    elements = [f"{source} . {word[protocol]} . {port}" for source, protocol, port in others(count - 1)]
    elements += [f"{client} . udp . {FLOWS[0]}-{FLOWS[1]}", f"{client} . tcp . {CONNECTIONS}"]
    allowed = (
        "set allowed { type ipv4_addr . inet_proto . inet_service; flags interval;\n"
        f"elements = {{ {', '.join(elements)} }} }}"
    )
    return filter_table(allowed, ["ip saddr . meta l4proto . th dport @allowed accept"], server, True)


def filter_table(sets, lines, server, stateful):
    established = "ct state established,related accept\n" if stateful else ""
    # Without states the answers are told by their source.
    return (
        f"table ip policies {{\n{sets}\nchain subject {{\n" + "\n".join(lines) + "\ndrop\n}\n"
        "chain forward { type filter hook forward priority 0; policy accept;\n"
        f"{established}ip daddr {server} jump subject\n}}\n}}"
    )


def backends(index):
    first = 2 * index % len(BACKENDS)
    return BACKENDS[first : first + 2]


def service(index):
    return f"service-{index:05}", address(index)


def spec(index, server, ports):
    name, virtual = service(index)
    return {
        "name": f"bench/{name}",
        "protocol": "TCP",
        "port": SERVICE_PORT,
        "addresses": [virtual],
        "backends": [{"address": server, "port": port} for port in ports],
    }


def services_vswitchd(count, server):
    services = [spec(index, server, backends(index)) for index in range(count)]
    return json.dumps({"complete": False, "services": services, "gone": []})


def moved_vswitchd(count, server):
    services = [spec(count // 2, server, backends(count // 2)[1:])]
    return json.dumps({"complete": False, "services": services, "gone": []})


def nft_service(index, server, ports):
    name, virtual = service(index)
    endpoints = [f"endpoint-{name}-{port}" for port in ports]
    lines = [f"add chain ip kube-proxy {name}"]
    lines += [f"add chain ip kube-proxy {endpoint}" for endpoint in endpoints]
    choice = ", ".join(f"{number} : goto {endpoint}" for number, endpoint in enumerate(endpoints))
    lines += [
        f"flush chain ip kube-proxy {name}",
        f"add rule ip kube-proxy {name} ip daddr {virtual} tcp dport {SERVICE_PORT} "
        "ip saddr != 198.18.0.0/15 jump mark-for-masquerade",
        f"add rule ip kube-proxy {name} numgen random mod {len(endpoints)} vmap {{ {choice} }}",
    ]
    for endpoint, port in zip(endpoints, ports):
        lines += [
            f"flush chain ip kube-proxy {endpoint}",
            f"add rule ip kube-proxy {endpoint} ip saddr {server} jump mark-for-masquerade",
            f"add rule ip kube-proxy {endpoint} meta l4proto tcp dnat to {server}:{port}",
        ]
    return lines


def services_nft(count, server):
    lines = [
        "add table ip kube-proxy",
        "add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }",
        "add chain ip kube-proxy mark-for-masquerade",
        "add rule ip kube-proxy mark-for-masquerade meta mark set meta mark or 0x4000",
        "add chain ip kube-proxy services",
        "add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips",
        "add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority dstnat; }",
        "add rule ip kube-proxy nat-prerouting jump services",
        "add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority srcnat; }",
        "add rule ip kube-proxy nat-postrouting meta mark and 0x4000 == 0 return",
        "add rule ip kube-proxy nat-postrouting meta mark set meta mark xor 0x4000",
        "add rule ip kube-proxy nat-postrouting masquerade fully-random",
    ]
    for index in range(count):
        lines += nft_service(index, server, backends(index))
    elements = ", ".join(
        f"{virtual} . tcp . {SERVICE_PORT} : goto {name}" for name, virtual in map(service, range(count))
    )
    lines.append(f"add element ip kube-proxy service-ips {{ {elements} }}")
    return "\n".join(lines)


def moved_nft(count, server):
    name, _ = service(count // 2)
    gone, left = backends(count // 2)
    gone = f"endpoint-{name}-{gone}"
    lines = nft_service(count // 2, server, [left])
    return "\n".join([*lines, f"flush chain ip kube-proxy {gone}", f"delete chain ip kube-proxy {gone}"])


def iptables_service(index, server, ports):
    """The chains of a service, and their rules, as iptables-restore reads them."""
    chain = f"KUBE-SVC-{index:05}"
    endpoints = [f"KUBE-SEP-{index:05}-{port}" for port in ports]
    rules = [
        f"-A {chain} -m statistic --mode random --probability {1 / (len(endpoints) - number):.10f} -j {endpoint}"
        if number + 1 < len(endpoints)
        else f"-A {chain} -j {endpoint}"
        for number, endpoint in enumerate(endpoints)
    ]
    for endpoint, port in zip(endpoints, ports):
        rules += [
            f"-A {endpoint} -s {server}/32 -j KUBE-MARK-MASQ",
            f"-A {endpoint} -p tcp -m tcp -j DNAT --to-destination {server}:{port}",
        ]
    return [f":{name} - [0:0]" for name in (chain, *endpoints)], rules


def services_iptables(count, server):
    chains = [":KUBE-SERVICES - [0:0]", ":KUBE-MARK-MASQ - [0:0]", ":KUBE-POSTROUTING - [0:0]"]
    rules = [
        "-A PREROUTING -j KUBE-SERVICES",
        "-A POSTROUTING -j KUBE-POSTROUTING",
        "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    ]
    for index in range(count):
        _, virtual = service(index)
        more, its = iptables_service(index, server, backends(index))
        chains += more
        rules += its
        matches = f"-d {virtual}/32 -p tcp -m tcp --dport {SERVICE_PORT}"
        rules += [
            f"-A KUBE-SERVICES ! -s 198.18.0.0/15 {matches} -j KUBE-MARK-MASQ",
            f"-A KUBE-SERVICES {matches} -j KUBE-SVC-{index:05}",
        ]
    return "\n".join(["*nat", *chains, *rules, "COMMIT"])


def moved_iptables(count, server):
    """What kube-proxy writes since it writes what has changed only; with --noflush."""
    chains, rules = iptables_service(count // 2, server, backends(count // 2)[1:])
    return "\n".join(["*nat", *chains, *rules, "COMMIT"])


if __name__ == "__main__":
    main()
