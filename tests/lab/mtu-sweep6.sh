#!/bin/bash
# As mtu-sweep.sh over an IPv6 underlay: by VXLAN over IPv6, and by direct routing between nodes that
# have no IPv4 address; both ways, between pods and between a node and pods. Nothing vanishes.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local mode node
    setup_binaries
    lab_trap
    for mode in vxlan:1430 direct:1500; do
        lab_create
        underlay6_up node-a node-b
        node6_up node-a "${mode%:*}" node-b
        node6_up node-b "${mode%:*}" node-a
        underlay6_route_pods node-a
        underlay6_route_pods node-b
        pod_plug node-a a1
        pod_plug node-b b1
        sinks_up a1 b1 node-a
        heading "by ${mode%:*} over IPv6"
        everywhere "${mode#*:}"
        [[ ${mode%:*} != vxlan ]] || clamped "${mode#*:}"
        for node in node-a node-b; do check "$node accounts for every packet" accounts "$node"; done
        lab_down
    done
    report_end
}

# everywhere WAY_MTU
everywhere() {
    check "a1 has an MTU of $1" link_has_mtu a1 eth0 "$1"
    widen a1 eth0
    widen b1 eth0
    sweeps a1 b1 "$1"
    sweeps b1 a1 "$1"
    widen node-a vsw0
    sweeps node-a b1 "$1"
    sweeps b1 node-a "$1"
}

# clamped WAY_MTU
clamped() {
    local node
    heading "by vxlan over IPv6, clamp_mss = true"
    for node in node-a node-b; do
        check "$node reloads it" node_overlay "$node" 'encapsulation = "vxlan"' 'clamp_mss = true'
    done
    sweeps a1 b1 "$1"
    sweeps b1 a1 "$1"
}

main "$@"
