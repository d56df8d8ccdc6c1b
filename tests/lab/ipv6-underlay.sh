#!/bin/bash
# An underlay without any IPv4. Two of our nodes behind a router, which they know by its link-local
# address alone, and node-k, whose kernel does VXLAN over IPv6 as it does by default: with UDP
# checksums, and none accepted without. The pods of node-a and node-k have both families, those of
# node-b IPv6 alone. Then, by direct routing, node-a's pods are on-link for the router.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"
# shellcheck source=scripts/lib/uplink_checks.sh
. "$root/scripts/lib/uplink_checks.sh"

# 1500 less 40 for IPv6, 8 for UDP, 8 for VXLAN, 14 for the inner Ethernet header.
readonly MTU=1430
# See node6_config.
readonly NODE6_FAMILIES=6

main() {
    local lacks
    lacks=$(kernel_vxlan_lacks)
    if [[ -n $lacks ]]; then
        skip "an IPv6 underlay" "this machine lacks $lacks"
        report_end
        exit
    fi
    setup_binaries
    lab_trap
    lab_create
    underlay6_up node-a node-b node-k outside
    kernel_node6_up
    node6_up node-a vxlan node-b node-k
    node6_up node-b vxlan node-a node-k
    pod_plug node-a a1
    pod_plug node-b b1
    kernel_pod_plug k1 11
    in_ip k1 link set eth0 mtu "$MTU"
    servers_up a1 b1 k1 outside
    everyone_talks
    superframes
    sizes
    what_is_shown
    on_link
    report_end
}

everyone_talks() {
    local from to
    check "b1 has no IPv4 address" test -z "$(address b1 4)"
    for from in a1 b1 k1; do
        for to in a1 b1 k1; do
            [[ $from != "$to" ]] || continue
            check "$from pings $to over IPv6" pings "$from" "$(address "$to" 6)"
            check "$from fetches from $to over IPv6" talks "$from" "$to" 6
        done
    done
    for from in a1 k1; do
        to=$([[ $from == a1 ]] && echo k1 || echo a1)
        check "$from pings $to over IPv4" pings "$from" "$(address "$to" 4)"
        check "$from fetches from $to over IPv4" talks "$from" "$to" 4
    done
    check "node-a fetches from b1" talks node-a b1 6
    check "node-b fetches from a1" talks node-b a1 6
    check "node-b fetches from its own pod" talks node-b b1 6
    check "b1 pings its gateway" pings b1 "$(gateway6 node-b)"
    check "b1 fetches from outside, seen as node-b" \
        sees b1 "${HOST6[outside]}" "${HOST6[node-b]} ${HOST6[outside]}"
    check "outside still reaches node-b's NIC" pings outside "${HOST6[node-b]}"
}

# Of the kinds of uplink one hands them to the kernel whole inside of VXLAN.
superframes() {
    local before
    before=$(counted node-b tx)
    check "a file from b1 to a1" talks a1 b1 6
    if [[ ${VSWITCH_UPLINK:-} == offload ]]; then
        check "its superframes leave whole" at_least "$WHOLE" "$before" "$(counted node-b tx)"
    else
        check_not "its superframes leave cut" at_least $((FULL + 1)) "$before" "$(counted node-b tx)"
    fi
}

sizes() {
    check "a1's MTU leaves room for the longer header" has_mtu a1
    check "so does b1's" has_mtu b1
    check "IPv6 of full size, a1 to b1" full_size a1 "$(address b1 6)" $((MTU - 48))
    check "IPv6 of full size, b1 to k1" full_size b1 "$(address k1 6)" $((MTU - 48))
    check "IPv6 of full size, k1 to b1" full_size k1 "$(address b1 6)" $((MTU - 48))
    check "IPv4 of full size, a1 to k1" full_size a1 "$(address k1 4)" $((MTU - 28))
    check "IPv4 of full size, k1 to a1" full_size k1 "$(address a1 4)" $((MTU - 28))
    # A pod that does not know better is told.
    in_ip a1 link set eth0 mtu 1500
    check "one byte more of IPv6 is answered with the MTU" too_big a1 "$(address b1 6)" $((MTU - 47))
    check "one byte more of IPv4 is answered with the MTU" too_big a1 "$(address k1 4)" $((MTU - 27))
    check "after which a file passes" talks b1 a1 6
    in_ip a1 link set eth0 mtu "$MTU"
}

has_mtu() { in_ip "$1" -json link show dev eth0 | jq -e --argjson mtu "$MTU" '.[0].mtu == $mtu'; }

# full_size FROM ADDRESS PAYLOAD
full_size() { in_ns "$1" ping -q -n -M "do" -s "$3" -c 2 -i 0.2 -w 3 "$2"; }

# too_big FROM ADDRESS PAYLOAD
too_big() {
    local said
    said=$(in_ns "$1" ping -n -M "do" -s "$3" -c 1 -W 1 "$2" 2>&1) || true
    grep -Eq "mtu ?= ?$MTU" <<<"$said" || { echo "$said" && return 1; }
}

what_is_shown() {
    check "the underlay carries VXLAN over IPv6, with flow label and checksum" \
        wire "udp port 4789 and ip6[0:4] & 0xfffff != 0 and ip6[46:2] != 0" \
        "IP6 ${HOST6[node-a]}.[0-9]+ > ${HOST6[node-b]}.4789: VXLAN, .* vni $VNI" \
        lan-a pings a1 "$(address b1 6)"
    check "the peer is ready by the router's link-local address" shows_next_hop
    check "a trace shows the outer header" traces a1 "$(address b1 6)"
    check "node-a accounts for every packet" accounts node-a
    check "node-b accounts for every packet" accounts node-b
    check "nothing was dropped for its outer header" nothing_dropped
}

shows_next_hop() {
    ctl node-a show peers --json |
        jq -e 'any(.[]; .name == "node-b" and .next_hop == "fe80::1" and .state == "ready")' ||
        { ctl node-a show peers && return 1; }
}

traces() {
    local seen
    seen=$(ctl node-a trace --from "demo/$1" --to "$2" --proto tcp --dport 80)
    grep -q "${HOST6[node-a]}.* > ${HOST6[node-b]}.4789: UDP VXLAN" <<<"$seen" ||
        { echo "$seen" && return 1; }
}

nothing_dropped() {
    local node
    for node in node-a node-b; do
        ctl "$node" show drops --json |
            jq -e 'all(.reasons[]; .reason | startswith("outer-") or . == "unknown-peer" | not)' ||
            { ctl "$node" show drops && return 1; }
    done
}

# The router has node-a's pod prefixes as its own link's, and asks there for each pod.
on_link() {
    lab_stop vswitchd-node-b
    lab_stop vswitchd-node-a
    on_link_config >"$(node_dir node-a)/vswitch.toml"
    in_ip router -6 route add "${POD_PREFIX6[node-a]}" dev lan-a
    in_ip router address add 198.51.100.1/25 dev lan-a
    in_ip router route add "${POD_PREFIX4[node-a]}" dev lan-a
    in_ip node-a address add "${HOST_ADDRESS[node-a]}/25" dev eth0
    check "node-a starts again, for direct routing" node_start node-a
    pod_plug node-a a2
    servers_up a2
    check "the router pings a pod that it found by neighbour discovery" pings router "$(address a2 6)"
    check "and one that it found by ARP" pings router "$(address a2 4)"
    check "the router was given the NIC's MAC" same_mac
    check "nobody answers for a pod that is not there" unanswered "${POD_PREFIX6[node-a]%/64}99"
    check "the router's own neighbour is still Linux's to answer" pings router "${HOST6[node-a]}"
}

on_link_config() {
    # A router that answers in the pods' stead needs no translation on the way back.
    node_config node-a direct | sed '/^\[uplink\]/a proxy_neighbors = true'
    printf '\n[host]\nmasquerade = false\n'
}

same_mac() {
    local nic
    nic=$(in_ip node-a -json link show dev eth0 | jq -r '.[0].address')
    in_ip router -json neigh show "$(address a2 6)" dev lan-a | jq -e --arg mac "$nic" 'any(.[]; .lladdr == $mac)' &&
        in_ip router -json neigh show "$(address a2 4)" dev lan-a | jq -e --arg mac "$nic" 'any(.[]; .lladdr == $mac)'
}

unanswered() { ! in_ns router ping -q -n -c 1 -W 1 "$1"; }

# vtep_mac6_of ADDRESS: 02:77, and the last 32 bits XORed with the FNV-1a hash of the others.
vtep_mac6_of() {
    /usr/bin/python3 -c 'import ipaddress, sys
address = ipaddress.IPv6Address(sys.argv[1]).packed
value = 0x811C9DC5
for byte in address[:12]:
    value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
value ^= int.from_bytes(address[12:], "big")
print("02:77:" + ":".join(f"{byte:02x}" for byte in value.to_bytes(4, "big")))' "$1"
}

# As kernel_node_up has it, over IPv6.
kernel_node6_up() {
    local node peer4 peer6 mac
    KERNEL_VXLAN[node-k]=vxlan0
    in_ip node-k link add vxlan0 type vxlan id "$VNI" dev eth0 local "${HOST6[node-k]}" \
        dstport 4789 nolearning
    in_ip node-k address add 198.18.3.0/32 dev vxlan0
    in_ip node-k address add fd00:18:3::/128 dev vxlan0
    in_ip node-k link set vxlan0 up
    for node in node-a node-b; do
        peer4=${POD_PREFIX4[$node]%/24}
        peer6=${POD_PREFIX6[$node]%/64}
        mac=$(vtep_mac6_of "${HOST6[$node]}")
        in_ns node-k bridge fdb add "$mac" dev vxlan0 dst "${HOST6[$node]}"
        in_ip node-k -6 neigh add "$peer6" lladdr "$mac" dev vxlan0 nud permanent
        in_ip node-k -6 route add "${POD_PREFIX6[$node]}" via "$peer6" dev vxlan0 onlink
        [[ $node != node-b ]] || continue
        in_ip node-k neigh add "$peer4" lladdr "$mac" dev vxlan0 nud permanent
        in_ip node-k route add "${POD_PREFIX4[$node]}" via "$peer4" dev vxlan0 onlink
    done
    in_ip node-k link add br0 type bridge
    in_ip node-k address add "$(gateway4 node-k)/24" dev br0
    in_ip node-k address add "$(gateway6 node-k)/64" dev br0
    in_ip node-k link set br0 mtu "$MTU" up
}

main "$@"
