#!/bin/bash
# The kernel's VXLAN at one end, ours at the other, both ways: the pods of node-k, which runs no
# vswitchd, and those of our two nodes. node-k is in node-a's subnet and behind the router for
# node-b, so that both kinds of next hop are met.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local lacks
    lacks=$(kernel_vxlan_lacks)
    if [[ -n $lacks ]]; then
        skip "the kernel's VXLAN as a peer" "this machine lacks $lacks"
        report_end
        exit
    fi
    setup_binaries
    lab_trap
    lab_create
    WITH_KERNEL_NODE=yes
    two_nodes_up vxlan
    pod_plug node-a a1
    pod_plug node-b b1
    kernel_pod_plug k1 11
    kernel_pod_plug k2 12
    servers_up a1 b1 k1 k2
    matrix a1 b1 k1 k2
    check "a packet of full size, k1 to a1" full_size k1 a1
    check "a packet of full size, a1 to k1" full_size a1 k1
    # flannel's hosts are reached so by what binds to their address.
    check "node-k by its underlay address and a1" \
        in_ns node-k ping -q -n -I "${HOST_ADDRESS[node-k]}" -c 2 -i 0.2 -w 2 "$(address a1 4)"
    report_end
}

# full_size FROM TO: 1450 bytes of IPv4, not to be fragmented.
full_size() { in_ns "$1" ping -q -n -M "do" -s 1422 -c 2 -i 0.2 -w 3 "$(address "$2" 4)"; }

main "$@"
