#!/bin/bash
# A link on the way to the other node that takes less than the NIC: its router says so, the tunnel's
# MTU follows, pods are told, and what may be cut arrives in fragments. Nothing vanishes but the one
# packet that found out.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly NARROW=1400

main() {
    local mode
    setup_binaries
    lab_trap
    for mode in vxlan:50 ipip:20; do
        lab_create
        two_nodes_up "${mode%:*}"
        pod_plug node-a a1
        pod_plug node-b b1
        narrowed "${mode%:*}" $((1500 - ${mode#*:})) $((NARROW - ${mode#*:}))
        lab_down
    done
    report_end
}

# narrowed MODE MTU NARROWED
narrowed() {
    local mode=$1 before=$2 after=$3
    check "$mode: IPv4 of $before bytes passes" pings_sized a1 b1 4 $((before - 28))
    # One way only: a device of that MTU would drop what comes the other way unheard.
    in_ip router route add "${HOST_ADDRESS[node-b]}/32" dev lan-b mtu lock "$NARROW"
    # Lost on the way, and told to the node that sent the tunnel packet.
    in_ns a1 ping -q -n -M "do" -c 1 -w 1 -s $((before - 28)) "$(address b1 4)" >/dev/null || true
    check "$mode: node-a knows that $after bytes pass to node-b" wait_until 10 peer_takes node-a "$after"
    check "$mode: what the router said is counted" noted node-a
    check "$mode: IPv4 of one byte more is answered with the MTU" \
        is_told "mtu ?= ?$after" -M "do" -s $((after - 27)) "$(address b1 4)"
    check "$mode: IPv6 of one byte more is answered with the MTU" \
        is_told "mtu ?= ?$after" -M "do" -s $((after - 47)) "$(address b1 6)"
    check "$mode: IPv4 of $after bytes passes" pings_sized a1 b1 4 $((after - 28))
    check "$mode: IPv6 of $after bytes passes" pings_sized a1 b1 6 $((after - 48))
    check "$mode: what may be cut passes" in_ns a1 ping -q -n -M dont -s $((before - 28)) -c 2 -i 0.2 -w 2 \
        "$(address b1 4)"
    check "$mode: node-b is not concerned" peer_takes node-b "$before"
    check "$mode: node-a accounts for every packet" accounts node-a
    check "$mode: node-b accounts for every packet" accounts node-b
}

peer_takes() { [[ $(ctl "$1" --json show peers | jq '.[0].mtu') == "$2" ]]; }

noted() { ctl "$1" show drops | grep -q path-mtu-noted; }

# pings_sized FROM TO FAMILY BYTES
pings_sized() {
    in_ns "$1" ping -q -n -M "do" -s "$4" -c 2 -i 0.2 -w 2 "$(address "$2" "$3")"
}

# is_told PATTERN PING…: what ping in a1 says matches.
is_told() {
    local pattern=$1 said
    shift
    said=$(in_ns a1 ping -n -c 2 -i 0.3 -w 2 "$@" 2>&1) || true
    grep -Eq "$pattern" <<<"$said" || { echo "$said" && return 1; }
}

main "$@"
