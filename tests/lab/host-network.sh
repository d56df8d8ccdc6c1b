#!/bin/bash
# Pods and what runs in the nodes' own network, for each encapsulation: who sees whom at which
# address, over TCP and UDP, whoever speaks first. Both nodes drop what is invalid to conntrack, as
# kube-proxy has them do, so that no connection may pass a kernel one way alone.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local mode
    setup_binaries
    lab_trap
    for mode in vxlan ipip direct; do
        lab_create
        two_nodes_up "$mode"
        node_firewall node-a
        node_firewall node-b
        pod_plug node-a a1
        pod_plug node-b b1
        servers_up a1 b1 node-a node-b
        who_servers_up a1 b1 node-a node-b
        own_node "$mode"
        other_node "$mode"
        bound "$mode"
        if [[ $mode == direct ]]; then
            kernel_route
            strict_nic
        fi
        check "$mode: every packet of node-a is accounted for" accounts node-a
        check "$mode: every packet of node-b is accounted for" accounts node-b
        lab_down
    done
    report_end
}

# both WHAT FROM ADDRESS WANTED: over TCP and UDP.
both() {
    check "$1, TCP" sees "$2" "$3" "$4"
    check "$1, UDP" sees_by_udp "$2" "$3" "$4"
}

own_node() {
    local mode=$1 pod=a1 node=node-a family
    local underlay=${HOST_ADDRESS[$node]} own
    own=$(address $pod 4)
    both "$mode: a pod and its node's underlay address" $pod "$underlay" "$own $underlay"
    for family in 4 6; do
        own=$(address $pod $family)
        both "$mode: a pod and its gateway, IPv$family" \
            $pod "$(address $node $family)" "$own $(address $node $family)"
        # As kubelet's probes do.
        both "$mode: a node and its pod, IPv$family" $node "$own" "$(address $node $family) $own"
        both "$mode: a pod and itself, IPv$family" $pod "$own" "$own $own"
    done
}

other_node() {
    local mode=$1 pair pod node family underlay own seen
    for pair in 'a1 node-b node-a' 'b1 node-a node-b'; do
        read -r pod node at <<<"$pair"
        own=$(address "$pod" 4)
        underlay=${HOST_ADDRESS[$node]}
        # Through a tunnel the underlay need not let pods' addresses pass.
        seen=${HOST_ADDRESS[$at]}
        [[ $mode != direct ]] || seen=$own
        both "$mode: $pod and $node's underlay address" "$pod" "$underlay" "$seen $underlay"
        for family in 4 6; do
            own=$(address "$pod" "$family")
            both "$mode: $pod and $node's gateway address, IPv$family" \
                "$pod" "$(address "$node" "$family")" "$own $(address "$node" "$family")"
            both "$mode: $node and $pod, IPv$family" \
                "$node" "$own" "$(address "$node" "$family") $own"
        done
    done
}

# A program of a node that is bound to its underlay address, as those of the node's network may be.
bound() {
    local a=${HOST_ADDRESS[node-a]} b1
    b1=$(address b1 4)
    check "$1: node-a by its underlay address and b1, TCP" sees_bound node-a "$a" "$b1"
    check "$1: node-a by its underlay address and b1, UDP" sees_bound_by_udp node-a "$a" "$b1"
    check "$1: node-a by its underlay address and b1, ping" \
        in_ns node-a ping -q -n -I "$a" -c 2 -i 0.2 -w 2 "$b1"
}

# sees_bound NAME OWN_ADDRESS ADDRESS
sees_bound() {
    local seen
    seen=$(in_ns "$1" curl -sS --noproxy '*' --interface "$2" --max-time 5 "$(url "$3" who)") || return 1
    [[ $seen == "$2 $3" ]] || { echo "the two ends see '$seen'" && return 1; }
}

# sees_bound_by_udp NAME OWN_ADDRESS ADDRESS
sees_bound_by_udp() {
    local seen
    seen=$(in_ns "$1" /usr/bin/python3 "$root/scripts/lib/udp_who.py" ask "$3" "$SERVER_PORT" 0 "$2") ||
        return 1
    [[ $seen == "$2 $3" ]] || { echo "the two ends see '$seen'" && return 1; }
}

# A route as BIRD and FRR set it leads past node-a's own switch; its processes then speak from the
# underlay address.
kernel_route() {
    local a=${HOST_ADDRESS[node-a]} b1
    b1=$(address b1 4)
    in_ip node-a route add "${POD_PREFIX4[node-b]}" via "${LAN_GATEWAY[lan-a]}"
    both "a kernel's route: node-a and b1" node-a "$b1" "$a $b1"
    both "a kernel's route: b1 and node-a" b1 "$a" "$b1 $a"
    check "a kernel's route: a1 and b1" sees a1 "$b1" "$(address a1 4) $b1"
    in_ip node-a route del "${POD_PREFIX4[node-b]}"
}

# node-a's kernel expects b1 at its host port, not on its NIC.
strict_nic() {
    local a=${HOST_ADDRESS[node-a]}
    in_ns node-a sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0
    check "a NIC that lets all pass is none of status's concern" not_strict
    in_ns node-a sysctl -qw net.ipv4.conf.eth0.rp_filter=1
    check "a strict NIC is named by status" named_strict
    check "and does keep pods from the node" refused_udp b1 "$a"
    in_ns node-a sysctl -qw net.ipv4.conf.eth0.rp_filter=2
    check "as it says, 2 is enough" sees_by_udp b1 "$a" "$(address b1 4) $a"
}

named_strict() { ctl node-a status | grep 'net.ipv4.conf.eth0.rp_filter=2'; }

not_strict() { ! named_strict; }

refused_udp() { ! fetch_by_udp "$1" "$2"; }

main "$@"
