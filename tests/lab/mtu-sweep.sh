#!/bin/bash
# Packets of every size, from one byte of content to 200 bytes more than the way takes, by UDP, ICMP
# and TCP, of IPv4 and IPv6, over an IPv4 underlay: by each encapsulation, both ways, between pods and
# between a node and pods. Each arrives, or its sender hears the length that passes. Nothing vanishes.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local mode
    setup_binaries
    lab_trap
    lab_create
    two_nodes_up vxlan
    underlay_route_pods node-a
    underlay_route_pods node-b
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    sinks_up a1 a2 b1 node-a
    heading "pod to pod on one node"
    widen a1 eth0
    sweeps a1 a2 1450
    for mode in vxlan:1450 ipip:1480 direct:1500; do
        heading "pod to pod by ${mode%:*}"
        between_nodes "${mode#*:}" "${mode%:*}"
    done
    for mode in 'clamp_mss = true' 'outer_df = "clear"' 'outer_df = "inherit"'; do
        heading "pod to pod by vxlan, $mode"
        between_nodes 1450 vxlan "$mode"
    done
    heading "between nodes and pods"
    check "back to vxlan" set_modes vxlan
    widen node-a vsw0
    sweeps node-a b1 1450
    sweeps b1 node-a 1450
    sweeps node-a a1 1450
    sweeps a1 node-a 1450
    for mode in node-a node-b; do check "$mode accounts for every packet" accounts "$mode"; done
    report_end
}

# between_nodes WAY_MTU MODE [LINE]
between_nodes() {
    local mtu=$1
    shift
    check "both nodes use $*" set_modes "$@"
    widen a1 eth0
    widen b1 eth0
    sweeps a1 b1 "$mtu"
    sweeps b1 a1 "$mtu"
}

# set_modes MODE [LINE]
set_modes() {
    local node
    for node in node-a node-b; do
        node_overlay "$node" "encapsulation = \"$1\"" "${@:2}" && node_adjust "$node" || return 1
    done
}

main "$@"
