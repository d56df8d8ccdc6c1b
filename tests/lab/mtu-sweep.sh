#!/bin/bash
# Packets of every size, from one byte of content to 200 bytes more than the way takes, by UDP, ICMP
# and TCP, over each encapsulation, both ways, over IPv4 and IPv6, from pods and from a node: each
# arrives, or its sender hears the length that passes. Nothing vanishes.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

readonly PORT=9000 BEYOND=200

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
    sinks_up a1 a2 b1
    heading "pod to pod on one node"
    widen a1 eth0
    sweeps a1 a2 1450
    for mode in vxlan:1450 ipip:1480 direct:1500; do
        heading "pod to pod by ${mode%:*}"
        between_nodes "${mode%:*}" "${mode#*:}"
    done
    heading "node to pod of another node"
    check "back to vxlan" set_modes vxlan
    widen node-a vsw0
    sweeps node-a b1 1450
    for mode in node-a node-b; do check "$mode accounts for every packet" accounts "$mode"; done
    report_end
}

# between_nodes MODE WAY_MTU
between_nodes() {
    check "both nodes use $1" set_modes "$1"
    widen a1 eth0
    widen b1 eth0
    sweeps a1 b1 "$2"
    sweeps b1 a1 "$2"
}

set_modes() {
    local node
    for node in node-a node-b; do
        node_overlay "$node" "encapsulation = \"$1\"" && node_adjust "$node" || return 1
    done
}

# sinks_up POD…: what takes packets, for each family.
sinks_up() {
    local pod family
    for pod in "$@"; do
        for family in 4 6; do
            lab_spawn "sink$family-$pod" "$pod" /usr/bin/python3 "$root/tests/lab/size_sweep.py" \
                serve "$(address "$pod" "$family")" "$PORT"
            wait_until 10 listens "$pod" "$((PORT + 1))" || die "The sink in $pod does not listen"
        done
    done
}

# widen NAME INTERFACE: the interface takes what the way does not, or nothing too long would leave it.
widen() { in_ip "$1" link set "$2" mtu 2000; }

# sweeps FROM TO WAY_MTU: both families at once.
sweeps() {
    local family pids=()
    for family in 4 6; do
        in_ns "$1" /usr/bin/python3 "$root/tests/lab/size_sweep.py" send "$(address "$1" "$family")" \
            "$(address "$2" "$family")" "$PORT" "$(($3 + BEYOND))" "$3" \
            >"$LAB_DIR/logs/sweep$family-$1-$2.log" 2>&1 &
        pids[family]=$!
    done
    for family in 4 6; do
        wait "${pids[family]}" || true
        check "$1 to $2, IPv$family, up to $(($3 + BEYOND)) bytes where $3 pass" \
            says_nothing "$LAB_DIR/logs/sweep$family-$1-$2.log"
    done
}

# says_nothing LOG: what is wrong would be in it.
says_nothing() {
    cat "$1"
    [[ ! -s $1 ]]
}

main "$@"
