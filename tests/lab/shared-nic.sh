#!/bin/bash
# Two workers on a NIC of one queue: the first owns the queue, receives for both and sends by its AF_XDP socket, the
# second sends without one. Pods of both reach the other node over VXLAN and IPIP, by packets of every size, and
# the books close.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=scripts/lib/all.sh
. "$root/scripts/lib/all.sh"

main() {
    local node cores
    setup_binaries
    lab_trap
    lab_create
    cores="$(allowed_cpu 0), $(allowed_cpu 1)"
    if [[ ${cores%,*} == "${cores#*, }" ]]; then
        skip "two workers on one queue" "this process may run on one CPU only"
        report_end
        exit
    fi
    underlay_up
    for node in node-a node-b; do
        underlay_attach_node "$node"
        mkdir -p "$(node_dir "$node")/state" "$(node_dir "$node")/pods"
    done
    # A veth takes XDP only if its other end sends by no more queues than it has.
    in_ns router ethtool -L to-node-a rx 1 tx 1
    in_ns node-a ethtool -L eth0 rx 1 tx 1
    node_config node-a vxlan node-b | sed "s|^cores = .*|cores = [$cores]|; s|^\[uplink\]|&\nsend_by = \"af_xdp\"|" \
        >"$(node_dir node-a)/vswitch.toml"
    node_config node-b vxlan node-a >"$(node_dir node-b)/vswitch.toml"
    node_start node-a
    node_start node-b
    pod_plug node-a a1
    pod_plug node-a a2
    pod_plug node-b b1
    servers_up a1 a2 b1 node-a outside
    check "the second worker has no queue and sends all the same" shared node-a "[$cores]"
    check "status names both kinds" says_both node-a
    check "a1 is the first worker's, a2 the second's" receives node-a '{"a1": 0, "a2": 1}'
    matrix a1 a2 b1 node-a
    check "a2 to outside, seen as its node" sees a2 "${HOST_ADDRESS[outside]}" \
        "${HOST_ADDRESS[node-a]} ${HOST_ADDRESS[outside]}"
    sinks_up a2 b1
    for node in a2 b1; do widen "$node" eth0; done
    sweeps a2 b1 1450
    sweeps b1 a2 1450
    check "the NIC has one packet socket" test "$(packet_sockets | wc -l)" = 1
    check "both nodes use ipip" use_ipip
    matrix a1 a2 b1 node-a
    for node in node-a node-b; do check "$node accounts for every packet" accounts "$node"; done
    check "DEL of a2" pod_unplug node-a a2
    check "a1 still reaches b1" talks a1 b1 4
    check "SIGTERM ends it" lab_signal vswitchd-node-a TERM
    check "its packet socket is gone" test -z "$(packet_sockets)"
    report_end
}

shared() {
    ctl "$1" status --json | jq -e --argjson cores "$2" '
        [.workers[].core] == $cores and ([.workers[].queues] == [[0], []])
        and ([.workers[].sends_by] == ["af_xdp", "af_packet"])
        and .uplink.kind == "af_xdp" and .uplink.queues == 1
    ' || { ctl "$1" status && return 1; }
}

says_both() {
    local said pattern
    said=$(ctl "$1" status)
    for pattern in '^0 .* af_xdp ' '^1 .* - +af_packet ' 'queues \[\], sends by af_packet'; do
        grep -Eq "$pattern" <<<"$said" || { echo "$said" && return 1; }
    done
}

# receives NODE JSON: which worker receives from which pod.
receives() {
    ctl "$1" show ports --json | jq -e --argjson expected "$2" '
        [.[] | select(.kind == "pod") | {key: .name, value: .worker}] | from_entries
        | with_entries(.key |= sub(".*/"; "")) == $expected
    ' || { ctl "$1" show ports && return 1; }
}

# Those of the namespace that are bound to the NIC.
packet_sockets() { in_ns node-a ss -Hna0 | grep eth0 || true; }

use_ipip() {
    local node
    for node in node-a node-b; do
        node_overlay "$node" 'encapsulation = "ipip"' && node_adjust "$node" || return 1
    done
}

main "$@"
