#!/bin/bash
# Two nodes change how they reach each other under traffic, one after the other: VXLAN, IPIP, no
# encapsulation, VXLAN with another port and identifier. No datagram is lost, no transfer is damaged,
# and the pods' MTU follows. Then the underlay's routes decide, across subnets alone.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly PATIENCE_SECONDS=5
# Port and identifier of the last stage; every node hears them before the first one uses them.
readonly NEW_PORT=8472 NEW_VNI=7
# Datagrams that each pod hears before the next change.
readonly PER_STAGE=400

main() {
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    # For the time without encapsulation.
    underlay_route_pods node-a
    underlay_route_pods node-b
    pod_plug node-a a1
    pod_plug node-b b1
    servers_up a1 b1
    change node-a vxlan 'encapsulation = "vxlan"' >/dev/null
    change node-b vxlan 'encapsulation = "vxlan"' >/dev/null
    flows_up
    transfers_up
    stage vxlan 1450
    stage ipip 1480 'encapsulation = "ipip"'
    stage direct 1500 'encapsulation = "ipip"' 'encapsulate = "never"'
    stage vxlan 1450 'encapsulation = "vxlan"' "vxlan_port = $NEW_PORT" "vni = $NEW_VNI"
    check "port $NEW_PORT and VNI $NEW_VNI are on the wire" \
        wire "udp port $NEW_PORT" "(vni|instance) $NEW_VNI" lan-b moved_on
    transfers_end
    flows_end
    across_subnets
    accounting
    report_end
}

accounting() {
    local node
    for node in node-a node-b; do check "$node accounts for every packet" accounts "$node"; done
}

# stage MODE POD_MTU [LINE…]: both nodes, the second while the first does otherwise already.
stage() {
    local mode=$1 mtu=$2 node
    shift 2
    for node in node-a node-b; do
        (($# == 0)) || check "$node changes to $mode" change "$node" "$mode" "$@"
        check "datagrams go on both ways" moved_on
    done
    for node in node-a node-b; do
        check "pods of $node are adjusted" node_adjust "$node"
        check "to an MTU of $mtu" link_has_mtu "${node/node-/}1" eth0 "$mtu"
        check "and the host port" link_has_mtu "$node" vsw0 "$mtu"
    done
}

# change NODE MODE LINE…: its [overlay] becomes these lines; beside them it hears the last stage.
change() {
    local node=$1 mode=$2
    shift 2
    node_overlay "$node" "$@" "accept_vxlan_ports = [$NEW_PORT]" "accept_vnis = [$NEW_VNI]" &&
        in_force "$node" "$mode"
}

# in_force NODE MODE [REASON]
in_force() {
    ctl "$1" show peers --json | jq -e --arg mode "$2" --arg reason "${3:-}" \
        'all(.[]; .in_force == $mode and (.reason | contains($reason)))'
}

ready() { ctl "$1" show peers --json | jq -e 'all(.[]; .state == "ready")'; }

# A flow for each family, between the two pods.
flows_up() {
    local family pod other
    for family in 4 6; do
        for pod in a1 b1; do
            other=b1
            [[ $pod == a1 ]] || other=a1
            lab_spawn "flow$family-$pod" "$pod" /usr/bin/python3 "$root/tests/lab/sequence_flow.py" \
                "$(address "$pod" "$family")" "$(address "$other" "$family")" "500$family"
        done
    done
    check "datagrams flow" moved_on
}

# Both nodes' pods got so many more packets.
moved_on() {
    local before_a before_b
    before_a=$(delivered node-a)
    before_b=$(delivered node-b)
    wait_until 20 past "$((before_a + PER_STAGE))" "$((before_b + PER_STAGE))"
}

past() { (($(delivered node-a) > $1 && $(delivered node-b) > $2)); }

delivered() { ctl "$1" show ports --json | jq '[.[] | select(.kind == "pod") | .counters.tx_packets] | add'; }

flows_end() {
    local family pod
    # What is on its way arrives.
    moved_on
    for family in 4 6; do
        for pod in a1 b1; do
            lab_signal "flow$family-$pod" TERM
            check "none of the datagrams to $pod was lost, IPv$family" lost_nothing "flow$family-$pod"
        done
    done
}

lost_nothing() {
    cat "$LAB_DIR/logs/$1.log"
    grep -Eq '^heard [0-9]{4,} missing 0 twice 0 ' "$LAB_DIR/logs/$1.log"
}

# One transfer after the other, slowly, so that each lives through changes.
transfers_up() {
    : >"$LAB_DIR/transfers"
    (
        while [[ ! -e $LAB_DIR/transfers.end ]]; do
            sum=$(in_ns a1 curl -sS --noproxy '*' --limit-rate 600k --max-time 60 \
                "$(url "$(address b1 4)" blob)" | sha256sum)
            if [[ $sum == "$(cat "$LAB_DIR/blob.sha256")" ]]; then
                echo whole
            else
                echo damaged
            fi >>"$LAB_DIR/transfers"
        done
    ) &
    transfers_pid=$!
}

transfers_end() {
    : >"$LAB_DIR/transfers.end"
    wait "$transfers_pid"
    check "every transfer arrived whole" all_whole
}

all_whole() {
    sort "$LAB_DIR/transfers" | uniq -c
    grep -q whole "$LAB_DIR/transfers" && ! grep -q damaged "$LAB_DIR/transfers"
}

# The router answers ARP for node-b, so that a route on the link is one that works.
across_subnets() {
    in_ns router sysctl -qw net.ipv4.conf.lan-a.proxy_arp=1
    check "across subnets, behind the router: encapsulated" \
        change node-a vxlan 'encapsulation = "vxlan"' 'encapsulate = "cross-subnet"'
    check "and that is why" in_force node-a vxlan 'behind router'
    check "b1 is reached" pings a1 "$(address b1 4)"
    in_ip node-a route add "${HOST_ADDRESS[node-b]}/32" dev eth0
    check "a route on the link, and the tunnel is left" \
        wait_until "$PATIENCE_SECONDS" in_force node-a direct "on the uplink's link"
    check "for a neighbour that is found" wait_until "$PATIENCE_SECONDS" ready node-a
    check "b1 is reached" pings a1 "$(address b1 4)"
    check "and reaches, by its tunnel" pings b1 "$(address a1 4)"
    check "pods' packets still fit into a tunnel" link_has_mtu a1 eth0 1450
    in_ip node-a route del "${HOST_ADDRESS[node-b]}/32" dev eth0
    check "behind the router again" wait_until "$PATIENCE_SECONDS" in_force node-a vxlan 'behind router'
    check "b1 is reached" pings a1 "$(address b1 4)"
}

main "$@"
